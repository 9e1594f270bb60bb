//! Simulated devices for tests: a new one for each run, so that a fault of one case never reaches the next.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test uses a part")]

pub mod graphs;

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use trireme_device_api::{
    Cost, Device, DeviceError, FragmentId, Graph, Inputs, Kernel, Output, Support, Variant, Workload,
};
use trireme_device_cpu::FusedVariant;
use trireme_device_runtime::{Accelerator, Encoded, Kernels, Limits, Partition};
use trireme_device_sim::{Script, SimDriver, device};

/// A number of the environment.
pub fn number(name: &str, otherwise: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// A new device.
pub fn simulated(script: &Script) -> (Arc<SimDriver>, Accelerator) {
    let host: Arc<dyn Variant> = Arc::new(FusedVariant::new());
    let limits = Limits {
        encoded: Encoded::On,
        ..Limits::default()
    };
    device(script, 0, &host, limits).unwrap()
}

/// A new device on which rows are put in order before every hash table.
pub fn simulated_in_order(script: &Script) -> (Arc<SimDriver>, Accelerator) {
    let host: Arc<dyn Variant> = Arc::new(FusedVariant::new());
    let limits = Limits {
        partition: Partition::On,
        ..Limits::default()
    };
    device(script, 0, &host, limits).unwrap()
}

/// A new device that runs fragments as data.
pub fn simulated_as_data(script: &Script) -> (Arc<SimDriver>, Accelerator) {
    let host: Arc<dyn Variant> = Arc::new(FusedVariant::new());
    let limits = Limits {
        kernels: Kernels::Interpreted,
        ..Limits::default()
    };
    device(script, 0, &host, limits).unwrap()
}

/// A device and its script's driver.
type Made = Arc<(Arc<SimDriver>, Accelerator)>;

/// A variant that asks for a new device each time that inputs are bound, one for each thread that binds some. The device's seed is drawn from the graph and the
/// script's own, so that a case behaves the same alone.
pub struct Fresh {
    script: Script,
    make: fn(&Script) -> (Arc<SimDriver>, Accelerator),
    current: Mutex<HashMap<ThreadId, Made>>,
    /// Of devices before this one.
    launches: AtomicU64,
}

impl Fresh {
    pub fn new(script: Script) -> Self {
        Self::made_by(script, simulated)
    }

    /// Fragments run as data.
    pub fn as_data(script: Script) -> Self {
        Self::made_by(script, simulated_as_data)
    }

    /// Rows are put in order before every hash table.
    pub fn in_order(script: Script) -> Self {
        Self::made_by(script, simulated_in_order)
    }

    fn made_by(script: Script, make: fn(&Script) -> (Arc<SimDriver>, Accelerator)) -> Self {
        Self {
            script,
            make,
            current: Mutex::default(),
            launches: AtomicU64::new(0),
        }
    }

    fn current(&self) -> Made {
        let mut current = self.current.lock().unwrap();
        let made = || Arc::new((self.make)(&self.script));
        Arc::clone(current.entry(std::thread::current().id()).or_insert_with(made))
    }

    pub fn driver(&self) -> Arc<SimDriver> {
        Arc::clone(&self.current().0)
    }

    /// Kernels that ran, each under a schedule of its own.
    pub fn launches(&self) -> u64 {
        self.launches.load(Ordering::Relaxed) + self.current().1.vitals().launches
    }

    fn variant(&self) -> Arc<dyn Variant> {
        self.current().1.variant()
    }

    fn renew(&self, graph: &Graph) {
        let mut hasher = DefaultHasher::new();
        (format!("{graph:?}"), self.script.seed).hash(&mut hasher);
        let script = Script {
            seed: hasher.finish(),
            ..self.script.clone()
        };
        let made = Arc::new((self.make)(&script));
        let before = self.current.lock().unwrap().insert(std::thread::current().id(), made);
        let launches = before.map_or(0, |before| before.1.vitals().launches);
        self.launches.fetch_add(launches, Ordering::Relaxed);
    }
}

impl Variant for Fresh {
    fn name(&self) -> &'static str {
        "fresh"
    }

    fn device(&self) -> &str {
        "sim0"
    }

    fn support(&self, graph: &Graph, fragment: FragmentId) -> Support {
        self.variant().support(graph, fragment)
    }

    fn estimate(&self, graph: &Graph, fragment: FragmentId, workload: &Workload) -> Cost {
        self.variant().estimate(graph, fragment, workload)
    }

    fn support_bound(&self, graph: &Arc<Graph>, inputs: &Inputs) -> Vec<Support> {
        self.renew(graph);
        self.variant().support_bound(graph, inputs)
    }

    fn prepare_many(
        &self,
        graph: &Arc<Graph>,
        fragments: &[FragmentId],
        inputs: &Inputs,
        outputs: &[Option<Output>],
    ) -> Result<Arc<dyn Kernel>, DeviceError> {
        self.variant().prepare_many(graph, fragments, inputs, outputs)
    }

    fn prepare(
        &self,
        graph: &Arc<Graph>,
        fragment: FragmentId,
        inputs: &Inputs,
        outputs: &[Option<Output>],
    ) -> Result<Arc<dyn Kernel>, DeviceError> {
        self.variant().prepare(graph, fragment, inputs, outputs)
    }
}
