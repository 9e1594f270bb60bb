//! Numbers keys that are there: the layer that makes a wide range of few keys dense.
//!
//! ```text
//!  packed key ─bit set?─▶ set bits before it  =  its number, below the count of distinct keys ─▶ Dense
//! ```
//!
//! A bit and a fifth of a byte per possible key: the probe of a clustered key reads memory in order, a miss costs one load.

use crate::isa::primitive;

/// The keys that are there, numbered in order.
#[derive(Debug)]
pub(crate) struct Ranks {
    /// A bit by packed key; one more, never set, stands for all keys outside.
    words: Vec<u64>,
    /// Bits set before each word.
    before: Vec<u32>,
    count: u32,
}

impl Ranks {
    /// Memory for keys below `size`.
    pub(crate) fn bytes(size: usize) -> usize {
        (size / 64 + 1) * (size_of::<u64>() + size_of::<u32>())
    }

    /// For keys below `size`; each call of `positions` gives some keys until it gives none.
    pub(crate) fn new(size: usize, mut positions: impl FnMut(&mut dyn FnMut(&[u32]))) -> Self {
        let mut words = vec![0_u64; size / 64 + 1];
        positions(&mut |keys| {
            // Keys in order set many bits of one word: it is stored when they leave it.
            let (mut at, mut word) = (0, words[0]);
            for key in keys {
                let next = *key as usize / 64;
                if next != at {
                    words[at] = word;
                    (at, word) = (next, words[next]);
                }
                word |= 1 << (key % 64);
            }
            words[at] = word;
        });
        // Rows that match nothing have the position `size`.
        words[size / 64] &= !(1 << (size % 64));
        let mut count = 0;
        let before = words
            .iter()
            .map(|word| {
                let before = count;
                count += word.count_ones();
                before
            })
            .collect();
        Self { words, before, count }
    }

    /// Distinct keys.
    pub(crate) fn count(&self) -> usize {
        self.count as usize
    }

    /// Packed keys to numbers; `count` where the key isn't there.
    pub(crate) fn number(&self, isa: crate::isa::Isa, positions: &mut [u32]) {
        number(isa, positions, &self.words, &self.before, self.count);
    }
}

impl Ranks {
    /// 1 for each packed key that is there.
    pub(crate) fn held(&self, isa: crate::isa::Isa, positions: &[u32], keep: &mut Vec<u8>) {
        held(isa, positions, &self.words, keep);
    }
}

primitive! {
    fn held[](positions: &[u32], words: &[u64], keep: &mut Vec<u8>) {
        keep.extend(positions.iter().map(|position| (words[*position as usize / 64] >> (position % 64)) as u8 & 1));
    }
}

primitive! {
    fn number[](positions: &mut [u32], words: &[u64], before: &[u32], none: u32) {
        for position in positions {
            let at = *position as usize / 64;
            let bit = *position % 64;
            let word = words[at];
            let number = before[at] + (word & ((1 << bit) - 1)).count_ones();
            *position = if word >> bit & 1 == 1 { number } else { none };
        }
    }
}
