//! What only many rows show: buffers that fill, tables that grow, memory that runs short.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use trireme_device_api::{AggregateFunction, DeviceError, DevicePool, Expr, Type, Unlimited, Value};

use crate::aggregate::AggregatePlan;
use crate::aggregate::buffer::Buffers;
use crate::aggregate::keys::Rung;
use crate::aggregate::tests::{Case, Column, Kind, aggregate, check, column};
use crate::isa::Isa;

fn wide_keys(rows: usize, random: &mut StdRng) -> Column {
    let kind = Kind::Int {
        data_type: Type::Int32,
        low: 0,
        high: 300_000,
    };
    let mut key = column(&kind, rows, 0.01, random);
    for value in &mut key.values {
        if random.random_bool(0.5) {
            *value = Value::Int(random.random_range(0..3) * 100_000);
        }
    }
    key
}

#[test]
fn full_buffers_are_emptied() {
    let seed: u64 = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    let rows = 60_000;
    let number = Kind::Int {
        data_type: Type::Int32,
        low: -1000,
        high: 50_000,
    };
    let sum = |function, result| aggregate(function, Some((0, Type::Int32)), result);
    let mut case = Case {
        groups: vec![wide_keys(rows, &mut random)],
        aggregates: vec![
            (
                sum(AggregateFunction::Sum, Type::Int64),
                Some(column(&number, rows, 0.1, &mut random)),
            ),
            (aggregate(AggregateFunction::Count, None, Type::Int64), None),
        ],
        filters: vec![None, None],
        mask: None,
        rows,
    };
    for rung in [Rung::DirectShared, Rung::Packed64, Rung::Packed128] {
        for workers in [1, 2] {
            let got = case.run(Some(rung), workers, Isa::detect(), 2048, 100);
            check(&case, got, &format!("seed {seed} {rung:?} workers {workers}"));
        }
    }
    let (minimum, values) = case.aggregates.swap_remove(0);
    let minimum = trireme_device_api::Aggregate {
        function: AggregateFunction::Min,
        data_type: Type::Int32,
        filter: Some(Expr::column(100, Type::Boolean)),
        ..minimum
    };
    case.aggregates = vec![(minimum, values)];
    case.filters = vec![Some((0..rows).map(|_| random.random_range(0..2)).collect())];
    for rung in [Rung::DirectShared, Rung::Packed64] {
        let got = case.run(Some(rung), 2, Isa::detect(), 2048, 100);
        check(&case, got, &format!("seed {seed} {rung:?} MIN with a filter"));
    }
}

/// Rows that are groups of their own are set aside until the end; and rows of the same groups that come after them.
#[test]
fn rows_of_many_groups_are_set_aside() {
    let seed: u64 = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    let rows = 190_000;
    let kind = |high: i128| Kind::Int {
        data_type: Type::Int64,
        low: -5,
        high,
    };
    let mut key = column(&kind(i64::MAX.into()), rows, 0.0, &mut random);
    for (row, value) in key.values.iter_mut().enumerate() {
        *value = Value::Int((row as i128 % 150_000) * 1_000_003);
    }
    let of = |function, index, result| aggregate(function, Some((index, Type::Int64)), result);
    let case = Case {
        groups: vec![key],
        aggregates: vec![
            (
                of(AggregateFunction::Sum, 0, Type::Int64),
                Some(column(&kind(1000), rows, 0.1, &mut random)),
            ),
            (
                of(AggregateFunction::Min, 1, Type::Int64),
                Some(column(&kind(1 << 40), rows, 0.1, &mut random)),
            ),
            (aggregate(AggregateFunction::Count, None, Type::Int64), None),
        ],
        filters: vec![None, None, None],
        mask: None,
        rows,
    };
    for rung in [Rung::Packed64, Rung::Packed128] {
        for workers in [1, 2] {
            let got = case.run(Some(rung), workers, Isa::detect(), 2048, 0);
            check(&case, got, &format!("seed {seed} {rung:?} workers {workers}"));
        }
    }
}

