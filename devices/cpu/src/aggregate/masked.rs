//! Sums and counts of a handful of groups by the masks of AVX-512: one pass over a tile for up to eight groups.
//!
//! Comparing the groups of 8 to 64 rows with a group's number gives a mask, and a masked addition takes the rows of that
//! group. Each vector lane keeps its own partial sum, so that narrow lanes last for thousands of rows:
//!
//! ```text
//!  i8    sums of eight bytes, with 128 added to each                    (vpsadbw)
//!  i16   sums of pairs in 32 bits                                       (vpmaddwd)
//!  i32   in 32 bits where the values are small enough, else its two halves apart
//!  i64   in 64 bits
//! ```
//!
//! LLVM finds the loops of `small.rs` but keeps one partial sum for all lanes, and widens groups to the values' width. Loops
//! here count: a closure takes on its function's instruction set, and is then not inlined into an iterator that hasn't it.
#![allow(clippy::needless_range_loop, reason = "see above")]

use std::arch::x86_64::{
    __m512i, _mm_cmpeq_epi8_mask, _mm_cvtsi64_si128, _mm_loadu_si128, _mm_set1_epi8, _mm_setzero_si128,
    _mm256_cmpeq_epi8_mask, _mm256_loadu_si256, _mm256_set1_epi8, _mm256_setzero_si256, _mm512_add_epi32,
    _mm512_add_epi64, _mm512_and_si512, _mm512_castsi512_si256, _mm512_cmpeq_epi8_mask, _mm512_cvtepi32_epi64,
    _mm512_extracti64x4_epi64, _mm512_loadu_si512, _mm512_madd_epi16, _mm512_mask_add_epi32, _mm512_mask_add_epi64,
    _mm512_maskz_mov_epi8, _mm512_maskz_mov_epi16, _mm512_reduce_add_epi64, _mm512_sad_epu8, _mm512_set1_epi8,
    _mm512_set1_epi16, _mm512_set1_epi32, _mm512_setzero_si512, _mm512_srai_epi32, _mm512_xor_si512,
};

use crate::aggregate::input::Lanes;
use crate::aggregate::keys::TINY_SLOTS;

/// Groups of one pass.
const AT_ONCE: usize = 8;
const ALL: [u8; TINY_SLOTS] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
/// Matches no row.
const NO_GROUP: u8 = 254;
/// Rows after which partial sums are added up.
const BLOCK: usize = 1 << 14;
/// Fewer values aren't worth a sum of their own.
const LEAST_HELD: usize = 64;
/// Values of a vector of 32-bit lanes.
const LANES: usize = 16;

/// Runs `$function::<G>` with as many groups as there are, for up to [`AT_ONCE`] of them at a time.
macro_rules! by_groups {
    ($function:ident, $groups:expr, $sums:expr, ($($argument:expr),*)) => {
        for groups in $groups.chunks(AT_ONCE) {
            // SAFETY: the caller of the module's functions has found AVX-512 F, BW, DQ and VL.
            unsafe {
                match groups.len() {
                    1 => put($sums, groups, $function::<1>($($argument,)* &padded(groups))),
                    2 => put($sums, groups, $function::<2>($($argument,)* &padded(groups))),
                    3 => put($sums, groups, $function::<3>($($argument,)* &padded(groups))),
                    4 => put($sums, groups, $function::<4>($($argument,)* &padded(groups))),
                    5 | 6 => put($sums, groups, $function::<6>($($argument,)* &padded(groups))),
                    _ => put($sums, groups, $function::<8>($($argument,)* &padded(groups))),
                }
            }
        }
    };
}

fn padded<const G: usize>(groups: &[u8]) -> [u8; G] {
    let mut all = [NO_GROUP; G];
    all.iter_mut().zip(groups).for_each(|(all, &group)| *all = group);
    all
}

fn put<const G: usize>(sums: &mut [i64; TINY_SLOTS], groups: &[u8], found: [i64; G]) {
    for (&group, sum) in groups.iter().zip(found) {
        let kept = &mut sums[usize::from(group)];
        *kept = kept.wrapping_add(sum);
    }
}

/// Rows of each of the first `groups` groups.
///
/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL.
pub(super) unsafe fn counts(ids: &[u8], groups: usize) -> [i64; TINY_SLOTS] {
    let mut counts = [0; TINY_SLOTS];
    by_groups!(count, ALL[..groups.min(TINY_SLOTS)], &mut counts, (ids));
    counts
}

