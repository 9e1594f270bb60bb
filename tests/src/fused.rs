//! Fused pipelines from outside: the same answers as DataFusion's operators, what EXPLAIN and the system tables say of them,
//! the column cache and the plan cache with their switches, and what happens to a query that runs out of memory or is cancelled.

mod columns;
mod functions;
mod joins;
mod plans;
mod statistics;
mod tpcds;

use std::path::Path;
use std::time::{Duration, Instant};

use tonic::Code;

use crate::client::{Answer, Client};
use crate::flight::answers;
use crate::results::{amid, query_id, wait_for_state};
use crate::server::Server;

/// What another thread or process does is waited for so long: on a busy machine each may stand still for seconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Every kind of column, with NULLs, repeats and gaps; some keys of `facts` are not among those of `dims`.
pub(crate) const TABLES: [&str; 3] = [
    "COPY (SELECT value AS id, value % 97 AS k, CASE WHEN value % 11 <> 0 THEN value * 7919 % 1000 - 500 END AS v, \
     CAST(value * 1.25 AS DECIMAL(15, 2)) AS price, CASE WHEN value % 7 <> 0 THEN 'name' || (value % 13) END AS name, \
     DATE '2024-01-01' + CAST(value % 400 AS INT) AS day, value * 0.5 AS f, value % 3 = 0 AS flag, 1 AS one \
     FROM range(20000)) TO 'facts.parquet' STORED AS PARQUET",
    "COPY (SELECT value AS k, 'dim' || value AS label, value % 5 AS region FROM range(90)) TO 'dims.parquet' STORED AS PARQUET",
    "COPY (SELECT value AS id FROM range(0)) TO 'nothing.parquet' STORED AS PARQUET",
];

/// Fused as a whole, and answered the same by both variants; what comes in no order is sorted here.
pub(crate) const AGREEING: [&str; 32] = [
    "SELECT count(*), count(v), sum(v), min(v), max(v), sum(price), avg(price), min(day), max(name) FROM facts",
    "SELECT k, count(*), sum(v), avg(price), min(name), max(day) FROM facts GROUP BY k ORDER BY k",
    "SELECT name, flag, count(*), sum(f) FROM facts WHERE id < 15000 GROUP BY name, flag ORDER BY name, flag",
    "SELECT count(*) FROM facts WHERE v > 0 AND (name LIKE 'name1%' OR name IS NULL) AND day BETWEEN DATE '2024-02-01' AND DATE '2024-12-31'",
    "SELECT count(*) FROM facts WHERE NOT (v IN (1, 2, 3, NULL))",
    "SELECT id, v FROM facts WHERE v IS NOT NULL AND id % 1000 = 7 ORDER BY v DESC, id LIMIT 5",
    "SELECT id, name FROM facts ORDER BY name DESC NULLS LAST, id LIMIT 12 OFFSET 3",
    "SELECT CASE WHEN v > 100 THEN 'high' WHEN v < -100 THEN 'low' ELSE 'middle' END AS band, count(*) FROM facts GROUP BY band ORDER BY band",
    "SELECT extract(month FROM day) AS m, sum(price * (1 - f / 100000)) FROM facts WHERE id < 8 GROUP BY m",
    "SELECT d.label, sum(f.v), count(*) FROM facts f JOIN dims d ON f.k = d.k WHERE d.region = 2 GROUP BY d.label ORDER BY d.label",
    "SELECT d.region, count(*) FROM facts f LEFT JOIN dims d ON f.k = d.k GROUP BY d.region ORDER BY d.region",
    "SELECT count(*), count(f.id) FROM (SELECT * FROM facts WHERE id < 40) f FULL JOIN dims d ON f.id = d.k + 20",
    "SELECT d.k, d.label FROM dims d WHERE NOT EXISTS (SELECT 1 FROM facts f WHERE f.k = d.k AND f.v > 498) ORDER BY d.k",
    "SELECT count(*) FROM dims WHERE k IN (SELECT v FROM facts WHERE v > 0)",
    "SELECT count(*) FROM dims WHERE k NOT IN (SELECT v FROM facts)",
    "SELECT count(*) FROM facts WHERE v > (SELECT avg(v) FROM facts)",
    "SELECT count(*) FROM facts f JOIN dims d ON f.k = d.k AND f.v > d.region * 100",
    "SELECT count(DISTINCT name), count(DISTINCT v) FROM facts",
    "SELECT DISTINCT flag, v % 3 FROM facts ORDER BY 1, 2",
    "SELECT k, sum(v) AS s FROM facts GROUP BY k HAVING sum(v) > 0 ORDER BY s DESC, k LIMIT 10",
    "SELECT k, count(*) FILTER (WHERE flag), sum(v) FILTER (WHERE v > 0) FROM facts GROUP BY k ORDER BY k",
    "SELECT coalesce(name, 'none') AS n, nullif(k, 5) AS m, count(*) FROM facts WHERE k < 10 GROUP BY n, m ORDER BY n, m",
    "SELECT CAST(price AS BIGINT) AS p, count(*) FROM facts WHERE id < 100 GROUP BY p ORDER BY p",
    "WITH t AS (SELECT k, sum(v) AS s FROM facts GROUP BY k) SELECT count(*) FROM t a JOIN t b ON a.k = b.k + 1 WHERE a.s > b.s",
    "SELECT count(*), sum(id), max(id) FROM nothing",
    "SELECT id, count(*) FROM nothing GROUP BY id",
    "SELECT k, name, count(*), count(v), sum(v), avg(v), avg(price), max(day), grouping(k) FROM facts GROUP BY ROLLUP (k, name)",
    "SELECT flag, name, count(DISTINCT k), stddev(v) FROM facts WHERE id < 500 GROUP BY CUBE (flag, name)",
    "SELECT region, d.label, sum(f.price) FROM facts f JOIN dims d ON f.k = d.k GROUP BY GROUPING SETS ((region), (d.label), (region))",
    "SELECT id, count(*), count(DISTINCT id), sum(id) FROM nothing GROUP BY ROLLUP (id)",
    "SELECT id, count(*), min(id) FROM nothing GROUP BY GROUPING SETS ((), (id), ())",
    "SELECT count(*) FROM facts WHERE k = (SELECT DISTINCT region FROM dims WHERE k IN (7, 12)) AND v > (SELECT k FROM dims WHERE k = 3)",
];

