//! CAST and TRY_CAST among numbers, booleans, dates and timestamps, as arrow-cast does them. Strings are cast by the host, entry
//! by entry.

use trireme_device_api::{TimeUnit, Type};

use super::calendar::{DATES, floor_divide};
use super::compare::plain;
use super::integral::Limits;
use super::range::{self, Bounds, Range, scale};
use super::register::{
    Number, arithmetic_error, boolean, constant, convert, integral, is_null, lane_range, null_of, number, other, wider,
};
use crate::build;
use crate::ir::{Const, Expr as Ir, Scalar, Unary};
use crate::lower::{Kind, Lowered, Lowering, Shape, Unsupported, Value};
use trireme_device_api::BinaryOperator;

pub(super) const SECONDS_PER_DAY: i64 = 86_400;
const OUT_OF_RANGE: &str = "cast out of range";
/// Floats below this are within 128 bits.
const WIDE_FLOATS: f64 = 1.7e38;

/// What an integral value is in another type, before it is said whether it fits.
struct Raw {
    ir: Ir,
    lane: Scalar,
    bounds: Bounds,
    /// It has nothing to do with the true value.
    wrapped: Option<Ir>,
    /// A value that isn't there is an error even where TRY_CAST gives NULL.
    strict: bool,
}

/// How an integral value becomes another; shared by the lowering and the static check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    Same,
    /// Times a constant.
    Multiply(i128),
    /// More digits than any factor of 128 bits has: 0, or too large.
    Beyond,
    /// Divided, half away from zero.
    Round(i128),
    /// Divided, toward zero.
    Truncate(i128),
    /// Divided, downwards: a timestamp's day.
    Day(i128),
}

fn is_decimal(data_type: &Type) -> bool {
    matches!(data_type, Type::Decimal { .. })
}

