//! Many expressions in one kernel against the naive interpreter, under drawn schedules.
//!
//! `TRIREME_CONFORMANCE_CASES` kernels from `TRIREME_CONFORMANCE_SEED`; `TRIREME_SIM` is the device's script.

mod kit;

use kit::{Fresh, number};
use trireme_device_api::Expr;
use trireme_device_codegen::supports;
use trireme_device_sim::Script;
use trireme_device_testkit::conformance::check_all;
use trireme_device_testkit::generate;

/// Expressions of one kernel.
const EXPRESSIONS: usize = 30;

fn fits(expr: &Expr) -> bool {
    supports(expr).is_ok() && generate::needs_no_dictionary(expr)
}

#[test]
fn many_expressions() {
    let script = std::env::var("TRIREME_SIM").unwrap_or_else(|_| "memory=16MiB".to_owned());
    let script: Script = script.parse().unwrap();
    let seed = number("TRIREME_CONFORMANCE_SEED", 1);
    let cases = number("TRIREME_CONFORMANCE_CASES", 4);
    let cases = (seed..seed + cases).map(|seed| generate::projection(seed, EXPRESSIONS, &fits));
    let summary = check_all(&Fresh::new(script), cases).unwrap();
    println!("from seed {seed}: {summary}");
    assert!(summary.rows > 0, "nothing ran: {summary}");
}
