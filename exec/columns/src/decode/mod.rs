//! Decoding one column of one segment: which way, and what must hold afterwards.

mod arrow_reader;
mod booleans;
mod column;
pub(crate) mod encoded;
mod flat;
mod hybrid;
pub(crate) mod listed;
mod pages;
mod physical;
mod plain;
#[cfg(test)]
pub(crate) mod reference;
mod strings;
mod unpack;
mod validity;
mod zone;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use parquet::file::metadata::ParquetMetaData;
use trireme_device_api::{DeviceColumn, DeviceError, DevicePool, Reservation, Type, Values, ZoneMap};

use crate::dictionary::{Domain, Refused, TakeBytes};
use crate::metrics::add;
use crate::segments::{FindPages, Segment, chunk_range, is_partial};
use crate::source::{Ranges, Source};

use pages::PageError;
pub(crate) use physical::Physical;

/// Reads the range at a position of [`Task::ranges`].
pub(crate) type ReadRange<'a> = &'a dyn Fn(usize) -> Result<Bytes, DeviceError>;

/// What to decode.
pub(crate) struct Task<'a> {
    pub(crate) source: &'a Source,
    pub(crate) metadata: &'a Arc<ParquetMetaData>,
    pub(crate) segment: &'a Segment,
    pub(crate) leaf: usize,
    /// The column's bytes.
    pub(crate) ranges: &'a [Range<u64>],
    pub(crate) read: ReadRange<'a>,
    /// Where pages of chunks are that were not read whole.
    pub(crate) pages: FindPages<'a>,
    /// What pages hold; none when values are cast through Arrow.
    pub(crate) physical: Option<Physical>,
    pub(crate) data_type: &'a Type,
    pub(crate) name: &'a str,
    /// Bounds that were promised of an integral column; none when all rows are NULL.
    pub(crate) range: Option<(i128, i128)>,
    /// At most so many NULLs were promised.
    pub(crate) null_count: usize,
    pub(crate) shape: Shape<'a>,
    pub(crate) pool: &'a Arc<dyn DevicePool>,
    pub(crate) arrow_reads: &'a AtomicU64,
}

/// What strings become.
#[derive(Clone, Copy)]
pub(crate) enum Shape<'a> {
    /// Codes of a dictionary, which takes memory for new values.
    Codes(&'a Domain, TakeBytes<'a>),
    /// Strings; and all other types.
    Values,
}

/// Why there is no column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Failure {
    /// It can't be read or decoded.
    Device(DeviceError),
    /// It has too many values for a dictionary.
    TooMany,
}

impl From<DeviceError> for Failure {
    fn from(error: DeviceError) -> Self {
        Failure::Device(error)
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::TooMany => Failure::TooMany,
            Refused::Memory(error) => Failure::Device(error),
            Refused::NotText => DeviceError::Input("a string that is not UTF-8".to_owned()).into(),
        }
    }
}

impl From<Failure> for DeviceError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Device(error) => error,
            Failure::TooMany => DeviceError::Internal("a complete dictionary grew".to_owned()),
        }
    }
}

/// Decodes. Codes come with an empty dictionary: the scan knows theirs.
///
/// # Errors
/// [`Failure`]; what is corrupt is an input error, also when a library panics over it.
pub(crate) fn decode(task: &Task<'_>) -> Result<DeviceColumn, Failure> {
    let decoded = catch_unwind(AssertUnwindSafe(|| decode_unguarded(task)));
    decoded.unwrap_or_else(|_| Err(task.source.corrupt(format!("column {} is malformed", task.name)).into()))
}

fn decode_unguarded(task: &Task<'_>) -> Result<DeviceColumn, Failure> {
    let (ranges, _reservation) = chunks(task)?;
    let mut column = match task.physical.map(|physical| column::decode(task, &ranges, physical)) {
        Some(Ok(column)) => column,
        Some(Err(PageError::Failed(failure))) => return Err(failure),
        Some(Err(PageError::Corrupt(reason))) => {
            // Arrow's reader has the last word, as in a query that does not come here.
            add(task.arrow_reads, 1);
            let (ranges, _reservation) = whole_chunks(task, ranges)?;
            arrow_reader::decode(task, &ranges).map_err(|_| corrupt(task, reason))?
        }
        Some(Err(PageError::Unknown | PageError::Narrow)) | None => {
            add(task.arrow_reads, 1);
            let (ranges, _reservation) = whole_chunks(task, ranges)?;
            arrow_reader::decode(task, &ranges)?
        }
    };
    if column.rows != task.segment.rows {
        let (found, due) = (column.rows, task.segment.rows);
        return Err(corrupt(task, format!("{found} rows where {due} are due")).into());
    }
    let outside = |(low, high): (i128, i128)| task.range.is_none_or(|(least, most)| low < least || high > most);
    if let Some((low, high)) = column.zone.range.filter(|range| outside(*range)) {
        let text = format!("values from {low} to {high} are not what the file's statistics say");
        return Err(corrupt(task, text).into());
    }
    if column.zone.null_count > task.null_count {
        let (found, most) = (column.zone.null_count, task.null_count);
        let text = format!("{found} NULLs where the file's statistics say {most}");
        return Err(corrupt(task, text).into());
    }
    zone::sample_runs(&mut column);
    Ok(column)
}

