//! Which tier a fragment runs on: its own compiled kernels, or as data for the kernel that runs any program.
//!
//! ```text
//!  own kernels loaded? ─yes─▶ they run
//!      │ no: compiled in the background
//!      ▼
//!  the runner is there, and sooner than the compiler or faster than the host ─▶ as data, until the next run
//! ```
//!
//! The runner is compiled once per device, in the background when the device is found, and kept on disk as all kernels are.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use trireme_device_api::{DeviceError, DeviceKind};
use trireme_device_codegen::bytecode::{Room, instructions, interpreted, runner};
use trireme_device_codegen::{Groups, Program};

use crate::accelerator::Core;
use crate::background::yields_to_others;
use crate::kernels::Loaded;
use crate::programs::Lowered;
use crate::warming;

/// What runs fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kernels {
    /// As data while their own kernels are compiled, where that is expected to be sooner; then their own kernels.
    Auto,
    /// Their own kernels only.
    #[default]
    Compiled,
    /// As data only: nothing is compiled but the runner.
    Interpreted,
}

/// The part of the arena that registers of work-items may take.
const ROOM_SHARE: u64 = 16;

/// What an instruction takes a work-item, in nanoseconds, before a run has told: rather too much.
const GPU_INSTRUCTION_NS: f64 = 2_000.0;
const CPU_INSTRUCTION_NS: f64 = 50.0;

/// What an instruction's work takes one core of the host, which does it compiled and for many rows at once.
const HOST_INSTRUCTION_NS: f64 = 0.25;

/// What compiling a fragment takes before any was.
const COMPILE_NS: f64 = 300e6;

/// Runs of fewer instructions say nothing of how fast they are.
const MEASURED_WORK: f64 = 1e6;

/// The runner of a device, and what is known of its speed.
#[derive(Default)]
pub(crate) struct Runner {
    loaded: OnceLock<Arc<Loaded>>,
    /// It is being made, or was.
    begun: AtomicBool,
    /// Instructions per nanosecond, as bits; 0 when no run has told.
    rate: AtomicU64,
    /// Fragments that ran as data.
    pub(crate) runs: AtomicU64,
}

impl Core {
    /// Makes the runner in the background, where it may be wanted.
    pub(crate) fn begin_runner(self: &Arc<Self>) {
        if self.limits.kernels == Kernels::Compiled || self.runner.begun.swap(true, Ordering::SeqCst) {
            return;
        }
        let core = Arc::clone(self);
        let work = move || {
            yields_to_others();
            if let Err(error) = core.get_runner() {
                // Runs go on without it.
                core.note(&error);
            }
        };
        // Without a thread there is none, and fragments wait for their own kernels.
        let _ = std::thread::Builder::new().name("compile".to_owned()).spawn(work);
    }

    fn get_runner(&self) -> Result<&Arc<Loaded>, DeviceError> {
        if let Some(loaded) = self.runner.loaded.get() {
            return Ok(loaded);
        }
        let (loaded, _) = self.kernels.get(&runner(self.driver.info().target.group))?;
        Ok(self.runner.loaded.get_or_init(|| loaded))
    }

    fn data_room(&self) -> Room {
        Room {
            bytes: self.arena.bytes() / ROOM_SHARE,
            groups: self.driver.info().groups,
        }
    }

    /// The runner, when a fragment is to run as data now.
    ///
    /// # Errors
    /// Those of the driver, where nothing else may run it.
    pub(crate) fn as_data(&self, lowered: &Lowered) -> Result<Option<Arc<Loaded>>, DeviceError> {
        match self.limits.kernels {
            Kernels::Compiled => Ok(None),
            Kernels::Interpreted => match self.data_of(lowered) {
                Some(_) => self.get_runner().map(|loaded| Some(Arc::clone(loaded))),
                None => Ok(None),
            },
            Kernels::Auto => {
                let wanted = warming::is_cold(self, lowered) && self.is_sooner(lowered);
                Ok(self.runner.loaded.get().filter(|_| wanted).cloned())
            }
        }
    }

    /// Whether all of these can run as data, and faster than the host would run them.
    pub(crate) fn bridges(&self, cold: &[Arc<Lowered>]) -> bool {
        match self.limits.kernels {
            Kernels::Compiled => false,
            Kernels::Interpreted => cold.iter().all(|lowered| self.data_of(lowered).is_some()),
            Kernels::Auto => {
                self.runner.loaded.get().is_some()
                    && self.beats_host()
                    && cold.iter().all(|lowered| self.data_of(lowered).is_some())
            }
        }
    }

    /// The program as data, if it can be.
    fn data_of<'l>(&self, lowered: &'l Lowered) -> Option<&'l Program> {
        let made = || {
            let program = lowered.program.as_ref().ok()?;
            interpreted(program, self.data_room()).ok()
        };
        lowered.data.get_or_init(made).as_ref()
    }

    fn is_sooner(&self, lowered: &Lowered) -> bool {
        if self.runner.loaded.get().is_none() || self.data_of(lowered).is_none() {
            return false;
        }
        self.beats_host() || work(lowered) / self.rate() <= self.kernels.mean_compile_ns().unwrap_or(COMPILE_NS)
    }

    /// Instructions per nanosecond, as runs have told.
    fn measured_rate(&self) -> Option<f64> {
        Some(f64::from_bits(self.runner.rate.load(Ordering::Relaxed))).filter(|rate| *rate > 0.0)
    }

    /// Instructions per nanosecond.
    fn rate(&self) -> f64 {
        let info = self.driver.info();
        self.measured_rate().unwrap_or_else(|| match info.device.kind {
            DeviceKind::Cpu => f64::from(info.device.cores.max(1)) / CPU_INSTRUCTION_NS,
            _ => f64::from(info.groups) * f64::from(info.target.group) / GPU_INSTRUCTION_NS,
        })
    }

    /// As if runs had told so.
    #[cfg(test)]
    pub(crate) fn pretend_rate(&self, rate: f64) {
        self.runner.rate.store(rate.to_bits(), Ordering::Relaxed);
    }

    /// For certain: a guess doesn't take work from the processor. One that is the processor itself never does, however fast
    /// rows that a filter dropped at once made it look.
    fn beats_host(&self) -> bool {
        if self.driver.info().device.kind == DeviceKind::Cpu {
            return false;
        }
        #[expect(clippy::cast_precision_loss, reason = "few processors")]
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        self.measured_rate()
            .is_some_and(|rate| rate > cores / HOST_INSTRUCTION_NS)
    }

    /// Notes how long a fragment took as data.
    pub(crate) fn ran_as_data(&self, lowered: &Lowered, kernel_ns: u64) {
        self.runner.runs.fetch_add(1, Ordering::Relaxed);
        let work = work(lowered);
        if work < MEASURED_WORK || kernel_ns == 0 {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let rate = work / kernel_ns as f64;
        self.runner.rate.store(rate.to_bits(), Ordering::Relaxed);
    }
}

/// Instructions of all rows, about.
fn work(lowered: &Lowered) -> f64 {
    let (Ok(program), Some(Some(data))) = (&lowered.program, lowered.data.get()) else {
        return 0.0;
    };
    let rows = program.launches.iter().map(|launch| match launch.groups {
        Groups::One => 1,
        Groups::Rows(rows) => rows,
    });
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let work = rows.max().unwrap_or(1) as f64 * instructions(data) as f64;
    work
}
