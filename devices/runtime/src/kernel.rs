//! A run as workers see it: they read streams and load columns, then the device's threads take over.
//!
//! ```text
//!  Drain ─▶ Load (a queue of segments' columns, many workers) ─▶ Runs (Waiting, until told) ─▶ Emits ─▶ Done
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::{cast, concat};
use arrow::datatypes::DataType;
use parking_lot::Mutex;
use trireme_device_api::{
    DeviceColumn, DeviceError, Emit, Field, FragmentId, FragmentReport, Kernel, Output, Progress, Reservation, Rows,
    Sink, StreamInput, StreamPoll,
};

use crate::fills::Columns;
use crate::job::{Outcome, RunJob};
use crate::task::Task;

/// Batches that one step takes from a stream.
const BATCHES_PER_STEP: usize = 64;

/// A running set of fragments.
pub(crate) struct RunKernel {
    phase: Mutex<Phase>,
    /// One fragment, whose output is given by itself.
    single: bool,
    reports: Mutex<Vec<(FragmentId, FragmentReport)>>,
}

enum Phase {
    Drain(Box<Drain>),
    Load(Arc<Load>),
    Runs(Arc<RunJob>),
    Emits(Box<Emits>),
    /// What `finish` gives, and the memory of the result, which is held as long as the kernel.
    Done(
        Option<Output>,
        #[expect(dead_code, reason = "held")] Option<Reservation>,
    ),
    /// A worker is changing it, or it failed.
    Busy,
}

/// Streams that are being read.
struct Drain {
    task: Task,
    streams: VecDeque<(usize, Arc<dyn StreamInput>)>,
    batches: Vec<RecordBatch>,
    reservation: Reservation,
}

/// Columns that are being loaded.
struct Load {
    task: Mutex<Option<Task>>,
    tables: Vec<Arc<dyn trireme_device_api::ScanInput>>,
    cancelled: Arc<std::sync::atomic::AtomicBool>,
    /// (table, segment, column).
    items: Vec<(usize, usize, usize)>,
    next: AtomicUsize,
    done: AtomicUsize,
    columns: Mutex<Columns>,
}

/// A result that goes to the client.
struct Emits {
    emit: Arc<dyn Emit>,
    batches: VecDeque<RecordBatch>,
    outputs: Vec<(FragmentId, Output)>,
    last: FragmentId,
    reservation: Reservation,
}

impl RunKernel {
    /// Over bound fragments.
    pub(crate) fn new(task: Task, single: bool) -> Self {
        let drain = Drain {
            streams: task.streams().into(),
            batches: Vec::new(),
            reservation: Reservation::new(&task.inputs.pool),
            task,
        };
        Self {
            phase: Mutex::new(Phase::Drain(Box::new(drain))),
            single,
            reports: Mutex::default(),
        }
    }

    /// Takes the phase; whoever takes it puts another back, unless it failed.
    fn take(&self) -> Option<Phase> {
        let mut phase = self.phase.try_lock()?;
        match &*phase {
            Phase::Busy => None,
            Phase::Load(load) => Some(Phase::Load(Arc::clone(load))),
            Phase::Runs(job) if job.told.lock().outcome.is_none() => Some(Phase::Runs(Arc::clone(job))),
            _ => Some(std::mem::replace(&mut *phase, Phase::Busy)),
        }
    }

    fn put(&self, phase: Phase) -> Progress {
        *self.phase.lock() = phase;
        Progress::More
    }

    fn drain(&self, mut drain: Box<Drain>) -> Result<Progress, DeviceError> {
        drain.task.check()?;
        let Some((index, stream)) = drain.streams.front().cloned() else {
            let load = Load::new(drain.task)?;
            return Ok(self.put(Phase::Load(Arc::new(load))));
        };
        for _ in 0..BATCHES_PER_STEP {
            match stream.poll()? {
                StreamPoll::Batch(batch) => {
                    drain.reservation.grow(batch.get_array_memory_size())?;
                    drain.batches.push(batch);
                }
                StreamPoll::Waiting => {
                    self.put(Phase::Drain(drain));
                    return Ok(Progress::Waiting);
                }
                StreamPoll::End => {
                    let batches = std::mem::take(&mut drain.batches);
                    let rows = collected(&batches, &drain.task.graph.streams[index])?;
                    drain.task.bind_stream(index, rows)?;
                    drain.streams.pop_front();
                    break;
                }
            }
        }
        Ok(self.put(Phase::Drain(drain)))
    }

    fn load(&self, load: &Arc<Load>) -> Result<Progress, DeviceError> {
        if load.cancelled.load(Ordering::SeqCst) {
            return Err(DeviceError::Cancelled);
        }
        let number = load.next.fetch_add(1, Ordering::SeqCst);
        if let Some((table, segment, column)) = load.items.get(number).copied() {
            let loaded = load.tables[table].load(segment, column)?;
            load.columns.lock()[table][segment][column] = Some(loaded);
            if load.done.fetch_add(1, Ordering::SeqCst) + 1 < load.items.len() {
                return Ok(Progress::More);
            }
        } else if !load.items.is_empty() || number > 0 {
            return Ok(Progress::Waiting);
        }
        // The last one.
        let Some(task) = load.task.lock().take() else {
            return Ok(Progress::Waiting);
        };
        let core = Arc::clone(&task.core);
        let job = Arc::new(RunJob::new(task, std::mem::take(&mut load.columns.lock())));
        self.put(Phase::Runs(Arc::clone(&job)));
        let holds = job.holds();
        core.executor.submit(job, holds, core.limits.wait, &core.arena)?;
        Ok(Progress::More)
    }

