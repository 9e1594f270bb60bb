//! A web server as a store: single files, read only.
//!
//! The web has no listings. Left alone, the client asks WebDAV for them (PROPFIND, again and again) and shows the server's
//! error page; here a file that is missing is said to be missing, with what a web server can't do.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::error::{ErrorClass, QueryError};

/// Only the reads of this store.
pub(crate) fn single_files(store: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
    Arc::new(SingleFiles { store })
}

#[derive(Debug)]
struct SingleFiles {
    store: Arc<dyn ObjectStore>,
}

impl fmt::Display for SingleFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.store)
    }
}

fn told(error: QueryError) -> Error {
    Error::Generic {
        store: "HTTP",
        source: Box::new(error),
    }
}

/// Whoever lists has not found a file of this name.
fn no_listing(prefix: Option<&Path>) -> Error {
    let place = prefix.map(ToString::to_string).unwrap_or_default();
    told(
        QueryError::new(
            ErrorClass::NotFound,
            format!("file /{place} does not exist on the web server"),
        )
        .with_hint("a web server can't list files, so folders and patterns are no tables there: name one file"),
    )
}

fn read_only(location: &Path) -> Error {
    told(
        QueryError::new(
            ErrorClass::Unsupported,
            format!("/{location} can't be written: web servers are only read"),
        )
        .with_hint("write into the data folder or an object store"),
    )
}

/// A server that answers a part of a file with all of it, which would be read once per part.
fn without_ranges(location: &Path, error: Error) -> Error {
    let Error::NotSupported { .. } = error else {
        return error;
    };
    told(
        QueryError::new(
            ErrorClass::Unsupported,
            format!("the web server of /{location} gives files only as a whole"),
        )
        .with_hint("use a server that answers range requests, or copy the file into the data folder"),
    )
}

#[async_trait]
impl ObjectStore for SingleFiles {
    async fn put_opts(&self, location: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(read_only(location))
    }

    async fn put_multipart_opts(&self, location: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(read_only(location))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let read = self.store.get_opts(location, options).await;
        read.map_err(|error| without_ranges(location, error))
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let read = self.store.get_ranges(location, ranges).await;
        read.map_err(|error| without_ranges(location, error))
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        locations
            .map(|location| location.and_then(|location| Err(read_only(&location))))
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        stream::iter([Err(no_listing(prefix))]).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        Err(no_listing(prefix))
    }

    async fn copy_opts(&self, _: &Path, to: &Path, _: CopyOptions) -> Result<()> {
        Err(read_only(to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt;
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    #[test]
    fn missing_ranges_are_said_to_be() {
        let unsupported = Error::NotSupported {
            source: "no ranges".into(),
        };
        let path = Path::from("a.parquet");
        let said = without_ranges(&path, unsupported).to_string();
        assert!(said.contains("/a.parquet gives files only as a whole"), "{said}");
        let missing = Error::NotFound {
            path: path.to_string(),
            source: "gone".into(),
        };
        assert!(matches!(without_ranges(&path, missing), Error::NotFound { .. }));
    }

    #[tokio::test]
    async fn files_are_read_and_nothing_else() {
        let inner = Arc::new(InMemory::new());
        let path = Path::from("d/a.csv");
        inner.put(&path, "x\n".into()).await.unwrap();
        let store = single_files(inner);
        assert_eq!(store.get_range(&path, 0..1).await.unwrap().as_ref(), b"x");
        assert_eq!(store.head(&path).await.unwrap().size, 2);
        let folder = Path::from("d");
        let listed: Result<Vec<_>> = store.list(Some(&folder)).try_collect().await;
        let error = listed.unwrap_err().to_string();
        assert!(
            error.contains("/d does not exist") && error.contains("name one file"),
            "{error}"
        );
        assert!(store.list_with_delimiter(Some(&folder)).await.is_err());
        assert!(store.put(&path, "y".into()).await.is_err());
        assert!(store.delete(&path).await.is_err());
        assert!(store.copy(&path, &folder).await.is_err());
        assert_eq!(store.head(&path).await.unwrap().size, 2);
    }
}
