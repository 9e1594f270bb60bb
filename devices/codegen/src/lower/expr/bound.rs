//! Comparisons of an expression with a constant as bounds of what the expression is made from.
//!
//! `CAST(discount AS DECIMAL(30, 15)) >= 0.05` is `discount >= 5` in hundredths: a cast that only multiplies, and can't fail,
//! need not be computed.

use trireme_device_api::{BinaryOperator, Expr, Node, Type, Value as Constant};

use super::arithmetic;
use super::range::{Range, power_of_ten, scale};
use crate::lower::{Lowered, Lowering, Row, Value};

/// An operand and a constant that it is compared with.
pub(super) struct WithConstant<'e> {
    pub(super) operand: &'e Expr,
    pub(super) operator: BinaryOperator,
    pub(super) value: i128,
}

impl Lowering<'_> {
    /// A comparison of integral values of one type as one with a constant; none when it isn't such.
    pub(super) fn with_constant<'e>(
        &mut self,
        op: BinaryOperator,
        left: &'e Expr,
        right: &'e Expr,
    ) -> Lowered<Option<WithConstant<'e>>> {
        if left.data_type != right.data_type || !left.data_type.is_integral() {
            return Ok(None);
        }
        let (operand, value, operator) = match (left.columns().is_empty(), right.columns().is_empty()) {
            (false, true) => (left, right, op),
            (true, false) => (right, left, op.mirrored()),
            _ => return Ok(None),
        };
        Ok(match self.folded(value)? {
            Some(Ok(Constant::Int(value))) => Some(WithConstant {
                operand,
                operator,
                value,
            }),
            _ => None,
        })
    }

    /// `operand operator value`, on what the operand multiplies where it does nothing else.
    pub(super) fn bounded(&mut self, row: &mut Row, comparison: &WithConstant<'_>) -> Lowered<Value> {
        let (mut operand, mut value) = (comparison.operand, comparison.value);
        let mut operator = comparison.operator;
        while let Some((inner, factor)) = self.multiplied(row, operand)? {
            let (quotient, rest) = (value.div_euclid(factor), value.rem_euclid(factor));
            operator = match (operator, rest) {
                (operator, 0) => operator,
                (BinaryOperator::Less | BinaryOperator::LessOrEqual, _) => BinaryOperator::LessOrEqual,
                (BinaryOperator::Greater | BinaryOperator::GreaterOrEqual, _) => BinaryOperator::Greater,
                _ => break,
            };
            (operand, value) = (inner, quotient);
        }
        let left = self.expr(row, operand)?;
        let right = self.literal(value);
        self.compare_integers(operator, &left, &right)
    }

    /// What a cast multiplies, and by what, where it does nothing else.
    fn multiplied<'e>(&mut self, row: &Row, expr: &'e Expr) -> Lowered<Option<(&'e Expr, i128)>> {
        let Node::Cast { expr: inner, .. } = &expr.node else {
            return Ok(None);
        };
        let whole = |data_type: &Type| data_type.is_integer() || matches!(data_type, Type::Decimal { .. });
        if !whole(&inner.data_type) || !whole(&expr.data_type) {
            return Ok(None);
        }
        let (Some(factor), Some((least, most))) = (
            power_of_ten(scale(&expr.data_type) - scale(&inner.data_type)),
            expr.data_type.value_range(),
        ) else {
            return Ok(None);
        };
        let faults = self.parts.expressions.faults;
        let (value, _) = self.apart(row, |l, row| l.expr(row, inner))?;
        let fails = self.parts.expressions.faults > faults;
        self.parts.expressions.faults = faults;
        let fits = |range: Range| {
            let scaled = arithmetic::scaled(range, scale(&expr.data_type) - scale(&inner.data_type));
            scaled.is_some_and(|(low, high)| low >= least && high <= most)
        };
        Ok((!fails && value.shape.range.is_some_and(fits)).then_some((inner.as_ref(), factor)))
    }
}
