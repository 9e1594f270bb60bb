//! Prefetch through HTTP, against a simulated store: what is sent, how much is ahead, and that faults change no byte.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panics")]

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, RetryConfig};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use simstore::{Config, Faults, Profile, SimStore, synthetic_bytes};
use tokio::runtime::Handle;
use trireme_lake::{Account, Clients, Lake, LakeOptions, ObjectRef, Planned, Prefetch, ReadClass, TieredStore, Window};

struct Pool {
    used: AtomicUsize,
    most: AtomicUsize,
    limit: usize,
}

impl Pool {
    fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            limit,
        })
    }
}

impl Window for Pool {
    fn take(&self, bytes: usize) -> bool {
        let add = |used: usize| (used + bytes <= self.limit).then_some(used + bytes);
        let taken = self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add);
        taken
            .inspect(|before| {
                self.most.fetch_max(before + bytes, Ordering::SeqCst);
            })
            .is_ok()
    }

    fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::SeqCst);
    }
}

fn client(sim: &SimStore, retries: usize) -> Arc<dyn ObjectStore> {
    let retry = RetryConfig {
        max_retries: retries,
        ..RetryConfig::default()
    };
    let store = AmazonS3Builder::new()
        .with_endpoint(sim.url())
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_bucket_name("lake")
        .with_access_key_id("key")
        .with_secret_access_key("secret")
        .with_retry(retry);
    Arc::new(store.build().unwrap())
}

fn wrap(sim: &SimStore) -> (Arc<Lake>, Arc<TieredStore>) {
    let lake = Lake::new(LakeOptions {
        memory_bytes: 0,
        hedge_percent: 0,
        // However late the machine's threads are: requests are counted.
        late_min: Duration::from_secs(60),
        attempt_timeout: Duration::from_secs(60),
        ..LakeOptions::default()
    });
    let clients = Clients {
        readers: vec![client(sim, 0), client(sim, 0)],
        other: client(sim, 10),
    };
    let store = lake.wrap_clients("k", "s3://lake", clients);
    (lake, store)
}

async fn object(sim: &SimStore, store: &TieredStore, key: &str, size: u64, seed: u64) -> Arc<ObjectRef> {
    sim.put_synthetic("lake", key, size, seed).unwrap();
    let meta = store.head(&Path::from(key)).await.unwrap();
    Arc::new(ObjectRef::new(&meta))
}

fn plan(store: &Arc<TieredStore>, object: &Arc<ObjectRef>, account: &Arc<Account>, range: Range<u64>) -> Planned {
    Planned {
        store: Arc::clone(store),
        object: Arc::clone(object),
        range,
        class: ReadClass::Near,
        account: Arc::clone(account),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_takes_few_requests_fetches_what_it_needs_and_stays_in_its_window() {
    const CHUNK: u64 = 300_000;
    const WINDOW: usize = 4 << 20;
    let sim = SimStore::start(Config::with_profile(Profile::none())).unwrap();
    let (lake, store) = wrap(&sim);
    let account = Arc::new(Account::default());
    let one = object(&sim, &store, "a", 100 * CHUNK, 5).await;
    // Two of three columns, in the order of a file.
    let planned: Vec<Planned> = (0..99)
        .filter(|chunk| chunk % 3 != 1)
        .map(|chunk| plan(&store, &one, &account, chunk * CHUNK..(chunk + 1) * CHUNK))
        .collect();
    sim.reset_counters();
    let pool = Pool::new(usize::MAX);
    let prefetch = Prefetch::start(
        planned.clone(),
        WINDOW,
        Arc::clone(&pool) as Arc<dyn Window>,
        &Handle::current(),
        Arc::new(|| {}),
    );
    for (index, one) in planned.iter().enumerate() {
        let bytes = prefetch.take(index).await.unwrap();
        assert_eq!(bytes, synthetic_bytes(5, one.range.clone()));
    }
    let totals = account.totals();
    assert_eq!(totals.needed_bytes, 66 * CHUNK);
    assert_eq!(
        (totals.fetched_bytes, totals.gap_bytes),
        (66 * CHUNK, 0),
        "a third is not a gap worth its bytes"
    );
    let requests = sim.counters().total.requests();
    assert_eq!(requests, totals.requests);
    assert!((33..=40).contains(&requests), "{requests} requests");
    let most = pool.most.load(Ordering::SeqCst);
    assert!(most <= WINDOW && most > WINDOW / 2, "{most}");
    assert_eq!(pool.used.load(Ordering::SeqCst), 0);
    assert_eq!(prefetch.state().held_bytes, 0);
    assert_eq!(lake.metrics().window_used_bytes, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sick_store_changes_no_byte() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let sick = Profile {
        faults: Faults {
            error_503_percent: 5.0,
            reset_percent: 5.0,
            truncate_percent: 5.0,
            ..Faults::default()
        },
        ..Profile::none()
    };
    let sim = SimStore::start(Config::with_profile(Profile::none())).unwrap();
    let (_, store) = wrap(&sim);
    let account = Arc::new(Account::default());
    let mut planned = Vec::new();
    for key in 0..3 {
        let one = object(&sim, &store, &format!("{key}"), 1 << 20, key).await;
        for _ in 0..40 {
            let start = random.random_range(0..1_000_000);
            let range = start..start + random.random_range(0..40_000);
            planned.push((key, plan(&store, &one, &account, range)));
        }
    }
    sim.set_profile(sick);
    let pool = Pool::new(300_000);
    let plans = planned.iter().map(|(_, planned)| planned.clone()).collect();
    let window = Arc::clone(&pool) as Arc<dyn Window>;
    let prefetch = Prefetch::start(plans, 400_000, window, &Handle::current(), Arc::new(|| {}));
    for (index, (seed, one)) in planned.iter().enumerate() {
        if random.random_bool(0.1) {
            prefetch.cancel(random.random_range(0..planned.len()));
        }
        let bytes = prefetch.take(index).await.unwrap();
        assert_eq!(bytes, synthetic_bytes(*seed, one.range.clone()), "{index}");
    }
    assert!(account.totals().retries > 0);
    assert!(pool.most.load(Ordering::SeqCst) <= 300_000);
    assert_eq!(pool.used.load(Ordering::SeqCst), 0);
}
