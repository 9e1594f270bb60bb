//! A store behind the tiers, with parallel, hedged and retried requests.
//!
//! Two faces. [`TieredStore::read`] is for readers that know the version of what they read: tiers, single flight, slots by
//! urgency. [`ObjectStore`] is for everybody else ([`face`]): with `if_match` a get is such a read; without it the caller
//! wants what is there now, so nothing cached is given before the store has confirmed its version.

mod face;
mod gets;
mod known;
#[cfg(test)]
mod tests;
mod upload;

use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures::future::{BoxFuture, FutureExt, try_join_all};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, Result};

use crate::buffers::Buffers;
use crate::coalesce::{coalesce, split};
use crate::controller::Urgency;
use crate::flight::Flights;
use crate::look::Place;
use crate::metrics::StoreMetrics;
use crate::options::LakeOptions;
use crate::read::{Account, Meter, ObjectRef, Read, ReadClass};
use crate::request::errors::Broken;
use crate::request::{Ask, Requests};
use crate::tiers::{Found, Tiers};
use known::Known;

/// A gap that is merged before anything is measured.
const GAP_BYTES_UNKNOWN: f64 = 512.0 * 1024.0;
/// Bounds of what measurements say.
const GAP_BYTES_MIN: f64 = 16.0 * 1024.0;
const GAP_BYTES_MAX: f64 = 4.0 * 1024.0 * 1024.0;

/// The clients of one store.
#[derive(Debug, Clone)]
pub struct Clients {
    /// Ranges are read through these in turn, and again through another one after an error: each has connections of its
    /// own. They should not retry by themselves (`RetryConfig::max_retries` 0), nor have a timeout for whole requests. At
    /// least one.
    pub readers: Vec<Arc<dyn ObjectStore>>,
    /// Everything else, with retries of its own.
    pub other: Arc<dyn ObjectStore>,
}

impl From<Arc<dyn ObjectStore>> for Clients {
    fn from(store: Arc<dyn ObjectStore>) -> Self {
        Self {
            readers: vec![Arc::clone(&store)],
            other: store,
        }
    }
}

/// See the module.
pub struct TieredStore {
    name: String,
    shared: Arc<Shared>,
}

/// What a request is made of, beside its range.
#[derive(Debug, Clone, Copy, Default)]
struct Cut {
    /// Of its bytes: needed by nobody.
    gap_bytes: u64,
    /// Parts that are requests; what the options say if none.
    part_bytes: Option<u64>,
}

/// What running reads keep alive.
struct Shared {
    key: Arc<str>,
    other: Arc<dyn ObjectStore>,
    options: LakeOptions,
    requests: Requests,
    flights: Arc<Flights>,
    tiers: Arc<Tiers>,
    buffers: Arc<Buffers>,
    known: Known,
    /// Of objects, by this process.
    changes: AtomicU64,
    totals: Arc<Account>,
}

impl TieredStore {
    pub(crate) fn new(
        key: &str,
        name: &str,
        clients: impl Into<Clients>,
        options: &LakeOptions,
        tiers: &Arc<Tiers>,
        buffers: &Arc<Buffers>,
    ) -> Arc<Self> {
        let Clients { mut readers, other } = clients.into();
        if readers.is_empty() {
            readers.push(Arc::clone(&other));
        }
        let totals = Arc::new(Account::default());
        Arc::new(Self {
            name: name.to_owned(),
            shared: Arc::new(Shared {
                key: key.into(),
                other,
                requests: Requests::new(readers, options, Arc::clone(&totals)),
                options: options.clone(),
                flights: Arc::default(),
                tiers: Arc::clone(tiers),
                buffers: Arc::clone(buffers),
                known: Known::new(),
                changes: AtomicU64::new(0),
                totals,
            }),
        })
    }

    /// Reads one range, from wherever it is nearest. Must be polled within a tokio runtime; what it fetches is fetched by
    /// tasks there, whether or not it is polled.
    ///
    /// # Errors
    /// The store's, after all attempts; [`object_store::Error::Precondition`] when the object was replaced.
    pub async fn read(&self, read: &Read) -> Result<Bytes> {
        self.shared.read(read, Cut::default()).await
    }

    /// [`TieredStore::read`] of a range of which `gap_bytes` are needed by nobody, as [`TieredStore::gap_bytes`] allowed, in
    /// requests of about `part_bytes`: who has many ranges under way within a window gets more from short requests than from
    /// long ones.
    ///
    /// # Errors
    /// As there.
    pub async fn read_merged(&self, read: &Read, gap_bytes: u64, part_bytes: u64) -> Result<Bytes> {
        let part_bytes = Some(part_bytes);
        self.shared.read(read, Cut { gap_bytes, part_bytes }).await
    }

    /// Reads ranges of one object: neighbours together, all at once. In the order of `ranges`.
    ///
    /// # Errors
    /// As [`TieredStore::read`].
    pub async fn read_ranges(
        &self,
        object: &Arc<ObjectRef>,
        ranges: &[Range<u64>],
        class: ReadClass,
        account: Option<&Arc<Account>>,
    ) -> Result<Vec<Bytes>> {
        self.shared.read_ranges(object, ranges, class, account).await
    }

