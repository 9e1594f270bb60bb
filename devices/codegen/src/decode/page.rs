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
    /// One after another.
    Plain,
    /// A byte that says how wide indexes are, then indexes as runs.
    Dictionary,
    /// DELTA_BINARY_PACKED.
    Delta,
}

/// What plain and delta values are, and what they become: `value − base`, cut to the element, for `low ≤ value ≤ low + span`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lane {
    /// Bytes of a plain value: 4 or 8.
    pub bytes: u64,
    /// Values of 4 bytes have a sign.
    pub signed: bool,
    /// The least value.
    pub low: i64,
    /// The largest is so much more.
    pub span: u64,
    /// What is taken off.
    pub base: i64,
}

impl Lane {
    /// The bits of the element itself.
    pub fn bits(elem: Elem) -> Self {
        Self {
            bytes: u64::from(elem.bytes()),
            signed: false,
            low: 0,
            span: u64::MAX,
            base: 0,
        }
    }
}

/// Words of a page in the table.
pub const PAGE_WORDS: usize = 19;

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
    /// Rows that are passed over at the start.
    pub skip: u64,
    /// Values of those rows.
    pub passed: u64,
    /// Rows that are wanted.
    pub keep: u64,
    /// The array of the column.
    pub output: u64,
    /// The place of the page's first wanted row in it.
    pub first: u64,
    /// The dictionary: an array of the output's element, and its length.
    pub dictionary: (u64, u64),
    /// What values are; not of dictionaries, which hold elements.
    pub lane: Lane,
    /// Bits of the column, set where a value is; none where no row of the page is NULL. Other rows get the lane's least value.
    pub validity: Option<u64>,
    /// An array for the dense values of this page; used where there is validity.
    pub dense: u64,
    /// A word that gets its bit 0 set when something in the page is wrong.
    pub fault: u64,
}

impl Page {
    /// As the table holds it.
    pub fn words(&self) -> [u64; PAGE_WORDS] {
        let encoding = match self.encoding {
            Encoding::Plain => PLAIN,
            Encoding::Dictionary => DICTIONARY,
            Encoding::Delta => DELTA,
        };
        let (dictionary, entries) = self.dictionary;
        [
            encoding,
            self.at,
            self.end,
            self.values,
            self.skip,
            self.passed,
            self.keep,
            self.output,
            self.first,
            dictionary,
            entries,
            self.lane.bytes,
            u64::from(self.lane.signed),
            self.lane.low.cast_unsigned(),
            self.lane.span,
            self.lane.base.cast_unsigned(),
            self.validity.unwrap_or(0),
            self.dense,
            self.fault,
        ]
    }
}

const PLAIN: u64 = 0;
const DICTIONARY: u64 = 1;
const DELTA: u64 = 2;

/// A page's words in registers.
pub(super) struct Places {
    encoding: Var,
    at: Var,
    end: Var,
    pub(super) values: Var,
    skip: Var,
    pub(super) passed: Var,
    pub(super) keep: Var,
    pub(super) output: Var,
    pub(super) first: Var,
    dictionary: Var,
    entries: Var,
    bytes: Var,
    signed: Var,
    low: Var,
    span: Var,
    base: Var,
    pub(super) validity: Var,
    pub(super) dense: Var,
    pub(super) fault: Var,
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
            skip: next(),
            passed: next(),
            keep: next(),
            output: next(),
            first: next(),
            dictionary: next(),
            entries: next(),
            bytes: next(),
            signed: next(),
            low: next(),
            span: next(),
            base: next(),
            validity: next(),
            dense: next(),
            fault: next(),
        }
    }

    /// A plain or delta value as the element that it becomes.
    fn element(&self, b: &mut Builder, elem: Elem, value: Expr) -> Expr {
        let value = b.set(Scalar::U64, value);
        b.when(Expr::from(self.bytes).eq(u64(4)), |b| {
            b.assign(value, Expr::from(value).and(u64(0xffff_ffff)));
            // The sign's bit, carried up.
            let sign = Expr::from(value).and(u64(0x8000_0000)).times(self.signed.into());
            b.assign(value, Expr::from(value).or(u64(0).minus(sign)));
        });
        let above = Expr::from(value).minus(self.low.into());
        b.when(above.gt(self.span.into()), |b| fault(b, self.fault));
        Expr::from(value).minus(self.base.into()).to(elem.scalar())
    }

    /// The element of the least value.
    pub(super) fn least(&self, b: &mut Builder, elem: Elem) -> Var {
        let least = Expr::from(self.low).minus(self.base.into());
        b.set(elem.scalar(), least.to(elem.scalar()))
    }
}

