//! A kernel that many workers step, and of whom the last to leave it hears how it ended.

use std::sync::Arc;

use parking_lot::Mutex;
use trireme_device_api::{DeviceError, Kernel, Progress};

/// See the module.
pub(super) struct Crew {
    kernel: Arc<dyn Kernel>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    inside: usize,
    /// A step said done, or failed.
    closed: bool,
    failed: Option<DeviceError>,
}

/// What a worker hears.
pub(super) enum Stepped {
    Goes(Progress),
    /// Nobody else is inside, and nobody will be: told once.
    Last(Option<DeviceError>),
}

impl Crew {
    pub(super) fn new(kernel: Arc<dyn Kernel>) -> Self {
        Self {
            kernel,
            state: Mutex::default(),
        }
    }

    pub(super) fn kernel(&self) -> &dyn Kernel {
        self.kernel.as_ref()
    }

    pub(super) fn step(&self, worker: usize) -> Stepped {
        {
            let mut state = self.state.lock();
            if state.closed {
                return Stepped::Goes(Progress::Waiting);
            }
            state.inside += 1;
        }
        let result = self.kernel.step(worker);
        let mut state = self.state.lock();
        state.inside -= 1;
        let progress = result.as_ref().map_or(Progress::Done, |progress| *progress);
        state.closed |= progress == Progress::Done;
        if state.failed.is_none() {
            state.failed = result.err();
        }
        if state.closed && state.inside == 0 {
            return Stepped::Last(state.failed.take());
        }
        Stepped::Goes(match progress {
            Progress::Done => Progress::Waiting,
            other => other,
        })
    }
}
