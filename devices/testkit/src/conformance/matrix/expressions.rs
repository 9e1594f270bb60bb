//! Operators, casts and functions of every type.

use arrow::compute::can_cast_types;
use trireme_device_api::{
    BinaryOperator, DatePart, DeviceError, Expr, Field, IntervalKind, Node, TimeUnit, Type, Value,
};

use super::{Extent, Table, Take, projection};
use crate::conformance::{Mismatch, type_name};
use crate::generate::{Flavor, Nulls, all_types, arithmetic_type, field};
use crate::interpreter::evaluate;
use crate::values::{Row, text};

const OPERATORS: [BinaryOperator; 16] = [
    BinaryOperator::Add,
    BinaryOperator::Subtract,
    BinaryOperator::Multiply,
    BinaryOperator::Divide,
    BinaryOperator::Remainder,
    BinaryOperator::BitAnd,
    BinaryOperator::BitOr,
    BinaryOperator::BitXor,
    BinaryOperator::Equal,
    BinaryOperator::NotEqual,
    BinaryOperator::Less,
    BinaryOperator::LessOrEqual,
    BinaryOperator::Greater,
    BinaryOperator::GreaterOrEqual,
    BinaryOperator::Distinct,
    BinaryOperator::NotDistinct,
];

/// Rows of which most are plain; those for which an expression fails are returned apart.
fn sound_rows(expr: &Expr, rows: Vec<Row>) -> (Vec<Row>, Vec<Row>) {
    rows.into_iter()
        .partition(|row| !matches!(evaluate(expr, row, &[]), Err(DeviceError::Arithmetic(_))))
}

/// Of five rows where an expression succeeds, so many are left at least when others are evaluated beside it.
const OF_FIVE_ROWS: usize = 2;

/// Expressions of one type that fail by themselves: each is another kernel, so that more are branches of a CASE.
const PLAIN_FAILURES: usize = 3;

/// Many expressions over one table, few kernels: those that succeed for enough of the same rows are projected together, over
/// these rows. Each of those that fail for some row also fails, over a table of few others: the first ones by themselves, later
/// ones of the same type as branches of one CASE by a column that says which of them a row reaches.
fn together(name: &str, table: Table, exprs: &[Expr], seed: u64, take: &mut Take<'_>) -> Result<(), Box<Mismatch>> {
    let Table { fields, rows } = table;
    let sound = |expr: &Expr| -> Vec<bool> {
        let fails = |row: &Row| matches!(evaluate(expr, row, &[]), Err(DeviceError::Arithmetic(_)));
        rows.iter().map(|row| !fails(row)).collect()
    };
    let count = |rows: &[bool]| rows.iter().filter(|sound| **sound).count();
    // Rows, the most that one of the expressions succeeds for, and these.
    let mut groups: Vec<(Vec<bool>, usize, Vec<Expr>)> = Vec::new();
    let mut failing: Vec<(Expr, Row)> = Vec::new();
    for expr in exprs {
        let sound = sound(expr);
        if let Some(row) = sound.iter().position(|sound| !sound) {
            failing.push((expr.clone(), rows[row].clone()));
        }
        let both = |group: &[bool]| -> Vec<bool> { group.iter().zip(&sound).map(|(a, b)| *a && *b).collect() };
        let succeeds = count(&sound);
        let enough = |group: &[bool], most: usize| count(&both(group)) * 5 >= most.max(succeeds) * OF_FIVE_ROWS;
        match groups.iter_mut().find(|(group, most, _)| enough(group, *most)) {
            Some((group, most, members)) => {
                *group = both(group);
                *most = succeeds.max(*most);
                members.push(expr.clone());
            }
            None => groups.push((sound, succeeds, vec![expr.clone()])),
        }
    }
    for (sound, _, members) in groups {
        let rows = rows.iter().zip(&sound).filter(|(_, sound)| **sound);
        let table = Table {
            fields: fields.clone(),
            rows: rows.map(|(row, _)| row.clone()).collect(),
        };
        take(projection(name.to_owned(), table, members, seed))?;
    }
    failures(name, &fields, &rows, failing, seed, take)
}

