//! The two faces of a store: what is joined, merged, remembered and confirmed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;
use futures::{StreamExt, TryStreamExt};
use object_store::{Error, ObjectStoreExt, PutPayload};

use super::*;
use crate::lake::Lake;
use crate::request::faulty::{Fault, FaultyStore};
use crate::testing::{GateStore, content};

fn options() -> LakeOptions {
    LakeOptions {
        memory_bytes: 0,
        part_bytes: 8 << 10,
        split_bytes: 16 << 10,
        ..LakeOptions::default()
    }
}

fn wrap(store: &Arc<FaultyStore>, options: LakeOptions) -> Arc<TieredStore> {
    let store: Arc<dyn ObjectStore> = store.clone();
    Lake::new(options).wrap("k", "faulty", store)
}

fn read(object: &Arc<ObjectRef>, range: Range<u64>, class: ReadClass, account: &Arc<Account>) -> Read {
    Read {
        object: object.clone(),
        range,
        class,
        account: Some(account.clone()),
    }
}

fn near() -> (Arc<FaultyStore>, Arc<TieredStore>) {
    let store = FaultyStore::healthy(Duration::from_millis(5));
    let lake = wrap(&store, options());
    (store, lake)
}

#[tokio::test]
async fn one_range_is_fetched_once_however_many_want_it() {
    let (store, lake) = near();
    let object = store.object("a", 10_000).await;
    let (first, others) = (Arc::default(), Arc::default());
    let leader = read(&object, 0..8000, ReadClass::Near, &first);
    let joiners: Vec<_> = (0..50_u64)
        .map(|at| read(&object, at * 100..at * 100 + 50, ReadClass::Demand, &others))
        .collect();
    let (all, parts) = tokio::join!(lake.read(&leader), join_all(joiners.iter().map(|read| lake.read(read))));
    assert_eq!(all.unwrap(), content("a", 10_000).slice(..8000));
    for (joiner, bytes) in joiners.iter().zip(parts) {
        let range = joiner.range.start as usize..joiner.range.end as usize;
        assert_eq!(bytes.unwrap(), content("a", 10_000).slice(range));
    }
    assert_eq!(store.requests(), 1);
    let others = others.totals();
    assert_eq!(
        (others.needed_bytes, others.fetched_bytes, others.requests),
        (2500, 0, 0)
    );
    assert_eq!(first.totals().fetched_bytes, 8000);
    assert_eq!(lake.shared.flights.len(), 0);
    // Later it is fetched again: nothing here caches.
    lake.read(&leader).await.unwrap();
    assert_eq!(store.requests(), 2);
}

#[tokio::test]
async fn a_flight_goes_on_until_its_last_reader_leaves() {
    // The second request is never answered: its reader has left before, however late this thread is.
    let answers = |number: usize| match number {
        0 => Fault::None,
        _ => Fault::Late(Duration::from_secs(600)),
    };
    let store = FaultyStore::new(Duration::from_millis(100), answers);
    let lake = wrap(&store, options());
    let object = store.object("a", 1000).await;
    let account = Arc::default();
    let whole = read(&object, 0..1000, ReadClass::Far, &account);
    let (leader, joiner) = (tokio::spawn(task(&lake, &whole)), tokio::spawn(task(&lake, &whole)));
    while lake.metrics().in_flight == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    leader.abort();
    assert_eq!(joiner.await.unwrap().unwrap().len(), 1000);
    assert_eq!(store.requests(), 1);
    let last = tokio::spawn(task(&lake, &whole));
    while lake.metrics().in_flight == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    last.abort();
    while lake.metrics().in_flight > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!((lake.shared.flights.len(), account.totals().fetched_bytes), (0, 1000));
}

fn task(lake: &Arc<TieredStore>, read: &Read) -> impl Future<Output = Result<Bytes>> + Send + 'static {
    let (lake, read) = (lake.clone(), read.clone());
    async move { lake.read(&read).await }
}

