//! The fused variant against the naive interpreter: random graphs and the systematic matrix, on every instruction set that
//! this processor has.
//!
//! `TRIREME_CONFORMANCE_CASES` random cases from `TRIREME_CONFORMANCE_SEED` instead of the usual few; the whole matrix with
//! `TRIREME_CONFORMANCE_FULL`, or a part of it with `TRIREME_CONFORMANCE_SHARD=1/40`.

use std::time::Instant;

use trireme_device_cpu::FusedVariant;
use trireme_device_testkit::conformance::{Extent, Shard, check, check_all, matrix};

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(otherwise)
}

#[test]
fn random_graphs() {
    let cases = usize::try_from(number("TRIREME_CONFORMANCE_CASES", 250)).unwrap();
    let seed = number("TRIREME_CONFORMANCE_SEED", 1);
    for (index, name) in FusedVariant::instructions().into_iter().enumerate() {
        let variant = FusedVariant::with_instructions(name).unwrap();
        let seed = seed + u64::try_from(index * cases).unwrap();
        let summary = check(&variant, seed, cases).unwrap();
        println!("{name}, seed {seed}: {summary}");
    }
}

#[test]
fn systematic_graphs() {
    let Some(shard) = Shard::from_env().unwrap() else {
        println!("{}", matrix(&FusedVariant::new(), Extent::Quick).unwrap());
        return;
    };
    let began = Instant::now();
    let summary = check_all(&FusedVariant::new(), shard.cases(Extent::Full)).unwrap();
    println!("{}", shard.report(&summary, began.elapsed()));
}

/// Joins stop after each piece of their pairs, and go on.
#[test]
fn graphs_whose_joins_stop_again_and_again() {
    let cases = usize::try_from(number("TRIREME_CONFORMANCE_CASES", 100)).unwrap();
    let seed = number("TRIREME_CONFORMANCE_SEED", 1) + 100_000;
    let variant = FusedVariant::new().with_step_pairs(1);
    println!("seed {seed}: {}", check(&variant, seed, cases).unwrap());
    println!("{}", matrix(&variant, Extent::Quick).unwrap());
}
