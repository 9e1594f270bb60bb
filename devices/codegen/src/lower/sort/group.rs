//! Sorting row numbers within one group.
//!
//! ```text
//!  run of L rows: bitonic, first words and numbers in local memory      runs: merged pairwise in the arena, each row finding
//!                                                                       its place by binary search in the sibling run
//! ```
//!
//! Rows of equal keys go by number, so that no two rows are equal.

use super::order::{OrderWord, compare_words};
use crate::build::{Builder, call, i32, place, u32, u64};
use crate::ir::{Elem, Expr as Ir, FunctionId, LocalId, Scalar, Stmt, Var};
use crate::lower::Lowering;

/// What stands in for a row behind the last.
const NO_ROW: u32 = u32::MAX;

/// Rows and how they compare, in the kernel that is being written.
pub(super) struct Rows {
    /// Work-items of a group.
    pub(super) group: u32,
    /// Where each word of the rows' keys lies: U64s by row.
    pub(super) words: Vec<Ir>,
    /// Bool: the first row of two, whose first words are equal, comes first.
    less_beyond: FunctionId,
}

/// Local memory for sorting.
pub(super) struct Scratch {
    /// Rows of a run, a power of two.
    run: u32,
    /// U64: first words.
    words: LocalId,
    /// U32: row numbers.
    rows: LocalId,
}

impl Scratch {
    pub(super) fn new(l: &mut Lowering<'_>) -> Self {
        let run = run_rows(l);
        Self {
            run,
            words: l.b.local(Elem::U64, run),
            rows: l.b.local(Elem::U32, run),
        }
    }
}

/// Rows of a run: what a third of the local memory holds, within reason.
pub(super) fn run_rows(l: &Lowering<'_>) -> u32 {
    let room = (l.target.local_bytes / 3 / 12).clamp(8, 2048);
    1 << room.ilog2()
}

/// Where row numbers (U32) are: two arrays.
pub(super) struct Numbers {
    /// U64: where they are now.
    pub(super) from: Var,
    /// U64: room for as many.
    pub(super) to: Var,
    /// Before the sort, the numbers are 0, 1, … and stand nowhere.
    pub(super) counted: bool,
}

pub(super) fn load(elem: Elem, base: Ir, index: Ir) -> Ir {
    Ir::Load {
        place: place(elem, base, index),
        constant: false,
    }
}

fn local(id: LocalId, index: Ir) -> Ir {
    Ir::LoadLocal(id, Box::new(index))
}

impl Rows {
    pub(super) fn new(l: &mut Lowering<'_>, order: &[OrderWord], words: Vec<Ir>) -> Self {
        Self {
            group: l.target.group,
            words,
            less_beyond: less(l, order),
        }
    }

    /// Bool: row `first` comes before row `second` (both U32), whose first words are equal.
    fn less_beyond(&self, first: Ir, second: Ir) -> Ir {
        let rows = [first, second];
        let words = self.words.iter().skip(1).cloned();
        call(self.less_beyond, rows.into_iter().chain(words).collect::<Vec<_>>())
    }

    /// U64: a row's first word.
    pub(super) fn first_word(&self, row: Ir) -> Ir {
        load(Elem::U64, self.words[0].clone(), row)
    }

    /// Bool: a row of a known first word comes before another.
    pub(super) fn comes_before(&self, b: &mut Builder, (word, row): (Ir, Ir), (other_word, other): (Ir, Ir)) -> Var {
        let before = b.set(Scalar::Bool, word.clone().lt(other_word.clone()));
        b.when(word.eq(other_word), |b| b.assign(before, self.less_beyond(row, other)));
        before
    }

