//! Devices' profiles: measured through their variants, priced and powered as the configuration says, kept by machine and driver.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use trireme_costs::calibrate::{self, Counters, Effort, POWERCAP, Ran, Runner};
use trireme_costs::{Power, Profile, Provenance};
use trireme_device_api::{
    Device, DeviceError, DeviceInfo, DeviceState, FragmentId, FragmentReport, Graph, Inputs, Kernel, Variant, Vitals,
};

use super::CostModel;
use crate::graph::{GraphKernel, Hooks};
use crate::placement::Placement;
use crate::pool::WorkerPool;

/// Between two looks at a device's power.
const SAMPLE: Duration = Duration::from_millis(20);
/// Of the samples while it is measured, this one counts as working: starts and waits are among them.
const ACTIVE_PERCENT: usize = 90;

/// What the configuration says of devices, by their ids.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Told {
    /// Rent, in USD per hour.
    pub prices: BTreeMap<String, f64>,
    /// Power while working and while waiting.
    pub watts: BTreeMap<String, (f64, f64)>,
    /// Nothing is measured unasked.
    pub unasked_never: bool,
}

impl Told {
    /// A profile with what was told of its device.
    pub(super) fn applied(&self, mut profile: Profile) -> Profile {
        if let Some(price) = self.prices.get(&profile.id) {
            profile.price_usd_per_hour = *price;
        }
        if let Some((active_watts, idle_watts)) = self.watts.get(&profile.id).copied() {
            profile.power = Power {
                active_watts,
                idle_watts,
                provenance: Provenance::Configured,
            };
        }
        profile
    }
}

/// Runs micro-graphs as queries' graphs run: by a pool of as many workers.
struct InPool {
    pool: Arc<WorkerPool>,
    variant: Arc<dyn Variant>,
    /// Fragments run as one, not each by itself.
    is_device: bool,
}

impl InPool {
    fn new(workers: u32, variant: &Arc<dyn Variant>, is_device: bool) -> std::io::Result<Self> {
        Ok(Self {
            pool: WorkerPool::new(workers as usize)?,
            variant: Arc::clone(variant),
            is_device,
        })
    }
}

impl Runner for InPool {
    fn run(&mut self, graph: &Arc<Graph>, inputs: &Inputs) -> Result<Ran, DeviceError> {
        let seen = Arc::new(Mutex::new(Vec::<(FragmentId, Duration, FragmentReport)>::new()));
        let inputs = Inputs {
            workers: self.pool.workers(),
            cancelled: Arc::default(),
            wake: Some(Arc::from(self.pool.waker())),
            ..inputs.clone()
        };
        let placement = match self.is_device {
            true => {
                let at = vec![Some(0); graph.fragments.len()];
                Placement::assigned(graph, &at, std::slice::from_ref(&self.variant), &self.variant)
            }
            false => Placement::single(graph, &self.variant),
        };
        let hooks = Hooks {
            wake: self.pool.waker(),
            took: Box::new({
                let seen = Arc::clone(&seen);
                move |took| seen.lock().push((took.fragment, took.time, took.report))
            }),
            begun: Box::new(|| false),
            steer: None,
        };
        let cancelled = Arc::clone(&inputs.cancelled);
        let kernel = Arc::new(GraphKernel::new(graph, inputs, placement, &self.variant, hooks));
        futures::executor::block_on(self.pool.run(Arc::clone(&kernel) as _, &cancelled))?;
        let began = Instant::now();
        kernel.finish()?;
        let fetched = began.elapsed();
        let mut seen = std::mem::take(&mut *seen.lock());
        seen.sort_by_key(|(fragment, ..)| *fragment);
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let times = || seen.iter().map(|(_, time, _)| ms(*time));
        let kernels = || seen.iter().map(|(.., report)| report.kernel_ns as f64 / 1e6);
        // Of fragments that ran as one the last has the time of all; what no kernel took they share, as runs of queries are judged.
        let whole_ms = match self.is_device {
            true => times().fold(0.0, f64::max) + ms(fetched),
            false => times().sum(),
        };
        let rest_ms = (whole_ms - kernels().sum::<f64>()).max(0.0) / seen.len().max(1) as f64;
        let fragments_ms = match self.is_device {
            true if kernels().sum::<f64>() > 0.0 => kernels().map(|kernel_ms| kernel_ms + rest_ms).collect(),
            true => Vec::new(),
            false => times().collect(),
        };
        Ok(Ran {
            ms: whole_ms,
            fragments_ms,
            reports: seen.into_iter().map(|(.., report)| report).collect(),
        })
    }
}

