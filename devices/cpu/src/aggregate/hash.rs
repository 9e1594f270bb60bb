//! From keys to dense ids: an open-addressed table whose entries are small and whose keys stand apart, in order of id.
//!
//! ```text
//!  entries  [ 0 | tag:32 id+1:32 | 0 | … ]      linear probing, at most half full; the tag is the hash's upper half
//!  keys     [ key of id 0 | key of id 1 | … ]   u64, u128, or bytes in an arena
//! ```
//!
//! States of groups are arrays by id, so output and merging read in order, and the table can grow without moving them.
//! Look-ups of a batch run in two loops: the first loads entries without depending on each other, so that cache misses
//! overlap; the second compares keys.

/// Keys, of a tile or of a table.
#[derive(Debug, Clone)]
pub(super) enum Keys {
    U64(Vec<u64>),
    U128(Vec<u128>),
    Bytes(Arena),
}

/// Byte strings one after another.
#[derive(Debug, Clone)]
pub(super) struct Arena {
    pub(super) bytes: Vec<u8>,
    /// One more than there are strings.
    pub(super) offsets: Vec<usize>,
}

impl Default for Arena {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            offsets: vec![0],
        }
    }
}

impl Arena {
    pub(super) fn get(&self, index: usize) -> &[u8] {
        &self.bytes[self.offsets[index]..self.offsets[index + 1]]
    }

    pub(super) fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.end();
    }

    /// Ends a string whose bytes were appended to `bytes`.
    pub(super) fn end(&mut self) {
        self.offsets.push(self.bytes.len());
    }

    pub(super) fn len(&self) -> usize {
        self.offsets.len() - 1
    }
}

const MULTIPLIER: u64 = 0xD6E8_FEB8_6659_FD93;
const SEED: u64 = 0x9E37_79B9_7F4A_7C15;

/// Multiply and fold, as wyhash does.
#[inline(always)]
fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    (product as u64) ^ ((product >> 64) as u64)
}

#[inline(always)]
pub(super) fn hash_u64(key: u64) -> u64 {
    fold(key ^ SEED, MULTIPLIER)
}

#[inline(always)]
fn hash_u128(key: u128) -> u64 {
    fold(hash_u64(key as u64) ^ ((key >> 64) as u64), SEED | 1)
}

pub(super) fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut state = SEED ^ bytes.len() as u64;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let mut word = [0_u8; 8];
        word.copy_from_slice(chunk);
        state = fold(state ^ u64::from_le_bytes(word), MULTIPLIER);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        let mut word = [0_u8; 8];
        word[..rest.len()].copy_from_slice(rest);
        state = fold(state ^ u64::from_le_bytes(word), MULTIPLIER);
    }
    fold(state, SEED | 1)
}

impl Keys {
    /// No keys, of the same kind.
    pub(super) fn empty(&self) -> Self {
        match self {
            Keys::U64(_) => Keys::U64(Vec::new()),
            Keys::U128(_) => Keys::U128(Vec::new()),
            Keys::Bytes(_) => Keys::Bytes(Arena::default()),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Keys::U64(keys) => keys.len(),
            Keys::U128(keys) => keys.len(),
            Keys::Bytes(arena) => arena.len(),
        }
    }

    pub(super) fn clear(&mut self) {
        match self {
            Keys::U64(keys) => keys.clear(),
            Keys::U128(keys) => keys.clear(),
            Keys::Bytes(arena) => {
                arena.bytes.clear();
                arena.offsets.truncate(1);
            }
        }
    }

    /// The keys at `rows`, in that order.
    pub(super) fn clone_at(&self, rows: &[u32]) -> Self {
        match self {
            Keys::U64(keys) => Keys::U64(rows.iter().map(|&row| keys[row as usize]).collect()),
            Keys::U128(keys) => Keys::U128(rows.iter().map(|&row| keys[row as usize]).collect()),
            Keys::Bytes(arena) => {
                let mut taken = Arena::default();
                rows.iter().for_each(|&row| taken.push(arena.get(row as usize)));
                Keys::Bytes(taken)
            }
        }
    }

    /// The hash of each key.
    pub(super) fn hash(&self, hashes: &mut Vec<u64>) {
        hashes.clear();
        match self {
            Keys::U64(keys) => hashes.extend(keys.iter().map(|&key| hash_u64(key))),
            Keys::U128(keys) => hashes.extend(keys.iter().map(|&key| hash_u128(key))),
            Keys::Bytes(arena) => hashes.extend((0..arena.len()).map(|index| hash_bytes(arena.get(index)))),
        }
    }
}

/// Ids of keys.
#[derive(Debug)]
pub(super) struct Index {
    entries: Vec<u64>,
    pub(super) keys: Keys,
    /// Hashes by id; kept for bytes only, the others hash as fast as they load.
    hashes: Vec<u64>,
}

/// The least number of entries.
const LEAST_ENTRIES: usize = 1024;

impl Index {
    /// Empty, for keys of the kind of `like`.
    pub(super) fn new(like: &Keys) -> Self {
        Self {
            entries: Vec::new(),
            keys: like.empty(),
            hashes: Vec::new(),
        }
    }

