//! Gets through [`object_store::ObjectStore`].
//!
//! With `if_match`, a get of a range is [`TieredStore::read`](super::TieredStore::read). Without it, what is there *now* is
//! wanted: short ranges are one request each; long ones are read in parallel parts of one version, the one that is remembered
//! of the object, or that a first request gives. When the remembered one turns out to be replaced, the call begins anew,
//! once, as long as it has given nothing to its caller.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::future::{Either, FutureExt, try_join_all};
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{Attributes, Error, GetOptions, GetRange, GetResult, GetResultPayload, ObjectMeta, Result};

use super::{Cut, Shared, part};
use crate::coalesce::{coalesce, split};
use crate::controller::Urgency;
use crate::read::{Account, Meter, ObjectRef, Read, ReadClass};
use crate::request::errors::{Broken, Replaced};
use crate::request::{Ask, Fetched, bare};

/// Parts of one stream that are fetched ahead of its reader.
const AHEAD_PARTS: usize = 8;
/// Ranges up to this are given as one buffer, longer ones as a stream.
const WHOLE_BYTES_MAX: u64 = 64 << 20;

/// Longest answer without a named version that is kept.
const FOOTER_BYTES_MAX: usize = 1 << 20;

/// Who asks.
struct Caller {
    class: ReadClass,
    account: Option<Arc<Account>>,
    meter: Meter,
}

impl Shared {
    pub(super) async fn get(self: &Arc<Self>, location: &Path, options: GetOptions) -> Result<GetResult> {
        let caller = self.caller(&options);
        if options.head {
            return self.head(location, &options, &caller).await;
        }
        if let Some(range) = &options.range {
            range.is_valid().map_err(|error| generic(Box::new(error)))?;
        }
        let conditional = options.if_none_match.is_some()
            || options.if_modified_since.is_some()
            || options.if_unmodified_since.is_some()
            || options.version.is_some()
            || options
                .if_match
                .as_deref()
                .is_some_and(|tags| tags == "*" || tags.contains(','));
        if conditional {
            return self.get_once(location, options.range.clone(), &options, &caller).await;
        }
        if options.if_match.is_some() {
            return self.get_version(location, &options, &caller).await;
        }
        self.get_now(location, &options, &caller).await
    }

    /// Of one version: all parallel, and answers that differ are asked for once more.
    pub(super) async fn get_ranges(self: &Arc<Self>, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        for range in ranges.iter().filter(|range| !range.is_empty()) {
            GetRange::Bounded(range.clone())
                .is_valid()
                .map_err(|error| generic(Box::new(error)))?;
        }
        let options = GetOptions::default();
        let caller = self.caller(&options);
        let all: Vec<_> = (0..ranges.len()).filter(|index| !ranges[*index].is_empty()).collect();
        let wanted: Vec<_> = all.iter().map(|index| ranges[*index].clone()).collect();
        let merged = coalesce(&wanted, self.gap_bytes(), self.options.split_bytes);
        let requests: Vec<_> = (merged.iter())
            .flat_map(|merged| split(&merged.range, self.options.split_bytes, self.options.part_bytes))
            .collect();
        let fetched = self.fetch_all(location, &requests, &caller).await?;
        let mut found = vec![Bytes::new(); ranges.len()];
        let mut fetched = requests.into_iter().zip(fetched);
        for merged in &merged {
            let mut parts = Vec::new();
            let mut end = merged.range.start;
            while end < merged.range.end {
                let Some((range, bytes)) = fetched.next() else { break };
                end = range.end;
                parts.push(bytes);
            }
            let bytes = joined(parts);
            caller.meter.add(|account| &account.gap_bytes, merged.gap_bytes);
            for member in &merged.members {
                let range = &wanted[*member];
                // A range that ends beyond the object is given as far as it goes.
                let there = merged.range.start + bytes.len() as u64;
                let range = range.start.min(there)..range.end.min(there);
                caller
                    .meter
                    .add(|account| &account.needed_bytes, range.end - range.start);
                found[all[*member]] = part(&bytes, &range, merged.range.start);
            }
        }
        Ok(found)
    }

    fn caller(&self, options: &GetOptions) -> Caller {
        let account = options.extensions.get::<Arc<Account>>().cloned();
        Caller {
            class: options.extensions.get::<ReadClass>().copied().unwrap_or_default(),
            meter: self.requests.meter(account.clone()),
            account,
        }
    }

    async fn head(&self, location: &Path, options: &GetOptions, caller: &Caller) -> Result<GetResult> {
        let urgency = Urgency::new(caller.class);
        let result = self.requests.head(location, options, &urgency, &caller.meter).await;
        let result = result.map_err(|error| match (error, &options.if_match) {
            (Error::Precondition { path, .. }, Some(expected)) => Error::Precondition {
                path,
                source: Box::new(Replaced {
                    expected: expected.clone(),
                    found: None,
                }),
            },
            (error, _) => error,
        })?;
        self.known.remember(&result.meta);
        Ok(result)
    }

    async fn head_meta(&self, location: &Path, caller: &Caller) -> Result<ObjectMeta> {
        let options = GetOptions::new().with_head(true);
        Ok(self.head(location, &options, caller).await?.meta)
    }

