//! Arithmetic, as `SEMANTICS.md` says: exact results, checked against the result type at the very end.

use arrow::datatypes::i256;
use trireme_device_api::{BinaryOperator, DeviceError, Interval, Type, Value};

use super::calendar::add_interval;
use super::overflow;
use crate::values::{narrow_float, power_of_ten};

/// `left op right` for operands that are not NULL; `op` is one of the five, or of the three on bits.
pub(crate) fn arithmetic(
    op: BinaryOperator,
    (left, left_type): (&Value, &Type),
    (right, right_type): (&Value, &Type),
    result: &Type,
) -> Result<Value, DeviceError> {
    match (left, right) {
        (Value::Float(l), Value::Float(r)) => float(op, *l, *r, result),
        (Value::Interval(l), Value::Interval(r)) => interval(op, *l, *r),
        (Value::Int(l), Value::Interval(r)) => match op {
            BinaryOperator::Add => Ok(Value::Int(add_interval(*l, left_type, 1, *r)?)),
            BinaryOperator::Subtract => Ok(Value::Int(add_interval(*l, left_type, -1, *r)?)),
            _ => Err(unsupported(op, left_type, right_type)),
        },
        (Value::Interval(l), Value::Int(r)) if op == BinaryOperator::Add => {
            Ok(Value::Int(add_interval(*r, right_type, 1, *l)?))
        }
        (Value::Int(l), Value::Int(r)) => match (left_type, right_type, result) {
            (Type::Decimal { scale: ls, .. }, Type::Decimal { scale: rs, .. }, Type::Decimal { scale, .. }) => {
                decimal(op, (*l, *ls), (*r, *rs), *scale, result)
            }
            (Type::Date32, Type::Date32, Type::Interval(_)) if op == BinaryOperator::Subtract => {
                let days = i32::try_from(l - r).map_err(|_| overflow("-"))?;
                Ok(Value::Interval(Interval {
                    days,
                    ..Interval::default()
                }))
            }
            (l_type, r_type, _) if l_type.is_integer() && r_type.is_integer() && result.is_integer() => {
                integer(op, *l, *r, result)
            }
            (Type::Date32, Type::Date32, _) if op == BinaryOperator::Subtract && result.is_integer() => {
                integer(op, *l, *r, result)
            }
            _ => Err(unsupported(op, left_type, right_type)),
        },
        _ => Err(unsupported(op, left_type, right_type)),
    }
}

fn unsupported(op: BinaryOperator, left: &Type, right: &Type) -> DeviceError {
    DeviceError::Unsupported(format!("{op:?} of {left:?} and {right:?}"))
}

fn division_by_zero() -> DeviceError {
    DeviceError::Arithmetic("division by zero".to_owned())
}

/// The value, if it is one of the result type's.
fn fit(value: Option<i128>, result: &Type, op: BinaryOperator) -> Result<Value, DeviceError> {
    let (low, high) = result.value_range().unwrap_or((i128::MIN, i128::MAX));
    match value {
        Some(value) if (low..=high).contains(&value) => Ok(Value::Int(value)),
        _ => Err(overflow(&format!("{op:?}"))),
    }
}

fn integer(op: BinaryOperator, l: i128, r: i128, result: &Type) -> Result<Value, DeviceError> {
    let value = match op {
        BinaryOperator::Add => l.checked_add(r),
        BinaryOperator::Subtract => l.checked_sub(r),
        BinaryOperator::Multiply => l.checked_mul(r),
        BinaryOperator::Divide | BinaryOperator::Remainder if r == 0 => return Err(division_by_zero()),
        BinaryOperator::Divide => l.checked_div(r),
        BinaryOperator::Remainder => l.checked_rem(r),
        BinaryOperator::BitAnd => Some(l & r),
        BinaryOperator::BitOr => Some(l | r),
        BinaryOperator::BitXor => Some(l ^ r),
        _ => return Err(unsupported(op, result, result)),
    };
    fit(value, result, op)
}

fn float(op: BinaryOperator, l: f64, r: f64, result: &Type) -> Result<Value, DeviceError> {
    fn apply<T>(op: BinaryOperator, l: T, r: T) -> Option<T>
    where
        T: std::ops::Add<Output = T>
            + std::ops::Sub<Output = T>
            + std::ops::Mul<Output = T>
            + std::ops::Div<Output = T>
            + std::ops::Rem<Output = T>,
    {
        Some(match op {
            BinaryOperator::Add => l + r,
            BinaryOperator::Subtract => l - r,
            BinaryOperator::Multiply => l * r,
            BinaryOperator::Divide => l / r,
            BinaryOperator::Remainder => l % r,
            _ => return None,
        })
    }
    let value = if matches!(result, Type::Float32) {
        apply(op, narrow_float(l), narrow_float(r)).map(f64::from)
    } else {
        apply(op, l, r)
    };
    value.map(Value::Float).ok_or_else(|| unsupported(op, result, result))
}

