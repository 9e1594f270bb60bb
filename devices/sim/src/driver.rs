//! The driver of a simulated device.

use std::any::Any;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use trireme_device_api::{DeviceError, DeviceInfo, DeviceKind, DeviceState};
use trireme_device_codegen::Target;
use trireme_device_codegen::interpreter::{Code, Random, Violation};
use trireme_device_codegen::ir::Module;
use trireme_device_codegen::print::{Dialect, print};
use trireme_device_runtime::{Driver, DriverInfo, Event, ModuleId, Queue, Writer};

use crate::faults::{Faults, Phase};
use crate::queues::{Command, Queues};
use crate::script::Script;

/// What compiled modules begin with.
const BINARY: &[u8] = b"simulated 1\n";

/// A simulated device.
pub struct SimDriver {
    shared: Arc<Shared>,
    script: Script,
    info: DriverInfo,
    modules: Mutex<HashMap<ModuleId, Arc<Code>>>,
    next_module: AtomicU64,
    random: Mutex<Random>,
    peak_bytes: AtomicU64,
}

/// What events see of the device.
struct Shared {
    faults: Faults,
    queues: Mutex<Option<Queues>>,
    violation: Mutex<Option<Violation>>,
}

impl SimDriver {
    /// A device as a script says, called `sim0`, `sim1`, … by its position.
    pub fn new(script: &Script, position: usize) -> Self {
        let info = DriverInfo {
            device: DeviceInfo {
                id: format!("sim{position}"),
                kind: DeviceKind::Gpu,
                name: "simulated device".to_owned(),
                state: DeviceState::Ready,
                cores: script.groups,
                memory_bytes: script.memory_bytes,
                features: vec!["simulated".to_owned()],
            },
            target: Target {
                group: script.group,
                items: script.items,
                work_items: script.groups.saturating_mul(script.group),
                local_bytes: script.local_bytes,
                wide: script.wide,
                large_bytes: script.large_bytes,
            },
            groups: script.groups,
            arena_bytes_max: script.memory_bytes,
            identity: None,
        };
        Self {
            shared: Arc::new(Shared {
                faults: Faults::new(script.injections.clone()),
                queues: Mutex::new(None),
                violation: Mutex::new(None),
            }),
            info,
            modules: Mutex::default(),
            next_module: AtomicU64::new(0),
            random: Mutex::new(Random::new(script.seed ^ 0x0b0a_7e5d)),
            script: script.clone(),
            peak_bytes: AtomicU64::new(0),
        }
    }

    /// Calls of a phase so far.
    pub fn count(&self, phase: Phase) -> u64 {
        self.shared.faults.count(phase)
    }

    /// Calls that are counted, so far.
    pub fn calls(&self) -> u64 {
        self.shared.faults.calls()
    }

    /// Whether a call failed because the script says so.
    pub fn fired(&self) -> bool {
        self.shared.faults.fired()
    }

    /// The rule that was broken first. The device is off from then on.
    pub fn violation(&self) -> Option<Violation> {
        self.shared.violation.lock().clone()
    }

    /// Allocations in the arena at this moment: how many, and their bytes.
    pub fn allocated(&self) -> (usize, u64) {
        let queues = self.shared.queues.lock();
        queues.as_ref().map_or((0, 0), |queues| queues.machine.allocated())
    }

    /// The most bytes that were allocated at once, with what lies between allocations.
    pub fn peak_bytes(&self) -> u64 {
        self.peak_bytes.load(Ordering::SeqCst)
    }

    /// Modules that are loaded at this moment.
    pub fn modules(&self) -> usize {
        self.modules.lock().len()
    }

    /// Launches that have run.
    pub fn launches(&self) -> u64 {
        self.shared.queues.lock().as_ref().map_or(0, Queues::launches)
    }

    /// Counts a call, takes its time, fails it if the script says so.
    fn call(&self, phase: Phase) -> Result<(), DeviceError> {
        if !self.script.slow.is_zero() {
            std::thread::sleep(self.script.slow);
        }
        self.shared.faults.call(phase)
    }

    fn queue(&self, phase: Phase, queue: Queue, command: Command) -> Result<(), DeviceError> {
        self.call(phase)?;
        self.shared.with(|queues| queues.queue(queue, command))
    }
}

impl Shared {
    /// Works on the device; what breaks a rule turns it off.
    fn with<T>(&self, work: impl FnOnce(&mut Queues) -> Result<T, Violation>) -> Result<T, DeviceError> {
        let mut queues = self.queues.lock();
        self.faults.alive()?;
        let Some(queues) = queues.as_mut() else {
            return Err(DeviceError::Internal("the arena was not reserved".to_owned()));
        };
        work(queues).map_err(|violation| {
            let reason = format!("a rule was broken: {violation}");
            self.violation.lock().get_or_insert(violation);
            self.faults.lose(reason)
        })
    }
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Writes what a CUDA device would compile, under the name of its first kernel and a digest.
fn write_text(folder: &Path, module: &Module) -> Result<(), DeviceError> {
    let text = print(module, Dialect::Cuda);
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let kernel = module.kernels.first().map_or("none", |kernel| kernel.name.as_str());
    let path = folder.join(format!("{kernel}-{:016x}.cu", hasher.finish()));
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&path, text))
        .map_err(|error| DeviceError::Internal(format!("{}: {error}", path.display())))
}

impl Driver for SimDriver {
    fn info(&self) -> &DriverInfo {
        &self.info
    }

    fn state(&self) -> DeviceState {
        self.shared.faults.state()
    }

