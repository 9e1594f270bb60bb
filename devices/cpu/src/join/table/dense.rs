//! An array by packed key: the fastest table where keys lie close together.

use std::sync::atomic::{AtomicU32, Ordering};

use super::{Chain, prefetch, zeroed_u32};

/// How many rows ahead memory is asked for.
const AHEAD: usize = 32;

/// `heads[key]` is the first row's number + 1, or 0; one more entry, always 0, stands for all keys outside.
#[derive(Debug)]
pub(crate) struct Dense {
    heads: Box<[AtomicU32]>,
}

impl Dense {
    /// Memory for keys below `size`.
    pub(crate) fn bytes(size: usize) -> usize {
        (size + 1) * size_of::<AtomicU32>()
    }

    /// For keys below `size`.
    pub(crate) fn new(size: usize) -> Self {
        Self {
            heads: zeroed_u32(size + 1),
        }
    }

    /// Inserts rows from `first_row` on at these positions (`size` for rows that match nothing). True when a key was there
    /// already. `alone`: no other worker inserts.
    pub(crate) fn insert(&self, positions: &[u32], first_row: u32, chain: &Chain, alone: bool) -> bool {
        let outside = self.heads.len() - 1;
        let mut repeated = false;
        for (at, position) in positions.iter().enumerate() {
            if let Some(position) = positions.get(at + AHEAD) {
                prefetch(&self.heads, *position as usize);
            }
            let position = *position as usize;
            if position == outside {
                continue;
            }
            let head = &self.heads[position];
            let row = first_row + at as u32;
            let before = if alone {
                let before = head.load(Ordering::Relaxed);
                head.store(row + 1, Ordering::Relaxed);
                before
            } else {
                head.swap(row + 1, Ordering::Relaxed)
            };
            if before != 0 {
                repeated = true;
                chain[row as usize].store(before, Ordering::Relaxed);
            }
        }
        repeated
    }

    /// The first row's number + 1, or 0, of each position.
    pub(crate) fn find(&self, positions: &[u32], heads: &mut Vec<u32>) {
        heads.clear();
        heads.extend(
            positions
                .iter()
                .map(|position| self.heads[*position as usize].load(Ordering::Relaxed)),
        );
    }
}
