//! A scan before anything of its rows is read: which segments it has, and what is promised of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use trireme_device_api::{DeviceError, DevicePool, RowTest};

use super::{Opening, columns};
use crate::cache::ColumnCache;
use crate::fetches::Fetches;
use crate::footer::FileMeta;
use crate::pages::Pages;
use crate::prune::Pruner;
use crate::scan::{Column, ColumnKind, Core};
use crate::segments::{self, Part, Promise, Segment};

/// A column's chunk: file, row group, position among the file's leaves.
pub(super) type ChunkId = (usize, usize, usize);

/// See the module.
pub(super) struct Draft {
    pub(super) metas: Vec<Arc<FileMeta>>,
    pub(super) segments: Vec<Segment>,
    /// Segments of which rows were left out.
    pub(super) left_out: Vec<Segment>,
    pub(super) columns: Vec<Column>,
    pub(super) pages: HashMap<ChunkId, Arc<Pages>>,
}

impl Draft {
    pub(super) fn new(cache: &ColumnCache, opening: &Opening, metas: &[Arc<FileMeta>]) -> Result<Self, DeviceError> {
        let cut =
            |(file, meta): (usize, &Arc<FileMeta>)| segments::plan(file, &meta.metadata, cache.inner.segment_rows);
        let all: Vec<Segment> = metas.iter().enumerate().flat_map(cut).collect();
        let rows = all.iter().map(|segment| segment.rows).sum();
        let requests = opening.table.columns.iter();
        let columns = requests.map(|request| columns::column(cache, opening, request, metas, rows));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let mut draft = Self {
            metas: metas.to_vec(),
            segments: all,
            left_out: Vec::new(),
            columns,
            pages: HashMap::new(),
        };
        if opening.table.test != RowTest::True {
            draft.select(cache, opening);
        }
        if let Some(limit) = opening.table.limit {
            draft.limit(opening, limit);
        }
        Ok(draft)
    }

    pub(super) fn pruner<'a>(&'a self, test: &'a RowTest) -> Pruner<'a> {
        Pruner {
            test,
            columns: &self.columns,
            metas: &self.metas,
        }
    }

    /// Leaves out what the footers rule out.
    fn select(&mut self, cache: &ColumnCache, opening: &Opening) {
        let all = std::mem::take(&mut self.segments);
        let pruner = self.pruner(&opening.table.test);
        let mut verdicts = HashMap::new();
        let (mut kept, mut left_out) = (Vec::with_capacity(all.len()), Vec::new());
        for segment in all {
            let parts = pruner.parts(&segment, &mut verdicts);
            let whole = || {
                let (id, source) = &opening.files[segment.file];
                let held = |column: &Column| {
                    matches!(column.kind, ColumnKind::Constant(_) | ColumnKind::Kept(_))
                        || column.leaf(segment.file).is_none()
                        || cache.inner.peek(&column.key(id, &segment)).is_some()
                };
                source.is_local() || self.columns.iter().all(held)
            };
            match parts.len() {
                0 => left_out.push(segment),
                some if some == segment.parts.len() || whole() => kept.push(segment),
                _ => {
                    kept.push(segment.select(parts));
                    left_out.push(segment);
                }
            }
        }
        self.segments = kept;
        self.left_out = left_out;
    }

    /// Keeps the first segments that have so many rows, and of a remote one no more than that.
    fn limit(&mut self, opening: &Opening, limit: usize) {
        let mut left = limit;
        let mut kept = Vec::new();
        for segment in std::mem::take(&mut self.segments) {
            if left == 0 {
                self.left_out.push(segment);
                continue;
            }
            let rows = segment.rows;
            // So little less is not worth a piece of its own in the cache.
            if opening.files[segment.file].1.is_local() || left > rows / 4 {
                kept.push(segment);
            } else {
                let mut parts = Vec::new();
                let mut due = left;
                for part in segment.parts.iter() {
                    let rows = part.rows.min(due);
                    due -= rows;
                    if rows > 0 {
                        parts.push(Part { rows, ..*part });
                    }
                }
                kept.push(segment.select(parts));
                self.left_out.push(segment);
            }
            left = left.saturating_sub(rows);
        }
        self.segments = kept;
    }

    fn promise(&mut self) {
        for column in &mut self.columns {
            let promise = |segment: &Segment| columns::promise(column, segment, &self.metas);
            let promises = self.segments.iter().map(promise).collect();
            let left_out = self.left_out.iter().map(promise).reduce(both);
            column.promises = promises;
            column.left_out = left_out;
        }
    }

    pub(super) fn core(mut self, cache: &ColumnCache, opening: &Opening, pool: &Arc<dyn DevicePool>) -> Core {
        self.promise();
        let local = opening.files.iter().all(|(_, source)| source.is_local());
        let fetches = match local {
            true => Fetches::none(),
            false => Fetches::new(self.segments.len(), self.columns.len()),
        };
        let sources = opening.files.iter().map(|(_, source)| source.clone());
        Core {
            cache: Arc::clone(&cache.inner),
            pool: Arc::clone(pool),
            table: opening.table.name.as_str().into(),
            files: self.metas.into_iter().zip(sources).collect(),
            segments: self.segments,
            columns: self.columns,
            pages: self.pages,
            fetches,
            account: Arc::clone(&opening.table.account),
            readers: opening.table.readers,
            stops: opening.table.stops && !local,
            late: AtomicBool::new(false),
        }
    }
}

/// What holds over both.
fn both(left: Promise, right: Promise) -> Promise {
    let mut zone = left.zone;
    zone.range = columns::union(zone.range, right.zone.range);
    zone.null_count += right.zone.null_count;
    Promise {
        zone,
        known_nulls: left.known_nulls && right.known_nulls,
    }
}
