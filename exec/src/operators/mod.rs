//! Nodes of ours in DataFusion's plans.

mod expected;
mod fallbacks;
mod fragment;
mod placement;
pub(crate) mod reads;
mod run;
mod scan;
mod stream;

pub use expected::{Expectations, Expected, Provenance};
pub use fallbacks::fallbacks;
pub use fragment::{FragmentExec, FragmentPlan, PlanValidity};
pub use placement::{PlacementExec, PlacementFormat};
pub use scan::{ColumnSource, ColumnStatistics, FileColumn, FileScan, ScanStatistics};
