//! A processor that takes the times of hidden rates is measured.

use std::sync::Arc;

use trireme_device_api::{DeviceError, Graph, Inputs};

use super::super::device::Ran;
use super::super::device::tests::facts_of;
use super::*;
use crate::catalogue::{reference, scaled};
use crate::predict::{Surroundings, predict};

/// Takes as long as the formulas say of a profile that nobody is told.
struct Hidden(Profile);

impl Runner for Hidden {
    fn run(&mut self, graph: &Arc<Graph>, inputs: &Inputs) -> Result<Ran, DeviceError> {
        let of = |facts: &crate::FragmentFacts| predict(facts, &self.0, &Surroundings::default()).total_ms;
        let fragments_ms: Vec<f64> = facts_of(graph, inputs).fragments.iter().map(of).collect();
        Ok(Ran {
            ms: fragments_ms.iter().sum(),
            fragments_ms,
            reports: Vec::new(),
        })
    }
}

#[test]
fn a_processor_is_measured_by_what_queries_take() {
    let base = Profile {
        workers: 4,
        ..reference()
    };
    let mut hidden = scaled(&base, 0.4);
    hidden.start_ms = 0.05;
    hidden.worker_efficiency = 0.6;
    hidden.operations.hashes_per_second *= 0.5;
    let found = measured(base.clone(), &mut Hidden(hidden.clone()), Effort::Full);
    found.check().unwrap();
    let near = |what: &str, found: f64, wanted: f64, factor: f64| {
        let ratio = (found / wanted).max(wanted / found);
        assert!(ratio < factor, "{what}: {found:.3e} is not {wanted:.3e}");
    };
    near("start", found.start_ms, hidden.start_ms, 1.2);
    near("efficiency", found.worker_efficiency, hidden.worker_efficiency, 1.3);
    near(
        "hashes",
        found.operations.hashes_per_second,
        hidden.operations.hashes_per_second,
        1.5,
    );
    let groups = |profile: &Profile| profile.group_updates_per_second_by_groups.at(1e3);
    near("groups", groups(&found), groups(&hidden), 1.5);
    // What no query asks of it is as far from the base as the rest.
    let divided = |profile: &Profile| profile.operations.wide_per_second;
    near("divisions", divided(&found), divided(&hidden), 2.0);
    assert_eq!(found.decode_bytes_per_second, base.decode_bytes_per_second);
}
