//! Limits and switches of the lake; the server's settings `lake.*`.

use std::path::PathBuf;
use std::time::Duration;

/// See the settings of the same names.
#[derive(Debug, Clone)]
pub struct LakeOptions {
    /// Off: stores are used as they are.
    pub enabled: bool,
    /// Bytes of the memory tier; 0 means none.
    pub memory_bytes: usize,
    /// Folder of the disk tier; none means no such tier.
    pub disk_dir: Option<PathBuf>,
    /// Bytes of the disk tier.
    pub disk_bytes: u64,
    /// Bytes of one slot of its file, from 1 MiB to 8 MiB: what is written and goes together.
    pub disk_slot_bytes: u64,
    /// Requests in flight per store: at the start, and at most.
    pub in_flight_start: usize,
    /// See `in_flight_start`.
    pub in_flight_max: usize,
    /// Ranges above `split_bytes` are cut into parts of `part_bytes`.
    pub part_bytes: u64,
    /// Longest range that is one request; merged ranges are no longer than this either.
    pub split_bytes: u64,
    /// A second request is sent for slow first bytes: at most so many per hundred requests; 0 means never.
    pub hedge_percent: u32,
    /// Attempts of a request before its error is given.
    pub attempts_max: u32,
    /// Longest time of one attempt; shorter deadlines follow from what is measured.
    pub attempt_timeout: Duration,
    /// No answer is late before this, whatever is measured: our own threads may be. No setting of the server's.
    pub late_min: Duration,
    /// Bytes that one query may have fetched ahead of need; 0 means no prefetch.
    pub window_bytes: usize,
}

impl Default for LakeOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            memory_bytes: 256 << 20,
            disk_dir: None,
            disk_bytes: 10 << 30,
            disk_slot_bytes: 4 << 20,
            in_flight_start: 64,
            in_flight_max: 256,
            part_bytes: 8 << 20,
            split_bytes: 16 << 20,
            hedge_percent: 5,
            attempts_max: 10,
            attempt_timeout: Duration::from_secs(30),
            late_min: Duration::from_millis(1500),
            window_bytes: 256 << 20,
        }
    }
}
