//! LIKE over strings that aren't codes; those of dictionaries are matched once per entry.

use trireme_device_api::{DeviceError, Type, Value};

use super::constant::constant;
use super::{Compiled, Input, Node};
use crate::like::Matcher;
use crate::vector::{Data, Shape, Vector};

/// Builds `operand LIKE pattern`.
pub(super) fn build(operand: Compiled, pattern: &Compiled, negated: bool, fold: bool) -> Result<Compiled, DeviceError> {
    let matcher = match &pattern.constant {
        Some(Value::Bytes(pattern)) => Matcher::new(pattern, fold),
        Some(Value::Null) => return Ok(constant(Value::Null, &Type::Boolean)),
        _ => {
            return Err(DeviceError::Unsupported(
                "LIKE with a pattern that isn't constant is not fused".to_owned(),
            ));
        }
    };
    if operand.shape.data_type == Type::Null {
        return Ok(constant(Value::Null, &Type::Boolean));
    }
    Ok(search(operand, matcher, negated))
}

/// Builds whether a string matches, or, `negated`, doesn't.
pub(super) fn search(operand: Compiled, matcher: Matcher, negated: bool) -> Compiled {
    let shape = Shape::of_type(Type::Boolean, operand.shape.nullable);
    let fails = operand.fails;
    let node = Like {
        operand,
        matcher,
        negated,
    };
    Compiled::new(node, shape, fails, true)
}

struct Like {
    operand: Compiled,
    matcher: Matcher,
    negated: bool,
}

impl Node for Like {
    fn eval<'x>(&self, input: &Input<'_, 'x>) -> Result<Vector<'x>, DeviceError> {
        if let Some(raw) = self.operand.column.and_then(|index| input.raw_strings(index)) {
            let values = self.matcher.matches_all(raw.offsets, raw.bytes, self.negated);
            return Ok(Vector::new(Data::Bool(values.into())).with_valid(raw.valid));
        }
        let vector = self.operand.eval(input)?;
        let one = |value: &[u8]| u8::from(self.matcher.matches(value) != self.negated);
        let values: Vec<u8> = match &vector.data {
            Data::Bytes(values) => values.iter().map(|value| one(value)).collect(),
            _ => (0..input.rows).map(|row| one(vector.bytes_at(row))).collect(),
        };
        Ok(Vector {
            data: Data::Bool(values.into()),
            valid: vector.valid,
        })
    }
}
