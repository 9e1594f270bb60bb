//! The proleptic Gregorian calendar in kernels: days since 1970-01-01 to year, month and day, and back.
//!
//! After H. Hinnant, "chrono-compatible low-level date algorithms": eras of 400 years that begin on 1 March. A civil day in a
//! register is `year << 9 | month << 5 | day`.

use super::range::Range;
use super::register::constant;
use crate::build::{self, Builder, call};
use crate::ir::{Expr as Ir, Function, Scalar, Stmt};
use crate::lower::Lowering;

/// The dates that libraries know: 262,143 years before and after.
pub(super) const DATES: Range = (-96_465_292, 95_026_236);
/// Days of 0001-01-01 and 9999-12-31.
pub(super) const COMMON_DAYS: Range = (-719_162, 2_932_896);

const DAYS_PER_ERA: i128 = 146_097;
/// From 0000-03-01 to 1970-01-01.
const EPOCH: i128 = 719_468;
const MONTH_BITS: u32 = 5;
const YEAR_BITS: u32 = 9;

/// `value / divisor`, downwards; the divisor is positive and the lane holds it.
pub(super) fn floor_divide(l: &mut Lowering<'_>, lane: Scalar, value: Ir, divisor: i128) -> Ir {
    let value = l.keep(lane, value);
    let (quotient, rest) = floor_parts(&value, lane, divisor);
    let quotient = l.keep(lane, quotient);
    let rest = rest(&quotient);
    let down = rest.lt(constant(lane, 0)).select(constant(lane, 1), constant(lane, 0));
    l.keep(lane, quotient.minus(down))
}

fn floor_parts(value: &Ir, lane: Scalar, divisor: i128) -> (Ir, impl Fn(&Ir) -> Ir) {
    let divisor = constant(lane, divisor);
    let value = value.clone();
    let rest = {
        let (value, divisor) = (value.clone(), divisor.clone());
        move |quotient: &Ir| value.clone().minus(quotient.clone().times(divisor.clone()))
    };
    (value.over(divisor), rest)
}

/// As [`floor_divide`], in a function of I64.
fn floor_of(f: &mut Builder, value: Ir, divisor: i64) -> Ir {
    let value = Ir::from(f.set(Scalar::I64, value));
    let (quotient, rest) = floor_parts(&value, Scalar::I64, divisor.into());
    let quotient = Ir::from(f.set(Scalar::I64, quotient));
    let rest = rest(&quotient);
    let down = rest.lt(build::i64(0)).select(build::i64(1), build::i64(0));
    Ir::from(f.set(Scalar::I64, quotient.minus(down)))
}

impl Lowering<'_> {
    /// The civil day (I64) of a day (I64), which lies within [`DATES`].
    pub(super) fn civil(&mut self, days: Ir) -> Ir {
        let function = self.function("civil", |_| civil());
        let civil = call(function, [days]);
        self.keep(Scalar::I64, civil)
    }

    /// Days since 1970-01-01 of a civil day, I64.
    pub(super) fn days_of(&mut self, civil: Ir) -> Ir {
        let function = self.function("days_of", |_| days_of());
        let days = call(function, [civil]);
        self.keep(Scalar::I64, days)
    }

    /// The same day so many months later (I64 both), clipped to the month's last day.
    pub(super) fn add_months(&mut self, days: Ir, months: Ir) -> Ir {
        let function = self.function("add_months", |l| {
            let civil = l.function("civil", |_| civil());
            let days = l.function("days_of", |_| days_of());
            add_months(civil, days)
        });
        let later = call(function, [days, months]);
        self.keep(Scalar::I64, later)
    }
}

pub(super) fn year(civil: &Ir) -> Ir {
    civil.clone().shr(build::i64(YEAR_BITS.into()))
}

pub(super) fn month(civil: &Ir) -> Ir {
    civil.clone().shr(build::i64(MONTH_BITS.into())).and(build::i64(15))
}

pub(super) fn day(civil: &Ir) -> Ir {
    civil.clone().and(build::i64(31))
}

pub(super) fn packed(year: Ir, month: Ir, day: Ir) -> Ir {
    let month = month.shl(build::i64(MONTH_BITS.into()));
    year.times(build::i64(1 << YEAR_BITS)).plus(month).plus(day)
}

