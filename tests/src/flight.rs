//! Bad input on the raw protocol: every refusal is a clean status, and the server answers the next call.

use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch};
use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::sql::{
    Any, CommandPreparedStatementQuery, CommandPreparedStatementUpdate, CommandStatementSubstraitPlan, ProstMessageExt,
    TicketStatementQuery,
};
use arrow_flight::{Action, Criteria, Empty, FlightData, FlightDescriptor, HandshakeRequest, Ticket};
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tonic::{Code, Status};

use crate::client::{Client, encode};
use crate::server::Server;

pub(crate) async fn fixture() -> (tempfile::TempDir, Server, Client) {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let client = server.client().await;
    (data, server, client)
}

/// The request was understood as wrong, not met with a fault of the server's.
#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(what: &str, result: Result<T, Status>) {
    let status = result.expect_err(what);
    assert!(
        matches!(
            status.code(),
            Code::InvalidArgument | Code::NotFound | Code::Unimplemented
        ),
        "{what}: {:?} {}",
        status.code(),
        status.message()
    );
    assert!(!status.message().is_empty(), "{what}: no message");
    assert!(!status.message().contains("panicked"), "{what}: {}", status.message());
}

pub(crate) async fn answers(server: &Server) {
    let mut client = server.client().await;
    assert_eq!(client.number("SELECT 41 + 1").await, 42);
}

fn any(type_url: &str, value: impl Into<Vec<u8>>) -> Vec<u8> {
    Any {
        type_url: type_url.to_owned(),
        value: value.into().into(),
    }
    .encode_to_vec()
}

const URL: &str = "type.googleapis.com/arrow.flight.protocol.sql.";

/// Commands and tickets that nothing can be made of.
fn garbage() -> Vec<(String, Vec<u8>)> {
    let mut all = vec![
        ("empty".to_owned(), vec![]),
        ("one byte".to_owned(), vec![0xff]),
        ("text".to_owned(), b"SELECT 1".to_vec()),
        ("an Any without url".to_owned(), any("", vec![])),
        (
            "an unknown type".to_owned(),
            any("type.googleapis.com/example.Nothing", vec![]),
        ),
        (
            "an unknown Flight SQL type".to_owned(),
            any(&format!("{URL}CommandGetEverything"), vec![]),
        ),
        ("a truncated url".to_owned(), any("type.googleapis.com/", vec![])),
        (
            "an action as a command".to_owned(),
            any(&format!("{URL}ActionBeginTransactionRequest"), vec![]),
        ),
    ];
    for name in [
        "CommandStatementQuery",
        "CommandStatementUpdate",
        "CommandPreparedStatementQuery",
        "CommandGetTables",
        "CommandGetDbSchemas",
        "CommandGetPrimaryKeys",
        "CommandGetSqlInfo",
        "CommandGetXdbcTypeInfo",
        "TicketStatementQuery",
    ] {
        // A length-delimited field that promises more bytes than follow.
        all.push((
            format!("broken {name}"),
            any(&format!("{URL}{name}"), vec![0x0a, 0xff, 0xff, 0xff, 0x7f, 1]),
        ));
    }
    // Same bytes each run: a failure repeats.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..100 {
        let bytes = (0..(round % 40))
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 24) as u8
            })
            .collect();
        all.push((format!("random bytes {round}"), bytes));
    }
    all
}

#[tokio::test]
async fn malformed_commands_are_refused() {
    let (_data, server, mut client) = fixture().await;
    for (what, bytes) in garbage() {
        let info = client
            .raw
            .get_flight_info(FlightDescriptor::new_cmd(bytes.clone()))
            .await;
        refused(&format!("GetFlightInfo of {what}"), info);
        let schema = client.raw.get_schema(FlightDescriptor::new_cmd(bytes.clone())).await;
        refused(&format!("GetSchema of {what}"), schema);
        let poll = client.raw.poll_flight_info(FlightDescriptor::new_cmd(bytes)).await;
        refused(&format!("PollFlightInfo of {what}"), poll);
    }
    let path = FlightDescriptor::new_path(vec!["a".to_owned(), "b".to_owned()]);
    refused("a path", client.raw.get_flight_info(path).await);
    let unknown = FlightDescriptor {
        r#type: DescriptorType::Unknown.into(),
        ..Default::default()
    };
    refused("a descriptor without type", client.raw.get_flight_info(unknown).await);
    let odd = FlightDescriptor {
        r#type: 77,
        ..Default::default()
    };
    refused("a descriptor of type 77", client.raw.get_flight_info(odd).await);
    answers(&server).await;
}

