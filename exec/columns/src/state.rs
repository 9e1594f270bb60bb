//! What the cache holds, under one lock: entries in order of their worth, columns being decoded, dictionaries, versions.
//!
//! ```text
//!  order   least worth ─────────────────────────────▶ most      worth = floor + uses · work / bytes
//!          ▲ floor                                              credit = worth − floor, what a newcomer is compared with
//! ```
//!
//! The floor is the worth of what was let go last (greedy dual size frequency, Cherkasova 1998), so what is not used ages. A
//! newcomer must be worth twice the credit of what it replaces; a refusal lifts the floor a little. So one pass over much data
//! replaces nothing, a scan larger than the budget keeps a part of itself resident, and what is used no more goes in time.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use object_store::path::Path;
use parking_lot::{Condvar, Mutex};
use trireme_device_api::DeviceColumn;

use crate::cache::Key;
use crate::decode::Failure;
use crate::dictionary::Domain;
use crate::files::FileId;
use crate::keep::Kept;
use crate::metrics::{Counters, add};

/// Uses remembered of what is not held.
const GHOSTS: usize = 64 << 10;
/// Entries looked at for one that no scan holds, per eviction.
const PINNED_SEEN: usize = 4096;
/// Uses counted at most, so that old fame fades.
const USES: u32 = 64;
/// How much of the least credit a refusal takes.
const AGING: f64 = 1.0 / 64.0;

#[derive(Default)]
pub(crate) struct State {
    pub(crate) entries: HashMap<Key, Entry>,
    /// Worth (its bits order as the number does) and a serial number.
    order: BTreeMap<(u64, u64), Key>,
    next: u64,
    floor: f64,
    ghosts: HashMap<u64, u32>,
    pub(crate) flights: HashMap<Key, Arc<Flight>>,
    pub(crate) domains: HashMap<(String, Arc<str>, bool), Arc<Domain>>,
    versions: HashMap<(Arc<str>, Path), FileKeys>,
    hasher: RandomState,
}

/// The version of a file and what is held of it.
type FileKeys = (Arc<FileId>, Vec<Key>);

/// A held column.
pub(crate) struct Entry {
    pub(crate) column: Arc<DeviceColumn>,
    pub(crate) table: Arc<str>,
    pub(crate) bytes: usize,
    pub(crate) decode_ns: u64,
    /// Of decoding, as [`crate::cache::Need::work`].
    pub(crate) work: f64,
    pub(crate) uses: u32,
    pub(crate) place: (u64, u64),
    /// Codes mean nothing without it.
    pub(crate) _domain: Option<Arc<Domain>>,
    pub(crate) _lease: Kept,
}

/// A column being decoded.
#[derive(Default)]
pub(crate) struct Flight {
    landed: Mutex<Option<Result<Arc<DeviceColumn>, Failure>>>,
    signal: Condvar,
}

impl Flight {
    pub(crate) fn land(&self, answer: Result<Arc<DeviceColumn>, Failure>) {
        self.landed.lock().get_or_insert(answer);
        self.signal.notify_all();
    }

    pub(crate) fn wait(&self) -> Result<Arc<DeviceColumn>, Failure> {
        let mut landed = self.landed.lock();
        loop {
            if let Some(answer) = landed.as_ref() {
                return answer.clone();
            }
            self.signal.wait(&mut landed);
        }
    }
}

impl State {
    pub(crate) fn hit(&mut self, key: &Key) -> Option<Arc<DeviceColumn>> {
        let entry = self.entries.get_mut(key)?;
        entry.uses = (entry.uses + 1).min(USES);
        self.order.remove(&entry.place);
        self.next += 1;
        entry.place = (worth_of(self.floor, entry), self.next);
        self.order.insert(entry.place, key.clone());
        Some(Arc::clone(&entry.column))
    }

    /// Uses of a key that is not held, with this one.
    pub(crate) fn uses_of(&mut self, key: &Key) -> u32 {
        if self.ghosts.len() >= GHOSTS {
            self.ghosts.clear();
        }
        let uses = self.ghosts.entry(self.hasher.hash_one(key)).or_default();
        *uses = (*uses + 1).min(USES);
        *uses
    }

