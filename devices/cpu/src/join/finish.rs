//! The rows of all workers are put into one table, which the data choose.
//!
//! ```text
//!  rows of worker 0 │ rows of worker 1 │ …      build row = place in this order, below 2³² − 1
//! ```
//!
//! | table | when |
//! | --- | --- |
//! | bitmap | only existence is asked, packed keys below 128 × rows |
//! | dense | packed keys below 8 × rows |
//! | hash, key in the slot | packed keys below 2³² |
//! | hash, key compared | packed keys of 64 or 128 bits, encoded keys |
//!
//! Tables larger than the second-level cache get a Bloom filter. Inserting is split into tasks that workers run at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use trireme_device_api::{DeviceColumn, DeviceError, Reservation};

use super::build::{BuildLocal, BuildPlan, Ladder, LocalKeys, byte_column, joined, key_column, too_many_rows};
use super::encode::EncodedKeys;
use super::hash::{hash_bytes, hash_u64, hash_u128};
use super::keys::{KeyKind, Packing};
use super::table::bitmap::Bitmap;
use super::table::bloom::Bloom;
use super::table::dense::Dense;
use super::table::hash::{HashTable, Hashed, RowKeys};
use super::table::ranks::Ranks;
use super::table::{Chain, Index, zeroed_u32, zeroed_u64};
use crate::builder::{ColumnBuilder, MAX_ROWS, concat};
use crate::vector::TILE_ROWS;

/// Rows that one task inserts.
const TASK_ROWS: usize = 1 << 16;

/// Keys below this are always dense.
const DENSE_ALWAYS: u128 = 1 << 18;

/// Keys below this are numbered, and keys below so many times the rows, up to the other limit: 24 MB.
const RANKED_ALWAYS: u128 = 1 << 23;
const RANKED_PER_ROW: u128 = 1024;
const RANKED_MAX: u128 = 1 << 27;

/// The rows of all workers while they are put into a table: [`Building::run_task`] once for each of the
/// [`Building::tasks`], by any workers at once, then [`Building::finish`].
pub(crate) struct Building {
    plan: Arc<BuildPlan>,
    locals: Vec<LocalRows>,
    payload: Vec<Payload>,
    /// Rows to insert, by task.
    inserts: Vec<Vec<Insert>>,
    table: BuildTable,
    repeated: AtomicBool,
}

struct LocalRows {
    keys: LocalKeys,
    first_row: usize,
    reservation: Reservation,
}

/// A payload column in the making: the workers' parts, then the whole.
struct Payload {
    parts: Mutex<Vec<(ColumnBuilder, Reservation)>>,
    column: Mutex<Option<(Arc<DeviceColumn>, Vec<Reservation>)>>,
}

/// Rows of one worker to insert.
#[derive(Debug, Clone, Copy)]
struct Insert {
    local: usize,
    start: usize,
    end: usize,
}

/// A finished build side.
pub(crate) struct BuildTable {
    rows: usize,
    payload: Vec<Arc<DeviceColumn>>,
    pub(super) kinds: Vec<KeyKind>,
    pub(super) packing: Option<Packing>,
    pub(super) index: Index,
    pub(super) chain: Chain,
    pub(super) unique: bool,
    /// NULL keys are in the table, as values.
    pub(super) nulls_equal: bool,
    null_keys: bool,
    reservations: Vec<Reservation>,
}

impl BuildTable {
    /// Rows, also those with NULL keys.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Columns that probes append; none when no probe needs rows.
    pub(crate) fn payload(&self) -> &[Arc<DeviceColumn>] {
        &self.payload
    }

    /// Some row has a NULL key.
    pub(crate) fn has_null_keys(&self) -> bool {
        self.null_keys
    }

    /// No two rows have equal keys: a row of a tile has at most one match.
    #[cfg(test)]
    pub(crate) fn is_unique(&self) -> bool {
        self.unique
    }

    /// The table's kind, for people.
    #[cfg(test)]
    pub(crate) fn index_name(&self) -> &'static str {
        match &self.index {
            Index::Empty => "empty",
            Index::All => "all",
            Index::Dense(_) => "dense",
            Index::Ranked(..) => "ranked",
            Index::Bitmap(_) => "bitmap",
            Index::Hash(table) if table.bloom.is_some() => "bloom hash",
            Index::Hash(_) => "hash",
        }
    }
}

