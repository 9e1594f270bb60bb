//! Finds the damaged file behind a failed scan.
//!
//! Readers report what is wrong inside a file, rarely which file it was. Only after a failure, the files of the plan's scans
//! are read one by one until one fails in the same way.

use std::sync::Arc;
use std::time::Duration;

use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig, FileScanConfigBuilder};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::StreamExt;

/// How long the search may take: a guess without a name is better than a statement that doesn't end.
const SEARCH_TIME_MAX: Duration = Duration::from_secs(10);

/// The first file of the plan that can't be read to its end, as a path in its store.
pub async fn damaged_file(plan: &Arc<dyn ExecutionPlan>, context: &Arc<TaskContext>) -> Option<String> {
    let mut scans = Vec::new();
    collect(plan, &mut scans);
    tokio::time::timeout(SEARCH_TIME_MAX, search(scans, context))
        .await
        .ok()
        .flatten()
}

fn collect(plan: &Arc<dyn ExecutionPlan>, scans: &mut Vec<FileScanConfig>) {
    let source = plan.downcast_ref::<DataSourceExec>().map(DataSourceExec::data_source);
    if let Some(scan) = source.and_then(|source| source.downcast_ref::<FileScanConfig>()) {
        scans.push(scan.clone());
    }
    plan.children().into_iter().for_each(|child| collect(child, scans));
}

async fn search(scans: Vec<FileScanConfig>, context: &Arc<TaskContext>) -> Option<String> {
    for scan in scans {
        for file in scan.file_groups.iter().flat_map(|group| group.files().iter()) {
            let name = file.object_meta.location.to_string();
            let alone = FileScanConfigBuilder::from(scan.clone())
                .with_file_groups(vec![FileGroup::new(vec![file.clone()])])
                .build();
            if !readable(DataSourceExec::from_data_source(alone), context).await {
                return Some(name);
            }
        }
    }
    None
}

async fn readable(scan: Arc<dyn ExecutionPlan>, context: &Arc<TaskContext>) -> bool {
    let Ok(mut batches) = execute_stream(scan, Arc::clone(context)) else {
        return false;
    };
    while let Some(batch) = batches.next().await {
        if batch.is_err() {
            return false;
        }
    }
    true
}
