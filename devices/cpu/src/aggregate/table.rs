//! Groups and their states: a direct array of slots, or a hash table with dense ids.

use std::sync::Arc;

use trireme_device_api::{DeviceError, DevicePool, Reservation};

use crate::aggregate::hash::{Index, Keys};
use crate::aggregate::input::{Input, Pick};
use crate::aggregate::primitive::{Operation, Primitive};
use crate::aggregate::state::State;
use crate::compact::kept;
use crate::isa::{Isa, primitive};

/// Groups of one worker, of one page of slots, or of one partition of keys.
pub(super) struct Table {
    /// None for direct slots.
    pub(super) index: Option<Index>,
    /// 1 for a slot that has rows; empty with an index.
    pub(super) seen: Vec<u8>,
    /// The state that counts all rows of a group, if there is one: then `seen` isn't kept.
    rows: Option<usize>,
    pub(super) states: Vec<State>,
    reservation: Reservation,
}

impl Table {
    /// Of `slots` direct slots.
    pub(super) fn direct(
        slots: usize,
        primitives: &[Primitive],
        pool: &Arc<dyn DevicePool>,
    ) -> Result<Self, DeviceError> {
        let mut table = Self {
            index: None,
            seen: Vec::new(),
            rows: primitives
                .iter()
                .position(|primitive| primitive.operation == Operation::Rows && primitive.filter.is_none()),
            states: primitives.iter().map(State::new).collect(),
            reservation: Reservation::new(pool),
        };
        table.reserve_groups(slots)?;
        table.seen = vec![0; slots];
        table.states.iter_mut().for_each(|state| state.grow(slots));
        Ok(table)
    }

    /// Of keys of the kind of `like`.
    pub(super) fn hashed(
        like: &Keys,
        primitives: &[Primitive],
        pool: &Arc<dyn DevicePool>,
    ) -> Result<Self, DeviceError> {
        Ok(Self {
            index: Some(Index::new(like)),
            seen: Vec::new(),
            rows: None,
            states: primitives.iter().map(State::new).collect(),
            reservation: Reservation::new(pool),
        })
    }

    /// Groups; of direct slots also those without rows.
    pub(super) fn groups(&self) -> usize {
        self.index.as_ref().map_or(self.seen.len(), Index::len)
    }

    fn reserve_groups(&mut self, groups: usize) -> Result<(), DeviceError> {
        let each: usize = self.states.iter().map(State::bytes_per_group).sum();
        self.reserve(groups * (each + 1))
    }

    fn reserve(&mut self, bytes: usize) -> Result<(), DeviceError> {
        let held = self.reservation.bytes();
        if bytes <= held {
            return Ok(());
        }
        self.reservation.grow_to(bytes).map_err(|error| match error {
            DeviceError::OutOfMemory(text) => {
                let more = bytes - held;
                DeviceError::OutOfMemory(format!(
                    "grouping needs {more} bytes more than the {held} it holds ({text}); raise exec.query_memory_bytes"
                ))
            }
            other => other,
        })
    }

    /// Reserves what `rows` more rows with `key_bytes` bytes of string keys may need.
    pub(super) fn make_room(&mut self, rows: usize, key_bytes: usize) -> Result<(), DeviceError> {
        let extra: usize = self.states.iter().map(|state| state.extra_bytes_with(rows)).sum();
        let each: usize = self.states.iter().map(State::bytes_per_group).sum();
        let Some(index) = &self.index else {
            return if extra == 0 {
                Ok(())
            } else {
                self.reserve(self.seen.len() * (each + 1) + extra)
            };
        };
        // Vectors double: at the worst moment there are three times as many elements as before.
        let groups = (index.len() + rows).next_power_of_two();
        let bytes = index.size_bytes_with(rows, key_bytes) + groups * each * 3 / 2 + extra;
        self.reserve(bytes)
    }

