//! Open addressing with linear probing: slots of a tag and a row, at most half of them taken: more make misses costly.
//!
//! ```text
//!  slot   63 … 32  tag                              31 … 0  row + 1, 0 in an empty slot
//!                  packed keys below 2³²: the key            then a tag that is equal is a match
//!                  other keys: the hash's low bits           then the key of the row is compared
//! ```
//!
//! The hash's upper bits are the first slot.

use std::sync::atomic::{AtomicU64, Ordering};

use super::super::encode::EncodedKeys;
use super::bloom::Bloom;
use super::zeroed::Zeroed;
use super::{Chain, prefetch};

/// How many rows ahead memory is asked for.
const AHEAD: usize = 48;

/// Tables larger than this, the second-level cache of most processors, get a Bloom filter.
pub(crate) const BLOOM_FROM_BYTES: usize = 1 << 20;

/// A Bloom filter larger than this lies as far away as the table.
pub(crate) const BLOOM_TO_BYTES: usize = 2 << 20;

/// A hash table.
#[derive(Debug)]
pub(crate) struct HashTable {
    slots: Zeroed<AtomicU64>,
    shift: u32,
    pub(crate) keys: RowKeys,
    pub(crate) bloom: Option<Bloom>,
}

/// The keys of build rows, for comparison.
#[derive(Debug)]
pub(crate) enum RowKeys {
    /// The tag is the key.
    InTag,
    /// Packed, by row.
    Words(Zeroed<AtomicU64>),
    /// Packed, two words by row.
    DoubleWords(Zeroed<AtomicU64>),
    /// Encoded, by worker; the first rows of the workers, ascending.
    Bytes(Vec<EncodedKeys>, Vec<u32>),
}

impl RowKeys {
    /// The encoded key of a row.
    pub(crate) fn bytes(&self, row: u32) -> &[u8] {
        match self {
            RowKeys::Bytes(parts, firsts) => {
                let part = firsts.partition_point(|first| *first <= row) - 1;
                parts[part].get((row - firsts[part]) as usize)
            }
            _ => &[],
        }
    }
}

/// A row's hash, tag, and place among the rows that are inserted or looked up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hashed<'h> {
    pub(crate) hashes: &'h [u64],
    /// Packed keys, when they are the tags.
    pub(crate) tags: Option<&'h [u64]>,
}

impl Hashed<'_> {
    fn tag(&self, at: usize) -> u32 {
        match self.tags {
            Some(keys) => keys[at] as u32,
            None => self.hashes[at] as u32,
        }
    }
}

impl HashTable {
    fn slots_for(rows: usize) -> usize {
        (rows * 2).max(16).next_power_of_two()
    }

    /// Memory of the slots for so many rows.
    pub(crate) fn slot_bytes(rows: usize) -> usize {
        Self::slots_for(rows) * size_of::<AtomicU64>()
    }

    /// For so many rows.
    pub(crate) fn new(rows: usize, keys: RowKeys, bloom: bool) -> Self {
        let slots = Self::slots_for(rows);
        Self {
            slots: Zeroed::new(slots),
            shift: 64 - slots.trailing_zeros(),
            keys,
            bloom: bloom.then(|| Bloom::new(rows)),
        }
    }

    /// Inserts rows from `first_row` on, but those that aren't `found`. True when a key was there already. Without `chain`
    /// one row of each key is kept. `alone`: no other worker inserts.
    pub(crate) fn insert(
        &self,
        rows: Hashed<'_>,
        found: &[u8],
        first_row: u32,
        (chain, alone): (Option<&Chain>, bool),
        same: impl Fn(usize, u32) -> bool,
    ) -> bool {
        if let Some(bloom) = &self.bloom {
            bloom.insert(rows.hashes, found, alone);
        }
        let mut repeated = false;
        for (at, (hash, found)) in rows.hashes.iter().zip(found).enumerate() {
            if let Some(hash) = rows.hashes.get(at + AHEAD) {
                prefetch(&self.slots, (hash >> self.shift) as usize);
            }
            if *found != 0 {
                let entry = (u64::from(rows.tag(at)) << 32) | u64::from(first_row + at as u32 + 1);
                repeated |= self.insert_row(*hash, entry, (chain, alone), |row| same(at, row));
            }
        }
        repeated
    }

