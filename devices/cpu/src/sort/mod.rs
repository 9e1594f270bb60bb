//! The sort sink: sorted rows, or only the best of them.
//!
//! Each worker turns the keys of its rows into numbers (`keys.rs`) and keeps the row columns as they come (`store.rs`).
//! Without a limit it sorts its items run by run; with one it keeps a buffer of the best so far, and the worst of these
//! becomes a bound that drops most tiles after one look at their first key. The order of all is made by tasks that may run at
//! once, each over a range of keys (`merge.rs`).
//!
//! ```text
//!  worker:  tile ─bound?─▶ keys ─▶ items (key, worker, row) ─▶ │ sorted run │ sorted run │ rest │
//!                          columns of the rows that are kept ─▶ stores
//!  seal:    ranges of keys, the same for all runs:   │ task 0 │ task 1 │ … │
//!  task:    its piece of every run ─merge─▶ places ─gather─▶ a segment of the output
//! ```
//!
//! Rows with equal keys come in any order. Nothing is spilled: a sort that does not fit the pool is the caller's to run
//! otherwise.

mod keys;
mod merge;
mod packed;
mod store;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::sync::atomic::{AtomicU32, Ordering as Memory};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use trireme_device_api::{DeviceError, DevicePool, Reservation, Rows};

use crate::vector::{Data, Shape, Vector};

use keys::{Bound, Tails, Width};
pub(crate) use keys::{KeyOrder, Plan};
use merge::{Merge, Window};
pub(crate) use packed::Packed;
use packed::{Prefix, SortKey};
use store::Store;

/// The buffer of the best holds at least so many rows: cutting it back costs little, and the bound that a cut sets spares
/// the look at most tiles.
const BUFFER_ROWS_MIN: usize = 128;
/// Of a tile with so many times the rows that are asked for, only the best are admitted.
const ADMITTED_MANY: usize = 4;
/// Memory is reserved in steps of this.
const RESERVE_STEP_BYTES: usize = 64 * 1024;

/// Sizes of the parts; tests make them small.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    /// Items of a sorted run: with 16 bytes each they fit the second-level cache.
    run_rows: usize,
    /// Above so many rows a limit is applied to the whole sort; below, the best are kept in a buffer.
    kept_rows_max: usize,
    /// Rows that a task merges, about.
    task_rows: usize,
    /// Every so many-th item of a run is looked at to find the ranges of tasks.
    sample_step: usize,
    /// Rows of an output segment, at most.
    segment_rows: usize,
}

const SIZES: Sizes = Sizes {
    run_rows: 64 * 1024,
    kept_rows_max: 1 << 20,
    task_rows: 128 * 1024,
    sample_step: 2048,
    segment_rows: 1 << 20,
};

/// A row to sort.
#[derive(Debug, Clone, Copy)]
struct Item<K> {
    key: K,
    worker: u32,
    row: u32,
}

fn compare<K: SortKey>(tails: Option<&[&Tails]>, a: &Item<K>, b: &Item<K>) -> Ordering {
    let Some(tails) = tails else {
        return K::compare((a.key, a.worker, a.row), (b.key, b.worker, b.row));
    };
    let tail = |item: &Item<K>| tails[item.worker as usize].get(item.row as usize);
    a.key
        .cmp(&b.key)
        .then_with(|| tail(a).cmp(tail(b)))
        .then_with(|| (a.worker, a.row).cmp(&(b.worker, b.row)))
}

/// A sort of one fragment, shared by its workers.
pub(crate) struct SortSink {
    plan: Arc<Plan>,
    columns: Arc<[Shape]>,
    window: Window,
    sizes: Sizes,
    pool: Arc<dyn DevicePool>,
    workers: AtomicU32,
    sealed: Mutex<Option<Arc<dyn Merge>>>,
}

