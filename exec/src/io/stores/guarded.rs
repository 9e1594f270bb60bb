//! A store that asks the allow-list before every request, whose listings leave hidden files out, and whose errors name no
//! credentials.
//!
//! Hidden means: a name below the listed prefix starts with `.` or `_`, as writers name temporary files, checksums, logs and
//! the server's own state. A listing *inside* such a folder (a Delta log) shows it.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};
use url::Url;

use super::Building;
use super::refusal::Refusals;
use crate::error::QueryError;
use crate::io::locations::{Access, LocationError, Locations, canonical_target};

/// A guarded local file system.
pub(crate) fn local(locations: &Arc<Locations>, inner: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
    Arc::new(GuardedStore {
        inner,
        guard: Arc::new(Guard {
            locations: Arc::clone(locations),
            place: Place::Local(LocalFileSystem::new()),
            refusals: None,
        }),
    })
}

/// A guarded remote store.
pub(crate) fn remote(building: &Building<'_>, inner: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
    let mut base = building.url.clone();
    base.set_path("/");
    let shown = format!(
        "{}://{}",
        base.scheme(),
        &base[url::Position::BeforeHost..url::Position::AfterPort]
    );
    Arc::new(GuardedStore {
        inner,
        guard: Arc::new(Guard {
            locations: Arc::clone(building.locations),
            place: Place::Remote(base),
            refusals: Some(Refusals::new(shown, building.config)),
        }),
    })
}

#[derive(Debug)]
struct GuardedStore {
    inner: Arc<dyn ObjectStore>,
    guard: Arc<Guard>,
}

#[derive(Debug)]
struct Guard {
    locations: Arc<Locations>,
    place: Place,
    /// Of remote stores.
    refusals: Option<Refusals>,
}

#[derive(Debug)]
enum Place {
    /// Knows how an object path is spelled on disk.
    Local(LocalFileSystem),
    /// Scheme and host that object paths are below.
    Remote(Url),
}

impl Guard {
    /// The error as it may be shown.
    fn told(&self, error: object_store::Error) -> object_store::Error {
        match &self.refusals {
            Some(refusals) => refusals.told(error),
            None => error,
        }
    }

    fn check(&self, location: &Path, access: Access) -> Result<()> {
        self.allowed(location, access)
            .map_err(|refusal| object_store::Error::Generic {
                store: "guarded",
                source: Box::new(QueryError::from(refusal)),
            })
    }

    fn allowed(&self, location: &Path, access: Access) -> Result<(), LocationError> {
        match &self.place {
            Place::Remote(base) => {
                let mut url = base.clone();
                url.set_path(location.as_ref());
                self.locations.check_url(&url)
            }
            Place::Local(files) => {
                let invalid = |error: object_store::Error| LocationError::Invalid {
                    location: location.to_string(),
                    reason: error.to_string(),
                };
                let path = match location.as_ref() {
                    "" => PathBuf::from("/"),
                    _ => files.path_to_filesystem(location).map_err(invalid)?,
                };
                // A missing file is the inner store's to report; its folder still has to be allowed.
                let canonical = canonical_target(location.as_ref(), &path)?;
                self.locations.check_open(&canonical, access)
            }
        }
    }
}

fn is_visible(location: &Path, prefix: Option<&Path>) -> bool {
    let below = match prefix {
        Some(prefix) => location.prefix_match(prefix),
        None => location.prefix_match(&Path::default()),
    };
    below.is_none_or(|mut parts| parts.all(|part| !part.as_ref().starts_with(['.', '_'])))
}

impl fmt::Display for GuardedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.inner)
    }
}

#[async_trait::async_trait]
impl ObjectStore for GuardedStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.guard.check(location, Access::Write)?;
        let put = self.inner.put_opts(location, payload, options).await;
        put.map_err(|error| self.guard.told(error))
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.guard.check(location, Access::Write)?;
        match self.inner.put_multipart_opts(location, options).await {
            Ok(inner) => Ok(Box::new(GuardedUpload {
                inner,
                guard: Arc::clone(&self.guard),
            })),
            Err(error) => Err(self.guard.told(error)),
        }
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.guard.check(location, Access::Read)?;
        let mut got = self
            .inner
            .get_opts(location, options)
            .await
            .map_err(|error| self.guard.told(error))?;
        if let GetResultPayload::Stream(body) = got.payload {
            let guard = Arc::clone(&self.guard);
            got.payload = GetResultPayload::Stream(body.map_err(move |error| guard.told(error)).boxed());
        }
        Ok(got)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.guard.check(location, Access::Read)?;
        let got = self.inner.get_ranges(location, ranges).await;
        got.map_err(|error| self.guard.told(error))
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let guard = Arc::clone(&self.guard);
        let checked = locations
            .and_then(move |location| futures::future::ready(guard.check(&location, Access::Write).map(|()| location)));
        let guard = Arc::clone(&self.guard);
        let deleted = self.inner.delete_stream(checked.boxed());
        deleted.map_err(move |error| guard.told(error)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        if let Err(refusal) = self.guard.check(prefix.unwrap_or(&Path::default()), Access::Read) {
            return futures::stream::once(futures::future::ready(Err(refusal))).boxed();
        }
        let prefix_owned = prefix.cloned();
        let visible =
            move |meta: &ObjectMeta| futures::future::ready(is_visible(&meta.location, prefix_owned.as_ref()));
        let guard = Arc::clone(&self.guard);
        let listed = self.inner.list(prefix).map_err(move |error| guard.told(error));
        listed.try_filter(visible).boxed()
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        if let Err(refusal) = self.guard.check(prefix.unwrap_or(&Path::default()), Access::Read) {
            return futures::stream::once(futures::future::ready(Err(refusal))).boxed();
        }
        let prefix_owned = prefix.cloned();
        let visible =
            move |meta: &ObjectMeta| futures::future::ready(is_visible(&meta.location, prefix_owned.as_ref()));
        let guard = Arc::clone(&self.guard);
        let listed = self.inner.list_with_offset(prefix, offset);
        listed
            .map_err(move |error| guard.told(error))
            .try_filter(visible)
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.guard.check(prefix.unwrap_or(&Path::default()), Access::Read)?;
        let listed = self.inner.list_with_delimiter(prefix).await;
        let mut listed = listed.map_err(|error| self.guard.told(error))?;
        listed.objects.retain(|meta| is_visible(&meta.location, prefix));
        listed.common_prefixes.retain(|folder| is_visible(folder, prefix));
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.guard.check(from, Access::Read)?;
        self.guard.check(to, Access::Write)?;
        let copied = self.inner.copy_opts(from, to, options).await;
        copied.map_err(|error| self.guard.told(error))
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.guard.check(from, Access::Write)?;
        self.guard.check(to, Access::Write)?;
        let renamed = self.inner.rename_opts(from, to, options).await;
        renamed.map_err(|error| self.guard.told(error))
    }
}

/// An upload whose errors name no credentials.
#[derive(Debug)]
struct GuardedUpload {
    inner: Box<dyn MultipartUpload>,
    guard: Arc<Guard>,
}

#[async_trait::async_trait]
impl MultipartUpload for GuardedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (guard, part) = (Arc::clone(&self.guard), self.inner.put_part(data));
        Box::pin(async move { part.await.map_err(|error| guard.told(error)) })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let completed = self.inner.complete().await;
        completed.map_err(|error| self.guard.told(error))
    }

    async fn abort(&mut self) -> Result<()> {
        let aborted = self.inner.abort().await;
        aborted.map_err(|error| self.guard.told(error))
    }
}
