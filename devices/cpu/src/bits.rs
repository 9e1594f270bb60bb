//! Tests of values as bits: a word for 64 rows, and loops that read a column once, from end to end.
//!
//! A test only takes rows out, and passes over words that have none left. AVX-512 compares into masks, which are such words
//! already; elsewhere LLVM vectorises a byte per row, and a multiplication packs eight of them.

mod held;

use std::mem::MaybeUninit;

use crate::isa::{Isa, primitive};
use crate::number::Number;

pub(crate) use held::held;

/// Rows of a word.
pub(crate) const WORD_ROWS: usize = u64::BITS as usize;
/// One comparison for each; more are made in turns.
const RUNS_AT_ONCE: usize = 6;

/// Values from `low` on, up to `span` above it.
pub(crate) type Run<T> = (T, <T as Number>::Unsigned);

/// How two values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Less,
    Equal,
}

/// All rows of `rows`, the rows of the last word beyond them not.
pub(crate) fn all(rows: usize) -> Vec<u64> {
    let mut words = vec![u64::MAX; rows.div_ceil(WORD_ROWS)];
    if let (Some(last), rest @ 1..) = (words.last_mut(), rows % WORD_ROWS) {
        *last = (1 << rest) - 1;
    }
    words
}

/// Eight bytes of 0 or 1 to eight bits.
#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "loops over it must take on the features of their caller"
)]
fn packed(bytes: &[u8; WORD_ROWS]) -> u64 {
    let mut word = 0;
    for (at, eight) in bytes.as_chunks::<8>().0.iter().enumerate() {
        word |= (u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * at);
    }
    word
}

/// Takes out rows whose value lies in none of the runs; with `flip` those whose value lies in one.
pub(crate) fn in_runs<T: Number>(isa: Isa, values: &[T], runs: &[Run<T>], flip: bool, words: &mut [u64]) {
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512 && runs.len() <= RUNS_AT_ONCE {
        // SAFETY: this value exists only where `Isa::detect` found AVX-512 F, BW, DQ and VL.
        let done = unsafe { avx512::in_runs(values, runs, flip, words) };
        return in_runs_plain(isa, &values[done * WORD_ROWS..], runs, flip, &mut words[done..]);
    }
    in_runs_plain(isa, values, runs, flip, words);
}

primitive! {
    fn in_runs_plain[T: Number](values: &[T], runs: &[Run<T>], flip: bool, words: &mut [u64]) {
        let flip = if flip { u64::MAX } else { 0 };
        for (values, word) in values.chunks(WORD_ROWS).zip(words) {
            if *word == 0 {
                continue;
            }
            let mut found = [0_u8; WORD_ROWS];
            for (low, span) in runs {
                for (found, value) in found.iter_mut().zip(values) {
                    *found |= u8::from(value.above(*low) <= *span);
                }
            }
            *word &= packed(&found) ^ flip;
        }
    }
}

/// Takes out rows that two columns don't hold in this order; with `flip` those that they do.
pub(crate) fn in_order<T: Number>(isa: Isa, left: &[T], order: Order, right: &[T], flip: bool, words: &mut [u64]) {
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512 {
        // SAFETY: this value exists only where `Isa::detect` found AVX-512 F, BW, DQ and VL.
        let done = unsafe { avx512::in_order(left, order, right, flip, words) };
        let rows = done * WORD_ROWS;
        return in_order_plain(isa, &left[rows..], order, &right[rows..], flip, &mut words[done..]);
    }
    in_order_plain(isa, left, order, right, flip, words);
}

primitive! {
    fn in_order_plain[T: Number](left: &[T], order: Order, right: &[T], flip: bool, words: &mut [u64]) {
        let flip = if flip { u64::MAX } else { 0 };
        for ((left, right), word) in left.chunks(WORD_ROWS).zip(right.chunks(WORD_ROWS)).zip(words) {
            if *word == 0 {
                continue;
            }
            let mut found = [0_u8; WORD_ROWS];
            let pairs = found.iter_mut().zip(left.iter().zip(right));
            match order {
                Order::Less => pairs.for_each(|(found, (left, right))| *found = u8::from(left < right)),
                Order::Equal => pairs.for_each(|(found, (left, right))| *found = u8::from(left == right)),
            }
            *word &= packed(&found) ^ flip;
        }
    }
}

