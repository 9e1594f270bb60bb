//! What the executor asks of a driver: one arena of memory, two queues, kernels.
//!
//! All memory is one allocation, the arena; the executor cuts it up and names places by byte offset. Work is put into queues
//! and runs in order within a queue; events order work of one queue after another's. Calls may come from several threads.
//! After a fault that a device doesn't recover from, every call answers [`DeviceError::Device`] and the device stays off.

use std::any::Any;
use std::sync::Arc;

use trireme_device_api::{DeviceError, DeviceInfo, DeviceState, Vitals};
use trireme_device_codegen::Target;
use trireme_device_codegen::ir::Module;

/// A queue of work, which runs in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Queue {
    /// Kernels, fills, and copies that depend on them.
    Compute,
    /// Uploads that run beside kernels.
    Copy,
}

/// A loaded module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModuleId(pub u64);

/// A point in a queue.
pub trait Event: Send + Sync {
    /// Whether the work before it is done.
    ///
    /// # Errors
    /// When the device is lost.
    fn done(&self) -> Result<bool, DeviceError>;

    /// Waits for the work before it.
    ///
    /// # Errors
    /// When the device is lost.
    fn wait(&self) -> Result<(), DeviceError>;

    /// The device's clock at this point, where it tells; once it is done.
    fn time_ns(&self) -> Option<u64> {
        None
    }

    /// The driver's own type, for [`Driver::after`]; drivers that don't tell are waited for.
    fn as_any(&self) -> Option<&dyn Any> {
        None
    }
}

/// What a driver says of its device.
#[derive(Debug, Clone)]
pub struct DriverInfo {
    /// As the server shows it.
    pub device: DeviceInfo,
    /// What kernels are lowered for.
    pub target: Target,
    /// Groups that run at once; launches have no more than a few times as many.
    pub groups: u32,
    /// The largest arena.
    pub arena_bytes_max: u64,
    /// What a compiled module depends on besides its text: compiler, its version by content, options, architecture. Names
    /// cached binaries. None: binaries aren't kept on disk.
    pub identity: Option<String>,
}

/// Fills a piece of an upload: its offset, its bytes.
pub type Writer<'a> = &'a mut (dyn FnMut(u64, &mut [u8]) -> Result<(), DeviceError> + 'a);

/// A driver of one device.
pub trait Driver: Send + Sync {
    /// What the device is.
    fn info(&self) -> &DriverInfo;

    /// Whether it takes work.
    fn state(&self) -> DeviceState;

    /// What the driver measures: watts, utilisation; the executor fills in the rest.
    fn vitals(&self) -> Vitals {
        Vitals::default()
    }

    /// Takes the arena. Called once, before all others.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    fn reserve(&self, bytes: u64) -> Result<(), DeviceError>;

    /// Told of each allocation in the arena, for drivers that check bounds or inject faults.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`]; the allocation is not made.
    fn allocated(&self, at: u64, bytes: u64) -> Result<(), DeviceError> {
        let _ = (at, bytes);
        Ok(())
    }

    /// Told of each allocation's end.
    fn freed(&self, at: u64) {
        let _ = at;
    }

    /// The text that a module is compiled from; its digest names the module in caches.
    fn text(&self, module: &Module) -> String;

    /// Compiles. Takes long; runs nothing on the device.
    ///
    /// # Errors
    /// [`DeviceError::Internal`] with the compiler's words.
    fn compile(&self, module: &Module, text: &str) -> Result<Vec<u8>, DeviceError>;

    /// Loads a compiled module.
    ///
    /// # Errors
    /// When the binary is not one, or memory is short.
    fn load(&self, module: &Module, binary: &[u8]) -> Result<ModuleId, DeviceError>;

    /// Forgets a module.
    fn unload(&self, module: ModuleId);

    /// Copies `bytes` bytes to the arena: `write(offset, slab)` fills them piece by piece, in order. Returns when all are
    /// written, not when all are there.
    ///
    /// # Errors
    /// When the device is lost; what `write` failed with.
    fn upload(&self, queue: Queue, at: u64, bytes: u64, write: Writer<'_>) -> Result<(), DeviceError>;

    /// Copies from the arena, after all work that was queued before; waits.
    ///
    /// # Errors
    /// When the device is lost.
    fn download(&self, queue: Queue, at: u64, into: &mut [u8]) -> Result<(), DeviceError>;

    /// Sets 64-bit words. `at` and `bytes` are multiples of 8.
    ///
    /// # Errors
    /// When the device is lost.
    fn fill(&self, queue: Queue, at: u64, bytes: u64, word: u64) -> Result<(), DeviceError>;

    /// Copies within the arena; the places don't overlap.
    ///
    /// # Errors
    /// When the device is lost.
    fn copy(&self, queue: Queue, from: u64, to: u64, bytes: u64) -> Result<(), DeviceError>;

    /// Starts kernel number `kernel` of a module with `groups` groups and the block at `block`.
    ///
    /// # Errors
    /// When the device is lost.
    fn launch(&self, queue: Queue, module: ModuleId, kernel: usize, groups: u32, block: u64)
    -> Result<(), DeviceError>;

    /// Marks a point.
    ///
    /// # Errors
    /// When the device is lost.
    fn record(&self, queue: Queue) -> Result<Arc<dyn Event>, DeviceError>;

    /// What is put into `queue` from now on runs after the event.
    ///
    /// # Errors
    /// When the device is lost.
    fn after(&self, queue: Queue, event: &Arc<dyn Event>) -> Result<(), DeviceError>;
}
