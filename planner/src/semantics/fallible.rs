//! Which expressions can fail on some value.
//!
//! Said of types and constants, without looking at data. In doubt, an expression can fail: the price is a stage more in a
//! filter.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr, Literal};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};

/// Functions that have a result for every value of their types.
const TOTAL: &[&str] = &[
    "arrow_typeof",
    "ascii",
    "bit_length",
    "btrim",
    "canonical_float",
    "character_length",
    "coalesce",
    "concat",
    "concat_ws",
    "contains",
    "date_part",
    "date_trunc",
    "ends_with",
    "greatest",
    "initcap",
    "isnan",
    "iszero",
    "least",
    "left",
    "lower",
    "ltrim",
    "nanvl",
    "now",
    "nullif",
    "nvl",
    "nvl2",
    "octet_length",
    "replace",
    "reverse",
    "right",
    "rtrim",
    "signum",
    "starts_with",
    "strpos",
    "substring_index",
    "translate",
    "trireme_named",
    "trireme_plain",
    "trunc",
    "upper",
];

/// Whether evaluating the expression, or a part of it, can fail.
pub(super) fn is_fallible(expr: &Arc<dyn PhysicalExpr>, schema: &Schema) -> bool {
    fails_itself(expr, schema) || expr.children().into_iter().any(|child| is_fallible(child, schema))
}

fn fails_itself(expr: &Arc<dyn PhysicalExpr>, schema: &Schema) -> bool {
    if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        return operation_fails(binary, schema);
    }
    if let Some(cast) = expr.downcast_ref::<CastExpr>() {
        return match cast.expr().data_type(schema) {
            Ok(from) => cast_fails(&from, cast.cast_type()),
            Err(_) => true,
        };
    }
    if let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>() {
        return call_fails(call, schema);
    }
    false
}

fn call_fails(call: &ScalarFunctionExpr, schema: &Schema) -> bool {
    let (name, args) = (call.fun().name(), call.args());
    match name {
        // Of decimals they may have a digit more.
        "ceil" | "floor" | "round" => args
            .first()
            .and_then(|arg| arg.data_type(schema).ok())
            .is_none_or(|data_type| data_type.is_decimal()),
        // Lengths are not negative.
        "substr" => args.get(2).is_some_and(|length| {
            let literal = length.downcast_ref::<Literal>().map(Literal::value);
            !literal.is_some_and(|value| matches!(value, ScalarValue::Int64(None | Some(0..))))
        }),
        name => !TOTAL.contains(&name),
    }
}

fn operation_fails(binary: &BinaryExpr, schema: &Schema) -> bool {
    let (Ok(left), Ok(right)) = (binary.left().data_type(schema), binary.right().data_type(schema)) else {
        return true;
    };
    match binary.op() {
        Operator::Plus | Operator::Minus | Operator::Multiply => {
            // Numbers that could overflow are functions by now.
            !(left.is_numeric() && right.is_numeric()) && (left, right) != (DataType::Date32, DataType::Date32)
        }
        Operator::Divide | Operator::Modulo => {
            if left.is_floating() {
                return false;
            }
            let Some(divisor) = binary.right().downcast_ref::<Literal>() else {
                return true;
            };
            !divides(divisor.value(), &left, *binary.op())
        }
        _ => false,
    }
}

/// Whether dividing by the constant always has a result.
fn divides(divisor: &ScalarValue, dividend: &DataType, operator: Operator) -> bool {
    if divisor.is_null() {
        return true;
    }
    let is = |value: i8| {
        ScalarValue::Int8(Some(value))
            .cast_to(&divisor.data_type())
            .is_ok_and(|value| value == *divisor)
    };
    match (dividend, divisor.data_type()) {
        (dividend, divisor) if dividend.is_integer() && divisor.is_integer() => !is(0) && !is(-1),
        // The scaled dividend has p + 4 + s2 digits.
        (DataType::Decimal128(p, _), DataType::Decimal128(_, s2)) => {
            !is(0) && (operator == Operator::Modulo || i32::from(*p) + 4 + i32::from(s2) <= 38)
        }
        _ => false,
    }
}

/// Whether there are values of `from` without a value in `to`.
fn cast_fails(from: &DataType, to: &DataType) -> bool {
    use DataType::{Boolean, Date32, Decimal128, LargeUtf8, Null, Timestamp, Utf8, Utf8View};
    if from == to || matches!(from, Null) {
        return false;
    }
    if matches!(to, Utf8 | LargeUtf8 | Utf8View) {
        return from.is_binary();
    }
    match (from, to) {
        (Boolean, to) => !to.is_integer(),
        (from, Boolean) => !from.is_numeric(),
        (from, to) if from.is_numeric() && to.is_floating() => false,
        (from, to) if from.is_integer() && to.is_integer() => !holds(from, to),
        (from, Decimal128(p, s)) if from.is_integer() => {
            integer_digits(from).is_none_or(|digits| digits > i32::from(*p) - i32::from(*s))
        }
        (Decimal128(p1, s1), Decimal128(p2, s2)) => {
            s2 < s1 || i32::from(*p2) - i32::from(*s2) < i32::from(*p1) - i32::from(*s1)
        }
        (Timestamp(..), Date32) => false,
        (Timestamp(from, _), Timestamp(to, _)) => from != to,
        _ => true,
    }
}

fn integer_digits(data_type: &DataType) -> Option<i32> {
    Some(match data_type {
        DataType::Int8 | DataType::UInt8 => 3,
        DataType::Int16 | DataType::UInt16 => 5,
        DataType::Int32 | DataType::UInt32 => 10,
        DataType::Int64 => 19,
        DataType::UInt64 => 20,
        _ => return None,
    })
}

fn holds(from: &DataType, to: &DataType) -> bool {
    let (Some(from_bits), Some(to_bits)) = (from.primitive_width(), to.primitive_width()) else {
        return false;
    };
    match (from.is_signed_integer(), to.is_signed_integer()) {
        (true, false) => false,
        (false, true) => to_bits > from_bits,
        _ => to_bits >= from_bits,
    }
}
