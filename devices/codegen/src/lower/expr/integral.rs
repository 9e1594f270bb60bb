//! Arithmetic of integral registers: the lane that computes it, and the check that the result's type needs.
//!
//! ```text
//!  exact bounds of the result within its limits      → computed in the bounds' lane, no check
//!  else 64 bits hold the bounds                      → computed there, compared with the limits
//!  else operands and limits fit 64 bits              → computed there, overflow seen from bits
//!  else                                              → computed in 128 bits, compared with the limits
//! ```
//!
//! A result at fault is replaced by the lower limit, so that every register stays within its range, whatever the row.

use super::range::{self, Bounds, Range};
use super::register::{Number, arithmetic_error, constant, convert, lane_range, wider};
use crate::build;
use crate::ir::{Const, Expr as Ir, Scalar};
use crate::lower::{Lowered, Lowering, Shape};

/// Integral operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    And,
    Or,
    Xor,
}

/// What a result must be.
pub(super) struct Limits<'m> {
    /// It lies in them.
    pub(super) range: Range,
    /// Or this is said.
    pub(super) overflow: &'m str,
}

/// No limits: for results that are known to fit 128 bits.
pub(super) const UNLIMITED: Limits<'static> = Limits {
    range: (i128::MIN, i128::MAX),
    overflow: "overflow",
};

/// Products of doubles beyond this are no decimals, and those below fit 128 bits.
const PRODUCT_MAX: f64 = 1.5e38;

