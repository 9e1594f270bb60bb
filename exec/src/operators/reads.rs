//! What scans of remote stores have read, for EXPLAIN ANALYZE.

use std::sync::Arc;

use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder};
use trireme_lake::{Account, AccountTotals};

use super::FragmentPlan;

/// What was read of stores, for EXPLAIN ANALYZE; scans of local files count nothing.
pub(super) fn tell_reads(metrics: &ExecutionPlanMetricsSet, plan: &FragmentPlan, accounts: &[Arc<Account>]) {
    for (at, (scan, account)) in plan.scans.iter().zip(accounts).enumerate() {
        let totals = account.totals();
        if totals == AccountTotals::default() {
            continue;
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
            ("goodput_bytes_per_s", totals.goodput()),
            ("store_bytes_per_s", totals.store_rate),
            ("hit_percent", totals.hit_percent().unwrap_or(0)),
        ];
        for (name, count) in counts {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            MetricBuilder::new(metrics)
                .global_counter(format!("scan_{at}_{}_{name}", scan.name))
                .add(count);
        }
    }
}
