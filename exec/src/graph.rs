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
    /// Fragments that read each fragment's output.
    state: Mutex<State>,
}

struct State {
    stages: Vec<Stage>,
    outputs: Vec<Option<Output>>,
    /// Readers of each fragment's output that are not done.
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
