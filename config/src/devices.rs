//! Settings of the devices beside the processor.

use crate::value::words;
use std::path::PathBuf;

words! {
    /// Which OpenCL devices are used.
    pub enum OpenCl {
        /// None; the library isn't even loaded.
        Off = "off",
        /// Graphics processors and accelerators.
        Gpu = "gpu",
        /// Processors too, which run the same kernels: for tests.
        All = "all",
    }
}

words! {
    /// What runs fragments on devices.
    pub enum Kernels {
        /// Their own kernels; until these are compiled as data, where that is expected to be sooner.
        Auto = "auto",
        /// Their own kernels only.
        Compiled = "compiled",
        /// As data for one kernel that runs any program: nothing else is compiled.
        Interpreted = "interpreted",
    }
}

words! {
    /// Which devices are sent columns as the pages of their files.
    pub enum Encoded {
        /// None.
        Off = "off",
        /// Those with memory of their own.
        Auto = "auto",
        /// All: for tests.
        On = "on",
    }
}

words! {
    /// When rows are put in order of their keys' hashes before a hash table.
    pub enum Partition {
        /// Never.
        Off = "off",
        /// Where an earlier run met a table much larger than the device's cache.
        Auto = "auto",
        /// Always: for tests.
        On = "on",
    }
}

settings! {
    /// Devices beside the processor: found at start, absent when their driver is.
    pub struct Devices = "devices" {
        /// Whether NVIDIA devices are used, through libcuda and NVRTC.
        cuda: bool = true, Plain;
        /// Which OpenCL devices are used: off, gpu, or all (processors too, for tests).
        opencl: OpenCl = OpenCl::Gpu, Plain;
        /// A simulated device, for tests: "" is none; "memory=64MiB,oom@allocation:7,seed=5" is one with a fault.
        simulated: String = String::new(), Plain;
        /// Memory that is taken of each device; 0 means 80 % of what is free when the server starts.
        memory_bytes: u64 = 0, Bytes, 0..=1 << 50;
        /// Where a rule decides (`trireme.placement`), parts of plans that scan fewer rows stay on the processor, unless a session demands a device.
        rows_min: u64 = 1_000_000, Count("rows"), 0..=1 << 50;
        /// How long a fragment waits for a device's memory before it runs on the processor.
        wait_ms: u64 = 2_000, Milliseconds, 0..=600_000;
        /// What runs fragments: auto (their own kernels, and until these are compiled an interpreter on the device where that is sooner), compiled, or interpreted.
        kernels: Kernels = Kernels::Auto, Plain;
        /// Which devices decode pages of files themselves, for columns that are not in memory: off, auto (those with memory of their own), or on.
        encoded: Encoded = Encoded::Auto, Plain;
        /// Whether rows are put in order of their keys' hashes before hash tables of joins and groups: off, auto (where an earlier run of the plan met a table much larger than the device's cache; never on processors), or on.
        partition: Partition = Partition::Auto, Plain;
        /// Folder for compiled kernels; "" means `.trireme/kernels` in the data folder.
        kernel_dir: Option<PathBuf> = None, Plain;
        /// Compiled kernels kept on disk; 0 means none.
        kernel_dir_bytes: u64 = 256 << 20, Bytes, 0..=1 << 40;
    }
}
