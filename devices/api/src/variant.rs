//! Variants and the kernels they prepare.
//!
//! A kernel is run by many workers at once, a step at a time, until it is done; then it is finished once. Its morsels are its
//! own affair. A step never blocks: without input, or with the client behind, it says [`Progress::Waiting`].

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::RecordBatch;

use crate::column::{DeviceColumn, ScanInput};
use crate::cost::{Cost, Workload};
use crate::error::DeviceError;
use crate::fragment::{FragmentId, Graph};
use crate::memory::{DevicePool, Reservation};
use crate::types::Value;

/// Whether a variant can run a fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Support {
    /// [`Variant::prepare`] succeeds, or runs out of memory.
    Supported,
    /// It can't.
    Unsupported {
        /// Why, for EXPLAIN.
        reason: String,
    },
}

/// One way to run fragments on one device.
pub trait Variant: Send + Sync {
    /// Its name: `fused`.
    fn name(&self) -> &'static str;

    /// The id of its device: `cpu0`.
    fn device(&self) -> &str;

    /// Whether it can run this fragment.
    fn support(&self, graph: &Graph, fragment: FragmentId) -> Support;

    /// What it would cost; finite and not negative; more bytes never cost less.
    fn estimate(&self, graph: &Graph, fragment: FragmentId, workload: &Workload) -> Cost;

    /// As [`Variant::support`] of every fragment, now that inputs are bound: what is known of columns may rule some out.
    fn support_bound(&self, graph: &Arc<Graph>, inputs: &Inputs) -> Vec<Support> {
        let _ = inputs;
        (0..graph.fragments.len()).map(|id| self.support(graph, id)).collect()
    }

    /// Whether all that running this graph needs is compiled. What isn't is compiled in the background from now on, so that
    /// whoever doesn't insist on this device can run the graph elsewhere meanwhile.
    fn warm(&self, graph: &Arc<Graph>, inputs: &Inputs) -> bool {
        let _ = (graph, inputs);
        true
    }

    /// By scan of the graph: the share of its columns that is in the device's memory, 0 … 1; what is missing is not there.
    fn resident(&self, inputs: &Inputs) -> Vec<f64> {
        let _ = inputs;
        Vec::new()
    }

    /// Makes several fragments ready to run as one, for devices that gain by it; the kernel's output is [`Output::Many`].
    /// Their inputs are among them or in `outputs`; `fragments` ascend.
    ///
    /// # Errors
    /// As [`Variant::prepare`]; [`DeviceError::Unsupported`] by variants that run each by itself.
    fn prepare_many(
        &self,
        graph: &Arc<Graph>,
        fragments: &[FragmentId],
        inputs: &Inputs,
        outputs: &[Option<Output>],
    ) -> Result<Arc<dyn Kernel>, DeviceError> {
        let _ = (graph, fragments, inputs, outputs);
        Err(DeviceError::Unsupported("fragments run one by one".to_owned()))
    }

    /// Makes a fragment ready to run. `outputs` holds those of earlier fragments, by id.
    ///
    /// # Errors
    /// When memory is short, or the data is not what the profile promised.
    fn prepare(
        &self,
        graph: &Arc<Graph>,
        fragment: FragmentId,
        inputs: &Inputs,
        outputs: &[Option<Output>],
    ) -> Result<Arc<dyn Kernel>, DeviceError>;
}

/// What a graph runs on.
#[derive(Clone)]
pub struct Inputs {
    /// Tables, as [`Graph::scans`].
    pub scans: Vec<Arc<dyn ScanInput>>,
    /// Streams, as [`Graph::streams`].
    pub streams: Vec<Arc<dyn StreamInput>>,
    /// Values, as [`Graph::parameters`].
    pub parameters: Vec<Value>,
    /// Threads that may call [`Kernel::step`] at once, numbered from 0.
    pub workers: usize,
    /// Where memory comes from.
    pub pool: Arc<dyn DevicePool>,
    /// Set when the query is cancelled; kernels look once per morsel.
    pub cancelled: Arc<AtomicBool>,
    /// Rows of a result batch.
    pub batch_rows: usize,
    /// Where the last fragment's rows go when its sink is emit; without it they are kept as [`Output::Rows`].
    pub emit: Option<Arc<dyn Emit>>,
    /// To call when a kernel that said [`Progress::Waiting`] may go on; without it kernels are asked again and again.
    pub wake: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// A running fragment.
pub trait Kernel: Send + Sync {
    /// Does one morsel's work. After an error no further step is called.
    ///
    /// # Errors
    /// When the fragment fails.
    fn step(&self, worker: usize) -> Result<Progress, DeviceError>;