#[tokio::test]
async fn garbage_tickets_are_refused() {
    let (_data, server, mut client) = fixture().await;
    for (what, bytes) in garbage() {
        refused(&format!("ticket: {what}"), client.fetch(Ticket::new(bytes)).await);
    }
    for handle in [&b""[..], b"nothing", b"\xff\xfe", &[0; 4096]] {
        let ticket = TicketStatementQuery {
            statement_handle: handle.to_vec().into(),
        };
        refused(
            "an unknown statement handle",
            client.fetch(Ticket::new(ticket.as_any().encode_to_vec())).await,
        );
    }
    answers(&server).await;
}

#[tokio::test]
async fn unknown_handles_are_refused() {
    let (_data, server, mut client) = fixture().await;
    for handle in [&b""[..], b"nothing", b"\xff\xfe", &[7; 4096]] {
        let handle: prost::bytes::Bytes = handle.to_vec().into();
        let query = CommandPreparedStatementQuery {
            prepared_statement_handle: handle.clone(),
        };
        refused("query", client.info(query.clone()).await);
        let batch = RecordBatch::try_from_iter([("1", std::sync::Arc::new(Int64Array::from(vec![1])) as _)]).unwrap();
        refused("bind", client.put(query, encode(&batch).await).await);
        let update = CommandPreparedStatementUpdate {
            prepared_statement_handle: handle,
        };
        refused("update", client.put(update, Vec::new()).await);
    }
    let plan = CommandStatementSubstraitPlan::default();
    refused("a Substrait plan", client.info(plan).await);
    answers(&server).await;
}

#[tokio::test]
async fn broken_uploads_are_refused() {
    let (_data, server, mut client) = fixture().await;
    refused("no message", put_raw(&mut client, vec![]).await);
    refused("no descriptor", put_raw(&mut client, vec![FlightData::default()]).await);
    for (what, bytes) in garbage() {
        let first = FlightData {
            flight_descriptor: Some(FlightDescriptor::new_cmd(bytes)),
            ..Default::default()
        };
        refused(&format!("DoPut of {what}"), put_raw(&mut client, vec![first]).await);
    }
    let prepared = client.prepare("SELECT CAST($1 AS BIGINT) AS a").await.unwrap();
    let numbers = std::sync::Arc::new((0..1000).collect::<Int64Array>());
    let batch = RecordBatch::try_from_iter([("1", numbers as _)]).unwrap();
    let whole = encode(&batch).await;
    let command = CommandPreparedStatementQuery {
        prepared_statement_handle: prepared.handle.clone(),
    };

    let garbled = |header: bool, index: usize| {
        let mut data = whole.clone();
        let bytes = if header {
            &mut data[index].data_header
        } else {
            &mut data[index].data_body
        };
        *bytes = vec![0xa5; bytes.len().max(16)].into();
        data
    };
    let mut cut = whole.clone();
    cut[1].data_body = cut[1].data_body.slice(..cut[1].data_body.len() / 2);
    let cases = [
        ("a broken schema", garbled(true, 0)),
        ("a broken batch header", garbled(true, 1)),
        ("a body cut in half", cut),
        ("no schema", vec![whole[1].clone()]),
        ("two schemas", vec![whole[0].clone(), whole[0].clone()]),
    ];
    for (what, data) in cases {
        let result = client.put(command.clone(), data).await;
        // A second schema is odd but means no rows: binding nothing may be accepted.
        if what != "two schemas" || result.is_err() {
            refused(what, result);
        }
    }
    answers(&server).await;
}

async fn put_raw(client: &mut Client, data: Vec<FlightData>) -> Result<(), Status> {
    let stream = client.raw.do_put(futures::stream::iter(data)).await?;
    stream.into_inner().try_collect::<Vec<_>>().await?;
    Ok(())
}