    /// Sorts `rows` row numbers (U32) that begin at number `begin` (U32) of both arrays; they are in [`Numbers::from`] then.
    /// Uniform code. The numbers that are there were stored before a barrier.
    pub(super) fn sort(&self, b: &mut Builder, scratch: &Scratch, numbers: &Numbers, (begin, rows): (Ir, Ir)) {
        let run = scratch.run;
        b.range(Scalar::U32, u32(0), rows.clone(), u32(run), |b, start| {
            let start = Ir::from(start);
            let count = b.set(Scalar::U32, rows.clone().minus(start.clone()).min(u32(run)));
            let first = b.set(Scalar::U32, begin.clone().plus(start));
            self.sort_run(b, scratch, numbers, (first.into(), count.into()));
        });
        let width = b.set(Scalar::U32, u32(run));
        b.repeat(|b| {
            b.when(Ir::from(width).ge(rows.clone()), |b| b.push(Stmt::Break));
            b.range(
                Scalar::U32,
                Ir::LocalIndex,
                rows.clone(),
                u32(self.group),
                |b, index| {
                    self.merge_row(b, numbers, (begin.clone(), rows.clone()), index.into(), width.into());
                },
            );
            b.push(Stmt::Barrier);
            let from = b.set(Scalar::U64, numbers.from.into());
            b.assign(numbers.from, numbers.to.into());
            b.assign(numbers.to, from.into());
            b.assign(width, Ir::from(width).shl(u32(1)));
        });
    }

    /// Puts a row of a run where it belongs among the rows of its run and the next.
    fn merge_row(&self, b: &mut Builder, numbers: &Numbers, (begin, rows): (Ir, Ir), index: Ir, width: Ir) {
        let row = b.set(
            Scalar::U32,
            load(Elem::U32, numbers.from.into(), begin.clone().plus(index.clone())),
        );
        let word = b.set(Scalar::U64, self.first_word(row.into()));
        let within = b.set(Scalar::U32, index.clone().and(width.clone().minus(u32(1))));
        let run = b.set(Scalar::U32, index.minus(within.into()));
        let sibling = b.set(Scalar::U32, Ir::from(run).xor(width.clone()));
        let low = b.set(Scalar::U32, Ir::from(sibling).min(rows.clone()));
        let high = b.set(Scalar::U32, Ir::from(sibling).plus(width).min(rows));
        let least = b.set(Scalar::U32, low.into());
        b.repeat(|b| {
            b.when(Ir::from(low).ge(high.into()), |b| b.push(Stmt::Break));
            let middle = b.set(Scalar::U32, Ir::from(low).plus(high.into()).shr(u32(1)));
            let other = load(Elem::U32, numbers.from.into(), begin.clone().plus(middle.into()));
            let other = b.set(Scalar::U32, other);
            let other_word = b.set(Scalar::U64, self.first_word(other.into()));
            let before = self.comes_before(b, (other_word.into(), other.into()), (word.into(), row.into()));
            b.assign(low, Ir::from(before).select(Ir::from(middle).plus(u32(1)), low.into()));
            b.assign(high, Ir::from(before).select(high.into(), middle.into()));
        });
        let ahead = Ir::from(low).minus(least.into());
        let at = begin
            .plus(Ir::from(run).min(sibling.into()))
            .plus(within.into())
            .plus(ahead);
        b.store(place(Elem::U32, numbers.to.into(), at), row.into());
    }

    fn sort_run(&self, b: &mut Builder, scratch: &Scratch, numbers: &Numbers, (first, count): (Ir, Ir)) {
        let size = b.set(Scalar::U32, u32(2));
        b.repeat(|b| {
            b.when(Ir::from(size).ge(count.clone()), |b| b.push(Stmt::Break));
            b.assign(size, Ir::from(size).shl(u32(1)));
        });
        b.range(Scalar::U32, Ir::LocalIndex, size.into(), u32(self.group), |b, index| {
            let at = first.clone().plus(index.into());
            let row = b.set(Scalar::U32, u32(NO_ROW));
            let word = b.set(Scalar::U64, u64(u64::MAX));
            b.when(Ir::from(index).lt(count.clone()), |b| {
                let number = if numbers.counted {
                    at
                } else {
                    load(Elem::U32, numbers.from.into(), at)
                };
                b.assign(row, number);
                b.assign(word, self.first_word(row.into()));
            });
            b.push(Stmt::StoreLocal(scratch.words, index.into(), word.into()));
            b.push(Stmt::StoreLocal(scratch.rows, index.into(), row.into()));
        });
        b.push(Stmt::Barrier);
        bitonic(b, self.group, size, &mut |b, low, high| {
            let word = |b: &mut Builder, at: &Ir| b.set(Scalar::U64, local(scratch.words, at.clone()));
            let row = |b: &mut Builder, at: &Ir| b.set(Scalar::U32, local(scratch.rows, at.clone()));
            let (word_low, word_high) = (word(b, low), word(b, high));
            let (row_low, row_high) = (row(b, low), row(b, high));
            let after = b.set(Scalar::Bool, Ir::from(word_low).gt(word_high.into()));
            b.when(Ir::from(word_low).eq(word_high.into()), |b| {
                b.assign(after, Ir::from(row_low).gt(row_high.into()));
                let last = Ir::from(row_low).max(row_high.into());
                b.when(last.ne(u32(NO_ROW)), |b| {
                    b.assign(after, self.less_beyond(row_high.into(), row_low.into()));
                });
            });
            let swap = b.block(|b| {
                b.push(Stmt::StoreLocal(scratch.words, low.clone(), word_high.into()));
                b.push(Stmt::StoreLocal(scratch.words, high.clone(), word_low.into()));
                b.push(Stmt::StoreLocal(scratch.rows, low.clone(), row_high.into()));
                b.push(Stmt::StoreLocal(scratch.rows, high.clone(), row_low.into()));
            });
            (after, swap)
        });
        b.range(Scalar::U32, Ir::LocalIndex, count, u32(self.group), |b, index| {
            let row = local(scratch.rows, index.into());
            b.store(
                place(Elem::U32, numbers.from.into(), first.clone().plus(index.into())),
                row,
            );
        });
        b.push(Stmt::Barrier);
    }
}

