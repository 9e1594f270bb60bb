//! Predictions beside what runs took, for `system.fragments`: the formulas' on the rows that were there, with what was learned
//! before, and on the rows that were expected.

use std::collections::VecDeque;

use trireme_costs::{Facts, Library, Prediction, Profile, Surroundings, predict, transfer};
use trireme_device_api::Graph;

use super::{CostModel, Observed};

/// Fragments that are remembered: as many as `system.fragments` has, about.
const JUDGED_MAX: usize = 20_000;

/// Times that a fragment was predicted to take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judged {
    run: u64,
    fragment: usize,
    /// By the formulas, on the rows that were there.
    pub bare_ms: f64,
    /// The same with what was learned of earlier runs.
    pub corrected_ms: f64,
    /// With what was learned, on the rows that were expected.
    pub expected_ms: f64,
    /// What the fragment itself took, of several that ran as one too.
    pub own_ms: f64,
}

/// A fragment that loaded columns says something of running only if that was this part of its time.
const RAN_SHARE_MIN: f64 = 0.5;

/// The latest.
#[derive(Debug, Default)]
pub(super) struct Ring(VecDeque<Judged>);

impl Ring {
    fn add(&mut self, judged: Judged) {
        if self.0.len() >= JUDGED_MAX {
            self.0.pop_front();
        }
        self.0.push_back(judged);
    }

    fn find(&self, run: u64, fragment: usize) -> Option<Judged> {
        let found = self
            .0
            .iter()
            .rev()
            .find(|judged| judged.run == run && judged.fragment == fragment);
        found.copied()
    }
}

/// A run that can be learned from.
pub(super) struct Lesson {
    pub(super) seen: usize,
    pub(super) bare: Prediction,
    pub(super) own_ms: f64,
}

impl CostModel {
    /// What a fragment was predicted to take, when it could be judged.
    pub fn judged(&self, run: u64, fragment: usize) -> Option<Judged> {
        self.judged.lock().find(run, fragment)
    }

    /// Judges the fragments of a run, before anything is learned of it; those whose time says nothing are left out.
    pub(super) fn judge(
        &self,
        graph: &Graph,
        observed: &[Observed],
        profiles: &[Profile],
        (counted, expected): (&Facts, &Facts),
        library: &Library,
    ) -> Vec<Lesson> {
        let mut lessons = Vec::new();
        let last = graph.fragments.len().saturating_sub(1);
        for (at, seen) in observed.iter().enumerate() {
            let Some(profile) = profiles.iter().find(|profile| profile.id == seen.device) else {
                continue;
            };
            let own_ms = own_ms(observed, at, profile);
            let report = &seen.report;
            if report.compiled > 0 || report.retries > 0 || report.interpreted || own_ms <= 0.0 {
                continue;
            }
            let of = |facts: &Facts| {
                let needs = facts.fragments.get(seen.fragment)?;
                let bytes = needs.source_bytes.max(1.0);
                let around = Surroundings {
                    device_share: 1.0 - (seen.report.uploaded_bytes as f64 / bytes).min(1.0),
                    ..Surroundings::default()
                };
                let mut bare = predict(needs, profile, &around);
                if seen.fragment == last {
                    bare.total_ms += transfer(needs.output_bytes, Some(profile), None).total_ms;
                }
                let corrected = library.corrected(&seen.device, seen.variant, needs, bare);
                Some((bare, corrected.total_ms))
            };
            let (Some((bare, corrected_ms)), Some((_, expected_ms))) = (of(counted), of(expected)) else {
                continue;
            };
            self.judged.lock().add(Judged {
                run: seen.run,
                fragment: seen.fragment,
                bare_ms: bare.total_ms,
                corrected_ms,
                expected_ms,
                own_ms,
            });
            lessons.push(Lesson { seen: at, bare, own_ms });
        }
        lessons
    }
}

