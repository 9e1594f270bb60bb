//! Fragments that the processor and a device share, from outside: the same rows, told everywhere, also when the device fails, is
//! slow or busy in the middle.

use std::time::{Duration, Instant};

use crate::client::Client;
use crate::fused::{PATIENCE, query, rows, run, sorted};
use crate::server::Server;

const SIMULATED: &str = "devices.simulated=memory=256MiB,group=32,schedule=sequential,races=off,lag=off";
/// Files of `facts`: as many segments.
const PARTS: u64 = 6;
const PART_ROWS: u64 = 500;
/// Shorter than the device is said to be busy.
const BUSY: Duration = Duration::from_secs(55);

/// What can be added up, over one table or with build sides. Sums of floats are rounded: their order is not said.
const SHARED: [&str; 8] = [
    "SELECT count(*), count(v), sum(v), min(v), max(v), sum(price), avg(price), avg(v), min(day), max(name) FROM facts",
    "SELECT k, count(*), sum(v), avg(price), min(name), max(day), round(avg(f), 6) FROM facts GROUP BY k ORDER BY k",
    "SELECT name, flag, count(*), count(v) FILTER (WHERE v > 0), round(sum(f), 3) FROM facts GROUP BY name, flag",
    "SELECT d.label, sum(f.v), count(*) FROM facts f JOIN dims d ON f.k = d.k WHERE d.region = 2 GROUP BY d.label",
    "SELECT d.region, count(*), avg(f.v) FROM facts f LEFT JOIN dims d ON f.k = d.k GROUP BY d.region",
    "SELECT count(*), sum(v) FROM facts WHERE k IN (SELECT k FROM dims WHERE region = 1) AND v > 0",
    "SELECT count(*), sum(v), avg(v), min(name) FROM facts WHERE id < 0",
    "SELECT k, avg(CASE WHEN id < 0 THEN v END), bool_or(flag) FROM facts WHERE id BETWEEN 400 AND 2200 GROUP BY k",
];

async fn fixture(further: &[&str]) -> (tempfile::TempDir, Server, Client) {
    let data = tempfile::tempdir().unwrap();
    std::fs::create_dir(data.path().join("facts")).unwrap();
    let settings = [
        SIMULATED,
        "devices.rows_min=0",
        "exec.allow_inject=true",
        // What is known of tables stays the same from run to run.
        "statistics.sketch_on_use=false",
    ];
    let args: Vec<_> = settings
        .iter()
        .chain(further)
        .flat_map(|setting| ["--set", setting])
        .collect();
    let server = Server::start_with(data.path(), &args);
    let mut client = server.client().await;
    for part in 0..PARTS {
        let (from, to) = (part * PART_ROWS, (part + 1) * PART_ROWS);
        let sql = format!(
            "COPY (SELECT value AS id, value % 97 AS k, CASE WHEN value % 11 <> 0 THEN value * 7919 % 1000 - 500 END AS v, \
             CAST(value * 1.25 AS DECIMAL(15, 2)) AS price, \
             CASE WHEN value % 7 <> 0 THEN 'name' || (value % 13) END AS name, \
             DATE '2024-01-01' + CAST(value % 400 AS INT) AS day, value * 0.5 AS f, value % 3 = 0 AS flag, \
             CASE {part} WHEN 0 THEN 18000000000000000 WHEN 1 THEN 10000000000000000 WHEN 4 THEN -18000000000000000 \
             WHEN 5 THEN -10000000000000000 ELSE 0 END AS large \
             FROM range({from}, {to})) TO 'facts/part{part}.parquet' STORED AS PARQUET"
        );
        query(&mut client, &sql).await;
    }
    let dims = "COPY (SELECT value AS k, 'dim' || value AS label, value % 5 AS region FROM range(90)) \
                TO 'dims.parquet' STORED AS PARQUET";
    let settings = [
        dims,
        "SET trireme.cpu_variant = 'fused'",
        "SET trireme.devices = 'sim0'",
        "SET trireme.plan_cache = false",
        "SET trireme.co_execution = 'always'",
    ];
    run(&mut client, &settings).await;
    (data, server, client)
}

