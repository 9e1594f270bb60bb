//! The disk tier: slots of one local file that outlive the process.
//!
//! ```text
//!  offer ─▶ bounded queue ─▶ writer (a thread): extents into the open slot, then its header
//!  get   ─▶ table ─▶ read on the runtime's blocking threads ─▶ checksums ─▶ bytes, or a miss
//! ```
//!
//! It is a cache: nothing is ever synchronised to the disk, a wrong checksum is a miss and frees its slot, a full queue drops
//! what is offered, and an error of writing switches the tier off with its reason. No error of it is a query's.

mod header;
mod recover;
mod slots;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::metrics::CacheRow;
use crate::read::ObjectRef;
use header::{CHECKED_BYTES, Layout};
use slots::{Extent, Table};
use writer::{Job, Writer};

/// Jobs, and their bytes, that wait for the writer.
const QUEUE_JOBS: usize = 1024;
const QUEUE_BYTES: u64 = 64 << 20;

/// Read and checked at once: a multiple of what a checksum is of.
const READ_BYTES: usize = 4 * CHECKED_BYTES;

/// Where, and how large.
#[derive(Debug, Clone)]
pub(super) struct DiskOptions {
    pub(super) dir: PathBuf,
    pub(super) budget_bytes: u64,
    pub(super) slot_bytes: u64,
}

