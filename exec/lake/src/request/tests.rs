//! Attempts, resumption, hedges, cancellation and accounts, over a store that goes wrong on purpose.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;
use object_store::ObjectStore;
use object_store::memory::InMemory;

use super::faulty::{Fault, FaultyStore};
use super::*;
use crate::lake::Lake;
use crate::read::{Read, ReadClass};
use crate::store::{Clients, TieredStore};
use crate::testing::content;

const FIRST_BYTE: Duration = Duration::from_millis(2);

fn options() -> LakeOptions {
    LakeOptions {
        memory_bytes: 0,
        attempt_timeout: Duration::from_millis(300),
        part_bytes: 8 << 10,
        split_bytes: 16 << 10,
        ..LakeOptions::default()
    }
}

fn wrap(store: &Arc<FaultyStore>, options: LakeOptions) -> Arc<TieredStore> {
    let store: Arc<dyn ObjectStore> = store.clone();
    Lake::new(options).wrap_clients("k", "faulty", Clients::from(store))
}

fn read(object: &Arc<ObjectRef>, range: Range<u64>, account: &Arc<Account>) -> Read {
    Read {
        object: object.clone(),
        range,
        class: ReadClass::Demand,
        account: Some(account.clone()),
    }
}

#[tokio::test]
async fn a_broken_body_is_read_on_from_where_it_broke() {
    for fault in [Fault::Reset, Fault::Truncated, Fault::Stalled] {
        let store = FaultyStore::new(FIRST_BYTE, move |number| if number == 0 { fault } else { Fault::None });
        let object = store.object("a", 10_000).await;
        let (lake, account) = (wrap(&store, options()), Arc::default());
        let bytes = lake.read(&read(&object, 1000..9000, &account)).await.unwrap();
        assert_eq!(bytes, content("a", 10_000).slice(1000..9000), "{fault:?}");
        let totals = account.totals();
        assert_eq!((totals.requests, totals.retries), (2, 1), "{fault:?}");
        assert_eq!((totals.fetched_bytes, totals.needed_bytes), (8000, 8000), "{fault:?}");
        assert_eq!(
            store.sent_bytes.load(Ordering::SeqCst),
            8000,
            "{fault:?}: the second half only"
        );
    }
}

#[tokio::test]
async fn errors_of_the_caller_are_not_tried_again_and_attempts_end() {
    let store = FaultyStore::new(FIRST_BYTE, |_| Fault::NotThere);
    let object = store.object("a", 100).await;
    let lake = wrap(&store, options());
    let account = Arc::default();
    assert!(lake.read(&read(&object, 0..100, &account)).await.is_err());
    assert_eq!(store.requests(), 1);

    let store = FaultyStore::new(FIRST_BYTE, |_| Fault::Refused);
    let object = store.object("a", 100).await;
    let few = LakeOptions {
        attempts_max: 3,
        ..options()
    };
    let lake = wrap(&store, few);
    let error = lake.read(&read(&object, 0..100, &account)).await.unwrap_err();
    assert_eq!(store.requests(), 3, "{error}");
}

#[tokio::test]
async fn a_replaced_object_is_an_error_that_says_so() {
    let store = FaultyStore::healthy(FIRST_BYTE);
    let object = store.object("a", 100).await;
    let lake = wrap(&store, options());
    store.object("a", 100).await;
    let error = lake.read(&read(&object, 0..100, &Arc::default())).await.unwrap_err();
    assert!(matches!(error, Error::Precondition { .. }), "{error:?}");
    assert!(error.to_string().contains("was replaced"), "{error}");
    assert_eq!(store.requests(), 1);
}

#[tokio::test]
async fn long_ranges_are_parts_in_one_buffer() {
    let store = FaultyStore::healthy(FIRST_BYTE);
    let object = store.object("a", 100_000).await;
    let (lake, account) = (wrap(&store, options()), Arc::default());
    let bytes = lake.read(&read(&object, 10..90_010, &account)).await.unwrap();
    assert_eq!(bytes, content("a", 100_000).slice(10..90_010));
    assert_eq!(store.requests(), 11);
    assert!(
        store.running_max.load(Ordering::SeqCst) > 5,
        "parts are read in parallel"
    );
}

