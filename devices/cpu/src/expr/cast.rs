//! CAST and TRY_CAST. The casts of queries' hot paths have loops here; all others are arrow-cast's, row for row.
//!
//! A loop is taken only where it gives what arrow-cast gives; ranges often prove that nothing can fail.

use arrow::compute::can_cast_types;
use trireme_device_api::{DeviceError, TimeUnit, Type, Value};

use super::arithmetic::{scale, shifted};
use super::calendar::COMMON_DAYS;
use super::constant::constant;
use super::integral::{self, Operation};
use super::{Compiled, Input, Node, host, not_boolean, not_integral, range};
use crate::isa::{Isa, primitive};
use crate::number::{Number, map, map_values};
use crate::vector::{Data, Lane, Shape, Vector};

const SECONDS_PER_DAY: i64 = 86_400;

/// The reason why a cast is not fused, if it isn't.
pub(super) fn support(from: &Type, to: &Type) -> Result<(), String> {
    if can_cast_types(&from.to_arrow(), &to.to_arrow()) {
        Ok(())
    } else {
        Err(format!("a cast of {from:?} to {to:?} is not fused"))
    }
}

/// Builds a cast to a type.
pub(super) fn build(operand: Compiled, to: &Type, safe: bool) -> Result<Compiled, DeviceError> {
    let from = operand.shape.data_type.clone();
    if from == Type::Null {
        return Ok(constant(Value::Null, to));
    }
    if from == *to || (from.is_text() && (to.is_text() || to.is_bytes())) {
        return Ok(relabelled(operand, to));
    }
    match (operand.shape.range, to.value_range()) {
        (Some(range), Some(limits)) => match integral(&from, to, range, limits, safe)? {
            Some(Plan::Relabel) => Ok(relabelled(operand, to)),
            Some(Plan::Multiply(digits)) => {
                let mut scaled = shifted(operand, digits)?;
                let bounds = scaled.range()?;
                if bounds.0 >= limits.0 && bounds.1 <= limits.1 {
                    return Ok(relabelled(scaled, to));
                }
                scaled.shape.data_type = to.clone();
                checked(scaled, to, limits)
            }
            Some(Plan::Scale(factor)) => {
                let factor = constant(Value::Int(factor), to);
                let shape = Shape::of_type(to.clone(), operand.shape.nullable);
                integral::build(Operation::Multiply, operand, factor, shape, limits, "cast out of range")
            }
            Some(Plan::Truncate(divisor)) => {
                let divisor = constant(Value::Int(divisor), to);
                let shape = Shape::of_type(to.clone(), operand.shape.nullable);
                integral::build(Operation::Divide, operand, divisor, shape, limits, "cast out of range")
            }
            Some(Plan::Change(change, bounds)) => Ok(changed(operand, change, to, Some(bounds))),
            None => Ok(host::cast(operand, to, safe)),
        },
        (Some(_), None) if to.is_float() && !matches!(from, Type::Date32 | Type::Time(_) | Type::Timestamp { .. }) => {
            let divisor = matches!(from, Type::Decimal { .. }).then(|| 10_f64.powi(scale(&from)));
            let change = if *to == Type::Float64 {
                Change::Float64(divisor)
            } else {
                Change::Float32(divisor)
            };
            Ok(changed(operand, change, to, None))
        }
        (None, Some(_)) if from == Type::Boolean && to.is_integer() => {
            Ok(changed(operand, Change::Boolean, to, Some((0, 1))))
        }
        _ if from == Type::Float32 && *to == Type::Float64 => Ok(changed(operand, Change::Widen, to, None)),
        _ => Ok(host::cast(operand, to, safe)),
    }
}

/// The same values of another type that holds them.
fn relabelled(mut operand: Compiled, to: &Type) -> Compiled {
    if operand.shape.data_type == *to {
        return operand;
    }
    if let Some(value) = operand.constant {
        return constant(value, to);
    }
    operand.shape.data_type = to.clone();
    operand
}

