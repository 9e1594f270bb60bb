//! A graph's fragments as one kernel, so that the workers go from fragment to fragment by themselves.
//!
//! ```text
//!  fragment:  Waits ──inputs are there──▶ Preparing ──▶ Runs ──a step said done, none inside──▶ Finishing ──▶ Done
//! ```
//!
//! A worker takes the earliest fragment that has work. Fragments that don't read from one another run beside each other: what
//! one worker can't share of a small one, another spends on the next. Outputs are let go after their last reader.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use trireme_device_api::{DeviceError, Graph, Inputs, Kernel, Output, Progress, Rows, Variant};

/// Tells the sleeping workers that there may be work, and someone how long a fragment took.
pub(crate) struct Hooks {
    pub(crate) wake: Box<dyn Fn() + Send + Sync>,
    pub(crate) took: Box<dyn Fn(usize, Duration) + Send + Sync>,
}

/// A running graph. Its [`Kernel::finish`] gives the last fragment's rows.
pub(crate) struct GraphKernel {
    graph: Arc<Graph>,
    inputs: Inputs,
    variant: Arc<dyn Variant>,
    hooks: Hooks,
    state: Mutex<State>,
}

struct State {
    /// By fragment, as the outputs.
    stages: Vec<Stage>,
    outputs: Vec<Option<Output>>,
    /// Reads of each fragment's output that are still to come; it is let go at the last.
    readers: Vec<usize>,
    /// All before it are done.
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

/// What a worker can do for a fragment.
enum Work {
    Prepare(Vec<Option<Output>>),
    Step(Arc<dyn Kernel>),
}

impl GraphKernel {
    pub(crate) fn new(graph: &Arc<Graph>, inputs: Inputs, variant: Arc<dyn Variant>, hooks: Hooks) -> Self {
        let count = graph.fragments.len();
        let mut readers = vec![0; count];
        for input in graph.fragments.iter().flat_map(|fragment| fragment.inputs()) {
            readers[input] += 1;
        }
        Self {
            graph: Arc::clone(graph),
            inputs,
            variant,
            hooks,
            state: Mutex::new(State {
                stages: (0..count).map(|_| Stage::Waits).collect(),
                outputs: vec![None; count],
                readers,
                first: 0,
            }),
        }
    }

    /// Work for the fragment, if there is any at this moment.
    fn take(&self, id: usize) -> Option<Work> {
        let mut state = self.state.lock();
        match &mut state.stages[id] {
            Stage::Waits => {
                let inputs = self.graph.fragments[id].inputs();
                if !inputs.iter().all(|input| matches!(state.stages[*input], Stage::Done)) {
                    return None;
                }
                state.stages[id] = Stage::Busy;
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

    fn prepare(&self, id: usize, outputs: &[Option<Output>]) -> Result<(), DeviceError> {
        let began = Instant::now();
        let kernel = self.variant.prepare(&self.graph, id, &self.inputs, outputs)?;
        self.state.lock().stages[id] = Stage::Runs {
            kernel,
            began,
            inside: 0,
            closed: false,
        };
        (self.hooks.wake)();
        Ok(())
    }

    /// One step of a fragment's kernel; the last worker to leave a kernel that is done finishes it.
    fn step_one(&self, id: usize, worker: usize, kernel: &Arc<dyn Kernel>) -> Result<Progress, DeviceError> {
        let progress = kernel.step(worker)?;
        let began = {
            let mut state = self.state.lock();
            let Stage::Runs {
                inside, closed, began, ..
            } = &mut state.stages[id]
            else {
                return Ok(progress);
            };
            *inside -= 1;
            *closed |= progress == Progress::Done;
            if !*closed || *inside > 0 {
                return Ok(progress);
            }
            let began = *began;
            state.stages[id] = Stage::Busy;
            began
        };
        let output = kernel.finish()?;
        (self.hooks.took)(id, began.elapsed());
        let mut gone = Vec::new();
        {
            let mut state = self.state.lock();
            state.outputs[id] = Some(output);
            state.stages[id] = Stage::Done;
            for input in self.graph.fragments[id].inputs() {
                state.readers[input] -= 1;
                if state.readers[input] == 0 {
                    gone.push(state.outputs[input].take());
                }
            }
            while matches!(state.stages.get(state.first), Some(Stage::Done)) {
                state.first += 1;
            }
        }
        drop(gone);
        (self.hooks.wake)();
        Ok(Progress::More)
    }
}

impl Kernel for GraphKernel {
    fn step(&self, worker: usize) -> Result<Progress, DeviceError> {
        let first = self.state.lock().first;
        let count = self.graph.fragments.len();
        if first == count {
            return Ok(Progress::Done);
        }
        for id in first..count {
            match self.take(id) {
                Some(Work::Prepare(outputs)) => {
                    self.prepare(id, &outputs)?;
                    return Ok(Progress::More);
                }
                Some(Work::Step(kernel)) if self.step_one(id, worker, &kernel)? != Progress::Waiting => {
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
            _ => Output::Rows(Arc::new(Rows::default())),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use trireme_device_api::{
        Cost, Fragment, FragmentId, GRAPH_VERSION, JoinKind, Probe, Sink, Source, Step, Support, Unlimited, Workload,
    };

    use super::*;
    use crate::pool::WorkerPool;

    const STEPS: usize = 40;

    /// Notes what is prepared with which inputs there, and what ends.
    #[derive(Default)]
    struct Noted {
        prepared: Mutex<Vec<(FragmentId, Vec<bool>)>>,
        finished: Mutex<Vec<FragmentId>>,
        fails: Option<FragmentId>,
    }

    struct Counting(Arc<Noted>);

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
            took: Box::new(|_, _| {}),
        };
        let kernel = GraphKernel::new(&graph(reads), inputs, Arc::new(Counting(Arc::clone(noted))), hooks);
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
