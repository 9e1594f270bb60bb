//! Values and rows while a kernel is written.

use std::sync::Arc;

use trireme_device_api::{Dictionary, Type};

use super::{Load, Lowered, Lowering};
use crate::ir::{Expr as Ir, Scalar};

/// What is known of a value.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) data_type: Type,
    pub(crate) kind: Kind,
    /// Bounds of an integral value that is not NULL.
    pub(crate) range: Option<(i128, i128)>,
}

/// What stands in the register.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// Bool.
    Boolean,
    /// I32, I64 or I128: the narrowest that holds the shape's range, see [`Shape::lane`].
    Integer(Scalar),
    /// F32.
    Float32,
    /// F64.
    Float64,
    /// U32: a code of this dictionary.
    Code(Arc<Dictionary>),
    /// U64: a handle of bytes in the arena.
    Text,
    /// Nothing: always NULL.
    Null,
}

/// A value of the current row.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    /// A variable, constant or word: cheap to use many times. Unspecified (but defined, and in range) where NULL.
    pub(crate) ir: Ir,
    /// Bool: NULL where true. None when it never is.
    pub(crate) null: Option<Ir>,
    pub(crate) shape: Shape,
}

/// The columns of the current row: loaded when they are asked for. A clone loads for itself, so clone it for a nested block and
/// drop the clone with the block: variables that were assigned inside are not assigned outside.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) slots: Vec<Slot>,
}

/// A column of a row.
#[derive(Clone)]
pub(crate) enum Slot {
    /// In registers.
    Value(Value),
    /// Loaded when it is asked for.
    Load(Load),
}

impl Row {
    /// A column's value, loaded now if it isn't yet.
    pub(crate) fn column(&mut self, lowering: &mut Lowering<'_>, index: usize) -> Lowered<Value> {
        if let Slot::Value(value) = &self.slots[index] {
            return Ok(value.clone());
        }
        let Slot::Load(load) = self.slots[index].clone() else {
            unreachable!("a slot is a value or a load");
        };
        let value = load(lowering)?;
        self.slots[index] = Slot::Value(value.clone());
        Ok(value)
    }
}

impl Shape {
    /// The narrowest register for a range.
    pub(crate) fn lane((low, high): (i128, i128)) -> Scalar {
        if low >= i128::from(i32::MIN) && high <= i128::from(i32::MAX) {
            Scalar::I32
        } else if low >= i128::from(i64::MIN) && high <= i128::from(i64::MAX) {
            Scalar::I64
        } else {
            Scalar::I128
        }
    }
}