async fn fixture(settings: &[&str]) -> (tempfile::TempDir, Server, Client) {
    let data = tempfile::tempdir().unwrap();
    let args: Vec<_> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let server = Server::start_with(data.path(), &args);
    let mut client = server.client().await;
    run(&mut client, &TABLES).await;
    run(&mut client, &["SET trireme.cpu_variant = 'fused'"]).await;
    (data, server, client)
}

pub(crate) async fn query(client: &mut Client, sql: &str) -> Answer {
    let answer = client.query(sql).await;
    answer.unwrap_or_else(|status| panic!("{sql}: {status}"))
}

pub(crate) async fn run(client: &mut Client, statements: &[&str]) {
    for sql in statements {
        query(client, sql).await;
    }
}

pub(crate) async fn rows(client: &mut Client, sql: &str) -> Vec<Vec<String>> {
    query(client, sql).await.rows()
}

/// The physical plan as text.
async fn explain(client: &mut Client, sql: &str) -> String {
    let rows = rows(client, &format!("EXPLAIN {sql}")).await;
    let physical = rows.into_iter().find(|row| row[0] == "physical_plan");
    physical.expect("a physical plan").swap_remove(1)
}

/// Fails if `sql` is not fused as a whole.
async fn assert_fused(client: &mut Client, sql: &str) {
    let plan = explain(client, sql).await;
    assert!(plan.starts_with("FragmentExec: cpu0/fused"), "{sql}:\n{plan}");
}

/// Replaces a file by another at once, as a writer should.
async fn replace(client: &mut Client, data: &Path, file: &str, sql: &str) {
    let copy = format!("COPY ({sql}) TO 'replacement.parquet' STORED AS PARQUET");
    run(client, &[&copy]).await;
    std::fs::rename(data.join("replacement.parquet"), data.join(file)).unwrap();
}