    /// One request, whatever its conditions. What came is kept as of the version that the answer names: planners ask for a
    /// footer before readers do.
    async fn get_once(
        self: &Arc<Self>,
        location: &Path,
        range: Option<GetRange>,
        options: &GetOptions,
        caller: &Caller,
    ) -> Result<GetResult> {
        let fetched = self.fetch_now(location, range, options, None, caller).await?;
        let (meta, range, attributes) = (fetched.meta.clone(), fetched.range.clone(), fetched.attributes.clone());
        let bytes = self.kept(fetched, caller);
        caller.meter.add(|account| &account.needed_bytes, bytes.len() as u64);
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream::iter([Ok(bytes)]).boxed()),
            meta,
            range,
            attributes,
        })
    }

    /// What came, which the tiers may keep as of the version that it is of, if it may be a footer: these gets look for
    /// nothing in the tiers, so that more would only push out what others look for.
    fn kept(&self, fetched: Fetched, caller: &Caller) -> Bytes {
        let bytes = fetched.bytes.freeze();
        if fetched.meta.e_tag.is_some() && bytes.len() <= FOOTER_BYTES_MAX {
            let object = Arc::new(ObjectRef::new(&fetched.meta));
            let (start, reader) = (fetched.range.start, caller.meter.reader());
            self.tiers.put(&self.key, &object, start, &bytes, caller.class, reader);
        }
        bytes
    }

    /// A fetch in a task of its own, without tiers and flights.
    async fn fetch_now(
        self: &Arc<Self>,
        location: &Path,
        range: Option<GetRange>,
        options: &GetOptions,
        version: Option<Arc<ObjectRef>>,
        caller: &Caller,
    ) -> Result<Fetched> {
        let (shared, location, meter) = (Arc::clone(self), location.clone(), caller.meter.clone());
        let (template, urgency) = (options.clone(), Urgency::new(caller.class));
        let fetched = spawned(async move {
            let ask = Ask {
                location: &location,
                range,
                template,
                version: version.as_deref(),
            };
            shared.requests.fetch(&ask, &urgency, &meter, BytesMut::new()).await
        })
        .await?;
        self.known.remember(&fetched.meta);
        Ok(fetched)
    }

    /// A get of the version that the caller names.
    async fn get_version(
        self: &Arc<Self>,
        location: &Path,
        options: &GetOptions,
        caller: &Caller,
    ) -> Result<GetResult> {
        let expected = options.if_match.clone().unwrap_or_default();
        let is = |meta: &ObjectMeta| {
            meta.e_tag
                .as_deref()
                .is_some_and(|e_tag| bare(e_tag) == bare(&expected))
        };
        let meta = match self.known.get(location).filter(is) {
            Some(meta) => meta,
            None => {
                let head = GetOptions {
                    head: true,
                    range: None,
                    ..options.clone()
                };
                self.head(location, &head, caller).await?.meta
            }
        };
        let range = resolve(options.range.as_ref(), &meta)?;
        self.get_parts(meta, range, caller, false).await
    }

    /// A get of what is there now.
    async fn get_now(self: &Arc<Self>, location: &Path, options: &GetOptions, caller: &Caller) -> Result<GetResult> {
        let known = self.known.get(location);
        let longest = self.options.split_bytes;
        let one_request = match (&options.range, &known) {
            (Some(GetRange::Bounded(range)), _) => range.end - range.start <= longest,
            (Some(GetRange::Suffix(bytes)), None) => *bytes <= longest,
            (range, Some(meta)) => resolve(range.as_ref(), meta).is_ok_and(|range| range.end - range.start <= longest),
            (_, None) => false,
        };
        if one_request {
            let result = self.get_once(location, options.range.clone(), options, caller).await;
            return match (result, &options.range) {
                // Azure has no suffix ranges.
                (Err(Error::NotSupported { .. }), Some(GetRange::Suffix(_))) => {
                    let meta = self.head_meta(location, caller).await?;
                    let range = resolve(options.range.as_ref(), &meta)?;
                    self.get_once(location, Some(GetRange::Bounded(range)), options, caller)
                        .await
                }
                (result, _) => result,
            };
        }
        let remembered = known.is_some();
        let meta = match known {
            Some(meta) => meta,
            None => self.head_meta(location, caller).await?,
        };
        let result = match resolve(options.range.as_ref(), &meta) {
            Ok(range) => self.get_parts(meta, range, caller, true).await,
            Err(error) => Err(error),
        };
        match result {
            Err(_) if remembered => {
                self.forget(location);
                let meta = self.head_meta(location, caller).await?;
                let range = resolve(options.range.as_ref(), &meta)?;
                self.get_parts(meta, range, caller, true).await
            }
            result => result,
        }
    }

    /// A range of a version. `unconfirmed`: the store must say that this version is there before anything is given.
    async fn get_parts(
        self: &Arc<Self>,
        meta: ObjectMeta,
        range: Range<u64>,
        caller: &Caller,
        unconfirmed: bool,
    ) -> Result<GetResult> {
        let object = Arc::new(ObjectRef::new(&meta));
        let mut parts = split(&range, self.options.split_bytes, self.options.part_bytes);
        let mut first = None;
        if !unconfirmed && range.end - range.start <= WHOLE_BYTES_MAX {
            first = Some(self.read_part(&object, range.clone(), caller).await?);
            parts.clear();
        }
        let confirmed = unconfirmed.then(|| parts.remove(0));
        let mut rest = self.parts(Arc::clone(&object), parts, caller).peekable();
        if let Some(part) = confirmed {
            let confirming = self.confirming(&object, part, caller).boxed();
            // Looking at the rest begins it, while the first part is on its way.
            let begun = futures::future::select(confirming, Pin::new(&mut rest).peek()).await;
            first = Some(match begun {
                Either::Left((bytes, _)) => bytes?,
                Either::Right((_, confirming)) => confirming.await?,
            });
        }
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream::iter(first.map(Ok)).chain(rest).boxed()),
            meta,
            range,
            attributes: Attributes::new(),
        })
    }

    async fn confirming(
        self: &Arc<Self>,
        object: &Arc<ObjectRef>,
        range: Range<u64>,
        caller: &Caller,
    ) -> Result<Bytes> {
        let whole = (!range.is_empty()).then_some(GetRange::Bounded(range));
        let version = Some(Arc::clone(object));
        let options = GetOptions::default();
        let fetched = self
            .fetch_now(&object.location, whole, &options, version, caller)
            .await?;
        let bytes = fetched.bytes.freeze();
        caller.meter.add(|account| &account.needed_bytes, bytes.len() as u64);
        let (start, reader) = (fetched.range.start, caller.meter.reader());
        self.tiers.put(&self.key, object, start, &bytes, caller.class, reader);
        Ok(bytes)
    }

    fn parts(
        self: &Arc<Self>,
        object: Arc<ObjectRef>,
        parts: Vec<Range<u64>>,
        caller: &Caller,
    ) -> BoxStream<'static, Result<Bytes>> {
        let (shared, class, account) = (Arc::clone(self), caller.class, caller.account.clone());
        stream::iter(parts)
            .map(move |range| {
                let read = Read {
                    object: Arc::clone(&object),
                    range,
                    class,
                    account: account.clone(),
                };
                let shared = Arc::clone(&shared);
                async move { shared.read(&read, Cut::default()).await }
            })
            .buffered(AHEAD_PARTS)
            .boxed()
    }

    async fn read_part(self: &Arc<Self>, object: &Arc<ObjectRef>, range: Range<u64>, caller: &Caller) -> Result<Bytes> {
        let read = Read {
            object: Arc::clone(object),
            range,
            class: caller.class,
            account: caller.account.clone(),
        };
        self.read(&read, Cut::default()).await
    }

    /// Ranges of one version of an object, whichever it is; none is longer than a request.
    async fn fetch_all(
        self: &Arc<Self>,
        location: &Path,
        ranges: &[Range<u64>],
        caller: &Caller,
    ) -> Result<Vec<Bytes>> {
        let mut version: Option<Arc<ObjectRef>> = None;
        loop {
            let fetches = ranges.iter().map(|range| {
                let options = GetOptions::default();
                let (range, version) = (GetRange::Bounded(range.clone()), version.clone());
                async move { self.fetch_now(location, Some(range), &options, version, caller).await }
            });
            let fetched = try_join_all(fetches).await?;
            let Some(newest) = fetched
                .iter()
                .map(|fetched| &fetched.meta)
                .max_by_key(|meta| meta.last_modified)
            else {
                return Ok(Vec::new());
            };
            let newest = Arc::new(ObjectRef::new(newest));
            let same = |fetched: &Fetched| ObjectRef::new(&fetched.meta).version == newest.version;
            if version.is_some() || fetched.iter().all(same) {
                return Ok(fetched.into_iter().map(|fetched| self.kept(fetched, caller)).collect());
            }
            version = Some(newest);
        }
    }
}

/// Runs in a task, so that it goes on while its caller does other things; ends with its caller.
async fn spawned<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

    impl<T> Drop for AbortOnDrop<T> {
        fn drop(&mut self) {
            self.0.abort();
        }
    }

    let runtime = tokio::runtime::Handle::try_current().map_err(|_| Broken::NoRuntime.into_error())?;
    let mut task = AbortOnDrop(runtime.spawn(work.boxed()));
    (&mut task.0).await.unwrap_or_else(|_| Err(Broken::Ended.into_error()))
}

fn resolve(range: Option<&GetRange>, meta: &ObjectMeta) -> Result<Range<u64>> {
    match range {
        None => Ok(0..meta.size),
        Some(range) => range.as_range(meta.size).map_err(|error| generic(Box::new(error))),
    }
}

fn generic(source: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::Generic { store: "lake", source }
}

fn joined(mut parts: Vec<Bytes>) -> Bytes {
    if parts.len() <= 1 {
        return parts.pop().unwrap_or_default();
    }
    let mut all = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    parts.iter().for_each(|part| all.extend_from_slice(part));
    all.freeze()
}