/// Each expression over a table of which one row, the last, makes it fail.
fn failures(
    name: &str,
    fields: &[Field],
    rows: &[Row],
    mut failing: Vec<(Expr, Row)>,
    seed: u64,
    take: &mut Take<'_>,
) -> Result<(), Box<Mismatch>> {
    let of_one_type = |pair: &[(Expr, Row)]| pair.windows(2).all(|pair| pair[0].0.data_type == pair[1].0.data_type);
    let branched = if of_one_type(&failing) {
        PLAIN_FAILURES.min(failing.len())
    } else {
        failing.len()
    };
    let branched = failing.split_off(branched);
    for (expr, row) in failing {
        let (sound, _) = sound_rows(&expr, rows.to_vec());
        let rows = sound.into_iter().take(5).chain([row]).collect();
        let table = Table {
            fields: fields.to_vec(),
            rows,
        };
        take(projection(format!("{name}, failing"), table, vec![expr], seed))?;
    }
    let Some((first, _)) = branched.first() else {
        return Ok(());
    };
    let which = fields.len();
    let number = |branch: usize| Value::Int(i128::try_from(branch).unwrap_or_default());
    let reached = |branch: usize| {
        let number = Expr::literal(number(branch), Type::Int32);
        Expr::binary(
            BinaryOperator::Equal,
            Expr::column(which, Type::Int32),
            number,
            Type::Boolean,
        )
    };
    let branches = branched.iter().enumerate();
    let branches = branches
        .map(|(branch, (expr, _))| (reached(branch), expr.clone()))
        .collect();
    let case = Expr {
        node: Node::Case {
            branches,
            otherwise: None,
        },
        data_type: first.data_type.clone(),
    };
    let nowhere = branched.len();
    let fields: Vec<Field> = fields
        .iter()
        .cloned()
        .chain([Field {
            nullable: false,
            ..field("which", Type::Int32)
        }])
        .collect();
    for (branch, (_, row)) in branched.iter().enumerate() {
        let others = rows.iter().take(5).map(|row| (row, nowhere)).chain([(row, branch)]);
        let rows = others.map(|(row, branch)| row.iter().cloned().chain([number(branch)]).collect());
        let table = Table {
            fields: fields.clone(),
            rows: rows.collect(),
        };
        take(projection(
            format!("{name}, failing in a branch"),
            table,
            vec![case.clone()],
            seed,
        ))?;
    }
    Ok(())
}

/// The expression over rows where it succeeds, and over a table in which one row fails.
pub(super) fn both_ways(
    name: &str,
    table: Table,
    expr: &Expr,
    seed: u64,
    take: &mut Take<'_>,
) -> Result<(), Box<Mismatch>> {
    let Table { fields, rows } = table;
    let (sound, failing) = sound_rows(expr, rows);
    let with = |rows: Vec<Row>| Table {
        fields: fields.clone(),
        rows,
    };
    if let Some(one) = failing.into_iter().next() {
        let rows = sound.iter().take(5).cloned().chain([one]).collect();
        take(projection(
            format!("{name}, failing"),
            with(rows),
            vec![expr.clone()],
            seed,
        ))?;
    }
    take(projection(name.to_owned(), with(sound), vec![expr.clone()], seed))
}

fn result_type(op: BinaryOperator, data_type: &Type) -> Option<Type> {
    use BinaryOperator as Op;
    match op {
        Op::Add | Op::Subtract | Op::Multiply | Op::Divide | Op::Remainder | Op::BitAnd | Op::BitOr | Op::BitXor => {
            arithmetic_type(op, data_type, data_type)
        }
        _ if matches!(data_type, Type::Interval(_) | Type::Null) => None,
        _ => Some(Type::Boolean),
    }
}