/// Adds the sums of `groups` to `sums`; no value is larger than `largest` in magnitude. False when there is no loop for these
/// lanes, and nothing was done.
///
/// # Safety
/// As [`counts`].
pub(super) unsafe fn sums(
    lanes: &Lanes,
    ids: &[u8],
    groups: &[u8],
    largest: u128,
    sums: &mut [i64; TINY_SLOTS],
) -> bool {
    macro_rules! blocks {
        ($function:ident, $values:expr, $block:expr) => {
            for (values, ids) in $values.chunks($block).zip(ids.chunks($block)) {
                by_groups!($function, groups, sums, (values, ids));
            }
        };
    }
    // Values that a 32-bit lane holds the sum of.
    let held = u128::from(i32::MAX.unsigned_abs()) / largest.max(1);
    let held = usize::try_from(held).map_or(BLOCK / LANES, |held| held.min(BLOCK / LANES));
    match lanes {
        Lanes::I8(values) => blocks!(bytes, values, BLOCK),
        Lanes::I16(values) => blocks!(shorts, values, BLOCK),
        Lanes::I32(values) if held >= LEAST_HELD => blocks!(ints, values, held * LANES),
        Lanes::I32(values) => blocks!(halves, values, BLOCK),
        Lanes::I64(values) => blocks!(words, values, BLOCK),
        _ => return false,
    }
    true
}

