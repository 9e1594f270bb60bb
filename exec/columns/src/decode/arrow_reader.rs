//! Decoding through Parquet's Arrow reader: for types that take a cast and pages that the page decoder doesn't know.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, new_empty_array};
use arrow::compute::{CastOptions, cast_with_options, concat};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::util::display::FormatOptions;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};
use trireme_device_api::{Codes, DeviceColumn, DeviceError, Strings, Type, Values};

use super::column::with_codes;
use super::{Failure, Shape, Task, corrupt};
use crate::source::Ranges;

/// Rows of a batch.
const BATCH_ROWS: usize = 64 << 10;

/// The column, as [`super::decode`] gives it, with a zone map.
pub(crate) fn decode(task: &Task<'_>, ranges: &Ranges) -> Result<DeviceColumn, Failure> {
    let array = read(task, ranges)?;
    let array = cast(task, array)?;
    let column = DeviceColumn::from_arrow(&array, task.data_type)?;
    if !task.data_type.is_bytes() {
        return Ok(column);
    }
    let values = match task.shape {
        Shape::Codes(domain, take) => {
            let mut interner = domain.lock();
            let mut rows_before = 0;
            let code = |value: &[u8]| {
                rows_before += 1;
                interner.intern(value, false, rows_before, take)
            };
            coded(&column, code)?
        }
        Shape::Values => Values::Strings(spelled_out(&column)),
    };
    Ok(DeviceColumn { values, ..column })
}

fn read(task: &Task<'_>, ranges: &Ranges) -> Result<ArrayRef, Failure> {
    let failed = |error: parquet::errors::ParquetError| Failure::Device(corrupt(task, error));
    let metadata =
        ArrowReaderMetadata::try_new(Arc::clone(task.metadata), ArrowReaderOptions::new()).map_err(failed)?;
    let mask = ProjectionMask::leaves(task.metadata.file_metadata().schema_descr(), [task.leaf]);
    let mut groups: Vec<usize> = task.segment.parts.iter().map(|part| part.row_group).collect();
    groups.dedup();
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(ranges.clone(), metadata)
        .with_projection(mask)
        .with_row_groups(groups)
        .with_row_selection(selection(task))
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(failed)?;
    let mut arrays = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|error| corrupt(task, error))?;
        arrays.push(Arc::clone(batch.column(0)));
    }
    if arrays.is_empty() {
        return Ok(new_empty_array(&task.data_type.to_arrow()));
    }
    let views: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
    Ok(concat(&views).map_err(|error| match error {
        ArrowError::OffsetOverflowError(_) => {
            DeviceError::Unsupported("more than 2 GiB of strings in one segment".to_owned())
        }
        error => corrupt(task, error),
    })?)
}

/// The segment's rows among those of its row groups.
fn selection(task: &Task<'_>) -> RowSelection {
    let mut selectors = Vec::new();
    for parts in task
        .segment
        .parts
        .chunk_by(|left, right| left.row_group == right.row_group)
    {
        let mut row = 0;
        for part in parts {
            selectors.push(RowSelector::skip(part.skip.saturating_sub(row)));
            selectors.push(RowSelector::select(part.rows));
            row = part.skip + part.rows;
        }
        let group = parts
            .first()
            .map(|part| task.metadata.row_group(part.row_group).num_rows());
        let rows = group.and_then(|rows| usize::try_from(rows).ok()).unwrap_or(0);
        selectors.push(RowSelector::skip(rows.saturating_sub(row)));
    }
    selectors.into()
}

fn cast(task: &Task<'_>, array: ArrayRef) -> Result<ArrayRef, Failure> {
    let wanted = task.data_type.to_arrow();
    let found = match array.data_type() {
        DataType::Dictionary(_, values) => values.as_ref(),
        other => other,
    };
    let as_it_is = match Type::from_arrow(found) {
        Ok(found) if found.is_bytes() => found.is_text() == task.data_type.is_text() && task.data_type.is_bytes(),
        _ => *array.data_type() == wanted,
    };
    if as_it_is {
        return Ok(array);
    }
    let options = CastOptions {
        safe: false,
        format_options: FormatOptions::default(),
    };
    Ok(cast_with_options(&array, &wanted, &options).map_err(|error| corrupt(task, error))?)
}

fn coded<E>(column: &DeviceColumn, mut code: impl FnMut(&[u8]) -> Result<u32, E>) -> Result<Values, E> {
    let mut codes = Vec::with_capacity(column.rows);
    match &column.values {
        Values::Codes { codes: of, dictionary } => {
            let mut known: Vec<Option<u32>> = vec![None; dictionary.len()];
            for row in 0..column.rows {
                if column.is_null(row) {
                    codes.push(0);
                    continue;
                }
                let slot = of.get(row);
                let found = match known[slot as usize] {
                    Some(found) => found,
                    None => *known[slot as usize].insert(code(dictionary.get(slot))?),
                };
                codes.push(found);
            }
        }
        Values::Strings(strings) => {
            for row in 0..column.rows {
                codes.push(if column.is_null(row) {
                    0
                } else {
                    code(strings.get(row))?
                });
            }
        }
        _ => codes.resize(column.rows, 0),
    }
    Ok(with_codes(smallest(codes)))
}

fn smallest(codes: Vec<u32>) -> Codes {
    match codes.iter().max() {
        None | Some(0..=0xff) => Codes::U8(codes.iter().map(|code| *code as u8).collect::<Vec<_>>().into()),
        Some(0x100..=0xffff) => Codes::U16(codes.iter().map(|code| *code as u16).collect::<Vec<_>>().into()),
        _ => Codes::U32(codes.into()),
    }
}

fn spelled_out(column: &DeviceColumn) -> Strings {
    match &column.values {
        Values::Strings(strings) => strings.clone(),
        Values::Codes { codes, dictionary } => {
            let value = |row: usize| match column.is_null(row) {
                true => &[][..],
                false => dictionary.get(codes.get(row)),
            };
            Strings::from_values((0..column.rows).map(value))
        }
        _ => Strings::from_values((0..column.rows).map(|_| &[][..])),
    }
}
