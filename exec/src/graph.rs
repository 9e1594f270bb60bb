//! A graph's fragments as one kernel, so that the workers go from fragment to fragment by themselves.
//!
//! ```text
//!  unit:  Waits ──inputs are there──▶ Busy ──▶ Runs ──a step said done, none inside──▶ Busy ──▶ Done
//!           │ held back ▶ Held ▶ Busy           └─ a step failed, none inside ─▶ Fails ─▶ Gone: its fragments are placed anew
//!           └─ placed anew before it started ─▶ Gone
//! ```
//!
//! A unit is one fragment, or an island of several that a device runs as one ([`crate::placement`]). A worker takes the
//! earliest unit that has work. Units that don't read from one another run beside each other: what
//! one worker can't share of a small one, another spends on the next. Outputs are let go after their last reader ([`state`]).
//! Where fragments run is not decided here: who [`Steer`]s is told what starts, ends and fails, and may say anew.

mod state;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use trireme_device_api::{
    DeviceError, ErrorAction, FragmentId, FragmentReport, Graph, Inputs, Kernel, Output, Progress, Rows, Variant,
};

use crate::history::Resteer;
use crate::placement::{Placement, Unit};
use crate::split::{Helper, SplitKernel};
use state::{Stage, State};

/// A graph that fails more often fails.
const MENDED_MAX: usize = 32;

/// What running a fragment took.
pub(crate) struct Took<'a> {
    pub(crate) fragment: FragmentId,
    pub(crate) variant: &'a dyn Variant,
    /// From its preparation to its output; of several that ran as one, the last has the time of all.
    pub(crate) time: Duration,
    /// What the device counted.
    pub(crate) report: FragmentReport,
    /// Why it ran here and not where it was before.
    pub(crate) fallback: Option<String>,
}

/// Tells the sleeping workers that there may be work, and someone what a fragment took.
pub(crate) struct Hooks {
    pub(crate) wake: Box<dyn Fn() + Send + Sync>,
    pub(crate) took: Box<dyn Fn(Took<'_>) + Send + Sync>,
    /// A row was handed out: what leaves rows can't run again.
    pub(crate) begun: Box<dyn Fn() -> bool + Send + Sync>,
    pub(crate) steer: Option<Arc<dyn Steer>>,
}

/// Where a fragment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has not started.
    Waits,
    Runs,
    Done,
}

/// Whether a unit starts.
pub(crate) enum Start {
    Now,
    /// Not before.
    Later(Instant),
    /// What has not started is placed anew.
    Anew(Box<Verdict>),
}

/// What has not started runs elsewhere from now on.
pub(crate) struct Verdict {
    pub(crate) record: Resteer,
    pub(crate) seats: Seats,
}

/// By fragment, those that ran among them.
pub(crate) struct Seats {
    /// The device; none is the host.
    pub(crate) on: Vec<Option<Arc<dyn Variant>>>,
    /// What reads it waits for its end.
    pub(crate) breaks: Vec<bool>,
    /// Devices whose memory can't be read any more.
    pub(crate) lost: Vec<String>,
    /// Why fragments that ran or ran elsewhere are placed anew, when they have to be.
    pub(crate) fallback: Option<String>,
}

/// Watches a running graph, and says where what is left of it runs.
pub(crate) trait Steer: Send + Sync {
    /// A unit can start; asked once, and again after [`Start::Later`].
    ///
    /// # Errors
    /// A planted fault, as if the unit failed.
    fn starts(&self, unit: &Unit, standing: &[Standing]) -> Result<Start, DeviceError>;

    /// A worker is about to do a step of these fragments on a device.
    ///
    /// # Errors
    /// As [`Steer::starts`].
    fn steps(&self, device: &str, fragments: &[FragmentId]) -> Result<(), DeviceError>;

    /// What began then is done on a device: when it is to end, if that is not yet.
    fn held(&self, device: &str, began: Instant) -> Option<Instant>;

    /// How long a device is said to be busy when a graph begins, in milliseconds.
    fn busy_ms(&self, device: &str) -> Option<f64>;

    /// A device runs a part of a fragment of the processor, and is expected to take so long.
    fn shares(&self, fragment: FragmentId, device: &str, expected_ms: f64);

    /// It does so no more.
    fn alone(&self, fragment: FragmentId, device: &str, why: &str);

    /// A unit ended after this time; its fragments left so many rows.
    fn ended(&self, unit: &Unit, rows: &[Option<u64>], time: Duration, standing: &[Standing]) -> Option<Verdict>;