#[tokio::test]
async fn a_thousand_faults_and_every_byte_is_right() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let store = FaultyStore::sick(seed, 45);
    let mut objects = Vec::new();
    for number in 0..40 {
        objects.push(store.object(&format!("{number}"), 20_000).await);
    }
    let quick = LakeOptions {
        attempts_max: 40,
        attempt_timeout: Duration::from_millis(100),
        ..options()
    };
    let (lake, account) = (wrap(&store, quick), Arc::default());
    let reads = (0..1600_u64).map(|number| {
        let object = &objects[number as usize % 40];
        let start = number / 40 * 400;
        let read = read(object, start..start + 400 + number % 7, &account);
        let lake = &lake;
        async move { (lake.read(&read).await, read) }
    });
    for (bytes, read) in join_all(reads).await {
        let range = read.range.start as usize..read.range.end as usize;
        let all = content(read.object.location.as_ref(), 20_000);
        assert_eq!(bytes.unwrap(), all.slice(range), "seed {seed}");
    }
    let (totals, metrics) = (account.totals(), lake.metrics());
    assert_eq!(metrics.in_flight, 0, "slots are given back");
    assert_eq!(totals.requests, store.requests() as u64);
    let sent = store.sent_bytes.load(Ordering::SeqCst) as u64;
    assert!(totals.fetched_bytes == totals.needed_bytes && totals.fetched_bytes <= sent);
    assert!(totals.retries > 900 && metrics.throttled > 100, "{totals:?}");
}

#[tokio::test]
async fn a_reader_that_leaves_frees_its_slot() {
    let store = FaultyStore::new(FIRST_BYTE, |_| Fault::Stalled);
    let object = store.object("a", 100_000).await;
    let narrow = LakeOptions {
        in_flight_start: 4,
        in_flight_max: 4,
        attempt_timeout: Duration::from_secs(60),
        ..options()
    };
    let lake = wrap(&store, narrow);
    let account = Arc::default();
    let reads: Vec<_> = (0..20_u64)
        .map(|at| {
            let (lake, read) = (lake.clone(), read(&object, at * 100..at * 100 + 100, &account));
            tokio::spawn(async move { lake.read(&read).await })
        })
        .collect();
    while lake.metrics().in_flight < 4 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    reads.iter().for_each(tokio::task::JoinHandle::abort);
    for _ in 0..1000 {
        if lake.metrics().in_flight == 0 && store.running.load(Ordering::SeqCst) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!(
        "{} slots and {:?} requests are left",
        lake.metrics().in_flight,
        store.running
    );
}

#[tokio::test]
async fn slow_first_bytes_are_hedged_within_the_budget() {
    let late = |number: usize| number >= 100 && number.is_multiple_of(25);
    // Late on a machine too on which all answers are.
    let slow = Duration::from_secs(1);
    let store = FaultyStore::new(Duration::from_millis(5), move |number| match late(number) {
        true => Fault::Late(slow),
        false => Fault::None,
    });
    let object = store.object("a", 100_000).await;
    let patient = LakeOptions {
        attempt_timeout: Duration::from_secs(30),
        ..options()
    };
    let (lake, account) = (wrap(&store, patient.clone()), Arc::default());
    for at in 0..250_u64 {
        let reads = (0..4_u64)
            .map(|part| (at * 4 + part) * 37 % 90_000)
            .map(|start| read(&object, start..start + 999, &account));
        let reads: Vec<_> = reads.collect();
        for bytes in join_all(reads.iter().map(|read| lake.read(read))).await {
            assert_eq!(bytes.unwrap().len(), 999);
        }
    }
    let totals = account.totals();
    assert!(
        totals.hedges_won >= 12 && totals.hedges_won <= totals.hedges,
        "{totals:?}"
    );
    assert!(
        totals.hedges * 100 <= (totals.requests - totals.hedges) * 5,
        "{totals:?}"
    );
    assert_eq!(totals.requests, store.requests() as u64);
    let off = wrap(
        &store,
        LakeOptions {
            hedge_percent: 0,
            ..patient
        },
    );
    for at in 0..50_u64 {
        off.read(&read(&object, at..at + 1, &account)).await.unwrap();
    }
    assert_eq!(off.metrics().totals.hedges, 0);
}

#[tokio::test]
async fn a_retry_goes_to_another_client() {
    let broken = FaultyStore::new(FIRST_BYTE, |_| Fault::Refused);
    let sound = FaultyStore::healthy(FIRST_BYTE);
    broken.object("a", 1000).await;
    let object = sound.object("a", 1000).await;
    let clients = Clients {
        readers: vec![broken.clone(), sound.clone()],
        other: Arc::new(InMemory::new()),
    };
    let lake = Lake::new(options()).wrap_clients("k", "two", clients);
    let bytes = lake.read(&read(&object, 0..1000, &Arc::default())).await.unwrap();
    assert_eq!(bytes, content("a", 1000));
    assert_eq!((broken.requests(), sound.requests()), (1, 1));
}
