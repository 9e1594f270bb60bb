//! Which arithmetic an operator means, by its types: integers, decimals with their scales, floats, dates.

use trireme_device_api::{BinaryOperator, Expr, Type};

use super::integral::{Limits, Operation, UNLIMITED};
use super::range::{self, Range, scale};
use super::register::{Number, constant, convert, integral, is_null, null_of, number, other, wider};
use crate::ir::{Const, Expr as Ir, Scalar};
use crate::lower::{Kind, Lowered, Lowering, Row, Shape, Unsupported, Value};

/// What a result outside a decimal's precision is called.
pub(super) fn decimal_overflow(operation: Operation) -> &'static str {
    match operation {
        Operation::Add => "decimal overflow in +",
        Operation::Subtract => "decimal overflow in -",
        Operation::Multiply => "decimal overflow in *",
        Operation::Divide => "decimal overflow in /",
        Operation::Remainder => "decimal overflow in %",
        _ => "decimal overflow",
    }
}

fn operation(operator: BinaryOperator) -> Lowered<(Operation, &'static str)> {
    Ok(match operator {
        BinaryOperator::Add => (Operation::Add, "integer overflow in +"),
        BinaryOperator::Subtract => (Operation::Subtract, "integer overflow in -"),
        BinaryOperator::Multiply => (Operation::Multiply, "integer overflow in *"),
        BinaryOperator::Divide => (Operation::Divide, "integer overflow in /"),
        BinaryOperator::Remainder => (Operation::Remainder, "integer overflow in %"),
        BinaryOperator::BitAnd => (Operation::And, "integer overflow in &"),
        BinaryOperator::BitOr => (Operation::Or, "integer overflow in |"),
        BinaryOperator::BitXor => (Operation::Xor, "integer overflow in #"),
        other => return Err(Unsupported(format!("{other:?} as arithmetic"))),
    })
}

