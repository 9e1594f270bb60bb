//! The column cache: filled by scans, within its budget, never older than its files, and off when told so.

use tonic::Code;

use super::{assert_fused, fixture, metric, replace, rows, run, wait_for_metric};
use crate::client::Client;

async fn cached(client: &mut Client, table: &str) -> Vec<Vec<String>> {
    let sql = format!("SELECT \"column\", rows FROM system.columns WHERE \"table\" LIKE '%{table}' ORDER BY 1, 2");
    rows(client, &sql).await
}

#[tokio::test]
async fn columns_are_kept_and_counted() {
    let (_data, server, mut client) = fixture(&[]).await;
    assert!(cached(&mut client, "facts").await.is_empty());
    let sql = "SELECT k, sum(v) FROM facts GROUP BY k ORDER BY k";
    let first = rows(&mut client, sql).await;
    assert_eq!(cached(&mut client, "facts").await, [["k", "20000"], ["v", "20000"]]);
    assert_eq!(rows(&mut client, sql).await, first);
    let hits = client.number("SELECT sum(hits) FROM system.columns").await;
    assert!(hits >= 2, "{hits}");
    // Narrow: k is below 97, so a byte each.
    let narrow = "SELECT sum(bytes) FROM system.columns WHERE \"column\" = 'k' AND carrier = 'int8'";
    let bytes = client.number(narrow).await;
    assert!((20_000..30_000).contains(&bytes), "{bytes}");
    let held = client.number("SELECT sum(bytes) FROM system.columns").await;
    // What is shown may be of a moment between two columns.
    wait_for_metric(&server, "trireme_column_cache_bytes", |bytes| bytes >= held as f64).await;
    wait_for_metric(&server, "trireme_column_cache_hits_total", |count| count >= 2.0).await;
    assert!(metric(&server, "trireme_column_cache_misses_total") >= 2.0);
}

#[tokio::test]
async fn the_column_cache_keeps_to_its_budget() {
    const BUDGET: f64 = 131_072.0;
    let (_data, server, mut client) = fixture(&["exec.column_cache_bytes=128KiB"]).await;
    let mut plain = server.client().await;
    run(&mut plain, &["SET trireme.cpu_variant = 'datafusion'"]).await;
    wait_for_metric(&server, "trireme_column_cache_limit_bytes", |bytes| bytes > 0.0).await;
    assert!((metric(&server, "trireme_column_cache_limit_bytes") - BUDGET).abs() < 1.0);
    for turn in 0..6 {
        for column in ["id", "v", "price", "name", "day", "f", "flag", "k"] {
            let sql = format!("SELECT count({column}), min({column}), max({column}) FROM facts WHERE id >= {turn}");
            let sql = if column == "flag" {
                sql.replace("min(flag), max(flag)", "bool_or(flag)")
            } else {
                sql
            };
            assert_eq!(rows(&mut client, &sql).await, rows(&mut plain, &sql).await, "{sql}");
            let held = client
                .number("SELECT coalesce(sum(bytes), 0) FROM system.columns")
                .await;
            assert!(held as f64 <= BUDGET, "{held} bytes are held");
            assert!(metric(&server, "trireme_column_cache_bytes") <= BUDGET);
        }
    }
    // All columns together are several times the budget.
    wait_for_metric(&server, "trireme_column_cache_evictions_total", |count| count > 0.0).await;
    assert!(metric(&server, "trireme_column_cache_bytes") <= BUDGET);
    assert!(
        client.number("SELECT count(*) FROM system.columns").await > 0,
        "nothing is kept"
    );
}

#[tokio::test]
async fn the_column_cache_can_be_off() {
    let (_data, server, mut client) = fixture(&["exec.column_cache=false"]).await;
    for _ in 0..3 {
        assert_fused(&mut client, "SELECT sum(k) FROM facts").await;
        assert_eq!(client.number("SELECT sum(id) FROM facts").await, 199_990_000);
        assert!(rows(&mut client, "SELECT * FROM system.columns").await.is_empty());
    }
    wait_for_metric(&server, "trireme_fragment_graphs_total", |count| count >= 3.0).await;
    assert!(metric(&server, "trireme_column_cache_bytes") < 1.0);
    assert!(metric(&server, "trireme_column_cache_hits_total") < 0.5);
}

#[tokio::test]
async fn a_changed_table_is_read_anew() {
    let (data, _server, mut client) = fixture(&[]).await;
    let sql = "SELECT count(*), sum(k), max(label) FROM dims WHERE k < 1000";
    for _ in 0..4 {
        assert_eq!(rows(&mut client, sql).await, [["90", "4005", "dim9"]]);
    }
    let before = cached(&mut client, "dims").await;
    assert_eq!(before, [["k", "90"], ["label", "90"]]);
    // Another file under the same name: as many rows, other values; then fewer rows.
    let other = "SELECT value + 100 AS k, 'new' || value AS label, 0 AS region FROM range(90)";
    replace(&mut client, data.path(), "dims.parquet", other).await;
    for _ in 0..4 {
        assert_eq!(rows(&mut client, sql).await, [["90", "13005", "new9"]]);
    }
    let fewer = "SELECT value AS k, 'few' || value AS label, 0 AS region FROM range(3)";
    replace(&mut client, data.path(), "dims.parquet", fewer).await;
    for _ in 0..4 {
        assert_eq!(rows(&mut client, sql).await, [["3", "3", "few2"]]);
    }
    assert_eq!(
        cached(&mut client, "dims").await,
        [["k", "3"], ["label", "3"]],
        "columns of replaced files go"
    );
    // Another file in a folder, and a file that goes.
    let grow = |n: u32| format!("COPY (SELECT {n} AS n FROM range(10)) TO 'grows/{n}.parquet' STORED AS PARQUET");
    for (file, total) in [(1, 10), (2, 30), (3, 60)] {
        run(&mut client, &[&grow(file)]).await;
        for _ in 0..3 {
            assert_eq!(client.number("SELECT sum(n) FROM grows WHERE n < 100").await, total);
        }
    }
    std::fs::remove_file(data.path().join("grows/2.parquet")).unwrap();
    assert_eq!(client.number("SELECT sum(n) FROM grows WHERE n < 100").await, 40);
}

#[tokio::test]
async fn changes_of_managed_tables_are_seen() {
    let (_data, _server, mut client) = fixture(&[]).await;
    run(
        &mut client,
        &["CREATE TABLE t AS SELECT value AS a, 'x' || value AS s FROM range(1000)"],
    )
    .await;
    let sql = "SELECT count(*), sum(a), max(s) FROM t WHERE a < 5000";
    assert_fused(&mut client, sql).await;
    for (change, wanted) in [
        ("SELECT 1", ["1000", "499500", "x999"]),
        ("INSERT INTO t VALUES (2000, 'y')", ["1001", "501500", "y"]),
        ("DELETE FROM t WHERE a < 500", ["501", "376750", "y"]),
        ("UPDATE t SET s = 'z' WHERE a = 999", ["501", "376750", "z"]),
        ("CREATE OR REPLACE TABLE t AS SELECT 7 AS a, 'w' AS s", ["1", "7", "w"]),
    ] {
        run(&mut client, &[change]).await;
        for turn in 0..4 {
            assert_eq!(rows(&mut client, sql).await, [wanted], "after {change}, run {turn}");
        }
    }
    run(&mut client, &["DROP TABLE t"]).await;
    let status = client.query(sql).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "a plan outlived its table: {status}");
}
