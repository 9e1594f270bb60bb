//! What running graphs take of the devices, as far as it was predicted: others wait for it, or share with it.
//!
//! ```text
//!  placed  ──▶ claim: predicted time and memory of each device      what the next placement reckons with
//!  a unit starts ▶ enter ─▶ leave ◀ a unit ends                     what a unit that is about to start would wait for
//!  moved   ──▶ claim anew                                          dropped when the run ends
//! ```
//!
//! Nothing is reserved by that: it is what the next decision reckons with. What runs at this moment is a part of what is claimed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use trireme_costs::Decision;
use trireme_device_api::FragmentId;

/// A run that lasts longer than was predicted is thought to last this part of what it has lasted.
const OVERDUE_SHARE: f64 = 0.1;

/// What one run takes of one device.
struct Part {
    run: u64,
    device: String,
    began: Instant,
    ms: f64,
    bytes: f64,
}

/// A unit that is on a device now.
struct Running {
    run: u64,
    /// Of its unit.
    first: FragmentId,
    device: String,
    until: Instant,
}

/// All runs.
#[derive(Default)]
pub(crate) struct Load {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    parts: Vec<Part>,
    running: Vec<Running>,
    runs: u64,
}

/// What others take of a device.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Taken {
    /// Of each run, what is left of its predicted time.
    pub(crate) left_ms: Vec<f64>,
    /// Memory that they were predicted to need.
    pub(crate) bytes: f64,
}

/// What a run takes, until it is dropped.
pub(crate) struct Claim {
    load: Arc<Load>,
    run: u64,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.end();
    }
}

impl Load {
    /// A run of which nothing is predicted yet.
    pub(crate) fn begin(self: &Arc<Self>) -> Arc<Claim> {
        let mut state = self.state.lock();
        state.runs += 1;
        let run = state.runs;
        drop(state);
        Arc::new(Claim {
            load: Arc::clone(self),
            run,
        })
    }

    /// What is taken of a device.
    pub(crate) fn of(&self, device: &str) -> Taken {
        let state = self.state.lock();
        let mut taken = Taken::default();
        for part in state.parts.iter().filter(|part| part.device == device) {
            taken.left_ms.push(left_ms(part.ms, part.began.elapsed()));
            taken.bytes += part.bytes;
        }
        taken
    }

    /// Graphs that run by a decision.
    pub(crate) fn runs(&self) -> usize {
        let state = self.state.lock();
        let mut runs: Vec<_> = state.parts.iter().map(|part| part.run).collect();
        runs.dedup();
        runs.len()
    }
}

impl Claim {
    /// Claims what a decision predicts of the fragments that are left, in the place of what was claimed before.
    pub(crate) fn take(&self, decision: &Decision, is_left: impl Fn(FragmentId) -> bool) {
        let began = Instant::now();
        let mut parts: Vec<Part> = Vec::new();
        for (candidate, device) in decision.devices.iter().enumerate() {
            let mut part = Part {
                run: self.run,
                device: device.clone(),
                began,
                ms: 0.0,
                bytes: 0.0,
            };
            let mut add = |id: FragmentId, ms: Option<f64>| {
                if let Ok(cost) = &decision.options[id][candidate] {
                    part.ms += ms.unwrap_or(cost.total_ms - cost.queue_ms);
                    part.bytes += cost.memory_bytes;
                }
            };
            let shared = decision.split.as_ref().ok().filter(|split| is_left(split.fragment));
            for (id, at) in decision.chosen.iter().enumerate() {
                if *at == candidate && is_left(id) {
                    let shared = shared.filter(|split| split.fragment == id);
                    add(id, shared.map(|split| split.ms));
                }
            }
            if let Some(split) = shared.filter(|split| split.candidate == candidate) {
                split.builds.iter().for_each(|id| add(*id, None));
                add(split.fragment, Some(split.ms));
            }
            if part.ms > 0.0 || part.bytes > 0.0 {
                parts.push(part);
            }
        }
        let mut state = self.load.state.lock();
        state.parts.retain(|part| part.run != self.run);
        state.parts.extend(parts);
    }

    /// The run ended.
    pub(crate) fn end(&self) {
        let mut state = self.load.state.lock();
        state.parts.retain(|part| part.run != self.run);
        state.running.retain(|running| running.run != self.run);
    }

    /// A unit of this run starts on a device, and is expected to take so long.
    pub(crate) fn enter(&self, first: FragmentId, device: &str, expected_ms: f64) {
        let time = Duration::try_from_secs_f64(expected_ms / 1e3).unwrap_or_default();
        self.load.state.lock().running.push(Running {
            run: self.run,
            first,
            device: device.to_owned(),
            until: Instant::now() + time,
        });
    }

    /// It ended, or failed.
    pub(crate) fn leave(&self, first: FragmentId) {
        let mut state = self.load.state.lock();
        state.running.retain(|each| each.run != self.run || each.first != first);
    }

    /// What is expected to be left of the units of other runs that are on a device now, in milliseconds. One that is overdue
    /// counts nothing.
    pub(crate) fn waiting_ms(&self, device: &str) -> f64 {
        let now = Instant::now();
        let state = self.load.state.lock();
        let others = state.running.iter();
        others
            .filter(|each| each.run != self.run && each.device == device)
            .map(|each| each.until.saturating_duration_since(now).as_secs_f64() * 1e3)
            .sum()
    }
}

fn left_ms(predicted_ms: f64, elapsed: Duration) -> f64 {
    let elapsed_ms = elapsed.as_secs_f64() * 1e3;
    (predicted_ms - elapsed_ms).max(elapsed_ms * OVERDUE_SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_run_is_never_nothing() {
        assert!((left_ms(100.0, Duration::from_millis(40)) - 60.0).abs() < 1e-6);
        assert!((left_ms(100.0, Duration::from_millis(1_000)) - 100.0).abs() < 1e-6);
    }

    #[test]
    fn only_others_on_the_same_device_are_waited_for() {
        let load = Arc::new(Load::default());
        let (one, two) = (load.begin(), load.begin());
        one.enter(0, "opencl0", 60_000.0);
        one.enter(3, "opencl0", 60_000.0);
        two.enter(0, "cuda0", 60_000.0);
        assert!(one.waiting_ms("opencl0") < 1e-9);
        assert!((100_000.0..=120_000.0).contains(&two.waiting_ms("opencl0")));
        one.leave(3);
        assert!((50_000.0..=60_000.0).contains(&two.waiting_ms("opencl0")));
        drop(one);
        assert!(two.waiting_ms("opencl0") < 1e-9);
    }
}
