//! Whole graphs: conformance of the variant over the interpreter.

use trireme_device_api::Device;
use trireme_device_testkit::conformance;

use super::driver::TestDriver;
use super::kit::{accelerator, count};
use crate::accelerator::Limits;

#[test]
fn random_graphs_agree_with_the_interpreter() {
    let driver = TestDriver::new(64 << 20);
    let device = accelerator(&driver, Limits::default());
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
