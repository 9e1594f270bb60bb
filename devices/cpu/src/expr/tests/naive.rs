//! Expressions one row at a time, straight from the semantics: what compiled programs are held against.

use std::cmp::Ordering;

use arrow::datatypes::i256;
use trireme_device_api::{BinaryOperator, DatePart, Expr, Node, Type, Value};

use crate::expr::arithmetic::scale;
use crate::expr::arrow::{from_array, to_array};
use crate::expr::constant::constant;
use crate::expr::{Detached, Input};
use crate::isa::Isa;
use crate::tile::Tile;
use crate::vector::Shape;

type Result = std::result::Result<Value, String>;

/// The value of an expression for a row.
pub(super) fn eval(expr: &Expr, row: &[Value], parameters: &[Value]) -> Result {
    let of = |expr: &Expr| eval(expr, row, parameters);
    Ok(match &expr.node {
        Node::Column(index) => row[*index].clone(),
        Node::Literal(value) => value.clone(),
        Node::Parameter(index) => parameters[*index].clone(),
        Node::Binary { op, left, right } => return binary(expr, *op, left, right, &of),
        Node::Not(operand) => match of(operand)? {
            Value::Boolean(value) => Value::Boolean(!value),
            _ => Value::Null,
        },
        Node::Negate(operand) => match of(operand)? {
            Value::Int(value) => limited(value.checked_neg(), &expr.data_type)?,
            Value::Float(value) => Value::Float(-value),
            _ => Value::Null,
        },
        Node::IsNull(operand) => Value::Boolean(of(operand)? == Value::Null),
        Node::IsNotNull(operand) => Value::Boolean(of(operand)? != Value::Null),
        Node::Cast { expr: operand, safe } => return cast(of(operand)?, &operand.data_type, &expr.data_type, *safe),
        Node::Case { branches, otherwise } => {
            for (condition, value) in branches {
                if of(condition)? == Value::Boolean(true) {
                    return of(value);
                }
            }
            return otherwise.as_ref().map_or(Ok(Value::Null), |otherwise| of(otherwise));
        }
        Node::InList { expr, list, negated } => {
            return in_list(&of(expr)?, list, *negated, &of);
        }
        Node::Like {
            expr,
            pattern,
            negated,
            case_insensitive,
        } => match (of(expr)?, of(pattern)?) {
            (Value::Bytes(value), Value::Bytes(pattern)) => {
                let text = |bytes: &[u8]| -> Vec<char> {
                    let text = String::from_utf8(bytes.to_vec()).unwrap();
                    (if *case_insensitive { text.to_lowercase() } else { text })
                        .chars()
                        .collect()
                };
                Value::Boolean(like(&text(&pattern), &text(&value)) != *negated)
            }
            _ => Value::Null,
        },
        Node::Extract { part, expr } => match of(expr)? {
            Value::Int(value) => Value::Int(extract(*part, value, &expr.data_type)),
            _ => Value::Null,
        },
        Node::Function { function, args } => {
            let args = args.iter().map(of).collect::<std::result::Result<Vec<_>, _>>()?;
            return function.evaluate(&args).map_err(|error| error.to_string());
        }
        Node::Host { function, args } => {
            let arrays = args
                .iter()
                .map(|arg| of(arg).map(|value| array(&value, &arg.data_type)))
                .collect::<std::result::Result<Vec<_>, _>>()?;
            let result = function.implementation.as_ref().unwrap().evaluate(&arrays, 1)?;
            from_array(&result, &Shape::of_type(expr.data_type.clone(), true), 1)
                .unwrap()
                .value(0)
        }
    })
}

fn in_list(value: &Value, list: &[Expr], negated: bool, of: &dyn Fn(&Expr) -> Result) -> Result {
    let list = list.iter().map(of).collect::<std::result::Result<Vec<_>, _>>()?;
    if *value == Value::Null {
        return Ok(Value::Null);
    }
    Ok(
        if list
            .iter()
            .any(|item| *item != Value::Null && order(value, item, 0, 0) == Ordering::Equal)
        {
            Value::Boolean(!negated)
        } else if list.contains(&Value::Null) {
            Value::Null
        } else {
            Value::Boolean(negated)
        },
    )
}

fn array(value: &Value, data_type: &Type) -> arrow::array::ArrayRef {
    let tile = Tile {
        rows: 1,
        origins: Vec::new(),
        slots: Vec::new(),
    };
    let vector = constant(value.clone(), data_type)
        .eval(&Input::new(&Detached(&tile), 1, Isa::Baseline))
        .unwrap();
    to_array(&vector, data_type, Isa::Baseline).unwrap()
}

