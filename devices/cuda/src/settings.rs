//! Which CUDA devices to take, how much of them, and where its libraries may lie.

use std::path::PathBuf;

use trireme_device_runtime::Limits;

/// Settings of the backend.
#[derive(Debug, Clone)]
pub struct CudaSettings {
    /// What the executor may take.
    pub limits: Limits,
    /// The driver's library, by name or path; the first that is there is taken.
    pub libraries: Vec<String>,
    /// NVRTC, by name or path; the first that the driver can load kernels of is taken.
    pub compilers: Vec<String>,
    /// NVML, by name or path; without it watts and utilisation aren't known.
    pub monitors: Vec<String>,
    /// Only devices whose name contains one of these, whatever the case; all, when empty.
    pub names: Vec<String>,
    /// The largest arena, in bytes; by default `arena_share` of the memory that is free.
    pub arena_bytes_max: Option<u64>,
    /// Share of the free memory that the arena may take, 0 … 1.
    pub arena_share: f64,
    /// Bytes of a slab of pinned host memory that large copies go through.
    pub slab_bytes: usize,
    /// The most such slabs.
    pub slabs_max: usize,
    /// Work-items per group.
    pub group: u32,
    /// Rows that a work-item takes of one tile.
    pub items: u32,
}

impl Default for CudaSettings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            libraries: vec!["libcuda.so.1".to_owned()],
            compilers: compilers(),
            monitors: vec!["libnvidia-ml.so.1".to_owned()],
            names: Vec::new(),
            arena_bytes_max: None,
            arena_share: 0.9,
            slab_bytes: 4 << 20,
            slabs_max: 32,
            group: 256,
            items: 4,
        }
    }
}

/// Where NVRTC may lie: where `TRIREME_NVRTC` says, where the system's linker looks, in a toolkit, in the wheel that
/// `make tools` unpacks.
fn compilers() -> Vec<String> {
    let names = ["libnvrtc.so.13", "libnvrtc.so.12"];
    let mut found: Vec<String> = std::env::var("TRIREME_NVRTC").into_iter().collect();
    found.extend(names.map(str::to_owned));
    let toolkits = ["CUDA_HOME", "CUDA_PATH"]
        .into_iter()
        .filter_map(std::env::var_os)
        .map(PathBuf::from);
    for toolkit in toolkits.chain([PathBuf::from("/usr/local/cuda")]) {
        found.extend(names.map(|name| toolkit.join("lib64").join(name).to_string_lossy().into_owned()));
    }
    if let Some(home) = std::env::var_os("HOME") {
        let wheels = PathBuf::from(home).join(".cache/trireme/tools/python/lib");
        // …/python3.*/site-packages/nvidia/*/lib/
        for python in folders(&wheels) {
            for package in folders(&python.join("site-packages/nvidia")) {
                let present = names
                    .map(|name| package.join("lib").join(name))
                    .into_iter()
                    .filter(|path| path.exists());
                found.extend(present.map(|path| path.to_string_lossy().into_owned()));
            }
        }
    }
    found
}

fn folders(of: &std::path::Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(of).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries.map(|entry| entry.path()).collect();
    found.sort();
    found
}
