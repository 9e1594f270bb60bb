//! Probes of a build side, a tile at a time: all keys are packed, then all are looked up, then pairs are given out.
//!
//! ```text
//!  keys of the tile ─pack─▶ numbers ─find─▶ heads: first build row + 1, or 0   ─follow chains─▶ pairs, at most so many a call
//! ```
//!
//! Memory is asked for some rows ahead of its use. A Bloom filter that lets most rows through is left out after a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use parking_lot::Mutex;
use trireme_device_api::{DeviceError, DevicePool, Dictionary, JoinKind, Reservation};

use super::build::{byte_column, code_column, key_columns, string_list};
use super::dictionary::{DictionaryIndex, MISS};
use super::encode::{ByteColumn, EncodedKeys};
use super::finish::{BuildTable, double_word};
use super::hash::{hash_bytes, hash_u64, hash_u128};
use super::keys::{KeyKind, Packing};
use super::table::hash::{HashTable, Hashed, RowKeys};
use super::table::ranks::Ranks;
use super::table::zeroed::Zeroed;
use super::table::{Index, prefetch};
use crate::isa::{Isa, primitive};
use crate::number::map_values;
use crate::vector::{Data, Shape, TILE_ROWS, Vector};

/// Pairs that one call gives at most.
pub(crate) const PAIRS: usize = TILE_ROWS;

/// Keys are numbered by themselves when one row in so many has one that is there, or fewer do.
const FEW: usize = 4;

/// Rows after which a Bloom filter must have kept enough of them out.
const BLOOM_TRIAL_ROWS: usize = 1 << 14;

/// How a step joins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProbeKind {
    pub(crate) kind: JoinKind,
    /// NULL keys equal each other.
    pub(crate) nulls_equal: bool,
    /// NOT IN.
    pub(crate) null_aware: bool,
    /// A residual condition decides which pairs are matches; the pipeline evaluates it.
    pub(crate) residual: bool,
}

/// A probe step, shared by all workers.
pub(crate) struct Prober {
    pub(super) table: Arc<BuildTable>,
    adapters: Vec<Adapter>,
    pub(crate) how: ProbeKind,
    isa: Isa,
    /// 1 for build rows with a match, for kinds that give build rows at the end.
    pub(super) matched: Option<Zeroed<AtomicU8>>,
    bloom_tested: AtomicUsize,
    bloom_passed: AtomicUsize,
    /// Buffers that no tile uses at the moment.
    spare: Arc<Spare>,
    _reservation: Reservation,
}

type Spare = Mutex<Vec<Box<Buffers>>>;

/// How a key becomes comparable with the build's.
#[derive(Debug)]
enum Adapter {
    Direct,
    /// Codes of another dictionary: the build's codes by them.
    Translate(Vec<u32>),
    /// Strings whose codes in the build's dictionary are asked.
    Find(DictionaryIndex),
    /// Codes whose strings are asked.
    Decode(Arc<Dictionary>),
    /// No value matches.
    Nothing,
}

/// The matches of one tile: first [`Prober::start`], then pairs by [`Prober::next`].
#[derive(Default)]
pub(crate) struct Scratch {
    /// Rows of the tile, ascending: the left side of the pairs of the last call.
    pub(crate) rows: Vec<u32>,
    /// Build rows, beside `rows`; [`crate::tile::NO_ROW`] for rows without a match of an outer join without residual.
    pub(crate) build: Vec<u32>,
    pub(super) tile_rows: usize,
    /// The row to go on with, and its build row + 1; 0 when the row wasn't begun.
    pub(super) row: usize,
    pub(super) following: u32,
    /// Along chains: the rows with a match stand in `hits`, and `row` counts these.
    pub(super) listed: bool,
    pub(super) buffers: Box<Buffers>,
    /// Where the buffers go back to.
    home: Option<Arc<Spare>>,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.lock().push(std::mem::take(&mut self.buffers));
        }
    }
}

/// What looking up a tile's keys takes.
#[derive(Default)]
pub(super) struct Buffers {
    /// First build row + 1 of each row of the tile; of a bitmap, 1 where the key is there.
    pub(super) heads: Vec<u32>,
    positions: Vec<u32>,
    keys: Vec<u64>,
    wide_keys: Vec<u128>,
    encoded: EncodedKeys,
    found: Vec<u8>,
    hashes: Vec<u64>,
    wanted: Vec<u32>,
    pending: Vec<u32>,
    /// Rows with a match, and their first build rows + 1.
    pub(super) hits: Vec<u32>,
    pub(super) firsts: Vec<u32>,
}

