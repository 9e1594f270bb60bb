//! A graph's fragments as one kernel, so that the workers go from fragment to fragment by themselves.
//!
//! ```text
//!  unit:  Waits ──inputs are there──▶ Preparing ──▶ Runs ──a step said done, none inside──▶ Finishing ──▶ Done
//! ```
//!
//! A unit is one fragment, or an island of several that a device runs as one ([`crate::placement`]). A worker takes the
//! earliest unit that has work. Units that don't read from one another run beside each other: what
//! one worker can't share of a small one, another spends on the next. Outputs are let go after their last reader.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use trireme_device_api::{
    DeviceError, FragmentId, FragmentReport, Graph, Inputs, Kernel, Output, Progress, Rows, Variant,
};

use crate::placement::{Placement, Unit};

/// What running a fragment took.
pub(crate) struct Took<'a> {
    pub(crate) fragment: FragmentId,
    pub(crate) variant: &'a dyn Variant,
    /// From its preparation to its output; of several that ran as one, the last has the time of all.
    pub(crate) time: Duration,
    /// What the device counted.
    pub(crate) report: FragmentReport,
}

/// Tells the sleeping workers that there may be work, and someone what a fragment took.
pub(crate) struct Hooks {
    pub(crate) wake: Box<dyn Fn() + Send + Sync>,
    pub(crate) took: Box<dyn Fn(Took<'_>) + Send + Sync>,
}

/// A running graph. Its [`Kernel::finish`] gives the last fragment's rows.
pub(crate) struct GraphKernel {
    graph: Arc<Graph>,
    inputs: Inputs,
    units: Vec<Unit>,
    /// By unit: the fragments of other units that it reads.
    reads: Vec<Vec<FragmentId>>,
    hooks: Hooks,
    state: Mutex<State>,
}

struct State {
    /// By unit.
    stages: Vec<Stage>,
    /// By fragment.
    outputs: Vec<Option<Output>>,
    /// By fragment: it was there, though it may have been let go.
    done: Vec<bool>,
    /// Units that are still to read each fragment's output; it is let go at the last.
    readers: Vec<usize>,
    /// All units before it are done.
    first: usize,
}

enum Stage {
    Waits,
    /// A worker prepares or finishes it.
    Busy,
    Runs {
        kernel: Arc<dyn Kernel>,
        began: Instant,
        inside: usize,
        /// A step said done.
        closed: bool,
    },
    Done,
}

/// What a worker can do for a unit.
enum Work {
    Prepare(Vec<Option<Output>>),
    Step(Arc<dyn Kernel>),
}

impl GraphKernel {
    pub(crate) fn new(graph: &Arc<Graph>, inputs: Inputs, placement: Placement, hooks: Hooks) -> Self {
        let units = placement.units;
        let reads: Vec<Vec<FragmentId>> = units.iter().map(|unit| reads(graph, unit)).collect();
        let count = graph.fragments.len();
        let mut readers = vec![0; count];
        for input in reads.iter().flatten() {
            readers[*input] += 1;
        }
        Self {
            graph: Arc::clone(graph),
            inputs,
            reads,
            hooks,
            state: Mutex::new(State {
                stages: units.iter().map(|_| Stage::Waits).collect(),
                outputs: vec![None; count],
                done: vec![false; count],
                readers,
                first: 0,
            }),
            units,
        }
    }

    /// Work for the unit, if there is any at this moment.
    fn take(&self, at: usize) -> Option<Work> {
        let mut state = self.state.lock();
        match &mut state.stages[at] {
            Stage::Waits => {
                if !self.reads[at].iter().all(|input| state.done[*input]) {
                    return None;
                }
                state.stages[at] = Stage::Busy;
                Some(Work::Prepare(state.outputs.clone()))
            }
            Stage::Runs {
                kernel, inside, closed, ..
            } if !*closed => {
                *inside += 1;
                Some(Work::Step(Arc::clone(kernel)))
            }
            _ => None,
        }
    }

