//! What is refused, and that the reason says what it was.

use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal256Array, Int64Array, RecordBatch};
use datafusion::prelude::{ParquetReadOptions, SessionConfig};

use super::operators::session;
use super::run::same;
use super::{fused, joins, plan, tables};

#[tokio::test]
async fn reasons_name_what_is_missing() {
    let (_folder, context) = session(SessionConfig::new().with_target_partitions(3)).await;
    for (sql, wanted) in [
        ("SELECT a, median(b) FROM t GROUP BY a", "aggregate function median"),
        (
            "SELECT id FROM t UNION ALL SELECT id FROM u",
            "not among the fused operators",
        ),
        ("SELECT id, random() FROM t", "random is volatile"),
        ("SELECT make_array(id) FROM t", "List"),
        ("SELECT a FROM m", "not Parquet files"),
    ] {
        let reasons = same_reasons(&context, sql).await;
        assert!(
            reasons.iter().any(|reason| reason.contains(wanted)),
            "{sql}: {reasons:?}"
        );
    }
}

async fn same_reasons(context: &datafusion::prelude::SessionContext, sql: &str) -> Vec<String> {
    let plan = plan(context, sql).await;
    let backup = |_, backup| Ok(backup);
    let (_, reasons) = super::super::rewrite(plan, joins(), &|_| Ok(()), &backup).unwrap();
    reasons.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_column_of_a_type_that_is_not_fused_matters_only_if_it_is_read() {
    let (folder, context) = session(SessionConfig::new()).await;
    let wide = Decimal256Array::from_iter_values([1, 2].map(arrow::datatypes::i256::from_i128))
        .with_precision_and_scale(50, 2)
        .unwrap();
    let columns: [(&str, ArrayRef); 2] = [("k", Arc::new(Int64Array::from(vec![1, 2]))), ("w", Arc::new(wide))];
    let path = folder.path().join("wide.parquet");
    tables::write(&path, &RecordBatch::try_from_iter(columns).unwrap());
    context
        .register_parquet("wide", path.to_str().unwrap(), ParquetReadOptions::default())
        .await
        .unwrap();
    assert!(fused(&plan(&context, "SELECT k FROM wide WHERE k > 1").await).is_ok());
    let reason = fused(&plan(&context, "SELECT w FROM wide").await).unwrap_err();
    assert!(reason.contains("Decimal256"), "{reason}");
    // A join above what is refused still runs.
    let ran = same(
        &context,
        "SELECT t.id FROM t JOIN wide ON t.id = wide.k WHERE CAST(wide.w AS DOUBLE) > 0",
    )
    .await;
    assert_eq!(ran.rows, 2);
}

#[tokio::test]
async fn files_cut_into_ranges_are_whole_again() {
    let mut config = SessionConfig::new().with_target_partitions(5);
    config.options_mut().optimizer.repartition_file_min_size = 0;
    let (_folder, context) = session(config).await;
    let plan = plan(&context, "SELECT id FROM t WHERE a > 0").await;
    let text = datafusion::physical_plan::displayable(plan.as_ref())
        .indent(false)
        .to_string();
    assert!(text.contains("t.parquet:0.."), "{text}");
    let lowered = fused(&plan).unwrap();
    assert_eq!(lowered.scans[0].files.len(), 1);
    assert!(lowered.scans[0].files[0].range.is_none());
}
