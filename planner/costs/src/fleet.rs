//! What if: machines that one doesn't have, described in a few lines, judged by a recorded workload.
//!
//! ```toml
//! # devices.toml: devices of the catalogue, by `like`, with what differs
//! [[device]]
//! like = "cpu-16c"
//! id = "cpu0"
//!
//! [[device]]
//! like = "gpu-l4"
//! id = "cuda0"
//! price_usd_per_hour = 0.60
//! ```
//!
//! A mix's rent is that of all its devices for as long as its queries run, whether they use them or not: that is what a machine
//! costs. (A placement's own rent is only of what it occupies.)

use std::fmt::Write as _;

use serde::Serialize;

use crate::catalogue::{CatalogueError, catalogue, described};
use crate::explain;
use crate::facts::Facts;
use crate::objective::{Objective, Totals};
use crate::place::{Candidate, Decision, Environment, PlaceError, place};
use crate::profile::Profile;
use crate::recorded::{Query, Run, Workload};

const MS_PER_HOUR: f64 = 3.6e6;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum WhatIfError {
    /// The devices aren't described as they must be.
    #[error(transparent)]
    Devices(#[from] CatalogueError),
    /// Nothing can be placed.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// There is no processor among the devices.
    #[error("the devices hold no processor: what accelerators don't take has nowhere to run")]
    NoProcessor,
}

/// Where columns are when queries run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Warmth {
    /// Share of all columns in the host's memory; the rest is in the store.
    pub host_share: f64,
    /// Share in the accelerators' own.
    pub device_share: f64,
    /// Rate of the store.
    pub store_bytes_per_second: f64,
}

impl Default for Warmth {
    /// All in the host's memory, nothing in the accelerators'.
    fn default() -> Self {
        Self {
            host_share: 1.0,
            device_share: 0.0,
            store_bytes_per_second: 1e9,
        }
    }
}

/// The devices of a `devices.toml`, the processor first.
///
/// # Errors
/// When it isn't of that form, or has no processor.
pub fn machine(devices_toml: &str) -> Result<Vec<Profile>, WhatIfError> {
    let mut devices = described(devices_toml)?;
    devices.sort_by_key(|device| !device.is_host());
    match devices.first().is_some_and(Profile::is_host) {
        true => Ok(devices),
        false => Err(WhatIfError::NoProcessor),
    }
}

/// Where a query's fragments would run on a machine.
///
/// # Errors
/// When bounds or pins can't be kept.
pub fn plan(
    query: &Query,
    facts: &Facts,
    machine: &[Profile],
    warmth: Warmth,
    objective: &Objective,
) -> Result<Decision, PlaceError> {
    let scans = query.graph.scans.len();
    let candidate = |profile| {
        let candidate = Candidate::new(profile);
        let share = if candidate.profile.is_host() {
            warmth.host_share
        } else {
            warmth.device_share
        };
        Candidate {
            resident: vec![share; scans],
            ..candidate
        }
    };
    let candidates: Vec<_> = machine.iter().map(candidate).collect();
    let environment = Environment {
        store_bytes_per_second: warmth.store_bytes_per_second,
        ..Environment::default()
    };
    place(&query.graph, facts, &candidates, &environment, objective)
}

/// As [`plan`], from the text of a `devices.toml` to the text of EXPLAIN (PLACEMENT).
///
/// # Errors
/// When the devices aren't described as they must be, or bounds can't be kept.
pub fn plan_text(
    query: &Query,
    run: &Run,
    devices_toml: &str,
    warmth: Warmth,
    objective: &Objective,
) -> Result<String, WhatIfError> {
    let facts = run.facts(query);
    let decision = plan(query, &facts, &machine(devices_toml)?, warmth, objective)?;
    Ok(explain::text(&facts, &decision))
}

/// A mix of devices, and what a workload takes on it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mix {
    /// Ids of its devices, the processor first.
    pub devices: Vec<String>,
    /// Time of all queries, one after another.
    pub ms: f64,
    /// Rent of the whole mix meanwhile.
    pub usd: f64,
    /// Energy: of what works, and of what waits.
    pub joules: f64,
    /// The longest query.
    pub longest_ms: f64,
    /// Queries that use an accelerator.
    pub accelerated: usize,
}

/// What a workload is judged by.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Wanted {
    /// No query may take longer.
    pub longest_ms_max: Option<f64>,
    /// All queries together, one after another, may take at most this.
    pub total_ms_max: Option<f64>,
}

