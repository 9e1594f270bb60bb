//! Measuring devices, from outside: the command, what the server shows of it, and what the configuration says in its place.

use std::time::{Duration, Instant};

use crate::client::Client;
use crate::fused::{PATIENCE, rows, run};
use crate::server::Server;

#[tokio::test]
async fn rates_say_where_they_come_from() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(
        data.path(),
        &[
            "--set",
            "devices.simulated=memory=64MiB,group=32",
            "--set",
            "costs.prices=cpu0=1.25,sim0=9",
            "--set",
            "costs.watts=cpu0=65/20",
        ],
    );
    let mut client = server.client().await;
    let columns =
        "device, rates, watts_from, active_watts, price_usd_per_hour, scan_bytes_per_second > 0, start_ms > 0";
    let sql = format!("SELECT {columns} FROM system.devices WHERE device IN ('cpu0', 'sim0') ORDER BY device");
    let deadline = Instant::now() + PATIENCE;
    let mut found = rows(&mut client, &sql).await;
    while found.len() < 2 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
        found = rows(&mut client, &sql).await;
    }
    // Nobody measured: the reference's and the catalogue's rates. A simulated device is never measured unasked.
    assert_eq!(
        found[0][..5],
        ["cpu0", "modelled", "configured", "65.0", "1.25"],
        "{found:?}"
    );
    assert_eq!(found[1][..3], ["sim0", "catalogue", "catalogue"], "{found:?}");
    assert_eq!(found[1][4], "9.0", "{found:?}");
    for row in &found {
        assert_eq!(row[5..], ["true", "true"], "{found:?}");
    }
}

/// Where PoCL is there. A processor behind a driver is measured like any other device.
#[tokio::test]
async fn an_opencl_device_is_measured_in_the_background() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(
        data.path(),
        &["--set", "devices.opencl=all", "--set", "devices.cuda=false"],
    );
    let mut client = server.client().await;
    let sql = "SELECT device, rates, measured_at IS NOT NULL, measured_with LIKE '%threads%' FROM system.devices \
               WHERE device LIKE 'opencl%' AND kind IS NOT NULL";
    let starting = "SELECT device FROM system.devices WHERE state = 'starting'";
    while !rows(&mut client, starting).await.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    if rows(&mut client, sql).await.is_empty() {
        return;
    }
    // On a machine with other work the measurement takes its time, or is given up for lack of it.
    for _ in 0..200 {
        let found = rows(&mut client, sql).await;
        if found.iter().all(|row| row[1] == "measured") {
            assert_eq!(found[0][2..], ["true", "true"], "{found:?}");
            // It is used, and shown, before it is written.
            let kept = data.path().join(".trireme/costs").join(format!("{}.json", found[0][0]));
            let deadline = Instant::now() + PATIENCE;
            while !kept.exists() && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert!(std::fs::read_to_string(kept).unwrap().contains("\"measured\""));
            return;
        }
        let log = server.log();
        if log.contains("a device is not measured") {
            assert!(log.contains("in time"), "{log}");
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn devices_are_measured_again_on_request() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &["--set", "costs.calibrate=false"]);
    let mut client = server.client().await;
    let rates = "SELECT rates FROM system.devices WHERE device = 'cpu0'";
    assert_eq!(rows(&mut client, rates).await, [["modelled"]]);
    rows(&mut client, "CALL calibrate('quick')").await;
    assert_eq!(rows(&mut client, rates).await, [["measured"]]);
    assert!(data.path().join(".trireme/costs/cpu0.json").exists());
    rows(&mut client, "CALL reset_models()").await;
    let models = rows(&mut client, "SELECT count(*) FROM system.models").await;
    assert_eq!(models, [["0"]]);
    let error = client
        .query("CALL calibrate('slow')")
        .await
        .expect_err("no such effort");
    assert!(error.message().contains("arguments"), "{error}");
}

#[tokio::test]
async fn devices_are_measured_by_one_at_a_time() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &["--set", "costs.calibrate=false"]);
    let (mut one, mut other) = (server.client().await, server.client().await);
    // One may come when the other has ended: then they are sent again.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let calls = tokio::join!(
            one.query("CALL calibrate('quick')"),
            other.query("CALL calibrate('quick')")
        );
        let refused = [calls.0.map(drop), calls.1.map(drop)]
            .into_iter()
            .filter_map(Result::err);
        let refused: Vec<_> = refused.map(|error| error.message().to_owned()).collect();
        if let [refused] = refused.as_slice() {
            assert!(refused.contains("being measured already"), "{refused}");
            return;
        }
        assert!(refused.is_empty(), "one of both measures: {refused:?}");
        assert!(Instant::now() < deadline, "nobody was refused");
    }
}

#[tokio::test]
async fn what_was_learned_outlives_the_server() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start_with(data.path(), &["--set", "server.drain_seconds=1"]);
    let mut client = server.client().await;
    let made = "COPY (SELECT value AS x FROM range(20000)) TO 't.parquet' STORED AS PARQUET";
    run(&mut client, &[made, "SET trireme.cpu_variant = 'fused'"]).await;
    // A run is learned from when its rows are on their way, if it did not spend its time on loading columns.
    let deadline = Instant::now() + PATIENCE;
    let mut before = 0;
    while before < 3 {
        assert!(Instant::now() < deadline, "{before} runs were learned from");
        rows(&mut client, "SELECT sum(x) FROM t WHERE x % 7 < 3").await;
        before = learned_runs(&mut client).await;
    }
    server.terminate();
    assert!(server.wait(PATIENCE).success());
    let server = Server::start(data.path());
    let after = learned_runs(&mut server.client().await).await;
    assert!(after >= before, "{after} of {before} runs");
}

/// Runs that were learned from.
async fn learned_runs(client: &mut Client) -> u32 {
    let found = rows(client, "SELECT coalesce(max(runs), 0) FROM system.models").await;
    found[0][0].parse().unwrap()
}
