//! Functions that users define: their bodies are a part of the fragments, and a kept plan ends with the body that it holds.

use super::{assert_fused, explain, fixture, rows, run};
use crate::fused::plans::{hits, learn};

#[tokio::test]
async fn bodies_of_functions_are_fused() {
    let (_data, _server, mut client) = fixture(&[]).await;
    run(
        &mut client,
        &[
            "CREATE FUNCTION net(price DECIMAL(15, 2), percent INT) RETURNS DECIMAL(15, 2) RETURN price * (100 - percent) / 100",
            "CREATE FUNCTION band(v BIGINT) RETURNS VARCHAR \
             RETURN CASE WHEN v > 100 THEN 'high' WHEN v < -100 THEN 'low' WHEN v IS NULL THEN 'none' ELSE 'middle' END",
            "CREATE FUNCTION cheap(price DECIMAL(15, 2)) RETURNS BOOLEAN RETURN net(price, 10) < 5000",
        ],
    )
    .await;
    let called = [
        "SELECT sum(net(price, 7)), max(net(price, CAST(k AS INT))) FROM facts WHERE cheap(price)",
        "SELECT band(v) AS band, count(*) FROM facts GROUP BY band(v) ORDER BY band",
        "SELECT d.label, sum(net(f.price, 1)) FROM facts f JOIN dims d ON f.k = d.k WHERE band(f.v) = 'low' GROUP BY d.label ORDER BY 1",
    ];
    let written = [
        "SELECT sum(CAST(price * 93 / 100 AS DECIMAL(15, 2))), max(CAST(price * (100 - k) / 100 AS DECIMAL(15, 2))) \
         FROM facts WHERE CAST(price * 90 / 100 AS DECIMAL(15, 2)) < 5000",
        "SELECT CASE WHEN v > 100 THEN 'high' WHEN v < -100 THEN 'low' WHEN v IS NULL THEN 'none' ELSE 'middle' END AS band, \
         count(*) FROM facts GROUP BY 1 ORDER BY band",
        "SELECT d.label, sum(CAST(f.price * 99 / 100 AS DECIMAL(15, 2))) FROM facts f JOIN dims d ON f.k = d.k WHERE f.v < -100 \
         GROUP BY d.label ORDER BY 1",
    ];
    for (called, written) in called.into_iter().zip(written) {
        assert_fused(&mut client, called).await;
        let plan = explain(&mut client, called).await;
        assert!(!plan.contains("→ band(") && !plan.contains("net("), "{plan}");
        let fused = rows(&mut client, called).await;
        assert_eq!(fused, rows(&mut client, written).await, "{called}");
        run(&mut client, &["SET trireme.cpu_variant = 'datafusion'"]).await;
        assert_eq!(fused, rows(&mut client, called).await, "{called}");
        run(&mut client, &["SET trireme.cpu_variant = 'fused'"]).await;
    }
}

#[tokio::test]
async fn a_kept_plan_ends_with_its_functions() {
    let (_data, server, mut client) = fixture(&[]).await;
    let shape = |most: i64| format!("SELECT count(*) AS n FROM dims WHERE part(k) < {most}");
    let text = "FROM dims WHERE";
    run(
        &mut client,
        &["CREATE FUNCTION part(k BIGINT) RETURNS BIGINT RETURN k * 2"],
    )
    .await;
    learn(&mut client, &shape(10), text).await;
    assert_eq!(rows(&mut client, &shape(20)).await, [["10"]]);
    let before = hits(&server).await;
    assert!(before >= 1.0);
    run(
        &mut client,
        &["CREATE OR REPLACE FUNCTION part(k BIGINT) RETURNS BIGINT RETURN k * 10"],
    )
    .await;
    assert_eq!(rows(&mut client, &shape(20)).await, [["2"]]);
    run(&mut client, &["DROP FUNCTION part"]).await;
    assert!(client.query(&shape(20)).await.is_err());
    run(&mut client, &["CREATE FUNCTION part(k BIGINT) RETURNS BIGINT RETURN k"]).await;
    assert_eq!(rows(&mut client, &shape(20)).await, [["20"]]);
    assert!(
        (hits(&server).await - before).abs() < 0.5,
        "a plan outlived its function"
    );
}
