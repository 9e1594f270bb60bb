//! A run as workers see it: they read streams and load columns, then the device's threads take over.
//!
//! ```text
//!  Drain ─▶ Load (columns to load, modules to compile, many workers) ─▶ Runs (Waiting, until told) ─▶ Emits ─▶ Done
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, SchemaRef};
use parking_lot::Mutex;
use trireme_device_api::{
    DeviceColumn, DeviceError, Emit, Field, FragmentId, FragmentReport, Kernel, Loaded, Output, Progress, Reservation,
    Rows, ScanInput, Sink, StreamInput, StreamPoll,
};

use crate::decoding;
use crate::fills::{Brought, Columns};
use crate::job::{Outcome, RunJob, nanoseconds};
use crate::packed::element;
use crate::task::Task;
use crate::warming;

/// Batches that one step takes from a stream.
const BATCHES_PER_STEP: usize = 64;

/// Why a column is decoded on the host.
const NO_KERNEL: &str = "the kernel that decodes pages was not compiled yet";

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
    Emits(Arc<Emits>),
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

/// What must be done before a run starts.
struct Load {
    job: Arc<RunJob>,
    items: Vec<Item>,
    next: AtomicUsize,
    done: AtomicUsize,
    began: Instant,
}

/// A part of it.
#[derive(Clone, Copy)]
enum Item {
    /// Load a column.
    Column {
        table: usize,
        segment: usize,
        column: usize,
    },
    /// Compile the module of the fragment at this position.
    Module(usize),
}

/// The other outputs, and the memory of the result.
type Rest = (Vec<(FragmentId, Output)>, Reservation);

/// A result that goes to the client, a batch at a time, by any worker.
struct Emits {
    emit: Arc<dyn Emit>,
    fields: Vec<Field>,
    schema: SchemaRef,
    rows: Arc<Rows>,
    /// (segment, first row, rows).
    batches: Vec<(usize, usize, usize)>,
    next: AtomicUsize,
    done: AtomicUsize,
    /// Taken by whoever is done last.
    rest: Mutex<Option<Rest>>,
    last: FragmentId,
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
            Phase::Emits(emits) => Some(Phase::Emits(Arc::clone(emits))),
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
                    drain.reservation.grow(batch_bytes(&batch))?;
                    drain.batches.push(batch);
                }
                StreamPoll::Waiting => {
                    self.put(Phase::Drain(drain));
                    return Ok(Progress::Waiting);
                }
                StreamPoll::End => {
                    let batches = std::mem::take(&mut drain.batches);
                    let rows = collected(&batches, &drain.task.graph.streams[index])?;
                    let columns = rows.segments.iter().flat_map(|(_, columns)| columns);
                    let bytes: usize = columns.map(|column| column.size_bytes()).sum();
                    // The batches go, the columns stay as long as the run.
                    let mut reservation = Reservation::new(&drain.task.inputs.pool);
                    reservation.grow(bytes)?;
                    drain.task.bind_stream(index, rows, reservation)?;
                    drain.reservation = Reservation::new(&drain.task.inputs.pool);
                    drain.streams.pop_front();
                    break;
                }
            }
        }
        Ok(self.put(Phase::Drain(drain)))
    }

    fn load(&self, load: &Load) -> Result<Progress, DeviceError> {
        let job = &load.job;
        job.check()?;
        let number = load.next.fetch_add(1, Ordering::SeqCst);
        let Some(item) = load.items.get(number) else {
            return Ok(Progress::Waiting);
        };
        load.one(*item)?;
        if load.done.fetch_add(1, Ordering::SeqCst) + 1 < load.items.len() {
            return Ok(Progress::More);
        }
        // The last one.
        if load.items.iter().any(|item| matches!(item, Item::Column { .. })) {
            job.load_ns.store(nanoseconds(load.began), Ordering::SeqCst);
        }
        self.put(Phase::Runs(Arc::clone(job)));
        let core = &job.task.core;
        let (shared, wait) = (Arc::clone(job), core.limits.wait);
        core.executor.submit(shared, job.holds(), wait, &core.arena)?;
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
            ) if emits && rows.rows() > 0 => {
                let rest = (outputs, reservation);
                Ok(self.put(Phase::Emits(Arc::new(Emits::new(&job.task, emit, rows, rest)))))
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

    fn emit(&self, emits: &Emits) -> Result<Progress, DeviceError> {
        if emits.next.load(Ordering::SeqCst) >= emits.batches.len() || !emits.emit.ready() {
            return Ok(Progress::Waiting);
        }
        let number = emits.next.fetch_add(1, Ordering::SeqCst);
        let Some(batch) = emits.batches.get(number) else {
            return Ok(Progress::Waiting);
        };
        emits.emit.push(emits.batch(*batch)?);
        if emits.done.fetch_add(1, Ordering::SeqCst) + 1 < emits.batches.len() {
            return Ok(Progress::More);
        }
        let Some((mut outputs, reservation)) = emits.rest.lock().take() else {
            return Ok(Progress::Waiting);
        };
        outputs.push((emits.last, Output::Rows(Arc::new(Rows::default()))));
        Ok(self.done(outputs, Some(reservation)))
    }
}