fn interval(op: BinaryOperator, l: Interval, r: Interval) -> Result<Value, DeviceError> {
    let parts = match op {
        BinaryOperator::Add => (
            l.months.checked_add(r.months),
            l.days.checked_add(r.days),
            l.nanoseconds.checked_add(r.nanoseconds),
        ),
        BinaryOperator::Subtract => (
            l.months.checked_sub(r.months),
            l.days.checked_sub(r.days),
            l.nanoseconds.checked_sub(r.nanoseconds),
        ),
        _ => return Err(DeviceError::Unsupported(format!("{op:?} of intervals"))),
    };
    match parts {
        (Some(months), Some(days), Some(nanoseconds)) => Ok(Value::Interval(Interval {
            months,
            days,
            nanoseconds,
        })),
        _ => Err(overflow("interval arithmetic")),
    }
}

/// `value / 10^from` as an unscaled value of scale `to`, truncated; none when it needs more than 256 bits.
pub(crate) fn rescale(value: i256, from: i32, to: i32) -> Option<i256> {
    let shift = u8::try_from(from.abs_diff(to)).ok().filter(|shift| *shift <= 76);
    match (shift, to >= from) {
        _ if value == i256::ZERO => Some(value),
        (Some(shift), true) => value.checked_mul(power_of_ten(shift)),
        (Some(shift), false) => value.checked_div(power_of_ten(shift)),
        (None, true) => None,
        (None, false) => Some(i256::ZERO),
    }
}

/// An unscaled value, if it is one of the decimal type's.
pub(crate) fn fit_decimal(value: Option<i256>, result: &Type) -> Result<Value, DeviceError> {
    let (low, high) = result.value_range().unwrap_or((i128::MIN, i128::MAX));
    value
        .and_then(i256::to_i128)
        .filter(|value| (low..=high).contains(value))
        .map(Value::Int)
        .ok_or_else(|| DeviceError::Arithmetic("decimal overflow".to_owned()))
}

fn decimal(
    op: BinaryOperator,
    (l, left_scale): (i128, i8),
    (r, right_scale): (i128, i8),
    result_scale: i8,
    result: &Type,
) -> Result<Value, DeviceError> {
    let (l, r) = (i256::from_i128(l), i256::from_i128(r));
    let (ls, rs, scale) = (i32::from(left_scale), i32::from(right_scale), i32::from(result_scale));
    let common = ls.max(rs);
    let aligned = rescale(l, ls, common).zip(rescale(r, rs, common));
    let value = match op {
        BinaryOperator::Add => aligned
            .and_then(|(l, r)| l.checked_add(r))
            .and_then(|sum| rescale(sum, common, scale)),
        BinaryOperator::Subtract => aligned
            .and_then(|(l, r)| l.checked_sub(r))
            .and_then(|difference| rescale(difference, common, scale)),
        BinaryOperator::Multiply => l.checked_mul(r).and_then(|product| rescale(product, ls + rs, scale)),
        BinaryOperator::Divide | BinaryOperator::Remainder if r == i256::ZERO => return Err(division_by_zero()),
        BinaryOperator::Divide => {
            let shift = scale - ls + rs;
            if shift >= 0 {
                rescale(l, 0, shift).and_then(|l| l.checked_div(r))
            } else {
                // A divisor beyond 256 bits is beyond every dividend.
                Some(
                    rescale(r, 0, -shift)
                        .and_then(|r| l.checked_div(r))
                        .unwrap_or(i256::ZERO),
                )
            }
        }
        BinaryOperator::Remainder => aligned
            .and_then(|(l, r)| l.checked_rem(r))
            .and_then(|rest| rescale(rest, common, scale)),
        _ => return Err(unsupported(op, result, result)),
    };
    fit_decimal(value, result)
}

/// `−value`.
pub(crate) fn negate(value: &Value, data_type: &Type) -> Result<Value, DeviceError> {
    match value {
        Value::Int(value) => fit(value.checked_neg(), data_type, BinaryOperator::Subtract),
        Value::Float(value) => Ok(Value::Float(-value)),
        Value::Interval(value) => interval(BinaryOperator::Subtract, Interval::default(), *value),
        _ => Err(DeviceError::Unsupported(format!("negation of {data_type:?}"))),
    }
}
