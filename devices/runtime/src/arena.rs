//! The device's memory: which bytes of the arena are taken.
//!
//! ```text
//!  arena   [ guard │ block │ free │ block │ block │   free   ]      offsets are multiples of 256
//!            never given: place 0 means "nothing" in segment tables
//! ```
//!
//! Best fit, with coalescing. A [`Block`] is given back when it is dropped, and it is only dropped when the device is done with
//! it: who queued work on a block waits for that work first. So a free place is idle in all queues, and uploads beside running
//! kernels need no order between them. What is evicted to make room is decided elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use trireme_device_api::DeviceError;

use crate::driver::Driver;

/// Every block begins at a multiple of it: of the widest loads and of lines of the devices' caches.
pub(crate) const ALIGNMENT: u64 = 256;

/// Rounded up to whole alignments; nothing is one alignment too, so that every block has a place of its own.
pub(crate) fn aligned(bytes: u64) -> u64 {
    bytes.max(1).div_ceil(ALIGNMENT).saturating_mul(ALIGNMENT)
}

/// The memory of a device.
pub(crate) struct Arena {
    driver: Arc<dyn Driver>,
    bytes: u64,
    free: Mutex<Free>,
    /// Counts blocks that were given back.
    epoch: AtomicU64,
}

#[derive(Default)]
struct Free {
    /// Place → bytes; no two adjoin.
    by_place: BTreeMap<u64, u64>,
    /// (bytes, place).
    by_size: BTreeSet<(u64, u64)>,
    bytes: u64,
}

impl Free {
    fn put(&mut self, at: u64, bytes: u64) {
        self.by_place.insert(at, bytes);
        self.by_size.insert((bytes, at));
    }

    fn remove(&mut self, at: u64, bytes: u64) {
        self.by_place.remove(&at);
        self.by_size.remove(&(bytes, at));
    }

    fn take(&mut self, bytes: u64) -> Option<u64> {
        let (found, at) = *self.by_size.range((bytes, 0)..).next()?;
        self.remove(at, found);
        if found > bytes {
            self.put(at + bytes, found - bytes);
        }
        self.bytes -= bytes;
        Some(at)
    }

    fn give_back(&mut self, mut at: u64, mut bytes: u64) {
        self.bytes += bytes;
        if let Some((before, length)) = self.by_place.range(..at).next_back().map(|(at, bytes)| (*at, *bytes))
            && before + length == at
        {
            self.remove(before, length);
            at = before;
            bytes += length;
        }
        if let Some(length) = self.by_place.get(&(at + bytes)).copied() {
            self.remove(at + bytes, length);
            bytes += length;
        }
        self.put(at, bytes);
    }
}

impl Arena {
    /// Over a driver's arena of `bytes` bytes.
    pub(crate) fn new(driver: Arc<dyn Driver>, bytes: u64) -> Arc<Self> {
        let mut free = Free::default();
        let usable = (bytes / ALIGNMENT * ALIGNMENT).saturating_sub(ALIGNMENT);
        if usable > 0 {
            free.give_back(ALIGNMENT, usable);
        }
        Arc::new(Self {
            driver,
            bytes: usable,
            free: Mutex::new(free),
            epoch: AtomicU64::new(0),
        })
    }

    /// Bytes that blocks may take together.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that blocks take.
    pub(crate) fn used(&self) -> u64 {
        self.bytes - self.free.lock().bytes
    }

    /// The largest block that there is room for.
    #[cfg(test)]
    pub(crate) fn largest(&self) -> u64 {
        self.free.lock().by_size.last().map_or(0, |(bytes, _)| *bytes)
    }

    /// A block, if there is room at this moment.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`] when the driver says so although there is room.
    pub(crate) fn allocate(self: &Arc<Self>, bytes: u64) -> Result<Option<Block>, DeviceError> {
        let taken = aligned(bytes);
        let Some(at) = self.free.lock().take(taken) else {
            return Ok(None);
        };
        // Made before the driver is asked: its refusal gives the place back.
        let mut block = Block {
            arena: Arc::clone(self),
            at,
            bytes,
            told: false,
        };
        self.driver.allocated(at, bytes.max(1).next_multiple_of(8))?;
        block.told = true;
        Ok(Some(block))
    }

    /// Counts blocks that were given back: what didn't fit may fit when it has grown.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }
}

/// Memory that is taken.
pub(crate) struct Block {
    arena: Arc<Arena>,
    at: u64,
    bytes: u64,
    told: bool,
}

impl Block {
    /// Where it begins.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Its size, as it was asked for.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..+{}", self.at, self.bytes)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.told {
            self.arena.driver.freed(self.at);
        }
        let mut free = self.arena.free.lock();
        free.give_back(self.at, aligned(self.bytes));
        self.arena.epoch.fetch_add(1, Ordering::SeqCst);
    }
}