fn corrupt(task: &Task<'_>, error: impl std::fmt::Display) -> DeviceError {
    task.source.corrupt(format!("column {}: {error}", task.name))
}

/// The column's chunks of the segment's row groups, reserved from the query's pool.
fn chunks(task: &Task<'_>) -> Result<(Ranges, Reservation), DeviceError> {
    let mut reservation = Reservation::new(task.pool);
    let mut ranges = Vec::with_capacity(task.ranges.len());
    for (at, range) in task.ranges.iter().enumerate() {
        let length = range.end.saturating_sub(range.start);
        reservation.grow(usize::try_from(length).unwrap_or(usize::MAX))?;
        ranges.push((range.start, (task.read)(at)?));
    }
    Ok((Ranges::new(task.source.size_bytes, ranges), reservation))
}

/// What Arrow's reader needs: all pages, also those that were left out.
fn whole_chunks(task: &Task<'_>, ranges: Ranges) -> Result<(Ranges, Reservation), DeviceError> {
    let mut reservation = Reservation::new(task.pool);
    let groups = task
        .segment
        .parts
        .chunk_by(|left, right| left.row_group == right.row_group);
    let mut groups = groups.filter_map(|parts| Some((parts.first()?.row_group, parts)));
    let rows = |row_group| usize::try_from(task.metadata.row_group(row_group).num_rows()).unwrap_or(0);
    if !groups.any(|(row_group, parts)| is_partial(parts, rows(row_group)) && (task.pages)(row_group).is_some()) {
        return Ok((ranges, reservation));
    }
    let mut whole: Vec<(u64, Bytes)> = Vec::new();
    for parts in task
        .segment
        .parts
        .chunk_by(|left, right| left.row_group == right.row_group)
    {
        let Some(part) = parts.first() else { continue };
        let range = chunk_range(task.metadata.row_group(part.row_group).column(task.leaf));
        let range = range.ok_or_else(|| corrupt(task, "its place is wrong"))?;
        reservation.grow(usize::try_from(range.end - range.start).unwrap_or(usize::MAX))?;
        whole.push((range.start, task.source.read(range)?));
    }
    Ok((Ranges::new(task.source.size_bytes, whole), reservation))
}

/// Bytes that the decoded column will have, about; not less for numbers.
pub(crate) fn estimate_bytes(task: &Task<'_>, uncompressed_bytes: usize) -> usize {
    let rows = task.segment.rows;
    let integral = || match task.range {
        Some((low, high)) => match (i64::try_from(low), i64::try_from(high)) {
            (Ok(low), Ok(high)) => column::width_and_base(low, high).0,
            _ => 16,
        },
        None => 1,
    };
    match task.data_type {
        Type::Null => 0,
        Type::Boolean => rows.div_ceil(8),
        Type::Float32 => rows * 4,
        Type::Float64 => rows * 8,
        Type::Interval(_) => rows * 16,
        data_type if data_type.is_bytes() => match task.shape {
            Shape::Codes(..) => rows * 4,
            Shape::Values => {
                let unencoded = |part: &crate::segments::Part| {
                    let group = task.metadata.row_group(part.row_group);
                    let bytes = usize::try_from(group.column(task.leaf).unencoded_byte_array_data_bytes()?).ok()?;
                    let group_rows = usize::try_from(group.num_rows()).ok()?;
                    Some(match part.rows < group_rows {
                        true => bytes / group_rows * part.rows + bytes / 8,
                        false => bytes,
                    })
                };
                let bytes: Option<usize> = task.segment.parts.iter().map(unencoded).sum();
                bytes.unwrap_or(uncompressed_bytes) + (rows + 1) * 4
            }
        },
        _ => rows * integral(),
    }
}

/// A column of a file that hasn't it.
pub(crate) fn nulls(rows: usize, data_type: &Type) -> DeviceColumn {
    DeviceColumn {
        data_type: data_type.clone(),
        rows,
        values: Values::Nulls,
        validity: None,
        zone: ZoneMap {
            range: None,
            null_count: rows,
            sorted: true,
            run_length: rows as f32,
        },
    }
}