    /// The output; called once, when a step said done and no step runs.
    ///
    /// # Errors
    /// When the fragment fails.
    fn finish(&self) -> Result<Output, DeviceError>;

    /// What running took, fragment by fragment, where the device counts it. Asked after `finish`, also after a failure.
    fn reports(&self) -> Vec<(FragmentId, FragmentReport)> {
        Vec::new()
    }
}

/// What running one fragment took.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FragmentReport {
    /// Rows of the source.
    pub input_rows: u64,
    /// Rows that reached its sink, where they were counted.
    pub sink_rows: Option<u64>,
    /// Rows it left, where they were counted.
    pub output_rows: Option<u64>,
    /// Bytes copied to the device for it.
    pub uploaded_bytes: u64,
    /// Of these, columns that were decoded on the device.
    pub encoded_bytes: u64,
    /// What those columns are when they are decoded.
    pub decoded_bytes: u64,
    /// Columns of segments that were decoded on the host although the device could have done it, by reason.
    pub host_decoded: BTreeMap<&'static str, u32>,
    /// Bytes copied back.
    pub downloaded_bytes: u64,
    /// Bytes that it reads and that had been swapped to the host's memory: copied to the device again.
    pub restored_bytes: u64,
    /// Kernels launched.
    pub launches: u32,
    /// Times that the host waited for the device.
    pub syncs: u32,
    /// Runs anew because a table was too small.
    pub retries: u32,
    /// Kernels that were compiled, not found in a cache.
    pub compiled: u32,
    /// It ran as data for a kernel that runs any program: its own were not compiled.
    pub interpreted: bool,
    /// Time to compile and load kernels.
    pub compile_ns: u64,
    /// Time of kernels, where the device tells.
    pub kernel_ns: u64,
    /// Time of copies, as the host saw it.
    pub copy_ns: u64,
    /// Time in which some worker of the host loaded columns for it: fetching, decoding. 0 where that isn't told.
    pub load_ns: u64,
    /// The device that ran a part of its rows at the same time.
    pub shared: Option<Shared>,
}

/// The part of a fragment's rows that another device ran.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shared {
    /// The device.
    pub device: String,
    /// Rows of the source that it ran, by itself.
    pub rows: u64,
    /// How many times it took some of them.
    pub chunks: u32,
    /// Why it ran less than it could have, if it failed or was late.
    pub left: Option<String>,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It worked; there may be more.
    More,
    /// Nothing to do at this moment: other workers end a phase, or input or the client is behind.
    Waiting,
    /// Nothing more to do, for any worker.
    Done,
}

/// What a fragment leaves.
#[derive(Clone)]
pub enum Output {
    /// Rows.
    Rows(Arc<Rows>),
    /// A build side, which only variants of the same device understand, and its rows.
    Build {
        /// The table.
        table: Arc<dyn Any + Send + Sync>,
        /// Rows in it.
        rows: usize,
    },
    /// Rows in the device's memory, which only variants of the same device read.
    Resident(Arc<dyn Resident>),
    /// Those of several fragments that ran as one.
    Many(Vec<(FragmentId, Output)>),
}

/// Rows in a device's memory.
pub trait Resident: Send + Sync {
    /// There are at most so many.
    fn rows_max(&self) -> u64;

    /// A copy in the host's memory. Waits for the device.
    ///
    /// # Errors
    /// What the fragment, or one that it reads from, failed with; when the device is lost.
    fn download(&self) -> Result<Arc<Rows>, DeviceError>;

    /// The device's own type.
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

/// Rows as segments of columns.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    /// Columns of each segment, all of the same number of rows; no segment is empty of columns' shape: a string column is
    /// codes of one dictionary in all segments, or strings in all.
    pub segments: Vec<(usize, Vec<Arc<DeviceColumn>>)>,
    /// What they take of a query's memory.
    pub held: Vec<Arc<Reservation>>,
}

impl Rows {
    /// Rows of all segments.
    pub fn rows(&self) -> usize {
        self.segments.iter().map(|(rows, _)| rows).sum()
    }
}

/// A stream of Arrow batches that some operator below makes.
pub trait StreamInput: Send + Sync {
    /// The next batch, if there is one at this moment. Called from several threads.
    ///
    /// # Errors
    /// What the operator failed with.
    fn poll(&self) -> Result<StreamPoll, DeviceError>;
}

/// What a stream has.
#[derive(Debug, Clone)]
pub enum StreamPoll {
    /// A batch.
    Batch(RecordBatch),
    /// Nothing at this moment.
    Waiting,
    /// Nothing more.
    End,
}

/// Takes result batches.
pub trait Emit: Send + Sync {
    /// False while the client is behind.
    fn ready(&self) -> bool;

    /// Takes a batch, also when it is not ready.
    fn push(&self, batch: RecordBatch);
}