/// Every binary operator of every type, of columns and of a column and a literal; three-valued logic; IS NULL; negation.
pub(super) fn operators(extent: Extent, take: &mut Take<'_>) -> Result<(), Box<Mismatch>> {
    let mut seed = 0;
    let flavors = [Flavor::Small, Flavor::Wide, Flavor::Extreme];
    let flavors = if extent == Extent::Full {
        &flavors[..]
    } else {
        &flavors[1..]
    };
    for data_type in all_types() {
        for op in OPERATORS {
            let Some(result) = result_type(op, &data_type) else {
                continue;
            };
            for flavor in flavors {
                seed += 1;
                let name = format!("{op:?} of {} ({flavor:?})", type_name(&data_type));
                let columns = [
                    (data_type.clone(), Nulls::Some, *flavor),
                    (data_type.clone(), Nulls::Runs, *flavor),
                ];
                let column = |index| Expr::column(index, data_type.clone());
                let mut exprs = vec![Expr::binary(op, column(0), column(1), result.clone())];
                let table = Table::new(&columns, 150, seed);
                let literals = if extent == Extent::Full { 8 } else { 1 };
                for row in &table.rows[..literals] {
                    let literal = Expr::literal(row[1].clone(), data_type.clone());
                    exprs.push(Expr::binary(op, column(0), literal.clone(), result.clone()));
                    exprs.push(Expr::binary(op, literal, column(0), result.clone()));
                }
                together(&format!("{name}, also with literals"), table, &exprs, seed, take)?;
            }
        }
        unary(&data_type, seed, take)?;
    }
    decimals(take)?;
    logic(take)
}

fn unary(data_type: &Type, seed: u64, take: &mut Take<'_>) -> Result<(), Box<Mismatch>> {
    let operand = || Box::new(Expr::column(0, data_type.clone()));
    for nulls in Nulls::ALL {
        let node_of = [Node::IsNull(operand()), Node::IsNotNull(operand())];
        let exprs = node_of.into_iter().map(|node| Expr {
            node,
            data_type: Type::Boolean,
        });
        let table = Table::new(&[(data_type.clone(), nulls, Flavor::Small)], 70, seed);
        let name = format!("IS NULL of {} ({nulls:?})", type_name(data_type));
        take(projection(name, table, exprs.collect(), seed))?;
    }
    let signed = matches!(data_type, Type::Int8 | Type::Int16 | Type::Int32 | Type::Int64);
    if signed || data_type.is_float() || matches!(data_type, Type::Decimal { .. }) {
        let negated = Expr {
            node: Node::Negate(operand()),
            data_type: data_type.clone(),
        };
        for flavor in [Flavor::Wide, Flavor::Extreme] {
            let table = Table::new(&[(data_type.clone(), Nulls::Some, flavor)], 100, seed);
            both_ways(
                &format!("negation of {}", type_name(data_type)),
                table,
                &negated,
                seed,
                take,
            )?;
        }
    }
    Ok(())
}

/// Decimals of different scales.
fn decimals(take: &mut Take<'_>) -> Result<(), Box<Mismatch>> {
    let decimals = all_types()
        .into_iter()
        .filter(|data_type| matches!(data_type, Type::Decimal { .. }));
    let decimals: Vec<Type> = decimals.collect();
    let mut seed = 10_000;
    for left in &decimals {
        for right in &decimals {
            seed += 1;
            let exprs = OPERATORS.into_iter().filter_map(|op| {
                let compares = result_type(op, left) == Some(Type::Boolean);
                let result = arithmetic_type(op, left, right).or(compares.then_some(Type::Boolean))?;
                let (left, right) = (Expr::column(0, left.clone()), Expr::column(1, right.clone()));
                Some(Expr::binary(op, left, right, result))
            });
            let exprs: Vec<Expr> = exprs.collect();
            let columns = [
                (left.clone(), Nulls::Some, Flavor::Wide),
                (right.clone(), Nulls::None, Flavor::Wide),
            ];
            let name = format!("operators of {} and {}", type_name(left), type_name(right));
            together(&name, Table::new(&columns, 60, seed), &exprs, seed, take)?;
        }
    }
    Ok(())
}

