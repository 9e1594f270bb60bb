//! An array by packed key: the fastest table where keys lie close together.

use std::sync::atomic::{AtomicU32, Ordering};

use super::zeroed::Zeroed;
use super::{Chain, prefetch};

/// How many rows ahead memory is asked for.
const AHEAD: usize = 32;

/// How inserting heeds other workers that insert at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Care {
    /// There are none.
    Alone,
    /// Two rows of one key may be lost to each other if they come at the same moment; then more rows were the first of their
    /// key than there are keys. Four times as fast as [`Care::Others`].
    Later,
    /// There are others.
    Others,
}

/// `heads[key]` is the first row's number + 1, or 0; one more entry, always 0, stands for all keys outside.
#[derive(Debug)]
pub(crate) struct Dense {
    heads: Zeroed<AtomicU32>,
}

impl Dense {
    /// Memory for keys below `size`.
    pub(crate) fn bytes(size: usize) -> usize {
        (size + 1) * size_of::<AtomicU32>()
    }

    /// For keys below `size`.
    pub(crate) fn new(size: usize) -> Self {
        Self {
            heads: Zeroed::new(size + 1),
        }
    }

    /// Keys are below this.
    pub(crate) fn size(&self) -> usize {
        self.heads.len() - 1
    }

    /// Inserts rows from `first_row` on at these positions (`size` for rows that match nothing). Says how many were the first of
    /// their key, and whether a key was there already. Without `chain` one row of each key is kept.
    pub(crate) fn insert(&self, positions: &[u32], first_row: u32, chain: Option<&Chain>, care: Care) -> (usize, bool) {
        let heads: &[AtomicU32] = &self.heads;
        let outside = self.size();
        let mut first = 0;
        let mut repeated = false;
        for (at, position) in positions.iter().enumerate() {
            if let Some(position) = positions.get(at + AHEAD) {
                prefetch(heads, *position as usize);
            }
            let position = *position as usize;
            if position == outside {
                continue;
            }
            let head = &heads[position];
            let row = first_row + at as u32;
            let mut before = head.load(Ordering::Relaxed);
            if care != Care::Alone && (before != 0 || care == Care::Others) {
                before = head.swap(row + 1, Ordering::Relaxed);
            } else {
                head.store(row + 1, Ordering::Relaxed);
            }
            if before == 0 {
                first += 1;
            } else {
                repeated = true;
                if let Some(chain) = chain {
                    chain[row as usize].store(before, Ordering::Relaxed);
                }
            }
        }
        (first, repeated)
    }

    /// Keys that are there.
    pub(crate) fn taken(&self) -> usize {
        let taken = |heads: &[AtomicU32]| -> u32 {
            heads
                .iter()
                .map(|head| u32::from(head.load(Ordering::Relaxed) != 0))
                .sum()
        };
        self.heads.chunks(1 << 16).map(|heads| taken(heads) as usize).sum()
    }

    /// Takes all rows out.
    pub(crate) fn clear(&self) {
        self.heads.iter().for_each(|head| head.store(0, Ordering::Relaxed));
    }

    /// The first row's number + 1, or 0, of each position.
    pub(crate) fn find(&self, positions: &[u32], heads: &mut Vec<u32>) {
        let table: &[AtomicU32] = &self.heads;
        heads.clear();
        heads.extend(
            positions
                .iter()
                .map(|position| table[*position as usize].load(Ordering::Relaxed)),
        );
    }
}
