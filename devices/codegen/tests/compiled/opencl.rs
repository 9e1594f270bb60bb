//! An OpenCL device, where the machine has one: text in, kernels run over an arena that is copied there and back.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::ptr;
use std::sync::LazyLock;

use libloading::{Library, Symbol};

type Handle = *mut c_void;

const DEVICE_TYPE_ALL: u64 = 0xffff_ffff;
const PROGRAM_BUILD_LOG: c_uint = 0x1183;
const MEM_COPY_HOST_PTR: u64 = 1 << 5;

/// The first device of the first platform.
pub(crate) struct OpenCl {
    library: Library,
    device: Handle,
    context: Handle,
    queue: Handle,
}

// SAFETY: OpenCL's calls may come from any thread, except clSetKernelArg of one kernel, which `run` makes and keeps for itself.
unsafe impl Send for OpenCl {}
// SAFETY: as above.
unsafe impl Sync for OpenCl {}

/// A built program.
pub(crate) struct Program {
    handle: Handle,
}

macro_rules! call {
    ($self:expr, $name:literal ($($type:ty: $value:expr),* $(,)?) -> $result:ty) => {{
        let function: Symbol<'_, unsafe extern "C" fn($($type),*) -> $result> = $self.library.get($name).expect($name);
        function($($value),*)
    }};
}

impl OpenCl {
    /// The device; none, with a word about it, where there is none.
    pub(crate) fn get() -> Option<&'static Self> {
        static OPENCL: LazyLock<Option<OpenCl>> = LazyLock::new(|| {
            let opencl = OpenCl::open();
            if opencl.is_none() {
                eprintln!("skipped: no OpenCL device found");
            }
            opencl
        });
        OPENCL.as_ref()
    }

    fn open() -> Option<Self> {
        let names = ["libOpenCL.so.1", "libOpenCL.so"];
        // SAFETY: loading the library runs its initialisers, which look for platforms.
        let library = names.into_iter().find_map(|name| unsafe { Library::new(name) }.ok())?;
        let mut opencl = Self {
            library,
            device: ptr::null_mut(),
            context: ptr::null_mut(),
            queue: ptr::null_mut(),
        };
        let (mut platform, mut error): (Handle, c_int) = (ptr::null_mut(), 0);
        // SAFETY: signatures are those of cl.h; results are written into variables that live long enough.
        unsafe {
            let code = call!(opencl, "clGetPlatformIDs"(c_uint: 1, *mut Handle: &raw mut platform, *mut c_uint: ptr::null_mut()) -> c_int);
            if code != 0 {
                return None;
            }
            let device = &raw mut opencl.device;
            let code = call!(opencl, "clGetDeviceIDs"(Handle: platform, u64: DEVICE_TYPE_ALL, c_uint: 1, *mut Handle: device, *mut c_uint: ptr::null_mut()) -> c_int);
            if code != 0 {
                return None;
            }
            opencl.context = call!(opencl, "clCreateContext"(*const c_void: ptr::null(), c_uint: 1, *const Handle: &raw const opencl.device, *const c_void: ptr::null(), *const c_void: ptr::null(), *mut c_int: &raw mut error) -> Handle);
            opencl.queue = call!(opencl, "clCreateCommandQueueWithProperties"(Handle: opencl.context, Handle: opencl.device, *const c_void: ptr::null(), *mut c_int: &raw mut error) -> Handle);
        }
        (error == 0).then_some(opencl)
    }

    /// Compiles.
    ///
    /// # Errors
    /// The compiler's words.
    pub(crate) fn build(&self, text: &str, options: &str) -> Result<Program, String> {
        let (text, options) = (
            CString::new(text).expect("text"),
            CString::new(options).expect("options"),
        );
        let (text, mut error, mut len) = (text.as_ptr(), 0, 0_usize);
        // SAFETY: signatures are those of cl.h; strings outlive the calls; the log's buffer has the length asked for.
        unsafe {
            let handle = call!(self, "clCreateProgramWithSource"(Handle: self.context, c_uint: 1, *const *const c_char: &raw const text, *const usize: ptr::null(), *mut c_int: &raw mut error) -> Handle);
            assert_eq!(error, 0, "clCreateProgramWithSource");
            let code = call!(self, "clBuildProgram"(Handle: handle, c_uint: 1, *const Handle: &raw const self.device, *const c_char: options.as_ptr(), *const c_void: ptr::null(), *const c_void: ptr::null()) -> c_int);
            if code == 0 {
                return Ok(Program { handle });
            }
            call!(self, "clGetProgramBuildInfo"(Handle: handle, Handle: self.device, c_uint: PROGRAM_BUILD_LOG, usize: 0, *mut u8: ptr::null_mut(), *mut usize: &raw mut len) -> c_int);
            let mut log = vec![0; len];
            call!(self, "clGetProgramBuildInfo"(Handle: handle, Handle: self.device, c_uint: PROGRAM_BUILD_LOG, usize: len, *mut u8: log.as_mut_ptr(), *mut usize: ptr::null_mut()) -> c_int);
            Err(String::from_utf8_lossy(&log).into_owned())
        }
    }

    /// Runs a kernel over the arena.
    pub(crate) fn run(&self, program: &Program, kernel: &str, groups: u32, group: u32, arena: &mut [u8], block: u64) {
        let name = CString::new(kernel).expect("name");
        let mut error = 0;
        let (local, global) = (group as usize, groups as usize * group as usize);
        // SAFETY: signatures are those of cl.h; the arena is copied to the device and back within this call.
        unsafe {
            let handle = call!(self, "clCreateKernel"(Handle: program.handle, *const c_char: name.as_ptr(), *mut c_int: &raw mut error) -> Handle);
            assert_eq!(error, 0, "clCreateKernel {kernel}");
            let memory = call!(self, "clCreateBuffer"(Handle: self.context, u64: MEM_COPY_HOST_PTR, usize: arena.len(), *mut u8: arena.as_mut_ptr(), *mut c_int: &raw mut error) -> Handle);
            assert_eq!(error, 0, "clCreateBuffer");
            let check = |code: c_int, what: &str| assert_eq!(code, 0, "{what}");
            check(
                call!(self, "clSetKernelArg"(Handle: handle, c_uint: 0, usize: size_of::<Handle>(), *const Handle: &raw const memory) -> c_int),
                "arena",
            );
            check(
                call!(self, "clSetKernelArg"(Handle: handle, c_uint: 1, usize: 8, *const u64: &raw const block) -> c_int),
                "block",
            );
            check(
                call!(self, "clEnqueueNDRangeKernel"(Handle: self.queue, Handle: handle, c_uint: 1, *const usize: ptr::null(), *const usize: &raw const global, *const usize: &raw const local, c_uint: 0, *const c_void: ptr::null(), *mut c_void: ptr::null_mut()) -> c_int),
                "launch",
            );
            check(
                call!(self, "clEnqueueReadBuffer"(Handle: self.queue, Handle: memory, c_uint: 1, usize: 0, usize: arena.len(), *mut u8: arena.as_mut_ptr(), c_uint: 0, *const c_void: ptr::null(), *mut c_void: ptr::null_mut()) -> c_int),
                "read",
            );
            check(call!(self, "clReleaseMemObject"(Handle: memory) -> c_int), "release");
            check(call!(self, "clReleaseKernel"(Handle: handle) -> c_int), "release");
        }
    }
}
