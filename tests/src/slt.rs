//! Runs the specification, `tests/sql/**/*.slt`: each file on a server and a data folder of its own.
//!
//! Column types in a query's header are checked: `I` whole number, `R` float or decimal, `T` text, `B` boolean, `D` date,
//! `P` timestamp, `?` anything else. A file is run to its end, so that one wrong record does not hide the next.

use std::fmt::Write;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::array::{Array, Int64Array};
use arrow::datatypes::DataType;
use futures::FutureExt;
use sqllogictest::{AsyncDB, DBOutput, Record, Runner};

use crate::client::{Answer, Client};
use crate::server::Server;

/// One test for each folder of `tests/sql`; [`every_area_is_run`] keeps the list whole.
macro_rules! areas {
    ($($area:ident),* $(,)?) => {
        const AREAS: &[&str] = &[$(stringify!($area)),*];
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $area() {
            run_area(stringify!($area)).await;
        })*
    };
}

areas! {
    aggregates, analyze, ctes, dates, ddl, discovery, dml, errors, explain, information_schema, joins, keys, nulls, prepared,
    select, semantics, set_operations, settings, strings, subqueries, system, time_travel, types, windows,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sql")
}

#[test]
fn every_area_is_run() {
    let mut found: Vec<_> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.'))
        .collect();
    found.sort();
    assert_eq!(found, AREAS, "the folders of tests/sql and the list in slt.rs differ");
}

async fn run_area(area: &str) {
    let mut files: Vec<_> = std::fs::read_dir(folder().join(area))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "slt"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no .slt file in {area}");
    let mut failures = String::new();
    for file in files {
        run_file(&file, &mut failures).await;
    }
    assert!(failures.is_empty(), "\n{failures}");
}

async fn run_file(file: &Path, failures: &mut String) {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let address = server.flight;
    let mut runner = Runner::new(move || async move { Ok(Connection::open(address).await) });
    runner.with_column_validator(sqllogictest::strict_column_validator);
    runner.set_var("__DATA__".to_owned(), data.path().display().to_string());
    let records = sqllogictest::parse_file::<ColumnType>(file).unwrap();
    for record in records {
        if matches!(record, Record::Halt { .. }) {
            break;
        }
        if let Err(error) = runner.run_async(record).await {
            writeln!(failures, "{}\n", error.display(false)).unwrap();
        }
    }
}

struct Connection(Client);

impl Connection {
    async fn open(address: SocketAddr) -> Self {
        Self(Client::connect(address).await)
    }
}

/// A gRPC status, shown as users see it: the code, then the message with its hint.
#[derive(Debug)]
struct SqlError(tonic::Status);

impl std::fmt::Display for SqlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {}", self.0.code(), self.0.message())
    }
}

impl std::error::Error for SqlError {}

#[async_trait::async_trait]
impl AsyncDB for Connection {
    type Error = SqlError;
    type ColumnType = ColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<ColumnType>, SqlError> {
        let failed = |text: &str| SqlError(tonic::Status::unknown(text));
        // A query of a specification never takes long: a hang, like a broken promise of the stream, names its statement.
        let answer = tokio::time::timeout(
            Duration::from_secs(60),
            AssertUnwindSafe(self.0.query(sql)).catch_unwind(),
        );
        match answer.await {
            Err(_) => Err(failed("no answer within 60 s")),
            Ok(Err(broken)) => Err(failed(
                broken
                    .downcast_ref::<String>()
                    .map_or("a stream without a batch", String::as_str),
            )),
            Ok(Ok(answer)) => Ok(output(&answer.map_err(SqlError)?)),
        }
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "trireme"
    }

    async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

fn output(answer: &Answer) -> DBOutput<ColumnType> {
    if answer.is_update() {
        let count = answer.batches[0]
            .column(0)
            .as_any()
            .downcast_ref::<Int64Array>()
            .expect("an Int64 count");
        assert_eq!(count.len(), 1, "an update answers with one count");
        return DBOutput::StatementComplete(if count.is_null(0) {
            0
        } else {
            count.value(0).max(0) as u64
        });
    }
    let types = answer
        .schema
        .fields()
        .iter()
        .map(|field| ColumnType::of(field.data_type()))
        .collect();
    let rows = answer
        .rows()
        .into_iter()
        .map(|row| row.into_iter().map(visible).collect())
        .collect();
    DBOutput::Rows { types, rows }
}

fn visible(value: String) -> String {
    if value.is_empty() { "(empty)".to_owned() } else { value }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum ColumnType {
    Boolean,
    Integer,
    Number,
    Text,
    Date,
    Timestamp,
    Other,
}

impl ColumnType {
    fn of(data_type: &DataType) -> Self {
        match data_type {
            DataType::Boolean => Self::Boolean,
            other if other.is_integer() => Self::Integer,
            other if other.is_floating() || other.is_decimal() => Self::Number,
            DataType::Utf8 | DataType::LargeUtf8 => Self::Text,
            DataType::Date32 | DataType::Date64 => Self::Date,
            DataType::Timestamp(..) => Self::Timestamp,
            _ => Self::Other,
        }
    }
}

impl sqllogictest::ColumnType for ColumnType {
    fn from_char(value: char) -> Option<Self> {
        Some(match value {
            'B' => Self::Boolean,
            'I' => Self::Integer,
            'R' => Self::Number,
            'T' => Self::Text,
            'D' => Self::Date,
            'P' => Self::Timestamp,
            '?' => Self::Other,
            _ => return None,
        })
    }

    fn to_char(&self) -> char {
        match self {
            Self::Boolean => 'B',
            Self::Integer => 'I',
            Self::Number => 'R',
            Self::Text => 'T',
            Self::Date => 'D',
            Self::Timestamp => 'P',
            Self::Other => '?',
        }
    }
}
