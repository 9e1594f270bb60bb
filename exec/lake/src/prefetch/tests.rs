//! Order, limits and balance of prefetches over stores that answer when told to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::lake::Lake;
use crate::options::LakeOptions;
use crate::testing::{GateStore, content};

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

    fn used(&self) -> usize {
        self.used.load(Ordering::SeqCst)
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

impl Window for Pool {
    fn take(&self, bytes: usize) -> bool {
        let add = |used: usize| (used + bytes <= self.limit).then_some(used + bytes);
        let taken = self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add);
        if let Ok(before) = taken {
            self.most.fetch_max(before + bytes, Ordering::SeqCst);
        }
        taken.is_ok()
    }

    fn give(&self, bytes: usize) {
        let before = self.used.fetch_sub(bytes, Ordering::SeqCst);
        assert!(before >= bytes, "more was given back than taken");
    }
}

fn store(gate: &Arc<GateStore>, name: &str) -> Arc<TieredStore> {
    lake(gate, name).0
}

fn lake(gate: &Arc<GateStore>, name: &str) -> (Arc<TieredStore>, Arc<Lake>) {
    let options = LakeOptions {
        memory_bytes: 0,
        hedge_percent: 0,
        attempts_max: 1,
        // However late the machine's threads are.
        late_min: Duration::from_secs(60),
        attempt_timeout: Duration::from_secs(60),
        ..LakeOptions::default()
    };
    let lake = Lake::new(options);
    let inner: Arc<dyn object_store::ObjectStore> = Arc::clone(gate) as _;
    (lake.wrap(name, name, inner), lake)
}

fn plan(
    store: &Arc<TieredStore>,
    object: &Arc<ObjectRef>,
    account: &Arc<Account>,
    range: Range<u64>,
    class: ReadClass,
) -> Planned {
    Planned {
        store: Arc::clone(store),
        object: Arc::clone(object),
        range,
        class,
        account: Arc::clone(account),
    }
}

