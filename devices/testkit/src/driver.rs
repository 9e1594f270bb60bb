//! Runs a graph on any variant, the way exec does: fragments in order, or all as one where a variant does that; each kernel
//! is stepped by several threads at once.
//!
//! It also checks what a variant promises about its output: types, lengths, validity, codes within their dictionary. It
//! keeps no time and moves no memory: figures come from elsewhere.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use trireme_device_api::{
    DeviceColumn, DeviceError, Emit, Field, Graph, Inputs, Kernel, Output, Progress, Rows, Sink, Support, Values,
    Variant,
};

use crate::arrays::rows_of;
use crate::values::{Row, value_of};

/// A kernel whose workers all wait for so long is stuck: longer than a device that is a processor, and has others to serve,
/// compiles or runs anything.
const STUCK_AFTER: Duration = Duration::from_secs(180);

/// Between two looks of a worker that waits.
const PAUSE: Duration = Duration::from_micros(100);

/// A kernel that takes so many steps is never done.
const STEPS_MAX: usize = 10_000_000;

/// The first fragment that the variant doesn't take, with its reason.
pub fn unsupported(variant: &dyn Variant, graph: &Graph) -> Option<String> {
    (0..graph.fragments.len()).find_map(|id| match variant.support(graph, id) {
        Support::Supported => None,
        Support::Unsupported { reason } => Some(reason),
    })
}

/// Why the variant doesn't take the graph with these inputs: the reason of the first fragment that has one of its own.
pub fn unsupported_bound(variant: &dyn Variant, graph: &Arc<Graph>, inputs: &Inputs) -> Option<String> {
    let supports = variant.support_bound(graph, inputs).into_iter();
    let mut reasons = supports.filter_map(|support| match support {
        Support::Supported => None,
        Support::Unsupported { reason } => Some(reason),
    });
    let first = reasons.next()?;
    let of_another = |reason: &String| reason.ends_with("runs elsewhere");
    if !of_another(&first) {
        return Some(first);
    }
    reasons.find(|reason| !of_another(reason)).or(Some(first))
}

/// How a graph's fragments are given to a variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Together {
    /// One by one.
    No,
    /// All as one where the variant does that, else one by one.
    All,
}

/// Runs all fragments one by one and gives the last one's rows. With [`Inputs::emit`] set, rows that went there are not
/// among them.
///
/// # Errors
/// Those of the variant; [`DeviceError::Internal`] when it breaks its contract or is stuck.
pub fn run(variant: &dyn Variant, graph: &Arc<Graph>, inputs: Inputs, threads: usize) -> Result<Vec<Row>, DeviceError> {
    run_as(variant, graph, inputs, threads, Together::No)
}

/// As [`run`].
///
/// # Errors
/// As [`run`].
pub fn run_as(
    variant: &dyn Variant,
    graph: &Arc<Graph>,
    mut inputs: Inputs,
    threads: usize,
    together: Together,
) -> Result<Vec<Row>, DeviceError> {
    inputs.workers = threads;
    let count = graph.fragments.len();
    let mut outputs: Vec<Option<Output>> = vec![None; count];
    // A result may hold its memory as long as the kernel that made it.
    let mut kernels: Vec<Arc<dyn Kernel>> = Vec::new();
    if together == Together::All {
        let ids: Vec<_> = (0..count).collect();
        match variant.prepare_many(graph, &ids, &inputs, &outputs) {
            Err(DeviceError::Unsupported(_)) => {}
            Err(error) => return Err(error),
            Ok(kernel) => {
                step_until_done(kernel.as_ref(), threads)?;
                let Output::Many(many) = kernel.finish()? else {
                    return Err(DeviceError::Internal(
                        "fragments that ran as one left one output".to_owned(),
                    ));
                };
                for (id, output) in many {
                    check_output(graph, id, &output)?;
                    outputs[id] = Some(output);
                }
                return last_rows(outputs.pop().flatten());
            }
        }
    }
    for id in 0..count {
        let kernel = variant.prepare(graph, id, &inputs, &outputs)?;
        step_until_done(kernel.as_ref(), threads)?;
        let output = kernel.finish()?;
        check_output(graph, id, &output)?;
        outputs[id] = Some(output);
        kernels.push(kernel);
    }
    last_rows(outputs.pop().flatten())
}

