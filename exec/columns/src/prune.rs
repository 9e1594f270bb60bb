//! What no reader wants: row groups whose bounds rule out every row, before anything of them is read.
//!
//! ```text
//!  RowTest ── partition values, statistics of the footer ─▶ row groups that may hold wanted rows ─▶ parts of segments
//!  parts left:  all ─▶ the segment as it is     none ─▶ no segment     some ─▶ of a remote file: only these
//! ```
//!
//! A local file's segment is kept whole while one part of it is wanted: reading is cheap there, and all scans share what the
//! cache holds of it. What a statistic doesn't say for certain doesn't rule out anything.

use std::collections::HashMap;
use std::sync::Arc;

use parquet::basic::{ColumnOrder, SortOrder};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;
use trireme_device_api::{Bounds, RowTest, Value};

use crate::decode::Physical;
use crate::footer::{FileColumn, FileMeta};
use crate::scan::{Column, ColumnKind};
use crate::segments::{self, Part, Segment};

/// Decides about the row groups of a table.
pub(crate) struct Pruner<'a> {
    pub(crate) test: &'a RowTest,
    pub(crate) columns: &'a [Column],
    pub(crate) metas: &'a [Arc<FileMeta>],
}

impl Pruner<'_> {
    /// What is left of a segment: all, some parts, or nothing. `verdicts` remembers row groups.
    pub(crate) fn parts(&self, segment: &Segment, verdicts: &mut HashMap<(usize, usize), bool>) -> Vec<Part> {
        let mut wanted = |part: &&Part| {
            *verdicts
                .entry((segment.file, part.row_group))
                .or_insert_with(|| self.may_hold(segment.file, part.row_group))
        };
        segment.parts.iter().filter(|part| wanted(part)).copied().collect()
    }

    /// False when no row of the group passes.
    fn may_hold(&self, file: usize, row_group: usize) -> bool {
        self.test.may_pass(&mut |column, test| {
            let of = self.columns.get(column);
            of.is_none_or(|of| test.may_pass(&self.bounds(of, file, row_group)))
        })
    }

    /// What is known of a column's values in a row group.
    pub(crate) fn bounds(&self, column: &Column, file: usize, row_group: usize) -> Bounds {
        match &column.kind {
            ColumnKind::Constant(constants) => match constants.value(file) {
                Value::Null => all_null(),
                value => Bounds {
                    low: Some(value.clone()),
                    high: Some(value.clone()),
                    nulls: false,
                    values: true,
                },
            },
            ColumnKind::Kept(_) => Bounds {
                low: None,
                high: None,
                nulls: false,
                values: true,
            },
            ColumnKind::Stored { files, .. } => match &files[file] {
                FileColumn::Missing => all_null(),
                FileColumn::Pages { leaf, physical } => {
                    of_chunk(&self.metas[file].metadata, row_group, *leaf, Some(*physical))
                }
                FileColumn::Arrow { leaf } => of_chunk(&self.metas[file].metadata, row_group, *leaf, None),
            },
        }
    }
}

fn all_null() -> Bounds {
    Bounds {
        low: None,
        high: None,
        nulls: true,
        values: false,
    }
}

/// What the footer says of a chunk's values; `physical` is none where they are cast.
fn of_chunk(metadata: &ParquetMetaData, row_group: usize, leaf: usize, physical: Option<Physical>) -> Bounds {
    let group = metadata.row_group(row_group);
    let chunk = group.column(leaf);
    let nulls = segments::nulls_of(chunk);
    let range = physical.and_then(|physical| match segments::range_of(chunk, physical) {
        Some((low, high)) => Some((Value::Int(low), Value::Int(high))),
        None => other_range(chunk.statistics()?, physical, is_ordered(metadata, leaf)),
    });
    let (low, high) = range.unzip();
    Bounds {
        low,
        high,
        nulls: nulls != Some(0),
        values: nulls.is_none_or(|count| i64::try_from(count) != Ok(group.num_rows())),
    }
}

/// The bounds of a column of strings were found by comparing unsigned bytes.
pub(crate) fn is_ordered(metadata: &ParquetMetaData, leaf: usize) -> bool {
    let order = metadata.file_metadata().column_order(leaf);
    matches!(order, ColumnOrder::TYPE_DEFINED_ORDER(SortOrder::UNSIGNED))
}

/// Of columns that aren't integral. `ordered`: strings were compared as unsigned bytes.
fn other_range(statistics: &Statistics, physical: Physical, ordered: bool) -> Option<(Value, Value)> {
    if statistics.is_min_max_deprecated() {
        return None;
    }
    let (low, high) = match (statistics, physical) {
        (Statistics::Boolean(values), Physical::Boolean) => {
            (Value::Boolean(*values.min_opt()?), Value::Boolean(*values.max_opt()?))
        }
        // NaN is not in them, and a zero's sign means nothing: what decides by them knows both.
        (Statistics::Float(values), Physical::Float32) => (
            Value::Float((*values.min_opt()?).into()),
            Value::Float((*values.max_opt()?).into()),
        ),
        (Statistics::Double(values), Physical::Float64) => {
            (Value::Float(*values.min_opt()?), Value::Float(*values.max_opt()?))
        }
        // Cut off, the least is less and the greatest was made greater.
        (Statistics::ByteArray(_), Physical::Bytes) if ordered => (
            Value::Bytes(statistics.min_bytes_opt()?.into()),
            Value::Bytes(statistics.max_bytes_opt()?.into()),
        ),
        _ => return None,
    };
    let sound = match (&low, &high) {
        (Value::Float(low), Value::Float(high)) => low <= high,
        (Value::Bytes(low), Value::Bytes(high)) => low <= high,
        (Value::Boolean(low), Value::Boolean(high)) => low <= high,
        _ => false,
    };
    sound.then_some((low, high))
}