fn quiet() -> Arc<dyn Fn() + Send + Sync> {
    Arc::new(|| {})
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..15_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("never: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_of_use_near_before_far_wanted_first() {
    let gate = GateStore::new(0);
    let (store, pool, account) = (store(&gate, "a"), Pool::new(1 << 30), Arc::default());
    let mut planned = Vec::new();
    for index in 0..8u64 {
        let object = gate.object(&format!("o{index}"), 100).await;
        let class = if index % 2 == 0 {
            ReadClass::Far
        } else {
            ReadClass::Near
        };
        planned.push(plan(&store, &object, &account, 0..100, class));
    }
    let prefetch = Prefetch::start(planned, 100, pool.clone(), &Handle::current(), quiet());
    assert!(!prefetch.ready(6), "nothing has come");
    assert!(!prefetch.ready(6));
    gate.gate.add_permits(100);
    for index in [6, 1, 3, 5, 7, 0, 2, 4] {
        let bytes = prefetch.take(index).await.unwrap();
        assert_eq!(bytes, content(&format!("o{index}"), 100));
    }
    let order: Vec<String> = gate.reads.lock().iter().map(|(path, _)| path.clone()).collect();
    // The first near one was under way before anything was wanted.
    let mut first = order[..2].to_vec();
    first.sort();
    assert_eq!(first, ["o1", "o6"]);
    assert_eq!(&order[2..], ["o3", "o5", "o7", "o0", "o2", "o4"]);
    assert_eq!(pool.used(), 0);
    assert!(account.totals().waits > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_more_than_the_window_but_one_range_always() {
    let gate = GateStore::new(1000);
    let (store, pool, account) = (store(&gate, "a"), Pool::new(1 << 30), Arc::default());
    let object = gate.object("o", 4000).await;
    let mut planned = Vec::new();
    for index in 0..40u64 {
        let object = gate.object(&format!("o{index}"), 100).await;
        planned.push(plan(&store, &object, &account, 0..100, ReadClass::Near));
    }
    planned.insert(20, plan(&store, &object, &account, 0..4000, ReadClass::Near));
    let came = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&came);
    let woken = Arc::new(move || {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let prefetch = Prefetch::start(planned, 350, pool.clone(), &Handle::current(), woken);
    until("three are here", || came.load(Ordering::SeqCst) == 3).await;
    assert_eq!(prefetch.state().held_bytes, 300);
    for index in 0..41 {
        let bytes = prefetch.take(index).await.unwrap();
        assert_eq!(bytes.len(), if index == 20 { 4000 } else { 100 });
    }
    assert!(pool.most() <= 4000, "{}", pool.most());
    assert_eq!(pool.used(), 0);
    assert_eq!(prefetch.state().held_bytes, 0);
    // Whoever takes a range may have it before `woken` was called for it.
    until("all were told", || came.load(Ordering::SeqCst) == 41).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_refuses_stops_no_reader() {
    let gate = GateStore::new(1000);
    let (store, account) = (store(&gate, "a"), Arc::default());
    for limit in [0, 250] {
        let pool = Pool::new(limit);
        let mut planned = Vec::new();
        for index in 0..30u64 {
            let object = gate.object(&format!("o{index}"), 100).await;
            planned.push(plan(&store, &object, &account, 0..100, ReadClass::Near));
        }
        let prefetch = Prefetch::start(planned, 1 << 20, pool.clone(), &Handle::current(), quiet());
        // All that one segment needs is waited for before any of it is taken.
        for segment in (0..30).step_by(6) {
            until("a segment is here", || {
                (segment..segment + 6).all(|index| prefetch.ready(index))
            })
            .await;
            for index in segment..segment + 6 {
                assert_eq!(prefetch.try_take(index).unwrap().unwrap().len(), 100);
            }
        }
        assert_eq!(pool.used(), 0);
        assert!(pool.most() <= limit);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbours_are_merged_and_given_back_together() {
    let gate = GateStore::new(1000);
    let (store, pool, account) = (store(&gate, "a"), Pool::new(1 << 30), Arc::<Account>::default());
    let object = gate.object("o", 1000).await;
    let ranges = [500..600, 0..100, 100..200, 150..250, 300..300];
    let planned = ranges
        .iter()
        .map(|range| plan(&store, &object, &account, range.clone(), ReadClass::Near))
        .collect();
    let prefetch = Prefetch::start(planned, 1 << 20, pool.clone(), &Handle::current(), quiet());
    let whole = content("o", 1000);
    for (index, range) in ranges.iter().enumerate() {
        assert_eq!(pool.used(), 600);
        let bytes = prefetch.take(index).await.unwrap();
        assert_eq!(bytes, whole.slice(range.start as usize..range.end as usize));
    }
    assert_eq!(gate.ranges(), vec![0..600]);
    assert_eq!(pool.used(), 0);
    assert_eq!(account.totals().gap_bytes, 250);
    // A second time, on demand.
    assert!(prefetch.ready(0));
    assert!(prefetch.try_take(0).is_none());
    assert_eq!(prefetch.take(0).await.unwrap(), whole.slice(500..600));
    assert_eq!(gate.ranges().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_ranges_cost_nothing_further() {
    let gate = GateStore::new(2);
    let (store, pool, account) = (store(&gate, "a"), Pool::new(1 << 30), Arc::<Account>::default());
    let mut planned = Vec::new();
    for index in 0..10u64 {
        let object = gate.object(&format!("o{index}"), 100).await;
        planned.push(plan(&store, &object, &account, 0..100, ReadClass::Near));
    }
    let prefetch = Prefetch::start(planned, 400, pool.clone(), &Handle::current(), quiet());
    until("two are here, two under way", || {
        prefetch.state().in_flight == 2 && gate.reads.lock().len() == 4
    })
    .await;
    for index in (0..8).rev() {
        prefetch.cancel(index);
        prefetch.cancel(index);
    }
    let totals = account.totals();
    assert_eq!((totals.cancelled_ranges, totals.wasted_bytes), (8, 200));
    assert!((0..8).all(|index| prefetch.ready(index)));
    gate.gate.add_permits(100);
    for index in 8..10 {
        assert_eq!(prefetch.take(index).await.unwrap().len(), 100);
    }
    assert_eq!(prefetch.take(3).await.unwrap(), content("o3", 100));
    assert_eq!(pool.used(), 0);
    let read: Vec<String> = gate.reads.lock().iter().map(|(path, _)| path.clone()).collect();
    assert!(!read.contains(&"o4".to_owned()), "{read:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_gives_everything_back_and_stops_requests() {
    let gate = GateStore::new(2);
    let ((store, lake), pool, account) = (lake(&gate, "a"), Pool::new(1 << 30), Arc::<Account>::default());
    let mut planned = Vec::new();
    for index in 0..10u64 {
        let object = gate.object(&format!("o{index}"), 100).await;
        planned.push(plan(&store, &object, &account, 0..100, ReadClass::Near));
    }
    let prefetch = Prefetch::start(planned, 500, pool.clone(), &Handle::current(), quiet());
    until("two are here", || prefetch.state().in_flight == 3).await;
    assert_eq!(pool.used(), 500);
    assert_eq!(lake.metrics().window_used_bytes, 500);
    drop(prefetch);
    assert_eq!(pool.used(), 0);
    assert_eq!(lake.metrics().window_used_bytes, 0);
    assert_eq!(lake.metrics().stores[0].totals.wasted_bytes, 200);
    assert_eq!(account.totals().wasted_bytes, 200);
    gate.gate.add_permits(100);
    // A thread of the runtime may be in one of them yet.
    until("tasks are gone", || Arc::strong_count(&store) == 2).await;
    assert!(gate.reads.lock().len() <= 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_go_to_the_taker() {
    let gate = GateStore::new(1000);
    let (store, pool, account) = (store(&gate, "a"), Pool::new(1 << 30), Arc::default());
    let object = gate.object("o", 1000).await;
    gate.failing.lock().insert("o".to_owned(), 1);
    let short = gate.object("short", 50).await;
    let planned = vec![
        plan(&store, &object, &account, 0..100, ReadClass::Near),
        plan(&store, &object, &account, 100..200, ReadClass::Near),
        plan(&store, &short, &account, 0..100, ReadClass::Near),
    ];
    let prefetch = Prefetch::start(planned, 1 << 20, pool.clone(), &Handle::current(), quiet());
    for index in 0..2 {
        let error = prefetch.take(index).await.unwrap_err();
        assert!(matches!(error, object_store::Error::PermissionDenied { .. }), "{error}");
        assert!(error.to_string().contains("told to fail"), "{error}");
    }
    assert!(prefetch.take(2).await.is_err());
    assert!(prefetch.take(99).await.is_err());
    assert_eq!(gate.ranges().iter().filter(|range| range.end == 200).count(), 1);
    assert_eq!(pool.used(), 0);
}

#[test]
fn a_runtime_that_ends_leaves_nobody_waiting() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let gate = GateStore::new(0);
    let (store, pool, account) = (store(&gate, "a"), Pool::new(1 << 30), Arc::default());
    let objects = ["a", "b"].map(|path| runtime.block_on(gate.object(path, 100)));
    let planned = (objects.iter())
        .map(|object| plan(&store, object, &account, 0..100, ReadClass::Near))
        .collect();
    let prefetch = Prefetch::start(planned, 100, pool.clone(), runtime.handle(), quiet());
    let taker = {
        let prefetch = Arc::clone(&prefetch);
        std::thread::spawn(move || (prefetch.take_blocking(0).is_err(), prefetch.take_blocking(1).is_err()))
    };
    std::thread::sleep(Duration::from_millis(20));
    runtime.shutdown_timeout(Duration::from_secs(1));
    assert_eq!(taker.join().unwrap(), (true, true));
    drop(prefetch);
    assert_eq!(pool.used(), 0);
}

#[test]
fn random_plans_over_several_stores_balance() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    for round in 0..20 {
        let gates: Vec<_> = (0..2).map(|_| GateStore::new(100_000)).collect();
        let stores: Vec<_> = gates.iter().map(|gate| store(gate, "a")).collect();
        let account = Arc::<Account>::default();
        let mut planned = Vec::new();
        for (gate, store) in gates.iter().zip(&stores) {
            for path in ["x", "y"] {
                let object = runtime.block_on(gate.object(path, 20_000));
                for _ in 0..random.random_range(1..40) {
                    let start = random.random_range(0..19_000);
                    let range = start..start + random.random_range(0..900);
                    let class = if random.random() {
                        ReadClass::Near
                    } else {
                        ReadClass::Far
                    };
                    let at = random.random_range(0..=planned.len());
                    planned.insert(at, plan(store, &object, &account, range, class));
                }
            }
        }
        let pool = Pool::new(random.random_range(0..20_000));
        let window = random.random_range(0..20_000);
        let prefetch = Prefetch::start(planned.clone(), window, pool.clone(), runtime.handle(), quiet());
        let takers: Vec<_> = (0..4)
            .map(|taker| {
                let (prefetch, planned) = (Arc::clone(&prefetch), planned.clone());
                let mut random = StdRng::seed_from_u64(seed ^ (round * 4 + taker));
                std::thread::spawn(move || {
                    for index in (taker as usize..planned.len()).step_by(4) {
                        if random.random_bool(0.1) {
                            prefetch.cancel(index);
                        }
                        if random.random_bool(0.5) {
                            prefetch.ready(random.random_range(0..planned.len()));
                        }
                        if random.random_bool(0.9) {
                            let one = &planned[index];
                            let whole = content(one.object.location.as_ref(), 20_000);
                            let range = one.range.start as usize..one.range.end as usize;
                            assert_eq!(prefetch.take_blocking(index).unwrap(), whole.slice(range));
                        }
                    }
                })
            })
            .collect();
        for taker in takers {
            taker.join().unwrap();
        }
        let ahead_bytes_max = prefetch.state().ahead_bytes_max;
        assert!(
            ahead_bytes_max <= (window as u64).max(900),
            "{ahead_bytes_max} > {window}"
        );
        drop(prefetch);
        assert_eq!(pool.used(), 0);
    }
}
