//! The column that says which rows of a file are still there: what a table's deletion vectors leave.

use arrow::array::BooleanBufferBuilder;
use arrow::buffer::BooleanBuffer;
use parquet::file::metadata::ParquetMetaData;
use trireme_device_api::{ColumnProfile, DeviceColumn, Type, Values, ZoneMap};

use crate::segments::Segment;

/// By file; none where all rows are there.
pub(crate) struct KeptRows {
    files: Vec<Option<BooleanBuffer>>,
}

impl KeptRows {
    pub(crate) fn new(files: Vec<Option<BooleanBuffer>>) -> Self {
        Self { files }
    }

    /// All rows of a segment. Rows that the file has and its deletion vector doesn't know are there.
    pub(crate) fn column(&self, segment: &Segment, metadata: &ParquetMetaData) -> DeviceColumn {
        let values = match &self.files[segment.file] {
            None => BooleanBuffer::new_set(segment.rows),
            Some(kept) => rows_of(kept, segment, metadata),
        };
        DeviceColumn {
            data_type: Type::Boolean,
            rows: segment.rows,
            values: Values::Booleans(values),
            validity: None,
            zone: Self::zone(),
        }
    }

    /// Nothing is said of its values: nobody prunes by them.
    pub(crate) fn zone() -> ZoneMap {
        ZoneMap {
            range: None,
            null_count: 0,
            sorted: false,
            run_length: 1.0,
        }
    }

    pub(crate) fn profile() -> ColumnProfile {
        ColumnProfile {
            data_type: Type::Boolean,
            range: Type::Boolean.is_integral().then_some((0, 0)),
            nullable: false,
            distinct: None,
            dictionary: None,
        }
    }
}

fn rows_of(kept: &BooleanBuffer, segment: &Segment, metadata: &ParquetMetaData) -> BooleanBuffer {
    let mut firsts = Vec::with_capacity(metadata.num_row_groups());
    let mut rows = 0;
    for group in metadata.row_groups() {
        firsts.push(rows);
        rows += usize::try_from(group.num_rows()).unwrap_or(0);
    }
    let mut values = BooleanBufferBuilder::new(segment.rows);
    for part in segment.parts.iter() {
        let first = (firsts[part.row_group] + part.skip).min(kept.len());
        let known = part.rows.min(kept.len() - first);
        values.append_buffer(&kept.slice(first, known));
        values.append_n(part.rows - known, true);
    }
    values.finish()
}
