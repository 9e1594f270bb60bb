//! A blocked Bloom filter: three bits of one 64-bit word per key, so that a test is one access, 8 to 16 bits per key.
//!
//! After Putze, Sanders and Singler, "Cache-, hash- and space-efficient Bloom filters" (2007).

use std::sync::atomic::{AtomicU64, Ordering};

use super::prefetch;
use super::zeroed::Zeroed;

/// How many rows ahead memory is asked for.
const AHEAD: usize = 24;

/// Says of most keys that aren't there that they aren't, and never of one that is.
#[derive(Debug)]
pub(crate) struct Bloom {
    words: Zeroed<AtomicU64>,
    shift: u32,
}

impl Bloom {
    fn words_for(rows: usize) -> usize {
        (rows / 8).max(2).next_power_of_two()
    }

    /// Memory for so many keys.
    pub(crate) fn bytes(rows: usize) -> usize {
        Self::words_for(rows) * size_of::<AtomicU64>()
    }

    /// For so many keys.
    pub(crate) fn new(rows: usize) -> Self {
        let words = Self::words_for(rows);
        Self {
            words: Zeroed::new(words),
            shift: 64 - words.trailing_zeros(),
        }
    }

    fn bits(hash: u64) -> u64 {
        (1 << (hash & 63)) | (1 << ((hash >> 6) & 63)) | (1 << ((hash >> 12) & 63))
    }

    /// Adds the keys that are `found`, by their hashes. `alone`: no other worker adds any.
    pub(crate) fn insert(&self, hashes: &[u64], found: &[u8], alone: bool) {
        for (at, (hash, found)) in hashes.iter().zip(found).enumerate() {
            if let Some(hash) = hashes.get(at + AHEAD) {
                prefetch(&self.words, (hash >> self.shift) as usize);
            }
            let word = &self.words[(hash >> self.shift) as usize];
            let bits = Self::bits(*hash) * u64::from(*found);
            let held = word.load(Ordering::Relaxed);
            if alone {
                word.store(held | bits, Ordering::Relaxed);
            } else if held & bits != bits {
                word.fetch_or(bits, Ordering::Relaxed);
            }
        }
    }

    /// False only when the key isn't there.
    pub(crate) fn may_hold(&self, hash: u64) -> bool {
        let bits = Self::bits(hash);
        self.words[(hash >> self.shift) as usize].load(Ordering::Relaxed) & bits == bits
    }
}
