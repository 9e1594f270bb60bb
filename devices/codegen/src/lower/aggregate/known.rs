//! What is known of a value in all kernels of a fragment, before the first of them is written.
//!
//! The same expression may have another shape in the kernel over a probe's build rows than in the main kernel, where the
//! row's other columns are not NULL throughout. Tables and results must suit all of them.

use std::sync::Arc;

use trireme_device_api::Type;

use crate::ir::Expr as Ir;
use crate::lower::{Kind, Lowered, Shape, Unsupported, Value};

/// A shape, and whether NULLs occur.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) shape: Shape,
    pub(super) nullable: bool,
}

impl Known {
    pub(super) fn of(value: &Value) -> Self {
        Self {
            shape: value.shape.clone(),
            nullable: value.null.is_some() || matches!(value.shape.kind, Kind::Null),
        }
    }

    /// What no row ever has: NULL throughout.
    pub(super) fn nothing(data_type: &Type) -> Self {
        Self {
            shape: Shape {
                data_type: data_type.clone(),
                kind: Kind::Null,
                range: None,
            },
            nullable: true,
        }
    }

    /// Bounds of values that are not NULL: of integers; of booleans and codes by number.
    pub(super) fn bounds(&self) -> (i128, i128) {
        match &self.shape.kind {
            Kind::Boolean => (0, 1),
            Kind::Code(dictionary) => (0, (dictionary.len() as i128 - 1).max(0)),
            _ => self
                .shape
                .range
                .or(self.shape.data_type.value_range())
                .unwrap_or((0, 0)),
        }
    }

    /// Takes in what another place knows.
    pub(super) fn merge(&mut self, other: Known) -> Lowered<()> {
        self.nullable |= other.nullable;
        match (&self.shape.kind, &other.shape.kind) {
            (_, Kind::Null) => {}
            (Kind::Null, _) => self.shape = other.shape,
            (Kind::Integer(_), Kind::Integer(_)) => {
                let ((low, high), (from, to)) = (self.bounds(), other.bounds());
                let range = (low.min(from), high.max(to));
                self.shape.range = Some(range);
                self.shape.kind = Kind::Integer(Shape::lane(range));
            }
            (Kind::Code(left), Kind::Code(right)) if Arc::ptr_eq(left, right) => {}
            (Kind::Boolean, Kind::Boolean)
            | (Kind::Float32, Kind::Float32)
            | (Kind::Float64, Kind::Float64)
            | (Kind::Text, Kind::Text) => {}
            _ => return Err(Unsupported("a value that is of several shapes".to_owned())),
        }
        Ok(())
    }

    /// A value of this shape.
    pub(super) fn value(&self, ir: Ir, null: Option<Ir>) -> Value {
        Value {
            ir,
            null,
            shape: self.shape.clone(),
        }
    }
}