    fn ran(&self, job: &RunJob) -> Result<Progress, DeviceError> {
        let mut told = job.told.lock();
        let Some(outcome) = told.outcome.take() else {
            drop(told);
            return Ok(if job.help() { Progress::More } else { Progress::Waiting });
        };
        *self.reports.lock() = std::mem::take(&mut told.reports);
        drop(told);
        let outcome = outcome?;
        let task = &job.task;
        let emits = task
            .graph
            .fragments
            .last()
            .is_some_and(|last| matches!(last.sink, Sink::Emit { .. }));
        match (outcome, &task.inputs.emit) {
            (
                Outcome {
                    outputs,
                    result: Some((rows, reservation)),
                },
                Some(emit),
            ) if emits => {
                let batches = rows.to_batches(&task.graph.output, task.inputs.batch_rows);
                let emits = Emits {
                    emit: Arc::clone(emit),
                    batches: batches.collect::<Result<_, _>>()?,
                    outputs,
                    last: task.graph.fragments.len() - 1,
                    reservation,
                };
                Ok(self.put(Phase::Emits(Box::new(emits))))
            }
            (Outcome { mut outputs, result }, _) => {
                let mut reserved = None;
                if let Some((rows, reservation)) = result {
                    outputs.push((task.graph.fragments.len() - 1, Output::Rows(rows)));
                    reserved = Some(reservation);
                }
                Ok(self.done(outputs, reserved))
            }
        }
    }

    fn done(&self, mut outputs: Vec<(FragmentId, Output)>, reservation: Option<Reservation>) -> Progress {
        let output = match self.single {
            true => outputs.pop().map(|(_, output)| output),
            false => Some(Output::Many(outputs)),
        };
        self.put(Phase::Done(output, reservation));
        Progress::Done
    }

    fn emit(&self, mut emits: Box<Emits>) -> Progress {
        while let Some(batch) = emits.batches.pop_front() {
            if !emits.emit.ready() {
                emits.batches.push_front(batch);
                self.put(Phase::Emits(emits));
                return Progress::Waiting;
            }
            emits.emit.push(batch);
        }
        let Emits {
            mut outputs,
            last,
            reservation,
            ..
        } = *emits;
        outputs.push((last, Output::Rows(Arc::new(Rows::default()))));
        self.done(outputs, Some(reservation))
    }
}

impl Load {
    fn new(task: Task) -> Result<Self, DeviceError> {
        let tables: Vec<_> = task.tables().into_iter().cloned().collect();
        let (mut items, mut columns) = (Vec::new(), Columns::new());
        for (number, table) in tables.iter().enumerate() {
            let mut segments = Vec::new();
            for segment in 0..table.input.segments() {
                let width = table.shape.columns.len();
                segments.push(vec![None; width]);
                let read = (0..width).filter(|column| table.reads(segment, *column));
                let missing = read.filter(|column| !table.is_resident(&task.core, segment, *column));
                items.extend(missing.map(|column| (number, segment, column)));
            }
            columns.push(segments);
        }
        Ok(Self {
            cancelled: Arc::clone(&task.inputs.cancelled),
            tables: tables.into_iter().map(|table| table.input).collect(),
            task: Mutex::new(Some(task)),
            items,
            next: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            columns: Mutex::new(columns),
        })
    }
}

/// A stream's batches as one segment; dictionaries are unpacked, because each batch may have its own.
fn collected(batches: &[RecordBatch], fields: &[Field]) -> Result<Rows, DeviceError> {
    let internal = |error: arrow::error::ArrowError| DeviceError::Internal(error.to_string());
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    if rows == 0 {
        return Ok(Rows::default());
    }
    let mut columns = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        let mut arrays: Vec<ArrayRef> = Vec::new();
        for batch in batches.iter().filter(|batch| batch.num_rows() > 0) {
            let array = batch.columns().get(index);
            let array = array.ok_or_else(|| DeviceError::Internal(format!("a batch has no column {index}")))?;
            arrays.push(match array.data_type() {
                DataType::Dictionary(_, values) => cast(array, values).map_err(internal)?,
                _ => Arc::clone(array),
            });
        }
        let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
        let array = concat(&arrays).map_err(internal)?;
        columns.push(Arc::new(DeviceColumn::from_arrow(&array, &field.data_type)?));
    }
    Ok(Rows {
        segments: vec![(rows, columns)],
    })
}

impl Kernel for RunKernel {
    fn step(&self, _worker: usize) -> Result<Progress, DeviceError> {
        match self.take() {
            None => Ok(Progress::Waiting),
            Some(Phase::Drain(drain)) => self.drain(drain),
            Some(Phase::Load(load)) => self.load(&load),
            Some(Phase::Runs(job)) => self.ran(&job),
            Some(Phase::Emits(emits)) => Ok(self.emit(emits)),
            Some(phase @ Phase::Done(..)) => {
                self.put(phase);
                Ok(Progress::Done)
            }
            Some(Phase::Busy) => Ok(Progress::Waiting),
        }
    }

    fn finish(&self) -> Result<Output, DeviceError> {
        match &mut *self.phase.lock() {
            Phase::Done(output, _) => output
                .take()
                .ok_or_else(|| DeviceError::Internal("a run left nothing".to_owned())),
            _ => Err(DeviceError::Internal("a run that is not done was finished".to_owned())),
        }
    }

    fn reports(&self) -> Vec<(FragmentId, FragmentReport)> {
        self.reports.lock().clone()
    }
}

impl Drop for RunKernel {
    fn drop(&mut self) {
        if let Phase::Runs(job) = self.phase.get_mut() {
            job.abandoned.store(true, Ordering::SeqCst);
        }
    }
}
