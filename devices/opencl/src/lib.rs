//! OpenCL devices: graphics processors, accelerator cards, and processors through PoCL.
//!
//! What runs fragments on them is `devices/runtime`; this crate is the driver below it, and finds the devices. All that is
//! unsafe is here, behind small safe types. Without OpenCL there are no devices, and a reason.
//!
//! ```text
//!  probe ─▶ Found ─▶ OpenClDriver { Commands: context, two queues │ arena │ modules │ slabs │ Health }
//! ```
#![deny(missing_docs)]

mod device;
mod error;
mod memory;
mod probe;
mod program;
mod settings;
mod signals;
mod stream;
mod sys;

use std::sync::Arc;

use parking_lot::Mutex;
use trireme_device_api::{Backend, Device, Probed, Variant};
use trireme_device_runtime::{Accelerator, Driver};

pub use device::OpenClDriver;
pub use settings::{OpenClSettings, OpenClType};

/// Platforms make themselves ready when they are first asked, some of them (PoCL 3.1) not safely from two threads.
static PROBING: Mutex<()> = Mutex::new(());

/// The drivers of the devices that are there, and why there are none, or not all, for people.
pub fn drivers(settings: &OpenClSettings) -> (Vec<Arc<OpenClDriver>>, Option<String>) {
    let _signals = signals::KeptSignals::hold();
    let api = match sys::Api::open(&settings.libraries) {
        Ok(api) => api,
        Err(reason) => return (Vec::new(), Some(reason)),
    };
    let _probing = PROBING.lock();
    let (found, mut refused) = probe::probe(&api, settings);
    let mut drivers = Vec::new();
    for device in found {
        match OpenClDriver::open(&api, device, settings) {
            Ok(driver) => drivers.push(Arc::new(driver)),
            Err(reason) => refused.push(reason),
        }
    }
    (drivers, (!refused.is_empty()).then(|| refused.join("; ")))
}

/// Finds OpenCL devices and gives each to the executor that all accelerators share.
pub struct OpenClBackend {
    settings: OpenClSettings,
    host: Arc<dyn Variant>,
}

impl OpenClBackend {
    /// Nothing is looked for yet. `host` evaluates what only it can: expressions over dictionary entries.
    pub fn new(settings: OpenClSettings, host: Arc<dyn Variant>) -> Self {
        Self { settings, host }
    }
}

impl Backend for OpenClBackend {
    fn name(&self) -> &'static str {
        "opencl"
    }

    fn probe(&self) -> Probed {
        let (drivers, absent) = drivers(&self.settings);
        let mut refused: Vec<String> = absent.into_iter().collect();
        let mut devices: Vec<Arc<dyn Device>> = Vec::new();
        for driver in drivers {
            let name = driver.info().device.name.clone();
            match Accelerator::new(driver, Arc::clone(&self.host), self.settings.limits.clone()) {
                Ok(device) => devices.push(Arc::new(device)),
                Err(error) => refused.push(format!("{name} is not used: {error}")),
            }
        }
        Probed {
            devices,
            absent: (!refused.is_empty()).then(|| refused.join("; ")),
        }
    }
}
