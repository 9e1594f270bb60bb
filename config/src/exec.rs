//! Settings of running queries: memory, parallelism, spilling.

use std::path::PathBuf;

settings! {
    /// How queries run.
    pub struct Exec = "exec" {
        /// Memory of all queries together; 0 means 60 % of the memory that the process may use.
        memory_bytes: usize = 0, Bytes, 0..=1 << 50;
        /// Memory of one query; 0 means as much as all together.
        query_memory_bytes: usize = 0, Bytes, 0..=1 << 50;
        /// Time after which memory that queries have freed goes back to the system, if none has needed it again.
        memory_return_ms: u64 = 60_000, Milliseconds, 0..=86_400_000;
        /// Parts of a query that run at the same time; 0 means one a core.
        target_partitions: usize = 0, Count("partitions"), 0..=4_096;
        /// Rows of the batches that flow between operators.
        batch_rows: usize = 8_192, Count("rows"), 1..=1_048_576;
        /// Memory of the column cache; 0 means a quarter of the memory that the process may use.
        column_cache_bytes: usize = 0, Bytes, 0..=1 << 50;
        /// Whether decoded columns are kept between queries, in the memory of devices as well.
        column_cache: bool = true, Plain;
        /// Shapes of queries whose plans are kept; 0 means none.
        plan_cache_shapes: usize = 1_024, Count("shapes"), 0..=1_000_000;
        /// Folder to which the graphs of fragments that run over local files are written, for benchmarks; "" means none are.
        graph_dir: Option<PathBuf> = None, Plain;
        /// Whether administrators may plant faults into their own queries with `SET trireme.inject`, for tests; without users, everybody is one.
        allow_inject: bool = false, Plain;
        /// Folder for what does not fit into memory; "" means `.trireme/spill` in the data folder.
        spill_dir: Option<PathBuf> = None, Plain;
        /// Most that may be spilled at the same time; 0 means no spilling.
        spill_max_bytes: u64 = 100 << 30, Bytes, 0..=1 << 60;
    }
}
