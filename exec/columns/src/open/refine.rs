//! What is worth asking a file beyond its footer, before its columns are fetched: Bloom filters for values that rows must have,
//! bounds of pages where a filter's column is clustered, and where pages are when not all of a row group is read.
//!
//! All of it is asked of all files at once, and only of files that are not local: there a page costs less than its index.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parquet::bloom_filter::Sbbf;
use parquet::file::metadata::ColumnChunkMetaData;
use tokio::task::JoinSet;
use trireme_device_api::{BinaryOperator, Bounds, ColumnTest, DeviceError, RowTest, Value};

use super::draft::{ChunkId, Draft};
use super::{Opener, Opening};
use crate::cache::ColumnCache;
use crate::decode::Physical;
use crate::footer::FileColumn;
use crate::pages::{PageBytes, Pages, RowSelector, few, may_contain};
use crate::prune::Pruner;
use crate::scan::{Column, ColumnKind};
use crate::segments::{Part, Segment};
use crate::source::Source;

/// Row groups of which fewer bytes are read are not worth a look at their pages.
const WORTH_BYTES: u64 = if cfg!(test) { 4 << 10 } else { 1 << 20 };

/// A Bloom filter is asked when it takes less than this part of what it may spare.
const BLOOM_PART: u64 = 4;

/// What is asked of a chunk, and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    file: usize,
    row_group: usize,
    leaf: usize,
    what: What,
    range: Range<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum What {
    Bloom,
    Bounds,
    Offsets,
}

/// Answers, for one scan.
pub(super) type Answers = Vec<(Ask, Bytes)>;

/// What is worth asking for a scan.
pub(super) fn asks(cache: &ColumnCache, opening: &Opening, draft: &Draft) -> Vec<Ask> {
    let mut asks = Vec::new();
    if opening.files.iter().all(|(_, source)| source.is_local()) {
        return asks;
    }
    let asker = Asker::new(opening, draft);
    let mut seen = HashSet::new();
    for segment in &draft.segments {
        let (id, source) = &opening.files[segment.file];
        let held = |column: &Column| {
            matches!(column.kind, ColumnKind::Constant(_) | ColumnKind::Kept(_))
                || column.leaf(segment.file).is_none()
                || cache.inner.peek(&column.key(id, segment)).is_some()
        };
        if source.is_local() || draft.columns.iter().all(held) {
            continue;
        }
        for part in segment.parts.iter() {
            if seen.insert((segment.file, part.row_group)) {
                asker.of_group(segment.file, part, &mut asks);
            }
        }
    }
    asks
}

struct Asker<'a> {
    draft: &'a Draft,
    /// Tested columns and their tests.
    tested: Vec<(usize, Vec<&'a ColumnTest>)>,
    /// How far the values of each of them reach over all row groups.
    reach: Vec<Option<f64>>,
}

impl<'a> Asker<'a> {
    fn new(opening: &'a Opening, draft: &'a Draft) -> Self {
        let mut tested: Vec<(usize, Vec<&ColumnTest>)> = Vec::new();
        opening.table.test.visit(
            &mut |column, test| match tested.iter_mut().find(|(other, _)| *other == column) {
                Some((_, tests)) => tests.push(test),
                None => tested.push((column, vec![test])),
            },
        );
        tested.retain(|(column, _)| *column < draft.columns.len());
        let pruner = draft.pruner(&RowTest::True);
        let groups = |segment: &Segment| {
            let file = segment.file;
            let groups: Vec<_> = segment.parts.iter().map(|part| (file, part.row_group)).collect();
            groups
        };
        let all: Vec<(usize, usize)> = draft.segments.iter().chain(&draft.left_out).flat_map(groups).collect();
        let reach = |(column, _): &(usize, Vec<&ColumnTest>)| {
            let column = &draft.columns[*column];
            let bounds = all.iter().map(|(file, group)| pruner.bounds(column, *file, *group));
            let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
            for bounds in bounds {
                let (least, most) = ends(&bounds)?;
                (low, high) = (low.min(least), high.max(most));
            }
            // Of one row group nothing is known.
            (all.len() > 1).then_some(high - low)
        };
        Self {
            draft,
            reach: tested.iter().map(reach).collect(),
            tested,
        }
    }

