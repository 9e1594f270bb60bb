//! Which CUDA devices are there, what they are, and why one is not taken.

use std::ffi::{c_char, c_int};
use std::sync::Arc;

use trireme_device_api::{DeviceInfo, DeviceKind, DeviceState};
use trireme_device_codegen::Target;

use crate::compiler::Compiler;
use crate::error::name;
use crate::settings::CudaSettings;
use crate::sys::{Cuda, Ordinal, text_of};

/// Attributes of devices, from `cuda.h`.
mod attribute {
    pub(super) const SHARED_BYTES: i32 = 8;
    pub(super) const MULTIPROCESSORS: i32 = 16;
    pub(super) const COMPUTE_MODE: i32 = 20;
    pub(super) const L2_BYTES: i32 = 38;
    pub(super) const THREADS: i32 = 39;
    pub(super) const MAJOR: i32 = 75;
    pub(super) const MINOR: i32 = 76;
}

/// The compute mode in which a device takes no context.
const PROHIBITED: i32 = 2;

/// Hash tables are large from so many caches on: a guess, by the rates of random and sequential reads.
const LARGE_CACHES: u64 = 4;

/// The smallest compute capability: 64-bit atomics of all operations, and native 64-bit sums of floats.
const CAPABILITY_MIN: i32 = 60;

/// A device that can be taken.
pub(crate) struct Found {
    pub(crate) ordinal: Ordinal,
    pub(crate) info: DeviceInfo,
    pub(crate) target: Target,
    pub(crate) groups: u32,
    /// `sm_90`.
    pub(crate) architecture: String,
    /// Place on the bus.
    pub(crate) bus: String,
}

/// The driver's library, made ready, with the CUDA version that it is of (13).
///
/// # Errors
/// Why there is none, for people.
pub(crate) fn driver(settings: &CudaSettings) -> Result<(Arc<Cuda>, i32), String> {
    let mut absent = None;
    for library in &settings.libraries {
        let cuda = match Cuda::open(library) {
            Ok(cuda) => cuda,
            Err(reason) => {
                absent.get_or_insert(reason);
                continue;
            }
        };
        // SAFETY: flags are 0, as they must be.
        let code = unsafe { (cuda.init)(0) };
        if code != 0 {
            return Err(format!("{library} has no device: {}", name(Some(&cuda), code)));
        }
        let mut version = 0;
        // SAFETY: a place for a number.
        let code = unsafe { (cuda.driver_version)(&raw mut version) };
        if code != 0 {
            return Err(format!("{library} tells no version: {}", name(Some(&cuda), code)));
        }
        return Ok((Arc::new(cuda), version / 1000));
    }
    Err(absent.unwrap_or_else(|| "no library of the CUDA driver is named".to_owned()))
}

/// The devices, and why some or all are not taken.
pub(crate) fn devices(cuda: &Cuda, compiler: &Compiler, settings: &CudaSettings) -> (Vec<Found>, Vec<String>) {
    let (mut found, mut refused) = (Vec::new(), Vec::new());
    let mut length = 0;
    // SAFETY: a place for a number.
    let code = unsafe { (cuda.device_count)(&raw mut length) };
    if code != 0 {
        return (
            found,
            vec![format!(
                "the CUDA driver can't list devices: {}",
                name(Some(cuda), code)
            )],
        );
    }
    for position in 0..length {
        let mut ordinal = 0;
        // SAFETY: a place for a number; the position is below the count.
        if unsafe { (cuda.device)(&raw mut ordinal, position) } != 0 {
            continue;
        }
        match describe(Ask { cuda, ordinal }, compiler, settings, position) {
            Ok(one) => found.push(one),
            Err(Some(reason)) => refused.push(reason),
            Err(None) => {}
        }
    }
    if found.is_empty() && refused.is_empty() {
        refused.push("the CUDA driver has no device that is asked for".to_owned());
    }
    (found, refused)
}