async fn right(client: &mut Client, sql: &str) -> Vec<Vec<String>> {
    run(client, &["SET trireme.devices = 'cpu0'"]).await;
    let wanted = sorted(&query(client, sql).await);
    run(client, &["SET trireme.devices = 'sim0'"]).await;
    wanted
}

/// What `system.fragments` says of the latest query's shared fragment: rows of the device, of both, why it left.
async fn shared(client: &mut Client) -> Option<(u64, u64, String)> {
    let latest = "SELECT coalesce(shared_rows, 0), coalesce(input_rows, 0), coalesce(left_because, '') \
                  FROM system.fragments WHERE shared_with = 'sim0' AND device = 'cpu0' \
                  AND run = (SELECT max(run) FROM system.fragments)";
    let row = rows(client, latest).await.pop()?;
    Some((row[0].parse().unwrap(), row[1].parse().unwrap(), row[2].clone()))
}

/// Runs a query until its kernels are compiled and a device shared it as wanted; its rows are these every time.
async fn until(
    client: &mut Client,
    sql: &str,
    wanted: &[Vec<String>],
    enough: impl Fn(u64, u64, &str) -> bool,
) -> (u64, u64, String) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert_eq!(sorted(&query(client, sql).await), wanted, "{sql}");
        let last = shared(client).await;
        if let Some((there, all, left)) = &last
            && enough(*there, *all, left)
        {
            return (*there, *all, left.clone());
        }
        assert!(Instant::now() < deadline, "it was never shared: {sql}: {last:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_shared_fragment_has_the_same_rows() {
    let (_data, _server, mut client) = fixture(&[]).await;
    for sql in SHARED {
        let wanted = right(&mut client, sql).await;
        // Of a scan without rows there is nothing to share.
        let nothing = sql.ends_with("WHERE id < 0");
        let is_shared = |there, _, left: &str| (there > 0 && left.is_empty()) || nothing;
        let (there, all, _) = until(&mut client, sql, &wanted, is_shared).await;
        let enough = there >= PART_ROWS || nothing;
        assert!(enough && all <= PARTS * PART_ROWS, "{there} of {all}: {sql}");
    }
}

/// One segment of three morsels: a device takes the last one, of few rows, as slices of columns of every kind.
#[tokio::test]
async fn parts_of_a_segment_are_shared() {
    let (data, _server, mut client) = fixture(&[]).await;
    let facts = "COPY (SELECT value AS id, value % 7 AS k, CASE WHEN value % 11 <> 0 THEN value * 7919 % 1000 - 500 END AS v, \
                 CAST(value * 1.25 AS DECIMAL(25, 2)) AS price, CASE WHEN value % 7 <> 0 THEN 'name' || (value % 13) END AS name, \
                 CASE WHEN value % 5 <> 0 THEN 'row' || value END AS text, DATE '2024-01-01' + CAST(value % 400 AS INT) AS day, \
                 value * 0.5 AS f, CASE WHEN value % 9 <> 0 THEN value % 3 = 0 END AS flag FROM range(70000)) \
                 TO 'facts/all.parquet' STORED AS PARQUET";
    for part in 0..PARTS {
        std::fs::remove_file(data.path().join(format!("facts/part{part}.parquet"))).unwrap();
    }
    run(&mut client, &[facts]).await;
    for sql in [
        "SELECT k, count(*), sum(v), min(price), avg(price), max(f), min(day), count(flag) FROM facts GROUP BY k",
        "SELECT flag, name, count(*), max(id), count(text), min(v) FROM facts WHERE v > -400 OR v IS NULL GROUP BY flag, name",
        "SELECT count(*), max(id), min(length(text)), count(text) FROM facts WHERE text LIKE '%7%' OR text IS NULL",
    ] {
        let wanted = right(&mut client, sql).await;
        let (there, all, _) = until(&mut client, sql, &wanted, |there, _, left| there > 0 && left.is_empty()).await;
        assert!(there < 70_000 && all == 70_000, "{there} of {all}: {sql}");
    }
}