    fn of_group(&self, file: usize, part: &Part, asks: &mut Vec<Ask>) {
        let row_group = part.row_group;
        let metadata = &self.draft.metas[file].metadata;
        let group = metadata.row_group(row_group);
        let leaves: Vec<usize> = self
            .draft
            .columns
            .iter()
            .filter_map(|column| column.leaf(file))
            .collect();
        let sizes = leaves.iter().map(|leaf| group.column(*leaf).compressed_size());
        let bytes: u64 = sizes.filter_map(|size| u64::try_from(size).ok()).sum();
        let mut add = |leaf: usize, what: What| {
            let Some(range) = range_of(group.column(leaf), what) else {
                return false;
            };
            asks.push(Ask {
                file,
                row_group,
                leaf,
                what,
                range,
            });
            true
        };
        let mut by_pages = usize::try_from(group.num_rows()).is_ok_and(|rows| part.rows < rows);
        for ((column, tests), reach) in self.tested.iter().zip(&self.reach) {
            let of = &self.draft.columns[*column];
            let Some((leaf, _)) = paged(of, file) else { continue };
            let bounds = self.draft.pruner(&RowTest::True).bounds(of, file, row_group);
            let bloom = range_of(group.column(leaf), What::Bloom).map(|range| range.end - range.start);
            let names = |test: &&ColumnTest| test.points().is_some_and(|points| !points.is_empty());
            if bloom.is_some_and(|length| length * BLOOM_PART <= bytes) && tests.iter().any(names) {
                add(leaf, What::Bloom);
            }
            let open = tests
                .iter()
                .any(|test| test.may_pass(&bounds) && !passes(test, &bounds));
            if bytes >= WORTH_BYTES && open && is_clustered(&bounds, *reach) {
                by_pages |= add(leaf, What::Bounds);
            }
        }
        if by_pages {
            let mut seen = HashSet::new();
            for column in &self.draft.columns {
                if let Some((leaf, _)) = paged(column, file)
                    && seen.insert(leaf)
                {
                    add(leaf, What::Offsets);
                }
            }
        }
    }
}

/// A row group's values are some of the table's: then its pages' may be some of the row group's.
fn is_clustered(bounds: &Bounds, reach: Option<f64>) -> bool {
    match (ends(bounds), reach) {
        (Some((low, high)), Some(reach)) => (high - low) * 2.0 <= reach,
        _ => true,
    }
}

/// All rows pass for certain.
fn passes(test: &ColumnTest, bounds: &Bounds) -> bool {
    let opposite = match test {
        ColumnTest::IsNotNull => return !bounds.nulls,
        ColumnTest::Compare(op, value) => match op {
            BinaryOperator::Less => ColumnTest::Compare(BinaryOperator::GreaterOrEqual, value.clone()),
            BinaryOperator::LessOrEqual => ColumnTest::Compare(BinaryOperator::Greater, value.clone()),
            BinaryOperator::Greater => ColumnTest::Compare(BinaryOperator::LessOrEqual, value.clone()),
            BinaryOperator::GreaterOrEqual => ColumnTest::Compare(BinaryOperator::Less, value.clone()),
            BinaryOperator::NotEqual => ColumnTest::Compare(BinaryOperator::Equal, value.clone()),
            _ => return false,
        },
        _ => return false,
    };
    !bounds.nulls && !opposite.may_pass(bounds)
}

/// Bounds as numbers, of strings by their first bytes; near enough to see how far values reach.
fn ends(bounds: &Bounds) -> Option<(f64, f64)> {
    let number = |value: &Value| match value {
        Value::Int(value) => Some(*value as f64),
        Value::Float(value) => Some(*value),
        Value::Bytes(bytes) => {
            let mut first = [0_u8; 8];
            let length = bytes.len().min(8);
            first[..length].copy_from_slice(&bytes[..length]);
            Some(u64::from_be_bytes(first) as f64)
        }
        _ => None,
    };
    Some((number(bounds.low.as_ref()?)?, number(bounds.high.as_ref()?)?))
}

