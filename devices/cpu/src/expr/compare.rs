//! Comparisons. One with a constant is a test of an interval, `low <= x <= high`, in the operand's own lane, whichever
//! operator it came from; ranges that decide it leave nothing to compute.

use std::borrow::Cow;
use std::cmp::Ordering;

use arrow::datatypes::i256;
use trireme_device_api::{BinaryOperator, DeviceError, Type, Value};

use super::arithmetic::{scale, shifted};
use super::constant::constant;
use super::{ColumnTest, Compiled, Input, Mask, Node, in_list, not_integral, range, text};
use crate::bits::Order;
use crate::isa::{Isa, primitive};
use crate::number::{Number, between, between_and, by_lane, map, zip, zip_values};
use crate::vector::{Data, Lane, Shape, Vector, both_valid};

/// Builds `left operator right`.
pub(super) fn build(operator: BinaryOperator, left: Compiled, right: Compiled) -> Result<Compiled, DeviceError> {
    let null_safe = matches!(operator, BinaryOperator::Distinct | BinaryOperator::NotDistinct);
    if !null_safe {
        let is_null = |side: &Compiled| side.constant == Some(Value::Null) || side.shape.data_type == Type::Null;
        if (is_null(&left) || is_null(&right)) && !left.fails && !right.fails {
            return Ok(constant(Value::Null, &Type::Boolean));
        }
        if left.constant.is_some() && right.constant.is_none() {
            return build(operator.mirrored(), right, left);
        }
    }
    let (left, right, kind) = match shifts(&left, &right)? {
        Shifts::Exact(l, r) => {
            let (left, right) = (shifted(left, l)?, shifted(right, r)?);
            if let (false, true, Some(Value::Int(_))) = (null_safe, left.shape.range.is_some(), &right.constant) {
                return with_constant(operator, left, &right);
            }
            let kind = kind(&left, &right)?;
            (left, right, kind)
        }
        Shifts::Wide(l, r) => (left, right, Kind::Scaled(l, r)),
    };
    if let (Kind::Bytes, BinaryOperator::Equal | BinaryOperator::NotEqual, Some(Value::Bytes(_))) =
        (kind, operator, &right.constant)
    {
        return in_list::build(left, &[right], operator == BinaryOperator::NotEqual);
    }
    let nullable = !null_safe && (left.shape.nullable || right.shape.nullable);
    let shape = Shape::of_type(Type::Boolean, nullable);
    if let (Kind::Integral(_), false) = (kind, null_safe)
        && let Some(decided) = decide(operator, left.range()?, right.range()?)
        && !left.fails
        && !right.fails
    {
        return Ok(decided_by_range(decided, vec![left, right], shape));
    }
    let (fails, costly) = (left.fails || right.fails, left.costly || right.costly);
    let node = Compare {
        operator,
        left,
        right,
        kind,
    };
    Ok(Compiled::new(node, shape, fails, costly))
}

/// Builds `low <= operand <= high`, or its opposite.
pub(super) fn interval(operand: Compiled, low: i128, high: i128, negated: bool) -> Result<Compiled, DeviceError> {
    let shape = Shape::of_type(Type::Boolean, operand.shape.nullable);
    let (least, most) = operand.range()?;
    let (low, high) = (low.max(least), high.min(most));
    if !operand.fails {
        if low > high {
            return Ok(decided_by_range(negated, vec![operand], shape));
        }
        if (low, high) == (least, most) {
            return Ok(decided_by_range(!negated, vec![operand], shape));
        }
    }
    let empty = low > high;
    let lane = Lane::of_range(least, most);
    let (fails, costly) = (operand.fails, operand.costly);
    let node = Interval {
        operand,
        low: if empty { least } else { low },
        high: if empty { most } else { high },
        negated: negated != empty,
        lane,
    };
    Ok(Compiled::new(node, shape, fails, costly))
}

/// The values for which `x operator value` is true, as an interval; the flag says that it is the others.
pub(super) fn as_interval(operator: BinaryOperator, value: i128) -> Option<(i128, i128, bool)> {
    let (low, high) = (i128::MIN, i128::MAX);
    Some(match operator {
        BinaryOperator::Equal => (value, value, false),
        BinaryOperator::NotEqual => (value, value, true),
        BinaryOperator::Less => (value, high, true),
        BinaryOperator::LessOrEqual => (low, value, false),
        BinaryOperator::Greater => (low, value, true),
        BinaryOperator::GreaterOrEqual => (value, high, false),
        _ => return None,
    })
}

