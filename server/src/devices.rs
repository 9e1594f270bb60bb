//! The backends this server was built with: one line each.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use trireme_config::{Config, Kernels, OpenCl};
use trireme_device_api::{Backend, Device, DeviceInfo, DeviceKind, DeviceState, Variant};
use trireme_device_cpu::FusedVariant;
use trireme_device_cuda::{CudaBackend, CudaSettings};
use trireme_device_opencl::{OpenClBackend, OpenClSettings, OpenClType};
use trireme_device_runtime::{Encoded, Kernels as Tier, Limits, Partition};
use trireme_device_sim::SimBackend;
use trireme_exec::devices::Devices;

use crate::engine::DeviceCounts;

/// Backends beside the processor's, as configured. `host` is the processor's variant, which evaluates for the others what
/// only it can.
pub fn backends(config: &Config, host: &Arc<dyn Variant>) -> Vec<Box<dyn Backend>> {
    let settings = &config.devices;
    let memory = Some(settings.memory_bytes).filter(|bytes| *bytes > 0);
    let kernel_folder = match &settings.kernel_dir {
        Some(folder) => folder.clone(),
        None => config.server.data_dir.join(".trireme/kernels"),
    };
    let limits = Limits {
        wait: Duration::from_millis(settings.wait_ms),
        setting: "devices.memory_bytes".to_owned(),
        kernel_folder: Some(kernel_folder).filter(|_| settings.kernel_dir_bytes > 0),
        kernel_folder_bytes: settings.kernel_dir_bytes,
        kernels: match settings.kernels {
            Kernels::Auto => Tier::Auto,
            Kernels::Compiled => Tier::Compiled,
            Kernels::Interpreted => Tier::Interpreted,
        },
        encoded: match settings.encoded {
            trireme_config::Encoded::Off => Encoded::Off,
            trireme_config::Encoded::Auto => Encoded::Auto,
            trireme_config::Encoded::On => Encoded::On,
        },
        partition: match settings.partition {
            trireme_config::Partition::Off => Partition::Off,
            trireme_config::Partition::Auto => Partition::Auto,
            trireme_config::Partition::On => Partition::On,
        },
        ..Limits::default()
    };
    let mut found: Vec<Box<dyn Backend>> = Vec::new();
    if settings.cuda {
        let settings = CudaSettings {
            limits: limits.clone(),
            arena_bytes_max: memory,
            arena_share: MEMORY_SHARE,
            ..CudaSettings::default()
        };
        found.push(Box::new(CudaBackend::new(settings, Arc::clone(host))));
    }
    if settings.opencl != OpenCl::Off {
        let mut types = vec![OpenClType::Gpu, OpenClType::Accelerator];
        types.extend((settings.opencl == OpenCl::All).then_some(OpenClType::Cpu));
        let settings = OpenClSettings {
            limits: limits.clone(),
            types,
            arena_bytes_max: memory,
            // CUDA has them already.
            except: if settings.cuda {
                vec!["nvidia".to_owned()]
            } else {
                Vec::new()
            },
            ..OpenClSettings::default()
        };
        found.push(Box::new(OpenClBackend::new(settings, Arc::clone(host))));
    }
    if !settings.simulated.is_empty() {
        // Its compiled kernels are interpreted already.
        let limits = match limits.kernels {
            Tier::Auto => Limits {
                kernels: Tier::Compiled,
                ..limits
            },
            _ => limits,
        };
        found.push(Box::new(SimBackend::new(&settings.simulated, Arc::clone(host), limits)));
    }
    found
}

/// The processor, which runs DataFusion's own operators and fused pipelines.
pub struct Processor {
    variant: Arc<dyn Variant>,
}

/// Share of a device's free memory that is taken when nothing else is set.
const MEMORY_SHARE: f64 = 0.8;

/// Instruction sets that variants will choose by.
const FEATURES: [&str; 6] = ["sse4_2", "avx2", "fma", "avx512f", "avx512bw", "avx512vl"];

impl Processor {
    /// It is always there.
    #[expect(clippy::new_without_default, reason = "a device isn't made by default")]
    pub fn new() -> Self {
        Self {
            variant: Arc::new(FusedVariant::new()),
        }
    }
}

impl Device for Processor {
    fn info(&self) -> DeviceInfo {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            info.lines()
                .find(|line| line.starts_with(name))
                .and_then(|line| line.split(':').nth(1))
                .map(str::trim)
        };
        let flags: Vec<_> = field("flags").unwrap_or_default().split(' ').collect();
        DeviceInfo {
            id: "cpu0".into(),
            kind: DeviceKind::Cpu,
            name: field("model name").unwrap_or(std::env::consts::ARCH).to_owned(),
            state: DeviceState::Ready,
            cores: u32::try_from(trireme_config::cores()).unwrap_or(u32::MAX),
            memory_bytes: u64::try_from(trireme_config::physical_memory_bytes()).unwrap_or(u64::MAX),
            features: FEATURES
                .iter()
                .filter(|feature| flags.contains(*feature))
                .map(ToString::to_string)
                .collect(),
        }
    }

    fn variant(&self) -> Arc<dyn Variant> {
        Arc::clone(&self.variant)
    }
}

/// The sums over all devices that are known so far.
pub fn counts(devices: &Devices) -> DeviceCounts {
    let mut sums = DeviceCounts::default();
    for device in devices.known().iter().flat_map(|found| &found.devices) {
        match device.info().state {
            DeviceState::Ready => sums.ready += 1,
            _ => sums.off += 1,
        }
        let (sum, one) = (&mut sums.vitals, device.vitals());
        sum.fragments += one.fragments;
        sum.launches += one.launches;
        sum.syncs += one.syncs;
        sum.uploaded_bytes += one.uploaded_bytes;
        sum.downloaded_bytes += one.downloaded_bytes;
        sum.interpreted += one.interpreted;
        sum.swaps += one.swaps;
        sum.compiled += one.compiled;
        sum.used_bytes += one.used_bytes;
    }
    sums
}
