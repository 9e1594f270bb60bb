//! Conformance of a variant: random and systematic cases, judged by the interpreter, reported small.

mod compare;
mod matrix;
mod print;
mod shard;
mod shrink;

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use trireme_device_api::{DeviceError, DevicePool, Graph, Sink, Step, Variant};

pub use compare::compare;
pub use matrix::{Extent, matrix, matrix_cases};
pub use print::{case_text, expr_text, graph_text, rows_text, type_name};
pub use shard::Shard;

use crate::driver::{Together, run_as, run_emitting_as, unsupported, unsupported_bound};
use crate::generate::{self, Case};
use crate::inputs::{CountingPool, Layout, bind};
use crate::interpreter::{Answer, interpret};
use crate::values::Row;

/// What a check met.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Cases.
    pub cases: usize,
    /// Cases with rows to compare.
    pub rows: usize,
    /// Cases that fail with an arithmetic error, in both.
    pub errors: usize,
    /// Runs that ran out of memory on purpose.
    pub starved: usize,
    /// Cases that the interpreter doesn't judge.
    pub unjudged: usize,
    /// Cases that the variant doesn't take, by reason.
    pub unsupported: BTreeMap<String, usize>,
}

impl Summary {
    /// Adds what another check met.
    pub fn add(&mut self, other: &Summary) {
        self.cases += other.cases;
        self.rows += other.rows;
        self.errors += other.errors;
        self.starved += other.starved;
        self.unjudged += other.unjudged;
        for (reason, count) in &other.unsupported {
            *self.unsupported.entry(reason.clone()).or_default() += count;
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unsupported: usize = self.unsupported.values().sum();
        writeln!(
            f,
            "{} cases: {} with rows, {} with errors, {} starved, {} not judged, {unsupported} unsupported",
            self.cases, self.rows, self.errors, self.starved, self.unjudged
        )?;
        for (reason, count) in &self.unsupported {
            writeln!(f, "  {count:6} {reason}")?;
        }
        Ok(())
    }
}

/// A case in which a variant and the interpreter differ.
pub struct Mismatch {
    /// The smallest such case that was found.
    pub case: Case,
    /// Threads it ran with.
    pub threads: usize,
    /// What is different.
    pub what: String,
    /// What the interpreter says.
    pub expected: Result<Vec<Row>, DeviceError>,
    /// What the variant said, if it said something.
    pub actual: Option<Result<Vec<Row>, DeviceError>>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |rows: &Result<Vec<Row>, DeviceError>| match rows {
            Ok(rows) => format!("{} rows\n{}", rows.len(), rows_text(rows)),
            Err(error) => format!("{error:?}\n"),
        };
        write!(f, "{} ({} threads)\n{}", self.what, self.threads, case_text(&self.case))?;
        write!(f, "expected: {}", show(&self.expected))?;
        match &self.actual {
            Some(actual) => write!(f, "actual: {}", show(actual)),
            None => writeln!(f, "actual: a panic"),
        }
    }
}

impl fmt::Debug for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{self}")
    }
}

/// Marks the reason of a variant that doesn't take a graph with its inputs.
const BOUND: &str = "bound: ";

/// How one case went.
enum Verdict {
    Rows,
    Error,
    Unjudged,
    Unsupported(String),
}

/// Random cases, the first from `seed`.
///
/// # Errors
/// The first mismatch, shrunk.
pub fn check(variant: &dyn Variant, seed: u64, cases: usize) -> Result<Summary, Box<Mismatch>> {
    let last = u64::try_from(cases).unwrap_or(u64::MAX);
    check_all(
        variant,
        (0..last).map(|index| generate::graph(seed.wrapping_add(index))),
    )
}

/// Given cases.
///
/// # Errors
/// The first mismatch, shrunk.
pub fn check_all(variant: &dyn Variant, cases: impl IntoIterator<Item = Case>) -> Result<Summary, Box<Mismatch>> {
    let mut summary = Summary::default();
    for case in cases {
        judge_into(variant, &case, &mut summary)?;
    }
    Ok(summary)
}

