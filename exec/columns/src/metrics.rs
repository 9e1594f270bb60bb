//! What the cache counts and shows.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the start, and what is held now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Columns of segments found.
    pub hits: u64,
    /// Columns of segments decoded.
    pub misses: u64,
    /// Of these, not kept: they didn't fit, or the cache is off.
    pub uncached: u64,
    /// Columns of segments let go to make room, under pressure or because their file changed.
    pub evictions: u64,
    /// Bytes of columns decoded.
    pub decoded_bytes: u64,
    /// Time that took, over all threads.
    pub decode_ns: u64,
    /// Segments' columns that went through Parquet's Arrow reader.
    pub arrow_reads: u64,
    /// Bytes held, pinned ones and dictionaries included.
    pub used_bytes: u64,
    /// Bytes that may be held.
    pub budget_bytes: u64,
    /// Columns of segments held.
    pub entries: u64,
}

/// One column of one segment, for `system.columns`.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnRow {
    /// [`crate::TableFiles::name`] of the scan that decoded it.
    pub table: String,
    /// Column.
    pub column: String,
    /// URL of the store.
    pub store_url: String,
    /// File within it.
    pub file: String,
    /// Version of the file.
    pub version: String,
    /// Row of the file that is the segment's first.
    pub first_row: u64,
    /// Rows.
    pub rows: u64,
    /// SQL type, as Arrow writes it.
    pub data_type: String,
    /// Carrier: `int16`, `code8`, `string`, …
    pub carrier: &'static str,
    /// Memory.
    pub bytes: u64,
    /// Rows that are NULL.
    pub null_count: u64,
    /// Scans that found it.
    pub hits: u64,
    /// Time it took to decode.
    pub decode_ns: u64,
    /// A scan holds it.
    pub pinned: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) uncached: AtomicU64,
    pub(crate) evictions: AtomicU64,
    pub(crate) decoded_bytes: AtomicU64,
    pub(crate) decode_ns: AtomicU64,
    pub(crate) arrow_reads: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

pub(crate) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