    fn reserve(&self, bytes: u64) -> Result<(), DeviceError> {
        self.call(Phase::Reserve)?;
        if bytes > self.script.memory_bytes {
            return Err(DeviceError::OutOfMemory(format!(
                "the simulated device has {} bytes, not {bytes}",
                self.script.memory_bytes
            )));
        }
        let mut queues = self.shared.queues.lock();
        if queues.is_some() {
            return Err(DeviceError::Internal("the arena is reserved once".to_owned()));
        }
        *queues = Some(Queues::new(size(bytes), &self.script));
        Ok(())
    }

    fn allocated(&self, at: u64, bytes: u64) -> Result<(), DeviceError> {
        self.call(Phase::Allocation)?;
        self.shared.with(|queues| queues.machine.allocate(at, bytes))?;
        self.peak_bytes.fetch_max(at + bytes, Ordering::SeqCst);
        Ok(())
    }

    fn freed(&self, at: u64) {
        let mut queues = self.shared.queues.lock();
        let Some(queues) = queues.as_mut() else {
            return;
        };
        if let Err(violation) = queues.machine.free(at) {
            self.shared.faults.lose(format!("a rule was broken: {violation}"));
            self.shared.violation.lock().get_or_insert(violation);
        }
    }

    fn text(&self, module: &Module) -> String {
        format!("{module:?}")
    }

    fn compile(&self, module: &Module, text: &str) -> Result<Vec<u8>, DeviceError> {
        self.call(Phase::Compile)?;
        if let Some(folder) = &self.script.texts {
            write_text(folder, module)?;
        }
        Ok([BINARY, text.as_bytes()].concat())
    }

    fn load(&self, module: &Module, binary: &[u8]) -> Result<ModuleId, DeviceError> {
        self.call(Phase::Load)?;
        if binary.strip_prefix(BINARY) != Some(self.text(module).as_bytes()) {
            return Err(DeviceError::Internal("the binary is none of this module".to_owned()));
        }
        let code = Code::new(module).map_err(|violation| {
            let reason = violation.to_string();
            self.shared.violation.lock().get_or_insert(violation);
            DeviceError::Internal(reason)
        })?;
        let id = ModuleId(self.next_module.fetch_add(1, Ordering::SeqCst));
        self.modules.lock().insert(id, Arc::new(code));
        Ok(id)
    }

    fn unload(&self, module: ModuleId) {
        self.modules.lock().remove(&module);
    }

    fn upload(&self, queue: Queue, at: u64, bytes: u64, write: Writer<'_>) -> Result<(), DeviceError> {
        self.call(Phase::Upload)?;
        let mut content = vec![0; size(bytes)];
        let mut offset = 0;
        while offset < content.len() {
            let left = content.len() - offset;
            // Pieces of any size, so that writers don't count on one.
            let (kind, few) = {
                let mut random = self.random.lock();
                (random.below(3), 16 * (1 + random.below(64)))
            };
            let piece = left.min([left, 4096, few][kind]);
            write(offset as u64, &mut content[offset..offset + piece])?;
            offset += piece;
        }
        let command = Command::Upload { at, bytes: content };
        self.shared.with(|queues| queues.queue(queue, command))
    }

    fn download(&self, queue: Queue, at: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        self.call(Phase::Download)?;
        self.shared.with(|queues| {
            queues.finish(queue, queues.queued(queue))?;
            into.copy_from_slice(queues.machine.read(at, into.len() as u64)?);
            Ok(())
        })
    }

    fn fill(&self, queue: Queue, at: u64, bytes: u64, word: u64) -> Result<(), DeviceError> {
        self.queue(Phase::Fill, queue, Command::Fill { at, bytes, word })
    }

    fn copy(&self, queue: Queue, from: u64, to: u64, bytes: u64) -> Result<(), DeviceError> {
        self.queue(Phase::Copy, queue, Command::Copy { from, to, bytes })
    }

    fn launch(
        &self,
        queue: Queue,
        module: ModuleId,
        kernel: usize,
        groups: u32,
        block: u64,
    ) -> Result<(), DeviceError> {
        let code = self.modules.lock().get(&module).cloned();
        let code = code.ok_or_else(|| DeviceError::Internal("a module that is not loaded".to_owned()))?;
        if !self.script.run {
            return self.call(Phase::Launch);
        }
        let command = Command::Launch {
            code,
            kernel,
            groups,
            block,
        };
        self.queue(Phase::Launch, queue, command)
    }

    fn record(&self, queue: Queue) -> Result<Arc<dyn Event>, DeviceError> {
        self.call(Phase::Event)?;
        let count = self.shared.with(|queues| Ok(queues.queued(queue)))?;
        Ok(Arc::new(SimEvent {
            shared: Arc::clone(&self.shared),
            queue,
            count,
        }))
    }

    fn after(&self, queue: Queue, event: &Arc<dyn Event>) -> Result<(), DeviceError> {
        match event.as_any().and_then(|any| any.downcast_ref::<SimEvent>()) {
            Some(event) => self.queue(Phase::Event, queue, Command::After(event.queue, event.count)),
            None => event.wait(),
        }
    }
}

/// So many commands of a queue.
struct SimEvent {
    shared: Arc<Shared>,
    queue: Queue,
    count: u64,
}

impl Event for SimEvent {
    fn done(&self) -> Result<bool, DeviceError> {
        self.shared.faults.call(Phase::Event)?;
        self.shared.with(|queues| {
            let done = queues.is_done(self.queue, self.count);
            if !done {
                queues.progress(self.queue)?;
            }
            Ok(done)
        })
    }

    fn wait(&self) -> Result<(), DeviceError> {
        self.shared.faults.call(Phase::Event)?;
        self.shared.with(|queues| queues.finish(self.queue, self.count))
    }

    fn time_ns(&self) -> Option<u64> {
        let queues = self.shared.queues.lock();
        let queues = queues.as_ref()?;
        queues.is_done(self.queue, self.count).then(|| queues.clock_ns())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}
