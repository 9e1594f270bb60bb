//! Statements whose graphs must give what DataFusion gives, over small tables with NULLs, duplicates and odd floats.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::ListingOptions;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};

use trireme_device_api::Sink;

use super::super::explain;
use super::run::same;
use super::{fused, plan, tables};

fn some<T>(row: i64, every: i64, value: T) -> Option<T> {
    (row % every != 0).then_some(value)
}

fn batch(rows: std::ops::Range<i64>) -> RecordBatch {
    let rows = || rows.clone();
    let narrow = |value: i64| i32::try_from(value).unwrap();
    let floats = |row: i64| match row % 7 {
        0 => None,
        1 => Some(f64::NAN),
        2 => Some(-0.0),
        3 => Some(0.0),
        _ => Some(f64::from(narrow(row % 11)) / 4.0),
    };
    let decimals = Decimal128Array::from_iter(rows().map(|row| some(row, 6, i128::from(row * 37 % 1_000) - 300)));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from_iter_values(rows()))),
        (
            "a",
            Arc::new(Int64Array::from_iter(rows().map(|row| some(row, 5, row % 8)))),
        ),
        (
            "b",
            Arc::new(Int32Array::from_iter(
                rows().map(|row| some(row, 9, narrow(row % 13 - 4))),
            )),
        ),
        (
            "s",
            Arc::new(StringArray::from_iter(
                rows().map(|row| some(row, 8, format!("s{}_{}", row % 4, row % 3))),
            )),
        ),
        ("d", Arc::new(decimals.with_precision_and_scale(12, 2).unwrap())),
        ("f", Arc::new(Float64Array::from_iter(rows().map(floats)))),
        (
            "day",
            Arc::new(Date32Array::from_iter(
                rows().map(|row| some(row, 10, narrow(9_000 + row * 17))),
            )),
        ),
        (
            "at",
            Arc::new(TimestampMicrosecondArray::from_iter(
                rows().map(|row| some(row, 11, 1_600_000_000_000_000 + row * 86_000_123_456)),
            )),
        ),
        (
            "flag",
            Arc::new(BooleanArray::from_iter(rows().map(|row| some(row, 4, row % 3 == 0)))),
        ),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
}

async fn register(context: &SessionContext, folder: &Path, name: &str, rows: std::ops::Range<i64>) {
    let path = folder.join(format!("{name}.parquet"));
    tables::write(&path, &batch(rows));
    context
        .register_parquet(name, path.to_str().unwrap(), ParquetReadOptions::default())
        .await
        .unwrap();
}

/// Tables t, u (fewer rows), empty, m (in memory) and parts (partitioned by folder).
pub(super) async fn session(config: SessionConfig) -> (tempfile::TempDir, SessionContext) {
    fill(tables::context(config)).await
}

async fn fill(context: SessionContext) -> (tempfile::TempDir, SessionContext) {
    let folder = tempfile::tempdir().unwrap();
    register(&context, folder.path(), "t", 0..120).await;
    register(&context, folder.path(), "u", 3..40).await;
    register(&context, folder.path(), "empty", 0..0).await;
    context.register_batch("m", batch(10..60)).unwrap();
    for part in 0..3 {
        let sub = folder.path().join(format!("parts/part={part}"));
        std::fs::create_dir_all(&sub).unwrap();
        tables::write(&sub.join("data.parquet"), &batch(part * 20..part * 20 + 15));
    }
    let options = ListingOptions::new(Arc::new(ParquetFormat::default()))
        .with_file_extension(".parquet")
        .with_table_partition_cols(vec![("part".to_owned(), arrow::datatypes::DataType::Int32)]);
    let parts = folder.path().join("parts");
    context
        .register_listing_table("parts", parts.to_str().unwrap(), options, None, None)
        .await
        .unwrap();
    (folder, context)
}