impl Lowering<'_> {
    /// `left operator right`.
    pub(super) fn arithmetic(
        &mut self,
        row: &mut Row,
        operator: BinaryOperator,
        (left, right): (&Expr, &Expr),
        data_type: &Type,
    ) -> Lowered<Value> {
        let interval = |side: &Expr| matches!(side.data_type, Type::Interval(_));
        if interval(left) || interval(right) {
            return self.interval_arithmetic(row, operator, (left, right), data_type);
        }
        let l = self.expr(row, left)?;
        let r = self.expr(row, right)?;
        self.operate(operator, &l, &r, data_type)
    }

    /// Arithmetic of two values that aren't intervals.
    fn operate(&mut self, operator: BinaryOperator, l: &Value, r: &Value, data_type: &Type) -> Lowered<Value> {
        if is_null(l) || is_null(r) {
            return Ok(null_of(data_type));
        }
        let null = self.either_null(l.null.clone(), r.null.clone());
        if data_type.is_float() {
            return self.float_arithmetic(operator, l, r, data_type, null);
        }
        let (operation, overflow) = operation(operator)?;
        let range = data_type
            .value_range()
            .ok_or_else(|| Unsupported(format!("arithmetic of type {data_type:?}")))?;
        let (a, b) = (number(l)?, number(r)?);
        let result = if matches!(data_type, Type::Decimal { .. }) {
            let types = (&l.shape.data_type, &r.shape.data_type);
            self.decimal(operation, (&a, types.0), (&b, types.1), data_type, null.as_ref())?
        } else {
            self.integral(operation, &a, &b, &Limits { range, overflow }, null.as_ref())?
        };
        Ok(integral(data_type, result, null))
    }

    /// `-operand`.
    pub(super) fn negate(&mut self, operand: &Value, data_type: &Type) -> Lowered<Value> {
        if is_null(operand) {
            return Ok(null_of(data_type));
        }
        let negated = match operand.shape.kind {
            Kind::Float32 => Some(Scalar::F32),
            Kind::Float64 => Some(Scalar::F64),
            _ => None,
        };
        if let Some(scalar) = negated {
            let ir = self.keep(scalar, operand.ir.clone().negate());
            return Ok(other(data_type, operand.shape.kind.clone(), ir, operand.null.clone()));
        }
        let zero = integral(
            data_type,
            Number {
                ir: Ir::Const(Const::I32(0)),
                range: (0, 0),
            },
            None,
        );
        self.operate(BinaryOperator::Subtract, &zero, operand, data_type)
    }

    fn float_arithmetic(
        &mut self,
        operator: BinaryOperator,
        l: &Value,
        r: &Value,
        data_type: &Type,
        null: Option<Ir>,
    ) -> Lowered<Value> {
        let scalar = match (&l.shape.kind, &r.shape.kind, data_type) {
            (Kind::Float32, Kind::Float32, Type::Float32) => Scalar::F32,
            (Kind::Float64, Kind::Float64, Type::Float64) => Scalar::F64,
            _ => return Err(Unsupported("arithmetic of different float types".to_owned())),
        };
        let (a, b) = (l.ir.clone(), r.ir.clone());
        let ir = match operator {
            BinaryOperator::Add => a.plus(b),
            BinaryOperator::Subtract => a.minus(b),
            BinaryOperator::Multiply => a.times(b),
            BinaryOperator::Divide => a.over(b),
            BinaryOperator::Remainder => a.rem(b),
            other => return Err(Unsupported(format!("{other:?} of floats"))),
        };
        let ir = self.keep(scalar, ir);
        Ok(other(data_type, l.shape.kind.clone(), ir, null))
    }

    fn decimal(
        &mut self,
        operation: Operation,
        (l, left): (&Number, &Type),
        (r, right): (&Number, &Type),
        data_type: &Type,
        null: Option<&Ir>,
    ) -> Lowered<Number> {
        let (ls, rs, result) = (scale(left), scale(right), scale(data_type));
        // What each operand is multiplied by, and from which scale the result comes.
        let aligned = ls.max(rs);
        let (left_shift, right_shift, from) = match operation {
            Operation::Multiply => (0, 0, ls + rs),
            Operation::Divide => {
                let shift = result - ls + rs;
                (shift.max(0), (-shift).max(0), result)
            }
            _ => (aligned - ls, aligned - rs, aligned),
        };
        let limits = Limits {
            range: data_type.value_range().unwrap_or(UNLIMITED.range),
            overflow: decimal_overflow(operation),
        };
        let exact = match (scaled(l.range, left_shift), scaled(r.range, right_shift)) {
            (Some(l), Some(r)) => match operation {
                Operation::Add => range::add(l, r).exact,
                Operation::Subtract => range::subtract(l, r).exact,
                Operation::Multiply => range::multiply(l, r).exact,
                _ => true,
            },
            _ => false,
        };
        let change = range::power_of_ten((from - result).abs());
        let (true, Some(change)) = (exact, change) else {
            return self.wide(operation, (l, left), (r, right), data_type, &limits, null);
        };
        let (l, r) = (self.shifted(l, left_shift)?, self.shifted(r, right_shift)?);
        if change == 1 {
            return self.integral(operation, &l, &r, &limits, null);
        }
        let value = self.integral(operation, &l, &r, &UNLIMITED, null)?;
        let change = Number {
            ir: constant(Shape::lane((change, change)), change),
            range: (change, change),
        };
        let rescale = if from > result {
            Operation::Divide
        } else {
            Operation::Multiply
        };
        self.integral(rescale, &value, &change, &limits, null)
    }

    /// Multiplied by a power of ten, which is known to fit 128 bits.
    pub(super) fn shifted(&mut self, operand: &Number, digits: i32) -> Lowered<Number> {
        let (Some(range), Some(factor)) = (scaled(operand.range, digits), range::power_of_ten(digits)) else {
            return Err(Unsupported(format!("a decimal at {digits} more digits")));
        };
        if factor == 1 {
            return Ok(operand.clone());
        }
        let lane = Shape::lane(range);
        let lane = wider(lane, Shape::lane((factor, factor)));
        let ir = operand.to(lane).times(constant(lane, factor));
        let narrow = Shape::lane(range);
        let ir = convert(ir, lane, narrow);
        Ok(Number {
            ir: self.keep(narrow, ir),
            range,
        })
    }
}

/// A range at so many more digits, if 128 bits hold it.
pub(super) fn scaled(range: Range, digits: i32) -> Option<Range> {
    let factor = range::power_of_ten(digits)?;
    let bounds = range::multiply(range, (factor, factor));
    bounds.exact.then_some(bounds.range())
}
