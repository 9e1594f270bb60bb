//! Prepared statements: what drivers learn at prepare, and how rows of parameters run.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array, Int32Array, Int64Array,
    NullArray, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::Int32Type;
use tonic::Code;

use crate::client::Client;
use crate::server::Server;

async fn fixture() -> (tempfile::TempDir, Server, Client) {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let mut client = server.client().await;
    client
        .query("CREATE TABLE t (a BIGINT, s VARCHAR, d DECIMAL(10, 2), day DATE)")
        .await
        .unwrap();
    client
        .query("INSERT INTO t VALUES (1, 'one', 1.50, DATE '2024-01-01'), (2, 'two', 2.50, DATE '2024-01-02')")
        .await
        .unwrap();
    (data, server, client)
}

/// Columns named by position, as drivers send them.
fn row(columns: Vec<ArrayRef>) -> RecordBatch {
    let named = columns
        .into_iter()
        .enumerate()
        .map(|(i, column)| (format!("{}", i + 1), column, true));
    RecordBatch::try_from_iter_with_nullable(named).unwrap()
}

fn int64(values: impl Into<Int64Array>) -> ArrayRef {
    Arc::new(values.into())
}

#[tokio::test]
async fn parameters_are_described() {
    let (_data, _server, mut client) = fixture().await;
    for (sql, count) in [
        ("SELECT a FROM t WHERE a = $1", 1),
        ("SELECT a FROM t WHERE a = ?", 1),
        ("SELECT a FROM t WHERE a > ? AND s = ? AND d < ?", 3),
        ("SELECT a FROM t WHERE a > $2 AND s = $1", 2),
        ("SELECT $1 + a FROM t WHERE a = $1", 1),
        ("INSERT INTO t VALUES (?, ?, ?, ?)", 4),
        ("INSERT INTO t (a, s) VALUES ($1, $2)", 2),
        ("DELETE FROM t WHERE a = $1", 1),
        ("SELECT '?' AS q, a FROM t -- $7 ?", 0),
        ("SELECT a FROM t LIMIT $1", 1),
        ("SELECT $1", 1),
    ] {
        let prepared = client
            .prepare(sql)
            .await
            .unwrap_or_else(|status| panic!("{sql}: {status}"));
        assert_eq!(
            prepared.parameter_schema.fields().len(),
            count,
            "{sql}: {:?}",
            prepared.parameter_schema
        );
        client.close(&prepared).await.unwrap();
    }
    let typed = client.prepare("SELECT a FROM t WHERE a = $1 AND s = $2").await.unwrap();
    let types: Vec<_> = typed
        .parameter_schema
        .fields()
        .iter()
        .map(|f| f.data_type().clone())
        .collect();
    assert_eq!(
        types,
        [arrow::datatypes::DataType::Int64, arrow::datatypes::DataType::Utf8]
    );
}

/// Drivers tell a query from a change by the dataset schema alone.
#[tokio::test]
async fn only_queries_have_a_dataset_schema() {
    let (_data, _server, mut client) = fixture().await;
    for sql in [
        "SELECT a, s FROM t",
        "SHOW TABLES",
        "EXPLAIN SELECT 1",
        "VALUES (1)",
        "WITH x AS (SELECT 1) SELECT * FROM x",
    ] {
        let prepared = client
            .prepare(sql)
            .await
            .unwrap_or_else(|status| panic!("{sql}: {status}"));
        assert!(!prepared.dataset_schema.fields().is_empty(), "{sql} is a query");
        let answer = client
            .execute(&prepared)
            .await
            .unwrap_or_else(|status| panic!("{sql}: {status}"));
        crate::client::check_same(&prepared.dataset_schema, &answer.schema);
    }
    for sql in [
        "INSERT INTO t VALUES (1, 'x', 1, NULL)",
        "DELETE FROM t",
        "CREATE TABLE other (a BIGINT)",
        "CREATE TABLE other AS SELECT 1 AS a",
        "CREATE VIEW v AS SELECT 1 AS a",
        "DROP TABLE t",
        "SET datafusion.execution.batch_size = 1000",
    ] {
        let prepared = client
            .prepare(sql)
            .await
            .unwrap_or_else(|status| panic!("{sql}: {status}"));
        assert!(
            prepared.dataset_schema.fields().is_empty(),
            "{sql} is no query: {:?}",
            prepared.dataset_schema
        );
    }
    assert_eq!(
        client.number("SELECT count(*) FROM t").await,
        2,
        "to prepare is not to run"
    );
}

