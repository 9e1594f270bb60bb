//! Settings of what is known of tables and plans beside their files' footers.

settings! {
    /// What plans are made by beside files' footers.
    pub struct Statistics = "statistics" {
        /// Sub-plans whose rows are remembered from their runs, for the plans to come; 0 means none.
        feedback_max: usize = 10_000, Count("sub-plans"), 0..=1_000_000;
        /// Rows of a table that ANALYZE keeps as a sample; 0 means none.
        sample_rows: usize = 10_000, Count("rows"), 0..=1_000_000;
        /// Parquet files of a table on local disks up to which it is analysed unasked, in the background: when CREATE EXTERNAL
        /// TABLE registers it, and when it is used; 0 means never.
        sketch_below_bytes: u64 = 64 << 20, Bytes, 0..=1 << 40;
        /// Whether a table on local disks is analysed unasked when a statement uses it and nobody has analysed its files as they
        /// are. False leaves it to CREATE EXTERNAL TABLE and ANALYZE.
        sketch_on_use: bool = true, Plain;
        /// Values of samples that one plan may look at, so that planning stays quick; what is asked again costs nothing. With
        /// 0 no condition is evaluated over samples.
        sample_values_max: u64 = 2_000_000, Count("values"), 0..=1_000_000_000;
    }
}