impl Building {
    /// Chooses the table and reserves its memory.
    ///
    /// # Errors
    /// When memory is short, or rows are too many.
    pub(crate) fn new(plan: &Arc<BuildPlan>, locals: Vec<BuildLocal>) -> Result<Self, DeviceError> {
        let rows: usize = locals.iter().map(|local| local.rows).sum();
        if rows >= MAX_ROWS {
            return Err(too_many_rows());
        }
        let mut bounds = vec![(None, false); plan.keys.len()];
        for local in &locals {
            for ((all, bounds), null) in bounds.iter_mut().zip(&local.bounds).zip(&local.nulls) {
                *all = (joined(all.0, *bounds), all.1 || *null);
            }
        }
        let null_keys = bounds.iter().any(|(_, null)| *null);
        let mut payload: Vec<Vec<_>> = plan.payload.iter().map(|_| Vec::new()).collect();
        let mut parts = Vec::new();
        let mut first_row = 0;
        for local in locals.into_iter().filter(|local| local.rows > 0) {
            for (column, builder) in payload.iter_mut().zip(local.payload) {
                column.push(builder);
            }
            parts.push(LocalRows {
                keys: local.keys,
                first_row,
                reservation: local.reservation,
            });
            first_row += local.rows;
        }
        let nulls_equal = plan.uses.nulls_equal;
        for (_, null) in &mut bounds {
            *null = *null && nulls_equal;
        }
        let mut building = Self {
            plan: Arc::clone(plan),
            inserts: inserts(&parts, rows),
            locals: parts,
            payload: payload
                .into_iter()
                .map(|parts| Payload {
                    parts: Mutex::new(parts),
                    column: Mutex::new(None),
                })
                .collect(),
            table: BuildTable {
                rows,
                payload: Vec::new(),
                kinds: plan.kinds.clone(),
                packing: None,
                index: Index::Empty,
                chain: zeroed_u32(0),
                unique: true,
                nulls_equal,
                null_keys,
                reservations: Vec::new(),
            },
            repeated: AtomicBool::new(false),
        };
        building.choose(&bounds)?;
        Ok(building)
    }

    fn choose(&mut self, bounds: &[(Option<(i128, i128)>, bool)]) -> Result<(), DeviceError> {
        let rows = self.table.rows;
        if bounds.is_empty() {
            self.table.index = Index::All;
            self.table.unique = rows < 2;
        }
        if rows == 0 || bounds.is_empty() {
            self.inserts.clear();
            return Ok(());
        }
        let ladder = self.plan.ladder;
        let packing = if self.plan.encodes_at_once() {
            None
        } else {
            Packing::new(bounds)
        };
        let mut reservation = Reservation::new(&self.plan.pool);
        if self.plan.uses.rows {
            reservation.grow(rows * 4)?;
            self.table.chain = zeroed_u32(rows);
        }
        self.table.index = match &packing {
            Some(packing) => match self.positional(packing, &mut reservation)? {
                Some(index) => index,
                None => self.hashed(packing_words(packing.size(), ladder), &mut reservation)?,
            },
            None => self.hashed(None, &mut reservation)?,
        };
        self.table.packing = packing;
        self.table.reservations.push(reservation);
        Ok(())
    }

    /// A table by position, where the range of packed keys allows.
    fn positional(&self, packing: &Packing, reservation: &mut Reservation) -> Result<Option<Index>, DeviceError> {
        let size = packing.size();
        let rows = self.table.rows as u128;
        let ranked = size <= (RANKED_PER_ROW * rows).clamp(RANKED_ALWAYS, RANKED_MAX);
        let ranked = match self.plan.ladder {
            Ladder::Auto => ranked,
            forced => forced == Ladder::Ranked,
        };
        let (dense, bitmap) = match self.plan.ladder {
            Ladder::Auto => (
                size <= (8 * rows).max(DENSE_ALWAYS),
                !self.plan.uses.rows && size <= (128 * rows).max(64 * DENSE_ALWAYS),
            ),
            forced => (forced == Ladder::Dense, forced == Ladder::Bitmap),
        };
        if size >= u128::from(u32::MAX) {
            return Ok(None);
        }
        if bitmap {
            reservation.grow(Bitmap::bytes(size as usize))?;
            return Ok(Some(Index::Bitmap(Bitmap::new(size as u32))));
        }
        if dense {
            reservation.grow(Dense::bytes(size as usize))?;
            return Ok(Some(Index::Dense(Dense::new(size as usize))));
        }
        if ranked {
            reservation.grow(Ranks::bytes(size as usize))?;
            let ranks = Ranks::new(size as usize, |see| self.each_position(packing, see));
            reservation.grow(Dense::bytes(ranks.count()))?;
            let dense = Dense::new(ranks.count());
            return Ok(Some(Index::Ranked(ranks, dense)));
        }
        Ok(None)
    }

