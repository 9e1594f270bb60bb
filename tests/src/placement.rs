//! Where fragments run, from outside: pinned placements over several devices, bounds, hints, and what is said of them.

use tonic::Code;

use crate::client::Client;
use crate::fused::{TABLES, query, rows, run, sorted, wait_for_metric};
use crate::server::Server;

/// Kernels run one work-item after another: quick, and the same every time.
const SIMULATED: &str = "devices.simulated=memory=256MiB,group=32,schedule=sequential,races=off,lag=off";

/// A group-by over another's groups, sorted: three fragments, each reading the one before.
const CHAIN: &str = "SELECT m, count(*), sum(s) FROM (SELECT k, k % 5 AS m, sum(v) AS s FROM facts WHERE v < 400 GROUP BY k) \
                     GROUP BY m ORDER BY m";

const RAN: &str = "SELECT fragment, device FROM system.fragments \
                   WHERE run = (SELECT max(run) FROM system.fragments WHERE text LIKE 'fragment _: scan facts%') ORDER BY fragment";

fn server(data: &std::path::Path) -> Server {
    Server::start_with(data, &["--set", SIMULATED, "--set", "devices.opencl=all"])
}

async fn tables(client: &mut Client) {
    for sql in &TABLES {
        run(client, &[sql.replace("range(20000)", "range(3000)").as_str()]).await;
    }
}

async fn ran(client: &mut Client) -> Vec<String> {
    rows(client, RAN).await.into_iter().map(|row| row[1].clone()).collect()
}

/// PoCL's id, where it is installed.
async fn opencl(client: &mut Client) -> Option<String> {
    let sql = "SELECT device FROM system.devices WHERE device LIKE 'opencl%' AND state = 'ready'";
    let found = rows(client, sql).await.into_iter().next().map(|row| row[0].clone());
    if found.is_none() {
        eprintln!("without PoCL, only the simulated device is tested");
    }
    found
}

#[tokio::test]
async fn fragments_run_where_they_are_pinned_on_several_devices_in_one_graph() {
    let data = tempfile::tempdir().unwrap();
    let server = server(data.path());
    let mut client = server.client().await;
    tables(&mut client).await;
    let wanted = query(&mut client, CHAIN).await;
    assert_eq!(ran(&mut client).await, ["cpu0"; 3]);
    // Whoever names a device waits until the drivers have started.
    run(&mut client, &["SET trireme.devices = 'sim0'"]).await;
    query(&mut client, CHAIN).await;
    let other = opencl(&mut client).await.unwrap_or("sim0".to_owned());
    run(&mut client, &[format!("SET trireme.devices = 'sim0,{other}'").as_str()]).await;
    for devices in [
        ["sim0", &other, "cpu0"],
        [&other, "sim0", &other],
        ["cpu0", "sim0", &other],
        ["sim0", "cpu0", "sim0"],
        ["sim0", "sim0", &other],
    ] {
        let pins = format!(
            "{{\"0\":\"{}\",\"1\":\"{}\",\"2\":\"{}\"}}",
            devices[0], devices[1], devices[2]
        );
        run(&mut client, &[format!("SET trireme.pinned = '{pins}'").as_str()]).await;
        let found = query(&mut client, CHAIN).await;
        assert_eq!(sorted(&found), sorted(&wanted), "{devices:?}");
        assert_eq!(ran(&mut client).await, devices);
        let explained = rows(&mut client, &format!("EXPLAIN (PLACEMENT) {CHAIN}")).await;
        let chosen: Vec<_> = explained.iter().filter(|row| row[5] == "true").collect();
        assert_eq!(chosen.iter().map(|row| row[3].as_str()).collect::<Vec<_>>(), devices);
        assert!(chosen.iter().all(|row| row[6] == "pinned"), "{chosen:?}");
    }
    wait_for_metric(&server, "trireme_placements_total", |count| count >= 5.0).await;
}

