//! The first few rows of an order, kept in a group's local memory.
//!
//! ```text
//!  entries   [ 0 … keep )  the best so far, sorted      [ keep … size )  what came since, if it is better than the worst kept
//!            when another slot might not fit: all are sorted, the first `keep` stay
//! ```
//!
//! An entry is the words of a row's key and a number; entries behind the last one keep their numbers, so that numbers that
//! were a permutation stay one.

use super::group::bitonic;
use super::order::{OrderWord, compare_words};
use crate::build::{Builder, bool, u32, u64};
use crate::ir::{Atomic, Elem, Expr as Ir, FunctionId, LocalId, Scalar, Stmt, Target, Var};

/// Marks the number of an entry behind the last while all are sorted.
const PAD: u32 = 1 << 31;

/// Entries in the local memory of the kernel that is being written.
pub(super) struct Selection {
    group: u32,
    keep: u32,
    size: u32,
    order: Vec<OrderWord>,
    comparer: Option<FunctionId>,
    words: Vec<LocalId>,
    numbers: LocalId,
    /// U32: entries.
    count: LocalId,
    /// Bool: the first `keep` entries are there and sorted. Uniform.
    full: Var,
}

fn local(id: LocalId, index: Ir) -> Ir {
    Ir::LoadLocal(id, Box::new(index))
}

impl Selection {
    /// Empty; entry `i` has number `i`. Uniform code.
    pub(super) fn new(b: &mut Builder, group: u32, keep: u32, size: u32) -> Self {
        let numbers = b.local(Elem::U32, size);
        let count = b.local(Elem::U32, 1);
        b.range(Scalar::U32, Ir::LocalIndex, u32(size), u32(group), |b, index| {
            b.push(Stmt::StoreLocal(numbers, index.into(), index.into()));
        });
        b.when(Ir::LocalIndex.eq(u32(0)), |b| {
            b.push(Stmt::StoreLocal(count, u32(0), u32(0)))
        });
        b.push(Stmt::Barrier);
        Self {
            group,
            keep,
            size,
            order: Vec::new(),
            comparer: None,
            words: Vec::new(),
            numbers,
            count,
            full: b.set(Scalar::Bool, bool(false)),
        }
    }

    /// How entries compare; asked for before the first is offered.
    pub(super) fn ordered(&mut self, b: &mut Builder, order: &[OrderWord], comparer: Option<FunctionId>) {
        if self.words.is_empty() {
            self.order = order.to_vec();
            self.comparer = comparer;
            self.words = order.iter().map(|_| b.local(Elem::U64, self.size)).collect();
        }
    }

    /// Bool: whether a row of these words may be among the first.
    pub(super) fn wants(&self, b: &mut Builder, words: &[Ir]) -> Var {
        let wanted = b.set(Scalar::Bool, bool(true));
        b.when(self.full.into(), |b| {
            let result = compare_words(b, (&self.order, 0), self.comparer, &mut |_, index| {
                (words[index].clone(), local(self.words[index], u32(self.keep - 1)))
            });
            b.assign(wanted, Ir::from(result).lt(crate::build::i32(0)));
        });
        wanted
    }

    /// Adds an entry: its place and the number that stands there, both U32.
    pub(super) fn add(&self, b: &mut Builder, words: &[Ir]) -> (Var, Var) {
        let target = Target::Local(self.count, u32(0));
        let place = b.fetch(Scalar::U32, target, Atomic::Add(u32(1)));
        for (id, word) in self.words.iter().zip(words) {
            b.push(Stmt::StoreLocal(*id, place.into(), word.clone()));
        }
        let number = b.set(Scalar::U32, local(self.numbers, place.into()));
        (place, number)
    }

    /// Gives an entry another number.
    pub(super) fn number(&self, b: &mut Builder, place: Var, number: Ir) {
        b.push(Stmt::StoreLocal(self.numbers, place.into(), number));
    }

