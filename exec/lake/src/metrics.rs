//! What the lake counts, for `/metrics`, `system.cache` and EXPLAIN ANALYZE.

use crate::read::AccountTotals;

/// One store's numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StoreMetrics {
    /// Scheme and bucket; no secrets, no user part.
    pub store: String,
    /// All reads since the start.
    pub totals: AccountTotals,
    /// Requests in flight now, and how many the controller allows.
    pub in_flight: usize,
    /// See `in_flight`.
    pub in_flight_limit: usize,
    /// Bytes per second that arrived lately, and what the controller believes the store can give.
    pub goodput_bytes_per_second: f64,
    /// See `goodput_bytes_per_second`.
    pub estimated_bytes_per_second: f64,
    /// First byte: median and 95th percentile of recent requests, seconds.
    pub first_byte_p50_seconds: f64,
    /// See `first_byte_p50_seconds`.
    pub first_byte_p95_seconds: f64,
    /// 503s and 429s.
    pub throttled: u64,
}

/// The process's numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LakeMetrics {
    /// By store.
    pub stores: Vec<StoreMetrics>,
    /// Bytes held by the memory tier, its budget, hits and misses.
    pub memory_used_bytes: u64,
    /// See `memory_used_bytes`.
    pub memory_budget_bytes: u64,
    /// See `memory_used_bytes`.
    pub memory_hits: u64,
    /// See `memory_used_bytes`.
    pub memory_misses: u64,
    /// The same of the disk tier.
    pub disk_used_bytes: u64,
    /// See `disk_used_bytes`.
    pub disk_budget_bytes: u64,
    /// See `disk_used_bytes`.
    pub disk_hits: u64,
    /// See `disk_used_bytes`.
    pub disk_misses: u64,
    /// Slots whose checksum was wrong, or that could not be read.
    pub disk_errors: u64,
    /// Why the disk tier is off although it was asked for.
    pub disk_off: Option<String>,
    /// Bytes fetched ahead and not yet taken, by all queries.
    pub window_used_bytes: u64,
    /// Most of them at the same time, so far.
    pub window_peak_bytes: u64,
}

/// One cached range, for `system.cache`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheRow {
    /// `memory` or `disk`.
    pub tier: &'static str,
    /// Scheme and bucket.
    pub store: String,
    /// Object.
    pub path: String,
    /// Its version.
    pub version: String,
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub bytes: u64,
    /// Times it was found.
    pub hits: u64,
}
