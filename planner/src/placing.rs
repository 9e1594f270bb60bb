//! On which device a graph of fragments runs, by a plain rule until costs decide.
//!
//! A session names the devices it allows, or allows graphics processors; the first that is there is chosen. Unless a session
//! demands it, a graph that scans few rows stays on the processor: starting a device costs more than it saves.

use datafusion::error::DataFusionError;
use trireme_costs::Goal;
use trireme_device_api::{DeviceKind, DeviceState};
use trireme_exec::devices::{DeviceChoice, DeviceMode, Devices};
use trireme_exec::operators::FileScan;

use crate::options::TriremeOptions;

/// The processor's id, which may stand in a session's list.
const PROCESSOR: &str = "cpu0";

/// The device that a session's graphs may run on.
pub(crate) struct Candidates {
    mode: DeviceMode,
    /// None is the processor; an error is only told to statements that would run there.
    device: Result<Option<String>, String>,
    rows_min: f64,
    by_cost: bool,
    goal: Goal,
}

/// What the session's settings allow.
pub(crate) fn candidates(devices: &Devices, options: &TriremeOptions) -> Candidates {
    let mode = match options.device_mode.as_str() {
        "require" => DeviceMode::Require,
        "verify" => DeviceMode::Verify,
        _ => DeviceMode::Auto,
    };
    let device = match options.devices.trim() {
        "auto" => Ok(graphics_processor(devices, mode)),
        list => first_of(devices, list, mode),
    };
    let rows_min = match mode {
        DeviceMode::Auto => devices.rows_min() as f64,
        _ => 0.0,
    };
    Candidates {
        mode,
        device,
        rows_min,
        by_cost: options.placement != "rule",
        goal: Goal::named(&options.objective).unwrap_or_default(),
    }
}

fn graphics_processor(devices: &Devices, mode: DeviceMode) -> Option<String> {
    // A query that doesn't demand a device doesn't wait until all drivers have started.
    let found = match mode {
        DeviceMode::Auto => devices.known()?,
        _ => devices.wait(),
    };
    let infos = found.devices.iter().map(|device| device.info());
    infos
        .into_iter()
        .find(|info| info.kind == DeviceKind::Gpu && info.state == DeviceState::Ready)
        .map(|info| info.id)
}

fn first_of(devices: &Devices, list: &str, mode: DeviceMode) -> Result<Option<String>, String> {
    let names: Vec<&str> = list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let unknown = |name: &&&str| **name != PROCESSOR && devices.get(name).is_none();
    if let Some(name) = names.iter().find(unknown) {
        return Err(format!(
            "there is no device \"{name}\", which trireme.devices names; system.devices lists those that are there"
        ));
    }
    let state = |name: &str| devices.get(name).map(|device| device.info().state);
    let ready = |name: &&&str| **name == PROCESSOR || state(name) == Some(DeviceState::Ready);
    if let Some(name) = names.iter().find(ready) {
        return Ok(Some((*name).to_owned()).filter(|name| name != PROCESSOR));
    }
    match names.first().map(|name| (name, state(name))) {
        Some((name, Some(DeviceState::Off(reason)))) if mode == DeviceMode::Require => Err(format!(
            "device \"{name}\", which trireme.devices demands, is off: {reason}"
        )),
        _ => Ok(None),
    }
}

impl Candidates {
    /// Where a graph over these scans runs.
    ///
    /// # Errors
    /// When the session names a device that isn't there.
    pub(crate) fn choose(&self, scans: &[FileScan]) -> Result<DeviceChoice, DataFusionError> {
        let device = self.device.clone().map_err(DataFusionError::Plan)?;
        let rows: f64 = scans.iter().map(|scan| scan.statistics.rows.unwrap_or(f64::MAX)).sum();
        Ok(DeviceChoice {
            mode: self.mode,
            device: device.filter(|_| rows >= self.rows_min),
            by_cost: self.by_cost,
            goal: self.goal,
        })
    }
}