/// The same values, which must lie in the type's limits.
fn checked(operand: Compiled, to: &Type, limits: (i128, i128)) -> Result<Compiled, DeviceError> {
    let zero = constant(Value::Int(0), to);
    let shape = Shape::of_type(to.clone(), operand.shape.nullable);
    integral::build(Operation::Add, operand, zero, shape, limits, "cast out of range")
}

/// How an integral value becomes another.
enum Plan {
    Relabel,
    /// By a power of ten.
    Multiply(i32),
    Scale(i128),
    /// Divide, toward zero.
    Truncate(i128),
    /// With these bounds of the result.
    Change(Change, (i128, i128)),
}

type Range = (i128, i128);

fn integral(from: &Type, to: &Type, range: Range, limits: Range, safe: bool) -> Result<Option<Plan>, DeviceError> {
    let within = |(low, high): Range| low >= limits.0 && high <= limits.1;
    let (from_scale, to_scale) = (scale(from), scale(to));
    let is_decimal = |data_type: &Type| matches!(data_type, Type::Decimal { .. });
    Ok(match (from, to) {
        _ if from_scale < 0 || to_scale < 0 => None,
        (Type::Decimal { .. }, Type::Decimal { .. }) if to_scale < from_scale => {
            let Some(divisor) = range::power_of_ten(from_scale - to_scale) else {
                return Ok(None);
            };
            let bounds = (round(range.0, divisor), round(range.1, divisor));
            within(bounds).then_some(Plan::Change(Change::Round(divisor), bounds))
        }
        (from, Type::Decimal { .. }) if is_decimal(from) || from.is_integer() => {
            let digits = to_scale - from_scale;
            let factor = range::power_of_ten(digits);
            let bounds = factor.map(|factor| range::multiply(range, (factor, factor)));
            bounds
                .filter(|bounds| bounds.exact && (!safe || bounds.within(limits)))
                .map(|_| Plan::Multiply(digits))
        }
        (Type::Decimal { .. }, to) if to.is_integer() => {
            let divisor = range::power_of_ten(from_scale);
            let fits = |divisor: &i128| !safe || within((range.0 / divisor, range.1 / divisor));
            divisor.filter(fits).map(Plan::Truncate)
        }
        (Type::Date32, Type::Timestamp { unit, zone: None }) => {
            let factor = i128::from(unit.per_second() * SECONDS_PER_DAY);
            within((range.0 * factor, range.1 * factor)).then_some(Plan::Scale(factor))
        }
        (Type::Timestamp { unit, zone: None }, Type::Date32) => {
            let divisor = unit.per_second() * SECONDS_PER_DAY;
            let bounds = (range.0.div_euclid(divisor.into()), range.1.div_euclid(divisor.into()));
            let common = bounds.0 >= COMMON_DAYS.0.into() && bounds.1 <= COMMON_DAYS.1.into();
            common.then_some(Plan::Change(Change::Floor(divisor), bounds))
        }
        (from, to) if same_number(from, to) && within(range) => Some(Plan::Relabel),
        _ => None,
    })
}

/// True when arrow-cast keeps the number.
fn same_number(from: &Type, to: &Type) -> bool {
    let wide_time = |data_type: &Type| {
        matches!(
            data_type,
            Type::Timestamp { .. } | Type::Time(TimeUnit::Microsecond | TimeUnit::Nanosecond)
        )
    };
    match (from, to) {
        (from, to) if from.is_integer() && to.is_integer() => true,
        (Type::Int32 | Type::Int64, Type::Date32) | (Type::Date32, Type::Int32 | Type::Int64) => true,
        (Type::Int64, to) => wide_time(to),
        (from, Type::Int64) => wide_time(from),
        _ => false,
    }
}

/// Divided and rounded half away from zero.
fn round(value: i128, divisor: i128) -> i128 {
    let (quotient, rest) = (value / divisor, value % divisor);
    let half = divisor / 2;
    if rest >= half && value >= 0 {
        quotient + 1
    } else if rest <= -half && value < 0 {
        quotient - 1
    } else {
        quotient
    }
}

fn changed(operand: Compiled, change: Change, to: &Type, bounds: Option<Range>) -> Compiled {
    let mut shape = Shape::of_type(to.clone(), operand.shape.nullable);
    shape.range = bounds;
    let (fails, costly) = (operand.fails, operand.costly);
    let node = Changed {
        operand,
        change,
        lane: shape.lane(),
    };
    Compiled::new(node, shape, fails, costly)
}