/// Every statement is one graph without streams.
const WHOLE: &[&str] = &[
    // Scans, filters, expressions.
    "SELECT * FROM t",
    "SELECT count(*) FROM t WHERE id > -1",
    "SELECT id, a + b, d * 2, -b, f / 2 FROM t WHERE a > 2 AND NOT flag",
    "SELECT id FROM t WHERE a IN (1, 3, 5) OR s LIKE 's1%' OR b IS NULL",
    "SELECT id FROM t WHERE a NOT IN (1, 3) AND s NOT LIKE '%_2' AND s IS NOT NULL",
    "SELECT id FROM t WHERE s ILIKE 'S2%' AND day BETWEEN DATE '1994-10-01' AND DATE '1998-01-01'",
    "SELECT id, CASE a WHEN 1 THEN 'one' WHEN 2 THEN 'two' ELSE s END FROM t",
    "SELECT id, CASE WHEN b <> 0 THEN a / b END, coalesce(a, b, 7), nullif(a, 3) FROM t",
    "SELECT id, CAST(a AS INT), CAST(d AS DOUBLE), TRY_CAST(s AS BIGINT), CAST(b AS VARCHAR) FROM t",
    "SELECT id, extract(year FROM day), extract(month FROM at), extract(dow FROM day), date_part('hour', at) FROM t",
    "SELECT id, upper(s), length(s), substr(s, 1, 2), s || '!' || s, abs(b) FROM t",
    "SELECT id, a IS DISTINCT FROM b, flag AND a > 3, flag OR a > 3, a % 3, b & 3 FROM t",
    "SELECT id, date_trunc('month', at), day + INTERVAL '1' MONTH, s ~ 's[12]' FROM t",
    "SELECT id, f = 0, f > 1, f <> f FROM t",
    "SELECT part, id FROM parts WHERE part > 0",
    "SELECT part, count(*), sum(d) FROM parts GROUP BY part",
    "SELECT * FROM empty",
    "SELECT count(*), sum(a), min(s) FROM empty",
    "SELECT 1 AS one, id FROM t WHERE id < 3",
    // Aggregates.
    "SELECT a, count(*), count(b), sum(b), sum(d), avg(b), avg(d), min(s), max(day) FROM t GROUP BY a",
    "SELECT s, flag, min(d), max(at), bool_and(flag), bool_or(flag) FROM t GROUP BY s, flag",
    "SELECT f, count(*) FROM t GROUP BY f",
    "SELECT a, min(f), max(f), count(DISTINCT f) FROM t GROUP BY a",
    "SELECT id FROM t WHERE f >= 0 AND (a / b > 0 OR f < 2) ORDER BY f, id /* ordered */",
    "SELECT id FROM t WHERE b <> 0 AND a / b > 0",
    "SELECT id FROM t WHERE a + 1 > 3 AND b < 4 AND f IN (0, 0.5)",
    "SELECT id, CASE f WHEN 0 THEN 'zero' WHEN 0.5 THEN 'half' END, f BETWEEN 0 AND 1 FROM t",
    "SELECT count(DISTINCT a), count(DISTINCT s) FROM t",
    "SELECT a, count(DISTINCT s) FROM t GROUP BY a",
    "SELECT a, sum(DISTINCT b), count(*) FILTER (WHERE flag), avg(f) FILTER (WHERE f > 1) FROM t GROUP BY a",
    "SELECT var(b), var_pop(b), stddev(a), stddev_pop(a) FROM t",
    "SELECT a, first_value(s ORDER BY id), last_value(s ORDER BY id) FROM t GROUP BY a",
    "SELECT DISTINCT a, flag FROM t",
    "SELECT a, sum(b) FROM t GROUP BY a HAVING sum(b) > 3",
    "SELECT avg(x) FROM (SELECT a, sum(b) AS x FROM t GROUP BY a) AS q",
    "SELECT a + 1, count(*) FROM t WHERE id < 50 GROUP BY a + 1",
    // Joins.
    "SELECT t.id, u.id FROM t JOIN u ON t.a = u.a",
    "SELECT t.id, u.s FROM t JOIN u ON t.a = u.a AND t.b = u.b WHERE t.d > u.d",
    "SELECT t.id, u.id FROM t LEFT JOIN u ON t.id = u.id",
    "SELECT t.id, u.id FROM t LEFT JOIN u ON t.a = u.a AND t.b > u.b",
    "SELECT t.id, u.id FROM u RIGHT JOIN t ON t.a = u.a AND u.flag",
    "SELECT t.id, u.id, t.s, u.s FROM t FULL JOIN u ON t.id = u.id + 100",
    "SELECT t.id, u.id FROM t FULL JOIN u ON t.id = u.id AND t.b < u.a",
    "SELECT id FROM t WHERE a IN (SELECT a FROM u WHERE flag)",
    "SELECT id FROM t WHERE a NOT IN (SELECT a FROM u WHERE a IS NOT NULL AND flag)",
    "SELECT id FROM t WHERE a NOT IN (SELECT a FROM u)",
    "SELECT id FROM t WHERE a NOT IN (SELECT a FROM empty)",
    "SELECT id FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.a = t.a AND u.b <> t.b)",
    "SELECT id FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.a = t.a)",
    "SELECT id FROM t WHERE flag OR a IN (SELECT a FROM u WHERE b > 3)",
    "SELECT t.id, u.id FROM t CROSS JOIN u WHERE t.id < 9",
    "SELECT t.id, u.id FROM t JOIN u ON t.a < u.b AND t.id < 20",
    "SELECT t.id, u.id FROM t LEFT JOIN u ON t.a > u.id",
    "SELECT x.id FROM t x JOIN t y ON x.id = y.a JOIN u ON u.id = y.id",
    "SELECT x.id, y.id FROM t x JOIN t y ON x.f = y.f WHERE x.id < 30 AND y.id < 30",
    "SELECT x.id FROM t x JOIN u y ON x.a IS NOT DISTINCT FROM y.a",
    "SELECT t.a FROM t INTERSECT SELECT u.a FROM u",
    "SELECT t.a FROM t EXCEPT SELECT u.a FROM u",
    "SELECT k, count(*) FROM (SELECT 5 AS k, u.id FROM u) q RIGHT JOIN t ON q.id = t.id GROUP BY k",
    // Scalar subqueries.
    "SELECT id FROM t WHERE b > (SELECT avg(b) FROM u)",
    "SELECT id, (SELECT max(id) FROM u) FROM t WHERE a = (SELECT min(a) FROM t)",
    "SELECT id FROM t WHERE a = (SELECT max(a) FROM empty)",
    "SELECT id FROM t WHERE b > (SELECT avg(b) FROM u WHERE u.a = t.a)",
    "SELECT a, sum(b) + (SELECT count(*) FROM u) FROM t GROUP BY a",
    "SELECT id, (SELECT id FROM u ORDER BY id LIMIT 1) AS least FROM t WHERE id < 4",
    "SELECT id, (SELECT sum(b) FROM u HAVING sum(b) < 0) FROM t WHERE id < 4",
    "SELECT id, (SELECT s FROM u WHERE id = 7), (SELECT d FROM u WHERE id > 100), (SELECT flag FROM u WHERE id = 5) FROM t",
    "SELECT id FROM t WHERE b > (SELECT DISTINCT b FROM u WHERE id = 5)",
    // Order and limits.
    "SELECT id, s FROM t ORDER BY s DESC NULLS LAST, id /* ordered */",
    "SELECT s FROM t ORDER BY id /* ordered */",
    "SELECT s, f FROM t ORDER BY f NULLS FIRST, id LIMIT 17 /* ordered */",
    "SELECT id + 1 FROM t ORDER BY b % 3, id LIMIT 5 OFFSET 3 /* ordered */",
    "SELECT upper(s) FROM t ORDER BY id LIMIT 4 /* ordered */",
    "SELECT a, count(*) FROM t GROUP BY a ORDER BY count(*) DESC, a LIMIT 3 /* ordered */",
    "SELECT id FROM (SELECT id, a FROM t ORDER BY id DESC LIMIT 30) q WHERE a > 2 ORDER BY id /* ordered */",
    "SELECT count(*) FROM (SELECT id FROM t WHERE id > -1 LIMIT 7) q",
    "SELECT count(*) FROM (SELECT id FROM t WHERE id > -1 LIMIT 7 OFFSET 116) q",
    "SELECT count(*) FROM (SELECT DISTINCT a FROM t WHERE id > -1 LIMIT 3) q",
    "SELECT max(b) FROM (SELECT b FROM t ORDER BY id LIMIT 10) q",
    // Twice the same.
    "WITH q AS (SELECT a, sum(b) AS x FROM t GROUP BY a) SELECT l.a, r.x FROM q l JOIN q r ON l.a = r.x",
    "WITH q AS (SELECT a, sum(b) AS x, max(d) AS y FROM t GROUP BY a) \
     SELECT a FROM q WHERE x > (SELECT avg(x) FROM q) AND y > (SELECT min(y) FROM q)",
];