/// What measuring a device came to.
pub type Measured = Result<Profile, String>;

impl CostModel {
    /// With what the configuration says of devices.
    #[must_use]
    pub fn with_told(mut self, told: Told) -> Self {
        let processor = told.applied(self.processor.read().clone());
        *self.processor.write() = processor;
        self.told = told;
        self
    }

    /// With the processor's variant, by which it is measured too.
    #[must_use]
    pub fn with_host(self, host: Arc<dyn Variant>) -> Self {
        Self {
            host: Some(host),
            ..self
        }
    }

    /// What runs micro-graphs on the processor.
    pub(super) fn host_runner(&self) -> Option<impl Runner> {
        InPool::new(self.machine.workers, self.host.as_ref()?, false).ok()
    }

    /// Whether devices that nobody measured may be measured unasked.
    pub fn measures_unasked(&self) -> bool {
        !self.told.unasked_never
    }

    /// True when the device's rates were measured, with this driver and on this machine.
    pub fn is_device_measured(&self, info: &DeviceInfo) -> bool {
        self.kept(info).is_some()
    }

    /// What devices are in: another one measures them anew.
    fn surroundings(&self) -> String {
        format!("in {}, {} threads", self.machine.name, self.machine.workers)
    }

    /// What the profile of a device must say that it was measured as.
    fn driver_of(&self, info: &DeviceInfo) -> String {
        calibrate::driver_of(info, &self.surroundings())
    }

    /// The device's profile as measured before, if it still holds.
    pub(super) fn kept(&self, info: &DeviceInfo) -> Option<Profile> {
        let driver = self.driver_of(info);
        let holds = |profile: &Profile| profile.holds_for(&info.id, &info.name, &driver);
        if let Some(known) = self.others.read().iter().find(|profile| holds(profile)) {
            return Some(known.clone());
        }
        let read = super::read_profile(self.folder.as_deref()?, &info.id).filter(holds)?;
        let read = self.told.applied(read);
        let mut others = self.others.write();
        others.retain(|other| other.id != read.id);
        others.push(read.clone());
        Some(read)
    }

    /// The rates that placements are made with: the processor's or another device's.
    pub fn profile_in_use(&self, info: &DeviceInfo, vitals: &Vitals) -> Option<Profile> {
        let processor = self.processor.read();
        if processor.id == info.id {
            return Some(processor.clone());
        }
        drop(processor);
        self.profile_of(info, vitals)
    }

    /// Measures a device beside the processor through its variant, and keeps the profile.
    ///
    /// # Errors
    /// What is wrong with the device, or why the profile can't be kept, for people.
    pub fn calibrate_device(&self, device: &Arc<dyn Device>, effort: Effort) -> Measured {
        let info = device.info();
        if let DeviceState::Off(reason) = &info.state {
            return Err(format!("it is off: {reason}"));
        }
        let before = device.vitals();
        let stop = AtomicBool::new(false);
        let seen = Mutex::new(Vec::new());
        let measured = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Acquire) {
                    seen.lock().extend(device.vitals().watts);
                    std::thread::sleep(SAMPLE);
                }
            });
            let measured = match InPool::new(self.machine.workers, &device.variant(), true) {
                Ok(mut runner) => calibrate::accelerator(&info, &before, &mut runner, &self.surroundings(), effort),
                Err(error) => Err(DeviceError::Internal(format!("no workers: {error}"))),
            };
            stop.store(true, Ordering::Release);
            measured
        });
        let mut profile = measured.map_err(|error| error.to_string())?;
        if let Some(power) = power(before.watts, seen.into_inner()) {
            profile.power = power;
        }
        self.set_profile(profile.clone()).map_err(|error| error.to_string())?;
        Ok(self.told.applied(profile))
    }

    /// Measures the processor's power too, where the machine counts it.
    pub(super) fn powered(&self, mut profile: Profile, effort: Effort) -> Profile {
        let each = match effort {
            Effort::Quick => Duration::from_millis(100),
            Effort::Full => Duration::from_secs(1),
        };
        let counters = Counters::open(Path::new(POWERCAP));
        if let Some(power) = counters.and_then(|counters| counters.power(profile.workers, each)) {
            profile.power = power;
        }
        profile
    }
}

