//! How many rows the fragments of a graph are expected to have: planner estimates, the node that runs the graph compares.

use std::fmt;

use trireme_device_api::{Graph, Value};

/// How a number of rows is known; the most trustworthy first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Provenance {
    /// Counted: by a footer or a log, or because it must be so.
    Exact,
    /// Counted when the fragment, or the same sub-plan, ran.
    Feedback,
    /// From counts of distinct values.
    Sketch,
    /// From distinct values that the column cache counted.
    Cache,
    /// From a sample of the table's rows.
    Sample,
    /// From the least and largest value.
    Bounds,
    /// A guess.
    Default,
}

impl Provenance {
    /// As EXPLAIN shows it.
    pub fn name(self) -> &'static str {
        match self {
            Provenance::Exact => "exact",
            Provenance::Feedback => "feedback",
            Provenance::Sketch => "sketch",
            Provenance::Cache => "cache",
            Provenance::Sample => "sample",
            Provenance::Bounds => "bounds",
            Provenance::Default => "default",
        }
    }
}

/// What is expected of a fragment.
#[derive(Debug, Clone, PartialEq)]
pub struct Expected {
    /// Rows of its source.
    pub source_rows: f64,
    /// Rows after each step.
    pub step_rows: Vec<f64>,
    /// Rows that it leaves: groups, build rows, or result rows.
    pub output_rows: f64,
    /// The least trustworthy of what these were made from.
    pub provenance: Provenance,
    /// What the rows that reach the sink are remembered by; none where they can't be, or are not all counted.
    pub sink_name: Option<u64>,
    /// The same of the rows that it leaves.
    pub output_name: Option<u64>,
}

impl Expected {
    /// Rows that reach the sink.
    pub fn sink_rows(&self) -> f64 {
        self.step_rows.last().copied().unwrap_or(self.source_rows)
    }
}

/// Estimates the rows of a graph that is kept with what is known of its inputs.
pub trait Expectations: fmt::Debug + Send + Sync {
    /// By fragment. `parameters` are the graph's, as far as they are known; `counted` the rows that fragments left which have
    /// run.
    fn rows(&self, graph: &Graph, parameters: &[Value], counted: &[Option<f64>]) -> Vec<Expected>;
}
