//! A small Flight SQL server inside the test, and the tests of the shell against it: log-in, cookies, statements, tags,
//! errors, descriptions and Ctrl-C. What real servers do is tested elsewhere; this is about what we send and print.

use std::path::Path;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arrow::array::{ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::sql::{Any, Command};
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, Criteria, Empty, FlightData, FlightDescriptor, FlightEndpoint,
    FlightInfo, HandshakeRequest, HandshakeResponse, IpcMessage, PollInfo, PutResult, SchemaAsIpc, SchemaResult,
    Ticket,
};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use prost::Message;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::complete::Names;
use crate::connection::{ConnectError, ConnectOptions, Connection};
use crate::error::Kind;
use crate::format::Shape;
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::shell::{Flow, Settings, Shell, Step};
use crate::uri::{Secret, Target};

type Answer<T> = Result<Response<T>, Status>;

/// What the server saw.
#[derive(Default)]
struct Seen {
    cookies: Vec<Option<String>>,
    cancelled: Vec<String>,
    /// The slow statement's row was sent.
    is_slow: bool,
}

#[derive(Clone, Default)]
struct Mock {
    seen: Arc<Mutex<Seen>>,
}

fn info(ticket: &str, app_metadata: &str) -> FlightInfo {
    FlightInfo::new()
        .with_endpoint(FlightEndpoint::new().with_ticket(Ticket::new(ticket.to_owned())))
        .with_app_metadata(app_metadata.to_owned())
}

fn numbers(from: i64, count: i64) -> RecordBatch {
    let column: Int64Array = (from..from + count).map(Some).collect();
    RecordBatch::try_from_iter(vec![("n", Arc::new(column) as ArrayRef)]).unwrap()
}

fn texts(columns: &[(&str, &str)]) -> Vec<(String, ArrayRef)> {
    columns
        .iter()
        .map(|(name, value)| {
            (
                (*name).to_owned(),
                Arc::new(StringArray::from(vec![*value])) as ArrayRef,
            )
        })
        .collect()
}

fn tables() -> RecordBatch {
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("note", DataType::Utf8, true),
    ]);
    let options = arrow::ipc::writer::IpcWriteOptions::default();
    let IpcMessage(bytes) = SchemaAsIpc::new(&schema, &options).try_into().unwrap();
    let mut columns = texts(&[
        ("catalog_name", "trireme"),
        ("db_schema_name", "public"),
        ("table_name", "orders"),
        ("table_type", "TABLE"),
    ]);
    let schemas = BinaryArray::from(vec![bytes.as_ref()]);
    columns.push(("table_schema".to_owned(), Arc::new(schemas)));
    RecordBatch::try_from_iter(columns).unwrap()
}

fn primary_keys() -> RecordBatch {
    let mut columns = texts(&[("table_name", "orders"), ("column_name", "id")]);
    columns.push(("key_sequence".to_owned(), Arc::new(Int32Array::from(vec![1]))));
    RecordBatch::try_from_iter(columns).unwrap()
}

#[tonic::async_trait]
impl FlightService for Mock {
    type HandshakeStream = BoxStream<'static, Result<HandshakeResponse, Status>>;
    type ListFlightsStream = BoxStream<'static, Result<FlightInfo, Status>>;
    type DoGetStream = BoxStream<'static, Result<FlightData, Status>>;
    type DoPutStream = BoxStream<'static, Result<PutResult, Status>>;
    type DoActionStream = BoxStream<'static, Result<arrow_flight::Result, Status>>;
    type ListActionsStream = BoxStream<'static, Result<ActionType, Status>>;
    type DoExchangeStream = BoxStream<'static, Result<FlightData, Status>>;

