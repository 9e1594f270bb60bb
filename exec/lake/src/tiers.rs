//! Bytes kept near: in memory, then in slots of a local file.

mod memory;
mod ranges;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::metrics::{CacheRow, LakeMetrics};
use crate::options::LakeOptions;
use crate::read::{Account, ObjectRef, ReadClass};
use memory::Memory;

/// Rows of `system.cache` at most.
const ROWS_MAX: usize = 100_000;

/// Where cached bytes were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Memory,
    #[allow(dead_code, reason = "the disk tier is to come")]
    Disk,
}

/// Both tiers, shared by all stores. Keys are (store key, object version, first byte).
pub(crate) struct Tiers {
    memory: Option<Memory>,
}

impl Tiers {
    pub(crate) fn new(options: &LakeOptions) -> Arc<Self> {
        Arc::new(Self {
            memory: Memory::new(options.memory_bytes),
        })
    }

    /// The bytes of a range, if cached ranges contain it. Never fails: what can't be read is not there.
    #[allow(clippy::unused_async, reason = "the disk tier is to come")]
    pub(crate) async fn get(
        &self,
        store: &Arc<str>,
        object: &Arc<ObjectRef>,
        range: &Range<u64>,
    ) -> Option<(Bytes, Found)> {
        if range.is_empty() {
            return None;
        }
        let hit = self.memory.as_ref()?.get(store, object, range)?;
        Some((hit.bytes, Found::Memory))
    }

    /// What was fetched; whether it is kept, and where, is decided here. Doesn't block.
    pub(crate) fn put(&self, store: &Arc<str>, object: &Arc<ObjectRef>, start: u64, bytes: &Bytes, class: ReadClass) {
        self.put_for(store, object, start, bytes, class, None);
    }

    /// [`Tiers::put`] for a reader whose plan is known.
    pub(crate) fn put_for(
        &self,
        store: &Arc<str>,
        object: &Arc<ObjectRef>,
        start: u64,
        bytes: &Bytes,
        class: ReadClass,
        reader: Option<&Account>,
    ) {
        let scan_bytes = reader.map_or(0, |reader| reader.planned_bytes.load(Ordering::Relaxed));
        if let Some(memory) = &self.memory {
            memory.put(store, object, start, bytes, class, scan_bytes);
        }
    }

    pub(crate) fn metrics(&self) -> LakeMetrics {
        let mut metrics = LakeMetrics::default();
        if let Some(memory) = &self.memory {
            metrics.memory_used_bytes = memory.used_bytes();
            metrics.memory_budget_bytes = memory.budget_bytes();
            (metrics.memory_hits, metrics.memory_misses) = memory.counts();
        }
        metrics
    }

    /// Sorted; the largest number of rows is bounded.
    pub(crate) fn rows(&self) -> Vec<CacheRow> {
        let mut rows = Vec::new();
        if let Some(memory) = &self.memory {
            memory.rows(&mut rows);
        }
        rows.sort_by(|left, right| {
            let key = |row: &CacheRow| (row.tier, row.start);
            (&left.store, &left.path, key(left)).cmp(&(&right.store, &right.path, key(right)))
        });
        rows.truncate(ROWS_MAX);
        rows
    }

    /// Both tiers are empty then.
    pub(crate) fn clear(&self) {
        if let Some(memory) = &self.memory {
            memory.clear();
        }
    }
}