/// A byte per row, 1 where the bit is set.
pub(crate) fn bytes(words: &[u64], rows: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(words.len() * WORD_ROWS);
    for word in words {
        for byte in word.to_le_bytes() {
            let spread = u64::from(byte).wrapping_mul(0x0101_0101_0101_0101) & 0x8040_2010_0804_0201;
            let ones = (spread.wrapping_add(0x7f7f_7f7f_7f7f_7f7f) | spread) >> 7 & 0x0101_0101_0101_0101;
            out.extend_from_slice(&ones.to_le_bytes());
        }
    }
    out.truncate(rows);
    out
}

/// Bits that are set.
pub(crate) fn count(words: &[u64]) -> usize {
    words.iter().map(|word| word.count_ones() as usize).sum()
}

/// The positions of set bits, the first bit's being `start`, of as many words as give at most `most`, but of one at least; and
/// how many words that were.
pub(crate) fn positions(isa: Isa, words: &[u64], start: u32, most: usize) -> (Vec<u32>, usize) {
    let (mut taken, mut found) = (0, 0);
    for word in words {
        let next = found + word.count_ones() as usize;
        if next > most && taken > 0 {
            break;
        }
        (taken, found) = (taken + 1, next);
    }
    let mut out = Vec::with_capacity(found + WORD_ROWS);
    write_positions(isa, &words[..taken], start, &mut out);
    debug_assert_eq!(out.len(), found);
    (out, taken)
}

fn write_positions(isa: Isa, words: &[u64], start: u32, out: &mut Vec<u32>) {
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512 {
        // SAFETY: this value exists only where `Isa::detect` found AVX-512 F, BW, DQ and VL; a word of room is the callers'.
        return unsafe { avx512::set_bits(words, start, out) };
    }
    set_bits(isa, words, start, out);
}

/// Bits of a sparse word that are written at once, whether they are there or not.
const AT_ONCE: usize = 4;
/// A word with fewer bits set is sparse.
const SPARSE: usize = 12;

/// Most words end in the first turn: no branch to mispredict.
#[inline(always)]
#[allow(clippy::inline_always, reason = "it must take on the features of its callers")]
fn few_bits(word: u64, first: u32, slots: &mut [MaybeUninit<u32>]) {
    let (mut left, mut at) = (word, 0);
    while left != 0 {
        for slot in &mut slots[at..at + AT_ONCE] {
            slot.write(first.wrapping_add(left.trailing_zeros()));
            left &= left.wrapping_sub(1);
        }
        at += AT_ONCE;
    }
}

primitive! {
    /// Writes the positions of set bits; there is room for a word more.
    fn set_bits[](words: &[u64], start: u32, out: &mut Vec<u32>) {
        let slots = out.spare_capacity_mut();
        let (mut count, mut first) = (0, start);
        for &word in words {
            let ones = word.count_ones() as usize;
            if ones < SPARSE {
                few_bits(word, first, &mut slots[count..]);
            } else {
                let mut at = count;
                for bit in 0..u64::BITS {
                    slots[at].write(first + bit);
                    at += (word >> bit & 1) as usize;
                }
            }
            count += ones;
            first += u64::BITS;
        }
        // SAFETY: each of the first `count` slots was written: a word writes a slot for each of its bits, in order.
        unsafe { out.set_len(count) };
    }
}