/// Given cases until the time is up and some of them gave rows, by several threads at once: each case is another query on the same device.
///
/// # Errors
/// A mismatch, shrunk.
pub fn check_within(
    variant: &dyn Variant,
    limit: Option<Duration>,
    threads: usize,
    cases: impl IntoIterator<Item = Case, IntoIter: Send>,
) -> Result<Summary, Box<Mismatch>> {
    let began = Instant::now();
    let cases = Mutex::new(cases.into_iter().fuse());
    let failed = AtomicBool::new(false);
    let with_rows = AtomicBool::new(false);
    let next = || {
        let in_time = limit.is_none_or(|limit| began.elapsed() < limit) || !with_rows.load(Ordering::Relaxed);
        let mut cases = cases.lock().ok()?;
        (in_time && !failed.load(Ordering::Relaxed))
            .then(|| cases.next())
            .flatten()
    };
    let work = || {
        let mut summary = Summary::default();
        while let Some(case) = next() {
            if let Err(mismatch) = judge_into(variant, &case, &mut summary) {
                failed.store(true, Ordering::Relaxed);
                return Err(mismatch);
            }
            with_rows.fetch_or(summary.rows > 0, Ordering::Relaxed);
        }
        Ok(summary)
    };
    let checked: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let mut total = Summary::default();
    for one in checked {
        total.add(&one?);
    }
    Ok(total)
}

/// Judges a case, counts how it went and shrinks what fails.
fn judge_into(variant: &dyn Variant, case: &Case, summary: &mut Summary) -> Result<(), Box<Mismatch>> {
    judge_unshrunk(variant, case, summary).map_err(|mismatch| shrink::shrink(variant, mismatch))
}

fn judge_unshrunk(variant: &dyn Variant, case: &Case, summary: &mut Summary) -> Result<(), Box<Mismatch>> {
    let verdict = judge(variant, case)?;
    if let (Verdict::Unsupported(_), Some(halves)) = (&verdict, halves(case)) {
        return halves
            .iter()
            .try_for_each(|half| judge_unshrunk(variant, half, summary));
    }
    summary.cases += 1;
    match verdict {
        Verdict::Rows => {
            summary.rows += 1;
            if case.seed.is_multiple_of(8) {
                starve(variant, case)?;
                summary.starved += 1;
            }
            if case.seed % 16 == 3 {
                cancel(variant, case)?;
            }
        }
        Verdict::Error => summary.errors += 1,
        Verdict::Unjudged => summary.unjudged += 1,
        Verdict::Unsupported(reason) => *summary.unsupported.entry(reason).or_default() += 1,
    }
    Ok(())
}

/// A projection or an aggregation of many expressions as two of half as many: where a variant doesn't take one of them, the
/// others are judged all the same.
fn halves(case: &Case) -> Option<[Case; 2]> {
    let [fragment] = case.graph.fragments.as_slice() else {
        return None;
    };
    let (groups, count) = match (&fragment.steps[..], &fragment.sink) {
        ([Step::Project(exprs)], Sink::Emit { .. }) => (0, exprs.len()),
        ([], Sink::Aggregate { groups, aggregates }) => (groups.len(), aggregates.len()),
        _ => return None,
    };
    (count > 1).then(|| {
        [0..count / 2, count / 2..count].map(|kept| {
            let mut graph = Graph::clone(&case.graph);
            let fragment = &mut graph.fragments[0];
            match (&mut fragment.steps[..], &mut fragment.sink) {
                ([Step::Project(exprs)], _) => *exprs = exprs[kept.clone()].to_vec(),
                (_, Sink::Aggregate { aggregates, .. }) => *aggregates = aggregates[kept.clone()].to_vec(),
                _ => {}
            }
            let outputs = &fragment.output;
            fragment.output = [&outputs[..groups], &outputs[groups + kept.start..groups + kept.end]].concat();
            graph.output.clone_from(&fragment.output);
            Case {
                graph: graph.into(),
                ..case.clone()
            }
        })
    })
}