    /// The packed keys of all rows, a tile at a time.
    fn each_position(&self, packing: &Packing, see: &mut dyn FnMut(&[u32])) {
        let mut positions = Vec::new();
        for local in &self.locals {
            let LocalKeys::Numbers(builders) = &local.keys else {
                continue;
            };
            let rows = builders.first().map_or(0, ColumnBuilder::rows);
            for start in (0..rows).step_by(TILE_ROWS) {
                let end = rows.min(start + TILE_ROWS);
                let vectors: Vec<_> = builders.iter().map(|builder| builder.view(start, end)).collect();
                let keys: Vec<_> = vectors.iter().filter_map(key_column).collect();
                packing.pack_positions(
                    self.plan.isa,
                    &keys,
                    end - start,
                    self.table.nulls_equal,
                    &mut positions,
                );
                see(&positions);
            }
        }
    }

    /// A hash table of keys of so many words each, or encoded ones.
    fn hashed(&mut self, words: Option<usize>, reservation: &mut Reservation) -> Result<Index, DeviceError> {
        let rows = self.table.rows;
        let slots = HashTable::slot_bytes(rows);
        let bloom = slots > self.plan.bloom_from_bytes;
        reservation.grow(slots + if bloom { Bloom::bytes(rows) } else { 0 } + words.unwrap_or(0) * 8 * rows)?;
        let keys = match words {
            Some(0) => RowKeys::InTag,
            Some(1) => RowKeys::Words(zeroed_u64(rows)),
            Some(_) => RowKeys::DoubleWords(zeroed_u64(rows * 2)),
            None => self.encoded(reservation)?,
        };
        Ok(Index::Hash(HashTable::new(rows, keys, bloom)))
    }

    /// Takes the encoded keys of all workers, encoding numbers that don't fit 128 bits.
    fn encoded(&mut self, reservation: &mut Reservation) -> Result<RowKeys, DeviceError> {
        let mut parts = Vec::new();
        let mut firsts = Vec::new();
        for local in &mut self.locals {
            firsts.push(local.first_row as u32);
            parts.push(match &mut local.keys {
                LocalKeys::Encoded(encoded) => {
                    let held = std::mem::replace(&mut local.reservation, Reservation::new(&self.plan.pool));
                    self.table.reservations.push(held);
                    std::mem::take(encoded)
                }
                LocalKeys::Numbers(builders) => {
                    let rows = builders.first().map_or(0, ColumnBuilder::rows);
                    let mut encoded = EncodedKeys::default();
                    for start in (0..rows).step_by(TILE_ROWS) {
                        let end = rows.min(start + TILE_ROWS);
                        let vectors: Vec<_> = builders.iter().map(|builder| builder.view(start, end)).collect();
                        let columns: Vec<_> = vectors.iter().map(|vector| byte_column(vector, &[])).collect();
                        reservation.grow(encoded.growth_bytes(&columns, end - start))?;
                        encoded.push(&columns, end - start, self.plan.uses.nulls_equal);
                    }
                    encoded
                }
            });
        }
        Ok(RowKeys::Bytes(parts, firsts))
    }

    /// Number of tasks.
    pub(crate) fn tasks(&self) -> usize {
        self.payload.len() + self.inserts.len()
    }

    /// The first so many tasks insert.
    #[cfg(test)]
    pub(crate) fn insert_tasks(&self) -> usize {
        self.inserts.len()
    }

