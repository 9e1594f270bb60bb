//! What running a fragment would cost. Units stand in every name.

/// What a fragment is expected to meet.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Workload {
    /// Rows of the source.
    pub rows: f64,
    /// Bytes of the source's carriers.
    pub bytes: f64,
    /// Rows that reach the sink.
    pub output_rows: f64,
    /// Groups, or build rows, of the sink's table.
    pub table_rows: f64,
}

/// A prediction.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    /// Time until the last row.
    pub total_ns: f64,
    /// Memory held at the worst moment.
    pub memory_bytes: f64,
}