impl Scratch {
    /// Where the pairs of the next call begin, for [`Scratch::seek`] after the same tile was started again.
    pub(crate) fn place(&self) -> (usize, u32) {
        (self.row, self.following)
    }

    /// Goes on from a place. Pairs depend on the tile and the table only, so they are those that would have come.
    pub(crate) fn seek(&mut self, (row, following): (usize, u32)) {
        self.row = row;
        self.following = following;
    }
}

impl Prober {
    /// Of keys of these shapes.
    ///
    /// # Errors
    /// Unsupported when keys can't be compared with the build's; when memory is short.
    pub(crate) fn new(
        table: &Arc<BuildTable>,
        keys: &[Shape],
        how: ProbeKind,
        pool: &Arc<dyn DevicePool>,
        isa: Isa,
    ) -> Result<Self, DeviceError> {
        if keys.len() != table.kinds.len() {
            return Err(DeviceError::Internal(
                "a probe has other keys than its build side".into(),
            ));
        }
        if how.null_aware && (keys.len() != 1 || how.residual) {
            return Err(DeviceError::Unsupported(
                "NOT IN of several columns or with a further condition is not fused".into(),
            ));
        }
        let mut reservation = Reservation::new(pool);
        let mut adapters = Vec::new();
        for (build, shape) in table.kinds.iter().zip(keys) {
            adapters.push(Adapter::new(
                build,
                &KeyKind::of(shape),
                table.packing.is_some(),
                &mut reservation,
            )?);
        }
        let tracks = matches!(
            how.kind,
            JoinKind::BuildOuter | JoinKind::Full | JoinKind::BuildSemi | JoinKind::BuildAnti
        );
        if tracks {
            reservation.grow(table.rows())?;
        }
        Ok(Self {
            table: Arc::clone(table),
            adapters,
            how: ProbeKind {
                nulls_equal: how.nulls_equal && table.nulls_equal,
                ..how
            },
            isa,
            matched: tracks.then(|| Zeroed::new(table.rows())),
            bloom_tested: AtomicUsize::new(0),
            bloom_passed: AtomicUsize::new(0),
            spare: Arc::default(),
            _reservation: reservation,
        })
    }

    /// The build side.
    #[cfg(test)]
    pub(crate) fn table(&self) -> &Arc<BuildTable> {
        &self.table
    }

