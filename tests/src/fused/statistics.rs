//! What plans are made by, from outside: counts of earlier runs and ANALYZE's samples. They never change an answer, and never
//! outlive the files that they are of.

use super::{Client, fixture, metric, query, replace, rows, run, sorted, wait_for_metric};
use crate::server::Server;

const JOIN: &str = "SELECT d.region, count(*) FROM facts f JOIN dims d ON f.k = d.k WHERE f.v > 100 AND d.label LIKE 'dim1%' \
                    GROUP BY d.region";

/// Nothing is analysed but by ANALYZE.
const UNASKED_OFF: &str = "statistics.sketch_on_use=false";

/// (rows that reached the sink, rows expected, by what) of the fragments that probe, latest run.
async fn probes(client: &mut Client) -> Vec<(f64, f64, String)> {
    let sql = "SELECT sink_rows, expected_sink_rows, expected_by FROM system.fragments WHERE text LIKE '% probe %' \
               AND run = (SELECT max(run) FROM system.fragments WHERE text LIKE '% probe %')";
    let found = rows(client, sql).await;
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("a number: {text:?}"));
    let found = found
        .into_iter()
        .map(|row| (number(&row[0]), number(&row[1]), row[2].clone()));
    found.collect()
}

#[tokio::test]
async fn a_second_run_expects_what_the_first_counted_until_files_change() {
    let (data, server, mut client) = fixture(&[UNASKED_OFF]).await;
    let wanted = sorted(&query(&mut client, JOIN).await);
    let first = probes(&mut client).await;
    assert!(first.iter().all(|(.., by)| by != "feedback"), "{first:?}");
    for turn in 0..3 {
        assert_eq!(sorted(&query(&mut client, JOIN).await), wanted, "turn {turn}");
        let again = probes(&mut client).await;
        assert!(!again.is_empty());
        for (rows, expected, by) in again {
            assert_eq!((rows, by.as_str()), (expected, "feedback"), "turn {turn}");
        }
    }
    let kept = rows(
        &mut client,
        "SELECT count(*) FROM system.feedback WHERE runs > 0 AND rows IS NOT NULL",
    )
    .await;
    assert_ne!(kept[0][0], "0");
    wait_for_metric(&server, "trireme_feedback_hits_total", |hits| hits > 0.5).await;
    let other = JOIN.replace("> 100", "> 101");
    query(&mut client, &other).await;
    let other = probes(&mut client).await;
    assert!(
        other.iter().all(|(.., by)| by != "feedback"),
        "another constant: {other:?}"
    );
    let fewer = "SELECT value AS k, 'dim' || value AS label, value % 5 AS region FROM range(50)";
    replace(&mut client, data.path(), "dims.parquet", fewer).await;
    query(&mut client, JOIN).await;
    let changed = probes(&mut client).await;
    assert!(
        changed.iter().all(|(.., by)| by != "feedback"),
        "another table: {changed:?}"
    );
}

#[tokio::test]
async fn feedback_can_be_switched_off() {
    let (_data, server, mut client) = fixture(&["statistics.feedback_max=0", UNASKED_OFF]).await;
    for _ in 0..2 {
        query(&mut client, JOIN).await;
        let found = probes(&mut client).await;
        assert!(found.iter().all(|(.., by)| by != "feedback"), "{found:?}");
    }
    assert_eq!(
        rows(&mut client, "SELECT count(*) FROM system.feedback").await[0][0],
        "0"
    );
    assert!(metric(&server, "trireme_feedback_learned_total") < 0.5);
}

#[tokio::test]
async fn samples_tell_what_goes_together_and_survive_a_restart() {
    let (data, server, mut client) = fixture(&["statistics.feedback_max=0", UNASKED_OFF]).await;
    // A third of the rows is flagged, and each of these has an id that is a multiple of three.
    let sql = "SELECT k, count(*) FROM facts WHERE flag AND id % 3 <> 1 AND name = 'name4' GROUP BY k";
    let wanted = sorted(&query(&mut client, sql).await);
    let by = "SELECT expected_by FROM system.fragments WHERE text LIKE '%scan facts%aggregate by k%' ORDER BY run DESC LIMIT 1";
    assert_ne!(rows(&mut client, by).await[0][0], "sample");
    run(&mut client, &["ANALYZE TABLE facts"]).await;
    let shown = "SELECT most_common, histogram, sampled_rows FROM system.statistics WHERE \"table\" = 'facts' AND \"column\" IN ('k', 'name') \
                 ORDER BY \"column\"";
    let shown = rows(&mut client, shown).await;
    assert_eq!(shown[0][2], "10000", "{shown:?}");
    assert_eq!(shown[0][1].split(' ').count(), 11, "ten equal parts: {shown:?}");
    assert!(shown[1][0].contains("name"), "{shown:?}");
    assert_eq!(sorted(&query(&mut client, sql).await), wanted);
    assert_eq!(rows(&mut client, by).await[0][0], "sample");
    drop(client);
    drop(server);
    let server = Server::start_with(
        data.path(),
        &["--set", "statistics.feedback_max=0", "--set", UNASKED_OFF],
    );
    let mut client = server.client().await;
    assert_eq!(sorted(&query(&mut client, sql).await), wanted);
    assert_eq!(rows(&mut client, by).await[0][0], "sample", "after a restart");
    let other = "SELECT value AS id, value % 97 AS k, 'name4' AS name, value % 2 = 0 AS flag FROM range(30000)";
    replace(&mut client, data.path(), "facts.parquet", other).await;
    query(&mut client, sql).await;
    assert_ne!(rows(&mut client, by).await[0][0], "sample", "of other files");
}