/// Why there is no disk tier.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("its folder {0} can't be made or written: {1}")]
    Folder(PathBuf, #[source] io::Error),
    #[error("another process uses its folder {0}")]
    Locked(PathBuf),
    #[error("its file {0} can't be opened: {1}")]
    File(PathBuf, #[source] io::Error),
    #[error("its budget of {0} bytes is less than two slots of {1} bytes (lake.disk_bytes)")]
    Small(u64, u64),
    #[error("its thread can't be started: {0}")]
    Thread(#[source] io::Error),
}

#[derive(Debug, Default)]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    errors: AtomicU64,
    dropped: AtomicU64,
    queued_bytes: AtomicU64,
}

struct Inner {
    layout: Layout,
    file: File,
    table: Mutex<Table>,
    counts: Counts,
    /// Why the tier is off.
    off: Mutex<Option<String>>,
    stopping: AtomicBool,
}

/// See the module.
pub(super) struct Disk {
    inner: Arc<Inner>,
    jobs: SyncSender<Job>,
    thread: Option<JoinHandle<()>>,
    budget_bytes: u64,
    /// Held as long as the tier; the last to go.
    _lock: File,
}

impl Disk {
    /// Opens the folder, or makes it. What it holds is found in the background; until then it is a miss.
    pub(super) fn open(options: &DiskOptions) -> Result<Self, Unusable> {
        let dir = &options.dir;
        let layout = Layout {
            slot_bytes: options.slot_bytes,
        };
        let slots_max = usize::try_from(options.budget_bytes / layout.slot_bytes).unwrap_or(usize::MAX);
        let slots_max = slots_max.min(u32::MAX as usize);
        if slots_max < 2 {
            return Err(Unusable::Small(options.budget_bytes, layout.slot_bytes));
        }
        let folder = |error| Unusable::Folder(dir.clone(), error);
        (DirBuilder::new().recursive(true).mode(0o700).create(dir)).map_err(folder)?;
        let lock = open_file(&dir.join("lock")).map_err(folder)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Unusable::Locked(dir.clone()),
            TryLockError::Error(error) => folder(error),
        })?;
        let name = format!("slots-{}.bin", layout.slot_bytes);
        remove_other_layouts(dir, &name);
        let path = dir.join(name);
        let file = open_file(&path).map_err(|error| Unusable::File(path.clone(), error))?;
        let inner = Arc::new(Inner {
            layout,
            file,
            table: Mutex::new(Table::new(slots_max)),
            counts: Counts::default(),
            off: Mutex::new(None),
            stopping: AtomicBool::new(false),
        });
        let (jobs, receiver) = sync_channel(QUEUE_JOBS);
        let thread = start_writer(&inner, receiver, slots_max).map_err(Unusable::Thread)?;
        Ok(Self {
            inner,
            jobs,
            thread: Some(thread),
            budget_bytes: options.budget_bytes,
            _lock: lock,
        })
    }

    /// The bytes of a range, read and checked.
    pub(super) async fn get(&self, store: &Arc<str>, object: &Arc<ObjectRef>, range: &Range<u64>) -> Option<Bytes> {
        let bytes = self.find(store, object, range).await;
        let count = match bytes {
            Some(_) => &self.inner.counts.hits,
            None => &self.inner.counts.misses,
        };
        count.fetch_add(1, Ordering::Relaxed);
        bytes
    }

    async fn find(&self, store: &Arc<str>, object: &Arc<ObjectRef>, range: &Range<u64>) -> Option<Bytes> {
        let runtime = Handle::try_current().ok()?;
        let extents = self.inner.table.lock().find(store, object, range)?;
        let pinned = Pinned {
            inner: Arc::clone(&self.inner),
            extents,
        };
        let range = range.clone();
        let read = runtime.spawn_blocking(move || pinned.read(&range));
        let (bytes, damaged) = read.await.ok()?;
        if let Some((slot, generation)) = damaged {
            let _ = self.jobs.try_send(Job::Damaged { slot, generation });
        }
        bytes
    }

    /// Keeps a range, some time, if there is room in the queue.
    pub(super) fn offer(&self, store: &Arc<str>, object: &Arc<ObjectRef>, start: u64, bytes: &Bytes) {
        let counts = &self.inner.counts;
        let length = bytes.len() as u64;
        if self.off().is_some() || length == 0 || length > self.budget_bytes / 2 {
            return;
        }
        let range = start..start + length;
        if self.inner.table.lock().holds(store, object, &range) {
            return;
        }
        let queued_bytes = counts.queued_bytes.fetch_add(length, Ordering::Relaxed) + length;
        let job = Job::Write {
            store: Arc::clone(store),
            object: Arc::clone(object),
            start,
            bytes: bytes.clone(),
        };
        if queued_bytes > QUEUE_BYTES || self.jobs.try_send(job).is_err() {
            counts.queued_bytes.fetch_sub(length, Ordering::Relaxed);
            counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Drops other versions of an object.
    pub(super) fn forget_others(&self, store: &str, object: &ObjectRef) {
        self.inner.table.lock().make_room(store, object, &(0..0));
    }

    /// Why the tier is off.
    pub(super) fn off(&self) -> Option<String> {
        self.inner.off.lock().clone()
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.inner.table.lock().used_bytes
    }

    pub(super) fn budget_bytes(&self) -> u64 {
        self.budget_bytes
    }

    /// Hits, misses and errors.
    pub(super) fn counts(&self) -> (u64, u64, u64) {
        let counts = &self.inner.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&counts.hits), read(&counts.misses), read(&counts.errors))
    }

    pub(super) fn rows(&self, rows: &mut Vec<CacheRow>, rows_max: usize) {
        let table = self.inner.table.lock();
        rows.extend(table.extents().take(rows_max).map(|extent| CacheRow {
            tier: "disk",
            store: extent.entry.store.to_string(),
            path: extent.entry.object.location.to_string(),
            version: extent.entry.object.version.clone(),
            start: extent.entry.range.start,
            bytes: extent.len(),
            hits: extent.hits.load(Ordering::Relaxed),
        }));
    }

    /// Forgets everything now; the file's headers go in the background.
    pub(super) fn clear(&self) {
        self.inner.table.lock().clear();
        let _ = self.jobs.try_send(Job::Clear);
    }

    /// Waits until everything that was offered is written.
    #[cfg(test)]
    pub(super) fn flush(&self) {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.jobs.send(Job::Flush(sender)).unwrap();
        let _ = receiver.recv();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.inner.stopping.store(true, Ordering::Relaxed);
        let _ = self.jobs.try_send(Job::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Inner {
    fn switch_off(&self, reason: String) {
        let mut off = self.off.lock();
        if off.is_none() {
            tracing::warn!(reason, "the lake's disk tier is off until the next start");
            *off = Some(reason);
        }
        drop(off);
        self.table.lock().clear();
    }
}

fn start_writer(inner: &Arc<Inner>, jobs: Receiver<Job>, slots_max: usize) -> io::Result<JoinHandle<()>> {
    let inner = Arc::clone(inner);
    std::thread::Builder::new().name("lake-disk".to_owned()).spawn(move || {
        let sequence = recover::recover(&inner, slots_max);
        Writer::new(&inner, sequence).run(&jobs);
    })
}

fn open_file(path: &FilePath) -> io::Result<File> {
    (OpenOptions::new().read(true).write(true).create(true).truncate(false))
        .mode(0o600)
        .open(path)
}

fn remove_other_layouts(dir: &FilePath, keep: &str) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("slots-") && name.ends_with(".bin") && name != keep {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Extents whose slots stay as they are while this lives.
struct Pinned {
    inner: Arc<Inner>,
    extents: Vec<Arc<Extent>>,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.inner.table.lock().release(&self.extents);
    }
}

impl Pinned {
    /// The bytes of a range that the extents contain, or the slot (and its generation) that is damaged.
    fn read(&self, range: &Range<u64>) -> (Option<Bytes>, Option<(u32, u32)>) {
        let lengths = self.extents.iter().map(|extent| {
            let checked = checked_part(extent, range);
            checked.end - checked.start
        });
        // Only the first and the last extent may be read beyond the range, as checksums are of whole parts; those between are
        // read whole. So the range is one piece of what is read.
        let mut bytes = vec![0; lengths.sum()];
        let mut rest = bytes.as_mut_slice();
        for extent in &self.extents {
            let part = checked_part(extent, range);
            let Some((piece, after)) = std::mem::take(&mut rest).split_at_mut_checked(part.end - part.start) else {
                return (None, None);
            };
            rest = after;
            if !self.inner.read_checked(extent, part.start, piece) {
                let mut table = self.inner.table.lock();
                if !table.empty_damaged(extent.slot, extent.generation) {
                    return (None, None);
                }
                self.inner.counts.errors.fetch_add(1, Ordering::Relaxed);
                return (None, Some((extent.slot, extent.generation)));
            }
        }
        let Some(first) = self.extents.first() else {
            return (None, None);
        };
        let skipped = range.start - first.entry.range.start;
        let from = usize::try_from(skipped).unwrap_or(usize::MAX) % CHECKED_BYTES;
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let bytes = Bytes::from(bytes);
        let whole = bytes.get(from..from.saturating_add(length)).is_some();
        (whole.then(|| bytes.slice(from..from + length)), None)
    }
}

impl Inner {
    /// Reads a part of an extent that begins with a checked part.
    fn read_checked(&self, extent: &Extent, from: usize, piece: &mut [u8]) -> bool {
        let mut at = self.layout.at(extent.slot, extent.entry.offset) + from as u64;
        let mut checksums = extent
            .entry
            .checksums
            .get(from / CHECKED_BYTES..)
            .unwrap_or_default()
            .iter();
        // Checked while it is in the processor's cache.
        for some in piece.chunks_mut(READ_BYTES) {
            if self.file.read_exact_at(some, at).is_err() {
                return false;
            }
            at += some.len() as u64;
            let mut parts = some.chunks(CHECKED_BYTES);
            if !parts.all(|part| checksums.next() == Some(&crc32fast::hash(part))) {
                return false;
            }
        }
        true
    }
}

/// What of an extent is read for a range: whole checked parts.
fn checked_part(extent: &Extent, range: &Range<u64>) -> Range<usize> {
    let own = &extent.entry.range;
    let offset = |at: u64| usize::try_from(at.clamp(own.start, own.end) - own.start).unwrap_or(usize::MAX);
    let end = offset(range.end).div_ceil(CHECKED_BYTES) * CHECKED_BYTES;
    offset(range.start) / CHECKED_BYTES * CHECKED_BYTES..end.min(offset(own.end))
}
