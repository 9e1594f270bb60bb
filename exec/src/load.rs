//! What running graphs take of the devices at this moment, as far as it was predicted: others wait for it, or share with it.
//!
//! A graph that the cost model placed claims its predicted time and memory of each device until it ends. Nothing is reserved by
//! that: it is what the next decision reckons with.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use trireme_costs::Decision;

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

/// All runs.
#[derive(Default)]
pub(crate) struct Load {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    parts: Vec<Part>,
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
        self.load.state.lock().parts.retain(|part| part.run != self.run);
    }
}

impl Load {
    /// Claims what a decision predicts.
    pub(crate) fn claim(self: &Arc<Self>, decision: &Decision) -> Arc<Claim> {
        let began = Instant::now();
        let mut state = self.state.lock();
        state.runs += 1;
        let run = state.runs;
        for (candidate, device) in decision.devices.iter().enumerate() {
            let here = decision.chosen.iter().zip(&decision.options);
            let costs = here.filter(|(at, _)| **at == candidate);
            let costs: Vec<_> = costs.filter_map(|(at, options)| options[*at].as_ref().ok()).collect();
            if costs.is_empty() {
                continue;
            }
            state.parts.push(Part {
                run,
                device: device.clone(),
                began,
                ms: costs.iter().map(|cost| cost.total_ms - cost.queue_ms).sum(),
                bytes: costs.iter().map(|cost| cost.memory_bytes).sum(),
            });
        }
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
}
