//! Dates and timestamps: parts of them, and plus or minus a constant interval: months first, clipped to the month's last day,
//! then days, then time.

use trireme_device_api::{BinaryOperator, DatePart, Expr, Interval, Type, Value as Constant};

use super::calendar::{COMMON_DAYS, DATES, day, floor_divide, month, packed, year};
use super::cast::SECONDS_PER_DAY;
use super::integral::{Limits, Operation, UNLIMITED};
use super::range::{Bounds, Range};
use super::register::{Number, constant, integral, is_null, null_of, number};
use crate::build;
use crate::ir::{Expr as Ir, Scalar};
use crate::lower::{Lowered, Lowering, Row, Shape, Unsupported, Value};

const NANOSECONDS_PER_SECOND: i64 = 1_000_000_000;
const NANOSECONDS_PER_DAY: i64 = 86_400 * NANOSECONDS_PER_SECOND;

/// The reason why arithmetic of a time and a constant interval has no kernel.
pub(super) fn support(time: &Type, interval: Option<&Interval>) -> Result<(), String> {
    match time {
        Type::Date32 | Type::Timestamp { zone: None, .. } => Ok(()),
        Type::Timestamp { zone: Some(_), .. } if interval.is_some_and(|i| i.months == 0 && i.days == 0) => Ok(()),
        other => Err(format!("{other:?} plus an interval has no kernel")),
    }
}