/// Fused whole, their sets being a stream.
const GROUPING_SETS: &[&str] = &[
    "SELECT a, b, count(*), sum(d), min(s), max(day), count(s) FROM t GROUP BY ROLLUP (a, b)",
    "SELECT a, s, avg(b), avg(d), sum(b) FILTER (WHERE flag), avg(d) FILTER (WHERE id < 30) FROM t GROUP BY CUBE (a, s)",
    "SELECT a, flag, grouping(a), grouping(flag), grouping(a, flag), count(*) FROM t GROUP BY GROUPING SETS ((a), (flag), (), (a))",
    "SELECT a, s, count(DISTINCT b), sum(DISTINCT b) FROM t GROUP BY ROLLUP (a, s)",
    "SELECT a, f, sum(f), avg(f), stddev(b) FROM t WHERE f < 100 GROUP BY GROUPING SETS ((a, f), (f))",
    "SELECT upper(s) AS u, a + 1, count(*) FROM t GROUP BY ROLLUP (upper(s), a + 1) ORDER BY u, 2, 3 LIMIT 20 /* ordered */",
    "SELECT t.s, u.a, sum(t.d) FROM t JOIN u ON t.a = u.a GROUP BY CUBE (t.s, u.a) HAVING sum(t.d) > 0",
    "WITH q AS (SELECT a, b, sum(d) AS x FROM t GROUP BY ROLLUP (a, b)) SELECT l.a, r.x FROM q l JOIN q r ON l.a = r.b",
    "SELECT a, count(*), count(b), sum(b), avg(d), min(s) FROM empty GROUP BY ROLLUP (a)",
    "SELECT a, b, count(*) FROM empty GROUP BY GROUPING SETS ((), (a), (), (b))",
    "SELECT a, count(*), count(DISTINCT b), count(*) FILTER (WHERE b IS NULL), stddev(b) FROM empty GROUP BY ROLLUP (a)",
    "SELECT a, count(*), count(DISTINCT b), count(*) FILTER (WHERE b IS NULL), stddev(b) FROM t GROUP BY ROLLUP (a)",
    "SELECT a, count(*) FROM empty GROUP BY GROUPING SETS ((a), (a))",
    "SELECT a, avg(b) FROM t WHERE b IS NULL GROUP BY GROUPING SETS ((a), ())",
];