fn with_constant(operator: BinaryOperator, left: Compiled, right: &Compiled) -> Result<Compiled, DeviceError> {
    let value = right.integer().ok_or_else(not_integral)?;
    let (low, high, negated) = as_interval(operator, value).ok_or_else(not_integral)?;
    interval(left, low, high, negated)
}

/// The powers of ten by which decimals come to one scale.
enum Shifts {
    /// 128 bits hold the results.
    Exact(i32, i32),
    /// They may not.
    Wide(i32, i32),
}

fn shifts(left: &Compiled, right: &Compiled) -> Result<Shifts, DeviceError> {
    if left.shape.range.is_none() || right.shape.range.is_none() {
        return Ok(Shifts::Exact(0, 0));
    }
    let (l, r) = (scale(&left.shape.data_type), scale(&right.shape.data_type));
    let (l, r) = (l.max(r) - l, l.max(r) - r);
    for (side, shift) in [(left, l), (right, r)] {
        let range = side.range()?;
        let exact = range::power_of_ten(shift).is_some_and(|factor| range::multiply(range, (factor, factor)).exact);
        if !exact {
            return Ok(Shifts::Wide(l, r));
        }
    }
    Ok(Shifts::Exact(l, r))
}

/// The result, when bounds decide it.
fn decide(operator: BinaryOperator, l: (i128, i128), r: (i128, i128)) -> Option<bool> {
    let (less, greater) = (l.1 < r.0, l.0 > r.1);
    let (at_most, at_least) = (l.1 <= r.0, l.0 >= r.1);
    match operator {
        BinaryOperator::Equal => (less || greater).then_some(false),
        BinaryOperator::NotEqual => (less || greater).then_some(true),
        BinaryOperator::Less => less.then_some(true).or(at_least.then_some(false)),
        BinaryOperator::LessOrEqual => at_most.then_some(true).or(greater.then_some(false)),
        BinaryOperator::Greater => greater.then_some(true).or(at_most.then_some(false)),
        BinaryOperator::GreaterOrEqual => at_least.then_some(true).or(less.then_some(false)),
        _ => None,
    }
}

fn decided_by_range(value: bool, operands: Vec<Compiled>, shape: Shape) -> Compiled {
    if !shape.nullable {
        return constant(Value::Boolean(value), &Type::Boolean);
    }
    let costly = operands.iter().any(|operand| operand.costly);
    let operands = operands.into_iter().filter(|operand| operand.shape.nullable).collect();
    Compiled::new(Decided { value, operands }, shape, false, costly)
}

/// What kind of values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Integral(Lane),
    /// Decimals that 128 bits don't hold at one scale: powers of ten for both sides.
    Scaled(i32, i32),
    Boolean,
    Float32,
    Float64,
    Bytes,
    Null,
}

fn kind(left: &Compiled, right: &Compiled) -> Result<Kind, DeviceError> {
    let (l, r) = (&left.shape, &right.shape);
    Ok(match (&l.data_type, &r.data_type) {
        (Type::Null, _) | (_, Type::Null) => Kind::Null,
        (Type::Boolean, Type::Boolean) => Kind::Boolean,
        (Type::Float32, Type::Float32) => Kind::Float32,
        (Type::Float64, Type::Float64) => Kind::Float64,
        (a, b) if a.is_bytes() && b.is_bytes() => Kind::Bytes,
        (a, b) => match (l.lane(), r.lane()) {
            (Some(l), Some(r)) => Kind::Integral(l.max(r)),
            _ => {
                return Err(DeviceError::Unsupported(format!(
                    "a comparison of {a:?} and {b:?} is not fused"
                )));
            }
        },
    })
}

/// TRUE or FALSE wherever no operand is NULL.
struct Decided {
    value: bool,
    operands: Vec<Compiled>,
}

impl Node for Decided {
    fn eval<'x>(&self, input: &Input<'_, 'x>) -> Result<Vector<'x>, DeviceError> {
        let mut valid = None;
        for operand in &self.operands {
            let vector = operand.eval(input)?;
            let mine = match vector.data {
                Data::Null(rows) => Some(vec![0; rows].into()),
                _ => vector.valid,
            };
            valid = both_valid(valid, mine, input.isa);
        }
        let data = Data::Bool(vec![u8::from(self.value); input.rows].into());
        Ok(Vector { data, valid })
    }
}

/// `low <= operand <= high`, or its opposite.
struct Interval {
    operand: Compiled,
    low: i128,
    high: i128,
    negated: bool,
    lane: Lane,
}