/// Power by samples of the device's own.
fn power(idle: Option<f64>, mut seen: Vec<f64>) -> Option<Power> {
    seen.retain(|watts| watts.is_finite() && *watts > 0.0);
    seen.sort_by(f64::total_cmp);
    let active_watts = *seen.get((seen.len() * ACTIVE_PERCENT / 100).min(seen.len().checked_sub(1)?))?;
    let least = *seen.first()?;
    Some(Power {
        active_watts,
        idle_watts: idle.unwrap_or(least).min(active_watts),
        provenance: Provenance::Measured,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(name: &str, driver: &str) -> DeviceInfo {
        DeviceInfo {
            id: "cuda0".to_owned(),
            kind: trireme_device_api::DeviceKind::Gpu,
            name: name.to_owned(),
            state: DeviceState::Ready,
            cores: 40,
            memory_bytes: 1 << 34,
            features: vec![format!("driver {driver}")],
        }
    }

    fn told() -> Told {
        Told {
            prices: BTreeMap::from([("cuda0".to_owned(), 2.5)]),
            watts: BTreeMap::from([("cpu0".to_owned(), (90.0, 30.0))]),
            unasked_never: false,
        }
    }

    #[test]
    fn a_profile_is_kept_for_one_device_driver_and_machine() {
        let folder = std::env::temp_dir().join(format!("trireme-measure-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let processor = DeviceInfo {
            id: "cpu0".to_owned(),
            kind: trireme_device_api::DeviceKind::Cpu,
            ..info("A processor", "")
        };
        let open = || CostModel::open(Some(folder.clone()), &processor, 2, true).with_told(told());
        let model = open();
        let card = info("NVIDIA T4", "550.1");
        assert!(!model.is_device_measured(&card));
        let assumed = model.profile_in_use(&card, &Vitals::default()).unwrap();
        assert_eq!(assumed.provenance, Provenance::Catalogue);
        assert!((assumed.price_usd_per_hour - 2.5).abs() < 1e-9);
        let measured = Profile {
            driver: model.driver_of(&card),
            provenance: Provenance::Measured,
            ..assumed
        };
        model.set_profile(measured).unwrap();
        // Another process finds it; a new driver, another card, and another machine are measured anew.
        assert!(open().is_device_measured(&card));
        assert!(!open().is_device_measured(&info("NVIDIA T4", "560.0")));
        assert!(!open().is_device_measured(&info("NVIDIA L4", "550.1")));
        let larger = CostModel::open(Some(folder.clone()), &processor, 16, true);
        assert!(!larger.is_device_measured(&card));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn configured_power_is_never_called_measured() {
        let processor = DeviceInfo {
            id: "cpu0".to_owned(),
            ..info("A processor", "")
        };
        let model = CostModel::open(None, &processor, 2, true).with_told(told());
        let profile = model.profile_in_use(&processor, &Vitals::default()).unwrap();
        assert_eq!(profile.power.provenance, Provenance::Configured);
        assert!((profile.power.active_watts - 90.0).abs() < 1e-9);
        let untold = CostModel::open(None, &processor, 2, true);
        let profile = untold.profile_in_use(&processor, &Vitals::default()).unwrap();
        assert_eq!(profile.power.provenance, Provenance::Modelled);
    }

    #[test]
    fn power_is_what_was_seen_while_it_worked() {
        assert_eq!(power(Some(5.0), Vec::new()), None);
        let seen = vec![50.0, 60.0, 300.0, 310.0, f64::NAN];
        let power = power(Some(45.0), seen).unwrap();
        assert!((power.active_watts - 310.0).abs() < 1e-9 && (power.idle_watts - 45.0).abs() < 1e-9);
        assert_eq!(power.provenance, Provenance::Measured);
    }
}
