//! Whole graphs: conformance of the variant over the interpreter.

use trireme_device_api::Device;
use trireme_device_testkit::conformance;

use super::driver::TestDriver;
use super::kit::{accelerator, count, no_leak};
use crate::accelerator::Limits;

fn survey(seed: u64, cases: usize, limits: Limits) {
    let driver = TestDriver::new(64 << 20);
    let device = accelerator(&driver, limits);
    let (summary, mismatches) = conformance::survey(device.variant().as_ref(), seed, count(cases), None, 4);
    println!("{summary}");
    for mismatch in &mismatches {
        println!("{mismatch}");
    }
    assert!(mismatches.is_empty());
    assert!(summary.rows > 0);
    no_leak(&driver, &device);
}

#[test]
fn random_graphs_agree_with_the_interpreter() {
    survey(1, 60, Limits::default());
}

#[test]
fn random_graphs_whose_columns_come_in_chunks_agree_with_the_interpreter() {
    // One segment at a time.
    let limits = Limits {
        chunk_bytes: Some(1),
        ..Limits::default()
    };
    survey(1_000, 60, limits);
}
