//! Putting the rows of a build side into its table: tasks that several workers run at once.

use std::sync::atomic::Ordering;

use super::build::{LocalKeys, key_column};
use super::finish::{Building, LocalRows, double_word};
use super::hash::{hash_bytes, hash_u64, hash_u128};
use super::table::dense::{Care, Dense};
use super::table::hash::{HashTable, Hashed, RowKeys};
use super::table::{Chain, Index};
use crate::vector::TILE_ROWS;

/// Rows that one task inserts.
const TASK_ROWS: usize = 1 << 16;

/// Tables by position of up to so many keys a row are looked over for rows that workers lost to each other.
const LATER_PER_ROW: usize = 2;

/// Rows of one worker to insert.
#[derive(Debug, Clone, Copy)]
pub(super) struct Insert {
    local: usize,
    start: usize,
    end: usize,
}

impl Building {
    fn place(&self, dense: &Dense, positions: &[u32], first_row: u32, care: Care) -> bool {
        let (first, repeated) = dense.insert(positions, first_row, self.chaining().0, care);
        if care == Care::Later {
            self.first.fetch_add(first, Ordering::Relaxed);
        }
        repeated
    }

    /// How careful tasks are that put rows into a table by position.
    pub(super) fn care(&self) -> Care {
        if self.alone || self.inserts.len() == 1 {
            return Care::Alone;
        }
        match &self.table.index {
            Index::Dense(dense) if dense.size() <= LATER_PER_ROW * self.table.rows => Care::Later,
            _ => Care::Others,
        }
    }

    /// Inserts again what two workers lost to each other.
    pub(super) fn mend(&self) {
        if let Index::Dense(dense) = &self.table.index
            && self.care() == Care::Later
            && dense.taken() != self.first.load(Ordering::Relaxed)
        {
            dense.clear();
            self.table
                .chain
                .iter()
                .for_each(|link| link.store(0, Ordering::Relaxed));
            self.inserts
                .iter()
                .for_each(|inserts| self.insert(inserts, Care::Alone));
        }
    }

    pub(super) fn insert(&self, inserts: &[Insert], care: Care) {
        let mut buffers = Buffers::default();
        let mut repeated = false;
        for insert in inserts {
            for start in (insert.start..insert.end).step_by(TILE_ROWS) {
                let end = insert.end.min(start + TILE_ROWS);
                repeated |= self.insert_tile(insert.local, (start, end), &mut buffers, care);
            }
        }
        if repeated {
            self.repeated.store(true, Ordering::Relaxed);
        }
    }

    fn insert_tile(&self, local: usize, (start, end): (usize, usize), buffers: &mut Buffers, care: Care) -> bool {
        let rows = end - start;
        let isa = self.plan.isa;
        let first_row = (self.locals[local].first_row + start) as u32;
        let vectors: Vec<_> = match &self.locals[local].keys {
            LocalKeys::Numbers(builders) => builders.iter().map(|builder| builder.view(start, end)).collect(),
            LocalKeys::Encoded(_) => Vec::new(),
        };
        let keys: Vec<_> = vectors.iter().filter_map(key_column).collect();
        let nulls = self.table.nulls_equal;
        match (&self.table.index, &self.table.packing) {
            (Index::Dense(dense), Some(packing)) => {
                packing.pack_positions(isa, &keys, rows, nulls, &mut buffers.positions);
                self.place(dense, &buffers.positions, first_row, care)
            }
            (Index::Ranked(ranks, dense), Some(packing)) => {
                packing.pack_positions(isa, &keys, rows, nulls, &mut buffers.positions);
                ranks.number(isa, &mut buffers.positions);
                self.place(dense, &buffers.positions, first_row, care)
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
            self.alone || self.inserts.len() == 1,
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
pub(super) fn inserts(locals: &[LocalRows], rows: usize) -> Vec<Vec<Insert>> {
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
