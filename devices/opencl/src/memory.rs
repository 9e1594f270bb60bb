//! The arena, which is one buffer, and pinned slabs.

use std::ffi::c_void;
use std::sync::Arc;

use opencl_sys as cl;
use trireme_device_api::DeviceError;
use trireme_device_runtime::slabs::{Slab, Staging};

use crate::error::Health;
use crate::stream::{Commands, OpenClEvent};
use crate::sys::{Api, Object, size};

/// A buffer of `bytes` bytes.
///
/// # Errors
/// [`DeviceError::OutOfMemory`].
pub(crate) fn buffer(
    api: &Arc<Api>,
    context: &Object,
    health: &Health,
    bytes: u64,
    flags: cl::cl_mem_flags,
) -> Result<Object, DeviceError> {
    let mut code = 0;
    // SAFETY: no host pointer is passed; the context is alive.
    let raw = unsafe {
        (api.create_buffer)(
            context.raw(),
            cl::CL_MEM_READ_WRITE | flags,
            size(bytes),
            std::ptr::null_mut(),
            &raw mut code,
        )
    };
    match code {
        0 => Ok(Object::new(api, raw, api.release_memory)),
        // A device says so of sizes that it never has.
        cl::CL_INVALID_BUFFER_SIZE | cl::CL_OUT_OF_RESOURCES => Err(DeviceError::OutOfMemory(format!(
            "{bytes} bytes of device memory are not to be had"
        ))),
        code => health.check("allocating a buffer", code).and(Err(DeviceError::Internal(
            "a buffer was not made and no reason given".to_owned(),
        ))),
    }
}

/// Memory that the device's driver pinned: a mapped buffer.
pub(crate) struct PinnedSlab {
    /// Keeps the memory; unmapped by its release.
    _buffer: Object,
    place: *mut u8,
    bytes: usize,
}

// SAFETY: the memory belongs to the slab alone, and a slab to one caller at a time.
unsafe impl Send for PinnedSlab {}

impl Slab for PinnedSlab {
    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping has so many bytes and lives as long as the buffer; nobody else writes there while the slab is
        // with a caller, since its last command has been waited for.
        unsafe { std::slice::from_raw_parts_mut(self.place, self.bytes) }
    }
}

/// Makes slabs for one device.
impl Staging for Commands {
    type Slab = PinnedSlab;
    type Mark = OpenClEvent;

    fn pin(&self, bytes: usize) -> Result<PinnedSlab, DeviceError> {
        let buffer = buffer(
            &self.api,
            &self.context,
            &self.health,
            bytes as u64,
            cl::CL_MEM_ALLOC_HOST_PTR,
        )?;
        let mut code = 0;
        // SAFETY: the buffer has so many bytes; the call blocks until they are mapped.
        let place: *mut c_void = unsafe {
            (self.api.enqueue_map)(
                self.copy.raw(),
                buffer.raw(),
                cl::CL_TRUE,
                cl::CL_MAP_WRITE | cl::CL_MAP_READ,
                0,
                bytes,
                0,
                std::ptr::null(),
                std::ptr::null_mut(),
                &raw mut code,
            )
        };
        self.health.check("pinning host memory", code)?;
        // Never written memory would be undefined to read; a slab is given out as bytes.
        // SAFETY: the mapping has so many bytes.
        unsafe { std::ptr::write_bytes(place.cast::<u8>(), 0, bytes) };
        Ok(PinnedSlab {
            _buffer: buffer,
            place: place.cast(),
            bytes,
        })
    }

    fn reached(&self, mark: &OpenClEvent) -> Result<bool, DeviceError> {
        mark.reached()
    }

    fn wait(&self, mark: &OpenClEvent) -> Result<(), DeviceError> {
        mark.finished()
    }
}
