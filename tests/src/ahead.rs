//! Queries that run before they are fetched: what comes is what was promised, and a slot is held for a moment only.

use std::time::{Duration, Instant};

use crate::client::Client;
use crate::fused::{PATIENCE, metric, wait_for_metric};
use crate::server::Server;

/// More batches than wait between the plan and the network.
const MANY: &str = "SELECT value FROM range(200000)";

pub(crate) async fn fixture(settings: &[&str]) -> (tempfile::TempDir, Server, Client) {
    let data = tempfile::tempdir().unwrap();
    let args: Vec<_> = settings.iter().flat_map(|setting| ["--set", *setting]).collect();
    let server = Server::start_with(data.path(), &args);
    let client = server.client().await;
    (data, server, client)
}

/// Early starts that ended so.
fn started(server: &Server, end: &str) -> f64 {
    let (_, text) = server.get("/metrics").expect("metrics");
    let name = format!("trireme_queries_started_ahead_total{{end=\"{end}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0.0, |value| value.parse().unwrap())
}

async fn wait_for_given_up(server: &Server) {
    let began = Instant::now();
    while started(server, "given_up") < 1.0 {
        assert!(began.elapsed() < PATIENCE, "the slot is held");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn rows_of_an_early_start_are_fetched_once() {
    let (_data, server, mut client) = fixture(&["limits.start_ahead_ms=60000"]).await;
    let info = client.statement(MANY).await.unwrap();
    wait_for_metric(&server, "trireme_queries_running", |running| running > 0.5).await;
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let answer = client.read(info).await.unwrap();
    assert_eq!(
        answer.batches.iter().map(|batch| batch.num_rows()).sum::<usize>(),
        200_000
    );
    assert!(started(&server, "fetched") > 0.5);
    client.fetch(ticket).await.expect_err("a result is fetched once");
    wait_for_metric(&server, "trireme_queries_running", |running| running < 0.5).await;
}

#[tokio::test]
async fn who_does_not_fetch_holds_no_slot() {
    let (_data, server, mut client) = fixture(&["limits.start_ahead_ms=100", "limits.max_running=1"]).await;
    let info = client.statement(MANY).await.unwrap();
    // The other has the only slot; this one gets its turn although nobody fetches.
    assert_eq!(server.client().await.number("SELECT count(*) FROM range(10)").await, 10);
    wait_for_given_up(&server).await;
    let answer = client.read(info).await.unwrap();
    let rows: usize = answer.batches.iter().map(|batch| batch.num_rows()).sum();
    assert_eq!(rows, 200_000, "it ran anew");
}

#[tokio::test]
async fn what_runs_anew_has_the_promised_columns_or_none() {
    let (_data, server, mut client) = fixture(&["limits.start_ahead_ms=50"]).await;
    client.query("CREATE TABLE t AS SELECT 1 AS a").await.unwrap();
    let info = client.statement("SELECT * FROM t").await.unwrap();
    wait_for_given_up(&server).await;
    client.query("DROP TABLE t").await.unwrap();
    client.query("CREATE TABLE t AS SELECT 1 AS a, 2 AS b").await.unwrap();
    let status = client.read(info).await.expect_err("other columns");
    assert!(status.message().contains("columns"), "{status}");
}

#[tokio::test]
async fn an_early_start_is_cancelled_with_its_session_and_can_be_switched_off() {
    let (_data, server, mut client) = fixture(&["limits.start_ahead_ms=60000"]).await;
    client.statement(MANY).await.unwrap();
    wait_for_metric(&server, "trireme_queries_running", |running| running > 0.5).await;
    drop(client);
    wait_for_metric(&server, "trireme_queries_running", |running| running < 0.5).await;

    let (_data, server, mut client) = fixture(&["limits.start_ahead_ms=0"]).await;
    let info = client.statement(MANY).await.unwrap();
    assert!(metric(&server, "trireme_queries_running") < 0.5);
    client.read(info).await.unwrap();
    assert!(started(&server, "fetched") < 0.5);
}
