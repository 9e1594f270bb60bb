//! Within one statement the store is asked once for what it holds, and what is written meanwhile is seen all the same.

#![allow(clippy::unwrap_used, reason = "tests fail by panics")]

use std::sync::Arc;

use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt};
use simstore::{Config, Kind, SimStore};
use trireme_lake::{Lake, LakeOptions, ObjectRef, Read, ReadClass, TieredStore, in_one_look};

fn wrapped(sim: &SimStore, options: LakeOptions) -> Arc<TieredStore> {
    let store = AmazonS3Builder::new()
        .with_endpoint(sim.url())
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_bucket_name("lake")
        .with_access_key_id("key")
        .with_secret_access_key("secret")
        .build()
        .unwrap();
    Lake::new(options).wrap("k", "s3://lake", Arc::new(store))
}

async fn listed(lake: &TieredStore, prefix: &str) -> Vec<String> {
    let found: Vec<_> = lake.list(Some(&Path::from(prefix))).try_collect().await.unwrap();
    found.into_iter().map(|meta| meta.location.to_string()).collect()
}

/// Lists and heads that the store was asked since the last call.
fn asked(sim: &SimStore) -> (u64, u64) {
    let total = sim.counters().total;
    sim.reset_counters();
    (total.of(Kind::List), total.of(Kind::Head))
}

#[tokio::test]
async fn a_statement_asks_once() {
    let sim = SimStore::start(Config::default()).unwrap();
    for key in ["t/a", "t/p=1/b", "t/p=10/c", "u"] {
        sim.put("lake", key, "x").unwrap();
    }
    let lake = wrapped(&sim, LakeOptions::default());
    in_one_look(async {
        for _ in 0..3 {
            assert_eq!(listed(&lake, "t").await, ["t/a", "t/p=1/b", "t/p=10/c"]);
            assert_eq!(listed(&lake, "t/p=1").await, ["t/p=1/b"]);
            assert_eq!(lake.head(&Path::from("t/p=10/c")).await.unwrap().size, 1);
            assert_eq!(lake.head(&Path::from("u")).await.unwrap().size, 1);
        }
        let absent = lake.head(&Path::from("t/absent")).await;
        assert!(matches!(absent, Err(Error::NotFound { .. })), "{absent:?}");
    })
    .await;
    assert_eq!(asked(&sim), (1, 2));
    // The next statement asks again, and so does what is no statement.
    sim.put("lake", "t/new", "xx").unwrap();
    let next = in_one_look(listed(&lake, "t")).await;
    assert_eq!(next.len(), 4);
    for _ in 0..2 {
        listed(&lake, "t").await;
    }
    assert_eq!(asked(&sim), (3, 0));
}

#[tokio::test]
async fn what_is_written_meanwhile_is_seen() {
    let sim = SimStore::start(Config::default()).unwrap();
    sim.put("lake", "t/a", "x").unwrap();
    let lake = wrapped(&sim, LakeOptions::default());
    in_one_look(async {
        assert_eq!(listed(&lake, "t").await, ["t/a"]);
        // By a task that is not the statement's.
        let (writer, path) = (Arc::clone(&lake), Path::from("t/b"));
        tokio::spawn(async move { writer.put(&path, "yy".into()).await })
            .await
            .unwrap()
            .unwrap();
        assert_eq!(listed(&lake, "t").await, ["t/a", "t/b"]);
        assert_eq!(lake.head(&Path::from("t/b")).await.unwrap().size, 2);
        lake.delete(&Path::from("t/a")).await.unwrap();
        assert_eq!(listed(&lake, "t").await, ["t/b"]);
    })
    .await;
    assert_eq!(asked(&sim), (3, 0));
}

#[tokio::test]
async fn switched_off_every_question_is_asked() {
    let sim = SimStore::start(Config::default()).unwrap();
    sim.put("lake", "t/a", "x").unwrap();
    let options = LakeOptions {
        enabled: false,
        ..LakeOptions::default()
    };
    let lake = wrapped(&sim, options);
    in_one_look(async {
        for _ in 0..2 {
            listed(&lake, "t").await;
            lake.head(&Path::from("t/a")).await.unwrap();
        }
    })
    .await;
    assert_eq!(asked(&sim), (2, 2));
}

#[tokio::test]
async fn a_footer_that_a_planner_read_is_there_for_the_reader() {
    let sim = SimStore::start(Config::default()).unwrap();
    sim.put_synthetic("lake", "a", 10 << 20, 1).unwrap();
    let lake = wrapped(&sim, LakeOptions::default());
    let path = Path::from("a");
    let suffix = GetOptions::new().with_range(Some(GetRange::Suffix(512 << 10)));
    lake.get_opts(&path, suffix).await.unwrap().bytes().await.unwrap();
    let meta = lake.head(&path).await.unwrap();
    sim.reset_counters();
    let tail = meta.size - (64 << 10)..meta.size;
    let read = |meta: &ObjectMeta| Read {
        object: Arc::new(ObjectRef::new(meta)),
        range: tail.clone(),
        class: ReadClass::Demand,
        account: None,
    };
    let bytes = lake.read(&read(&meta)).await.unwrap();
    let whole = sim.get("lake", "a").unwrap();
    assert_eq!(bytes, whole[whole.len() - (64 << 10)..]);
    assert_eq!(sim.counters().total.requests(), 0);

    // DataFusion's readers ask for ranges.
    lake.get_ranges(&path, &[0..100, 5_000_000..5_000_100]).await.unwrap();
    sim.reset_counters();
    let mut early = read(&meta);
    early.range = 5_000_010..5_000_020;
    assert_eq!(lake.read(&early).await.unwrap(), whole[5_000_010..5_000_020]);
    assert_eq!(sim.counters().total.requests(), 0);

    // Of another version nothing is given.
    sim.put_synthetic("lake", "a", 10 << 20, 2).unwrap();
    let newer = lake.head(&path).await.unwrap();
    assert_ne!(lake.read(&read(&newer)).await.unwrap(), bytes);
    assert_eq!(sim.counters().total.of(Kind::Get), 1);
}