    async fn handshake(&self, request: Request<Streaming<HandshakeRequest>>) -> Answer<Self::HandshakeStream> {
        // ann:secret
        if request.metadata().get("authorization").unwrap() != "Basic YW5uOnNlY3JldA==" {
            return Err(Status::unauthenticated("wrong password"));
        }
        let mut answer = Response::new(stream::empty().boxed());
        answer
            .metadata_mut()
            .insert("authorization", "Bearer t1".parse().unwrap());
        answer
            .metadata_mut()
            .insert("set-cookie", "session=s1; Path=/".parse().unwrap());
        Ok(answer)
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Answer<FlightInfo> {
        let header = |name: &str| {
            request
                .metadata()
                .get(name)
                .map(|value| value.to_str().unwrap().to_owned())
        };
        if header("authorization").as_deref() != Some("Bearer t1") {
            return Err(Status::unauthenticated("who are you"));
        }
        self.seen.lock().cookies.push(header("cookie"));
        let any = Any::decode(request.into_inner().cmd).unwrap();
        let answer = match Command::try_from(any).unwrap() {
            Command::CommandStatementQuery(statement) => match statement.query.as_str() {
                "insert" => info("count", r#"{"query_id":"1","command":"INSERT","update":true}"#),
                "create" => info("count", r#"{"query_id":"1","command":"CREATE TABLE","update":true}"#),
                "slow" => info("slow", r#"{"query_id":"7","command":"SELECT","update":false}"#),
                "numbers" => info("numbers", ""),
                "late error" => info("late error", ""),
                other => {
                    let text = format!("cannot run \"{other}\"\nhint: write numbers\nat line 1, column 3");
                    return Err(Status::invalid_argument(text));
                }
            },
            Command::CommandGetTables(_) => info("tables", ""),
            Command::CommandGetPrimaryKeys(_) => info("primary keys", ""),
            _ => return Err(Status::unimplemented("no")),
        };
        Ok(Response::new(answer))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Answer<Self::DoGetStream> {
        let ticket = String::from_utf8(request.into_inner().ticket.to_vec()).unwrap();
        let batches: BoxStream<'static, Result<RecordBatch, FlightError>> = match ticket.as_str() {
            "count" => stream::iter([Ok(numbers(5, 1))]).boxed(),
            "numbers" => stream::iter([Ok(numbers(1, 2)), Ok(numbers(3, 1))]).boxed(),
            "slow" => {
                let seen = Arc::clone(&self.seen);
                let never = stream::poll_fn(move |_| {
                    seen.lock().is_slow = true;
                    Poll::Pending
                });
                stream::iter([Ok(numbers(1, 1))]).chain(never).boxed()
            }
            "late error" => {
                let error = FlightError::Tonic(Box::new(Status::internal("broke in the middle")));
                stream::iter([Ok(numbers(1, 1)), Err(error)]).boxed()
            }
            "tables" => stream::iter([Ok(tables())]).boxed(),
            "primary keys" => stream::iter([Ok(primary_keys())]).boxed(),
            _ => return Err(Status::not_found("no such ticket")),
        };
        let frames = FlightDataEncoderBuilder::new().build(batches).map_err(Status::from);
        Ok(Response::new(frames.boxed()))
    }

    async fn do_action(&self, request: Request<Action>) -> Answer<Self::DoActionStream> {
        let action = request.into_inner();
        assert_eq!(action.r#type, "CancelFlightInfo");
        let cancel = CancelFlightInfoRequest::decode(action.body).unwrap();
        let about = String::from_utf8(cancel.info.unwrap().app_metadata.to_vec()).unwrap();
        self.seen.lock().cancelled.push(about);
        Ok(Response::new(stream::empty().boxed()))
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Answer<Self::ListFlightsStream> {
        Err(Status::unimplemented(""))
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Answer<PollInfo> {
        Err(Status::unimplemented(""))
    }

    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Answer<SchemaResult> {
        Err(Status::unimplemented(""))
    }

    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> Answer<Self::DoPutStream> {
        Err(Status::unimplemented(""))
    }

    async fn list_actions(&self, _: Request<Empty>) -> Answer<Self::ListActionsStream> {
        Err(Status::unimplemented(""))
    }

    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Answer<Self::DoExchangeStream> {
        Err(Status::unimplemented(""))
    }
}

fn serve() -> (Mock, Target) {
    let mock = Mock::default();
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = incoming.local_addr().unwrap().port();
    let service = FlightServiceServer::new(mock.clone());
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
    let target = Target {
        port,
        ..Target::default()
    };
    (mock, target)
}

fn options(target: Target, password: &str) -> ConnectOptions {
    ConnectOptions {
        target,
        user: Some("ann".into()),
        password: Some(Secret::new(password)),
        token: None,
        tls_ca: None,
        insecure: false,
        connect_timeout: Duration::from_secs(5),
        message_bytes_max: 64 << 20,
    }
}

struct Bench {
    mock: Mock,
    shell: Shell,
    ctrl_c: tokio::sync::watch::Sender<u32>,
    folder: tempfile::TempDir,
}

impl Bench {
    async fn new(shape: Shape) -> Self {
        let (mock, target) = serve();
        let connection = Connection::open(options(target, "secret")).await.unwrap();
        let (ctrl_c, interrupt) = Interrupt::by_hand();
        let settings = Settings {
            shape,
            expanded: false,
            tuples_only: false,
            null: String::new(),
            timing: false,
            quiet: false,
            keep_going: false,
            interactive: false,
        };
        let folder = tempfile::tempdir().unwrap();
        let mut output = Output::new(|| None, false);
        output.redirect(Some(&folder.path().join("out"))).unwrap();
        let names = Arc::new(Names::default());
        Self {
            mock,
            shell: Shell::new(connection, settings, output, interrupt, names),
            ctrl_c,
            folder,
        }
    }

    async fn run(&mut self, script: &str) -> (Step, String) {
        let step = self.shell.script(script.as_bytes(), None).await;
        self.shell.output.redirect(None).unwrap();
        let out = self.path("out");
        let text = std::fs::read_to_string(&out).unwrap();
        self.shell.output.redirect(Some(Path::new(&out))).unwrap();
        (step, text)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }
}

#[tokio::test]
async fn log_in_gives_a_token_and_a_cookie_that_come_back() {
    let mut bench = Bench::new(Shape::Table).await;
    let (step, text) = bench.run("numbers; numbers;").await;
    assert_eq!(step, Ok(Flow::GoOn));
    assert_eq!(text, " n \n---\n 1\n 2\n 3\n(3 rows)\n\n".repeat(2));
    let expected = Some("session=s1".to_owned());
    assert_eq!(bench.mock.seen.lock().cookies, [expected.clone(), expected]);
}

#[tokio::test]
async fn a_wrong_password_and_a_silent_port_are_told_apart() {
    let (_, target) = serve();
    let refused = Connection::open(options(target, "wrong")).await.err().unwrap();
    assert!(matches!(refused, ConnectError::Refused { .. }), "{refused}");
    assert!(refused.to_string().contains("wrong password"));

    // Held, so that no other test's server gets the port; it doesn't listen.
    let silent = tokio::net::TcpSocket::new_v4().unwrap();
    silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let target = Target {
        port: silent.local_addr().unwrap().port(),
        ..Target::default()
    };
    let unreachable = Connection::open(options(target, "x")).await.err().unwrap();
    assert!(matches!(unreachable, ConnectError::Unreachable { .. }), "{unreachable}");
}

#[tokio::test]
async fn a_password_is_not_sent_in_the_clear_to_another_machine() {
    let target = Target {
        host: "192.0.2.1".into(),
        ..Target::default()
    };
    let error = Connection::open(options(target, "secret")).await.err().unwrap();
    assert!(matches!(error, ConnectError::PlainCredentials(_)));
    assert!(!error.to_string().contains("secret"));
}

#[tokio::test]
async fn updates_print_no_table_and_errors_stop_a_script() {
    let mut bench = Bench::new(Shape::Csv).await;
    let (step, text) = bench.run("insert; create; nonsense; numbers;").await;
    assert_eq!(step, Err(Kind::Statement));
    assert_eq!(text, "");
    bench.shell.settings.keep_going = true;
    let (step, text) = bench.run("nonsense; numbers; late error;").await;
    assert_eq!(step, Err(Kind::Statement));
    assert_eq!(text, "n\n1\n2\n3\nn\n1\n");
}

#[tokio::test]
async fn ctrl_c_cancels_on_the_server() {
    let mut bench = Bench::new(Shape::Csv).await;
    let (ctrl_c, seen) = (bench.ctrl_c.clone(), Arc::clone(&bench.mock.seen));
    tokio::spawn(async move {
        while !seen.lock().is_slow {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Many turns of the runtime, not one long sleep: on a slow machine each of them brings the row on its way.
        for _ in 0..40 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        ctrl_c.send_modify(|count| *count += 1);
    });
    let (step, text) = bench.run("slow; numbers;").await;
    assert_eq!(step, Err(Kind::Cancelled));
    assert_eq!(text, "n\n1\n");
    assert!(bench.mock.seen.lock().cancelled[0].contains(r#""query_id":"7""#));
    let (step, _) = bench.run("numbers;").await;
    assert_eq!(step, Ok(Flow::GoOn));
}

#[tokio::test]
async fn tables_are_listed_and_described() {
    let mut bench = Bench::new(Shape::Table).await;
    let (step, text) = bench.run("\\dt\n").await;
    assert_eq!(step, Ok(Flow::GoOn));
    assert!(text.contains(" public | orders | table\n(1 row)\n"), "{text}");
    let (_, text) = bench.run("\\d ORDERS\n").await;
    assert!(text.contains("Table \"public.orders\""), "{text}");
    assert!(text.contains(" id     | Int64 | not null | primary\n"), "{text}");
    assert!(text.contains("Primary key: (id)\n"), "{text}");
    assert_eq!(bench.run("\\d nothing\n").await.0, Err(Kind::Statement));
    assert_eq!(bench.run("\\dn\n").await.0, Err(Kind::Statement));
}

#[tokio::test]
async fn scripts_include_scripts_and_results_get_their_own_file() {
    let mut bench = Bench::new(Shape::Jsonl).await;
    let (inner, own) = (bench.path("inner.sql"), bench.path("own"));
    std::fs::write(&inner, format!("numbers \\g '{own}'\n\\echo inside\n\\q\n")).unwrap();
    let (step, text) = bench
        .run(&format!("\\i '{inner}'\n\\echo after\n\\q\n\\echo never\n"))
        .await;
    assert_eq!(step, Ok(Flow::Quit));
    assert_eq!(text, "inside\nafter\n");
    assert_eq!(
        std::fs::read_to_string(own).unwrap(),
        "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n"
    );
    let endless = bench.path("endless.sql");
    std::fs::write(&endless, format!("\\i '{endless}'\n")).unwrap();
    assert_eq!(bench.run(&format!("\\i '{endless}'\n")).await.0, Err(Kind::Statement));
}