    /// Runs a task; each once, several at once.
    ///
    /// # Errors
    /// When memory is short, or a column becomes too long.
    pub(crate) fn run_task(&self, task: usize) -> Result<(), DeviceError> {
        if let Some(inserts) = self.inserts.get(task) {
            self.insert(inserts);
        } else if let Some(payload) = self.payload.get(task - self.inserts.len()) {
            let shape = &self.plan.payload[task - self.inserts.len()];
            let parts = std::mem::take(&mut *payload.parts.lock());
            let (parts, mut held): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
            if parts.len() > 1 {
                let mut whole = Reservation::new(&self.plan.pool);
                whole.grow(parts.iter().map(ColumnBuilder::used_bytes).sum())?;
                held.push(whole);
            }
            let column = Arc::new(concat(shape, parts)?);
            // What the parts held is given back; a single part became the column.
            let held = held.into_iter().next_back().into_iter().collect();
            *payload.column.lock() = Some((column, held));
        }
        Ok(())
    }

    /// The table, after all tasks.
    ///
    /// # Errors
    /// Internal, when a task didn't run.
    pub(crate) fn finish(self) -> Result<BuildTable, DeviceError> {
        let mut table = self.table;
        for payload in self.payload {
            let (column, held) = payload
                .column
                .into_inner()
                .ok_or_else(|| DeviceError::Internal("a build side was finished before its tasks".into()))?;
            table.payload.push(column);
            table.reservations.extend(held);
        }
        if self.repeated.into_inner() {
            table.unique = false;
        }
        Ok(table)
    }

    fn insert(&self, inserts: &[Insert]) {
        let mut buffers = Buffers::default();
        let mut repeated = false;
        for insert in inserts {
            for start in (insert.start..insert.end).step_by(TILE_ROWS) {
                let end = insert.end.min(start + TILE_ROWS);
                repeated |= self.insert_tile(insert.local, start, end, &mut buffers);
            }
        }
        if repeated {
            self.repeated.store(true, Ordering::Relaxed);
        }
    }

    fn insert_tile(&self, local: usize, start: usize, end: usize, buffers: &mut Buffers) -> bool {
        let rows = end - start;
        let isa = self.plan.isa;
        let first_row = (self.locals[local].first_row + start) as u32;
        let vectors: Vec<_> = match &self.locals[local].keys {
            LocalKeys::Numbers(builders) => builders.iter().map(|builder| builder.view(start, end)).collect(),
            LocalKeys::Encoded(_) => Vec::new(),
        };
        let keys: Vec<_> = vectors.iter().filter_map(key_column).collect();
        let nulls = self.table.nulls_equal;
        let alone = self.inserts.len() == 1;
        match (&self.table.index, &self.table.packing) {
            (Index::Dense(dense), Some(packing)) => {
                packing.pack_positions(isa, &keys, rows, nulls, &mut buffers.positions);
                dense.insert(&buffers.positions, first_row, &self.table.chain, alone)
            }
            (Index::Ranked(ranks, dense), Some(packing)) => {
                packing.pack_positions(isa, &keys, rows, nulls, &mut buffers.positions);
                ranks.number(isa, &mut buffers.positions);
                dense.insert(&buffers.positions, first_row, &self.table.chain, alone)
            }
            (Index::Bitmap(bitmap), Some(packing)) => {
                packing.pack_positions(isa, &keys, rows, nulls, &mut buffers.positions);
                bitmap.insert(&buffers.positions);
                false
            }
            (Index::Hash(table), Some(packing))
                if !matches!(table.keys, RowKeys::DoubleWords(_) | RowKeys::Bytes(..)) =>
            {
                packing.pack(isa, &keys, rows, nulls, (&mut buffers.keys, &mut buffers.found));
                self.insert_words(table, first_row, buffers)
            }
            (Index::Hash(table), Some(packing)) if matches!(table.keys, RowKeys::DoubleWords(_)) => {
                packing.pack(isa, &keys, rows, nulls, (&mut buffers.wide_keys, &mut buffers.found));
                self.insert_double_words(table, first_row, buffers)
            }
            (Index::Hash(table), _) => self.insert_bytes(table, local, (start, end), buffers),
            _ => false,
        }
    }

    /// Where rows with equal keys are linked, if they are; and that no other task inserts.
    fn chaining(&self) -> (Option<&Chain>, bool) {
        (
            self.plan.uses.rows.then_some(&self.table.chain),
            self.inserts.len() == 1,
        )
    }