impl SortSink {
    /// Orders by `keys`, most significant first, and keeps `columns`; of the sorted rows at most `limit` after `offset`.
    pub(crate) fn new(
        keys: &[KeyOrder],
        columns: &[Shape],
        limit: Option<usize>,
        offset: usize,
        pool: &Arc<dyn DevicePool>,
    ) -> Self {
        Self {
            plan: Arc::new(Plan::new(keys)),
            columns: columns.into(),
            window: Window { limit, offset },
            sizes: SIZES,
            pool: Arc::clone(pool),
            workers: AtomicU32::new(0),
            sealed: Mutex::new(None),
        }
    }

    /// The state of one worker.
    pub(crate) fn local(&self) -> SortLocal {
        let worker = self.workers.fetch_add(1, Memory::Relaxed);
        match self.plan.width {
            Width::One => SortLocal::One(Local::new(self, worker)),
            Width::Two => SortLocal::Two(Local::new(self, worker)),
            Width::Bytes => SortLocal::Bytes(Local::new(self, worker)),
        }
    }

    /// Ends collecting: cuts the work into [`SortSink::tasks`].
    ///
    /// # Errors
    /// Out of memory when the output does not fit beside the rows.
    pub(crate) fn seal(&self, locals: Vec<SortLocal>) -> Result<(), DeviceError> {
        let (mut one, mut two, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
        for local in locals {
            match local {
                SortLocal::One(local) => one.push(local),
                SortLocal::Two(local) => two.push(local),
                SortLocal::Bytes(local) => bytes.push(local),
            }
        }
        let sealed = match self.plan.width {
            Width::One => merge::prepare(&self.columns, one, self.window, self.sizes, &self.pool)?,
            Width::Two => merge::prepare(&self.columns, two, self.window, self.sizes, &self.pool)?,
            Width::Bytes => merge::prepare(&self.columns, bytes, self.window, self.sizes, &self.pool)?,
        };
        *lock(&self.sealed) = Some(sealed);
        Ok(())
    }

    /// Tasks after sealing, which may run at once.
    pub(crate) fn tasks(&self) -> usize {
        lock(&self.sealed).as_ref().map_or(0, |sealed| sealed.tasks())
    }

    /// Makes one task's part of the output.
    ///
    /// # Errors
    /// Unsupported when a segment's strings are too long together.
    pub(crate) fn run_task(&self, task: usize) -> Result<(), DeviceError> {
        let sealed = lock(&self.sealed).clone();
        sealed.ok_or_else(|| not_sealed("task"))?.run(task)
    }

    /// The sorted rows, when all tasks have run.
    ///
    /// # Errors
    /// Internal when they have not.
    pub(crate) fn finish(&self) -> Result<Rows, DeviceError> {
        let sealed = lock(&self.sealed).take();
        sealed.ok_or_else(|| not_sealed("finish"))?.finish()
    }
}

fn not_sealed(what: &str) -> DeviceError {
    DeviceError::Internal(format!("{what} of a sort that is not sealed"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one worker has collected.
pub(crate) enum SortLocal {
    One(Local<u64>),
    Two(Local<u128>),
    Bytes(Local<Prefix>),
}

/// Which rows of a tile a sort wants.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admitted<'l> {
    /// None of them.
    None,
    /// All of them.
    All,
    /// Those at these positions, ascending.
    Some(&'l [u32]),
}

impl SortLocal {
    /// Takes a tile: `rows` values of each key and of each row column.
    ///
    /// # Errors
    /// Out of memory; unsupported from 2³² rows on; internal when vectors are not of their shapes.
    #[cfg(test)]
    pub(crate) fn push(&mut self, keys: &[Vector<'_>], columns: &[Vector<'_>], rows: usize) -> Result<(), DeviceError> {
        let taken: Vec<_> = match self.admit(keys, rows)? {
            Admitted::None => return Ok(()),
            Admitted::All => return self.append(columns),
            Admitted::Some(selected) => columns.iter().map(|column| column.take(selected)).collect(),
        };
        self.append(&taken)
    }

    /// The first half of [`SortLocal::push`]: takes the keys and says for which rows [`SortLocal::append`] must bring the row
    /// columns. Lets the caller load and compute these for few rows.
    ///
    /// # Errors
    /// As [`SortLocal::push`].
    pub(crate) fn admit(&mut self, keys: &[Vector<'_>], rows: usize) -> Result<Admitted<'_>, DeviceError> {
        match self {
            SortLocal::One(local) => local.admit(keys, rows),
            SortLocal::Two(local) => local.admit(keys, rows),
            SortLocal::Bytes(local) => local.admit(keys, rows),
        }
    }

    /// True when the best rows so far say which further ones may matter.
    pub(crate) fn is_bounded(&self) -> bool {
        let bound = match self {
            SortLocal::One(local) => &local.bound,
            SortLocal::Two(local) => &local.bound,
            SortLocal::Bytes(local) => &local.bound,
        };
        !matches!(bound, Bound::Open)
    }

    /// The rows of a tile that may be among the best, as far as the first key tells; none when it doesn't. Lets the caller
    /// evaluate the other keys for few rows.
    ///
    /// # Errors
    /// As [`SortLocal::push`].
    ///
    /// Worth calling once [`SortLocal::is_bounded`].
    pub(crate) fn within(&mut self, first: &Vector<'_>) -> Result<Option<&[u32]>, DeviceError> {
        match self {
            SortLocal::One(local) => local.within(first),
            SortLocal::Two(local) => local.within(first),
            SortLocal::Bytes(local) => local.within(first),
        }
    }

    /// The second half: the row columns of the admitted rows, dense. Not called when none was admitted.
    ///
    /// # Errors
    /// As [`SortLocal::push`].
    pub(crate) fn append(&mut self, columns: &[Vector<'_>]) -> Result<(), DeviceError> {
        match self {
            SortLocal::One(local) => local.append(columns),
            SortLocal::Two(local) => local.append(columns),
            SortLocal::Bytes(local) => local.append(columns),
        }
    }
}

/// One worker's rows.
pub(crate) struct Local<K> {
    worker: u32,
    plan: Arc<Plan>,
    /// Only so many of the best rows matter.
    keep: Option<usize>,
    run_rows: usize,
    items: Vec<Item<K>>,
    /// Where sorted runs end.
    runs: Vec<usize>,
    /// Of keys that are byte strings.
    tails: Option<Tails>,
    columns: Vec<Store>,
    /// The key that a row must come before, once `keep` rows are there.
    threshold: Option<(K, Vec<u8>)>,
    bound: Bound,
    keys: Vec<K>,
    selected: Vec<u32>,
    /// Rows whose columns are to come.
    admitted: usize,
    held: Reservation,
}

impl<K: SortKey> Local<K> {
    fn new(sink: &SortSink, worker: u32) -> Self {
        Self {
            worker,
            plan: Arc::clone(&sink.plan),
            keep: sink.window.rows().filter(|keep| *keep <= sink.sizes.kept_rows_max),
            run_rows: sink.sizes.run_rows,
            items: Vec::new(),
            runs: Vec::new(),
            tails: (sink.plan.width == Width::Bytes).then(Tails::default),
            columns: sink.columns.iter().map(Store::new).collect(),
            threshold: None,
            bound: Bound::Open,
            keys: Vec::new(),
            selected: Vec::new(),
            admitted: 0,
            held: Reservation::new(&sink.pool),
        }
    }

    fn within(&mut self, first: &Vector<'_>) -> Result<Option<&[u32]>, DeviceError> {
        let narrowed = self.plan.within(&self.bound, first, &mut self.selected)?;
        Ok(narrowed.then_some(&self.selected))
    }

    fn admit(&mut self, keys: &[Vector<'_>], rows: usize) -> Result<Admitted<'_>, DeviceError> {
        if rows == 0 || self.keep == Some(0) {
            return Ok(Admitted::None);
        }
        if self.items.len() + rows > u32::MAX as usize {
            return Err(DeviceError::Unsupported(
                "a worker sorts fewer than 2^32 rows".to_owned(),
            ));
        }
        let plan = Arc::clone(&self.plan);
        let narrowed = match keys.first() {
            Some(first) => plan.within(&self.bound, first, &mut self.selected)?,
            None => false,
        };
        if self.keep.is_none() && self.tails.is_none() {
            return self.admit_all(&plan, keys, rows);
        }
        if !narrowed {
            self.selected.clear();
            self.selected.extend(0..rows as u32);
        }
        if self.selected.is_empty() {
            return Ok(Admitted::None);
        }
        if self.tails.is_some() {
            self.admit_encoded(&plan, keys)?;
        } else {
            self.reserve(rows * size_of::<K>())?;
            K::pack(&plan, keys, rows, &mut self.keys)?;
            self.admit_packed()?;
        }
        Ok(match self.admitted {
            0 => Admitted::None,
            count if count == rows => Admitted::All,
            _ => Admitted::Some(&self.selected),
        })
    }

    /// All rows, whose keys are to be packed.
    fn admit_all(&mut self, plan: &Plan, keys: &[Vector<'_>], rows: usize) -> Result<Admitted<'_>, DeviceError> {
        self.reserve(rows * (size_of::<K>() + size_of::<Item<K>>()))?;
        K::pack(plan, keys, rows, &mut self.keys)?;
        let (start, worker) = (self.items.len() as u32, self.worker);
        let item = |(row, key): (u32, &K)| Item { key: *key, worker, row };
        self.items.extend((start..).zip(&self.keys).map(item));
        self.admitted = rows;
        Ok(Admitted::All)
    }

    /// Of the selected rows, whose keys are packed.
    fn admit_packed(&mut self) -> Result<(), DeviceError> {
        let keys = &self.keys;
        if let Some((threshold, _)) = &self.threshold {
            self.selected.retain(|row| keys[*row as usize] < *threshold);
        }
        if let Some(keep) = self
            .keep
            .filter(|keep| self.selected.len() > keep.saturating_mul(ADMITTED_MANY))
        {
            let mut found: Vec<K> = self.selected.iter().map(|row| keys[*row as usize]).collect();
            let (_, worst, _) = found.select_nth_unstable(keep - 1);
            let worst = *worst;
            self.selected.retain(|row| keys[*row as usize] <= worst);
        }
        self.reserve(self.selected.len() * size_of::<Item<K>>())?;
        let (start, worker) = (self.items.len() as u32, self.worker);
        let item = |(row, key): (u32, K)| Item { key, worker, row };
        let keys = self.selected.iter().map(|row| self.keys[*row as usize]);
        self.items.extend((start..).zip(keys).map(item));
        self.admitted = self.selected.len();
        Ok(())
    }

    fn admit_encoded(&mut self, plan: &Plan, keys: &[Vector<'_>]) -> Result<(), DeviceError> {
        let mut fresh = Tails::default();
        plan.encode(keys, &self.selected, &mut self.keys, &mut fresh)?;
        self.reserve(fresh.size_bytes() + self.selected.len() * size_of::<Item<K>>())?;
        let Some(tails) = &mut self.tails else {
            return Ok(());
        };
        let mut kept = 0;
        for at in 0..self.selected.len() {
            let (key, tail) = (self.keys[at], fresh.get(at));
            if let Some((most, most_tail)) = &self.threshold
                && (key, tail) >= (*most, most_tail.as_slice())
            {
                continue;
            }
            self.selected[kept] = self.selected[at];
            kept += 1;
            self.items.push(Item {
                key,
                worker: self.worker,
                row: self.items.len() as u32,
            });
            tails.push(tail);
        }
        self.selected.truncate(kept);
        self.admitted = kept;
        Ok(())
    }

    fn append(&mut self, columns: &[Vector<'_>]) -> Result<(), DeviceError> {
        let fits = columns.len() == self.columns.len();
        if !fits || columns.iter().any(|column| column.len() != self.admitted) {
            let text = format!(
                "{} row columns for {} of a sort, or of other rows",
                columns.len(),
                self.columns.len()
            );
            return Err(DeviceError::Internal(text));
        }
        self.reserve(columns.iter().map(vector_bytes).sum())?;
        for (store, vector) in self.columns.iter_mut().zip(columns) {
            store.append(vector)?;
        }
        match self.keep {
            Some(keep) if self.items.len() >= self.cut_at(keep) => self.cut(keep),
            None if self.items.len() - self.sorted_rows() >= self.run_rows => self.sort_rest(),
            _ => {}
        }
        Ok(())
    }

    /// Makes sure that what is there and `more` bytes are reserved: twice, since vectors grow to twice their length.
    fn reserve(&mut self, more: usize) -> Result<(), DeviceError> {
        let items = self.items.len() * size_of::<Item<K>>() + self.keys.len() * size_of::<K>();
        let tails = self.tails.as_ref().map_or(0, Tails::size_bytes);
        let columns: usize = self.columns.iter().map(Store::size_bytes).sum();
        let needed = 2 * (items + tails + columns + more);
        self.held.grow_to(needed.next_multiple_of(RESERVE_STEP_BYTES))
    }

    fn sorted_rows(&self) -> usize {
        self.runs.last().copied().unwrap_or(0)
    }

    /// Sorts the items after the last run, which become a run.
    fn sort_rest(&mut self) {
        let from = self.sorted_rows();
        if from == self.items.len() {
            return;
        }
        let rest = &mut self.items[from..];
        match &self.tails {
            None => rest.sort_unstable_by(|a, b| compare(None, a, b)),
            Some(tails) => rest.sort_unstable_by(|a, b| compare_own(tails, a, b)),
        }
        self.runs.push(self.items.len());
    }

    /// At so many rows the buffer is cut back: as soon as that gives a first bound, then when it pays.
    fn cut_at(&self, keep: usize) -> usize {
        match self.threshold {
            None => keep,
            Some(_) => BUFFER_ROWS_MIN.max(2 * keep),
        }
    }

    /// Drops all but the best `keep` rows.
    fn cut(&mut self, keep: usize) {
        let last = keep - 1;
        match &self.tails {
            None => self.items.select_nth_unstable_by(last, |a, b| compare(None, a, b)),
            Some(tails) => self.items.select_nth_unstable_by(last, |a, b| compare_own(tails, a, b)),
        };
        self.items.truncate(keep);
        let worst = self.items[last];
        let tail = self
            .tails
            .as_ref()
            .map_or(&[][..], |tails| tails.get(worst.row as usize));
        self.bound = self.plan.bound(worst.key, tail);
        self.threshold = Some((worst.key, tail.to_vec()));
        let rows: Vec<u32> = self.items.iter().map(|item| item.row).collect();
        for store in &mut self.columns {
            store.keep(&rows);
        }
        if let Some(tails) = &mut self.tails {
            tails.keep(rows.iter().map(|row| *row as usize));
        }
        for (row, item) in (0..).zip(&mut self.items) {
            item.row = row;
        }
    }
}

/// Items of one worker.
fn compare_own<K: SortKey>(tails: &Tails, a: &Item<K>, b: &Item<K>) -> Ordering {
    let tail = |item: &Item<K>| tails.get(item.row as usize);
    a.key
        .cmp(&b.key)
        .then_with(|| tail(a).cmp(tail(b)))
        .then_with(|| a.row.cmp(&b.row))
}

/// About the memory that a vector's rows take in a store.
fn vector_bytes(vector: &Vector<'_>) -> usize {
    let width = match &vector.data {
        Data::Bool(_) | Data::I8(_) => 1,
        Data::I16(_) => 2,
        Data::I32(_) | Data::F32(_) | Data::Codes(..) => 4,
        Data::I64(_) | Data::F64(_) => 8,
        Data::I128(_) | Data::Interval(_) => 16,
        Data::Bytes(values) => return values.iter().map(|value| value.len() + 8).sum(),
        Data::Strings(values) => values.size_bytes() * 2,
        Data::Null(_) => 1,
    };
    vector.len() * (width + usize::from(vector.valid.is_some()))
}
