//! What files say of chunks beyond their footers: where pages are and what bounds they have, and Bloom filters.
//!
//! Rows are left out by pages where that spares much: a selection is a few runs of rows of a row group, the same for all
//! columns, and of each column those pages are read that hold any of them.
//!
//! ```text
//!  tested column   | page 0 | page 1 ✓ | page 2 ✓ | page 3 |      rows that may pass   ───────[██████████]──────
//!  other column    |   page 0 ✓  |    page 1 ✓      | page 2 |     read: pages that overlap them
//! ```

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parquet::DecodeResult;
use parquet::bloom_filter::Sbbf;
use parquet::data_type::AsBytes;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataPushDecoder, RowGroupMetaData};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::page_index::offset_index::PageLocation;
use trireme_device_api::{Bounds, ColumnTest, RowTest, Value};

use crate::decode::Physical;

/// Runs of rows of one row group at most; more are joined over the shortest gaps.
const RUNS_MAX: usize = 16;

/// A chunk's pages.
#[derive(Debug)]
pub(crate) struct Pages {
    locations: Vec<PageLocation>,
    bounds: Option<ColumnIndexMetaData>,
}

/// The indexes of a chunk, as they stand in the file.
pub(crate) struct PageBytes {
    pub(crate) leaf: usize,
    pub(crate) offsets: Bytes,
    pub(crate) bounds: Option<Bytes>,
}

impl Pages {
    /// The pages of chunks of a row group; none when the indexes make no sense.
    pub(crate) fn parse(
        metadata: &ParquetMetaData,
        row_group: usize,
        chunks: &[PageBytes],
    ) -> Option<Vec<(usize, Arc<Pages>)>> {
        // A file of these indexes only, whose other columns share the first one's.
        let mut file: Vec<u8> = Vec::new();
        let mut place = |bytes: &Bytes| {
            let start = file.len();
            file.extend_from_slice(bytes);
            Some((i64::try_from(start).ok()?, i32::try_from(bytes.len()).ok()?))
        };
        let mut places = Vec::new();
        for chunk in chunks {
            let bounds = match &chunk.bounds {
                Some(bounds) => Some(place(bounds)?),
                None => None,
            };
            places.push((chunk.leaf, place(&chunk.offsets)?, bounds));
        }
        let (_, filler, _) = *places.first()?;
        let group = metadata.row_group(row_group);
        let mut columns = Vec::with_capacity(group.num_columns());
        for (leaf, chunk) in group.columns().iter().enumerate() {
            let own = places.iter().find(|(other, ..)| *other == leaf);
            let (offset, length) = own.map_or(filler, |(_, offsets, _)| *offsets);
            let bounds = own.and_then(|(.., bounds)| *bounds);
            let chunk = chunk.clone().into_builder();
            let chunk = chunk
                .set_offset_index_offset(Some(offset))
                .set_offset_index_length(Some(length))
                .set_column_index_offset(bounds.map(|(offset, _)| offset))
                .set_column_index_length(bounds.map(|(_, length)| length));
            columns.push(chunk.build().ok()?);
        }
        let schema = metadata.file_metadata().schema_descr_ptr();
        let group = RowGroupMetaData::builder(schema).set_num_rows(group.num_rows());
        let group = group.set_column_metadata(columns).build().ok()?;
        let fake = ParquetMetaData::new(metadata.file_metadata().clone(), vec![group]);
        let length = file.len() as u64;
        let decoder = ParquetMetaDataPushDecoder::try_new_with_metadata(length, fake).ok()?;
        let mut decoder = decoder.with_page_index_policy(PageIndexPolicy::Optional);
        decoder.push_range(0..length, file.into()).ok()?;
        let DecodeResult::Data(parsed) = decoder.try_decode().ok()? else {
            return None;
        };
        let (offsets, bounds) = (parsed.offset_index()?.first()?, parsed.column_index()?.first()?);
        let pages = |chunk: &PageBytes| {
            let bounds = bounds.get(chunk.leaf).filter(|_| chunk.bounds.is_some()).cloned();
            let pages = Pages {
                locations: offsets.get(chunk.leaf)?.page_locations().clone(),
                bounds,
            };
            pages
                .is_sound(group_rows(metadata, row_group))
                .then(|| (chunk.leaf, Arc::new(pages)))
        };
        chunks.iter().map(pages).collect()
    }

