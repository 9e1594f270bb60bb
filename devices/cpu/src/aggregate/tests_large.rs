//! What only many rows show: buffers that fill, tables that grow, memory that runs short.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use trireme_device_api::{AggregateFunction, DeviceError, DevicePool, Expr, Type, Value};

use crate::aggregate::AggregatePlan;
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
