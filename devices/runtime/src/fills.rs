//! The columns of a run: which are in device memory already, and copying those that are not, by many workers.
//!
//! ```text
//!  plan: every column pinned or given memory, or nothing at all
//!  fill: [ column │ column │ … ] ◀── the device's thread and whatever workers step the kernel ──▶ Copy queue ─event─▶ Compute
//!        columns that come encoded are decoded behind the copies (`decoding.rs`)
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use trireme_device_api::{DeviceColumn, DeviceError, EncodedColumn, Values};

use crate::accelerator::Core;
use crate::arena::Block;
use crate::columns::Key;
use crate::decoding::Decoding;
use crate::driver::Queue;
use crate::image::{Image, Piece};
use crate::packed::Packed;
use crate::task::{Table, Task};
use crate::uploaded::Uploaded;

/// Uploads from this size on say how fast the device is fed.
const MEASURED_BYTES: u64 = 8 << 20;

/// A loaded column.
#[derive(Clone)]
pub(crate) enum Brought {
    Decoded(Arc<DeviceColumn>),
    Encoded(Arc<EncodedColumn>),
}

/// Loaded columns, by table, segment and column.
pub(crate) type Columns = Vec<Vec<Vec<Option<Brought>>>>;

/// Columns of one table in device memory, by segment and column; none where nobody reads.
pub(crate) type Resident = Vec<Vec<Option<Arc<Uploaded>>>>;

/// A column that must be copied.
pub(crate) struct Fill {
    pub(crate) key: Option<Key>,
    pub(crate) uploaded: Arc<Uploaded>,
    pub(crate) content: Content,
}

/// What is copied.
pub(crate) enum Content {
    /// The column as it lies in memory.
    Image(Image),
    /// Its pages, and where they are copied to.
    Packed(Packed, Arc<Block>),
}

/// What copies were.
#[derive(Default)]
pub(crate) struct Copied {
    /// Bytes.
    pub(crate) bytes: u64,
    /// Of these, columns that are decoded on the device.
    pub(crate) encoded: u64,
    /// What those are when they are decoded.
    pub(crate) decoded: u64,
    /// Memory to be held until the device is done with them.
    pub(crate) held: Vec<Arc<Block>>,
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
    loaded: Option<&Brought>,
) -> Result<Placed, DeviceError> {
    let shape = &table.shape.columns[column];
    let identity = table.input.identity(segment, column);
    let mut key = identity.map(|identity| Key::column(identity, shape));
    if let Some(uploaded) = key.and_then(|key| core.columns.column(key)) {
        return Ok(Placed::There(uploaded));
    }
    if let Some(Brought::Encoded(encoded)) = loaded
        && let Some(packed) = Packed::new(encoded, shape)
    {
        return encoded_fill(core, key, packed);
    }
    let loaded = match loaded {
        Some(Brought::Decoded(loaded)) => Arc::clone(loaded),
        // It was in device memory when columns were loaded, and has been dropped since; or its pages are of no use.
        _ => table.input.load(segment, column)?,
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
            content: Content::Image(image),
        }),
        None => Placed::NoRoom,
    })
}

fn encoded_fill(core: &Core, key: Option<Key>, packed: Packed) -> Result<Placed, DeviceError> {
    let Some(uploaded) = Uploaded::allocate_decoded(core, &packed)? else {
        return Ok(Placed::NoRoom);
    };
    let Some(staging) = core.room(packed.staging)? else {
        return Ok(Placed::NoRoom);
    };
    Ok(Placed::Fill(Fill {
        key,
        uploaded: Arc::new(uploaded),
        content: Content::Packed(packed, Arc::new(staging)),
    }))
}

impl Fill {
    fn copy(&self, core: &Core, copied: &mut Copied) -> Result<(), DeviceError> {
        match &self.content {
            Content::Image(image) => copied.bytes += self.uploaded.fill(core, Queue::Copy, image)?,
            Content::Packed(packed, staging) => {
                let bytes = self.uploaded.fill_encoded(core, Queue::Copy, packed, staging)?;
                copied.bytes += bytes;
                copied.encoded += bytes;
                copied.decoded += packed.values_bytes() + packed.validity().as_ref().map_or(0, Piece::bytes);
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct State {
    queue: VecDeque<Arc<Fill>>,
    /// Taken or in the queue.
    outstanding: usize,
    copied: Copied,
    failed: Option<DeviceError>,
}

/// Columns that are being copied.
#[derive(Default)]
pub(crate) struct Fills {
    state: Mutex<State>,
    /// Of the run.
    pub(crate) decoding: Mutex<Decoding>,
    done: Condvar,
}

impl Fills {
    /// Copies one column, if one waits: what workers do for a run.
    pub(crate) fn help(&self, core: &Core) -> bool {
        let Some(fill) = self.state.lock().queue.pop_front() else {
            return false;
        };
        let began = Instant::now();
        let mut copied = Copied::default();
        let done = fill.copy(core, &mut copied);
        fill.uploaded.took(began.elapsed());
        let mut state = self.state.lock();
        state.outstanding -= 1;
        match done {
            Ok(()) => {
                state.copied.bytes += copied.bytes;
                state.copied.encoded += copied.encoded;
                state.copied.decoded += copied.decoded;
            }
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

    /// Copies all, decodes what came encoded, and orders what is queued for kernels from now on after that. When it returns,
    /// even with an error, no worker copies any more. `wake` calls for help.
    ///
    /// # Errors
    /// When the device is lost.
    pub(crate) fn run(
        &self,
        core: &Core,
        fills: Vec<Fill>,
        keep: bool,
        wake: &dyn Fn(),
    ) -> Result<Copied, DeviceError> {
        if fills.is_empty() {
            return Ok(Copied::default());
        }
        let fills: Vec<_> = fills.into_iter().map(Arc::new).collect();
        let copied = self.run_queued(core, &fills, keep, wake);
        if copied.is_err() && fills.iter().any(|fill| matches!(fill.content, Content::Packed(..))) {
            // Nobody but the fills and what was queued last holds the memory of pages.
            core.idle();
        }
        let held = std::mem::take(&mut self.decoding.lock().held);
        copied.map(|copied| Copied { held, ..copied })
    }

    fn run_queued(&self, core: &Core, fills: &[Arc<Fill>], keep: bool, wake: &dyn Fn()) -> Result<Copied, DeviceError> {
        let began = Instant::now();
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
        let copied = std::mem::take(&mut state.copied);
        drop(state);
        self.decoding.lock().queue(core, fills, keep)?;
        let event = core.driver.record(Queue::Copy)?;
        core.driver.after(Queue::Compute, &event)?;
        core.counters.uploaded_bytes.fetch_add(copied.bytes, Ordering::Relaxed);
        if copied.bytes >= MEASURED_BYTES {
            let ns = began.elapsed().as_nanos().max(1);
            let rate = u128::from(copied.bytes) * 1_000_000_000 / ns;
            let rate = u64::try_from(rate).unwrap_or(u64::MAX);
            core.counters.upload_rate.store(rate, Ordering::Relaxed);
        }
        for fill in fills.iter().filter(|_| keep) {
            if let (Some(key), Content::Image(_)) = (fill.key, &fill.content) {
                core.columns.keep_column(key, &fill.uploaded);
            }
        }
        Ok(copied)
    }
}
