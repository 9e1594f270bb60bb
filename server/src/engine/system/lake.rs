//! `system.cache` and `system.stores`: bytes of objects that are kept near, and the stores they come from.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch};
use datafusion::error::Result;
use trireme_lake::{AccountTotals, CacheRow, StoreMetrics};

use super::{batch, number, text};

/// `system.cache`.
pub(super) fn cache(rows: &[CacheRow]) -> Result<RecordBatch> {
    batch(vec![
        ("tier", text(rows, |row| row.tier)),
        ("store", text(rows, |row| &row.store)),
        ("path", text(rows, |row| &row.path)),
        ("version", text(rows, |row| &row.version)),
        ("start", number(rows, |row| Some(row.start))),
        ("bytes", number(rows, |row| Some(row.bytes))),
        ("hits", number(rows, |row| Some(row.hits))),
    ])
}

/// `system.stores`.
pub(super) fn stores(rows: &[StoreMetrics]) -> Result<RecordBatch> {
    let count = |value: fn(&AccountTotals) -> u64| number(rows, |row| Some(value(&row.totals)));
    let real = |value: fn(&StoreMetrics) -> f64| -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(value(row))).collect::<Float64Array>())
    };
    batch(vec![
        ("store", text(rows, |row| &row.store)),
        ("requests", count(|totals| totals.requests)),
        ("needed_bytes", count(|totals| totals.needed_bytes)),
        ("fetched_bytes", count(|totals| totals.fetched_bytes)),
        ("gap_bytes", count(|totals| totals.gap_bytes)),
        ("unused_bytes", count(|totals| totals.wasted_bytes)),
        ("memory_bytes", count(|totals| totals.memory_bytes)),
        ("disk_bytes", count(|totals| totals.disk_bytes)),
        ("hedges", count(|totals| totals.hedges)),
        ("hedges_won", count(|totals| totals.hedges_won)),
        ("hedge_bytes", count(|totals| totals.hedge_bytes)),
        ("retries", count(|totals| totals.retries)),
        ("throttled", number(rows, |row| Some(row.throttled))),
        ("in_flight", number(rows, |row| Some(row.in_flight as u64))),
        ("in_flight_limit", number(rows, |row| Some(row.in_flight_limit as u64))),
        ("goodput_bytes_per_second", real(|row| row.goodput_bytes_per_second)),
        ("estimated_bytes_per_second", real(|row| row.estimated_bytes_per_second)),
        ("first_byte_p50_seconds", real(|row| row.first_byte_p50_seconds)),
        ("first_byte_p95_seconds", real(|row| row.first_byte_p95_seconds)),
    ])
}
