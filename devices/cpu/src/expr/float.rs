//! Arithmetic of floats, as IEEE 754 says: nothing is an error.

use trireme_device_api::{BinaryOperator, DeviceError, Type, Value};

use super::{Compiled, Input, Node};
use crate::isa::Isa;
use crate::number::{map, zip};
use crate::vector::{Data, Shape, Vector, both_valid};

struct Arithmetic {
    operator: BinaryOperator,
    left: Compiled,
    right: Compiled,
    narrow: bool,
}

pub(super) fn build(operator: BinaryOperator, left: Compiled, right: Compiled, data_type: &Type) -> Compiled {
    let mut shape = Shape::of_type(data_type.clone(), left.shape.nullable || right.shape.nullable);
    shape.range = None;
    let (fails, costly) = (left.fails || right.fails, left.costly || right.costly);
    let node = Arithmetic {
        operator,
        left,
        right,
        narrow: *data_type == Type::Float32,
    };
    Compiled::new(node, shape, fails, costly)
}

impl Node for Arithmetic {
    fn eval<'x>(&self, input: &Input<'_, 'x>) -> Result<Vector<'x>, DeviceError> {
        let (left, right) = (self.left.eval(input)?, self.right.eval(input)?);
        let isa = input.isa;
        let data = match (&left.data, &right.data, self.narrow) {
            (Data::F32(a), Data::F32(b), true) => Data::F32(narrow(isa, self.operator, a, b).into()),
            (Data::F64(a), Data::F64(b), false) => {
                Data::F64(wide(isa, self.operator, a, b, &self.left, &self.right).into())
            }
            _ => return Err(DeviceError::Internal("an operand is not of the float type".to_owned())),
        };
        Ok(Vector {
            data,
            valid: both_valid(left.valid, right.valid, isa),
        })
    }
}

fn narrow(isa: Isa, operator: BinaryOperator, a: &[f32], b: &[f32]) -> Vec<f32> {
    match operator {
        BinaryOperator::Add => zip(isa, a, b, |a: f32, b: f32| a + b),
        BinaryOperator::Subtract => zip(isa, a, b, |a: f32, b: f32| a - b),
        BinaryOperator::Multiply => zip(isa, a, b, |a: f32, b: f32| a * b),
        BinaryOperator::Divide => zip(isa, a, b, |a: f32, b: f32| a / b),
        _ => zip(isa, a, b, |a: f32, b: f32| a % b),
    }
}

fn wide(isa: Isa, operator: BinaryOperator, a: &[f64], b: &[f64], left: &Compiled, right: &Compiled) -> Vec<f64> {
    match (operator, &left.constant, &right.constant) {
        (BinaryOperator::Multiply, _, Some(Value::Float(c))) => {
            let c = *c;
            map(isa, a, move |a: f64| a * c)
        }
        (BinaryOperator::Multiply, Some(Value::Float(c)), _) => {
            let c = *c;
            map(isa, b, move |b: f64| c * b)
        }
        (BinaryOperator::Add, ..) => zip(isa, a, b, |a: f64, b: f64| a + b),
        (BinaryOperator::Subtract, ..) => zip(isa, a, b, |a: f64, b: f64| a - b),
        (BinaryOperator::Multiply, ..) => zip(isa, a, b, |a: f64, b: f64| a * b),
        (BinaryOperator::Divide, ..) => zip(isa, a, b, |a: f64, b: f64| a / b),
        _ => zip(isa, a, b, |a: f64, b: f64| a % b),
    }
}
