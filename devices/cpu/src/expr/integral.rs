//! Arithmetic of integral lanes: the operation, the lane that computes it, and the check that the result's type needs.
//!
//! ```text
//!  exact bounds of the result within its type  → computed in the bounds' lane, no check
//!  else, the type fills a lane (BIGINT)        → computed in that lane, overflow detected
//!  else (decimals, unsigned)                   → computed in the bounds' lane, compared with the type's bounds
//! ```
//!
//! A check looks at all rows at once; only when it finds something are rows gone through, as NULL rows don't count.

use std::borrow::Cow;

use trireme_device_api::DeviceError;

use super::range::{self, Bounds};
use super::{Compiled, Input, Node, not_integral};
use crate::isa::{Isa, primitive};
use crate::number::{Convert, Number, any_outside, by_lane, map, zip};
use crate::vector::{Data, Lane, Shape, Vector, both_valid};

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

type Range = (i128, i128);

/// Integers below are exact as doubles, and so are their truncated quotients: two of them that aren't equal differ by more
/// than a rounding.
const DOUBLE_EXACT: u128 = 1 << 53;

/// Builds an operation whose result has `shape`'s type, or has to lie in `limits`; the shape's range is set here.
pub(super) fn build(
    operation: Operation,
    left: Compiled,
    right: Compiled,
    mut shape: Shape,
    limits: Range,
    overflow: &'static str,
) -> Result<Compiled, DeviceError> {
    let (l, r) = (left.range()?, right.range()?);
    let bounds = match operation {
        Operation::Add => range::add(l, r),
        Operation::Subtract => range::subtract(l, r),
        Operation::Multiply => range::multiply(l, r),
        Operation::Divide => range::divide(l, r),
        Operation::Remainder => exactly(range::remainder(l, r)),
        Operation::And | Operation::Or | Operation::Xor => exactly(range::bits(l, r)),
    };
    let out = bounds.clamp(limits);
    shape.range = Some(out);
    let full = Lane::of_range(limits.0, limits.1);
    let operands = left.shape.lane().max(right.shape.lane()).unwrap_or(Lane::I128);
    let fits = bounds.within(limits);
    let filled = full.range() == limits && operands <= full;
    let exact_lane = if bounds.exact {
        Lane::of_range(bounds.low, bounds.high)
    } else {
        Lane::I128
    };
    let mut lane = if fits || !filled { exact_lane } else { full };
    if matches!(
        operation,
        Operation::Divide | Operation::Remainder | Operation::And | Operation::Or | Operation::Xor
    ) {
        lane = lane.max(operands);
    }
    let divides = matches!(operation, Operation::Divide | Operation::Remainder);
    let by_zero = divides && r.0 <= 0 && r.1 >= 0;
    let check = Check {
        detect: !fits && (filled || !bounds.exact),
        limits: (!fits && !filled).then(|| (limits.0.max(lane.range().0), limits.1.min(lane.range().1))),
        by_zero,
        overflow,
        doubles: [l.0, l.1, r.0, r.1]
            .iter()
            .all(|bound| bound.unsigned_abs() < DOUBLE_EXACT)
            // Remainders come from quotients: of the smallest number and −1 it leaves the lane.
            && range::divide(l, r).within(lane.range()),
    };
    let widening = operation == Operation::Multiply
        && !check.detect
        && match lane {
            Lane::I64 => operands <= Lane::I32,
            Lane::I128 => operands <= Lane::I64,
            _ => false,
        };
    let nullable = left.shape.nullable || right.shape.nullable;
    shape.nullable = nullable;
    let fails = by_zero || !fits;
    let (fails, costly) = (left.fails || right.fails || fails, left.costly || right.costly);
    let node = Arithmetic {
        operation,
        left,
        right,
        lane,
        out: Lane::of_range(out.0, out.1),
        widening,
        check,
    };
    Ok(Compiled::new(node, shape, fails, costly))
}

fn exactly((low, high): Range) -> Bounds {
    Bounds { low, high, exact: true }
}

#[derive(Debug, Clone, Copy)]
struct Check {
    /// The lane may overflow.
    detect: bool,
    /// Results that the type doesn't hold lie outside.
    limits: Option<Range>,
    by_zero: bool,
    overflow: &'static str,
    /// Operands are exact as doubles.
    doubles: bool,
}

struct Arithmetic {
    operation: Operation,
    left: Compiled,
    right: Compiled,
    /// Computes.
    lane: Lane,
    /// Holds the results.
    out: Lane,
    /// Operands of half the lane's width.
    widening: bool,
    check: Check,
}

