//! The table of pages, and the kernel over it.

use super::BLOCK_WORDS;
use super::delta::{Deltas, delta};
use super::functions::{bits, byte};
use super::hybrid::{Runs, hybrid};
use super::ranks::ranks;
use crate::build::{Builder, place, u32, u64};
use crate::ir::{Atomic, Elem, Expr, Kernel, LocalId, Scalar, Stmt, Target, Var};

/// How the values of a page are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// One after another, of the element's width; booleans (element U8) as bits.
    Plain,
    /// A byte that says how wide indexes are, then indexes as runs.
    Dictionary,
    /// DELTA_BINARY_PACKED.
    Delta,
    /// Runs of single bits, which are the values: booleans.
    Runs,
}

/// Words of a page in the table.
pub const PAGE_WORDS: usize = 13;

/// A page; places are bytes of the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// How its values are encoded.
    pub encoding: Encoding,
    /// First byte of its values.
    pub at: u64,
    /// The byte after the last.
    pub end: u64,
    /// Values, which are the rows that are not NULL.
    pub values: u64,
    /// Rows.
    pub rows: u64,
    /// The array of the column.
    pub output: u64,
    /// The page's first row in it.
    pub first: u64,
    /// The dictionary: an array of the same element, and its length.
    pub dictionary: (u64, u64),
    /// Definition levels of one bit, first byte and the byte after the last; none where no row is NULL.
    pub levels: Option<(u64, u64)>,
    /// Bytes of the column, 1 is a value; written where there are levels.
    pub validity: u64,
    /// An array for the dense values of this page; used where there are levels.
    pub dense: u64,
}

impl Page {
    /// As the table holds it.
    pub fn words(&self) -> [u64; PAGE_WORDS] {
        let encoding = match self.encoding {
            Encoding::Plain => PLAIN,
            Encoding::Dictionary => DICTIONARY,
            Encoding::Delta => DELTA,
            Encoding::Runs => RUNS,
        };
        let (levels, levels_end) = self.levels.unwrap_or((0, 0));
        let (dictionary, entries) = self.dictionary;
        [
            encoding,
            self.at,
            self.end,
            self.values,
            self.rows,
            self.output,
            self.first,
            dictionary,
            entries,
            levels,
            levels_end,
            self.validity,
            self.dense,
        ]
    }
}

const PLAIN: u64 = 0;
const DICTIONARY: u64 = 1;
const DELTA: u64 = 2;
const RUNS: u64 = 3;

/// A page's words in registers.
pub(super) struct Places {
    encoding: Var,
    at: Var,
    end: Var,
    pub(super) values: Var,
    pub(super) rows: Var,
    pub(super) output: Var,
    pub(super) first: Var,
    dictionary: Var,
    entries: Var,
    levels: Var,
    levels_end: Var,
    pub(super) validity: Var,
    pub(super) dense: Var,
}

impl Places {
    fn load(b: &mut Builder, page: Var) -> Self {
        let mut number = 0;
        let mut next = || {
            let index = Expr::from(page).times(u64(PAGE_WORDS as u64)).plus(u64(number));
            number += 1;
            b.load(place(Elem::U64, Expr::Word(0), index))
        };
        Self {
            encoding: next(),
            at: next(),
            end: next(),
            values: next(),
            rows: next(),
            output: next(),
            first: next(),
            dictionary: next(),
            entries: next(),
            levels: next(),
            levels_end: next(),
            validity: next(),
            dense: next(),
        }
    }
}

/// Something in a page is wrong.
pub(super) fn fault(b: &mut Builder) {
    b.atomic(
        Target::Arena(place(Elem::U64, Expr::Word(2), u64(0))),
        Atomic::Or(u64(1)),
    );
}

/// The work-item's share of `0 … count − 1`, U64.
pub(super) fn mine(b: &mut Builder, group: u32, count: Expr, inside: impl FnOnce(&mut Builder, Var)) {
    let first = Expr::LocalIndex.to(Scalar::U64);
    b.range(Scalar::U64, first, count, u64(u64::from(group)), inside);
}

/// The sum of `value` over the work-items up to this one, and over all. In uniform flow.
pub(super) fn scan(b: &mut Builder, group: u32, sums: LocalId, value: Var) -> (Var, Var) {
    let sum = b.set(Scalar::U64, value.into());
    let distance = b.set(Scalar::U32, u32(1));
    b.repeat(|b| {
        b.push(Stmt::StoreLocal(sums, Expr::LocalIndex, sum.into()));
        b.push(Stmt::Barrier);
        b.when(Expr::from(distance).ge(u32(group)), |b| b.push(Stmt::Break));
        b.when(Expr::LocalIndex.ge(distance.into()), |b| {
            let other = Expr::LoadLocal(sums, Box::new(Expr::LocalIndex.minus(distance.into())));
            b.assign(sum, Expr::from(sum).plus(other));
        });
        b.push(Stmt::Barrier);
        b.assign(distance, Expr::from(distance).shl(u32(1)));
    });
    let all = b.set(Scalar::U64, Expr::LoadLocal(sums, Box::new(u32(group - 1))));
    b.push(Stmt::Barrier);
    (sum, all)
}

