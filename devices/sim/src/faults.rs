//! Counts of calls, and which of them fail.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use trireme_device_api::{DeviceError, DeviceState};

use crate::script::{FaultKind, Injection};

/// Kinds of calls of a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Taking the arena.
    Reserve,
    /// An allocation in the arena.
    Allocation,
    /// Compiling a module.
    Compile,
    /// Loading a module.
    Load,
    /// A copy to the device.
    Upload,
    /// A copy from the device.
    Download,
    /// Setting memory.
    Fill,
    /// A copy within the device.
    Copy,
    /// A launch.
    Launch,
    /// An event: made, asked or waited for.
    Event,
}

impl Phase {
    /// All of them.
    pub const ALL: [Phase; 10] = [
        Phase::Reserve,
        Phase::Allocation,
        Phase::Compile,
        Phase::Load,
        Phase::Upload,
        Phase::Download,
        Phase::Fill,
        Phase::Copy,
        Phase::Launch,
        Phase::Event,
    ];

    /// As scripts write it.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Reserve => "reserve",
            Phase::Allocation => "allocation",
            Phase::Compile => "compile",
            Phase::Load => "load",
            Phase::Upload => "upload",
            Phase::Download => "download",
            Phase::Fill => "fill",
            Phase::Copy => "copy",
            Phase::Launch => "launch",
            Phase::Event => "event",
        }
    }

    fn index(self) -> usize {
        Phase::ALL.iter().position(|phase| *phase == self).unwrap_or(0)
    }
}

/// What calls have been made, and what is to fail.
pub(crate) struct Faults {
    injections: Vec<Injection>,
    counts: [AtomicU64; Phase::ALL.len()],
    calls: AtomicU64,
    fired: AtomicBool,
    lost: Mutex<Option<String>>,
}

impl Faults {
    pub(crate) fn new(injections: Vec<Injection>) -> Self {
        Self {
            injections,
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            calls: AtomicU64::new(0),
            fired: AtomicBool::new(false),
            lost: Mutex::default(),
        }
    }

    /// Counts a call, and fails it where the script says so, or when the device is lost.
    pub(crate) fn call(&self, phase: Phase) -> Result<(), DeviceError> {
        let nth = self.counts[phase.index()].fetch_add(1, Ordering::SeqCst) + 1;
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        self.alive()?;
        let due = |injection: &&Injection| match injection.phase {
            Some(wanted) => wanted == phase && injection.is_due(nth),
            None => injection.is_due(call),
        };
        let Some(injection) = self.injections.iter().find(due) else {
            return Ok(());
        };
        self.fired.store(true, Ordering::SeqCst);
        let place = format!("{} {nth}", phase.name());
        match injection.kind {
            FaultKind::OutOfMemory => Err(DeviceError::OutOfMemory(format!(
                "the simulated device has no memory at {place}"
            ))),
            FaultKind::Error => Err(DeviceError::Internal(format!("the simulated driver fails at {place}"))),
            FaultKind::Wrong => Err(DeviceError::Internal(format!(
                "the binary is of another version, at {place}"
            ))),
            FaultKind::Lost => Err(self.lose(format!("the simulated device is lost at {place}"))),
        }
    }

    /// Turns the device off; the first reason stays.
    pub(crate) fn lose(&self, reason: String) -> DeviceError {
        DeviceError::Device(self.lost.lock().get_or_insert(reason).clone())
    }

    pub(crate) fn alive(&self) -> Result<(), DeviceError> {
        match &*self.lost.lock() {
            Some(reason) => Err(DeviceError::Device(reason.clone())),
            None => Ok(()),
        }
    }

    pub(crate) fn state(&self) -> DeviceState {
        match &*self.lost.lock() {
            Some(reason) => DeviceState::Off(reason.clone()),
            None => DeviceState::Ready,
        }
    }

    pub(crate) fn count(&self, phase: Phase) -> u64 {
        self.counts[phase.index()].load(Ordering::SeqCst)
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    pub(crate) fn fired(&self) -> bool {
        self.fired.load(Ordering::SeqCst)
    }
}
