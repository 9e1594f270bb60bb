//! What scans of remote stores have read, for EXPLAIN ANALYZE.

use std::sync::Arc;

use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder};
use trireme_lake::{Account, AccountTotals};

use super::FragmentPlan;

/// Adds what was counted to a node's counters; what was read of local files counts nothing. The names begin with `prefix`.
pub(crate) fn tell_totals(metrics: &ExecutionPlanMetricsSet, prefix: &str, totals: &AccountTotals) {
    if *totals == AccountTotals::default() {
        return;
    }
    let counts = [
        ("used_bytes", totals.used_bytes),
        ("fetched_bytes", totals.fetched_bytes),
        ("gap_bytes", totals.gap_bytes),
        ("unused_bytes", totals.wasted_bytes),
        ("memory_tier_bytes", totals.memory_bytes),
        ("disk_tier_bytes", totals.disk_bytes),
        ("requests", totals.requests),
        ("hedges", totals.hedges),
        ("hedges_won", totals.hedges_won),
        ("retries", totals.retries),
        ("waits", totals.waits),
        ("wait_us", totals.wait_ns / 1_000),
        ("cancelled_ranges", totals.cancelled_ranges),
    ];
    for (name, count) in counts {
        tell(metrics, format!("{prefix}{name}"), count);
    }
}

/// Of each scan of a graph.
pub(super) fn tell_reads(metrics: &ExecutionPlanMetricsSet, plan: &FragmentPlan, accounts: &[Arc<Account>]) {
    for (at, (scan, account)) in plan.scans.iter().zip(accounts).enumerate() {
        let totals = account.totals();
        let prefix = format!("scan_{at}_{}_", scan.name);
        tell_totals(metrics, &prefix, &totals);
        if let Some(percent) = totals.hit_percent() {
            tell(metrics, format!("{prefix}hit_percent"), percent);
        }
        if totals.fetched_bytes > 0 {
            tell(metrics, format!("{prefix}goodput_bytes_per_s"), totals.goodput());
            tell(metrics, format!("{prefix}store_bytes_per_s"), totals.store_rate);
        }
    }
}

fn tell(metrics: &ExecutionPlanMetricsSet, name: String, count: u64) {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    MetricBuilder::new(metrics).global_counter(name).add(count);
}
