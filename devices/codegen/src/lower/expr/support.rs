//! Which expressions have kernels, said without binding, and the reasons of those that don't. Strings are assumed to be codes of
//! dictionaries: where they turn out not to be, lowering says what it lacks.

use trireme_device_api::{BinaryOperator, Expr, Node, Type, Value as Constant};

use super::{cast, function, known, temporal};
use crate::lower::{Lowered, Unsupported};

/// Whether an expression has a kernel, as far as is known without binding it.
///
/// # Errors
/// The reason why not.
pub fn supports(expr: &Expr) -> Lowered<()> {
    check(expr).map_err(Unsupported)
}

fn check(expr: &Expr) -> Result<(), String> {
    let columns = expr.columns();
    if columns.is_empty() {
        return value(&expr.data_type);
    }
    if let [_] = columns[..]
        && by_host(expr)
        && !matches!(expr.node, Node::Column(_))
    {
        return resolved(expr);
    }
    match &expr.node {
        Node::Binary { op, left, right } => binary(*op, left, right, &expr.data_type)?,
        Node::Like { pattern, .. } if !pattern.columns().is_empty() => {
            return Err("LIKE with a pattern that isn't constant has no kernel".to_owned());
        }
        Node::InList { list, expr, .. } => {
            if list.iter().any(|item| !item.columns().is_empty()) {
                return Err("IN over values that aren't constant has no kernel".to_owned());
            }
            if list
                .iter()
                .any(|item| item.data_type != expr.data_type && item.data_type != Type::Null)
            {
                return Err("IN over values of other types has no kernel".to_owned());
            }
        }
        Node::Cast { expr: operand, .. } => cast::support(&operand.data_type, &expr.data_type)?,
        Node::Extract { expr: operand, .. } => match &operand.data_type {
            Type::Date32 | Type::Timestamp { zone: None, .. } | Type::Null => {}
            other => return Err(format!("a part of a {other:?} has no kernel")),
        },
        Node::Function { function, args } if !of_one_code(args) => function::support(*function)?,
        Node::Host { function, args }
            if known::known(&function.name, args, &expr.data_type).is_none() && !of_one_code(args) =>
        {
            return Err(format!(
                "{} of other than one string column has no kernel",
                function.name
            ));
        }
        _ => {}
    }
    value(&expr.data_type)?;
    expr.children().into_iter().try_for_each(|child| {
        if matches!(child.data_type, Type::Interval(_)) && child.columns().is_empty() {
            return Ok(());
        }
        check(child)
    })
}

/// Whether the one argument that isn't constant is codes.
fn of_one_code(args: &[Expr]) -> bool {
    let mut changing = args.iter().filter(|arg| !arg.columns().is_empty());
    matches!((changing.next(), changing.next()), (Some(arg), None) if is_code(arg))
}

/// Whether a string is codes of a dictionary, where those of columns are.
fn is_code(expr: &Expr) -> bool {
    if expr.columns().len() <= 1 {
        return expr.columns().is_empty() || by_host(expr);
    }
    match &expr.node {
        Node::Cast { expr: operand, .. } => is_code(operand),
        Node::Case { branches, otherwise } => {
            let mut values = branches.iter().map(|(_, value)| value).chain(otherwise.as_deref());
            values.all(is_code)
        }
        Node::Function { args, .. } | Node::Host { args, .. } => of_one_code(args),
        _ => false,
    }
}

/// What the host needs to know to evaluate it.
fn resolved(expr: &Expr) -> Result<(), String> {
    let mut missing = None;
    expr.visit(&mut |expr| {
        if let Node::Host { function, .. } = &expr.node
            && function.implementation.is_none()
        {
            missing = Some(format!("the function {} is not known here", function.name));
        }
    });
    missing.map_or_else(|| value(&expr.data_type), Err)
}

/// True for expressions of one column that the host evaluates: over a dictionary, or over few integers.
fn by_host(expr: &Expr) -> bool {
    let mut column = None;
    expr.visit(&mut |expr| {
        if matches!(expr.node, Node::Column(_)) {
            column = Some(&expr.data_type);
        }
    });
    column.is_some_and(|column| {
        let few = matches!(column, Type::Int8 | Type::UInt8 | Type::Date32);
        column.is_bytes() || (few && is_slow(expr))
    })
}

/// True for what only the host does: functions of its own, and casts between strings and others.
pub(super) fn is_slow(expr: &Expr) -> bool {
    let mut slow = false;
    expr.visit(&mut |expr| {
        slow |= match &expr.node {
            Node::Host { function, args } => known::known(&function.name, args, &expr.data_type).is_none(),
            Node::Cast { expr: operand, .. } => expr.data_type.is_bytes() != operand.data_type.is_bytes(),
            _ => false,
        };
    });
    slow
}

fn value(data_type: &Type) -> Result<(), String> {
    match data_type {
        Type::Interval(_) => Err("intervals as values have no kernel".to_owned()),
        _ => Ok(()),
    }
}

fn binary(op: BinaryOperator, left: &Expr, right: &Expr, data_type: &Type) -> Result<(), String> {
    let interval = |expr: &Expr| matches!(expr.data_type, Type::Interval(_));
    let arithmetic = matches!(
        op,
        BinaryOperator::Add
            | BinaryOperator::Subtract
            | BinaryOperator::Multiply
            | BinaryOperator::Divide
            | BinaryOperator::Remainder
            | BinaryOperator::BitAnd
            | BinaryOperator::BitOr
            | BinaryOperator::BitXor
    );
    match (interval(left), interval(right)) {
        (true, true) => return Err("arithmetic of intervals has no kernel".to_owned()),
        (false, false) => {}
        (first, _) => {
            let (time, interval) = if first { (right, left) } else { (left, right) };
            let constant = match &interval.node {
                Node::Literal(Constant::Interval(interval)) => Some(interval),
                _ => None,
            };
            if !arithmetic || !interval.columns().is_empty() {
                return Err("intervals that aren't constant have no kernel".to_owned());
            }
            return temporal::support(&time.data_type, constant);
        }
    }
    if !arithmetic {
        return Ok(());
    }
    let number = |data_type: &Type| data_type.is_integer() || matches!(data_type, Type::Decimal { .. } | Type::Null);
    let bits = matches!(
        op,
        BinaryOperator::BitAnd | BinaryOperator::BitOr | BinaryOperator::BitXor
    );
    let (l, r) = (&left.data_type, &right.data_type);
    let supported = match (l, r, data_type) {
        (_, _, Type::Float32 | Type::Float64) => {
            !bits && [l, r].into_iter().all(|side| side == data_type || *side == Type::Null)
        }
        (Type::Date32, Type::Date32, Type::Int32 | Type::Int64) => op == BinaryOperator::Subtract,
        (_, _, Type::Decimal { .. }) => !bits && number(l) && number(r),
        (_, _, other) => number(other) && number(l) && number(r),
    };
    if supported {
        return Ok(());
    }
    Err(format!("{op:?} of {l:?} and {r:?} to {data_type:?} has no kernel"))
}