/// Uploads that begin and never end hold nothing that others need, and end with their connection.
#[tokio::test]
async fn half_open_uploads_do_no_harm() {
    let (_data, server, mut client) = fixture().await;
    client.query("CREATE TABLE t (a BIGINT)").await.unwrap();
    let prepared = client.prepare("INSERT INTO t VALUES ($1)").await.unwrap();
    let command = CommandPreparedStatementUpdate {
        prepared_statement_handle: prepared.handle.clone(),
    };
    let batch = RecordBatch::try_from_iter([("1", std::sync::Arc::new(Int64Array::from(vec![1])) as _)]).unwrap();
    let mut whole = encode(&batch).await;
    whole[0].flight_descriptor = Some(FlightDescriptor::new_cmd(command.as_any().encode_to_vec()));
    let mut open = Vec::new();
    for sent in [0, 1, 2] {
        for _ in 0..10 {
            let data = whole[..sent].to_vec();
            let mut client = client.clone();
            open.push(tokio::spawn(async move {
                let stream = futures::stream::iter(data).chain(futures::stream::pending());
                let _ = client.raw.do_put(stream).await.map(tonic::Response::into_inner);
                std::future::pending::<()>().await;
            }));
        }
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    answers(&server).await;
    for task in open {
        task.abort();
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    answers(&server).await;
    assert_eq!(
        client.number("SELECT count(*) FROM t").await,
        0,
        "an upload that was never finished changed rows"
    );
}

#[tokio::test]
async fn oversize_statements_are_refused_alone() {
    let (_data, server, _) = fixture().await;
    for size_bytes in [1 << 20, 80 << 20] {
        let mut client = server.client().await;
        let sql = format!("SELECT length('{}') AS n", "x".repeat(size_bytes));
        match client.query(&sql).await {
            Ok(answer) => assert_eq!(answer.rows()[0][0], size_bytes.to_string()),
            Err(status) => {
                assert!(size_bytes > 1 << 20, "a statement of 1 MiB is refused: {status}");
                let codes = [Code::InvalidArgument, Code::OutOfRange, Code::ResourceExhausted];
                assert!(codes.contains(&status.code()), "{status}");
            }
        }
        answers(&server).await;
    }
}

/// Nesting that would overflow a thread's stack ends the statement, never the process.
#[tokio::test]
async fn deep_statements_are_refused_alone() {
    let (_data, server, mut client) = fixture().await;
    let depth = 20_000;
    let statements = [
        format!("SELECT {}1{}", "(".repeat(depth), ")".repeat(depth)),
        format!("SELECT {} true", "NOT ".repeat(depth)),
        format!("SELECT 1{}", " + 1".repeat(depth)),
        format!("SELECT {}1", "- ".repeat(depth)),
        format!("{}SELECT 1{}", "SELECT * FROM (".repeat(2_000), ") t".repeat(2_000)),
        format!("SELECT 1 {}", "UNION ALL SELECT 1 ".repeat(2_000)),
        format!("SELECT CASE {} END", "WHEN true THEN 1 ".repeat(2_000)),
        format!("SELECT {}1{}", "abs(".repeat(3_000), ")".repeat(3_000)),
    ];
    for sql in statements {
        let limit = Duration::from_secs(60);
        let result = tokio::time::timeout(limit, client.query(&sql)).await;
        let shown = &sql[..40];
        match result.unwrap_or_else(|_| panic!("no answer within {limit:?}: {shown}…")) {
            Ok(_) => {}
            Err(status) => {
                let codes = [Code::InvalidArgument, Code::ResourceExhausted, Code::Unimplemented];
                assert!(
                    codes.contains(&status.code()),
                    "{shown}…: {:?} {:.200}",
                    status.code(),
                    status.message()
                );
            }
        }
        answers(&server).await;
    }
}

#[tokio::test]
async fn unknown_calls_are_refused() {
    let (_data, server, mut client) = fixture().await;
    refused("an unknown action", client.action("MakeCoffee", vec![]).await);
    refused("an action without a name", client.action("", vec![]).await);
    for kind in [
        "CreatePreparedStatement",
        "ClosePreparedStatement",
        "CancelFlightInfo",
        "CancelQuery",
        "BeginTransaction",
        "EndTransaction",
        "CreatePreparedSubstraitPlan",
        "RenewFlightEndpoint",
        "SetSessionOptions",
    ] {
        refused(kind, client.action(kind, vec![0x0a, 0xff, 0xff, 0xff, 0x7f]).await);
    }
    let exchange = client
        .raw
        .do_exchange(futures::stream::iter([FlightData::default()]))
        .await;
    let exchange = match exchange {
        Ok(stream) => stream.into_inner().try_collect::<Vec<_>>().await,
        Err(status) => Err(status),
    };
    refused("DoExchange", exchange);
    // No credentials are asked for here; a client that shakes hands all the same must get through or a plain refusal.
    if let Err(status) = client
        .raw
        .handshake(futures::stream::iter([HandshakeRequest::default()]))
        .await
    {
        assert!(
            matches!(status.code(), Code::Unauthenticated | Code::InvalidArgument),
            "{status}"
        );
    }
    answers(&server).await;
}

#[tokio::test]
async fn actions_are_listed() {
    let (_data, _server, mut client) = fixture().await;
    let actions: Vec<_> = client
        .raw
        .list_actions(Empty {})
        .await
        .unwrap()
        .into_inner()
        .try_collect()
        .await
        .unwrap();
    let names: Vec<_> = actions.iter().map(|action| action.r#type.as_str()).collect();
    for name in ["CreatePreparedStatement", "ClosePreparedStatement", "CancelFlightInfo"] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    // What is listed is there: an empty body is wrong for most, but none is unknown.
    for name in names {
        if let Err(status) = client.raw.do_action(Action::new(name, vec![])).await {
            assert_ne!(status.code(), Code::Unimplemented, "{name} is listed and unimplemented");
        }
    }
    let flights = client.raw.list_flights(Criteria::default()).await;
    if let Err(status) = flights {
        assert_eq!(status.code(), Code::Unimplemented);
    }
}
