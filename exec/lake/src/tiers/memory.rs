//! The memory tier: bytes as the store has them, within a budget.
//!
//! Two regions, so that large scans don't push out what every query needs first: small ranges that somebody waited for
//! (footers, page indexes; a quarter of the budget, the least recently used go) and all else (TinyLFU: a range that comes once
//! doesn't displace one that came twice).

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::RwLock;

use super::ranges::{Held, Ranges};
use crate::metrics::CacheRow;
use crate::read::{ObjectRef, ReadClass};

/// Longest range of the small region.
const SMALL_BYTES: usize = 1 << 20;
/// Ranges up to this size are copied: they may be a part of a much larger buffer.
const COPY_BYTES: usize = 256 << 10;
/// What an entry costs beside its bytes.
const ENTRY_BYTES: usize = 256;

/// What was kept.
struct Kept {
    store: Arc<str>,
    object: Arc<ObjectRef>,
    start: u64,
    bytes: Bytes,
    id: u64,
    hits: AtomicU64,
}

/// By object and first byte; the same again when a range comes back, so that how often it was wanted is remembered.
type Key = (u64, u64);

#[derive(Debug, Clone, Copy)]
struct Place {
    small: bool,
    key: Key,
    id: u64,
}

type Index = RwLock<Ranges<Place>>;

/// See the module. A range is in the index before it is in its region, and whatever leaves a region leaves the index; so the
/// index never promises for long what isn't there.
pub(super) struct Memory {
    index: Arc<Index>,
    small: Cache<Key, Arc<Kept>>,
    large: Cache<Key, Arc<Kept>>,
    hasher: RandomState,
    budget_bytes: usize,
    id_next: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// A hit.
pub(super) struct Hit {
    pub(super) bytes: Bytes,
    /// Ranges that were found for the first time since they are kept: first byte, and bytes.
    pub(super) touched: Vec<(u64, Bytes)>,
}

impl Memory {
    /// None when the budget is 0.
    pub(super) fn new(budget_bytes: usize) -> Option<Self> {
        if budget_bytes == 0 {
            return None;
        }
        let index = Arc::new(Index::default());
        let small_bytes = budget_bytes / 4;
        Some(Self {
            small: cache(small_bytes, EvictionPolicy::lru(), &index),
            large: cache(budget_bytes - small_bytes, EvictionPolicy::tiny_lfu(), &index),
            index,
            hasher: RandomState::new(),
            budget_bytes,
            id_next: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        })
    }

    pub(super) fn get(&self, store: &Arc<str>, object: &Arc<ObjectRef>, range: &Range<u64>) -> Option<Hit> {
        let found = self.index.read().covering(store, object, range);
        let hit = found.and_then(|found| self.assemble(store, object, range, &found));
        let count = if hit.is_some() { &self.hits } else { &self.misses };
        count.fetch_add(1, Ordering::Relaxed);
        if hit.is_none() {
            // Remembered as wanted once more, for when it comes.
            let _ = self.large.get(&self.key(store, object, range.start));
        }
        hit
    }

    fn assemble(
        &self,
        store: &Arc<str>,
        object: &Arc<ObjectRef>,
        range: &Range<u64>,
        found: &[Held<Place>],
    ) -> Option<Hit> {
        let mut touched = Vec::new();
        let mut parts = Vec::with_capacity(found.len());
        for held in found {
            let kept = self.region(held.place.small).get(&held.place.key)?;
            let same = kept.object.version == object.version
                && kept.object.location == object.location
                && kept.store == *store
                && kept.id == held.place.id;
            if !same {
                return None;
            }
            let from = usize::try_from(range.start.max(held.range.start) - held.range.start).ok()?;
            let to = usize::try_from(range.end.min(held.range.end) - held.range.start).ok()?;
            parts.push(kept.bytes.get(from..to).map(|_| kept.bytes.slice(from..to))?);
            if kept.hits.fetch_add(1, Ordering::Relaxed) == 0 {
                touched.push((kept.start, kept.bytes.clone()));
            }
        }
        let bytes = match parts.len() {
            1 => parts.pop()?,
            _ => joined(&parts),
        };
        Some(Hit { bytes, touched })
    }

