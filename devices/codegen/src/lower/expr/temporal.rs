//! Dates and timestamps: plus or minus a constant interval.

use trireme_device_api::{BinaryOperator, Expr, Type};

use crate::lower::{Lowered, Lowering, Row, Unsupported, Value};

impl Lowering<'_> {
    /// `left operator right`, one of which is an interval.
    pub(super) fn interval_arithmetic(
        &mut self,
        row: &mut Row,
        operator: BinaryOperator,
        (left, right): (&Expr, &Expr),
        data_type: &Type,
    ) -> Lowered<Value> {
        let _ = (row, operator, left, right, data_type);
        Err(Unsupported("arithmetic of intervals has no kernel yet".to_owned()))
    }
}
