//! Columns of a joined row: those of a build row, or NULLs.

use trireme_device_api::Type;

use super::super::source::{column_shape, resident_value};
use super::super::steps::lazy;
use super::super::{Kind, Lowered, Lowering, Shape, Slot, Value};
use crate::build::bool;
use crate::ir::{Const, Expr as Ir, Scalar};
use crate::program::Word;
use crate::shape::ResidentColumn;

/// Build columns of the build row `at` (U32), loaded when asked for; NULL where `absent` (Bool).
pub(super) fn slots(columns: &[(Type, Option<ResidentColumn>)], at: &Ir, absent: Option<&Ir>) -> Vec<Slot> {
    let slot = |(data_type, column): &(Type, Option<ResidentColumn>)| {
        let Some(column) = column.clone() else {
            return Slot::Value(nothing(data_type.clone()));
        };
        let (at, absent) = (at.clone(), absent.cloned());
        lazy(move |l| match &absent {
            Some(absent) => optional(l, &column, &at, absent),
            None => resident_value(l, &column, &at),
        })
    };
    columns.iter().map(slot).collect()
}

/// A build column's value, NULL where `absent`: nothing is read then, for there may be no build row at all.
fn optional(l: &mut Lowering<'_>, column: &ResidentColumn, at: &Ir, absent: &Ir) -> Lowered<Value> {
    if column.values.is_none() {
        return resident_value(l, column, at);
    }
    let shape = column_shape(&column.shape)?;
    let initial = any_of(l, &shape);
    let ir = l.b.set(register(&shape.kind), initial);
    let null = l.b.set(Scalar::Bool, bool(true));
    l.when(absent.clone().not(), |l| {
        let value = resident_value(l, column, at)?;
        l.b.assign(ir, value.ir);
        l.b.assign(null, value.null.unwrap_or(bool(false)));
        Ok(())
    })?;
    Ok(Value {
        ir: ir.into(),
        null: Some(null.into()),
        shape,
    })
}

/// A column that nobody reads.
fn nothing(data_type: Type) -> Value {
    Value {
        ir: bool(false),
        null: Some(bool(true)),
        shape: Shape {
            data_type,
            kind: Kind::Null,
            range: None,
        },
    }
}

/// NULL in a column of a shape. That it is NULL stands in a variable: expressions don't see it, and so their shapes are the
/// same as those of other rows.
pub(super) fn null_of(l: &mut Lowering<'_>, shape: &Shape) -> Value {
    let ir = any_of(l, shape);
    Value {
        ir: l.b.set(register(&shape.kind), ir).into(),
        null: Some(l.b.set(Scalar::Bool, bool(true)).into()),
        shape: shape.clone(),
    }
}

/// The type of the register of a kind.
fn register(kind: &Kind) -> Scalar {
    match kind {
        Kind::Boolean | Kind::Null => Scalar::Bool,
        Kind::Integer(lane) => *lane,
        Kind::Float32 => Scalar::F32,
        Kind::Float64 => Scalar::F64,
        Kind::Code(_) => Scalar::U32,
        Kind::Text => Scalar::U64,
    }
}

/// A value of the shape: what stands in the register of a NULL.
fn any_of(l: &mut Lowering<'_>, shape: &Shape) -> Ir {
    match (&shape.kind, shape.range) {
        (Kind::Integer(lane), Some((low, high))) if low > 0 || high < 0 => match i64::try_from(low) {
            Ok(low) => l.word(Word::Value(low.cast_unsigned())).to(Scalar::I64).to(*lane),
            Err(_) => Ir::Const(Const::I128(low)),
        },
        (kind, _) => Ir::Const(match register(kind) {
            Scalar::Bool => Const::Bool(false),
            Scalar::I32 => Const::I32(0),
            Scalar::U32 => Const::U32(0),
            Scalar::I64 => Const::I64(0),
            Scalar::U64 => Const::U64(0),
            Scalar::I128 => Const::I128(0),
            Scalar::F32 => Const::F32(0.0),
            Scalar::F64 => Const::F64(0.0),
        }),
    }
}
