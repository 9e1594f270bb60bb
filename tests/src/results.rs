//! Results: their schema is what was promised, changes run exactly once, and a query that nobody wants any more stops.

use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow_flight::FlightDescriptor;
use arrow_flight::sql::{CommandGetTables, CommandStatementQuery, CommandStatementUpdate, ProstMessageExt};
use futures::StreamExt;
use prost::Message;
use tonic::Code;

use crate::client::Client;
use crate::flight::{answers, fixture, refused};
use crate::fused::PATIENCE;

/// A long stream: far more than the buffers between server and client hold.
const LONG: &str = "SELECT a.value AS a, b.value AS b FROM range(100000) a CROSS JOIN range(100000) b";

#[tokio::test]
async fn get_schema_equals_flight_info() {
    let (_data, _server, mut client) = fixture().await;
    let commands = [
        CommandStatementQuery {
            query: "SELECT 1 AS a, 'x' AS b, NULL AS c".into(),
            transaction_id: None,
        }
        .as_any(),
        CommandGetTables {
            include_schema: true,
            ..Default::default()
        }
        .as_any(),
        CommandGetTables::default().as_any(),
    ];
    for command in commands {
        let descriptor = FlightDescriptor::new_cmd(command.encode_to_vec());
        let info = client
            .raw
            .get_flight_info(descriptor.clone())
            .await
            .unwrap()
            .into_inner();
        let schema = client.raw.get_schema(descriptor).await.unwrap().into_inner();
        let schema = arrow::datatypes::Schema::try_from(&schema).unwrap();
        assert_eq!(info.try_decode_schema().unwrap(), schema, "{}", command.type_url);
    }
}

/// What the planner calls nullable stays nullable in the stream, whatever statistics tell while it runs; and an empty
/// result has the same schema. `Client::read` checks all of it.
#[tokio::test]
async fn streams_keep_the_promised_schema() {
    let (_data, _server, mut client) = fixture().await;
    client
        .query("CREATE TABLE t AS SELECT value AS a, CAST(value AS VARCHAR) AS s FROM range(1000)")
        .await
        .unwrap();
    for sql in [
        "SELECT min(a), max(a), count(*), count(a), sum(a), avg(a) FROM t",
        "SELECT min(a), max(s), count(*) FROM t WHERE false",
        "SELECT * FROM t WHERE a < 0",
        "SELECT a, s FROM t ORDER BY a LIMIT 0",
        "SELECT s, count(*) FROM t WHERE false GROUP BY s",
        "SELECT a.a, b.a FROM t a LEFT JOIN t b ON a.a = b.a + 1 ORDER BY 1",
        "SELECT 1 AS one UNION ALL SELECT NULL",
        "SELECT arrow_cast('x', 'Dictionary(Int32, Utf8)') AS d, arrow_cast('y', 'Utf8View') AS v",
        "SELECT make_array(arrow_cast('y', 'Utf8View')) AS nested, named_struct('f', arrow_cast('y', 'Utf8View')) AS s",
        "SELECT row_number() OVER (ORDER BY a) AS n, lag(a) OVER (ORDER BY a) AS p FROM t",
        "SELECT NULL AS nothing",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM information_schema.columns",
        "SELECT * FROM system.queries",
        "SELECT * FROM system.settings",
        "SELECT * FROM system.tables",
        "SELECT * FROM system.devices",
        "SHOW TABLES",
        "EXPLAIN SELECT * FROM t",
        "EXPLAIN ANALYZE SELECT * FROM t",
    ] {
        client
            .query(sql)
            .await
            .unwrap_or_else(|status| panic!("{sql}: {status}"));
    }
}

/// No message passes tonic's default receive limit of 4 MiB, however wide the rows.
#[tokio::test]
async fn messages_stay_below_four_mebibytes() {
    let (_data, server, _) = fixture().await;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", server.flight)).unwrap();
    let mut small = server.client().await;
    small.raw = arrow_flight::flight_service_client::FlightServiceClient::new(endpoint.connect().await.unwrap());
    for (rows, width_bytes) in [(300, 100_000), (3_000_000, 10), (20, 1_500_000)] {
        let sql = format!("SELECT repeat('x', {width_bytes}) AS s, value AS n FROM range({rows})");
        let answer = small
            .query(&sql)
            .await
            .unwrap_or_else(|status| panic!("{rows} × {width_bytes}: {status}"));
        assert_eq!(answer.batches.iter().map(RecordBatch::num_rows).sum::<usize>(), rows);
    }
}

