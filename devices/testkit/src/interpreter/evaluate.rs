//! One expression over one row.

use arrow::compute::{CastOptions, cast_with_options};
use trireme_device_api::{BinaryOperator, DeviceError, Expr, HostFunctionRef, Node, Type, Value};

use super::arithmetic::{arithmetic, negate};
use super::calendar::extract;
use super::like::like;
use crate::arrays::{array_of, value_at};
use crate::values::{Key, compare};

/// The expression's value over a row.
///
/// # Errors
/// [`DeviceError::Arithmetic`] for a fault of the values, [`DeviceError::Unsupported`] for what has no meaning here,
/// [`DeviceError::Internal`] for an expression whose types don't fit together.
pub fn evaluate(expr: &Expr, row: &[Value], parameters: &[Value]) -> Result<Value, DeviceError> {
    let child = |child: &Expr| evaluate(child, row, parameters);
    match &expr.node {
        Node::Column(index) => get(row, *index, "column"),
        Node::Literal(value) => Ok(value.clone()),
        Node::Parameter(index) => get(parameters, *index, "parameter"),
        Node::Binary { op, left, right } => match op {
            BinaryOperator::And => kleene(child(left)?, || child(right), false),
            BinaryOperator::Or => kleene(child(left)?, || child(right), true),
            _ => binary(*op, (child(left)?, left), (child(right)?, right), &expr.data_type),
        },
        Node::Not(operand) => Ok(match truth(&child(operand)?)? {
            Some(value) => Value::Boolean(!value),
            None => Value::Null,
        }),
        Node::Negate(operand) => match child(operand)? {
            Value::Null => Ok(Value::Null),
            value => negate(&value, &expr.data_type),
        },
        Node::IsNull(operand) => Ok(Value::Boolean(child(operand)? == Value::Null)),
        Node::IsNotNull(operand) => Ok(Value::Boolean(child(operand)? != Value::Null)),
        Node::Cast { expr: operand, safe } => cast(&child(operand)?, &operand.data_type, &expr.data_type, *safe),
        Node::Case { branches, otherwise } => {
            for (condition, value) in branches {
                if truth(&child(condition)?)? == Some(true) {
                    return child(value);
                }
            }
            otherwise.as_ref().map_or(Ok(Value::Null), |otherwise| child(otherwise))
        }
        Node::InList {
            expr: operand,
            list,
            negated,
        } => {
            let list = list.iter().map(|item| Ok((child(item)?, &item.data_type)));
            let list = list.collect::<Result<Vec<_>, DeviceError>>()?;
            Ok(in_list(&child(operand)?, &operand.data_type, &list, *negated))
        }
        Node::Like {
            expr: operand,
            pattern,
            negated,
            case_insensitive,
        } => match (text_of(child(operand)?)?, text_of(child(pattern)?)?) {
            (Some(text), Some(pattern)) => Ok(Value::Boolean(like(&text, &pattern, *case_insensitive) != *negated)),
            _ => Ok(Value::Null),
        },
        Node::Extract { part, expr: operand } => match child(operand)? {
            Value::Null => Ok(Value::Null),
            Value::Int(value) => Ok(Value::Int(extract(*part, value, &operand.data_type)?)),
            other => Err(DeviceError::Internal(format!("EXTRACT from {other:?}"))),
        },
        Node::Function { function, args } => function.evaluate(&args.iter().map(child).collect::<Result<Vec<_>, _>>()?),
        Node::Host { function, args } => {
            let values = args.iter().map(child).collect::<Result<Vec<_>, _>>()?;
            host(function, args, &values, &expr.data_type)
        }
    }
}

fn get(values: &[Value], index: usize, what: &str) -> Result<Value, DeviceError> {
    let value = values.get(index).cloned();
    value.ok_or_else(|| DeviceError::Internal(format!("there is no {what} {index}")))
}

/// A boolean: true, false or NULL.
pub(crate) fn truth(value: &Value) -> Result<Option<bool>, DeviceError> {
    match value {
        Value::Null => Ok(None),
        Value::Boolean(value) => Ok(Some(*value)),
        other => Err(DeviceError::Internal(format!("{other:?} is no boolean"))),
    }
}

