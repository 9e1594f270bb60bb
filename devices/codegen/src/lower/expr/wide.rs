//! Decimal arithmetic whose intermediate values leave 128 bits, in steps that don't.
//!
//! ```text
//!  x·10^k ± y    (x ± y / 10^k)·10^k ± y % 10^k
//!  x·10^k / y    long division: the remainder takes nine more digits at a time where they fit, else one
//! ```

use super::integral::{Limits, Operation};
use super::range::{Bounds, Range, power_of_ten, scale};
use super::register::{Number, arithmetic_error, constant};
use crate::build::{self, Builder};
use crate::ir::{Expr as Ir, Function, Scalar, Stmt};
use crate::lower::{Lowered, Lowering, Unsupported};
use trireme_device_api::Type;

/// Digits that long division takes at once, and their power of ten.
const CHUNK_DIGITS: u32 = 9;
const CHUNK: i128 = 1_000_000_000;

impl Lowering<'_> {
    /// `l operation r` of decimals of these types, whatever their size.
    pub(super) fn wide(
        &mut self,
        operation: Operation,
        (l, left): (&Number, &Type),
        (r, right): (&Number, &Type),
        result: &Type,
        limits: &Limits<'_>,
        null: Option<&Ir>,
    ) -> Lowered<Number> {
        let (left, right, result) = (scale(left), scale(right), scale(result));
        let aligned = left.max(right);
        let from = match operation {
            Operation::Multiply => left + right,
            Operation::Divide => result,
            _ => aligned,
        };
        let (a, b) = (l.to(Scalar::I128), r.to(Scalar::I128));
        let (a, b) = (self.keep(Scalar::I128, a), self.keep(Scalar::I128, b));
        let decimal = |(low, high): Range| low >= -DECIMAL_MAX && high <= DECIMAL_MAX;
        if from != result || ![l.range, r.range, limits.range].into_iter().all(decimal) {
            return Err(Unsupported(format!("{operation:?} of decimals that changes the scale")));
        }
        let (value, wrapped) = match operation {
            Operation::Multiply => {
                let beyond = self.beyond_product(a.clone(), b.clone());
                (a.times(b), Some(self.flag(beyond)))
            }
            Operation::Divide => (self.long_division(a, b, result - left + right, false, null)?, None),
            Operation::Remainder => {
                let rest = self.wide_remainder(a, b, aligned - left, aligned - right, null)?;
                (rest, None)
            }
            _ => self.wide_sum(operation, a, b, aligned - left, aligned - right)?,
        };
        let value = self.keep(Scalar::I128, value);
        let all = Bounds {
            low: i128::MIN,
            high: i128::MAX,
            exact: false,
        };
        Ok(self.limited(value, Scalar::I128, all, limits, wrapped, null))
    }

    /// `a ± b`, one of which is scaled; and whether that is beyond all decimals.
    fn wide_sum(&mut self, operation: Operation, a: Ir, b: Ir, left: i32, right: i32) -> Lowered<(Ir, Option<Ir>)> {
        let b = match operation {
            Operation::Subtract => self.keep(Scalar::I128, b.negate()),
            _ => b,
        };
        let (scaled, other, digits) = if left > 0 { (a, b, left) } else { (b, a, right) };
        if digits == 0 {
            // Two decimals leave 128 bits only by so little that the sum's low bits are no decimal.
            return Ok((scaled.plus(other), None));
        }
        let power = power(digits)?;
        let sum = scaled.plus(other.clone().over(power.clone()));
        let sum = self.keep(Scalar::I128, sum);
        let beyond = self.beyond_product(sum.clone(), power.clone());
        let beyond = self.flag(beyond);
        Ok((sum.times(power.clone()).plus(other.rem(power)), Some(beyond)))
    }

    fn wide_remainder(&mut self, a: Ir, b: Ir, left: i32, right: i32, null: Option<&Ir>) -> Lowered<Ir> {
        if right == 0 {
            return self.long_division(a, b, left, true, null);
        }
        let b = self.divisor(b, null);
        let power = power(right)?;
        let beyond = self.beyond_product(b.clone(), power.clone());
        let beyond = self.flag(beyond);
        let product = beyond.clone().select(constant(Scalar::I128, 1), b.times(power));
        let product = self.keep(Scalar::I128, product);
        // A divisor beyond all decimals leaves the dividend as it is.
        Ok(beyond.select(a.clone(), a.rem(product)))
    }

    /// A divisor that isn't zero: where it is, an error.
    fn divisor(&mut self, b: Ir, null: Option<&Ir>) -> Ir {
        let zero = self.flag(b.clone().eq(constant(Scalar::I128, 0)));
        self.fail(zero.clone(), null, arithmetic_error("division by zero"));
        self.keep(Scalar::I128, zero.select(constant(Scalar::I128, 1), b))
    }

    fn long_division(&mut self, a: Ir, b: Ir, digits: i32, rest: bool, null: Option<&Ir>) -> Lowered<Ir> {
        let digits = u32::try_from(digits).map_err(|_| Unsupported("a decimal that loses digits".to_owned()))?;
        let b = self.divisor(b, null);
        let name = if rest { "decimal_rest" } else { "decimal_quotient" };
        let function = self.function(name, |_| long_division(name, rest));
        Ok(build::call(function, vec![a, b, build::u32(digits)]))
    }
}