/// The same loops by masks. They go over whole words of rows and say how many.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_add_epi32, _mm512_cmpeq_epi8_mask, _mm512_cmpeq_epi16_mask,
        _mm512_cmpeq_epi32_mask, _mm512_cmpeq_epi64_mask, _mm512_cmple_epu8_mask, _mm512_cmple_epu16_mask,
        _mm512_cmple_epu32_mask, _mm512_cmple_epu64_mask, _mm512_cmplt_epi8_mask, _mm512_cmplt_epi16_mask,
        _mm512_cmplt_epi32_mask, _mm512_cmplt_epi64_mask, _mm512_loadu_si512, _mm512_maskz_compress_epi32,
        _mm512_set1_epi8, _mm512_set1_epi16, _mm512_set1_epi32, _mm512_set1_epi64, _mm512_setr_epi32,
        _mm512_setzero_si512, _mm512_storeu_si512, _mm512_sub_epi8, _mm512_sub_epi16, _mm512_sub_epi32,
        _mm512_sub_epi64,
    };

    use super::{Order, RUNS_AT_ONCE, Run, SPARSE, WORD_ROWS, few_bits};
    use crate::number::Number;
    use crate::vector::Lane;

    const VECTOR_BYTES: usize = 64;
    /// How far ahead of the loop its bytes are asked for.
    const AHEAD_BYTES: usize = 1024;
    const ONE: usize = 1;
    const TWO: usize = 2;
    const LESS: bool = true;
    const EQUAL: bool = false;

    /// The loop for a lane's width; none for the widest.
    macro_rules! by_narrow_lane {
        ($lane:expr, $runs:ident, $function:ident $arguments:tt) => {
            match $lane {
                Lane::I8 => $function::<1, $runs> $arguments,
                Lane::I16 => $function::<2, $runs> $arguments,
                Lane::I32 => $function::<4, $runs> $arguments,
                Lane::I64 => $function::<8, $runs> $arguments,
                Lane::I128 => 0,
            }
        };
    }

    /// # Safety
    /// The processor has AVX-512 F, BW, DQ and VL.
    pub(super) unsafe fn in_runs<T: Number>(values: &[T], runs: &[Run<T>], flip: bool, words: &mut [u64]) -> usize {
        let whole = (values.len() / WORD_ROWS).min(words.len());
        let (Some(last), false) = (runs.last(), T::LANE == Lane::I128) else {
            return 0;
        };
        let mut bounds = [(0_i64, 0_i64); RUNS_AT_ONCE];
        for (at, bound) in bounds.iter_mut().enumerate() {
            let (low, span) = runs.get(at).unwrap_or(last);
            *bound = (low.wide() as i64, T::distance_bits(*span));
        }
        let (from, words, flip) = (values.as_ptr().cast(), &mut words[..whole], mask(flip));
        // SAFETY: the features are the caller's promise; `whole` words of rows of this width stand behind the pointer.
        unsafe {
            match runs.len() {
                1 => by_narrow_lane!(T::LANE, ONE, runs_of(from, &bounds, flip, words)),
                2 => by_narrow_lane!(T::LANE, TWO, runs_of(from, &bounds, flip, words)),
                _ => by_narrow_lane!(T::LANE, RUNS_AT_ONCE, runs_of(from, &bounds, flip, words)),
            }
        }
    }

    /// # Safety
    /// As [`in_runs`].
    pub(super) unsafe fn in_order<T: Number>(
        left: &[T],
        order: Order,
        right: &[T],
        flip: bool,
        words: &mut [u64],
    ) -> usize {
        let whole = (left.len().min(right.len()) / WORD_ROWS).min(words.len());
        let (left, right) = (left.as_ptr().cast(), right.as_ptr().cast());
        let (words, flip) = (&mut words[..whole], mask(flip));
        // SAFETY: as above.
        unsafe {
            match order {
                Order::Less => by_narrow_lane!(T::LANE, LESS, pairs(left, right, flip, words)),
                Order::Equal => by_narrow_lane!(T::LANE, EQUAL, pairs(left, right, flip, words)),
            }
        }
    }

    /// As `set_bits` of the baseline.
    ///
    /// # Safety
    /// As [`in_runs`]; and there is room for the bits and a word more.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,bmi1,popcnt")]
    pub(super) unsafe fn set_bits(words: &[u64], start: u32, out: &mut Vec<u32>) {
        let slots = out.spare_capacity_mut();
        let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        let mut count = 0;
        for (&word, first) in words.iter().zip((start..).step_by(WORD_ROWS)) {
            let ones = word.count_ones() as usize;
            if ones < SPARSE {
                few_bits(word, first, &mut slots[count..]);
            } else {
                let mut at = count;
                for sixteenth in 0..4_u32 {
                    let mask = (word >> (16 * sixteenth)) as u16;
                    let base = _mm512_set1_epi32((first + 16 * sixteenth).cast_signed());
                    let packed = _mm512_maskz_compress_epi32(mask, _mm512_add_epi32(base, lanes));
                    // SAFETY: at most 48 of the word's bits were written before these 16 slots, and there is room for 64.
                    unsafe { _mm512_storeu_si512(slots.as_mut_ptr().add(at).cast(), packed) };
                    at += mask.count_ones() as usize;
                }
            }
            count += ones;
        }
        // SAFETY: so many were written.
        unsafe { out.set_len(count) };
    }

    fn mask(flip: bool) -> u64 {
        if flip { u64::MAX } else { 0 }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn set1<const WIDTH: usize>(value: i64) -> __m512i {
        match WIDTH {
            1 => _mm512_set1_epi8(value as i8),
            2 => _mm512_set1_epi16(value as i16),
            4 => _mm512_set1_epi32(value as i32),
            _ => _mm512_set1_epi64(value),
        }
    }

    /// A bit per value of a vector: `value − low <= span`, unsigned.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn within<const WIDTH: usize>(value: __m512i, low: __m512i, span: __m512i) -> u64 {
        match WIDTH {
            1 => _mm512_cmple_epu8_mask(_mm512_sub_epi8(value, low), span),
            2 => _mm512_cmple_epu16_mask(_mm512_sub_epi16(value, low), span).into(),
            4 => _mm512_cmple_epu32_mask(_mm512_sub_epi32(value, low), span).into(),
            _ => _mm512_cmple_epu64_mask(_mm512_sub_epi64(value, low), span).into(),
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn compared<const WIDTH: usize, const LESS: bool>(left: __m512i, right: __m512i) -> u64 {
        match (WIDTH, LESS) {
            (1, true) => _mm512_cmplt_epi8_mask(left, right),
            (1, false) => _mm512_cmpeq_epi8_mask(left, right),
            (2, true) => _mm512_cmplt_epi16_mask(left, right).into(),
            (2, false) => _mm512_cmpeq_epi16_mask(left, right).into(),
            (4, true) => _mm512_cmplt_epi32_mask(left, right).into(),
            (4, false) => _mm512_cmpeq_epi32_mask(left, right).into(),
            (_, true) => _mm512_cmplt_epi64_mask(left, right).into(),
            (_, false) => _mm512_cmpeq_epi64_mask(left, right).into(),
        }
    }

    /// One of the `WIDTH` vectors of a word's rows, and a request for what stands further on.
    ///
    /// # Safety
    /// `WIDTH * 64` bytes stand behind the pointer.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn vector(from: *const i8, at: usize) -> __m512i {
        // SAFETY: a prefetch of any address has no effect but on caches; the load is the caller's promise.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(AHEAD_BYTES + at * VECTOR_BYTES));
            _mm512_loadu_si512(from.add(at * VECTOR_BYTES).cast())
        }
    }

    /// # Safety
    /// As many rows of `WIDTH` bytes stand behind the pointer as the words have.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn runs_of<const WIDTH: usize, const RUNS: usize>(
        from: *const i8,
        bounds: &[(i64, i64); RUNS_AT_ONCE],
        flip: u64,
        words: &mut [u64],
    ) -> usize {
        let mut lows = [_mm512_setzero_si512(); RUNS];
        let mut spans = lows;
        for run in 0..RUNS {
            (lows[run], spans[run]) = (set1::<WIDTH>(bounds[run].0), set1::<WIDTH>(bounds[run].1));
        }
        let rows_of_one = VECTOR_BYTES / WIDTH;
        for (number, word) in words.iter_mut().enumerate() {
            if *word == 0 {
                continue;
            }
            let mut found = 0;
            for at in 0..WIDTH {
                // SAFETY: the caller's promise.
                let value = unsafe { vector(from.add(number * WORD_ROWS * WIDTH), at) };
                let mut any = 0;
                for run in 0..RUNS {
                    any |= within::<WIDTH>(value, lows[run], spans[run]);
                }
                found |= any << (at * rows_of_one);
            }
            *word &= found ^ flip;
        }
        words.len()
    }

    /// # Safety
    /// As [`runs_of`], of both pointers.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn pairs<const WIDTH: usize, const LESS: bool>(
        left: *const i8,
        right: *const i8,
        flip: u64,
        words: &mut [u64],
    ) -> usize {
        let rows_of_one = VECTOR_BYTES / WIDTH;
        for (number, word) in words.iter_mut().enumerate() {
            if *word == 0 {
                continue;
            }
            let start = number * WORD_ROWS * WIDTH;
            let mut found = 0;
            for at in 0..WIDTH {
                // SAFETY: the caller's promise.
                let (left, right) = unsafe { (vector(left.add(start), at), vector(right.add(start), at)) };
                found |= compared::<WIDTH, LESS>(left, right) << (at * rows_of_one);
            }
            *word &= found ^ flip;
        }
        words.len()
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn check<T: Number>(random: &mut StdRng, what: &str) {
        let rows = [0, 1, 63, 64, 65, 127, 128, 1000, 4096][random.random_range(0..9)];
        let wide = T::LANE == crate::vector::Lane::I128;
        let value = |random: &mut StdRng| {
            let extreme = random.random_bool(0.1);
            T::of(if extreme && wide {
                i128::MIN
            } else if extreme {
                i64::MIN.into()
            } else {
                random.random_range(-60..60)
            })
        };
        let left: Vec<T> = (0..rows).map(|_| value(random)).collect();
        let right: Vec<T> = (0..rows).map(|_| value(random)).collect();
        let mut before = all(rows);
        assert_eq!(count(&before), rows);
        before.iter_mut().for_each(|word| {
            *word &= if random.random_bool(0.2) {
                0
            } else {
                random.random::<u64>() | 1
            }
        });
        before.iter_mut().zip(all(rows)).for_each(|(word, all)| *word &= all);
        let runs: Vec<(T, T)> = (0..random.random_range(1..=8))
            .map(|_| (value(random), value(random)))
            .map(|(a, b)| (a.min(b), a.max(b)))
            .collect();
        let spans: Vec<Run<T>> = runs.iter().map(|(low, high)| (*low, high.above(*low))).collect();
        let flip = random.random_bool(0.5);
        let is_set = |words: &[u64], row: usize| words[row / 64] >> (row % 64) & 1 == 1;
        let expect = |holds: &dyn Fn(usize) -> bool| -> Vec<bool> {
            (0..rows)
                .map(|row| is_set(&before, row) && holds(row) != flip)
                .collect()
        };
        for isa in Isa::all_available() {
            let read = |words: &[u64]| -> Vec<bool> { (0..rows).map(|row| is_set(words, row)).collect() };
            let mut words = before.clone();
            in_runs(isa, &left, &spans, flip, &mut words);
            let held = |row: usize| runs.iter().any(|(low, high)| *low <= left[row] && left[row] <= *high);
            assert_eq!(
                read(&words),
                expect(&held),
                "{what} {isa:?} {rows} rows, runs {runs:?}, flip {flip}"
            );
            assert_eq!(
                count(&words),
                read(&words).iter().filter(|set| **set).count(),
                "{what}: bits beyond the rows"
            );
            for order in [Order::Less, Order::Equal] {
                let mut words = before.clone();
                in_order(isa, &left, order, &right, flip, &mut words);
                let held = |row: usize| match order {
                    Order::Less => left[row] < right[row],
                    Order::Equal => left[row] == right[row],
                };
                assert_eq!(
                    read(&words),
                    expect(&held),
                    "{what} {isa:?} {rows} rows, {order:?}, flip {flip}"
                );
                let as_bytes: Vec<u8> = read(&words).iter().map(|set| u8::from(*set)).collect();
                assert_eq!(bytes(&words, rows), as_bytes, "{what}");
            }
        }
    }

    #[test]
    fn tests_of_all_lanes_take_out_the_rows_that_a_plain_loop_does() {
        for seed in 0..60 {
            let mut random = StdRng::seed_from_u64(seed);
            check::<i8>(&mut random, &format!("SEED={seed} i8"));
            check::<i16>(&mut random, &format!("SEED={seed} i16"));
            check::<i32>(&mut random, &format!("SEED={seed} i32"));
            check::<i64>(&mut random, &format!("SEED={seed} i64"));
            check::<i128>(&mut random, &format!("SEED={seed} i128"));
        }
    }

    #[test]
    fn positions_are_those_of_the_bits_piece_by_piece() {
        for seed in 0..40 {
            let mut random = StdRng::seed_from_u64(seed);
            let density = [0.0, 0.01, 0.1, 0.3, 0.9, 1.0][random.random_range(0..6)];
            let words: Vec<u64> = (0..random.random_range(0..70))
                .map(|_| (0..64).fold(0, |word, bit| word | u64::from(random.random_bool(density)) << bit))
                .collect();
            let expected: Vec<u32> = (0..words.len() as u32 * 64)
                .filter(|bit| words[*bit as usize / 64] >> (bit % 64) & 1 == 1)
                .map(|bit| bit + 7)
                .collect();
            for isa in Isa::all_available() {
                let (mut found, mut done) = (Vec::new(), 0);
                while done < words.len() {
                    let (more, taken) = positions(isa, &words[done..], 7 + done as u32 * 64, 100);
                    assert!(taken == 1 || more.len() <= 100);
                    found.extend(more);
                    done += taken;
                }
                assert_eq!(found, expected, "SEED={seed} {isa:?}");
            }
        }
    }
}
