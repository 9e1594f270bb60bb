//! Which arithmetic an operator means, by its types: integers, decimals with their scales, floats, dates.

use trireme_device_api::{BinaryOperator, DeviceError, Type};

use super::constant::constant;
use super::integral::{self, Operation};
use super::wide::{self, Scales};
use super::{Compiled, Input, Node, float, interval, range};
use crate::number::map;
use crate::vector::{Data, Shape, Vector};
use trireme_device_api::Value;

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
const UNLIMITED: (i128, i128) = (i128::MIN, i128::MAX);

/// Builds `left operator right`.
pub(super) fn build(
    operator: BinaryOperator,
    left: Compiled,
    right: Compiled,
    data_type: &Type,
) -> Result<Compiled, DeviceError> {
    if left.shape.data_type == Type::Null || right.shape.data_type == Type::Null {
        return Ok(constant(Value::Null, data_type));
    }
    let interval = |side: &Compiled| matches!(side.shape.data_type, Type::Interval(_));
    if interval(&left) || interval(&right) {
        return interval::build(operator, left, right, data_type);
    }
    if data_type.is_float() {
        return Ok(float::build(operator, left, right, data_type));
    }
    let (operation, message) = operation(operator)?;
    let scales = Scales {
        left: scale(&left.shape.data_type),
        right: scale(&right.shape.data_type),
        result: scale(data_type),
    };
    let limits = data_type
        .value_range()
        .ok_or_else(|| DeviceError::Internal(format!("arithmetic of type {data_type:?}")))?;
    let shape = Shape::of_type(data_type.clone(), left.shape.nullable || right.shape.nullable);
    if !matches!(data_type, Type::Decimal { .. }) {
        return integral::build(operation, left, right, shape, limits, message);
    }
    decimal(operation, left, right, shape, scales, limits)
}

/// Builds `-operand`.
pub(super) fn negate(operand: Compiled, data_type: &Type) -> Result<Compiled, DeviceError> {
    if operand.shape.data_type == Type::Null {
        return Ok(constant(Value::Null, data_type));
    }
    if data_type.is_float() {
        let mut shape = operand.shape.clone();
        shape.distinct = None;
        let (fails, costly) = (operand.fails, operand.costly);
        return Ok(Compiled::new(NegateFloat { operand }, shape, fails, costly));
    }
    let zero = constant(Value::Int(0), data_type);
    build(BinaryOperator::Subtract, zero, operand, data_type)
}

fn operation(operator: BinaryOperator) -> Result<(Operation, &'static str), DeviceError> {
    Ok(match operator {
        BinaryOperator::Add => (Operation::Add, "integer overflow in +"),
        BinaryOperator::Subtract => (Operation::Subtract, "integer overflow in -"),
        BinaryOperator::Multiply => (Operation::Multiply, "integer overflow in *"),
        BinaryOperator::Divide => (Operation::Divide, "integer overflow in /"),
        BinaryOperator::Remainder => (Operation::Remainder, "integer overflow in %"),
        BinaryOperator::BitAnd => (Operation::And, "integer overflow in &"),
        BinaryOperator::BitOr => (Operation::Or, "integer overflow in |"),
        BinaryOperator::BitXor => (Operation::Xor, "integer overflow in #"),
        other => return Err(DeviceError::Internal(format!("{other:?} is not arithmetic"))),
    })
}

/// The decimal scale of a type; 0 for other types.
pub(super) fn scale(data_type: &Type) -> i32 {
    match data_type {
        Type::Decimal { scale, .. } => i32::from(*scale),
        _ => 0,
    }
}

fn decimal(
    operation: Operation,
    left: Compiled,
    right: Compiled,
    shape: Shape,
    scales: Scales,
    limits: (i128, i128),
) -> Result<Compiled, DeviceError> {
    // What each operand is multiplied by, and from which scale the result comes.
    let aligned = scales.left.max(scales.right);
    let (left_shift, right_shift, from) = match operation {
        Operation::Multiply => (0, 0, scales.left + scales.right),
        Operation::Divide => {
            let shift = scales.result - scales.left + scales.right;
            (shift.max(0), (-shift).max(0), scales.result)
        }
        _ => (aligned - scales.left, aligned - scales.right, aligned),
    };
    let fits = |operand: &Compiled, shift: i32| {
        let factor = range::power_of_ten(shift)?;
        let bounds = range::multiply(operand.shape.range?, (factor, factor));
        bounds.exact.then_some((bounds.low, bounds.high))
    };
    let exact = match (fits(&left, left_shift), fits(&right, right_shift)) {
        (Some(l), Some(r)) => match operation {
            Operation::Add => range::add(l, r).exact,
            Operation::Subtract => range::subtract(l, r).exact,
            Operation::Multiply => range::multiply(l, r).exact,
            _ => true,
        },
        _ => false,
    };
    if !exact || range::power_of_ten((from - scales.result).abs()).is_none() {
        return Ok(wide::build(operation, left, right, shape, scales, limits));
    }
    let overflow = decimal_overflow(operation);
    let (left, right) = (shifted(left, left_shift)?, shifted(right, right_shift)?);
    if from == scales.result {
        return integral::build(operation, left, right, shape, limits, overflow);
    }
    let result = integral::build(operation, left, right, shape.clone(), UNLIMITED, overflow)?;
    let factor = range::power_of_ten((from - scales.result).abs()).unwrap_or(1);
    let factor = constant(Value::Int(factor), &shape.data_type);
    let change = if from > scales.result {
        Operation::Divide
    } else {
        Operation::Multiply
    };
    integral::build(change, result, factor, shape, limits, overflow)
}

/// Multiplied by a power of ten, which the caller knows to fit 128 bits.
pub(super) fn shifted(operand: Compiled, shift: i32) -> Result<Compiled, DeviceError> {
    let factor = range::power_of_ten(shift)
        .ok_or_else(|| DeviceError::Unsupported(format!("a decimal at {shift} more digits")))?;
    if factor == 1 {
        return Ok(operand);
    }
    let shape = operand.shape.clone();
    if let Some(value) = operand.integer().and_then(|value| value.checked_mul(factor)) {
        return Ok(constant(Value::Int(value), &shape.data_type));
    }
    let factor = constant(Value::Int(factor), &shape.data_type);
    let overflow = decimal_overflow(Operation::Multiply);
    integral::build(Operation::Multiply, operand, factor, shape, UNLIMITED, overflow)
}

struct NegateFloat {
    operand: Compiled,
}

impl Node for NegateFloat {
    fn eval<'x>(&self, input: &Input<'_, 'x>) -> Result<Vector<'x>, DeviceError> {
        let Vector { data, valid } = self.operand.eval(input)?;
        let data = match data {
            Data::F32(values) => Data::F32(map(input.isa, &values, |value: f32| -value).into()),
            Data::F64(values) => Data::F64(map(input.isa, &values, |value: f64| -value).into()),
            other => other,
        };
        Ok(Vector { data, valid })
    }
}
