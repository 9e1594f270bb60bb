//! From a mask to the rows that it keeps.

use crate::isa::Isa;

/// The positions, counted from `start`, of the bytes of `keep` that are 1; all are 0 or 1.
pub(crate) fn kept(isa: Isa, keep: &[u8], start: u32) -> Vec<u32> {
    let mut out = Vec::with_capacity(keep.len() + 16);
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512 {
        // SAFETY: this value exists only where `Isa::detect` found AVX-512 F, BW, DQ and VL.
        unsafe { kept_avx512(keep, start, &mut out) };
        return out;
    }
    let _ = isa;
    kept_plain(keep, start, &mut out);
    out
}

/// Eight at a time: none is skipped at once, else each is written and counted only if it is kept: no branch to mispredict.
fn kept_plain(keep: &[u8], start: u32, out: &mut Vec<u32>) {
    let (chunks, tail) = keep.as_chunks::<8>();
    let mut count = 0;
    let slots = out.spare_capacity_mut();
    let mut first = start;
    for chunk in chunks {
        if u64::from_le_bytes(*chunk) != 0 {
            for (position, keep) in (first..).zip(chunk) {
                slots[count].write(position);
                count += usize::from(*keep & 1);
            }
        }
        first += 8;
    }
    for (position, keep) in (first..).zip(tail) {
        slots[count].write(position);
        count += usize::from(*keep & 1);
    }
    // SAFETY: each of the first `count` slots was written before the count moved past it.
    unsafe { out.set_len(count) };
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
fn kept_avx512(keep: &[u8], start: u32, out: &mut Vec<u32>) {
    use std::arch::x86_64::{
        _mm_loadu_si128, _mm_test_epi8_mask, _mm512_add_epi32, _mm512_maskz_compress_epi32, _mm512_set1_epi32,
        _mm512_setr_epi32, _mm512_storeu_si512,
    };

    debug_assert!(out.capacity() >= keep.len() + 16);
    let mut positions = _mm512_add_epi32(
        _mm512_set1_epi32(start.cast_signed()),
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
    );
    let step = _mm512_set1_epi32(16);
    let mut count = 0;
    let (chunks, tail) = keep.as_chunks::<16>();
    for chunk in chunks {
        // SAFETY: the chunk is 16 bytes.
        let bytes = unsafe { _mm_loadu_si128(chunk.as_ptr().cast()) };
        let mask = _mm_test_epi8_mask(bytes, bytes);
        let packed = _mm512_maskz_compress_epi32(mask, positions);
        // SAFETY: at most 16 more than the rows seen so far are written, and the capacity is 16 more than all rows.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().add(count).cast(), packed) };
        count += mask.count_ones() as usize;
        positions = _mm512_add_epi32(positions, step);
    }
    // SAFETY: so many were written.
    unsafe { out.set_len(count) };
    let done = start + (keep.len() - tail.len()) as u32;
    out.extend(
        (done..)
            .zip(tail)
            .filter(|(_, keep)| **keep != 0)
            .map(|(position, _)| position),
    );
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::kept;
    use crate::isa::Isa;

    #[test]
    fn keeps_what_the_mask_says() {
        for seed in 0..40 {
            let mut random = StdRng::seed_from_u64(seed);
            for rows in [0, 1, 7, 8, 15, 16, 17, 31, 32, 33, 2047, 2048] {
                let density = [0.0, 0.02, 0.5, 1.0][random.random_range(0..4)];
                let mask: Vec<u8> = (0..rows).map(|_| u8::from(random.random_bool(density))).collect();
                let expected: Vec<u32> = (100..).zip(&mask).filter(|(_, m)| **m == 1).map(|(at, _)| at).collect();
                for isa in Isa::all_available() {
                    assert_eq!(kept(isa, &mask, 100), expected, "SEED={seed} {isa:?} rows {rows}");
                }
            }
        }
    }
}