fn cast(value: Value, from: &Type, to: &Type, safe: bool) -> Result {
    let options = arrow::compute::CastOptions {
        safe,
        ..Default::default()
    };
    let result = arrow::compute::cast_with_options(&array(&value, from), &to.to_arrow(), &options);
    let result = result.map_err(|error| error.to_string())?;
    Ok(from_array(&result, &Shape::of_type(to.clone(), true), 1)
        .unwrap()
        .value(0))
}

fn like(pattern: &[char], value: &[char]) -> bool {
    match pattern {
        [] => value.is_empty(),
        ['%', rest @ ..] => (0..=value.len()).any(|at| like(rest, &value[at..])),
        ['_', rest @ ..] => !value.is_empty() && like(rest, &value[1..]),
        ['\\', escaped, rest @ ..] => value.first() == Some(escaped) && like(rest, &value[1..]),
        [first, rest @ ..] => value.first() == Some(first) && like(rest, &value[1..]),
    }
}

fn extract(part: DatePart, value: i128, data_type: &Type) -> i128 {
    use chrono_like::parts;
    let per_second = match data_type {
        Type::Timestamp { unit, .. } => i128::from(unit.per_second()),
        _ => 1,
    };
    let seconds = if *data_type == Type::Date32 {
        value * 86_400
    } else {
        value.div_euclid(per_second)
    };
    parts(part, seconds.div_euclid(86_400), seconds.rem_euclid(86_400))
}

/// By counting years and months, slowly.
mod chrono_like {
    use trireme_device_api::DatePart;

    fn leap(year: i128) -> bool {
        year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
    }