fn paged(column: &Column, file: usize) -> Option<(usize, Physical)> {
    match &column.kind {
        ColumnKind::Stored { files, .. } => match &files[file] {
            FileColumn::Pages { leaf, physical } => Some((*leaf, *physical)),
            _ => None,
        },
        ColumnKind::Constant(_) | ColumnKind::Kept(_) => None,
    }
}

fn range_of(chunk: &ColumnChunkMetaData, what: What) -> Option<Range<u64>> {
    let (offset, length) = match what {
        What::Bloom => (chunk.bloom_filter_offset()?, chunk.bloom_filter_length()?),
        What::Bounds => (chunk.column_index_offset()?, chunk.column_index_length()?),
        What::Offsets => (chunk.offset_index_offset()?, chunk.offset_index_length()?),
    };
    let start = u64::try_from(offset).ok()?;
    let length = u64::try_from(length).ok().filter(|length| *length > 0)?;
    Some(start..start.checked_add(length)?)
}

/// Answers that were given before, if they are all there.
pub(super) fn held(opener: &Opener, asks: &[Vec<Ask>]) -> Option<Vec<Answers>> {
    let indexes = &opener.cache.inner.indexes;
    let of = |(scan, asks): (usize, &Vec<Ask>)| {
        let files = &opener.openings[scan].files;
        let answer = |ask: &Ask| {
            let bytes = indexes.get(&(Arc::clone(&files[ask.file].0), ask.range.start))?;
            Some((ask.clone(), bytes))
        };
        asks.iter().map(answer).collect()
    };
    asks.iter().enumerate().map(of).collect()
}

/// Asks all files of all scans at once, unless they have answered before.
pub(super) async fn read(opener: &Opener, asks: Vec<Vec<Ask>>) -> Result<Vec<Answers>, DeviceError> {
    if let Some(answers) = held(opener, &asks) {
        return Ok(answers);
    }
    let mut answers: Vec<Answers> = asks.iter().map(|_| Vec::new()).collect();
    let Some(runtime) = &opener.runtime else {
        return Ok(answers);
    };
    let mut tasks: JoinSet<Result<(usize, Answers), DeviceError>> = JoinSet::new();
    for (scan, asks) in asks.into_iter().enumerate() {
        let mut by_file: HashMap<usize, Vec<Ask>> = HashMap::new();
        for ask in asks {
            by_file.entry(ask.file).or_default().push(ask);
        }
        for (file, mut asks) in by_file {
            let source: Source = opener.openings[scan].files[file].1.clone();
            asks.retain(|ask| ask.range.end <= source.size_bytes);
            let read = async move {
                let ranges: Vec<Range<u64>> = asks.iter().map(|ask| ask.range.clone()).collect();
                let bytes = source.read_ranges(&ranges).await?;
                Ok((scan, asks.into_iter().zip(bytes).collect()))
            };
            tasks.spawn_on(read, runtime);
        }
    }
    while let Some(done) = tasks.join_next().await {
        let (scan, found) = done.map_err(|error| DeviceError::Internal(format!("reading an index: {error}")))??;
        for (ask, bytes) in &found {
            let file = Arc::clone(&opener.openings[scan].files[ask.file].0);
            // A copy: what was read with it would stay as long.
            let own = Bytes::copy_from_slice(bytes);
            opener.cache.inner.indexes.insert((file, ask.range.start), own);
        }
        answers[scan].extend(found);
    }
    Ok(answers)
}

