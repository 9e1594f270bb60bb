//! Reads through HTTP, against a simulated store that is slow, sick or full: bytes are right, and both sides count the same.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panics")]

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{join_all, try_join_all};
use futures::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, RetryConfig};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use simstore::{Config, Fault, Faults, Kind, Profile, Script, SimStore, synthetic_bytes};
use trireme_lake::{Account, Clients, Lake, LakeOptions, ObjectRef, Read, ReadClass, TieredStore};

fn start(profile: Profile) -> SimStore {
    SimStore::start(Config::with_profile(profile)).unwrap()
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

fn wrap(sim: &SimStore, options: LakeOptions) -> Arc<TieredStore> {
    let clients = Clients {
        readers: vec![client(sim, 0), client(sim, 0)],
        other: client(sim, 10),
    };
    Lake::new(options).wrap_clients("k", "s3://lake", clients)
}

fn uncached() -> LakeOptions {
    LakeOptions {
        memory_bytes: 0,
        ..LakeOptions::default()
    }
}

/// For tests that count requests: no answer is late, and none is asked for again, however busy the machine is.
fn patient() -> LakeOptions {
    LakeOptions {
        hedge_percent: 0,
        late_min: Duration::from_secs(60),
        attempt_timeout: Duration::from_secs(60),
        ..uncached()
    }
}

/// An object of random bytes, and its reference.
async fn object(sim: &SimStore, lake: &TieredStore, key: &str, size: u64) -> (Bytes, Arc<ObjectRef>) {
    let bytes = synthetic_bytes(7, 0..size);
    sim.put("lake", key, bytes.clone()).unwrap();
    let meta = lake.head(&Path::from(key)).await.unwrap();
    (bytes, Arc::new(ObjectRef::new(&meta)))
}

fn read(object: &Arc<ObjectRef>, range: Range<u64>, account: &Arc<Account>) -> Read {
    Read {
        object: Arc::clone(object),
        range,
        class: ReadClass::Demand,
        account: Some(Arc::clone(account)),
    }
}

fn slice(bytes: &Bytes, range: &Range<u64>) -> Bytes {
    bytes.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap())
}

async fn until_idle(sim: &SimStore) {
    for _ in 0..3000 {
        if sim.counters().total.in_flight == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?}", sim.counters().total);
}

#[tokio::test]
async fn each_fault_once_and_the_bytes_are_right() {
    let sim = start(Profile::none());
    let lake = wrap(&sim, patient());
    let (bytes, object) = object(&sim, &lake, "a", 300_000).await;
    let faults = [
        Fault::Error(500),
        Fault::Error(503),
        Fault::Error(429),
        Fault::ResetBefore,
        Fault::ResetAfter,
        Fault::ResetBody,
        Fault::Truncate,
    ];
    for fault in faults {
        sim.script(Script {
            kind: Some(Kind::Get),
            key_contains: String::new(),
            skip: 0,
            times: 2,
            fault,
        });
        let account = Arc::default();
        let range = 100_000..250_000;
        let is = lake.read(&read(&object, range.clone(), &account)).await.unwrap();
        assert_eq!(is, slice(&bytes, &range), "{fault:?}");
        let totals = account.totals();
        // A client may send again by itself what a fresh connection's reset left unanswered.
        assert!((1..=2).contains(&totals.retries), "{fault:?}: {totals:?}");
        assert_eq!(totals.fetched_bytes, 150_000, "{fault:?}");
    }
    sim.script(Script {
        kind: Some(Kind::Get),
        key_contains: String::new(),
        skip: 0,
        times: 1,
        fault: Fault::Error(403),
    });
    let error = lake.read(&read(&object, 0..10, &Arc::default())).await.unwrap_err();
    assert!(matches!(error, Error::PermissionDenied { .. }), "{error:?}");
    assert_eq!(lake.metrics().in_flight, 0);
}

