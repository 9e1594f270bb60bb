//! What devices are expected to work on: how long a fragment would wait for one.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use trireme_device_api::FragmentId;

/// Units that run on devices, of all graphs.
#[derive(Default)]
pub(crate) struct Queues {
    running: Mutex<Vec<Running>>,
}

struct Running {
    run: u64,
    /// Of its unit.
    first: FragmentId,
    device: String,
    until: Instant,
}

impl Queues {
    /// A unit of a run starts, and is expected to take so long.
    pub(crate) fn enter(&self, run: u64, first: FragmentId, device: &str, expected_ms: f64) {
        let time = Duration::try_from_secs_f64(expected_ms / 1e3).unwrap_or_default();
        self.running.lock().push(Running {
            run,
            first,
            device: device.to_owned(),
            until: Instant::now() + time,
        });
    }

    /// It ended, or failed.
    pub(crate) fn leave(&self, run: u64, first: FragmentId) {
        self.running
            .lock()
            .retain(|each| each.run != run || each.first != first);
    }

    /// A run ended.
    pub(crate) fn leave_all(&self, run: u64) {
        self.running.lock().retain(|each| each.run != run);
    }

    /// What is expected to be left of the units of other runs, in milliseconds. One that is overdue counts nothing.
    pub(crate) fn waiting_ms(&self, run: u64, device: &str) -> f64 {
        let now = Instant::now();
        let running = self.running.lock();
        let others = running.iter().filter(|each| each.run != run && each.device == device);
        others
            .map(|each| each.until.saturating_duration_since(now).as_secs_f64() * 1e3)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_others_on_the_same_device_are_waited_for() {
        let queues = Queues::default();
        queues.enter(1, 0, "opencl0", 60_000.0);
        queues.enter(1, 3, "opencl0", 60_000.0);
        queues.enter(2, 0, "cuda0", 60_000.0);
        assert!(queues.waiting_ms(1, "opencl0") < 1e-9);
        assert!((100_000.0..=120_000.0).contains(&queues.waiting_ms(2, "opencl0")));
        queues.leave(1, 3);
        assert!((50_000.0..=60_000.0).contains(&queues.waiting_ms(2, "opencl0")));
        queues.leave_all(1);
        assert!(queues.waiting_ms(3, "opencl0") < 1e-9);
    }
}
