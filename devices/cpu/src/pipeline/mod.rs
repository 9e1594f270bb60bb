//! The kernel of a fused fragment: morsels through stages into a sink, by all workers at once.
//!
//! ```text
//!  phases:  source morsels │ unmatched build rows of probe 1 │ … of probe n │ the sink's merge tasks │ done
//! ```
//!
//! A phase begins when the one before has ended for all workers; a worker that finds no task left in an open phase waits. A
//! step that stops within a morsel, because a join multiplies its rows, leaves it to whoever comes next.

mod common;
mod groups;
mod late;
mod learned;
mod live;
mod loads;
mod ordered;
mod probing;
mod sieve;
mod sink;
mod source;
mod stages;
mod walk;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use trireme_device_api::{
    DeviceError, FragmentId, FragmentReport, Graph, Inputs, Kernel, Output, Progress, Source as GraphSource,
};

use crate::isa::Isa;
use crate::number::count_ones;
use crate::tile::{Origin, Slot, Tile};
use crate::vector::Shape;

use late::Late;
use sink::{Sink, SinkLocal};
use source::{Morsel, Next, Source, row_shapes};
use stages::Stages;
use walk::{Flow, Place, Walk};

pub(crate) use walk::STEP_PAIRS;

/// Build rows that one task of a "build" join kind goes over.
const BUILD_TASK_ROWS: usize = 32 * 1024;

/// A running fragment.
pub(crate) struct FusedKernel {
    id: FragmentId,
    source: Source,
    stages: Stages,
    sink: Sink,
    inputs: Inputs,
    takes_masks: bool,
    isa: Isa,
    /// The last fragment of its graph with somebody to take its rows.
    emits: bool,
    workers: Vec<Mutex<Worker>>,
    phases: Phases,
    /// What steps stopped within.
    paused: Mutex<Vec<Paused>>,
    /// Pairs after which a step stops.
    step_pairs: usize,
    /// Set when a limit is reached: the source's remaining rows don't matter.
    enough: AtomicBool,
    /// Rows that were read, and that reached the sink.
    read: AtomicU64,
    reached: AtomicU64,
}

/// What one worker keeps between steps.
struct Worker {
    local: SinkLocal,
}

/// A morsel, or a task over build rows, with what is left of it.
struct Paused {
    of: Of,
    /// Rows of it that are done.
    done: usize,
    places: Vec<Place>,
}

enum Of {
    Morsel(Morsel),
    BuildTask { phase: usize, task: usize },
}

/// The phase all workers are in, and what is left of each.
struct Phases {
    current: AtomicUsize,
    /// By phase; the source keeps its own count.
    tasks: Vec<TaskCount>,
    advancing: Mutex<()>,
}

