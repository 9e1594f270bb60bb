//! The processor as queries' fragments find it: micro-graphs run by its fused variant and all workers say what plain loops can't.
//!
//! ```text
//!  start       a chain of fragments over few rows, by its length
//!  efficiency  rows hashed by one worker (a morsel) beside rows hashed by all (many morsels)
//!  spread      a morsel for each worker: what that takes beyond all of them working from the start
//! ```
//!
//! Rates stay: those of the base stand to one another as fragments of real queries have them, and micro-graphs reach up to ten
//! times that.

use std::time::{Duration, Instant};

use super::device::{Bench, Runner};
use super::graphs::{self, Bound};
use super::{Effort, Micro};
use crate::profile::Profile;

/// A fragment starts within this.
const START_MS_MAX: f64 = 1.0;
/// Further workers join within this.
const SPREAD_MS_MAX: f64 = 0.5;

impl Effort {
    fn engine_limit(self) -> Duration {
        match self {
            Effort::Quick => Duration::from_millis(300),
            Effort::Full => Duration::from_secs(3),
        }
    }
}

/// A profile with what graphs say; what they don't stays.
pub(super) fn measured(profile: Profile, runner: &mut dyn Runner, effort: Effort) -> Profile {
    let mut bench = Bench {
        runner,
        began: Instant::now(),
        limit: effort.engine_limit(),
        effort,
        segments_max: 1,
        compiled: Vec::new(),
    };
    let Ok(started) = bench.started(profile.clone()) else {
        return profile;
    };
    let profile = Profile {
        // Fragments of a chain start quicker than the first of a query, whose columns are looked up.
        start_ms: started.start_ms.clamp(profile.start_ms, START_MS_MAX),
        ..profile
    };
    bench.shared(&profile).unwrap_or(profile)
}

impl Bench<'_> {
    /// How workers share a fragment.
    fn shared(&mut self, profile: &Profile) -> Option<Profile> {
        let others = f64::from(profile.workers) - 1.0;
        if others < 1.0 {
            return None;
        }
        let trial = graphs::of(Micro::Hash)?;
        let few_ms = self.least(&trial, &trial.small()).ok()?.ms;
        let mut ms = |bound: &Bound| Some((self.least(&trial, bound).ok()?.ms - few_ms).max(1e-6));
        #[expect(clippy::cast_possible_truncation, reason = "a number of rows")]
        let morsel = profile.morsel_rows as usize;
        let alone_ms = ms(&trial.of_rows(morsel))?;
        let (many, each) = (trial.large(1), trial.of_rows(morsel * profile.workers as usize));
        let (many_ms, each_ms) = (ms(&many)?, ms(&each)?);
        let rows = |bound: &Bound| -> f64 { bound.facts.fragments.iter().map(|facts| facts.source_rows.rows).sum() };
        let few = rows(&trial.small());
        let row_ms = alone_ms / (profile.morsel_rows - few).max(1.0);
        let shared_ms = (many_ms - each_ms).max(1e-6) / (rows(&many) - rows(&each)).max(1.0);
        let efficiency = ((row_ms / shared_ms - 1.0) / others).clamp(0.0, 1.0);
        let workers = 1.0 + others * efficiency;
        let spread_ms = (each_ms + row_ms * few - row_ms * rows(&each) / workers) / (1.0 - 1.0 / workers).max(0.1);
        Some(Profile {
            worker_efficiency: efficiency,
            spread_ms: spread_ms.clamp(0.0, SPREAD_MS_MAX),
            ..profile.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use trireme_device_api::{DeviceError, Graph, Inputs};

    use super::super::device::Ran;
    use super::*;
    use crate::catalogue::reference;

    /// Four workers of which the further three are half as good, and join late.
    struct Shared;

    const START_MS: f64 = 0.04;
    const SPREAD_MS: f64 = 0.06;
    const MS_PER_MORSEL: f64 = 0.3;

    impl Runner for Shared {
        fn run(&mut self, graph: &Arc<Graph>, inputs: &Inputs) -> Result<Ran, DeviceError> {
            let rows: usize = (0..inputs.scans[0].segments()).map(|at| inputs.scans[0].rows(at)).sum();
            let alone_ms = rows as f64 / 32_768.0 * MS_PER_MORSEL;
            let busy = rows.div_ceil(32_768).min(4) as f64;
            let workers = 1.0 + (busy - 1.0) * 0.5;
            let late_ms = SPREAD_MS.min(alone_ms);
            Ok(Ran {
                ms: START_MS * graph.fragments.len() as f64 + late_ms + (alone_ms - late_ms) / workers,
                reports: Vec::new(),
            })
        }
    }

    #[test]
    fn starts_and_workers_are_measured() {
        let base = Profile {
            workers: 4,
            ..reference()
        };
        let found = measured(base.clone(), &mut Shared, Effort::Quick);
        found.check().unwrap();
        let near = |what: &str, found: f64, wanted: f64| {
            assert!((found / wanted - 1.0).abs() < 0.15, "{what}: {found} is not {wanted}");
        };
        near("start", found.start_ms, START_MS);
        near("efficiency", found.worker_efficiency, 0.5);
        near("spread", found.spread_ms, SPREAD_MS);
        assert_eq!(found.operations, base.operations);
    }
}
