//! The conformance list, held against what can be reached: stores of this process always, servers when the environment names
//! them, real buckets when it names those.
//!
//! ```text
//!  TRIREME_MOTO=http://127.0.0.1:5000        a moto server with a bucket "conformance"
//!  TRIREME_AZURITE=http://127.0.0.1:10000    azurite with a container "conformance"
//!  TRIREME_STORE_URLS="s3://b gs://b az://c" buckets of one's own; credentials as the clients take them from the environment
//!  CASE=range                                only cases whose name contains this
//! ```
//!
//! `make test-stores` starts moto and azurite and sets their variables.

#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests, and of truncation too"
)]

mod known;
mod list;
mod servers;

use known::KNOWN;
use list::{Subject, hold};
use simstore::{Config, SimStore};

async fn check(subject: Subject) {
    let name = format!("{} ({})", subject.server, subject.dialect);
    let report = hold(subject, KNOWN).await;
    println!("{name}: {report}");
    assert!(report.failures.is_empty(), "{name}: {report}");
    assert!(report.held > 0, "{name}: nothing was checked");
}

/// Says so when there is nothing to talk to; `make test-stores` fails then.
fn address(variable: &str) -> Option<String> {
    let address = std::env::var(variable).ok().filter(|address| !address.is_empty());
    if address.is_none() {
        println!("{variable} is not set: nothing to check");
    }
    address
}

#[test]
fn the_table_names_cases() {
    let names = list::names();
    for known in KNOWN {
        assert!(names.contains(&known.case), "{} is no case", known.case);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory() {
    check(servers::memory()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_files() {
    let folder = tempfile::tempdir().unwrap();
    check(servers::local(folder.path())).await;
}

/// A simulated store with the list's bucket.
fn simulated() -> SimStore {
    let config = Config {
        buckets: vec![servers::BUCKET.to_owned()],
        ..Config::default()
    };
    SimStore::start(config).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simstore_s3() {
    let server = simulated();
    check(servers::s3("simstore", &server.url())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simstore_gcs() {
    let server = simulated();
    check(servers::gcs("simstore", &server.url())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simstore_azure() {
    let server = simulated();
    check(servers::azure("simstore", &server.url())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moto() {
    if let Some(address) = address("TRIREME_MOTO") {
        check(servers::s3("moto", &address)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn azurite() {
    if let Some(address) = address("TRIREME_AZURITE") {
        check(servers::azure("azurite", &address)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_buckets() {
    let urls = address("TRIREME_STORE_URLS").unwrap_or_default();
    for url in urls.split_whitespace() {
        check(servers::own(url)).await;
    }
}
