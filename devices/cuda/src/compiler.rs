//! NVRTC: text to machine code of one architecture, and what its assembler says of registers and spills.
//!
//! Kernels are always machine code of the device's own architecture, never PTX: the driver would compile that again, and one
//! older than the compiler would refuse it. NVRTC needs neither a driver nor a device, so that a machine without one can check
//! every kernel.

use std::ffi::{CString, c_int};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use trireme_device_api::DeviceError;
use trireme_device_codegen::print::CUDA_OPTIONS;

use crate::settings::CudaSettings;
use crate::sys::{Handle, Nvrtc, text_of};

/// NVRTC, opened.
pub struct Compiler {
    nvrtc: Nvrtc,
    version: (i32, i32),
    /// Numbers of the architectures that it compiles for: 90 is `sm_90`.
    architectures: Vec<i32>,
    identity: Option<String>,
}

/// Machine code.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// An ELF file for the driver.
    pub cubin: Vec<u8>,
    /// What the compiler and the assembler said.
    pub log: String,
    /// What kernels take, in the log's order.
    pub usage: Vec<Usage>,
}

/// What a kernel takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Its name.
    pub kernel: String,
    /// Registers of a work-item.
    pub registers: u32,
    /// Bytes of a work-item's local memory.
    pub stack_bytes: u32,
    /// Bytes that a work-item stores because registers ran out.
    pub spill_store_bytes: u32,
    /// Bytes that it loads back.
    pub spill_load_bytes: u32,
    /// Bytes of a group's shared memory.
    pub shared_bytes: u32,
}

/// Compiles with the NVRTC that the default settings find; needs no device.
///
/// # Errors
/// [`DeviceError::Unsupported`] without NVRTC; [`DeviceError::Internal`] with the compiler's words.
pub fn compile_for(architecture: &str, text: &str) -> Result<Compiled, DeviceError> {
    Compiler::open(&CudaSettings::default(), None)
        .map_err(DeviceError::Unsupported)?
        .compile_for(architecture, text)
}

impl Compiler {
    /// The first compiler of the settings' that is there, whose machine code a driver of CUDA version `driver` loads.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub fn open(settings: &CudaSettings, driver: Option<i32>) -> Result<Arc<Self>, String> {
        let mut newer = None;
        for name in &settings.compilers {
            let Ok(nvrtc) = Nvrtc::open(name) else { continue };
            let Some(compiler) = Self::describe(nvrtc, name) else {
                continue;
            };
            if driver.is_none_or(|driver| compiler.version.0 <= driver) {
                return Ok(Arc::new(compiler));
            }
            newer.get_or_insert(compiler.version.0);
        }
        Err(match (newer, driver) {
            (Some(newer), Some(driver)) => {
                format!("NVRTC is of CUDA {newer}, and the driver loads kernels of CUDA {driver} at most")
            }
            _ => {
                let names: Vec<_> = settings
                    .compilers
                    .iter()
                    .filter(|name| !name.contains('/'))
                    .map(String::as_str)
                    .collect();
                format!("{} was not found, which compiles kernels", names.join(" or "))
            }
        })
    }

    fn describe(nvrtc: Nvrtc, name: &str) -> Option<Self> {
        let (mut major, mut minor, mut length) = (0, 0, 0);
        // SAFETY: two places for numbers.
        let code = unsafe { (nvrtc.version)(&raw mut major, &raw mut minor) };
        // SAFETY: a place for a number.
        let counted = unsafe { (nvrtc.architecture_count)(&raw mut length) };
        if code != 0 || counted != 0 {
            return None;
        }
        let mut architectures: Vec<c_int> = vec![0; usize::try_from(length).ok()?];
        // SAFETY: room for as many numbers as were counted.
        if unsafe { (nvrtc.architectures)(architectures.as_mut_ptr()) } != 0 {
            return None;
        }
        let file = name.rsplit('/').next().unwrap_or(name);
        let identity = loaded_path(file).and_then(|path| build_id(&path));
        Some(Self {
            nvrtc,
            version: (major, minor),
            architectures,
            identity: identity.map(|id| format!("nvrtc {major}.{minor} {id} {}", CUDA_OPTIONS.join(" "))),
        })
    }

    /// Its version: 13, 5.
    pub fn version(&self) -> (i32, i32) {
        self.version
    }

    /// Numbers of the architectures that it compiles for, ascending: 90 is `sm_90`.
    pub fn architectures(&self) -> &[i32] {
        &self.architectures
    }

    /// The architecture to compile for, for a device of a compute capability (90): its own, or the nearest one before it of
    /// the same generation, whose machine code it runs too.
    pub(crate) fn architecture_for(&self, capability: i32) -> Option<i32> {
        let fits = |number: &&i32| **number <= capability && **number / 10 == capability / 10;
        self.architectures.iter().filter(fits).max().copied()
    }

    /// What machine code depends on besides text and architecture; none when the compiler can't be told from another.
    pub(crate) fn identity(&self) -> Option<&str> {
        self.identity.as_deref()
    }

    /// Compiles for an architecture: `sm_90`.
    ///
    /// # Errors
    /// [`DeviceError::Internal`] with the compiler's words.
    pub fn compile_for(&self, architecture: &str, text: &str) -> Result<Compiled, DeviceError> {
        let zero = |_| DeviceError::Internal("a kernel's text holds a zero byte".to_owned());
        let source = CString::new(text).map_err(zero)?;
        let architecture = format!("--gpu-architecture={architecture}");
        // It only saves time, and came with 12.4.
        let known = |option: &&str| *option != "--minimal" || self.version >= (12, 4);
        let options = CUDA_OPTIONS
            .iter()
            .copied()
            .filter(known)
            .chain([architecture.as_str(), "--ptxas-options=-v"]);
        let options = options
            .map(|option| CString::new(option).map_err(zero))
            .collect::<Result<Vec<_>, _>>()?;
        let places: Vec<_> = options.iter().map(|option| option.as_ptr()).collect();

        let mut program = Program {
            nvrtc: &self.nvrtc,
            raw: std::ptr::null_mut(),
        };
        // SAFETY: the text ends with a zero and is copied; no headers.
        let code = unsafe {
            (self.nvrtc.create)(
                &raw mut program.raw,
                source.as_ptr(),
                c"kernels.cu".as_ptr(),
                0,
                std::ptr::null(),
                std::ptr::null(),
            )
        };
        refused(code, "")?;
        // SAFETY: the program was created; as many options as are counted, each ending with a zero.
        let code =
            unsafe { (self.nvrtc.compile)(program.raw, c_int::try_from(places.len()).unwrap_or(0), places.as_ptr()) };
        let log = text_of(&program.bytes(self.nvrtc.log_bytes, self.nvrtc.log).unwrap_or_default());
        refused(code, &log)?;
        let cubin = program.bytes(self.nvrtc.cubin_bytes, self.nvrtc.cubin);
        match cubin {
            Some(cubin) if cubin.starts_with(ELF) => Ok(Compiled {
                cubin,
                usage: usage(&log),
                log,
            }),
            _ => Err(DeviceError::Internal(format!("NVRTC gave no machine code: {log}"))),
        }
    }
}

