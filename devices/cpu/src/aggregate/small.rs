//! No groups, or a handful: sums, counts and extremes of a tile by SIMD, a pass over the values for every four groups.
//!
//! A row's group is one byte, 255 for a row that doesn't count; comparing 16 to 64 of them at a time with a group's number
//! gives the mask of its rows. There is no store per row, so rows of one group don't wait for each other, as they do in an
//! array of sums. Partial sums are 64-bit words of one tile. With AVX-512 sums and counts are those of `masked.rs`.

use crate::aggregate::input::{Input, Lanes, Pick, integers};
use crate::aggregate::keys::TINY_SLOTS;
#[cfg(target_arch = "x86_64")]
use crate::aggregate::masked;
use crate::aggregate::primitive::{Operation, Primitive};
use crate::aggregate::state::{State, Sum};
use crate::isa::{Isa, primitive};

/// The group of a row that doesn't count.
pub(super) const NOWHERE: u8 = u8::MAX;

primitive! {
    /// Takes rows whose mask is 0 out of their groups.
    fn leave_out[](ids: &mut [u8], mask: &[u8]) {
        for (id, &pass) in ids.iter_mut().zip(mask) {
            *id |= pass.wrapping_sub(1);
        }
    }
}

pub(crate) trait Narrow: Copy {
    fn wide(self) -> i64;
}

macro_rules! narrow {
    ($($t:ty),*) => { $(impl Narrow for $t {
        #[inline(always)]
        fn wide(self) -> i64 {
            self as i64
        }
    })* };
}
narrow!(u8, i8, i16, i32, i64, i128);

primitive! {
    /// Sum of all values.
    fn sum_all[T: Narrow](values: &[T]) -> i64 {
        values.iter().fold(0_i64, |sum, value| sum.wrapping_add(value.wide()))
    }
}

/// Groups that one pass over the values sums, beside the sum of all.
const AT_ONCE: usize = 5;

/// Defines a function that sums all values, and the values of some groups, in words of `$word`. The sums have names, since LLVM
/// doesn't vectorise a loop over an array of them.
macro_rules! summing {
    ($name:ident, $word:ty, $($sum:ident $at:literal),*) => {
        primitive! {
            fn $name[T: Narrow](values: &[T], ids: &[u8], which: &[u8; AT_ONCE]) -> (i64, [i64; AT_ONCE]) {
                let mut total: $word = 0;
                $(let mut $sum: $word = 0;)*
                for (value, &id) in values.iter().zip(ids) {
                    let value = value.wide() as $word;
                    total = total.wrapping_add(value);
                    $($sum = $sum.wrapping_add(if id == which[$at] { value } else { 0 });)*
                }
                let mut sums = [0_i64; AT_ONCE];
                $(sums[$at] = $sum as i64;)*
                (total as i64, sums)
            }
        }
    };
}
summing!(words_of_1, i64, a 0);
summing!(words_of_2, i64, a 0, b 1);
summing!(words_of_3, i64, a 0, b 1, c 2);
summing!(words_of_4, i64, a 0, b 1, c 2, d 3);
summing!(words_of_5, i64, a 0, b 1, c 2, d 3, e 4);
summing!(halves_of_1, i32, a 0);
summing!(halves_of_2, i32, a 0, b 1);
summing!(halves_of_3, i32, a 0, b 1, c 2);
summing!(halves_of_4, i32, a 0, b 1, c 2, d 3);
summing!(halves_of_5, i32, a 0, b 1, c 2, d 3, e 4);

/// The least block worth 32-bit words.
const LEAST_BLOCK: usize = 128;

