//! Cases that chance rarely finds: ends of types, ties, what is not reached.

use trireme_device_api::{
    BinaryOperator as Op, DatePart, Expr, HostFunctionRef, Interval, IntervalKind, Node, TimeUnit, Type, Value,
};
use trireme_device_testkit::generate::arithmetic_type;

use super::agrees;
use super::rig::{self, Column, Outcome, Table, project};
use super::texts::texts;

fn decimal(precision: u8, scale: i8) -> Type {
    Type::Decimal { precision, scale }
}

pub(super) fn column(data_type: &Type, values: &[Value], exact_range: bool, raw: bool) -> Column {
    Column {
        data_type: data_type.clone(),
        values: values.to_vec(),
        raw,
        exact_range,
    }
}

/// One row of two columns: as an error of one row hides the others' values.
fn pair(left: (&Type, Value), right: (&Type, Value), exact: bool) -> Table {
    Table {
        columns: vec![
            column(left.0, &[left.1], exact, false),
            column(right.0, &[right.1], exact, false),
        ],
        rows: 1,
    }
}

pub(super) fn operands(left: &Type, right: &Type) -> (Expr, Expr) {
    (Expr::column(0, left.clone()), Expr::column(1, right.clone()))
}

pub(super) fn text(text: &str) -> Value {
    Value::Bytes(text.as_bytes().into())
}

fn ends(data_type: &Type) -> Vec<Value> {
    let (low, high) = data_type.value_range().unwrap();
    let mut ends = vec![low, low + 1, 0, 1, 7, high / 2, high];
    if low < 0 {
        ends.push(-1);
    }
    ends.into_iter().map(Value::Int).collect()
}

#[test]
fn arithmetic_at_the_ends_of_types() {
    let ops = [Op::Add, Op::Subtract, Op::Multiply, Op::Divide, Op::Remainder];
    let types = [
        Type::Int8,
        Type::Int32,
        Type::Int64,
        Type::UInt32,
        Type::UInt64,
        decimal(5, 2),
        decimal(18, 4),
        decimal(38, 0),
        decimal(38, 10),
        decimal(38, 38),
    ];
    let mut judged = 0;
    for left in &types {
        for right in &types {
            for op in ops {
                let Some(result) = arithmetic_type(op, left, right) else {
                    continue;
                };
                let (l, r) = operands(left, right);
                let expr = Expr::binary(op, l, r, result);
                for a in ends(left) {
                    for b in ends(right) {
                        let table = pair((left, a.clone()), (right, b), judged % 5 == 0);
                        judged += u64::from(agrees(&table, &expr, &[], judged).is_ok());
                    }
                }
            }
        }
    }
    assert!(judged > 8_000, "{judged}");
}

#[test]
fn decimals_of_any_scales_compare() {
    let types = [
        decimal(38, 0),
        decimal(38, 10),
        decimal(38, 38),
        decimal(5, 2),
        decimal(20, 1),
    ];
    for left in &types {
        for right in &types {
            let (l, r) = operands(left, right);
            for op in [
                Op::Equal,
                Op::Less,
                Op::LessOrEqual,
                Op::GreaterOrEqual,
                Op::NotDistinct,
            ] {
                let expr = Expr::binary(op, l.clone(), r.clone(), Type::Boolean);
                for a in ends(left) {
                    for b in ends(right) {
                        let table = pair((left, a.clone()), (right, b), false);
                        agrees(&table, &expr, &[], 0).unwrap();
                    }
                }
            }
        }
    }
}

