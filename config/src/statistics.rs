//! Settings of what is known of tables and plans beside their files' footers.

settings! {
    /// What plans are made by beside files' footers.
    pub struct Statistics = "statistics" {
        /// Sub-plans whose rows are remembered from their runs, for the plans to come; 0 means none.
        feedback_max: usize = 10_000, Count("sub-plans"), 0..=1_000_000;
        /// Rows of a table that ANALYZE keeps as a sample; 0 means none.
        sample_rows: usize = 10_000, Count("rows"), 0..=1_000_000;
    }
}
