//! The rows of all workers are put into one table, which the data choose.
//!
//! ```text
//!  rows of worker 0 │ rows of worker 1 │ …      build row = place in this order, below 2³² − 1
//! ```
//!
//! | table | when |
//! | --- | --- |
//! | bitmap | only existence is asked, packed keys below 128 × rows |
//! | the keys themselves | rows in the order of their keys, none missing, none twice |
//! | dense | packed keys below 8 × rows |
//! | a bit per key | rows in the order of their keys, none twice, too far apart for the cache |
//! | hash, key in the slot | packed keys below 2³² |
//! | hash, key compared | packed keys of 64 or 128 bits, encoded keys |
//!
//! Tables larger than the second-level cache get a Bloom filter, unless it too would be larger. Inserting is split into tasks that workers run at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use trireme_device_api::{DeviceColumn, DeviceError, Reservation};

use super::build::{BuildLocal, BuildPlan, Ladder, LocalKeys, byte_column, joined, key_column, too_many_rows};
use super::encode::EncodedKeys;
use super::insert::{Insert, inserts};
use super::keys::{KeyKind, Packing};
use super::order;
use super::screen::Screen;
use super::table::bitmap::Bitmap;
use super::table::bloom::Bloom;
use super::table::dense::Dense;
use super::table::hash::{BLOOM_TO_BYTES, HashTable, RowKeys};
use super::table::ranks::Ranks;
use super::table::zeroed::Zeroed;
use super::table::{Chain, Index};
use crate::builder::{ColumnBuilder, MAX_ROWS, Part, concat};
use crate::vector::TILE_ROWS;

/// Keys below this are always dense.
const DENSE_ALWAYS: u128 = 1 << 18;

/// Keys below this are numbered, and keys below so many times the rows, up to the other limit: 24 MB.
const RANKED_ALWAYS: u128 = 1 << 23;
const RANKED_PER_ROW: u128 = 1024;
const RANKED_MAX: u128 = 1 << 27;

/// At most one value in so many of a key's range is there: most rows have none of them.
const HELD_SPARSE: usize = 4;

/// Tables by position of up to so many keys stay in the first cache, in which they are faster than counting bits.
const DENSE_BEFORE_SORTED: u128 = 1 << 14;

/// The rows of all workers while they are put into a table: [`Building::run_task`] once for each of the
/// [`Building::tasks`], by any workers at once, then [`Building::finish`].
pub(crate) struct Building {
    pub(super) plan: Arc<BuildPlan>,
    pub(super) locals: Vec<LocalRows>,
    payload: Vec<Payload>,
    /// Rows to insert, by task.
    pub(super) inserts: Vec<Vec<Insert>>,
    pub(super) table: BuildTable,
    pub(super) repeated: AtomicBool,
    /// Rows that were the first of their key, where that is counted.
    pub(super) first: AtomicUsize,
    /// The rows in the order of the payload, when that isn't the order of the workers.
    order: Option<Vec<Part>>,
    /// One worker inserts all rows.
    pub(super) alone: bool,
}

pub(super) struct LocalRows {
    pub(super) keys: LocalKeys,
    pub(super) first_row: usize,
    reservation: Reservation,
}

/// A payload column in the making: the workers' parts, then the whole.
struct Payload {
    parts: Mutex<Vec<(ColumnBuilder, Reservation)>>,
    column: Mutex<Option<(Arc<DeviceColumn>, Vec<Reservation>)>>,
}

/// A finished build side.
pub(crate) struct BuildTable {
    pub(super) rows: usize,
    payload: Vec<Arc<DeviceColumn>>,
    pub(super) kinds: Vec<KeyKind>,
    pub(super) packing: Option<Packing>,
    pub(super) index: Index,
    /// Before a hash table.
    pub(super) screen: Option<Screen>,
    pub(super) chain: Chain,
    pub(super) unique: bool,
    /// NULL keys are in the table, as values.
    pub(super) nulls_equal: bool,
    null_keys: bool,
    reservations: Vec<Reservation>,
}

