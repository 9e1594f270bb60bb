//! Leaves: columns, constants, and errors that were found at compile time but count only when a row reaches them.

use std::sync::Arc;

use trireme_device_api::{DeviceError, Dictionary, Strings, Type, Value};

use super::words::{self, Words};
use super::{Compiled, Input, Mask, Node};
use crate::number::by_lane;
use crate::vector::{Data, Shape, Vector};

/// A column of the row.
struct Column {
    index: usize,
    shape: Shape,
}

pub(super) fn column(index: usize, shape: &Shape) -> Compiled {
    let node = Column {
        index,
        shape: shape.clone(),
    };
    let mut compiled = Compiled::new(node, shape.clone(), false, false);
    compiled.column = Some(index);
    compiled
}

impl Node for Column {
    fn eval<'x>(&self, input: &Input<'_, 'x>) -> Result<Vector<'x>, DeviceError> {
        input.column(self.index, &self.shape)
    }

    fn words<'x>(&self, input: &Input<'_, 'x>) -> Result<Option<Words<'x>>, DeviceError> {
        Ok(input.raw_strings(self.index).map(|raw| (words::raw(&raw), raw.valid)))
    }
}

/// The same value in all rows.
struct Constant {
    value: Value,
    shape: Shape,
}

/// A constant; strings are a dictionary of one entry.
pub(super) fn constant(value: Value, data_type: &Type) -> Compiled {
    let mut shape = Shape::of_type(data_type.clone(), value == Value::Null);
    shape.distinct = Some(1);
    match &value {
        Value::Int(value) => shape.range = Some((*value, *value)),
        Value::Null if shape.range.is_some() => shape.range = Some((0, 0)),
        Value::Bytes(bytes) => {
            shape.dictionary = Some(Arc::new(Dictionary::new(Strings::from_values([bytes.as_ref()]))));
        }
        Value::Null if data_type.is_bytes() => {
            shape.dictionary = Some(Arc::new(Dictionary::new(Strings::from_values([]))));
        }
        _ => {}
    }
    let node = Constant {
        value: value.clone(),
        shape: shape.clone(),
    };
    let mut compiled = Compiled::new(node, shape, false, false);
    compiled.constant = Some(value);
    compiled
}

impl Node for Constant {
    fn eval<'x>(&self, input: &Input<'_, 'x>) -> Result<Vector<'x>, DeviceError> {
        let rows = input.rows;
        Ok(Vector::new(match &self.value {
            Value::Null => return Ok(Vector::nulls(&self.shape, rows)),
            Value::Boolean(value) => Data::Bool(vec![u8::from(*value); rows].into()),
            Value::Int(value) => match self.shape.lane() {
                Some(lane) => by_lane!(lane, T => return Ok(Vector::of(vec![*value as T; rows]))),
                None => return Err(DeviceError::Internal("a constant is not of its type".to_owned())),
            },
            Value::Float(value) if self.shape.data_type == Type::Float32 => Data::F32(vec![*value as f32; rows].into()),
            Value::Float(value) => Data::F64(vec![*value; rows].into()),
            Value::Bytes(_) => match &self.shape.dictionary {
                Some(dictionary) => Data::Codes(vec![0; rows].into(), Arc::clone(dictionary)),
                None => return Err(DeviceError::Internal("a constant is not of its type".to_owned())),
            },
            Value::Interval(value) => Data::Interval(vec![*value; rows]),
        }))
    }

    fn truth(&self, input: &Input<'_, '_>, mask: &mut Mask) -> Result<(), DeviceError> {
        if self.value != Value::Boolean(true) {
            mask.bytes = Some(vec![0; input.rows]);
        }
        Ok(())
    }
}

/// An error of a constant expression.
struct Fail {
    error: DeviceError,
    shape: Shape,
}

pub(super) fn fail(error: DeviceError, shape: &Shape) -> Compiled {
    Compiled::new(
        Fail {
            error,
            shape: shape.clone(),
        },
        shape.clone(),
        true,
        false,
    )
}

impl Node for Fail {
    fn eval<'x>(&self, input: &Input<'_, 'x>) -> Result<Vector<'x>, DeviceError> {
        if input.rows > 0 {
            return Err(self.error.clone());
        }
        Ok(Vector::nulls(&self.shape, 0))
    }
}
