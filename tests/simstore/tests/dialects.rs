//! GCS's and Azure's languages, spoken by object_store's clients, and what S3's client in object_store does not say.

#![allow(clippy::unwrap_used, reason = "tests fail by panics")]

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder};
use object_store::path::Path;
use object_store::{
    Error, GetOptions, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions,
    RetryConfig, StaticCredentialProvider, UpdateVersion,
};
use simstore::{Access, Config, Fault, Kind, Script, SimStore, synthetic_bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn impatient() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    }
}

fn azure(store: &SimStore) -> Arc<dyn ObjectStore> {
    let client = MicrosoftAzureBuilder::new()
        .with_endpoint(format!("{}/devstoreaccount1", store.url()))
        .with_allow_http(true)
        .with_account("devstoreaccount1")
        .with_access_key("Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==")
        .with_container_name("lake")
        .with_retry(impatient());
    Arc::new(client.build().unwrap())
}

fn google(store: &SimStore) -> Arc<dyn ObjectStore> {
    let credential = GcpCredential {
        bearer: "token".to_owned(),
    };
    let client = GoogleCloudStorageBuilder::new()
        .with_base_url(&store.url())
        .with_client_options(object_store::ClientOptions::new().with_allow_http(true))
        .with_credentials(Arc::new(StaticCredentialProvider::new(credential)))
        .with_bucket_name("lake")
        .with_retry(impatient());
    Arc::new(client.build().unwrap())
}

fn create() -> PutOptions {
    PutOptions::from(PutMode::Create)
}

/// All that both have in common.
async fn speaks(store: &SimStore, client: &dyn ObjectStore) {
    reads_and_lists(store, client).await;
    uploads_copies_and_deletes(store, client).await;
    store.script(Script {
        kind: Some(Kind::Get),
        key_contains: String::new(),
        skip: 0,
        times: 1,
        fault: Fault::Error(503),
    });
    let path = Path::from("top");
    assert!(client.get(&path).await.is_err());
    assert!(client.get(&path).await.is_ok());
}

async fn reads_and_lists(store: &SimStore, client: &dyn ObjectStore) {
    let path = Path::parse("folder/ü +=&.parquet").unwrap();
    let put = client
        .put_opts(&path, Bytes::from_static(b"0123456789").into(), create())
        .await
        .unwrap();
    assert!(matches!(
        client.put_opts(&path, "x".into(), create()).await,
        Err(Error::AlreadyExists { .. })
    ));
    store.put("lake", "folder/second", "x").unwrap();
    store.put("lake", "top", "yy").unwrap();

    let meta = client.head(&path).await.unwrap();
    assert_eq!((meta.size, &meta.e_tag), (10, &put.e_tag));
    assert_eq!(client.get_range(&path, 2..5).await.unwrap(), "234");
    let ranges = client.get_ranges(&path, &[0..2, 8..10]).await.unwrap();
    assert_eq!(ranges, ["01", "89"]);

    let listed: Vec<_> = client.list(None).try_collect().await.unwrap();
    let names: Vec<_> = listed.iter().map(|meta| (meta.location.as_ref(), meta.size)).collect();
    assert_eq!(names, [("folder/second", 1), ("folder/ü +=&.parquet", 10), ("top", 2)]);
    // Azure lists it without quotes.
    let bare = |e_tag: &Option<String>| e_tag.as_ref().map(|e_tag| e_tag.trim_matches('"').to_owned());
    assert_eq!(bare(&listed[1].e_tag), bare(&put.e_tag));
    let level = client.list_with_delimiter(None).await.unwrap();
    assert_eq!(
        (level.common_prefixes, level.objects.len()),
        (vec![Path::from("folder")], 1)
    );
    let later: Vec<_> = client
        .list_with_offset(None, &listed[0].location)
        .try_collect()
        .await
        .unwrap();
    assert_eq!(later.len(), 2);

    let wanted = |e_tag: &Option<String>| GetOptions::new().with_if_match(e_tag.clone());
    assert!(client.get_opts(&path, wanted(&put.e_tag)).await.is_ok());
    let update = |put: &object_store::PutResult| {
        PutOptions::from(PutMode::Update(UpdateVersion {
            e_tag: put.e_tag.clone(),
            version: put.version.clone(),
        }))
    };
    client.put_opts(&path, "next".into(), update(&put)).await.unwrap();
    let late = client.put_opts(&path, "late".into(), update(&put)).await;
    assert!(matches!(late, Err(Error::Precondition { .. })), "{late:?}");
    let old = client.get_opts(&path, wanted(&put.e_tag)).await;
    assert!(matches!(old, Err(Error::Precondition { .. })), "{old:?}");
}