/// The values of one key of a build side: a bit for each, from the least on.
pub(crate) struct HeldKeys<'t> {
    /// Which key.
    pub(crate) key: usize,
    pub(crate) least: i128,
    pub(crate) words: &'t [u64],
}

/// What is known of a key of a build side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyBounds {
    /// No row has a value.
    None,
    /// All values lie within.
    Within(i128, i128),
    Unknown,
}

impl BuildTable {
    /// Before its index is chosen.
    fn empty(plan: &BuildPlan, rows: usize, null_keys: bool) -> Self {
        Self {
            rows,
            payload: Vec::new(),
            kinds: plan.kinds.clone(),
            packing: None,
            index: Index::Empty,
            screen: None,
            chain: Zeroed::new(0),
            unique: true,
            nulls_equal: plan.uses.nulls_equal,
            null_keys,
            reservations: Vec::new(),
        }
    }

    /// Bounds of the integral values of the key at a position.
    pub(crate) fn key_bounds(&self, position: usize) -> KeyBounds {
        if self.rows == 0 || matches!(self.index, Index::Empty) {
            return KeyBounds::None;
        }
        match (self.kinds.get(position), &self.packing) {
            (Some(KeyKind::Integer(_)), Some(packing)) => match packing.bounds(position) {
                Some((low, high)) => KeyBounds::Within(low, high),
                None => KeyBounds::Unknown,
            },
            _ => KeyBounds::Unknown,
        }
    }