    /// Looks up the keys of a tile.
    pub(crate) fn start(&self, scratch: &mut Scratch, keys: &[Vector<'_>], rows: usize) {
        scratch.tile_rows = rows;
        scratch.row = 0;
        scratch.following = 0;
        scratch.listed = false;
        self.borrow(scratch);
        self.find(&mut scratch.buffers, keys, rows);
    }

    /// The next pairs in [`Scratch::rows`] and [`Scratch::build`], at most [`PAIRS`]; false, and none, after the last ones.
    pub(crate) fn next(&self, scratch: &mut Scratch) -> bool {
        scratch.rows.clear();
        scratch.build.clear();
        let outer = matches!(self.how.kind, JoinKind::Left | JoinKind::Full) && !self.how.residual;
        while scratch.rows.is_empty() && scratch.row < scratch.tile_rows {
            match &self.table.index {
                Index::All => scratch.cross(self.table.rows() as u32, outer),
                Index::Bitmap(_) => return false,
                _ if self.table.unique => scratch.unique(outer, self.isa),
                _ => scratch.chained(&self.table.chain, outer, self.isa),
            }
        }
        !scratch.rows.is_empty()
    }

    /// As [`Prober::start`] and [`Prober::exists`], for tiles of which no pairs are asked: bits are enough where the table has
    /// them.
    pub(crate) fn only_exists(&self, scratch: &mut Scratch, keys: &[Vector<'_>], rows: usize, keep: &mut Vec<u8>) {
        keep.clear();
        let Some(packing) = &self.table.packing else {
            self.start(scratch, keys, rows);
            self.exists(scratch, keep);
            return;
        };
        match &self.table.index {
            Index::Sorted(ranks) | Index::Ranked(ranks, _) => {
                self.borrow(scratch);
                self.positions(packing, keys, rows, &mut scratch.buffers);
                ranks.held(self.isa, &scratch.buffers.positions, keep);
            }
            Index::Same => {
                self.borrow(scratch);
                self.positions(packing, keys, rows, &mut scratch.buffers);
                keep.resize(rows, 0);
                below(self.isa, &scratch.buffers.positions, packing.size() as u32, keep);
            }
            _ => {
                self.start(scratch, keys, rows);
                self.exists(scratch, keep);
            }
        }
    }

    /// Gives a scratch buffers of earlier tiles.
    fn borrow(&self, scratch: &mut Scratch) {
        if scratch.home.is_none() {
            if let Some(buffers) = self.spare.lock().pop() {
                scratch.buffers = buffers;
            }
            scratch.home = Some(Arc::clone(&self.spare));
        }
    }

    /// 1 for each row of the tile that has a match, without regard to a residual.
    pub(crate) fn exists(&self, scratch: &Scratch, keep: &mut Vec<u8>) {
        keep.clear();
        match &self.table.index {
            Index::All => keep.resize(scratch.tile_rows, u8::from(self.table.rows() > 0)),
            _ => keep.extend(scratch.buffers.heads.iter().map(|head| u8::from(*head != 0))),
        }
    }

    /// From which rows have a match to which pass (semi, anti with and without NOT IN's rules) or are marked. Without residual
    /// `keep` comes from [`Prober::exists`]; with one it is 1 for the rows for which it was true for some pair.
    pub(crate) fn decide(&self, keys: &[Vector<'_>], keep: &mut [u8]) {
        if self.how.kind != JoinKind::Anti {
            return;
        }
        for keep in keep.iter_mut() {
            *keep ^= 1;
        }
        if !self.how.null_aware || self.table.rows() == 0 {
            return;
        }
        if self.table.has_null_keys() {
            keep.fill(0);
        }
        for vector in keys.iter().filter(|vector| vector.has_nulls()) {
            for (row, keep) in keep.iter_mut().enumerate() {
                *keep &= u8::from(!vector.is_null(row));
            }
        }
    }

    /// Looks up the keys of a tile.
    fn find(&self, buffers: &mut Buffers, keys: &[Vector<'_>], rows: usize) {
        let mut heads = std::mem::take(&mut buffers.heads);
        heads.clear();
        match (&self.table.index, &self.table.packing) {
            (Index::All, _) => {}
            (Index::Dense(dense), Some(packing)) => {
                self.positions(packing, keys, rows, buffers);
                dense.find(&buffers.positions, &mut heads);
            }
            (Index::Ranked(ranks, dense), Some(packing)) => {
                self.positions(packing, keys, rows, buffers);
                self.numbered(ranks, buffers, &mut heads, |numbers, heads| dense.find(numbers, heads));
            }
            (Index::Sorted(ranks), Some(packing)) => {
                self.positions(packing, keys, rows, buffers);
                let count = ranks.count() as u32;
                self.numbered(ranks, buffers, &mut heads, |numbers, heads| {
                    heads.resize(numbers.len(), 0);
                    rows_of(self.isa, numbers, count, heads);
                });
            }
            (Index::Same, Some(packing)) => {
                self.positions(packing, keys, rows, buffers);
                heads.resize(rows, 0);
                rows_of(self.isa, &buffers.positions, packing.size() as u32, &mut heads);
            }
            (Index::Bitmap(bitmap), Some(packing)) => {
                self.positions(packing, keys, rows, buffers);
                bitmap.find(&buffers.positions, &mut heads);
            }
            (Index::Hash(table), packing) => {
                heads.resize(rows, 0);
                let screen = self.table.screen.as_ref();
                let passing = screen.and_then(|screen| screen.passing(self.isa, keys, rows, self.how.nulls_equal));
                match passing {
                    None => self.find_hashed(table, packing.as_ref(), keys, &mut heads, buffers),
                    Some(passing) => {
                        let keys: Vec<_> = keys.iter().map(|vector| vector.take(&passing)).collect();
                        let mut found = vec![0; passing.len()];
                        self.find_hashed(table, packing.as_ref(), &keys, &mut found, buffers);
                        for (row, head) in passing.iter().zip(found) {
                            heads[*row as usize] = head;
                        }
                    }
                }
            }
            _ => heads.resize(rows, 0),
        }
        buffers.heads = heads;
    }

    /// The heads that `find` gives for the numbers of packed keys; where few keys are there, only these are numbered.
    fn numbered(
        &self,
        ranks: &Ranks,
        buffers: &mut Buffers,
        heads: &mut Vec<u32>,
        find: impl Fn(&[u32], &mut Vec<u32>),
    ) {
        let positions = &mut buffers.positions;
        if ranks.is_sparse() {
            let passing = ranks.passing(self.isa, positions);
            if passing.len() * FEW <= positions.len() {
                let mut numbers = map_values(&passing, |row| positions[row as usize]);
                ranks.number(self.isa, &mut numbers);
                let mut few = Vec::with_capacity(numbers.len());
                find(&numbers, &mut few);
                heads.resize(positions.len(), 0);
                for (row, head) in passing.iter().zip(few) {
                    heads[*row as usize] = head;
                }
                return;
            }
        }
        ranks.number(self.isa, positions);
        find(positions, heads);
    }

    fn positions(&self, packing: &Packing, keys: &[Vector<'_>], rows: usize, buffers: &mut Buffers) {
        let codes = self.codes(keys);
        let columns = key_columns(keys, &codes);
        packing.pack_positions(self.isa, &columns, rows, self.how.nulls_equal, &mut buffers.positions);
    }

    /// The heads of as many rows as there is room for.
    fn find_hashed(
        &self,
        table: &HashTable,
        packing: Option<&Packing>,
        keys: &[Vector<'_>],
        heads: &mut [u32],
        buffers: &mut Buffers,
    ) {
        let mut pending = std::mem::take(&mut buffers.pending);
        let rows = heads.len();
        let found = (heads, &mut pending, &mut *buffers);
        match packing {
            Some(packing) => self.find_packed(table, packing, keys, rows, found),
            None => self.find_encoded(table, keys, rows, found),
        }
        buffers.pending = pending;
    }

    fn find_packed(
        &self,
        table: &HashTable,
        packing: &Packing,
        keys: &[Vector<'_>],
        rows: usize,
        (heads, pending, buffers): (&mut [u32], &mut Vec<u32>, &mut Buffers),
    ) {
        let codes = self.codes(keys);
        let columns = key_columns(keys, &codes);
        let nulls = self.how.nulls_equal;
        buffers.hashes.clear();
        if let RowKeys::DoubleWords(words) = &table.keys {
            packing.pack(
                self.isa,
                &columns,
                rows,
                nulls,
                (&mut buffers.wide_keys, &mut buffers.found),
            );
            buffers
                .hashes
                .extend(buffers.wide_keys.iter().map(|key| hash_u128(*key)));
            self.choose(table, buffers);
            let wide_keys = &buffers.wide_keys;
            let same = |row: usize, build: u32| double_word(words, build) == wide_keys[row];
            let ahead = |build: u32| prefetch(words, build as usize * 2);
            table.find(
                buffers.hashed(false),
                &buffers.wanted,
                heads,
                pending,
                Some((same, ahead)),
            );
            return;
        }
        packing.pack(self.isa, &columns, rows, nulls, (&mut buffers.keys, &mut buffers.found));
        buffers.hashes.extend(buffers.keys.iter().map(|key| hash_u64(*key)));
        self.choose(table, buffers);
        match &table.keys {
            RowKeys::Words(words) => {
                let keys = &buffers.keys;
                let same = |row: usize, build: u32| words[build as usize].load(Ordering::Relaxed) == keys[row];
                let ahead = |build: u32| prefetch(words, build as usize);
                table.find(
                    buffers.hashed(false),
                    &buffers.wanted,
                    heads,
                    pending,
                    Some((same, ahead)),
                );
            }
            _ => table.find(
                buffers.hashed(true),
                &buffers.wanted,
                heads,
                pending,
                None::<(fn(usize, u32) -> bool, fn(u32))>,
            ),
        }
    }

    fn find_encoded(
        &self,
        table: &HashTable,
        keys: &[Vector<'_>],
        rows: usize,
        (heads, pending, buffers): (&mut [u32], &mut Vec<u32>, &mut Buffers),
    ) {
        let codes = self.codes(keys);
        let lists: Vec<_> = keys.iter().map(|vector| string_list(&vector.data)).collect();
        let columns: Vec<_> = keys
            .iter()
            .enumerate()
            .map(|(at, vector)| match (&codes[at], &self.adapters[at], &vector.data) {
                (Some(codes), ..) => ByteColumn::Numbers(code_column(codes, vector)),
                (None, Adapter::Decode(dictionary), Data::Codes(codes, _)) => {
                    ByteColumn::Decoded(codes, dictionary, vector.valid.as_deref())
                }
                _ => byte_column(vector, &lists[at]),
            })
            .collect();
        buffers.encoded.clear();
        // The form of the bytes is the table's; NULLs that this probe doesn't match are taken out below.
        buffers.encoded.push(&columns, rows, self.table.nulls_equal);
        buffers.found.clear();
        buffers.found.extend_from_slice(buffers.encoded.found());
        if !self.how.nulls_equal {
            for vector in keys.iter().filter(|vector| vector.has_nulls()) {
                for (row, found) in buffers.found.iter_mut().enumerate() {
                    *found &= u8::from(!vector.is_null(row));
                }
            }
        }
        buffers.hashes.clear();
        buffers
            .hashes
            .extend((0..rows).map(|row| hash_bytes(buffers.encoded.get(row))));
        self.choose(table, buffers);
        let encoded = &buffers.encoded;
        let same = |row: usize, build: u32| table.keys.bytes(build) == encoded.get(row);
        table.find(
            buffers.hashed(false),
            &buffers.wanted,
            heads,
            pending,
            Some((same, |_| ())),
        );
    }

    /// The rows to look up: those with a key, and of these only those that the Bloom filter lets through.
    fn choose(&self, table: &HashTable, buffers: &mut Buffers) {
        let Buffers {
            found, wanted, hashes, ..
        } = buffers;
        let tested = self.bloom_tested.load(Ordering::Relaxed);
        let useful = tested < BLOOM_TRIAL_ROWS || self.bloom_passed.load(Ordering::Relaxed) < tested / 4 * 3;
        let bloom = table.bloom.as_ref().filter(|_| useful);
        if let Some(bloom) = bloom {
            for (found, hash) in found.iter_mut().zip(hashes.iter()) {
                *found &= u8::from(bloom.may_hold(*hash));
            }
        }
        wanted.resize(found.len(), 0);
        let mut count = 0;
        for (row, found) in found.iter().enumerate() {
            wanted[count] = row as u32;
            count += usize::from(*found);
        }
        wanted.truncate(count);
        if bloom.is_some() && tested < BLOOM_TRIAL_ROWS {
            self.bloom_tested.fetch_add(found.len(), Ordering::Relaxed);
            self.bloom_passed.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// For each key the build's codes of its strings, where it needs them.
    fn codes(&self, keys: &[Vector<'_>]) -> Vec<Option<Vec<u32>>> {
        let translated = |(adapter, vector): (&Adapter, &Vector<'_>)| match (adapter, &vector.data) {
            (_, Data::Null(_)) => None,
            (Adapter::Translate(table), Data::Codes(codes, _)) => {
                let code = |code: &u32| table.get(*code as usize).copied().unwrap_or(MISS);
                Some(codes.iter().map(code).collect())
            }
            (Adapter::Find(index), Data::Bytes(values)) => Some(values.iter().map(|value| index.code(value)).collect()),
            (Adapter::Find(index), Data::Strings(values)) => {
                Some((0..values.len()).map(|row| index.code(values.get(row))).collect())
            }
            (Adapter::Nothing, data) => Some(vec![MISS; data.len()]),
            _ => None,
        };
        self.adapters.iter().zip(keys).map(translated).collect()
    }
}

primitive! {
    /// 1 for positions before `end`.
    fn below[](positions: &[u32], end: u32, keep: &mut [u8]) {
        for (keep, position) in keep.iter_mut().zip(positions) {
            *keep = u8::from(*position < end);
        }
    }
}

primitive! {
    /// Positions that are rows, as heads; those from `end` on are no rows.
    fn rows_of[](positions: &[u32], end: u32, heads: &mut [u32]) {
        for (head, position) in heads.iter_mut().zip(positions) {
            *head = if *position < end { position + 1 } else { 0 };
        }
    }
}

impl Adapter {
    fn new(build: &KeyKind, probe: &KeyKind, packed: bool, reservation: &mut Reservation) -> Result<Self, DeviceError> {
        build.check_comparable(probe)?;
        Ok(match (build, probe) {
            (KeyKind::Codes(to), KeyKind::Codes(from)) if !Arc::ptr_eq(to, from) => {
                reservation.grow(DictionaryIndex::bytes(to) + from.len() * size_of::<u32>())?;
                Adapter::Translate(DictionaryIndex::new(to).translate(from))
            }
            (KeyKind::Codes(to), KeyKind::Bytes) => {
                reservation.grow(DictionaryIndex::bytes(to))?;
                Adapter::Find(DictionaryIndex::new(to))
            }
            (KeyKind::Bytes, KeyKind::Codes(dictionary)) => Adapter::Decode(Arc::clone(dictionary)),
            (KeyKind::Null, KeyKind::Bytes | KeyKind::Interval) if packed => Adapter::Nothing,
            _ => Adapter::Direct,
        })
    }
}

impl Buffers {
    fn hashed(&self, key_is_tag: bool) -> Hashed<'_> {
        Hashed {
            hashes: &self.hashes,
            tags: key_is_tag.then_some(self.keys.as_slice()),
        }
    }
}
