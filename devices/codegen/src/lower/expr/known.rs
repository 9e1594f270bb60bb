//! Host functions whose meaning is known by their name, which is their identity: `abs`, `date_trunc`, and the value of a scalar
//! subquery's only row. They have kernels for numbers and timestamps too, where all others need a dictionary.

use trireme_device_api::{Expr, Type};

use super::calendar::{day, month, packed, year};
use super::cast::SECONDS_PER_DAY;
use super::integral::{Limits, Operation, UNLIMITED};
use super::range::{Bounds, Range};
use super::register::{Number, arithmetic_error, constant, convert, integral, is_null, null_of, number, other, wider};
use crate::build;
use crate::ir::{Const, Expr as Ir, Scalar};
use crate::lower::{Kind, Lowered, Lowering, Shape, Unsupported, Value};

const NANOSECONDS_PER_SECOND: i64 = 1_000_000_000;

/// What is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// The first argument; an error where the second is more than 1.
    OnlyRow,
    Absolute,
    Truncate(Granularity),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Granularity {
    /// So many nanoseconds.
    Even(i64),
    Week,
    Month,
    Quarter,
    Year,
}

/// The function of a name and arguments; none when it isn't known.
pub(super) fn known(name: &str, args: &[Expr], data_type: &Type) -> Option<Known> {
    let first = args.first().map(|arg| &arg.data_type);
    let same = first == Some(data_type);
    if name.starts_with("only_row [") {
        return (args.len() == 2 && same && args[1].data_type == Type::Int64).then_some(Known::OnlyRow);
    }
    if !same || args.len() != 1 {
        return None;
    }
    if name.starts_with("abs($0@0) [") {
        let signed = data_type.is_float() || data_type.is_integer() || matches!(data_type, Type::Decimal { .. });
        return signed.then_some(Known::Absolute);
    }
    let (unit, _) = name.strip_prefix("date_trunc(")?.split_once(", $0@0) [")?;
    let second = NANOSECONDS_PER_SECOND;
    let granularity = match unit.to_lowercase().as_str() {
        "microsecond" => Granularity::Even(1_000),
        "millisecond" => Granularity::Even(1_000_000),
        "second" => Granularity::Even(second),
        "minute" => Granularity::Even(60 * second),
        "hour" => Granularity::Even(3_600 * second),
        "day" => Granularity::Even(SECONDS_PER_DAY * second),
        "week" => Granularity::Week,
        "month" => Granularity::Month,
        "quarter" => Granularity::Quarter,
        "year" => Granularity::Year,
        _ => return None,
    };
    matches!(data_type, Type::Timestamp { zone: None, .. }).then_some(Known::Truncate(granularity))
}