/// How ELF files begin.
pub(crate) const ELF: &[u8] = b"\x7fELF";

fn refused(code: c_int, log: &str) -> Result<(), DeviceError> {
    match code {
        0 => Ok(()),
        code => Err(DeviceError::Internal(format!(
            "NVRTC refused a kernel: error {code}: {log}"
        ))),
    }
}

/// A program, destroyed on drop.
struct Program<'a> {
    nvrtc: &'a Nvrtc,
    raw: Handle,
}

impl Program<'_> {
    /// Something that the program holds: its size, then its bytes.
    fn bytes(
        &self,
        size: unsafe extern "C" fn(Handle, *mut usize) -> c_int,
        copy: unsafe extern "C" fn(Handle, *mut std::ffi::c_char) -> c_int,
    ) -> Option<Vec<u8>> {
        let mut length = 0;
        // SAFETY: the program was created; a place for a number.
        let sized = unsafe { size(self.raw, &raw mut length) };
        let mut bytes = vec![0_u8; length];
        // SAFETY: as much room as the program says that it needs.
        (sized == 0 && unsafe { copy(self.raw, bytes.as_mut_ptr().cast()) } == 0).then_some(bytes)
    }
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        if !self.raw.is_null() {
            // SAFETY: the program was created and is destroyed once.
            unsafe { (self.nvrtc.destroy)(&raw mut self.raw) };
        }
    }
}

/// What the assembler said of each kernel:
///
/// ```text
/// ptxas info    : Compiling entry function 'sum' for 'sm_90'
/// ptxas info    : Function properties for sum
///     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
/// ptxas info    : Used 32 registers, used 1 barriers, 512 bytes smem
/// ```
fn usage(log: &str) -> Vec<Usage> {
    let mut found: Vec<Usage> = Vec::new();
    // Properties of functions that are no kernels stand there too.
    let mut of_kernel = false;
    for line in log.lines() {
        if let Some(rest) = line.split_once("Compiling entry function '") {
            found.push(Usage {
                kernel: rest.1.split('\'').next().unwrap_or_default().to_owned(),
                ..Usage::default()
            });
            of_kernel = true;
        } else if let Some(rest) = line.split_once("Function properties for ") {
            of_kernel = found.last().is_some_and(|usage| usage.kernel == rest.1.trim());
        }
        let Some(usage) = found.last_mut() else { continue };
        let before = |what: &str| -> Option<u32> {
            let number = line.split_once(what)?.0.split_whitespace().next_back()?;
            number.parse().ok()
        };
        if of_kernel && let Some(bytes) = before(" bytes stack frame") {
            usage.stack_bytes = bytes;
            usage.spill_store_bytes = before(" bytes spill stores").unwrap_or(0);
            usage.spill_load_bytes = before(" bytes spill loads").unwrap_or(0);
        }
        if let Some(registers) = before(" registers") {
            usage.registers = registers;
            usage.shared_bytes = before(" bytes smem").unwrap_or(0);
        }
    }
    found
}

