//! Entity tags as HTTP writes them, with quotes, from a store that lists them without.
//!
//! Azure gives a blob's tag quoted in headers and bare in listings, and its client passes both on. Two tags for one object would
//! be two objects to caches, and a condition must carry the quoted one.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

/// The store, whose listings have the tags of its headers.
pub(crate) fn quoted(store: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
    Arc::new(Quoted { store })
}

#[derive(Debug)]
struct Quoted {
    store: Arc<dyn ObjectStore>,
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.store)
    }
}

fn with_quotes(mut meta: ObjectMeta) -> ObjectMeta {
    if let Some(tag) = meta.e_tag.take() {
        let bare = !tag.is_empty() && !tag.ends_with('"');
        meta.e_tag = Some(if bare { format!("\"{tag}\"") } else { tag });
    }
    meta
}

#[async_trait]
impl ObjectStore for Quoted {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.store.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.store.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.store.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix).map_ok(with_quotes).boxed()
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list_with_offset(prefix, offset).map_ok(with_quotes).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut listed = self.store.list_with_delimiter(prefix).await?;
        listed.objects = listed.objects.into_iter().map(with_quotes).collect();
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.store.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    /// The store in memory has bare tags.
    #[tokio::test]
    async fn listings_quote_once() {
        let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let path = Path::from("d/a");
        let bare = inner.put(&path, "x".into()).await.unwrap().e_tag.unwrap();
        assert!(!bare.contains('"'), "{bare}");
        let folder = Path::from("d");
        let wanted = format!("\"{bare}\"");
        for store in [quoted(Arc::clone(&inner)), quoted(quoted(inner))] {
            let listed: Vec<_> = store.list(Some(&folder)).try_collect().await.unwrap();
            assert_eq!(listed[0].e_tag.as_deref(), Some(wanted.as_str()));
            let level = store.list_with_delimiter(Some(&folder)).await.unwrap();
            assert_eq!(level.objects[0].e_tag.as_deref(), Some(wanted.as_str()));
        }
    }
}
