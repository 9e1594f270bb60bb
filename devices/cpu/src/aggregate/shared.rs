//! The table that all workers share: pages of slots, or partitions of keys, each behind a lock.

use std::sync::atomic::Ordering;

use trireme_device_api::{DeviceError, Reservation};

use crate::aggregate::buffer::{Buffers, Entries, Waiting, words};
use crate::aggregate::hash::Keys;
use crate::aggregate::input::{Input, Pick};
use crate::aggregate::table::Table;
use crate::aggregate::{AggregatePlan, Local, spread};
use crate::number::map;
use crate::vector::TILE_ROWS;

/// Entries by part: `entries[ends[part]..ends[part + 1]]`.
pub(super) struct Parted {
    entries: Vec<u32>,
    ends: Vec<u32>,
}

impl Parted {
    fn new(parts: impl Iterator<Item = u32> + Clone, count: usize) -> Self {
        let mut ends = vec![0_u32; count + 1];
        let mut total = 0;
        for part in parts.clone() {
            ends[part as usize + 1] += 1;
            total += 1;
        }
        for part in 0..count {
            ends[part + 1] += ends[part];
        }
        let mut next = ends.clone();
        let mut entries = vec![0_u32; total];
        for (entry, part) in (0_u32..).zip(parts) {
            let place = &mut next[part as usize];
            entries[*place as usize] = entry;
            *place += 1;
        }
        Self { entries, ends }
    }

    /// All in the first part.
    fn one(entries: Vec<u32>) -> Self {
        let ends = vec![0, entries.len() as u32];
        Self { entries, ends }
    }

    fn get(&self, part: usize) -> &[u32] {
        match (self.ends.get(part), self.ends.get(part + 1)) {
            (Some(&start), Some(&end)) => &self.entries[start as usize..end as usize],
            _ => &[],
        }
    }

    /// The parts that have entries.
    fn each(&self) -> impl Iterator<Item = (usize, &[u32])> {
        let parts = 0..self.ends.len() - 1;
        parts
            .map(|part| (part, self.get(part)))
            .filter(|(_, entries)| !entries.is_empty())
    }
}

/// Entries of a tile that go to more pages wait in buffers.
const PARTS_AT_ONCE: u32 = 4;

/// Of about so many keys it is known how many were new.
const RECENT_KEYS: usize = 1 << 16;

impl AggregatePlan {
    /// Runs `work` on a part, which it makes if it isn't there.
    pub(super) fn in_part(
        &self,
        part: usize,
        work: impl FnOnce(&mut Table) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        let mut held = self.parts[part].lock();
        let made = match held.take() {
            Some(table) => table,
            None if self.keys.direct() => {
                let slots = (self.keys.slots - (part << self.part_shift)).min(1 << self.part_shift);
                Table::direct(slots, &self.recipe.primitives, &self.pool)?
            }
            None => Table::hashed(&self.keys.empty_keys(), &self.recipe.primitives, &self.pool)?,
        };
        work(held.insert(made))
    }