/// That an output is its sink's, and its rows what they promise.
fn check_output(graph: &Graph, id: usize, output: &Output) -> Result<(), DeviceError> {
    let builds = matches!(graph.fragments[id].sink, Sink::Build(_));
    let fields = &graph.fragments[id].output;
    match output {
        Output::Build { .. } if builds => Ok(()),
        Output::Rows(rows) if !builds => check_rows(rows, fields),
        Output::Resident(resident) if !builds => {
            let rows = resident.download()?;
            if rows.rows() as u64 > resident.rows_max() {
                return Err(DeviceError::Internal(format!(
                    "fragment {id} left {} rows, promised were {}",
                    rows.rows(),
                    resident.rows_max()
                )));
            }
            check_rows(&rows, fields)
        }
        _ => Err(DeviceError::Internal(format!(
            "fragment {id} left another output than its sink's"
        ))),
    }
}

/// The rows of a graph's last fragment.
///
/// # Errors
/// [`DeviceError::Internal`] when it left none; those of a download.
pub fn last_rows(output: Option<Output>) -> Result<Vec<Row>, DeviceError> {
    match output {
        Some(Output::Rows(rows)) => values_of(&rows),
        Some(Output::Resident(resident)) => values_of(resident.download()?.as_ref()),
        _ => Err(DeviceError::Internal("the last fragment left no rows".to_owned())),
    }
}

/// As [`run`], with a client that takes batches and is behind now and then. For graphs whose last sink is emit.
///
/// # Errors
/// As [`run`], and when a batch isn't of the output's types.
pub fn run_emitting(
    variant: &dyn Variant,
    graph: &Arc<Graph>,
    inputs: Inputs,
    threads: usize,
) -> Result<Vec<Row>, DeviceError> {
    run_emitting_as(variant, graph, inputs, threads, Together::No)
}

/// As [`run_emitting`].
///
/// # Errors
/// As [`run_emitting`].
pub fn run_emitting_as(
    variant: &dyn Variant,
    graph: &Arc<Graph>,
    mut inputs: Inputs,
    threads: usize,
    together: Together,
) -> Result<Vec<Row>, DeviceError> {
    let client = Arc::new(Client::default());
    let emit: Arc<dyn Emit> = Arc::<Client>::clone(&client);
    inputs.emit = Some(emit);
    let mut rows = run_as(variant, graph, inputs, threads, together)?;
    let batches = client
        .batches
        .lock()
        .map_or_else(|poisoned| poisoned.into_inner().clone(), |held| held.clone());
    for batch in batches {
        rows.extend(rows_of(&batch, &graph.output)?);
    }
    Ok(rows)
}

/// Keeps batches; is behind at every third question.
#[derive(Default)]
struct Client {
    batches: Mutex<Vec<RecordBatch>>,
    asked: AtomicUsize,
}

impl Emit for Client {
    fn ready(&self) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed) % 3 != 1
    }

    fn push(&self, batch: RecordBatch) {
        if let Ok(mut batches) = self.batches.lock() {
            batches.push(batch);
        }
    }
}

/// Steps a kernel from several threads until it is done or fails.
///
/// # Errors
/// The first error of a step; [`DeviceError::Internal`] when no worker gets on.
pub fn step_until_done(kernel: &dyn Kernel, threads: usize) -> Result<(), DeviceError> {
    let stop = AtomicBool::new(false);
    let steps = AtomicUsize::new(0);
    let failure: Mutex<Option<DeviceError>> = Mutex::new(None);
    // By worker: how often it had to wait. Who is in a step for long, compiling perhaps, doesn't wait.
    let waits: Vec<AtomicUsize> = (0..threads.max(1)).map(|_| AtomicUsize::new(0)).collect();
    let waited = || {
        waits
            .iter()
            .map(|waits| waits.load(Ordering::Relaxed))
            .collect::<Vec<_>>()
    };
    let work = |worker: usize| {
        let mut seen = (steps.load(Ordering::Relaxed), waited(), Instant::now());
        while !stop.load(Ordering::Acquire) {
            let error = match kernel.step(worker) {
                Ok(Progress::More) => {
                    if steps.fetch_add(1, Ordering::Relaxed) < STEPS_MAX {
                        continue;
                    }
                    Some(DeviceError::Internal(format!("not done after {STEPS_MAX} steps")))
                }
                Ok(Progress::Waiting) => {
                    // Whoever spins here takes the processor from a device that is one.
                    std::thread::sleep(PAUSE);
                    waits[worker].fetch_add(1, Ordering::Relaxed);
                    let now = steps.load(Ordering::Relaxed);
                    if seen.0 != now {
                        seen = (now, waited(), Instant::now());
                    }
                    let all_wait = || seen.1.iter().zip(waited()).all(|(before, now)| *before < now);
                    if seen.2.elapsed() < STUCK_AFTER || !all_wait() {
                        continue;
                    }
                    Some(DeviceError::Internal("all workers wait for ever".to_owned()))
                }
                Ok(Progress::Done) => None,
                Err(error) => Some(error),
            };
            stop.store(true, Ordering::Release);
            if let (Some(error), Ok(mut failure)) = (error, failure.lock()) {
                failure.get_or_insert(error);
            }
        }
    };
    if threads <= 1 {
        work(0);
    } else {
        std::thread::scope(|scope| {
            for worker in 0..threads {
                scope.spawn(move || work(worker));
            }
        });
    }
    let failure = failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    failure.map_or(Ok(()), Err)
}

