//! Which expressions are fused, and the reasons of those that aren't.

use trireme_device_api::{BinaryOperator, Expr, Node, Type};

use super::cast;

/// The reason why an expression is not fused, if it isn't.
pub(crate) fn support(expr: &Expr) -> Result<(), String> {
    let mut reason = None;
    expr.visit(&mut |expr| {
        if reason.is_none() {
            reason = one(expr).err();
        }
    });
    reason.map_or(Ok(()), Err)
}

fn one(expr: &Expr) -> Result<(), String> {
    match &expr.node {
        Node::Binary { op, left, right } => binary(*op, left, right, &expr.data_type),
        Node::Like { pattern, .. } if !is_constant(pattern) => {
            Err("LIKE with a pattern that isn't constant is not fused".to_owned())
        }
        Node::InList { list, expr, .. } => {
            if !list.iter().all(is_constant) {
                return Err("IN over values that aren't constant is not fused".to_owned());
            }
            if list
                .iter()
                .any(|item| item.data_type != expr.data_type && item.data_type != Type::Null)
            {
                return Err("IN over values of other types is not fused".to_owned());
            }
            no_interval("IN", expr)
        }
        Node::Cast { expr: operand, .. } => cast::support(&operand.data_type, &expr.data_type),
        Node::Extract { expr: operand, .. } => match &operand.data_type {
            Type::Date32 | Type::Timestamp { zone: None, .. } | Type::Null => Ok(()),
            other => Err(format!("a part of a {other:?} is not fused")),
        },
        Node::Function { function, args } => {
            let types: Vec<Type> = args.iter().map(|arg| arg.data_type.clone()).collect();
            if (function.descriptor().result)(&types).as_ref() == Some(&expr.data_type) {
                return Ok(());
            }
            let name = function.name();
            Err(format!("{name} of {types:?} to {:?} is not fused", expr.data_type))
        }
        Node::Host { function, .. } if function.implementation.is_none() => {
            Err(format!("the function {} is not known here", function.name))
        }
        Node::Negate(operand) if matches!(operand.data_type, Type::Interval(_)) => {
            Err("negation of intervals is not fused".to_owned())
        }
        _ => Ok(()),
    }
}

fn is_constant(expr: &Expr) -> bool {
    matches!(expr.node, Node::Literal(_) | Node::Parameter(_))
}

fn no_interval(what: &str, expr: &Expr) -> Result<(), String> {
    if matches!(expr.data_type, Type::Interval(_)) {
        return Err(format!("{what} over intervals is not fused"));
    }
    Ok(())
}

fn binary(op: BinaryOperator, left: &Expr, right: &Expr, data_type: &Type) -> Result<(), String> {
    match op {
        BinaryOperator::And | BinaryOperator::Or => Ok(()),
        BinaryOperator::Add
        | BinaryOperator::Subtract
        | BinaryOperator::Multiply
        | BinaryOperator::Divide
        | BinaryOperator::Remainder
        | BinaryOperator::BitAnd
        | BinaryOperator::BitOr
        | BinaryOperator::BitXor => arithmetic(op, left, right, data_type),
        _ => {
            no_interval("a comparison", left)?;
            no_interval("a comparison", right)
        }
    }
}

fn arithmetic(op: BinaryOperator, left: &Expr, right: &Expr, data_type: &Type) -> Result<(), String> {
    let number = |data_type: &Type| data_type.is_integer() || matches!(data_type, Type::Decimal { .. } | Type::Null);
    let sum = matches!(op, BinaryOperator::Add | BinaryOperator::Subtract);
    let (l, r) = (&left.data_type, &right.data_type);
    let bits = matches!(
        op,
        BinaryOperator::BitAnd | BinaryOperator::BitOr | BinaryOperator::BitXor
    );
    let fused = match (l, r, data_type) {
        (_, _, Type::Float32 | Type::Float64) => {
            !bits && [l, r].into_iter().all(|side| side == data_type || *side == Type::Null)
        }
        (Type::Interval(a), Type::Interval(b), _) => sum && a == b && l == data_type,
        (Type::Interval(_), time, _) => op == BinaryOperator::Add && time == data_type && is_day(time),
        (time, Type::Interval(_), _) => sum && time == data_type && is_day(time),
        (Type::Date32, Type::Date32, Type::Int32 | Type::Int64) => op == BinaryOperator::Subtract,
        (_, _, Type::Decimal { .. }) => !bits && number(l) && number(r),
        (_, _, other) => number(other) && number(l) && number(r),
    };
    if fused {
        Ok(())
    } else {
        Err(format!("{op:?} of {l:?} and {r:?} to {data_type:?} is not fused"))
    }
}

fn is_day(data_type: &Type) -> bool {
    matches!(data_type, Type::Date32 | Type::Timestamp { .. })
}