/// A vector's values, or the one value of all rows.
enum Operand<'v, T: Number> {
    Many(Cow<'v, [T]>),
    One(T),
}

impl<'v, T: Number> Operand<'v, T> {
    fn of(compiled: &Compiled, vector: Option<&'v Vector<'_>>, isa: Isa) -> Result<Self, DeviceError> {
        match (compiled.integer(), vector) {
            (Some(value), None) => Ok(Operand::One(T::of(value))),
            (_, Some(vector)) => vector.integers(isa).map(Operand::Many).ok_or_else(not_integral),
            (None, None) => Err(not_integral()),
        }
    }

    fn many(&self, rows: usize) -> Cow<'_, [T]> {
        match self {
            Operand::Many(values) => Cow::Borrowed(values),
            Operand::One(value) => Cow::Owned(vec![*value; rows]),
        }
    }
}

impl Node for Arithmetic {
    fn eval<'x>(&self, input: &Input<'_, 'x>) -> Result<Vector<'x>, DeviceError> {
        let operand = |side: &Compiled| side.integer().is_none().then(|| side.eval(input)).transpose();
        let (left, right) = (operand(&self.left)?, operand(&self.right)?);
        let isa = input.isa;
        let mixed = match (&left, &right) {
            (Some(left), Some(right)) if self.operation == Operation::Multiply => self.mixed(left, right, isa),
            _ => None,
        };
        let data = match (mixed, self.widening, self.lane) {
            (Some(product), ..) => product,
            (None, true, Lane::I64) => self.widened::<i32, i64>(left.as_ref(), right.as_ref(), input)?,
            (None, true, _) => self.widened::<i64, i128>(left.as_ref(), right.as_ref(), input)?,
            _ => by_lane!(self.lane, T => self.run::<T>(left.as_ref(), right.as_ref(), input)?),
        };
        let valid = both_valid(left.and_then(|v| v.valid), right.and_then(|v| v.valid), isa);
        Ok(Vector { data, valid }.into_lane(self.out, isa))
    }
}

impl Arithmetic {
    /// A product of operands of different widths, without a pass to widen the narrower; none where there is no loop for it.
    fn mixed<'x>(&self, left: &Vector<'_>, right: &Vector<'_>, isa: Isa) -> Option<Data<'x>> {
        if self.check.detect || self.check.limits.is_some() {
            return None;
        }
        let product = |wide: &Data<'_>, narrow: &Data<'_>| {
            Some(match (self.lane, wide, narrow) {
                (Lane::I16, Data::I16(a), Data::I8(b)) => i16::data(products(isa, a, b).into()),
                (Lane::I32, Data::I16(a), Data::I8(b)) => i32::data(products(isa, a, b).into()),
                (Lane::I32, Data::I32(a), Data::I8(b)) => i32::data(products(isa, a, b).into()),
                (Lane::I32, Data::I32(a), Data::I16(b)) => i32::data(products(isa, a, b).into()),
                (Lane::I64, Data::I32(a), Data::I8(b)) => i64::data(products(isa, a, b).into()),
                (Lane::I64, Data::I32(a), Data::I16(b)) => i64::data(products(isa, a, b).into()),
                (Lane::I64, Data::I64(a), Data::I8(b)) => i64::data(products(isa, a, b).into()),
                (Lane::I64, Data::I64(a), Data::I16(b)) => i64::data(products(isa, a, b).into()),
                _ => return None,
            })
        };
        product(&left.data, &right.data).or_else(|| product(&right.data, &left.data))
    }

