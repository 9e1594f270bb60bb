//! Modules: text to binary, binary to kernels.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};

use opencl_sys as cl;
use parking_lot::Mutex;
use trireme_device_api::DeviceError;
use trireme_device_codegen::ir::Module;

use crate::error::name;
use crate::stream::Commands;
use crate::sys::{Object, bytes_of, count, number_of, text_of};

/// A module's kernels, in its order. Setting arguments and launching is one step, under the lock.
pub(crate) struct Loaded {
    pub(crate) kernels: Vec<Mutex<Object>>,
    pub(crate) group: u32,
}

/// How a "binary" begins that is the text itself.
const TEXT: &[u8] = b"OpenCL C\n";

/// Programs that were compiled and not loaded yet, at most.
const BUILT_MAX: usize = 16;

/// Compiles and loads.
///
/// A platform that keeps compiled kernels on disk itself, by text, gives binaries that nobody needs, and compiles each kernel
/// once more to make them, for groups of any size (PoCL: as long again). There the binary is the text, and what was compiled
/// waits here to be loaded.
pub(crate) struct Programs {
    options: CString,
    /// Binaries are texts.
    texts: bool,
    built: Mutex<VecDeque<(String, Object)>>,
}

impl Programs {
    pub(crate) fn new(options: CString, texts: bool) -> Self {
        Self {
            options,
            texts,
            built: Mutex::default(),
        }
    }

    /// Compiles text for the device.
    pub(crate) fn compile(&self, commands: &Commands, text: &str) -> Result<Vec<u8>, DeviceError> {
        let program = from_text(commands, text)?;
        build(commands, &program, &self.options)?;
        if !self.texts {
            return binary(commands, &program);
        }
        let mut built = self.built.lock();
        built.truncate(BUILT_MAX - 1);
        built.push_front((text.to_owned(), program));
        Ok([TEXT, text.as_bytes()].concat())
    }

    /// Loads what [`Programs::compile`] gave.
    pub(crate) fn load(&self, commands: &Commands, module: &Module, binary: &[u8]) -> Result<Loaded, DeviceError> {
        let program = match binary.strip_prefix(TEXT).map(std::str::from_utf8) {
            Some(Ok(text)) => {
                let mut built = self.built.lock();
                let position = built.iter().position(|(known, _)| known == text);
                let known = position.and_then(|position| built.remove(position));
                drop(built);
                if let Some((_, program)) = known {
                    return take_kernels(commands, module, &program);
                }
                from_text(commands, text)?
            }
            _ => from_binary(commands, binary)?,
        };
        build(commands, &program, &self.options)?;
        take_kernels(commands, module, &program)
    }
}

fn from_text(commands: &Commands, text: &str) -> Result<Object, DeviceError> {
    let (mut place, length) = (text.as_ptr().cast(), text.len());
    let mut code = 0;
    // SAFETY: one text of `length` bytes, which the call copies.
    let raw = unsafe {
        (commands.api.create_program_with_source)(
            commands.context.raw(),
            count(1),
            &raw mut place,
            &raw const length,
            &raw mut code,
        )
    };
    commands.health.check("making a program", code)?;
    Ok(Object::new(&commands.api, raw, commands.api.release_program))
}

fn from_binary(commands: &Commands, binary: &[u8]) -> Result<Object, DeviceError> {
    let (mut place, length) = (binary.as_ptr(), binary.len());
    let (mut code, mut status) = (0, 0);
    // SAFETY: one device and one binary of `length` bytes, which the call copies.
    let raw = unsafe {
        (commands.api.create_program_with_binary)(
            commands.context.raw(),
            count(1),
            &raw const commands.device.0,
            &raw const length,
            &raw mut place,
            &raw mut status,
            &raw mut code,
        )
    };
    commands.health.check("loading a binary", code)?;
    let program = Object::new(&commands.api, raw, commands.api.release_program);
    commands.health.check("loading a binary", status)?;
    Ok(program)
}

fn take_kernels(commands: &Commands, module: &Module, program: &Object) -> Result<Loaded, DeviceError> {
    let kernels = module
        .kernels
        .iter()
        .map(|kernel| self::kernel(commands, program, &kernel.name, module.group));
    Ok(Loaded {
        kernels: kernels.collect::<Result<_, _>>()?,
        group: module.group,
    })
}

fn build(commands: &Commands, program: &Object, options: &CStr) -> Result<(), DeviceError> {
    // SAFETY: one device of the program's context; no callback, so the call blocks.
    let code = unsafe {
        (commands.api.build_program)(
            program.raw(),
            count(1),
            &raw const commands.device.0,
            options.as_ptr(),
            None,
            std::ptr::null_mut(),
        )
    };
    if code == 0 {
        return Ok(());
    }
    let (ask, raw, device) = (commands.api.get_program_build_info, program.raw(), commands.device.0);
    // SAFETY: the program was built for this device; `capacity` bytes may be written to `place`.
    let log = text_of(|capacity, place, length| unsafe {
        ask(raw, device, cl::CL_PROGRAM_BUILD_LOG, capacity, place, length)
    });
    Err(DeviceError::Internal(format!(
        "the OpenCL compiler refused a kernel: {}: {log}",
        name(code)
    )))
}

/// The binary for the one device.
fn binary(commands: &Commands, program: &Object) -> Result<Vec<u8>, DeviceError> {
    let (ask, raw) = (commands.api.get_program_info, program.raw());
    // SAFETY: the program is alive; `capacity` bytes may be written to `place`.
    let sizes =
        bytes_of(|capacity, place, length| unsafe { ask(raw, cl::CL_PROGRAM_BINARY_SIZES, capacity, place, length) });
    let length = sizes
        .ok()
        .and_then(|bytes| bytes.first_chunk::<8>().map(|first| usize::from_le_bytes(*first)));
    let mut bytes = vec![0_u8; length.unwrap_or(0)];
    let mut place = bytes.as_mut_ptr();
    // SAFETY: one pointer, to as many bytes as the binary has.
    let code = unsafe {
        ask(
            raw,
            cl::CL_PROGRAM_BINARIES,
            size_of::<*mut u8>(),
            (&raw mut place).cast(),
            std::ptr::null_mut(),
        )
    };
    commands.health.check("taking a program's binary", code)?;
    if bytes.is_empty() {
        return Err(DeviceError::Internal("the OpenCL compiler gave no binary".to_owned()));
    }
    Ok(bytes)
}

fn kernel(commands: &Commands, program: &Object, name: &str, group: u32) -> Result<Mutex<Object>, DeviceError> {
    let c_name = CString::new(name).map_err(|_| DeviceError::Internal(format!("kernel name {name:?}")))?;
    let mut code = 0;
    // SAFETY: the program was built; the name ends with a zero.
    let raw = unsafe { (commands.api.create_kernel)(program.raw(), c_name.as_ptr(), &raw mut code) };
    commands.health.check("taking a kernel", code)?;
    let kernel = Object::new(&commands.api, raw, commands.api.release_kernel);
    let (ask, device) = (commands.api.get_kernel_work_group_info, commands.device.0);
    // SAFETY: the kernel is alive and of this device; `capacity` bytes may be written to `place`.
    let most: Option<usize> = number_of(|capacity, place, length| unsafe {
        ask(raw, device, cl::CL_KERNEL_WORK_GROUP_SIZE, capacity, place, length)
    });
    match most {
        Some(most) if most < group as usize => Err(DeviceError::Unsupported(format!(
            "kernel {name} needs groups of {group} work-items and the device runs at most {most} of it"
        ))),
        _ => Ok(Mutex::new(kernel)),
    }
}