#[tokio::test]
async fn both_sides_count_the_same() {
    let sim = start(Profile::none());
    let lake = wrap(&sim, patient());
    let (bytes, object) = object(&sim, &lake, "a", 3_000_000).await;
    sim.reset_counters();
    let account = Arc::default();
    let reads = (0..200_u64).map(|at| read(&object, at * 14_000..at * 14_000 + 13_000, &account));
    let reads: Vec<_> = reads.collect();
    let found = try_join_all(reads.iter().map(|read| lake.read(read))).await.unwrap();
    for (read, is) in reads.iter().zip(found) {
        assert_eq!(is, slice(&bytes, &read.range));
    }
    let ranges: Vec<_> = (0..100_u64).map(|at| at * 30_000..at * 30_000 + 29_000).collect();
    lake.read_ranges(&object, &ranges, ReadClass::Near, Some(&account))
        .await
        .unwrap();
    let (theirs, ours) = (sim.counters().total, account.totals());
    assert_eq!(theirs.of(Kind::Get), ours.requests);
    assert_eq!(theirs.sent_bytes, ours.fetched_bytes + ours.hedge_bytes);
    assert_eq!(ours.fetched_bytes, ours.needed_bytes + ours.gap_bytes);
    assert_eq!(ours.needed_bytes, 200 * 13_000 + 100 * 29_000);
    assert!(ours.gap_bytes >= 90_000 && ours.requests < 210, "{ours:?}");
    assert_eq!(lake.metrics().totals.fetched_bytes, ours.fetched_bytes);
}

#[tokio::test]
async fn a_sick_store_fails_nobody() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let sick = Profile {
        first_byte_ms: 1.0,
        faults: Faults {
            error_500_percent: 3.0,
            error_503_percent: 6.0,
            stall_percent: 1.0,
            reset_percent: 6.0,
            truncate_percent: 4.0,
            ..Faults::default()
        },
        ..Profile::none()
    };
    let sim = SimStore::start(Config {
        seed,
        ..Config::with_profile(sick)
    })
    .unwrap();
    let lake = wrap(&sim, uncached());
    let (bytes, object) = object(&sim, &lake, "a", 1_000_000).await;
    let account = Arc::default();
    let mut random = StdRng::seed_from_u64(seed);
    let mut reads = Vec::new();
    for _ in 0..400 {
        let start = random.random_range(0..990_000);
        reads.push(read(&object, start..start + random.random_range(1..10_000), &account));
    }
    let found = futures::stream::iter(&reads)
        .map(|read| lake.read(read))
        .buffered(64)
        .try_collect::<Vec<_>>()
        .await
        .unwrap();
    for (read, is) in reads.iter().zip(found) {
        assert_eq!(is, slice(&bytes, &read.range), "seed {seed}");
    }
    let (totals, metrics) = (account.totals(), lake.metrics());
    assert!(totals.retries > 25 && metrics.throttled > 5, "seed {seed}: {totals:?}");
    // Ranges that lie in others that were under way came with them.
    assert!(totals.fetched_bytes <= totals.needed_bytes, "seed {seed}: {totals:?}");
    assert_eq!(metrics.in_flight, 0);
    // Attempts that were given up are over for the store too.
    until_idle(&sim).await;
}

#[tokio::test]
async fn a_full_store_is_asked_less() {
    let sim = start(Profile::none());
    let lake = wrap(&sim, patient());
    let (_, object) = object(&sim, &lake, "data/a", 100_000).await;
    sim.script(Script {
        kind: Some(Kind::Get),
        key_contains: String::new(),
        skip: 0,
        times: 150,
        fault: Fault::Error(503),
    });
    let account = Arc::default();
    let reads: Vec<_> = (0..200_u64)
        .map(|at| read(&object, at * 100..at * 100 + 100, &account))
        .collect();
    for result in join_all(reads.iter().map(|read| lake.read(read))).await {
        assert_eq!(result.unwrap().len(), 100);
    }
    let metrics = lake.metrics();
    assert_eq!(metrics.throttled, 150);
    assert!(metrics.in_flight_limit < uncached().in_flight_start, "{metrics:?}");
}

#[tokio::test]
async fn more_requests_are_sent_when_they_bring_more() {
    // Long enough for a slow machine to send them all before the first is answered.
    let latency = Profile {
        first_byte_ms: 1000.0,
        ..Profile::none()
    };
    let sim = start(latency);
    let lake = wrap(&sim, uncached());
    let (_, object) = object(&sim, &lake, "a", 1_000_000).await;
    let account = Arc::default();
    let reads: Vec<_> = (0..500_u64)
        .map(|at| read(&object, at * 1000..at * 1000 + 1000, &account))
        .collect();
    try_join_all(reads.iter().map(|read| lake.read(read))).await.unwrap();
    let most = sim.counters().total.in_flight_max;
    assert!(most > 45, "{most} requests at once, {:?}", lake.metrics());
    assert!(most <= 256 + 32);
}

