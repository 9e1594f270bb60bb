//! The arena, which is one allocation, and pinned slabs.

use std::ffi::c_void;
use std::sync::Arc;

use trireme_device_api::DeviceError;
use trireme_device_runtime::Event;
use trireme_device_runtime::slabs::{Slab, Staging};

use crate::stream::{Context, CudaEvent, Streams};
use crate::sys::Address;

/// `CU_MEMHOSTALLOC_PORTABLE`: pinned for all contexts.
const PORTABLE: u32 = 1;

/// A device's memory; freed on drop.
pub(crate) struct Arena {
    context: Arc<Context>,
    pub(crate) at: Address,
    pub(crate) bytes: u64,
}

impl Arena {
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub(crate) fn allocate(context: &Arc<Context>, bytes: u64) -> Result<Self, DeviceError> {
        let cuda = context.enter()?;
        let mut at: Address = 0;
        // SAFETY: the context is current; a place for an address.
        let code = unsafe { (cuda.allocate)(&raw mut at, size(bytes)) };
        context.health.check(&format!("allocating {bytes} bytes"), code)?;
        Ok(Self {
            context: Arc::clone(context),
            at,
            bytes,
        })
    }

    /// The address of a place.
    ///
    /// # Errors
    /// [`DeviceError::Internal`] when it isn't in the arena.
    pub(crate) fn place(&self, at: u64, bytes: u64) -> Result<Address, DeviceError> {
        match at.checked_add(bytes) {
            Some(end) if end <= self.bytes => Ok(self.at + at),
            _ => Err(DeviceError::Internal(format!(
                "{bytes} bytes at {at} are outside an arena of {} bytes",
                self.bytes
            ))),
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: allocated once; the streams ended before.
        unsafe { (self.context.leave().free)(self.at) };
    }
}

/// A size as the driver takes it.
pub(crate) fn size(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// Pinned host memory; freed on drop.
pub(crate) struct PinnedSlab {
    context: Arc<Context>,
    place: *mut u8,
    bytes: usize,
}

// SAFETY: the memory belongs to the slab alone, and a slab to one caller at a time.
unsafe impl Send for PinnedSlab {}

impl Slab for PinnedSlab {
    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: so many bytes were pinned, and zeroed; the device has read them, since its event was waited for.
        unsafe { std::slice::from_raw_parts_mut(self.place, self.bytes) }
    }
}

impl Drop for PinnedSlab {
    fn drop(&mut self) {
        // SAFETY: pinned once.
        unsafe { (self.context.leave().unpin)(self.place.cast()) };
    }
}

impl Staging for Streams {
    type Slab = PinnedSlab;
    type Mark = CudaEvent;

    fn pin(&self, bytes: usize) -> Result<PinnedSlab, DeviceError> {
        let cuda = self.context.enter()?;
        let mut place: *mut c_void = std::ptr::null_mut();
        // SAFETY: the context is current; a place for a pointer.
        let code = unsafe { (cuda.pin)(&raw mut place, bytes, PORTABLE) };
        self.context.health.check("pinning host memory", code)?;
        // SAFETY: so many bytes were pinned. A slab is given out as bytes, which must have been written.
        unsafe { std::ptr::write_bytes(place.cast::<u8>(), 0, bytes) };
        Ok(PinnedSlab {
            context: Arc::clone(&self.context),
            place: place.cast(),
            bytes,
        })
    }

    fn reached(&self, mark: &CudaEvent) -> Result<bool, DeviceError> {
        mark.done()
    }

    fn wait(&self, mark: &CudaEvent) -> Result<(), DeviceError> {
        mark.wait()
    }
}
