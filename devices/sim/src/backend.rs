//! Simulated devices for the server: a backend whose devices are written in a setting.

use std::sync::Arc;

use trireme_device_api::{Backend, Device, DeviceError, Probed, Variant};
use trireme_device_runtime::{Accelerator, Driver, Limits};

use crate::driver::SimDriver;
use crate::script::Script;

/// Makes a simulated device; the driver is for who wants to look at it.
///
/// # Errors
/// What taking its memory fails with: the script may say so.
pub fn device(
    script: &Script,
    position: usize,
    host: &Arc<dyn Variant>,
    limits: Limits,
) -> Result<(Arc<SimDriver>, Accelerator), DeviceError> {
    let driver = Arc::new(SimDriver::new(script, position));
    let shared: Arc<dyn Driver> = Arc::<SimDriver>::clone(&driver);
    let accelerator = Accelerator::new(shared, Arc::clone(host), limits)?;
    Ok((driver, accelerator))
}

/// Finds the simulated devices that a text describes: a [`Script`] each, with `;` between them. An empty text is none.
pub struct SimBackend {
    scripts: String,
    host: Arc<dyn Variant>,
    limits: Limits,
}

impl SimBackend {
    /// Of these scripts; `host` evaluates what only it can.
    pub fn new(scripts: &str, host: Arc<dyn Variant>, limits: Limits) -> Self {
        Self {
            scripts: scripts.to_owned(),
            host,
            limits,
        }
    }
}

impl Backend for SimBackend {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn probe(&self) -> Probed {
        let mut probed = Probed::default();
        let mut reasons = Vec::new();
        let scripts = self
            .scripts
            .split(';')
            .map(str::trim)
            .filter(|script| !script.is_empty());
        for (position, text) in scripts.enumerate() {
            let made = text
                .parse::<Script>()
                .map_err(|error| error.to_string())
                .and_then(|script| {
                    device(&script, position, &self.host, self.limits.clone()).map_err(|error| error.to_string())
                });
            match made {
                Ok((_, accelerator)) => probed.devices.push(Arc::new(accelerator) as Arc<dyn Device>),
                Err(reason) => reasons.push(format!("sim{position}: {reason}")),
            }
        }
        if self.scripts.trim().is_empty() {
            reasons.push("no simulated devices are described".to_owned());
        }
        probed.absent = (!reasons.is_empty()).then(|| reasons.join("; "));
        probed
    }
}
