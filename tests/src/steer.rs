//! Running queries that are steered, from outside: planted faults and mis-estimates give the same rows, are told, and are only
//! for those who may plant them.

use std::time::{Duration, Instant};

use tonic::Code;

use crate::client::Client;
use crate::fused::{PATIENCE, TABLES, metric, query, rows, run, sorted, wait_for_metric};
use crate::server::Server;

const SIMULATED: &str = "devices.simulated=memory=256MiB,group=32,schedule=sequential,races=off,lag=off";
const SQL: &str = "SELECT d.label, sum(f.v), count(*) FROM facts f JOIN dims d ON f.k = d.k WHERE d.region = 2 \
                   GROUP BY d.label ORDER BY d.label";
/// Groups that are grouped again: its parts read one another's rows.
const TWICE: &str = "SELECT n, count(*), sum(s) FROM (SELECT k, count(*) AS n, sum(v) AS s FROM facts GROUP BY k) t GROUP BY n ORDER BY n";

async fn fixture(placement: &str) -> (tempfile::TempDir, Server, Client) {
    let data = tempfile::tempdir().unwrap();
    let settings = [
        SIMULATED,
        "devices.rows_min=0",
        "exec.allow_inject=true",
        // What is known of tables stays the same from run to run.
        "statistics.sketch_on_use=false",
        // What a first run teaches of so small fragments may leave nothing to move.
        "costs.learn=false",
    ];
    let args: Vec<_> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let server = Server::start_with(data.path(), &args);
    let mut client = server.client().await;
    for sql in TABLES {
        run(&mut client, &[&sql.replace("range(20000)", "range(3000)")]).await;
    }
    let placement = format!("SET trireme.placement = '{placement}'");
    let settings = [
        "SET trireme.cpu_variant = 'fused'",
        "SET trireme.devices = 'sim0'",
        "SET trireme.plan_cache = false",
        placement.as_str(),
    ];
    run(&mut client, &settings).await;
    (data, server, client)
}