    /// Makes a read that is under way, and that will bring this range, at least as urgent as `class`. Does nothing when there
    /// is none.
    pub fn raise(&self, object: &ObjectRef, range: &Range<u64>, class: ReadClass) {
        let shared = &self.shared;
        shared.flights.raise(shared.requests.controller(), object, range, class);
    }

    /// A gap between two ranges of an object that is worth reading along: what arrives on one connection in the time of a
    /// request's first byte.
    pub fn gap_bytes(&self) -> u64 {
        self.shared.gap_bytes()
    }

    /// What is fetched ahead and not yet taken, of this store and all others, is so many bytes more.
    pub(crate) fn hold(&self, bytes: u64) {
        let tiers = &self.shared.tiers;
        let ahead_bytes = tiers.ahead_bytes.fetch_add(bytes, Relaxed) + bytes;
        tiers.ahead_bytes_max.fetch_max(ahead_bytes, Relaxed);
    }

    /// The opposite of [`TieredStore::hold`].
    pub(crate) fn release(&self, bytes: u64) {
        self.shared.tiers.ahead_bytes.fetch_sub(bytes, Relaxed);
    }

    /// Counts what only a prefetch knows, for the store and for whoever reads.
    pub(crate) fn meter(&self, account: &Arc<Account>) -> Meter {
        self.shared.requests.meter(Some(Arc::clone(account)))
    }

    /// A reader has waited for what was fetched ahead.
    pub(crate) fn count_wait(&self, waited_ns: u64) {
        self.shared.totals.count_wait(waited_ns);
    }

    /// For people: scheme and bucket.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Numbers.
    pub fn metrics(&self) -> StoreMetrics {
        let controller = self.shared.requests.controller();
        let (in_flight, in_flight_limit) = controller.in_flight();
        let (goodput, estimated) = controller.goodput();
        let first_byte = controller.measures().any_first_bytes().unwrap_or_default();
        StoreMetrics {
            store: self.name.clone(),
            totals: self.shared.totals.totals(),
            in_flight,
            in_flight_limit,
            goodput_bytes_per_second: goodput,
            estimated_bytes_per_second: estimated,
            first_byte_p50_seconds: first_byte.p50,
            first_byte_p95_seconds: first_byte.p95,
            throttled: controller.throttled(),
        }
    }
}

impl Shared {
    async fn read(self: &Arc<Self>, read: &Read, cut: Cut) -> Result<Bytes> {
        let (range, object) = (&read.range, &read.object);
        if range.end < range.start || range.end > object.size_bytes {
            return Err(Broken::Range(range.start, range.end, object.size_bytes).into_error());
        }
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let meter = self.requests.meter(read.account.clone());
        meter.add(
            |account| &account.needed_bytes,
            (range.end - range.start).saturating_sub(cut.gap_bytes),
        );
        if !self.options.enabled {
            return self.plain(object, range, &meter).await;
        }
        if let Some(bytes) = self.cached(object, range, &meter).await {
            return Ok(bytes);
        }
        let begun = Instant::now();
        let bytes = self.fly(read, cut, &meter).await;
        if read.class == ReadClass::Demand {
            let waited_ns = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.totals.count_wait(waited_ns);
        }
        bytes
    }

    /// One request as it is: the lake is off.
    async fn plain(&self, object: &ObjectRef, range: &Range<u64>, meter: &Meter) -> Result<Bytes> {
        let options = GetOptions {
            if_match: object.e_tag.clone(),
            range: Some(GetRange::Bounded(range.clone())),
            ..GetOptions::default()
        };
        meter.asked();
        let bytes = self.other.get_opts(&object.location, options).await?.bytes().await?;
        meter.fetched(bytes.len() as u64, 0);
        match (bytes.len() as u64).cmp(&(range.end - range.start)) {
            Ordering::Equal => Ok(bytes),
            _ => Err(Broken::OtherRange(format!("{} bytes", bytes.len()), format!("{range:?}")).into_error()),
        }
    }

    async fn read_ranges(
        self: &Arc<Self>,
        object: &Arc<ObjectRef>,
        ranges: &[Range<u64>],
        class: ReadClass,
        account: Option<&Arc<Account>>,
    ) -> Result<Vec<Bytes>> {
        let meter = self.requests.meter(account.cloned());
        let mut found = Vec::with_capacity(ranges.len());
        let mut missing = Vec::new();
        for (index, range) in ranges.iter().enumerate() {
            let cached = match range.is_empty() {
                true => Some(Bytes::new()),
                false => self.cached(object, range, &meter).await,
            };
            match &cached {
                Some(bytes) => meter.add(|account| &account.needed_bytes, bytes.len() as u64),
                None => missing.push(index),
            }
            found.push(cached.unwrap_or_default());
        }
        let absent: Vec<_> = missing.iter().map(|index| ranges[*index].clone()).collect();
        let merged = coalesce(&absent, self.gap_bytes(), self.options.split_bytes);
        let reads = merged.iter().map(|merged| {
            let read = Read {
                object: Arc::clone(object),
                range: merged.range.clone(),
                class,
                account: account.cloned(),
            };
            let cut = Cut {
                gap_bytes: merged.gap_bytes,
                part_bytes: None,
            };
            async move { self.read(&read, cut).await }
        });
        for (merged, bytes) in merged.iter().zip(try_join_all(reads).await?) {
            for member in &merged.members {
                found[missing[*member]] = part(&bytes, &absent[*member], merged.range.start);
            }
        }
        Ok(found)
    }