fn civil() -> Function {
    let mut f = Builder::new();
    let days = f.var(Scalar::I64);
    let narrow = |value: i64| constant(Scalar::I32, value.into());
    let shifted = f.set(Scalar::I64, Ir::from(days).plus(constant(Scalar::I64, EPOCH)));
    let era = floor_of(&mut f, shifted.into(), 146_097);
    let within = Ir::from(shifted).minus(era.clone().times(constant(Scalar::I64, DAYS_PER_ERA)));
    let d = Ir::from(f.set(Scalar::I32, within.to(Scalar::I32)));
    let year = d
        .clone()
        .minus(d.clone().over(narrow(1460)))
        .plus(d.clone().over(narrow(36_524)))
        .minus(d.clone().over(narrow(146_096)))
        .over(narrow(365));
    let year = Ir::from(f.set(Scalar::I32, year));
    let first = narrow(365)
        .times(year.clone())
        .plus(year.clone().over(narrow(4)))
        .minus(year.clone().over(narrow(100)));
    let day_of_year = Ir::from(f.set(Scalar::I32, d.minus(first)));
    let march = narrow(5).times(day_of_year.clone()).plus(narrow(2)).over(narrow(153));
    let march = Ir::from(f.set(Scalar::I32, march));
    let start = narrow(153).times(march.clone()).plus(narrow(2)).over(narrow(5));
    let day = day_of_year.minus(start).plus(narrow(1));
    let early = march.clone().lt(narrow(10));
    let month = early
        .clone()
        .select(march.clone().plus(narrow(3)), march.minus(narrow(9)));
    let next = early.select(build::i64(0), build::i64(1));
    let year = year.to(Scalar::I64).plus(era.times(build::i64(400))).plus(next);
    f.push(Stmt::Return(packed(year, month.to(Scalar::I64), day.to(Scalar::I64))));
    f.function("civil", 1, Scalar::I64)
}

fn days_of() -> Function {
    let mut f = Builder::new();
    let civil = Ir::from(f.var(Scalar::I64));
    let (month, day) = (f.set(Scalar::I64, month(&civil)), f.set(Scalar::I64, day(&civil)));
    let early = Ir::from(month).le(build::i64(2));
    let year = year(&civil).minus(early.clone().select(build::i64(1), build::i64(0)));
    let year = Ir::from(f.set(Scalar::I64, year));
    let era = floor_of(&mut f, year.clone(), 400);
    let year_of_era = f.set(Scalar::I64, year.minus(era.clone().times(build::i64(400))));
    let y = Ir::from(year_of_era);
    let march = Ir::from(month).plus(early.select(build::i64(9), build::i64(-3)));
    let day_of_year = build::i64(153)
        .times(march)
        .plus(build::i64(2))
        .over(build::i64(5))
        .plus(day.into())
        .minus(build::i64(1));
    let day_of_era = y
        .clone()
        .times(build::i64(365))
        .plus(y.clone().over(build::i64(4)))
        .minus(y.over(build::i64(100)))
        .plus(day_of_year);
    let days = era
        .times(constant(Scalar::I64, DAYS_PER_ERA))
        .plus(day_of_era)
        .minus(constant(Scalar::I64, EPOCH));
    f.push(Stmt::Return(days));
    f.function("days_of", 1, Scalar::I64)
}

fn add_months(civil: crate::ir::FunctionId, days_of: crate::ir::FunctionId) -> Function {
    let mut f = Builder::new();
    let (days, months) = (f.var(Scalar::I64), f.var(Scalar::I64));
    let before = Ir::from(f.set(Scalar::I64, call(civil, [days.into()])));
    let shifted = year(&before)
        .times(build::i64(12))
        .plus(month(&before))
        .minus(build::i64(1))
        .plus(months.into());
    let shifted = Ir::from(f.set(Scalar::I64, shifted));
    let later = floor_of(&mut f, shifted.clone(), 12);
    let month_of = shifted.minus(later.clone().times(build::i64(12))).plus(build::i64(1));
    let month_of = Ir::from(f.set(Scalar::I64, month_of));
    let divides = |by: i64| later.clone().rem(build::i64(by)).eq(build::i64(0));
    let leap = divides(4).and(divides(100).not().or(divides(400)));
    let february = leap.select(build::i64(29), build::i64(28));
    let is = |number: i64| month_of.clone().eq(build::i64(number));
    let short = is(4).or(is(6)).or(is(9)).or(is(11));
    let last = is(2).select(february, short.select(build::i64(30), build::i64(31)));
    let last = f.set(Scalar::I64, last);
    let clipped = day(&before).min(last.into());
    let after = packed(later, month_of, clipped);
    f.push(Stmt::Return(call(days_of, [after])));
    f.function("add_months", 2, Scalar::I64)
}
