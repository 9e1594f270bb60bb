//! A store for unit tests: reads are recorded, can be held back, and fail when told to.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::read::ObjectRef;

/// See the module.
pub(crate) struct GateStore {
    inner: InMemory,
    /// A read takes one permit when it begins to answer.
    pub(crate) gate: Semaphore,
    pub(crate) reads: Mutex<Vec<(String, Range<u64>)>>,
    pub(crate) failing: Mutex<HashMap<String, usize>>,
}

impl fmt::Debug for GateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GateStore")
    }
}

impl fmt::Display for GateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GateStore")
    }
}

impl GateStore {
    pub(crate) fn new(permits: usize) -> Arc<Self> {
        Arc::new(Self {
            inner: InMemory::new(),
            gate: Semaphore::new(permits),
            reads: Mutex::new(Vec::new()),
            failing: Mutex::new(HashMap::new()),
        })
    }

    /// An object of seeded bytes.
    pub(crate) async fn object(&self, path: &str, size: usize) -> Arc<ObjectRef> {
        let location = Path::from(path);
        let content = PutPayload::from_bytes(content(path, size));
        self.inner.put(&location, content).await.unwrap();
        let meta = self.inner.head(&location).await.unwrap();
        Arc::new(ObjectRef::new(&meta))
    }

    pub(crate) fn ranges(&self) -> Vec<Range<u64>> {
        self.reads.lock().iter().map(|(_, range)| range.clone()).collect()
    }
}

/// What [`GateStore::object`] puts there.
pub(crate) fn content(path: &str, size: usize) -> Bytes {
    content_of(path, 0..size as u64)
}

/// A range of [`content`].
pub(crate) fn content_of(path: &str, range: Range<u64>) -> Bytes {
    let salt = path.bytes().fold(7u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0xD6E8_FEB8_6659_FD93)
    });
    range
        .map(|at| ((at.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ salt) >> 29) as u8)
        .collect()
}

#[async_trait]
impl ObjectStore for GateStore {
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
        if let Some(GetRange::Bounded(range)) = &options.range {
            self.reads.lock().push((location.to_string(), range.clone()));
        }
        self.gate.acquire().await.unwrap().forget();
        if let Some(left) = self.failing.lock().get_mut(location.as_ref())
            && *left > 0
        {
            *left -= 1;
            return Err(Error::PermissionDenied {
                path: location.to_string(),
                source: "told to fail".into(),
            });
        }
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
