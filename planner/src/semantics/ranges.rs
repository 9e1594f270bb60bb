//! What the types and constants of integer and decimal operands prove about a result.

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::{Expr, ExprSchemable, Operator};

use super::arithmetic::CheckedOperator;

/// Whether the operation on integers or decimals may leave its result's type.
///
/// # Errors
/// An expression that does not type.
pub(super) fn may_overflow(operator: CheckedOperator, left: &Expr, right: &Expr, schema: &DFSchema) -> Result<bool> {
    let (left_type, right_type) = (left.get_type(schema)?, right.get_type(schema)?);
    let Some(binary) = operator.binary() else {
        return Ok(false);
    };
    if left_type.is_integer() && left_type == right_type {
        if matches!(binary, Operator::Divide | Operator::Modulo) {
            return Ok(false);
        }
        let range = combined(binary, bounds(left, schema)?, bounds(right, schema)?);
        return Ok(!range.is_some_and(|range| fits(range, &left_type)));
    }
    Ok(decimal_may_overflow(operator, &left_type, &right_type))
}

/// Whether the operand may be its integer type's smallest value.
///
/// # Errors
/// An expression that does not type.
pub(super) fn negation_may_overflow(operand: &Expr, schema: &DFSchema) -> Result<bool> {
    let data_type = operand.get_type(schema)?;
    let range = negated(bounds(operand, schema)?);
    Ok(data_type.is_signed_integer() && !range.is_some_and(|range| fits(range, &data_type)))
}

/// Whether a result may need more digits than its type has, because the type's precision is capped.
fn decimal_may_overflow(operator: CheckedOperator, left: &DataType, right: &DataType) -> bool {
    let (digits_max, (p1, s1), (p2, s2)) = match (left, right) {
        (DataType::Decimal32(p1, s1), DataType::Decimal32(p2, s2)) => (9, (*p1, *s1), (*p2, *s2)),
        (DataType::Decimal64(p1, s1), DataType::Decimal64(p2, s2)) => (18, (*p1, *s1), (*p2, *s2)),
        (DataType::Decimal128(p1, s1), DataType::Decimal128(p2, s2)) => (38, (*p1, *s1), (*p2, *s2)),
        (DataType::Decimal256(p1, s1), DataType::Decimal256(p2, s2)) => (76, (*p1, *s1), (*p2, *s2)),
        _ => return false,
    };
    if matches!(operator, CheckedOperator::Divide | CheckedOperator::Remainder) {
        // Wider than 38 digits nothing is there to divide in.
        return digits_max == 38 && super::quotients::may_overflow(operator, (p1, s1), (p2, s2));
    }
    let whole = |precision: u8, scale: i8| i32::from(precision) - i32::from(scale);
    let digits = match operator {
        // Never more than the operands' digits together, though the type says one more.
        CheckedOperator::Multiply => i32::from(p1) + i32::from(p2),
        _ => i32::from(s1.max(s2)) + whole(p1, s1).max(whole(p2, s2)) + 1,
    };
    digits > digits_max
}

type Bounds = Option<(i128, i128)>;

/// The range of an integer expression as its types and constants prove it; `None` for what is not an integer.
fn bounds(expr: &Expr, schema: &DFSchema) -> Result<Bounds> {
    Ok(match expr {
        Expr::Literal(value, _) => literal(value).or(type_bounds(&value.data_type())),
        Expr::Alias(alias) => bounds(&alias.expr, schema)?,
        Expr::Cast(cast) => {
            let target = type_bounds(cast.field.data_type());
            match (target, bounds(&cast.expr, schema)?) {
                (Some((low, high)), Some(inner)) if low <= inner.0 && inner.1 <= high => Some(inner),
                (target, _) => target,
            }
        }
        Expr::BinaryExpr(binary) if matches!(binary.op, Operator::Plus | Operator::Minus | Operator::Multiply) => {
            combined(binary.op, bounds(&binary.left, schema)?, bounds(&binary.right, schema)?)
        }
        other => type_bounds(&other.get_type(schema)?),
    })
}

fn literal(value: &ScalarValue) -> Bounds {
    if !value.data_type().is_integer() || value.is_null() {
        return None;
    }
    match value.cast_to(&DataType::Decimal128(38, 0)) {
        Ok(ScalarValue::Decimal128(Some(value), ..)) => Some((value, value)),
        _ => None,
    }
}

fn type_bounds(data_type: &DataType) -> Bounds {
    Some(match data_type {
        DataType::Int8 => (i8::MIN.into(), i8::MAX.into()),
        DataType::Int16 => (i16::MIN.into(), i16::MAX.into()),
        DataType::Int32 => (i32::MIN.into(), i32::MAX.into()),
        DataType::Int64 => (i64::MIN.into(), i64::MAX.into()),
        DataType::UInt8 => (0, u8::MAX.into()),
        DataType::UInt16 => (0, u16::MAX.into()),
        DataType::UInt32 => (0, u32::MAX.into()),
        DataType::UInt64 => (0, u64::MAX.into()),
        _ => return None,
    })
}

fn fits((low, high): (i128, i128), data_type: &DataType) -> bool {
    type_bounds(data_type).is_some_and(|(min, max)| min <= low && high <= max)
}

fn negated(operand: Bounds) -> Bounds {
    let (low, high) = operand?;
    Some((high.checked_neg()?, low.checked_neg()?))
}

fn combined(operator: Operator, left: Bounds, right: Bounds) -> Bounds {
    let ((a, b), (c, d)) = (left?, right?);
    match operator {
        Operator::Plus => Some((a.checked_add(c)?, b.checked_add(d)?)),
        Operator::Minus => Some((a.checked_sub(d)?, b.checked_sub(c)?)),
        Operator::Multiply => {
            let ends = [
                a.checked_mul(c)?,
                a.checked_mul(d)?,
                b.checked_mul(c)?,
                b.checked_mul(d)?,
            ];
            let [first, ..] = ends;
            Some(
                ends.into_iter()
                    .fold((first, first), |(low, high), end| (low.min(end), high.max(end))),
            )
        }
        _ => None,
    }
}