/// The kernel: a group per page.
pub(super) fn kernel(elem: Elem, group: u32) -> Kernel {
    let mut b = Builder::new();
    let sums = b.local(Elem::U64, group);
    let first = Expr::GroupIndex.to(Scalar::U64);
    b.range(
        Scalar::U64,
        first,
        Expr::Word(1),
        Expr::Groups.to(Scalar::U64),
        |b, page| {
            let places = Places::load(b, page);
            let optional = b.set(Scalar::Bool, Expr::from(places.levels).ne(u64(0)));
            b.when(optional.into(), |b| levels(b, group, &places));
            // Where the decoded values go: to the rows themselves unless some are NULL.
            let into = Expr::from(optional).select(places.dense.into(), places.output.into());
            let into = b.set(Scalar::U64, into);
            let offset = Expr::from(optional).select(u64(0), places.first.into());
            let offset = b.set(Scalar::U64, offset);
            decode(b, elem, group, sums, &places, &mut |b, position, value| {
                let at = Expr::from(offset).plus(position);
                b.store(place(elem, into.into(), at), value);
            });
            b.push(Stmt::Barrier);
            b.when(optional.into(), |b| ranks(b, group, elem, sums, &places));
        },
    );
    b.kernel("decode_pages", BLOCK_WORDS)
}

/// Definition levels to bytes of validity.
fn levels(b: &mut Builder, group: u32, places: &Places) {
    b.push(Stmt::Comment("Levels.".to_owned()));
    let width = b.set(Scalar::U32, u32(1));
    let runs = Runs {
        at: places.levels,
        end: places.levels_end,
        width,
        count: places.rows,
    };
    hybrid(b, group, runs, &mut |b, position, value| {
        let at = Expr::from(places.first).plus(position);
        b.store(place(Elem::U8, places.validity.into(), at), value.to(Scalar::U32));
    });
    b.push(Stmt::Barrier);
}

/// The values of a page, as registers of the element: `emit(position, value)`.
fn decode(
    b: &mut Builder,
    elem: Elem,
    group: u32,
    sums: LocalId,
    places: &Places,
    emit: &mut dyn FnMut(&mut Builder, Expr, Expr),
) {
    let scalar = elem.scalar();
    let is = |encoding: u64| Expr::from(places.encoding).eq(u64(encoding));
    let runs = |b: &mut Builder, width: Expr| Runs {
        at: places.at,
        end: places.end,
        width: b.set(Scalar::U32, width),
        count: places.values,
    };
    b.when(is(PLAIN), |b| plain(b, elem, group, places, emit));
    b.when(is(DICTIONARY), |b| {
        let some = Expr::from(places.at).lt(places.end.into());
        b.when(some.clone().not().and(Expr::from(places.values).gt(u64(0))), fault);
        b.when(some, |b| {
            let width = b.set(Scalar::U64, byte(places.at.into()));
            b.assign(places.at, Expr::from(places.at).plus(u64(1)));
            b.when(Expr::from(width).gt(u64(32)), fault);
            let runs = runs(b, Expr::from(width).min(u64(32)).to(Scalar::U32));
            hybrid(b, group, runs, &mut |b, position, index| {
                let index = b.set(Scalar::U64, index);
                let value = b.set(scalar, u64(0).to(scalar));
                let known = Expr::from(index).lt(places.entries.into());
                b.when(known.clone(), |b| {
                    let place = place(elem, places.dictionary.into(), index.into());
                    b.assign(value, Expr::Load { place, constant: true });
                });
                b.when(known.not(), fault);
                emit(b, position, value.into());
            });
        });
    });
    b.when(is(DELTA), |b| {
        let deltas = Deltas {
            at: places.at,
            end: places.end,
            count: places.values,
            sums,
        };
        delta(b, group, deltas, &mut |b, position, value| {
            emit(b, position, value.to(scalar))
        });
    });
    b.when(is(RUNS), |b| {
        let runs = runs(b, u32(1));
        hybrid(b, group, runs, &mut |b, position, value| {
            emit(b, position, value.to(scalar))
        });
    });
}

fn plain(b: &mut Builder, elem: Elem, group: u32, places: &Places, emit: &mut dyn FnMut(&mut Builder, Expr, Expr)) {
    let width = if elem == Elem::U8 {
        1
    } else {
        u64::from(elem.bytes()) * 8
    };
    let bytes = Expr::from(places.end).minus(places.at.into());
    // By division, since a wrong number of values must not overflow.
    let held = b.set(Scalar::U64, bytes.times(u64(8)).over(u64(width)));
    b.when(Expr::from(held).lt(places.values.into()), fault);
    let values = Expr::from(held).min(places.values.into());
    mine(b, group, values, |b, index| {
        let position = Expr::from(index).times(u64(width));
        let value = bits(places.at.into(), position, u32(u32::try_from(width).unwrap_or(64)));
        emit(b, index.into(), value.to(elem.scalar()));
    });
}
