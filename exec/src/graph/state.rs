//! Which units of a running graph are where, and the outputs that are still to be read.
//!
//! Units are only ever added: one that is placed anew is gone, and others stand for its fragments. While a graph may be
//! steered, an output in the host's memory is kept as long as what a device made of it is only in the device's: if that is
//! lost, it is made again from there.

use std::sync::Arc;
use std::time::Instant;

use trireme_device_api::{DeviceError, FragmentId, Graph, Kernel, Output, Sink, Source, Variant};

use super::{Seats, Standing};
use crate::placement::{self, Unit};

pub(super) struct State {
    pub(super) units: Vec<Arc<Unit>>,
    /// By unit.
    pub(super) stages: Vec<Stage>,
    /// By unit: the fragments of other units that it reads.
    pub(super) reads: Vec<Vec<FragmentId>>,
    /// By fragment.
    pub(super) outputs: Vec<Option<Output>>,
    /// By fragment: it was there, though it may have been let go.
    pub(super) done: Vec<bool>,
    /// By fragment: the device that made its output; none is the host.
    pub(super) made_on: Vec<Option<String>>,
    /// By fragment: why it is not where it was.
    pub(super) fallbacks: Vec<Option<String>>,
    /// By fragment: it was begun, so that a stream that it reads may have been read.
    begun: Vec<bool>,
    /// By fragment: those that read it.
    readers: Vec<Vec<FragmentId>>,
    /// What devices made may have to be made again.
    keeps: bool,
    /// All units before it are done or gone.
    pub(super) first: usize,
}

pub(super) enum Stage {
    Waits,
    /// It is not to start yet.
    Held(Instant),
    /// A worker prepares or finishes it.
    Busy,
    Runs {
        kernel: Arc<dyn Kernel>,
        began: Instant,
        inside: usize,
        /// A step said done, or failed.
        closed: bool,
        failed: Option<DeviceError>,
    },
    /// It is done, but not to end yet.
    Ends {
        kernel: Arc<dyn Kernel>,
        began: Instant,
        until: Instant,
    },
    Done,
    /// It failed or may move, and is being placed anew.
    Fails,
    /// Others stand for its fragments.
    Gone,
}

impl State {
    pub(super) fn new(graph: &Graph, units: Vec<Unit>, keeps: bool) -> Self {
        let count = graph.fragments.len();
        let mut readers = vec![Vec::new(); count];
        for (id, fragment) in graph.fragments.iter().enumerate() {
            for input in fragment.inputs() {
                readers[input].push(id);
            }
        }
        let mut state = Self {
            units: Vec::new(),
            stages: Vec::new(),
            reads: Vec::new(),
            outputs: vec![None; count],
            done: vec![false; count],
            made_on: vec![None; count],
            fallbacks: vec![None; count],
            begun: vec![false; count],
            readers,
            keeps,
            first: 0,
        };
        state.add(graph, units);
        state
    }

    fn add(&mut self, graph: &Graph, units: Vec<Unit>) {
        for unit in units {
            self.reads.push(reads(graph, &unit));
            self.stages.push(Stage::Waits);
            self.units.push(Arc::new(unit));
        }
    }

    /// A unit was prepared.
    pub(super) fn run(&mut self, at: usize, kernel: Arc<dyn Kernel>, began: Instant) {
        self.stages[at] = Stage::Runs {
            kernel,
            began,
            inside: 0,
            closed: false,
            failed: None,
        };
        for id in &self.units[at].fragments {
            self.begun[*id] = true;
        }
    }

    /// By fragment; those of unit `starting` still wait.
    pub(super) fn standing(&self, starting: Option<usize>) -> Vec<Standing> {
        let mut standing: Vec<_> = self
            .done
            .iter()
            .map(|done| if *done { Standing::Done } else { Standing::Waits })
            .collect();
        for at in self.first..self.units.len() {
            if self.runs(at) && Some(at) != starting {
                for id in &self.units[at].fragments {
                    standing[*id] = Standing::Runs;
                }
            }
        }
        standing
    }

    fn runs(&self, at: usize) -> bool {
        matches!(self.stages[at], Stage::Busy | Stage::Runs { .. } | Stage::Ends { .. })
    }

    /// Puts a unit's output where others find it; gives what nobody reads any more, to be dropped without the lock.
    pub(super) fn keep(&mut self, graph: &Graph, at: usize, output: Output) -> Vec<Output> {
        let unit = Arc::clone(&self.units[at]);
        let device = unit.island.then(|| unit.variant.device().to_owned());
        match output {
            Output::Many(outputs) => {
                for (id, output) in outputs {
                    self.outputs[id] = Some(output);
                }
            }
            output => self.outputs[unit.fragments[0]] = Some(output),
        }
        for id in &unit.fragments {
            self.done[*id] = true;
            self.made_on[*id].clone_from(&device);
        }
        self.stages[at] = Stage::Done;
        self.pass();
        self.let_go(graph)
    }

