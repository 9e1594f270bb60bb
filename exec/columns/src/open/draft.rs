//! A scan before anything of its rows is read: which segments it has, and what is promised of them.

use std::collections::HashMap;
use std::sync::Arc;

use trireme_device_api::{DeviceError, DevicePool, RowTest};

use super::{Opening, columns};
use crate::cache::ColumnCache;
use crate::fetches::Fetches;
use crate::footer::FileMeta;
use crate::prune::Pruner;
use crate::scan::{Column, ColumnKind, Core};
use crate::segments::{self, Promise, Segment};

/// See the module.
pub(super) struct Draft {
    metas: Vec<Arc<FileMeta>>,
    segments: Vec<Segment>,
    columns: Vec<Column>,
}

impl Draft {
    pub(super) fn new(cache: &ColumnCache, opening: &Opening, metas: &[Arc<FileMeta>]) -> Result<Self, DeviceError> {
        let cut =
            |(file, meta): (usize, &Arc<FileMeta>)| segments::plan(file, &meta.metadata, cache.inner.segment_rows);
        let all: Vec<Segment> = metas.iter().enumerate().flat_map(cut).collect();
        let rows = all.iter().map(|segment| segment.rows).sum();
        let requests = opening.table.columns.iter();
        let columns = requests.map(|request| columns::column(cache, opening, request, metas, rows));
        let mut columns = columns.collect::<Result<Vec<_>, _>>()?;
        let (segments, left_out) = match opening.table.test {
            RowTest::True => (all, Vec::new()),
            _ => select(cache, opening, &columns, metas, all),
        };
        for column in &mut columns {
            let promise = |segment: &Segment| columns::promise(column, segment, metas);
            let promises = segments.iter().map(promise).collect();
            let left_out = left_out.iter().map(promise).reduce(both);
            column.promises = promises;
            column.left_out = left_out;
        }
        Ok(Self {
            metas: metas.to_vec(),
            segments,
            columns,
        })
    }

    pub(super) fn core(self, cache: &ColumnCache, opening: &Opening, pool: &Arc<dyn DevicePool>) -> Core {
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
            fetches,
            account: Arc::clone(&opening.table.account),
            readers: opening.table.readers,
        }
    }
}

/// Segments, or what is wanted of them, and segments that are left out.
fn select(
    cache: &ColumnCache,
    opening: &Opening,
    columns: &[Column],
    metas: &[Arc<FileMeta>],
    all: Vec<Segment>,
) -> (Vec<Segment>, Vec<Segment>) {
    let pruner = Pruner {
        test: &opening.table.test,
        columns,
        metas,
    };
    let mut verdicts = HashMap::new();
    let (mut kept, mut left_out) = (Vec::with_capacity(all.len()), Vec::new());
    for segment in all {
        let parts = pruner.parts(&segment, &mut verdicts);
        let whole = || {
            let (id, source) = &opening.files[segment.file];
            let held = |column: &Column| {
                matches!(column.kind, ColumnKind::Constant(_))
                    || column.leaf(segment.file).is_none()
                    || cache.inner.peek(&column.key(id, &segment)).is_some()
            };
            source.is_local() || columns.iter().all(held)
        };
        match parts.len() {
            0 => left_out.push(segment),
            some if some == segment.parts.len() || whole() => kept.push(segment),
            _ => kept.push(segment.select(parts)),
        }
    }
    (kept, left_out)
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
