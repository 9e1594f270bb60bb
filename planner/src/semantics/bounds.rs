//! The physical rule that stops float columns' statistics from being taken for the truth.
//!
//! Smallest and largest value of a Parquet column leave NaN out, so they bound its other values only. DataFusion would read a
//! column whose exact bounds are equal as that one value, and answer `max` from them.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Result, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::DataSourceExec;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig, FileScanConfigBuilder};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;

/// See the module. It runs before all rules that read statistics.
#[derive(Debug)]
pub(super) struct FloatBounds;

impl PhysicalOptimizerRule for FloatBounds {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let scan = node
                .downcast_ref::<DataSourceExec>()
                .and_then(|source| source.data_source().downcast_ref::<FileScanConfig>());
            Ok(match scan.and_then(loosened_scan) {
                Some(scan) => Transformed::yes(DataSourceExec::from_data_source(scan) as Arc<dyn ExecutionPlan>),
                None => Transformed::no(node),
            })
        })
        .data()
    }

    fn name(&self) -> &str {
        "trireme_float_bounds"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The scan with inexact bounds; `None` where none is exact.
fn loosened_scan(scan: &FileScanConfig) -> Option<FileScanConfig> {
    let exact = |statistics: &Statistics| {
        statistics
            .column_statistics
            .iter()
            .any(|column| is_exact_float(&column.min_value) || is_exact_float(&column.max_value))
    };
    let whole = scan.statistics();
    let in_files = scan.file_groups.iter().any(|group| {
        group.file_statistics(None).is_some_and(exact)
            || group
                .files()
                .iter()
                .any(|file| file.statistics.as_deref().is_some_and(exact))
    });
    if !in_files && !exact(&whole) {
        return None;
    }
    let groups = scan.file_groups.iter().map(loosened_group).collect();
    let scan = FileScanConfigBuilder::from(scan.clone())
        .with_file_groups(groups)
        .with_statistics(loosened(&whole));
    Some(scan.build())
}

fn loosened_group(group: &FileGroup) -> FileGroup {
    let file = |file: &PartitionedFile| PartitionedFile {
        statistics: file
            .statistics
            .as_deref()
            .map(|statistics| Arc::new(loosened(statistics))),
        ..file.clone()
    };
    let loose = FileGroup::new(group.files().iter().map(file).collect());
    match group.file_statistics(None) {
        Some(statistics) => loose.with_statistics(Arc::new(loosened(statistics))),
        None => loose,
    }
}

fn loosened(statistics: &Statistics) -> Statistics {
    let mut loose = statistics.clone();
    for column in &mut loose.column_statistics {
        for bound in [&mut column.min_value, &mut column.max_value] {
            if is_exact_float(bound) {
                *bound = bound.clone().to_inexact();
            }
        }
    }
    loose
}

fn is_exact_float(bound: &Precision<ScalarValue>) -> bool {
    matches!(bound, Precision::Exact(value) if value.data_type().is_floating())
}
