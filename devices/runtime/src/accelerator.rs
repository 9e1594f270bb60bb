//! A device that runs fragments: what all its runs share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use trireme_device_api::{Device, DeviceError, DeviceInfo, DeviceState, FragmentId, Graph, Variant, Vitals};
use trireme_device_codegen::Hints;

use crate::arena::{Arena, Block};
use crate::columns::Tier;
use crate::driver::Driver;
use crate::executor::Executor;
use crate::held::Held;
use crate::host::HostEvaluator;
use crate::kernels::KernelCache;
use crate::programs::Programs;
use crate::tier::{Kernels, Runner};
use crate::variant::AcceleratorVariant;

/// Share of the device's memory that rows may take while they are put in order.
const PARTITION_SHARE: u64 = 4;

/// What a device may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Memory of the device, in bytes; never more than the driver allows.
    pub arena_bytes: u64,
    /// How long a run waits for device memory that others hold.
    pub wait: Duration,
    /// Runs anew with larger tables.
    pub retries: u32,
    /// The setting that limits the memory, for messages.
    pub setting: String,
    /// Where compiled kernels are kept for the next process; none keeps them in memory only.
    pub kernel_folder: Option<PathBuf>,
    /// Bytes that the folder may take.
    pub kernel_folder_bytes: u64,
    /// Runs behave as if memory were short: columns come in chunks of about so many bytes, scratch is shared. For tests.
    pub chunk_bytes: Option<u64>,
    /// What runs fragments.
    pub kernels: Kernels,
    /// Columns that are cold on the host come as pages, and are decoded on the device.
    pub encoded: Encoded,
    /// Rows are put in order before hash tables that are larger than the device's cache.
    pub partition: Partition,
}

/// When rows are put in order before a hash table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partition {
    /// Never.
    Off,
    /// Where an earlier run of the same graph met a table that is larger than the device's cache.
    Auto,
    /// Always: for tests.
    On,
}

/// Which devices decode pages themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoded {
    /// None.
    Off,
    /// Those with memory of their own: elsewhere the host decodes as well, and nothing crosses a bus.
    Auto,
    /// All.
    On,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            arena_bytes: u64::MAX,
            wait: Duration::from_secs(2),
            retries: 6,
            setting: "the device's memory".to_owned(),
            kernel_folder: None,
            kernel_folder_bytes: 256 << 20,
            chunk_bytes: None,
            kernels: Kernels::default(),
            encoded: Encoded::Off,
            partition: Partition::Auto,
        }
    }
}

/// Figures since the start.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) fragments: AtomicU64,
    pub(crate) launches: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) uploaded_bytes: AtomicU64,
    pub(crate) downloaded_bytes: AtomicU64,
    /// Outputs that were swapped out, their bytes, and those that came back.
    pub(crate) swaps: AtomicU64,
    pub(crate) swapped_bytes: AtomicU64,
    pub(crate) restored_bytes: AtomicU64,
    /// Bytes per second of the last large upload.
    pub(crate) upload_rate: AtomicU64,
}

/// What runs share.
pub(crate) struct Core {
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) arena: Arc<Arena>,
    pub(crate) columns: Tier,
    pub(crate) kernels: KernelCache,
    pub(crate) runner: Runner,
    pub(crate) programs: Programs,
    pub(crate) host: HostEvaluator,
    pub(crate) limits: Limits,
    pub(crate) counters: Counters,
    pub(crate) executor: Executor,
    /// Outputs in the device's memory.
    pub(crate) held: Mutex<Vec<Weak<Held>>>,
    /// Bytes that there was no room for last.
    pub(crate) refused: AtomicU64,
    /// Why the device is off.
    off: Mutex<Option<String>>,
}

impl Core {
    /// Fails when the device is off.
    ///
    /// # Errors
    /// [`DeviceError::Device`].
    pub(crate) fn check(&self) -> Result<(), DeviceError> {
        match self.state() {
            DeviceState::Off(reason) => Err(DeviceError::Device(reason)),
            _ => Ok(()),
        }
    }

    /// Memory, for which columns that nobody reads are dropped, then outputs of queries that wait are swapped out; none if
    /// there is no room.
    ///
    /// # Errors
    /// When the driver refuses.
    pub(crate) fn room(&self, bytes: u64) -> Result<Option<Block>, DeviceError> {
        loop {
            let block = self.arena.allocate(bytes)?;
            if block.is_some() {
                return Ok(block);
            }
            if bytes > self.arena.bytes() || !(self.columns.evict(bytes) || self.swap_out(bytes)?) {
                self.refused.store(bytes, Ordering::Relaxed);
                return Ok(None);
            }
        }
    }