    fn prepare(&self, at: usize, outputs: &mut [Option<Output>]) -> Result<(), DeviceError> {
        let began = Instant::now();
        let unit = &self.units[at];
        for input in &self.reads[at] {
            if let Some(Output::Resident(rows)) = &outputs[*input]
                && !(unit.island && self.is_made_by(*input, unit.variant.device()))
            {
                outputs[*input] = Some(Output::Rows(rows.download()?));
            }
        }
        let kernel = if unit.island {
            unit.variant
                .prepare_many(&self.graph, &unit.fragments, &self.inputs, outputs)?
        } else {
            unit.variant
                .prepare(&self.graph, unit.fragments[0], &self.inputs, outputs)?
        };
        self.state.lock().stages[at] = Stage::Runs {
            kernel,
            began,
            inside: 0,
            closed: false,
        };
        (self.hooks.wake)();
        Ok(())
    }

    /// Whether a fragment runs on that device.
    fn is_made_by(&self, fragment: FragmentId, device: &str) -> bool {
        let mut makers = self.units.iter().filter(|unit| unit.fragments.contains(&fragment));
        makers.any(|unit| unit.variant.device() == device)
    }

    /// One step of a unit's kernel; the last worker to leave a kernel that is done finishes it.
    fn step_one(&self, at: usize, worker: usize, kernel: &Arc<dyn Kernel>) -> Result<Progress, DeviceError> {
        let progress = kernel.step(worker)?;
        let began = {
            let mut state = self.state.lock();
            let Stage::Runs {
                inside, closed, began, ..
            } = &mut state.stages[at]
            else {
                return Ok(progress);
            };
            *inside -= 1;
            *closed |= progress == Progress::Done;
            if !*closed || *inside > 0 {
                return Ok(progress);
            }
            let began = *began;
            state.stages[at] = Stage::Busy;
            began
        };
        let output = kernel.finish()?;
        self.report(at, kernel.as_ref(), &output, began.elapsed());
        drop(self.keep(at, output));
        (self.hooks.wake)();
        Ok(Progress::More)
    }

    /// Puts a unit's output where others find it; gives what nobody reads any more, to be dropped without the lock.
    fn keep(&self, at: usize, output: Output) -> Vec<Option<Output>> {
        let mut state = self.state.lock();
        let unit = &self.units[at];
        match output {
            Output::Many(outputs) => {
                for (id, output) in outputs {
                    state.outputs[id] = Some(output);
                }
            }
            output => state.outputs[unit.fragments[0]] = Some(output),
        }
        for id in &unit.fragments {
            state.done[*id] = true;
        }
        state.stages[at] = Stage::Done;
        let mut gone = Vec::new();
        for input in &self.reads[at] {
            state.readers[*input] -= 1;
            if state.readers[*input] == 0 {
                gone.push(state.outputs[*input].take());
            }
        }
        let last = self.graph.fragments.len() - 1;
        for id in unit.fragments.iter().filter(|id| **id != last) {
            if state.readers[*id] == 0 {
                gone.push(state.outputs[*id].take());
            }
        }
        while matches!(state.stages.get(state.first), Some(Stage::Done)) {
            state.first += 1;
        }
        gone
    }

