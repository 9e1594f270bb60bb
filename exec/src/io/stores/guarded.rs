//! A store that asks the allow-list before every request, and whose listings leave hidden files out.
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
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use url::Url;

use crate::error::QueryError;
use crate::io::locations::{Access, LocationError, Locations, canonical_target};

/// A guarded local file system.
pub(crate) fn local(locations: &Arc<Locations>, inner: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
    Arc::new(GuardedStore {
        inner,
        guard: Arc::new(Guard {
            locations: Arc::clone(locations),
            place: Place::Local(LocalFileSystem::new()),
        }),
    })
}

/// A guarded remote store.
pub(crate) fn remote(locations: &Arc<Locations>, url: &Url, inner: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
    let mut base = url.clone();
    base.set_path("/");
    Arc::new(GuardedStore {
        inner,
        guard: Arc::new(Guard {
            locations: Arc::clone(locations),
            place: Place::Remote(base),
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
}

#[derive(Debug)]
enum Place {
    /// Knows how an object path is spelled on disk.
    Local(LocalFileSystem),
    /// Scheme and host that object paths are below.
    Remote(Url),
}

impl Guard {
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
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.guard.check(location, Access::Write)?;
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.guard.check(location, Access::Read)?;
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.guard.check(location, Access::Read)?;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let guard = Arc::clone(&self.guard);
        let checked = locations
            .and_then(move |location| futures::future::ready(guard.check(&location, Access::Write).map(|()| location)));
        self.inner.delete_stream(checked.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        if let Err(refusal) = self.guard.check(prefix.unwrap_or(&Path::default()), Access::Read) {
            return futures::stream::once(futures::future::ready(Err(refusal))).boxed();
        }
        let prefix_owned = prefix.cloned();
        let visible =
            move |meta: &ObjectMeta| futures::future::ready(is_visible(&meta.location, prefix_owned.as_ref()));
        self.inner.list(prefix).try_filter(visible).boxed()
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        if let Err(refusal) = self.guard.check(prefix.unwrap_or(&Path::default()), Access::Read) {
            return futures::stream::once(futures::future::ready(Err(refusal))).boxed();
        }
        let prefix_owned = prefix.cloned();
        let visible =
            move |meta: &ObjectMeta| futures::future::ready(is_visible(&meta.location, prefix_owned.as_ref()));
        self.inner.list_with_offset(prefix, offset).try_filter(visible).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.guard.check(prefix.unwrap_or(&Path::default()), Access::Read)?;
        let mut listed = self.inner.list_with_delimiter(prefix).await?;
        listed.objects.retain(|meta| is_visible(&meta.location, prefix));
        listed.common_prefixes.retain(|folder| is_visible(folder, prefix));
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.guard.check(from, Access::Read)?;
        self.guard.check(to, Access::Write)?;
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.guard.check(from, Access::Write)?;
        self.guard.check(to, Access::Write)?;
        self.inner.rename_opts(from, to, options).await
    }
}