/// Memory is as the groups are, not as the rows: what comes after the last new group is not set aside for long.
#[test]
fn rows_of_known_groups_are_not_set_aside() {
    let (groups, rows) = (60_000, 600_000);
    let mut random = StdRng::seed_from_u64(1);
    let kind = Kind::Int {
        data_type: Type::Int64,
        low: -5,
        high: i64::MAX.into(),
    };
    let mut key = column(&kind, groups, 0.0, &mut random);
    for (row, value) in key.values.iter_mut().enumerate() {
        *value = Value::Int(row as i128 * 1_000_003);
    }
    let case = Case {
        groups: vec![key],
        aggregates: vec![(aggregate(AggregateFunction::Count, None, Type::Int64), None)],
        filters: vec![None],
        mask: None,
        rows: groups,
    };
    let pool: Arc<dyn DevicePool> = Arc::new(Unlimited);
    let (shapes, aggregates) = case.shapes();
    let plan = AggregatePlan::with_rung(
        &shapes,
        &aggregates,
        1,
        Isa::detect(),
        &pool,
        rows,
        Some(Rung::Packed64),
    );
    let mut plan = plan.unwrap().with_two_partitions();
    plan.local_groups = 0;
    let mut local = plan.local();
    for turn in 0..rows / 2_000 {
        let start = turn * 2_000 % groups;
        let keys = [case.groups[0].vector(start, start + 2_000)];
        plan.update(&mut local, &keys, &[None], &[None], None, 2_000).unwrap();
    }
    let merge = plan.start_merge(vec![local]);
    let waiting = |buffers: &Buffers| (0..2).map(|part| buffers.waiting(part)).sum::<usize>();
    let waiting: usize = merge.buffers.iter().map(waiting).sum();
    assert!(waiting < rows / 2, "{waiting} of {rows} rows wait");
    (0..merge.tasks())
        .try_for_each(|task| plan.merge(&merge, task))
        .unwrap();
    assert_eq!(plan.output(merge).rows(), groups);
}

/// Runs of a key that ascends: all the way, but for one row, or but for one place.
#[test]
fn keys_in_order_are_grouped_run_by_run() {
    let seed: u64 = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    let rows = 12_000;
    let number = Kind::Int {
        data_type: Type::Int32,
        low: -1000,
        high: 50_000,
    };
    for nulls in [0.0, 0.1] {
        let mut key = wide_keys(rows, &mut random);
        let mut next = 0;
        for value in &mut key.values {
            next += if random.random_bool(0.3) {
                random.random_range(1..20)
            } else {
                0
            };
            *value = Value::Int(next);
        }
        let sum = aggregate(AggregateFunction::Sum, Some((0, Type::Int32)), Type::Int64);
        let mut case = Case {
            groups: vec![key],
            aggregates: vec![
                (sum, Some(column(&number, rows, nulls, &mut random))),
                (aggregate(AggregateFunction::Count, None, Type::Int64), None),
            ],
            filters: vec![None, None],
            mask: None,
            rows,
        };
        for disorder in ["none", "one row", "in the middle"] {
            let keys = &mut case.groups[0].values;
            match disorder {
                "one row" => keys.swap(rows / 3, rows / 2),
                "in the middle" => keys.rotate_left(rows / 2),
                _ => {}
            }
            for workers in [1, 2, 3] {
                for tile in [50, 1000, 2048] {
                    let got = case.run(Some(Rung::DirectShared), workers, Isa::detect(), tile, 100);
                    check(
                        &case,
                        got,
                        &format!("seed {seed} disorder {disorder} workers {workers} tile {tile}"),
                    );
                }
            }
        }
    }
}

/// Two keys in order, as those of a table in the order of its primary key.
#[test]
fn pairs_in_order_are_grouped_run_by_run() {
    let seed: u64 = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    let rows = 9_000;
    let kind = |high: i128| Kind::Int {
        data_type: Type::Int32,
        low: 0,
        high,
    };
    for nulls in [0.0, 0.01] {
        let mut major = column(&kind(700), rows, nulls, &mut random);
        let mut minor = column(&kind(500), rows, nulls, &mut random);
        for row in 0..rows {
            if major.values[row] != Value::Null {
                major.values[row] = Value::Int((row / 900) as i128 * 70);
            }
            if minor.values[row] != Value::Null {
                minor.values[row] = Value::Int((row % 900 / 3) as i128);
            }
        }
        let sum = aggregate(AggregateFunction::Sum, Some((0, Type::Int32)), Type::Int64);
        let case = Case {
            groups: vec![major, minor],
            aggregates: vec![
                (sum, Some(column(&kind(50_000), rows, nulls, &mut random))),
                (aggregate(AggregateFunction::Count, None, Type::Int64), None),
            ],
            filters: vec![None, None],
            mask: None,
            rows,
        };
        for workers in [1, 2] {
            for tile in [50, 2048] {
                let got = case.run(Some(Rung::DirectShared), workers, Isa::detect(), tile, 100);
                check(
                    &case,
                    got,
                    &format!("seed {seed} nulls {nulls} workers {workers} tile {tile}"),
                );
            }
        }
    }
}

