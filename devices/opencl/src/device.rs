//! The driver of one OpenCL device.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use opencl_sys as cl;
use parking_lot::{Mutex, RwLock};
use trireme_device_api::{DeviceError, DeviceState};
use trireme_device_codegen::ir::Module;
use trireme_device_codegen::print::{Dialect, print};
use trireme_device_runtime::slabs::Slabs;
use trireme_device_runtime::{Driver, DriverInfo, Event, ModuleId, Queue, Writer};

use crate::error::Health;
use crate::memory::buffer;
use crate::probe::Found;
use crate::program::{Loaded, Programs};
use crate::settings::OpenClSettings;
use crate::signals::KeptSignals;
use crate::stream::{Commands, OpenClEvent};
use crate::sys::{Api, Object, count, size};

/// Uploads from this size on are written into the memory of a device that shares the host's.
const MAPPED_BYTES_MIN: u64 = 1 << 20;

/// An OpenCL device.
///
/// ```text
///  upload ─▶ slab ─▶ copy queue ───────┐
///                                      ├─▶ arena (one buffer) ◀─ kernels ─ compute queue
///  download ◀─ blocking read ──────────┘
/// ```
pub struct OpenClDriver {
    info: DriverInfo,
    programs: Programs,
    /// The device's memory is the host's.
    host: bool,
    // Dropped in this order: what commands use goes after they are done.
    commands: Commands,
    modules: RwLock<HashMap<ModuleId, Arc<Loaded>>>,
    next_module: AtomicU64,
    slabs: Slabs<Commands>,
    arena: OnceLock<Object>,
    health: Arc<Health>,
}

impl OpenClDriver {
    /// Takes a device.
    ///
    /// # Errors
    /// Why it can't be used, for people.
    pub(crate) fn open(api: &Arc<Api>, found: Found, settings: &OpenClSettings) -> Result<Self, String> {
        let health = Arc::new(Health::new(found.info.id.clone()));
        let commands = Commands::open(api, found.device, &health)
            .map_err(|reason| format!("{} is not used: {reason}", found.info.name))?;
        let options = CString::new(found.options).map_err(|_| "the options hold a zero byte".to_owned())?;
        Ok(Self {
            info: DriverInfo {
                device: found.info,
                target: found.target,
                groups: found.groups,
                arena_bytes_max: found.arena_bytes_max,
                identity: found.binaries.then_some(found.identity),
            },
            programs: Programs::new(options, !found.binaries),
            host: found.host,
            commands,
            modules: RwLock::new(HashMap::new()),
            next_module: AtomicU64::new(0),
            slabs: Slabs::new(settings.slab_bytes, settings.slabs_max),
            arena: OnceLock::new(),
            health,
        })
    }

    /// Host memory pinned for uploads, in bytes.
    pub fn pinned_bytes(&self) -> u64 {
        self.slabs.pinned_bytes()
    }

    /// The arena, of a device that works.
    fn arena(&self) -> Result<&Object, DeviceError> {
        self.health.alive()?;
        self.arena
            .get()
            .ok_or_else(|| DeviceError::Internal("the arena was not reserved".to_owned()))
    }

    /// Writes large uploads where kernels read them, without a copy between.
    fn upload_mapped(&self, queue: Queue, at: u64, bytes: u64, write: Writer<'_>) -> Result<(), DeviceError> {
        let arena = self.arena()?;
        let (api, raw_queue) = (&self.commands.api, self.commands.queue(queue));
        let mut code = 0;
        // SAFETY: the executor keeps `at..at + bytes` inside the arena; the call blocks until the work before is done and
        // the bytes are mapped.
        let place: *mut c_void = unsafe {
            (api.enqueue_map)(
                raw_queue,
                arena.raw(),
                cl::CL_TRUE,
                cl::CL_MAP_WRITE,
                size(at),
                size(bytes),
                0,
                std::ptr::null(),
                std::ptr::null_mut(),
                &raw mut code,
            )
        };
        self.health.check("mapping memory", code)?;
        // SAFETY: so many bytes are mapped, and of nobody else's: the executor allocated them for this upload. They hold
        // what was there before, which bytes may.
        let mapped = unsafe { std::slice::from_raw_parts_mut(place.cast::<u8>(), size(bytes)) };
        let mut offset = 0;
        let mut written = Ok(());
        for piece in mapped.chunks_mut(4 << 20) {
            written = write(offset, piece);
            if written.is_err() {
                break;
            }
            offset += piece.len() as u64;
        }
        // SAFETY: the place was mapped above and is not used from here on.
        let code =
            unsafe { (api.enqueue_unmap)(raw_queue, arena.raw(), place, 0, std::ptr::null(), std::ptr::null_mut()) };
        self.health.check("unmapping memory", code)?;
        self.commands.flush(queue)?;
        written
    }
}

impl Driver for OpenClDriver {
    fn info(&self) -> &DriverInfo {
        &self.info
    }

    fn state(&self) -> DeviceState {
        self.health.state()
    }

    fn reserve(&self, bytes: u64) -> Result<(), DeviceError> {
        self.health.alive()?;
        let Commands { api, context, .. } = &self.commands;
        let arena = buffer(api, context, &self.health, bytes, 0)?;
        self.arena
            .set(arena)
            .map_err(|_| DeviceError::Internal("the arena was reserved twice".to_owned()))
    }