    /// Forgets all but columns being decoded; returns what was held.
    pub(crate) fn clear(&mut self) -> State {
        let flights = std::mem::take(&mut self.flights);
        let fresh = State {
            flights,
            ..State::default()
        };
        std::mem::replace(self, fresh)
    }

    /// Lets go of columns of other versions of a file; returns how many.
    pub(crate) fn saw_version(&mut self, file: &Arc<FileId>) -> usize {
        let place = (Arc::clone(&file.store_url), file.location.clone());
        let Some((held, keys)) = self.versions.get_mut(&place) else {
            return 0;
        };
        if held == file {
            return 0;
        }
        *held = Arc::clone(file);
        let stale = std::mem::take(keys);
        stale.iter().filter(|key| self.remove(key)).count()
    }

    /// What is held of a file.
    pub(crate) fn of_file(&self, store_url: &str, location: &Path) -> impl Iterator<Item = (&Key, &Entry)> {
        let place: (Arc<str>, Path) = (Arc::from(store_url), location.clone());
        let keys = self.versions.get(&place).map(|(_, keys)| keys.as_slice());
        let keys = keys.unwrap_or_default().iter();
        keys.filter_map(|key| Some((key, self.entries.get(key)?)))
    }

    pub(crate) fn insert(&mut self, key: Key, mut entry: Entry) {
        self.remove(&key);
        self.next += 1;
        entry.place = (worth_of(self.floor, &entry), self.next);
        self.order.insert(entry.place, key.clone());
        let place = (Arc::clone(&key.file.store_url), key.file.location.clone());
        let (held, keys) = self
            .versions
            .entry(place)
            .or_insert_with(|| (Arc::clone(&key.file), Vec::new()));
        if *held != key.file {
            // A scan of an older version ends; what it decoded is unreachable soon.
            self.order.remove(&entry.place);
            return;
        }
        keys.push(key.clone());
        self.entries.insert(key, entry);
    }

    pub(crate) fn remove(&mut self, key: &Key) -> bool {
        let Some(entry) = self.entries.remove(key) else {
            return false;
        };
        self.order.remove(&entry.place);
        let place = (Arc::clone(&key.file.store_url), key.file.location.clone());
        if let Some((_, keys)) = self.versions.get_mut(&place) {
            keys.retain(|held| held != key);
            if keys.is_empty() {
                self.versions.remove(&place);
            }
        }
        true
    }

    pub(crate) fn remove_codes(&mut self, domain: u64) {
        let of = |key: &&Key| key.domain == Some(domain);
        let keys: Vec<Key> = self.entries.keys().filter(of).cloned().collect();
        for key in keys {
            self.remove(&key);
        }
    }

    /// Lets go of a dictionary that nothing uses, or of the least worth column that no scan holds, if `value` is twice its
    /// credit.
    pub(crate) fn evict_one(&mut self, value: f64, counters: &Counters) -> bool {
        let idle = |domain: &Arc<Domain>| Arc::strong_count(domain) == 1 && !domain.is_raw;
        let unused = self.domains.iter().find(|(_, domain)| idle(domain));
        if let Some(key) = unused.map(|(key, _)| key.clone()) {
            self.domains.remove(&key);
            return true;
        }
        let free = |key: &&Key| {
            let entry = self.entries.get(*key);
            entry.is_some_and(|entry| Arc::strong_count(&entry.column) == 1)
        };
        let found = self.order.iter().take(PINNED_SEEN).find(|(_, key)| free(key));
        let Some((least, key)) = found.map(|((bits, _), key)| (f64::from_bits(*bits), key.clone())) else {
            return false;
        };
        let credit = (least - self.floor).max(0.0);
        if value < 2.0 * credit {
            self.floor += credit * AGING;
            return false;
        }
        self.floor += credit;
        if let Some(entry) = self.entries.get(&key) {
            let uses = entry.uses;
            self.ghosts.insert(self.hasher.hash_one(&key), uses);
        }
        self.remove(&key);
        add(&counters.evictions, 1);
        true
    }
}

fn worth_of(floor: f64, entry: &Entry) -> u64 {
    (floor + value_of(entry.uses, entry.work, entry.bytes)).to_bits()
}

/// What a column is worth beyond the floor.
pub(crate) fn value_of(uses: u32, work: f64, bytes: usize) -> f64 {
    f64::from(uses) * work / bytes.max(1) as f64
}
