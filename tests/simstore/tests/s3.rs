//! S3's language, spoken by object_store's client.

#![allow(clippy::unwrap_used, reason = "tests fail by panics")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions,
    PutOptions, RetryConfig,
};
use simstore::{Access, Config, Fault, Kind, Profile, Script, SimStore, synthetic_bytes};

fn builder(store: &SimStore) -> AmazonS3Builder {
    AmazonS3Builder::new()
        .with_endpoint(store.url())
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_bucket_name("lake")
        .with_access_key_id("key")
        .with_secret_access_key("secret")
}

fn client(store: &SimStore) -> AmazonS3 {
    builder(store).build().unwrap()
}

/// A client that gives up at the first error.
fn impatient(store: &SimStore) -> AmazonS3 {
    let retry = RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    };
    builder(store).with_retry(retry).build().unwrap()
}

fn create() -> PutOptions {
    PutOptions::from(PutMode::Create)
}

#[tokio::test]
async fn objects_are_written_read_and_listed() {
    let store = SimStore::start(Config::default()).unwrap();
    let client = client(&store);
    let path = Path::parse("folder/ü +=&.parquet").unwrap();
    let put = client
        .put(&path, Bytes::from_static(b"0123456789").into())
        .await
        .unwrap();
    store.put("lake", "folder/second", "x").unwrap();
    store.put("lake", "top", "yy").unwrap();

    let meta = client.head(&path).await.unwrap();
    assert_eq!((meta.size, &meta.e_tag), (10, &put.e_tag));
    assert_eq!(client.get(&path).await.unwrap().bytes().await.unwrap(), "0123456789");
    assert_eq!(client.get_range(&path, 2..5).await.unwrap(), "234");
    let suffix = GetOptions::new().with_range(Some(GetRange::Suffix(4)));
    let tail = client.get_opts(&path, suffix).await.unwrap();
    assert_eq!(tail.meta.size, 10);
    assert_eq!(tail.bytes().await.unwrap(), "6789");

    let listed: Vec<_> = client.list(None).try_collect().await.unwrap();
    let names: Vec<_> = listed.iter().map(|meta| (meta.location.as_ref(), meta.size)).collect();
    assert_eq!(names, [("folder/second", 1), ("folder/ü +=&.parquet", 10), ("top", 2)]);
    assert_eq!(listed[1].e_tag, put.e_tag);
    let level = client.list_with_delimiter(None).await.unwrap();
    assert_eq!(level.common_prefixes, [Path::from("folder")]);
    assert_eq!(level.objects.len(), 1);
    let later: Vec<_> = client.list_with_offset(None, &path).try_collect().await.unwrap();
    assert_eq!(later.len(), 1);

    client.copy(&path, &Path::from("copy")).await.unwrap();
    assert_eq!(store.get("lake", "copy").unwrap(), "0123456789");
    client.delete(&path).await.unwrap();
    assert!(matches!(client.head(&path).await, Err(Error::NotFound { .. })));

    let total = store.counters().total;
    assert_eq!(
        (
            total.of(Kind::Put),
            total.of(Kind::Get),
            total.of(Kind::Copy),
            total.in_flight
        ),
        (1, 3, 1, 0)
    );
    assert!(total.received_bytes >= 10 && total.sent_bytes >= 17, "{total:?}");
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    let store = SimStore::start(Config::default()).unwrap();
    for index in 0..2500 {
        store
            .put("lake", &format!("part={}/{index:05}", index % 7), "")
            .unwrap();
    }
    let listed: Vec<_> = client(&store).list(None).try_collect().await.unwrap();
    assert_eq!(listed.len(), 2500);
    assert_eq!(store.counters().total.of(Kind::List), 3);
    assert_eq!(
        client(&store)
            .list_with_delimiter(None)
            .await
            .unwrap()
            .common_prefixes
            .len(),
        7
    );
}

#[tokio::test]
async fn one_of_24_writers_wins() {
    let store = SimStore::start(Config::default()).unwrap();
    let client = Arc::new(client(&store));
    let path = Path::from("commit");
    for round in 0..4 {
        let before = client.head(&path).await.ok();
        let mode = match before {
            None => PutMode::Create,
            Some(meta) => PutMode::Update(object_store::UpdateVersion {
                e_tag: meta.e_tag,
                version: None,
            }),
        };
        let writers = (0..24).map(|writer| {
            let (client, path, mode) = (Arc::clone(&client), path.clone(), mode.clone());
            let data = format!("{round} {writer}");
            tokio::spawn(async move { client.put_opts(&path, data.into(), mode.into()).await })
        });
        let results: Vec<_> = futures::stream::iter(writers).buffered(24).collect().await;
        let won = results.iter().filter(|result| matches!(result, Ok(Ok(_)))).count();
        assert_eq!(won, 1, "round {round}: {results:?}");
    }
}