    /// The values of one key that are there, where they are few of its range.
    pub(crate) fn held_keys(&self) -> Option<HeldKeys<'_>> {
        let (key, packing, ranks) = match (&self.index, &self.packing, &self.screen) {
            (Index::Ranked(ranks, _) | Index::Sorted(ranks), Some(packing), _) if self.kinds.len() == 1 => {
                (0, packing, ranks)
            }
            (Index::Hash(_), _, Some(screen)) => (screen.key, &screen.packing, &screen.held),
            _ => return None,
        };
        let words = ranks.words();
        let sparse = ranks.count() * HELD_SPARSE <= words.len() * u64::BITS as usize;
        let integral = matches!(self.kinds.get(key), Some(KeyKind::Integer(_)));
        let (least, _) = packing.bounds(0).filter(|_| sparse && integral)?;
        Some(HeldKeys { key, least, words })
    }

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
            Index::Sorted(_) => "sorted",
            Index::Same => "same",
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
    pub(crate) fn new(plan: &Arc<BuildPlan>, mut locals: Vec<BuildLocal>) -> Result<Self, DeviceError> {
        let alone = locals.len() == 1;
        locals.retain(|local| local.rows > 0);
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
        let order = order::ascending(locals.iter().map(|local| &local.order)).filter(|order| !order.is_empty());
        // Without gaps the keys themselves are the rows.
        let same = order.is_some()
            && rows > 0
            && bounds
                .iter()
                .all(|(bounds, _)| bounds.is_some_and(|(least, most)| (most - least) as u128 == rows as u128 - 1));
        if !same {
            locals.iter_mut().try_for_each(BuildLocal::keep_keys)?;
        }
        let mut payload: Vec<Vec<_>> = plan.payload.iter().map(|_| Vec::new()).collect();
        let mut parts = Vec::new();
        let mut first_row = 0;
        for local in locals {
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
            table: BuildTable::empty(plan, rows, null_keys),
            repeated: AtomicBool::new(false),
            first: AtomicUsize::new(0),
            order: None,
            alone,
        };
        building.choose(&bounds, order, same)?;
        Ok(building)
    }

    fn choose(
        &mut self,
        bounds: &[(Option<(i128, i128)>, bool)],
        order: Option<Vec<Part>>,
        same: bool,
    ) -> Result<(), DeviceError> {
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
        if let (Some(packing), Some(order)) = (&packing, order)
            && let Some(index) = self.sorted(packing, same, &mut reservation)?
        {
            let natural = order
                .iter()
                .zip(order.iter().skip(1))
                .all(|(a, b)| (a.builder, a.rows.start) < (b.builder, b.rows.start));
            self.order = (!natural).then_some(order);
            self.table.index = index;
            self.table.packing = Some(packing.clone());
            self.table.reservations.push(reservation);
            self.inserts.clear();
            return Ok(());
        }
        if self.plan.uses.rows {
            reservation.grow(rows * 4)?;
            self.table.chain = Zeroed::new(rows);
        }
        self.table.index = match &packing {
            Some(packing) => match self.positional(packing, &mut reservation)? {
                Some(index) => index,
                None => {
                    self.table.screen = Screen::of(self, packing, &mut reservation)?;
                    self.hashed(packing_words(packing.size(), ladder), &mut reservation)?
                }
            },
            None => self.hashed(None, &mut reservation)?,
        };
        self.table.packing = packing;
        self.table.reservations.push(reservation);
        Ok(())
    }

    /// For rows in the order of their keys; `same`: none is missing.
    fn sorted(
        &self,
        packing: &Packing,
        same: bool,
        reservation: &mut Reservation,
    ) -> Result<Option<Index>, DeviceError> {
        let size = packing.size();
        if same && size < u128::from(u32::MAX) {
            return Ok(Some(Index::Same));
        }
        let ranked = (RANKED_PER_ROW * self.table.rows as u128).clamp(RANKED_ALWAYS, RANKED_MAX);
        if !self.plan.uses.rows || size <= DENSE_BEFORE_SORTED || size > ranked {
            return Ok(None);
        }
        reservation.grow(Ranks::bytes(size as usize))?;
        let ranks = Ranks::new(size as usize, |see| self.each_position(packing, None, see));
        Ok(Some(Index::Sorted(ranks)))
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
            let ranks = Ranks::new(size as usize, |see| self.each_position(packing, None, see));
            reservation.grow(Dense::bytes(ranks.count()))?;
            let dense = Dense::new(ranks.count());
            return Ok(Some(Index::Ranked(ranks, dense)));
        }
        Ok(None)
    }

    /// The packed keys of all rows, or one key of them, a tile at a time.
    pub(super) fn each_position(&self, packing: &Packing, only: Option<usize>, see: &mut dyn FnMut(&[u32])) {
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
                let keys = only.map_or(&keys[..], |only| &keys[only..=only]);
                packing.pack_positions(self.plan.isa, keys, end - start, self.table.nulls_equal, &mut positions);
                see(&positions);
            }
        }
    }

    /// A hash table of keys of so many words each, or encoded ones.
    fn hashed(&mut self, words: Option<usize>, reservation: &mut Reservation) -> Result<Index, DeviceError> {
        let rows = self.table.rows;
        let slots = HashTable::slot_bytes(rows);
        let bloom = slots > self.plan.bloom_from_bytes && Bloom::bytes(rows) <= BLOOM_TO_BYTES;
        reservation.grow(slots + if bloom { Bloom::bytes(rows) } else { 0 } + words.unwrap_or(0) * 8 * rows)?;
        let keys = match words {
            Some(0) => RowKeys::InTag,
            Some(1) => RowKeys::Words(Zeroed::new(rows)),
            Some(_) => RowKeys::DoubleWords(Zeroed::new(rows * 2)),
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
            self.insert(inserts, self.care());
        } else if let Some(payload) = self.payload.get(task - self.inserts.len()) {
            let shape = &self.plan.payload[task - self.inserts.len()];
            let parts = std::mem::take(&mut *payload.parts.lock());
            let (parts, mut held): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
            if parts.len() > 1 || self.order.is_some() {
                let mut whole = Reservation::new(&self.plan.pool);
                whole.grow(parts.iter().map(ColumnBuilder::used_bytes).sum())?;
                held.push(whole);
            }
            let column = Arc::new(concat(shape, parts, self.order.as_deref())?);
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
        self.mend();
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