    fn state(&self) -> DeviceState {
        match self.off.lock().clone() {
            Some(reason) => DeviceState::Off(reason),
            None => self.driver.state(),
        }
    }

    /// Whether columns come as pages.
    pub(crate) fn takes_pages(&self) -> bool {
        match self.limits.encoded {
            Encoded::Off => false,
            Encoded::Auto => self.driver.info().target.wide,
            Encoded::On => true,
        }
    }

    /// What is known of a fragment from earlier runs.
    pub(crate) fn hints(&self, graph: &Arc<Graph>, id: FragmentId) -> Hints {
        let mut hints = self.programs.hints(graph, id);
        if self.limits.partition == Partition::On {
            hints.partition = Some(self.partition_bytes());
        }
        hints
    }

    /// Notes that a fragment's table was larger than the cache.
    pub(crate) fn learn_large(&self, graph: &Arc<Graph>, id: FragmentId) {
        if self.limits.partition == Partition::Auto {
            let bytes = self.partition_bytes();
            self.programs.learn(graph, id, |hints| hints.partition = Some(bytes));
        }
    }

    /// Notes how many groups a fragment had.
    pub(crate) fn learn_groups(&self, graph: &Arc<Graph>, id: FragmentId, groups: u64) {
        let most = Some(groups.max(1).next_power_of_two());
        self.programs
            .learn(graph, id, |hints| hints.groups = hints.groups.max(most));
    }

    /// Memory that rows may take while they are put in order.
    fn partition_bytes(&self) -> u64 {
        self.arena.bytes() / PARTITION_SHARE
    }

    /// Notes an error: a lost device stays off.
    pub(crate) fn note(&self, error: &DeviceError) {
        if let DeviceError::Device(reason) = error {
            self.off.lock().get_or_insert_with(|| reason.clone());
        }
    }
}

/// A device over a driver.
pub struct Accelerator {
    core: Arc<Core>,
    variant: Arc<AcceleratorVariant>,
}

impl Accelerator {
    /// Takes the device's memory. `host` evaluates what only it can: expressions over dictionary entries.
    ///
    /// # Errors
    /// Those of the driver: [`DeviceError::OutOfMemory`], [`DeviceError::Device`].
    pub fn new(driver: Arc<dyn Driver>, host: Arc<dyn Variant>, limits: Limits) -> Result<Self, DeviceError> {
        let bytes = limits.arena_bytes.min(driver.info().arena_bytes_max);
        driver.reserve(bytes)?;
        let core = Arc::new(Core {
            arena: Arena::new(Arc::clone(&driver), bytes),
            columns: Tier::default(),
            kernels: KernelCache::new(
                Arc::clone(&driver),
                limits
                    .kernel_folder
                    .clone()
                    .map(|folder| (folder, limits.kernel_folder_bytes)),
            ),
            runner: Runner::default(),
            programs: Programs::default(),
            host: HostEvaluator::new(host),
            limits,
            counters: Counters::default(),
            executor: Executor::default(),
            held: Mutex::default(),
            refused: AtomicU64::new(0),
            off: Mutex::default(),
            driver,
        });
        core.begin_runner();
        let variant = Arc::new(AcceleratorVariant::new(Arc::clone(&core)));
        Ok(Self { core, variant })
    }

    #[cfg(test)]
    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    /// Drops what is only kept for later: programs, and columns in the device's memory that nobody reads at this moment.
    pub fn trim(&self) {
        self.core.programs.clear();
        self.core.columns.evict(u64::MAX);
    }
}

impl Device for Accelerator {
    fn info(&self) -> DeviceInfo {
        DeviceInfo {
            state: self.core.state(),
            ..self.core.driver.info().device.clone()
        }
    }

    fn vitals(&self) -> Vitals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.core.counters;
        Vitals {
            used_bytes: self.core.arena.used(),
            columns_bytes: self.core.columns.bytes(),
            evictions: self.core.columns.evictions(),
            swaps: read(&counters.swaps),
            swapped_bytes: read(&counters.swapped_bytes),
            fragments: read(&counters.fragments),
            launches: read(&counters.launches),
            syncs: read(&counters.syncs),
            uploaded_bytes: read(&counters.uploaded_bytes),
            downloaded_bytes: read(&counters.downloaded_bytes),
            upload_bytes_per_second: match read(&counters.upload_rate) {
                0 => None,
                #[expect(clippy::cast_precision_loss, reason = "a rate")]
                rate => Some(rate as f64),
            },
            interpreted: read(&self.core.runner.runs),
            compiled: read(&self.core.kernels.compiled),
            cached: read(&self.core.kernels.cached),
            ..self.core.driver.vitals()
        }
    }

    fn variant(&self) -> Arc<dyn Variant> {
        Arc::<AcceleratorVariant>::clone(&self.variant) as _
    }
}