#[test]
fn casts_round_truncate_and_fail_as_arrow_does() {
    let targets = [
        Type::Int8,
        Type::Int32,
        Type::Int64,
        Type::UInt8,
        Type::UInt64,
        Type::Float32,
        Type::Float64,
        Type::Boolean,
        decimal(5, 2),
        decimal(18, 4),
        decimal(38, 0),
        decimal(38, 10),
    ];
    let mut sources: Vec<(Type, Value)> = Vec::new();
    for source in [
        Type::Int8,
        Type::Int64,
        Type::UInt64,
        decimal(5, 2),
        decimal(38, 10),
        decimal(38, 0),
    ] {
        sources.extend(ends(&source).into_iter().map(|value| (source.clone(), value)));
    }
    for cents in [
        -250, -249, -251, 249, 250, 251, 99_950, 99_949, 12_750, 12_800, -12_850, -12_950,
    ] {
        sources.push((decimal(18, 4), Value::Int(cents)));
    }
    let floats = [
        0.0,
        -0.0,
        0.5,
        -0.5,
        1.5,
        2.5,
        -2.5,
        0.499_999_999_999_999_94,
        127.9,
        128.0,
        -128.9,
        -129.0,
        255.5,
        256.0,
        1e18,
        9.2e18,
        9.3e18,
        -9.223_372_036_854_776e18,
        1.8e19,
        1e37,
        9.99e37,
        1e38,
        1.7e38,
        1.8e38,
        1e300,
        999.985,
        999.995,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        1e-40,
        16_777_217.0,
    ];
    sources.extend(floats.iter().map(|value| (Type::Float64, Value::Float(*value))));
    let narrow = floats.iter().map(|value| f64::from(*value as f32));
    sources.extend(narrow.map(|value| (Type::Float32, Value::Float(value))));
    let mut judged = 0;
    for (source, value) in &sources {
        for target in &targets {
            for safe in [false, true] {
                let expr = Expr {
                    node: Node::Cast {
                        expr: Box::new(Expr::column(0, source.clone())),
                        safe,
                    },
                    data_type: target.clone(),
                };
                let table = pair((source, value.clone()), (&Type::Int8, Value::Int(1)), false);
                judged += u32::from(agrees(&table, &expr, &[], 0).is_ok());
            }
        }
    }
    assert!(judged > 2_000, "{judged}");
}

#[test]
fn parts_and_intervals_at_the_ends_of_months_and_eras() {
    let days = [
        -719_162_i128,
        -141_428,
        -1,
        0,
        1,
        58,
        59,
        60,
        364,
        365,
        789,
        11_016,
        11_017,
        18_321,
        18_262,
        18_627,
        19_722,
        19_723,
        47_541,
        2_932_896,
        -135_140,
        -719_529,
        90_000_000,
        -90_000_000,
    ];
    let parts = [
        DatePart::Year,
        DatePart::Quarter,
        DatePart::Month,
        DatePart::Week,
        DatePart::Day,
        DatePart::DayOfWeek,
        DatePart::DayOfYear,
        DatePart::Hour,
        DatePart::Minute,
        DatePart::Second,
    ];
    let timestamp = |unit| Type::Timestamp { unit, zone: None };
    let units = [
        TimeUnit::Second,
        TimeUnit::Millisecond,
        TimeUnit::Microsecond,
        TimeUnit::Nanosecond,
    ];
    let mut times: Vec<(Type, i128)> = days.iter().map(|day| (Type::Date32, *day)).collect();
    for unit in units {
        let per_day = 86_400 * i128::from(unit.per_second());
        for day in &days[..22] {
            for more in [0, 1, per_day - 1] {
                times.push((timestamp(unit), day * per_day + more));
            }
        }
    }
    times.retain(|(_, value)| i64::try_from(*value).is_ok());
    let intervals = [
        (1, 0, 0),
        (-1, 0, 0),
        (12, 0, 0),
        (-13, 3, 1),
        (0, 31, -1),
        (1, -1, 86_399_999_999_999),
        (1200, 0, 0),
    ];
    for (data_type, value) in times {
        let table = pair(
            (&data_type, Value::Int(value)),
            (&Type::Int8, Value::Int(1)),
            value % 2 == 0,
        );
        for part in parts {
            let expr = Box::new(Expr::column(0, data_type.clone()));
            let expr = Expr {
                node: Node::Extract { part, expr },
                data_type: Type::Int32,
            };
            agrees(&table, &expr, &[], 0).unwrap();
        }
        for (months, days, nanoseconds) in intervals {
            for op in [Op::Add, Op::Subtract] {
                let interval = Value::Interval(Interval {
                    months,
                    days,
                    nanoseconds,
                });
                let interval = Expr::literal(interval, Type::Interval(IntervalKind::MonthDayNano));
                let expr = Expr::binary(op, Expr::column(0, data_type.clone()), interval, data_type.clone());
                agrees(&table, &expr, &[], 0).unwrap();
            }
        }
    }
}