/// What a fragment took itself, without loading columns; 0 when that can't be told. Of several that ran as one on a device the last has the time of all, the others that of their
/// kernels: what is neither's, each has an equal part of.
fn own_ms(observed: &[Observed], at: usize, profile: &Profile) -> f64 {
    let seen = &observed[at];
    if profile.is_host() {
        // Meanwhile others may have worked: of what is mostly loading too little is known.
        let ran_ms = seen.ms - seen.report.load_ns as f64 / 1e6;
        return if ran_ms < seen.ms * RAN_SHARE_MIN { 0.0 } else { ran_ms };
    }
    let kernel_ms = |seen: &Observed| seen.report.kernel_ns as f64 / 1e6;
    let load_ms = |seen: &Observed| seen.report.load_ns as f64 / 1e6;
    let together = || observed.iter().filter(|other| other.device == seen.device);
    let kernels_ms: f64 = together().map(kernel_ms).sum();
    if kernels_ms <= 0.0 {
        return (seen.ms - load_ms(seen)).max(0.0);
    }
    // Times of kernels went through whole nanoseconds.
    let lasts = together().filter(|other| other.ms > kernel_ms(other) + 1e-6);
    let rest_ms = (lasts.map(|last| last.ms - load_ms(last)).sum::<f64>() - kernels_ms).max(0.0);
    kernel_ms(seen) + rest_ms / together().count() as f64
}

#[cfg(test)]
mod tests {
    use trireme_costs::catalogue::{catalogue, reference};
    use trireme_device_api::FragmentReport;

    use super::*;

    #[test]
    fn what_no_kernel_took_is_shared_by_an_island() {
        let seen = |fragment: usize, device: &str, ms: f64, kernel_ns: u64| Observed {
            run: 1,
            fragment,
            device: device.to_owned(),
            variant: "fused",
            ms,
            report: FragmentReport {
                kernel_ns,
                ..FragmentReport::default()
            },
        };
        let mut observed = [
            seen(0, "cuda0", 2.0, 2_000_000),
            seen(1, "cpu0", 50.0, 0),
            seen(2, "cuda0", 7.0, 1_000_000),
        ];
        let accelerator = catalogue()
            .unwrap()
            .into_iter()
            .find(|device| !device.is_host())
            .unwrap();
        // 7 ms in all, 3 ms in kernels: 2 ms more each.
        assert!((own_ms(&observed, 0, &accelerator) - 4.0).abs() < 1e-9);
        assert!((own_ms(&observed, 1, &reference()) - 50.0).abs() < 1e-9);
        observed[1].report.load_ns = 20_000_000;
        assert!((own_ms(&observed, 1, &reference()) - 30.0).abs() < 1e-9);
        observed[1].report.load_ns = 30_000_000;
        assert!(own_ms(&observed, 1, &reference()) <= 0.0);
        assert!((own_ms(&observed, 2, &accelerator) - 3.0).abs() < 1e-9);
        // Of the 4 ms that no kernel took, 3 are the host's, which decoded.
        observed[2].report.load_ns = 3_000_000;
        assert!((own_ms(&observed, 0, &accelerator) - 2.5).abs() < 1e-9);
        assert!((own_ms(&observed, 2, &accelerator) - 1.5).abs() < 1e-9);
        // A device that doesn't tell: all is the last one's.
        observed[0].ms = 0.0;
        observed.iter_mut().for_each(|seen| seen.report.kernel_ns = 0);
        assert!((own_ms(&observed, 2, &accelerator) - 4.0).abs() < 1e-9);
    }

    #[test]
    fn the_latest_are_remembered() {
        let mut ring = Ring::default();
        for run in 0..=JUDGED_MAX as u64 {
            ring.add(Judged {
                run,
                fragment: 3,
                bare_ms: 1.0,
                corrected_ms: 1.0,
                expected_ms: 1.0,
                own_ms: run as f64,
            });
        }
        assert_eq!(ring.find(0, 3), None);
        assert!(ring.find(5, 3).is_some_and(|found| (found.own_ms - 5.0).abs() < 1e-9));
        assert_eq!(ring.find(5, 4), None);
    }
}