    /// Fragments failed on their device; none: the graph fails.
    fn failed(&self, unit: &Unit, error: &DeviceError, standing: &[Standing]) -> Option<Verdict>;

    /// A verdict was followed.
    fn tell(&self, record: Resteer);
}

/// A running graph. Its [`Kernel::finish`] gives the last fragment's rows.
pub(crate) struct GraphKernel {
    graph: Arc<Graph>,
    inputs: Inputs,
    host: Arc<dyn Variant>,
    helper: Option<Arc<Helper>>,
    hooks: Hooks,
    /// One at a time decides. Units that failed and went elsewhere.
    turn: Mutex<usize>,
    state: Mutex<State>,
}

/// What a worker can do for a unit.
enum Work {
    Prepare(Vec<Option<Output>>),
    Step(Arc<dyn Kernel>, Arc<Unit>),
    Finish(Arc<dyn Kernel>, Instant),
}

impl GraphKernel {
    /// Fragments that are not on a device run on `host`.
    pub(crate) fn new(
        graph: &Arc<Graph>,
        inputs: Inputs,
        placement: Placement,
        host: &Arc<dyn Variant>,
        hooks: Hooks,
    ) -> Self {
        Self {
            graph: Arc::clone(graph),
            inputs,
            host: Arc::clone(host),
            helper: placement.helper,
            state: Mutex::new(State::new(graph, placement.units, hooks.steer.is_some())),
            turn: Mutex::new(0),
            hooks,
        }
    }

    /// Work for the unit, if there is any at this moment.
    fn take(&self, at: usize) -> Option<Work> {
        let mut state = self.state.lock();
        match &mut state.stages[at] {
            Stage::Waits => {
                if !state.reads[at].iter().all(|input| state.done[*input]) {
                    return None;
                }
                state.stages[at] = Stage::Busy;
                Some(Work::Prepare(state.outputs.clone()))
            }
            Stage::Held(until) => {
                if Instant::now() < *until {
                    return None;
                }
                state.stages[at] = Stage::Busy;
                Some(Work::Prepare(state.outputs.clone()))
            }
            Stage::Runs {
                kernel, inside, closed, ..
            } if !*closed => {
                *inside += 1;
                let kernel = Arc::clone(kernel);
                Some(Work::Step(kernel, Arc::clone(&state.units[at])))
            }
            Stage::Ends { kernel, began, until } if Instant::now() >= *until => {
                let (kernel, began) = (Arc::clone(kernel), *began);
                state.stages[at] = Stage::Busy;
                Some(Work::Finish(kernel, began))
            }
            _ => None,
        }
    }

    fn unit(&self, at: usize) -> Arc<Unit> {
        Arc::clone(&self.state.lock().units[at])
    }

    /// False when the unit doesn't start now.
    fn starts(&self, at: usize, unit: &Unit) -> Result<bool, DeviceError> {
        let Some(steer) = &self.hooks.steer else {
            return Ok(true);
        };
        let turn = self.turn.lock();
        let standing = self.state.lock().standing(Some(at));
        match steer.starts(unit, &standing) {
            Ok(Start::Now) => Ok(true),
            Ok(Start::Later(until)) => {
                self.state.lock().stages[at] = Stage::Held(until);
                Ok(false)
            }
            Ok(Start::Anew(verdict)) => {
                let verdict = *verdict;
                self.state.lock().stages[at] = Stage::Fails;
                let moved = self.resteer(verdict);
                if !moved {
                    self.state.lock().stages[at] = Stage::Busy;
                }
                Ok(!moved)
            }
            Err(error) => {
                drop(turn);
                self.failed(at, unit, error)?;
                Ok(false)
            }
        }
    }

    fn prepare(&self, at: usize, outputs: &mut [Option<Output>]) -> Result<(), DeviceError> {
        let (unit, reads) = {
            let state = self.state.lock();
            (Arc::clone(&state.units[at]), state.reads[at].clone())
        };
        if !self.starts(at, &unit)? {
            return Ok(());
        }
        let began = Instant::now();
        for input in reads {
            if let Err(error) = self.download(input, &unit, outputs) {
                return self.unreadable(at, input, error);
            }
        }
        match self.prepared(&unit, outputs) {
            Ok(kernel) => self.state.lock().run(at, kernel, began),
            Err(error) => return self.failed(at, &unit, error),
        }
        (self.hooks.wake)();
        Ok(())
    }