/// Gives a Bool, whether the element at the first place comes after the one at the second, and what swaps them.
type Compare<'c> = dyn FnMut(&mut Builder, &Ir, &Ir) -> (Var, Vec<Stmt>) + 'c;

/// The network that sorts `size` (a variable, U32, a power of two) elements. Uniform code, with a barrier at its end.
pub(super) fn bitonic(b: &mut Builder, group: u32, size: Var, compare: &mut Compare<'_>) {
    let half = b.set(Scalar::U32, Ir::from(size).shr(u32(1)));
    let block = b.set(Scalar::U32, u32(2));
    b.repeat(|b| {
        b.when(Ir::from(block).gt(size.into()), |b| b.push(Stmt::Break));
        let stride = b.set(Scalar::U32, Ir::from(block).shr(u32(1)));
        b.repeat(|b| {
            b.when(Ir::from(stride).eq(u32(0)), |b| b.push(Stmt::Break));
            b.range(Scalar::U32, Ir::LocalIndex, half.into(), u32(group), |b, pair| {
                let within = Ir::from(pair).and(Ir::from(stride).minus(u32(1)));
                let low = b.set(Scalar::U32, Ir::from(pair).shl(u32(1)).minus(within));
                let high = b.set(Scalar::U32, Ir::from(low).plus(stride.into()));
                let ascending = Ir::from(low).and(block.into()).eq(u32(0));
                let (after, swap) = compare(b, &low.into(), &high.into());
                b.push(Stmt::If {
                    condition: Ir::from(after).xor(ascending).not(),
                    then: swap,
                    otherwise: Vec::new(),
                });
            });
            b.push(Stmt::Barrier);
            b.assign(stride, Ir::from(stride).shr(u32(1)));
        });
        b.assign(block, Ir::from(block).shl(u32(1)));
    });
}

/// The function that says whether one row comes before another, by their words behind the first, then by number.
fn less(l: &mut Lowering<'_>, order: &[OrderWord]) -> FunctionId {
    let comparer = l.comparer(order);
    l.function("order_less", |_| {
        let mut b = Builder::new();
        let (first, second) = (b.var(Scalar::U32), b.var(Scalar::U32));
        let words: Vec<Var> = order.iter().skip(1).map(|_| b.var(Scalar::U64)).collect();
        if order.len() > 1 {
            let result = compare_words(&mut b, (order, 1), comparer, &mut |_, index| {
                let base = Ir::from(words[index - 1]);
                let word = |row: Var| load(Elem::U64, base.clone(), row.into());
                (word(first), word(second))
            });
            b.when(Ir::from(result).ne(i32(0)), |b| {
                b.push(Stmt::Return(Ir::from(result).lt(i32(0))));
            });
        }
        b.push(Stmt::Return(Ir::from(first).lt(second.into())));
        b.function("order_less", 2 + words.len(), Scalar::Bool)
    })
}