    fn run<'x, T: Number>(
        &self,
        left: Option<&Vector<'x>>,
        right: Option<&Vector<'x>>,
        input: &Input<'_, 'x>,
    ) -> Result<Data<'x>, DeviceError> {
        let isa = input.isa;
        let a = Operand::<T>::of(&self.left, left, isa)?;
        let b = Operand::<T>::of(&self.right, right, isa)?;
        let divides = matches!(self.operation, Operation::Divide | Operation::Remainder);
        let values = if self.check.detect || divides {
            let (values, suspicious) = self.checked(&a, &b, input.rows, isa);
            if suspicious {
                self.blame(&a, &b, left, right, input.rows)?;
            }
            values
        } else {
            self.wrapped(&a, &b, input.rows, isa)
        };
        if let Some((low, high)) = self.check.limits
            && any_outside(isa, &values, T::of(low), T::of(high))
        {
            let outside = |row: usize| values[row].wide() < low || values[row].wide() > high;
            if (0..input.rows).any(|row| outside(row) && is_value(left, right, row)) {
                return Err(DeviceError::Arithmetic(self.check.overflow.to_owned()));
            }
        }
        Ok(T::data(values.into()))
    }

    /// For lanes that hold the result.
    fn wrapped<T: Number>(&self, a: &Operand<'_, T>, b: &Operand<'_, T>, rows: usize, isa: Isa) -> Vec<T> {
        use Operand::{Many, One};
        match (self.operation, a, b) {
            (Operation::Add, Many(a), One(b)) | (Operation::Add, One(b), Many(a)) => add_one(isa, a, *b),
            (Operation::Add, Many(a), Many(b)) => add_many(isa, a, b),
            (Operation::Subtract, Many(a), One(b)) => add_one(isa, a, T::default().minus(*b)),
            (Operation::Subtract, One(a), Many(b)) => subtract_from(isa, *a, b),
            (Operation::Subtract, Many(a), Many(b)) => subtract_many(isa, a, b),
            (Operation::Multiply, Many(a), One(b)) | (Operation::Multiply, One(b), Many(a)) => multiply_one(isa, a, *b),
            (Operation::Multiply, Many(a), Many(b)) => multiply_many(isa, a, b),
            (operation, a, b) => {
                let (a, b) = (a.many(rows), b.many(rows));
                match operation {
                    Operation::And => zip(Isa::Baseline, &a, &b, T::and),
                    Operation::Or => zip(Isa::Baseline, &a, &b, T::or),
                    Operation::Xor => zip(Isa::Baseline, &a, &b, T::xor),
                    Operation::Add => add_many(isa, &a, &b),
                    Operation::Subtract => subtract_many(isa, &a, &b),
                    _ => multiply_many(isa, &a, &b),
                }
            }
        }
    }

    /// The results, and whether some row, perhaps a NULL one, overflowed or divided by zero.
    fn checked<T: Number>(&self, a: &Operand<'_, T>, b: &Operand<'_, T>, rows: usize, isa: Isa) -> (Vec<T>, bool) {
        let zero = T::default();
        if let (Operation::Divide | Operation::Remainder, true, Operand::Many(a)) =
            (self.operation, self.check.doubles && !self.check.detect, a)
        {
            let quotient = self.operation == Operation::Divide;
            return match b {
                Operand::One(b) if *b != zero => (divide_one(isa, a, *b, quotient), false),
                b => {
                    let b = b.many(rows);
                    let by_zero = self.check.by_zero && b.contains(&zero);
                    (divide_many(isa, a, &b, quotient), by_zero)
                }
            };
        }
        if let (Operation::Divide | Operation::Remainder, Operand::Many(a), Operand::One(b)) = (self.operation, a, b)
            && !self.check.by_zero
            && !self.check.detect
        {
            return (self.divide_by(a, *b), false);
        }
        let (a, b) = (a.many(rows), b.many(rows));
        match self.operation {
            Operation::Add => checked(isa, &a, &b, T::plus_checked),
            Operation::Subtract => checked(isa, &a, &b, T::minus_checked),
            Operation::Multiply => checked(isa, &a, &b, T::times_checked),
            Operation::Divide => {
                let (values, overflow) = checked(Isa::Baseline, &a, &b, T::over);
                (values, overflow || (self.check.by_zero && b.contains(&zero)))
            }
            _ => (
                zip(Isa::Baseline, &a, &b, T::rest),
                self.check.by_zero && b.contains(&zero),
            ),
        }
    }

    fn divide_by<T: Number>(&self, a: &[T], b: T) -> Vec<T> {
        if self.operation == Operation::Divide {
            map(Isa::Baseline, a, |a: T| a.over(b).0)
        } else {
            map(Isa::Baseline, a, |a: T| a.rest(b))
        }
    }

    /// The error of the first row at fault that isn't NULL.
    #[cold]
    fn blame<T: Number>(
        &self,
        a: &Operand<'_, T>,
        b: &Operand<'_, T>,
        left: Option<&Vector<'_>>,
        right: Option<&Vector<'_>>,
        rows: usize,
    ) -> Result<(), DeviceError> {
        let (a, b) = (a.many(rows), b.many(rows));
        for row in (0..rows).filter(|row| is_value(left, right, *row)) {
            let overflowed = match self.operation {
                Operation::Add => a[row].plus_checked(b[row]).1,
                Operation::Subtract => a[row].minus_checked(b[row]).1,
                Operation::Multiply => a[row].times_checked(b[row]).1,
                Operation::Divide if b[row] == T::default() => return Err(division_by_zero()),
                Operation::Remainder if b[row] == T::default() => return Err(division_by_zero()),
                Operation::Divide => a[row].over(b[row]).1,
                _ => false,
            };
            if overflowed {
                return Err(DeviceError::Arithmetic(self.check.overflow.to_owned()));
            }
        }
        Ok(())
    }

    /// A product in twice the operands' width.
    fn widened<'x, S: Number + Convert<T>, T: Number>(
        &self,
        left: Option<&Vector<'x>>,
        right: Option<&Vector<'x>>,
        input: &Input<'_, 'x>,
    ) -> Result<Data<'x>, DeviceError> {
        let isa = input.isa;
        let a = Operand::<S>::of(&self.left, left, isa)?;
        let b = Operand::<S>::of(&self.right, right, isa)?;
        let values: Vec<T> = match (&a, &b) {
            (Operand::Many(a), Operand::One(b)) | (Operand::One(b), Operand::Many(a)) => widen_one(isa, a, *b),
            (a, b) => widen_many(isa, &a.many(input.rows), &b.many(input.rows)),
        };
        if let Some((low, high)) = self.check.limits
            && any_outside(isa, &values, T::of(low), T::of(high))
        {
            let outside = |row: usize| values[row].wide() < low || values[row].wide() > high;
            if (0..input.rows).any(|row| outside(row) && is_value(left, right, row)) {
                return Err(DeviceError::Arithmetic(self.check.overflow.to_owned()));
            }
        }
        Ok(T::data(values.into()))
    }
}