/// Parts of these stay DataFusion's.
const PARTLY: &[&str] = &[
    "SELECT a, sum(b) FROM (SELECT * FROM t UNION ALL SELECT * FROM u) q GROUP BY a",
    "SELECT id, row_number() OVER (PARTITION BY a ORDER BY id) FROM t WHERE id > 5",
    "SELECT a, sum(n) FROM (SELECT a, row_number() OVER (PARTITION BY a ORDER BY id) AS n FROM t) q GROUP BY a",
    "SELECT id, rank() OVER (ORDER BY a, id) FROM t ORDER BY id /* ordered */",
    "SELECT t.id, m.s FROM t JOIN m ON t.id = m.id WHERE m.b > 0",
    "SELECT a, count(*) FROM m GROUP BY a",
    "SELECT a, median(b), approx_distinct(s) FROM t WHERE id > 3 GROUP BY a",
    "SELECT x.a FROM (SELECT a, median(b) AS b FROM t GROUP BY a) x JOIN u ON x.b = u.b",
    "SELECT id FROM t WHERE b > (SELECT median(b) FROM u)",
    "SELECT id FROM t WHERE b > (SELECT median(b) FROM t WHERE b > (SELECT min(b) FROM u))",
    "SELECT array_length(array_agg(id)) FROM t GROUP BY a",
    "SELECT id, random() < 2 FROM t WHERE id < 4",
    "SELECT a, string_agg(s, ',' ORDER BY id) FROM t GROUP BY a",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT n, t.s FROM r JOIN t ON t.id = n",
    "SELECT * FROM (VALUES (1, 'x'), (2, 'y')) v(k, w) JOIN t ON t.id = v.k",
    "SELECT id, lag(id) OVER (ORDER BY id) FROM t ORDER BY a, id LIMIT 9 /* ordered */",
    "SELECT q.a, count(*) FROM (SELECT a FROM t UNION SELECT b FROM u) q JOIN t ON t.a = q.a GROUP BY q.a",
    "SELECT a, median(b) FROM (SELECT a, b FROM t WHERE id > 2 ORDER BY id LIMIT 50) q GROUP BY a ORDER BY a /* ordered */",
];