/// Few keys anywhere; later some more, or a few too many.
#[test]
fn few_keys_are_grouped_by_their_places() {
    let seed: u64 = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    let rows = 6_000;
    let kind = Kind::Int {
        data_type: Type::Int64,
        low: i64::MIN.into(),
        high: i64::MAX.into(),
    };
    for (first, then) in [(1, 1), (3, 3), (10, 16), (16, 17), (2, 40)] {
        for (nulls, masked) in [(0.0, false), (0.2, true)] {
            let mut key = column(&kind, rows, nulls, &mut random);
            for (row, value) in key.values.iter_mut().enumerate() {
                let count = if row < rows / 2 { first } else { then };
                if *value != Value::Null {
                    let word = random.random_range(0..count) * 0x9E37_79B9_7F4A_7C15_u64 as i64 as i128;
                    *value = Value::Int((word as i64).into());
                }
            }
            let values = |nulls, random: &mut StdRng| Some(column(&kind, rows, nulls, random));
            let of = |function, index, result| aggregate(function, Some((index, Type::Int64)), result);
            let mut filtered = aggregate(AggregateFunction::Count, None, Type::Int64);
            filtered.filter = Some(Expr::column(100, Type::Boolean));
            let case = Case {
                groups: vec![key],
                aggregates: vec![
                    (of(AggregateFunction::Max, 0, Type::Int64), values(nulls, &mut random)),
                    (of(AggregateFunction::Count, 1, Type::Int64), values(0.3, &mut random)),
                    (filtered, None),
                ],
                filters: vec![None, None, Some((0..rows).map(|_| random.random_range(0..2)).collect())],
                mask: masked.then(|| (0..rows).map(|_| random.random_range(0..2)).collect()),
                rows,
            };
            for isa in Isa::all_available() {
                for workers in [1, 2] {
                    let got = case.run(Some(Rung::Packed64), workers, isa, 500, 100);
                    check(
                        &case,
                        got,
                        &format!("seed {seed} {first} then {then} {isa:?} workers {workers}"),
                    );
                }
            }
        }
    }
}

/// Holds at most so many bytes.
struct Limited(parking_lot::Mutex<(usize, usize)>);

impl DevicePool for Limited {
    fn reserve(&self, bytes: usize) -> Result<(), DeviceError> {
        let mut held = self.0.lock();
        if held.0 + bytes > held.1 {
            return Err(DeviceError::OutOfMemory(format!("{bytes} bytes of {} asked", held.1)));
        }
        held.0 += bytes;
        Ok(())
    }

    fn release(&self, bytes: usize) {
        self.0.lock().0 -= bytes;
    }
}

#[test]
fn memory_is_reserved_and_given_back() {
    let mut random = StdRng::seed_from_u64(3);
    let kind = Kind::Int {
        data_type: Type::Int64,
        low: i64::MIN.into(),
        high: i64::MAX.into(),
    };
    let key = column(&kind, 60_000, 0.0, &mut random);
    let count = aggregate(AggregateFunction::Count, None, Type::Int64);
    for (limit, fits) in [(1 << 18, false), (1 << 28, true)] {
        let limited = Arc::new(Limited(parking_lot::Mutex::new((0, limit))));
        let pool: Arc<dyn DevicePool> = Arc::clone(&limited) as Arc<dyn DevicePool>;
        let shapes = [key.shape.clone()];
        let plan = AggregatePlan::new(
            &shapes,
            &[(count.clone(), None)],
            1,
            Isa::detect(),
            &pool,
            60_000,
            false,
        )
        .unwrap();
        let mut local = plan.local();
        let tiles = (0..60_000).step_by(1000);
        let done = tiles.into_iter().try_for_each(|start| {
            let groups = [key.vector(start, start + 1000)];
            plan.update(&mut local, &groups, &[None], &[None], None, 1000)
        });
        match done {
            Ok(()) => assert!(fits && limited.0.lock().0 >= 60_000 * 24, "what is held is reserved"),
            Err(error) => {
                let text = error.to_string();
                assert!(!fits && text.contains("exec.query_memory_bytes"), "{text}");
            }
        }
        drop((local, plan));
        assert_eq!(limited.0.lock().0, 0, "all is given back");
    }
}
