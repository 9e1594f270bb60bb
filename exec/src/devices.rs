//! The devices beside the processor, and which of them a graph was placed on.
//!
//! They are found in the background: some drivers take long to start, and most queries need none of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use trireme_costs::{Objective, PinnedGraph};
use trireme_device_api::{Backend, Device};

/// What the backends found.
#[derive(Default)]
pub struct Found {
    /// Devices, in the backends' order.
    pub devices: Vec<Arc<dyn Device>>,
    /// Backends without a device, and why.
    pub absent: Vec<(&'static str, String)>,
}

/// The devices beside the processor.
#[derive(Clone, Default)]
pub struct Devices {
    found: Arc<OnceLock<Found>>,
    rows_min: u64,
}

impl Devices {
    /// None at all.
    pub fn none() -> Self {
        let devices = Self::default();
        // It is empty: this is the first value.
        let _ = devices.found.set(Found::default());
        devices
    }

    /// Asks the backends, on a thread of its own. Graphs that scan less than `rows_min` rows stay on the processor.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn probe(backends: Vec<Box<dyn Backend>>, rows_min: u64) -> std::io::Result<Self> {
        let devices = Self {
            rows_min,
            ..Self::default()
        };
        let found = Arc::clone(&devices.found);
        std::thread::Builder::new().name("probe".to_owned()).spawn(move || {
            let mut all = Found::default();
            for backend in backends {
                // A driver's library may do anything when it is loaded.
                match catch_unwind(AssertUnwindSafe(|| backend.probe())) {
                    Ok(probed) => {
                        all.devices.extend(probed.devices);
                        all.absent.extend(probed.absent.map(|reason| (backend.name(), reason)));
                    }
                    Err(_) => all
                        .absent
                        .push((backend.name(), "its driver failed when it was started".to_owned())),
                }
            }
            // Nobody else sets it.
            let _ = found.set(all);
        })?;
        Ok(devices)
    }

    /// Fewer scanned rows are not worth a device, unless a session demands it.
    pub fn rows_min(&self) -> u64 {
        self.rows_min
    }

    /// What was found, if the search is over.
    pub fn known(&self) -> Option<&Found> {
        self.found.get()
    }

    /// What was found; waits for the search.
    pub fn wait(&self) -> &Found {
        self.found.wait()
    }

    /// A device by its id; waits for the search.
    pub fn get(&self, id: &str) -> Option<&Arc<dyn Device>> {
        self.wait().devices.iter().find(|device| device.info().id == id)
    }
}

/// What happens with a graph that was placed on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceMode {
    /// What the device can't do the processor does, and what fails falls back.
    #[default]
    Auto,
    /// A failure of what the device said it can do fails the query.
    Require,
    /// The processor runs it too, and the rows are compared.
    Verify,
}

/// The devices that a graph may run on beside the processor.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Allowed {
    /// None.
    #[default]
    Processor,
    /// Graphics processors and accelerators that are there.
    Accelerators,
    /// These, as far as they are there.
    Named(Vec<String>),
}

/// What decides where a graph runs, when it runs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DeviceChoice {
    /// What happens when it can't or doesn't run there.
    pub mode: DeviceMode,
    /// Where it may run.
    pub allowed: Allowed,
    /// The cost model decides fragment by fragment; else the first device takes all that it can.
    pub by_cost: bool,
    /// What is to be small, and within which bounds.
    pub objective: Objective,
    /// The fragments' devices, where a user demands them.
    pub pins: Option<Arc<PinnedGraph>>,
    /// The graph's number in its statement's plan.
    pub graph: usize,
    /// What has not started may go elsewhere while the graph runs.
    pub resteer: bool,
    /// What is planted: see [`crate::steer::inject`].
    pub inject: String,
}