#[tokio::test]
async fn changes_run_exactly_once() {
    let (_data, server, mut client) = fixture().await;
    client.query("CREATE TABLE t (a BIGINT)").await.unwrap();
    // As the Python clients send it; the stream is never read.
    let info = client.statement("INSERT INTO t VALUES (1), (2)").await.unwrap();
    assert_eq!(
        client.number("SELECT count(*) FROM t").await,
        2,
        "a change waits for nobody to fetch its count"
    );
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let first = client.read(info).await.unwrap();
    assert_eq!(first.rows(), [["2"]]);
    assert_eq!(first.schema.field(0).name(), "count");
    // Twice: the count again, or a plain refusal; never a second run.
    if let Err(status) = client.fetch(ticket).await {
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    }
    assert_eq!(client.number("SELECT count(*) FROM t").await, 2);
    assert_eq!(client.update("INSERT INTO t VALUES (3)").await.unwrap(), 1);
    assert_eq!(client.update("DELETE FROM t WHERE a >= 2").await.unwrap(), 2);
    assert_eq!(client.number("SELECT count(*) FROM t").await, 1);
    // GetSchema only asks.
    let command = CommandStatementQuery {
        query: "INSERT INTO t VALUES (9)".into(),
        transaction_id: None,
    };
    let _ = client
        .raw
        .get_schema(FlightDescriptor::new_cmd(command.as_any().encode_to_vec()))
        .await;
    assert_eq!(
        client.number("SELECT count(*) FROM t").await,
        1,
        "GetSchema ran a change"
    );
    answers(&server).await;
}

#[tokio::test]
async fn a_query_ticket_redeemed_twice_is_clear() {
    let (_data, _server, mut client) = fixture().await;
    let info = client.statement("SELECT value FROM range(10)").await.unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let (_, first) = client.fetch(ticket.clone()).await.unwrap();
    match client.fetch(ticket).await {
        Ok((_, second)) => assert_eq!(first, second),
        Err(status) => {
            assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
            assert!(status.message().contains("hint"), "{status}");
        }
    }
}

#[tokio::test]
async fn an_update_command_refuses_nothing_it_can_do() {
    let (_data, _server, mut client) = fixture().await;
    assert!(
        client.update("CREATE TABLE t (a BIGINT)").await.unwrap() <= 0,
        "DDL changes no rows"
    );
    // A query sent as an update: a count or a clear refusal, as the server likes.
    let command = CommandStatementUpdate {
        query: "SELECT 1".into(),
        transaction_id: None,
    };
    if let Err(status) = client.put(command, Vec::new()).await {
        refused("a query as an update", Err::<(), _>(status));
    }
    let status = client.update("INSERT INTO nowhere VALUES (1)").await.unwrap_err();
    assert!(
        matches!(status.code(), Code::NotFound | Code::InvalidArgument),
        "{status}"
    );
}

