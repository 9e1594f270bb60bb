//! Which OpenCL devices are there, what they are, and why one is not taken.
//!
//! A device must be able to run what kernels are lowered to: 64-bit atomics of both extensions, atomics of device scope with
//! acquire and release, 64-bit floats, a compiler, 64-bit addresses, least byte first. One that can't is refused with the
//! reason.

use std::ffi::c_void;
use std::sync::Arc;

use opencl_sys as cl;
use opencl_sys::{cl_device_id, cl_int, cl_platform_id, cl_uint};
use trireme_device_api::{DeviceInfo, DeviceKind, DeviceState};
use trireme_device_codegen::Target;

use crate::error::name;
use crate::settings::{OpenClSettings, OpenClType};
use crate::sys::{Api, Number, bytes_of, count, number_of, text_of};

/// Correctly rounded division and square root of 32-bit floats, in `CL_DEVICE_SINGLE_FP_CONFIG`.
const CORRECTLY_ROUNDED: u64 = 1 << 7;
/// `CL_FP_DENORM`.
const DENORMALS: u64 = 1;

/// Hash tables are large from so many caches on, of devices that are no processors: a guess. On a processor rows in order cost
/// more than they gained (tests/groups.rs, tests/joins.rs: tables of up to six times its cache).
const LARGE_CACHES: u64 = 4;
/// What a device's cache is taken to hold at least, where it doesn't tell.
const CACHE_BYTES_MIN: u64 = 4 << 20;

/// A device, by what identifies it to the driver.
#[derive(Clone, Copy)]
pub(crate) struct DeviceId(pub(crate) cl_device_id);

// SAFETY: root devices are never released and their functions may be called from all threads.
unsafe impl Send for DeviceId {}
// SAFETY: as above.
unsafe impl Sync for DeviceId {}

/// A device that can be taken.
pub(crate) struct Found {
    pub(crate) device: DeviceId,
    pub(crate) info: DeviceInfo,
    pub(crate) target: Target,
    pub(crate) groups: u32,
    pub(crate) arena_bytes_max: u64,
    pub(crate) identity: String,
    pub(crate) options: String,
    pub(crate) host: bool,
    /// Compiled modules are taken as binaries.
    pub(crate) binaries: bool,
}

/// The devices, and why some or all are not taken.
pub(crate) fn probe(api: &Arc<Api>, settings: &OpenClSettings) -> (Vec<Found>, Vec<String>) {
    let (mut found, mut refused) = (Vec::new(), Vec::new());
    match platforms(api) {
        Err(reason) => refused.push(reason),
        Ok(platforms) => {
            for platform in platforms {
                for device in devices(api, platform) {
                    match describe(api, platform, device, settings, found.len()) {
                        Ok(one) => found.push(one),
                        Err(Some(reason)) => refused.push(reason),
                        Err(None) => {}
                    }
                }
            }
            if found.is_empty() && refused.is_empty() {
                refused.push("no OpenCL platform has a device that is asked for".to_owned());
            }
        }
    }
    (found, refused)
}

fn platforms(api: &Api) -> Result<Vec<cl_platform_id>, String> {
    let mut length: cl_uint = 0;
    // SAFETY: only the number is asked for.
    let code = unsafe { (api.get_platform_ids)(0, std::ptr::null_mut(), &raw mut length) };
    match code {
        cl::CL_PLATFORM_NOT_FOUND_KHR => return Err("no OpenCL platform is installed".to_owned()),
        0 if length == 0 => return Err("no OpenCL platform is installed".to_owned()),
        0 => {}
        code => return Err(format!("OpenCL's platforms can't be listed: {}", name(code))),
    }
    let mut ids = vec![std::ptr::null_mut(); length as usize];
    // SAFETY: `ids` has room for `length` platforms.
    match unsafe { (api.get_platform_ids)(length, ids.as_mut_ptr(), std::ptr::null_mut()) } {
        0 => Ok(ids),
        code => Err(format!("OpenCL's platforms can't be listed: {}", name(code))),
    }
}

