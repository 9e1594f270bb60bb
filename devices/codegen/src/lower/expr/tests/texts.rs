//! Strings with and without dictionaries: patterns, functions, comparisons.

use trireme_device_api::{BinaryOperator as Op, Expr, Function, Node, Type, Value};

use super::agrees;
use super::rig::Table;
use super::units::{column, operands, text};

const TEXTS: [&str; 14] = [
    "",
    " ",
    "a",
    "ab",
    "aab",
    "abab",
    "  ä b ",
    "ä",
    "€uro",
    "日本語",
    "🦀a🦀",
    "a%b",
    "a\\b",
    "special  requests",
];

pub(super) fn texts() -> Table {
    let values: Vec<Value> = TEXTS.iter().map(|one| text(one)).chain([Value::Null]).collect();
    Table {
        rows: values.len(),
        columns: vec![
            column(&Type::Utf8, &values, false, true),
            column(&Type::Utf8, &values, false, false),
        ],
    }
}

#[test]
fn patterns_match_raw_strings() {
    let patterns = [
        "",
        "%",
        "%%",
        "_",
        "__",
        "a%",
        "%a",
        "%a%",
        "a_b",
        "%a_b%",
        "_%",
        "%_",
        "%b%a%",
        "ab%ab",
        "a\\%b",
        "a\\\\b",
        "a\\",
        "\\",
        "_uro",
        "%語",
        "🦀_🦀",
        "%special%requests%",
        "%ab",
        "a%b%",
        "_ä%",
        "%_ä_%",
    ];
    for pattern in patterns {
        let expr = Expr {
            node: Node::Like {
                expr: Box::new(Expr::column(0, Type::Utf8)),
                pattern: Box::new(Expr::literal(text(pattern), Type::Utf8)),
                negated: pattern.len() % 2 == 1,
                case_insensitive: false,
            },
            data_type: Type::Boolean,
        };
        agrees(&texts(), &expr, &[], 0).unwrap();
    }
}

#[test]
fn functions_of_raw_strings() {
    let int = |value: i64| Expr::literal(Value::Int(value.into()), Type::Int64);
    let part = |value: &str| Expr::literal(text(value), Type::Utf8);
    let counts = [i64::MIN, -9, -2, -1, 0, 1, 2, 3, 9, i64::MAX];
    let mut calls: Vec<(Function, Vec<Expr>, Type)> = Vec::new();
    for count in counts {
        calls.push((Function::Left, vec![int(count)], Type::Utf8));
        calls.push((Function::Right, vec![int(count)], Type::Utf8));
        calls.push((Function::Substring, vec![int(count)], Type::Utf8));
        for length in counts {
            calls.push((Function::Substring, vec![int(count), int(length)], Type::Utf8));
        }
    }
    for piece in ["", "a", "ab", "b ", "ä", "語", "zz"] {
        for function in [Function::StartsWith, Function::EndsWith, Function::Contains] {
            calls.push((function, vec![part(piece)], Type::Boolean));
        }
        calls.push((Function::Position, vec![part(piece)], Type::Int32));
    }
    for function in [Function::Trim, Function::TrimStart, Function::TrimEnd] {
        calls.push((function, vec![], Type::Utf8));
        calls.push((function, vec![part("a b")], Type::Utf8));
    }
    calls.push((Function::CharacterLength, vec![], Type::Int32));
    calls.push((Function::OctetLength, vec![], Type::Int32));
    for (function, rest, data_type) in calls {
        for column in [0, 1] {
            let args = std::iter::once(Expr::column(column, Type::Utf8)).chain(rest.clone());
            let expr = Expr::call(function, args.collect(), data_type.clone());
            agrees(&texts(), &expr, &[], 0).unwrap();
        }
    }
}

#[test]
fn codes_and_handles_compare() {
    for op in [
        Op::Equal,
        Op::NotEqual,
        Op::Less,
        Op::LessOrEqual,
        Op::Greater,
        Op::Distinct,
        Op::NotDistinct,
    ] {
        for raw in [(false, false), (false, true), (true, true)] {
            for first in TEXTS {
                let values: Vec<Value> = TEXTS.iter().map(|one| text(one)).chain([Value::Null]).collect();
                let mut turned = values.clone();
                turned.rotate_left(first.len() % 5);
                let table = Table {
                    rows: values.len(),
                    columns: vec![
                        column(&Type::Utf8, &values, false, raw.0),
                        column(&Type::Utf8, &turned, false, raw.1),
                    ],
                };
                let (l, r) = operands(&Type::Utf8, &Type::Utf8);
                agrees(&table, &Expr::binary(op, l.clone(), r, Type::Boolean), &[], 0).unwrap();
                let constant = Expr::literal(text(first), Type::Utf8);
                agrees(&table, &Expr::binary(op, l, constant, Type::Boolean), &[], 0).unwrap();
            }
        }
    }
}
