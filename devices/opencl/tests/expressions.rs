//! Expressions as OpenCL C against the naive interpreter, many in one kernel: what the interpreter of kernels can't tell is
//! whether their text says the same.
//!
//! As many kernels as fit into `TRIREME_CONFORMANCE_SECONDS` (5), from `TRIREME_CONFORMANCE_SEED`. Without a device the test says
//! so and passes, unless `TRIREME_REQUIRE_OPENCL=1`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use trireme_device_api::{Backend, Expr};
use trireme_device_codegen::supports;
use trireme_device_cpu::FusedVariant;
use trireme_device_opencl::{OpenClBackend, OpenClSettings};
use trireme_device_testkit::conformance::check_all;
use trireme_device_testkit::generate;

/// Expressions of one kernel.
const EXPRESSIONS: usize = 30;

fn number(name: &str, otherwise: u64) -> u64 {
    let value = std::env::var(name).ok().and_then(|value| value.parse().ok());
    value.unwrap_or(otherwise)
}

fn fits(expr: &Expr) -> bool {
    supports(expr).is_ok() && generate::needs_no_dictionary(expr)
}

#[test]
fn expressions_as_text() {
    let settings = OpenClSettings {
        arena_bytes_max: Some(64 << 20),
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
        return;
    };
    let started = Instant::now();
    let seconds = Duration::from_secs(number("TRIREME_CONFORMANCE_SECONDS", 5));
    let mut seed = number("TRIREME_CONFORMANCE_SEED", 1);
    let mut ran = 0;
    while started.elapsed() < seconds || ran == 0 {
        let case = generate::projection(seed, EXPRESSIONS, &fits);
        let summary = check_all(device.variant().as_ref(), [case]).unwrap_or_else(|mismatch| panic!("{mismatch}"));
        println!("seed {seed}: {summary}");
        ran += summary.rows;
        seed += 1;
    }
}
