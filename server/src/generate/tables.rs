//! What the files of a data set are made from: tables whose rows can be made from any row on.

mod tpcds;
mod tpch;

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

pub(super) type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>>>;

/// A data set of a benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dataset {
    /// The eight tables of TPC-H.
    Tpch,
    /// The 24 tables of TPC-DS.
    Tpcds,
}

impl Dataset {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tpch => "tpch",
            Self::Tpcds => "tpcds",
        }
    }

    /// The longest to make first.
    pub(super) fn tables(self) -> &'static [&'static dyn Table] {
        match self {
            Self::Tpch => &tpch::TABLES,
            Self::Tpcds => &tpcds::TABLES,
        }
    }
}

/// One table of a data set.
pub(super) trait Table: Sync {
    fn name(&self) -> &'static str;

    /// Whether the table is small at every scale: it is one file with one row group.
    fn is_whole(&self) -> bool;

    /// Rows at `scale`, roughly: groups are planned by it.
    fn rows_about(&self, scale: f64) -> u64;

    /// The rows of part `part` (from 1) of `part_count`.
    fn batches(&self, scale: f64, part: usize, part_count: usize) -> Batches;

    fn schema(&self) -> SchemaRef;
}
