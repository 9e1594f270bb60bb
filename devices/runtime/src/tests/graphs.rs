//! Whole graphs: conformance of the variant over the interpreter.

use std::sync::Arc;

use trireme_device_api::{Device, Variant};
use trireme_device_cpu::FusedVariant;
use trireme_device_testkit::conformance;

use super::driver::TestDriver;
use crate::accelerator::{Accelerator, Limits};
use crate::driver::Driver;

fn accelerator(driver: &Arc<TestDriver>) -> Accelerator {
    let driver: Arc<dyn Driver> = Arc::<TestDriver>::clone(driver);
    let host: Arc<dyn Variant> = Arc::new(FusedVariant::new());
    Accelerator::new(driver, host, Limits::default()).unwrap()
}

#[test]
fn random_graphs_agree_with_the_interpreter() {
    let driver = TestDriver::new(64 << 20);
    let device = accelerator(&driver);
    let (summary, mismatches) = conformance::survey(device.variant().as_ref(), 1, count(60), None, 4);
    println!("{summary}");
    for mismatch in &mismatches {
        println!("{mismatch}");
    }
    assert!(mismatches.is_empty());
    assert!(summary.rows > 0);
    device.trim();
    assert_eq!(driver.machine.lock().allocated(), (0, 0));
}

/// `TRIREME_CASES` or so many.
fn count(cases: usize) -> usize {
    let asked = std::env::var("TRIREME_CASES").ok();
    asked.and_then(|asked| asked.parse().ok()).unwrap_or(cases)
}
