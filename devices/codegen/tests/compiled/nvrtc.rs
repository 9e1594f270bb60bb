//! The CUDA compiler, where the machine has it: text in, machine code and what the compiler says of it out. Needs no GPU.

use std::ffi::{CString, c_char, c_int, c_void};
use std::path::PathBuf;
use std::ptr;
use std::sync::LazyLock;
use std::time::Duration;

use libloading::{Library, Symbol};

/// Architectures that kernels are built for.
pub(crate) const ARCHITECTURES: [&str; 3] = ["sm_80", "sm_90", "sm_100"];

/// What the compiler made.
pub(crate) struct Compiled {
    /// Its words, with those of the assembler about registers and spills.
    pub(crate) log: String,
    /// The machine code; none when the text is wrong.
    pub(crate) cubin: Option<Vec<u8>>,
    /// How much of a processor it took, which on an idle machine is how long it took.
    pub(crate) time: Duration,
}

/// A loaded compiler.
pub(crate) struct Nvrtc {
    library: Library,
}

/// The path that `TRIREME_NVRTC` names, what the loader finds, and what pip puts into the tests' tools.
fn candidates() -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::env::var_os("TRIREME_NVRTC")
        .into_iter()
        .map(PathBuf::from)
        .collect();
    paths.extend(["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"].map(PathBuf::from));
    let tools = std::env::var_os("TRIREME_TOOLS")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/trireme/tools")));
    let pythons = tools.and_then(|tools| std::fs::read_dir(tools.join("python/lib")).ok());
    for python in pythons.into_iter().flatten().flatten() {
        paths.push(python.path().join("site-packages/nvidia/cu13/lib/libnvrtc.so.13"));
    }
    paths
}

/// What this process's threads have had of processors.
fn processor_time() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let times = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(times.sum())
}

impl Nvrtc {
    /// The compiler, loaded once; none, with a word about it, where there is none.
    pub(crate) fn get() -> Option<&'static Self> {
        static NVRTC: LazyLock<Option<Nvrtc>> = LazyLock::new(|| {
            let library = candidates().into_iter().find_map(|path| {
                // SAFETY: loading the library runs its initialisers, which do nothing but set it up.
                unsafe { Library::new(path) }.ok()
            });
            if library.is_none() {
                eprintln!("skipped: no libnvrtc found; TRIREME_NVRTC names it");
            }
            library.map(|library| Nvrtc { library })
        });
        NVRTC.as_ref()
    }

    /// Compiles for an architecture like `sm_90`.
    pub(crate) fn compile(&self, text: &str, architecture: &str, options: &[&str]) -> Compiled {
        let text = CString::new(text).expect("text");
        let mut all = vec![
            format!("--gpu-architecture={architecture}"),
            "--ptxas-options=-v".to_owned(),
        ];
        all.extend(options.iter().map(|&option| option.to_owned()));
        let all: Vec<CString> = all
            .into_iter()
            .map(|option| CString::new(option).expect("option"))
            .collect();
        let pointers: Vec<*const c_char> = all.iter().map(|option| option.as_ptr()).collect();
        let count = c_int::try_from(pointers.len()).expect("few options");
        let mut program: *mut c_void = ptr::null_mut();
        let began;
        let code;
        // SAFETY: signatures are those of nvrtc.h; strings and options outlive the calls.
        unsafe {
            type Create = unsafe extern "C" fn(
                *mut *mut c_void,
                *const c_char,
                *const c_char,
                c_int,
                *const *const c_char,
                *const *const c_char,
            ) -> c_int;
            let create: Symbol<'_, Create> = self.library.get("nvrtcCreateProgram").expect("symbol");
            let name = c"kernels.cu".as_ptr();
            assert_eq!(
                create(&raw mut program, text.as_ptr(), name, 0, ptr::null(), ptr::null()),
                0
            );
            type Compile = unsafe extern "C" fn(*mut c_void, c_int, *const *const c_char) -> c_int;
            let compile: Symbol<'_, Compile> = self.library.get("nvrtcCompileProgram").expect("symbol");
            began = processor_time();
            code = compile(program, count, pointers.as_ptr());
        }
        let time = processor_time().saturating_sub(began);
        let mut log = self.bytes(program, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog");
        log.pop();
        let cubin = (code == 0).then(|| self.bytes(program, "nvrtcGetCUBINSize", "nvrtcGetCUBIN"));
        // SAFETY: the program was made above and is not used any more.
        unsafe {
            let destroy: Symbol<'_, unsafe extern "C" fn(*mut *mut c_void) -> c_int> =
                self.library.get("nvrtcDestroyProgram").expect("symbol");
            destroy(&raw mut program);
        }
        Compiled {
            log: String::from_utf8_lossy(&log).into_owned(),
            cubin,
            time,
        }
    }

    fn bytes(&self, program: *mut c_void, size: &str, get: &str) -> Vec<u8> {
        let mut len = 0_usize;
        // SAFETY: signatures are those of nvrtc.h; the buffer has the length that the compiler asks for.
        unsafe {
            let size: Symbol<'_, unsafe extern "C" fn(*mut c_void, *mut usize) -> c_int> =
                self.library.get(size).expect("symbol");
            assert_eq!(size(program, &raw mut len), 0);
            let mut bytes = vec![0; len];
            let get: Symbol<'_, unsafe extern "C" fn(*mut c_void, *mut u8) -> c_int> =
                self.library.get(get).expect("symbol");
            assert_eq!(get(program, bytes.as_mut_ptr()), 0);
            bytes
        }
    }
}
