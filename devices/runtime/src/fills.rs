//! The columns of a run: which are in device memory already, and copying those that are not, by many workers.
//!
//! ```text
//!  plan: every column pinned or given memory, or nothing at all
//!  fill: [ column │ column │ … ] ◀── the device's thread and whatever workers step the kernel ──▶ Copy queue ─event─▶ Compute
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use trireme_device_api::{DeviceColumn, DeviceError, Values};

use crate::accelerator::Core;
use crate::columns::Key;
use crate::driver::Queue;
use crate::image::Image;
use crate::task::{Table, Task};
use crate::uploaded::Uploaded;

/// Uploads from this size on say how fast the device is fed.
const MEASURED_BYTES: u64 = 8 << 20;

/// Loaded columns, by table, segment and column.
pub(crate) type Columns = Vec<Vec<Vec<Option<Arc<DeviceColumn>>>>>;

/// Columns of one table in device memory, by segment and column; none where nobody reads.
pub(crate) type Resident = Vec<Vec<Option<Arc<Uploaded>>>>;

/// A column that must be copied.
pub(crate) struct Fill {
    key: Option<Key>,
    pub(crate) uploaded: Arc<Uploaded>,
    image: Image,
}

/// The columns of a run.
#[derive(Default)]
pub(crate) struct Plan {
    /// By table.
    pub(crate) tables: Vec<Resident>,
    /// By table.
    fills: Vec<Vec<Fill>>,
}

impl Plan {
    /// Pins or makes room for all columns; none if there is no room, and then nothing is held.
    ///
    /// # Errors
    /// When a column can't be loaded; when the driver refuses.
    pub(crate) fn new(task: &Task, columns: &Columns) -> Result<Option<Self>, DeviceError> {
        let mut plan = Plan::default();
        for (number, table) in task.tables().into_iter().enumerate() {
            let (mut resident, mut fills) = (Resident::new(), Vec::new());
            for segment in 0..table.input.segments() {
                task.check()?;
                let mut row = Vec::new();
                for column in 0..table.shape.columns.len() {
                    if !table.reads(segment, column) {
                        row.push(None);
                        continue;
                    }
                    let loaded = columns
                        .get(number)
                        .and_then(|segments| segments[segment][column].as_ref());
                    match place(&task.core, table, segment, column, loaded)? {
                        Placed::There(uploaded) => row.push(Some(uploaded)),
                        Placed::Fill(fill) => {
                            row.push(Some(Arc::clone(&fill.uploaded)));
                            fills.push(fill);
                        }
                        Placed::NoRoom => return Ok(None),
                    }
                }
                resident.push(row);
            }
            plan.tables.push(resident);
            plan.fills.push(fills);
        }
        Ok(Some(plan))
    }

    /// What must be copied before fragments read a table; once.
    pub(crate) fn take_fills(&mut self, table: usize) -> Vec<Fill> {
        self.fills.get_mut(table).map(std::mem::take).unwrap_or_default()
    }
}

/// Where a column is.
pub(crate) enum Placed {
    There(Arc<Uploaded>),
    Fill(Fill),
    NoRoom,
}

/// Pins a column or makes room for it.
///
/// # Errors
/// As [`Plan::new`].
pub(crate) fn place(
    core: &Core,
    table: &Table,
    segment: usize,
    column: usize,
    loaded: Option<&Arc<DeviceColumn>>,
) -> Result<Placed, DeviceError> {
    let shape = &table.shape.columns[column];
    let identity = table.input.identity(segment, column);
    let mut key = identity.map(|identity| Key::column(identity, shape));
    if let Some(uploaded) = key.and_then(|key| core.columns.column(key)) {
        return Ok(Placed::There(uploaded));
    }
    let loaded = match loaded {
        Some(loaded) => Arc::clone(loaded),
        // It was in device memory when columns were loaded, and has been dropped since.
        None => table.input.load(segment, column)?,
    };
    if loaded.rows != table.input.rows(segment) {
        return Err(DeviceError::Internal(format!(
            "column {column} of segment {segment} has {} rows, not {}",
            loaded.rows,
            table.input.rows(segment)
        )));
    }
    if matches!(loaded.values, Values::Nulls) {
        // What stands there depends on bounds that another scan may not share.
        key = None;
    }
    let image = Image::new(&loaded, shape)?;
    Ok(match Uploaded::allocate(core, &image, &loaded, shape)? {
        Some(uploaded) => Placed::Fill(Fill {
            key,
            uploaded: Arc::new(uploaded),
            image,
        }),
        None => Placed::NoRoom,
    })
}

#[derive(Default)]
struct State {
    queue: VecDeque<Arc<Fill>>,
    /// Taken or in the queue.
    outstanding: usize,
    copied_bytes: u64,
    failed: Option<DeviceError>,
}

/// Columns that are being copied.
#[derive(Default)]
pub(crate) struct Fills {
    state: Mutex<State>,
    done: Condvar,
}

impl Fills {
    /// Copies one column, if one waits: what workers do for a run.
    pub(crate) fn help(&self, core: &Core) -> bool {
        let Some(fill) = self.state.lock().queue.pop_front() else {
            return false;
        };
        let began = Instant::now();
        let copied = fill.uploaded.fill(core, Queue::Copy, &fill.image);
        fill.uploaded.took(began.elapsed());
        let mut state = self.state.lock();
        state.outstanding -= 1;
        match copied {
            Ok(bytes) => state.copied_bytes += bytes,
            Err(error) => {
                state.failed.get_or_insert(error);
                state.outstanding -= state.queue.len();
                state.queue.clear();
            }
        }
        if state.outstanding == 0 {
            self.done.notify_all();
        }
        true
    }

    /// Copies all and orders what is queued for kernels from now on after the copies; gives the bytes. When it returns, even
    /// with an error, no worker copies any more. `wake` calls for help.
    ///
    /// # Errors
    /// When the device is lost.
    pub(crate) fn run(&self, core: &Core, fills: Vec<Fill>, keep: bool, wake: &dyn Fn()) -> Result<u64, DeviceError> {
        if fills.is_empty() {
            return Ok(0);
        }
        let began = Instant::now();
        let fills: Vec<_> = fills.into_iter().map(Arc::new).collect();
        {
            let mut state = self.state.lock();
            state.queue.extend(fills.iter().cloned());
            state.outstanding += fills.len();
        }
        if fills.len() > 1 {
            wake();
        }
        while self.help(core) {}
        let mut state = self.state.lock();
        while state.outstanding > 0 {
            self.done.wait(&mut state);
        }
        if let Some(error) = state.failed.take() {
            return Err(error);
        }
        let copied = std::mem::take(&mut state.copied_bytes);
        drop(state);
        let event = core.driver.record(Queue::Copy)?;
        core.driver.after(Queue::Compute, &event)?;
        core.counters.uploaded_bytes.fetch_add(copied, Ordering::Relaxed);
        if copied >= MEASURED_BYTES {
            let ns = began.elapsed().as_nanos().max(1);
            let rate = u128::from(copied) * 1_000_000_000 / ns;
            let rate = u64::try_from(rate).unwrap_or(u64::MAX);
            core.counters.upload_rate.store(rate, Ordering::Relaxed);
        }
        for fill in fills.iter().filter(|_| keep) {
            if let Some(key) = fill.key {
                core.columns.keep_column(key, &fill.uploaded);
            }
        }
        Ok(copied)
    }
}
