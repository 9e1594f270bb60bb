//! OpenCL's functions, from the library that is there when the process starts.
//!
//! Nothing links OpenCL: a machine without it lacks a device, not the server. The library stays open for ever, since the
//! threads of its drivers can't be told to end.

use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use libloading::Library;
use opencl_sys::cl_function_types as types;
use opencl_sys::{cl_int, cl_uint};

/// The pointer inside one of the optional ones that `opencl-sys` declares.
pub(crate) trait Present {
    type Function: Copy;
}

impl<F: Copy> Present for Option<F> {
    type Function = F;
}

macro_rules! functions {
    ($($field:ident: $type:ident = $symbol:literal,)*) => {
        /// The functions in use.
        #[allow(missing_docs, reason = "the names say it")]
        pub(crate) struct Api {
            $(pub(crate) $field: <types::$type as Present>::Function,)*
            _library: ManuallyDrop<Library>,
        }

        impl Api {
            fn resolve(name: &str, library: Library) -> Result<Self, String> {
                Ok(Self {
                    $($field: {
                        // SAFETY: the symbol is a function of OpenCL's C interface, whose type this is; the library is
                        // never closed.
                        let found = unsafe { library.get::<<types::$type as Present>::Function>($symbol) };
                        *found.map_err(|_| {
                            format!("{name} has no {}", String::from_utf8_lossy($symbol))
                        })?
                    },)*
                    _library: ManuallyDrop::new(library),
                })
            }
        }
    };
}

functions! {
    get_platform_ids: clGetPlatformIDs_t = b"clGetPlatformIDs",
    get_platform_info: clGetPlatformInfo_t = b"clGetPlatformInfo",
    get_device_ids: clGetDeviceIDs_t = b"clGetDeviceIDs",
    get_device_info: clGetDeviceInfo_t = b"clGetDeviceInfo",
    create_context: clCreateContext_t = b"clCreateContext",
    release_context: clReleaseContext_t = b"clReleaseContext",
    create_queue: clCreateCommandQueue_t = b"clCreateCommandQueue",
    release_queue: clReleaseCommandQueue_t = b"clReleaseCommandQueue",
    create_buffer: clCreateBuffer_t = b"clCreateBuffer",
    release_memory: clReleaseMemObject_t = b"clReleaseMemObject",
    create_program_with_source: clCreateProgramWithSource_t = b"clCreateProgramWithSource",
    create_program_with_binary: clCreateProgramWithBinary_t = b"clCreateProgramWithBinary",
    build_program: clBuildProgram_t = b"clBuildProgram",
    get_program_info: clGetProgramInfo_t = b"clGetProgramInfo",
    get_program_build_info: clGetProgramBuildInfo_t = b"clGetProgramBuildInfo",
    release_program: clReleaseProgram_t = b"clReleaseProgram",
    create_kernel: clCreateKernel_t = b"clCreateKernel",
    set_kernel_arg: clSetKernelArg_t = b"clSetKernelArg",
    get_kernel_work_group_info: clGetKernelWorkGroupInfo_t = b"clGetKernelWorkGroupInfo",
    release_kernel: clReleaseKernel_t = b"clReleaseKernel",
    enqueue_read: clEnqueueReadBuffer_t = b"clEnqueueReadBuffer",
    enqueue_write: clEnqueueWriteBuffer_t = b"clEnqueueWriteBuffer",
    enqueue_fill: clEnqueueFillBuffer_t = b"clEnqueueFillBuffer",
    enqueue_copy: clEnqueueCopyBuffer_t = b"clEnqueueCopyBuffer",
    enqueue_map: clEnqueueMapBuffer_t = b"clEnqueueMapBuffer",
    enqueue_unmap: clEnqueueUnmapMemObject_t = b"clEnqueueUnmapMemObject",
    enqueue_kernel: clEnqueueNDRangeKernel_t = b"clEnqueueNDRangeKernel",
    enqueue_marker: clEnqueueMarkerWithWaitList_t = b"clEnqueueMarkerWithWaitList",
    enqueue_barrier: clEnqueueBarrierWithWaitList_t = b"clEnqueueBarrierWithWaitList",
    flush: clFlush_t = b"clFlush",
    finish: clFinish_t = b"clFinish",
    wait_for_events: clWaitForEvents_t = b"clWaitForEvents",
    get_event_info: clGetEventInfo_t = b"clGetEventInfo",
    get_event_profiling_info: clGetEventProfilingInfo_t = b"clGetEventProfilingInfo",
    release_event: clReleaseEvent_t = b"clReleaseEvent",
}