/// Adds the sums of at most [`AT_ONCE`] groups to `sums`; the sum of all values. `block` rows fit 32 bits.
fn sum_some<T: Narrow>(
    isa: Isa,
    values: &[T],
    ids: &[u8],
    which: &[u8],
    block: usize,
    sums: &mut [i64; TINY_SLOTS],
) -> i64 {
    let mut wanted = [NOWHERE - 1; AT_ONCE];
    wanted
        .iter_mut()
        .zip(which)
        .for_each(|(wanted, &group)| *wanted = group);
    let narrow = block >= LEAST_BLOCK && size_of::<T>() <= 4;
    let block = if narrow { block } else { values.len() };
    let mut total = 0_i64;
    for (values, ids) in values.chunks(block.max(1)).zip(ids.chunks(block.max(1))) {
        let (all, found) = match (narrow, which.len()) {
            (true, 1) => halves_of_1(isa, values, ids, &wanted),
            (true, 2) => halves_of_2(isa, values, ids, &wanted),
            (true, 3) => halves_of_3(isa, values, ids, &wanted),
            (true, 4) => halves_of_4(isa, values, ids, &wanted),
            (true, _) => halves_of_5(isa, values, ids, &wanted),
            (false, 1) => words_of_1(isa, values, ids, &wanted),
            (false, 2) => words_of_2(isa, values, ids, &wanted),
            (false, 3) => words_of_3(isa, values, ids, &wanted),
            (false, 4) => words_of_4(isa, values, ids, &wanted),
            (false, _) => words_of_5(isa, values, ids, &wanted),
        };
        total = total.wrapping_add(all);
        for (&group, sum) in which.iter().zip(found) {
            let kept = &mut sums[usize::from(group)];
            *kept = kept.wrapping_add(sum);
        }
    }
    total
}

/// Sums by group of the values of a tile.
fn sum_tile(
    isa: Isa,
    lanes: &Lanes,
    ids: &[u8],
    largest: u128,
    counts: &[i64; TINY_SLOTS],
    sums: &mut [i64; TINY_SLOTS],
) {
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512 {
        let (mut groups, mut found) = ([0_u8; TINY_SLOTS], 0);
        for group in present(counts) {
            groups[found] = group;
            found += 1;
        }
        // SAFETY: this value exists only where `Isa::detect` found AVX-512 F, BW, DQ and VL.
        if unsafe { masked::sums(lanes, ids, &groups[..found], largest, sums) } {
            return;
        }
    }
    integers!(lanes, i64, |values, _widen| sum_groups(isa, values, ids, largest, counts, sums), else ());
}

/// Groups that have rows.
fn present(counts: &[i64; TINY_SLOTS]) -> impl Iterator<Item = u8> {
    (0..TINY_SLOTS as u8).filter(|&group| counts[usize::from(group)] > 0)
}

/// Sums by group of values up to `largest`. Only groups with rows are summed, and if each row has a group, the last one
/// follows from the sum of all.
fn sum_groups<T: Narrow>(
    isa: Isa,
    values: &[T],
    ids: &[u8],
    largest: u128,
    counts: &[i64; TINY_SLOTS],
    sums: &mut [i64; TINY_SLOTS],
) {
    let block = usize::try_from(u128::from(i32::MAX.unsigned_abs()) / largest.max(1)).unwrap_or(usize::MAX);
    let mut present: Vec<u8> = present(counts).collect();
    let everywhere = counts.iter().sum::<i64>() == values.len() as i64;
    let last = if everywhere { present.pop() } else { None };
    let mut total = 0;
    for (turn, which) in present.chunks(AT_ONCE).enumerate() {
        let all = sum_some(isa, values, ids, which, block, sums);
        if turn == 0 {
            total = all;
        }
    }
    if let Some(last) = last {
        if present.is_empty() {
            total = sum_all(isa, values);
        }
        let others = present
            .iter()
            .fold(0_i64, |sum, &group| sum.wrapping_add(sums[usize::from(group)]));
        sums[usize::from(last)] = total.wrapping_sub(others);
    }
}

primitive! {
    /// Rows of one group.
    fn count_group[](ids: &[u8], group: u8) -> i64 {
        let mut count = 0_i64;
        for block in ids.chunks(255) {
            count += i64::from(block.iter().fold(0_u8, |count, &id| count.wrapping_add(u8::from(id == group))));
        }
        count
    }
}

primitive! {
    /// The least value of a group, or the largest.
    fn extreme_group[T: Narrow](values: &[T], ids: Option<&[u8]>, group: u8, max: bool) -> i64 {
        let start = if max { i64::MIN } else { i64::MAX };
        match (ids, max) {
            (None, true) => values.iter().fold(start, |best, value| best.max(value.wide())),
            (None, false) => values.iter().fold(start, |best, value| best.min(value.wide())),
            (Some(ids), true) => values.iter().zip(ids).fold(start, |best, (value, &id)| {
                best.max(if id == group { value.wide() } else { start })
            }),
            (Some(ids), false) => values.iter().zip(ids).fold(start, |best, (value, &id)| {
                best.min(if id == group { value.wide() } else { start })
            }),
        }
    }
}

