//! A handful of groups, whose rows `small.rs` sums: those of a tiny range of keys, and those of keys anywhere as long as a worker
//! has met few of them.
//!
//! ```text
//!  key ─ · multiplier, upper 8 bits ─▶ place ─▶ id, if that group's key is equal; else the tile goes the usual way
//! ```
//!
//! The multiplier gives each known key a place of its own, so finding a group is two loads without a branch, where a hash table
//! and a state in memory make rows of one group wait for each other.

use crate::aggregate::hash::{Keys, hash_u64};
use crate::aggregate::input::Input;
use crate::aggregate::keys::{Rung, TINY_SLOTS};
use crate::aggregate::{AggregatePlan, Local, small};
use crate::isa::primitive;
use crate::number::count_ones;
use crate::vector::Vector;
use trireme_device_api::DeviceError;

/// Fewer rows than these aren't worth it.
const LEAST_ROWS: usize = 64;
/// Multipliers that are tried.
const TRIES: u64 = 64;
/// The group of a row whose key isn't known.
const UNKNOWN: u8 = u8::MAX - 1;

/// The groups that a worker's hash table holds.
pub(super) struct Few {
    multiplier: u64,
    places: [u8; 256],
    keys: [u64; TINY_SLOTS],
    groups: usize,
}

impl Few {
    /// Of at most [`TINY_SLOTS`] different keys; none when no multiplier tells them apart.
    fn new(known: &[u64]) -> Option<Self> {
        let mut keys = [0; TINY_SLOTS];
        keys.get_mut(..known.len())?.copy_from_slice(known);
        (0..TRIES).find_map(|turn| {
            let multiplier = hash_u64(turn) | 1;
            let mut places = [UNKNOWN; 256];
            for (group, key) in (0_u8..).zip(known) {
                let place = &mut places[place_of(*key, multiplier)];
                if *place != UNKNOWN {
                    return None;
                }
                *place = group;
            }
            Some(Self {
                multiplier,
                places,
                keys,
                groups: known.len(),
            })
        })
    }
}

#[inline(always)]
fn place_of(key: u64, multiplier: u64) -> usize {
    (key.wrapping_mul(multiplier) >> 56) as usize
}

primitive! {
    /// The group of each key, [`UNKNOWN`] where it is none of `known`.
    fn find[](keys: &[u64], multiplier: u64, places: &[u8; 256], known: &[u64; TINY_SLOTS], ids: &mut [u8]) {
        for (id, &key) in ids.iter_mut().zip(keys) {
            let group = places[place_of(key, multiplier)];
            *id = if known[usize::from(group) % TINY_SLOTS] == key { group } else { UNKNOWN };
        }
    }
}

impl AggregatePlan {
    pub(super) fn update_small(
        &self,
        local: &mut Local,
        groups: &[Vector],
        inputs: &[Input],
        mask: Option<&[u8]>,
        rows: usize,
    ) -> Result<(), DeviceError> {
        let table = self.own_table(&mut local.table)?;
        table.make_room(rows, 0)?;
        let count = self.keys.slots;
        let ids = &mut local.scratch.bytes;
        self.keys.byte_slots_of(self.isa, groups, rows, ids);
        if let Some(mask) = mask {
            small::leave_out(self.isa, ids, mask);
        }
        let all = self.keys.columns.is_empty() && mask.is_none();
        let ids = (!all).then_some(&ids[..]);
        let counts = match ids {
            None => {
                table.seen[0] = 1;
                None
            }
            Some(ids) => {
                let counts = small::counts(self.isa, ids, count);
                let mut counted = 0;
                for (seen, &count) in table.seen.iter_mut().zip(&counts) {
                    *seen |= u8::from(count > 0);
                    counted += count as usize;
                }
                let wanted = mask.map_or(rows, |mask| count_ones(self.isa, mask));
                if counted != wanted {
                    return Err(DeviceError::Internal("a group key is outside its range".into()));
                }
                Some(counts)
            }
        };
        for ((primitive, state), input) in self.recipe.primitives.iter().zip(&mut table.states).zip(inputs) {
            let tile = small::Tile {
                ids,
                counts: counts.as_ref(),
                rows,
                groups: count,
            };
            small::update(self.isa, primitive, state, input, &tile);
        }
        Ok(())
    }

    /// Folds a tile into a worker's hash table that holds few groups; false when it holds none yet or more, or the tile has rows of
    /// others, and nothing was done.
    ///
    /// # Errors
    /// Memory is short.
    pub(super) fn update_few<'i>(
        &self,
        local: &mut Local,
        groups: &[Vector],
        inputs: &dyn Fn() -> Vec<Input<'i>>,
        mask: Option<&[u8]>,
        rows: usize,
    ) -> Result<bool, DeviceError> {
        let (Rung::Packed64, Some(table)) = (self.keys.rung, &mut local.table) else {
            return Ok(false);
        };
        let count = table.groups();
        // Large sets of values are to be shared with the other workers.
        let few_values = table.distinct_values() <= self.local_groups;
        let (2..=TINY_SLOTS, true, true) = (count, rows >= LEAST_ROWS, few_values) else {
            return Ok(false);
        };
        if local.few.as_ref().is_none_or(|few| few.groups != count) {
            local.few = match table.index.as_ref().map(|index| &index.keys) {
                Some(Keys::U64(known)) => Few::new(known),
                _ => None,
            };
        }
        let (Some(few), scratch) = (&local.few, &mut local.scratch) else {
            return Ok(false);
        };
        self.keys.keys_of(self.isa, groups, rows, &mut scratch.keys);
        let Keys::U64(keys) = &scratch.keys else {
            return Ok(false);
        };
        let ids = &mut scratch.bytes;
        ids.resize(rows, 0);
        find(self.isa, keys, few.multiplier, &few.places, &few.keys, ids);
        if let Some(mask) = mask {
            small::leave_out(self.isa, ids, mask);
        }
        let counts = small::counts(self.isa, ids, count);
        let wanted = mask.map_or(rows, |mask| count_ones(self.isa, mask));
        if counts.iter().sum::<i64>() != wanted as i64 {
            return Ok(false);
        }
        table.make_room(rows, 0)?;
        let tile = small::Tile {
            ids: Some(ids),
            counts: Some(&counts),
            rows,
            groups: count,
        };
        for ((primitive, state), input) in self.recipe.primitives.iter().zip(&mut table.states).zip(&inputs()) {
            small::update(self.isa, primitive, state, input, &tile);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    #[test]
    fn known_keys_are_found_and_others_are_not() {
        for isa in Isa::all_available() {
            for count in [1_u64, 2, 9, 16] {
                for step in [1, 1 << 40, 0x9E37_79B9_7F4A_7C15_u64] {
                    let known: Vec<u64> = (0..count).map(|key| key.wrapping_mul(step)).collect();
                    let few = Few::new(&known).unwrap();
                    let keys: Vec<u64> = (0..1000).map(|key| (key % 40_u64).wrapping_mul(step)).collect();
                    let mut ids = vec![0; keys.len()];
                    find(isa, &keys, few.multiplier, &few.places, &few.keys, &mut ids);
                    for (row, id) in ids.iter().enumerate() {
                        let key = row as u64 % 40;
                        assert_eq!(
                            *id,
                            if key < count { key as u8 } else { UNKNOWN },
                            "{isa:?} {count} {step} {row}"
                        );
                    }
                }
            }
        }
        assert!(Few::new(&[0; 17]).is_none(), "more than fit");
    }
}