/// The largest decimal.
const DECIMAL_MAX: i128 = 10_i128.pow(38) - 1;

fn power(digits: i32) -> Lowered<Ir> {
    power_of_ten(digits)
        .map(|power| constant(Scalar::I128, power))
        .ok_or_else(|| Unsupported(format!("a decimal at {digits} more digits")))
}

/// `a · 10^digits / b`, or what is left of it: both are decimals of up to 38 digits, `b` isn't zero. A quotient that has more
/// is the smallest integer.
fn long_division(name: &str, rest: bool) -> Function {
    let wide = |value: i128| constant(Scalar::I128, value);
    let mut f = Builder::new();
    let (a, b) = (f.var(Scalar::I128), f.var(Scalar::I128));
    let left = f.var(Scalar::U32);
    let (a_ir, b_ir) = (Ir::from(a), Ir::from(b));
    let magnitude = |ir: Ir| ir.clone().lt(wide(0)).select(ir.clone().negate(), ir);
    let x = f.set(Scalar::I128, magnitude(a_ir.clone()));
    let y = f.set(Scalar::I128, magnitude(b_ir.clone()));
    let (x, y) = (Ir::from(x), Ir::from(y));
    let quotient = f.set(Scalar::I128, x.clone().over(y.clone()));
    let remainder = f.set(Scalar::I128, x.minus(Ir::from(quotient).times(y.clone())));
    let chunked = f.set(Scalar::Bool, y.clone().le(wide(i128::MAX / CHUNK)));
    f.repeat(|f| {
        f.when(Ir::from(left).eq(build::u32(0)), |f| f.push(Stmt::Break));
        if !rest {
            // One more digit would be one too many.
            f.when(Ir::from(quotient).gt(wide(10_i128.pow(37))), |f| {
                f.push(Stmt::Return(wide(i128::MIN)));
            });
        }
        let many = Ir::from(chunked)
            .and(Ir::from(left).ge(build::u32(CHUNK_DIGITS)))
            .and(Ir::from(quotient).le(wide(10_i128.pow(28))));
        let then = f.block(|f| {
            let scaled = f.set(Scalar::I128, Ir::from(remainder).times(wide(CHUNK)));
            let more = f.set(Scalar::I128, Ir::from(scaled).over(y.clone()));
            f.assign(remainder, Ir::from(scaled).minus(Ir::from(more).times(y.clone())));
            f.assign(quotient, Ir::from(quotient).times(wide(CHUNK)).plus(more.into()));
            f.assign(left, Ir::from(left).minus(build::u32(CHUNK_DIGITS)));
        });
        let otherwise = f.block(|f| {
            one_digit(f, remainder.into(), &y, quotient.into());
            f.assign(left, Ir::from(left).minus(build::u32(1)));
        });
        f.push(Stmt::If {
            condition: many,
            then,
            otherwise,
        });
    });
    let negative = if rest {
        a_ir.lt(wide(0))
    } else {
        a_ir.lt(wide(0)).xor(b_ir.lt(wide(0)))
    };
    let value = Ir::from(if rest { remainder } else { quotient });
    f.push(Stmt::Return(negative.select(value.clone().negate(), value)));
    f.function(name, 3, Scalar::I128)
}

/// Ten times the remainder, without leaving twice the divisor: the digit is how often the divisor was reached.
fn one_digit(f: &mut Builder, remainder: Ir, y: &Ir, quotient: Ir) {
    let (Ir::Var(rest), Ir::Var(total)) = (remainder, quotient) else {
        return;
    };
    let step = f.set(Scalar::I128, rest.into());
    let digit = f.set(Scalar::I128, constant(Scalar::I128, 0));
    f.assign(rest, constant(Scalar::I128, 0));
    f.range(Scalar::U32, build::u32(0), build::u32(10), build::u32(1), |f, _| {
        let room = f.set(Scalar::I128, y.clone().minus(step.into()));
        let over = Ir::from(rest).ge(room.into());
        let then = f.block(|f| {
            f.assign(rest, Ir::from(rest).minus(room.into()));
            f.assign(digit, Ir::from(digit).plus(constant(Scalar::I128, 1)));
        });
        let otherwise = f.block(|f| f.assign(rest, Ir::from(rest).plus(step.into())));
        f.push(Stmt::If {
            condition: over,
            then,
            otherwise,
        });
    });
    let ten = Ir::from(total).times(constant(Scalar::I128, 10));
    f.assign(total, ten.plus(digit.into()));
}
