//! Bytes kept near: in memory, then in slots of a local file.

mod disk;
mod ghost;
mod memory;
mod ranges;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::metrics::{CacheRow, LakeMetrics};
use crate::options::LakeOptions;
use crate::read::{Account, ObjectRef, ReadClass};
use disk::{Disk, DiskOptions};
use ghost::Ghost;
use memory::Memory;

/// Rows of `system.cache` at most.
const ROWS_MAX: usize = 100_000;
/// Ranges that are remembered for their second touch.
const GHOSTS: usize = 128 << 10;
/// Longest range that moves from the disk to the memory tier when it is found: more comes from the disk as fast.
const PROMOTED_BYTES: usize = 1 << 20;

/// Where cached bytes were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Memory,
    Disk,
}

/// Both tiers, shared by all stores. Keys are (store key, object version, first byte).
pub(crate) struct Tiers {
    memory: Option<Memory>,
    disk: Option<Disk>,
    /// Why a disk tier that was asked for could not be opened.
    disk_unusable: Option<String>,
    ghost: Ghost,
    /// Fetched ahead and not yet taken, by all queries; no tier, but as near.
    pub(crate) ahead_bytes: AtomicU64,
    /// Most of them at the same time.
    pub(crate) ahead_bytes_max: AtomicU64,
}

impl Tiers {
    pub(crate) fn new(options: &LakeOptions) -> Arc<Self> {
        let (disk, disk_unusable) = match disk_options(options).map(|options| Disk::open(&options)) {
            None => (None, None),
            Some(Ok(disk)) => (Some(disk), None),
            Some(Err(error)) => {
                tracing::warn!(%error, "the lake has no disk tier");
                (None, Some(error.to_string()))
            }
        };
        Arc::new(Self {
            memory: Memory::new(options.memory_bytes),
            ghost: Ghost::new(if disk.is_some() { GHOSTS } else { 0 }),
            disk,
            disk_unusable,
            ahead_bytes: AtomicU64::new(0),
            ahead_bytes_max: AtomicU64::new(0),
        })
    }

    /// The bytes of a range, if cached ranges contain it. Never fails: what can't be read is not there.
    pub(crate) async fn get(
        &self,
        store: &Arc<str>,
        object: &Arc<ObjectRef>,
        range: &Range<u64>,
    ) -> Option<(Bytes, Found)> {
        if range.is_empty() {
            return None;
        }
        if let Some(hit) = (self.memory.as_ref()).and_then(|memory| memory.get(store, object, range)) {
            // The second touch, if what was found came from the store.
            for (start, bytes) in &hit.touched {
                if let Some(disk) = &self.disk {
                    disk.offer(store, object, *start, bytes);
                }
            }
            return Some((hit.bytes, Found::Memory));
        }
        let bytes = self.disk.as_ref()?.get(store, object, range).await?;
        if let Some(memory) = &self.memory
            && bytes.len() <= PROMOTED_BYTES
        {
            memory.put(store, object, range.start, &bytes, ReadClass::Near, 0);
        }
        Some((bytes, Found::Disk))
    }

    /// What was fetched; whether it is kept, and where, is decided here, also by what `reader` plans to read. Doesn't block.
    pub(crate) fn put(
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
        if let Some(disk) = &self.disk {
            disk.forget_others(store, object);
            let range = start..start + bytes.len() as u64;
            if self.ghost.touch(store, object, &range) {
                disk.offer(store, object, start, bytes);
            }
        }
    }

    pub(crate) fn metrics(&self) -> LakeMetrics {
        let mut metrics = LakeMetrics {
            window_used_bytes: self.ahead_bytes.load(Ordering::Relaxed),
            window_peak_bytes: self.ahead_bytes_max.load(Ordering::Relaxed),
            ..LakeMetrics::default()
        };
        if let Some(memory) = &self.memory {
            metrics.memory_used_bytes = memory.used_bytes();
            metrics.memory_budget_bytes = memory.budget_bytes();
            (metrics.memory_hits, metrics.memory_misses) = memory.counts();
        }
        metrics.disk_off.clone_from(&self.disk_unusable);
        if let Some(disk) = &self.disk {
            metrics.disk_used_bytes = disk.used_bytes();
            metrics.disk_budget_bytes = disk.budget_bytes();
            (metrics.disk_hits, metrics.disk_misses, metrics.disk_errors) = disk.counts();
            metrics.disk_off = disk.off();
        }
        metrics
    }

    /// Sorted; the largest number of rows is bounded.
    pub(crate) fn rows(&self) -> Vec<CacheRow> {
        let mut rows = Vec::new();
        if let Some(memory) = &self.memory {
            memory.rows(&mut rows);
        }
        if let Some(disk) = &self.disk {
            disk.rows(&mut rows, ROWS_MAX);
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
        if let Some(disk) = &self.disk {
            disk.clear();
        }
        self.ghost.clear();
    }
}

/// Slots of the configured size, or smaller ones if few of them would fit.
fn disk_options(options: &LakeOptions) -> Option<DiskOptions> {
    let dir = options.disk_dir.clone().filter(|_| options.disk_bytes > 0)?;
    let mut slot_bytes = options.disk_slot_bytes.clamp(1 << 20, 8 << 20);
    while slot_bytes > 1 << 20 && options.disk_bytes / slot_bytes < 16 {
        slot_bytes = (slot_bytes / 2).max(1 << 20);
    }
    Some(DiskOptions {
        dir,
        budget_bytes: options.disk_bytes,
        slot_bytes,
    })
}
