//! The conformance list of object stores, held against them behind the lake: tiers, merged and split ranges, hedges and
//! retries must not show, whether bytes come from the store, from memory or from disk.

#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests, and of truncation too"
)]

#[path = "../../../tests/simstore/tests/object_stores/known.rs"]
mod known;
#[path = "../../../tests/simstore/tests/object_stores/list/mod.rs"]
mod list;
#[allow(dead_code, reason = "some servers only")]
#[path = "../../../tests/simstore/tests/object_stores/servers.rs"]
mod servers;

use std::sync::Arc;

use list::{Known, Subject, hold};
use simstore::{Config, SimStore};
use trireme_lake::{Lake, LakeOptions};

fn simulated() -> SimStore {
    let config = Config {
        buckets: vec![servers::BUCKET.to_owned()],
        ..Config::default()
    };
    SimStore::start(config).unwrap()
}

/// Small ranges to split, and a disk tier, so that every way a byte can take is taken.
fn options(folder: &std::path::Path) -> LakeOptions {
    LakeOptions {
        memory_bytes: 8 << 20,
        disk_dir: Some(folder.to_owned()),
        disk_bytes: 64 << 20,
        ..LakeOptions::default()
    }
}

/// What the lake does though the client does not: dialect and case.
const REPAIRED: [(&str, &str); 1] = [("azure", "suffix_ranges")];

async fn check(subject: Subject) {
    let repaired = |known: &Known| REPAIRED.contains(&(known.whose, known.case));
    let table: Vec<Known> = known::KNOWN.iter().copied().filter(|known| !repaired(known)).collect();
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::new(options(folder.path()));
    let name = format!("{} ({}) behind the lake", subject.server, subject.dialect);
    let wrapped = lake.wrap("conformance", "conformance", Arc::clone(&subject.store));
    let subject = Subject {
        store: wrapped,
        ..subject
    };
    assert!(!list::names().is_empty());
    let report = hold(subject, &table).await;
    println!("{name}: {report}");
    assert!(report.failures.is_empty(), "{name}: {report}");
    assert!(report.held > 0, "{name}: nothing was checked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3() {
    let server = simulated();
    check(servers::s3("simstore", &server.url())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gcs() {
    let server = simulated();
    check(servers::gcs("simstore", &server.url())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn azure() {
    let server = simulated();
    check(servers::azure("simstore", &server.url())).await;
}
