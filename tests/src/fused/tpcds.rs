//! The 99 TPC-DS queries over a tiny data set: fused but for windows and set operations, and answered the same by both variants.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use super::{explain, metric, query, rows, run};
use crate::server::{Server, command};

/// The smallest data set there is; with it many queries still find rows.
const SCALE: &str = "0.01";
/// So many of them at least.
const WITH_ROWS_MIN: usize = 60;
/// What may stay DataFusion's.
const UNFUSED: [&str; 4] = [
    "WindowAggExec",
    "UnionExec",
    "InterleaveExec",
    // Of a set operation.
    "a scalar subquery that runs in an outer plan",
];

fn texts() -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tpcds");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut texts: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .map(|path| (path.clone(), std::fs::read_to_string(path).unwrap()))
        .collect();
    texts.sort();
    texts
}

/// The text without its LIMIT, if that is its end.
fn whole(sql: &str) -> Option<&str> {
    let (before, limit) = sql.trim_end().trim_end_matches(';').rsplit_once("LIMIT ")?;
    limit.trim().parse::<u32>().is_ok().then_some(before)
}

fn same_cell(a: &str, b: &str) -> bool {
    a == b
        || match (a.parse::<f64>(), b.parse::<f64>()) {
            (Ok(a), Ok(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()),
            _ => false,
        }
}

/// Numbers that differ in their last digits stand in the same place.
fn order(a: &[String], b: &[String]) -> Ordering {
    let cells = a
        .iter()
        .zip(b)
        .map(|(a, b)| match (a.parse::<f64>(), b.parse::<f64>()) {
            _ if same_cell(a, b) => Ordering::Equal,
            (Ok(a), Ok(b)) => a.total_cmp(&b),
            _ => a.cmp(b),
        });
    cells.fold(Ordering::Equal, Ordering::then)
}

/// True when the results are the same rows, in whatever order.
fn same(mut a: Vec<Vec<String>>, mut b: Vec<Vec<String>>) -> bool {
    a.sort_by(|a, b| order(a, b));
    b.sort_by(|a, b| order(a, b));
    let same_row = |(a, b): (&Vec<String>, &Vec<String>)| a.iter().zip(b).all(|(a, b)| same_cell(a, b));
    a.len() == b.len() && a.iter().zip(&b).all(same_row)
}

#[tokio::test]
async fn both_variants_answer_tpcds_the_same() {
    let data = tempfile::tempdir().unwrap();
    let out = data.path().to_str().unwrap();
    let made = command()
        .args(["generate", "tpcds", "--scale", SCALE, "--out", out])
        .output();
    assert!(made.unwrap().status.success());
    let server = Server::start(data.path());
    let (mut fused, mut plain) = (server.client().await, server.client().await);
    run(&mut fused, &["SET trireme.cpu_variant = 'fused'"]).await;
    run(&mut plain, &["SET trireme.cpu_variant = 'datafusion'"]).await;
    let texts = texts();
    assert_eq!(texts.len(), 99);
    let mut with_rows = 0;
    for (path, sql) in &texts {
        let plan = explain(&mut fused, sql).await;
        assert!(plan.contains("FragmentExec: cpu0/fused"), "{}:\n{plan}", path.display());
        let reasons = plan
            .lines()
            .filter_map(|line| line.trim().strip_prefix("UnfusedExec: "));
        for reason in reasons.flat_map(|line| line.split("; ")) {
            assert!(
                UNFUSED.iter().any(|name| reason.contains(name)),
                "{}: {reason}",
                path.display()
            );
        }
        let (found, wanted) = (query(&mut fused, sql).await, query(&mut plain, sql).await);
        assert_eq!(found.schema, wanted.schema, "{}", path.display());
        with_rows += usize::from(!wanted.rows().is_empty());
        if same(found.rows(), wanted.rows()) {
            continue;
        }
        // The LIMIT may have cut through rows of equal keys: then the rows without it are the same.
        assert_eq!(found.rows().len(), wanted.rows().len(), "{}", path.display());
        let all = whole(sql).unwrap_or_else(|| panic!("{}: other rows", path.display()));
        let (found, wanted) = (rows(&mut fused, all).await, rows(&mut plain, all).await);
        assert!(same(found, wanted), "{}: other rows without the LIMIT", path.display());
    }
    assert!(with_rows >= WITH_ROWS_MIN, "{with_rows} of {} find rows", texts.len());
    assert!(
        metric(&server, "trireme_fragment_fallbacks_total") < 0.5,
        "something fell back"
    );
}
