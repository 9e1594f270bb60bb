//! Devices beside the processor, from outside: a simulated one gives the processor's answers, what fails falls back and says so, and
//! without any device everything is answered.

use std::time::{Duration, Instant};

use tonic::Code;

use crate::client::Client;
use crate::fused::{AGREEING, PATIENCE, TABLES, metric, query, rows, run, sorted, wait_for_metric};
use crate::server::Server;

/// Kernels run one work-item after another: quick, and the same every time.
const SIMULATED: &str = "devices.simulated=memory=256MiB,group=32,schedule=sequential,races=off,lag=off";

const ON_DEVICE: [&str; 3] = [
    "SET trireme.cpu_variant = 'fused'",
    "SET trireme.devices = 'sim0'",
    "SET trireme.device_mode = 'require'",
];

async fn fixture(simulated: &str) -> (tempfile::TempDir, Server, Client) {
    let data = tempfile::tempdir().unwrap();
    // Tables of tests are small.
    let server = Server::start_with(data.path(), &["--set", simulated, "--set", "devices.rows_min=0"]);
    let mut client = server.client().await;
    let small: Vec<String> = TABLES
        .iter()
        .map(|sql| sql.replace("range(20000)", "range(3000)"))
        .collect();
    for sql in &small {
        run(&mut client, &[sql.as_str()]).await;
    }
    run(&mut client, &ON_DEVICE).await;
    (data, server, client)
}

const FRAGMENTS: &str = "SELECT device, launches, syncs, fallback FROM system.fragments \
                         WHERE run = (SELECT max(run) FROM system.fragments WHERE text LIKE 'fragment _: scan facts%') ORDER BY fragment";

#[tokio::test]
async fn a_device_gives_the_same_answers_as_the_processor() {
    let (_data, server, mut device) = fixture(SIMULATED).await;
    let mut processor = server.client().await;
    run(&mut processor, &["SET trireme.cpu_variant = 'fused'"]).await;
    let mut whole = 0;
    // Floats that are rounded on the way may differ in their last digits.
    for sql in AGREEING.iter().filter(|sql| !sql.contains("stddev")) {
        let wanted = query(&mut processor, sql).await;
        let found = query(&mut device, sql).await;
        assert_eq!(found.schema, wanted.schema, "{sql}");
        assert_eq!(sorted(&found), sorted(&wanted), "{sql}");
        let fragments = rows(&mut device, FRAGMENTS).await;
        whole += usize::from(fragments.iter().all(|fragment| fragment[0] == "sim0"));
    }
    assert!(
        whole * 10 >= AGREEING.len() * 5,
        "only {whole} of {} ran whole",
        AGREEING.len()
    );
    wait_for_metric(&server, "trireme_device_launches_total", |count| count >= 30.0).await;
    assert!(
        metric(&server, "trireme_fragment_fallbacks_total") < 0.5,
        "something fell back"
    );
}

#[tokio::test]
async fn few_launches_and_one_wait() {
    let (_data, _server, mut client) = fixture(SIMULATED).await;
    let sql = "SELECT d.label, sum(f.v), count(*) FROM facts f JOIN dims d ON f.k = d.k WHERE d.region = 2 \
               GROUP BY d.label ORDER BY d.label";
    query(&mut client, sql).await;
    let fragments = rows(&mut client, FRAGMENTS).await;
    assert!(
        fragments.len() >= 3 && fragments.iter().all(|fragment| fragment[0] == "sim0"),
        "{fragments:?}"
    );
    let count = |row: &Vec<String>, at: usize| row[at].parse::<u32>().unwrap();
    assert!(fragments.iter().all(|row| count(row, 1) <= 5), "{fragments:?}");
    assert!(
        fragments.iter().map(|row| count(row, 2)).sum::<u32>() <= 3,
        "{fragments:?}"
    );
    let plan = rows(&mut client, &format!("EXPLAIN ANALYZE {sql}")).await;
    for part in ["FragmentExec: sim0/fused", "fragment_0_sim0_launches=", "fallbacks=0"] {
        assert!(plan[0][1].contains(part), "no {part} in {plan:?}");
    }
}

#[tokio::test]
async fn both_run_and_are_compared_under_verify() {
    let (_data, _server, mut client) = fixture(SIMULATED).await;
    run(&mut client, &["SET trireme.device_mode = 'verify'"]).await;
    let sql = "SELECT k, sum(v), avg(price), sum(f) FROM facts GROUP BY k ORDER BY k";
    let plan = rows(&mut client, &format!("EXPLAIN ANALYZE {sql}")).await;
    assert!(plan[0][1].contains("verified=1"), "{plan:?}");
    assert_eq!(rows(&mut client, sql).await.len(), 97);
}