impl Lowering<'_> {
    /// `l operation r`, where `null` says that the result doesn't count.
    pub(super) fn integral(
        &mut self,
        operation: Operation,
        l: &Number,
        r: &Number,
        limits: &Limits<'_>,
        null: Option<&Ir>,
    ) -> Lowered<Number> {
        let bounds = match operation {
            Operation::Add => range::add(l.range, r.range),
            Operation::Subtract => range::subtract(l.range, r.range),
            Operation::Multiply => range::multiply(l.range, r.range),
            Operation::Divide => range::divide(l.range, r.range),
            Operation::Remainder => Bounds::exactly(range::remainder(l.range, r.range)),
            Operation::And | Operation::Or | Operation::Xor => Bounds::exactly(range::bits(l.range, r.range)),
        };
        match operation {
            Operation::Divide | Operation::Remainder => Ok(self.divided(operation, l, r, bounds, limits, null)),
            Operation::And | Operation::Or | Operation::Xor => {
                let lane = wider(wider(l.lane(), r.lane()), Shape::lane(bounds.range()));
                let ir = apply(operation, l.to(lane), r.to(lane));
                let ir = self.keep(lane, ir);
                Ok(self.limited(ir, lane, bounds, limits, None, null))
            }
            _ if bounds.within(limits.range) => {
                let lane = Shape::lane(bounds.range());
                let ir = apply(operation, l.to(lane), r.to(lane));
                Ok(Number {
                    ir: self.keep(lane, ir),
                    range: bounds.range(),
                })
            }
            _ => Ok(self.checked(operation, l, r, bounds, limits, null)),
        }
    }

    /// A sum, difference or product whose limits may be left.
    fn checked(
        &mut self,
        operation: Operation,
        l: &Number,
        r: &Number,
        bounds: Bounds,
        limits: &Limits<'_>,
        null: Option<&Ir>,
    ) -> Number {
        let exact = if bounds.exact {
            Shape::lane(bounds.range())
        } else {
            Scalar::I128
        };
        let narrow = wider(wider(l.lane(), r.lane()), Shape::lane(limits.range)) != Scalar::I128;
        let (lane, may_wrap) = match exact {
            Scalar::I128 if narrow => (Scalar::I64, true),
            lane => (lane, !bounds.exact),
        };
        let (a, b) = (self.keep(lane, l.to(lane)), self.keep(lane, r.to(lane)));
        let value = self.keep(lane, apply(operation, a.clone(), b.clone()));
        let wrapped = may_wrap.then(|| self.wrapped(operation, a, b, &value, lane));
        self.limited(value, lane, bounds, limits, wrapped, null)
    }

    /// Whether a wrapping result isn't the true one (of products in 128 bits: or no decimal).
    fn wrapped(&mut self, operation: Operation, a: Ir, b: Ir, value: &Ir, lane: Scalar) -> Ir {
        let zero = constant(lane, 0);
        match (operation, lane) {
            (Operation::Add, _) => a.xor(value.clone()).and(b.xor(value.clone())).lt(zero),
            (Operation::Subtract, _) => a.clone().xor(b).and(a.xor(value.clone())).lt(zero),
            (_, Scalar::I128) => self.beyond_product(a, b),
            _ => a.times_high(b).ne(value.clone().shr(build::i64(63))),
        }
    }

    /// Whether a product is so large that 128 bits may not hold it.
    pub(super) fn beyond_product(&mut self, a: Ir, b: Ir) -> Ir {
        let estimate = a.to(Scalar::F64).times(b.to(Scalar::F64));
        let estimate = self.keep(Scalar::F64, estimate);
        let most = |value: f64| Ir::Const(Const::F64(value));
        estimate
            .clone()
            .gt(most(PRODUCT_MAX))
            .or(estimate.lt(most(-PRODUCT_MAX)))
    }

    /// The value where it lies in the limits; elsewhere an error.
    pub(super) fn limited(
        &mut self,
        value: Ir,
        lane: Scalar,
        bounds: Bounds,
        limits: &Limits<'_>,
        wrapped: Option<Ir>,
        null: Option<&Ir>,
    ) -> Number {
        let bad = self.beyond_limits(&value, lane, bounds, limits.range, wrapped);
        let out = bounds.clamp(limits.range);
        let Some(bad) = bad else {
            let narrow = Shape::lane(out);
            let value = convert(value, lane, narrow);
            return Number {
                ir: self.keep(narrow, value),
                range: out,
            };
        };
        self.fail(bad.clone(), null, arithmetic_error(limits.overflow));
        self.replaced(value, lane, bad, out)
    }

    /// Whether a value lies outside the limits; none when it can't.
    pub(super) fn beyond_limits(
        &mut self,
        value: &Ir,
        lane: Scalar,
        bounds: Bounds,
        limits: Range,
        wrapped: Option<Ir>,
    ) -> Option<Ir> {
        if bounds.within(limits) {
            return None;
        }
        let (least, most) = lane_range(lane);
        let low = limits.0 > least && (wrapped.is_some() || bounds.low < limits.0);
        let high = limits.1 < most && (wrapped.is_some() || bounds.high > limits.1);
        let below = low.then(|| value.clone().lt(constant(lane, limits.0)));
        let above = high.then(|| value.clone().gt(constant(lane, limits.1)));
        let bad = [wrapped, below, above].into_iter().flatten().reduce(Ir::or);
        bad.map(|bad| self.flag(bad))
    }

    /// The value, and where it is at fault the lower end of its range.
    pub(super) fn replaced(&mut self, value: Ir, lane: Scalar, bad: Ir, out: Range) -> Number {
        let narrow = Shape::lane(out);
        let value = bad.select(constant(lane, out.0), value);
        let value = convert(value, lane, narrow);
        Number {
            ir: self.keep(narrow, value),
            range: out,
        }
    }

    fn divided(
        &mut self,
        operation: Operation,
        l: &Number,
        r: &Number,
        bounds: Bounds,
        limits: &Limits<'_>,
        null: Option<&Ir>,
    ) -> Number {
        let quotients = range::divide(l.range, r.range);
        let mut lane = wider(l.lane(), r.lane());
        let wraps = |lane| !quotients.within(lane_range(lane));
        if operation == Operation::Divide && bounds.within(limits.range) && wraps(lane) {
            lane = Shape::lane(bounds.range());
        }
        let (a, b) = (self.keep(lane, l.to(lane)), self.keep(lane, r.to(lane)));
        let zero = (r.range.0 <= 0 && r.range.1 >= 0).then(|| self.flag(b.clone().eq(constant(lane, 0))));
        if let Some(zero) = &zero {
            self.fail(zero.clone(), null, arithmetic_error("division by zero"));
        }
        let wrapped = wraps(lane).then(|| {
            let least = a.clone().eq(constant(lane, lane_range(lane).0));
            self.flag(least.and(b.clone().eq(constant(lane, -1))))
        });
        // A NULL divisor is in range, as all registers are; but here a mistake elsewhere would end the process.
        let guard = (zero.is_none() && null.is_some()).then(|| b.clone().eq(constant(lane, 0)));
        let b = match [&zero, &wrapped, &guard].into_iter().flatten().cloned().reduce(Ir::or) {
            None => b,
            Some(replaced) => self.keep(lane, replaced.select(constant(lane, 1), b)),
        };
        let value = self.keep(lane, apply(operation, a, b));
        if operation == Operation::Remainder {
            return self.limited(value, lane, bounds, limits, None, null);
        }
        let value = match zero {
            None => value,
            Some(zero) => self.keep(lane, zero.select(constant(lane, bounds.clamp(limits.range).0), value)),
        };
        self.limited(value, lane, bounds, limits, wrapped, null)
    }
}

fn apply(operation: Operation, a: Ir, b: Ir) -> Ir {
    match operation {
        Operation::Add => a.plus(b),
        Operation::Subtract => a.minus(b),
        Operation::Multiply => a.times(b),
        Operation::Divide => a.over(b),
        Operation::Remainder => a.rem(b),
        Operation::And => a.and(b),
        Operation::Or => a.or(b),
        Operation::Xor => a.xor(b),
    }
}
