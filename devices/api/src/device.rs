//! What a device is, without running anything on it.

use std::sync::Arc;

use crate::variant::Variant;

/// A kind of device: the same banks of oars everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeviceKind {
    /// The processor; always there.
    Cpu,
    /// A graphics processor.
    Gpu,
    /// A field-programmable gate array.
    Fpga,
}

impl DeviceKind {
    /// As shown in `system.devices`.
    pub fn name(self) -> &'static str {
        match self {
            DeviceKind::Cpu => "cpu",
            DeviceKind::Gpu => "gpu",
            DeviceKind::Fpga => "fpga",
        }
    }
}

/// Whether a device takes work.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceState {
    /// It takes work.
    Ready,
    /// It is latched off; the text says why.
    Off(String),
}

impl DeviceState {
    /// As shown in `system.devices`.
    pub fn name(&self) -> &str {
        match self {
            DeviceState::Ready => "ready",
            DeviceState::Off(_) => "off",
        }
    }
}

/// What is known of a device without running anything on it.
#[derive(Debug, Clone)]
pub struct DeviceInfo {
    /// Short name, unique in the process: `cpu0`.
    pub id: String,
    /// Kind.
    pub kind: DeviceKind,
    /// Model, as the device or its driver says.
    pub name: String,
    /// State.
    pub state: DeviceState,
    /// Hardware threads or multiprocessors.
    pub cores: u32,
    /// Memory it can address, in bytes.
    pub memory_bytes: u64,
    /// Instruction sets and abilities that variants choose by, for example `avx2`.
    pub features: Vec<String>,
}

/// What a device does at this moment, and has done since the start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Vitals {
    /// Memory in use, columns included, in bytes.
    pub used_bytes: u64,
    /// Memory that columns take, in bytes; dropped when a fragment needs it.
    pub columns_bytes: u64,
    /// Power drawn, in watts, where the device measures it.
    pub watts: Option<f64>,
    /// Share of time in which it worked, 0 … 1, where its driver tells.
    pub utilisation: Option<f64>,
    /// Copy rate to the device as measured, in bytes per second.
    pub upload_bytes_per_second: Option<f64>,
    /// Rate of reading its memory as measured, in bytes per second.
    pub read_bytes_per_second: Option<f64>,
    /// Fragments that ran.
    pub fragments: u64,
    /// Kernels launched.
    pub launches: u64,
    /// Times that the host waited.
    pub syncs: u64,
    /// Bytes copied to it.
    pub uploaded_bytes: u64,
    /// Bytes copied back.
    pub downloaded_bytes: u64,
    /// Fragments that ran as data, not by kernels of their own.
    pub interpreted: u64,
    /// Kernels compiled.
    pub compiled: u64,
    /// Kernels found in a cache.
    pub cached: u64,
    /// Columns dropped from its memory.
    pub evictions: u64,
    /// Outputs of waiting queries that were swapped to the host's memory, and their bytes.
    pub swaps: u64,
    /// See `swaps`.
    pub swapped_bytes: u64,
}

/// A device that takes fragments.
pub trait Device: Send + Sync {
    /// What it is, and its state now.
    fn info(&self) -> DeviceInfo;

    /// What it does.
    fn vitals(&self) -> Vitals {
        Vitals::default()
    }

    /// The way it runs fragments.
    fn variant(&self) -> Arc<dyn Variant>;
}

/// What a backend found.
#[derive(Default)]
pub struct Probed {
    /// Devices, possibly none.
    pub devices: Vec<Arc<dyn Device>>,
    /// Why there are none, or not all, for people: "libcuda.so.1 was not found".
    pub absent: Option<String>,
}

/// Finds the devices of one driver.
pub trait Backend: Send + Sync {
    /// The backend's name: `cpu`, `cuda`, `opencl`.
    fn name(&self) -> &'static str;

    /// The devices that are there. An absent driver is an empty list with a reason: never a panic, no side effect.
    fn probe(&self) -> Probed;
}
