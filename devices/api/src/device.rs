//! What a device is, without running anything on it.

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

/// Finds the devices of one driver.
pub trait Backend: Send + Sync {
    /// The backend's name: `cpu`, `cuda`, `opencl`.
    fn name(&self) -> &'static str;

    /// The devices that are there. An absent driver is an empty list: never a panic, no side effect.
    fn probe(&self) -> Vec<DeviceInfo>;
}
