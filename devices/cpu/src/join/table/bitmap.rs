//! A bit by packed key, for probes that only ask whether a key is there.

use std::sync::atomic::{AtomicU64, Ordering};

use super::zeroed::Zeroed;

/// Bit `key` is set when the key is there; one more, never set, stands for all keys outside.
#[derive(Debug)]
pub(crate) struct Bitmap {
    words: Zeroed<AtomicU64>,
    size: u32,
}

impl Bitmap {
    /// Memory for keys below `size`.
    pub(crate) fn bytes(size: usize) -> usize {
        (size / 64 + 1) * size_of::<AtomicU64>()
    }

    /// For keys below `size`.
    pub(crate) fn new(size: u32) -> Self {
        Self {
            words: Zeroed::new(size as usize / 64 + 1),
            size,
        }
    }

    /// Sets the bits at these positions (`size` for rows that match nothing).
    pub(crate) fn insert(&self, positions: &[u32]) {
        for position in positions.iter().filter(|position| **position != self.size) {
            let word = &self.words[*position as usize / 64];
            let bit = 1_u64 << (position % 64);
            if word.load(Ordering::Relaxed) & bit == 0 {
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
    }

    /// 1 for each position whose bit is set.
    pub(crate) fn find(&self, positions: &[u32], found: &mut Vec<u32>) {
        found.clear();
        found.extend(positions.iter().map(|position| {
            let word = self.words[*position as usize / 64].load(Ordering::Relaxed);
            (word >> (position % 64)) as u32 & 1
        }));
    }
}
