//! The driver of one CUDA device.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use trireme_device_api::{DeviceError, DeviceState, Vitals};
use trireme_device_codegen::ir::Module;
use trireme_device_codegen::print::{Dialect, print};
use trireme_device_runtime::slabs::Slabs;
use trireme_device_runtime::{Driver, DriverInfo, Event, ModuleId, Queue, Writer};

use crate::compiler::{Compiler, ELF};
use crate::error::Health;
use crate::memory::{Arena, size};
use crate::metrics::Monitor;
use crate::probe::Found;
use crate::settings::CudaSettings;
use crate::stream::{Context, CudaEvent, Shared, Streams};
use crate::sys::{Cuda, Handle, Nvml};

/// `CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK`.
const THREADS_MAX: i32 = 0;

/// Rows of 8 bytes that one pitched fill sets.
const PITCHED_ROWS_MAX: u64 = 1 << 24;

/// A CUDA device.
///
/// ```text
///  upload ─▶ pinned slab ─▶ copy stream ─────┐
///                                            ├─▶ arena (one allocation) ◀─ kernels ─ compute stream
///  download ◀─ pinned slab ◀─ either stream ─┘
/// ```
pub struct CudaDriver {
    info: DriverInfo,
    architecture: String,
    compiler: Arc<Compiler>,
    monitor: Option<Monitor>,
    // Dropped in this order: streams end before what their work uses goes.
    streams: Streams,
    modules: RwLock<HashMap<ModuleId, Arc<Loaded>>>,
    next_module: AtomicU64,
    slabs: Slabs<Streams>,
    arena: OnceLock<Arena>,
    context: Arc<Context>,
}

/// A module's kernels, in its order; unloaded on drop.
struct Loaded {
    context: Arc<Context>,
    raw: Shared,
    kernels: Vec<Shared>,
    group: u32,
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // SAFETY: loaded once; the executor unloads modules whose launches are done.
        unsafe { (self.context.leave().unload_module)(self.raw.0) };
    }
}

impl CudaDriver {
    /// Takes a device.
    ///
    /// # Errors
    /// Why it can't be used, for people.
    pub(crate) fn open(
        cuda: &Arc<Cuda>,
        nvml: Option<&Arc<Nvml>>,
        compiler: &Arc<Compiler>,
        found: Found,
        settings: &CudaSettings,
    ) -> Result<Self, String> {
        let unused = |error: DeviceError| format!("{} is not used: {error}", found.info.name);
        let health = Arc::new(Health::new(found.info.id.clone(), Some(Arc::clone(cuda))));
        let context = Context::open(cuda, found.ordinal, &health).map_err(unused)?;
        let streams = Streams::open(&context).map_err(unused)?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: the context is current since the streams were made; places for two numbers.
        let code = unsafe { (cuda.memory_info)(&raw mut free, &raw mut total) };
        health.check("asking for free memory", code).map_err(unused)?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share of a memory's size, rounded"
        )]
        let share = (free as f64 * settings.arena_share.clamp(0.0, 1.0)) as u64;
        let monitor = nvml.and_then(|nvml| Monitor::of(nvml, &found.bus));
        let mut device = found.info;
        device.features.extend(monitor.iter().flat_map(Monitor::features));
        Ok(Self {
            info: DriverInfo {
                device,
                target: found.target,
                groups: found.groups,
                arena_bytes_max: settings.arena_bytes_max.unwrap_or(share).min(free as u64) / 256 * 256,
                identity: compiler
                    .identity()
                    .map(|identity| format!("{identity} {}", found.architecture)),
            },
            architecture: found.architecture,
            compiler: Arc::clone(compiler),
            monitor,
            streams,
            modules: RwLock::new(HashMap::new()),
            next_module: AtomicU64::new(0),
            slabs: Slabs::new(settings.slab_bytes, settings.slabs_max),
            arena: OnceLock::new(),
            context,
        })
    }

    /// Host memory pinned for copies, in bytes.
    pub fn pinned_bytes(&self) -> u64 {
        self.slabs.pinned_bytes()
    }

    /// The driver, with the context of this thread, and the arena.
    fn enter(&self) -> Result<(&Cuda, &Arena), DeviceError> {
        let cuda = self.context.enter()?;
        let arena = self.arena.get();
        Ok((
            cuda,
            arena.ok_or_else(|| DeviceError::Internal("the arena was not reserved".to_owned()))?,
        ))
    }

    fn check(&self, what: &str, code: i32) -> Result<(), DeviceError> {
        self.context.health.check(what, code)
    }

    fn kernels(&self, cuda: &Cuda, module: &Module, raw: Handle) -> Result<Vec<Shared>, DeviceError> {
        let mut kernels = Vec::with_capacity(module.kernels.len());
        for kernel in &module.kernels {
            let c_name = CString::new(kernel.name.as_str());
            let c_name = c_name.map_err(|_| DeviceError::Internal(format!("kernel name {:?}", kernel.name)))?;
            let (mut function, mut most): (Handle, _) = (std::ptr::null_mut(), 0);
            // SAFETY: the module is loaded; the name ends with a zero; a place for a handle.
            let code = unsafe { (cuda.function)(&raw mut function, raw, c_name.as_ptr()) };
            self.check("taking a kernel", code)?;
            // SAFETY: the function was just taken; a place for a number.
            let code = unsafe { (cuda.function_attribute)(&raw mut most, THREADS_MAX, function) };
            self.check("asking for a kernel's groups", code)?;
            if u32::try_from(most).unwrap_or(0) < module.group {
                return Err(DeviceError::Unsupported(format!(
                    "kernel {} needs groups of {} work-items and the device runs at most {most} of it",
                    kernel.name, module.group
                )));
            }
            kernels.push(Shared(function));
        }
        Ok(kernels)
    }
}