    /// Folds entries into pages of slots; the slots are in the scratch.
    pub(super) fn update_pages(
        &self,
        local: &mut Local,
        inputs: &[Input],
        rows: Option<&[u32]>,
        counted: usize,
    ) -> Result<(), DeviceError> {
        let slots = &mut local.scratch.slots;
        let within = (1_u32 << self.part_shift) - 1;
        let (least, largest) = spread(self.isa, slots);
        let (first, last) = (least >> self.part_shift, largest >> self.part_shift);
        let clustered = counted > slots.len();
        if first == last || last - first < PARTS_AT_ONCE && slots.is_sorted() {
            let mut start = 0;
            for part in first..=last {
                let end = start + slots[start..].partition_point(|slot| slot >> self.part_shift <= part);
                let ids = &mut slots[start..end];
                if first == last || !ids.is_empty() {
                    ids.iter_mut().for_each(|slot| *slot &= within);
                    let counted = if clustered { counted } else { ids.len() };
                    let pick = Pick {
                        ids: &*ids,
                        rows: rows.map(|rows| &rows[start..end]),
                        start,
                    };
                    self.in_part(part as usize, |table| {
                        table.make_room(counted, 0)?;
                        table.update(pick, inputs, counted);
                        Ok(())
                    })?;
                }
                start = end;
            }
            return Ok(());
        }
        if self.buffered && last - first > PARTS_AT_ONCE {
            let shift = self.part_shift;
            let parts = map(self.isa, slots, |slot: u32| slot >> shift);
            slots.iter_mut().for_each(|slot| *slot &= within);
            return self.buffer(&mut local.buffers, &parts, Entries::Slots(slots), inputs, rows, counted);
        }
        let parted = Parted::new(slots.iter().map(|&slot| slot >> self.part_shift), self.parts.len());
        for (part, entries) in parted.each() {
            let ids: Vec<u32> = entries.iter().map(|&entry| slots[entry as usize] & within).collect();
            let counted = if clustered { counted } else { entries.len() };
            let rows = rows_of(entries, rows);
            self.in_part(part, |table| {
                table.make_room(counted, 0)?;
                table.update(Pick::new(&ids, Some(&rows)), inputs, counted);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Folds entries into a hash table, the worker's or the shared one; the keys are in the scratch.
    pub(super) fn update_hashed(
        &self,
        local: &mut Local,
        inputs: &[Input],
        rows: Option<&[u32]>,
        counted: usize,
    ) -> Result<(), DeviceError> {
        local.scratch.keys.hash(&mut local.scratch.hashes);
        if local.table.is_some() || !self.shared.load(Ordering::Relaxed) {
            let table = self.own_table(&mut local.table)?;
            let scratch = &mut local.scratch;
            table.make_room(counted, bytes_of(&scratch.keys))?;
            table.locate(&scratch.keys, &scratch.hashes, None, &mut scratch.ids);
            table.update(Pick::new(&scratch.ids, rows), inputs, counted);
            let most = self.local_groups;
            let large = table.groups() > most || table.distinct_values() > most;
            if large && (self.workers > 1 || self.buffers_keys()) {
                self.share(&mut local.table)?;
            }
            return Ok(());
        }
        let hashes = &local.scratch.hashes;
        let parts = hashes.iter().map(|&hash| (hash >> self.part_shift) as u32);
        if self.buffers_keys() {
            let parts: Vec<u32> = parts.collect();
            let keys = Entries::Keys(&local.scratch.keys);
            return self.buffer(&mut local.buffers, &parts, keys, inputs, rows, counted);
        }
        let parted = Parted::new(parts, self.parts.len());
        let clustered = counted > hashes.len();
        let (keys, ids) = (&local.scratch.keys, &mut local.scratch.ids);
        for (part, entries) in parted.each() {
            let counted = if clustered { counted } else { entries.len() };
            let rows = rows_of(entries, rows);
            self.in_part(part, |table| {
                table.make_room(entries.len(), bytes_of(keys))?;
                table.locate(keys, hashes, Some(entries), ids);
                let rows = Some(&rows[..]);
                table.update(Pick::new(ids, rows), inputs, counted);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Keys of a fixed width can wait in buffers.
    fn buffers_keys(&self) -> bool {
        self.buffered && !matches!(self.keys.empty_keys(), Keys::Bytes(_))
    }

    /// Puts entries into the buffers of their parts, and empties full ones.
    fn buffer(
        &self,
        buffers: &mut Option<Buffers>,
        parts: &[u32],
        keys: Entries,
        inputs: &[Input],
        rows: Option<&[u32]>,
        counted: usize,
    ) -> Result<(), DeviceError> {
        let entries = keys.len();
        let clustered = (counted > entries).then_some(counted);
        let primitives = self.recipe.primitives.iter().zip(inputs);
        let words: Vec<_> = primitives
            .map(|(primitive, input)| words(primitive, input, rows, entries, clustered))
            .collect();
        if buffers.is_none() {
            let reservation = Reservation::new(&self.pool);
            *buffers = Some(Buffers::new(self.parts.len(), keys, &words, reservation)?);
        }
        let Some(buffers) = buffers else { return Ok(()) };
        buffers.widen(&words)?;
        for (turn, parts) in parts.chunks(TILE_ROWS).enumerate() {
            buffers.push(turn * TILE_ROWS, parts, keys, &words, clustered);
            for part in buffers.full() {
                if !(self.mostly_new() && buffers.set_aside(part)) {
                    self.apply(part, buffers)?;
                    buffers.clear(part);
                }
            }
        }
        Ok(())
    }

    /// Counts keys and those of them that were new; later ones weigh more. Workers who do it at once lose a few, no more.
    fn count_new(&self, keys: usize, new: usize) {
        let applied = self.applied.fetch_add(keys, Ordering::Relaxed) + keys;
        let made = self.made.fetch_add(new, Ordering::Relaxed) + new;
        if applied > RECENT_KEYS {
            self.applied.store(applied / 2, Ordering::Relaxed);
            self.made.store(made / 2, Ordering::Relaxed);
        }
    }

    /// Of the keys that waited for parts of the hash table last, most were groups of their own.
    fn mostly_new(&self) -> bool {
        self.made.load(Ordering::Relaxed) * 2 > self.applied.load(Ordering::Relaxed)
    }

    /// Makes room in a part for what waits for it, where that is mostly groups of their own: its table doesn't grow step by step.
    pub(super) fn expect(&self, part: usize, buffers: &[Buffers]) -> Result<(), DeviceError> {
        let waiting: usize = buffers.iter().map(|buffers| buffers.waiting(part)).sum();
        if waiting == 0 || !self.mostly_new() {
            return Ok(());
        }
        self.in_part(part, |table| {
            table.expect(waiting);
            Ok(())
        })
    }

    /// Folds what waits for a part into it.
    pub(super) fn apply(&self, part: usize, buffers: &Buffers) -> Result<(), DeviceError> {
        let (mut hashes, mut ids) = (Vec::new(), Vec::new());
        for pending in buffers.pending(part, &self.recipe.primitives) {
            let (inputs, counted) = (&pending.inputs, pending.counted);
            match pending.keys {
                Waiting::Slots(ids) => self.in_part(part, |table| {
                    table.make_room(ids.len(), 0)?;
                    table.update(Pick::new(ids, None), inputs, counted);
                    Ok(())
                })?,
                Waiting::Keys(keys) => self.in_part(part, |table| {
                    let before = table.groups();
                    keys.hash(&mut hashes);
                    table.make_room(keys.len(), 0)?;
                    table.locate(&keys, &hashes, None, &mut ids);
                    table.update(Pick::new(&ids, None), inputs, counted);
                    self.count_new(keys.len(), table.groups() - before);
                    Ok(())
                })?,
            }
        }
        Ok(())
    }

    /// Moves a worker's own table into the shared partitions.
    fn share(&self, own: &mut Option<Table>) -> Result<(), DeviceError> {
        let Some(table) = own.take() else { return Ok(()) };
        self.shared.store(true, Ordering::Relaxed);
        let shares = self.shares(&table, false);
        (0..self.parts.len()).try_for_each(|part| self.fold(&table, &shares, part))
    }

    /// Which groups of a worker's table belong to which part.
    pub(super) fn shares(&self, table: &Table, whole: bool) -> Parted {
        if let Some(slots) = self.by_slot(table) {
            let parts = slots.iter().map(|slot| (slot >> self.part_shift) as u32);
            return Parted::new(parts, self.parts.len());
        }
        match &table.index {
            Some(index) if !whole => {
                let mut hashes = Vec::new();
                index.keys.hash(&mut hashes);
                let parts = hashes.iter().map(|&hash| (hash >> self.part_shift) as u32);
                Parted::new(parts, self.parts.len())
            }
            _ => Parted::one(table.present()),
        }
    }

    /// Folds a worker's groups that belong to a part into it.
    pub(super) fn fold(&self, table: &Table, shares: &Parted, part: usize) -> Result<(), DeviceError> {
        let from = shares.get(part);
        if from.is_empty() {
            return Ok(());
        }
        self.in_part(part, |target| {
            if let Some(slots) = self.by_slot(table) {
                let within = (1_u64 << self.part_shift) - 1;
                let to: Vec<u32> = from
                    .iter()
                    .map(|&group| (slots[group as usize] & within) as u32)
                    .collect();
                target.merge(table, from, &to);
                return Ok(());
            }
            let Some(index) = &table.index else {
                target.make_room(table.distinct_values(), 0)?;
                target.merge(table, from, from);
                return Ok(());
            };
            let mut keys = index.keys.clone_at(from);
            let (mut hashes, mut to) = (Vec::new(), Vec::new());
            keys.hash(&mut hashes);
            target.make_room(from.len().max(table.distinct_values()), bytes_of(&keys))?;
            target.locate(&keys, &hashes, None, &mut to);
            keys.clear();
            target.merge(table, from, &to);
            Ok(())
        })
    }
}

/// Bytes of string keys.
fn bytes_of(keys: &Keys) -> usize {
    match keys {
        Keys::Bytes(arena) => arena.bytes.len(),
        _ => 0,
    }
}

/// The rows that entries stand for.
fn rows_of(entries: &[u32], rows: Option<&[u32]>) -> Vec<u32> {
    match rows {
        None => entries.to_vec(),
        Some(rows) => entries.iter().map(|&entry| rows[entry as usize]).collect(),
    }
}