/// Runs a query until its kernels are compiled and it was steered; its rows are these every time.
async fn until_steered(client: &mut Client, sql: &str, wanted: &[Vec<String>]) -> Vec<String> {
    let count = "SELECT count(*) FROM system.resteers WHERE moved";
    let before = rows(client, count).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert_eq!(sorted(&query(client, sql).await), wanted, "{sql}");
        if rows(client, count).await != before {
            let latest =
                "SELECT trigger, moves, after, fallback FROM system.resteers WHERE moved ORDER BY at DESC LIMIT 1";
            return rows(client, latest).await.remove(0);
        }
        assert!(Instant::now() < deadline, "it was never steered: {sql}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn right(client: &mut Client, sql: &str) -> Vec<Vec<String>> {
    run(client, &["SET trireme.devices = 'cpu0'"]).await;
    let wanted = sorted(&query(client, sql).await);
    run(client, &["SET trireme.devices = 'sim0'"]).await;
    wanted
}

#[tokio::test]
async fn what_fails_on_a_device_runs_again_on_the_processor() {
    let (_data, server, mut client) = fixture("rule").await;
    for (fault, says) in [
        ("lost@sim0:morsel3", "lost"),
        ("oom@sim0:fragment1", "no memory"),
        ("lost@sim0:0.01ms", "lost"),
        ("oom@sim0", "no memory"),
    ] {
        for sql in [SQL, TWICE] {
            let wanted = right(&mut client, sql).await;
            run(&mut client, &[&format!("SET trireme.inject = '{fault}'")]).await;
            let told = until_steered(&mut client, sql, &wanted).await;
            assert!(told[0].contains("sim0") || told[0].contains("device"), "{told:?}");
            assert!(told[1].contains("sim0 → cpu0"), "{told:?}");
            assert!(!told[2].contains("sim0") && told[3].contains(says), "{told:?}");
        }
    }
    let fragments = "SELECT DISTINCT device FROM system.fragments WHERE run = (SELECT max(run) FROM system.fragments \
                     WHERE text LIKE 'fragment _: scan facts%') AND fallback LIKE '%no memory%'";
    assert_eq!(rows(&mut client, fragments).await, [["cpu0"]]);
    // The device itself takes work: only these graphs lost it.
    let state = rows(&mut client, "SELECT state FROM system.devices WHERE device = 'sim0'").await;
    assert_eq!(state, [["ready"]]);
    wait_for_metric(&server, "trireme_fragment_resteers_total", |count| count >= 8.0).await;
}

#[tokio::test]
async fn the_history_of_decisions_is_shown() {
    let (_data, _server, mut client) = fixture("rule").await;
    run(&mut client, &["SET trireme.inject = 'lost@sim0:morsel2'"]).await;
    let wanted = right(&mut client, SQL).await;
    until_steered(&mut client, SQL, &wanted).await;
    let plan = rows(&mut client, &format!("EXPLAIN ANALYZE {SQL}")).await;
    for part in [
        "fallbacks=1",
        "fallback (",
        "resteers=1",
        "resteer (after",
        "sim0 → cpu0",
    ] {
        assert!(plan[0][1].contains(part), "no {part} in {plan:?}");
    }
    for (format, part) in [
        ("text", "re-steered: after"),
        ("json", "\"resteers\""),
        ("mermaid", "r0[/"),
    ] {
        let answer = rows(
            &mut client,
            &format!("EXPLAIN (ANALYZE, PLACEMENT, FORMAT {format}) {SQL}"),
        )
        .await;
        let text = answer.concat().join("\n");
        assert!(
            text.contains(part) && text.contains("sim0 is lost") | text.contains("sim0 failed"),
            "{text}"
        );
        if format == "json" {
            let document: serde_json::Value = serde_json::from_str(&text).unwrap();
            let moved = &document[0]["resteers"][0];
            assert_eq!(moved["moved"], true, "{moved}");
            assert_eq!(moved["after"][0], "cpu0", "{moved}");
        }
    }
}

#[tokio::test]
async fn a_planted_mistake_is_found_out() {
    let (_data, _server, mut client) = fixture("cost").await;
    // So many groups would be worth a device; there are few, which is known once they are counted.
    run(&mut client, &["SET trireme.inject = 'rows@fragment0:20000'"]).await;
    let wanted = right(&mut client, TWICE).await;
    let told = "SELECT DISTINCT trigger FROM system.resteers";
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert_eq!(sorted(&query(&mut client, TWICE).await), wanted);
        let told = rows(&mut client, told).await;
        if let Some(told) = told.first() {
            assert!(told[0].contains("fragment 0 left"), "{told:?}");
            return;
        }
        assert!(Instant::now() < deadline, "nothing was found out");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn wrong_rows_alone_move_what_has_not_started() {
    let (_data, _server, mut client) = fixture("cost").await;
    // Two columns' distance is for the processor to compute. So few groups as planted aren't worth a device; there are many.
    let sql = "SELECT n, count(*), sum(s) FROM (SELECT id, count(*) AS n, \
               sum(levenshtein(CAST(v AS VARCHAR), CAST(id AS VARCHAR))) AS s FROM many GROUP BY id) t GROUP BY n ORDER BY n";
    let many = "COPY (SELECT value AS id, value % 1000 AS v FROM range(100000)) TO 'many.parquet' STORED AS PARQUET";
    run(&mut client, &[many]).await;
    let wanted = right(&mut client, sql).await;
    run(&mut client, &["SET trireme.inject = 'rows@fragment0:0.0001'"]).await;
    let told = until_steered(&mut client, sql, &wanted).await;
    assert!(
        told[0].contains("fragment 0 left 10000.0 × the rows expected"),
        "{told:?}"
    );
    assert_eq!(told[1], "1 cpu0 → sim0", "{told:?}");
    let gain = "SELECT go_ms < stay_ms, fallback IS NULL FROM system.resteers WHERE moved ORDER BY at DESC LIMIT 1";
    assert_eq!(rows(&mut client, gain).await, [["true", "true"]]);
}

#[tokio::test]
async fn a_busy_device_is_left_before_it_is_waited_for() {
    let (_data, _server, mut client) = fixture("cost").await;
    let wanted = right(&mut client, TWICE).await;
    let planted = "SET trireme.inject = 'rows@fragment0:20000, busy@sim0:60000'";
    run(&mut client, &[planted]).await;
    let begin = Instant::now();
    let told = until_steered(&mut client, TWICE, &wanted).await;
    assert!(begin.elapsed() < Duration::from_secs(55), "it waited");
    assert!(
        told[0].contains("sim0 is busy") && told[1].contains("sim0 → cpu0"),
        "{told:?}"
    );
}

#[tokio::test]
async fn without_steering_the_whole_runs_again() {
    let (_data, server, mut client) = fixture("rule").await;
    run(
        &mut client,
        &[
            "SET trireme.resteer = false",
            "SET trireme.inject = 'lost@sim0:morsel2'",
        ],
    )
    .await;
    let wanted = right(&mut client, SQL).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert_eq!(sorted(&query(&mut client, SQL).await), wanted);
        if metric(&server, "trireme_fragment_fallbacks_total") > 0.5 {
            break;
        }
        assert!(Instant::now() < deadline, "nothing fell back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let plan = rows(&mut client, &format!("EXPLAIN ANALYZE {SQL}")).await;
    assert!(
        plan[0][1].contains("fallbacks=1") && !plan[0][1].contains("resteers"),
        "{plan:?}"
    );
    assert_eq!(rows(&mut client, "SELECT count(*) FROM system.resteers").await, [["0"]]);
    run(
        &mut client,
        &["SET trireme.resteer = true", "SET trireme.device_mode = 'require'"],
    )
    .await;
    let error = client.query(SQL).await.expect_err("a demanded device is lost");
    assert!(error.message().contains("lost"), "{error}");
}

#[tokio::test]
async fn faults_are_planted_only_where_that_is_allowed() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[]);
    let mut client = server.client().await;
    let error = client
        .query("SET trireme.inject = 'lost@sim0'")
        .await
        .expect_err("it is off");
    assert_eq!(error.code(), Code::PermissionDenied, "{error}");
    assert!(error.message().contains("exec.allow_inject"), "{error}");
    run(&mut client, &["SET trireme.inject = ''", "RESET trireme.inject"]).await;
    let (_data, _server, mut client) = fixture("cost").await;
    let error = client
        .query("SET trireme.inject = 'boom@sim0'")
        .await
        .expect_err("no such fault");
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    assert!(error.message().contains("boom@sim0"), "{error}");
}