#[tokio::test]
async fn queries_run_with_parameters() {
    let (_data, _server, mut client) = fixture().await;
    for sql in ["SELECT s FROM t WHERE a = $1", "SELECT s FROM t WHERE a = ?"] {
        let mut prepared = client.prepare(sql).await.unwrap();
        for (value, wanted) in [(1, "one"), (2, "two"), (1, "one")] {
            client
                .bind(&mut prepared, &row(vec![int64(vec![value])]))
                .await
                .unwrap();
            assert_eq!(
                client.execute(&prepared).await.unwrap().rows(),
                [[wanted]],
                "{sql} with {value}"
            );
        }
        client.bind(&mut prepared, &row(vec![int64(vec![99])])).await.unwrap();
        assert!(client.execute(&prepared).await.unwrap().rows().is_empty());
        client.close(&prepared).await.unwrap();
    }
}

#[tokio::test]
async fn parameters_of_every_type() {
    let (_data, _server, mut client) = fixture().await;
    let types: Vec<(&str, ArrayRef, &str)> = vec![
        (
            "SELECT CAST($1 AS DOUBLE) AS v",
            Arc::new(Float64Array::from(vec![1.5])),
            "1.5",
        ),
        (
            "SELECT CAST($1 AS BOOLEAN) AS v",
            Arc::new(BooleanArray::from(vec![true])),
            "true",
        ),
        (
            "SELECT CAST($1 AS DATE) AS v",
            Arc::new(Date32Array::from(vec![19723])),
            "2024-01-01",
        ),
        (
            "SELECT a FROM t WHERE day = $1",
            Arc::new(Date32Array::from(vec![19723])),
            "1",
        ),
        ("SELECT a FROM t WHERE a = $1", Arc::new(Int32Array::from(vec![2])), "2"),
        (
            "SELECT a FROM t WHERE s = $1",
            Arc::new(StringArray::from(vec!["two"])),
            "2",
        ),
        (
            "SELECT a FROM t WHERE s = $1",
            Arc::new(DictionaryArray::<Int32Type>::from_iter([Some("two")])),
            "2",
        ),
        (
            "SELECT a FROM t WHERE d = $1",
            Arc::new(
                Decimal128Array::from(vec![250])
                    .with_precision_and_scale(10, 2)
                    .unwrap(),
            ),
            "2",
        ),
        (
            "SELECT CAST($1 AS TIMESTAMP) AS v",
            Arc::new(TimestampMicrosecondArray::from(vec![0])),
            "1970-01-01T00:00:00",
        ),
        ("SELECT CAST($1 AS BIGINT) AS v", Arc::new(NullArray::new(1)), "NULL"),
        ("SELECT CAST($1 AS BIGINT) AS v", int64(vec![None::<i64>]), "NULL"),
        (
            "SELECT $1 AS v",
            Arc::new(StringArray::from(vec!["naïve – 雪"])),
            "naïve – 雪",
        ),
    ];
    for (sql, value, wanted) in types {
        let mut prepared = client.prepare(sql).await.unwrap();
        let shown = format!("{sql} with {}", value.data_type());
        client
            .bind(&mut prepared, &row(vec![value]))
            .await
            .unwrap_or_else(|status| panic!("{shown}: {status}"));
        let answer = client
            .execute(&prepared)
            .await
            .unwrap_or_else(|status| panic!("{shown}: {status}"));
        assert_eq!(answer.rows(), [[wanted]], "{shown}");
    }
}

