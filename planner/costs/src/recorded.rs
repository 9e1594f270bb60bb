//! Recorded workloads: graphs, what was known of their tables, true row counts and times on the processor. For regret, for the
//! fleet report, and for tests of the formulas on real queries.

use serde::{Deserialize, Serialize};
use trireme_device_api::{Graph, Value};

use crate::facts::{Facts, Known, Rows, ScanFacts};

/// Version of the serialised form.
pub const RECORDED_VERSION: u32 = 1;

/// A workload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Workload {
    /// [`RECORDED_VERSION`].
    pub version: u32,
    /// Name, for people.
    pub name: String,
    /// Its queries.
    pub queries: Vec<Query>,
}

/// A query, and its runs at several sizes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Query {
    /// Name, for people.
    pub name: String,
    /// Its fragments.
    pub graph: Graph,
    /// Values of its parameters.
    pub parameters: Vec<Value>,
    /// Runs.
    pub runs: Vec<Run>,
}

/// A run on the processor, over resident columns.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// Size of the data, for people.
    pub scale: String,
    /// Threads.
    pub workers: u32,
    /// Tables.
    pub scans: Vec<ScanFacts>,
    /// By fragment.
    pub fragments: Vec<FragmentRun>,
    /// The first run, from files, in all.
    pub cold_ms: f64,
}

/// What happened in a fragment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FragmentRun {
    /// Rows of the source, then rows after each step.
    pub step_rows: Vec<f64>,
    /// Rows it left.
    pub output_rows: f64,
    /// The least time of several runs.
    pub ms: f64,
}

/// What can be wrong with a recorded workload.
#[derive(Debug, thiserror::Error)]
pub enum RecordedError {
    /// Not JSON, or not of this form.
    #[error("the recorded workload can't be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// Written by another version.
    #[error("the recorded workload has version {0}; this program reads version {RECORDED_VERSION}")]
    Version(u32),
}

impl Workload {
    /// From JSON.
    ///
    /// # Errors
    /// When it is none of this version.
    pub fn from_json(text: &str) -> Result<Self, RecordedError> {
        let workload: Self = serde_json::from_str(text)?;
        match workload.version {
            RECORDED_VERSION => Ok(workload),
            other => Err(RecordedError::Version(other)),
        }
    }
}

impl Run {
    /// What the fragments need, by the rows that were really there.
    pub fn facts(&self, query: &Query) -> Facts {
        let mut known = Known::default();
        for (id, run) in self.fragments.iter().enumerate() {
            for (steps, rows) in run.step_rows.iter().enumerate() {
                known.steps.insert((id, steps), Rows::exact(*rows));
            }
            known.outputs.insert(id, Rows::exact(run.output_rows));
        }
        Facts::of(&query.graph, &self.scans, &[], &query.parameters, &known)
    }

    /// The same by what can be expected.
    pub fn estimated(&self, query: &Query) -> Facts {
        Facts::of(&query.graph, &self.scans, &[], &query.parameters, &Known::default())
    }
}

/// Tables and groups of fewer rows don't grow with the data.
const SMALL_ROWS: f64 = 1_000.0;

/// A row count of data that is so many times larger.
fn grown(rows: f64, factor: f64) -> f64 {
    if rows < SMALL_ROWS { rows } else { rows * factor }
}

impl Run {
    /// The run as it would be on data so many times larger: rows, keys and distinct values grow, small tables and few groups
    /// don't. Times are left as they are: they are nobody's then.
    pub fn grown(&self, factor: f64) -> Self {
        let mut run = self.clone();
        for scan in &mut run.scans {
            let rows = scan.rows.rows;
            scan.rows.rows = grown(rows, factor);
            for column in &mut scan.columns {
                let is_key = |values: f64| values >= SMALL_ROWS && values >= rows / 10.0;
                column.distinct = column
                    .distinct
                    .map(|values| if is_key(values) { values * factor } else { values });
                column.range = column.range.map(|(low, high)| match is_key(high - low) {
                    true => (low, low + (high - low) * factor),
                    false => (low, high),
                });
            }
        }
        for fragment in &mut run.fragments {
            fragment
                .step_rows
                .iter_mut()
                .for_each(|rows| *rows = grown(*rows, factor));
            fragment.output_rows = grown(fragment.output_rows, factor);
        }
        run
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recorded_workloads_are_whole() {
        for (text, queries) in [
            (include_str!("../testdata/tpch.json"), 22),
            (include_str!("../testdata/ssb.json"), 13),
            (include_str!("../testdata/clickbench.json"), 39),
        ] {
            let workload = Workload::from_json(text).unwrap();
            assert_eq!(workload.queries.len(), queries, "{}", workload.name);
            for query in &workload.queries {
                for run in &query.runs {
                    assert_eq!(run.scans.len(), query.graph.scans.len());
                    assert_eq!(run.fragments.len(), query.graph.fragments.len());
                    let facts = run.facts(query);
                    for (needs, ran) in facts.fragments.iter().zip(&run.fragments) {
                        assert_eq!(needs.sink_rows().rows, *ran.step_rows.last().unwrap(), "{}", query.name);
                        assert_eq!(needs.output_rows.rows, ran.output_rows, "{}", query.name);
                    }
                }
            }
        }
    }
}