fn plan(from: &Type, to: &Type) -> Option<Plan> {
    let (from_scale, to_scale) = (scale(from), scale(to));
    if from_scale < 0 || to_scale < 0 {
        return None;
    }
    let power = |digits: i32| range::power_of_ten(digits);
    Some(match (from, to) {
        (from, to) if is_decimal(to) && (is_decimal(from) || from.is_integer()) => {
            if to_scale >= from_scale {
                power(to_scale - from_scale).map_or(Plan::Beyond, Plan::Multiply)
            } else {
                power(from_scale - to_scale).map(Plan::Round)?
            }
        }
        (from, to) if is_decimal(from) && to.is_integer() => Plan::Truncate(power(from_scale)?),
        (Type::Date32, Type::Timestamp { unit, zone: None }) => {
            Plan::Multiply((unit.per_second() * SECONDS_PER_DAY).into())
        }
        (Type::Timestamp { unit, zone: None }, Type::Date32) => Plan::Day((unit.per_second() * SECONDS_PER_DAY).into()),
        (Type::Timestamp { unit: a, zone: from }, Type::Timestamp { unit: b, zone: to })
            if from.is_some() || to.is_none() =>
        {
            let (a, b) = (a.per_second(), b.per_second());
            if a > b {
                Plan::Truncate((a / b).into())
            } else {
                Plan::Multiply((b / a).into())
            }
        }
        (from, to) if same_number(from, to) => Plan::Same,
        _ => return None,
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

/// True for bytes that stay as they are: strings are binary values too, but not the other way round.
pub(super) fn relabels(from: &Type, to: &Type) -> bool {
    from.is_bytes() && to.is_bytes() && (from.is_text() || !to.is_text())
}

/// The reason why values of one type have no kernel that casts them to another.
pub(super) fn support(from: &Type, to: &Type) -> Result<(), String> {
    if by_way_of_integers(from, to) {
        return support(from, &Type::Int64).and_then(|()| support(&Type::Int64, to));
    }
    let number = |data_type: &Type| data_type.is_integer() || is_decimal(data_type);
    let positive = scale(from) >= 0 && scale(to) >= 0;
    let supported = match (from, to) {
        (Type::Null, _) => true,
        (from, to) if from == to || relabels(from, to) => true,
        (from, to) if from.is_integral() && to.is_integral() => plan(from, to).is_some(),
        (from, to) if from.is_float() && to.is_float() => true,
        (from, to) if from.is_float() => number(to) && positive || *to == Type::Boolean,
        (from, to) if to.is_float() => number(from) && positive || *from == Type::Boolean,
        (Type::Boolean, to) => to.is_integer(),
        (from, Type::Boolean) => from.is_integer(),
        _ => false,
    };
    if supported {
        return Ok(());
    }
    Err(format!("a cast of {from:?} to {to:?} has no kernel"))
}

/// A timestamp and a number become each other by way of Int64.
fn by_way_of_integers(from: &Type, to: &Type) -> bool {
    let number = |data_type: &Type| data_type.is_integer() || data_type.is_float() || is_decimal(data_type);
    let timestamp = |data_type: &Type| matches!(data_type, Type::Timestamp { .. });
    (timestamp(from) && number(to) && *to != Type::Int64) || (number(from) && *from != Type::Int64 && timestamp(to))
}

impl Lowering<'_> {
    /// A value as another type.
    pub(super) fn cast(&mut self, operand: &Value, to: &Type, safe: bool) -> Lowered<Value> {
        let from = operand.shape.data_type.clone();
        if is_null(operand) {
            return Ok(null_of(to));
        }
        if by_way_of_integers(&from, to) {
            let between = self.cast(operand, &Type::Int64, safe)?;
            return self.cast(&between, to, safe);
        }
        if from == *to || relabels(&from, to) {
            let mut value = operand.clone();
            value.shape.data_type = to.clone();
            return Ok(value);
        }
        support(&from, to).map_err(Unsupported)?;
        let null = operand.null.clone();
        match &operand.shape.kind {
            Kind::Integer(_) => {
                let number = number(operand)?;
                if to.is_float() {
                    return Ok(self.float_of(&number, &from, to, null));
                }
                if *to == Type::Boolean {
                    let ir = number.ir.clone().ne(constant(number.lane(), 0));
                    return Ok(boolean(self.flag(ir), null));
                }
                let raw = self.recast(&number, &from, to)?;
                self.settled(raw, to, null, safe)
            }
            Kind::Boolean if to.is_float() => {
                let (one, zero, kind, scalar) = match to {
                    Type::Float32 => (Const::F32(1.0), Const::F32(0.0), Kind::Float32, Scalar::F32),
                    _ => (Const::F64(1.0), Const::F64(0.0), Kind::Float64, Scalar::F64),
                };
                let ir = operand.ir.clone().select(Ir::Const(one), Ir::Const(zero));
                Ok(other(to, kind, self.keep(scalar, ir), null))
            }
            Kind::Boolean => {
                let ir = operand.ir.clone().select(build::i32(1), build::i32(0));
                let ir = self.keep(Scalar::I32, ir);
                Ok(integral(to, Number { ir, range: (0, 1) }, null))
            }
            Kind::Float32 | Kind::Float64 => self.cast_float(operand, to, safe),
            _ => Err(Unsupported(format!("a cast of {from:?} to {to:?} has no kernel"))),
        }
    }

    fn recast(&mut self, number: &Number, from: &Type, to: &Type) -> Lowered<Raw> {
        let plan = plan(from, to).ok_or_else(|| Unsupported(format!("a cast of {from:?} to {to:?} has no kernel")))?;
        Ok(match plan {
            Plan::Same => Raw {
                ir: number.ir.clone(),
                lane: number.lane(),
                bounds: Bounds::exactly(number.range),
                wrapped: None,
                strict: false,
            },
            Plan::Multiply(factor) => self.multiplied_by(number, factor),
            Plan::Beyond => {
                let wrapped = number.ir.clone().ne(constant(number.lane(), 0));
                Raw {
                    ir: build::i32(0),
                    lane: Scalar::I32,
                    bounds: Bounds {
                        low: i128::MIN,
                        high: i128::MAX,
                        exact: false,
                    },
                    wrapped: Some(self.flag(wrapped)),
                    strict: false,
                }
            }
            Plan::Round(divisor) | Plan::Truncate(divisor) => self.divided_by(number, divisor, plan),
            Plan::Day(divisor) => {
                let lane = wider(number.lane(), Shape::lane((divisor, divisor)));
                let ir = floor_divide(self, lane, number.to(lane), divisor);
                let bounds = (number.range.0.div_euclid(divisor), number.range.1.div_euclid(divisor));
                let outside = [
                    (bounds.0 < DATES.0).then(|| ir.clone().lt(constant(lane, DATES.0))),
                    (bounds.1 > DATES.1).then(|| ir.clone().gt(constant(lane, DATES.1))),
                ];
                let outside = outside.into_iter().flatten().reduce(Ir::or);
                Raw {
                    ir,
                    lane,
                    bounds: Bounds {
                        exact: outside.is_none(),
                        ..Bounds::exactly(bounds)
                    },
                    wrapped: outside.map(|outside| self.flag(outside)),
                    strict: true,
                }
            }
        })
    }

    fn multiplied_by(&mut self, number: &Number, factor: i128) -> Raw {
        let bounds = range::multiply(number.range, (factor, factor));
        let lane = if bounds.exact {
            wider(Shape::lane(bounds.range()), Shape::lane((factor, factor)))
        } else {
            Scalar::I128
        };
        let operand = self.keep(lane, number.to(lane));
        let wrapped = (!bounds.exact).then(|| {
            let beyond = self.beyond_product(operand.clone(), constant(lane, factor));
            self.flag(beyond)
        });
        let ir = if factor == 1 {
            operand
        } else {
            operand.times(constant(lane, factor))
        };
        Raw {
            ir: self.keep(lane, ir),
            lane,
            bounds,
            wrapped,
            strict: false,
        }
    }

    fn divided_by(&mut self, number: &Number, divisor: i128, plan: Plan) -> Raw {
        let lane = wider(number.lane(), Shape::lane((divisor, divisor)));
        let divisor_ir = constant(lane, divisor);
        let value = self.keep(lane, number.to(lane));
        let quotient = self.keep(lane, value.clone().over(divisor_ir.clone()));
        let (ir, bounds) = if matches!(plan, Plan::Round(_)) && divisor > 1 {
            let rest = value.minus(quotient.clone().times(divisor_ir));
            let rest = self.keep(lane, rest);
            let (one, zero) = (constant(lane, 1), constant(lane, 0));
            let up = rest
                .clone()
                .ge(constant(lane, divisor / 2))
                .select(one.clone(), zero.clone());
            let down = rest.le(constant(lane, -(divisor / 2))).select(one, zero);
            let rounded = self.keep(lane, quotient.plus(up).minus(down));
            let round = |value: i128| {
                let (quotient, rest) = (value / divisor, value % divisor);
                quotient + i128::from(rest >= divisor / 2) - i128::from(rest <= -(divisor / 2))
            };
            (rounded, (round(number.range.0), round(number.range.1)))
        } else {
            (quotient, (number.range.0 / divisor, number.range.1 / divisor))
        };
        Raw {
            ir,
            lane,
            bounds: Bounds::exactly(bounds),
            wrapped: None,
            strict: false,
        }
    }

    /// A raw value in the type's limits: elsewhere an error, or NULL.
    fn settled(&mut self, raw: Raw, to: &Type, null: Option<Ir>, safe: bool) -> Lowered<Value> {
        let limits = to
            .value_range()
            .ok_or_else(|| Unsupported(format!("a cast to {to:?} has no kernel")))?;
        let Raw {
            ir,
            lane,
            bounds,
            wrapped,
            strict,
        } = raw;
        let Some(bad) = self.beyond_limits(&ir, lane, bounds, limits, wrapped) else {
            let narrow = Shape::lane(bounds.clamp(limits));
            let ir = self.keep(narrow, convert(ir, lane, narrow));
            let range = bounds.clamp(limits);
            return Ok(integral(to, Number { ir, range }, null));
        };
        let out = bounds.clamp(limits);
        let out = (out.0.max(lane_range(lane).0), out.1.min(lane_range(lane).1));
        if safe && !strict {
            let number = self.replaced(ir, lane, bad.clone(), out);
            let null = self.either_null(null, Some(bad));
            return Ok(integral(to, number, null));
        }
        self.fail(bad.clone(), null.as_ref(), arithmetic_error(OUT_OF_RANGE));
        let number = self.replaced(ir, lane, bad, out);
        Ok(integral(to, number, null))
    }

    fn float_of(&mut self, number: &Number, from: &Type, to: &Type, null: Option<Ir>) -> Value {
        let divisor = is_decimal(from).then(|| Ir::Const(Const::F64(10_f64.powi(scale(from)))));
        if *to == Type::Float32 {
            let ir = match divisor {
                Some(divisor) => number.ir.clone().to(Scalar::F64).over(divisor).to(Scalar::F32),
                None => number.ir.clone().to(Scalar::F32),
            };
            return other(to, Kind::Float32, self.keep(Scalar::F32, ir), null);
        }
        let ir = number.ir.clone().to(Scalar::F64);
        let ir = match divisor {
            Some(divisor) if scale(from) != 0 => ir.over(divisor),
            _ => ir,
        };
        other(to, Kind::Float64, self.keep(Scalar::F64, ir), null)
    }

    fn cast_float(&mut self, operand: &Value, to: &Type, safe: bool) -> Lowered<Value> {
        let single = matches!(operand.shape.kind, Kind::Float32);
        let null = operand.null.clone();
        match to {
            Type::Float32 => {
                let ir = self.keep(Scalar::F32, operand.ir.clone().to(Scalar::F32));
                return Ok(other(to, Kind::Float32, ir, null));
            }
            Type::Float64 => {
                let ir = self.keep(Scalar::F64, operand.ir.clone().to(Scalar::F64));
                return Ok(other(to, Kind::Float64, ir, null));
            }
            Type::Boolean => {
                let zero = if single { Const::F32(0.0) } else { Const::F64(0.0) };
                let ir = plain(BinaryOperator::NotEqual, operand.ir.clone(), Ir::Const(zero));
                return Ok(boolean(self.flag(ir), null));
            }
            _ => {}
        }
        let x = if single {
            operand.ir.clone().to(Scalar::F64)
        } else {
            operand.ir.clone()
        };
        let x = self.keep(Scalar::F64, x);
        let limits = to
            .value_range()
            .ok_or_else(|| Unsupported(format!("a cast to {to:?} has no kernel")))?;
        let (x, inside) = if is_decimal(to) {
            let rounded = self.rounded(x.times(double(10_f64.powi(scale(to)))));
            let most = if Shape::lane(limits) == Scalar::I128 {
                WIDE_FLOATS
            } else {
                power_of_two(63)
            };
            let inside = rounded.clone().lt(double(most)).and(rounded.clone().gt(double(-most)));
            (rounded, inside)
        } else {
            let inside = fits_integer(&x, to);
            (x, inside)
        };
        let bad = self.flag(inside.not());
        let (low, high) = (limits.0, limits.1);
        let value = bad.clone().select(double(0.0), x);
        let value = self.keep(Scalar::F64, value);
        let (ir, lane) = match Shape::lane((low, high)) {
            Scalar::I128 if *to == Type::UInt64 => (value.to(Scalar::U64).to(Scalar::I128), Scalar::I128),
            Scalar::I32 if is_decimal(to) => (value.to(Scalar::I64), Scalar::I64),
            lane => (value.to(lane), lane),
        };
        let ir = self.keep(lane, ir);
        let bounds = Bounds {
            exact: false,
            ..Bounds::exactly(if is_decimal(to) { lane_range(lane) } else { limits })
        };
        let raw = Raw {
            ir,
            lane,
            bounds,
            wrapped: Some(bad),
            strict: false,
        };
        self.settled(raw, to, null, safe)
    }

    /// Half away from zero.
    fn rounded(&mut self, x: Ir) -> Ir {
        let x = self.keep(Scalar::F64, x);
        let negative = x.clone().lt(double(0.0));
        let size = self.keep(Scalar::F64, negative.clone().select(x.clone().negate(), x));
        let floor = self.keep(Scalar::F64, Ir::Unary(Unary::Floor, Box::new(size.clone())));
        let half = size.minus(floor.clone()).ge(double(0.5));
        let up = self.keep(Scalar::F64, floor.plus(half.select(double(1.0), double(0.0))));
        self.keep(Scalar::F64, negative.select(up.clone().negate(), up))
    }

    /// A checked number of another type: for dates and timestamps, whose limits are their lanes'.
    pub(super) fn plus_constant(
        &mut self,
        number: &Number,
        constant: i128,
        limits: Range,
        overflow: &str,
        null: Option<&Ir>,
    ) -> Lowered<Number> {
        let added = self.literal(constant);
        let limits = Limits {
            range: limits,
            overflow,
        };
        self.integral(super::integral::Operation::Add, number, &added, &limits, null)
    }
}

fn double(value: f64) -> Ir {
    Ir::Const(Const::F64(value))
}

fn power_of_two(exponent: i32) -> f64 {
    2_f64.powi(exponent)
}

/// Whether a float's whole part is one of the integers of a type.
fn fits_integer(x: &Ir, to: &Type) -> Ir {
    let (above, least, below) = match to {
        Type::Int8 => (true, -129.0, 128.0),
        Type::Int16 => (true, -32_769.0, 32_768.0),
        Type::Int32 => (true, -2_147_483_649.0, 2_147_483_648.0),
        Type::Int64 => (false, -power_of_two(63), power_of_two(63)),
        Type::UInt8 => (true, -1.0, 256.0),
        Type::UInt16 => (true, -1.0, 65_536.0),
        Type::UInt32 => (true, -1.0, 4_294_967_296.0),
        _ => (true, -1.0, power_of_two(64)),
    };
    let low = if above {
        x.clone().gt(double(least))
    } else {
        x.clone().ge(double(least))
    };
    low.and(x.clone().lt(double(below)))
}
