//! The pages of a column, in order: levels, then values, whatever the type.
//!
//! ```text
//!  page      [ levels | v v v v ]          values stand densely in pages; `append` puts them so behind the rows before
//!  out       … | v v v v                   `spread` moves them to their rows, the last first:
//!              | v . v . . v v             the place of a NULL repeats the value before, so it is in range
//! ```

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::column::page::{Page, PageReader};
use parquet::errors::ParquetError;
use parquet::file::serialized_reader::SerializedPageReader;

use super::validity::Validity;
use super::{Failure, Task};
use crate::segments::{Part, is_partial};
use crate::source::Ranges;

/// Longer pages, of a few bytes of repeats, are for Arrow's reader, which makes batch after batch of them.
const PAGE_ROWS_MAX: usize = 16 << 20;

/// Why pages are not decoded.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum PageError {
    /// The page decoder doesn't know this; Arrow's reader may.
    Unknown,
    /// A value does not fit the carrier: once more, with a wider one.
    Narrow,
    /// What stands there can't be.
    Corrupt(String),
    /// All else.
    Failed(Failure),
}

impl PageError {
    pub(crate) fn corrupt(text: impl Into<String>) -> Self {
        PageError::Corrupt(text.into())
    }
}

impl From<ParquetError> for PageError {
    fn from(error: ParquetError) -> Self {
        PageError::Corrupt(error.to_string())
    }
}

/// Takes the values of pages.
pub(crate) trait Target {
    /// Rows so far.
    fn len(&self) -> usize;

    /// A dictionary page of `count` plain values, for the data pages after it.
    fn dictionary(&mut self, page: &Bytes, count: usize) -> Result<(), PageError>;

    /// Appends `count` values of a data page.
    fn append(&mut self, encoding: Encoding, page: &Bytes, count: usize) -> Result<(), PageError>;

    /// Moves the last `count` values to those of the last `rows` rows that are not NULL.
    fn spread(&mut self, rows: usize, count: usize, validity: &Validity);

    /// Of the rows from `from` on keeps only `ranges`, which ascend.
    fn keep(&mut self, from: usize, ranges: &[Range<usize>]);
}

/// Decodes all rows of the segment.
pub(crate) fn read(
    task: &Task<'_>,
    ranges: &Ranges,
    target: &mut impl Target,
    validity: &mut Validity,
) -> Result<(), PageError> {
    let ranges = Arc::new(ranges.clone());
    let groups = task
        .segment
        .parts
        .chunk_by(|left, right| left.row_group == right.row_group);
    for parts in groups {
        read_parts(task, &ranges, parts, target, validity)?;
    }
    Ok(())
}

/// Parts of one row group, in order.
fn read_parts(
    task: &Task<'_>,
    ranges: &Arc<Ranges>,
    parts: &[Part],
    target: &mut impl Target,
    validity: &mut Validity,
) -> Result<(), PageError> {
    let (Some(first), Some(last)) = (parts.first(), parts.last()) else {
        return Ok(());
    };
    let group = task.metadata.row_group(first.row_group);
    let chunk = group.column(task.leaf);
    let nullable = match chunk.column_descr().max_def_level() {
        0 => false,
        1 => true,
        _ => return Err(PageError::Unknown),
    };
    let group_rows = usize::try_from(group.num_rows()).unwrap_or(0);
    let known = (task.pages)(first.row_group).filter(|_| is_partial(parts, group_rows));
    let locations = known.map(|pages| pages.locations().to_vec());
    let mut pages = SerializedPageReader::new(Arc::clone(ranges), chunk, group_rows, locations)?;
    let wanted = |rows: Range<usize>| {
        let inside = move |part: &Part| part.skip.max(rows.start)..(part.skip + part.rows).min(rows.end);
        parts.iter().map(inside).filter(|run| !run.is_empty())
    };
    let end = last.skip + last.rows;
    let mut row = 0;
    while row < end {
        if parts.len() > 1 || row < first.skip {
            let next = pages.peek_next_page()?.filter(|next| !next.is_dict);
            let rows = next.and_then(|next| next.num_rows.or(next.num_levels));
            if let Some(rows) = rows.filter(|rows| *rows > 0 && *rows <= group_rows - row)
                && wanted(row..row + rows).next().is_none()
            {
                pages.skip_next_page()?;
                row += rows;
                continue;
            }
        }
        let page = pages
            .get_next_page()?
            .ok_or_else(|| PageError::corrupt("pages end early"))?;
        if let Page::DictionaryPage { buf, num_values, .. } = &page {
            target.dictionary(buf, *num_values as usize)?;
            continue;
        }
        let rows = page.num_values() as usize;
        if rows > group_rows - row {
            return Err(PageError::corrupt("more values than rows"));
        }
        if rows > PAGE_ROWS_MAX {
            return Err(PageError::Unknown);
        }
        if rows == 0 {
            continue;
        }
        let before = target.len();
        data_page(&page, nullable, target, validity)?;
        if target.len() != before + rows || validity.rows() != before + rows {
            return Err(PageError::corrupt("fewer values than rows"));
        }
        let moved = |run: Range<usize>| before + run.start - row..before + run.end - row;
        let kept: Vec<Range<usize>> = wanted(row..row + rows).map(moved).collect();
        if kept.as_slice() != std::slice::from_ref(&(before..before + rows)) {
            target.keep(before, &kept);
            validity.keep(before, &kept);
        }
        row += rows;
    }
    Ok(())
}