/// Leaves out what the answers rule out.
pub(super) fn apply(opening: &Opening, draft: &mut Draft, answers: Answers) {
    if answers.is_empty() {
        return;
    }
    let mut blooms: HashMap<ChunkId, Sbbf> = HashMap::new();
    let mut indexes: HashMap<(usize, usize), Vec<PageBytes>> = HashMap::new();
    let (bounds, others): (Answers, Answers) = answers.into_iter().partition(|(ask, _)| ask.what == What::Bounds);
    let mut bounds: HashMap<ChunkId, Bytes> = bounds
        .into_iter()
        .map(|(ask, bytes)| ((ask.file, ask.row_group, ask.leaf), bytes))
        .collect();
    for (ask, bytes) in others {
        let chunk = (ask.file, ask.row_group, ask.leaf);
        match ask.what {
            What::Bloom => {
                // A filter of a kind that isn't known says nothing.
                if let Ok(bloom) = Sbbf::from_bytes(&bytes) {
                    blooms.insert(chunk, bloom);
                }
            }
            _ => indexes.entry((ask.file, ask.row_group)).or_default().push(PageBytes {
                leaf: ask.leaf,
                bounds: bounds.remove(&chunk),
                offsets: bytes,
            }),
        }
    }
    for ((file, row_group), chunks) in indexes {
        let metadata = &draft.metas[file].metadata;
        let pages = Pages::parse(metadata, row_group, &chunks).unwrap_or_default();
        let pages = pages.into_iter().map(|(leaf, pages)| ((file, row_group, leaf), pages));
        draft.pages.extend(pages);
    }
    let segments = std::mem::take(&mut draft.segments);
    let mut kept = Vec::with_capacity(segments.len());
    for segment in segments {
        let parts = parts(&opening.table.test, draft, &blooms, &segment);
        if parts[..] == segment.parts[..] {
            kept.push(segment);
            continue;
        }
        if !parts.is_empty() {
            kept.push(segment.select(parts));
        }
        draft.left_out.push(segment);
    }
    draft.segments = kept;
}

/// What is left of a segment.
fn parts(test: &RowTest, draft: &Draft, blooms: &HashMap<ChunkId, Sbbf>, segment: &Segment) -> Vec<Part> {
    let pruner: Pruner<'_> = draft.pruner(test);
    let file = segment.file;
    let mut parts = Vec::new();
    for part in segment.parts.iter() {
        let row_group = part.row_group;
        let metadata = &draft.metas[file].metadata;
        let may_contain = |column: usize, test: &ColumnTest| {
            let bloom = paged(&draft.columns[column], file)
                .and_then(|(leaf, physical)| Some((blooms.get(&(file, row_group, leaf))?, physical)));
            bloom.is_none_or(|(bloom, physical)| may_contain(bloom, test, physical))
        };
        let may_pass = |column: usize, test: &ColumnTest| {
            let of = draft.columns.get(column);
            of.is_none_or(|of| test.may_pass(&pruner.bounds(of, file, row_group)) && may_contain(column, test))
        };
        let pages = |column: usize| {
            let (leaf, physical) = paged(draft.columns.get(column)?, file)?;
            let pages = draft.pages.get(&(file, row_group, leaf))?;
            let ordered = crate::prune::is_ordered(metadata, leaf);
            Some((Arc::clone(pages), physical, ordered))
        };
        let rows = usize::try_from(metadata.row_group(row_group).num_rows()).unwrap_or(0);
        let selector = RowSelector {
            rows,
            pages: &pages,
            may_pass: &may_pass,
        };
        let inside = part.skip..part.skip + part.rows;
        let clip = |run: Range<usize>| run.start.max(inside.start)..run.end.min(inside.end);
        let runs: Vec<Range<usize>> = few(selector.select(test))
            .into_iter()
            .map(clip)
            .filter(|run| !run.is_empty())
            .collect();
        let selected: usize = runs.iter().map(ExactSizeIterator::len).sum();
        if selected * 4 > part.rows * 3 {
            parts.push(*part);
        } else {
            parts.extend(runs.into_iter().map(|run| Part {
                row_group,
                skip: run.start,
                rows: run.len(),
            }));
        }
    }
    parts
}