fn devices(api: &Api, platform: cl_platform_id) -> Vec<cl_device_id> {
    let mut length: cl_uint = 0;
    // SAFETY: only the number is asked for; the platform was listed.
    let code = unsafe {
        (api.get_device_ids)(
            platform,
            cl::CL_DEVICE_TYPE_ALL,
            0,
            std::ptr::null_mut(),
            &raw mut length,
        )
    };
    if code != 0 {
        return Vec::new();
    }
    let mut ids = vec![std::ptr::null_mut(); length as usize];
    let all = cl::CL_DEVICE_TYPE_ALL;
    // SAFETY: `ids` has room for `length` devices.
    match unsafe { (api.get_device_ids)(platform, all, length, ids.as_mut_ptr(), std::ptr::null_mut()) } {
        0 => ids,
        _ => Vec::new(),
    }
}

/// Asks a device for its properties.
#[derive(Clone, Copy)]
struct Ask<'a> {
    api: &'a Api,
    device: cl_device_id,
}

impl Ask<'_> {
    fn raw(self, what: cl_uint) -> impl Fn(usize, *mut c_void, *mut usize) -> cl_int {
        let (ask, device) = (self.api.get_device_info, self.device);
        // SAFETY: the device was listed; `capacity` bytes may be written to `place`.
        move |capacity, place, length| unsafe { ask(device, what, capacity, place, length) }
    }

    fn number<T: Number>(self, what: cl_uint) -> T {
        number_of(self.raw(what)).unwrap_or_default()
    }

    fn text(self, what: cl_uint) -> String {
        text_of(self.raw(what))
    }
}

fn platform_text(api: &Api, platform: cl_platform_id, what: cl_uint) -> String {
    // SAFETY: the platform was listed; `capacity` bytes may be written to `place`.
    text_of(|capacity, place, length| unsafe { (api.get_platform_info)(platform, what, capacity, place, length) })
}

/// A device that is taken; why not; or nothing when it is not asked for.
fn describe(
    api: &Api,
    platform: cl_platform_id,
    device: cl_device_id,
    settings: &OpenClSettings,
    position: usize,
) -> Result<Found, Option<String>> {
    let ask = Ask { api, device };
    let device_type: u64 = ask.number(cl::CL_DEVICE_TYPE);
    let kind = if device_type & cl::CL_DEVICE_TYPE_GPU != 0 {
        (OpenClType::Gpu, DeviceKind::Gpu)
    } else if device_type & cl::CL_DEVICE_TYPE_ACCELERATOR != 0 {
        (OpenClType::Accelerator, DeviceKind::Fpga)
    } else if device_type & cl::CL_DEVICE_TYPE_CPU != 0 {
        (OpenClType::Cpu, DeviceKind::Cpu)
    } else {
        return Err(None);
    };
    let model = ask.text(cl::CL_DEVICE_NAME);
    let platform_name = platform_text(api, platform, cl::CL_PLATFORM_NAME);
    if !settings.types.contains(&kind.0) || !wanted(settings, &format!("{platform_name} {model}")) {
        return Err(None);
    }
    if let Some(reason) = lacking(ask) {
        return Err(Some(format!("{model} ({platform_name}) is not used: {reason}")));
    }
    let host = kind.0 == OpenClType::Cpu;
    let memory: u64 = ask.number(cl::CL_DEVICE_GLOBAL_MEM_SIZE);
    let allocation: u64 = ask.number(cl::CL_DEVICE_MAX_MEM_ALLOC_SIZE);
    let share = if host { memory / 4 } else { memory / 10 * 9 };
    let options = options(ask, settings);
    let version = ask.text(cl::CL_DEVICE_VERSION);
    let identity = [
        platform_name.as_str(),
        &platform_text(api, platform, cl::CL_PLATFORM_VERSION),
        &model,
        &version,
        &ask.text(cl::CL_DRIVER_VERSION),
        &options,
    ]
    .join("\n");
    let (target, groups) = target(ask, settings, host);
    let cores: u32 = ask.number(cl::CL_DEVICE_MAX_COMPUTE_UNITS);
    Ok(Found {
        device: DeviceId(device),
        info: DeviceInfo {
            id: format!("opencl{position}"),
            kind: kind.1,
            name: format!("{model} ({platform_name})"),
            state: DeviceState::Ready,
            cores,
            memory_bytes: memory,
            features: vec![
                version,
                format!("driver {}", ask.text(cl::CL_DRIVER_VERSION)),
                format!("{} MHz", ask.number::<u32>(cl::CL_DEVICE_MAX_CLOCK_FREQUENCY)),
            ],
        },
        target,
        groups,
        arena_bytes_max: settings.arena_bytes_max.unwrap_or(share).min(allocation) / 256 * 256,
        identity,
        options,
        host,
        // PoCL keeps compiled kernels on disk itself.
        binaries: settings
            .binaries
            .unwrap_or(platform_name != "Portable Computing Language"),
    })
}