    /// Keys it holds.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Memory after `more` further keys of `bytes` bytes in all, at the worst moment of growing.
    pub(super) fn size_bytes_with(&self, more: usize, bytes: usize) -> usize {
        let wanted = Self::entries_for(self.len() + more);
        let entries = if wanted > self.entries.len() {
            (wanted + self.entries.len()) * 8
        } else {
            self.entries.len() * 8
        };
        let kept = match &self.keys {
            Keys::Bytes(arena) => {
                let offsets = grown(self.len(), more, arena.offsets.capacity(), 8);
                let hashes = grown(self.len(), more, self.hashes.capacity(), 8);
                grown(arena.bytes.len(), bytes, arena.bytes.capacity(), 1) + offsets + hashes
            }
            Keys::U64(keys) => grown(keys.len(), more, keys.capacity(), 8),
            Keys::U128(keys) => grown(keys.len(), more, keys.capacity(), 16),
        };
        entries + kept
    }

    fn entries_for(keys: usize) -> usize {
        (keys * 2).next_power_of_two().max(LEAST_ENTRIES)
    }

    /// Makes room so that `more` keys can be inserted.
    pub(super) fn make_room(&mut self, more: usize) {
        let wanted = Self::entries_for(self.len() + more);
        if wanted <= self.entries.len() {
            return;
        }
        let mask = wanted - 1;
        let mut entries = vec![0_u64; wanted];
        let mut place = |id: usize, hash: u64| {
            let mut position = hash as usize & mask;
            while entries[position] != 0 {
                position = (position + 1) & mask;
            }
            entries[position] = entry_of(hash, id);
        };
        match &self.keys {
            Keys::U64(keys) => (0..keys.len()).for_each(|id| place(id, hash_u64(keys[id]))),
            Keys::U128(keys) => (0..keys.len()).for_each(|id| place(id, hash_u128(keys[id]))),
            Keys::Bytes(_) => (0..self.hashes.len()).for_each(|id| place(id, self.hashes[id])),
        }
        self.entries = entries;
    }

    /// Appends to `ids` the id of each key in `keys`, or of those at `picks`; new keys get the next ids. `hashes` are those of
    /// all `keys`.
    pub(super) fn locate(&mut self, keys: &Keys, hashes: &[u64], picks: Option<&[u32]>, ids: &mut Vec<u32>) {
        ids.clear();
        self.make_room(picks.map_or(keys.len(), <[u32]>::len));
        let entries = &mut self.entries;
        match (&mut self.keys, keys) {
            (Keys::U64(kept), Keys::U64(keys)) => locate(entries, kept, keys, hashes, picks, ids),
            (Keys::U128(kept), Keys::U128(keys)) => locate(entries, kept, keys, hashes, picks, ids),
            (Keys::Bytes(kept), Keys::Bytes(keys)) => {
                locate_bytes(entries, kept, &mut self.hashes, keys, hashes, picks, ids);
            }
            _ => {}
        }
    }
}

/// Bytes of a vector of `len` items of `width` bytes that takes `more`, while it grows.
pub(super) fn grown(len: usize, more: usize, capacity: usize, width: usize) -> usize {
    if len + more <= capacity {
        capacity * width
    } else {
        (capacity + (capacity * 2).max(len + more)) * width
    }
}

#[inline(always)]
fn entry_of(hash: u64, id: usize) -> u64 {
    (hash & 0xFFFF_FFFF_0000_0000) | (id as u64 + 1)
}

/// Keys looked up at once: the loads of their entries overlap.
const BATCH: usize = 64;

fn locate<K: Copy + Eq>(
    entries: &mut [u64],
    kept: &mut Vec<K>,
    keys: &[K],
    hashes: &[u64],
    picks: Option<&[u32]>,
    ids: &mut Vec<u32>,
) {
    let count = picks.map_or(keys.len(), <[u32]>::len);
    let at = |index: usize| picks.map_or(index, |picks| picks[index] as usize);
    let mask = entries.len() - 1;
    let mut first = [0_u64; BATCH];
    for start in (0..count).step_by(BATCH) {
        let end = (start + BATCH).min(count);
        for (slot, index) in first.iter_mut().zip(start..end) {
            *slot = entries[hashes[at(index)] as usize & mask];
        }
        for (&seen, index) in first.iter().zip(start..end) {
            let row = at(index);
            let (hash, key) = (hashes[row], keys[row]);
            let guess = seen as u32;
            if guess != 0 && (seen ^ hash) >> 32 == 0 && kept[guess as usize - 1] == key {
                ids.push(guess - 1);
                continue;
            }
            let mut position = hash as usize & mask;
            let id = loop {
                let entry = entries[position];
                if entry == 0 {
                    entries[position] = entry_of(hash, kept.len());
                    kept.push(key);
                    break kept.len() - 1;
                }
                let id = entry as u32 as usize - 1;
                if (entry ^ hash) >> 32 == 0 && kept[id] == key {
                    break id;
                }
                position = (position + 1) & mask;
            };
            ids.push(id as u32);
        }
    }
}

fn locate_bytes(
    entries: &mut [u64],
    kept: &mut Arena,
    kept_hashes: &mut Vec<u64>,
    keys: &Arena,
    hashes: &[u64],
    picks: Option<&[u32]>,
    ids: &mut Vec<u32>,
) {
    let count = picks.map_or(keys.len(), <[u32]>::len);
    let mask = entries.len() - 1;
    for index in 0..count {
        let row = picks.map_or(index, |picks| picks[index] as usize);
        let (hash, key) = (hashes[row], keys.get(row));
        let mut position = hash as usize & mask;
        let id = loop {
            let entry = entries[position];
            if entry == 0 {
                entries[position] = entry_of(hash, kept.len());
                kept.push(key);
                kept_hashes.push(hash);
                break kept.len() - 1;
            }
            let id = entry as u32 as usize - 1;
            if (entry ^ hash) >> 32 == 0 && kept.get(id) == key {
                break id;
            }
            position = (position + 1) & mask;
        };
        ids.push(id as u32);
    }
}
