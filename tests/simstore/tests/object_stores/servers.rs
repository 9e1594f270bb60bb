//! Clients for every server that the list is held against.

use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::azure::{MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::gcp::{GcpCredential, GoogleCloudStorage, GoogleCloudStorageBuilder};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, RetryConfig, StaticCredentialProvider};

use super::list::Subject;

/// The bucket or container that servers were given.
pub(crate) const BUCKET: &str = "conformance";

/// A bucket that none has.
const NO_BUCKET: &str = "no-such-bucket";

/// The account and key that every Azure emulator knows; they protect nothing.
const EMULATOR_ACCOUNT: &str = "devstoreaccount1";
const EMULATOR_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Another run on the same bucket has other keys.
fn root() -> Path {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Path::from(format!("run-{}-{}", now.as_millis(), std::process::id()))
}

/// A server that fails should show here, not be retried into passing; one retry is for connections that it closed.
fn retry() -> RetryConfig {
    RetryConfig {
        max_retries: 1,
        retry_timeout: Duration::from_secs(20),
        ..RetryConfig::default()
    }
}

fn client() -> ClientOptions {
    ClientOptions::new().with_allow_http(true)
}

fn without_protocol(name: &'static str, store: Arc<dyn ObjectStore>) -> Subject {
    Subject {
        server: name,
        dialect: name,
        store,
        pages: None,
        elsewhere: None,
        root: root(),
        page_keys: 0,
    }
}

/// The reference: what `object_store` itself takes for right.
pub(crate) fn memory() -> Subject {
    without_protocol("memory", Arc::new(InMemory::new()))
}

pub(crate) fn local(folder: &FilePath) -> Subject {
    without_protocol("local", Arc::new(LocalFileSystem::new_with_prefix(folder).unwrap()))
}

pub(crate) fn s3(server: &'static str, address: &str) -> Subject {
    let build = |bucket: &str| -> Arc<AmazonS3> {
        let builder = AmazonS3Builder::new()
            .with_endpoint(address)
            .with_region("us-east-1")
            .with_bucket_name(bucket)
            .with_access_key_id("test")
            .with_secret_access_key("test")
            .with_retry(retry())
            .with_client_options(client());
        Arc::new(builder.build().unwrap())
    };
    let store = build(BUCKET);
    Subject {
        server,
        dialect: "s3",
        pages: Some(Arc::clone(&store) as _),
        store,
        elsewhere: Some(build(NO_BUCKET)),
        root: root(),
        page_keys: 1000,
    }
}

pub(crate) fn gcs(server: &'static str, address: &str) -> Subject {
    let build = |bucket: &str| -> Arc<GoogleCloudStorage> {
        let builder = GoogleCloudStorageBuilder::new()
            .with_base_url(address)
            .with_bucket_name(bucket)
            .with_credentials(Arc::new(StaticCredentialProvider::new(GcpCredential {
                bearer: "test".to_owned(),
            })))
            .with_retry(retry())
            .with_client_options(client());
        Arc::new(builder.build().unwrap())
    };
    let store = build(BUCKET);
    Subject {
        server,
        dialect: "gcs",
        pages: Some(Arc::clone(&store) as _),
        store,
        elsewhere: Some(build(NO_BUCKET)),
        root: root(),
        page_keys: 1000,
    }
}

pub(crate) fn azure(server: &'static str, address: &str) -> Subject {
    let build = |container: &str| -> Arc<MicrosoftAzure> {
        let builder = MicrosoftAzureBuilder::new()
            .with_endpoint(format!("{address}/{EMULATOR_ACCOUNT}"))
            .with_account(EMULATOR_ACCOUNT)
            .with_access_key(EMULATOR_KEY)
            .with_container_name(container)
            .with_retry(retry())
            .with_client_options(client());
        Arc::new(builder.build().unwrap())
    };
    let store = build(BUCKET);
    Subject {
        server,
        dialect: "azure",
        pages: Some(Arc::clone(&store) as _),
        store,
        elsewhere: Some(build(NO_BUCKET)),
        root: root(),
        // A page is 5,000 keys, which takes too long to put there; small pages are asked for instead.
        page_keys: 0,
    }
}

/// A bucket that exists, at its vendor, by the environment's credentials.
pub(crate) fn own(url: &str) -> Subject {
    let (scheme, bucket) = url.split_once("://").unwrap_or_else(|| panic!("{url} is not a URL"));
    let bucket = bucket.trim_end_matches('/');
    let (dialect, store): (_, Arc<dyn ObjectStore>) = match scheme {
        "s3" => {
            let store = AmazonS3Builder::from_env().with_bucket_name(bucket).build();
            ("s3", Arc::new(store.unwrap()))
        }
        "gs" => {
            let store = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket).build();
            ("gcs", Arc::new(store.unwrap()))
        }
        "az" => {
            let store = MicrosoftAzureBuilder::from_env().with_container_name(bucket).build();
            ("azure", Arc::new(store.unwrap()))
        }
        _ => panic!("{url} is not one of s3://, gs://, az://"),
    };
    Subject {
        server: "own",
        dialect,
        ..without_protocol("own", store)
    }
}
