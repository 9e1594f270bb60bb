//! Cases worth naming: laziness of errors, folding, tables, tiles.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::datatypes::Int32Type;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use trireme_device_api::{BinaryOperator, DeviceError, Dictionary, Expr, HostFunction, Node, Strings, Type, Value};

use super::data::{self, Table};
use super::generate::{Upper, dec, expression, function};
use super::{check_shape, same, setting};
use crate::expr::{Program, support};
use crate::isa::Isa;
use crate::tile::{Selection, Slot, Tile};
use crate::vector::{Data, Lane, Shape, Vector};

fn column(values: Vec<i64>) -> (Shape, Slot<'static>) {
    let mut shape = Shape::of_type(Type::Int64, false);
    let (low, high) = values.iter().fold((0, 0), |(l, h), v| (l.min(*v), h.max(*v)));
    shape.range = Some((low.into(), high.into()));
    let vector = Vector::of(values).into_lane(shape.lane().unwrap(), Isa::Baseline);
    (shape, Slot::Computed(vector))
}

fn tile(slots: Vec<Slot<'_>>, rows: usize) -> Tile<'_> {
    Tile {
        rows,
        origins: Vec::new(),
        slots,
    }
}

fn int(value: i128) -> Expr {
    Expr::literal(Value::Int(value), Type::Int64)
}

fn x() -> Expr {
    Expr::column(0, Type::Int64)
}

fn op(op: BinaryOperator, left: Expr, right: Expr) -> Expr {
    let data_type = match op {
        BinaryOperator::Divide | BinaryOperator::Multiply | BinaryOperator::Add => Type::Int64,
        _ => Type::Boolean,
    };
    Expr::binary(op, left, right, data_type)
}

fn values(program: &Program, tile: &Tile<'_>) -> Result<Vec<Value>, DeviceError> {
    program
        .eval(tile)
        .map(|vector| (0..tile.rows).map(|row| vector.value(row)).collect())
}

#[test]
fn errors_come_only_from_rows_that_reach_them() {
    let (shape, slot) = column(vec![0, 1, 2]);
    let tile = tile(vec![slot], 3);
    let compile = |expr: &Expr| Program::compile(expr, std::slice::from_ref(&shape), &[], Isa::detect()).unwrap();
    let quotient = || op(BinaryOperator::Divide, int(10), x());
    let is_zero = || op(BinaryOperator::Equal, x(), int(0));
    let bad = compile(&quotient());
    assert!(bad.can_fail());
    assert_eq!(
        values(&bad, &tile),
        Err(DeviceError::Arithmetic("division by zero".to_owned()))
    );
    let guarded = Expr {
        node: Node::Case {
            branches: vec![(is_zero(), int(-1))],
            otherwise: Some(Box::new(quotient())),
        },
        data_type: Type::Int64,
    };
    assert_eq!(values(&compile(&guarded), &tile).unwrap(), [-1, 10, 5].map(Value::Int));
    let not_zero = Expr {
        node: Node::Not(Box::new(is_zero())),
        data_type: Type::Boolean,
    };
    let above = op(BinaryOperator::Greater, quotient(), int(5));
    let both = compile(&op(BinaryOperator::And, not_zero, above.clone()));
    assert_eq!(both.mask(&tile).unwrap(), Some(vec![0, 1, 0]));
    let either = compile(&op(BinaryOperator::Or, is_zero(), above));
    assert_eq!(either.mask(&tile).unwrap(), Some(vec![1, 1, 0]));
    // A constant's error waits for a row.
    let folded = op(BinaryOperator::Divide, int(1), int(0));
    assert!(values(&compile(&folded), &tile).is_err());
    let unreached = Expr {
        node: Node::Case {
            branches: vec![(op(BinaryOperator::Greater, x(), int(7)), folded)],
            otherwise: Some(Box::new(x())),
        },
        data_type: Type::Int64,
    };
    assert_eq!(values(&compile(&unreached), &tile).unwrap(), [0, 1, 2].map(Value::Int));
}

#[test]
fn ranges_decide_lanes_and_comparisons() {
    let (shape, slot) = column(vec![0, 50, 100]);
    let tile = tile(vec![slot], 3);
    let compile = |expr: &Expr| Program::compile(expr, std::slice::from_ref(&shape), &[], Isa::detect()).unwrap();
    let product = compile(&op(BinaryOperator::Multiply, x(), x()));
    assert_eq!(product.shape().lane(), Some(Lane::I16));
    assert!(!product.can_fail());
    let beyond = compile(&op(BinaryOperator::Less, x(), int(1_000)));
    assert_eq!(beyond.constant(), Some(&Value::Boolean(true)));
    assert_eq!(beyond.mask(&tile).unwrap(), None);
    let never = compile(&op(BinaryOperator::Equal, x(), int(-1)));
    assert_eq!(never.constant(), Some(&Value::Boolean(false)));
    let overflow = op(BinaryOperator::Add, x(), int(i64::MAX.into()));
    let overflow = compile(&overflow);
    assert!(overflow.can_fail());
    assert!(values(&overflow, &tile).is_err());
}

/// Counts the rows that it sees.
struct Counting(Arc<AtomicUsize>);

impl HostFunction for Counting {
    fn evaluate(&self, args: &[ArrayRef], rows: usize) -> Result<ArrayRef, String> {
        self.0.fetch_add(rows, Ordering::Relaxed);
        let text = |value: Option<i32>| value.map(|value| format!("day {}", value % 3));
        let values = args[0].as_primitive::<Int32Type>();
        Ok(Arc::new(values.iter().map(text).collect::<StringArray>()))
    }
}

#[test]
fn slow_functions_run_once_per_value() {
    let mut shape = Shape::of_type(Type::Int32, true);
    shape.range = Some((10, 19));
    let seen = Arc::new(AtomicUsize::new(0));
    let call = Expr {
        node: Node::Host {
            function: function("counting", Counting(Arc::clone(&seen))),
            args: vec![Expr::column(0, Type::Int32)],
        },
        data_type: Type::Utf8,
    };
    let program = Program::compile(&call, &[shape], &[], Isa::detect()).unwrap();
    assert_eq!(seen.load(Ordering::Relaxed), 11);
    let numbers: Vec<i8> = (0..2048).map(|row| 10 + (row % 10) as i8).collect();
    let valid: Vec<u8> = (0..2048).map(|row| u8::from(row % 5 != 0)).collect();
    let vector = Vector::of(numbers).with_valid(Some(Cow::Owned(valid)));
    let tile = tile(vec![Slot::Computed(vector)], 2048);
    let result = program.eval(&tile).unwrap();
    check_shape(program.shape(), &result, "counting");
    assert_eq!(seen.load(Ordering::Relaxed), 11);
    assert_eq!(
        program.shape().dictionary.as_ref().map(|dictionary| dictionary.len()),
        Some(3)
    );
    assert_eq!(result.value(0), Value::Null);
    assert_eq!(result.value(1), Value::Bytes(b"day 2"[..].into()));
}

#[test]
fn entries_with_errors_count_only_when_used() {
    let words = ["AIR", "MAIL", "SHIP"];
    let dictionary = Arc::new(Dictionary::new(Strings::from_values(words.map(str::as_bytes))));
    let mut shape = Shape::of_type(Type::Utf8, false);
    shape.dictionary = Some(Arc::clone(&dictionary));
    let call = Expr {
        node: Node::Host {
            function: function("upper", Upper),
            args: vec![Expr::column(0, Type::Utf8)],
        },
        data_type: Type::Utf8,
    };
    let program = Program::compile(&call, &[shape], &[], Isa::detect()).unwrap();
    assert!(program.can_fail());
    let of = |codes: Vec<u32>| {
        let rows = codes.len();
        tile(
            vec![Slot::Computed(Vector::new(Data::Codes(
                codes.into(),
                Arc::clone(&dictionary),
            )))],
            rows,
        )
    };
    assert_eq!(
        values(&program, &of(vec![2, 0])).unwrap()[0],
        Value::Bytes(b"SHIP"[..].into())
    );
    assert_eq!(
        values(&program, &of(vec![0, 1])),
        Err(DeviceError::Arithmetic("no mail".to_owned()))
    );
}

#[test]
fn what_is_not_fused_has_a_reason() {
    let pattern = Expr {
        node: Node::Like {
            expr: Box::new(Expr::column(0, Type::Utf8)),
            pattern: Box::new(Expr::column(1, Type::Utf8)),
            negated: false,
            case_insensitive: false,
        },
        data_type: Type::Boolean,
    };
    assert!(support(&pattern).unwrap_err().contains("LIKE"));
    let wide = |scale| Expr::literal(Value::Int(1), dec(38, scale));
    assert!(support(&Expr::binary(BinaryOperator::Less, wide(0), wide(2), Type::Boolean)).is_ok());
}

/// Rows of a table after the same filters and picks as a tile's.
#[test]
fn tiles_keep_and_pick_rows() {
    let first = setting("SEED", 90);
    for seed in first..first + 30 {
        let mut random = StdRng::seed_from_u64(seed);
        let rows = [1, 31, 32, 33, 100][random.random_range(0..5)];
        let table = data::table(seed, rows);
        for isa in Isa::all_available() {
            let mut tile = table.tile(0);
            for index in (0..table.shapes.len()).step_by(2) {
                tile.materialise(index, &table.shapes[index], isa).unwrap();
            }
            let mut positions: Vec<u32> = (0..rows as u32).collect();
            for _ in 0..3 {
                let keep: Vec<u8> = (0..tile.rows).map(|_| u8::from(random.random_bool(0.7))).collect();
                tile.retain(&keep, isa);
                positions = positions
                    .iter()
                    .zip(&keep)
                    .filter(|(_, keep)| **keep == 1)
                    .map(|(at, _)| *at)
                    .collect();
                if !positions.is_empty() {
                    let picks: Vec<u32> = (0..40)
                        .map(|_| random.random_range(0..positions.len() as u32))
                        .collect();
                    tile.take(&picks);
                    positions = picks.iter().map(|at| positions[*at as usize]).collect();
                }
                check_tile(&tile, &table, &positions, isa, &format!("SEED={seed} {isa:?}"));
            }
        }
    }
}

fn check_tile(tile: &Tile<'_>, table: &Table, positions: &[u32], isa: Isa, what: &str) {
    assert_eq!(tile.rows, positions.len(), "{what}");
    for (index, shape) in table.shapes.iter().enumerate() {
        let vector = tile.slot(index, shape, isa).unwrap();
        check_shape(shape, &vector, what);
        for (row, position) in positions.iter().enumerate() {
            let expected = &table.row(*position)[index];
            assert!(same(&vector.value(row), expected), "{what} column {index} row {row}");
        }
    }
}

#[test]
fn no_rows_are_null() {
    let table = data::table(1, 4);
    let mut tile = table.tile(0);
    tile.origins[0].selection = Selection::NoRows;
    for (index, shape) in table.shapes.iter().enumerate() {
        let shape = Shape {
            nullable: true,
            ..shape.clone()
        };
        let vector = tile.slot(index, &shape, Isa::detect()).unwrap();
        check_shape(&shape, &vector, "no rows");
        assert!((0..4).all(|row| vector.is_null(row)));
    }
}

#[test]
fn whole_tiles_agree_on_every_instruction_set() {
    let first = setting("SEED", 300);
    let table = data::table(first, 2049);
    for seed in first..first + 60 {
        let expr = expression(&mut StdRng::seed_from_u64(seed), &table.shapes);
        let results: Vec<_> = Isa::all_available()
            .into_iter()
            .filter_map(|isa| Program::compile(&expr, &table.shapes, &[Value::Int(3), Value::Null], isa).ok())
            .map(|program| (values(&program, &table.tile(1)).ok(), program.mask(&table.tile(1)).ok()))
            .collect();
        for (got, mask) in results.iter().skip(1) {
            let agree = match (got, &results[0].0) {
                (Some(a), Some(b)) => a.iter().zip(b).all(|(a, b)| same(a, b)),
                (a, b) => a.is_none() == b.is_none(),
            };
            assert!(agree && (*mask == results[0].1), "SEED={seed}");
        }
    }
}

#[test]
fn comparisons_see_through_casts_that_only_multiply() {
    let (mut shape, slot) = column((-40..=40).collect());
    shape.data_type = dec(15, 2);
    let tile = tile(vec![slot], 81);
    let cast = Expr {
        node: Node::Cast {
            expr: Box::new(Expr::column(0, dec(15, 2))),
            safe: false,
        },
        data_type: dec(20, 4),
    };
    let operators = [
        BinaryOperator::Equal,
        BinaryOperator::NotEqual,
        BinaryOperator::Less,
        BinaryOperator::LessOrEqual,
        BinaryOperator::Greater,
        BinaryOperator::GreaterOrEqual,
    ];
    for operator in operators {
        for value in -450..=450_i64 {
            let constant = Expr::literal(Value::Int(value.into()), dec(20, 4));
            for mirrored in [false, true] {
                let (left, right) = if mirrored {
                    (constant.clone(), cast.clone())
                } else {
                    (cast.clone(), constant.clone())
                };
                let holds = |x: i64| {
                    let (a, b) = if mirrored { (value, x * 100) } else { (x * 100, value) };
                    match operator {
                        BinaryOperator::Equal => a == b,
                        BinaryOperator::NotEqual => a != b,
                        BinaryOperator::Less => a < b,
                        BinaryOperator::LessOrEqual => a <= b,
                        BinaryOperator::Greater => a > b,
                        _ => a >= b,
                    }
                };
                let expected: Vec<_> = (-40..=40).map(|x| Value::Boolean(holds(x))).collect();
                let expr = Expr::binary(operator, left, right, Type::Boolean);
                let program = Program::compile(&expr, std::slice::from_ref(&shape), &[], Isa::detect()).unwrap();
                assert_eq!(values(&program, &tile).unwrap(), expected, "{expr:?}");
            }
        }
    }
}
