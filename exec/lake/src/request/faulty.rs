//! A store for tests whose answers are slow, broken or refused, as a seed says; it counts what it did.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::read::ObjectRef;
use crate::testing::content;

/// How one answer goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    Throttled,
    Refused,
    /// After half of the body.
    Reset,
    Stalled,
    Truncated,
    /// So long before the first byte.
    Late(Duration),
    NotThere,
}

type Faults = Box<dyn FnMut(usize) -> Fault + Send>;

/// See the module.
pub(crate) struct FaultyStore {
    inner: InMemory,
    faults: Mutex<Faults>,
    pub(crate) first_byte: Duration,
    pub(crate) requests: AtomicUsize,
    pub(crate) running: Arc<AtomicUsize>,
    pub(crate) running_max: AtomicUsize,
    pub(crate) sent_bytes: AtomicUsize,
}

struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Status(&'static str);

fn status(text: &'static str) -> Error {
    Error::Generic {
        store: "faulty",
        source: Box::new(Status(text)),
    }
}

fn reset() -> Error {
    Error::Generic {
        store: "faulty",
        source: Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionReset)),
    }
}

impl FaultyStore {
    /// `faults` is asked for each request, by its number.
    pub(crate) fn new(first_byte: Duration, faults: impl FnMut(usize) -> Fault + Send + 'static) -> Arc<Self> {
        Arc::new(Self {
            inner: InMemory::new(),
            faults: Mutex::new(Box::new(faults)),
            first_byte,
            requests: AtomicUsize::new(0),
            running: Arc::default(),
            running_max: AtomicUsize::new(0),
            sent_bytes: AtomicUsize::new(0),
        })
    }

    pub(crate) fn healthy(first_byte: Duration) -> Arc<Self> {
        Self::new(first_byte, |_| Fault::None)
    }

    /// `percent` of the requests go wrong, each in one of many ways.
    pub(crate) fn sick(seed: u64, percent: u32) -> Arc<Self> {
        let mut random = StdRng::seed_from_u64(seed);
        Self::new(Duration::from_millis(1), move |_| {
            if random.random_range(0..100) >= percent {
                return Fault::None;
            }
            match random.random_range(0..20) {
                0..6 => Fault::Throttled,
                6..10 => Fault::Refused,
                10..14 => Fault::Reset,
                14..18 => Fault::Truncated,
                18 => Fault::Late(Duration::from_millis(30)),
                _ => Fault::Stalled,
            }
        })
    }

    pub(crate) async fn object(&self, path: &str, size: usize) -> Arc<ObjectRef> {
        let location = Path::from(path);
        let payload = PutPayload::from_bytes(content(path, size));
        self.inner.put(&location, payload).await.unwrap();
        Arc::new(ObjectRef::new(&self.inner.head(&location).await.unwrap()))
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyStore")
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyStore")
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
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
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.running_max.fetch_max(running, Ordering::SeqCst);
        let running = Running(Arc::clone(&self.running));
        let fault = (self.faults.lock())(number);
        let late = match fault {
            Fault::Late(late) => late,
            _ => Duration::ZERO,
        };
        tokio::time::sleep(self.first_byte + late).await;
        match fault {
            Fault::Throttled => {
                return Err(status(
                    "Server returned non-2xx status code: 503 Service Unavailable: SlowDown",
                ));
            }
            Fault::NotThere => return Err(status("Server returned non-2xx status code: 404 Not Found: ")),
            Fault::Refused => return Err(reset()),
            _ => {}
        }
        let head = options.head;
        let result = self.inner.get_opts(location, options).await?;
        let (meta, range, attributes) = (result.meta.clone(), result.range.clone(), result.attributes.clone());
        let bytes = if head { Bytes::new() } else { result.bytes().await? };
        let half = bytes.len() / 2;
        let mut chunks: Vec<Result<Bytes>> = vec![Ok(bytes.slice(..half))];
        match fault {
            Fault::Reset => chunks.push(Err(reset())),
            Fault::Truncated | Fault::Stalled => {}
            _ => chunks.push(Ok(bytes.slice(half..))),
        }
        let sent: usize = chunks.iter().flatten().map(Bytes::len).sum();
        self.sent_bytes.fetch_add(sent, Ordering::SeqCst);
        let chunks = stream::iter(chunks).map(move |chunk| {
            let _ = &running;
            chunk
        });
        let stream: BoxStream<'static, _> = match fault {
            Fault::Stalled => chunks.chain(stream::pending()).boxed(),
            _ => chunks.boxed(),
        };
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream),
            meta,
            range,
            attributes,
        })
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