/// Where a loaded library lies.
fn loaded_path(name: &str) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let path = |line: &str| line.split_whitespace().nth(5).map(str::to_owned);
    maps.lines()
        .filter_map(path)
        .find(|path| path.rsplit('/').next().is_some_and(|file| file.starts_with(name)))
        .map(PathBuf::from)
}

/// The linker's digest of a library's content, in hexadecimal: note 3 of the owner "GNU".
fn build_id(path: &Path) -> Option<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(path).ok()?;
    let mut header = [0_u8; 64];
    file.read_exact(&mut header).ok()?;
    let number = |bytes: &[u8], at: usize, length: usize| -> Option<u64> {
        let mut word = [0_u8; 8];
        word[..length].copy_from_slice(bytes.get(at..at + length)?);
        Some(u64::from_le_bytes(word))
    };
    let (place, size, count) = (
        number(&header, 32, 8)?,
        number(&header, 54, 2)?,
        number(&header, 56, 2)?,
    );
    for segment in 0..count {
        let mut entry = [0_u8; 56];
        file.seek(SeekFrom::Start(place + segment * size)).ok()?;
        file.read_exact(&mut entry).ok()?;
        if number(&entry, 0, 4)? != 4 {
            continue;
        }
        let mut notes = vec![0_u8; usize::try_from(number(&entry, 32, 8)?.min(1 << 16)).ok()?];
        file.seek(SeekFrom::Start(number(&entry, 8, 8)?)).ok()?;
        file.read_exact(&mut notes).ok()?;
        let mut at = 0;
        while let (Some(owner), Some(length), Some(kind)) = (
            number(&notes, at, 4),
            number(&notes, at + 4, 4),
            number(&notes, at + 8, 4),
        ) {
            let content = at + 12 + usize::try_from(owner).ok()?.next_multiple_of(4);
            let end = content + usize::try_from(length).ok()?;
            if kind == 3 && notes.get(at + 12..at + 16) == Some(b"GNU\0") {
                return Some(
                    notes
                        .get(content..end)?
                        .iter()
                        .map(|byte| format!("{byte:02x}"))
                        .collect(),
                );
            }
            at = end.next_multiple_of(4);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_assemblers_words_are_read() {
        let log = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'sum' for 'sm_90'
ptxas info    : Function properties for sum
    16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 512 bytes smem, 544 bytes cmem[0]
ptxas info    : Function properties for helper
    99 bytes stack frame, 99 bytes spill stores, 99 bytes spill loads
ptxas info    : Compiling entry function 'twice' for 'sm_90'
ptxas info    : Function properties for twice
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers";
        let sum = Usage {
            kernel: "sum".to_owned(),
            registers: 32,
            stack_bytes: 16,
            spill_store_bytes: 8,
            spill_load_bytes: 4,
            shared_bytes: 512,
        };
        let twice = Usage {
            kernel: "twice".to_owned(),
            registers: 8,
            ..Usage::default()
        };
        assert_eq!(usage(log), [sum, twice]);
    }

    #[test]
    fn the_compiler_is_told_from_others_by_content() {
        let Ok(compiler) = Compiler::open(&CudaSettings::default(), None) else {
            println!("skipped: no NVRTC");
            return;
        };
        let identity = compiler.identity().unwrap_or_default();
        let (major, minor) = compiler.version();
        assert!(identity.starts_with(&format!("nvrtc {major}.{minor} ")), "{identity}");
        let digest = identity.split(' ').nth(2).unwrap_or_default();
        assert!(
            digest.len() >= 16 && digest.chars().all(|c| c.is_ascii_hexdigit()),
            "{identity}"
        );
        assert_eq!(compiler.architecture_for(90), Some(90));
        assert_eq!(compiler.architecture_for(20), None);
        let newest = compiler.architectures().iter().max().copied().unwrap_or(0);
        let next = if newest % 10 == 9 { newest } else { newest + 1 };
        assert_eq!(compiler.architecture_for(next), Some(newest), "of the same generation");
    }

    #[test]
    fn a_librarys_build_is_known() {
        let id = std::env::current_exe().ok().and_then(|path| build_id(&path));
        assert!(
            id.is_none_or(|id| id.len() >= 16),
            "a digest, where the linker writes one"
        );
        assert_eq!(build_id(Path::new("/proc/self/status")), None, "no ELF file");
    }
}