/// Random cases, then the matrix where an extent is given, past mismatches: one of each sort, at most `most`, for who mends
/// a variant.
pub fn survey(
    variant: &dyn Variant,
    seed: u64,
    cases: usize,
    extent: Option<Extent>,
    most: usize,
) -> (Summary, Vec<Box<Mismatch>>) {
    survey_where(variant, (seed, cases), extent, most, &|_| true)
}

/// As [`survey`], of the cases that are wanted; random ones by first seed and number.
pub fn survey_where(
    variant: &dyn Variant,
    (seed, cases): (u64, usize),
    extent: Option<Extent>,
    most: usize,
    wanted: &dyn Fn(&Case) -> bool,
) -> (Summary, Vec<Box<Mismatch>>) {
    let mut summary = Summary::default();
    let mut found: BTreeMap<String, Box<Mismatch>> = BTreeMap::new();
    let mut take = |case: Case| {
        if found.len() < most
            && wanted(&case)
            && let Err(mismatch) = judge_unshrunk(variant, &case, &mut summary)
        {
            let letters = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
            found
                .entry(letters(&format!("{} {}", case.name, mismatch.what)))
                .or_insert(mismatch);
        }
        Ok(())
    };
    let last = u64::try_from(cases).unwrap_or(u64::MAX);
    for index in 0..last {
        let _: Result<(), Box<Mismatch>> = take(generate::graph(seed.wrapping_add(index)));
    }
    if let Some(extent) = extent {
        let _: Result<(), Box<Mismatch>> = matrix::for_each(extent, &mut take);
    }
    let shrunk = found.into_values().map(|mismatch| shrink::shrink(variant, mismatch));
    (summary, shrunk.collect())
}

/// Runs a case on both, with one thread and with four, in two layouts.
fn judge(variant: &dyn Variant, case: &Case) -> Result<Verdict, Box<Mismatch>> {
    if let Some(reason) = unsupported(variant, &case.graph) {
        return Ok(Verdict::Unsupported(reason));
    }
    let expected = interpret(&case.graph, &case.data);
    if let Err(DeviceError::Unsupported(_)) = &expected {
        return Ok(Verdict::Unjudged);
    }
    for (layout_seed, threads) in [(case.seed, 1), (case.seed.wrapping_add(1), 4)] {
        let pool = Arc::new(CountingPool::new(usize::MAX));
        let actual = run_once(variant, case, layout_seed, threads, &pool, false);
        if let Some(Err(DeviceError::Unsupported(reason))) = &actual
            && let Some(reason) = reason.strip_prefix(BOUND)
        {
            return Ok(Verdict::Unsupported(reason.to_owned()));
        }
        let compared =
            agree(case, &expected, actual.as_ref()).and_then(|()| pool.check().map_err(|error| error.to_string()));
        if let Err(what) = compared {
            return Err(Box::new(Mismatch {
                case: case.clone(),
                threads,
                what,
                expected: expected.map(|answer| answer.rows),
                actual,
            }));
        }
    }
    Ok(if expected.is_ok() {
        Verdict::Rows
    } else {
        Verdict::Error
    })
}

/// None: it panicked.
fn run_once(
    variant: &dyn Variant,
    case: &Case,
    layout_seed: u64,
    threads: usize,
    pool: &Arc<CountingPool>,
    cancelled: bool,
) -> Option<Result<Vec<Row>, DeviceError>> {
    let mut rng = SmallRng::seed_from_u64(layout_seed);
    let mut layout = Layout {
        segmentation: case.segmentation,
        alike: case.alike,
        ..Layout::default()
    };
    if case.alike {
        // One layout with plain strings, the other with dictionaries: without strings both share kernels.
        layout.dictionary = if layout_seed == case.seed { 0.0 } else { 1.0 };
    }
    let pool: Arc<dyn DevicePool> = Arc::<CountingPool>::clone(pool);
    let emits = matches!(
        case.graph.fragments.last().map(|last| &last.sink),
        Some(Sink::Emit { .. })
    );
    let run_it = || {
        let inputs = bind(&case.graph, &case.data, &layout, &pool, &mut rng)?;
        inputs.cancelled.store(cancelled, Ordering::SeqCst);
        if let Some(reason) = unsupported_bound(variant, &case.graph, &inputs) {
            return Err(DeviceError::Unsupported(format!("{BOUND}{reason}")));
        }
        let emits = emits && rng.random_bool(0.5);
        let together = if rng.random_bool(0.5) {
            Together::All
        } else {
            Together::No
        };
        if emits {
            run_emitting_as(variant, &case.graph, inputs, threads, together)
        } else {
            run_as(variant, &case.graph, inputs, threads, together)
        }
    };
    catch_unwind(AssertUnwindSafe(run_it)).ok()
}