impl Lowering<'_> {
    /// A call of a known function.
    pub(super) fn call_known(&mut self, function: Known, values: &[Value], data_type: &Type) -> Lowered<Value> {
        let first = values
            .first()
            .ok_or_else(|| Unsupported("a function without arguments".to_owned()))?;
        match function {
            Known::OnlyRow => {
                let count = number(&values[1])?;
                if count.range.1 > 1 {
                    let many = self.flag(count.ir.clone().gt(constant(count.lane(), 1)));
                    let error = arithmetic_error("Scalar subquery returned more than one row");
                    self.fail(many, values[1].null.as_ref(), error);
                }
                let mut value = first.clone();
                value.shape.data_type = data_type.clone();
                Ok(value)
            }
            _ if is_null(first) => Ok(null_of(data_type)),
            Known::Absolute => self.absolute(first, data_type),
            Known::Truncate(granularity) => self.truncated(first, granularity, data_type),
        }
    }

    fn absolute(&mut self, value: &Value, data_type: &Type) -> Lowered<Value> {
        let null = value.null.clone();
        let (narrow, wide, mask, mask_wide) = (Scalar::U32, Scalar::U64, i32::MAX, i64::MAX);
        match value.shape.kind {
            Kind::Float32 => {
                let bits = value.ir.clone().bits(narrow).and(build::u32(mask.cast_unsigned()));
                let ir = self.keep(Scalar::F32, bits.bits(Scalar::F32));
                return Ok(other(data_type, Kind::Float32, ir, null));
            }
            Kind::Float64 => {
                let bits = value.ir.clone().bits(wide).and(build::u64(mask_wide.cast_unsigned()));
                let ir = self.keep(Scalar::F64, bits.bits(Scalar::F64));
                return Ok(other(data_type, Kind::Float64, ir, null));
            }
            _ => {}
        }
        let operand = number(value)?;
        if operand.range.0 >= 0 {
            return Ok(integral(data_type, operand, null));
        }
        let zero = Number {
            ir: Ir::Const(Const::I32(0)),
            range: (0, 0),
        };
        let limits = Limits {
            range: data_type.value_range().unwrap_or(UNLIMITED.range),
            overflow: "integer overflow in abs",
        };
        let negated = self.integral(Operation::Subtract, &zero, &operand, &limits, null.as_ref())?;
        let high = operand.range.1.max(negated.range.1).max(0);
        let lane = wider(Shape::lane((0, high)), wider(operand.lane(), negated.lane()));
        let negative = operand.ir.clone().lt(constant(operand.lane(), 0));
        // What overflowed is at the lower end of its range, which is none of a size.
        let size = negated.to(lane).max(constant(lane, 0));
        let ir = self.keep(lane, negative.select(size, operand.to(lane)));
        let narrow = Shape::lane((0, high));
        let ir = self.keep(narrow, convert(ir, lane, narrow));
        Ok(integral(data_type, Number { ir, range: (0, high) }, null))
    }

    /// The start of the second, day, month … that a timestamp lies in.
    fn truncated(&mut self, value: &Value, granularity: Granularity, data_type: &Type) -> Lowered<Value> {
        let Type::Timestamp { unit, zone: None } = data_type else {
            return Err(Unsupported(format!("date_trunc of a {data_type:?}")));
        };
        let time = number(value)?;
        let null = value.null.clone();
        let nanoseconds = NANOSECONDS_PER_SECOND / unit.per_second();
        if let Granularity::Even(size) = granularity {
            let size = size / nanoseconds;
            if size <= 1 {
                return Ok(value.clone());
            }
            let bounds = (floor_to(time.range.0, size.into()), floor_to(time.range.1, size.into()));
            // The very first timestamps wrap, as the function's do.
            let bounds = match i64::try_from(bounds.0) {
                Ok(_) => bounds,
                Err(_) => (i64::MIN.into(), i64::MAX.into()),
            };
            let ir = self.floored(&time, size);
            let number = self.narrowed(ir, bounds);
            return Ok(integral(data_type, number, null));
        }
        // Beyond what 64 bits of nanoseconds hold it is an error.
        let least = i128::from(i64::MIN).div_euclid(nanoseconds.into()) + i128::from(nanoseconds > 1);
        let limits = Limits {
            range: (least, i128::from(i64::MAX / nanoseconds)),
            overflow: "timestamp out of range",
        };
        let none = self.literal(0);
        let time = self.integral(Operation::Add, &time, &none, &limits, null.as_ref())?;
        let per_day = unit.per_second() * SECONDS_PER_DAY;
        let (days, _) = self.day_and_rest(&time, per_day);
        let first = self.first_day(&days, granularity);
        let days = (days.range.0 - 366, days.range.1);
        let first = self.narrowed(first, days);
        let factor = self.literal(per_day.into());
        let start = self.integral(Operation::Multiply, &first, &factor, &UNLIMITED, null.as_ref())?;
        let lane = start.lane();
        let ir = self.keep(lane, start.ir.clone());
        let start = self.limited(ir, lane, Bounds::exactly(start.range), &limits, None, null.as_ref());
        Ok(integral(data_type, start, null))
    }

    /// A multiple of `size` at or before a time, I64.
    fn floored(&mut self, time: &Number, size: i64) -> Ir {
        let value = self.keep(Scalar::I64, time.to(Scalar::I64));
        let rest = self.keep(Scalar::I64, value.clone().rem(build::i64(size)));
        let below = rest.clone().lt(build::i64(0));
        let down = below.select(rest.clone().plus(build::i64(size)), rest);
        self.keep(Scalar::I64, value.minus(down))
    }

    fn narrowed(&mut self, ir: Ir, range: Range) -> Number {
        let lane = Shape::lane(range);
        let ir = convert(ir, Scalar::I64, lane);
        Number {
            ir: self.keep(lane, ir),
            range,
        }
    }

    /// The first day of a day's week, month, quarter or year, I64.
    fn first_day(&mut self, days: &Number, granularity: Granularity) -> Ir {
        let days = self.keep(Scalar::I64, days.to(Scalar::I64));
        if granularity == Granularity::Week {
            let shifted = Number {
                ir: self.keep(Scalar::I64, days.plus(build::i64(3))),
                // A range of its register's.
                range: (i64::MIN.into(), i64::MAX.into()),
            };
            let monday = self.floored(&shifted, 7);
            return self.keep(Scalar::I64, monday.minus(build::i64(3)));
        }
        let civil = self.civil(days.clone());
        match granularity {
            Granularity::Month => {
                let first = days.minus(day(&civil)).plus(build::i64(1));
                self.keep(Scalar::I64, first)
            }
            Granularity::Quarter => {
                let quarter = month(&civil).minus(build::i64(1)).over(build::i64(3));
                let first = quarter.times(build::i64(3)).plus(build::i64(1));
                self.days_of(packed(year(&civil), first, build::i64(1)))
            }
            _ => self.days_of(packed(year(&civil), build::i64(1), build::i64(1))),
        }
    }
}

fn floor_to(value: i128, size: i128) -> i128 {
    value.div_euclid(size) * size
}