/// Whether a device of this name is asked for.
fn wanted(settings: &OpenClSettings, name: &str) -> bool {
    let name = name.to_lowercase();
    let has = |parts: &[String]| parts.iter().any(|part| name.contains(&part.to_lowercase()));
    (settings.names.is_empty() || has(&settings.names)) && !has(&settings.except)
}

/// What a device can't do that kernels need.
fn lacking(ask: Ask<'_>) -> Option<String> {
    let extensions = ask.text(cl::CL_DEVICE_EXTENSIONS);
    let has = |name: &str| extensions.split_whitespace().any(|one| one == name);
    for name in ["cl_khr_int64_base_atomics", "cl_khr_int64_extended_atomics"] {
        if !has(name) {
            return Some(format!("it has no 64-bit atomics ({name})"));
        }
    }
    if ask.number::<u64>(cl::CL_DEVICE_DOUBLE_FP_CONFIG) == 0 && !has("cl_khr_fp64") {
        return Some("it has no 64-bit floats (cl_khr_fp64)".to_owned());
    }
    if ask.number::<u64>(cl::CL_DEVICE_SINGLE_FP_CONFIG) & DENORMALS == 0 {
        return Some("it takes small 32-bit floats for 0 (no CL_FP_DENORM)".to_owned());
    }
    if ask.number::<u32>(cl::CL_DEVICE_AVAILABLE) == 0 {
        return Some("it is not available".to_owned());
    }
    if ask.number::<u32>(cl::CL_DEVICE_COMPILER_AVAILABLE) == 0 {
        return Some("its driver has no compiler".to_owned());
    }
    if ask.number::<u32>(cl::CL_DEVICE_ADDRESS_BITS) != 64 || ask.number::<u32>(cl::CL_DEVICE_ENDIAN_LITTLE) == 0 {
        return Some("its addresses are not of 64 bits, least byte first".to_owned());
    }
    match version_of(&ask.text(cl::CL_DEVICE_VERSION)) {
        (0 | 1, _) => return Some("its OpenCL is older than 2.0".to_owned()),
        (2, _) => {}
        _ => {
            let needed = cl::CL_DEVICE_ATOMIC_ORDER_ACQ_REL | cl::CL_DEVICE_ATOMIC_SCOPE_DEVICE;
            for what in [
                cl::CL_DEVICE_ATOMIC_MEMORY_CAPABILITIES,
                cl::CL_DEVICE_ATOMIC_FENCE_CAPABILITIES,
            ] {
                if ask.number::<u64>(what) & needed != needed {
                    return Some("its atomics don't order memory between groups".to_owned());
                }
            }
        }
    }
    None
}

