//! Aggregates on the simulated device, of every function and kind of key, against the interpreter of graphs.
//!
//! Each case runs under drawn schedules, so that lost updates and races show; devices of several forms give every rung of the
//! ladder of group tables its turn.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panics")]

#[path = "kit/aggregates.rs"]
mod aggregates;
mod kit;

use std::sync::Arc;

use aggregates::{random, totals};
use kit::{Fresh, number, simulated};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use trireme_device_api::{Device, DeviceError, DevicePool, Type};
use trireme_device_testkit::conformance::{check_all, compare};
use trireme_device_testkit::driver::{Together, run_as, unsupported};
use trireme_device_testkit::generate::Case;
use trireme_device_testkit::inputs::{CountingPool, Layout, bind};
use trireme_device_testkit::interpreter::interpret;

/// Schedules that each family of kernels is to be proved under, at least.
const SCHEDULES: u64 = 100;

fn run(script: &str, cases: impl Iterator<Item = Case>) {
    run_on(&Fresh::new(script.parse().unwrap()), script, cases);
}

fn run_on(device: &Fresh, script: &str, cases: impl Iterator<Item = Case>) {
    let summary = check_all(device, cases).unwrap_or_else(|mismatch| panic!("{script}: {mismatch}"));
    println!("{script}, {} launches: {summary}", device.launches());
    assert!(device.launches() >= SCHEDULES, "{} launches", device.launches());
    assert!(summary.rows > summary.cases / 3, "{summary}");
}

/// `TRIREME_SIM_CASES` random cases instead of the usual few, from `TRIREME_SIM_SEED`.
fn cases(most: u64) -> impl Iterator<Item = Case> {
    let (first, most) = (number("TRIREME_SIM_SEED", 1), number("TRIREME_SIM_CASES", most));
    println!("seeds from {first}");
    (first..first + most).map(random)
}

#[test]
fn registers_and_dense_tables() {
    run("group=8,items=2,groups=3", cases(40));
}

#[test]
fn local_memory_and_large_groups() {
    run("group=16,items=1,groups=2,wide=off,local=1MiB", cases(40));
}

#[test]
fn all_in_the_arena() {
    run("group=8,items=1,groups=4,local=1KiB", cases(40));
}

#[test]
fn rows_in_order_of_hashes() {
    let script = "group=8,items=2,groups=3";
    run_on(&Fresh::in_order(script.parse().unwrap()), script, cases(40));
    let script = "group=16,items=1,groups=2,wide=off";
    run_on(&Fresh::in_order(script.parse().unwrap()), script, cases(20));
}

/// A first run finds that a table is large, the next puts rows in order for it, and finds the same.
#[test]
fn a_large_table_is_learned_of() {
    let (_, device) = simulated(&"group=8,items=2,groups=3,large=1KiB,races=off".parse().unwrap());
    let mut learned = 0;
    for case in cases(30) {
        if unsupported(device.variant().as_ref(), &case.graph).is_some() {
            continue;
        }
        let Ok(expected) = interpret(&case.graph, &case.data) else {
            continue;
        };
        let launches = [(); 3].map(|()| {
            let pool: Arc<dyn DevicePool> = Arc::new(CountingPool::new(usize::MAX));
            let mut rng = SmallRng::seed_from_u64(case.seed);
            let inputs = bind(&case.graph, &case.data, &Layout::default(), &pool, &mut rng).unwrap();
            let before = device.vitals().launches;
            match run_as(device.variant().as_ref(), &case.graph, inputs, 1, Together::All) {
                Ok(rows) => compare(&case.graph, &[], &expected, &rows).unwrap(),
                Err(DeviceError::Unsupported(_)) => {}
                Err(error) => panic!("{}: {error}", case.name),
            }
            device.vitals().launches - before
        });
        let more = launches[1] - launches[0];
        assert!(more == 0 || more == 2, "{launches:?}");
        assert_eq!(launches[1], launches[2], "{launches:?}");
        learned += u32::from(more > 0);
    }
    assert!(learned > 0, "no table was large");
}

#[test]
fn some_slots_in_local_memory() {
    run("group=16,items=2,groups=2,wide=off,local=64KiB", cases(40));
}

/// Sums that leave their type on the way and come back are none's fault; those that end outside are.
#[test]
fn sums_overflow_at_their_end_only() {
    let decimal = Type::Decimal {
        precision: 38,
        scale: 0,
    };
    let (word, most) = (i128::from(i64::MAX), 10_i128.pow(38) - 1);
    let fitting = [
        (Type::Int64, vec![word, 1, -1]),
        (Type::Int64, vec![word, word, word, -word, -word]),
        (Type::Int64, vec![-word - 1, 5]),
        (decimal.clone(), vec![most, 1, -1]),
        (decimal.clone(), vec![most, most, most, -most, -most, -5]),
        (decimal.clone(), vec![most, most, -most, 12_345, -most]),
        (decimal.clone(), vec![most, most, -most, -77_777_777_777, -most]),
    ];
    let overflowing = [
        (Type::Int64, vec![word, 1]),
        (Type::Int64, vec![-word, -2]),
        (decimal.clone(), vec![most, 1]),
        (decimal, vec![most, most, most, -5]),
    ];
    let device = Fresh::new("group=8,items=1".parse().unwrap());
    for grouped in [false, true] {
        for (data_type, values) in &fitting {
            let summary = check_all(&device, totals(values, data_type, grouped)).unwrap();
            println!("{summary}");
            assert_eq!(summary.rows + summary.errors, 3, "{summary}");
        }
        for (data_type, values) in &overflowing {
            let sum = totals(values, data_type, grouped).swap_remove(0);
            let summary = check_all(&device, [sum]).unwrap();
            assert_eq!(summary.errors, 1, "{values:?}: {summary}");
        }
    }
}
