//! The plan cache: one plan for queries that differ only in constants, as long as their files stay; and its switches.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{PATIENCE, fixture, metric, replace, rows, run, wait_for_metric};
use crate::client::Client;
use crate::server::Server;

/// State and hits of the shapes that contain `text`, themselves left out.
async fn plans(client: &mut Client, text: &str) -> Vec<(String, i64)> {
    let sql = format!(
        "SELECT state, hits FROM system.plans WHERE strpos(shape, '{text}') > 0 AND strpos(shape, 'system.') = 0"
    );
    let found = rows(client, &sql).await;
    found
        .into_iter()
        .map(|row| (row[0].clone(), row[1].parse().unwrap()))
        .collect()
}

/// Runs `sql` until its plan is kept: the first run notes the shape, the second has it learnt beside it. A third before that
/// would have it learnt once more, and what comes last is kept, without what was counted of the one before.
pub(super) async fn learn(client: &mut Client, sql: &str, text: &str) {
    run(client, &[sql, sql]).await;
    learnt(client, text).await;
}

/// Waits until a plan is kept that is being learnt.
async fn learnt(client: &mut Client, text: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = plans(client, text).await;
        if found.iter().any(|(state, _)| state == "kept") {
            return;
        }
        assert!(Instant::now() < deadline, "{text}: {found:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Statements that were given a kept plan so far, once the metric has caught up: the server takes over its counts one after
/// another, hits first. So those that show the second of two misses were begun after the first was shown, and have every hit.
pub(super) async fn hits(server: &Server) -> f64 {
    const MISSES: &str = "trireme_plan_cache_misses_total";
    static UNHEARD: AtomicU64 = AtomicU64::new(0);
    let mut client = server.client().await;
    for _ in 0..2 {
        let before = metric(server, MISSES);
        // No other text is of this shape.
        let number = UNHEARD.fetch_add(1, Ordering::Relaxed);
        let unheard = format!("SELECT count(*) AS unheard{number} FROM dims");
        run(&mut client, &[&unheard]).await;
        wait_for_metric(server, MISSES, |misses| misses > before + 0.5).await;
    }
    metric(server, "trireme_plan_cache_hits_total")
}

#[tokio::test]
async fn queries_that_differ_in_constants_share_a_plan() {
    // A plan that is made anew by a sample may not be for all of these constants.
    let (_data, server, mut client) = fixture(&["statistics.sketch_on_use=false"]).await;
    let mut plain = server.client().await;
    run(
        &mut plain,
        &[
            "SET trireme.cpu_variant = 'datafusion'",
            "SET trireme.plan_cache = false",
        ],
    )
    .await;
    let shape = |least: &str, name: &str, day: &str| {
        format!(
            "SELECT k, count(*) AS n, sum(v) AS s FROM facts WHERE v > {least} AND name <> '{name}' AND day < DATE '{day}' GROUP BY k ORDER BY k"
        )
    };
    let text = "GROUP BY k ORDER BY k";
    learn(&mut client, &shape("10", "name1", "2024-03-01"), text).await;
    let before = hits(&server).await;
    let constants = [
        ("0", "name2", "2024-12-31"),
        ("-499", "", "2025-02-03"),
        ("499", "no such name", "2024-01-01"),
        ("127", "name12", "2024-02-29"),
        ("128", "na''me", "1970-01-01"),
        ("40000", "名", "9999-12-31"),
    ];
    for (least, name, day) in constants {
        let sql = shape(least, name, day);
        assert_eq!(rows(&mut client, &sql).await, rows(&mut plain, &sql).await, "{sql}");
    }
    let new = hits(&server).await - before;
    assert!(
        (new - constants.len() as f64).abs() < 0.5,
        "{new} of {} hit",
        constants.len()
    );
    // Constants of another type are another shape, and right.
    for least in [
        "10.5",
        "1e2",
        "CAST(7 AS SMALLINT)",
        "9223372036854775807",
        "-9223372036854775808",
        "NULL",
    ] {
        let sql = shape(least, "name1", "2024-03-01");
        for turn in 0..4 {
            assert_eq!(
                rows(&mut client, &sql).await,
                rows(&mut plain, &sql).await,
                "{sql} (run {turn})"
            );
        }
    }
    // Another session's settings are another entry: it is not given a fused plan.
    let mut other = server.client().await;
    run(&mut other, &["SET trireme.cpu_variant = 'datafusion'"]).await;
    let before = hits(&server).await;
    for _ in 0..4 {
        run(&mut other, &[&shape("10", "name1", "2024-03-01")]).await;
    }
    assert!((hits(&server).await - before).abs() < 0.5);
}

#[tokio::test]
async fn a_kept_plan_is_made_anew_once_when_more_is_known_of_its_tables() {
    let (_data, server, mut client) = fixture(&["statistics.feedback_max=0", "statistics.sketch_on_use=false"]).await;
    let shape = |least: i64| {
        format!(
            "SELECT d.region, count(*) AS remade FROM facts f JOIN dims d ON f.k = d.k WHERE f.id + 1000 >= {least} GROUP BY d.region ORDER BY 1"
        )
    };
    let made_anew = async |client: &mut Client| {
        let sql =
            "SELECT made_anew FROM system.plans WHERE strpos(shape, 'AS remade') > 0 AND strpos(shape, 'system.') = 0";
        rows(client, sql).await[0][0].clone()
    };
    let wanted = rows(&mut client, &shape(0)).await;
    learn(&mut client, &shape(0), "AS remade").await;
    for least in 0..8 {
        assert_eq!(rows(&mut client, &shape(least)).await, wanted);
    }
    assert_eq!(made_anew(&mut client).await, "0");
    run(&mut client, &["ANALYZE TABLE facts", "ANALYZE TABLE dims"]).await;
    // It is looked at after twice as many uses.
    for least in 0..40 {
        assert_eq!(rows(&mut client, &shape(least)).await, wanted);
    }
    assert_eq!(made_anew(&mut client).await, "1");
    wait_for_metric(&server, "trireme_plans_made_anew_total", |plans| plans > 0.5).await;
}

#[tokio::test]
async fn a_kept_plan_ends_with_its_files() {
    let (data, server, mut client) = fixture(&[]).await;
    let shape = |most: i64| format!("SELECT count(*) AS n, sum(k) AS s FROM dims WHERE k < {most}");
    let text = "FROM dims WHERE";
    learn(&mut client, &shape(10), text).await;
    assert_eq!(rows(&mut client, &shape(20)).await, [["20", "190"]]);
    let before = hits(&server).await;
    assert!(before >= 1.0);
    replace(
        &mut client,
        data.path(),
        "dims.parquet",
        "SELECT value * 2 AS k, 'l' AS label, 0 AS region FROM range(90)",
    )
    .await;
    assert_eq!(rows(&mut client, &shape(20)).await, [["10", "90"]]);
    assert!((hits(&server).await - before).abs() < 0.5, "a plan outlived its files");
    // Then it is planned anew and used again.
    learnt(&mut client, text).await;
    assert_eq!(rows(&mut client, &shape(30)).await, [["15", "210"]]);
    assert_eq!(rows(&mut client, &shape(40)).await, [["20", "380"]]);
    assert!(hits(&server).await > before + 0.5);
    // A column that became another type is another plan.
    replace(
        &mut client,
        data.path(),
        "dims.parquet",
        "SELECT value + 0.5 AS k, 'l' AS label, 0 AS region FROM range(90)",
    )
    .await;
    assert_eq!(rows(&mut client, &shape(2)).await, [["2", "2.0"]]);
}

#[tokio::test]
async fn the_plan_cache_can_be_off() {
    let (_data, server, mut client) = fixture(&[]).await;
    run(&mut client, &["SET trireme.plan_cache = false"]).await;
    for most in 0..5 {
        assert_eq!(
            client
                .number(&format!("SELECT count(*) FROM facts WHERE id < {most}"))
                .await,
            most
        );
    }
    assert!(plans(&mut client, "facts").await.is_empty());
    drop(server);
    let (_data, server, mut client) = fixture(&["exec.plan_cache_shapes=0"]).await;
    for most in 0..5 {
        assert_eq!(
            client
                .number(&format!("SELECT count(*) FROM facts WHERE id < {most}"))
                .await,
            most
        );
    }
    assert!(plans(&mut client, "facts").await.is_empty());
    wait_for_metric(&server, "trireme_fragment_graphs_total", |count| count >= 5.0).await;
    assert!(metric(&server, "trireme_plan_cache_hits_total") < 0.5);
}

#[tokio::test]
async fn system_plans_says_why_a_plan_is_not_kept() {
    let (_data, _server, mut client) = fixture(&[]).await;
    let window = "SELECT id, row_number() OVER (ORDER BY v, id) AS n FROM facts WHERE id < 9";
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert_eq!(rows(&mut client, window).await.len(), 9);
        let found = plans(&mut client, "row_number").await;
        if found == [("it is not fused as a whole".to_owned(), 0)] {
            return;
        }
        assert!(Instant::now() < deadline, "{found:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
