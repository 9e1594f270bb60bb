//! The backends this server was built with: one line each.

use std::fs;
use std::sync::Arc;

use trireme_device_api::{Backend, DeviceInfo, DeviceKind, DeviceState, Variant};
use trireme_device_cpu::FusedVariant;

/// Every backend, in order of preference for nothing: the planner chooses by cost.
pub fn backends() -> Vec<Box<dyn Backend>> {
    vec![Box::new(CpuBackend)]
}

/// All devices of all backends.
pub fn probe() -> Vec<DeviceInfo> {
    backends().iter().flat_map(|backend| backend.probe()).collect()
}

/// The variant that runs fragments until costs choose among several.
pub fn fused_variant() -> Arc<dyn Variant> {
    Arc::new(FusedVariant::new())
}

/// The processor, which runs DataFusion's own operators and fused pipelines.
struct CpuBackend;

/// Instruction sets that variants will choose by.
const FEATURES: [&str; 6] = ["sse4_2", "avx2", "fma", "avx512f", "avx512bw", "avx512vl"];

impl Backend for CpuBackend {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn probe(&self) -> Vec<DeviceInfo> {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            info.lines()
                .find(|line| line.starts_with(name))
                .and_then(|line| line.split(':').nth(1))
                .map(str::trim)
        };
        let flags: Vec<_> = field("flags").unwrap_or_default().split(' ').collect();
        vec![DeviceInfo {
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
        }]
    }
}