#[tokio::test]
async fn tables_that_are_used_are_analysed_unasked_once_if_they_are_small() {
    let sql = "SELECT k, count(*) FROM facts WHERE flag AND id % 3 <> 1 AND name = 'name4' GROUP BY k";
    let by = "SELECT expected_by FROM system.fragments WHERE text LIKE '%scan facts%aggregate by k%' ORDER BY run DESC LIMIT 1";
    let (data, server, mut client) = fixture(&["statistics.feedback_max=0"]).await;
    let wanted = sorted(&query(&mut client, sql).await);
    wait_for_metric(&server, "trireme_tables_sketched_total", |tables| tables > 0.5).await;
    assert_eq!(sorted(&query(&mut client, sql).await), wanted);
    assert_eq!(rows(&mut client, by).await[0][0], "sample");
    drop(client);
    drop(server);
    let server = Server::start_with(data.path(), &["--set", "statistics.feedback_max=0"]);
    let mut client = server.client().await;
    assert_eq!(sorted(&query(&mut client, sql).await), wanted);
    assert_eq!(rows(&mut client, by).await[0][0], "sample", "after a restart");
    let other = "SELECT value AS id, value % 97 AS k, 'name4' AS name, value % 2 = 0 AS flag FROM range(30000)";
    replace(&mut client, data.path(), "facts.parquet", other).await;
    query(&mut client, sql).await;
    assert_ne!(rows(&mut client, by).await[0][0], "sample", "of other files");
    wait_for_metric(&server, "trireme_tables_sketched_total", |tables| tables > 0.5).await;
    query(&mut client, sql).await;
    assert_eq!(rows(&mut client, by).await[0][0], "sample", "of these files");
    let small = ["statistics.feedback_max=0", "statistics.sketch_below_bytes=1000"];
    let (_data, server, mut client) = fixture(&small).await;
    query(&mut client, sql).await;
    wait_for_metric(&server, "trireme_tables_not_sketched_total", |tables| tables > 0.5).await;
    query(&mut client, sql).await;
    assert_ne!(rows(&mut client, by).await[0][0], "sample", "the table is too large");
}

#[tokio::test]
async fn datafusion_chooses_a_joins_sides_by_our_estimates_and_fused_plans_keep_theirs() {
    let (_data, _server, mut client) = fixture(&[UNASKED_OFF]).await;
    // DataFusion takes a fifth of the rows to pass what it can't tell.
    let sql = "EXPLAIN SELECT d.region, f.v FROM facts f JOIN dims d ON f.k = d.k WHERE f.id % 10000 = 7";
    let explained = async |client: &mut Client, settings: &[&str]| {
        run(client, settings).await;
        let found = rows(client, sql).await;
        found.into_iter().flatten().collect::<Vec<_>>().join("\n")
    };
    let first = |plan: &str| {
        let at = |file: &str| plan.find(file).unwrap_or_else(|| panic!("{file} in {plan}"));
        if at("facts.parquet") < at("dims.parquet") {
            "facts"
        } else {
            "dims"
        }
    };
    let on = "SET datafusion.optimizer.use_statistics_registry = true";
    let off = "SET datafusion.optimizer.use_statistics_registry = false";
    let fused = explained(&mut client, &[off]).await;
    assert!(fused.contains("FragmentExec"), "{fused}");
    assert_eq!(
        explained(&mut client, &[on]).await,
        fused,
        "its sides are not DataFusion's"
    );
    let plain = "SET trireme.cpu_variant = 'datafusion'";
    let ours = explained(
        &mut client,
        &[plain, "RESET datafusion.optimizer.use_statistics_registry"],
    )
    .await;
    assert_eq!(first(&ours), "facts", "the few rows are built: {ours}");
    let stock = explained(&mut client, &[off]).await;
    assert_eq!(first(&stock), "dims", "{stock}");
}
