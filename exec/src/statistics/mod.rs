//! What is known of tables and plans beside their files' footers: counts of earlier runs, and what ANALYZE sampled.
//!
//! Both are found by what the files are, not by what a table is called: a file that changed makes another version, under which
//! nothing is found. Nothing here decides a result; what is wrong or missing costs time only.

pub mod cached;
pub mod feedback;
pub mod sketches;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::DataSourceExec;
use datafusion::datasource::physical_plan::parquet::ParquetRowSelection;
use datafusion::datasource::physical_plan::{FileScanConfig, ParquetSource};
use datafusion::physical_plan::ExecutionPlan;

pub use feedback::{Counted, Feedback, FeedbackCounts};
pub use sketches::Sketches;
use trireme_costs::rows::SAMPLE_VALUES_MAX;
pub use trireme_costs::rows::{TableSketch, mix};

/// Everything that is known of tables and plans.
#[derive(Debug)]
pub struct Statistics {
    /// What runs counted.
    pub feedback: Feedback,
    /// What ANALYZE found.
    pub sketches: Arc<Sketches>,
    /// Values of samples that one plan may look at; 0: none, but what was found before.
    pub sample_values_max: u64,
}

impl Default for Statistics {
    fn default() -> Self {
        Self {
            feedback: Feedback::default(),
            sketches: Arc::default(),
            sample_values_max: SAMPLE_VALUES_MAX,
        }
    }
}

/// Names the files that a plan reads in their present state; none where it reads no files.
pub fn version_of(plan: &Arc<dyn ExecutionPlan>) -> Option<u64> {
    let config = file_scan(plan)?;
    let files = config.file_groups.iter().flat_map(|group| group.files());
    Some(version(config.object_store_url.as_str(), files))
}

/// The one scan of Parquet files in a plan.
pub fn file_scan(plan: &Arc<dyn ExecutionPlan>) -> Option<&FileScanConfig> {
    if let Some(source) = plan.downcast_ref::<DataSourceExec>() {
        return Some(source.downcast_to_file_source::<ParquetSource>()?.0);
    }
    let mut found = plan.children().into_iter().filter_map(file_scan);
    let only = found.next();
    // Of several scans none is the table.
    only.filter(|_| found.next().is_none())
}

/// Names a set of files in their present state, in any order and each as often as it stands there.
pub fn version<'f>(store: &str, files: impl Iterator<Item = &'f PartitionedFile>) -> u64 {
    let mut seen = HashSet::new();
    let mut sum = 0_u64;
    for file in files {
        let meta = &file.object_meta;
        if !seen.insert(&meta.location) {
            continue;
        }
        let mut hasher = DefaultHasher::new();
        let modified = meta.last_modified.timestamp_nanos_opt();
        (store, &meta.location, meta.size, modified, &meta.e_tag, &meta.version).hash(&mut hasher);
        if let Some(selection) = file.extension::<ParquetRowSelection>() {
            for run in selection.selection().iter() {
                (run.row_count, run.skip).hash(&mut hasher);
            }
        }
        sum = sum.wrapping_add(mix(hasher.finish()));
    }
    mix(sum)
}