/// Rows by group.
pub(super) fn counts(isa: Isa, ids: &[u8], groups: usize) -> [i64; TINY_SLOTS] {
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512 {
        // SAFETY: this value exists only where `Isa::detect` found AVX-512 F, BW, DQ and VL.
        return unsafe { masked::counts(ids, groups) };
    }
    let mut counts = [0; TINY_SLOTS];
    for (group, count) in counts.iter_mut().enumerate().take(groups) {
        *count = count_group(isa, ids, group as u8);
    }
    counts
}

/// The groups of a tile's rows.
pub(super) struct Tile<'a> {
    /// Without them all rows are of group 0.
    pub(super) ids: Option<&'a [u8]>,
    /// Rows of each group, where `ids` are there.
    pub(super) counts: Option<&'a [i64; TINY_SLOTS]>,
    pub(super) rows: usize,
    /// At most [`TINY_SLOTS`].
    pub(super) groups: usize,
}

/// Folds a tile into a state.
pub(super) fn update(isa: Isa, primitive: &Primitive, state: &mut State, input: &Input, tile: &Tile) {
    let Tile { ids, rows, groups, .. } = *tile;
    let passing: Vec<u8>;
    if let (State::Count(kept), None, Some(counts)) = (&mut *state, &input.pass, tile.counts) {
        kept.iter_mut().zip(counts).for_each(|(kept, count)| *kept += count);
        return;
    }
    let ids = match (&input.pass, ids) {
        (None, ids) => ids,
        (Some(pass), None) => {
            passing = pass.iter().map(|&pass| pass.wrapping_sub(1)).collect();
            Some(&passing[..])
        }
        (Some(pass), Some(ids)) => {
            passing = pass
                .iter()
                .zip(ids)
                .map(|(&pass, &id)| pass.wrapping_sub(1) | id)
                .collect();
            Some(&passing[..])
        }
    };
    match (state, &primitive.operation) {
        (State::Count(kept), _) => match ids {
            None => kept[0] += rows as i64,
            Some(ids) => kept
                .iter_mut()
                .zip(counts(isa, ids, groups))
                .for_each(|(kept, count)| *kept += count),
        },
        (State::Sum(sum), Operation::Sum { largest }) if Sum::fits_word(*largest, rows) => {
            let mut sums = [0_i64; TINY_SLOTS];
            match ids {
                None => integers!(&input.lanes, i64, |values, _widen| sums[0] = sum_all(isa, values), else ()),
                Some(ids) => {
                    let counted = match (&input.pass, tile.counts) {
                        (None, Some(counts)) => *counts,
                        _ => counts(isa, ids, groups),
                    };
                    sum_tile(isa, &input.lanes, ids, *largest, &counted, &mut sums);
                }
            }
            sum.add_each(&sums[..groups], rows);
        }
        (State::Extreme { max, values: best }, _) => {
            integers!(&input.lanes, i64, |values, _widen| {
                for (group, best) in best.iter_mut().enumerate() {
                    let found = extreme_group(isa, values, ids, group as u8, *max);
                    *best = if *max { found.max(*best) } else { found.min(*best) };
                }
            }, else ());
        }
        (state, _) => one_by_one(state, &input.lanes, ids, rows),
    }
}

/// What has no SIMD form: floats, whose sums depend on order, and sets.
fn one_by_one(state: &mut State, lanes: &Lanes, ids: Option<&[u8]>, rows: usize) {
    let (mut groups, mut picked) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
    match ids {
        None => groups.resize(rows, 0),
        Some(ids) => {
            for (row, &id) in (0_u32..).zip(ids) {
                if id != NOWHERE {
                    groups.push(u32::from(id));
                    picked.push(row);
                }
            }
        }
    }
    let pick = Pick::new(&groups, ids.is_some().then_some(&picked));
    state.fold(pick, lanes, rows);
}