impl Node for Interval {
    fn eval<'x>(&self, input: &Input<'_, 'x>) -> Result<Vector<'x>, DeviceError> {
        let vector = self.operand.eval(input)?;
        let values = by_lane!(self.lane, T => between(
            input.isa,
            &vector.integers::<T>(input.isa).ok_or_else(not_integral)?,
            self.low as T,
            self.high as T,
            self.negated,
        ));
        Ok(Vector {
            data: Data::Bool(values.into()),
            valid: vector.valid,
        })
    }

    fn take_tests(&mut self, tests: &mut Vec<ColumnTest>) -> bool {
        let Some(column) = self.operand.column else {
            return false;
        };
        tests.push(ColumnTest::Runs {
            column,
            runs: vec![(self.low, self.high)],
            negated: self.negated,
        });
        true
    }

    fn truth(&self, input: &Input<'_, '_>, mask: &mut Mask) -> Result<(), DeviceError> {
        let vector = self.operand.eval(input)?;
        by_lane!(self.lane, T => {
            let values = vector.integers::<T>(input.isa).ok_or_else(not_integral)?;
            let (low, high) = (self.low as T, self.high as T);
            match &mut mask.bytes {
                None => mask.bytes = Some(between(input.isa, &values, low, high, self.negated)),
                Some(bytes) => between_and(input.isa, &values, low, high, self.negated, bytes),
            }
        });
        if let Some(valid) = vector.valid {
            mask.and(valid, input.isa);
        }
        Ok(())
    }
}

/// Two vectors, row by row.
struct Compare {
    operator: BinaryOperator,
    left: Compiled,
    right: Compiled,
    kind: Kind,
}

impl Node for Compare {
    fn take_tests(&mut self, tests: &mut Vec<ColumnTest>) -> bool {
        let (Kind::Integral(_), Some(left), Some(right)) = (self.kind, self.left.column, self.right.column) else {
            return false;
        };
        let (left, order, right, negated) = match self.operator {
            BinaryOperator::Equal => (left, Order::Equal, right, false),
            BinaryOperator::NotEqual => (left, Order::Equal, right, true),
            BinaryOperator::Less => (left, Order::Less, right, false),
            BinaryOperator::GreaterOrEqual => (left, Order::Less, right, true),
            BinaryOperator::Greater => (right, Order::Less, left, false),
            BinaryOperator::LessOrEqual => (right, Order::Less, left, true),
            _ => return false,
        };
        tests.push(ColumnTest::Order {
            left,
            order,
            right,
            negated,
        });
        true
    }

    fn eval<'x>(&self, input: &Input<'_, 'x>) -> Result<Vector<'x>, DeviceError> {
        let (left, right) = (self.left.eval(input)?, self.right.eval(input)?);
        let values = self.values(&left, &right, input)?;
        if matches!(self.operator, BinaryOperator::Distinct | BinaryOperator::NotDistinct) {
            return Ok(self.null_safe(&values, &left, &right, input.rows));
        }
        let valid = if self.kind == Kind::Null {
            Some(Cow::Owned(vec![0; input.rows]))
        } else {
            both_valid(left.valid, right.valid, input.isa)
        };
        Ok(Vector {
            data: Data::Bool(values.into()),
            valid,
        })
    }
}

impl Compare {
    fn values(&self, left: &Vector<'_>, right: &Vector<'_>, input: &Input<'_, '_>) -> Result<Vec<u8>, DeviceError> {
        let isa = input.isa;
        let operator = match self.operator {
            BinaryOperator::NotDistinct => BinaryOperator::Equal,
            BinaryOperator::Distinct => BinaryOperator::NotEqual,
            other => other,
        };
        Ok(match (self.kind, &left.data, &right.data) {
            (Kind::Integral(lane), ..) => by_lane!(lane, T => {
                let a = left.integers::<T>(isa).ok_or_else(not_integral)?;
                let b = right.integers::<T>(isa).ok_or_else(not_integral)?;
                numbers(isa, operator, &a, &b)
            }),
            (Kind::Scaled(l, r), ..) => {
                let a = left.to_i128(isa).ok_or_else(not_integral)?;
                let b = right.to_i128(isa).ok_or_else(not_integral)?;
                let ordering = |(a, b): (&i128, &i128)| scaled(*a, l).cmp(&scaled(*b, r));
                a.iter()
                    .zip(b.iter())
                    .map(|pair| u8::from(holds(operator, ordering(pair))))
                    .collect()
            }
            (Kind::Boolean, Data::Bool(a), Data::Bool(b)) => {
                let signed = |values: &[u8]| map(isa, values, |value: u8| value as i8);
                numbers(isa, operator, &signed(a), &signed(b))
            }
            (Kind::Float32, Data::F32(a), Data::F32(b)) => {
                let double = |values: &[f32]| map(isa, values, |value: f32| f64::from(value));
                floats(isa, operator, &double(a), &double(b))
            }
            (Kind::Float64, Data::F64(a), Data::F64(b)) => floats(isa, operator, a, b),
            (Kind::Bytes, ..) => text::compare(operator, left, right, isa),
            (Kind::Null, ..) => vec![u8::from(operator == BinaryOperator::NotEqual); input.rows],
            _ => {
                return Err(DeviceError::Internal(
                    "operands of a comparison are not of one type".to_owned(),
                ));
            }
        })
    }

