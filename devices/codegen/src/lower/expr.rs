//! Expressions.

use trireme_device_api::Expr;

use super::{Lowered, Lowering, Row, Unsupported, Value};
use crate::ir::Expr as Ir;

impl Lowering<'_> {
    /// The value of an expression for the current row; statements that compute it are appended.
    pub(crate) fn expr(&mut self, row: &mut Row, expr: &Expr) -> Lowered<Value> {
        let _ = (row, expr);
        Err(Unsupported("not yet".to_owned()))
    }

    /// Bool: whether a predicate is true, not false nor NULL.
    pub(crate) fn condition(&mut self, row: &mut Row, expr: &Expr) -> Lowered<Ir> {
        let _ = (row, expr);
        Err(Unsupported("not yet".to_owned()))
    }
}
