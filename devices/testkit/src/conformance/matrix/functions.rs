//! Every function of the contract over every type of text: its arguments as columns and as constants of the kinds that loops
//! tell apart (before the first character, beyond the last, negative, not ASCII); and short strings in lists of constants.

use trireme_device_api::{BinaryOperator, Expr, FUNCTIONS, Function, Node, Type, Value};

use super::expressions::both_ways;
use super::{Table, Take, projection};
use crate::conformance::{Mismatch, type_name};
use crate::generate::{Flavor, Nulls, argument_types};
use crate::values::text;

const COUNTS: [i64; 7] = [-3, 0, 1, 2, 7, 40, i64::MAX];
const PARTS: [&str; 6] = ["", " ", "a", "ab", "ä", "twelve"];

/// Calls over columns and constants.
pub(super) fn functions(take: &mut Take<'_>) -> Result<(), Box<Mismatch>> {
    let mut seed = 34_000;
    for data_type in [Type::Utf8, Type::LargeUtf8, Type::Utf8View] {
        for descriptor in &FUNCTIONS {
            for types in argument_types(descriptor.function, &data_type) {
                let name = format!("{} of {types:?}", descriptor.function.name());
                let (failing, sound): (Vec<_>, Vec<_>) = calls(descriptor.function, &types).into_iter().partition(
                    |call| matches!(&call.node, Node::Function { function, args } if function.may_fail(args)),
                );
                for flavor in [Flavor::Small, Flavor::Wide] {
                    seed += 1;
                    let table = || Table::new(&columns(&types, flavor), 40, seed);
                    take(projection(name.clone(), table(), sound.clone(), seed))?;
                    for call in failing.iter().step_by(5) {
                        both_ways(&name, table(), call, seed, take)?;
                    }
                }
            }
        }
        memberships(&data_type, take)?;
    }
    Ok(())
}

fn columns(types: &[Type], flavor: Flavor) -> Vec<(Type, Nulls, Flavor)> {
    let flavors = std::iter::once(flavor).chain(std::iter::repeat(Flavor::Small));
    let nulls = |data_type: &Type| (data_type.clone(), Nulls::Some);
    types
        .iter()
        .map(nulls)
        .zip(flavors)
        .map(|((data_type, nulls), flavor)| (data_type, nulls, flavor))
        .collect()
}

/// Calls with the first argument as a column, the others as columns and as constants.
fn calls(function: Function, types: &[Type]) -> Vec<Expr> {
    let mut lists = vec![vec![Expr::column(0, types[0].clone())]];
    for (position, data_type) in types.iter().enumerate().skip(1) {
        let mut choices: Vec<Expr> = match data_type {
            Type::Int64 => COUNTS.iter().map(|count| Value::Int((*count).into())).collect(),
            _ => PARTS.iter().map(|part| text(part)).collect::<Vec<_>>(),
        }
        .into_iter()
        .chain([Value::Null])
        .map(|value| Expr::literal(value, data_type.clone()))
        .collect();
        choices.push(Expr::column(position, data_type.clone()));
        lists = lists
            .iter()
            .flat_map(|list| {
                choices
                    .iter()
                    .map(|choice| [list.as_slice(), std::slice::from_ref(choice)].concat())
            })
            .collect();
    }
    let result = (function.descriptor().result)(types).unwrap_or(Type::Null);
    lists
        .into_iter()
        .map(|args| Expr::call(function, args, result.clone()))
        .collect()
}

/// Strings, and parts of them, equal to one of several: short ones, longer ones, few and many.
fn memberships(data_type: &Type, take: &mut Take<'_>) -> Result<(), Box<Mismatch>> {
    let column = || Expr::column(0, data_type.clone());
    let count = |count: i128| Expr::literal(Value::Int(count), Type::Int64);
    let operands = [
        column(),
        Expr::call(
            Function::Substring,
            vec![column(), count(1), count(2)],
            data_type.clone(),
        ),
        Expr::call(
            Function::Substring,
            vec![column(), count(2), count(5)],
            data_type.clone(),
        ),
        Expr::call(
            Function::Substring,
            vec![column(), count(0), count(0)],
            data_type.clone(),
        ),
        Expr::call(Function::Upper, vec![column()], data_type.clone()),
    ];
    let short = [
        "", "a", "ab", "ä", "A", "日本", "abc", "€u", "12", "b", "bc", "-7", "1.",
    ];
    let long = [
        "a longer string than fits a view's twelve bytes",
        "a%b",
        "€uro",
        "日本語",
    ];
    let mut exprs = Vec::new();
    for operand in operands {
        let literal = |part: &&str| Expr::literal(text(part), data_type.clone());
        let lists: [Vec<Expr>; 4] = [
            short[..3].iter().map(literal).collect(),
            short.iter().map(literal).collect(),
            short[..2].iter().chain(&long).map(literal).collect(),
            short.iter().chain(&long).map(literal).collect(),
        ];
        for (list, negated) in lists.into_iter().zip([false, true, true, false]) {
            exprs.push(Expr {
                node: Node::InList {
                    expr: Box::new(operand.clone()),
                    list,
                    negated,
                },
                data_type: Type::Boolean,
            });
        }
        for (op, constant) in [
            (BinaryOperator::Equal, "ab"),
            (BinaryOperator::NotEqual, ""),
            (BinaryOperator::Equal, long[0]),
            (BinaryOperator::Distinct, "a"),
        ] {
            exprs.push(Expr::binary(op, operand.clone(), literal(&constant), Type::Boolean));
        }
    }
    for (flavor, nulls) in [
        (Flavor::Small, Nulls::Some),
        (Flavor::Wide, Nulls::None),
        (Flavor::Wide, Nulls::Some),
    ] {
        let table = Table::new(&[(data_type.clone(), nulls, flavor)], 100, 35_000);
        let name = format!("strings of {} among constants", type_name(data_type));
        take(projection(name, table, exprs.clone(), 35_000))?;
    }
    Ok(())
}
