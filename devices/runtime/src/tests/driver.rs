//! A driver over the interpreter, for tests of the executor itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use trireme_device_api::{DeviceError, DeviceInfo, DeviceKind, DeviceState};
use trireme_device_codegen::Target;
use trireme_device_codegen::interpreter::{Code, Machine, Schedule, Violation};
use trireme_device_codegen::ir::Module;
use trireme_device_codegen::print::{Dialect, print};

use crate::driver::{Driver, DriverInfo, Event, ModuleId, Queue, Writer};

/// Bytes of a slab: small, so that uploads come in pieces.
const SLAB_BYTES: usize = 4096;

/// A device in the interpreter.
pub(crate) struct TestDriver {
    info: DriverInfo,
    pub(crate) machine: Mutex<Machine>,
    modules: Mutex<HashMap<u64, Code>>,
    next: AtomicU64,
    pub(crate) compiled: AtomicUsize,
    pub(crate) launches: AtomicUsize,
    /// The allocation that fails, counted from 0.
    pub(crate) fail_at: AtomicUsize,
    pub(crate) allocations: AtomicUsize,
    /// Nothing is run, and zeros are read: to measure what the host does.
    pub(crate) idle: AtomicBool,
    /// The launch at which the device is lost, counted from 0.
    pub(crate) lost_at: AtomicUsize,
}

struct Done;

impl Event for Done {
    fn done(&self) -> Result<bool, DeviceError> {
        Ok(true)
    }

    fn wait(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}

fn broken(violation: Violation) -> DeviceError {
    DeviceError::Internal(violation.to_string())
}

impl TestDriver {
    pub(crate) fn new(arena_bytes: u64) -> Arc<Self> {
        Self::with_identity(arena_bytes, None)
    }

    pub(crate) fn with_identity(arena_bytes: u64, identity: Option<&str>) -> Arc<Self> {
        Arc::new(Self {
            info: DriverInfo {
                device: DeviceInfo {
                    id: "test0".to_owned(),
                    kind: DeviceKind::Gpu,
                    name: "interpreter".to_owned(),
                    state: DeviceState::Ready,
                    cores: 1,
                    memory_bytes: arena_bytes,
                    features: Vec::new(),
                },
                target: Target {
                    group: 8,
                    items: 2,
                    work_items: 24,
                    local_bytes: 32 << 10,
                    wide: true,
                    large_bytes: None,
                },
                groups: 3,
                arena_bytes_max: arena_bytes,
                identity: identity.map(str::to_owned),
            },
            machine: Mutex::new(Machine::new(usize::try_from(arena_bytes).unwrap())),
            modules: Mutex::default(),
            next: AtomicU64::new(0),
            compiled: AtomicUsize::new(0),
            launches: AtomicUsize::new(0),
            fail_at: AtomicUsize::new(usize::MAX),
            allocations: AtomicUsize::new(0),
            lost_at: AtomicUsize::new(usize::MAX),
            idle: AtomicBool::new(false),
        })
    }
}

impl Driver for TestDriver {
    fn info(&self) -> &DriverInfo {
        &self.info
    }

    fn state(&self) -> DeviceState {
        DeviceState::Ready
    }

    fn reserve(&self, _bytes: u64) -> Result<(), DeviceError> {
        Ok(())
    }

    fn allocated(&self, at: u64, bytes: u64) -> Result<(), DeviceError> {
        if self.idle.load(Ordering::SeqCst) {
            return Ok(());
        }
        if self.allocations.fetch_add(1, Ordering::SeqCst) == self.fail_at.load(Ordering::SeqCst) {
            return Err(DeviceError::OutOfMemory("as the test says".to_owned()));
        }
        self.machine.lock().allocate(at, bytes).map_err(broken)
    }

    fn freed(&self, at: u64) {
        if self.idle.load(Ordering::SeqCst) {
            return;
        }
        self.machine.lock().free(at).unwrap();
    }

    fn text(&self, module: &Module) -> String {
        if self.idle.load(Ordering::SeqCst) {
            return print(module, Dialect::Cuda);
        }
        format!("{module:?}")
    }

    fn compile(&self, _module: &Module, text: &str) -> Result<Vec<u8>, DeviceError> {
        self.compiled.fetch_add(1, Ordering::SeqCst);
        Ok(text.as_bytes()[..text.len().min(100)].to_vec())
    }

    fn load(&self, module: &Module, _binary: &[u8]) -> Result<ModuleId, DeviceError> {
        let id = self.next.fetch_add(1, Ordering::SeqCst);
        self.modules.lock().insert(id, Code::new(module).map_err(broken)?);
        Ok(ModuleId(id))
    }

    fn unload(&self, module: ModuleId) {
        self.modules.lock().remove(&module.0);
    }

    fn upload(&self, _queue: Queue, at: u64, bytes: u64, write: Writer<'_>) -> Result<(), DeviceError> {
        let mut slab = vec![0; SLAB_BYTES];
        let mut offset = 0;
        while offset < bytes {
            let length = SLAB_BYTES.min(usize::try_from(bytes - offset).unwrap());
            write(offset, &mut slab[..length])?;
            if self.idle.load(Ordering::SeqCst) {
                offset += length as u64;
                continue;
            }
            self.machine
                .lock()
                .write(at + offset, &slab[..length])
                .map_err(broken)?;
            offset += length as u64;
        }
        Ok(())
    }

    fn download(&self, _queue: Queue, at: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        if self.idle.load(Ordering::SeqCst) {
            into.fill(0);
            return Ok(());
        }
        let machine = self.machine.lock();
        into.copy_from_slice(machine.read(at, into.len() as u64).map_err(broken)?);
        Ok(())
    }

    fn fill(&self, _queue: Queue, at: u64, bytes: u64, word: u64) -> Result<(), DeviceError> {
        if self.idle.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.machine.lock().fill(at, bytes, word).map_err(broken)
    }

    fn copy(&self, _queue: Queue, from: u64, to: u64, bytes: u64) -> Result<(), DeviceError> {
        if self.idle.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.machine.lock().copy(from, to, bytes).map_err(broken)
    }

    fn launch(
        &self,
        _queue: Queue,
        module: ModuleId,
        kernel: usize,
        groups: u32,
        block: u64,
    ) -> Result<(), DeviceError> {
        let number = self.launches.fetch_add(1, Ordering::SeqCst);
        if number >= self.lost_at.load(Ordering::SeqCst) {
            return Err(DeviceError::Device("lost, as the test says".to_owned()));
        }
        if self.idle.load(Ordering::SeqCst) {
            return Ok(());
        }
        let modules = self.modules.lock();
        let code = modules.get(&module.0).unwrap();
        let mut machine = self.machine.lock();
        machine
            .run(code, kernel, groups, block, &Schedule::sequential())
            .map(drop)
            .map_err(broken)
    }

    fn record(&self, _queue: Queue) -> Result<Arc<dyn Event>, DeviceError> {
        Ok(Arc::new(Done))
    }

    fn after(&self, _queue: Queue, _event: &Arc<dyn Event>) -> Result<(), DeviceError> {
        Ok(())
    }
}