/// A metric without labels.
pub(crate) fn metric(server: &Server, name: &str) -> f64 {
    let (_, text) = server.get("/metrics").expect("metrics");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no metric {name}")).parse().unwrap()
}

/// Waits until a metric is as wanted: the engine's counts reach them once a second.
pub(crate) async fn wait_for_metric(server: &Server, name: &str, wanted: impl Fn(f64) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let value = metric(server, name);
        if wanted(value) {
            return;
        }
        assert!(Instant::now() < deadline, "{name} stays {value}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub(crate) fn sorted(answer: &Answer) -> Vec<Vec<String>> {
    let mut rows = answer.rows();
    rows.sort();
    rows
}

#[tokio::test]
async fn both_variants_give_the_same_answers() {
    let (_data, server, mut fused) = fixture(&[]).await;
    let mut plain = server.client().await;
    run(&mut plain, &["SET trireme.cpu_variant = 'datafusion'"]).await;
    let mut automatic = server.client().await;
    for sql in AGREEING {
        assert_fused(&mut fused, sql).await;
        let wanted = query(&mut plain, sql).await;
        // Three times: planned, learnt, from the plan cache.
        for turn in 0..3 {
            let found = query(&mut fused, sql).await;
            assert_eq!(found.schema, wanted.schema, "{sql}");
            if sql.contains("ORDER BY") {
                assert_eq!(found.rows(), wanted.rows(), "{sql} (run {turn})");
            } else {
                assert_eq!(sorted(&found), sorted(&wanted), "{sql} (run {turn})");
            }
        }
        assert_eq!(
            sorted(&query(&mut automatic, sql).await),
            sorted(&wanted),
            "{sql}, auto"
        );
    }
    wait_for_metric(&server, "trireme_fragment_graphs_total", |count| {
        count >= 4.0 * AGREEING.len() as f64
    })
    .await;
    assert!(
        metric(&server, "trireme_fragment_fallbacks_total") < 0.5,
        "something fell back"
    );
}

#[tokio::test]
async fn errors_are_the_same_and_no_reason_to_fall_back() {
    let (_data, server, mut fused) = fixture(&[]).await;
    let mut plain = server.client().await;
    run(&mut plain, &["SET trireme.cpu_variant = 'datafusion'"]).await;
    for (sql, word) in [
        ("SELECT sum(10 / (id - 5)) FROM facts", "division by zero"),
        ("SELECT sum(9223372036854775807 - 5 + id) FROM facts", "overflow"),
        ("SELECT max(CAST(name AS BIGINT)) FROM facts", "name"),
        (
            "SELECT count(*) FROM facts WHERE v > (SELECT k FROM dims)",
            "more than one row",
        ),
    ] {
        assert_fused(&mut fused, sql).await;
        let found = fused.query(sql).await.expect_err(sql);
        let wanted = plain.query(sql).await.expect_err(sql);
        assert_eq!(
            (found.code(), wanted.code()),
            (Code::InvalidArgument, Code::InvalidArgument),
            "{found} / {wanted}"
        );
        assert!(found.message().to_lowercase().contains(word), "{sql}: {found}");
    }
    wait_for_metric(&server, "trireme_fragment_graphs_total", |count| count >= 4.0).await;
    assert!(
        metric(&server, "trireme_fragment_fallbacks_total") < 0.5,
        "an error of the data fell back"
    );
}

#[tokio::test]
async fn explain_shows_fragments_and_the_reasons_of_the_rest() {
    let (_data, _server, mut client) = fixture(&[]).await;
    let sql = "SELECT k, count(*) FROM facts WHERE v > 0 GROUP BY k ORDER BY k";
    let plan = explain(&mut client, sql).await;
    assert!(plan.starts_with("FragmentExec: cpu0/fused"), "{plan}");
    for part in ["scan facts", "filter", "aggregate by k", "sort"] {
        assert!(plan.contains(part), "no {part:?} in {plan}");
    }
    // A window stays DataFusion's, with its reason; what is below it is fused.
    let window = "SELECT id, row_number() OVER (PARTITION BY k ORDER BY id) AS n FROM facts WHERE id < 50";
    let plan = explain(&mut client, window).await;
    assert!(plan.starts_with("UnfusedExec: ") && plan.contains("Window"), "{plan}");
    assert!(plan.contains("FragmentExec: cpu0/fused"), "{plan}");
    assert_eq!(rows(&mut client, window).await.len(), 50);
    let analyzed = rows(&mut client, &format!("EXPLAIN ANALYZE {sql}")).await;
    assert!(analyzed[0][1].contains("fallbacks=0"), "{analyzed:?}");
    // Without a table's files, `auto` leaves a query to DataFusion; `fused` doesn't.
    let made = "SELECT value % 3 AS m, count(*) FROM range(100) GROUP BY m ORDER BY m";
    assert!(explain(&mut client, made).await.contains("FragmentExec"));
    run(&mut client, &["RESET trireme.cpu_variant"]).await;
    assert!(!explain(&mut client, made).await.contains("FragmentExec"));
    assert_fused(&mut client, sql).await;
    // And the ways to have none.
    for (setting, value) in [("trireme.cpu_variant", "datafusion"), ("trireme.device_mode", "off")] {
        run(&mut client, &[&format!("SET {setting} = '{value}'")]).await;
        let plan = explain(&mut client, sql).await;
        assert!(
            !plan.contains("FragmentExec") && !plan.contains("UnfusedExec"),
            "{setting}: {plan}"
        );
        run(&mut client, &[&format!("RESET {setting}")]).await;
    }
}

#[tokio::test]
async fn settings_are_checked() {
    let (_data, _server, mut client) = fixture(&[]).await;
    for (name, value, words) in [
        ("trireme.cpu_variant", "gpu", "allowed: auto, datafusion, fused"),
        ("trireme.device_mode", "always", "allowed: auto, off, require"),
        ("trireme.plan_cache", "maybe", "trireme.plan_cache"),
    ] {
        let before = rows(&mut client, &format!("SHOW {name}")).await;
        let status = client.query(&format!("SET {name} = '{value}'")).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(
            status.message().contains(name) && status.message().contains(value),
            "{status}"
        );
        assert!(status.message().contains(words), "{status}");
        assert_eq!(
            rows(&mut client, &format!("SHOW {name}")).await,
            before,
            "a refused value has no effect"
        );
    }
    for (name, value) in [
        ("trireme.cpu_variant", "auto"),
        ("trireme.device_mode", "require"),
        ("trireme.device_mode", "off"),
        ("trireme.plan_cache", "false"),
    ] {
        run(&mut client, &[&format!("SET {name} = '{value}'")]).await;
        assert_eq!(rows(&mut client, &format!("SHOW {name}")).await[0][1], value);
        run(&mut client, &[&format!("RESET {name}")]).await;
    }
}

/// Needs some hundred bytes for each of 200 000 groups.
const LARGE: &str = "SELECT count(*) AS n, sum(c) AS c, max(m) AS m FROM \
     (SELECT a, count(*) AS c, max(b) AS m FROM large GROUP BY a) AS g";

#[tokio::test]
async fn a_query_beyond_its_memory_falls_back_or_fails_alone() {
    let (_data, server, mut client) = fixture(&["exec.query_memory_bytes=6MiB"]).await;
    let large = "COPY (SELECT value * 7919 % 200000 * 1000003 AS a, 'text number ' || value AS b FROM range(400000)) \
                 TO 'large.parquet' STORED AS PARQUET";
    run(&mut client, &[large]).await;
    assert_fused(&mut client, LARGE).await;
    match client.query(LARGE).await {
        Ok(answer) => assert_eq!(answer.rows(), [["200000", "400000", "text number 99999"]]),
        Err(status) => exhausted(&status),
    }
    wait_for_metric(&server, "trireme_fragment_fallbacks_total", |count| count >= 1.0).await;
    // Others go on, and nothing stays reserved.
    assert_eq!(client.number("SELECT sum(id) FROM facts").await, 199_990_000);
    wait_for_metric(&server, "trireme_memory_reserved_bytes", |bytes| bytes < 1.0).await;
    // Without the way back, it fails for what it is.
    run(&mut client, &["SET trireme.device_mode = 'require'"]).await;
    let fallbacks = metric(&server, "trireme_fragment_fallbacks_total");
    exhausted(&client.query(LARGE).await.expect_err("6 MiB are not enough"));
    assert_eq!(client.number("SELECT sum(id) FROM facts").await, 199_990_000);
    wait_for_metric(&server, "trireme_memory_reserved_bytes", |bytes| bytes < 1.0).await;
    assert!(
        (metric(&server, "trireme_fragment_fallbacks_total") - fallbacks).abs() < 0.5,
        "require does not fall back"
    );
    answers(&server).await;
}

/// The error names the setting that would help.
#[track_caller]
fn exhausted(status: &tonic::Status) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(
        status.message().contains("memory") && status.message().contains("exec."),
        "{status}"
    );
}