/// `OpenCL 3.0 …` as numbers.
fn version_of(text: &str) -> (u32, u32) {
    let number = text.strip_prefix("OpenCL ").unwrap_or_default();
    let mut parts = number.split([' ', '.']).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// Options of the compiler: those that results depend on, then what the settings say.
fn options(ask: Ask<'_>, settings: &OpenClSettings) -> String {
    let standard = match version_of(&ask.text(cl::CL_DEVICE_VERSION)).0 {
        2 => "-cl-std=CL2.0",
        _ => "-cl-std=CL3.0",
    };
    // Without warnings, which some platforms print to the process's standard error.
    let mut options = vec![standard, "-w"];
    if ask.number::<u64>(cl::CL_DEVICE_SINGLE_FP_CONFIG) & CORRECTLY_ROUNDED != 0 {
        options.push("-cl-fp32-correctly-rounded-divide-sqrt");
    }
    if !settings.options.is_empty() {
        options.push(&settings.options);
    }
    options.join(" ")
}

/// What kernels are lowered for, and how many groups run at once.
fn target(ask: Ask<'_>, settings: &OpenClSettings, host: bool) -> (Target, u32) {
    // A processor's were measured (tests/speed.rs, PoCL 3.1, 1 M rows): sums in 77 groups took 1.9 ms with groups of 16 and
    // 13 ms with groups of 64; plain sums the same time with either.
    let (group, items, groups_per_unit) = if host { (16, 256, 1) } else { (256, 4, 8) };
    let sizes = bytes_of(ask.raw(cl::CL_DEVICE_MAX_WORK_ITEM_SIZES)).unwrap_or_default();
    let first = sizes.first_chunk::<8>().map_or(8, |bytes| u64::from_le_bytes(*bytes));
    let most = (ask.number::<usize>(cl::CL_DEVICE_MAX_WORK_GROUP_SIZE) as u64)
        .min(first)
        .clamp(8, 1024);
    let most = 1 << most.ilog2();
    let group = settings.group.unwrap_or(group).next_power_of_two().clamp(8, most);
    let local: u64 = ask.number(cl::CL_DEVICE_LOCAL_MEM_SIZE);
    let units: u32 = ask.number(cl::CL_DEVICE_MAX_COMPUTE_UNITS);
    let groups = units.max(1).saturating_mul(groups_per_unit);
    let target = Target {
        group,
        items: settings.items.unwrap_or(items).max(1),
        work_items: groups.saturating_mul(group),
        local_bytes: u32::try_from(local).unwrap_or(u32::MAX),
        wide: !host,
        large_bytes: (!host).then(|| {
            LARGE_CACHES
                * ask
                    .number::<u64>(cl::CL_DEVICE_GLOBAL_MEM_CACHE_SIZE)
                    .max(CACHE_BYTES_MIN)
        }),
    };
    (target, groups)
}

/// A context of one device.
pub(crate) fn context(api: &Arc<Api>, device: DeviceId) -> Result<crate::sys::Object, cl_int> {
    let mut code = 0;
    // SAFETY: one listed device, no properties, no callback.
    let raw = unsafe {
        (api.create_context)(
            std::ptr::null(),
            count(1),
            &raw const device.0,
            None,
            std::ptr::null_mut(),
            &raw mut code,
        )
    };
    match code {
        0 => Ok(crate::sys::Object::new(api, raw, api.release_context)),
        code => Err(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(version_of("OpenCL 3.0 PoCL HSTR: pthread"), (3, 0));
        assert_eq!(version_of("OpenCL 1.2 CUDA"), (1, 2));
        assert_eq!(version_of("nonsense"), (0, 0));
    }

    #[test]
    fn names_choose_devices() {
        let mut settings = OpenClSettings::default();
        assert!(wanted(&settings, "NVIDIA CUDA NVIDIA H200"));
        settings.except = vec!["nvidia".to_owned()];
        assert!(!wanted(&settings, "NVIDIA CUDA NVIDIA H200"));
        settings.names = vec!["pocl".to_owned(), "portable".to_owned()];
        assert!(wanted(&settings, "Portable Computing Language x"));
        assert!(!wanted(&settings, "Intel(R) OpenCL y"));
    }
}