/// Something in a page is wrong.
pub(super) fn fault(b: &mut Builder, at: Var) {
    b.atomic(Target::Arena(place(Elem::U64, at.into(), u64(0))), Atomic::Or(u64(1)));
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
            let spread = b.set(Scalar::Bool, Expr::from(places.validity).ne(u64(0)));
            // Where the decoded values go: to the rows themselves unless some are NULL.
            let into = Expr::from(spread).select(places.dense.into(), places.output.into());
            let into = b.set(Scalar::U64, into);
            let offset = Expr::from(spread).select(u64(0), places.first.into());
            let offset = b.set(Scalar::U64, offset);
            let skip = b.set(Scalar::U64, Expr::from(spread).select(u64(0), places.skip.into()));
            let keep = Expr::from(spread).select(places.values.into(), places.keep.into());
            let keep = b.set(Scalar::U64, keep);
            decode(b, elem, group, sums, &places, &mut |b, position, value| {
                let row = b.set(Scalar::U64, position.minus(skip.into()));
                b.when(Expr::from(row).lt(keep.into()), |b| {
                    let at = Expr::from(offset).plus(row.into());
                    b.store(place(elem, into.into(), at), value);
                });
            });
            b.push(Stmt::Barrier);
            b.when(spread.into(), |b| {
                ranks(b, group, elem, sums, &places);
                b.push(Stmt::Barrier);
            });
            discard(b, elem, group, &places);
        },
    );
    b.kernel("decode_pages", BLOCK_WORDS)
}

/// Once something is wrong, all wanted rows of the page get the least value: kernels look values up before anybody has seen
/// the fault.
fn discard(b: &mut Builder, elem: Elem, group: u32, places: &Places) {
    let target = Target::Arena(place(Elem::U64, places.fault.into(), u64(0)));
    let faults = b.fetch(Scalar::U64, target, Atomic::Load);
    b.when(Expr::from(faults).ne(u64(0)), |b| {
        let least = places.least(b, elem);
        mine(b, group, places.keep.into(), |b, row| {
            let at = Expr::from(places.first).plus(row.into());
            b.store(place(elem, places.output.into(), at), least.into());
        });
    });
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
    b.when(is(PLAIN), |b| plain(b, elem, group, places, emit));
    b.when(is(DICTIONARY), |b| {
        let some = Expr::from(places.at).lt(places.end.into());
        let wanted = Expr::from(places.values).gt(u64(0));
        b.when(some.clone().not().and(wanted), |b| fault(b, places.fault));
        b.when(some, |b| {
            let width = b.set(Scalar::U64, byte(places.at.into()));
            b.assign(places.at, Expr::from(places.at).plus(u64(1)));
            b.when(Expr::from(width).gt(u64(32)), |b| fault(b, places.fault));
            let runs = Runs {
                at: places.at,
                end: places.end,
                width: b.set(Scalar::U32, Expr::from(width).min(u64(32)).to(Scalar::U32)),
                count: places.values,
                fault: places.fault,
            };
            hybrid(b, group, runs, &mut |b, position, index| {
                let index = b.set(Scalar::U64, index);
                let value = b.set(scalar, u64(0).to(scalar));
                let known = Expr::from(index).lt(places.entries.into());
                b.when(known.clone(), |b| {
                    let place = place(elem, places.dictionary.into(), index.into());
                    b.assign(value, Expr::Load { place, constant: true });
                });
                b.when(known.not(), |b| fault(b, places.fault));
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
            fault: places.fault,
        };
        delta(b, group, deltas, &mut |b, position, value| {
            let value = places.element(b, elem, value);
            emit(b, position, value);
        });
    });
}

fn plain(b: &mut Builder, elem: Elem, group: u32, places: &Places, emit: &mut dyn FnMut(&mut Builder, Expr, Expr)) {
    let bytes = Expr::from(places.end).minus(places.at.into());
    // By division, since a wrong number of values must not overflow.
    let known = Expr::from(places.bytes)
        .gt(u64(0))
        .and(Expr::from(places.bytes).le(u64(8)));
    let width = b.set(Scalar::U64, known.select(places.bytes.into(), u64(8)));
    let held = b.set(Scalar::U64, bytes.over(width.into()));
    b.when(Expr::from(held).lt(places.values.into()), |b| fault(b, places.fault));
    let values = Expr::from(held).min(places.values.into());
    let bit = b.set(Scalar::U64, Expr::from(width).times(u64(8)));
    mine(b, group, values, |b, index| {
        let position = Expr::from(index).times(bit.into());
        let value = bits(places.at.into(), position, Expr::from(bit).to(Scalar::U32));
        let value = places.element(b, elem, value);
        emit(b, index.into(), value);
    });
}