    fn prepared(&self, unit: &Unit, outputs: &[Option<Output>]) -> Result<Arc<dyn Kernel>, DeviceError> {
        let (graph, inputs, first) = (&self.graph, &self.inputs, unit.fragments[0]);
        if unit.island {
            return unit.variant.prepare_many(graph, &unit.fragments, inputs, outputs);
        }
        if let Some(helper) = self.helper.as_ref().filter(|helper| helper.fragment == first) {
            let steer = self.hooks.steer.clone();
            let kernel = SplitKernel::new(graph, inputs, outputs, (&unit.variant, helper), steer)?;
            return Ok(Arc::new(kernel));
        }
        unit.variant.prepare(graph, first, inputs, outputs)
    }

    /// Rows in the memory of another device are copied to the host's.
    fn download(&self, input: FragmentId, unit: &Unit, outputs: &mut [Option<Output>]) -> Result<(), DeviceError> {
        let Some(Output::Resident(rows)) = &outputs[input] else {
            return Ok(());
        };
        let same = unit.island && self.state.lock().made_on[input].as_deref() == Some(unit.variant.device());
        if !same {
            outputs[input] = Some(Output::Rows(rows.download()?));
        }
        Ok(())
    }

    /// One step of a unit's kernel; the last worker to leave a kernel that is done finishes it.
    fn step_one(
        &self,
        at: usize,
        worker: usize,
        kernel: &Arc<dyn Kernel>,
        unit: &Unit,
    ) -> Result<Progress, DeviceError> {
        let planted = self
            .hooks
            .steer
            .as_ref()
            .map_or(Ok(()), |steer| steer.steps(unit.variant.device(), &unit.fragments));
        let result = planted.and_then(|()| kernel.step(worker));
        let progress = match &result {
            Ok(progress) => *progress,
            // Nothing more is to be made of it.
            Err(error) if !self.may_recover(unit, error) => return result,
            Err(_) => Progress::More,
        };
        let (began, failed) = {
            let mut state = self.state.lock();
            let Stage::Runs {
                inside,
                closed,
                began,
                failed,
                ..
            } = &mut state.stages[at]
            else {
                // It was given up meanwhile.
                return Ok(Progress::More);
            };
            *inside -= 1;
            *closed |= progress == Progress::Done || result.is_err();
            if failed.is_none() {
                *failed = result.err();
            }
            if !*closed || *inside > 0 {
                return Ok(progress);
            }
            let (began, failed) = (*began, failed.take());
            state.stages[at] = Stage::Busy;
            (began, failed)
        };
        match failed {
            Some(error) => self.failed(at, unit, error)?,
            None => self.ends(at, kernel, began, unit)?,
        }
        Ok(Progress::More)
    }

    fn ends(&self, at: usize, kernel: &Arc<dyn Kernel>, began: Instant, unit: &Unit) -> Result<(), DeviceError> {
        let until = self
            .hooks
            .steer
            .as_ref()
            .and_then(|steer| steer.held(unit.variant.device(), began));
        if let Some(until) = until {
            let kernel = Arc::clone(kernel);
            self.state.lock().stages[at] = Stage::Ends { kernel, began, until };
            return Ok(());
        }
        self.end(at, kernel, began)
    }

    fn end(&self, at: usize, kernel: &Arc<dyn Kernel>, began: Instant) -> Result<(), DeviceError> {
        let unit = self.unit(at);
        let output = match kernel.finish() {
            Ok(output) => output,
            Err(error) => return self.failed(at, &unit, error),
        };
        let time = began.elapsed();
        let rows = self.report(&unit, kernel.as_ref(), &output, time);
        {
            let _turn = self.turn.lock();
            let verdict = self.hooks.steer.as_ref().and_then(|steer| {
                let mut standing = self.state.lock().standing(None);
                unit.fragments.iter().for_each(|id| standing[*id] = Standing::Done);
                steer.ended(&unit, &rows, time, &standing)
            });
            // What reads it must not start before it is placed anew.
            let mut state = self.state.lock();
            let mut gone = state.keep(&self.graph, at, output);
            if let Some(verdict) = verdict {
                gone.extend(self.seat(&mut state, verdict).unwrap_or_default());
            }
            drop(state);
            drop(gone);
        }
        (self.hooks.wake)();
        Ok(())
    }