impl Api {
    /// Opens the first of the libraries that is there.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub(crate) fn open(names: &[String]) -> Result<Arc<Self>, String> {
        for name in names {
            // SAFETY: loading runs the library's initialisers; this is the installed OpenCL loader, which is made for that.
            if let Ok(library) = unsafe { Library::new(name) } {
                return Self::resolve(name, library).map(Arc::new);
            }
        }
        Err(format!("{} was not found", names.join(" or ")))
    }
}

/// A function that gives up an object.
pub(crate) type Release = unsafe extern "C" fn(*mut c_void) -> cl_int;

/// An object of OpenCL, released on drop.
pub(crate) struct Object {
    raw: *mut c_void,
    release: Release,
    _api: Arc<Api>,
}

// SAFETY: OpenCL's functions may be called from all threads with any object, but for `clSetKernelArg`, whose callers hold a
// lock; the pointer is only ever passed to them.
unsafe impl Send for Object {}
// SAFETY: as above.
unsafe impl Sync for Object {}

impl Object {
    /// Owns `raw`, which a function of OpenCL created.
    pub(crate) fn new(api: &Arc<Api>, raw: *mut c_void, release: Release) -> Self {
        Self {
            raw,
            release,
            _api: Arc::clone(api),
        }
    }

    pub(crate) fn raw(&self) -> *mut c_void {
        self.raw
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: the object was created by this library and is released once.
        unsafe { (self.release)(self.raw) };
    }
}

/// The whole of a property of variable length: `ask(capacity, place, length)` is one of the `clGet…Info` functions.
pub(crate) fn bytes_of(ask: impl Fn(usize, *mut c_void, *mut usize) -> cl_int) -> Result<Vec<u8>, cl_int> {
    let mut length = 0;
    match ask(0, std::ptr::null_mut(), &raw mut length) {
        0 => {}
        code => return Err(code),
    }
    let mut bytes = vec![0_u8; length];
    match ask(length, bytes.as_mut_ptr().cast(), std::ptr::null_mut()) {
        0 => Ok(bytes),
        code => Err(code),
    }
}

/// The integers that properties are.
pub(crate) trait Number: Copy + Default {}

impl Number for i32 {}
impl Number for u32 {}
impl Number for u64 {}
impl Number for usize {}

/// A property that is a number.
pub(crate) fn number_of<T: Number>(ask: impl Fn(usize, *mut c_void, *mut usize) -> cl_int) -> Option<T> {
    let mut value = T::default();
    let mut length = 0;
    let code = ask(size_of::<T>(), (&raw mut value).cast(), &raw mut length);
    (code == 0 && length == size_of::<T>()).then_some(value)
}

/// A property that is text.
pub(crate) fn text_of(ask: impl Fn(usize, *mut c_void, *mut usize) -> cl_int) -> String {
    let bytes = bytes_of(ask).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_end_matches('\0').trim().to_owned()
}

/// A count as OpenCL takes it.
pub(crate) fn count(n: usize) -> cl_uint {
    cl_uint::try_from(n).unwrap_or(cl_uint::MAX)
}

/// A size or offset as OpenCL takes it; devices of fewer than 64 bits are refused.
pub(crate) fn size(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