#[tokio::test]
async fn reads_are_conditional() {
    let store = SimStore::start(Config::default()).unwrap();
    let client = impatient(&store);
    let path = Path::from("a");
    let old = store.put("lake", "a", "old").unwrap();
    let if_match = |e_tag: &str| GetOptions::new().with_if_match(Some(e_tag));
    assert!(client.get_opts(&path, if_match(&old)).await.is_ok());
    let fresh = GetOptions::new().with_if_none_match(Some(old.clone()));
    assert!(matches!(
        client.get_opts(&path, fresh).await,
        Err(Error::NotModified { .. })
    ));
    let new = store.put("lake", "a", "new").unwrap();
    assert_ne!(old, new);
    assert!(matches!(
        client.get_opts(&path, if_match(&old)).await,
        Err(Error::Precondition { .. })
    ));
    assert!(matches!(
        client.put_opts(&path, "x".into(), create()).await,
        Err(Error::AlreadyExists { .. })
    ));
}

#[tokio::test]
async fn uploads_in_parts_are_completed_or_aborted() {
    let store = SimStore::start(Config::default()).unwrap();
    let client = client(&store);
    let path = Path::from("large");
    let part = synthetic_bytes(3, 0..5 << 20);
    let mut upload = client
        .put_multipart_opts(&path, PutMultipartOptions::default())
        .await
        .unwrap();
    for piece in [part.clone(), part.slice(0..100)] {
        upload.put_part(piece.into()).await.unwrap();
    }
    assert_eq!(store.uploads("lake"), 1);
    assert!(store.get("lake", "large").is_none());
    // An error in a 200 is tried again.
    store.script(Script {
        kind: Some(Kind::Complete),
        key_contains: String::new(),
        skip: 0,
        times: 1,
        fault: Fault::ErrorIn200,
    });
    upload.complete().await.unwrap();
    assert_eq!(store.counters().total.of(Kind::Complete), 2);
    let stored = store.get("lake", "large").unwrap();
    assert_eq!(stored.len(), (5 << 20) + 100);
    assert_eq!(stored[5 << 20..], part[..100]);

    let mut upload = client.put_multipart(&Path::from("other")).await.unwrap();
    upload.put_part(part.into()).await.unwrap();
    upload.abort().await.unwrap();
    assert_eq!(store.uploads("lake"), 0);
    assert_eq!(store.keys("lake", ""), ["large"]);
}

#[tokio::test]
async fn synthetic_objects_are_larger_than_memory() {
    let store = SimStore::start(Config::default()).unwrap();
    let size = 5 << 40;
    store.put_synthetic("lake", "huge", size, 9).unwrap();
    let client = client(&store);
    assert_eq!(client.head(&Path::from("huge")).await.unwrap().size, size);
    let range = size - 12_345_678..size - 1;
    let read = client.get_range(&Path::from("huge"), range.clone()).await.unwrap();
    let period = 4_194_301;
    let start = range.start % period;
    assert_eq!(read, synthetic_bytes(9, start..start + (range.end - range.start)));
}

#[tokio::test]
async fn near_is_as_late_and_as_slow_as_it_says() {
    let store = SimStore::start(Config::with_profile(Profile::near())).unwrap();
    store.put_synthetic("lake", "a", 1 << 30, 1).unwrap();
    let client = client(&store);
    let begin = Instant::now();
    let read = client.get_range(&Path::from("a"), 0..5_000_000).await.unwrap();
    assert_eq!(read.len(), 5_000_000);
    // 100 ms of body; the first byte is rarely below 10 ms.
    assert!(begin.elapsed() >= Duration::from_millis(105), "{:?}", begin.elapsed());
    let request = store.requests().pop().unwrap();
    assert_eq!(request.range, Some(0..5_000_000));
    let mut body_us = request.end_us - request.first_byte_us;
    assert!(body_us >= 95_000, "{request:?}");
    // Whoever stands still for a moment makes one body late, not all.
    for _ in 0..20 {
        if body_us < 250_000 {
            return;
        }
        client.get_range(&Path::from("a"), 0..5_000_000).await.unwrap();
        let request = store.requests().pop().unwrap();
        body_us = request.end_us - request.first_byte_us;
    }
    panic!("each body is late, the last took {body_us} µs");
}

