//! Settings of reading from object stores: requests, caches, prefetch.

use std::path::PathBuf;

settings! {
    /// How objects of remote stores are read ahead of need and kept near.
    pub struct Lake = "lake" {
        /// Whether remote stores are read through tiers, in parallel and with prefetch; off: as DataFusion reads them.
        enabled: bool = true, Plain;
        /// Memory for bytes of objects as the store has them; 0 means none.
        memory_bytes: usize = 256 << 20, Bytes, 0..=1 << 50;
        /// Folder for bytes of objects that outlive a restart; "" means `.trireme/cache` in the data folder.
        disk_dir: Option<PathBuf> = None, Plain;
        /// Disk for bytes of objects; 0 means none.
        disk_bytes: u64 = 0, Bytes, 0..=1 << 60;
        /// Bytes that one query may have fetched ahead of need, of its memory; 0 means no prefetch.
        window_bytes: usize = 512 << 20, Bytes, 0..=1 << 40;
        /// Requests in flight to one store at the start; what follows is measured.
        in_flight_start: usize = 64, Count("requests"), 1..=4_096;
        /// Requests in flight to one store at most.
        in_flight_max: usize = 256, Count("requests"), 1..=4_096;
        /// Second requests for first bytes that are late, per hundred requests; 0 means none.
        hedge_percent: usize = 5, Count("percent"), 0..=100;
        /// Attempts of a request before its error is the query's.
        attempts_max: usize = 10, Count("attempts"), 1..=100;
    }
}