    /// Keeps what was fetched, if it may. `scan_bytes` is what the scan that it is for reads in all.
    pub(super) fn put(
        &self,
        store: &Arc<str>,
        object: &Arc<ObjectRef>,
        start: u64,
        bytes: &Bytes,
        class: ReadClass,
        scan_bytes: u64,
    ) {
        let range = start..start + bytes.len() as u64;
        let small = class == ReadClass::Demand && bytes.len() <= SMALL_BYTES.min(self.budget_bytes / 16);
        let half_bytes = self.budget_bytes / 2;
        let passes = !small && (bytes.len() > half_bytes || scan_bytes > half_bytes as u64);
        let id = self.id_next.fetch_add(1, Ordering::Relaxed);
        let room = {
            let mut index = self.index.write();
            // Also for what is not kept: the old version goes.
            let asked = if passes { start..start } else { range };
            let room = index.make_room(store, object, &asked);
            if let Some(range) = &room.range {
                let key = self.key(store, object, range.start);
                index.insert(store, object, range.clone(), Place { small, key, id });
            }
            room
        };
        for old in room.dropped {
            self.region(old.small).invalidate(&old.key);
        }
        let Some(range) = room.range else { return };
        let offset = |at: u64| usize::try_from(at - start).unwrap_or(usize::MAX);
        let part = bytes.slice(offset(range.start)..offset(range.end));
        let part = if part.len() < bytes.len() || part.len() <= COPY_BYTES {
            Bytes::copy_from_slice(&part)
        } else {
            part
        };
        let kept = Arc::new(Kept {
            store: Arc::clone(store),
            object: Arc::clone(object),
            start: range.start,
            bytes: part,
            id,
            hits: AtomicU64::new(0),
        });
        let cache = self.region(small);
        cache.insert(self.key(store, object, range.start), kept);
        // At once: large ranges would exceed the budget while they wait to be counted.
        cache.run_pending_tasks();
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.small.run_pending_tasks();
        self.large.run_pending_tasks();
        self.small.weighted_size() + self.large.weighted_size()
    }

    pub(super) fn budget_bytes(&self) -> u64 {
        self.budget_bytes as u64
    }

    pub(super) fn counts(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }

    pub(super) fn rows(&self, rows: &mut Vec<CacheRow>) {
        for (_, kept) in self.small.iter().chain(self.large.iter()) {
            rows.push(CacheRow {
                tier: "memory",
                store: kept.store.to_string(),
                path: kept.object.location.to_string(),
                version: kept.object.version.clone(),
                start: kept.start,
                bytes: kept.bytes.len() as u64,
                hits: kept.hits.load(Ordering::Relaxed),
            });
        }
    }

    pub(super) fn clear(&self) {
        self.index.write().clear();
        for cache in [&self.small, &self.large] {
            cache.invalidate_all();
            cache.run_pending_tasks();
        }
    }

    fn region(&self, small: bool) -> &Cache<Key, Arc<Kept>> {
        if small { &self.small } else { &self.large }
    }