#[test]
fn lists_of_all_sizes() {
    for count in [0, 1, 2, 8, 9, 40] {
        for step in [1, 1_000_000_007] {
            for with_null in [false, true] {
                let ints = (0..count).map(|at| Value::Int((at - 3) * step));
                let list = ints.chain(with_null.then_some(Value::Null));
                let list = list.map(|value| Expr::literal(value, Type::Int64)).collect();
                let values: Vec<Value> = (-4..9).map(|at| Value::Int(at * step)).chain([Value::Null]).collect();
                let table = Table {
                    rows: values.len(),
                    columns: vec![column(&Type::Int64, &values, count % 2 == 0, false)],
                };
                let expr = Expr {
                    node: Node::InList {
                        expr: Box::new(Expr::column(0, Type::Int64)),
                        list,
                        negated: with_null,
                    },
                    data_type: Type::Boolean,
                };
                agrees(&table, &expr, &[], 0).unwrap();
            }
        }
        let list =
            (0..count).map(|at| Expr::literal(text(&"ab".repeat(at as usize % 3 + at as usize / 9)), Type::Utf8));
        let expr = Expr {
            node: Node::InList {
                expr: Box::new(Expr::column(0, Type::Utf8)),
                list: list.collect(),
                negated: false,
            },
            data_type: Type::Boolean,
        };
        agrees(&texts(), &expr, &[], 0).unwrap();
    }
}

#[test]
fn what_is_not_reached_does_not_fail() {
    let column_of = |values: &[i128]| {
        let values: Vec<Value> = values.iter().map(|value| Value::Int(*value)).collect();
        column(&Type::Int64, &values, false, false)
    };
    let table = Table {
        rows: 3,
        columns: vec![column_of(&[0, 1, 2]), column_of(&[0, 5, 10])],
    };
    let (x, y) = operands(&Type::Int64, &Type::Int64);
    let zero = || Expr::literal(Value::Int(0), Type::Int64);
    let nonzero = Expr::binary(Op::NotEqual, x.clone(), zero(), Type::Boolean);
    let quotient = Expr::binary(Op::Divide, y, x, Type::Int64);
    let positive = Expr::binary(Op::Greater, quotient.clone(), zero(), Type::Boolean);
    let and = Expr::binary(Op::And, nonzero.clone(), positive.clone(), Type::Boolean);
    let or = Expr {
        node: Node::Not(Box::new(nonzero.clone())),
        data_type: Type::Boolean,
    };
    let or = Expr::binary(Op::Or, or, positive, Type::Boolean);
    let case = Expr {
        node: Node::Case {
            branches: vec![(nonzero, quotient.clone())],
            otherwise: None,
        },
        data_type: Type::Int64,
    };
    for guarded in [and, or, case] {
        agrees(&table, &guarded, &[], 0).unwrap();
    }
    assert!(matches!(project(&table, &quotient, &[], 0), Ok(Outcome::Fault(_))));
}

fn host(name: &str, args: Vec<Expr>, data_type: &Type) -> Expr {
    Expr {
        node: Node::Host {
            function: HostFunctionRef {
                name: name.to_owned(),
                implementation: None,
            },
            args,
        },
        data_type: data_type.clone(),
    }
}