    fn report(&self, at: usize, kernel: &dyn Kernel, output: &Output, time: Duration) {
        let unit = &self.units[at];
        let reports = kernel.reports();
        for id in &unit.fragments {
            let found = reports.iter().find(|(fragment, _)| fragment == id);
            let mut report = found.map(|(_, report)| report.clone()).unwrap_or_default();
            report.output_rows = report.output_rows.or(match output {
                Output::Rows(rows) => Some(rows.rows() as u64),
                Output::Build { rows, .. } => Some(*rows as u64),
                _ => None,
            });
            let last = unit.fragments.last() == Some(id);
            (self.hooks.took)(Took {
                fragment: *id,
                variant: unit.variant.as_ref(),
                time: if last {
                    time
                } else {
                    Duration::from_nanos(report.kernel_ns)
                },
                report,
            });
        }
    }
}

/// Fragments of other units that a unit reads, each once.
fn reads(graph: &Graph, unit: &Unit) -> Vec<FragmentId> {
    let inputs = unit.fragments.iter().flat_map(|id| graph.fragments[*id].inputs());
    let mut found: Vec<_> = inputs.filter(|input| !unit.fragments.contains(input)).collect();
    found.sort_unstable();
    found.dedup();
    found
}

impl Kernel for GraphKernel {
    fn step(&self, worker: usize) -> Result<Progress, DeviceError> {
        let first = self.state.lock().first;
        let count = self.units.len();
        if first == count {
            return Ok(Progress::Done);
        }
        for at in first..count {
            match self.take(at) {
                Some(Work::Prepare(mut outputs)) => {
                    self.prepare(at, &mut outputs)?;
                    return Ok(Progress::More);
                }
                Some(Work::Step(kernel)) if self.step_one(at, worker, &kernel)? != Progress::Waiting => {
                    return Ok(Progress::More);
                }
                _ => {}
            }
        }
        Ok(Progress::Waiting)
    }