#[derive(Default)]
struct TaskCount {
    next: AtomicUsize,
    ended: AtomicUsize,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FusedKernel {
    /// Compiles a fragment for its inputs.
    pub(crate) fn new(
        graph: &Graph,
        id: FragmentId,
        inputs: &Inputs,
        outputs: &[Option<Output>],
        isa: Isa,
        step_pairs: usize,
    ) -> Result<Self, DeviceError> {
        let fragment = &graph.fragments[id];
        let (source, row) = bind_source(graph, id, inputs, outputs, isa)?;
        let stages = Stages::compile(fragment, row, inputs, outputs, isa)?;
        let emits = id + 1 == graph.fragments.len() && inputs.emit.is_some();
        let sink = Sink::compile(graph, id, &stages, inputs, isa, emits, source.row_count())?;
        let workers = (0..inputs.workers.max(1))
            .map(|_| {
                Mutex::new(Worker {
                    local: sink.local(inputs),
                })
            })
            .collect();
        let tasks = (0..stages.build_phases().len() + 2)
            .map(|_| TaskCount::default())
            .collect();
        Ok(Self {
            id,
            source,
            stages,
            takes_masks: sink.takes_masks(),
            isa,
            sink,
            inputs: inputs.clone(),
            emits,
            workers,
            phases: Phases {
                current: AtomicUsize::new(0),
                tasks,
                advancing: Mutex::new(()),
            },
            paused: Mutex::new(Vec::new()),
            step_pairs,
            enough: AtomicBool::new(false),
            read: AtomicU64::new(0),
            reached: AtomicU64::new(0),
        })
    }

    /// The source's phase: one morsel.
    fn step_source(&self, worker: usize) -> Result<Progress, DeviceError> {
        let mut own = lock(&self.workers[worker]);
        if self.phases.current.load(Ordering::SeqCst) != 0 {
            return Ok(Progress::More);
        }
        let progress = self.source_morsel(&mut own)?;
        drop(own);
        if self.source.finished() || self.enough.load(Ordering::SeqCst) {
            self.advance(0)?;
            return Ok(Progress::More);
        }
        Ok(match progress {
            Progress::Done => Progress::Waiting,
            other => other,
        })
    }

    /// `Done` means: the source has nothing more for this worker.
    fn source_morsel(&self, worker: &mut Worker) -> Result<Progress, DeviceError> {
        if self.enough.load(Ordering::Relaxed) {
            return Ok(Progress::Done);
        }
        if let Some(paused) = self.paused_of(0) {
            return self.run_morsel(paused, &mut worker.local);
        }
        match self.source.next()? {
            Next::End => Ok(Progress::Done),
            Next::Waiting => Ok(Progress::Waiting),
            Next::Loaded => Ok(Progress::More),
            Next::Morsel(morsel) => {
                let whole = Paused {
                    of: Of::Morsel(morsel),
                    done: 0,
                    places: Vec::new(),
                };
                self.run_morsel(whole, &mut worker.local)
            }
        }
    }

    /// Something of this phase that a step stopped within.
    fn paused_of(&self, phase: usize) -> Option<Paused> {
        let mut paused = lock(&self.paused);
        let at = paused.iter().position(|paused| match paused.of {
            Of::Morsel(_) => phase == 0,
            Of::BuildTask { phase: own, .. } => own == phase,
        })?;
        Some(paused.swap_remove(at))
    }

    /// What is left of a morsel, as far as one step goes.
    fn run_morsel(&self, paused: Paused, local: &mut SinkLocal) -> Result<Progress, DeviceError> {
        let Paused { of, mut done, places } = paused;
        let Of::Morsel(morsel) = of else {
            return Err(DeviceError::Internal("a task in the source's phase".to_owned()));
        };
        let slots: Vec<_> = (0..morsel.columns.len())
            .map(|column| Slot::Origin { origin: 0, column })
            .collect();
        let before = done;
        let behind = || self.client_behind();
        let mut walk = Walk::new(self.step_pairs, places, &behind, &self.enough);
        let mut flow = Flow::Done;
        let sieved = self.stages.sift(&morsel)?;
        while done < morsel.rows && !self.enough.load(Ordering::Relaxed) {
            let cut = sieved.cut(&morsel, done, self.isa);
            if cut.rows > 0 {
                let tile = Tile {
                    rows: cut.rows,
                    origins: vec![Origin {
                        columns: &morsel.columns,
                        selection: cut.selection,
                    }],
                    slots: slots.clone(),
                };
                flow = self.push(tile, 0, cut.mask, &mut walk, local)?;
                if flow == Flow::Stopped {
                    break;
                }
            }
            done += cut.covered;
        }
        self.read.fetch_add((done - before) as u64, Ordering::Relaxed);
        if flow == Flow::Stopped {
            let places = walk.places();
            lock(&self.paused).push(Paused {
                of: Of::Morsel(morsel),
                done,
                places,
            });
        } else {
            self.source.release(&morsel);
        }
        Ok(Progress::More)
    }

    fn push(
        &self,
        tile: Tile<'_>,
        from: usize,
        mask: Option<Vec<u8>>,
        walk: &mut Walk<'_>,
        local: &mut SinkLocal,
    ) -> Result<Flow, DeviceError> {
        self.stages.push(tile, from, mask, walk, &mut |tile, mask| {
            let mask = match mask {
                Some(mask) if !self.takes_masks => {
                    tile.retain(mask, self.isa);
                    None
                }
                mask => mask,
            };
            let rows = mask.map_or(tile.rows, |mask| count_ones(self.isa, mask));
            self.reached.fetch_add(rows as u64, Ordering::Relaxed);
            if self.sink.consume(tile, mask, local)? {
                self.enough.store(true, Ordering::SeqCst);
            }
            Ok(())
        })
    }

    /// Tasks of a phase after the source's.
    fn tasks(&self, phase: usize) -> usize {
        match self.stages.build_phases().get(phase - 1) {
            Some(&stage) => self.stages.build_rows(stage).div_ceil(BUILD_TASK_ROWS),
            None => self.sink.tasks(),
        }
    }

    fn last_phase(&self) -> usize {
        self.stages.build_phases().len() + 1
    }

    /// Ends phase `ended` and begins the next that has tasks; the first worker to ask does it.
    fn advance(&self, ended: usize) -> Result<(), DeviceError> {
        let _advancing = lock(&self.phases.advancing);
        if self.phases.current.load(Ordering::SeqCst) != ended {
            return Ok(());
        }
        if ended == 0 {
            self.source.stop();
            // There are some only where a limit was reached.
            lock(&self.paused).clear();
        }
        let mut phase = ended;
        loop {
            phase += 1;
            if phase == self.last_phase() {
                let locals = self
                    .workers
                    .iter()
                    .map(|worker| std::mem::replace(&mut lock(worker).local, SinkLocal::Taken))
                    .collect();
                self.sink.seal(locals)?;
            }
            if phase > self.last_phase() || self.tasks(phase) > 0 {
                break;
            }
        }
        self.phases.current.store(phase, Ordering::SeqCst);
        Ok(())
    }

    /// A phase after the source's: one task.
    fn step_task(&self, phase: usize, worker: usize) -> Result<Progress, DeviceError> {
        let (task, resumed) = match self.paused_of(phase) {
            Some(Paused {
                of: Of::BuildTask { task, .. },
                done,
                places,
            }) => (task, (done, places)),
            _ => (
                self.phases.tasks[phase].next.fetch_add(1, Ordering::SeqCst),
                (0, Vec::new()),
            ),
        };
        let total = self.tasks(phase);
        if task >= total {
            return Ok(Progress::Waiting);
        }
        if phase == self.last_phase() {
            self.sink.run_task(task)?;
        } else if self.build_task(phase, task, resumed, worker)? == Flow::Stopped {
            return Ok(Progress::More);
        }
        if self.phases.tasks[phase].ended.fetch_add(1, Ordering::SeqCst) + 1 == total {
            self.advance(phase)?;
        }
        Ok(Progress::More)
    }

    /// What is left of a task over build rows, as far as one step goes.
    fn build_task(
        &self,
        phase: usize,
        task: usize,
        (done, places): (usize, Vec<Place>),
        worker: usize,
    ) -> Result<Flow, DeviceError> {
        if self.enough.load(Ordering::SeqCst) {
            // The source was not read to its end: a row without a match so far may have one.
            return Ok(Flow::Done);
        }
        let stage = self.stages.build_phases()[phase - 1];
        let mut worker = lock(&self.workers[worker]);
        let local = &mut worker.local;
        let start = task * BUILD_TASK_ROWS;
        let end = (start + BUILD_TASK_ROWS).min(self.stages.build_rows(stage));
        let behind = || self.client_behind();
        let mut walk = Walk::new(self.step_pairs, places, &behind, &self.enough);
        let stopped = self.stages.build_side(stage, start + done..end, &mut |tile| {
            self.push(tile, stage + 1, None, &mut walk, local)
        })?;
        let Some(at) = stopped else { return Ok(Flow::Done) };
        lock(&self.paused).push(Paused {
            of: Of::BuildTask { phase, task },
            done: at - start,
            places: walk.places(),
        });
        Ok(Flow::Stopped)
    }

    /// True when the client is behind and this kernel's rows go to it.
    fn client_behind(&self) -> bool {
        self.emits && self.inputs.emit.as_ref().is_some_and(|emit| !emit.ready())
    }
}

impl Kernel for FusedKernel {
    fn step(&self, worker: usize) -> Result<Progress, DeviceError> {
        if self.inputs.cancelled.load(Ordering::Relaxed) {
            return Err(DeviceError::Cancelled);
        }
        let phase = self.phases.current.load(Ordering::SeqCst);
        if phase > self.last_phase() {
            return Ok(Progress::Done);
        }
        if phase < self.last_phase() && self.client_behind() {
            return Ok(Progress::Waiting);
        }
        if phase == 0 {
            return self.step_source(worker);
        }
        self.step_task(phase, worker)
    }