/// A value that the other operand's type can't hold counts as it was bound, as a literal does.
#[tokio::test]
async fn bound_values_are_not_cut() {
    let (_data, _server, mut client) = fixture().await;
    client
        .query("CREATE TABLE v AS SELECT CAST(value AS INT) AS i, CAST(value AS DECIMAL(15, 2)) AS d FROM range(10)")
        .await
        .unwrap();
    let double = |value: f64| row(vec![Arc::new(Float64Array::from(vec![value])) as ArrayRef]);
    for (sql, values, rows) in [
        ("SELECT count(*) FROM v WHERE i = ?", double(3.5), 0),
        ("SELECT count(*) FROM v WHERE i < ?", double(3.5), 4),
        ("SELECT count(*) FROM v WHERE i = ?", double(3.0), 1),
        ("SELECT count(*) FROM v WHERE d >= ?", double(8.996), 1),
        (
            "SELECT count(*) FROM v WHERE i < ?",
            row(vec![int64(vec![3_000_000_000])]),
            10,
        ),
    ] {
        let mut prepared = client.prepare(sql).await.unwrap();
        client.bind(&mut prepared, &values).await.unwrap();
        let answer = client.execute(&prepared).await.unwrap();
        assert_eq!(answer.rows(), [[rows.to_string()]], "{sql}");
    }
    let delete = client.prepare("DELETE FROM v WHERE i = ?").await.unwrap();
    assert_eq!(client.execute_update(&delete, Some(&double(3.5))).await.unwrap(), 0);
}

/// Four rows bound to a query mean four executions, their results one after the other.
#[tokio::test]
async fn several_rows_bound_to_a_query() {
    let (_data, _server, mut client) = fixture().await;
    let mut prepared = client.prepare("SELECT CAST($1 AS BIGINT) * 10 AS v").await.unwrap();
    client
        .bind(&mut prepared, &row(vec![int64(vec![Some(1), Some(2), None, Some(4)])]))
        .await
        .unwrap();
    let answer = client.execute(&prepared).await.unwrap();
    assert_eq!(answer.rows(), [["10"], ["20"], ["NULL"], ["40"]]);
}

#[tokio::test]
async fn changes_run_once_for_every_row() {
    let (_data, _server, mut client) = fixture().await;
    let prepared = client.prepare("INSERT INTO t (a, s) VALUES (?, ?)").await.unwrap();
    let values = row(vec![
        int64((10..110).collect::<Vec<i64>>()),
        Arc::new(
            (10..110)
                .map(|n| (n % 3 > 0).then(|| format!("n{n}")))
                .collect::<StringArray>(),
        ),
    ]);
    assert_eq!(client.execute_update(&prepared, Some(&values)).await.unwrap(), 100);
    assert_eq!(client.number("SELECT count(*) FROM t WHERE a >= 10").await, 100);
    assert_eq!(client.number("SELECT count(s) FROM t WHERE a >= 10").await, 67);
    // The same statement again, with other rows.
    let values = row(vec![int64(vec![500]), Arc::new(StringArray::from(vec!["x"]))]);
    assert_eq!(client.execute_update(&prepared, Some(&values)).await.unwrap(), 1);
    let delete = client.prepare("DELETE FROM t WHERE a = $1").await.unwrap();
    assert_eq!(
        client
            .execute_update(&delete, Some(&row(vec![int64(vec![500, 10, 11, 12_345])])))
            .await
            .unwrap(),
        3
    );
    let plain = client.prepare("INSERT INTO t (a) VALUES (7)").await.unwrap();
    assert_eq!(client.execute_update(&plain, None).await.unwrap(), 1);
    assert_eq!(client.execute_update(&plain, None).await.unwrap(), 1);
    assert_eq!(client.number("SELECT count(*) FROM t WHERE a = 7").await, 2);
}

/// Python's clients bind and then ask for a FlightInfo even for a change.
#[tokio::test]
async fn changes_run_through_the_query_path_too() {
    let (_data, _server, mut client) = fixture().await;
    let mut prepared = client.prepare("INSERT INTO t (a) VALUES ($1)").await.unwrap();
    client.bind(&mut prepared, &row(vec![int64(vec![77])])).await.unwrap();
    let answer = client.execute(&prepared).await.unwrap();
    assert!(answer.is_update());
    assert_eq!(answer.rows(), [["1"]]);
    assert_eq!(client.number("SELECT count(*) FROM t WHERE a = 77").await, 1);
}

