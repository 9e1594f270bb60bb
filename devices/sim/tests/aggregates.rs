//! Aggregates on the simulated device, of every function and kind of key, against the interpreter of graphs.
//!
//! Each case runs under drawn schedules, so that lost updates and races show; devices of several forms give every rung of the
//! ladder of group tables its turn.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panics")]

#[path = "kit/aggregates.rs"]
mod aggregates;
mod kit;

use aggregates::{random, totals};
use kit::{Fresh, number};
use trireme_device_api::Type;
use trireme_device_testkit::conformance::check_all;
use trireme_device_testkit::generate::Case;

fn run(script: &str, cases: impl Iterator<Item = Case>) {
    let device = Fresh::new(script.parse().unwrap());
    let summary = check_all(&device, cases).unwrap_or_else(|mismatch| panic!("{script}: {mismatch}"));
    println!("{script}: {summary}");
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
fn some_slots_in_local_memory() {
    run("group=16,items=2,groups=2,wide=off,local=4KiB", cases(40));
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