    async fn cached(&self, object: &Arc<ObjectRef>, range: &Range<u64>, meter: &Meter) -> Option<Bytes> {
        let (bytes, found) = self.tiers.get(&self.key, object, range).await?;
        let length = bytes.len() as u64;
        match found {
            Found::Memory => meter.add(|account| &account.memory_bytes, length),
            Found::Disk => meter.add(|account| &account.disk_bytes, length),
        }
        Some(bytes)
    }

    /// By a flight, new or under way.
    async fn fly(self: &Arc<Self>, read: &Read, cut: Cut, meter: &Meter) -> Result<Bytes> {
        let (shared, object, class) = (Arc::clone(self), Arc::clone(&read.object), read.class);
        let (range, meter) = (read.range.clone(), meter.clone());
        let fetch = move |urgency: Arc<Urgency>| -> BoxFuture<'static, Result<Bytes>> {
            async move {
                let start = range.start;
                let bytes = shared.fetch(&object, range, cut, &urgency, &meter).await?;
                meter.add(|account| &account.gap_bytes, cut.gap_bytes);
                shared
                    .tiers
                    .put(&shared.key, &object, start, &bytes, class, meter.reader());
                Ok(bytes)
            }
            .boxed()
        };
        let controller = self.requests.controller();
        self.flights
            .join(controller, &read.object, &read.range, class, fetch)
            .await
    }

    /// By requests: long ranges in parts, at once, into one buffer.
    async fn fetch(
        &self,
        object: &Arc<ObjectRef>,
        range: Range<u64>,
        cut: Cut,
        urgency: &Arc<Urgency>,
        meter: &Meter,
    ) -> Result<Bytes> {
        let (split_bytes, part_bytes) = match cut.part_bytes {
            Some(part_bytes) => (self.options.split_bytes.min(part_bytes / 2 * 3), part_bytes),
            None => (self.options.split_bytes, self.options.part_bytes),
        };
        let parts = split(&range, split_bytes, part_bytes.min(self.options.part_bytes));
        let mut rest = self.buffers.take(length(&range));
        let mut fetches = Vec::with_capacity(parts.len());
        let last = parts.len().saturating_sub(1);
        for (index, part) in parts.into_iter().enumerate() {
            let after = match index == last {
                true => BytesMut::new(),
                false => rest.split_off(length(&part).min(rest.capacity())),
            };
            let buffer = std::mem::replace(&mut rest, after);
            fetches.push(self.fetch_part(object, part, urgency, meter, buffer));
        }
        let mut parts = try_join_all(fetches).await?.into_iter();
        let mut all = parts.next().unwrap_or_default();
        for part in parts {
            all.unsplit(part);
        }
        Ok(self.buffers.freeze(all))
    }

    async fn fetch_part(
        &self,
        object: &ObjectRef,
        range: Range<u64>,
        urgency: &Arc<Urgency>,
        meter: &Meter,
        buffer: BytesMut,
    ) -> Result<BytesMut> {
        let ask = Ask {
            location: &object.location,
            range: Some(GetRange::Bounded(range.clone())),
            template: GetOptions::default(),
            version: Some(object),
        };
        let fetched = self.requests.fetch(&ask, urgency, meter, buffer).await?;
        if fetched.range != range {
            let (is, asked) = (format!("{:?}", fetched.range), format!("{range:?}"));
            return Err(Broken::OtherRange(is, asked).into_error());
        }
        Ok(fetched.bytes)
    }

    fn gap_bytes(&self) -> u64 {
        let measures = self.requests.controller().measures();
        let gap = match (measures.any_first_bytes(), measures.rates()) {
            (Some(first), Some(rate)) => (first.p50 * rate.p50).clamp(GAP_BYTES_MIN, GAP_BYTES_MAX),
            _ => GAP_BYTES_UNKNOWN,
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        let gap = gap as u64;
        gap
    }

    /// Where, and in which state, a statement looks at the store.
    fn place(&self) -> Place {
        Place {
            store: Arc::clone(&self.key),
            changes: self.changes.load(Relaxed),
        }
    }

    /// The object at this place may be another one from now on.
    fn forget(&self, location: &Path) {
        self.changes.fetch_add(1, Relaxed);
        self.known.forget(location);
    }
}

fn length(range: &Range<u64>) -> usize {
    usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX)
}

/// A part of what begins at `base` in its object, and contains it.
fn part(bytes: &Bytes, range: &Range<u64>, base: u64) -> Bytes {
    let start = usize::try_from(range.start - base).unwrap_or(usize::MAX);
    bytes.slice(start..start + length(range))
}

impl fmt::Debug for TieredStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TieredStore({})", self.name)
    }
}

impl fmt::Display for TieredStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.shared.other)
    }
}