#[tokio::test]
async fn an_exported_placement_is_pinned_to_a_statement_and_kept() {
    let data = tempfile::tempdir().unwrap();
    let first = server(data.path());
    let mut client = first.client().await;
    tables(&mut client).await;
    run(&mut client, &["SET trireme.devices = 'sim0'"]).await;
    let wanted = query(&mut client, CHAIN).await;
    let export = rows(&mut client, &format!("EXPLAIN (PLACEMENT, FORMAT json) {CHAIN}")).await;
    let export = &export[0][0];
    assert!(export.contains("\"chosen\""), "{export}");
    // Edited: the first fragment on the device, the others here.
    let start = export.find("\"chosen\"").unwrap();
    let end = start + export[start..].find(']').unwrap();
    let edited = format!(
        "{}\"chosen\": [\"sim0\", \"cpu0\", \"cpu0\"{}",
        &export[..start],
        &export[end..]
    );
    run(
        &mut client,
        &[format!("PIN PLACEMENT '{}' FOR {CHAIN}", edited.replace('\'', "''")).as_str()],
    )
    .await;
    let pins = rows(&mut client, "SELECT schema, statement, placement FROM system.pins").await;
    assert_eq!(pins.len(), 1);
    assert_eq!((pins[0][0].as_str(), pins[0][1].as_str()), ("public", CHAIN));
    assert!(pins[0][2].contains("\"fragments\":3"), "{pins:?}");
    // Constants don't matter.
    let found = query(&mut client, &CHAIN.replace("400", "5000")).await;
    assert_ne!(sorted(&found), sorted(&wanted));
    assert_eq!(ran(&mut client).await, ["sim0", "cpu0", "cpu0"]);
    drop(client);
    drop(first);
    let second = server(data.path());
    let mut client = second.client().await;
    run(&mut client, &["SET trireme.devices = 'sim0'"]).await;
    assert_eq!(sorted(&query(&mut client, CHAIN).await), sorted(&wanted));
    assert_eq!(ran(&mut client).await, ["sim0", "cpu0", "cpu0"]);
    // A hint comes before it.
    let here = CHAIN.replacen("SELECT", "SELECT /*+ pinned('{\"0\":\"cpu0\"}') */", 1);
    assert_eq!(sorted(&query(&mut client, &here).await), sorted(&wanted));
    assert_eq!(ran(&mut client).await, ["cpu0"; 3]);
    run(&mut client, &[format!("UNPIN PLACEMENT FOR {CHAIN}").as_str()]).await;
    assert!(rows(&mut client, "SELECT * FROM system.pins").await.is_empty());
    let error = client.query(&format!("UNPIN PLACEMENT FOR {CHAIN}")).await;
    assert!(error.expect_err("it is not pinned").message().contains("not pinned"));
}

#[tokio::test]
async fn pins_that_cannot_be_kept_are_told_and_the_query_runs() {
    let data = tempfile::tempdir().unwrap();
    let server = server(data.path());
    let mut client = server.client().await;
    tables(&mut client).await;
    let wanted = query(&mut client, CHAIN).await;
    for (pins, why) in [
        (r#"[["cpu0"]]"#, "made for 1 fragments"),
        (r#"{"0":"cuda9"}"#, "no such device"),
        (r#"{"7":"cpu0"}"#, "fragment 7"),
    ] {
        run(&mut client, &[format!("SET trireme.pinned = '{pins}'").as_str()]).await;
        let plan = rows(&mut client, &format!("EXPLAIN ANALYZE {CHAIN}")).await;
        assert!(
            plan[0][1].contains("is not kept") && plan[0][1].contains(why),
            "{pins}: {plan:?}"
        );
        let text = rows(&mut client, &format!("EXPLAIN (PLACEMENT, FORMAT text) {CHAIN}")).await;
        assert!(text.iter().any(|line| line[0].contains(why)), "{pins}: {text:?}");
        assert_eq!(sorted(&query(&mut client, CHAIN).await), sorted(&wanted));
    }
    run(&mut client, &["SET trireme.pinned = 'nonsense'"]).await;
    let error = client.query(CHAIN).await.expect_err("no JSON");
    assert!(error.message().contains("trireme.pinned"), "{error}");
}

#[tokio::test]
async fn bounds_are_kept_or_the_nearest_placement_is_named() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[]);
    let mut client = server.client().await;
    tables(&mut client).await;
    let wanted = query(&mut client, CHAIN).await;
    let hinted = |hint: &str| CHAIN.replacen("SELECT", &format!("SELECT /*+ {hint} */"), 1);
    assert_eq!(
        sorted(&query(&mut client, &hinted("max_ms(60000), max_joules(10000)")).await),
        sorted(&wanted)
    );
    for hint in ["max_ms(0.0000001)", "max_joules(0.0000000001)"] {
        let error = client.query(&hinted(hint)).await.expect_err("nothing is that quick");
        assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
        assert!(error.message().contains("the nearest takes"), "{error}");
    }
    run(&mut client, &["SET trireme.max_ms = '0.0000001'"]).await;
    assert!(client.query(CHAIN).await.is_err());
    assert_eq!(sorted(&query(&mut client, &hinted("max_ms(0)")).await), sorted(&wanted));
    assert_eq!(
        sorted(&query(&mut client, &hinted("placement(rule)")).await),
        sorted(&wanted)
    );
    run(&mut client, &["RESET trireme.max_ms"]).await;
    let json = rows(
        &mut client,
        &format!("EXPLAIN (PLACEMENT, FORMAT json) {}", hinted("objective(cost)")),
    )
    .await;
    assert!(json[0][0].contains("\"objective\": \"cost\""), "{json:?}");
    let error = client.query(&hinted("objectve(cost)")).await.expect_err("no such hint");
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    assert!(error.message().contains("objectve"), "{error}");
}