    fn insert_words(&self, table: &HashTable, first_row: u32, buffers: &mut Buffers) -> bool {
        buffers.hashes.clear();
        buffers.hashes.extend(buffers.keys.iter().map(|key| hash_u64(*key)));
        let mut rows = Hashed {
            hashes: &buffers.hashes,
            tags: None,
        };
        match &table.keys {
            RowKeys::Words(words) => {
                let first = first_row as usize;
                for (word, key) in words[first..].iter().zip(&buffers.keys) {
                    word.store(*key, Ordering::Relaxed);
                }
                let same = |at: usize, row: u32| words[row as usize].load(Ordering::Relaxed) == buffers.keys[at];
                table.insert(rows, &buffers.found, first_row, self.chaining(), same)
            }
            _ => {
                rows.tags = Some(&buffers.keys);
                table.insert(rows, &buffers.found, first_row, self.chaining(), |_, _| true)
            }
        }
    }

    fn insert_double_words(&self, table: &HashTable, first_row: u32, buffers: &mut Buffers) -> bool {
        let RowKeys::DoubleWords(words) = &table.keys else {
            return false;
        };
        buffers.hashes.clear();
        buffers
            .hashes
            .extend(buffers.wide_keys.iter().map(|key| hash_u128(*key)));
        let first = first_row as usize;
        for (pair, key) in words[first * 2..].chunks_exact(2).zip(&buffers.wide_keys) {
            pair[0].store(*key as u64, Ordering::Relaxed);
            pair[1].store((*key >> 64) as u64, Ordering::Relaxed);
        }
        let rows = Hashed {
            hashes: &buffers.hashes,
            tags: None,
        };
        let same = |at: usize, row: u32| double_word(words, row) == buffers.wide_keys[at];
        table.insert(rows, &buffers.found, first_row, self.chaining(), same)
    }

    fn insert_bytes(
        &self,
        table: &HashTable,
        local: usize,
        (start, end): (usize, usize),
        buffers: &mut Buffers,
    ) -> bool {
        let RowKeys::Bytes(parts, _) = &table.keys else {
            return false;
        };
        let encoded = &parts[local];
        buffers.hashes.clear();
        buffers
            .hashes
            .extend((start..end).map(|row| hash_bytes(encoded.get(row))));
        let rows = Hashed {
            hashes: &buffers.hashes,
            tags: None,
        };
        let same = |at: usize, row: u32| table.keys.bytes(row) == encoded.get(start + at);
        let first_row = (self.locals[local].first_row + start) as u32;
        table.insert(rows, &encoded.found()[start..end], first_row, self.chaining(), same)
    }
}

/// A packed key of two words.
pub(crate) fn double_word(words: &[AtomicU64], row: u32) -> u128 {
    let low = words[row as usize * 2].load(Ordering::Relaxed);
    let high = words[row as usize * 2 + 1].load(Ordering::Relaxed);
    u128::from(high) << 64 | u128::from(low)
}

/// Words that a packed key takes in the table besides the tag; none when it is to be encoded.
fn packing_words(size: u128, ladder: Ladder) -> Option<usize> {
    let fits32 = size <= 1 << 32;
    let fits64 = size <= 1 << 64;
    Some(match ladder {
        Ladder::Wide => 2,
        Ladder::Compared if fits64 => 1,
        _ if fits32 && ladder != Ladder::Compared => 0,
        _ if fits64 => 1,
        _ => 2,
    })
}

/// What one task works with.
#[derive(Default)]
struct Buffers {
    positions: Vec<u32>,
    keys: Vec<u64>,
    wide_keys: Vec<u128>,
    found: Vec<u8>,
    hashes: Vec<u64>,
}

/// Tasks that insert all rows: one if there are few, which then needs no locks.
fn inserts(locals: &[LocalRows], rows: usize) -> Vec<Vec<Insert>> {
    let mut tasks: Vec<Vec<Insert>> = Vec::new();
    for (local, part) in locals.iter().enumerate() {
        let end = locals.get(local + 1).map_or(rows, |next| next.first_row) - part.first_row;
        for start in (0..end).step_by(TASK_ROWS) {
            let end = end.min(start + TASK_ROWS);
            let insert = Insert { local, start, end };
            match tasks.last_mut() {
                Some(task) if rows <= TASK_ROWS => task.push(insert),
                _ => tasks.push(vec![insert]),
            }
        }
    }
    tasks
}