#[tokio::test]
async fn what_is_shared_is_shown() {
    let (_data, _server, mut client) = fixture(&[]).await;
    let sql = SHARED[3];
    let wanted = right(&mut client, sql).await;
    until(&mut client, sql, &wanted, |there, _, _| there > 0).await;
    let plan = rows(&mut client, &format!("EXPLAIN ANALYZE {sql}")).await;
    assert!(plan[0][1].contains("shared_with_sim0_rows="), "{plan:?}");
    for (format, part) in [
        ("text", "shared with sim0"),
        ("json", "\"shared\": {"),
        ("mermaid", "cpu0 + sim0"),
    ] {
        let answer = rows(&mut client, &format!("EXPLAIN (PLACEMENT, FORMAT {format}) {sql}")).await;
        let text = answer.concat().join("\n");
        assert!(text.contains(part), "no {part} in {text}");
    }
    let table = rows(&mut client, &format!("EXPLAIN (PLACEMENT) {sql}")).await;
    assert!(table.concat().iter().any(|cell| cell == "shared"), "{table:?}");
}

#[tokio::test]
async fn what_a_device_leaves_the_processor_runs() {
    let (_data, _server, mut client) = fixture(&[]).await;
    for (fault, says) in [
        ("lost@sim0:morsel1", "lost"),
        ("lost@sim0:morsel3", "lost"),
        ("oom@sim0:morsel2", "no memory"),
        ("lost@sim0:0.01ms", "lost"),
        ("busy@sim0:60000", "busy"),
        ("slow@sim0:1000", "took longer"),
    ] {
        for sql in [SHARED[1], SHARED[3]] {
            let wanted = right(&mut client, sql).await;
            run(&mut client, &[&format!("SET trireme.inject = '{fault}'")]).await;
            // Whole fragments may be moved in the same runs.
            let told = "SELECT moves FROM system.resteers WHERE moved AND trigger LIKE '%sim0 left fragment%' ORDER BY at DESC";
            let before = rows(&mut client, told).await.len();
            let begin = Instant::now();
            until(&mut client, sql, &wanted, |_, _, left| left.contains(says)).await;
            assert!(begin.elapsed() < BUSY, "it waited: {fault}");
            let told = rows(&mut client, told).await;
            assert!(told.len() > before, "{fault}: {told:?}");
            assert!(told[0][0].contains("cpu0 + sim0 → cpu0"), "{fault}: {told:?}");
            run(&mut client, &["SET trireme.inject = ''"]).await;
        }
    }
}

#[tokio::test]
async fn parts_that_overflow_are_no_error_of_the_whole() {
    let (_data, _server, mut client) = fixture(&[]).await;
    // 500 times 28e15 is more than a BIGINT holds; all together are nothing.
    let sql = "SELECT sum(large), count(*) FROM facts";
    for _ in 0..20 {
        assert_eq!(rows(&mut client, sql).await, [["0", "3000"]]);
    }
    let error = client
        .query("SELECT sum(large) FROM facts WHERE large >= 0")
        .await
        .expect_err("more than a BIGINT holds");
    assert!(error.message().contains("overflow"), "{error}");
}

#[tokio::test]
async fn sharing_is_switched_off_by_sessions_and_by_the_server() {
    let (_data, _server, mut client) = fixture(&[]).await;
    let sql = SHARED[0];
    let wanted = right(&mut client, sql).await;
    until(&mut client, sql, &wanted, |there, _, _| there > 0).await;
    let count = "SELECT count(*) FROM system.fragments WHERE shared_with IS NOT NULL";
    let before = rows(&mut client, count).await;
    for off in ["off", "auto"] {
        // Nothing of this size is expected to gain.
        run(&mut client, &[&format!("SET trireme.co_execution = '{off}'")]).await;
        assert_eq!(sorted(&query(&mut client, sql).await), wanted);
        assert_eq!(rows(&mut client, count).await, before, "{off}");
    }
    let (_data, _server, mut client) = fixture(&["costs.co_execution=false"]).await;
    for _ in 0..10 {
        assert_eq!(sorted(&query(&mut client, sql).await), wanted);
    }
    assert_eq!(rows(&mut client, count).await, [["0"]]);
}
