//! Settings of files and object stores.

settings! {
    /// How files and object stores are reached.
    pub struct Io = "io" {
        /// Folders and URLs beyond the data folder that SQL may read and write, such as "/srv/lake" or "s3://bucket/raw".
        allowed_locations: Vec<String> = Vec::new(), Plain;
        /// Memory for the metadata of files (Parquet footers, lists of files, statistics).
        metadata_cache_bytes: usize = 256 << 20, Bytes, 0..=1 << 40;
        /// A request to an object store that takes longer is tried again, then fails.
        request_timeout_ms: u64 = 30_000, Milliseconds, 1..=3_600_000;
        /// A connection to an object store that takes longer fails.
        connect_timeout_ms: u64 = 5_000, Milliseconds, 1..=600_000;
    }
}