fn data_page(page: &Page, nullable: bool, target: &mut impl Target, validity: &mut Validity) -> Result<(), PageError> {
    let rows = page.num_values() as usize;
    let (levels, values, encoding) = match page {
        Page::DataPage {
            buf,
            encoding,
            def_level_encoding,
            ..
        } => {
            if !nullable {
                (Bytes::new(), buf.clone(), *encoding)
            } else if *def_level_encoding == Encoding::RLE {
                let (levels, values) = with_length(buf)?;
                (levels, values, *encoding)
            } else {
                return Err(PageError::Unknown);
            }
        }
        Page::DataPageV2 {
            buf,
            encoding,
            def_levels_byte_len,
            rep_levels_byte_len,
            ..
        } => {
            let start = *rep_levels_byte_len as usize;
            let end = start.saturating_add(*def_levels_byte_len as usize);
            if end > buf.len() {
                return Err(PageError::corrupt("levels end late"));
            }
            (buf.slice(start..end), buf.slice(end..), *encoding)
        }
        Page::DictionaryPage { .. } => return Err(PageError::Unknown),
    };
    let count = if nullable {
        validity.levels(&levels, rows)?
    } else {
        validity.all_valid(rows);
        rows
    };
    if count > 0 {
        target.append(encoding, &values, count)?;
    }
    if count < rows {
        target.spread(rows, count, validity);
    }
    Ok(())
}

/// Bytes after their length in 4 bytes, and the rest.
pub(crate) fn with_length(page: &Bytes) -> Result<(Bytes, Bytes), PageError> {
    let early = || PageError::corrupt("levels end early");
    let length = page.first_chunk::<4>().ok_or_else(early)?;
    let end = 4 + u32::from_le_bytes(*length) as usize;
    if end > page.len() {
        return Err(early());
    }
    Ok((page.slice(4..end), page.slice(end..)))
}

/// [`Target::spread`] for plain vectors. `validity` has the rows; `values` ends with `count` of them. NULLs before the first
/// value are the default.
pub(crate) fn spread<T: Copy + Default>(values: &mut Vec<T>, rows: usize, count: usize, validity: &Validity) {
    let start = values.len() - count;
    let first = validity.rows() - rows;
    let filler = match start {
        0 => T::default(),
        _ => values[start - 1],
    };
    values.resize(start + rows, filler);
    if count == 0 {
        return;
    }
    let out = &mut values[start..];
    let mut dense = count;
    for row in (0..rows).rev() {
        let value = out[dense.saturating_sub(1)];
        out[row] = if dense == 0 { filler } else { value };
        dense -= usize::from(validity.is_valid(first + row));
    }
}

/// [`Target::keep`] for plain vectors.
pub(crate) fn keep<T: Copy>(values: &mut Vec<T>, from: usize, ranges: &[Range<usize>]) {
    let mut end = from;
    for range in ranges {
        values.copy_within(range.clone(), end);
        end += range.len();
    }
    values.truncate(end);
}