fn value_of(expr: &Expr, data_type: &Type, value: Value) -> Result<Value, String> {
    let table = pair((data_type, value), (&Type::Int8, Value::Int(1)), false);
    match project(&table, expr, &[], 0).unwrap() {
        Outcome::Rows(rows) => Ok(rows[0].clone()),
        Outcome::Fault(error) => Err(error.to_string()),
    }
}

#[test]
fn host_functions_that_are_known() {
    let second = Type::Timestamp {
        unit: TimeUnit::Second,
        zone: None,
    };
    let at = |text: &str| {
        let parts: Vec<i64> = text.split(['-', ' ', ':']).map(|part| part.parse().unwrap()).collect();
        let date = rig::days_of(parts[0], parts[1], parts[2]);
        let time = parts.get(3).map_or(0, |hour| hour * 3600 + parts[4] * 60 + parts[5]);
        Value::Int((date * 86_400 + time).into())
    };
    for (unit, from, to) in [
        ("minute", "2024-02-29 12:34:56", "2024-02-29 12:34:00"),
        ("hour", "1969-12-31 23:59:59", "1969-12-31 23:00:00"),
        ("day", "1960-03-01 00:00:01", "1960-03-01"),
        ("week", "2024-03-03 11:00:00", "2024-02-26"),
        ("week", "1969-12-31 11:00:00", "1969-12-29"),
        ("month", "2024-02-29 12:34:56", "2024-02-01"),
        ("quarter", "1963-12-31 12:34:56", "1963-10-01"),
        ("quarter", "2001-03-31 00:00:00", "2001-01-01"),
        ("Year", "1900-12-31 12:34:56", "1900-01-01"),
    ] {
        let call = host(
            &format!("date_trunc({unit}, $0@0) [Timestamp(s), Utf8]"),
            vec![Expr::column(0, second.clone())],
            &second,
        );
        assert_eq!(value_of(&call, &second, at(from)), Ok(at(to)), "{unit} of {from}");
        assert_eq!(value_of(&call, &second, Value::Null), Ok(Value::Null));
    }
    let month = host(
        "date_trunc(month, $0@0) [Timestamp(s), Utf8]",
        vec![Expr::column(0, second.clone())],
        &second,
    );
    assert!(value_of(&month, &second, at("2300-01-01 00:00:00")).is_err());
    for (data_type, value, expected) in [
        (Type::Int8, Value::Int(-128), None),
        (Type::Int8, Value::Int(-127), Some(Value::Int(127))),
        (Type::Int64, Value::Int(i64::MIN.into()), None),
        (Type::Int64, Value::Int(-5), Some(Value::Int(5))),
        (Type::UInt64, Value::Int(5), Some(Value::Int(5))),
        (
            decimal(38, 3),
            Value::Int(-(10_i128.pow(38) - 1)),
            Some(Value::Int(10_i128.pow(38) - 1)),
        ),
        (Type::Float64, Value::Float(-0.0), Some(Value::Float(0.0))),
        (Type::Float32, Value::Float(-1.5), Some(Value::Float(1.5))),
    ] {
        let call = host("abs($0@0) [T]", vec![Expr::column(0, data_type.clone())], &data_type);
        assert_eq!(value_of(&call, &data_type, value).ok(), expected, "{data_type:?}");
    }
    for (count, fails) in [(0, false), (1, false), (2, true)] {
        let args = vec![Expr::column(0, Type::Int64), Expr::column(1, Type::Int64)];
        let call = host("only_row [Int64]", args, &Type::Int64);
        let table = pair((&Type::Int64, Value::Int(7)), (&Type::Int64, Value::Int(count)), false);
        let fault = matches!(project(&table, &call, &[], 0).unwrap(), Outcome::Fault(_));
        assert_eq!(fault, fails);
    }
}
