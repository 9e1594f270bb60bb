//! The first few rows of an order, kept in a group's local memory.
//!
//! ```text
//!  entries   [ 0 … keep )  the best so far, sorted      [ keep … size )  what came since, if it is better than the worst kept
//!            when another slot might not fit: all are sorted, the first `keep` stay
//! ```
//!
//! An entry is the words of a row's key and a number; entries behind the last one keep their numbers, so that numbers that
//! were a permutation stay one.

use super::group::{bitonic, load};
use super::order::{OrderWord, compare_words};
use crate::build::{Builder, bool, place, u32, u64};
use crate::ir::{Atomic, Elem, Expr as Ir, FunctionId, LocalId, Scalar, Stmt, Target, Var};
use crate::lower::Lowering;

/// Marks the number of an entry behind the last while all are sorted.
const PAD: u32 = 1 << 31;

/// Entries in the local memory of the kernel that is being written.
pub(super) struct Selection {
    group: u32,
    /// U32.
    keep: Ir,
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

/// What the groups of a launch leave for the next: U32s and U64s, `size` of each for a group.
pub(super) struct State {
    /// Groups that there is room for.
    pub(super) groups: u32,
    /// U32s: entries of each group; 0 at first.
    pub(super) counts: Ir,
    pub(super) numbers: Ir,
    pub(super) words: Vec<Ir>,
}

impl State {
    /// U32: where the group's part begins.
    fn first(&self, b: &mut Builder, size: u32) -> Var {
        let group = Ir::GroupIndex.min(u32(self.groups - 1));
        b.set(Scalar::U32, group.times(u32(size)))
    }
}

fn local(id: LocalId, index: Ir) -> Ir {
    Ir::LoadLocal(id, Box::new(index))
}

impl Selection {
    /// Room for entries; [`Selection::start`] or [`Selection::resume`] comes next.
    pub(super) fn new(l: &mut Lowering<'_>, (keep, size): (Ir, u32), order: &[OrderWord]) -> Self {
        let comparer = l.comparer(order);
        let b = &mut l.b;
        Self {
            group: l.target.group,
            keep: b.set(Scalar::U32, keep).into(),
            size,
            order: order.to_vec(),
            comparer,
            words: order.iter().map(|_| b.local(Elem::U64, size)).collect(),
            numbers: b.local(Elem::U32, size),
            count: b.local(Elem::U32, 1),
            full: b.set(Scalar::Bool, bool(false)),
        }
    }

    /// Empty; entry `i` has number `i`. Uniform code.
    pub(super) fn start(&self, b: &mut Builder) {
        b.range(
            Scalar::U32,
            Ir::LocalIndex,
            u32(self.size),
            u32(self.group),
            |b, index| {
                b.push(Stmt::StoreLocal(self.numbers, index.into(), index.into()));
            },
        );
        b.when(Ir::LocalIndex.eq(u32(0)), |b| {
            b.push(Stmt::StoreLocal(self.count, u32(0), u32(0)))
        });
        b.push(Stmt::Barrier);
    }

    /// As a group left it in an earlier launch. Uniform code.
    pub(super) fn resume(&mut self, b: &mut Builder, state: &State) {
        let count = b.set(Scalar::U32, u32(0));
        b.when(Ir::GroupIndex.lt(u32(state.groups)), |b| {
            b.assign(count, load(Elem::U32, state.counts.clone(), Ir::GroupIndex));
        });
        let first = state.first(b, self.size);
        b.range(
            Scalar::U32,
            Ir::LocalIndex,
            u32(self.size),
            u32(self.group),
            |b, index| {
                let number = b.set(Scalar::U32, index.into());
                b.when(Ir::from(count).ne(u32(0)), |b| {
                    let at = Ir::from(first).plus(index.into());
                    b.assign(number, load(Elem::U32, state.numbers.clone(), at));
                });
                b.push(Stmt::StoreLocal(self.numbers, index.into(), number.into()));
            },
        );
        b.range(
            Scalar::U32,
            Ir::LocalIndex,
            count.into(),
            u32(self.group),
            |b, index| {
                for (id, words) in self.words.iter().zip(&state.words) {
                    let word = load(Elem::U64, words.clone(), Ir::from(first).plus(index.into()));
                    b.push(Stmt::StoreLocal(*id, index.into(), word));
                }
            },
        );
        b.when(Ir::LocalIndex.eq(u32(0)), |b| {
            b.push(Stmt::StoreLocal(self.count, u32(0), count.into()));
        });
        b.push(Stmt::Barrier);
        b.assign(self.full, Ir::from(count).ge(self.keep.clone()));
    }

    /// Leaves is kept (`count` entries) for later launches. Uniform code.
    pub(super) fn suspend(&self, b: &mut Builder, state: &State, count: Var) {
        b.when(Ir::GroupIndex.lt(u32(state.groups)), |b| {
            let first = state.first(b, self.size);
            b.range(
                Scalar::U32,
                Ir::LocalIndex,
                u32(self.size),
                u32(self.group),
                |b, index| {
                    let at = Ir::from(first).plus(index.into());
                    b.store(
                        place(Elem::U32, state.numbers.clone(), at),
                        self.number_at(index.into()),
                    );
                },
            );
            b.range(
                Scalar::U32,
                Ir::LocalIndex,
                count.into(),
                u32(self.group),
                |b, index| {
                    for (word, words) in state.words.iter().enumerate() {
                        let at = Ir::from(first).plus(index.into());
                        b.store(place(Elem::U64, words.clone(), at), self.word(word, index.into()));
                    }
                },
            );
            b.when(Ir::LocalIndex.eq(u32(0)), |b| {
                b.store(place(Elem::U32, state.counts.clone(), Ir::GroupIndex), count.into());
            });
        });
    }

    /// Bool: whether a row of these words may be among the first.
    pub(super) fn wants(&self, b: &mut Builder, words: &[Ir]) -> Var {
        let wanted = b.set(Scalar::Bool, bool(true));
        b.when(self.full.into(), |b| {
            let result = compare_words(b, (&self.order, 0), self.comparer, &mut |_, index| {
                (
                    words[index].clone(),
                    local(self.words[index], self.keep.clone().minus(u32(1))),
                )
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

    /// Makes room, so that each work-item can add one more; at the `last` time (Bool, uniform) only the kept entries stay,
    /// sorted. Uniform code.
    pub(super) fn make_room(&self, b: &mut Builder, last: Ir) {
        b.push(Stmt::Barrier);
        let count = b.set(Scalar::U32, local(self.count, u32(0)));
        b.push(Stmt::Barrier);
        let most = self.size - self.group;
        let last = last.and(Ir::from(count).ne(u32(0)));
        b.when(Ir::from(count).gt(u32(most)).or(last), |b| self.select(b, count));
    }

    /// How many entries are kept, U32, after the last call of [`Selection::make_room`]. Uniform code.
    pub(super) fn kept(&self, b: &mut Builder) -> Var {
        b.set(Scalar::U32, local(self.count, u32(0)).min(self.keep.clone()))
    }

    /// U32: entries that are kept.
    pub(super) fn keep(&self) -> Ir {
        self.keep.clone()
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
            let left = Ir::from(count).min(self.keep.clone());
            b.push(Stmt::StoreLocal(self.count, u32(0), left));
        });
        b.push(Stmt::Barrier);
        b.assign(self.full, Ir::from(count).ge(self.keep.clone()));
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