#[tokio::test]
async fn an_error_reaches_all_who_joined() {
    let store = FaultyStore::new(Duration::from_millis(5), |_| Fault::NotThere);
    let lake = wrap(&store, options());
    let object = store.object("a", 1000).await;
    let whole = read(&object, 0..1000, ReadClass::Near, &Arc::default());
    for result in join_all((0..10).map(|_| lake.read(&whole))).await {
        assert!(result.unwrap_err().to_string().contains("404"));
    }
    assert_eq!(store.requests(), 1);
}

#[tokio::test]
async fn neighbours_are_one_request_and_gaps_are_counted() {
    let (store, lake) = near();
    let object = store.object("a", 100_000).await;
    let account = Arc::default();
    let ranges = [90_000..90_100, 0..1000, 1500..2500, 2500..3000, 50..60, 40_000..40_000];
    let found = lake
        .read_ranges(&object, &ranges, ReadClass::Demand, Some(&account))
        .await
        .unwrap();
    for (range, bytes) in ranges.iter().zip(&found) {
        assert_eq!(
            *bytes,
            content("a", 100_000).slice(range.start as usize..range.end as usize)
        );
    }
    assert_eq!(store.requests(), 2);
    let totals = account.totals();
    assert_eq!((totals.gap_bytes, totals.fetched_bytes), (500, 3100));
    let again = lake.get_ranges(&object.location, &ranges).await.unwrap();
    assert_eq!(again, found);
    assert_eq!(store.requests(), 4);
    assert_eq!(store.sent_bytes.load(Ordering::SeqCst), 6200);
}

#[tokio::test]
async fn demand_goes_before_prefetch() {
    let gate = GateStore::new(0);
    let one = LakeOptions {
        in_flight_start: 1,
        in_flight_max: 1,
        ..options()
    };
    let inner: Arc<dyn ObjectStore> = gate.clone();
    let lake = Lake::new(one).wrap("k", "gate", inner);
    let mut tasks = Vec::new();
    for (name, class) in [
        ("far1", ReadClass::Far),
        ("far2", ReadClass::Far),
        ("near1", ReadClass::Near),
        ("near2", ReadClass::Near),
        ("demand1", ReadClass::Demand),
    ] {
        let object = gate.object(name, 100).await;
        tasks.push(tokio::spawn(task(
            &lake,
            &read(&object, 0..100, class, &Arc::default()),
        )));
        while lake.shared.flights.len() < tasks.len() {
            tokio::task::yield_now().await;
        }
    }
    // The first is answered once all others wait, however slow this thread is.
    while lake.shared.requests.controller().waiting() < 4 {
        tokio::task::yield_now().await;
    }
    gate.gate.add_permits(5);
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let order: Vec<String> = gate.reads.lock().iter().map(|(path, _)| path.clone()).collect();
    assert_eq!(order, ["far1", "demand1", "near1", "near2", "far2"]);
}

#[tokio::test]
async fn whole_objects_and_all_kinds_of_ranges() {
    for listed in [false, true] {
        let (store, lake) = near();
        for size in [0_usize, 1, 5000, 16_384, 16_385, 300_000] {
            let object = store.object("a", size).await;
            let location = &object.location;
            lake.shared.forget(location);
            if listed {
                lake.list(None).try_collect::<Vec<_>>().await.unwrap();
            }
            let all = content("a", size);
            let result = lake.get(location).await.unwrap();
            assert_eq!((result.meta.size, result.range.end), (size as u64, size as u64));
            assert_eq!(result.bytes().await.unwrap(), all, "{size} {listed}");
            assert_eq!(lake.head(location).await.unwrap().size, size as u64);
            for range in [
                GetRange::Offset(0),
                GetRange::Offset(4000),
                GetRange::Suffix(20_000),
                GetRange::Suffix(7),
                GetRange::Bounded(3..1 << 30),
            ] {
                let get = GetOptions::new().with_range(Some(range.clone()));
                let is = match lake.get_opts(location, get.clone()).await {
                    Ok(result) => Some(result.bytes().await.unwrap()),
                    Err(_) => None,
                };
                let expected = range
                    .as_range(size as u64)
                    .ok()
                    .map(|range| all.slice(range.start as usize..range.end as usize));
                assert_eq!(is, expected, "{range:?} of {size}, {listed}");
                let named = get.with_if_match(object.e_tag.clone());
                let is = match lake.get_opts(location, named).await {
                    Ok(result) => Some(result.bytes().await.unwrap()),
                    Err(_) => None,
                };
                assert_eq!(is, expected, "{range:?} of {size}, {listed}");
            }
        }
        assert_eq!(lake.metrics().in_flight, 0);
    }
}