fn logic(take: &mut Take<'_>) -> Result<(), Box<Mismatch>> {
    let columns = [
        (Type::Boolean, Nulls::Some, Flavor::Small),
        (Type::Boolean, Nulls::Some, Flavor::Small),
        (Type::Int32, Nulls::Some, Flavor::Small),
    ];
    let column = |index: usize| Expr::column(index, columns[index].0.clone());
    let zero = || Expr::literal(Value::Int(0), Type::Int32);
    let one = Expr::literal(Value::Int(1), Type::Int32);
    let divided = Expr::binary(BinaryOperator::Divide, one, column(2), Type::Int32);
    let positive = Expr::binary(BinaryOperator::Greater, divided.clone(), zero(), Type::Boolean);
    let is_zero = Expr::binary(BinaryOperator::Equal, column(2), zero(), Type::Boolean);
    let not_zero = Expr::binary(BinaryOperator::NotEqual, column(2), zero(), Type::Boolean);
    let boolean = |node| Expr {
        node,
        data_type: Type::Boolean,
    };
    // The right side, and the branch, fail for rows that must not reach them.
    let guarded = Expr {
        node: Node::Case {
            branches: vec![(is_zero.clone(), column(2)), (column(0), divided.clone())],
            otherwise: Some(Box::new(divided)),
        },
        data_type: Type::Int32,
    };
    let exprs = vec![
        Expr::binary(BinaryOperator::And, column(0), column(1), Type::Boolean),
        Expr::binary(BinaryOperator::Or, column(0), column(1), Type::Boolean),
        boolean(Node::Not(Box::new(column(0)))),
        Expr::binary(BinaryOperator::Or, is_zero, positive.clone(), Type::Boolean),
        Expr::binary(BinaryOperator::And, not_zero, positive, Type::Boolean),
        guarded,
    ];
    for seed in 0..10 {
        let rows = [3, 64, 500][usize::try_from(seed % 3).unwrap_or_default()];
        take(projection(
            "logic".to_owned(),
            Table::new(&columns, rows, seed),
            exprs.clone(),
            seed,
        ))?;
    }
    Ok(())
}

/// Every cast that Arrow knows, as CAST and as TRY_CAST.
pub(super) fn casts(extent: Extent, take: &mut Take<'_>) -> Result<(), Box<Mismatch>> {
    let mut seed = 20_000;
    let flavors: &[Flavor] = match extent {
        Extent::Quick => &[Flavor::Wide],
        Extent::Full => &[Flavor::Small, Flavor::Wide, Flavor::Extreme],
    };
    for from in all_types() {
        let known = |to: &Type| from != *to && can_cast_types(&from.to_arrow(), &to.to_arrow());
        let casts = |safe: bool| -> Vec<Expr> {
            let types = all_types().into_iter().filter(known);
            let cast = |data_type| Expr {
                node: Node::Cast {
                    expr: Box::new(Expr::column(0, from.clone())),
                    safe,
                },
                data_type,
            };
            types.map(cast).collect()
        };
        for flavor in flavors {
            seed += 1;
            let table = || Table::new(&[(from.clone(), Nulls::Some, *flavor)], 60, seed);
            let name = format!("casts of {} ({flavor:?})", type_name(&from));
            take(projection(format!("try {name}"), table(), casts(true), seed))?;
            together(&name, table(), &casts(false), seed, take)?;
        }
    }
    Ok(())
}

/// EXTRACT, LIKE, IN, and intervals added to dates.
pub(super) fn functions(take: &mut Take<'_>) -> Result<(), Box<Mismatch>> {
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
    let mut seed = 30_000;
    for data_type in all_types() {
        let dated = matches!(data_type, Type::Date32 | Type::Timestamp { zone: None, .. });
        if !dated {
            continue;
        }
        for flavor in [Flavor::Small, Flavor::Wide, Flavor::Extreme] {
            let column = || Box::new(Expr::column(0, data_type.clone()));
            let exprs = parts.map(|part| Expr {
                node: Node::Extract { part, expr: column() },
                data_type: Type::Int32,
            });
            seed += 1;
            let table = Table::new(&[(data_type.clone(), Nulls::Some, flavor)], 300, seed);
            take(projection(
                format!("EXTRACT from {}", type_name(&data_type)),
                table,
                exprs.into(),
                seed,
            ))?;
            for kind in [
                IntervalKind::YearMonth,
                IntervalKind::DayTime,
                IntervalKind::MonthDayNano,
            ] {
                for op in [BinaryOperator::Add, BinaryOperator::Subtract] {
                    let interval = Type::Interval(kind);
                    let columns = [
                        (data_type.clone(), Nulls::Some, flavor),
                        (interval.clone(), Nulls::Some, Flavor::Wide),
                    ];
                    let expr = Expr::binary(op, *column(), Expr::column(1, interval), data_type.clone());
                    let name = format!("{op:?} of {} and {kind:?}", type_name(&data_type));
                    both_ways(&name, Table::new(&columns, 100, seed), &expr, seed, take)?;
                }
            }
        }
    }
    lists(take)?;
    likes(take)
}