/// Every processor of the catalogue alone and with each accelerator, cheapest first; mixes that are too slow are left out.
/// Each query counts once, at the last of its recorded sizes, `factor` times as large.
///
/// # Errors
/// When the catalogue is wrong, or a query can't be placed.
pub fn fleet(workload: &Workload, factor: f64, warmth: Warmth, wanted: Wanted) -> Result<Vec<Mix>, WhatIfError> {
    let known = catalogue()?;
    let (hosts, others): (Vec<_>, Vec<_>) = known.into_iter().partition(Profile::is_host);
    let needs: Vec<(&Query, Facts)> = workload
        .queries
        .iter()
        .filter_map(|query| Some((query, query.runs.last()?.grown(factor).facts(query))))
        .collect();
    let mut mixes = Vec::new();
    for host in &hosts {
        for other in std::iter::once(None).chain(others.iter().map(Some)) {
            let machine: Vec<_> = std::iter::once(host).chain(other).cloned().collect();
            let mix = mix(&needs, &machine, warmth)?;
            let quick = wanted.longest_ms_max.is_none_or(|most| mix.longest_ms <= most)
                && wanted.total_ms_max.is_none_or(|most| mix.ms <= most);
            if quick {
                mixes.push(mix);
            }
        }
    }
    mixes.sort_by(|a, b| a.usd.total_cmp(&b.usd));
    Ok(mixes)
}

fn mix(needs: &[(&Query, Facts)], machine: &[Profile], warmth: Warmth) -> Result<Mix, PlaceError> {
    let mut all = Totals::default();
    let (mut longest_ms, mut accelerated) = (0.0_f64, 0);
    for (query, facts) in needs {
        let decision = plan(query, facts, machine, warmth, &Objective::default())?;
        longest_ms = longest_ms.max(decision.totals.ms);
        accelerated += usize::from(decision.chosen.iter().any(|device| *device > 0));
        all = all.plus(decision.totals);
    }
    let rent: f64 = machine.iter().map(|device| device.price_usd_per_hour).sum();
    // What occupies a device is counted in full by the placement; everything else idles all the time.
    let idle_watts: f64 = machine.iter().map(|device| device.power.idle_watts).sum();
    Ok(Mix {
        devices: machine.iter().map(|device| device.id.clone()).collect(),
        ms: all.ms,
        usd: all.ms * rent / MS_PER_HOUR,
        joules: all.joules + idle_watts * all.ms / 1e3,
        longest_ms,
        accelerated,
    })
}

/// The mixes as a table for people.
pub fn report(mixes: &[Mix]) -> String {
    let mut text = format!(
        "{:<32} {:>12} {:>12} {:>10} {:>12} {:>11}\n",
        "devices", "s", "USD", "kJ", "longest ms", "accelerated"
    );
    for mix in mixes {
        let _ = writeln!(
            text,
            "{:<32} {:>12.3} {:>12.6} {:>10.3} {:>12.1} {:>11}",
            mix.devices.join(" + "),
            mix.ms / 1e3,
            mix.usd,
            mix.joules / 1e3,
            mix.longest_ms,
            mix.accelerated
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tpch() -> Workload {
        Workload::from_json(include_str!("../testdata/tpch.json")).unwrap()
    }

    const MACHINE: &str = r#"
        [[device]]
        like = "gpu-h200"
        id = "cuda0"

        [[device]]
        like = "cpu-16c"
        id = "cpu0"
        cores = 8
    "#;

    #[test]
    fn a_plan_for_a_machine_that_is_not_here() {
        let devices = machine(MACHINE).unwrap();
        assert_eq!((devices[0].id.as_str(), devices[0].workers), ("cpu0", 8));
        let workload = tpch();
        let query = &workload.queries[0];
        let run = query.runs[2].grown(100.0);
        let resident = Warmth {
            device_share: 1.0,
            ..Warmth::default()
        };
        let text = plan_text(query, &run, MACHINE, resident, &Objective::default()).unwrap();
        assert!(text.contains("fragment 0 on cuda0: lineitem"), "{text}");
        let only = "[[device]]\nlike = \"gpu-h200\"\nid = \"cuda0\"\n";
        assert!(matches!(machine(only), Err(WhatIfError::NoProcessor)));
    }

    #[test]
    fn a_fleet_is_the_cheapest_that_is_quick_enough() {
        let workload = tpch();
        let warmth = Warmth::default();
        let all = fleet(&workload, 100.0, warmth, Wanted::default()).unwrap();
        let known = catalogue().unwrap();
        let hosts = known.iter().filter(|device| device.is_host()).count();
        assert_eq!(all.len(), hosts * (1 + known.len() - hosts));
        assert!(all.windows(2).all(|pair| pair[0].usd <= pair[1].usd));
        // An accelerator never makes a machine slower.
        for mix in all.iter().filter(|mix| mix.devices.len() == 2) {
            let alone = all.iter().find(|other| other.devices == mix.devices[..1]).unwrap();
            assert!(mix.ms <= alone.ms * 1.000_001, "{mix:?}");
        }
        let quickest = all.iter().map(|mix| mix.longest_ms).fold(f64::MAX, f64::min);
        let wanted = Wanted {
            longest_ms_max: Some(quickest * 1.5),
            ..Wanted::default()
        };
        let quick = fleet(&workload, 100.0, warmth, wanted).unwrap();
        assert!(!quick.is_empty() && quick.len() < all.len());
        assert!(report(&quick).lines().count() == quick.len() + 1);
    }
}