    fn text(&self, module: &Module) -> String {
        print(module, Dialect::OpenCl)
    }

    fn compile(&self, _module: &Module, text: &str) -> Result<Vec<u8>, DeviceError> {
        self.health.alive()?;
        let _signals = KeptSignals::hold();
        self.programs.compile(&self.commands, text)
    }

    fn load(&self, module: &Module, binary: &[u8]) -> Result<ModuleId, DeviceError> {
        self.health.alive()?;
        let _signals = KeptSignals::hold();
        let loaded = self.programs.load(&self.commands, module, binary)?;
        let id = ModuleId(self.next_module.fetch_add(1, Ordering::Relaxed));
        self.modules.write().insert(id, Arc::new(loaded));
        Ok(id)
    }

    fn unload(&self, module: ModuleId) {
        self.modules.write().remove(&module);
    }

    fn upload(&self, queue: Queue, at: u64, bytes: u64, write: Writer<'_>) -> Result<(), DeviceError> {
        if self.host && bytes >= MAPPED_BYTES_MIN {
            return self.upload_mapped(queue, at, bytes, write);
        }
        let arena = self.arena()?;
        self.slabs.stage(&self.commands, bytes, write, &mut |offset, piece| {
            // SAFETY: the slab is given out again only after the event.
            unsafe { self.commands.write(queue, arena, at + offset, piece) }
        })
    }

    fn download(&self, queue: Queue, at: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        let arena = self.arena()?;
        if into.is_empty() {
            return Ok(());
        }
        // SAFETY: the executor keeps the place inside the arena; the call blocks until all bytes are there.
        let code = unsafe {
            (self.commands.api.enqueue_read)(
                self.commands.queue(queue),
                arena.raw(),
                cl::CL_TRUE,
                size(at),
                into.len(),
                into.as_mut_ptr().cast(),
                0,
                std::ptr::null(),
                std::ptr::null_mut(),
            )
        };
        self.health.check("copying from the device", code)
    }

    fn fill(&self, queue: Queue, at: u64, bytes: u64, word: u64) -> Result<(), DeviceError> {
        let arena = self.arena()?;
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the executor keeps the place inside the arena, in multiples of 8; the pattern is copied by the call.
        let code = unsafe {
            (self.commands.api.enqueue_fill)(
                self.commands.queue(queue),
                arena.raw(),
                (&raw const word).cast(),
                size_of::<u64>(),
                size(at),
                size(bytes),
                0,
                std::ptr::null(),
                std::ptr::null_mut(),
            )
        };
        self.health.check("filling memory", code)
    }

    fn copy(&self, queue: Queue, from: u64, to: u64, bytes: u64) -> Result<(), DeviceError> {
        let arena = self.arena()?;
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the executor keeps both places inside the arena and apart.
        let code = unsafe {
            (self.commands.api.enqueue_copy)(
                self.commands.queue(queue),
                arena.raw(),
                arena.raw(),
                size(from),
                size(to),
                size(bytes),
                0,
                std::ptr::null(),
                std::ptr::null_mut(),
            )
        };
        self.health.check("copying in the device", code)
    }

    fn launch(
        &self,
        queue: Queue,
        module: ModuleId,
        kernel: usize,
        groups: u32,
        block: u64,
    ) -> Result<(), DeviceError> {
        let arena = self.arena()?;
        let loaded = self.modules.read().get(&module).cloned();
        let Some((loaded, kernel)) = loaded
            .as_ref()
            .and_then(|loaded| Some((loaded, loaded.kernels.get(kernel)?)))
        else {
            return Err(DeviceError::Internal(
                "a kernel that was not loaded was launched".to_owned(),
            ));
        };
        let (local, global) = (loaded.group as usize, loaded.group as usize * groups.max(1) as usize);
        let kernel: &Mutex<Object> = kernel;
        let kernel = kernel.lock();
        let api = &self.commands.api;
        let arena_raw = arena.raw();
        // SAFETY: kernels take a buffer and a 64-bit number; the lock keeps others from setting arguments between this and
        // the launch, which copies them.
        let code = unsafe {
            let first = (api.set_kernel_arg)(kernel.raw(), 0, size_of::<*mut c_void>(), (&raw const arena_raw).cast());
            let second = (api.set_kernel_arg)(kernel.raw(), 1, size_of::<u64>(), (&raw const block).cast());
            if first == 0 { second } else { first }
        };
        self.health.check("setting a kernel's arguments", code)?;
        // SAFETY: one dimension; sizes and arguments are the kernel's.
        let code = unsafe {
            (api.enqueue_kernel)(
                self.commands.queue(queue),
                kernel.raw(),
                count(1),
                std::ptr::null(),
                &raw const global,
                &raw const local,
                0,
                std::ptr::null(),
                std::ptr::null_mut(),
            )
        };
        self.health.check("launching a kernel", code)?;
        self.commands.flush(queue)
    }

    fn record(&self, queue: Queue) -> Result<Arc<dyn Event>, DeviceError> {
        self.health.alive()?;
        Ok(Arc::new(self.commands.mark(queue)?))
    }

    fn after(&self, queue: Queue, event: &Arc<dyn Event>) -> Result<(), DeviceError> {
        self.health.alive()?;
        match event.as_any().and_then(|any| any.downcast_ref::<OpenClEvent>()) {
            Some(event) => self.commands.after(queue, event),
            None => event.wait(),
        }
    }
}
