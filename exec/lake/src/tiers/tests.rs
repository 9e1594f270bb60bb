//! Both tiers together, behind a store: what is kept where, and what switches them off.

use std::time::Duration;

use object_store::ObjectStore;

use super::*;
use crate::lake::Lake;
use crate::read::Read;
use crate::store::TieredStore;
use crate::testing::{GateStore, content_of};

const OBJECT_BYTES: usize = 3 << 20;

struct Bench {
    gate: Arc<GateStore>,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self {
            gate: GateStore::new(10_000),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn open(&self, memory_bytes: usize, disk_bytes: u64) -> (Arc<Lake>, Arc<TieredStore>) {
        let lake = Lake::new(LakeOptions {
            memory_bytes,
            disk_dir: Some(self.dir.path().join("cache")),
            disk_bytes,
            hedge_percent: 0,
            ..LakeOptions::default()
        });
        let inner: Arc<dyn ObjectStore> = self.gate.clone();
        let store = lake.wrap("s3://key-17@bucket", "s3://bucket", inner);
        (lake, store)
    }

    fn requests(&self) -> usize {
        self.gate.reads.lock().len()
    }
}

async fn check(store: &TieredStore, object: &Arc<ObjectRef>, range: Range<u64>, class: ReadClass) -> Arc<Account> {
    let account = Arc::<Account>::default();
    let read = Read {
        object: object.clone(),
        range: range.clone(),
        class,
        account: Some(account.clone()),
    };
    let bytes = store.read(&read).await.unwrap();
    assert!(bytes == content_of(object.location.as_ref(), range));
    account
}

/// Until the background has written what was offered.
async fn written(lake: &Lake, bytes: u64) {
    for _ in 0..6000 {
        if lake.metrics().disk_used_bytes >= bytes {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never written: {:?}", lake.metrics());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_touch_is_on_disk_also_after_a_restart() {
    let bench = Bench::new();
    let object = bench.gate.object("a", OBJECT_BYTES).await;
    let once = bench.gate.object("once", OBJECT_BYTES).await;
    let part = 100_000..2_600_000;
    let (lake, store) = bench.open(0, 64 << 20);
    check(&store, &once, part.clone(), ReadClass::Near).await;
    check(&store, &object, part.clone(), ReadClass::Near).await;
    assert_eq!(lake.metrics().disk_used_bytes, 0, "one touch is not enough");
    check(&store, &object, part.clone(), ReadClass::Near).await;
    written(&lake, 2_500_000).await;
    let requests = bench.requests();
    let account = check(&store, &object, 1_000_000..1_000_100, ReadClass::Demand).await;
    assert_eq!((account.totals().disk_bytes, account.totals().fetched_bytes), (100, 0));
    drop((lake, store));
    // The next process.
    let (lake, store) = bench.open(32 << 20, 64 << 20);
    written(&lake, 2_500_000).await;
    let account = check(&store, &object, 200_000..300_000, ReadClass::Demand).await;
    assert_eq!(
        (account.totals().disk_bytes, account.totals().memory_bytes),
        (100_000, 0)
    );
    let account = check(&store, &object, 250_000..260_000, ReadClass::Demand).await;
    assert_eq!(
        (account.totals().disk_bytes, account.totals().memory_bytes),
        (0, 10_000)
    );
    check(&store, &object, part, ReadClass::Near).await;
    assert_eq!(bench.requests(), requests, "nothing was asked of the store");
    let metrics = lake.metrics();
    assert_eq!((metrics.disk_hits, metrics.memory_hits), (2, 1));
    assert_eq!((metrics.disk_errors, metrics.disk_off), (0, None));
    let rows = lake.cache_rows();
    assert!(
        rows.iter().all(|row| row.store == "s3://bucket" && row.path == "a"),
        "{rows:?}"
    );
    let tiers: Vec<&str> = rows.iter().map(|row| row.tier).collect();
    assert!(tiers.contains(&"disk") && tiers.contains(&"memory"), "{rows:?}");
    lake.clear();
    assert!(lake.cache_rows().is_empty());
    assert_eq!(
        (lake.metrics().memory_used_bytes, lake.metrics().disk_used_bytes),
        (0, 0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_memory_answers_twice_outlives_the_process() {
    let bench = Bench::new();
    let object = bench.gate.object("a", OBJECT_BYTES).await;
    let (lake, store) = bench.open(32 << 20, 64 << 20);
    let footer = (OBJECT_BYTES - 10_000) as u64..OBJECT_BYTES as u64;
    for _ in 0..2 {
        check(&store, &object, footer.clone(), ReadClass::Demand).await;
    }
    written(&lake, 10_000).await;
    drop((lake, store));
    let (lake, store) = bench.open(32 << 20, 64 << 20);
    written(&lake, 10_000).await;
    check(&store, &object, footer, ReadClass::Demand).await;
    assert_eq!(bench.requests(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_tier_can_be_off() {
    let bench = Bench::new();
    let object = bench.gate.object("a", OBJECT_BYTES).await;
    let (lake, store) = bench.open(0, 0);
    for requests in 1..4 {
        check(&store, &object, 0..1000, ReadClass::Demand).await;
        assert_eq!(bench.requests(), requests);
    }
    let metrics = lake.metrics();
    assert_eq!((metrics.memory_budget_bytes, metrics.disk_budget_bytes), (0, 0));
    assert_eq!(metrics.disk_off, None);
    assert!(!bench.dir.path().join("cache").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_in_use_is_no_error_of_a_query() {
    let bench = Bench::new();
    let object = bench.gate.object("a", OBJECT_BYTES).await;
    let (_first, _) = bench.open(0, 64 << 20);
    let (second, store) = bench.open(0, 64 << 20);
    assert!(second.metrics().disk_off.unwrap().contains("another process"));
    for _ in 0..3 {
        check(&store, &object, 0..1000, ReadClass::Demand).await;
    }
    assert_eq!(bench.requests(), 3);
}