    fn length(year: i128, month: i128) -> i128 {
        match month {
            2 => 28 + i128::from(leap(year)),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    /// The first day of a year.
    fn start(year: i128) -> i128 {
        let before = year - 1;
        before * 365 + before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400) - 719_162
    }

    fn weeks_before(year: i128) -> i128 {
        // Monday of the week that holds 4 January.
        let fourth = start(year) + 3;
        fourth - (fourth + 3).rem_euclid(7)
    }

    pub(super) fn parts(part: DatePart, days: i128, seconds: i128) -> i128 {
        let mut year = 1970 + days.div_euclid(366);
        while start(year + 1) <= days {
            year += 1;
        }
        while start(year) > days {
            year -= 1;
        }
        let (mut month, mut rest) = (1, days - start(year));
        while rest >= length(year, month) {
            rest -= length(year, month);
            month += 1;
        }
        match part {
            DatePart::Year => year,
            DatePart::Quarter => (month + 2) / 3,
            DatePart::Month => month,
            DatePart::Week => {
                let year = (year - 1..=year + 1)
                    .rev()
                    .find(|year| weeks_before(*year) <= days)
                    .unwrap();
                (days - weeks_before(year)) / 7 + 1
            }
            DatePart::Day => rest + 1,
            DatePart::DayOfWeek => (days + 4).rem_euclid(7),
            DatePart::DayOfYear => days - start(year) + 1,
            DatePart::Hour => seconds / 3600,
            DatePart::Minute => seconds / 60 % 60,
            DatePart::Second => seconds % 60,
        }
    }
}

fn limited(value: Option<i128>, data_type: &Type) -> Result {
    let (low, high) = data_type.value_range().unwrap();
    match value {
        Some(value) if (low..=high).contains(&value) => Ok(Value::Int(value)),
        _ => Err("overflow".to_owned()),
    }
}

fn binary(expr: &Expr, op: BinaryOperator, left: &Expr, right: &Expr, of: &dyn Fn(&Expr) -> Result) -> Result {
    use BinaryOperator::{And, Distinct, NotDistinct, Or};
    let l = of(left)?;
    let decided = match (op, &l) {
        (And, Value::Boolean(false)) | (Or, Value::Boolean(true)) => return Ok(l),
        (And | Or, _) => Value::Boolean(op == Or),
        _ => Value::Null,
    };
    let r = of(right)?;
    let (ls, rs) = (scale(&left.data_type), scale(&right.data_type));
    match (op, &l, &r) {
        (And | Or, _, r) if *r == decided => Ok(decided),
        (And | Or, Value::Null, _) | (And | Or, _, Value::Null) => Ok(Value::Null),
        (And | Or, ..) => Ok(r),
        (Distinct | NotDistinct, l, r) => {
            let same = match (l, r) {
                (Value::Null, Value::Null) => true,
                (Value::Null, _) | (_, Value::Null) => false,
                (l, r) => order(l, r, ls, rs) == Ordering::Equal,
            };
            Ok(Value::Boolean(same == (op == NotDistinct)))
        }
        (_, Value::Null, _) | (_, _, Value::Null) => Ok(Value::Null),
        (op, l, r) if *op_is_comparison(&op) => Ok(Value::Boolean(compares(op, order(l, r, ls, rs)))),
        (op, Value::Float(l), Value::Float(r)) => Ok(Value::Float(float(op, *l, *r, &expr.data_type))),
        (op, Value::Int(l), Value::Int(r)) => integral(op, *l, *r, ls, rs, &expr.data_type),
        (op, l, r) => arrow_arithmetic(
            op,
            &array(l, &left.data_type),
            &array(r, &right.data_type),
            &expr.data_type,
        ),
    }
}

fn arrow_arithmetic(
    op: BinaryOperator,
    left: &arrow::array::ArrayRef,
    right: &arrow::array::ArrayRef,
    data_type: &Type,
) -> Result {
    use arrow::compute::kernels::numeric;
    let result = if op == BinaryOperator::Add {
        numeric::add(left, right)
    } else {
        numeric::sub(left, right)
    };
    let result = result.map_err(|error| error.to_string())?;
    Ok(from_array(&result, &Shape::of_type(data_type.clone(), true), 1)
        .unwrap()
        .value(0))
}

fn op_is_comparison(op: &BinaryOperator) -> &bool {
    use BinaryOperator::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    if matches!(op, Equal | NotEqual | Less | LessOrEqual | Greater | GreaterOrEqual) {
        &true
    } else {
        &false
    }
}

fn compares(op: BinaryOperator, order: Ordering) -> bool {
    match op {
        BinaryOperator::Equal => order == Ordering::Equal,
        BinaryOperator::NotEqual => order != Ordering::Equal,
        BinaryOperator::Less => order == Ordering::Less,
        BinaryOperator::LessOrEqual => order != Ordering::Greater,
        BinaryOperator::Greater => order == Ordering::Greater,
        _ => order != Ordering::Less,
    }
}

fn order(l: &Value, r: &Value, ls: i32, rs: i32) -> Ordering {
    match (l, r) {
        (Value::Boolean(l), Value::Boolean(r)) => l.cmp(r),
        (Value::Int(l), Value::Int(r)) => {
            let common = ls.max(rs);
            scaled(*l, common - ls).cmp(&scaled(*r, common - rs))
        }
        (Value::Float(l), Value::Float(r)) => match (l.is_nan(), r.is_nan()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            _ => l.partial_cmp(r).unwrap(),
        },
        (Value::Bytes(l), Value::Bytes(r)) => l.cmp(r),
        other => panic!("incomparable {other:?}"),
    }
}

fn float(op: BinaryOperator, l: f64, r: f64, data_type: &Type) -> f64 {
    macro_rules! by {
        ($l:expr, $r:expr) => {
            match op {
                BinaryOperator::Add => $l + $r,
                BinaryOperator::Subtract => $l - $r,
                BinaryOperator::Multiply => $l * $r,
                BinaryOperator::Divide => $l / $r,
                _ => $l % $r,
            }
        };
    }
    if *data_type == Type::Float32 {
        f64::from(by!(l as f32, r as f32))
    } else {
        by!(l, r)
    }
}

fn scaled(value: i128, digits: i32) -> i256 {
    let mut value = i256::from_i128(value);
    for _ in 0..digits {
        value = value.checked_mul(i256::from_i128(10)).unwrap();
    }
    value
}

fn integral(op: BinaryOperator, l: i128, r: i128, ls: i32, rs: i32, data_type: &Type) -> Result {
    let result = scale(data_type);
    let common = ls.max(rs);
    let (a, b) = (scaled(l, common - ls), scaled(r, common - rs));
    let one = i256::from_i128(1);
    let (exact, from) = match op {
        BinaryOperator::Add => (a + b, common),
        BinaryOperator::Subtract => (a - b, common),
        BinaryOperator::Multiply => (i256::from_i128(l) * i256::from_i128(r), ls + rs),
        BinaryOperator::Divide | BinaryOperator::Remainder if r == 0 => return Err("zero".to_owned()),
        BinaryOperator::Divide => {
            let digits = result - ls + rs;
            (scaled(l, digits.max(0)) / scaled(r, (-digits).max(0)), result)
        }
        BinaryOperator::Remainder if b == i256::from_i128(-1) * one => (i256::ZERO, common),
        BinaryOperator::Remainder => (a % b, common),
        BinaryOperator::BitAnd => return limited(Some(l & r), data_type),
        BinaryOperator::BitOr => return limited(Some(l | r), data_type),
        _ => return limited(Some(l ^ r), data_type),
    };
    let value = if result >= from {
        (0..result - from).try_fold(exact, |value, _| value.checked_mul(i256::from_i128(10)))
    } else {
        Some(exact / scaled(1, from - result))
    };
    limited(value.and_then(i256::to_i128), data_type)
}