/// The rows of all segments, as values.
///
/// # Errors
/// [`DeviceError::Internal`] when a column is not of its type.
pub fn values_of(rows: &Rows) -> Result<Vec<Row>, DeviceError> {
    let mut found = Vec::with_capacity(rows.rows());
    for (count, columns) in &rows.segments {
        for row in 0..*count {
            found.push(
                columns
                    .iter()
                    .map(|column| value_of(column, row))
                    .collect::<Result<Row, _>>()?,
            );
        }
    }
    Ok(found)
}

fn broken(segment: usize, column: usize, what: &str) -> DeviceError {
    DeviceError::Internal(format!("output segment {segment} column {column}: {what}"))
}

/// What [`Rows`] and [`DeviceColumn`] promise.
fn check_rows(rows: &Rows, fields: &[Field]) -> Result<(), DeviceError> {
    for (segment, (count, columns)) in rows.segments.iter().enumerate() {
        if columns.len() != fields.len() {
            return Err(broken(
                segment,
                columns.len(),
                &format!("{} columns are promised", fields.len()),
            ));
        }
        for (index, (column, field)) in columns.iter().zip(fields).enumerate() {
            let wrong = |what: &str| Err(broken(segment, index, what));
            if column.data_type != field.data_type {
                return wrong(&format!("is {:?}, promised is {:?}", column.data_type, field.data_type));
            }
            if column.rows != *count || length_of(column).is_some_and(|length| length != *count) {
                return wrong(&format!(
                    "has {} rows ({:?} values) of {count}",
                    column.rows,
                    length_of(column)
                ));
            }
            if column.validity.as_ref().is_some_and(|valid| valid.len() != *count) {
                return wrong("validity of another length");
            }
            if !field.nullable && (0..*count).any(|row| column.is_null(row)) {
                return wrong("holds NULL where the field says it can't");
            }
            check_zone(column).or_else(|what| wrong(&what))?;
        }
    }
    check_dictionaries(rows, fields.len())
}

fn length_of(column: &DeviceColumn) -> Option<usize> {
    Some(match &column.values {
        Values::Integers { carrier, .. } => carrier.len(),
        Values::Wide(values) => values.len(),
        Values::Float32(values) => values.len(),
        Values::Float64(values) => values.len(),
        Values::Booleans(values) => values.len(),
        Values::Strings(strings) => strings.len(),
        Values::Intervals(values) => values.len(),
        Values::Codes { .. } | Values::Nulls => return None,
    })
}

fn check_zone(column: &DeviceColumn) -> Result<(), String> {
    let Some((low, high)) = column.zone.range else {
        return Ok(());
    };
    for row in (0..column.rows).filter(|row| !column.is_null(*row)) {
        if let Ok(trireme_device_api::Value::Int(value)) = value_of(column, row)
            && !(low..=high).contains(&value)
        {
            return Err(format!("{value} is outside the zone's {low}..={high}"));
        }
    }
    Ok(())
}

/// A string column is codes of one dictionary in all segments, or strings in all.
fn check_dictionaries(rows: &Rows, columns: usize) -> Result<(), DeviceError> {
    for index in 0..columns {
        let mut shapes =
            rows.segments
                .iter()
                .enumerate()
                .filter_map(|(segment, (_, columns))| match &columns[index].values {
                    Values::Codes { dictionary, .. } => Some((segment, Some(Arc::as_ptr(dictionary)))),
                    Values::Strings(_) => Some((segment, None)),
                    _ => None,
                });
        if let Some((_, first)) = shapes.next()
            && let Some((segment, _)) = shapes.find(|(_, shape)| *shape != first)
        {
            return Err(broken(segment, index, "has another dictionary than segments before it"));
        }
    }
    Ok(())
}