fn lists(take: &mut Take<'_>) -> Result<(), Box<Mismatch>> {
    let mut seed = 31_000;
    for data_type in all_types() {
        if matches!(data_type, Type::Interval(_) | Type::Null) {
            continue;
        }
        for (length, with_null, negated) in [(1, false, false), (3, true, false), (3, false, true), (40, true, true)] {
            seed += 1;
            let flavor = if length == 40 { Flavor::Wide } else { Flavor::Small };
            let table = Table::new(&[(data_type.clone(), Nulls::Some, flavor)], 120, seed);
            let mut list: Vec<Value> = table
                .rows
                .iter()
                .map(|row| row[0].clone())
                .filter(|v| *v != Value::Null)
                .take(length)
                .collect();
            if with_null {
                list.push(Value::Null);
            }
            let expr = Expr {
                node: Node::InList {
                    expr: Box::new(Expr::column(0, data_type.clone())),
                    list: list
                        .into_iter()
                        .map(|value| Expr::literal(value, data_type.clone()))
                        .collect(),
                    negated,
                },
                data_type: Type::Boolean,
            };
            take(projection(
                format!("{length} constants IN of {}", type_name(&data_type)),
                table,
                vec![expr],
                seed,
            ))?;
        }
    }
    Ok(())
}

fn likes(take: &mut Take<'_>) -> Result<(), Box<Mismatch>> {
    let patterns = [
        "",
        "%",
        "%%",
        "_",
        "__%",
        "a%",
        "%b",
        "%b%",
        "a%b%c",
        "a\\%b",
        "a\\_b",
        "a\\\\b",
        "_a%",
        "%ä%",
        "Ä",
        "€%",
        "日_語",
        "%a%b%",
        "%twelve%bytes",
        "a_b",
        "\\",
        "%\\",
    ];
    for (index, data_type) in [Type::Utf8, Type::LargeUtf8, Type::Utf8View].into_iter().enumerate() {
        for flavor in [Flavor::Small, Flavor::Wide] {
            let exprs = patterns.iter().flat_map(|pattern| {
                [(false, false), (true, false), (false, true)].map(|(negated, case_insensitive)| Expr {
                    node: Node::Like {
                        expr: Box::new(Expr::column(0, data_type.clone())),
                        pattern: Box::new(Expr::literal(text(pattern), data_type.clone())),
                        negated,
                        case_insensitive,
                    },
                    data_type: Type::Boolean,
                })
            });
            let seed = 32_000 + u64::try_from(index).unwrap_or_default();
            let table = Table::new(&[(data_type.clone(), Nulls::Some, flavor)], 150, seed);
            take(projection(
                format!("LIKE of {}", type_name(&data_type)),
                table,
                exprs.collect(),
                seed,
            ))?;
        }
    }
    time_comparisons(take)
}

/// A filter on times and timestamps, where most plans have one.
fn time_comparisons(take: &mut Take<'_>) -> Result<(), Box<Mismatch>> {
    let unit = TimeUnit::Nanosecond;
    let data_type = Type::Timestamp { unit, zone: None };
    let table = Table::new(&[(data_type.clone(), Nulls::Some, Flavor::Wide)], 100, 33_000);
    let literal = Expr::literal(Value::Int(0), data_type.clone());
    let expr = Expr::binary(BinaryOperator::Less, Expr::column(0, data_type), literal, Type::Boolean);
    take(projection(
        "timestamps before 1970".to_owned(),
        table,
        vec![expr],
        33_000,
    ))
}