/// AND (`decisive` is false) and OR (`decisive` is true): the right side only matters, and is only evaluated, when the left
/// one doesn't decide.
fn kleene(
    left: Value,
    right: impl FnOnce() -> Result<Value, DeviceError>,
    decisive: bool,
) -> Result<Value, DeviceError> {
    let left = truth(&left)?;
    if left == Some(decisive) {
        return Ok(Value::Boolean(decisive));
    }
    Ok(match (left, truth(&right()?)?) {
        (_, Some(right)) if right == decisive => Value::Boolean(decisive),
        (Some(_), Some(_)) => Value::Boolean(!decisive),
        _ => Value::Null,
    })
}

fn binary(
    op: BinaryOperator,
    (left, left_expr): (Value, &Expr),
    (right, right_expr): (Value, &Expr),
    result: &Type,
) -> Result<Value, DeviceError> {
    use BinaryOperator as Op;
    let (left_type, right_type) = (&left_expr.data_type, &right_expr.data_type);
    let has_null = left == Value::Null || right == Value::Null;
    let distinct = || Key::of(&left, left_type) != Key::of(&right, right_type);
    let ordering = || compare(&left, left_type, &right, right_type);
    let truth = match op {
        Op::Distinct => distinct(),
        Op::NotDistinct => !distinct(),
        _ if has_null => return Ok(Value::Null),
        Op::Equal => ordering().is_eq(),
        Op::NotEqual => ordering().is_ne(),
        Op::Less => ordering().is_lt(),
        Op::LessOrEqual => ordering().is_le(),
        Op::Greater => ordering().is_gt(),
        Op::GreaterOrEqual => ordering().is_ge(),
        _ => return arithmetic(op, (&left, left_type), (&right, right_type), result),
    };
    Ok(Value::Boolean(truth))
}

fn in_list(value: &Value, data_type: &Type, list: &[(Value, &Type)], negated: bool) -> Value {
    if *value == Value::Null {
        return if list.is_empty() {
            Value::Boolean(negated)
        } else {
            Value::Null
        };
    }
    let key = Key::of(value, data_type);
    if list.iter().any(|(item, item_type)| Key::of(item, item_type) == key) {
        Value::Boolean(!negated)
    } else if list.iter().any(|(item, _)| *item == Value::Null) {
        Value::Null
    } else {
        Value::Boolean(negated)
    }
}

fn text_of(value: Value) -> Result<Option<String>, DeviceError> {
    match value {
        Value::Null => Ok(None),
        Value::Bytes(bytes) => String::from_utf8(bytes.to_vec())
            .map(Some)
            .map_err(|error| DeviceError::Internal(error.to_string())),
        other => Err(DeviceError::Internal(format!("{other:?} is no string"))),
    }
}

/// What arrow-cast makes of an array of this one value.
fn cast(value: &Value, from: &Type, to: &Type, safe: bool) -> Result<Value, DeviceError> {
    if from == to {
        return Ok(value.clone());
    }
    let array = array_of(std::slice::from_ref(value), from)?;
    let options = CastOptions {
        safe,
        ..CastOptions::default()
    };
    let casted = cast_with_options(&array, &to.to_arrow(), &options)
        .map_err(|error| DeviceError::Arithmetic(error.to_string()))?;
    value_at(&casted, 0, to)
}

fn host(function: &HostFunctionRef, args: &[Expr], values: &[Value], result: &Type) -> Result<Value, DeviceError> {
    let implementation = function
        .implementation
        .as_ref()
        .ok_or_else(|| DeviceError::Internal(format!("{} has no implementation", function.name)))?;
    let mut arrays = Vec::with_capacity(args.len());
    for (arg, value) in args.iter().zip(values) {
        arrays.push(array_of(std::slice::from_ref(value), &arg.data_type)?);
    }
    let array = implementation.evaluate(&arrays, 1).map_err(DeviceError::Arithmetic)?;
    value_at(&array, 0, result)
}