impl Driver for CudaDriver {
    fn info(&self) -> &DriverInfo {
        &self.info
    }

    fn state(&self) -> DeviceState {
        self.context.health.state()
    }

    fn vitals(&self) -> Vitals {
        self.monitor.as_ref().map(Monitor::vitals).unwrap_or_default()
    }

    fn reserve(&self, bytes: u64) -> Result<(), DeviceError> {
        let arena = Arena::allocate(&self.context, bytes)?;
        self.arena
            .set(arena)
            .map_err(|_| DeviceError::Internal("the arena was reserved twice".to_owned()))
    }

    fn text(&self, module: &Module) -> String {
        print(module, Dialect::Cuda)
    }

    fn compile(&self, _module: &Module, text: &str) -> Result<Vec<u8>, DeviceError> {
        self.compiler
            .compile_for(&self.architecture, text)
            .map(|compiled| compiled.cubin)
    }

    fn load(&self, module: &Module, binary: &[u8]) -> Result<ModuleId, DeviceError> {
        if !binary.starts_with(ELF) {
            return Err(DeviceError::Internal("a binary is no machine code".to_owned()));
        }
        let cuda = self.context.enter()?;
        let mut raw: Handle = std::ptr::null_mut();
        // SAFETY: the context is current; a whole ELF file, whose length its header tells; a place for a handle.
        let code = unsafe { (cuda.load_module)(&raw mut raw, binary.as_ptr().cast()) };
        self.check("loading a module", code)?;
        let mut loaded = Loaded {
            context: Arc::clone(&self.context),
            raw: Shared(raw),
            kernels: Vec::new(),
            group: module.group,
        };
        loaded.kernels = self.kernels(cuda, module, raw)?;
        let id = ModuleId(self.next_module.fetch_add(1, Ordering::Relaxed));
        self.modules.write().insert(id, Arc::new(loaded));
        Ok(id)
    }

    fn unload(&self, module: ModuleId) {
        self.modules.write().remove(&module);
    }

    fn upload(&self, queue: Queue, at: u64, bytes: u64, write: Writer<'_>) -> Result<(), DeviceError> {
        let (cuda, arena) = self.enter()?;
        let to = arena.place(at, bytes)?;
        self.slabs.stage(&self.streams, bytes, write, &mut |offset, piece| {
            let mark = self.streams.event()?;
            // SAFETY: the place is in the arena; the slab is given out again only after the event.
            let code =
                unsafe { (cuda.upload)(to + offset, piece.as_ptr().cast(), piece.len(), self.streams.raw(queue)) };
            self.check("copying to the device", code)?;
            self.streams.record(&mark, queue)?;
            Ok(mark)
        })
    }