    fn finish(&self) -> Result<Output, DeviceError> {
        self.sink.output()
    }

    fn reports(&self) -> Vec<(FragmentId, FragmentReport)> {
        let report = FragmentReport {
            input_rows: self.read.load(Ordering::Relaxed),
            sink_rows: Some(self.reached.load(Ordering::Relaxed)),
            load_ns: u64::try_from(self.source.loaded_for().as_nanos()).unwrap_or(u64::MAX),
            ..FragmentReport::default()
        };
        vec![(self.id, report)]
    }
}

/// The source of a fragment and the shapes of its row.
fn bind_source(
    graph: &Graph,
    id: FragmentId,
    inputs: &Inputs,
    outputs: &[Option<Output>],
    isa: Isa,
) -> Result<(Source, Vec<Shape>), DeviceError> {
    let fragment = &graph.fragments[id];
    match fragment.source {
        GraphSource::Scan(index) => {
            let scan = inputs
                .scans
                .get(index)
                .ok_or_else(|| DeviceError::Internal(format!("scan {index} is not bound")))?;
            let row: Vec<Shape> = scan.columns().iter().map(scan_shape).collect();
            let learned = learned::test(fragment, scan.columns().len(), outputs);
            let test = fragment.row_test(&inputs.parameters).and(learned);
            let late = Late::compile(fragment, scan.as_ref(), &row, inputs, isa)?;
            Ok((Source::scan(scan, fragment, &test, late), row))
        }
        GraphSource::Stream(index) => {
            let stream = inputs
                .streams
                .get(index)
                .ok_or_else(|| DeviceError::Internal(format!("stream {index} is not bound")))?;
            let fields = &graph.streams[index];
            let row = fields.iter().map(|field| type_shape(&field.data_type)).collect();
            Ok((Source::stream(stream, fields, fragment), row))
        }
        GraphSource::Fragment(from) => {
            let Some(Some(Output::Rows(rows))) = outputs.get(from) else {
                return Err(DeviceError::Internal(format!("fragment {from} left no rows")));
            };
            let row = row_shapes(rows, &graph.fragments[from].output);
            Ok((Source::rows(rows), row))
        }
    }
}

fn scan_shape(profile: &trireme_device_api::ColumnProfile) -> Shape {
    Shape {
        data_type: profile.data_type.clone(),
        range: profile.range.or_else(|| profile.data_type.value_range()),
        nullable: profile.nullable,
        dictionary: profile.dictionary.clone(),
        distinct: profile.distinct,
    }
}

/// What is known of a stream's column: its type.
fn type_shape(data_type: &trireme_device_api::Type) -> Shape {
    Shape {
        data_type: data_type.clone(),
        range: data_type.value_range(),
        nullable: true,
        dictionary: None,
        distinct: None,
    }
}