    fn finish(&self) -> Result<Output, DeviceError> {
        let last = self.state.lock().outputs.pop().flatten();
        Ok(match last {
            Some(output @ Output::Rows(_)) => output,
            Some(Output::Resident(rows)) => Output::Rows(rows.download()?),
            _ => Output::Rows(Arc::new(Rows::default())),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use trireme_device_api::{
        Cost, Fragment, GRAPH_VERSION, JoinKind, Probe, Sink, Source, Step, Support, Unlimited, Workload,
    };

    use super::*;
    use crate::pool::WorkerPool;

    const STEPS: usize = 40;

    /// Notes what is prepared with which inputs there, and what ends.
    #[derive(Default)]
    pub(crate) struct Noted {
        prepared: Mutex<Vec<(FragmentId, Vec<bool>)>>,
        finished: Mutex<Vec<FragmentId>>,
        fails: Option<FragmentId>,
    }

    #[derive(Default)]
    pub(crate) struct Counting(Arc<Noted>);

    struct Steps {
        id: FragmentId,
        left: AtomicUsize,
        inside: AtomicUsize,
        noted: Arc<Noted>,
    }

    impl Variant for Counting {
        fn name(&self) -> &'static str {
            "counting"
        }

        fn device(&self) -> &str {
            "test0"
        }

        fn support(&self, _graph: &Graph, _fragment: FragmentId) -> Support {
            Support::Supported
        }

        fn estimate(&self, _graph: &Graph, _fragment: FragmentId, _workload: &Workload) -> Cost {
            Cost::default()
        }

        fn prepare(
            &self,
            _graph: &Arc<Graph>,
            fragment: FragmentId,
            _inputs: &Inputs,
            outputs: &[Option<Output>],
        ) -> Result<Arc<dyn Kernel>, DeviceError> {
            let there = outputs.iter().map(Option::is_some).collect();
            self.0.prepared.lock().push((fragment, there));
            Ok(Arc::new(Steps {
                id: fragment,
                left: AtomicUsize::new(STEPS),
                inside: AtomicUsize::new(0),
                noted: Arc::clone(&self.0),
            }))
        }
    }

    impl Kernel for Steps {
        fn step(&self, _worker: usize) -> Result<Progress, DeviceError> {
            self.inside.fetch_add(1, Ordering::SeqCst);
            std::thread::yield_now();
            let left = self
                .left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            self.inside.fetch_sub(1, Ordering::SeqCst);
            match left {
                Ok(_) if self.noted.fails == Some(self.id) => Err(DeviceError::Arithmetic("overflow".to_owned())),
                Ok(_) => Ok(Progress::More),
                Err(_) => Ok(Progress::Done),
            }
        }

        fn finish(&self) -> Result<Output, DeviceError> {
            assert_eq!(
                self.inside.load(Ordering::SeqCst),
                0,
                "finished while a worker is inside"
            );
            self.noted.finished.lock().push(self.id);
            Ok(Output::Rows(Arc::new(Rows::default())))
        }
    }

    /// Each fragment reads the ones listed.
    fn graph(reads: &[&[FragmentId]]) -> Arc<Graph> {
        let fragment = |builds: &&[FragmentId]| Fragment {
            source: Source::Scan(0),
            steps: builds
                .iter()
                .map(|build| {
                    Step::Probe(Probe {
                        build: *build,
                        kind: JoinKind::Inner,
                        keys: Vec::new(),
                        residual: None,
                        null_equals_null: false,
                        null_aware: false,
                    })
                })
                .collect(),
            sink: Sink::Emit { limit: None, offset: 0 },
            output: Vec::new(),
        };
        Arc::new(Graph {
            version: GRAPH_VERSION,
            fragments: reads.iter().map(fragment).collect(),
            scans: Vec::new(),
            streams: Vec::new(),
            parameters: Vec::new(),
            output: Vec::new(),
        })
    }

    async fn run(reads: &[&[FragmentId]], noted: &Arc<Noted>) -> Result<(), DeviceError> {
        let pool = WorkerPool::new(3).unwrap();
        let cancelled = Arc::new(AtomicBool::new(false));
        let inputs = Inputs {
            scans: Vec::new(),
            streams: Vec::new(),
            parameters: Vec::new(),
            workers: pool.workers(),
            pool: Arc::new(Unlimited),
            cancelled: Arc::clone(&cancelled),
            batch_rows: 8192,
            emit: None,
            wake: None,
        };
        let hooks = Hooks {
            wake: pool.waker(),
            took: Box::new(|_| {}),
        };
        let graph = graph(reads);
        let variant: Arc<dyn Variant> = Arc::new(Counting(Arc::clone(noted)));
        let kernel = GraphKernel::new(&graph, inputs, Placement::single(&graph, &variant), hooks);
        let kernel = Arc::new(kernel);
        pool.run(Arc::clone(&kernel) as _, &cancelled).await?;
        kernel.finish().map(drop)
    }

    #[tokio::test]
    async fn each_fragment_is_finished_once_after_those_it_reads() {
        let reads: [&[FragmentId]; 6] = [&[], &[], &[0], &[0, 1], &[2], &[3, 4]];
        for _ in 0..50 {
            let noted = Arc::new(Noted::default());
            run(&reads, &noted).await.unwrap();
            let mut finished = noted.finished.lock().clone();
            let place = |id: FragmentId| finished.iter().position(|other| *other == id);
            for (id, inputs) in reads.iter().enumerate() {
                assert!(inputs.iter().all(|input| place(*input) < place(id)), "{finished:?}");
            }
            finished.sort_unstable();
            assert_eq!(finished, [0, 1, 2, 3, 4, 5]);
            for (id, there) in noted.prepared.lock().iter() {
                assert!(reads[*id].iter().all(|input| there[*input]), "{id}: {there:?}");
            }
            // The last reads 3 and 4 only: what they were made from is gone.
            let last = noted.prepared.lock().last().cloned().unwrap();
            assert_eq!(last, (5, vec![false, false, false, true, true, false]));
        }
    }

    #[tokio::test]
    async fn a_failing_fragment_ends_the_graph() {
        let noted = Arc::new(Noted {
            fails: Some(1),
            ..Noted::default()
        });
        let failed = run(&[&[], &[0], &[1]], &noted).await;
        assert_eq!(failed, Err(DeviceError::Arithmetic("overflow".to_owned())));
        assert_eq!(*noted.finished.lock(), [0]);
    }
}
