//! Parts of dates and timestamps.
//!
//! Dates whose range is short are looked up in a table of all their days; else years have a vector loop and the rest goes
//! row by row.

use trireme_device_api::{DatePart, DeviceError, Type, Value};

use super::calendar::{COMMON_DAYS, Civil, civil, days_of, iso_week, years};
use super::constant::constant;
use super::{Compiled, Input, Node, not_integral};
use crate::isa::{Isa, primitive};
use crate::number::{any_outside, map_values};
use crate::vector::{Lane, Shape, Vector};

/// Tables have at most so many days.
const TABLE_DAYS_MAX: i128 = 1 << 16;
const SECONDS_PER_DAY: i64 = 86_400;

/// Builds the part of a Date32 or a Timestamp without zone.
pub(super) fn build(part: DatePart, operand: Compiled, data_type: &Type) -> Result<Compiled, DeviceError> {
    let per_second = match &operand.shape.data_type {
        Type::Date32 => None,
        Type::Timestamp { unit, zone: None } => Some(unit.per_second()),
        Type::Null => return Ok(constant(Value::Null, data_type)),
        other => return Err(DeviceError::Unsupported(format!("a part of a {other:?} is not fused"))),
    };
    let (low, high) = operand.range()?;
    let per_day = per_second.map_or(1, |per_second| per_second * SECONDS_PER_DAY);
    let days = (low.div_euclid(per_day.into()), high.div_euclid(per_day.into()));
    let of_time = matches!(part, DatePart::Hour | DatePart::Minute | DatePart::Second);
    let table = (!of_time && days.1 - days.0 < TABLE_DAYS_MAX).then(|| table(part, days));
    let mut shape = Shape::of_type(data_type.clone(), operand.shape.nullable);
    let range = match &table {
        Some(table) => table.iter().fold((i128::MAX, i128::MIN), |(l, h), v| {
            (l.min((*v).into()), h.max((*v).into()))
        }),
        None => range(part, days, per_second.is_some()),
    };
    shape.range = Some(range);
    let (fails, costly) = (operand.fails, operand.costly);
    let node = Extract {
        part,
        operand,
        per_second,
        first: days.0 as i64,
        table,
        lane: Lane::of_range(range.0, range.1),
    };
    Ok(Compiled::new(node, shape, fails, costly))
}

fn table(part: DatePart, (first, last): (i128, i128)) -> Vec<i32> {
    (first as i64..=last as i64)
        .map(|day| of_day(part, day) as i32)
        .collect()
}

fn range(part: DatePart, days: (i128, i128), has_time: bool) -> (i128, i128) {
    match part {
        DatePart::Year => (civil(days.0 as i64).year.into(), civil(days.1 as i64).year.into()),
        DatePart::Quarter => (1, 4),
        DatePart::Month => (1, 12),
        DatePart::Week => (1, 53),
        DatePart::Day => (1, 31),
        DatePart::DayOfWeek => (0, 6),
        DatePart::DayOfYear => (1, 366),
        _ if !has_time => (0, 0),
        DatePart::Hour => (0, 23),
        DatePart::Minute | DatePart::Second => (0, 59),
    }
}

/// A part of a day; parts of its time are 0.
fn of_day(part: DatePart, days: i64) -> i64 {
    match part {
        DatePart::Year => civil(days).year,
        DatePart::Quarter => (civil(days).month - 1) / 3 + 1,
        DatePart::Month => civil(days).month,
        DatePart::Week => iso_week(days),
        DatePart::Day => civil(days).day,
        DatePart::DayOfWeek => (days + 4).rem_euclid(7),
        DatePart::DayOfYear => {
            let first = Civil {
                month: 1,
                day: 1,
                ..civil(days)
            };
            days - days_of(first) + 1
        }
        DatePart::Hour | DatePart::Minute | DatePart::Second => 0,
    }
}

struct Extract {
    part: DatePart,
    operand: Compiled,
    /// Units of a timestamp; none for dates.
    per_second: Option<i64>,
    /// The day of the table's first entry.
    first: i64,
    table: Option<Vec<i32>>,
    lane: Lane,
}

impl Node for Extract {
    fn eval<'x>(&self, input: &Input<'_, 'x>) -> Result<Vector<'x>, DeviceError> {
        let vector = self.operand.eval(input)?;
        let isa = input.isa;
        let values: Vec<i32> = match self.per_second {
            None => self.of_days(&vector.integers::<i32>(isa).ok_or_else(not_integral)?, isa),
            Some(per_second) => {
                let units = vector.to_i64(isa).ok_or_else(not_integral)?;
                match self.part {
                    DatePart::Hour | DatePart::Minute | DatePart::Second => self.of_time(&units, per_second),
                    _ => {
                        let per_day = per_second * SECONDS_PER_DAY;
                        let days: Vec<i64> = units.iter().map(|units| units.div_euclid(per_day)).collect();
                        self.of_wide_days(&days, isa)
                    }
                }
            }
        };
        Ok(Vector::of(values).with_valid(vector.valid).into_lane(self.lane, isa))
    }
}

impl Extract {
    fn of_time(&self, units: &[i64], per_second: i64) -> Vec<i32> {
        map_values(units, |units| {
            let seconds = units.div_euclid(per_second).rem_euclid(SECONDS_PER_DAY);
            (match self.part {
                DatePart::Hour => seconds / 3600,
                DatePart::Minute => seconds / 60 % 60,
                _ => seconds % 60,
            }) as i32
        })
    }

    fn of_wide_days(&self, days: &[i64], isa: Isa) -> Vec<i32> {
        if any_outside(isa, days, i32::MIN.into(), i32::MAX.into()) {
            return map_values(days, |days| of_day(self.part, days) as i32);
        }
        self.of_days(&map_values(days, |days| days as i32), isa)
    }

    fn of_days(&self, days: &[i32], isa: Isa) -> Vec<i32> {
        if let Some(table) = &self.table {
            let first = self.first as i32;
            return map_values(days, |day| {
                table
                    .get(day.wrapping_sub(first) as u32 as usize)
                    .copied()
                    .unwrap_or_default()
            });
        }
        let common = (COMMON_DAYS.0 as i32, COMMON_DAYS.1 as i32);
        match self.part {
            DatePart::Hour | DatePart::Minute | DatePart::Second => vec![0; days.len()],
            DatePart::Year if !any_outside(isa, days, common.0, common.1) => common_years(isa, days),
            part => map_values(days, |day| of_day(part, day.into()) as i32),
        }
    }
}

primitive! {
    fn common_years[](days: &[i32]) -> Vec<i32> {
        years(days)
    }
}