    fn is_sound(&self, rows: usize) -> bool {
        let first = self.locations.first().is_some_and(|page| page.first_row_index == 0);
        let ascend = self.locations.is_sorted_by(|left, right| {
            left.first_row_index < right.first_row_index
                && left.offset >= 0
                && left.compressed_page_size >= 0
                && left.offset + i64::from(left.compressed_page_size) <= right.offset
        });
        let last = self
            .locations
            .last()
            .is_some_and(|page| (page.first_row_index as usize) < rows);
        let counted = self.bounds.as_ref().is_none_or(|bounds| {
            matches!(bounds, ColumnIndexMetaData::NONE) || bounds.num_pages() == self.locations.len() as u64
        });
        first && ascend && last && counted
    }

    pub(crate) fn locations(&self) -> &[PageLocation] {
        &self.locations
    }

    /// Rows of a page.
    fn rows(&self, page: usize, group_rows: usize) -> Range<usize> {
        let start = |page: usize| {
            let next = self.locations.get(page);
            next.map_or(group_rows, |page| {
                usize::try_from(page.first_row_index).unwrap_or(group_rows)
            })
        };
        start(page)..start(page + 1)
    }

    /// Rows in pages that may pass.
    fn may_pass(&self, test: &ColumnTest, physical: Physical, ordered: bool, group_rows: usize) -> Vec<Range<usize>> {
        let pages = (0..self.locations.len()).filter(|page| match &self.bounds {
            Some(bounds) => test.may_pass(&bounds_of(bounds, *page, physical, ordered)),
            None => true,
        });
        joined(pages.map(|page| self.rows(page, group_rows)))
    }

    /// The bytes of pages that hold some of these rows, and of a dictionary before them. `chunk` is all of the column's.
    pub(crate) fn ranges(&self, chunk: &Range<u64>, runs: &[Range<usize>], group_rows: usize) -> Vec<Range<u64>> {
        let mut found: Vec<Range<u64>> = Vec::new();
        let mut add = |range: Range<u64>| match found.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => found.push(range),
        };
        let first = self.locations.first().map_or(chunk.start, |page| page.offset as u64);
        if first > chunk.start {
            add(chunk.start..first);
        }
        for (page, location) in self.locations.iter().enumerate() {
            let rows = self.rows(page, group_rows);
            if runs.iter().any(|run| run.start < rows.end && rows.start < run.end) {
                let start = location.offset as u64;
                add(start..start + location.compressed_page_size as u64);
            }
        }
        found
    }
}

fn group_rows(metadata: &ParquetMetaData, row_group: usize) -> usize {
    usize::try_from(metadata.row_group(row_group).num_rows()).unwrap_or(0)
}

/// What a page's index says of its values. `ordered`: strings were compared as unsigned bytes.
fn bounds_of(index: &ColumnIndexMetaData, page: usize, physical: Physical, ordered: bool) -> Bounds {
    let int = |value: Option<i128>| value.map(Value::Int);
    let unsigned = matches!(physical, Physical::UInt32 | Physical::UInt64);
    let (low, high) = match (index, physical) {
        (ColumnIndexMetaData::NONE, _) => {
            return Bounds {
                low: None,
                high: None,
                nulls: true,
                values: true,
            };
        }
        (ColumnIndexMetaData::BOOLEAN(index), Physical::Boolean) => (
            index.min_value(page).map(|value| Value::Boolean(*value)),
            index.max_value(page).map(|value| Value::Boolean(*value)),
        ),
        (ColumnIndexMetaData::INT32(index), Physical::Int32 | Physical::UInt32) => {
            let of = |value: &i32| match unsigned {
                true => i128::from(value.cast_unsigned()),
                false => i128::from(*value),
            };
            (int(index.min_value(page).map(of)), int(index.max_value(page).map(of)))
        }
        (ColumnIndexMetaData::INT64(index), Physical::Int64 | Physical::UInt64) => {
            let of = |value: &i64| match unsigned {
                true => i128::from(value.cast_unsigned()),
                false => i128::from(*value),
            };
            (int(index.min_value(page).map(of)), int(index.max_value(page).map(of)))
        }
        (ColumnIndexMetaData::BYTE_ARRAY(index), Physical::Bytes) if ordered => (
            index.min_value(page).map(|value| Value::Bytes(value.into())),
            index.max_value(page).map(|value| Value::Bytes(value.into())),
        ),
        // Floats are decided by equality only, and decimals in bytes may have been cut.
        _ => (None, None),
    };
    Bounds {
        low,
        high,
        nulls: index.null_count(page) != Some(0),
        values: !index.is_null_page(page),
    }
}