const WIDE: &str = "COPY (SELECT value AS id, 1 AS one FROM range(100000)) TO 'wide.parquet' STORED AS PARQUET";

/// Every row meets every row: 10¹⁰ pairs, and 2 · 10⁸ for each tile of the probe side.
const ENDLESS: &str = "SELECT count(*) FROM wide a JOIN wide b ON a.one = b.one WHERE a.id * b.id % 7 = 3";

#[tokio::test]
async fn a_cancelled_query_frees_the_workers() {
    let (_data, server, mut client) = fixture(&["exec.target_partitions=2"]).await;
    run(&mut client, &[WIDE]).await;
    let mut observer = server.client().await;
    assert_fused(&mut client, ENDLESS).await;
    let info = client.statement(ENDLESS).await.unwrap();
    let id = query_id(&info);
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    tokio::select! {
        _ = client.fetch(ticket) => panic!("too quick to be cancelled"),
        () = amid(&mut observer, &id) => {}
    }
    wait_for_state(&mut observer, &id, "Cancelled").await;
    // Others are answered, and nothing goes on computing.
    run(&mut client, &["SET trireme.statement_timeout_ms = 60000"]).await;
    assert_eq!(client.number("SELECT sum(id) FROM facts").await, 199_990_000);
    wait_for_metric(&server, "trireme_memory_reserved_bytes", |bytes| bytes < 1.0).await;
    // The metric may be a second old, and a worker ends the tile that it is in.
    for _ in 0..4 {
        let Some(before) = cpu_ticks(&server) else { return };
        tokio::time::sleep(Duration::from_secs(1)).await;
        if cpu_ticks(&server).unwrap() - before < 30 {
            return;
        }
    }
    panic!("there is work after the cancel");
}

