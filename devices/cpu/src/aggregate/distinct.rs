//! Distinct values by group: a set of (group, value) pairs and a count per group.

use crate::aggregate::hash::{Arena, Index, Keys};
use crate::aggregate::input::{Lanes, Pick, integers, key_of};
use crate::aggregate::primitive::DistinctKind;

/// The set.
#[derive(Debug)]
pub(super) struct Distinct {
    kind: DistinctKind,
    set: Index,
    pub(super) counts: Vec<i64>,
}

/// Where the group stands in a key; the value is below.
fn group_shift(kind: DistinctKind) -> u32 {
    match kind {
        DistinctKind::Integral { bits, .. } if bits <= 32 => 32,
        DistinctKind::Integral { bits, .. } if bits > 64 => 96,
        _ => 64,
    }
}

fn empty_keys(kind: DistinctKind) -> Keys {
    match kind {
        DistinctKind::Bytes => Keys::Bytes(Arena::default()),
        DistinctKind::Integral { bits, .. } if bits > 96 => Keys::Bytes(Arena::default()),
        DistinctKind::Integral { bits, .. } if bits <= 32 => Keys::U64(Vec::new()),
        _ => Keys::U128(Vec::new()),
    }
}

impl Distinct {
    pub(super) fn new(kind: DistinctKind) -> Self {
        Self {
            kind,
            set: Index::new(&empty_keys(kind)),
            counts: Vec::new(),
        }
    }

    pub(super) fn grow(&mut self, groups: usize) {
        self.counts.resize(groups, 0);
    }

    /// Memory after `rows` more rows, strings taken to be 32 bytes long.
    pub(super) fn size_bytes_with(&self, rows: usize) -> usize {
        self.set.size_bytes_with(rows, rows * 36)
    }

    /// Values in all groups.
    pub(super) fn len(&self) -> usize {
        self.set.len()
    }

    pub(super) fn update(&mut self, pick: Pick, lanes: &Lanes) {
        let mut keys = empty_keys(self.kind);
        let shift = group_shift(self.kind);
        let low = match self.kind {
            DistinctKind::Integral { low, .. } => low,
            _ => 0,
        };
        match &mut keys {
            Keys::U64(keys) => match lanes {
                Lanes::Codes(codes) => pick.each(|id, row| keys.push((id as u64) << shift | u64::from(codes[row]))),
                lanes => integers!(lanes, i128, |values, widen| {
                    pick.each(|id, row| keys.push((id as u64) << shift | widen(values[row]).wrapping_sub(low) as u64));
                }, else ()),
            },
            Keys::U128(keys) => match lanes {
                Lanes::Codes(codes) => pick.each(|id, row| keys.push((id as u128) << shift | u128::from(codes[row]))),
                Lanes::F32(values) => {
                    pick.each(|id, row| keys.push((id as u128) << shift | u128::from(key_of(values[row].into()))));
                }
                Lanes::F64(values) => {
                    pick.each(|id, row| keys.push((id as u128) << shift | u128::from(key_of(values[row]))));
                }
                lanes => integers!(lanes, i128, |values, widen| {
                    let value = |row: usize| widen(values[row]).wrapping_sub(low).cast_unsigned();
                    pick.each(|id, row| keys.push((id as u128) << shift | value(row)));
                }, else ()),
            },
            Keys::Bytes(arena) => {
                let mut push = |id: usize, value: &[u8]| {
                    arena.bytes.extend_from_slice(&(id as u32).to_le_bytes());
                    arena.push(value);
                };
                match lanes {
                    Lanes::Bytes(values) => pick.each(|id, row| push(id, values[row])),
                    lanes => integers!(lanes, i128, |values, widen| {
                        pick.each(|id, row| push(id, &widen(values[row]).to_le_bytes()));
                    }, else ()),
                }
            }
        }
        self.insert(&keys);
    }

    /// Adds pairs, and counts the new ones.
    fn insert(&mut self, keys: &Keys) {
        let (mut hashes, mut ids) = (Vec::new(), Vec::new());
        keys.hash(&mut hashes);
        let before = self.set.len();
        self.set.locate(keys, &hashes, None, &mut ids);
        for entry in before..self.set.len() {
            let group = self.group(entry);
            self.counts[group] += 1;
        }
    }

    fn group(&self, entry: usize) -> usize {
        match &self.set.keys {
            Keys::U64(keys) => (keys[entry] >> group_shift(self.kind)) as usize,
            Keys::U128(keys) => (keys[entry] >> group_shift(self.kind)) as usize,
            Keys::Bytes(arena) => {
                let bytes = arena.get(entry);
                u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize
            }
        }
    }

    /// Adds the values of groups `from` of `other` to groups `to`.
    pub(super) fn merge(&mut self, other: &Distinct, from: &[u32], to: &[u32]) {
        let mut target = vec![u32::MAX; other.counts.len()];
        for (&from, &to) in from.iter().zip(to) {
            target[from as usize] = to;
        }
        let shift = group_shift(self.kind);
        let mut keys = self.set.keys.empty();
        for entry in 0..other.set.len() {
            let to = target[other.group(entry)];
            if to != u32::MAX {
                match (&mut keys, &other.set.keys) {
                    (Keys::U64(keys), Keys::U64(others)) => {
                        keys.push(others[entry] & ((1 << shift) - 1) | u64::from(to) << shift);
                    }
                    (Keys::U128(keys), Keys::U128(others)) => {
                        keys.push(others[entry] & ((1 << shift) - 1) | u128::from(to) << shift);
                    }
                    (Keys::Bytes(keys), Keys::Bytes(others)) => {
                        keys.bytes.extend_from_slice(&to.to_le_bytes());
                        keys.push(&others.get(entry)[4..]);
                    }
                    _ => {}
                }
            }
            if keys.len() >= 4096 {
                self.insert(&keys);
                keys.clear();
            }
        }
        self.insert(&keys);
    }

    /// Calls `see` with each group and its integral value.
    pub(super) fn integers(&self, mut see: impl FnMut(usize, i128)) {
        let DistinctKind::Integral { low, .. } = self.kind else {
            return;
        };
        let shift = group_shift(self.kind);
        for entry in 0..self.set.len() {
            let value = match &self.set.keys {
                Keys::U64(keys) => i128::from(keys[entry] & ((1 << shift) - 1)).wrapping_add(low),
                Keys::U128(keys) => (keys[entry] & ((1 << shift) - 1)).cast_signed().wrapping_add(low),
                Keys::Bytes(arena) => {
                    let mut bytes = [0; 16];
                    bytes.copy_from_slice(&arena.get(entry)[4..]);
                    i128::from_le_bytes(bytes)
                }
            };
            see(self.group(entry), value);
        }
    }

    /// Calls `see` with each group and its float.
    pub(super) fn floats(&self, mut see: impl FnMut(usize, f64)) {
        if let (DistinctKind::Float, Keys::U128(keys)) = (self.kind, &self.set.keys) {
            for &key in keys {
                see((key >> 64) as usize, f64::from_bits(key as u64));
            }
        }
    }
}