/// Which rows of a row group may pass a test, by the pages of tested columns.
pub(crate) struct RowSelector<'a> {
    pub(crate) rows: usize,
    /// Pages of a column, what they hold, and whether strings were compared as unsigned bytes.
    pub(crate) pages: &'a dyn Fn(usize) -> Option<(Arc<Pages>, Physical, bool)>,
    /// What is said of columns without pages.
    pub(crate) may_pass: &'a dyn Fn(usize, &ColumnTest) -> bool,
}

impl RowSelector<'_> {
    /// Ascending runs, which don't touch.
    pub(crate) fn select(&self, test: &RowTest) -> Vec<Range<usize>> {
        let all = || std::iter::once(0..self.rows).collect::<Vec<_>>();
        match test {
            RowTest::True => all(),
            RowTest::All(tests) => tests.iter().fold(all(), |runs, test| both(&runs, &self.select(test))),
            RowTest::Any(tests) => {
                let mut runs: Vec<Range<usize>> = tests.iter().flat_map(|test| self.select(test)).collect();
                runs.sort_by_key(|run| run.start);
                joined(runs)
            }
            RowTest::Column(column, test) => {
                if !(self.may_pass)(*column, test) {
                    return Vec::new();
                }
                match (self.pages)(*column) {
                    Some((pages, physical, ordered)) => pages.may_pass(test, physical, ordered, self.rows),
                    None => all(),
                }
            }
        }
    }
}

/// Runs in order of their starts, those that touch or overlap as one.
fn joined(runs: impl IntoIterator<Item = Range<usize>>) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for run in runs {
        match found.last_mut() {
            Some(last) if run.start <= last.end => last.end = last.end.max(run.end),
            _ => found.push(run),
        }
    }
    found
}

fn both(left: &[Range<usize>], right: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let (mut l, mut r) = (0, 0);
    while let (Some(one), Some(other)) = (left.get(l), right.get(r)) {
        let run = one.start.max(other.start)..one.end.min(other.end);
        if !run.is_empty() {
            found.push(run);
        }
        if one.end < other.end {
            l += 1;
        } else {
            r += 1;
        }
    }
    found
}

/// At most a few runs: the shortest gaps are read along.
pub(crate) fn few(mut runs: Vec<Range<usize>>) -> Vec<Range<usize>> {
    while runs.len() > RUNS_MAX {
        let gap = |at: &usize| runs[at + 1].start - runs[*at].end;
        let Some(shortest) = (0..runs.len() - 1).min_by_key(gap) else {
            break;
        };
        let next = runs.remove(shortest + 1);
        runs[shortest].end = next.end;
    }
    runs
}

/// False when a Bloom filter has none of the values that a test asks for.
pub(crate) fn may_contain(bloom: &Sbbf, test: &ColumnTest, physical: Physical) -> bool {
    let Some(points) = test.points() else { return true };
    points.iter().any(|value| match (value, physical) {
        (Value::Int(value), Physical::Int32) => i32::try_from(*value).is_ok_and(|value| bloom.check(&value)),
        (Value::Int(value), Physical::UInt32) => {
            u32::try_from(*value).is_ok_and(|value| bloom.check(&value.cast_signed()))
        }
        (Value::Int(value), Physical::Int64) => i64::try_from(*value).is_ok_and(|value| bloom.check(&value)),
        (Value::Int(value), Physical::UInt64) => {
            u64::try_from(*value).is_ok_and(|value| bloom.check(&value.cast_signed()))
        }
        (Value::Bytes(value), Physical::Bytes) => bloom.check(value.as_bytes()),
        _ => true,
    })
}