    fn pass(&mut self) {
        while matches!(self.stages.get(self.first), Some(Stage::Done | Stage::Gone)) {
            self.first += 1;
        }
    }

    fn let_go(&mut self, graph: &Graph) -> Vec<Output> {
        let last = graph.fragments.len() - 1;
        let mut gone = Vec::new();
        // Readers come after what they read.
        for id in (0..last).rev().filter(|id| self.done[*id]) {
            let read = |reader: &FragmentId| {
                let in_device = self.keeps && self.made_on[*reader].is_some() && self.made_on[id].is_none();
                let only_there = || matches!(self.outputs[*reader], Some(Output::Resident(_) | Output::Build { .. }));
                !self.done[*reader] || (in_device && only_there())
            };
            if self.outputs[id].is_some() && !self.readers[id].iter().any(read) {
                gone.extend(self.outputs[id].take());
            }
        }
        gone
    }

    /// Whether what `reader` needs of `input`, which isn't to be run, is or will be where it can read it.
    fn can_read(&self, graph: &Graph, seats: &Seats, reader: FragmentId, input: FragmentId) -> bool {
        let device = |on: &Option<Arc<dyn Variant>>| on.as_ref().map(|variant| variant.device().to_owned());
        let runs_on = || {
            let unit = self
                .running(input)
                .map(|at| &self.units[at])
                .filter(|unit| unit.island)?;
            Some(unit.variant.device().to_owned())
        };
        let made_on = match self.done[input] {
            true => self.made_on[input].clone(),
            false => runs_on(),
        };
        let lost = made_on.as_ref().is_some_and(|device| seats.lost.contains(device));
        let is_build = matches!(graph.fragments[input].sink, Sink::Build(_));
        match &self.outputs[input] {
            Some(Output::Rows(_)) => true,
            None if self.done[input] => false,
            _ => !lost && (!is_build || made_on == device(&seats.on[reader])),
        }
    }

    /// The unit that runs a fragment.
    fn running(&self, id: FragmentId) -> Option<usize> {
        (self.first..self.units.len()).find(|at| self.runs(*at) && self.units[*at].fragments.contains(&id))
    }

    /// A stream that was read, or rows that were handed out, are gone.
    fn is_final(&self, graph: &Graph, id: FragmentId, begun: bool) -> bool {
        let leaves = id + 1 == graph.fragments.len() && begun;
        self.begun[id] && (leaves || matches!(graph.fragments[id].source, Source::Stream(_)))
    }

    /// Fragments to run: those that wait, and those whose output can't be read by these. None when one can't run again.
    fn todo(&self, graph: &Graph, seats: &Seats, begun: bool) -> Option<Vec<bool>> {
        let standing = self.standing(None);
        let mut todo: Vec<bool> = standing.iter().map(|standing| *standing == Standing::Waits).collect();
        loop {
            let mut more = Vec::new();
            for id in (0..todo.len()).filter(|id| todo[*id]) {
                if self.is_final(graph, id, begun) {
                    return None;
                }
                let inputs = graph.fragments[id].inputs().into_iter();
                let unread = inputs.filter(|input| !todo[*input] && !self.can_read(graph, seats, id, *input));
                for input in unread {
                    match self.running(input) {
                        // All of a unit that is given up.
                        Some(at) => more.extend(self.units[at].fragments.iter().copied()),
                        None => more.push(input),
                    }
                }
            }
            if more.is_empty() {
                return Some(todo);
            }
            more.into_iter().for_each(|id| todo[id] = true);
        }
    }

    /// Places anew what has not started, and what has to run again; gives outputs that are gone. None, and nothing has
    /// changed, when something has to run again that can't.
    pub(super) fn seat(
        &mut self,
        graph: &Graph,
        seats: &Seats,
        host: &Arc<dyn Variant>,
        begun: bool,
    ) -> Option<Vec<Output>> {
        let todo = self.todo(graph, seats, begun)?;
        let mut left = vec![false; todo.len()];
        for at in self.first..self.units.len() {
            let unit = &self.units[at];
            let given_up = unit.fragments.iter().any(|id| todo[*id]);
            if given_up && !matches!(self.stages[at], Stage::Done | Stage::Gone) {
                unit.fragments.iter().for_each(|id| left[*id] |= unit.island);
                self.stages[at] = Stage::Gone;
            }
        }
        let mut gone = Vec::new();
        for id in (0..todo.len()).filter(|id| todo[*id]) {
            gone.extend(self.outputs[id].take());
            if (left[id] || self.begun[id]) && seats.on[id].is_none() {
                self.fallbacks[id] = seats.fallback.clone().or(self.fallbacks[id].take());
            }
            self.done[id] = false;
            self.made_on[id] = None;
        }
        let units = placement::units(graph, &todo, &seats.on, host, &seats.breaks);
        self.add(graph, units);
        self.pass();
        Some(gone)
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