    fn key(&self, store: &Arc<str>, object: &ObjectRef, start: u64) -> Key {
        let object = (store, object.location.as_ref(), object.version.as_str());
        (self.hasher.hash_one(object), start)
    }
}

fn cache(budget_bytes: usize, policy: EvictionPolicy, index: &Arc<Index>) -> Cache<Key, Arc<Kept>> {
    let index = Arc::clone(index);
    Cache::builder()
        .max_capacity(budget_bytes as u64)
        .weigher(|_, kept: &Arc<Kept>| u32::try_from(kept.bytes.len() + ENTRY_BYTES).unwrap_or(u32::MAX))
        .eviction_policy(policy)
        .eviction_listener(move |_, kept: Arc<Kept>, _: RemovalCause| {
            let mut index = index.write();
            index.remove(&kept.store, &kept.object.location, kept.start, |place| {
                place.id == kept.id
            });
        })
        .build()
}

fn joined(parts: &[Bytes]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    for part in parts {
        bytes.extend_from_slice(part);
    }
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::path::Path;

    const MIB: usize = 1 << 20;

    fn object(path: &str, version: &str) -> Arc<ObjectRef> {
        Arc::new(ObjectRef {
            location: Path::from(path),
            size_bytes: 1 << 40,
            e_tag: None,
            version: version.to_owned(),
        })
    }

    fn filled(byte: u8, bytes: usize) -> Bytes {
        Bytes::from(vec![byte; bytes])
    }

    fn store() -> Arc<str> {
        Arc::from("s3://bucket")
    }

    #[test]
    fn footers_are_found_in_what_was_read_before() {
        let (memory, store, one) = (Memory::new(64 * MIB).unwrap(), store(), object("a", "1"));
        assert!(memory.get(&store, &one, &(0..10)).is_none());
        let footer: Bytes = (0..100u8).collect();
        memory.put(&store, &one, 1000, &footer, ReadClass::Demand, 0);
        let hit = memory.get(&store, &one, &(1010..1020)).unwrap();
        assert_eq!(hit.bytes, footer.slice(10..20));
        assert_eq!(hit.touched, [(1000, footer.clone())]);
        memory.put(&store, &one, 1090, &footer.slice(90..), ReadClass::Demand, 0);
        memory.put(&store, &one, 1100, &filled(7, 10), ReadClass::Near, 0);
        let hit = memory.get(&store, &one, &(1095..1105)).unwrap();
        assert_eq!(hit.bytes, [95, 96, 97, 98, 99, 7, 7, 7, 7, 7].as_slice());
        assert!(memory.get(&store, &one, &(1095..1111)).is_none());
        assert!(memory.get(&store, &object("a", "2"), &(1010..1020)).is_none());
        assert_eq!(memory.counts(), (2, 3));
    }

    #[test]
    fn a_new_version_drops_the_old_one() {
        let (memory, store) = (Memory::new(64 * MIB).unwrap(), store());
        for version in ["1", "2"] {
            memory.put(&store, &object("a", version), 0, &filled(1, MIB), ReadClass::Near, 0);
        }
        assert!(memory.get(&store, &object("a", "1"), &(0..10)).is_none());
        assert!(memory.used_bytes() < 3 * MIB as u64 / 2);
        // Even when nothing of the new one is kept.
        let large = filled(2, 40 * MIB);
        memory.put(&store, &object("a", "3"), 0, &large, ReadClass::Near, 0);
        assert_eq!(memory.used_bytes(), 0);
    }

    #[test]
    fn the_budget_is_kept_and_scans_leave_footers_alone() {
        let (memory, store) = (Memory::new(16 * MIB).unwrap(), store());
        let footer = object("footer", "1");
        memory.put(&store, &footer, 0, &filled(1, 64 << 10), ReadClass::Demand, 0);
        for index in 0..100 {
            let bytes = filled(2, MIB);
            memory.put(&store, &object(&format!("{index}"), "1"), 0, &bytes, ReadClass::Near, 0);
            assert!(memory.used_bytes() <= 16 * MIB as u64);
        }
        assert!(memory.used_bytes() > 10 * MIB as u64);
        assert!(memory.get(&store, &footer, &(0..100)).is_some());
        let mut rows = Vec::new();
        memory.rows(&mut rows);
        assert!(rows.iter().any(|row| row.path == "footer" && row.hits == 1));
        memory.clear();
        assert_eq!(memory.used_bytes(), 0);
        assert!(memory.get(&store, &footer, &(0..100)).is_none());
        memory.put(&store, &footer, 0, &filled(1, 64 << 10), ReadClass::Demand, 0);
        assert!(memory.get(&store, &footer, &(0..100)).is_some());
    }

    #[test]
    fn what_is_wanted_again_displaces_what_came_once() {
        let (memory, store) = (Memory::new(16 * MIB).unwrap(), store());
        let wanted = object("wanted", "1");
        for round in 0..4 {
            for index in 0..20 {
                let bytes = filled(2, MIB);
                let path = format!("{round}/{index}");
                memory.put(&store, &object(&path, "1"), 0, &bytes, ReadClass::Near, 0);
            }
            if memory.get(&store, &wanted, &(0..MIB as u64)).is_none() {
                memory.put(&store, &wanted, 0, &filled(1, MIB), ReadClass::Near, 0);
            }
        }
        assert!(memory.get(&store, &wanted, &(0..MIB as u64)).is_some());
    }

    #[test]
    fn large_scans_pass_by() {
        let (memory, store, one) = (Memory::new(16 * MIB).unwrap(), store(), object("a", "1"));
        memory.put(&store, &one, 0, &filled(1, MIB), ReadClass::Near, 9 << 20);
        assert_eq!(memory.used_bytes(), 0);
        memory.put(&store, &one, 0, &filled(1, 9 * MIB), ReadClass::Demand, 0);
        assert_eq!(memory.used_bytes(), 0);
        memory.put(&store, &one, 0, &filled(1, 1000), ReadClass::Demand, 9 << 20);
        assert!(memory.get(&store, &one, &(0..1000)).is_some());
    }
}