/// Asks a device for its properties.
#[derive(Clone, Copy)]
struct Ask<'a> {
    cuda: &'a Cuda,
    ordinal: Ordinal,
}

impl Ask<'_> {
    fn attribute(self, what: i32) -> i32 {
        let mut value = 0;
        // SAFETY: the device was listed; a place for a number.
        let code = unsafe { (self.cuda.device_attribute)(&raw mut value, what, self.ordinal) };
        if code == 0 { value } else { 0 }
    }

    fn count(self, what: i32) -> u32 {
        u32::try_from(self.attribute(what)).unwrap_or(0)
    }

    fn text(self, ask: unsafe extern "C" fn(*mut c_char, c_int, Ordinal) -> c_int) -> String {
        let mut bytes = [0_u8; 256];
        // SAFETY: the device was listed; 256 bytes of room.
        let code = unsafe { ask(bytes.as_mut_ptr().cast(), 256, self.ordinal) };
        if code == 0 { text_of(&bytes) } else { String::new() }
    }
}

/// A device that is taken; why not; or nothing when it is not asked for.
fn describe(
    ask: Ask<'_>,
    compiler: &Compiler,
    settings: &CudaSettings,
    position: i32,
) -> Result<Found, Option<String>> {
    let model = ask.text(ask.cuda.device_name);
    let lower = model.to_lowercase();
    if !settings.names.is_empty() && !settings.names.iter().any(|name| lower.contains(&name.to_lowercase())) {
        return Err(None);
    }
    let capability = ask.attribute(attribute::MAJOR) * 10 + ask.attribute(attribute::MINOR);
    let refuse = |reason: String| Err(Some(format!("{model} is not used: {reason}")));
    if capability < CAPABILITY_MIN {
        return refuse(format!(
            "its compute capability {} is less than 6.0",
            capability_text(capability)
        ));
    }
    let Some(architecture) = compiler.architecture_for(capability) else {
        let (major, minor) = compiler.version();
        return refuse(format!("NVRTC {major}.{minor} makes no kernels for sm_{capability}"));
    };
    if ask.attribute(attribute::COMPUTE_MODE) == PROHIBITED {
        return refuse("its compute mode prohibits contexts".to_owned());
    }
    let mut memory = 0;
    // SAFETY: the device was listed; a place for a number.
    let code = unsafe { (ask.cuda.device_memory)(&raw mut memory, ask.ordinal) };
    if code != 0 {
        return refuse(format!("it tells no memory: {}", name(Some(ask.cuda), code)));
    }
    let group = settings.group.next_power_of_two().clamp(32, 1024);
    let multiprocessors = ask.count(attribute::MULTIPROCESSORS);
    let groups = multiprocessors
        .saturating_mul((ask.count(attribute::THREADS) / group).max(1))
        .max(1);
    Ok(Found {
        ordinal: ask.ordinal,
        info: DeviceInfo {
            id: format!("cuda{position}"),
            kind: DeviceKind::Gpu,
            name: model,
            state: DeviceState::Ready,
            cores: multiprocessors,
            memory_bytes: memory as u64,
            features: vec![
                format!("compute capability {}", capability_text(capability)),
                format!("{multiprocessors} multiprocessors"),
                format!("{} MiB L2", ask.count(attribute::L2_BYTES) >> 20),
            ],
        },
        target: Target {
            group,
            items: settings.items.max(1),
            work_items: groups.saturating_mul(group),
            local_bytes: ask.count(attribute::SHARED_BYTES),
            wide: true,
            large_bytes: Some(LARGE_CACHES * u64::from(ask.count(attribute::L2_BYTES))),
        },
        groups,
        architecture: format!("sm_{architecture}"),
        bus: ask.text(ask.cuda.device_bus),
    })
}

fn capability_text(capability: i32) -> String {
    format!("{}.{}", capability / 10, capability % 10)
}
