//! What the column cache knows of a table because it holds its columns.

use trireme_columns::{ColumnCache, TableFile};
use trireme_device_api::Type;

use crate::operators::{ColumnSource, FileColumn, FileScan};

/// Distinct values of a scan's column: those of its dictionary, or of integral values in ascending order.
pub fn distinct(columns: &ColumnCache, scan: &FileScan, column: &FileColumn) -> Option<f64> {
    if column.source != ColumnSource::File {
        return None;
    }
    if column.data_type.is_bytes() {
        return columns.distinct(&scan.name, &column.name).map(|count| count as f64);
    }
    let is_counted = column.data_type.is_integral() && column.data_type != Type::Boolean;
    let rows = scan.statistics.rows.filter(|_| is_counted)?;
    let files = scan.files.iter().map(|file| TableFile::new(&file.object_meta));
    columns.distinct_in_order(scan.store.as_str(), files, &column.name, rows)
}