pub(crate) async fn wait_for_state(client: &mut Client, query_id: &str, wanted: &str) {
    let sql = format!("SELECT state FROM system.queries WHERE query_id = '{query_id}'");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let rows = client.query(&sql).await.unwrap().rows();
        if rows.iter().any(|row| row[0].eq_ignore_ascii_case(wanted)) {
            return;
        }
        assert!(Instant::now() < deadline, "query {query_id} is {rows:?}, not {wanted}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Ends when the query was fetched and has run for a moment.
pub(crate) async fn amid(client: &mut Client, query_id: &str) {
    wait_for_state(client, query_id, "Running").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
}

pub(crate) fn query_id(info: &arrow_flight::FlightInfo) -> String {
    let metadata: serde_json::Value = serde_json::from_slice(&info.app_metadata).expect("JSON in app_metadata");
    metadata["query_id"].as_str().expect("a query_id").to_owned()
}

#[tokio::test]
async fn a_dropped_stream_cancels_its_query() {
    let (_data, server, mut client) = fixture().await;
    let mut observer = server.client().await;
    let info = client.statement(LONG).await.unwrap();
    let id = query_id(&info);
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let mut stream = client.raw.do_get(ticket).await.unwrap().into_inner();
    for _ in 0..3 {
        stream.next().await.unwrap().unwrap();
    }
    wait_for_state(&mut observer, &id, "Running").await;
    drop(stream);
    wait_for_state(&mut observer, &id, "Cancelled").await;
    // And before the first batch: an aggregate that takes long gives nothing until its end.
    let slow = "SELECT count(*) FROM range(1000000) a CROSS JOIN range(1000000) b WHERE a.value * b.value % 7 = 3";
    let info = client.statement(slow).await.unwrap();
    let id = query_id(&info);
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    // A server that has not heard of the fetch when it is dropped has nothing to cancel.
    tokio::select! {
        _ = client.fetch(ticket) => panic!("too quick to be cancelled"),
        () = amid(&mut observer, &id) => {}
    }
    wait_for_state(&mut observer, &id, "Cancelled").await;
}

#[tokio::test]
async fn cancel_flight_info_stops_a_query() {
    let (_data, server, mut client) = fixture().await;
    let mut observer = server.client().await;
    let info = client.statement(LONG).await.unwrap();
    let id = query_id(&info);
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let mut stream = client.raw.do_get(ticket).await.unwrap().into_inner();
    stream.next().await.unwrap().unwrap();
    // By the connection that owns it: another one has no say when sessions are told apart by connection.
    let request = arrow_flight::CancelFlightInfoRequest::new(info);
    client
        .action("CancelFlightInfo", request.encode_to_vec())
        .await
        .unwrap();
    let end = tokio::time::timeout(PATIENCE, async {
        loop {
            match stream.next().await {
                None => return None,
                Some(Err(status)) => return Some(status),
                Some(Ok(_)) => {}
            }
        }
    });
    let status = end
        .await
        .expect("the stream ends")
        .expect("a cancelled stream ends with a status, not as if complete");
    assert_eq!(status.code(), Code::Cancelled, "{status}");
    wait_for_state(&mut observer, &id, "Cancelled").await;
}

#[tokio::test]
async fn a_failed_query_is_recorded() {
    let (_data, server, mut client) = fixture().await;
    let mut observer = server.client().await;
    let info = client
        .statement("SELECT 10 / (value - 5) AS q FROM range(10)")
        .await
        .unwrap();
    let id = query_id(&info);
    let status = client
        .fetch(info.endpoint[0].ticket.clone().unwrap())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().to_lowercase().contains("divi"), "{status}");
    wait_for_state(&mut observer, &id, "Failed").await;
    let info = client.statement("SELECT 1").await.unwrap();
    let id = query_id(&info);
    client.read(info).await.unwrap();
    wait_for_state(&mut observer, &id, "Finished").await;
}

#[tokio::test]
async fn a_corrupt_file_fails_its_query_alone() {
    let (data, server, mut client) = fixture().await;
    std::fs::write(data.path().join("broken.parquet"), b"PAR1 this is no parquet file PAR1").unwrap();
    std::fs::write(data.path().join("good.csv"), "a,b\n1,x\n2,y\n").unwrap();
    let status = match client.query("SELECT * FROM broken").await {
        Ok(_) => panic!("a corrupt file gave rows"),
        Err(status) => status,
    };
    assert!(
        status.message().contains("broken.parquet"),
        "the error names the file: {status}"
    );
    assert_eq!(
        client.query("SELECT * FROM good ORDER BY a").await.unwrap().rows(),
        [["1", "x"], ["2", "y"]]
    );
    let tables = client
        .command(CommandGetTables {
            include_schema: true,
            ..Default::default()
        })
        .await
        .unwrap();
    assert!(
        tables.rows().iter().any(|row| row[2] == "good"),
        "the listing works beside a corrupt file"
    );
    answers(&server).await;
}
