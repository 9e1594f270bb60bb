//! What a client holds without doing anything: its slot until it is cancelled or out of time, its session while a statement
//! runs in it, its ticket although the server was busy.

use std::time::{Duration, Instant};

use arrow_flight::{FlightData, FlightInfo, Ticket};
use futures::StreamExt;
use prost::Message;
use tonic::{Code, Streaming};

use crate::ahead::fixture;
use crate::client::Client;
use crate::fused::{PATIENCE, wait_for_metric};
use crate::server::Server;

/// Far more than the buffers between server and client hold.
const LONG: &str = "SELECT a.value AS a, b.value AS b FROM range(100000) a CROSS JOIN range(100000) b";

fn ticket(info: &FlightInfo) -> Ticket {
    info.endpoint[0].ticket.clone().unwrap()
}

/// A long result of which the first message was read.
async fn begun(client: &mut Client) -> (FlightInfo, Streaming<FlightData>) {
    let info = client.statement(LONG).await.unwrap();
    let mut stream = client.raw.do_get(ticket(&info)).await.unwrap().into_inner();
    stream.next().await.unwrap().unwrap();
    (info, stream)
}

/// The status at the end of what the buffers still hold.
async fn end_of(mut stream: Streaming<FlightData>) -> Code {
    let end = async {
        loop {
            match stream.next().await {
                None => return Code::Ok,
                Some(Err(status)) => return status.code(),
                Some(Ok(_)) => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, end).await.expect("the stream ends")
}

async fn wait_until_nothing_runs(server: &Server) {
    wait_for_metric(server, "trireme_queries_running", |running| running < 0.5).await;
}

#[tokio::test]
async fn who_reads_no_further_gives_the_slot_back_when_cancelled() {
    let (_data, server, mut client) = fixture(&["limits.max_running=1", "limits.start_ahead_ms=0"]).await;
    let (info, stream) = begun(&mut client).await;
    let request = arrow_flight::CancelFlightInfoRequest::new(info);
    client
        .action("CancelFlightInfo", request.encode_to_vec())
        .await
        .unwrap();
    wait_until_nothing_runs(&server).await;
    assert_eq!(server.client().await.number("SELECT count(*) FROM range(10)").await, 10);
    assert_eq!(end_of(stream).await, Code::Cancelled);
}

#[tokio::test]
async fn who_reads_no_further_gives_the_slot_back_when_out_of_time() {
    let (_data, server, mut client) = fixture(&["limits.max_running=1", "limits.start_ahead_ms=0"]).await;
    client.query("SET trireme.statement_timeout_ms = 2000").await.unwrap();
    let (_info, stream) = begun(&mut client).await;
    wait_until_nothing_runs(&server).await;
    assert_eq!(server.client().await.number("SELECT count(*) FROM range(10)").await, 10);
    assert_eq!(end_of(stream).await, Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_session_lives_while_a_statement_runs_in_it() {
    let (_data, _server, mut client) = fixture(&["limits.session_idle_seconds=1"]).await;
    let batch_rows = async |client: &mut Client| {
        let rows = client.query("SHOW trireme.batch_rows").await.unwrap().rows();
        rows[0].last().unwrap().clone()
    };
    let (_info, stream) = begun(&mut client).await;
    client.query("SET trireme.batch_rows = 123").await.unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(batch_rows(&mut client).await, "123");
    drop(stream);
    // Idle from now on.
    let ended = async {
        while batch_rows(&mut client).await == "123" {
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended)
        .await
        .expect("an idle session ends");
}

#[tokio::test]
async fn a_ticket_refused_by_a_busy_server_stays_good() {
    let settings = ["limits.max_running=1", "limits.max_queued=0", "limits.start_ahead_ms=0"];
    let (_data, server, mut client) = fixture(&settings).await;
    let (_info, stream) = begun(&mut client).await;
    let mut other = server.client().await;
    let info = other.statement("SELECT value FROM range(10)").await.unwrap();
    let status = other.fetch(ticket(&info)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    drop(stream);
    wait_until_nothing_runs(&server).await;
    assert_eq!(other.read(info).await.unwrap().rows().len(), 10);
}

#[tokio::test]
async fn a_ticket_that_expired_is_not_found() {
    let (_data, server, mut client) = fixture(&["limits.ticket_ttl_seconds=1"]).await;
    let info = client.statement("SELECT value FROM range(10)").await.unwrap();
    let began = Instant::now();
    while !server.get("/metrics").unwrap().1.contains("outcome=\"cancelled\"}") {
        assert!(began.elapsed() < PATIENCE, "it never expires");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let status = client.fetch(ticket(&info)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
    assert!(status.message().contains("limits.ticket_ttl_seconds"), "{status}");
}

#[tokio::test]
async fn the_count_of_a_change_outlives_its_record() {
    let (_data, _server, mut client) = fixture(&["limits.queries_history_max=1"]).await;
    client.query("CREATE TABLE t (a BIGINT)").await.unwrap();
    let info = client.statement("INSERT INTO t VALUES (1), (2)").await.unwrap();
    for _ in 0..3 {
        assert_eq!(client.number("SELECT count(*) FROM t").await, 2);
    }
    assert_eq!(client.read(info).await.unwrap().rows(), [["2"]]);
}
