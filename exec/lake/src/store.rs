//! A store behind the tiers, with parallel, hedged and retried requests.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

use crate::metrics::StoreMetrics;
use crate::options::LakeOptions;
use crate::read::{Account, Read};
use crate::tiers::Tiers;

/// See the module.
pub struct TieredStore {
    key: Arc<str>,
    name: String,
    inner: Arc<dyn ObjectStore>,
    tiers: Arc<Tiers>,
    totals: Account,
}

impl TieredStore {
    pub(crate) fn new(
        key: &str,
        name: &str,
        inner: Arc<dyn ObjectStore>,
        _options: &LakeOptions,
        tiers: Arc<Tiers>,
    ) -> Arc<Self> {
        Arc::new(Self {
            key: key.into(),
            name: name.to_owned(),
            inner,
            tiers,
            totals: Account::default(),
        })
    }

    /// Reads one range, from wherever it is nearest.
    ///
    /// # Errors
    /// The store's, after all attempts; [`object_store::Error::Precondition`] when the object was replaced.
    pub async fn read(&self, read: &Read) -> Result<Bytes> {
        if let Some((bytes, _)) = self.tiers.get(&self.key, &read.object, &read.range).await {
            return Ok(bytes);
        }
        let options = GetOptions {
            if_match: read.object.e_tag.clone(),
            range: Some(GetRange::Bounded(read.range.clone())),
            ..GetOptions::default()
        };
        let bytes = self
            .inner
            .get_opts(&read.object.location, options)
            .await?
            .bytes()
            .await?;
        self.tiers
            .put(&self.key, &read.object, read.range.start, &bytes, read.class);
        Ok(bytes)
    }

    /// A gap between two ranges of an object that is worth reading along: what arrives on one connection in the time of a
    /// request's first byte.
    pub fn gap_bytes(&self) -> u64 {
        1 << 20
    }

    /// Numbers.
    pub fn metrics(&self) -> StoreMetrics {
        StoreMetrics {
            store: self.name.clone(),
            totals: self.totals.totals(),
            ..StoreMetrics::default()
        }
    }
}

impl fmt::Debug for TieredStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TieredStore({})", self.name)
    }
}

impl fmt::Display for TieredStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for TieredStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}