#[tokio::test]
async fn graphs_give_what_datafusion_gives() {
    for partitions in [1, 3] {
        let (_folder, context) = session(SessionConfig::new().with_target_partitions(partitions)).await;
        for sql in WHOLE {
            let ran = same(&context, sql).await;
            assert_eq!(ran.graphs.len(), 1, "{sql}: {}", ran.plan);
            assert!(ran.graphs[0].streams.is_empty(), "{sql}: {:?}", ran.reasons);
            assert_eq!(ran.reasons, [], "{sql}");
        }
    }
}

#[tokio::test]
async fn grouping_sets() {
    for partitions in [1, 3] {
        let (_folder, context) = session(SessionConfig::new().with_target_partitions(partitions)).await;
        for sql in GROUPING_SETS {
            let ran = same(&context, sql).await;
            assert_eq!(ran.graphs.len(), 1, "{sql}: {}", ran.plan);
            assert_eq!(ran.reasons, [], "{sql}");
        }
    }
}

#[tokio::test]
async fn a_scalar_subquery_of_several_rows_is_an_error() {
    let (_folder, context) = session(SessionConfig::new()).await;
    // Both fail, or `same` would.
    for sql in [
        "SELECT id, (SELECT a FROM u) FROM t",
        "SELECT id FROM t WHERE b > (SELECT b FROM u WHERE id < 9)",
    ] {
        let ran = same(&context, sql).await;
        assert_eq!((ran.graphs.len(), ran.rows), (1, 0), "{sql}");
    }
}

#[tokio::test]
async fn plans_without_the_rules_of_semantics() {
    let (_folder, context) = fill(SessionContext::new_with_config(SessionConfig::new())).await;
    // Those rules make floats compare as SQL has it, and keep errors to the rows that reach an expression.
    let differ = [" f ", "(f)", "a / b > 0"];
    for sql in WHOLE.iter().filter(|sql| !differ.iter().any(|part| sql.contains(part))) {
        let ran = same(&context, sql).await;
        assert_eq!(ran.graphs.len(), 1, "{sql}: {}", ran.plan);
        assert_eq!(ran.reasons, [], "{sql}");
    }
}