fn agree(
    case: &Case,
    expected: &Result<Answer, DeviceError>,
    actual: Option<&Result<Vec<Row>, DeviceError>>,
) -> Result<(), String> {
    // With a limit, rows whose expressions fail may never be reached.
    let last = case.graph.fragments.last().map(|last| &last.sink);
    let may_stop_early = matches!(last, Some(Sink::Emit { limit: Some(_), .. }));
    match (expected, actual) {
        (_, None) => Err("the variant panicked".to_owned()),
        (Err(DeviceError::Arithmetic(_)), Some(Err(DeviceError::Arithmetic(_)))) => Ok(()),
        (Err(DeviceError::Arithmetic(_)), Some(Ok(_))) if may_stop_early => Ok(()),
        (Ok(answer), Some(Ok(rows))) => compare(&case.graph, &case.data.parameters, answer, rows),
        (Err(expected), Some(Ok(_))) => Err(format!("rows, expected is the error {expected:?}")),
        (_, Some(Err(error))) => Err(format!("unexpected error {error:?}")),
    }
}

/// Without memory, at some reservation, a variant says so, gives everything back, and nothing worse.
fn starve(variant: &dyn Variant, case: &Case) -> Result<(), Box<Mismatch>> {
    let counting = Arc::new(CountingPool::new(usize::MAX));
    if run_once(variant, case, case.seed, 1, &counting, false).is_none() || counting.reservations() == 0 {
        return Ok(());
    }
    let mut rng = SmallRng::seed_from_u64(case.seed);
    // Reservations may depend on chance in the threads' work: with one there is none.
    let fail_at = rng.random_range(0..counting.reservations());
    let pool = Arc::new(CountingPool::failing_at(fail_at));
    let actual = run_once(variant, case, case.seed, 1, &pool, false);
    let what = match &actual {
        Some(Err(DeviceError::OutOfMemory(_))) => pool.check().err().map(|error| error.to_string()),
        Some(Ok(_)) => Some("rows".to_owned()),
        Some(Err(error)) => Some(format!("{error:?}")),
        None => Some("a panic".to_owned()),
    };
    what.map_or(Ok(()), |what| {
        Err(Box::new(Mismatch {
            case: case.clone(),
            threads: 1,
            what: format!("{what} where reservation {fail_at} fails"),
            expected: Err(DeviceError::OutOfMemory("as the pool says".to_owned())),
            actual,
        }))
    })
}

/// Cancelled before it starts, a variant says so or is done at once, and gives its memory back.
fn cancel(variant: &dyn Variant, case: &Case) -> Result<(), Box<Mismatch>> {
    let pool = Arc::new(CountingPool::new(usize::MAX));
    let actual = run_once(variant, case, case.seed, 4, &pool, true);
    let what = match &actual {
        Some(Ok(_) | Err(DeviceError::Cancelled)) => pool.check().err().map(|error| error.to_string()),
        Some(Err(error)) => Some(format!("{error:?}")),
        None => Some("a panic".to_owned()),
    };
    what.map_or(Ok(()), |what| {
        Err(Box::new(Mismatch {
            case: case.clone(),
            threads: 4,
            what: format!("{what} where the query is cancelled"),
            expected: Err(DeviceError::Cancelled),
            actual,
        }))
    })
}

#[cfg(test)]
mod tests;
