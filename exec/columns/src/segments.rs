//! Segments of a file, and what its footer promises of them.
//!
//! ```text
//!  row groups   | 400 Ki | 400 Ki | 400 Ki |        | 2.5 Mi                      |
//!  segments     |   two groups    | group  |        | 1 Mi      | 1 Mi      | .5  |      never across files
//! ```

use parquet::data_type::AsBytes;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::statistics::Statistics;
use trireme_device_api::{Type, ZoneMap};

use crate::decode::Physical;

/// Rows of one row group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) row_group: usize,
    /// Rows of the group before the first one.
    pub(crate) skip: usize,
    /// Rows.
    pub(crate) rows: usize,
}

/// Rows of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Position in the scan's files.
    pub(crate) file: usize,
    /// Row of the file that is the first; names the segment in the cache.
    pub(crate) first_row: u64,
    pub(crate) rows: usize,
    pub(crate) parts: Vec<Part>,
}

/// Cuts a file into segments of at most so many rows. None is empty.
pub(crate) fn plan(file: usize, metadata: &ParquetMetaData, segment_rows: usize) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    let mut first_row = 0_u64;
    for (row_group, group) in metadata.row_groups().iter().enumerate() {
        let group_rows = usize::try_from(group.num_rows()).unwrap_or(0);
        for skip in (0..group_rows).step_by(segment_rows) {
            let rows = segment_rows.min(group_rows - skip);
            let part = Part { row_group, skip, rows };
            match segments.last_mut() {
                Some(last) if skip == 0 && rows == group_rows && last.rows + rows <= segment_rows => {
                    last.rows += rows;
                    last.parts.push(part);
                }
                _ => segments.push(Segment {
                    file,
                    first_row,
                    rows,
                    parts: vec![part],
                }),
            }
            first_row += rows as u64;
        }
    }
    segments
}

/// What the footer promises of a column of a segment. `null_count` is all rows when nothing is known, and then `known_nulls`
/// is false.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Promise {
    pub(crate) zone: ZoneMap,
    pub(crate) known_nulls: bool,
}

/// Of a column that pages or Arrow's reader give; `physical` is none where values are cast.
pub(crate) fn promise(
    metadata: &ParquetMetaData,
    segment: &Segment,
    leaf: usize,
    physical: Option<Physical>,
    data_type: &Type,
) -> Promise {
    let mut range: Option<(i128, i128)> = None;
    let (mut known_range, mut known_nulls, mut null_count) = (true, true, 0_usize);
    for part in &segment.parts {
        let group = metadata.row_group(part.row_group);
        let chunk = group.column(leaf);
        let nulls = nulls_of(chunk);
        match nulls {
            // A part of a group has at most the group's.
            Some(count) => null_count += count.min(part.rows),
            None => (known_nulls, null_count) = (false, null_count + part.rows),
        }
        if nulls.is_some_and(|count| i64::try_from(count) == Ok(group.num_rows())) {
            continue;
        }
        match physical.and_then(|physical| range_of(chunk, physical)) {
            Some((low, high)) => range = Some(range.map_or((low, high), |(l, h)| (l.min(low), h.max(high)))),
            None => known_range = false,
        }
    }
    let widest = data_type.value_range();
    let inside = |(low, high): &(i128, i128)| widest.is_some_and(|(least, most)| *low >= least && *high <= most);
    let range = match known_range {
        true => range.filter(inside).or(if range.is_some() { widest } else { None }),
        false => widest,
    };
    Promise {
        zone: ZoneMap {
            range,
            null_count,
            sorted: false,
            run_length: 1.0,
        },
        known_nulls,
    }
}

fn nulls_of(chunk: &ColumnChunkMetaData) -> Option<usize> {
    if chunk.column_descr().max_def_level() == 0 {
        return Some(0);
    }
    let count = chunk.statistics()?.null_count_opt()?;
    usize::try_from(count).ok()
}

fn range_of(chunk: &ColumnChunkMetaData, physical: Physical) -> Option<(i128, i128)> {
    let statistics = chunk.statistics()?;
    let unsigned = matches!(physical, Physical::UInt32 | Physical::UInt64);
    // The deprecated pair was compared as signed numbers, and strings of bytes as who knows.
    if statistics.is_min_max_deprecated() && !matches!(physical, Physical::Int32 | Physical::Int64) {
        return None;
    }
    let (low, high) = match statistics {
        Statistics::Int32(values) => {
            let of = |value: &i32| match unsigned {
                true => i128::from(value.cast_unsigned()),
                false => i128::from(*value),
            };
            (of(values.min_opt()?), of(values.max_opt()?))
        }
        Statistics::Int64(values) => {
            let of = |value: &i64| match unsigned {
                true => i128::from(value.cast_unsigned()),
                false => i128::from(*value),
            };
            (of(values.min_opt()?), of(values.max_opt()?))
        }
        Statistics::FixedLenByteArray(values) if statistics.min_is_exact() && statistics.max_is_exact() => (
            big_endian(values.min_opt()?.as_bytes())?,
            big_endian(values.max_opt()?.as_bytes())?,
        ),
        _ => return None,
    };
    (low <= high).then_some((low, high))
}

/// A signed number of at most 16 bytes, the most significant first.
pub(crate) fn big_endian(bytes: &[u8]) -> Option<i128> {
    let first = *bytes.first()?;
    let mut padded = [if first >= 0x80 { 0xff } else { 0 }; 16];
    padded
        .get_mut(16_usize.checked_sub(bytes.len())?..)?
        .copy_from_slice(bytes);
    Some(i128::from_be_bytes(padded))
}