#[tokio::test]
async fn plans_around_graphs_give_what_datafusion_gives() {
    for partitions in [1, 3] {
        let (_folder, context) = session(SessionConfig::new().with_target_partitions(partitions)).await;
        for sql in PARTLY {
            let ran = same(&context, sql).await;
            assert!(ran.rows > 0, "{sql}");
            let whole = ran.graphs.len() == 1 && ran.graphs[0].streams.is_empty() && ran.reasons.is_empty();
            assert!(!whole, "{sql} is fused whole");
        }
    }
}

#[tokio::test]
async fn other_plans_of_the_same_statements() {
    let options = |config: SessionConfig| {
        let mut config = config.with_target_partitions(3);
        let options = config.options_mut();
        options.optimizer.hash_join_single_partition_threshold = 0;
        options.optimizer.hash_join_single_partition_threshold_rows = 0;
        options.execution.parquet.pushdown_filters = true;
        options.optimizer.repartition_file_min_size = 0;
        options.execution.collect_statistics = false;
        config
    };
    let (_folder, context) = session(options(SessionConfig::new())).await;
    for sql in WHOLE {
        let ran = same(&context, sql).await;
        assert!(!ran.graphs.is_empty(), "{sql}: {:?}", ran.reasons);
        assert_eq!(ran.reasons, [], "{sql}");
    }
}

/// Not all of them: DataFusion's merge join fails over filters that read one side only.
#[tokio::test]
async fn merge_joins() {
    let mut config = SessionConfig::new().with_target_partitions(3);
    config.options_mut().optimizer.prefer_hash_join = false;
    let (_folder, context) = session(config).await;
    let joins = [
        "SELECT t.id, u.id FROM t JOIN u ON t.a = u.a",
        "SELECT t.id, u.s FROM t JOIN u ON t.a = u.a AND t.b = u.b WHERE t.d > u.d",
        "SELECT t.id, u.id FROM t LEFT JOIN u ON t.id = u.id",
        "SELECT t.id, u.id, t.s, u.s FROM t FULL JOIN u ON t.id = u.id + 100",
        "SELECT id FROM t WHERE a IN (SELECT a FROM u WHERE flag)",
        "SELECT id FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.a = t.a)",
        "SELECT x.id FROM t x JOIN u y ON x.a IS NOT DISTINCT FROM y.a",
    ];
    for sql in joins {
        let ran = same(&context, sql).await;
        assert_eq!(ran.reasons, [], "{sql}");
    }
}

#[tokio::test]
async fn a_part_that_stands_twice_is_made_once() {
    let (_folder, context) = session(SessionConfig::new().with_target_partitions(3)).await;
    let sql = "WITH q AS (SELECT a, sum(b) AS x FROM t GROUP BY a) \
               SELECT l.a, l.x, r.x FROM q l JOIN q r ON l.a = r.a + 1";
    let lowered = fused(&plan(&context, sql).await).unwrap();
    let lines = explain::lines(&lowered.graph);
    let made = lines.iter().filter(|line| line.contains("aggregate")).count();
    assert_eq!(made, 1, "{lines:#?}");
    assert_eq!(lowered.scans.len(), 1);
}

#[tokio::test]
async fn only_columns_that_are_read_travel() {
    let (_folder, context) = session(SessionConfig::new().with_target_partitions(3)).await;
    let sql = "SELECT q.s FROM (SELECT t.s, t.d, u.b, u.f, u.id FROM t JOIN u ON t.a = u.a) q WHERE q.id > 5";
    let lowered = fused(&plan(&context, sql).await).unwrap();
    let scanned = lowered.graph.scans.iter().flat_map(|scan| &scan.columns);
    let mut scanned: Vec<_> = scanned.map(|column| column.name.as_str()).collect();
    scanned.sort_unstable();
    assert_eq!(scanned, ["a", "a", "id", "s"]);
    let built = lowered
        .graph
        .fragments
        .iter()
        .find(|fragment| matches!(fragment.sink, Sink::Build(_)));
    assert_eq!(built.unwrap().output, []);
}
