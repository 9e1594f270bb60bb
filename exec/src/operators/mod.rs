//! Nodes of ours in DataFusion's plans.

mod fragment;
mod run;
mod scan;
mod stream;

pub use fragment::{FragmentExec, FragmentPlan, PlanValidity};
pub use scan::{ColumnSource, ColumnStatistics, FileColumn, FileScan, ScanStatistics};