impl Emits {
    fn new(task: &Task, emit: &Arc<dyn Emit>, rows: Arc<Rows>, rest: Rest) -> Self {
        let step = task.inputs.batch_rows.max(1);
        let mut batches = Vec::new();
        for (segment, (rows, _)) in rows.segments.iter().enumerate() {
            let starts = (0..*rows).step_by(step);
            batches.extend(starts.map(|start| (segment, start, step.min(rows - start))));
        }
        Self {
            emit: Arc::clone(emit),
            fields: task.graph.output.clone(),
            schema: Field::schema(&task.graph.output),
            rows,
            batches,
            next: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            rest: Mutex::new(Some(rest)),
            last: task.graph.fragments.len() - 1,
        }
    }

    fn batch(&self, (segment, start, rows): (usize, usize, usize)) -> Result<RecordBatch, DeviceError> {
        let (_, columns) = &self.rows.segments[segment];
        let columns = columns.iter().take(self.fields.len());
        let arrays = columns
            .map(|column| column.to_arrow(start, rows))
            .collect::<Result<_, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)
            .map_err(|error| DeviceError::Internal(format!("result columns: {error}")))
    }
}

impl Load {
    /// Lowers, and lists what must be done.
    fn new(task: Task) -> Result<Self, DeviceError> {
        let job = Arc::new(RunJob::new(task));
        // Compiling takes longest: it comes first.
        let mut items: Vec<_> = (0..job.lower()?).map(Item::Module).collect();
        let mut columns = Columns::new();
        for (number, table) in job.task.tables().into_iter().enumerate() {
            let mut segments = Vec::new();
            for segment in 0..table.input.segments() {
                let width = table.shape.columns.len();
                segments.push(vec![None; width]);
                let read = (0..width).filter(|column| table.reads(segment, *column));
                let missing = read.filter(|column| !table.is_resident(&job.task.core, segment, *column));
                items.extend(missing.map(|column| Item::Column {
                    table: number,
                    segment,
                    column,
                }));
            }
            columns.push(segments);
        }
        *job.columns.lock() = columns;
        Ok(Self {
            job,
            items,
            next: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            began: Instant::now(),
        })
    }

    /// A column: its pages where the device decodes them, else as the host decodes it.
    fn bring(
        &self,
        input: &dyn ScanInput,
        table: usize,
        segment: usize,
        column: usize,
    ) -> Result<Brought, DeviceError> {
        let core = &self.job.task.core;
        if !core.takes_pages() {
            return Ok(Brought::Decoded(input.load(segment, column)?));
        }
        let tables = self.job.task.tables();
        let storage = tables.get(table).map(|table| table.shape.columns[column].storage);
        let elem = storage.and_then(element);
        let rows = input.rows(segment);
        if elem.is_some_and(|elem| !decoding::is_ready(core, elem)) {
            // The next run finds it compiled.
            warming::compile(core, Vec::new(), warming::cold_decoders(core));
            self.job.decoded_on_host(table, NO_KERNEL);
            return Ok(Brought::Decoded(input.load(segment, column)?));
        }
        // Of what the device can't decode, nothing is small enough.
        let decoded_bytes = elem.map_or(0, |elem| rows * elem.bytes() as usize);
        match input.load_encoded(segment, column, decoded_bytes)? {
            Loaded::Decoded(column, reason) => {
                if let Some(reason) = reason {
                    self.job.decoded_on_host(table, reason);
                }
                Ok(Brought::Decoded(column))
            }
            Loaded::Encoded(encoded) => match elem.map(|elem| decoding::loaded(core, elem)) {
                Some(Ok(_)) => Ok(Brought::Encoded(encoded)),
                Some(Err(error @ DeviceError::Device(_))) => Err(error),
                _ => {
                    drop(encoded);
                    self.job.decoded_on_host(table, NO_KERNEL);
                    Ok(Brought::Decoded(input.load(segment, column)?))
                }
            },
        }
    }

    fn one(&self, item: Item) -> Result<(), DeviceError> {
        match item {
            Item::Module(position) => self.job.compile(position),
            Item::Column { table, segment, column } => {
                let input = self.job.task.tables().get(table).map(|table| Arc::clone(&table.input));
                let input = input.ok_or_else(|| DeviceError::Internal(format!("there is no table {table}")))?;
                let brought = self.bring(input.as_ref(), table, segment, column)?;
                self.job.columns.lock()[table][segment][column] = Some(brought);
                Ok(())
            }
        }
    }
}

/// Memory that a batch's rows take, without what its slices share with others.
fn batch_bytes(batch: &RecordBatch) -> usize {
    let arrays = batch.columns().iter();
    arrays
        .map(|array| {
            array
                .to_data()
                .get_slice_memory_size()
                .unwrap_or_else(|_| array.get_array_memory_size())
        })
        .sum()
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
        held: Vec::new(),
    })
}

impl Kernel for RunKernel {
    fn step(&self, _worker: usize) -> Result<Progress, DeviceError> {
        match self.take() {
            None => Ok(Progress::Waiting),
            Some(Phase::Drain(drain)) => self.drain(drain),
            Some(Phase::Load(load)) => self.load(&load),
            Some(Phase::Runs(job)) => self.ran(&job),
            Some(Phase::Emits(emits)) => self.emit(&emits),
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
