//! Segments of a file, and what its footer promises of them.
//!
//! ```text
//!  row groups   | 400 Ki | 400 Ki | 400 Ki | … |        | 2.5 Mi                      |
//!  segments     |   two groups    | group  | … |        | 1 Mi      | 1 Mi      | .5  |      never across files
//! ```
//!
//! Of small files fewer row groups are put together: they are decoded side by side.

use std::ops::Range;
use std::sync::Arc;

use parquet::basic::{Encoding, EncodingMask, PageType};
use parquet::data_type::AsBytes;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::statistics::Statistics;
use trireme_device_api::{MORSEL_ROWS, Type, ZoneMap};

use crate::decode::Physical;
use crate::pages::Pages;

/// Rows of one row group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Part {
    pub(crate) row_group: usize,
    /// Rows of the group before the first one.
    pub(crate) skip: usize,
    /// Rows.
    pub(crate) rows: usize,
}

impl Part {
    /// Rows of the group.
    pub(crate) fn range(&self) -> Range<usize> {
        self.skip..self.skip + self.rows
    }
}

/// Rows of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Position in the scan's files.
    pub(crate) file: usize,
    /// Row of the file that is the first; names the segment in the cache.
    pub(crate) first_row: u64,
    pub(crate) rows: usize,
    /// Ascending.
    pub(crate) parts: Arc<[Part]>,
    /// Some of its rows were left out, as no reader wants them.
    pub(crate) is_selection: bool,
}

impl Segment {
    /// Names the rows that are left, in the cache; none where all are.
    pub(crate) fn selection(&self) -> Option<Arc<[Part]>> {
        self.is_selection.then(|| Arc::clone(&self.parts))
    }

    /// Only these parts of it.
    pub(crate) fn select(&self, parts: Vec<Part>) -> Self {
        Self {
            file: self.file,
            first_row: self.first_row,
            rows: parts.iter().map(|part| part.rows).sum(),
            parts: parts.into(),
            is_selection: true,
        }
    }
}

/// Where a chunk's pages are, by row group; none where that is not known.
pub(crate) type FindPages<'a> = &'a dyn Fn(usize) -> Option<&'a Arc<Pages>>;

/// The bytes of a column in a segment, in order; none where the footer's places make no sense. Of a chunk whose pages are
/// known those that hold rows of the segment, else all.
pub(crate) fn ranges(
    metadata: &ParquetMetaData,
    segment: &Segment,
    leaf: usize,
    pages: FindPages<'_>,
) -> Option<Vec<Range<u64>>> {
    let mut ranges: Vec<Range<u64>> = Vec::with_capacity(segment.parts.len());
    for parts in segment.parts.chunk_by(|left, right| left.row_group == right.row_group) {
        let row_group = parts.first()?.row_group;
        let group = metadata.row_group(row_group);
        let chunk = chunk_range(group.column(leaf))?;
        let rows = usize::try_from(group.num_rows()).unwrap_or(0);
        match pages(row_group).filter(|_| is_partial(parts, rows)) {
            Some(pages) => {
                let runs: Vec<Range<usize>> = parts.iter().map(Part::range).collect();
                ranges.extend(pages.ranges(&chunk, &runs, rows));
            }
            None => ranges.push(chunk),
        }
    }
    Some(ranges)
}

/// All bytes of a column's chunk.
pub(crate) fn chunk_range(chunk: &ColumnChunkMetaData) -> Option<Range<u64>> {
    let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
    let start = u64::try_from(start).ok()?;
    Some(start..start.checked_add(u64::try_from(chunk.compressed_size()).ok()?)?)
}

/// Parts of a row group of so many rows are not all of it.
pub(crate) fn is_partial(parts: &[Part], rows: usize) -> bool {
    parts.iter().map(|part| part.rows).sum::<usize>() < rows
}

fn is_codes(encoding: Encoding) -> bool {
    matches!(encoding, Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY)
}

/// Encodings of a chunk's data pages, as its counts of pages tell; none where these name no data page.
fn counted(chunk: &ColumnChunkMetaData) -> Option<impl Iterator<Item = Encoding>> {
    let mask = chunk.page_encoding_stats_mask().map(EncodingMask::encodings);
    let pages = chunk.page_encoding_stats().into_iter().flatten();
    let data = pages.filter(|page| page.page_type != PageType::DICTIONARY_PAGE);
    let mut encodings = mask
        .into_iter()
        .flatten()
        .chain(data.map(|page| page.encoding))
        .peekable();
    encodings.peek().is_some().then_some(encodings)
}

/// A string column's values were too many for the writer's dictionary: probably for ours too.
pub(crate) fn is_spelled_out(metadata: &ParquetMetaData, segment: &Segment, leaf: usize) -> bool {
    let of = |part: &Part| {
        let chunk = metadata.row_group(part.row_group).column(leaf);
        match counted(chunk) {
            Some(mut encodings) => !encodings.all(is_codes),
            None => chunk.dictionary_page_offset().is_none(),
        }
    };
    segment.parts.iter().any(of)
}

/// All values of a column of strings stand in its dictionary pages, as the footer says for certain.
pub(crate) fn is_listed(metadata: &ParquetMetaData, segment: &Segment, leaf: usize) -> bool {
    let in_codes = |part: &Part| {
        let chunk = metadata.row_group(part.row_group).column(leaf);
        // Without counts of data pages the list of encodings tells, where it names none for other pages.
        let of_codes = |encoding| encoding == Encoding::RLE || is_codes(encoding);
        let named = || chunk.encodings().any(is_codes) && chunk.encodings().all(of_codes);
        dictionary_range(chunk).is_some() && (counted(chunk).is_some() || named())
    };
    !is_spelled_out(metadata, segment, leaf) && segment.parts.iter().all(in_codes)
}

