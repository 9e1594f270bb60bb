//! Comparisons of an expression with a constant as bounds of what the expression is made from.
//!
//! `CAST(discount AS DECIMAL(30, 15)) >= 0.05` is `discount >= 5` in hundredths: a cast that only multiplies, and can't fail,
//! need not be computed.

use trireme_device_api::{DeviceError, Expr, Node as ExprNode, Type};

use super::arithmetic::scale;
use super::compare::as_interval;
use super::{Compiled, Compiler, range};

/// `low <= operand <= high`.
pub(super) struct Bound<'e> {
    pub(super) operand: &'e Expr,
    pub(super) low: i128,
    pub(super) high: i128,
}

/// The bounds that a comparison with a constant means; none for other expressions, and for `<>`.
///
/// # Errors
/// An operand doesn't compile.
pub(super) fn bound<'e>(compiler: &Compiler<'_>, expr: &'e Expr) -> Result<Option<Bound<'e>>, DeviceError> {
    let ExprNode::Binary { op, left, right } = &expr.node else {
        return Ok(None);
    };
    if left.data_type != right.data_type || !left.data_type.is_integral() {
        return Ok(None);
    }
    let (operand, value, operator) = match (left.columns().is_empty(), right.columns().is_empty()) {
        (false, true) => (left, right, *op),
        (true, false) => (right, left, op.mirrored()),
        _ => return Ok(None),
    };
    let Some((low, high, negated)) = compiler
        .compile(value)?
        .integer()
        .and_then(|value| as_interval(operator, value))
    else {
        return Ok(None);
    };
    let (low, high) = match (negated, low, high) {
        (false, low, high) => (Some(low), Some(high)),
        (true, i128::MIN, high) => (high.checked_add(1), Some(i128::MAX)),
        (true, low, i128::MAX) => (Some(i128::MIN), low.checked_sub(1)),
        _ => return Ok(None),
    };
    let (Some(mut low), Some(mut high)) = (low, high) else {
        return Ok(None);
    };
    let mut operand: &Expr = operand;
    while let Some((inner, factor)) = multiplied(compiler, operand)? {
        if low != i128::MIN {
            low = low.div_euclid(factor) + i128::from(low.rem_euclid(factor) != 0);
        }
        if high != i128::MAX {
            high = high.div_euclid(factor);
        }
        operand = inner;
    }
    Ok(Some(Bound { operand, low, high }))
}

/// What a cast multiplies, and by what, where it does nothing else.
fn multiplied<'e>(compiler: &Compiler<'_>, expr: &'e Expr) -> Result<Option<(&'e Expr, i128)>, DeviceError> {
    let ExprNode::Cast { expr: inner, .. } = &expr.node else {
        return Ok(None);
    };
    let whole = |data_type: &Type| data_type.is_integer() || matches!(data_type, Type::Decimal { .. });
    if !whole(&inner.data_type) || !whole(&expr.data_type) {
        return Ok(None);
    }
    let (Some(factor), Some((least, most))) = (
        range::power_of_ten(scale(&expr.data_type) - scale(&inner.data_type)),
        expr.data_type.value_range(),
    ) else {
        return Ok(None);
    };
    let Compiled { shape, fails, .. } = compiler.compile(inner)?;
    let Some(bounds) = shape.range.map(|own| range::multiply(own, (factor, factor))) else {
        return Ok(None);
    };
    let fits = !fails && bounds.within((least, most));
    Ok(fits.then_some((inner.as_ref(), factor)))
}