    fn insert_row(
        &self,
        hash: u64,
        entry: u64,
        (chain, alone): (Option<&Chain>, bool),
        same: impl Fn(u32) -> bool,
    ) -> bool {
        let mut at = (hash >> self.shift) as usize;
        loop {
            let slot = &self.slots[at];
            let held = slot.load(Ordering::Acquire);
            let first = held as u32;
            if first == 0 {
                if replace(slot, held, entry, alone) {
                    return false;
                }
            } else if held >> 32 == entry >> 32 && same(first - 1) {
                let Some(chain) = chain else { return true };
                chain[entry as u32 as usize - 1].store(first, Ordering::Relaxed);
                if replace(slot, held, entry, alone) {
                    return true;
                }
            } else {
                at = (at + 1) & (self.slots.len() - 1);
            }
        }
    }

    /// The first row's number + 1, or 0, of each of the `wanted` rows; `heads` of other rows stay as they are. `same` compares
    /// a looked-up row's key with that of a build row, which is asked of memory by `ahead` some rows before; `None` when the tags
    /// are the keys.
    pub(crate) fn find(
        &self,
        rows: Hashed<'_>,
        wanted: &[u32],
        heads: &mut [u32],
        pending: &mut Vec<u32>,
        same: Option<(impl Fn(usize, u32) -> bool, impl Fn(u32))>,
    ) {
        self.find_tags(rows, wanted, heads, pending);
        let Some((same, ahead)) = same else { return };
        for (place, row) in wanted.iter().enumerate() {
            if let Some(row) = wanted.get(place + AHEAD) {
                ahead(heads[*row as usize].wrapping_sub(1));
            }
            let row = *row as usize;
            if heads[row] != 0 && !same(row, heads[row] - 1) {
                heads[row] = self.first(rows.hashes[row], rows.tag(row), |build_row| same(row, build_row));
            }
        }
    }

    /// The first build row of the tag of each wanted row, in rounds: slot by slot for those that aren't settled yet. Within a
    /// round nothing depends on what memory says, so that many accesses are under way at once.
    fn find_tags(&self, rows: Hashed<'_>, wanted: &[u32], heads: &mut [u32], pending: &mut Vec<u32>) {
        let mask = self.slots.len() - 1;
        let look = |row: u32, step: usize| {
            let at = ((rows.hashes[row as usize] >> self.shift) as usize + step) & mask;
            let held = self.slots[at].load(Ordering::Relaxed);
            let settled = held as u32 == 0 || (held >> 32) as u32 == rows.tag(row as usize);
            (if settled { held as u32 } else { 0 }, settled)
        };
        pending.clear();
        pending.resize(wanted.len(), 0);
        let mut open = 0;
        for (place, row) in wanted.iter().enumerate() {
            if let Some(ahead) = wanted.get(place + AHEAD) {
                prefetch(&self.slots, (rows.hashes[*ahead as usize] >> self.shift) as usize);
            }
            let (head, settled) = look(*row, 0);
            heads[*row as usize] = head;
            pending[open] = *row;
            open += usize::from(!settled);
        }
        for step in 1.. {
            let before = open;
            open = 0;
            for at in 0..before {
                let row = pending[at];
                let (head, settled) = look(row, step);
                heads[row as usize] = head;
                pending[open] = row;
                open += usize::from(!settled);
            }
            if open == 0 {
                return;
            }
        }
    }

    fn first(&self, hash: u64, tag: u32, same: impl Fn(u32) -> bool) -> u32 {
        let mut at = (hash >> self.shift) as usize;
        loop {
            let held = self.slots[at].load(Ordering::Relaxed);
            let first = held as u32;
            if first == 0 || ((held >> 32) as u32 == tag && same(first - 1)) {
                return first;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }
}

/// Puts `entry` where `held` was, if it still is.
fn replace(slot: &AtomicU64, held: u64, entry: u64, alone: bool) -> bool {
    if alone {
        slot.store(entry, Ordering::Relaxed);
        return true;
    }
    slot.compare_exchange(held, entry, Ordering::Release, Ordering::Relaxed)
        .is_ok()
}