/// Bytes of a column's pages in a segment, uncompressed: of a part of a chunk its share.
pub(crate) fn page_bytes(metadata: &ParquetMetaData, segment: &Segment, leaf: usize) -> usize {
    let of = |part: &Part| {
        let group = metadata.row_group(part.row_group);
        let bytes = usize::try_from(group.column(leaf).uncompressed_size()).unwrap_or(0);
        let rows = usize::try_from(group.num_rows()).unwrap_or(0);
        match part.rows < rows {
            true => bytes / rows.max(1) * part.rows,
            false => bytes,
        }
    };
    segment.parts.iter().map(of).sum()
}

/// The bytes of a chunk's dictionary page, where the footer tells them apart.
pub(crate) fn dictionary_range(chunk: &ColumnChunkMetaData) -> Option<Range<u64>> {
    let start = u64::try_from(chunk.dictionary_page_offset()?).ok()?;
    let end = u64::try_from(chunk.data_page_offset()).ok()?;
    (start < end && end <= chunk_range(chunk)?.end).then_some(start..end)
}

/// Segments that a file has at least, where its row groups allow: workers decode them side by side.
const SEGMENTS_MIN: usize = 8;

/// Cuts a file into segments of at most so many rows. None is empty.
pub(crate) fn plan(file: usize, metadata: &ParquetMetaData, segment_rows: usize) -> Vec<Segment> {
    let mut segments: Vec<(u64, Vec<Part>)> = Vec::new();
    let mut first_row = 0_u64;
    let file_rows = usize::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
    let merged_rows = segment_rows.min((file_rows / SEGMENTS_MIN).max(MORSEL_ROWS));
    let rows_of = |parts: &[Part]| parts.iter().map(|part| part.rows).sum::<usize>();
    for (row_group, group) in metadata.row_groups().iter().enumerate() {
        let group_rows = usize::try_from(group.num_rows()).unwrap_or(0);
        for skip in (0..group_rows).step_by(segment_rows) {
            let rows = segment_rows.min(group_rows - skip);
            let part = Part { row_group, skip, rows };
            match segments.last_mut() {
                Some((_, parts)) if skip == 0 && rows == group_rows && rows_of(parts) + rows <= merged_rows => {
                    parts.push(part);
                }
                _ => segments.push((first_row, vec![part])),
            }
            first_row += rows as u64;
        }
    }
    let segment = |(first_row, parts): (u64, Vec<Part>)| Segment {
        file,
        first_row,
        rows: rows_of(&parts),
        parts: parts.into(),
        is_selection: false,
    };
    segments.into_iter().map(segment).collect()
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
    for part in segment.parts.iter() {
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

pub(crate) fn nulls_of(chunk: &ColumnChunkMetaData) -> Option<usize> {
    if chunk.column_descr().max_def_level() == 0 {
        return Some(0);
    }
    let count = chunk.statistics()?.null_count_opt()?;
    usize::try_from(count).ok()
}

pub(crate) fn range_of(chunk: &ColumnChunkMetaData, physical: Physical) -> Option<(i128, i128)> {
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

#[cfg(test)]
mod tests {
    use parquet::file::metadata::{FileMetaData, PageEncodingStats, RowGroupMetaData};
    use parquet::schema::parser::parse_message_type;
    use parquet::schema::types::SchemaDescriptor;

    use super::*;

    /// A chunk of strings with a dictionary page, and these counts of pages.
    fn counting(pages: &[(PageType, Encoding)]) -> ParquetMetaData {
        let schema = parse_message_type("message m { required binary x; }").unwrap();
        let schema = Arc::new(SchemaDescriptor::new(Arc::new(schema)));
        let page = |(page_type, encoding): &(PageType, Encoding)| PageEncodingStats {
            page_type: *page_type,
            encoding: *encoding,
            count: 1,
        };
        let chunk = ColumnChunkMetaData::builder(schema.column(0))
            .set_encodings(vec![Encoding::PLAIN, Encoding::RLE, Encoding::RLE_DICTIONARY])
            .set_dictionary_page_offset(Some(4))
            .set_data_page_offset(20)
            .set_total_compressed_size(100)
            .set_page_encoding_stats(pages.iter().map(page).collect())
            .build()
            .unwrap();
        let group = RowGroupMetaData::builder(Arc::clone(&schema))
            .set_num_rows(9)
            .add_column_metadata(chunk)
            .build()
            .unwrap();
        ParquetMetaData::new(FileMetaData::new(1, 9, None, None, schema, None), vec![group])
    }

    #[test]
    fn counts_of_no_data_pages_say_nothing() {
        let dictionary = (PageType::DICTIONARY_PAGE, Encoding::PLAIN);
        let codes = (PageType::DATA_PAGE, Encoding::RLE_DICTIONARY);
        let plain = (PageType::DATA_PAGE, Encoding::PLAIN);
        let cases: [(&[_], bool); 5] = [
            (&[], false),
            (&[dictionary], false),
            (&[dictionary, codes], true),
            (&[codes], true),
            (&[dictionary, codes, plain], false),
        ];
        for (pages, listed) in cases {
            let metadata = counting(pages);
            let segments = plan(0, &metadata, 100);
            assert_eq!(is_listed(&metadata, &segments[0], 0), listed, "{pages:?}");
        }
    }
}
