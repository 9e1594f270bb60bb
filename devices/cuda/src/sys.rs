//! Functions of the CUDA driver, NVRTC and NVML, from the libraries that are there when the process starts.
//!
//! The declarations are NVIDIA's C interfaces', as few as are used. `cudarc` has them all, but panics on a missing library or
//! symbol, looks for NVRTC only where the linker does, and reads result codes as Rust enums, for which a code of a newer driver
//! is undefined behaviour. Libraries stay open for ever, since their threads can't be told to end.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::mem::ManuallyDrop;

use libloading::Library;

macro_rules! library {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $symbol:literal ($($argument:ty),* $(,)?);)* }) => {
        $(#[$doc])*
        pub(crate) struct $name {
            $(pub(crate) $field: unsafe extern "C" fn($($argument),*) -> c_int,)*
            _library: ManuallyDrop<Library>,
        }

        impl $name {
            /// Opens a library by name or path.
            ///
            /// # Errors
            /// Why it can't be used, for people.
            pub(crate) fn open(name: &str) -> Result<Self, String> {
                // SAFETY: loading runs the library's initialisers; these are NVIDIA's, made for that.
                let library = unsafe { Library::new(name) }.map_err(|_| format!("{name} was not found"))?;
                Ok(Self {
                    $($field: {
                        // SAFETY: the symbol is a function of the library's C interface, and this its type; the library
                        // is never closed.
                        let found = unsafe {
                            library.get::<unsafe extern "C" fn($($argument),*) -> c_int>($symbol.as_bytes())
                        };
                        *found.map_err(|_| format!("{name} has no {}", $symbol))?
                    },)*
                    _library: ManuallyDrop::new(library),
                })
            }
        }
    };
}

/// `CUdevice`.
pub(crate) type Ordinal = c_int;
/// `CUcontext`, `CUstream`, `CUevent`, `CUmodule`, `CUfunction`, `nvrtcProgram`, `nvmlDevice_t`.
pub(crate) type Handle = *mut c_void;
/// `CUdeviceptr`.
pub(crate) type Address = u64;

library! {
    /// The driver: all results are `CUresult`.
    Cuda {
        init: "cuInit" (c_uint);
        driver_version: "cuDriverGetVersion" (*mut c_int);
        device_count: "cuDeviceGetCount" (*mut c_int);
        device: "cuDeviceGet" (*mut Ordinal, c_int);
        device_name: "cuDeviceGetName" (*mut c_char, c_int, Ordinal);
        device_memory: "cuDeviceTotalMem_v2" (*mut usize, Ordinal);
        device_attribute: "cuDeviceGetAttribute" (*mut c_int, c_int, Ordinal);
        device_bus: "cuDeviceGetPCIBusId" (*mut c_char, c_int, Ordinal);
        retain_context: "cuDevicePrimaryCtxRetain" (*mut Handle, Ordinal);
        release_context: "cuDevicePrimaryCtxRelease_v2" (Ordinal);
        set_context: "cuCtxSetCurrent" (Handle);
        memory_info: "cuMemGetInfo_v2" (*mut usize, *mut usize);
        allocate: "cuMemAlloc_v2" (*mut Address, usize);
        free: "cuMemFree_v2" (Address);
        pin: "cuMemHostAlloc" (*mut *mut c_void, usize, c_uint);
        unpin: "cuMemFreeHost" (*mut c_void);
        create_stream: "cuStreamCreate" (*mut Handle, c_uint);
        destroy_stream: "cuStreamDestroy_v2" (Handle);
        synchronize: "cuStreamSynchronize" (Handle);
        wait_event: "cuStreamWaitEvent" (Handle, Handle, c_uint);
        create_event: "cuEventCreate" (*mut Handle, c_uint);
        destroy_event: "cuEventDestroy_v2" (Handle);
        record_event: "cuEventRecord" (Handle, Handle);
        query_event: "cuEventQuery" (Handle);
        synchronize_event: "cuEventSynchronize" (Handle);
        elapsed: "cuEventElapsedTime" (*mut f32, Handle, Handle);
        upload: "cuMemcpyHtoDAsync_v2" (Address, *const c_void, usize, Handle);
        download: "cuMemcpyDtoHAsync_v2" (*mut c_void, Address, usize, Handle);
        copy: "cuMemcpyDtoDAsync_v2" (Address, Address, usize, Handle);
        fill_words: "cuMemsetD32Async" (Address, c_uint, usize, Handle);
        fill_pitched: "cuMemsetD2D32Async" (Address, usize, c_uint, usize, usize, Handle);
        load_module: "cuModuleLoadData" (*mut Handle, *const c_void);
        unload_module: "cuModuleUnload" (Handle);
        function: "cuModuleGetFunction" (*mut Handle, Handle, *const c_char);
        function_attribute: "cuFuncGetAttribute" (*mut c_int, c_int, Handle);
        launch: "cuLaunchKernel" (
            Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle, *mut *mut c_void, *mut *mut c_void,
        );
        error_name: "cuGetErrorName" (c_int, *mut *const c_char);
        error_text: "cuGetErrorString" (c_int, *mut *const c_char);
    }
}

library! {
    /// The compiler: all results are `nvrtcResult`.
    Nvrtc {
        version: "nvrtcVersion" (*mut c_int, *mut c_int);
        architecture_count: "nvrtcGetNumSupportedArchs" (*mut c_int);
        architectures: "nvrtcGetSupportedArchs" (*mut c_int);
        create: "nvrtcCreateProgram" (
            *mut Handle, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char,
        );
        compile: "nvrtcCompileProgram" (Handle, c_int, *const *const c_char);
        cubin_bytes: "nvrtcGetCUBINSize" (Handle, *mut usize);
        cubin: "nvrtcGetCUBIN" (Handle, *mut c_char);
        log_bytes: "nvrtcGetProgramLogSize" (Handle, *mut usize);
        log: "nvrtcGetProgramLog" (Handle, *mut c_char);
        destroy: "nvrtcDestroyProgram" (*mut Handle);
    }
}

library! {
    /// The monitor: all results are `nvmlReturn_t`.
    Nvml {
        init: "nvmlInit_v2" ();
        device: "nvmlDeviceGetHandleByPciBusId_v2" (*const c_char, *mut Handle);
        utilisation: "nvmlDeviceGetUtilizationRates" (Handle, *mut Utilisation);
        power: "nvmlDeviceGetPowerUsage" (Handle, *mut c_uint);
        link_generation: "nvmlDeviceGetCurrPcieLinkGeneration" (Handle, *mut c_uint);
        link_width: "nvmlDeviceGetCurrPcieLinkWidth" (Handle, *mut c_uint);
        clock: "nvmlDeviceGetMaxClockInfo" (Handle, c_uint, *mut c_uint);
    }
}

/// `nvmlUtilization_t`: shares of time in percent.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Utilisation {
    /// A kernel ran.
    pub(crate) gpu: c_uint,
    /// Memory was read or written.
    pub(crate) memory: c_uint,
}

/// The text of a buffer that C wrote.
pub(crate) fn text_of(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).trim().to_owned()
}
