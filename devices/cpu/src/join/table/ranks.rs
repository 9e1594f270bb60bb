//! Numbers keys that are there: the layer that makes a wide range of few keys dense.
//!
//! ```text
//!  packed key ─bit set?─▶ set bits before it  =  its number, below the count of distinct keys ─▶ Dense
//! ```
//!
//! A bit and a fifth of a byte per possible key: the probe of a clustered key reads memory in order, a miss costs one load.

use crate::compact::kept;
use crate::isa::{Isa, primitive};

/// At most one possible key in so many is there: most probes will find none.
const SPARSE: usize = 8;

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

    /// A bit by packed key.
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    /// Few of the possible keys are there.
    pub(crate) fn is_sparse(&self) -> bool {
        self.count() * SPARSE <= self.words.len() * u64::BITS as usize
    }

    /// Packed keys to numbers; `count` where the key isn't there.
    pub(crate) fn number(&self, isa: Isa, positions: &mut [u32]) {
        number(isa, positions, &self.words, &self.before, self.count);
    }
}

impl Ranks {
    /// 1 for each packed key that is there.
    pub(crate) fn held(&self, isa: Isa, positions: &[u32], keep: &mut Vec<u8>) {
        keep.resize(positions.len(), 0);
        held(isa, positions, &self.words, keep);
    }

    /// The places of packed keys that are there.
    pub(crate) fn passing(&self, isa: Isa, positions: &[u32]) -> Vec<u32> {
        #[cfg(target_arch = "x86_64")]
        if isa == Isa::Avx512 {
            let mut rows = Vec::with_capacity(positions.len() + LANES);
            // SAFETY: this value exists only where `Isa::detect` found AVX-512 F, BW, DQ and VL; room was made.
            unsafe { passing_avx512(positions, &self.words, &mut rows) };
            return rows;
        }
        let mut keep = Vec::new();
        self.held(isa, positions, &mut keep);
        kept(isa, &keep, 0)
    }
}

primitive! {
    fn held[](positions: &[u32], words: &[u64], keep: &mut [u8]) {
        for (keep, position) in keep.iter_mut().zip(positions) {
            *keep = (words[*position as usize / 64] >> (position % 64)) as u8 & 1;
        }
    }
}

/// Keys that are tested at once.
#[cfg(target_arch = "x86_64")]
const LANES: usize = 16;

/// # Safety
///
/// `rows` is empty and has room for [`LANES`] more values than there are positions.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
unsafe fn passing_avx512(positions: &[u32], words: &[u64], rows: &mut Vec<u32>) {
    use std::arch::x86_64::{
        _mm512_add_epi32, _mm512_and_epi32, _mm512_cmplt_epu32_mask, _mm512_loadu_si512, _mm512_mask_i32gather_epi32,
        _mm512_maskz_compress_epi32, _mm512_set1_epi32, _mm512_setr_epi32, _mm512_setzero_si512, _mm512_sllv_epi32,
        _mm512_srli_epi32, _mm512_storeu_si512, _mm512_test_epi32_mask,
    };

    let halves = _mm512_set1_epi32(((words.len() * 2) as u32).cast_signed());
    let (one, low, step) = (_mm512_set1_epi32(1), _mm512_set1_epi32(31), _mm512_set1_epi32(16));
    let mut places = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let mut count = 0;
    let (chunks, tail) = positions.as_chunks::<LANES>();
    for chunk in chunks {
        // SAFETY: the chunk is 16 values of 32 bits.
        let keys = unsafe { _mm512_loadu_si512(chunk.as_ptr().cast()) };
        let at = _mm512_srli_epi32::<5>(keys);
        let inside = _mm512_cmplt_epu32_mask(at, halves);
        // SAFETY: only halves of words before the last are read.
        let found =
            unsafe { _mm512_mask_i32gather_epi32::<4>(_mm512_setzero_si512(), inside, at, words.as_ptr().cast()) };
        let bits = _mm512_sllv_epi32(one, _mm512_and_epi32(keys, low));
        let passing = _mm512_test_epi32_mask(found, bits);
        // SAFETY: at most 16 values after one for each key seen so far.
        unsafe {
            _mm512_storeu_si512(
                rows.as_mut_ptr().add(count).cast(),
                _mm512_maskz_compress_epi32(passing, places),
            );
        }
        count += passing.count_ones() as usize;
        places = _mm512_add_epi32(places, step);
    }
    // SAFETY: so many were written.
    unsafe { rows.set_len(count) };
    let done = (positions.len() - tail.len()) as u32;
    let is_held = |position: u32| words[position as usize / 64] >> (position % 64) & 1 == 1;
    rows.extend(
        (done..)
            .zip(tail)
            .filter(|(_, position)| is_held(**position))
            .map(|(row, _)| row),
    );
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_are_there_pass_on_every_instruction_set() {
        let size = 10_000_usize;
        let held: Vec<u32> = (0..size as u32)
            .filter(|key| key * key % 7 == 2 || *key == 9999)
            .collect();
        let mut some = Some(held.clone());
        let ranks = Ranks::new(size, |see| {
            if let Some(keys) = some.take() {
                see(&keys);
            }
        });
        for rows in [0, 1, 15, 16, 17, 4096] {
            // Also the position of keys that are outside.
            let positions: Vec<u32> = (0..rows).map(|row| (row * 7919 + 3) % (size as u32 + 1)).collect();
            let expected: Vec<u32> = (0..rows)
                .filter(|row| held.binary_search(&positions[*row as usize]).is_ok())
                .collect();
            for isa in [Isa::Baseline, Isa::detect()] {
                assert_eq!(ranks.passing(isa, &positions), expected, "{isa:?}, {rows} rows");
            }
        }
    }
}