#[tokio::test]
async fn a_timeout_ends_a_fused_query() {
    let (_data, server, mut client) = fixture(&[]).await;
    run(&mut client, &[WIDE, "SET trireme.statement_timeout_ms = 300"]).await;
    let status = tokio::time::timeout(PATIENCE, client.query(ENDLESS)).await;
    let status = status.expect("it ends").expect_err("it is cut short");
    assert!(status.message().contains("timeout"), "{status}");
    wait_for_metric(&server, "trireme_memory_reserved_bytes", |bytes| bytes < 1.0).await;
    run(&mut client, &["SET trireme.statement_timeout_ms = 60000"]).await;
    assert_eq!(client.number("SELECT sum(id) FROM facts").await, 199_990_000);
}

/// CPU time of the server's process so far in hundredths of a second, where the system shows it.
fn cpu_ticks(server: &Server) -> Option<u64> {
    let address = server.flight.to_string();
    let process = std::fs::read_dir("/proc").ok()?.flatten().find(|entry| {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        command.split(|byte| *byte == 0).any(|word| word == address.as_bytes())
    })?;
    let stat = std::fs::read_to_string(process.path().join("stat")).ok()?;
    // Behind the name, which may have blanks, utime and stime are the 12th and 13th.
    let fields: Vec<_> = stat.rsplit(')').next()?.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}
