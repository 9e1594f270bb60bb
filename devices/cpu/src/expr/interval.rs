//! Dates and timestamps plus or minus an interval: months first, clipped to the month's last day, then days, then time.
//!
//! Constant intervals and common dates have loops here; everything else is arrow's arithmetic, row for row the same.

use trireme_device_api::{BinaryOperator, DeviceError, Interval, Type, Value};

use super::calendar::{COMMON_DAYS, add_months};
use super::constant::constant;
use super::integral::{self, Operation};
use super::{Compiled, Input, Node, host, not_integral};
use crate::number::map_values;
use crate::vector::{Lane, Shape, Vector};

const NANOSECONDS_PER_DAY: i64 = 86_400_000_000_000;
const NANOSECONDS_PER_SECOND: i64 = 1_000_000_000;
/// Intervals whose sum with a common date stays far from all limits.
const COMMON_MONTHS: i64 = 120_000;

/// Builds `left operator right`, one of which is an interval.
pub(super) fn build(
    operator: BinaryOperator,
    left: Compiled,
    right: Compiled,
    data_type: &Type,
) -> Result<Compiled, DeviceError> {
    if operator == BinaryOperator::Add && matches!(left.shape.data_type, Type::Interval(_)) {
        if !matches!(right.shape.data_type, Type::Interval(_)) {
            return build(operator, right, left, data_type);
        }
    } else if let (Some(Value::Interval(interval)), true) = (&right.constant, left.shape.data_type == *data_type) {
        let sign = if operator == BinaryOperator::Add { 1 } else { -1 };
        let interval = *interval;
        match data_type {
            Type::Date32 => return date(operator, left, right, interval, sign),
            Type::Timestamp { unit, zone } if interval.months == 0 && (interval.days == 0 || zone.is_none()) => {
                return timestamp(left, interval, sign, unit.per_second());
            }
            _ => {}
        }
    }
    Ok(host::arithmetic(operator, left, right, data_type))
}

/// A date and a constant interval; a part of a day that is left over doesn't count.
fn date(
    operator: BinaryOperator,
    left: Compiled,
    right: Compiled,
    interval: Interval,
    sign: i64,
) -> Result<Compiled, DeviceError> {
    let months = i64::from(interval.months) * sign;
    let days = (i64::from(interval.days) + interval.nanoseconds / NANOSECONDS_PER_DAY) * sign;
    let (low, high) = left.range()?;
    let common = low >= COMMON_DAYS.0.into() && high <= COMMON_DAYS.1.into();
    if !common || months.abs() > COMMON_MONTHS || days.abs() > COMMON_DAYS.1 {
        return Ok(host::arithmetic(operator, left, right, &Type::Date32));
    }
    let mut shape = Shape::of_type(Type::Date32, left.shape.nullable);
    if months == 0 {
        let days = constant(Value::Int(days.into()), &Type::Date32);
        let limits = shape.range.unwrap_or_default();
        return integral::build(Operation::Add, left, days, shape, limits, "date overflow");
    }
    let shift = |day: i128| i128::from(add_months(day as i64, months) + days);
    let range = (shift(low), shift(high));
    shape.range = Some(range);
    let (fails, costly) = (left.fails, left.costly);
    let node = Shift {
        operand: left,
        months,
        days,
        lane: Lane::of_range(range.0, range.1),
    };
    Ok(Compiled::new(node, shape, fails, costly))
}

/// A timestamp and a constant interval without months; what is less than a unit is rounded down.
fn timestamp(left: Compiled, interval: Interval, sign: i64, per_second: i64) -> Result<Compiled, DeviceError> {
    let unit = i128::from(NANOSECONDS_PER_SECOND / per_second);
    let days = i128::from(interval.days) * i128::from(NANOSECONDS_PER_DAY);
    let units = ((days + i128::from(interval.nanoseconds)) * i128::from(sign)).div_euclid(unit);
    let shape = Shape::of_type(left.shape.data_type.clone(), left.shape.nullable);
    let limits = shape.range.unwrap_or_default();
    let units = constant(Value::Int(units), &shape.data_type);
    integral::build(Operation::Add, left, units, shape, limits, "timestamp overflow")
}

struct Shift {
    operand: Compiled,
    months: i64,
    days: i64,
    lane: Lane,
}

impl Node for Shift {
    fn eval<'x>(&self, input: &Input<'_, 'x>) -> Result<Vector<'x>, DeviceError> {
        let vector = self.operand.eval(input)?;
        let days = vector.integers::<i32>(input.isa).ok_or_else(not_integral)?;
        let shifted = map_values(&days, |day| (add_months(day.into(), self.months) + self.days) as i32);
        drop(days);
        Ok(Vector::of(shifted)
            .with_valid(vector.valid)
            .into_lane(self.lane, input.isa))
    }
}
