//! What a session is, seen from clients: a connection without credentials keeps its `SET`, and only its own.

use std::collections::HashMap;

use prost::Message;
use tonic::Status;

use crate::client::Client;
use crate::fused::PATIENCE;
use crate::messages::{CloseSessionResult, OptionValue, SessionOptionValue, SessionOptions, SetSessionOptionsResult};
use crate::server::Server;

fn fixture() -> (tempfile::TempDir, Server) {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    (data, server)
}

async fn shown(client: &mut Client, name: &str) -> String {
    let rows = client.query(&format!("SHOW {name}")).await.unwrap().rows();
    rows[0].last().unwrap().clone()
}

#[tokio::test]
async fn set_holds_for_its_connection_alone() {
    let (_data, server) = fixture();
    let mut one = server.client().await;
    let mut two = server.client().await;
    let before = shown(&mut two, "trireme.batch_rows").await;
    one.query("SET trireme.batch_rows = 123").await.unwrap();
    assert_eq!(shown(&mut one, "trireme.batch_rows").await, "123");
    assert_eq!(shown(&mut two, "trireme.batch_rows").await, before);
    // It is not only shown, it works.
    let answer = one.query("SELECT value FROM range(1000)").await.unwrap();
    assert!(answer.batches.iter().all(|batch| batch.num_rows() <= 123));
    one.query("RESET trireme.batch_rows").await.unwrap();
    assert_eq!(shown(&mut one, "trireme.batch_rows").await, before);
    // A clone speaks over the same HTTP/2 connection, so it is the same session.
    one.query("SET trireme.batch_rows = 77").await.unwrap();
    assert_eq!(shown(&mut one.clone(), "trireme.batch_rows").await, "77");
    // A prepared SET sets as well: that is how ADBC sends it.
    let prepared = one.prepare("SET trireme.batch_rows = 55").await.unwrap();
    one.execute(&prepared).await.unwrap();
    assert_eq!(shown(&mut one, "trireme.batch_rows").await, "55");
}

async fn options(client: &mut Client) -> Result<HashMap<String, SessionOptionValue>, Status> {
    let results = client.action("GetSessionOptions", Vec::new()).await?;
    Ok(SessionOptions::decode(results[0].clone()).unwrap().session_options)
}

async fn set_option(client: &mut Client, name: &str, value: Option<&str>) -> SetSessionOptionsResult {
    let value = SessionOptionValue {
        option_value: value.map(|text| OptionValue::String(text.to_owned())),
    };
    let request = SessionOptions {
        session_options: HashMap::from([(name.to_owned(), value)]),
    };
    let results = client
        .action("SetSessionOptions", request.encode_to_vec())
        .await
        .unwrap();
    SetSessionOptionsResult::decode(results[0].clone()).unwrap()
}

#[tokio::test]
async fn session_options() {
    let (_data, server) = fixture();
    let mut client = server.client().await;
    client.query("CREATE SCHEMA sales").await.unwrap();
    client.query("CREATE TABLE sales.region (id INT)").await.unwrap();
    assert!(set_option(&mut client, "schema", Some("sales")).await.errors.is_empty());
    assert_eq!(client.number("SELECT count(*) FROM region").await, 0);
    let given = options(&mut client).await.unwrap();
    let text = |name: &str| match given.get(name).and_then(|value| value.option_value.clone()) {
        Some(OptionValue::String(text)) => text,
        other => panic!("{name} is {other:?}"),
    };
    assert_eq!(text("schema"), "sales");
    assert!(
        server
            .client()
            .await
            .query("SELECT count(*) FROM region")
            .await
            .is_err(),
        "another session sees it"
    );
    // Taken back.
    assert!(set_option(&mut client, "schema", None).await.errors.is_empty());
    assert!(client.query("SELECT count(*) FROM region").await.is_err());
    for (name, value) in [
        ("no_such_option", "1"),
        ("schema", "no_such_schema"),
        ("catalog", "no_such_catalog"),
    ] {
        assert!(
            set_option(&mut client, name, Some(value))
                .await
                .errors
                .contains_key(name),
            "{name} = {value}"
        );
    }
    let closed = client.action("CloseSession", Vec::new()).await.unwrap();
    CloseSessionResult::decode(closed[0].clone()).unwrap();
    // The connection goes on, as a new session.
    assert_eq!(client.number("SELECT 1").await, 1);
}

#[tokio::test]
async fn a_statement_timeout_cancels() {
    let (_data, server) = fixture();
    let mut client = server.client().await;
    client.query("SET trireme.statement_timeout_ms = 300").await.unwrap();
    let slow = "SELECT count(*) FROM range(1000000) a CROSS JOIN range(1000000) b WHERE a.value * b.value % 7 = 3";
    let status = tokio::time::timeout(PATIENCE, client.query(slow))
        .await
        .expect("it ends")
        .unwrap_err();
    assert!(status.message().contains("timeout"), "{status}");
    let table = format!("CREATE TABLE slow AS {}", slow.replace("count(*)", "count(*) AS n"));
    let status = tokio::time::timeout(PATIENCE, client.query(&table))
        .await
        .expect("it ends")
        .unwrap_err();
    assert!(
        status.message().contains("timeout") || status.message().contains("longer than"),
        "{status}"
    );
    // On a busy machine anything may take 300 ms.
    client.query("RESET trireme.statement_timeout_ms").await.unwrap();
    assert_eq!(client.number("SELECT 1").await, 1);
}
