//! Memory that outputs of a run keep, and its way to the host's memory and back.
//!
//! ```text
//!  pinned by a run or a copy ──▶ idle ──somebody needs room: download, free──▶ away ──pin: room, upload──▶ pinned
//! ```
//!
//! What is idle belongs to queries that wait: for a client, for the host, for other fragments. It goes only where nothing else
//! makes room, and only as far as its query's pool takes the copy. Nothing waits here while it holds another's lock.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use trireme_device_api::{DeviceError, DevicePool, Reservation};
use trireme_device_codegen::shape::RegionRef;

use crate::accelerator::Core;
use crate::arena::Block;
use crate::driver::Queue;
use crate::texts::Texts;

/// How long a copy sleeps between two tries to find room.
const NAP: Duration = Duration::from_millis(1);

/// Memory that an output keeps.
pub(crate) struct Held {
    pub(crate) core: Arc<Core>,
    /// Strings of handles.
    pub(crate) texts: Texts,
    pool: Arc<dyn DevicePool>,
    state: Mutex<State>,
}

struct State {
    /// Where regions lie: in which block, and how far from its beginning.
    places: HashMap<RegionRef, (usize, u64)>,
    blocks: Vec<Content>,
    pins: u32,
    /// Of what is away.
    reserved: Option<Reservation>,
}

enum Content {
    Here(Arc<Block>),
    Away(Vec<u8>),
}

/// It stays where it is while this lives.
pub(crate) struct Pin {
    held: Arc<Held>,
    /// Bytes that were brought back for it.
    pub(crate) bytes: u64,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.held.state.lock().pins -= 1;
    }
}

impl Held {
    pub(crate) fn new(
        core: &Arc<Core>,
        places: &HashMap<RegionRef, u64>,
        blocks: Vec<Arc<Block>>,
        texts: Texts,
        pool: &Arc<dyn DevicePool>,
    ) -> Arc<Self> {
        let inside = |at: u64, block: &Block| (block.at()..block.at() + block.bytes().max(1)).contains(&at);
        let found = |(region, at): (&RegionRef, &u64)| {
            let number = blocks.iter().position(|block| inside(*at, block))?;
            Some((*region, (number, at - blocks[number].at())))
        };
        let places = places.iter().filter_map(found).collect();
        let held = Arc::new(Self {
            core: Arc::clone(core),
            texts,
            pool: Arc::clone(pool),
            state: Mutex::new(State {
                places,
                blocks: blocks.into_iter().map(Content::Here).collect(),
                pins: 0,
                reserved: None,
            }),
        });
        let mut all = core.held.lock();
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&held));
        held
    }

    /// Where a region lies. Only while it is pinned.
    pub(crate) fn place(&self, region: RegionRef) -> Option<u64> {
        let state = self.state.lock();
        let (number, offset) = state.places.get(&region)?;
        match state.blocks.get(*number)? {
            Content::Here(block) => Some(block.at() + offset),
            Content::Away(_) => None,
        }
    }

    /// Brings back what is away, and keeps it here; none if there is no room.
    ///
    /// # Errors
    /// When the driver refuses, or the device is lost.
    pub(crate) fn pin(self: &Arc<Self>) -> Result<Option<Pin>, DeviceError> {
        let mut state = self.state.lock();
        let mut brought = 0;
        for content in &mut state.blocks {
            let Content::Away(bytes) = &*content else { continue };
            let length = bytes.len() as u64;
            // Who makes room passes over this one, whose lock is taken.
            let Some(block) = self.core.room(length)? else {
                return Ok(None);
            };
            let copied = self.upload(&block, bytes);
            if copied.is_err() {
                self.core.idle();
            }
            copied?;
            *content = Content::Here(Arc::new(block));
            brought += length;
        }
        state.reserved = None;
        state.pins += 1;
        self.core.counters.restored_bytes.fetch_add(brought, Ordering::Relaxed);
        Ok(Some(Pin {
            held: Arc::clone(self),
            bytes: brought,
        }))
    }

    /// As [`Held::pin`], for who can wait.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`] when there was no room for as long as runs wait for it.
    pub(crate) fn pin_within(self: &Arc<Self>) -> Result<Pin, DeviceError> {
        let began = Instant::now();
        loop {
            if let Some(pin) = self.pin()? {
                return Ok(pin);
            }
            if began.elapsed() >= self.core.limits.wait {
                let setting = &self.core.limits.setting;
                return Err(DeviceError::OutOfMemory(format!(
                    "no room to bring back what was swapped out, limited by {setting}"
                )));
            }
            std::thread::sleep(NAP);
        }
    }

    fn upload(&self, block: &Block, bytes: &[u8]) -> Result<(), DeviceError> {
        let driver = &self.core.driver;
        driver.upload(Queue::Compute, block.at(), bytes.len() as u64, &mut |offset, slab| {
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            slab.copy_from_slice(&bytes[start..start + slab.len()]);
            Ok(())
        })?;
        driver.record(Queue::Compute)?.wait()
    }

    /// Copies to the host what nobody reads, and frees it; bytes that were freed.
    fn leave(&self) -> Result<u64, DeviceError> {
        let Some(mut state) = self.state.try_lock() else {
            return Ok(0);
        };
        if state.pins > 0 {
            return Ok(0);
        }
        let State { blocks, reserved, .. } = &mut *state;
        let mut freed = 0;
        for content in blocks {
            let Content::Here(block) = &*content else { continue };
            // The run that made it may not have ended yet, or another of its outputs holds it too.
            if Arc::strong_count(block) > 1 {
                continue;
            }
            let length = usize::try_from(block.bytes()).unwrap_or(usize::MAX);
            let reservation = reserved.get_or_insert_with(|| Reservation::new(&self.pool));
            if reservation.grow(length).is_err() {
                break;
            }
            let mut copy = vec![0; length];
            self.core.download(block.at(), &mut copy)?;
            freed += block.bytes();
            *content = Content::Away(copy);
        }
        Ok(freed)
    }
}

impl Core {
    /// Copies outputs that nobody reads at this moment to the host's memory, the oldest first, until so many bytes are free;
    /// false when there were none.
    ///
    /// # Errors
    /// When the device is lost.
    pub(crate) fn swap_out(&self, bytes: u64) -> Result<bool, DeviceError> {
        let all: Vec<Arc<Held>> = self.held.lock().iter().filter_map(Weak::upgrade).collect();
        let mut freed = 0;
        for held in all {
            let left = held.leave()?;
            if left > 0 {
                self.counters.swaps.fetch_add(1, Ordering::Relaxed);
                self.counters.swapped_bytes.fetch_add(left, Ordering::Relaxed);
            }
            freed += left;
            if freed >= bytes {
                break;
            }
        }
        Ok(freed > 0)
    }
}
