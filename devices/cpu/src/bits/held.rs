//! Values tested against a set of bits: join keys against those of a build side, before anything else of their rows is read.

use crate::bits::WORD_ROWS;
use crate::isa::{Isa, primitive};
use crate::number::Number;

/// Takes out rows whose value, counted from `least`, is no bit of `held`. Values far outside may be taken for others: rows that
/// are left may not be held, rows that are held are left.
pub(crate) fn held<T: Number>(isa: Isa, values: &[T], least: i128, held: &[u64], words: &mut [u64]) {
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512 && size_of::<T>() <= size_of::<u64>() {
        // SAFETY: this value exists only where `Isa::detect` found AVX-512 F, BW, DQ and VL.
        let done = unsafe { held_avx512(values, least as u32, held, words) };
        return held_plain(isa, &values[done * WORD_ROWS..], least as u32, held, &mut words[done..]);
    }
    held_plain(isa, values, least as u32, held, words);
}

primitive! {
    fn held_plain[T: Number](values: &[T], least: u32, held: &[u64], words: &mut [u64]) {
        for (values, word) in values.chunks(WORD_ROWS).zip(words) {
            let mut left = *word;
            while left != 0 {
                let row = left.trailing_zeros();
                let position = (values[row as usize].wide() as u32).wrapping_sub(least);
                let bits = held.get(position as usize / WORD_ROWS).copied().unwrap_or_default();
                *word &= !(u64::from(bits >> (position % u64::BITS) & 1 == 0) << row);
                left &= left - 1;
            }
        }
    }
}

/// Goes over whole words of rows and says how many.
///
/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL; values are integers of up to 64 bits.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn held_avx512<T: Number>(values: &[T], least: u32, held: &[u64], words: &mut [u64]) -> usize {
    use std::arch::x86_64::{
        __m512i, _mm_loadu_si128, _mm256_loadu_si256, _mm512_and_si512, _mm512_castsi256_si512,
        _mm512_cmplt_epu32_mask, _mm512_cvtepi8_epi32, _mm512_cvtepi16_epi32, _mm512_cvtepi64_epi32,
        _mm512_inserti64x4, _mm512_loadu_si512, _mm512_mask_i32gather_epi32, _mm512_set1_epi32, _mm512_setzero_si512,
        _mm512_sllv_epi32, _mm512_srli_epi32, _mm512_sub_epi32, _mm512_test_epi32_mask,
    };

    const LANES: usize = 16;

    /// The low halves of 16 values.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn sixteen<T>(values: &[T; LANES]) -> __m512i {
        let from = values.as_ptr();
        // SAFETY: 16 values of this size stand there.
        unsafe {
            match size_of::<T>() {
                1 => _mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast())),
                2 => _mm512_cvtepi16_epi32(_mm256_loadu_si256(from.cast())),
                4 => _mm512_loadu_si512(from.cast()),
                _ => {
                    let low = _mm512_cvtepi64_epi32(_mm512_loadu_si512(from.cast()));
                    let high = _mm512_cvtepi64_epi32(_mm512_loadu_si512(from.add(LANES / 2).cast()));
                    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
                }
            }
        }
    }

    let halves = _mm512_set1_epi32(((held.len() * 2) as u32).cast_signed());
    let (one, low) = (_mm512_set1_epi32(1), _mm512_set1_epi32(31));
    let least = _mm512_set1_epi32(least.cast_signed());
    let (blocks, _) = values.as_chunks::<WORD_ROWS>();
    for (block, word) in blocks.iter().zip(words.iter_mut()) {
        let mut left = 0;
        for (at, sixteenth) in block.as_chunks::<LANES>().0.iter().enumerate() {
            let wanted = (*word >> (at * LANES)) as u16;
            if wanted == 0 {
                continue;
            }
            let keys = _mm512_sub_epi32(sixteen(sixteenth), least);
            let place = _mm512_srli_epi32::<5>(keys);
            let inside = _mm512_cmplt_epu32_mask(place, halves) & wanted;
            // SAFETY: only halves of words before the last are read.
            let found = unsafe {
                _mm512_mask_i32gather_epi32::<4>(_mm512_setzero_si512(), inside, place, held.as_ptr().cast())
            };
            let bits = _mm512_sllv_epi32(one, _mm512_and_si512(keys, low));
            left |= u64::from(_mm512_test_epi32_mask(found, bits)) << (at * LANES);
        }
        *word &= left;
    }
    blocks.len().min(words.len())
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::bits::all;

    fn check<T: Number>(random: &mut StdRng, what: &str) {
        let rows = [0, 1, 63, 64, 65, 1000][random.random_range(0..6)];
        let size = [1, 60, 64, 5000][random.random_range(0..4)];
        let least = [0, -70, 50, 1_i128 << 40, i128::from(i64::MIN)][random.random_range(0..5)];
        let keys: Vec<u64> = (0..size / 64 + 1)
            .map(|_| random.random::<u64>() & random.random::<u64>())
            .collect();
        let values: Vec<T> = (0..rows)
            .map(|_| match random.random_range(0..10) {
                0 => T::of(random.random_range(i128::from(i64::MIN)..=i128::from(i64::MAX))),
                _ => T::of(least + random.random_range(-5..size as i128 + 5)),
            })
            .collect();
        let mut before = all(rows);
        before.iter_mut().for_each(|word| *word &= random.random::<u64>());
        let is_held = |value: &T| {
            let at = value.wide() - least;
            (0..keys.len() as i128 * 64).contains(&at) && keys[at as usize / 64] >> (at % 64) & 1 == 1
        };
        for isa in Isa::all_available() {
            let mut words = before.clone();
            held(isa, &values, least, &keys, &mut words);
            for (row, value) in values.iter().enumerate() {
                let bit = |words: &[u64]| words[row / 64] >> (row % 64) & 1 == 1;
                let far = (value.wide() - least).unsigned_abs() >= 1 << 31;
                let expected = bit(&before) && is_held(value);
                assert!(
                    bit(&words) == expected || far && bit(&before),
                    "{what} {isa:?}, row {row} of {rows}: {value:?}, least {least}, size {size}"
                );
            }
        }
    }

    #[test]
    fn values_that_are_held_are_left_and_others_taken_out() {
        for seed in 0..200 {
            let mut random = StdRng::seed_from_u64(seed);
            check::<i8>(&mut random, &format!("SEED={seed} i8"));
            check::<i16>(&mut random, &format!("SEED={seed} i16"));
            check::<i32>(&mut random, &format!("SEED={seed} i32"));
            check::<i64>(&mut random, &format!("SEED={seed} i64"));
            check::<i128>(&mut random, &format!("SEED={seed} i128"));
        }
    }
}
