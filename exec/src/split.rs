//! A fragment that the processor and a device run at the same time, each some of its rows.
//!
//! ```text
//!  processor   morsel ── morsel ── morsel ── morsel ── … ───────────────────┐
//!              shared queue of morsels                                      ├─▶ parts ─▶ merge ─▶ rows
//!  device      build sides ── chunk ── chunk: half of its part of the rest ─┘
//! ```
//!
//! Who is faster takes more: the processor from the front, a morsel at a time; the device from the back, in chunks that get
//! smaller, and only while it is expected to end before the processor would have done them. A device that fails, or is late while
//! the processor has nothing left, gives back what it has not finished: the processor runs that, and nothing else again.
//!
//! Outside it is one fragment on the processor ([`crate::graph`]); who decides is [`trireme_costs::split`].

mod crew;
mod device;
mod end;
mod parts;
mod queue;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use trireme_device_api::{
    DeviceError, FragmentId, FragmentReport, Graph, Inputs, Kernel, Output, Progress, Rows, ScanInput, Shared, Source,
    Variant,
};

use crate::graph::Steer;
use crew::{Crew, Stepped};
use end::{add, rows_of};
pub(crate) use parts::Parts;
use queue::Morsels;

/// The part of what a device would get of the rest that it takes at once.
const CHUNK_SHARE: f64 = 0.5;

/// Why a device that could doesn't.
pub(crate) const COMPILING: &str = "its kernels are being compiled";

/// Who helps with a fragment.
pub(crate) struct Helper {
    pub(crate) fragment: FragmentId,
    pub(crate) variant: Arc<dyn Variant>,
    pub(crate) parts: Parts,
    /// Part of the rows that it is expected to run.
    pub(crate) share: f64,
    /// All rows, on the processor and there.
    pub(crate) host_ms: f64,
    pub(crate) device_ms: f64,
    /// A chunk that is as late as this, and later than twice what was expected, is taken from it when nobody else has work.
    pub(crate) late_min: Duration,
    /// It takes a chunk, whatever is expected.
    pub(crate) always: bool,
}

/// See the module.
pub(crate) struct SplitKernel {
    graph: Arc<Graph>,
    inputs: Inputs,
    /// By fragment of the whole.
    outputs: Vec<Option<Output>>,
    host: Arc<dyn Variant>,
    helper: Arc<Helper>,
    steer: Option<Arc<dyn Steer>>,
    morsels: Arc<Morsels>,
    began: Instant,
    state: Mutex<State>,
}

struct State {
    host: Host,
    device: Device,
    /// By fragment of the parts' graph: what the device made for itself.
    made: Vec<Option<Output>>,
    /// Rows of a millisecond, once a chunk was measured.
    device_rate: Option<f64>,
    parts: Vec<Arc<Rows>>,
    report: FragmentReport,
    shared: Shared,
    end: End,
}

/// Where the processor's part stands.
enum Host {
    /// It is to begin, or to begin again with what was given back.
    Begins,
    /// With how many times something had been given back before.
    Runs(Arc<Crew>, usize),
    /// A worker prepares or finishes it.
    Busy,
    Ended,
}

/// Where the device's part stands.
enum Device {
    /// Nothing was asked of it; these were set aside for it.
    Begins(Vec<usize>),
    Builds(Arc<dyn Kernel>, Vec<usize>),
    Next(Vec<usize>),
    Chunk(Chunk),
    /// A worker is at it.
    Busy,
    Ended,
}

#[derive(Clone)]
struct Chunk {
    kernel: Arc<dyn Kernel>,
    morsels: Vec<usize>,
    began: Instant,
    expected: Duration,
    /// It is done, but not to end before.
    until: Option<Instant>,
}

/// What comes after both.
enum End {
    NotYet,
    /// A worker is at it.
    Busy,
    /// A fragment of the merging graph.
    Merges(Arc<Crew>, FragmentId),
    /// The fragment runs undivided.
    Whole(Arc<dyn Kernel>),
    Done(Option<Output>),
}

impl SplitKernel {
    /// Of a fragment whose inputs on the processor are in `outputs`.
    ///
    /// # Errors
    /// [`DeviceError::Internal`] when it can't be cut.
    pub(crate) fn new(
        graph: &Arc<Graph>,
        inputs: &Inputs,
        outputs: &[Option<Output>],
        (host, helper): (&Arc<dyn Variant>, &Arc<Helper>),
        steer: Option<Arc<dyn Steer>>,
    ) -> Result<Self, DeviceError> {
        let Some(Source::Scan(scan)) = graph.fragments.get(helper.fragment).map(|fragment| &fragment.source) else {
            return Err(DeviceError::Internal("only a scan is shared".to_owned()));
        };
        let morsels = Morsels::new(&inputs.scans[*scan]);
        let first = morsels.free_rows() as f64 * helper.share * CHUNK_SHARE;
        let aside = match first >= 1.0 || helper.always {
            true => morsels.take(whole(first)),
            false => Vec::new(),
        };
        let state = State {
            host: Host::Begins,
            device: Device::Begins(aside),
            made: vec![None; helper.parts.graph.fragments.len()],
            device_rate: None,
            parts: Vec::new(),
            report: FragmentReport::default(),
            shared: Shared {
                device: helper.variant.device().to_owned(),
                ..Shared::default()
            },
            end: End::NotYet,
        };
        if let Some(steer) = &steer {
            steer.shares(
                helper.fragment,
                helper.variant.device(),
                helper.device_ms * helper.share,
            );
        }
        Ok(Self {
            graph: Arc::clone(graph),
            inputs: inputs.clone(),
            outputs: outputs.to_vec(),
            host: Arc::clone(host),
            helper: Arc::clone(helper),
            steer,
            morsels,
            began: Instant::now(),
            state: Mutex::new(state),
        })
    }