fn is_value(left: Option<&Vector<'_>>, right: Option<&Vector<'_>>, row: usize) -> bool {
    ![left, right].into_iter().flatten().any(|side| side.is_null(row))
}

pub(super) fn division_by_zero() -> DeviceError {
    DeviceError::Arithmetic("division by zero".to_owned())
}

primitive! {
    fn add_one[T: Number](a: &[T], b: T) -> Vec<T> {
        crate::number::map_values(a, |a| a.plus(b))
    }
}

primitive! {
    fn add_many[T: Number](a: &[T], b: &[T]) -> Vec<T> {
        crate::number::zip_values(a, b, T::plus)
    }
}

primitive! {
    fn subtract_from[T: Number](a: T, b: &[T]) -> Vec<T> {
        crate::number::map_values(b, |b| a.minus(b))
    }
}

primitive! {
    fn subtract_many[T: Number](a: &[T], b: &[T]) -> Vec<T> {
        crate::number::zip_values(a, b, T::minus)
    }
}

primitive! {
    fn multiply_one[T: Number](a: &[T], b: T) -> Vec<T> {
        crate::number::map_values(a, |a| a.times(b))
    }
}

primitive! {
    fn multiply_many[T: Number](a: &[T], b: &[T]) -> Vec<T> {
        crate::number::zip_values(a, b, T::times)
    }
}

primitive! {
    fn widen_one[S: Number + Convert<T>, T: Number](a: &[S], b: S) -> Vec<T> {
        let b = b.convert();
        crate::number::map_values(a, |a| a.convert().times(b))
    }
}

primitive! {
    fn widen_many[S: Number + Convert<T>, T: Number](a: &[S], b: &[S]) -> Vec<T> {
        crate::number::zip_values(a, b, |a, b| a.convert().times(b.convert()))
    }
}

primitive! {
    fn products[A: Convert<T>, B: Convert<T>, T: Number](a: &[A], b: &[B]) -> Vec<T> {
        crate::number::zip_values(a, b, |a, b| a.convert().times(b.convert()))
    }
}

primitive! {
    /// Quotients, or remainders, of numbers that doubles hold exactly.
    fn divide_many[T: Number](a: &[T], b: &[T], quotient: bool) -> Vec<T> {
        let divide = |a: T, b: T| T::of_double(a.double() / b.double());
        if quotient {
            crate::number::zip_values(a, b, divide)
        } else {
            crate::number::zip_values(a, b, |a, b| a.minus(divide(a, b).times(b)))
        }
    }
}

primitive! {
    /// As `divide_many`, by one number.
    fn divide_one[T: Number](a: &[T], b: T, quotient: bool) -> Vec<T> {
        let divide = |a: T| T::of_double(a.double() / b.double());
        if quotient {
            crate::number::map_values(a, divide)
        } else {
            crate::number::map_values(a, |a| a.minus(divide(a).times(b)))
        }
    }
}

primitive! {
    /// Results and whether some row overflowed.
    fn checked[T: Number, F: Fn(T, T) -> (T, bool)](a: &[T], b: &[T], f: F) -> (Vec<T>, bool) {
        let rows = a.len().min(b.len());
        let mut overflowed = false;
        let mut out = vec![T::default(); rows];
        for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
            let (value, overflow) = f(*a, *b);
            *out = value;
            overflowed |= overflow;
        }
        (out, overflowed)
    }
}
