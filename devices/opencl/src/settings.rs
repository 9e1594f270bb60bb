//! Which OpenCL devices to take, and how much of them.

use trireme_device_runtime::Limits;

/// A type of OpenCL device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenClType {
    /// A processor, for example by PoCL.
    Cpu,
    /// A graphics processor.
    Gpu,
    /// An accelerator card, for example an FPGA.
    Accelerator,
}

/// Settings of the backend.
#[derive(Debug, Clone)]
pub struct OpenClSettings {
    /// What the executor may take.
    pub limits: Limits,
    /// Libraries to try, in order.
    pub libraries: Vec<String>,
    /// Types of devices to take.
    pub types: Vec<OpenClType>,
    /// Only devices whose name or platform contains one of these, whatever the case; all, when empty.
    pub names: Vec<String>,
    /// No devices whose name or platform contains one of these, whatever the case.
    pub except: Vec<String>,
    /// The largest arena, in bytes; by default nine tenths of a device's memory, a quarter of a processor's.
    pub arena_bytes_max: Option<u64>,
    /// Bytes of a slab that large uploads go through.
    pub slab_bytes: usize,
    /// The most such slabs.
    pub slabs_max: usize,
    /// Work-items per group; by default what was measured to be good for the type of device.
    pub group: Option<u32>,
    /// Rows that a work-item takes of one tile; likewise.
    pub items: Option<u32>,
    /// Whether compiled modules are taken as binaries, to be kept; by default unless the platform keeps them itself.
    pub binaries: Option<bool>,
    /// Options of the compiler besides those that results depend on.
    pub options: String,
}

impl Default for OpenClSettings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            libraries: vec!["libOpenCL.so.1".to_owned()],
            types: vec![OpenClType::Gpu, OpenClType::Accelerator, OpenClType::Cpu],
            names: Vec::new(),
            except: Vec::new(),
            arena_bytes_max: None,
            slab_bytes: 4 << 20,
            slabs_max: 16,
            group: None,
            items: None,
            binaries: None,
            options: String::new(),
        }
    }
}