/// Runs a query until its kernels are compiled, and it was tried on the device; it has 97 rows every time.
async fn until_it_fell_back(client: &mut Client, server: &Server, sql: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert_eq!(rows(client, sql).await.len(), 97);
        if !rows(client, &FRAGMENTS.replace("ORDER", "AND fallback IS NOT NULL ORDER"))
            .await
            .is_empty()
        {
            return;
        }
        assert!(Instant::now() < deadline, "it was never tried: {}", server.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_lost_device_falls_back_is_named_and_stays_off() {
    let (_data, server, mut client) = fixture(&format!("{SIMULATED},lost@launch:1")).await;
    run(
        &mut client,
        &["SET trireme.device_mode = 'auto'", "SET trireme.placement = 'rule'"],
    )
    .await;
    let sql = "SELECT k, count(*) FROM facts GROUP BY k ORDER BY k";
    until_it_fell_back(&mut client, &server, sql).await;
    let fragments = rows(&mut client, FRAGMENTS).await;
    let fell_back = |row: &Vec<String>| row[0] == "cpu0" && row[3].contains("lost");
    assert!(
        !fragments.is_empty() && fragments.iter().all(fell_back),
        "{fragments:?}"
    );
    let state = rows(
        &mut client,
        "SELECT state, reason FROM system.devices WHERE device = 'sim0'",
    )
    .await;
    assert_eq!(state[0][0], "off", "{state:?}");
    assert!(state[0][1].contains("lost"), "{state:?}");
    // The next query isn't placed there, so there is nothing to fall back from.
    assert_eq!(rows(&mut client, sql).await.len(), 97);
    let fragments = rows(&mut client, FRAGMENTS).await;
    assert!(
        fragments.iter().all(|row| row[0] == "cpu0" && !row[3].contains("lost")),
        "{fragments:?}"
    );
    run(&mut client, &["SET trireme.device_mode = 'require'"]).await;
    let error = client.query(sql).await.expect_err("the device is off");
    assert!(error.message().contains("is off"), "{error}");
    wait_for_metric(&server, "trireme_fragment_fallbacks_total", |count| count > 0.5).await;
    wait_for_metric(&server, "trireme_devices_off", |count| count > 0.5).await;
    assert!(
        metric(&server, "trireme_fragment_fallbacks_total") < 1.5,
        "it fell back again"
    );
}

#[tokio::test]
async fn a_failure_of_a_demanded_device_is_the_query_s() {
    let (_data, _server, mut client) = fixture(&format!("{SIMULATED},error@launch:1")).await;
    let sql = "SELECT k, sum(v) FROM facts GROUP BY k ORDER BY k";
    let error = client.query(sql).await.expect_err("the first launch fails");
    assert_eq!(error.code(), Code::Internal, "{error}");
    assert_eq!(rows(&mut client, sql).await.len(), 97);
}

#[tokio::test]
async fn memory_that_is_short_falls_back() {
    let (_data, server, mut client) = fixture(&format!("{SIMULATED},oom@allocation:1+")).await;
    run(
        &mut client,
        &["SET trireme.device_mode = 'auto'", "SET trireme.placement = 'rule'"],
    )
    .await;
    let sql = "SELECT k, sum(v) FROM facts GROUP BY k ORDER BY k";
    until_it_fell_back(&mut client, &server, sql).await;
    let plan = rows(&mut client, &format!("EXPLAIN ANALYZE {sql}")).await;
    assert!(
        plan[0][1].contains("fallbacks=1") && plan[0][1].contains("fallback ("),
        "{plan:?}"
    );
}

#[tokio::test]
async fn an_unknown_device_is_named() {
    let (_data, _server, mut client) = fixture(SIMULATED).await;
    run(&mut client, &["SET trireme.devices = 'cuda7'"]).await;
    let error = client
        .query("SELECT count(*) FROM facts")
        .await
        .expect_err("no such device");
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    assert!(
        error.message().contains("cuda7") && error.message().contains("system.devices"),
        "{error}"
    );
    // What needs no device is answered, so that one can look.
    assert!(!rows(&mut client, "SELECT device FROM system.devices").await.is_empty());
}

#[tokio::test]
async fn absent_drivers_are_named_with_the_reason() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[]);
    let mut client = server.client().await;
    assert_eq!(rows(&mut client, "SELECT 1").await, [["1"]]);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let devices = rows(&mut client, "SELECT device, state, reason FROM system.devices").await;
        assert_eq!(devices[0][..2], ["cpu0", "ready"], "{devices:?}");
        if devices.iter().all(|row| row[1] != "starting") {
            let explained = |row: &Vec<String>| row[1] == "ready" || !row[2].is_empty();
            assert!(devices.iter().all(explained), "{devices:?}");
            assert!(devices.iter().any(|row| row[0].starts_with("cuda")), "{devices:?}");
            break;
        }
        assert!(Instant::now() < deadline, "{devices:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