    /// Makes room for so many keys of a fixed width at once; where memory is short for that, it grows step by step.
    pub(super) fn expect(&mut self, keys: usize) {
        let reserved = self.make_room(keys, 0).is_ok();
        if let Some(index) = self.index.as_mut().filter(|_| reserved) {
            index.make_room(keys);
        }
    }

    /// The ids of keys, of an indexed table; states grow with it.
    pub(super) fn locate(&mut self, keys: &Keys, hashes: &[u64], picks: Option<&[u32]>, ids: &mut Vec<u32>) {
        if let Some(index) = &mut self.index {
            index.locate(keys, hashes, picks, ids);
            let groups = index.len();
            self.states.iter_mut().for_each(|state| state.grow(groups));
        }
    }

    /// Of keys that come in ascending order: ids are given in that order, and nothing is looked up.
    pub(super) fn ascending(primitives: &[Primitive], pool: &Arc<dyn DevicePool>) -> Result<Self, DeviceError> {
        Self::hashed(&Keys::U64(Vec::new()), primitives, pool)
    }

    /// Adds keys to a table that is [`Table::ascending`].
    ///
    /// # Errors
    /// Memory is short.
    pub(super) fn append(&mut self, slots: &[u32]) -> Result<(), DeviceError> {
        let each: usize = self.states.iter().map(State::bytes_per_group).sum();
        let groups = self.groups() + slots.len();
        // While a vector grows there are three times as many elements as before.
        self.reserve(groups.next_power_of_two() * (each + size_of::<u64>()) * 3 / 2)?;
        let Some(Index {
            keys: Keys::U64(keys), ..
        }) = &mut self.index
        else {
            return Err(DeviceError::Internal("keys in order are words".to_owned()));
        };
        keys.extend(slots.iter().map(|slot| u64::from(*slot)));
        self.states.iter_mut().for_each(|state| state.grow(groups));
        Ok(())
    }

    /// Folds rows into their groups' states; ids are in range.
    pub(super) fn update(&mut self, pick: Pick, inputs: &[Input], counted: usize) {
        if self.index.is_none() && self.rows.is_none() {
            for &id in pick.ids {
                self.seen[id as usize] = 1;
            }
        }
        for (state, input) in self.states.iter_mut().zip(inputs) {
            state.update(pick, input, counted);
        }
    }

    /// Folds groups `from` of `other` into groups `to`.
    pub(super) fn merge(&mut self, other: &Table, from: &[u32], to: &[u32]) {
        if self.index.is_none() && self.rows.is_none() {
            for &id in to {
                self.seen[id as usize] = 1;
            }
        }
        for (state, other) in self.states.iter_mut().zip(&other.states) {
            state.merge(other, from, to);
        }
    }

    /// Distinct values held, over all groups.
    pub(super) fn distinct_values(&self) -> usize {
        let values = |state: &State| match state {
            State::Distinct(distinct) => distinct.len(),
            _ => 0,
        };
        self.states.iter().map(values).max().unwrap_or(0)
    }

    /// Groups that have rows.
    pub(super) fn present(&self) -> Vec<u32> {
        match &self.index {
            Some(index) => (0..index.len() as u32).collect(),
            None => {
                if let Some(State::Count(counts)) = self.rows.and_then(|rows| self.states.get(rows)) {
                    return positive(counts);
                }
                kept(Isa::detect(), &self.seen, 0)
            }
        }
    }
}

/// Where counts aren't 0.
fn positive(counts: &[i64]) -> Vec<u32> {
    if all_positive(Isa::detect(), counts) {
        return (0..counts.len() as u32).collect();
    }
    let filled: Vec<u8> = counts.iter().map(|&count| u8::from(count > 0)).collect();
    kept(Isa::detect(), &filled, 0)
}

primitive! {
    fn all_positive[](counts: &[i64]) -> bool {
        counts.iter().fold(i64::MAX, |least, &count| least.min(count)) > 0
    }
}