#[tokio::test]
async fn slow_first_bytes_are_overtaken() {
    let slow = Profile {
        first_byte_ms: 15.0,
        first_byte_sigma: 0.2,
        faults: Faults {
            slow_percent: 4.0,
            // Late on a machine too on which all answers are.
            slow_factor: 60.0,
            ..Faults::default()
        },
        ..Profile::none()
    };
    let sim = start(slow);
    let lake = wrap(&sim, uncached());
    let (_, object) = object(&sim, &lake, "a", 1_000_000).await;
    let account = Arc::default();
    let reads: Vec<_> = (0..500_u64)
        .map(|at| read(&object, at * 1000..at * 1000 + 1000, &account))
        .collect();
    let found = futures::stream::iter(&reads).map(|read| lake.read(read)).buffered(16);
    assert_eq!(found.try_collect::<Vec<_>>().await.unwrap().len(), 500);
    let totals = account.totals();
    assert!(totals.hedges_won >= 3, "{totals:?}");
    assert!(totals.hedges * 20 <= totals.requests, "{totals:?}");
}

#[tokio::test]
async fn what_nobody_wants_any_more_is_not_fetched() {
    // None is answered before its reader has left.
    let slow = Profile {
        first_byte_ms: 1000.0,
        ..Profile::none()
    };
    let sim = start(slow);
    let lake = wrap(&sim, uncached());
    let (_, object) = object(&sim, &lake, "a", 1_000_000).await;
    sim.reset_counters();
    let reads: Vec<_> = (0..200_u64)
        .map(|at| read(&object, at * 5000..at * 5000 + 1000, &Arc::default()))
        .collect();
    let waiting = join_all(reads.iter().map(|read| lake.read(read)));
    assert!(tokio::time::timeout(Duration::from_millis(50), waiting).await.is_err());
    while lake.metrics().in_flight > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    until_idle(&sim).await;
    let total = sim.counters().total;
    assert!(
        total.of(Kind::Get) <= uncached().in_flight_start as u64 + 1,
        "{total:?}"
    );
}

#[tokio::test]
async fn long_objects_stream_in_order() {
    let near = Profile {
        first_byte_ms: 5.0,
        ..Profile::none()
    };
    let sim = start(near);
    let small = LakeOptions {
        part_bytes: 100_000,
        split_bytes: 200_000,
        ..patient()
    };
    let lake = wrap(&sim, small);
    let (bytes, object) = object(&sim, &lake, "a", 3_000_001).await;
    sim.reset_counters();
    let is = lake.get(&object.location).await.unwrap().bytes().await.unwrap();
    assert_eq!(is, bytes);
    let total = sim.counters().total;
    assert_eq!(
        (total.of(Kind::Get), total.of(Kind::Head), total.sent_bytes),
        (30, 0, 3_000_001)
    );
    assert!(total.in_flight_max >= 4, "{total:?}");
    // Replaced between two parts: no mixture.
    let mut stream = lake.get(&object.location).await.unwrap().into_stream();
    stream.next().await.unwrap().unwrap();
    sim.put("lake", "a", synthetic_bytes(8, 0..3_000_001)).unwrap();
    let error = stream.try_collect::<Vec<_>>().await.unwrap_err();
    assert!(
        matches!(error, Error::Precondition { .. }) && error.to_string().contains("was replaced"),
        "{error}"
    );
    let is = lake.get(&object.location).await.unwrap().bytes().await.unwrap();
    assert_eq!(is, synthetic_bytes(8, 0..3_000_001));
}

#[tokio::test]
async fn a_wrong_address_is_soon_an_error() {
    let sim = start(Profile::none());
    let lake = wrap(&sim, uncached());
    drop(sim);
    let begun = std::time::Instant::now();
    let error = lake.head(&Path::from("a")).await.unwrap_err();
    // What takes time are attempts, with pauses that grow; the clock also counts what others do on the machine.
    let requests = lake.metrics().totals.requests;
    assert!(requests <= 4, "{error} after {requests} requests");
    assert!(
        begun.elapsed() < Duration::from_secs(60),
        "{error} after {:?}",
        begun.elapsed()
    );
}
