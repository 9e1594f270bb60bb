//! Tables in a simulated store, and scans of them through the lake.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use simstore::{Config, Kind, Profile, SimStore};
use tokio::runtime::Runtime;
use trireme_device_api::{DeviceError, DevicePool, RowTest, ScanInput, Type};
use trireme_lake::{Account, Lake, LakeOptions, TieredStore};

use crate::{ColumnCache, ColumnRequest, ColumnSource, OpenOptions, TableFile, TableFiles};

pub(crate) const BUCKET: &str = "lake";

/// A store, its lake, and a runtime to open scans on.
pub(crate) struct Remote {
    pub(crate) sim: SimStore,
    pub(crate) store: Arc<TieredStore>,
    plain: Arc<dyn ObjectStore>,
    _lake: Arc<Lake>,
    pub(crate) runtime: Runtime,
    pub(crate) account: Arc<Account>,
    pub(crate) pool: Arc<Counting>,
    pub(crate) window_bytes: usize,
}

impl Remote {
    pub(crate) fn new(profile: Profile, options: LakeOptions) -> Self {
        let sim = SimStore::start(Config::with_profile(profile)).unwrap();
        let plain: Arc<dyn ObjectStore> = Arc::new(
            AmazonS3Builder::new()
                .with_endpoint(sim.url())
                .with_allow_http(true)
                .with_region("us-east-1")
                .with_bucket_name(BUCKET)
                .with_access_key_id("key")
                .with_secret_access_key("secret")
                .with_retry(object_store::RetryConfig {
                    max_retries: 0,
                    ..Default::default()
                })
                .build()
                .unwrap(),
        );
        let lake = Lake::new(options);
        let store = lake.wrap("s3://lake", "s3://lake", Arc::clone(&plain));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        Self {
            sim,
            store,
            plain,
            _lake: lake,
            runtime,
            account: Arc::default(),
            pool: Arc::default(),
            window_bytes: 64 << 20,
        }
    }

    /// A table over objects of these contents, in order of names.
    pub(crate) fn table(&self, objects: &[(&str, Vec<u8>)], columns: &[(&str, Type)], test: RowTest) -> TableFiles {
        let file = |(name, content): &(&str, Vec<u8>)| {
            let e_tag = self.sim.put(BUCKET, name, content.clone()).unwrap();
            TableFile {
                location: (*name).into(),
                size_bytes: content.len() as u64,
                version: e_tag.clone(),
                e_tag: Some(e_tag),
                modified_us: None,
                local: None,
                partition: Vec::new(),
                kept: None,
            }
        };
        TableFiles {
            name: "table".to_owned(),
            store_url: "s3://lake".to_owned(),
            store: Arc::clone(&self.plain),
            lake: Some(Arc::clone(&self.store)),
            account: Arc::clone(&self.account),
            files: objects.iter().map(file).collect(),
            columns: columns
                .iter()
                .map(|(name, data_type)| ColumnRequest {
                    source: ColumnSource::File((*name).to_owned()),
                    data_type: data_type.clone(),
                })
                .collect(),
            test,
            limit: None,
            stops: false,
            readers: 1,
        }
    }

    pub(crate) fn options(&self) -> OpenOptions {
        OpenOptions {
            window_bytes: self.window_bytes,
            ..OpenOptions::new(Arc::clone(&self.pool) as Arc<dyn DevicePool>, 2)
        }
    }

    pub(crate) fn open(&self, cache: &ColumnCache, table: TableFiles) -> Result<Arc<dyn ScanInput>, DeviceError> {
        self.runtime.block_on(cache.open(table, self.options()))
    }

    /// Requests that had to wait for another's end, one after another.
    pub(crate) fn round_trips(&self) -> usize {
        let mut requests = self.sim.requests();
        requests.retain(|request| request.kind == Kind::Get);
        requests.sort_by_key(|request| request.start_us);
        let mut depths: Vec<(u64, usize)> = Vec::new();
        for request in &requests {
            let before = depths.iter().filter(|(end_us, _)| *end_us <= request.start_us);
            let depth = before.map(|(_, depth)| *depth).max().unwrap_or(0) + 1;
            depths.push((request.end_us, depth));
        }
        depths.into_iter().map(|(_, depth)| depth).max().unwrap_or(0)
    }
}

/// No limit, but counts.
#[derive(Default)]
pub(crate) struct Counting {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Counting {
    pub(crate) fn now(&self) -> usize {
        self.now.load(Ordering::SeqCst)
    }

    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

impl DevicePool for Counting {
    fn reserve(&self, bytes: usize) -> Result<(), DeviceError> {
        let now = self.now.fetch_add(bytes, Ordering::SeqCst) + bytes;
        self.most.fetch_max(now, Ordering::SeqCst);
        Ok(())
    }

    fn release(&self, bytes: usize) {
        self.now.fetch_sub(bytes, Ordering::SeqCst);
    }
}