    /// NULL equals NULL and nothing else.
    fn null_safe<'x>(&self, values: &[u8], left: &Vector<'_>, right: &Vector<'_>, rows: usize) -> Vector<'x> {
        let distinct = self.operator == BinaryOperator::Distinct;
        let one = |row: usize| match (left.is_null(row), right.is_null(row)) {
            (false, false) => values[row],
            (true, true) => u8::from(!distinct),
            _ => u8::from(distinct),
        };
        Vector::new(Data::Bool((0..rows).map(one).collect::<Vec<u8>>().into()))
    }
}

/// 38 digits and up to 38 more fit 256 bits.
fn scaled(value: i128, shift: i32) -> i256 {
    let factor = i256::from_i128(10).wrapping_pow(shift.unsigned_abs());
    i256::from_i128(value).wrapping_mul(factor)
}

/// Integers of one lane.
pub(super) fn numbers<T: Number>(isa: Isa, operator: BinaryOperator, a: &[T], b: &[T]) -> Vec<u8> {
    match operator {
        BinaryOperator::Equal => equal(isa, a, b),
        BinaryOperator::NotEqual => different(isa, a, b),
        BinaryOperator::Less => less(isa, a, b),
        BinaryOperator::Greater => less(isa, b, a),
        BinaryOperator::LessOrEqual => at_most(isa, a, b),
        _ => at_most(isa, b, a),
    }
}

primitive! {
    fn equal[T: Number](a: &[T], b: &[T]) -> Vec<u8> {
        zip_values(a, b, |a, b| u8::from(a == b))
    }
}

primitive! {
    fn different[T: Number](a: &[T], b: &[T]) -> Vec<u8> {
        zip_values(a, b, |a, b| u8::from(a != b))
    }
}

primitive! {
    fn less[T: Number](a: &[T], b: &[T]) -> Vec<u8> {
        zip_values(a, b, |a, b| u8::from(a < b))
    }
}

primitive! {
    fn at_most[T: Number](a: &[T], b: &[T]) -> Vec<u8> {
        zip_values(a, b, |a, b| u8::from(a <= b))
    }
}

/// Floats: NaN equals NaN and is larger than everything; −0.0 equals 0.0.
pub(super) fn floats(isa: Isa, operator: BinaryOperator, a: &[f64], b: &[f64]) -> Vec<u8> {
    match operator {
        BinaryOperator::Equal => zip(isa, a, b, |a: f64, b: f64| u8::from(same(a, b))),
        BinaryOperator::NotEqual => zip(isa, a, b, |a: f64, b: f64| u8::from(!same(a, b))),
        BinaryOperator::Less => zip(isa, a, b, |a: f64, b: f64| u8::from(below(a, b))),
        BinaryOperator::Greater => zip(isa, b, a, |a: f64, b: f64| u8::from(below(a, b))),
        BinaryOperator::LessOrEqual => zip(isa, b, a, |a: f64, b: f64| u8::from(!below(a, b))),
        _ => zip(isa, a, b, |a: f64, b: f64| u8::from(!below(a, b))),
    }
}

#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "loops over it must take on the features of their caller"
)]
fn same(a: f64, b: f64) -> bool {
    (a == b) | (a.is_nan() & b.is_nan())
}

#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "loops over it must take on the features of their caller"
)]
fn below(a: f64, b: f64) -> bool {
    (a < b) | (!a.is_nan() & b.is_nan())
}

/// Whether an ordering is what an operator asks for.
pub(super) fn holds(operator: BinaryOperator, ordering: Ordering) -> bool {
    match operator {
        BinaryOperator::Equal => ordering.is_eq(),
        BinaryOperator::NotEqual => ordering.is_ne(),
        BinaryOperator::Less => ordering.is_lt(),
        BinaryOperator::LessOrEqual => ordering.is_le(),
        BinaryOperator::Greater => ordering.is_gt(),
        _ => ordering.is_ge(),
    }
}