    /// Tells what each fragment took; gives the rows that each left.
    fn report(&self, unit: &Unit, kernel: &dyn Kernel, output: &Output, time: Duration) -> Vec<Option<u64>> {
        let reports = kernel.reports();
        let mut left = Vec::with_capacity(unit.fragments.len());
        for id in &unit.fragments {
            let found = reports.iter().find(|(fragment, _)| fragment == id);
            let mut report = found.map(|(_, report)| report.clone()).unwrap_or_default();
            report.output_rows = report.output_rows.or(match output {
                Output::Rows(rows) => Some(rows.rows() as u64),
                Output::Build { rows, .. } => Some(*rows as u64),
                _ => None,
            });
            left.push(report.output_rows);
            let last = unit.fragments.last() == Some(id);
            let fallback = self.state.lock().fallbacks[*id].clone();
            (self.hooks.took)(Took {
                fragment: *id,
                variant: unit.variant.as_ref(),
                time: if last {
                    time
                } else {
                    Duration::from_nanos(report.kernel_ns)
                },
                report,
                fallback,
            });
        }
        left
    }

    /// A failure of this kind may be mended by running the unit elsewhere.
    fn may_recover(&self, unit: &Unit, error: &DeviceError) -> bool {
        unit.island && self.hooks.steer.is_some() && error.action() != ErrorAction::Fail
    }

    /// A unit failed that no worker is inside of.
    ///
    /// # Errors
    /// The same, when it can't run elsewhere.
    fn failed(&self, at: usize, unit: &Unit, error: DeviceError) -> Result<(), DeviceError> {
        match self.may_recover(unit, &error) {
            true => self.mend(at, unit, error),
            false => Err(error),
        }
    }

    /// A unit can't read an input from the device that it is on.
    fn unreadable(&self, at: usize, input: FragmentId, error: DeviceError) -> Result<(), DeviceError> {
        let made_by = {
            let state = self.state.lock();
            let mut units = state.units.iter().rev();
            units.find(|unit| unit.fragments.contains(&input)).cloned()
        };
        match made_by {
            // Memory that is short is the host's here, which is no better if all runs there.
            Some(made_by) if matches!(error, DeviceError::Device(_)) && self.may_recover(&made_by, &error) => {
                self.mend(at, &made_by, error)
            }
            _ => Err(error),
        }
    }

    /// Unit `at` goes, and what is left is placed anew without what failed.
    fn mend(&self, at: usize, failed: &Unit, error: DeviceError) -> Result<(), DeviceError> {
        let mut mended = self.turn.lock();
        let Some(steer) = self.hooks.steer.as_ref().filter(|_| *mended < MENDED_MAX) else {
            return Err(error);
        };
        *mended += 1;
        let standing = {
            let mut state = self.state.lock();
            state.stages[at] = Stage::Fails;
            state.standing(None)
        };
        let verdict = steer.failed(failed, &error, &standing);
        match verdict.is_some_and(|verdict| self.resteer(verdict)) {
            true => Ok(()),
            false => Err(error),
        }
    }

    /// False when what has to run again can't.
    fn resteer(&self, verdict: Verdict) -> bool {
        let mut state = self.state.lock();
        let gone = self.seat(&mut state, verdict);
        drop(state);
        (self.hooks.wake)();
        gone.is_some()
    }

    /// Outputs that nobody reads any more; none when what has to run again can't.
    fn seat(&self, state: &mut State, verdict: Verdict) -> Option<Vec<Output>> {
        let gone = state.seat(&self.graph, &verdict.seats, &self.host, (self.hooks.begun)())?;
        if let Some(steer) = &self.hooks.steer {
            steer.tell(verdict.record);
        }
        Some(gone)
    }
}

impl Kernel for GraphKernel {
    fn step(&self, worker: usize) -> Result<Progress, DeviceError> {
        let (first, count) = {
            let state = self.state.lock();
            (state.first, state.units.len())
        };
        if first == count {
            return Ok(Progress::Done);
        }
        for at in first..count {
            match self.take(at) {
                Some(Work::Prepare(mut outputs)) => {
                    self.prepare(at, &mut outputs)?;
                    return Ok(Progress::More);
                }
                Some(Work::Step(kernel, unit)) if self.step_one(at, worker, &kernel, &unit)? != Progress::Waiting => {
                    return Ok(Progress::More);
                }
                Some(Work::Finish(kernel, began)) => {
                    self.end(at, &kernel, began)?;
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
pub(crate) mod tests;
