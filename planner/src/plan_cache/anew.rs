//! When a kept plan is made anew: runs have counted, or ANALYZE has found, other numbers of rows than its joins were ordered by.
//!
//! Looked at after 1, 2, 4, 8, … uses, for the values that the plan was made for: those of others may differ as they like, within
//! what the plan's own assumptions allow. So looking costs nothing, and what is made anew at last is made by what its own runs
//! counted. One is made anew [`ANEW_MAX`] times at most.

use trireme_device_api::{Step, Value};
use trireme_exec::operators::{FragmentExec, FragmentPlan};

use super::shape::Shape;

/// Times that a shape's plan is made anew while its tables stay the same.
const ANEW_MAX: u32 = 8;
/// Rows that turn out so many times more or fewer may order joins otherwise.
const FACTOR: f64 = 3.0;
/// Differences of so few rows decide nothing.
const FEW_ROWS: f64 = 5_000.0;

/// What a kept plan was made by.
pub(super) struct MadeBy {
    /// With the values that it was made for.
    pub(super) shape: Shape,
    /// Times that it was made anew.
    pub(super) times: u32,
    /// Rows by fragment and step, as they were expected then; empty where there are no joins to order.
    rows: Vec<f64>,
}

impl MadeBy {
    pub(super) fn of(node: &FragmentExec, shape: &Shape, times: u32) -> Self {
        Self {
            rows: rows(node.plan(), &shape.values),
            shape: shape.clone(),
            times,
        }
    }

    /// Whether the plan is to be made anew, after so many uses.
    pub(super) fn is_outdated(&self, node: &FragmentExec, uses: u64) -> bool {
        if self.times >= ANEW_MAX || !uses.is_power_of_two() {
            return false;
        }
        let (plan, statistics) = (node.plan(), node.statistics());
        let is_sampled_since = plan
            .scans
            .iter()
            .any(|scan| scan.statistics.sketch.is_none() && statistics.sketches.get(scan.version()).is_some());
        is_sampled_since || differ(&self.rows, &rows(plan, &self.shape.values))
    }
}

fn rows(plan: &FragmentPlan, parameters: &[Value]) -> Vec<f64> {
    let steps = || plan.graph.fragments.iter().flat_map(|fragment| &fragment.steps);
    if !steps().any(|step| matches!(step, Step::Probe(_))) {
        return Vec::new();
    }
    let expected = plan.expectations.rows(&plan.graph, parameters, &[]);
    let of_fragment = expected.into_iter().flat_map(|expected| {
        let output = expected.output_rows;
        expected.step_rows.into_iter().chain([output])
    });
    of_fragment.collect()
}

fn differ(then: &[f64], now: &[f64]) -> bool {
    let far = |(then, now): (&f64, &f64)| {
        (then - now).abs() >= FEW_ROWS && (*now >= *then * FACTOR || *then >= *now * FACTOR)
    };
    then.iter().zip(now).any(far)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_rows_that_were_expected_to_be_few_are_another_plan() {
        assert!(differ(&[1e5, 10.0], &[1e5, 50_000.0]));
        assert!(differ(&[1e6], &[1e5]));
        assert!(!differ(&[1e5], &[2e5]), "not by much");
        assert!(!differ(&[10.0], &[4_000.0]), "too few to matter");
    }
}