#[tokio::test]
async fn scripted_faults_come_as_told() {
    let store = SimStore::start(Config::default()).unwrap();
    store.put_synthetic("lake", "a", 1 << 20, 1).unwrap();
    let client = impatient(&store);
    let path = Path::from("a");
    let script = |fault, skip| Script {
        kind: Some(Kind::Get),
        key_contains: "a".to_owned(),
        skip,
        times: 1,
        fault,
    };
    let read = || async { client.get(&path).await?.bytes().await };
    store.script(script(Fault::Error(503), 1));
    assert!(read().await.is_ok());
    assert!(read().await.unwrap_err().to_string().contains("SlowDown"));
    for fault in [Fault::ResetBefore, Fault::ResetBody, Fault::Truncate] {
        store.script(script(fault, 0));
        assert!(read().await.is_err(), "{fault:?}");
        assert!(read().await.is_ok(), "after {fault:?}");
    }
    store.script(script(Fault::Stall(Duration::from_millis(300)), 0));
    let begin = Instant::now();
    assert!(read().await.is_ok());
    assert!(begin.elapsed() >= Duration::from_millis(300));

    // The answer is lost, the object is there.
    store.script(Script {
        kind: Some(Kind::Put),
        ..script(Fault::ResetAfter, 0)
    });
    assert!(client.put_opts(&path, "b".into(), PutOptions::default()).await.is_err());
    assert_eq!(store.get("lake", "a").unwrap(), "b");
    let faults = store.counters().total.faults;
    assert_eq!(
        (
            faults["reset"],
            faults["truncate"],
            faults["stall"],
            faults["error_503"]
        ),
        (3, 1, 1, 1)
    );
    store.reset_counters();
    assert_eq!(store.counters().total.requests(), 0);
}

#[tokio::test]
async fn a_prefix_answers_so_many_requests() {
    let profile = Profile {
        prefix_requests_per_second: 50,
        ..Profile::none()
    };
    let store = SimStore::start(Config::with_profile(profile)).unwrap();
    store.put("lake", "p/a", "x").unwrap();
    let client = impatient(&store);
    let path = Path::from("p/a");
    // As many as the rate gives in whatever time they take, and a burst of five. None is refused of requests that take long.
    let begin = Instant::now();
    let (mut sent, mut passed) = (0_u32, 0_u32);
    while passed == sent && sent < 2_000 {
        let reads = futures::stream::iter(0..40).map(|_| client.get(&path)).buffered(8);
        for result in reads.collect::<Vec<_>>().await {
            sent += 1;
            passed += u32::from(result.is_ok());
        }
        let most = 5.0 + 50.0 * begin.elapsed().as_secs_f64();
        assert!(
            passed >= 5 && f64::from(passed) <= most,
            "{passed} of {sent}, at most {most}"
        );
    }
    assert!(passed < sent, "none of {sent} was refused");
    assert!(
        client
            .get(&Path::from("q/a"))
            .await
            .unwrap_err()
            .to_string()
            .contains("NoSuchKey")
    );
}

#[tokio::test]
async fn who_may_come_in_is_asked() {
    let store = SimStore::start(Config::default()).unwrap();
    store.put("lake", "a", "x").unwrap();
    let access = Access {
        keys: vec!["key".to_owned()],
        session_token: Some("token".to_owned()),
        request_payer: true,
    };
    store.set_access(access);
    let path = Path::from("a");
    let full = || builder(&store).with_token("token").with_request_payer(true);
    assert!(full().build().unwrap().get(&path).await.is_ok());
    let wrong = [
        full().with_access_key_id("other"),
        full().with_token("other"),
        full().with_request_payer(false),
        full().with_skip_signature(true),
    ];
    for (index, builder) in wrong.into_iter().enumerate() {
        let result = builder.build().unwrap().get(&path).await;
        assert!(
            matches!(result, Err(Error::PermissionDenied { .. })),
            "{index}: {result:?}"
        );
    }
}

#[tokio::test]
async fn a_folder_is_served_and_looked_at_again() {
    let folder = std::env::temp_dir().join(format!("simstore-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("t")).unwrap();
    std::fs::write(folder.join("t/a"), "first").unwrap();
    let store = SimStore::start(Config::default()).unwrap();
    store.mount("files", &folder);
    let client = builder(&store).with_bucket_name("files").build().unwrap();
    let path = Path::from("t/a");
    assert_eq!(client.get(&path).await.unwrap().bytes().await.unwrap(), "first");
    std::fs::write(folder.join("t/b"), "second").unwrap();
    let listed: Vec<_> = client.list(None).try_collect().await.unwrap();
    assert_eq!(listed.len(), 2);
    assert!(client.put(&path, "x".into()).await.is_err());
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(matches!(client.get(&path).await, Err(Error::NotFound { .. })));
}
