//! Compiled programs against a naive evaluator: random expressions over random columns, each on every instruction set.

mod bench;
mod data;
mod generate;
mod naive;
mod units;

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use trireme_device_api::{DeviceError, Expr, Type, Value};

use super::Program;
use crate::isa::Isa;
use crate::tile::{NO_ROW, Tile};
use crate::vector::{Data, Shape, Vector};
use data::Table;

/// What to run: `SEED` and `EXPRESSIONS` from the environment, or these.
fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(otherwise)
}

#[test]
fn random_expressions_agree_with_the_naive_evaluator() {
    let first = setting("SEED", 7_000);
    let (mut compiled, mut failed) = (0, Vec::new());
    for seed in first..first + setting("EXPRESSIONS", 700) {
        match std::panic::catch_unwind(|| one(seed)) {
            Ok(fused) => compiled += u32::from(fused),
            Err(_) => failed.push(seed),
        }
    }
    assert!(failed.is_empty(), "failing seeds: {failed:?}");
    let most = (setting("EXPRESSIONS", 700) * 9 / 10) as u32;
    assert!(compiled > most, "only {compiled} expressions were compiled");
}

/// One expression over one table; false when it is not fused.
fn one(seed: u64) -> bool {
    let mut random = StdRng::seed_from_u64(seed);
    let sizes = [0, 1, 2, 31, 32, 33, 100];
    let rows = sizes[random.random_range(0..sizes.len())];
    let table = data::table(seed, rows);
    let parameters = vec![Value::Int(random.random_range(-3..100)), Value::Null];
    let expr = generate::expression(&mut random, &table.shapes);
    for isa in Isa::all_available() {
        let program = match Program::compile(&expr, &table.shapes, &parameters, isa) {
            Ok(program) => program,
            Err(DeviceError::Unsupported(_)) => return false,
            Err(error) => panic!("SEED={seed} {error}: {}", generate::show(&expr)),
        };
        let start = if rows > 3 { random.random_range(0..3) } else { 0 };
        let all: Vec<u32> = (start as u32..rows as u32).collect();
        check(
            &program,
            &expr,
            &parameters,
            &table,
            &table.tile(start),
            &all,
            &format!("SEED={seed} {isa:?} range"),
        );
        let some: Vec<u32> = (0..random.random_range(0..=rows))
            .map(|_| random.random_range(0..rows as u32))
            .collect();
        let what = format!("SEED={seed} {isa:?} positions");
        check(
            &program,
            &expr,
            &parameters,
            &table,
            &table.tile_at(&some),
            &some,
            &what,
        );
    }
    let mut shapes = table.shapes.clone();
    shapes.iter_mut().for_each(|shape| shape.nullable = true);
    if let Ok(program) = Program::compile(&expr, &shapes, &parameters, Isa::detect()) {
        let outer: Vec<u32> = (0..10)
            .map(|at| {
                if at % 3 == 0 || rows == 0 {
                    NO_ROW
                } else {
                    at % rows as u32
                }
            })
            .collect();
        let what = format!("SEED={seed} outer");
        check(
            &program,
            &expr,
            &parameters,
            &table,
            &table.tile_at(&outer),
            &outer,
            &what,
        );
    }
    true
}

fn check(
    program: &Program,
    expr: &Expr,
    parameters: &[Value],
    table: &Table,
    tile: &Tile<'_>,
    positions: &[u32],
    what: &str,
) {
    let expected: Vec<_> = positions
        .iter()
        .map(|at| naive::eval(expr, &table.row(*at), parameters))
        .collect();
    let error = expected.iter().find_map(|value| value.as_ref().err());
    let result = program.eval(tile);
    match (error, result) {
        (Some(error), Err(DeviceError::Arithmetic(_))) => {
            assert!(program.can_fail(), "{what}: {error}\n{}", generate::show(expr))
        }
        (None, Ok(vector)) => {
            check_shape(program.shape(), &vector, what);
            for (row, expected) in expected.iter().enumerate() {
                let (got, expected) = (vector.value(row), expected.as_ref().unwrap());
                let row_values = table.row(positions[row]);
                assert!(
                    same(&got, expected),
                    "{what} row {row}: {got:?} for {expected:?}\n{row_values:?}\n{}",
                    generate::show(expr)
                );
            }
            check_view(program, tile, &vector, what);
        }
        (error, result) => panic!(
            "{what}: {error:?} but {:?}\n{}",
            result.map(|v| v.len()),
            generate::show(expr)
        ),
    }
}

/// Views and masks say the same as the vector.
fn check_view(program: &Program, tile: &Tile<'_>, vector: &Vector<'_>, what: &str) {
    let view = program.view(tile).unwrap();
    assert!(
        (0..tile.rows).all(|row| same(&view.value(row), &vector.value(row))),
        "{what}: the view"
    );
    if program.shape().data_type == Type::Boolean {
        let mask = program.mask(tile).unwrap().unwrap_or_else(|| vec![1; tile.rows]);
        assert_eq!(mask.len(), tile.rows, "{what}");
        for (row, keep) in mask.into_iter().enumerate() {
            assert_eq!(
                keep,
                u8::from(vector.value(row) == Value::Boolean(true)),
                "{what} mask of row {row}"
            );
        }
    }
}

fn check_shape(shape: &Shape, vector: &Vector<'_>, what: &str) {
    assert!(shape.nullable || !vector.has_nulls(), "{what}: NULL in a shape without");
    if let Some(valid) = &vector.valid {
        assert_eq!(valid.len(), vector.len(), "{what}");
        assert!(valid.iter().all(|byte| *byte <= 1), "{what}");
    }
    let lane = match &vector.data {
        Data::I8(_) => Some(crate::vector::Lane::I8),
        Data::I16(_) => Some(crate::vector::Lane::I16),
        Data::I32(_) => Some(crate::vector::Lane::I32),
        Data::I64(_) => Some(crate::vector::Lane::I64),
        Data::I128(_) => Some(crate::vector::Lane::I128),
        Data::Bool(values) => {
            assert!(values.iter().all(|byte| *byte <= 1), "{what}");
            None
        }
        Data::Codes(codes, dictionary) => {
            assert!(
                dictionary.is_empty() || codes.iter().all(|code| (*code as usize) < dictionary.len()),
                "{what}"
            );
            assert!(
                shape.dictionary.as_ref().is_some_and(|d| Arc::ptr_eq(d, dictionary)),
                "{what}: dictionary"
            );
            None
        }
        Data::Bytes(_) | Data::Strings(_) => {
            assert!(shape.dictionary.is_none(), "{what}: strings for a dictionary");
            None
        }
        _ => None,
    };
    assert_eq!(lane, shape.lane(), "{what}: lane");
    if let Some((low, high)) = shape.range {
        for row in (0..vector.len()).filter(|row| !vector.is_null(*row)) {
            let Value::Int(value) = vector.value(row) else {
                panic!("{what}: not an integer")
            };
            assert!((low..=high).contains(&value), "{what}: {value} outside {low}..={high}");
        }
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a == b || (a.is_nan() && b.is_nan()),
        (a, b) => a == b,
    }
}