/// Adds the rows after the last whole vector.
fn finish<const G: usize, T: Copy + Into<i64>>(sums: &mut [i64; G], values: &[T], ids: &[u8], groups: &[u8; G]) {
    for (&value, &id) in values.iter().zip(ids) {
        for (sum, &group) in sums.iter_mut().zip(groups) {
            *sum = sum.wrapping_add(if id == group { value.into() } else { 0 });
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
fn count<const G: usize>(ids: &[u8], groups: &[u8; G]) -> [i64; G] {
    let mut wanted = [_mm512_setzero_si512(); G];
    for group in 0..G {
        wanted[group] = _mm512_set1_epi8(groups[group].cast_signed());
    }
    let mut counts = [0_i64; G];
    let (chunks, tail) = ids.as_chunks::<64>();
    for ids in chunks {
        // SAFETY: the chunk is 64 bytes.
        let ids = unsafe { _mm512_loadu_si512(ids.as_ptr().cast()) };
        for group in 0..G {
            counts[group] += i64::from(_mm512_cmpeq_epi8_mask(ids, wanted[group]).count_ones());
        }
    }
    for id in tail {
        for (count, group) in counts.iter_mut().zip(groups) {
            *count += i64::from(id == group);
        }
    }
    counts
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
fn bytes<const G: usize>(values: &[i8], ids: &[u8], groups: &[u8; G]) -> [i64; G] {
    let mut wanted = [_mm512_setzero_si512(); G];
    for group in 0..G {
        wanted[group] = _mm512_set1_epi8(groups[group].cast_signed());
    }
    let offset = _mm512_set1_epi8(i8::MIN);
    let mut sums = [_mm512_setzero_si512(); G];
    let mut counts = [0_i64; G];
    let ((chunks, tail), (id_chunks, id_tail)) = (values.as_chunks::<64>(), ids.as_chunks::<64>());
    for (values, ids) in chunks.iter().zip(id_chunks) {
        // SAFETY: the chunks are 64 bytes each.
        let (values, ids) = unsafe {
            (
                _mm512_loadu_si512(values.as_ptr().cast()),
                _mm512_loadu_si512(ids.as_ptr().cast()),
            )
        };
        let values = _mm512_xor_si512(values, offset);
        for group in 0..G {
            let mask = _mm512_cmpeq_epi8_mask(ids, wanted[group]);
            let kept = _mm512_maskz_mov_epi8(mask, values);
            sums[group] = _mm512_add_epi64(sums[group], _mm512_sad_epu8(kept, _mm512_setzero_si512()));
            counts[group] += i64::from(mask.count_ones());
        }
    }
    let mut found = [0_i64; G];
    for group in 0..G {
        found[group] = _mm512_reduce_add_epi64(sums[group]) - 128 * counts[group];
    }
    finish(&mut found, tail, id_tail, groups);
    found
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
fn shorts<const G: usize>(values: &[i16], ids: &[u8], groups: &[u8; G]) -> [i64; G] {
    let mut wanted = [_mm256_setzero_si256(); G];
    for group in 0..G {
        wanted[group] = _mm256_set1_epi8(groups[group].cast_signed());
    }
    let ones = _mm512_set1_epi16(1);
    let mut sums = [_mm512_setzero_si512(); G];
    let ((chunks, tail), (id_chunks, id_tail)) = (values.as_chunks::<32>(), ids.as_chunks::<32>());
    for (values, ids) in chunks.iter().zip(id_chunks) {
        // SAFETY: the chunks are 64 and 32 bytes.
        let (values, ids) = unsafe {
            (
                _mm512_loadu_si512(values.as_ptr().cast()),
                _mm256_loadu_si256(ids.as_ptr().cast()),
            )
        };
        for group in 0..G {
            let mask = _mm256_cmpeq_epi8_mask(ids, wanted[group]);
            let pairs = _mm512_madd_epi16(_mm512_maskz_mov_epi16(mask, values), ones);
            sums[group] = _mm512_add_epi32(sums[group], pairs);
        }
    }
    let mut found = [0_i64; G];
    for group in 0..G {
        found[group] = total(sums[group]);
    }
    finish(&mut found, tail, id_tail, groups);
    found
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
fn ints<const G: usize>(values: &[i32], ids: &[u8], groups: &[u8; G]) -> [i64; G] {
    let mut wanted = [_mm_setzero_si128(); G];
    for group in 0..G {
        wanted[group] = _mm_set1_epi8(groups[group].cast_signed());
    }
    let mut sums = [_mm512_setzero_si512(); G];
    let ((chunks, tail), (id_chunks, id_tail)) = (values.as_chunks::<LANES>(), ids.as_chunks::<LANES>());
    for (values, ids) in chunks.iter().zip(id_chunks) {
        // SAFETY: the chunks are 64 and 16 bytes.
        let (values, ids) = unsafe {
            (
                _mm512_loadu_si512(values.as_ptr().cast()),
                _mm_loadu_si128(ids.as_ptr().cast()),
            )
        };
        for group in 0..G {
            let mask = _mm_cmpeq_epi8_mask(ids, wanted[group]);
            sums[group] = _mm512_mask_add_epi32(sums[group], mask, sums[group], values);
        }
    }
    let mut found = [0_i64; G];
    for group in 0..G {
        found[group] = total(sums[group]);
    }
    finish(&mut found, tail, id_tail, groups);
    found
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
fn halves<const G: usize>(values: &[i32], ids: &[u8], groups: &[u8; G]) -> [i64; G] {
    let mut wanted = [_mm_setzero_si128(); G];
    for group in 0..G {
        wanted[group] = _mm_set1_epi8(groups[group].cast_signed());
    }
    let low_half = _mm512_set1_epi32(0xFFFF);
    let mut lows = [_mm512_setzero_si512(); G];
    let mut highs = [_mm512_setzero_si512(); G];
    let ((chunks, tail), (id_chunks, id_tail)) = (values.as_chunks::<LANES>(), ids.as_chunks::<LANES>());
    for (values, ids) in chunks.iter().zip(id_chunks) {
        // SAFETY: the chunks are 64 and 16 bytes.
        let (values, ids) = unsafe {
            (
                _mm512_loadu_si512(values.as_ptr().cast()),
                _mm_loadu_si128(ids.as_ptr().cast()),
            )
        };
        let (low, high) = (_mm512_and_si512(values, low_half), _mm512_srai_epi32::<16>(values));
        for group in 0..G {
            let mask = _mm_cmpeq_epi8_mask(ids, wanted[group]);
            lows[group] = _mm512_mask_add_epi32(lows[group], mask, lows[group], low);
            highs[group] = _mm512_mask_add_epi32(highs[group], mask, highs[group], high);
        }
    }
    let mut found = [0_i64; G];
    for group in 0..G {
        found[group] = total(lows[group]) + (total(highs[group]) << 16);
    }
    finish(&mut found, tail, id_tail, groups);
    found
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
fn words<const G: usize>(values: &[i64], ids: &[u8], groups: &[u8; G]) -> [i64; G] {
    let mut wanted = [_mm_setzero_si128(); G];
    for group in 0..G {
        wanted[group] = _mm_set1_epi8(groups[group].cast_signed());
    }
    let mut sums = [_mm512_setzero_si512(); G];
    let ((chunks, tail), (id_chunks, id_tail)) = (values.as_chunks::<8>(), ids.as_chunks::<8>());
    for (values, ids) in chunks.iter().zip(id_chunks) {
        // SAFETY: the chunk is 64 bytes.
        let values = unsafe { _mm512_loadu_si512(values.as_ptr().cast()) };
        let ids = _mm_cvtsi64_si128(i64::from_le_bytes(*ids));
        for group in 0..G {
            // The upper eight bits are those of no row.
            let mask = _mm_cmpeq_epi8_mask(ids, wanted[group]) as u8;
            sums[group] = _mm512_mask_add_epi64(sums[group], mask, sums[group], values);
        }
    }
    let mut found = [0_i64; G];
    for group in 0..G {
        found[group] = _mm512_reduce_add_epi64(sums[group]);
    }
    finish(&mut found, tail, id_tail, groups);
    found
}

/// The sum of 32-bit lanes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
fn total(sums: __m512i) -> i64 {
    let low = _mm512_cvtepi32_epi64(_mm512_castsi512_si256(sums));
    let high = _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64::<1>(sums));
    _mm512_reduce_add_epi64(_mm512_add_epi64(low, high))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::isa::Isa;

    fn check(lanes: &Lanes, values: &[i64], ids: &[u8], what: &str) {
        let largest = values
            .iter()
            .map(|value| u128::from(value.unsigned_abs()))
            .max()
            .unwrap_or(0);
        let groups: Vec<u8> = (0..TINY_SLOTS as u8).filter(|group| ids.contains(group)).collect();
        let (mut expected, mut counted) = ([0_i64; TINY_SLOTS], [0_i64; TINY_SLOTS]);
        for (&value, &id) in values.iter().zip(ids) {
            if let Some(sum) = expected.get_mut(usize::from(id)) {
                *sum += value;
                counted[usize::from(id)] += 1;
            }
        }
        let mut found = [0_i64; TINY_SLOTS];
        // SAFETY: the caller looked for AVX-512.
        unsafe {
            assert!(sums(lanes, ids, &groups, largest, &mut found));
            assert_eq!(counts(ids, TINY_SLOTS), counted, "{what}");
        }
        assert_eq!(found, expected, "{what}");
    }

    #[test]
    fn sums_of_all_lanes_and_sizes_are_those_of_a_plain_loop() {
        if Isa::detect() != Isa::Avx512 {
            return;
        }
        for seed in 0..60_u64 {
            let mut random = StdRng::seed_from_u64(seed);
            let rows = [0, 1, 15, 16, 63, 64, 65, 1000, 4096, 70_000][random.random_range(0..10)];
            let groups = random.random_range(1..=TINY_SLOTS as u8);
            let ids: Vec<u8> = (0..rows)
                .map(|_| match random.random_range(0..=groups) {
                    group if group == groups => u8::MAX,
                    group => group,
                })
                .collect();
            let extreme = random.random_bool(0.3);
            let span = 1_i64 << random.random_range(1..=31);
            let mut values = |low: i64, high: i64| -> Vec<i64> {
                let (low, high) = (low.max(-span), high.min(span - 1));
                let value = |random: &mut StdRng| if extreme { low } else { random.random_range(low..=high) };
                (0..rows).map(|_| value(&mut random)).collect()
            };
            let what = |lane: &str| format!("SEED={seed} {lane} {rows} rows, {groups} groups");
            let all = values(i8::MIN.into(), i8::MAX.into());
            let lanes: Vec<i8> = all.iter().map(|&value| value as i8).collect();
            check(&Lanes::I8(&lanes), &all, &ids, &what("i8"));
            let all = values(i16::MIN.into(), i16::MAX.into());
            let lanes: Vec<i16> = all.iter().map(|&value| value as i16).collect();
            check(&Lanes::I16(&lanes), &all, &ids, &what("i16"));
            let all = values(i32::MIN.into(), i32::MAX.into());
            let lanes: Vec<i32> = all.iter().map(|&value| value as i32).collect();
            check(&Lanes::I32(&lanes), &all, &ids, &what("i32"));
            let all = values(-1 << 40, 1 << 40);
            check(&Lanes::I64(Cow::Borrowed(&all)), &all, &ids, &what("i64"));
        }
    }
}