async fn uploads_copies_and_deletes(store: &SimStore, client: &dyn ObjectStore) {
    let part = synthetic_bytes(3, 0..5 << 20);
    let large = Path::from("large");
    let mut upload = client
        .put_multipart_opts(&large, PutMultipartOptions::default())
        .await
        .unwrap();
    for piece in [part.clone(), part.slice(0..100)] {
        upload.put_part(piece.into()).await.unwrap();
    }
    upload.complete().await.unwrap();
    assert_eq!(store.get("lake", "large").unwrap().len(), (5 << 20) + 100);

    client.copy(&large, &Path::from("copy")).await.unwrap();
    assert_eq!(store.get("lake", "copy").unwrap().len(), (5 << 20) + 100);
    let gone = [Path::from("copy"), large];
    let stream = futures::stream::iter(gone.clone().map(Ok)).boxed();
    let deleted: Vec<_> = client.delete_stream(stream).try_collect().await.unwrap();
    assert_eq!(deleted, gone);
    assert!(matches!(client.head(&gone[0]).await, Err(Error::NotFound { .. })));
    let again = client.delete(&gone[0]).await;
    assert!(matches!(again, Err(Error::NotFound { .. })), "{again:?}");
}

#[tokio::test]
async fn azure_is_spoken() {
    let store = SimStore::start(Config::default()).unwrap();
    speaks(&store, azure(&store).as_ref()).await;
    let access = |key: &str| Access {
        keys: vec![key.to_owned()],
        ..Access::default()
    };
    store.set_access(access("devstoreaccount1"));
    assert!(azure(&store).get(&Path::from("top")).await.is_ok());
    store.set_access(access("other"));
    let denied = azure(&store).get(&Path::from("top")).await;
    assert!(matches!(denied, Err(Error::PermissionDenied { .. })), "{denied:?}");
}

#[tokio::test]
async fn google_is_spoken() {
    let store = SimStore::start(Config::default()).unwrap();
    speaks(&store, google(&store).as_ref()).await;
    store.set_access(Access {
        keys: vec!["other".to_owned()],
        ..Access::default()
    });
    let denied = google(&store).get(&Path::from("top")).await;
    assert!(matches!(denied, Err(Error::Unauthenticated { .. })), "{denied:?}");
}

/// A request as it is written, and its answer.
async fn raw(store: &SimStore, head: &str, body: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(store.addr()).await.unwrap();
    let lines = head.replace('\n', "\r\n");
    let length = body.len();
    let request = format!("{lines}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn hosts_name_buckets_and_chunks_are_put_together() {
    let store = SimStore::start(Config::default()).unwrap();
    let chunked = "5;chunk-signature=0\r\nhello\r\n6;chunk-signature=0\r\n world\r\n0;chunk-signature=0\r\n\r\n";
    let head = "PUT /a HTTP/1.1\nhost: lake.localhost\nx-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD\n\
                content-encoding: aws-chunked\nx-amz-server-side-encryption: aws:kms";
    let answer = raw(&store, head, chunked).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("x-amz-server-side-encryption: aws:kms"),
        "{answer}"
    );
    assert_eq!(store.get("lake", "a").unwrap(), "hello world");

    let customer = "x-amz-server-side-encryption-customer-key-md5: abc";
    raw(&store, &format!("PUT /lake/secret HTTP/1.1\nhost: x\n{customer}"), "s").await;
    let without = raw(&store, "GET /lake/secret HTTP/1.1\nhost: x", "").await;
    assert!(without.starts_with("HTTP/1.1 400"), "{without}");
    let with = raw(&store, &format!("GET /lake/secret HTTP/1.1\nhost: x\n{customer}"), "").await;
    assert!(
        with.starts_with("HTTP/1.1 200") && with.ends_with("\r\n\r\ns"),
        "{with}"
    );
}

#[tokio::test]
async fn a_running_store_is_changed_from_outside() {
    let store = SimStore::start(Config::default()).unwrap();
    let post = |path: &str| format!("POST /_sim/{path} HTTP/1.1\nhost: x");
    let named = raw(
        &store,
        &post("profile"),
        r#"{"name": "near", "faults": {"slow_percent": 7}}"#,
    )
    .await;
    assert!(named.starts_with("HTTP/1.1 204"), "{named}");
    let profile = store.profile();
    assert_eq!((profile.first_byte_ms, profile.faults.slow_percent), (30.0, 7.0));
    let wrong = raw(&store, &post("profile"), r#"{"first_bite_ms": 1}"#).await;
    assert!(wrong.starts_with("HTTP/1.1 400"), "{wrong}");
    raw(&store, &post("profile"), r#"{"name": "none"}"#).await;

    raw(&store, "PUT /_sim/object/new/k%20k HTTP/1.1\nhost: x", "data").await;
    assert_eq!(store.get("new", "k k").unwrap(), "data");
    raw(
        &store,
        &post("script"),
        r#"{"fault": "error", "status": 500, "times": 1}"#,
    )
    .await;
    let failed = raw(&store, "GET /new/k%20k HTTP/1.1\nhost: x", "").await;
    assert!(failed.starts_with("HTTP/1.1 500"), "{failed}");
    let counters = raw(&store, "GET /_sim/counters HTTP/1.1\nhost: x", "").await;
    assert!(counters.contains(r#""error_500":1"#), "{counters}");
    let requests = raw(&store, "GET /_sim/requests HTTP/1.1\nhost: x", "").await;
    assert!(requests.contains(r#""key":"k k""#), "{requests}");
    raw(&store, &post("reset"), "").await;
    assert_eq!(store.counters().total.requests(), 0);
}
