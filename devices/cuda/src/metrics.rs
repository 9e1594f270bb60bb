//! What NVML measures, where it is there: watts, utilisation, the link to the host.

use std::ffi::CString;
use std::sync::Arc;

use trireme_device_api::Vitals;

use crate::settings::CudaSettings;
use crate::stream::Shared;
use crate::sys::{Handle, Nvml, Utilisation};

/// `NVML_CLOCK_SM` and `NVML_CLOCK_MEM`.
const CLOCKS: [(u32, &str); 2] = [(1, "processors"), (2, "memory")];

/// NVML, opened and initialised.
pub(crate) fn open(settings: &CudaSettings) -> Option<Arc<Nvml>> {
    let nvml = settings.monitors.iter().find_map(|name| Nvml::open(name).ok())?;
    // SAFETY: no arguments; it may be called more than once.
    (unsafe { (nvml.init)() } == 0).then(|| Arc::new(nvml))
}

/// One device of NVML's.
pub(crate) struct Monitor {
    nvml: Arc<Nvml>,
    device: Shared,
}

impl Monitor {
    /// The device at a place of the bus: `00000000:01:00.0`.
    pub(crate) fn of(nvml: &Arc<Nvml>, bus: &str) -> Option<Self> {
        let bus = CString::new(bus).ok()?;
        let mut device: Handle = std::ptr::null_mut();
        // SAFETY: a text that ends with a zero; a place for a handle.
        let code = unsafe { (nvml.device)(bus.as_ptr(), &raw mut device) };
        (code == 0).then(|| Self {
            nvml: Arc::clone(nvml),
            device: Shared(device),
        })
    }

    /// Watts and utilisation.
    pub(crate) fn vitals(&self) -> Vitals {
        let mut utilisation = Utilisation::default();
        // SAFETY: a device of NVML's; a place for its two numbers.
        let code = unsafe { (self.nvml.utilisation)(self.device.0, &raw mut utilisation) };
        Vitals {
            watts: self
                .number(self.nvml.power)
                .map(|milliwatts| f64::from(milliwatts) / 1000.0),
            utilisation: (code == 0).then(|| f64::from(utilisation.gpu) / 100.0),
            ..Vitals::default()
        }
    }

    /// The link to the host and the highest clocks, for people.
    pub(crate) fn features(&self) -> Vec<String> {
        let generation = self.number(self.nvml.link_generation);
        let width = self.number(self.nvml.link_width);
        let link = generation
            .zip(width)
            .map(|(generation, width)| format!("PCIe {generation} x{width}"));
        let clocks = CLOCKS.into_iter().filter_map(|(clock, name)| {
            let mut mhz = 0;
            // SAFETY: a device of NVML's; a place for a number.
            let code = unsafe { (self.nvml.clock)(self.device.0, clock, &raw mut mhz) };
            (code == 0).then(|| format!("{name} {mhz} MHz"))
        });
        link.into_iter().chain(clocks).collect()
    }

    fn number(&self, ask: unsafe extern "C" fn(Handle, *mut u32) -> i32) -> Option<u32> {
        let mut number = 0;
        // SAFETY: a device of NVML's; a place for a number.
        (unsafe { ask(self.device.0, &raw mut number) } == 0).then_some(number)
    }
}
