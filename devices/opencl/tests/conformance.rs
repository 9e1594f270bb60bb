//! Fragments on an OpenCL device against the naive interpreter: random graphs and the systematic matrix.
//!
//! Each case is compiled for the device, which takes PoCL a good part of a second, so that the usual run is short: as many
//! cases as fit into `TRIREME_CONFORMANCE_SECONDS` (10) for each test. `TRIREME_CONFORMANCE_CASES` random cases from
//! `TRIREME_CONFORMANCE_SEED`, whatever the time; the whole matrix with
//! `TRIREME_CONFORMANCE_FULL`, or a part of it with `TRIREME_CONFORMANCE_SHARD=1/20`: there cases share kernels as far as they can.
//!
//! Without a device these tests say so and pass, unless `TRIREME_REQUIRE_OPENCL=1`.
#![allow(clippy::panic, clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use trireme_device_api::{Backend, Device};
use trireme_device_cpu::FusedVariant;
use trireme_device_opencl::{OpenClBackend, OpenClSettings};
use trireme_device_runtime::{Kernels, Limits};
use trireme_device_testkit::conformance::{Extent, Shard, check_within, matrix_cases, survey};
use trireme_device_testkit::generate;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// How long a test may take.
fn limit() -> Duration {
    Duration::from_secs(number("TRIREME_CONFORMANCE_SECONDS").unwrap_or(10))
}

/// As many queries at once as there are processors.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The first device, or none.
fn device(options: &str) -> Option<Arc<dyn Device>> {
    device_by(options, Kernels::Compiled)
}

fn device_by(options: &str, kernels: Kernels) -> Option<Arc<dyn Device>> {
    let settings = OpenClSettings {
        limits: Limits {
            kernels,
            ..Limits::default()
        },
        arena_bytes_max: Some(256 << 20),
        options: options.to_owned(),
        ..OpenClSettings::default()
    };
    let probed = OpenClBackend::new(settings, Arc::new(FusedVariant::new())).probe();
    let Some(device) = probed.devices.into_iter().next() else {
        let reason = probed.absent.unwrap_or_default();
        assert!(
            std::env::var("TRIREME_REQUIRE_OPENCL").is_err(),
            "no OpenCL device: {reason}"
        );
        println!("skipped: no OpenCL device: {reason}");
        return None;
    };
    Some(device)
}

#[test]
fn random_graphs() {
    let Some(device) = device("") else { return };
    let cases = number("TRIREME_CONFORMANCE_CASES");
    let seed = number("TRIREME_CONFORMANCE_SEED").unwrap_or(1);
    println!("from seed {seed}");
    let limit = cases.is_none().then(limit);
    let seeds = seed..seed + cases.unwrap_or(100_000);
    let summary = check_within(device.variant().as_ref(), limit, threads(), seeds.map(generate::graph)).unwrap();
    println!("from seed {seed}: {summary}");
    assert!(summary.rows > 0, "nothing ran: {summary}");
}

#[test]
fn systematic_graphs() {
    let shard = Shard::from_env().unwrap();
    // A third of the time to compile, and so more cases; the random ones are optimised.
    let Some(device) = device("-cl-opt-disable") else {
        return;
    };
    let variant = device.variant();
    let summary = if let Some(shard) = shard {
        let began = Instant::now();
        let summary = check_within(variant.as_ref(), None, threads(), shard.cases_alike(Extent::Full)).unwrap();
        println!("{}", shard.report(&summary, began.elapsed()));
        println!("part {shard}: {} kernels compiled", device.vitals().compiled);
        summary
    } else {
        let mut cases: Vec<_> = matrix_cases(Extent::Quick).collect();
        // Some of everything: neighbours are alike.
        let seed = number("TRIREME_CONFORMANCE_SEED").unwrap_or(1);
        println!("of {} cases, in the order of seed {seed}", cases.len());
        cases.shuffle(&mut SmallRng::seed_from_u64(seed));
        check_within(variant.as_ref(), Some(limit()), threads(), cases).unwrap()
    };
    println!("{summary}");
    assert!(summary.rows > 0, "nothing ran: {summary}");
}

/// As data: one kernel is compiled, so that there is time for many graphs.
#[test]
fn graphs_as_data() {
    let Some(device) = device_by("", Kernels::Interpreted) else {
        return;
    };
    let cases = number("TRIREME_CONFORMANCE_CASES");
    let seed = number("TRIREME_CONFORMANCE_SEED").unwrap_or(1);
    println!("from seed {seed}");
    let limit = limit();
    let seeds = seed..seed + cases.unwrap_or(100_000);
    let random = check_within(
        device.variant().as_ref(),
        Some(limit),
        threads(),
        seeds.map(generate::graph),
    )
    .unwrap();
    println!("from seed {seed}: {random}");
    let mut matrix: Vec<_> = matrix_cases(Extent::Quick).collect();
    matrix.shuffle(&mut SmallRng::seed_from_u64(seed));
    let matrix = check_within(device.variant().as_ref(), Some(limit), threads(), matrix).unwrap();
    println!("{matrix}");
    assert!(random.rows > 0 && matrix.rows > 0, "nothing ran");
    let vitals = device.vitals();
    assert!(vitals.interpreted > 0 && vitals.compiled <= 1, "{vitals:?}");
}

/// For who mends the lowering: what differs, one of each sort, at most `TRIREME_CONFORMANCE_SURVEY`.
#[test]
#[ignore = "it looks for more than one mismatch, and takes minutes"]
fn survey_of_mismatches() {
    let Some(device) = device("") else { return };
    let most = usize::try_from(number("TRIREME_CONFORMANCE_SURVEY").unwrap_or(8)).unwrap();
    let cases = usize::try_from(number("TRIREME_CONFORMANCE_CASES").unwrap_or(50)).unwrap();
    let seed = number("TRIREME_CONFORMANCE_SEED").unwrap_or(1);
    let (summary, found) = survey(device.variant().as_ref(), seed, cases, None, most);
    println!("from seed {seed}: {summary}");
    for mismatch in &found {
        println!("{mismatch}");
    }
    assert!(found.is_empty(), "{} sorts of mismatches", found.len());
}