    fn download(&self, queue: Queue, at: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        let (cuda, arena) = self.enter()?;
        let from = arena.place(at, into.len() as u64)?;
        self.slabs.fetch(&self.streams, into, &mut |offset, piece| {
            let mark = self.streams.event()?;
            // SAFETY: the place is in the arena; the slab is read and given out again only after the event.
            let code = unsafe {
                (cuda.download)(
                    piece.as_mut_ptr().cast(),
                    from + offset,
                    piece.len(),
                    self.streams.raw(queue),
                )
            };
            self.check("copying from the device", code)?;
            self.streams.record(&mark, queue)?;
            Ok(mark)
        })
    }

    fn fill(&self, queue: Queue, at: u64, bytes: u64, word: u64) -> Result<(), DeviceError> {
        let (cuda, arena) = self.enter()?;
        let (to, stream) = (arena.place(at, bytes)?, self.streams.raw(queue));
        let [b0, b1, b2, b3, b4, b5, b6, b7] = word.to_le_bytes();
        let (low, high) = (
            u32::from_le_bytes([b0, b1, b2, b3]),
            u32::from_le_bytes([b4, b5, b6, b7]),
        );
        let what = "filling memory";
        if bytes == 0 {
            return Ok(());
        }
        if low == high {
            // SAFETY: the place is in the arena and a multiple of 8.
            return self.check(what, unsafe { (cuda.fill_words)(to, low, size(bytes / 4), stream) });
        }
        // Each half by itself, at every 8th byte.
        let mut row = 0;
        while row < bytes / 8 {
            let rows = (bytes / 8 - row).min(PITCHED_ROWS_MAX);
            for (half, place) in [(low, to + row * 8), (high, to + row * 8 + 4)] {
                // SAFETY: so many rows of 8 bytes lie in the arena from here; 4 bytes of each are set.
                self.check(what, unsafe {
                    (cuda.fill_pitched)(place, 8, half, 1, size(rows), stream)
                })?;
            }
            row += rows;
        }
        Ok(())
    }

    fn copy(&self, queue: Queue, from: u64, to: u64, bytes: u64) -> Result<(), DeviceError> {
        let (cuda, arena) = self.enter()?;
        let (from, to) = (arena.place(from, bytes)?, arena.place(to, bytes)?);
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: both places are in the arena; the executor keeps them apart.
        let code = unsafe { (cuda.copy)(to, from, size(bytes), self.streams.raw(queue)) };
        self.check("copying in the device", code)
    }

    fn launch(
        &self,
        queue: Queue,
        module: ModuleId,
        kernel: usize,
        groups: u32,
        block: u64,
    ) -> Result<(), DeviceError> {
        let (cuda, arena) = self.enter()?;
        let loaded = self.modules.read().get(&module).cloned();
        let Some((loaded, kernel)) = loaded
            .as_ref()
            .and_then(|loaded| Some((loaded, loaded.kernels.get(kernel)?)))
        else {
            return Err(DeviceError::Internal(
                "a kernel that was not loaded was launched".to_owned(),
            ));
        };
        let (mut base, mut block) = (arena.at, block);
        let mut arguments: [*mut c_void; 2] = [(&raw mut base).cast(), (&raw mut block).cast()];
        // SAFETY: kernels take an address and a 64-bit number, which the call copies; groups are not larger than asked for.
        let code = unsafe {
            (cuda.launch)(
                kernel.0,
                groups.max(1),
                1,
                1,
                loaded.group,
                1,
                1,
                0,
                self.streams.raw(queue),
                arguments.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        self.check("launching a kernel", code)
    }

    fn record(&self, queue: Queue) -> Result<Arc<dyn Event>, DeviceError> {
        Ok(Arc::new(self.streams.mark(queue)?))
    }

    fn after(&self, queue: Queue, event: &Arc<dyn Event>) -> Result<(), DeviceError> {
        match event.as_any().and_then(|any| any.downcast_ref::<CudaEvent>()) {
            Some(event) => self.streams.after(queue, event),
            None => event.wait(),
        }
    }
}

impl Drop for CudaDriver {
    fn drop(&mut self) {
        for queue in [Queue::Copy, Queue::Compute] {
            // What fails here has failed before, and was told.
            let _ = self.streams.drain(queue);
        }
    }
}
