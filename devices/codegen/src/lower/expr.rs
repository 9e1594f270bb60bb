//! Expressions: statements that compute them, and what is known of their values.
//!
//! ```text
//!  no column            the host evaluates it once: a literal
//!  one dictionary       the host evaluates it for every entry: a look-up by code
//!  else                 registers: the lane by the range, NULL apart, checks where the range doesn't rule a fault out
//! ```
//!
//! A part that may fail stands where only rows that reach it come; one that can't, and is cheap, is computed for all rows.

mod arithmetic;
mod bound;
mod compare;
mod integral;
mod logic;
mod range;
mod register;
mod temporal;
mod wide;

use trireme_device_api::{
    BinaryOperator, DeviceColumn, DeviceError, Expr, Node, Type, Value as Constant, Values, ZoneMap,
};

use super::{Lowered, Lowering, Row, Unsupported, Value};
use crate::build;
use crate::ir::Expr as Ir;

/// What expressions share within a program.
#[derive(Default)]
pub(crate) struct State {
    /// Faults that statements so far may raise.
    faults: usize,
}

/// A constant expression's value, or the error of rows that reach it.
type Folded = Result<Constant, DeviceError>;

impl Lowering<'_> {
    /// The value of an expression for the current row; statements that compute it are appended.
    pub(crate) fn expr(&mut self, row: &mut Row, expr: &Expr) -> Lowered<Value> {
        match &expr.node {
            Node::Column(index) if *index < row.slots.len() => return row.column(self, *index),
            Node::Column(index) => return Err(Unsupported(format!("column {index} of {}", row.slots.len()))),
            _ => {}
        }
        if let Some(folded) = self.folded(expr)? {
            return self.constant(folded, &expr.data_type);
        }
        self.operator(row, expr)
    }

    /// Bool: whether a predicate is true, not false nor NULL.
    pub(crate) fn condition(&mut self, row: &mut Row, expr: &Expr) -> Lowered<Ir> {
        self.truth(row, expr)
    }

    fn operator(&mut self, row: &mut Row, expr: &Expr) -> Lowered<Value> {
        match &expr.node {
            Node::Binary { op, left, right } => self.binary(row, expr, *op, left, right),
            Node::Not(operand) => {
                let operand = self.expr(row, operand)?;
                self.not(&operand)
            }
            Node::Negate(operand) => {
                let operand = self.expr(row, operand)?;
                self.negate(&operand, &expr.data_type)
            }
            Node::IsNull(operand) => {
                let operand = self.expr(row, operand)?;
                Ok(self.is_null(&operand, false))
            }
            Node::IsNotNull(operand) => {
                let operand = self.expr(row, operand)?;
                Ok(self.is_null(&operand, true))
            }
            _ => Err(Unsupported("this expression has no kernel yet".to_owned())),
        }
    }

    fn binary(&mut self, row: &mut Row, expr: &Expr, op: BinaryOperator, left: &Expr, right: &Expr) -> Lowered<Value> {
        match op {
            BinaryOperator::And | BinaryOperator::Or => self.junction(row, op, left, right),
            BinaryOperator::Add
            | BinaryOperator::Subtract
            | BinaryOperator::Multiply
            | BinaryOperator::Divide
            | BinaryOperator::Remainder
            | BinaryOperator::BitAnd
            | BinaryOperator::BitOr
            | BinaryOperator::BitXor => self.arithmetic(row, op, (left, right), &expr.data_type),
            _ => self.comparison(row, op, left, right),
        }
    }

    /// The value of an expression without columns; none where there is one.
    fn folded(&mut self, expr: &Expr) -> Lowered<Option<Folded>> {
        match &expr.node {
            Node::Literal(value) => return Ok(Some(Ok(value.clone()))),
            Node::Parameter(index) => {
                let value = self.bound.parameters.get(*index).cloned();
                let value = value.ok_or_else(|| Unsupported(format!("no parameter {index}")))?;
                return Ok(Some(Ok(value)));
            }
            _ => {}
        }
        if !expr.columns().is_empty() {
            return Ok(None);
        }
        let nothing = DeviceColumn {
            data_type: Type::Null,
            rows: 1,
            values: Values::Nulls,
            validity: None,
            zone: ZoneMap::default(),
        };
        match self.bound.host.evaluate(expr, &nothing, self.bound.parameters) {
            Ok(column) => Ok(Some(Ok(value_at(&column, 0)))),
            Err(error @ (DeviceError::Arithmetic(_) | DeviceError::Input(_))) => Ok(Some(Err(error))),
            Err(error) => Err(Unsupported(error.to_string())),
        }
    }

    /// A constant as a value; its error counts for the rows that come here.
    fn constant(&mut self, folded: Folded, data_type: &Type) -> Lowered<Value> {
        match folded {
            Ok(value) => self.plain_constant(&value, data_type),
            Err(error) => {
                self.fail(build::bool(true), None, error);
                Ok(register::null_of(data_type))
            }
        }
    }
}

/// One value of a column.
fn value_at(column: &DeviceColumn, row: usize) -> Constant {
    if column.is_null(row) {
        return Constant::Null;
    }
    match &column.values {
        Values::Integers { carrier, base } => Constant::Int(i128::from(*base) + i128::from(carrier.get(row))),
        Values::Wide(values) => Constant::Int(values[row]),
        Values::Float32(values) => Constant::Float(values[row].into()),
        Values::Float64(values) => Constant::Float(values[row]),
        Values::Booleans(values) => Constant::Boolean(values.value(row)),
        Values::Codes { codes, dictionary } => Constant::Bytes(dictionary.get(codes.get(row)).into()),
        Values::Strings(strings) => Constant::Bytes(strings.get(row).into()),
        Values::Intervals(values) => Constant::Interval(values[row]),
        Values::Nulls => Constant::Null,
    }
}
