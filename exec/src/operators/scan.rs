//! What a scan of a graph is bound to: planner says which files and columns, the column cache brings them.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::execution::object_store::ObjectStoreUrl;
use trireme_device_api::Type;

use crate::statistics::{TableSketch, version};

/// Files of one table, and the columns that a graph reads of them.
#[derive(Debug, Clone)]
pub struct FileScan {
    /// Where the files are.
    pub store: ObjectStoreUrl,
    /// Name, for people.
    pub name: String,
    /// Each whole file once, in any order.
    pub files: Vec<PartitionedFile>,
    /// Columns, in the order of the graph's scan.
    pub columns: Vec<FileColumn>,
    /// The table's schema, without partition columns.
    pub file_schema: SchemaRef,
    /// What is expected of the rows; nothing is run by it.
    pub statistics: ScanStatistics,
}

impl FileScan {
    /// Names the files in their present state.
    pub fn version(&self) -> u64 {
        self.statistics
            .version
            .unwrap_or_else(|| version(self.store.as_str(), self.files.iter()))
    }
}

/// What is known of a table's rows before they are read.
#[derive(Debug, Clone, Default)]
pub struct ScanStatistics {
    /// Rows.
    pub rows: Option<f64>,
    /// Of the files, when it was made out already.
    pub version: Option<u64>,
    /// What ANALYZE found of these files.
    pub sketch: Option<Arc<TableSketch>>,
    /// By column of the scan; may be shorter.
    pub columns: Vec<ColumnStatistics>,
}

/// What is known of a column.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ColumnStatistics {
    /// Distinct values.
    pub distinct: Option<f64>,
    /// Smallest and largest value of an integral column, in units of its values (decimals unscaled, dates in days).
    pub range: Option<(f64, f64)>,
    /// The part of the rows that is NULL.
    pub nulls: Option<f64>,
    /// `distinct` is what the column cache counted.
    pub cached: bool,
}

/// One column of a scan.
#[derive(Debug, Clone, PartialEq)]
pub struct FileColumn {
    /// Name in the files.
    pub name: String,
    /// Type that the plan expects.
    pub data_type: Type,
    /// Where its values are.
    pub source: ColumnSource,
}

/// Where a column's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnSource {
    /// In the files, by name.
    File,
    /// In the file's partition values, by position.
    Partition(usize),
    /// Made: true for the rows that the file's row selection keeps.
    Kept,
}
