//! Expressions in kernels against the naive evaluator: projections of small tables, interpreted, row by row.

#[expect(
    clippy::cast_possible_truncation,
    reason = "small tables, and floats that are meant to be rounded"
)]
mod rig;
mod texts;
#[expect(clippy::cast_possible_truncation, clippy::too_many_lines, reason = "lists of cases")]
mod units;

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use trireme_device_api::{DeviceError, Expr, Type, Value};
use trireme_device_testkit::generate::{Column as Field, Flavor, Nulls, all_types, column, expression};
use trireme_device_testkit::interpreter::evaluate;

use super::support::is_slow;
use super::supports;
use rig::{Column, Outcome, Table, project};

/// What to run: `SEED` and `EXPRESSIONS` from the environment, or these.
fn setting(name: &str, otherwise: u64) -> u64 {
    let value = std::env::var(name).ok().and_then(|value| value.parse().ok());
    value.unwrap_or(otherwise)
}

fn random_table(rng: &mut SmallRng) -> Table {
    let rows = [1, 2, 7, 24][rng.random_range(0..4)];
    let types: Vec<Type> = all_types()
        .into_iter()
        .filter(|data_type| !matches!(data_type, Type::Interval(_)))
        .collect();
    let columns = (0..rng.random_range(2..7)).map(|_| {
        let data_type = types[rng.random_range(0..types.len())].clone();
        let nulls = Nulls::ALL[rng.random_range(0..4)];
        let values = column(&data_type, rows, nulls, Flavor::draw(rng), rng);
        Column {
            values,
            raw: rng.random_bool(0.5),
            exact_range: rng.random_bool(0.7),
            data_type,
        }
    });
    Table {
        columns: columns.collect(),
        rows,
    }
}

/// Whether it was lowered, or why not.
fn one(seed: u64) -> Result<(), String> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let table = random_table(&mut rng);
    let fields: Vec<Field> = table
        .columns
        .iter()
        .map(|column| Field::new("c", column.data_type.clone()))
        .collect();
    let mut parameters = Vec::new();
    let depth = rng.random_range(1..4);
    let expr = expression(None, &fields, depth, &mut parameters, &mut rng);
    let parameters: Vec<Value> = parameters.into_iter().map(|(_, value)| value).collect();
    let outcome = agrees(&table, &expr, &parameters, seed);
    if table
        .columns
        .iter()
        .all(|column| !column.raw || !column.data_type.is_bytes())
    {
        said_before(&expr, &outcome, seed);
    }
    outcome
}

/// What is said to have a kernel has one, where all strings are codes; more has one once ranges are known.
fn said_before(expr: &Expr, outcome: &Result<(), String>, seed: u64) {
    let known_later = [
        "not judged",
        "fails in many ways",
        "fails for many",
        "trimming of other",
    ];
    if let (Ok(()), Err(reason)) = (supports(expr), outcome) {
        let later = known_later.iter().any(|known| reason.contains(known)) || is_slow(expr);
        assert!(later, "SEED={seed}: {reason}\n{expr:#?}");
    }
}

/// Compares with the naive evaluator.
fn agrees(table: &Table, expr: &Expr, parameters: &[Value], seed: u64) -> Result<(), String> {
    let expected: Vec<Result<Value, DeviceError>> = (0..table.rows)
        .map(|row| evaluate(expr, &table.row(row), parameters))
        .collect();
    let unjudged = |error: &DeviceError| !matches!(error, DeviceError::Arithmetic(_) | DeviceError::Input(_));
    if let Some(error) = expected
        .iter()
        .filter_map(|value| value.as_ref().err())
        .find(|error| unjudged(error))
    {
        return Err(format!("not judged: {error}"));
    }
    let outcome = project(table, expr, parameters, seed).map_err(|unsupported| unsupported.0)?;
    let error = expected.iter().find_map(|value| value.as_ref().err());
    match (outcome, error) {
        (Outcome::Fault(_), Some(_)) => Ok(()),
        (Outcome::Rows(rows), None) => {
            for (row, (got, expected)) in rows.iter().zip(&expected).enumerate() {
                let expected = expected.as_ref().unwrap();
                assert!(
                    rig::same(got, expected),
                    "SEED={seed} row {row}: {got:?} for {expected:?}\n{:?}\n{expr:#?}\n{parameters:?}",
                    table.row(row)
                );
            }
            Ok(())
        }
        (Outcome::Fault(fault), None) => panic!("SEED={seed}: {fault} for values\n{expr:#?}\n{:#?}", table.columns),
        (Outcome::Rows(rows), Some(error)) => {
            panic!("SEED={seed}: {rows:?} for {error}\n{expr:#?}\n{:#?}", table.columns)
        }
    }
}

#[test]
fn random_expressions_agree_with_the_naive_evaluator() {
    let first = setting("SEED", 1_000);
    let count = setting("EXPRESSIONS", 400);
    let mut reasons: BTreeMap<String, u32> = BTreeMap::new();
    let (mut lowered, mut failed) = (0, Vec::new());
    for seed in first..first + count {
        match std::panic::catch_unwind(|| one(seed)) {
            Ok(Ok(())) => lowered += 1,
            Ok(Err(reason)) => *reasons.entry(reason).or_default() += 1,
            Err(_) => failed.push(seed),
        }
    }
    if std::env::var("REASONS").is_ok() {
        eprintln!("{lowered} of {count} lowered; {reasons:#?}");
    }
    assert!(failed.is_empty(), "failing seeds: {failed:?}");
    assert!(
        lowered * 2 > count,
        "only {lowered} expressions were lowered: {reasons:#?}"
    );
}
