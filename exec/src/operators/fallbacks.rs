//! Which parts of a plan ran elsewhere than they were placed, and why, once it has run.

use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;

/// How the counters of [`super::run::tell_fallback`] begin.
pub(super) const FALLBACK: &str = "fallback (";

/// The reasons of a plan's fallbacks, each once; none when all ran where it was placed.
pub fn fallbacks(plan: &Arc<dyn ExecutionPlan>) -> Vec<String> {
    let mut found = Vec::new();
    collect(plan, &mut found);
    found
}

fn collect(plan: &Arc<dyn ExecutionPlan>, found: &mut Vec<String>) {
    for metric in plan.metrics().iter().flat_map(|metrics| metrics.iter()) {
        let reason = metric.value().name().strip_prefix(FALLBACK);
        if let Some(reason) = reason.and_then(|rest| rest.strip_suffix(')'))
            && !found.iter().any(|known| known == reason)
        {
            found.push(reason.to_owned());
        }
    }
    plan.children().into_iter().for_each(|child| collect(child, found));
}
