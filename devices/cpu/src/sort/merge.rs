//! From sorted runs to sorted segments: ranges of keys that tasks merge independently.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use trireme_device_api::{DeviceColumn, DeviceError, DevicePool, Reservation, Rows};

use super::keys::Tails;
use super::packed::SortKey;
use super::store::{self, Place, Store};
use super::{Item, Local, Sizes, compare, lock};
use crate::vector::Shape;

/// Which of the sorted rows are asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) limit: Option<usize>,
    pub(super) offset: usize,
}

impl Window {
    /// How many of the first rows matter.
    pub(super) fn rows(self) -> Option<usize> {
        match self.limit {
            Some(0) => Some(0),
            limit => limit.map(|limit| limit.saturating_add(self.offset)),
        }
    }

    fn of(self, total: usize) -> Range<usize> {
        let end = self.rows().map_or(total, |rows| rows.min(total));
        self.offset.min(end)..end
    }
}

/// The second half of a sort, whatever its keys.
pub(super) trait Merge: Send + Sync {
    fn tasks(&self) -> usize;
    fn run(&self, task: usize) -> Result<(), DeviceError>;
    fn finish(&self) -> Result<Rows, DeviceError>;
}

type Segment = (usize, Vec<Arc<DeviceColumn>>);

/// A range of the output.
struct Task {
    /// Pieces of runs: a worker and where in its items.
    pieces: Vec<(usize, Range<usize>)>,
    /// Of the merged pieces, the rows that are asked for.
    window: Range<usize>,
    done: Mutex<Option<Vec<Segment>>>,
}

struct Merging<K> {
    columns: Arc<[Shape]>,
    locals: Vec<Local<K>>,
    tasks: Vec<Task>,
    segment_rows: usize,
    /// Of the output.
    held: Mutex<Option<Reservation>>,
}

/// Cuts what the workers have collected into tasks.
pub(super) fn prepare<K: SortKey>(
    columns: &Arc<[Shape]>,
    mut locals: Vec<Local<K>>,
    window: Window,
    sizes: Sizes,
    pool: &Arc<dyn DevicePool>,
) -> Result<Arc<dyn Merge>, DeviceError> {
    for (worker, local) in (0..).zip(&mut locals) {
        local.items.iter_mut().for_each(|item| item.worker = worker);
    }
    let total = locals.iter().map(|local| local.items.len()).sum();
    let window = window.of(total);
    let mut held = Reservation::new(pool);
    let bytes: usize = locals
        .iter()
        .flat_map(|local| &local.columns)
        .map(Store::size_bytes)
        .sum();
    let share = window.len() as f64 / total.max(1) as f64;
    held.grow((bytes as f64 * share) as usize + window.len() * size_of::<Item<K>>())?;
    let mut start = 0;
    let mut tasks = Vec::new();
    for pieces in ranges(&mut locals, total.div_ceil(sizes.task_rows), sizes.sample_step) {
        let rows: usize = pieces.iter().map(|(_, piece)| piece.len()).sum();
        let from = window.start.clamp(start, start + rows) - start;
        let to = window.end.clamp(start, start + rows) - start;
        if from < to {
            tasks.push(Task {
                pieces,
                window: from..to,
                done: Mutex::new(None),
            });
        }
        start += rows;
    }
    Ok(Arc::new(Merging {
        columns: Arc::clone(columns),
        locals,
        tasks,
        segment_rows: sizes.segment_rows,
        held: Mutex::new(Some(held)),
    }))
}

type Pieces = Vec<(usize, Range<usize>)>;

/// The items of all workers as `count` ranges of keys, about equally long.
fn ranges<K: SortKey>(locals: &mut [Local<K>], count: usize, step: usize) -> Vec<Pieces> {
    if count < 2 {
        return vec![
            (0..)
                .zip(locals.iter())
                .map(|(worker, local)| (worker, 0..local.items.len()))
                .collect(),
        ];
    }
    locals.iter_mut().for_each(Local::sort_rest);
    let tails = tails(locals);
    let tails = tails.as_deref();
    let mut runs: Pieces = Vec::new();
    for (worker, local) in locals.iter().enumerate() {
        let starts = std::iter::once(0).chain(local.runs.iter().copied());
        runs.extend(starts.zip(&local.runs).map(|(from, to)| (worker, from..*to)));
    }
    let items = |(worker, piece): &(usize, Range<usize>)| &locals[*worker].items[piece.clone()];
    let mut samples: Vec<Item<K>> = runs
        .iter()
        .flat_map(|run| items(run).iter().skip(step / 2).step_by(step).copied())
        .collect();
    samples.sort_unstable_by(|a, b| compare(tails, a, b));
    let mut starts: Vec<usize> = runs.iter().map(|(_, run)| run.start).collect();
    let mut found = Vec::with_capacity(count);
    for at in 1..=count {
        let splitter = samples.get(at * samples.len() / count).filter(|_| at < count);
        let mut pieces = Vec::new();
        for (start, run) in starts.iter_mut().zip(&runs) {
            let end = match splitter {
                None => run.1.end,
                Some(splitter) => {
                    let before = |item: &Item<K>| compare(tails, item, splitter).is_lt();
                    run.1.start + items(run).partition_point(before)
                }
            };
            if *start < end {
                pieces.push((run.0, *start..end));
            }
            *start = end;
        }
        found.push(pieces);
    }
    found
}

fn tails<K>(locals: &[Local<K>]) -> Option<Vec<&Tails>> {
    locals.iter().map(|local| local.tails.as_ref()).collect()
}

impl<K: SortKey> Merge for Merging<K> {
    fn tasks(&self) -> usize {
        self.tasks.len()
    }

    fn run(&self, task: usize) -> Result<(), DeviceError> {
        let Some(task) = self.tasks.get(task) else {
            return Err(DeviceError::Internal(format!(
                "task {task} of a sort with {}",
                self.tasks.len()
            )));
        };
        let tails = tails(&self.locals);
        let tails = tails.as_deref();
        let pieces = task
            .pieces
            .iter()
            .map(|(worker, piece)| &self.locals[*worker].items[piece.clone()]);
        let mut items: Vec<Item<K>> = pieces.flatten().copied().collect();
        // The standard stable sort finds sorted runs and merges them.
        items.sort_by(|a, b| compare(tails, a, b));
        let wanted = &items[task.window.clone()];
        let mut segments = Vec::new();
        for part in wanted.chunks(self.segment_rows) {
            let places: Vec<Place> = part.iter().map(|item| (item.worker, item.row)).collect();
            let column = |(at, shape): (usize, &Shape)| {
                let parts: Vec<&Store> = self.locals.iter().map(|local| &local.columns[at]).collect();
                store::gather(shape, &parts, &places).map(Arc::new)
            };
            let columns = self.columns.iter().enumerate().map(column).collect::<Result<_, _>>()?;
            segments.push((places.len(), columns));
        }
        *lock(&task.done) = Some(segments);
        Ok(())
    }

    fn finish(&self) -> Result<Rows, DeviceError> {
        let mut rows = Rows {
            held: lock(&self.held).take().map(Arc::new).into_iter().collect(),
            ..Rows::default()
        };
        for task in &self.tasks {
            let segments = lock(&task.done).take();
            let missing = || DeviceError::Internal("a sort's task has not run".to_owned());
            rows.segments.extend(segments.ok_or_else(missing)?);
        }
        Ok(rows)
    }
}