    /// Makes room, so that each work-item can add one more. Uniform code.
    pub(super) fn make_room(&self, b: &mut Builder) {
        b.push(Stmt::Barrier);
        let count = b.set(Scalar::U32, local(self.count, u32(0)));
        b.push(Stmt::Barrier);
        let most = self.size - self.group;
        b.when(Ir::from(count).gt(u32(most)), |b| self.select(b, count));
    }

    /// Sorts what is there at the end; how many entries are left, U32. Uniform code.
    pub(super) fn finish(&self, b: &mut Builder) -> Var {
        b.push(Stmt::Barrier);
        let count = b.set(Scalar::U32, local(self.count, u32(0)));
        b.push(Stmt::Barrier);
        b.when(Ir::from(count).ne(u32(0)), |b| self.select(b, count));
        b.set(Scalar::U32, Ir::from(count).min(u32(self.keep)))
    }

    /// Work-items of a group.
    pub(super) fn group(&self) -> u32 {
        self.group
    }

    /// U64: word `index` of entry `place`.
    pub(super) fn word(&self, index: usize, place: Ir) -> Ir {
        local(self.words[index], place)
    }

    /// U32: the number of entry `place`.
    pub(super) fn number_at(&self, place: Ir) -> Ir {
        local(self.numbers, place)
    }

    fn select(&self, b: &mut Builder, count: Var) {
        let behind = Ir::LocalIndex.plus(count.into());
        b.range(Scalar::U32, behind, u32(self.size), u32(self.group), |b, index| {
            for id in &self.words {
                b.push(Stmt::StoreLocal(*id, index.into(), u64(u64::MAX)));
            }
            let marked = self.number_at(index.into()).or(u32(PAD));
            b.push(Stmt::StoreLocal(self.numbers, index.into(), marked));
        });
        b.push(Stmt::Barrier);
        let size = b.set(Scalar::U32, u32(self.size));
        bitonic(b, self.group, size, &mut |b, low, high| self.compare(b, low, high));
        b.range(
            Scalar::U32,
            Ir::LocalIndex,
            u32(self.size),
            u32(self.group),
            |b, index| {
                let bare = self.number_at(index.into()).and(u32(PAD - 1));
                b.push(Stmt::StoreLocal(self.numbers, index.into(), bare));
            },
        );
        b.when(Ir::LocalIndex.eq(u32(0)), |b| {
            let left = Ir::from(count).min(u32(self.keep));
            b.push(Stmt::StoreLocal(self.count, u32(0), left));
        });
        b.push(Stmt::Barrier);
        b.assign(self.full, Ir::from(count).ge(u32(self.keep)));
    }

    fn compare(&self, b: &mut Builder, low: &Ir, high: &Ir) -> (Var, Vec<Stmt>) {
        let number_low = b.set(Scalar::U32, self.number_at(low.clone()));
        let number_high = b.set(Scalar::U32, self.number_at(high.clone()));
        let [pad_low, pad_high] = [number_low, number_high].map(|number| Ir::from(number).shr(u32(31)));
        let after = b.set(Scalar::Bool, pad_low.clone().gt(pad_high.clone()));
        b.when(pad_low.or(pad_high).eq(u32(0)), |b| {
            let result = compare_words(b, (&self.order, 0), self.comparer, &mut |_, index| {
                (self.word(index, low.clone()), self.word(index, high.clone()))
            });
            b.assign(after, Ir::from(result).gt(crate::build::i32(0)));
        });
        let swap = b.block(|b| {
            for id in &self.words {
                let word_low = b.set(Scalar::U64, local(*id, low.clone()));
                let word_high = b.set(Scalar::U64, local(*id, high.clone()));
                b.push(Stmt::StoreLocal(*id, low.clone(), word_high.into()));
                b.push(Stmt::StoreLocal(*id, high.clone(), word_low.into()));
            }
            b.push(Stmt::StoreLocal(self.numbers, low.clone(), number_high.into()));
            b.push(Stmt::StoreLocal(self.numbers, high.clone(), number_low.into()));
        });
        (after, swap)
    }
}