/// What happens to each value.
#[derive(Debug, Clone, Copy)]
enum Change {
    Boolean,
    /// Divided by this, if it is a decimal.
    Float64(Option<f64>),
    Float32(Option<f64>),
    /// A 32-bit float to 64.
    Widen,
    Round(i128),
    Floor(i64),
}

struct Changed {
    operand: Compiled,
    change: Change,
    lane: Option<Lane>,
}

impl Node for Changed {
    fn eval<'x>(&self, input: &Input<'_, 'x>) -> Result<Vector<'x>, DeviceError> {
        let vector = self.operand.eval(input)?;
        let isa = input.isa;
        let data = match self.change {
            Change::Boolean => match &vector.data {
                Data::Bool(values) => Data::I8(map(isa, values, u8::cast_signed).into()),
                _ => return Err(not_boolean()),
            },
            Change::Float64(divisor) => Data::F64(doubles(&vector, divisor, isa)?.into()),
            Change::Float32(Some(divisor)) => {
                Data::F32(map(isa, &doubles(&vector, Some(divisor), isa)?, |value: f64| value as f32).into())
            }
            Change::Float32(None) => match vector.to_i64(isa) {
                Some(values) => Data::F32(map(isa, &values, |value: i64| value as f32).into()),
                None => {
                    let values = vector.to_i128(isa).ok_or_else(not_integral)?;
                    Data::F32(map_values(&values, |value| value as f32).into())
                }
            },
            Change::Widen => match &vector.data {
                Data::F32(values) => Data::F64(map(isa, values, |value: f32| f64::from(value)).into()),
                _ => return Err(not_integral()),
            },
            Change::Round(divisor) => rounded(&vector, divisor, isa)?,
            Change::Floor(divisor) => {
                let values = vector.to_i64(isa).ok_or_else(not_integral)?;
                i64::data(map_values(&values, |value| value.div_euclid(divisor)).into())
            }
        };
        let changed = Vector {
            data,
            valid: vector.valid,
        };
        Ok(match self.lane {
            Some(lane) => changed.into_lane(lane, isa),
            None => changed,
        })
    }
}

fn rounded<'x>(vector: &Vector<'_>, divisor: i128, isa: Isa) -> Result<Data<'x>, DeviceError> {
    if let (Some(values), Ok(divisor)) = (vector.to_i64(isa), i64::try_from(divisor)) {
        let half = divisor / 2;
        let round = |value: i64| {
            let (quotient, rest) = (value / divisor, value % divisor);
            quotient + i64::from(rest >= half) - i64::from(rest <= -half)
        };
        return Ok(i64::data(map_values(&values, round).into()));
    }
    let values = vector.to_i128(isa).ok_or_else(not_integral)?;
    Ok(i128::data(map_values(&values, |value| round(value, divisor)).into()))
}

fn doubles(vector: &Vector<'_>, divisor: Option<f64>, isa: Isa) -> Result<Vec<f64>, DeviceError> {
    let divisor = divisor.unwrap_or(1.0);
    Ok(match &vector.data {
        Data::I8(values) => narrow_doubles(isa, &crate::number::convert::<i8, i32>(isa, values), divisor),
        Data::I16(values) => narrow_doubles(isa, &crate::number::convert::<i16, i32>(isa, values), divisor),
        Data::I32(values) => narrow_doubles(isa, values, divisor),
        Data::I64(values) => wide_doubles(isa, values, divisor),
        _ => {
            let values = vector.to_i128(isa).ok_or_else(not_integral)?;
            map_values(&values, |value| value as f64 / divisor)
        }
    })
}

primitive! {
    fn narrow_doubles[](values: &[i32], divisor: f64) -> Vec<f64> {
        map_values(values, |value| f64::from(value) / divisor)
    }
}

primitive! {
    fn wide_doubles[](values: &[i64], divisor: f64) -> Vec<f64> {
        map_values(values, |value| value as f64 / divisor)
    }
}