    fn scan(&self) -> usize {
        match self.graph.fragments[self.helper.fragment].source {
            Source::Scan(scan) => scan,
            _ => 0,
        }
    }

    fn wake(&self) {
        if let Some(wake) = &self.inputs.wake {
            wake();
        }
    }

    /// The inputs with another scan in the fragment's place; rows stay columns.
    fn inputs_with(&self, scan: Arc<dyn ScanInput>) -> Inputs {
        let mut inputs = self.inputs.clone();
        inputs.scans[self.scan()] = scan;
        inputs.emit = None;
        inputs
    }
}

/// The processor's part.
impl SplitKernel {
    fn prepare_host(&self) -> Result<Arc<dyn Kernel>, DeviceError> {
        let parts = &self.helper.parts;
        let outputs: Vec<_> = parts.ids.iter().map(|id| self.outputs[*id].clone()).collect();
        let inputs = self.inputs_with(self.morsels.for_host());
        self.host.prepare(&parts.graph, parts.cut(), &inputs, &outputs)
    }

    fn step_host(&self, worker: usize) -> Result<Progress, DeviceError> {
        let mut state = self.state.lock();
        let (crew, returns) = match &state.host {
            Host::Begins => {
                state.host = Host::Busy;
                let returns = self.morsels.returns();
                drop(state);
                let kernel = self.prepare_host()?;
                self.state.lock().host = Host::Runs(Arc::new(Crew::new(kernel)), returns);
                self.wake();
                return Ok(Progress::More);
            }
            Host::Runs(crew, returns) => (Arc::clone(crew), *returns),
            _ => return Ok(Progress::Waiting),
        };
        drop(state);
        match crew.step(worker) {
            Stepped::Goes(progress) => return Ok(progress),
            Stepped::Last(Some(error)) => self.undivided(error)?,
            Stepped::Last(None) => self.end_host(crew.kernel(), returns)?,
        }
        Ok(Progress::More)
    }

    fn end_host(&self, kernel: &dyn Kernel, returns: usize) -> Result<(), DeviceError> {
        let rows = match kernel.finish() {
            Ok(output) => rows_of(output)?,
            Err(error) => return self.undivided(error),
        };
        let mut state = self.state.lock();
        state.parts.push(rows);
        for (_, report) in kernel.reports() {
            add(&mut state.report, &report);
        }
        // The device may have given something back meanwhile, which this kernel may have passed already.
        state.host = match self.morsels.returns() == returns {
            true => {
                self.morsels.leave_out();
                Host::Ended
            }
            false if self.morsels.free_rows() == 0 => Host::Ended,
            false => Host::Begins,
        };
        drop(state);
        self.wake();
        Ok(())
    }

    /// A part may overflow where the whole doesn't, and whoever computes all rows knows.
    fn undivided(&self, error: DeviceError) -> Result<(), DeviceError> {
        if !matches!(error, DeviceError::Arithmetic(_)) {
            return Err(error);
        }
        let fragment = self.helper.fragment;
        let kernel = self.host.prepare(&self.graph, fragment, &self.inputs, &self.outputs)?;
        let mut state = self.state.lock();
        state.host = Host::Ended;
        state.end = End::Whole(kernel);
        state.shared = Shared::default();
        drop(state);
        self.wake();
        Ok(())
    }
}

impl Kernel for SplitKernel {
    fn step(&self, worker: usize) -> Result<Progress, DeviceError> {
        if let Some(progress) = self.step_end(worker)? {
            return Ok(progress);
        }
        if self.step_device()? == Progress::More {
            return Ok(Progress::More);
        }
        self.step_host(worker)
    }

    fn finish(&self) -> Result<Output, DeviceError> {
        let mut state = self.state.lock();
        match &mut state.end {
            End::Done(output) => output.take(),
            End::Whole(kernel) => {
                let kernel = Arc::clone(kernel);
                drop(state);
                return kernel.finish();
            }
            _ => None,
        }
        .ok_or_else(|| DeviceError::Internal("a shared fragment that is not done was finished".to_owned()))
    }

    fn reports(&self) -> Vec<(FragmentId, FragmentReport)> {
        let state = self.state.lock();
        let fragment = self.helper.fragment;
        if let End::Whole(kernel) = &state.end {
            return kernel.reports();
        }
        let report = FragmentReport {
            // Of the parts; what is merged is counted by who reads it.
            output_rows: None,
            shared: Some(state.shared.clone()),
            ..state.report.clone()
        };
        vec![(fragment, report)]
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of rows; what is too large is the largest"
)]
fn whole(rows: f64) -> usize {
    rows as usize
}