#[tokio::test]
async fn misuse_is_refused() {
    let (_data, server, mut client) = fixture().await;
    let refuses = |what: &str, status: tonic::Status| {
        assert!(
            matches!(status.code(), Code::InvalidArgument | Code::NotFound),
            "{what}: {status}"
        );
    };
    refuses(
        "unknown table",
        client.prepare("SELECT * FROM nowhere WHERE a = $1").await.unwrap_err(),
    );
    refuses("syntax", client.prepare("SELEC 1").await.unwrap_err());
    refuses("empty", client.prepare("").await.unwrap_err());
    refuses(
        "two statements",
        client.prepare("SELECT 1; SELECT 2").await.unwrap_err(),
    );

    let mut prepared = client.prepare("SELECT a FROM t WHERE a = $1 AND s = $2").await.unwrap();
    refuses("nothing bound", client.execute(&prepared).await.unwrap_err());
    let short = row(vec![int64(vec![1])]);
    let failure = match client.bind(&mut prepared, &short).await {
        Ok(()) => client.execute(&prepared).await.map(drop),
        Err(status) => Err(status),
    };
    refuses("too few parameters", failure.unwrap_err());
    let wrong = row(vec![
        Arc::new(StringArray::from(vec!["no number"])),
        Arc::new(StringArray::from(vec!["x"])),
    ]);
    let failure = match client.bind(&mut prepared, &wrong).await {
        Ok(()) => client.execute(&prepared).await.map(drop),
        Err(status) => Err(status),
    };
    refuses("text for a number", failure.unwrap_err());
    // After all that, the statement still works.
    let right = row(vec![int64(vec![1]), Arc::new(StringArray::from(vec!["one"]))]);
    client.bind(&mut prepared, &right).await.unwrap();
    assert_eq!(client.execute(&prepared).await.unwrap().rows(), [["1"]]);
    client.close(&prepared).await.unwrap();
    refuses("closed", client.execute(&prepared).await.unwrap_err());

    assert_eq!(server.client().await.number("SELECT 1").await, 1);
}

/// A statement that no longer fits its table says so; one that still fits sees the new rows.
#[tokio::test]
async fn a_plan_does_not_outlive_its_table() {
    let (_data, _server, mut client) = fixture().await;
    let prepared = client.prepare("SELECT count(*) AS n FROM t").await.unwrap();
    assert_eq!(client.execute(&prepared).await.unwrap().rows(), [["2"]]);
    client.query("INSERT INTO t (a) VALUES (3)").await.unwrap();
    assert_eq!(
        client.execute(&prepared).await.unwrap().rows(),
        [["3"]],
        "the new row is seen"
    );
    client.query("DROP TABLE t").await.unwrap();
    assert!(client.execute(&prepared).await.is_err(), "the table is gone");
}

/// A parameter that is a function's argument has the argument's type; a prepared statement follows the function.
#[tokio::test]
async fn parameters_of_functions_have_their_types() {
    let (_data, _server, mut client) = fixture().await;
    client
        .query("CREATE FUNCTION times(a INT, b BIGINT) RETURNS BIGINT RETURN a * b * a")
        .await
        .unwrap();
    let mut prepared = client.prepare("SELECT times($1, a) FROM t WHERE a = 2").await.unwrap();
    assert_eq!(
        prepared.parameter_schema.field(0).data_type(),
        &arrow::datatypes::DataType::Int32
    );
    client.bind(&mut prepared, &row(vec![int64(vec![3])])).await.unwrap();
    assert_eq!(client.execute(&prepared).await.unwrap().rows(), [["18"]]);
    client
        .query("CREATE OR REPLACE FUNCTION times(a INT, b BIGINT) RETURNS BIGINT RETURN a * b")
        .await
        .unwrap();
    client.bind(&mut prepared, &row(vec![int64(vec![4])])).await.unwrap();
    assert_eq!(client.execute(&prepared).await.unwrap().rows(), [["8"]]);
}