#[tokio::test]
async fn without_a_version_the_newest_is_given_and_with_one_only_that() {
    let (store, lake) = near();
    for size in [100, 100_000] {
        let old = store.object("a", size).await;
        lake.list(None).try_collect::<Vec<_>>().await.unwrap();
        // Behind our back, and of another length.
        let new = store.object("a", size + 1).await;
        let bytes = lake.get(&old.location).await.unwrap().bytes().await.unwrap();
        assert_eq!(bytes, content("a", size + 1), "{size}");
        let named = GetOptions::new()
            .with_range(Some(0..50))
            .with_if_match(old.e_tag.clone());
        let error = match lake.get_opts(&old.location, named).await {
            Ok(result) => result.bytes().await.unwrap_err(),
            Err(error) => error,
        };
        assert!(matches!(error, Error::Precondition { .. }), "{error:?}");
        let named = GetOptions::new()
            .with_range(Some(0..50))
            .with_if_match(new.e_tag.clone());
        assert_eq!(
            lake.get_opts(&old.location, named)
                .await
                .unwrap()
                .bytes()
                .await
                .unwrap()
                .len(),
            50
        );
    }
}

#[tokio::test]
async fn an_object_replaced_while_it_streams_is_an_error() {
    let (store, lake) = near();
    let object = store.object("a", 1_000_000).await;
    lake.head(&object.location).await.unwrap();
    let mut stream = lake.get(&object.location).await.unwrap().into_stream();
    let first = stream.next().await.unwrap().unwrap();
    store.object("a", 1_000_000).await;
    let rest: Result<Vec<Bytes>> = stream.try_collect().await;
    let error = rest.unwrap_err();
    assert!(matches!(error, Error::Precondition { .. }), "{error:?}");
    assert_eq!(first, content("a", 1_000_000).slice(..first.len()));
}

#[tokio::test]
async fn what_is_written_here_is_forgotten() {
    let (store, lake) = near();
    let (a, b) = (Path::from("a"), Path::from("b"));
    let put = |bytes: &'static [u8]| PutPayload::from_static(bytes);
    lake.put(&a, put(b"old")).await.unwrap();
    lake.head(&a).await.unwrap();
    lake.put(&a, put(b"newer")).await.unwrap();
    assert!(lake.shared.known.get(&a).is_none());
    assert_eq!(lake.get(&a).await.unwrap().bytes().await.unwrap(), "newer");
    lake.copy(&a, &b).await.unwrap();
    lake.head(&b).await.unwrap();
    lake.rename(&a, &b).await.unwrap();
    assert!(lake.shared.known.get(&b).is_none());
    assert!(matches!(lake.get(&a).await, Err(Error::NotFound { .. })));
    lake.head(&b).await.unwrap();
    lake.delete(&b).await.unwrap();
    assert!(lake.shared.known.get(&b).is_none());
    let mut upload = lake.put_multipart(&a).await.unwrap();
    upload.put_part(put(b"part")).await.unwrap();
    upload.complete().await.unwrap();
    assert_eq!(lake.get(&a).await.unwrap().bytes().await.unwrap(), "part");
    assert_eq!((lake.metrics().in_flight, store.running.load(Ordering::SeqCst)), (0, 0));
}

#[tokio::test]
async fn switched_off_it_is_the_store_itself() {
    let store = FaultyStore::healthy(Duration::ZERO);
    let off = LakeOptions {
        enabled: false,
        ..options()
    };
    let lake = wrap(&store, off);
    let object = store.object("a", 100_000).await;
    let account = Arc::default();
    let bytes = lake
        .read(&read(&object, 0..90_000, ReadClass::Demand, &account))
        .await
        .unwrap();
    assert_eq!(bytes, content("a", 100_000).slice(..90_000));
    assert_eq!(
        lake.get(&object.location).await.unwrap().bytes().await.unwrap().len(),
        100_000
    );
    assert_eq!(store.requests(), 2);
}