impl Lowering<'_> {
    /// `left operator right`, one of which is an interval.
    pub(super) fn interval_arithmetic(
        &mut self,
        row: &mut Row,
        operator: BinaryOperator,
        (left, right): (&Expr, &Expr),
        data_type: &Type,
    ) -> Lowered<Value> {
        let (time, interval) = if matches!(right.data_type, Type::Interval(_)) {
            (left, right)
        } else {
            (right, left)
        };
        let interval = match self.folded(interval)? {
            Some(Ok(Constant::Interval(interval))) => interval,
            Some(Ok(_)) => {
                // Its errors count all the same.
                self.expr(row, time)?;
                return Ok(null_of(data_type));
            }
            Some(Err(error)) => return self.constant(Err(error), data_type),
            None => return Err(Unsupported("intervals that aren't constant have no kernel".to_owned())),
        };
        let sign = match operator {
            BinaryOperator::Add => 1,
            BinaryOperator::Subtract if time.data_type == left.data_type => -1,
            other => return Err(Unsupported(format!("{other:?} of an interval has no kernel"))),
        };
        support(&time.data_type, Some(&interval)).map_err(Unsupported)?;
        let value = self.expr(row, time)?;
        if is_null(&value) {
            return Ok(null_of(data_type));
        }
        let (operand, null) = (number(&value)?, value.null.clone());
        let shifted = match &time.data_type {
            Type::Timestamp { unit, .. } => {
                self.timestamp_plus(&operand, interval, sign, unit.per_second(), null.as_ref())?
            }
            _ => self.date_plus(&operand, interval, sign, null.as_ref())?,
        };
        Ok(integral(data_type, shifted, null))
    }

    /// A date and an interval; a part of a day that is left over doesn't count.
    fn date_plus(&mut self, date: &Number, interval: Interval, sign: i64, null: Option<&Ir>) -> Lowered<Number> {
        let months = i64::from(interval.months) * sign;
        let days = (i64::from(interval.days) + interval.nanoseconds / NANOSECONDS_PER_DAY) * sign;
        let common = date.range.0 >= COMMON_DAYS.0 && date.range.1 <= COMMON_DAYS.1;
        if months == 0 && common && i128::from(days).abs() <= COMMON_DAYS.1 {
            let limits = Type::Date32.value_range().unwrap_or(UNLIMITED.range);
            return self.plus_constant(date, days.into(), limits, "date overflow", null);
        }
        let later = self.months_later(date, months, "date overflow", null)?;
        self.plus_constant(&later, days.into(), DATES, "date overflow", null)
    }

    /// A day so many months later; days that libraries don't know are errors.
    fn months_later(&mut self, day: &Number, months: i64, overflow: &str, null: Option<&Ir>) -> Lowered<Number> {
        let known = self.plus_constant(day, 0, DATES, overflow, null)?;
        if months == 0 {
            return Ok(known);
        }
        let count = self.literal(months.into()).to(Scalar::I64);
        let later = self.add_months(known.to(Scalar::I64), count);
        let (few, many) = (i128::from(months) * 28, i128::from(months) * 31);
        let bounds = Bounds::exactly((known.range.0 + few.min(many) - 3, known.range.1 + few.max(many) + 3));
        let limits = Limits { range: DATES, overflow };
        Ok(self.limited(later, Scalar::I64, bounds, &limits, None, null))
    }

    fn timestamp_plus(
        &mut self,
        time: &Number,
        interval: Interval,
        sign: i64,
        per_second: i64,
        null: Option<&Ir>,
    ) -> Lowered<Number> {
        let limits = (i64::MIN.into(), i64::MAX.into());
        let unit = i128::from(NANOSECONDS_PER_SECOND / per_second);
        let nanoseconds = i128::from(interval.nanoseconds);
        let days = i128::from(interval.days) * i128::from(NANOSECONDS_PER_DAY);
        let units = ((days + nanoseconds) * i128::from(sign)).div_euclid(unit);
        if interval.months == 0 {
            return self.plus_constant(time, units, limits, "timestamp overflow", null);
        }
        let per_day = per_second * SECONDS_PER_DAY;
        let (day, rest) = self.day_and_rest(time, per_day);
        let months = i64::from(interval.months) * sign;
        let later = self.months_later(&day, months, "timestamp overflow", null)?;
        let factor = self.literal(per_day.into());
        let start = self.integral(Operation::Multiply, &later, &factor, &UNLIMITED, null)?;
        let same = self.integral(Operation::Add, &start, &rest, &UNLIMITED, null)?;
        self.plus_constant(&same, units, limits, "timestamp overflow", null)
    }

    /// A timestamp's day, and what is left of it.
    pub(super) fn day_and_rest(&mut self, time: &Number, per_day: i64) -> (Number, Number) {
        let divisor = i128::from(per_day);
        let day = floor_divide(self, Scalar::I64, time.to(Scalar::I64), divisor);
        let rest = time
            .to(Scalar::I64)
            .minus(day.clone().times(constant(Scalar::I64, divisor)));
        let rest_range = (0, divisor - 1);
        let lane = Shape::lane(rest_range);
        let rest = super::register::convert(rest, Scalar::I64, lane);
        let rest = Number {
            ir: self.keep(lane, rest),
            range: rest_range,
        };
        let range = (time.range.0.div_euclid(divisor), time.range.1.div_euclid(divisor));
        (self.fitting(day, range), rest)
    }

    /// A value of 64 bits that is known to lie in a range.
    fn fitting(&mut self, ir: Ir, range: Range) -> Number {
        let lane = Shape::lane(range);
        let ir = super::register::convert(ir, Scalar::I64, lane);
        Number {
            ir: self.keep(lane, ir),
            range,
        }
    }

    /// A part of a Date32 or a Timestamp without zone.
    pub(super) fn extract(&mut self, part: DatePart, operand: &Value, data_type: &Type) -> Lowered<Value> {
        if is_null(operand) {
            return Ok(null_of(data_type));
        }
        let time = number(operand)?;
        let null = operand.null.clone();
        let per_second = match &operand.shape.data_type {
            Type::Date32 => None,
            Type::Timestamp { unit, zone: None } => Some(unit.per_second()),
            other => return Err(Unsupported(format!("a part of a {other:?} has no kernel"))),
        };
        let (days, rest) = match per_second {
            None => (time, None),
            Some(per_second) => {
                let (days, rest) = self.day_and_rest(&time, per_second * SECONDS_PER_DAY);
                (days, Some((rest, per_second)))
            }
        };
        let (ir, range) = match (part, rest) {
            (DatePart::Hour | DatePart::Minute | DatePart::Second, None) => (build::i64(0), (0, 0)),
            (DatePart::Hour | DatePart::Minute | DatePart::Second, Some((rest, per_second))) => {
                let seconds = rest.to(Scalar::I64).over(build::i64(per_second));
                match part {
                    DatePart::Hour => (seconds.over(build::i64(3600)), (0, 23)),
                    DatePart::Minute => (seconds.over(build::i64(60)).rem(build::i64(60)), (0, 59)),
                    _ => (seconds.rem(build::i64(60)), (0, 59)),
                }
            }
            _ => self.part_of_day(part, &days),
        };
        let number = self.fitting(ir, range);
        Ok(integral(data_type, number, null))
    }

    fn part_of_day(&mut self, part: DatePart, days: &Number) -> (Ir, Range) {
        let range = days.range;
        let days = self.keep(Scalar::I64, days.to(Scalar::I64));
        match part {
            DatePart::Year => {
                let about = |days: i128| 1970 + (days * 400).div_euclid(146_097);
                (year(&self.civil(days)), (about(range.0) - 1, about(range.1) + 1))
            }
            DatePart::Month => (month(&self.civil(days)), (1, 12)),
            DatePart::Quarter => {
                let month = month(&self.civil(days));
                (month.plus(build::i64(2)).over(build::i64(3)), (1, 4))
            }
            DatePart::Day => (day(&self.civil(days)), (1, 31)),
            DatePart::DayOfWeek => {
                let shifted = self.keep(Scalar::I64, days.plus(build::i64(4)));
                let weeks = floor_divide(self, Scalar::I64, shifted.clone(), 7);
                (shifted.minus(weeks.times(build::i64(7))), (0, 6))
            }
            DatePart::DayOfYear => {
                let first = self.first_of_year(days.clone());
                (days.minus(first).plus(build::i64(1)), (1, 366))
            }
            _ => {
                // The Thursday of the week lies in the year that the week counts for.
                let shifted = days.plus(build::i64(3));
                let weeks = floor_divide(self, Scalar::I64, shifted, 7);
                let thursday = self.keep(Scalar::I64, weeks.times(build::i64(7)));
                let first = self.first_of_year(thursday.clone());
                let week = thursday.minus(first).over(build::i64(7)).plus(build::i64(1));
                (week, (1, 53))
            }
        }
    }

    /// The first day of a day's year.
    fn first_of_year(&mut self, days: Ir) -> Ir {
        let civil = self.civil(days);
        self.days_of(packed(year(&civil), build::i64(1), build::i64(1)))
    }
}
