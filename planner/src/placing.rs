//! On which devices a session lets graphs of fragments run, for what, and within which bounds.
//!
//! What is fixed here holds as long as the plan is kept: names and settings. The devices themselves, and where each fragment
//! goes, are chosen when the graph runs. Where costs don't decide, a graph that scans few rows stays on the processor:
//! starting a device costs more than it saves.

use std::cell::Cell;
use std::sync::Arc;

use datafusion::error::DataFusionError;
use trireme_costs::{CoExecution, Goal, Objective, Pins};
use trireme_device_api::DeviceState;
use trireme_exec::devices::{Allowed, DeviceChoice, DeviceMode, Devices};
use trireme_exec::operators::FileScan;

use crate::options::TriremeOptions;

/// The processor's id, which may stand in a session's list.
const PROCESSOR: &str = "cpu0";

/// What a session's graphs may run on.
pub(crate) struct Candidates {
    /// Of every graph; an error is only told to statements that would run there.
    choice: Result<DeviceChoice, String>,
    pins: Option<Pins>,
    rows_min: f64,
    /// Graphs that were made.
    graphs: Cell<usize>,
}

/// What the session's settings allow.
pub(crate) fn candidates(devices: &Devices, options: &TriremeOptions) -> Candidates {
    let mode = match options.device_mode.as_str() {
        "require" => DeviceMode::Require,
        "verify" => DeviceMode::Verify,
        _ => DeviceMode::Auto,
    };
    let by_cost = options.placement != "rule";
    let allowed = match options.devices.trim() {
        "auto" => Ok(Allowed::Accelerators),
        list => named(devices, list, mode, by_cost && mode == DeviceMode::Auto),
    };
    let pins = match options.pinned.trim() {
        "" => Ok(None),
        text => Pins::parse(text)
            .map(Some)
            .map_err(|reason| format!("trireme.pinned: {reason}")),
    };
    // A session that demands a device, or leaves the choice to costs, has no rule.
    let rows_min = match mode {
        DeviceMode::Auto if !by_cost => devices.rows_min() as f64,
        _ => 0.0,
    };
    let (pins, choice) = match (pins, allowed) {
        (Ok(pins), Ok(allowed)) => {
            let choice = DeviceChoice {
                mode,
                allowed,
                by_cost,
                objective: objective(options),
                resteer: options.resteer,
                inject: options.inject.clone(),
                ..DeviceChoice::default()
            };
            (pins, Ok(choice))
        }
        (Err(error), _) | (_, Err(error)) => (None, Err(error)),
    };
    Candidates {
        choice,
        pins,
        rows_min,
        graphs: Cell::new(0),
    }
}

fn objective(options: &TriremeOptions) -> Objective {
    // 0 is no bound; the settings' values were checked.
    let bound = |text: &str| text.parse::<f64>().ok().filter(|bound| *bound > 0.0);
    Objective {
        max_ms: bound(&options.max_ms),
        max_usd: bound(&options.max_usd),
        max_joules: bound(&options.max_joules),
        co_execution: CoExecution::named(&options.co_execution).unwrap_or_default(),
        ..Objective::of(Goal::named(&options.objective).unwrap_or_default())
    }
}

/// The devices of a list: all of them where costs decide, else the first that is ready.
fn named(devices: &Devices, list: &str, mode: DeviceMode, all: bool) -> Result<Allowed, String> {
    let names: Vec<&str> = list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let unknown = |name: &&&str| **name != PROCESSOR && devices.get(name).is_none();
    if let Some(name) = names.iter().find(unknown) {
        return Err(format!(
            "there is no device \"{name}\", which trireme.devices names; system.devices lists those that are there"
        ));
    }
    if all {
        let others = names.iter().filter(|name| **name != PROCESSOR);
        return Ok(Allowed::Named(others.map(ToString::to_string).collect()));
    }
    let state = |name: &str| devices.get(name).map(|device| device.info().state);
    let ready = |name: &&&str| **name == PROCESSOR || state(name) == Some(DeviceState::Ready);
    if let Some(name) = names.iter().find(ready) {
        return Ok(match *name {
            PROCESSOR => Allowed::Processor,
            name => Allowed::Named(vec![name.to_owned()]),
        });
    }
    match names.first().map(|name| (name, state(name))) {
        // What is to be verified must run, too.
        Some((name, Some(DeviceState::Off(reason)))) if mode != DeviceMode::Auto => Err(format!(
            "device \"{name}\", which trireme.devices demands, is off: {reason}"
        )),
        _ => Ok(Allowed::Processor),
    }
}

impl Candidates {
    /// Where the next graph, which scans these, may run.
    ///
    /// # Errors
    /// When the session names a device that isn't there, or pins what can't be read.
    pub(crate) fn choose(&self, scans: &[FileScan]) -> Result<DeviceChoice, DataFusionError> {
        let mut choice = self.choice.clone().map_err(DataFusionError::Plan)?;
        choice.graph = self.graphs.replace(self.graphs.get() + 1);
        choice.pins = self
            .pins
            .as_ref()
            .and_then(|pins| pins.of_graph(choice.graph))
            .cloned()
            .map(Arc::new);
        let rows: f64 = scans.iter().map(|scan| scan.statistics.rows.unwrap_or(f64::MAX)).sum();
        if rows < self.rows_min {
            choice.allowed = Allowed::Processor;
        }
        Ok(choice)
    }
}
