//! CUDA devices: NVIDIA's graphics processors, by the driver and NVRTC alone.
//!
//! What runs fragments on them is `devices/runtime`; this crate is the driver below it, and finds the devices. All that is
//! unsafe is here, behind small safe types. Libraries are opened when they are there: without them there are no devices, and a
//! reason. The compiler works without a driver too, so that kernels can be checked anywhere ([`compile_for`]).
//!
//! ```text
//!  probe ─▶ Found ─▶ CudaDriver { Context, Streams │ arena │ modules │ slabs │ Health │ Monitor }
//!  text ─NVRTC─▶ machine code of the device's architecture ─load─▶ kernels
//! ```
#![deny(missing_docs)]

mod compiler;
mod device;
mod error;
mod memory;
mod metrics;
mod probe;
mod settings;
mod stream;
mod sys;

use std::sync::Arc;

use trireme_device_api::{Backend, Device, Probed, Variant};
use trireme_device_runtime::{Accelerator, Driver};

pub use compiler::{Compiled, Compiler, Usage, compile_for};
pub use device::CudaDriver;
pub use settings::CudaSettings;

/// The drivers of the devices that are there, and why there are none, or not all, for people.
pub fn drivers(settings: &CudaSettings) -> (Vec<Arc<CudaDriver>>, Option<String>) {
    let opened = probe::driver(settings)
        .and_then(|(cuda, version)| Compiler::open(settings, Some(version)).map(|compiler| (cuda, compiler)));
    let (cuda, compiler) = match opened {
        Ok(opened) => opened,
        Err(reason) => return (Vec::new(), Some(reason)),
    };
    let (found, mut refused) = probe::devices(&cuda, &compiler, settings);
    let nvml = metrics::open(settings);
    let mut drivers = Vec::new();
    for device in found {
        match CudaDriver::open(&cuda, nvml.as_ref(), &compiler, device, settings) {
            Ok(driver) => drivers.push(Arc::new(driver)),
            Err(reason) => refused.push(reason),
        }
    }
    (drivers, (!refused.is_empty()).then(|| refused.join("; ")))
}

/// Finds CUDA devices and gives each to the executor that all accelerators share.
pub struct CudaBackend {
    settings: CudaSettings,
    host: Arc<dyn Variant>,
}

impl CudaBackend {
    /// Nothing is looked for yet. `host` evaluates what only it can: expressions over dictionary entries.
    pub fn new(settings: CudaSettings, host: Arc<dyn Variant>) -> Self {
        Self { settings, host }
    }
}

impl Backend for CudaBackend {
    fn name(&self) -> &'static str {
        "cuda"
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
