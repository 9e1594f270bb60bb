//! Slabs of pinned host memory that uploads go through.
//!
//! Devices copy fast, and without a wait, only from memory that doesn't move; such memory is taken from everybody else on the
//! machine. So there is a small pool of it, which grows when all slabs are on their way and stops at a cap; then an upload
//! waits for the oldest. Small uploads have slabs of their own, lest a few hundred bytes hold megabytes.
//!
//! ```text
//!   free ──take──▶ write(offset, slab) ──send──▶ busy, oldest first, each with a mark ──mark reached──▶ free
//! ```

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};
use trireme_device_api::DeviceError;

use crate::driver::Writer;

/// Bytes of a slab of small uploads.
const SMALL_BYTES: usize = 64 << 10;

/// Slabs of small uploads.
const SMALL_MAX: usize = 64;

/// Pinned memory.
pub trait Slab: Send {
    /// Its bytes.
    fn bytes(&mut self) -> &mut [u8];
}

/// What makes slabs and knows when a device has read them.
pub trait Staging {
    /// A slab.
    type Slab: Slab;
    /// A point in a queue after which a slab is free.
    type Mark: Send;

    /// Pins memory.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    fn pin(&self, bytes: usize) -> Result<Self::Slab, DeviceError>;

    /// Whether the mark is reached.
    ///
    /// # Errors
    /// When the device is lost.
    fn reached(&self, mark: &Self::Mark) -> Result<bool, DeviceError>;

    /// Waits for the mark.
    ///
    /// # Errors
    /// When the device is lost.
    fn wait(&self, mark: &Self::Mark) -> Result<(), DeviceError>;
}

/// Sends a piece of an upload: its offset, its bytes.
pub type Sender<'a, S> = &'a mut (dyn FnMut(u64, &mut [u8]) -> Result<<S as Staging>::Mark, DeviceError> + 'a);

/// Slabs in two sizes.
pub struct Slabs<S: Staging> {
    small: Pool<S>,
    large: Pool<S>,
}

impl<S: Staging> Slabs<S> {
    /// None pinned yet; large ones have `bytes` bytes, and there are at most `max` of them.
    pub fn new(bytes: usize, max: usize) -> Self {
        Self {
            small: Pool::new(SMALL_BYTES, SMALL_MAX),
            large: Pool::new(bytes.max(SMALL_BYTES), max.max(1)),
        }
    }

    /// Bytes pinned at this moment.
    pub fn pinned_bytes(&self) -> u64 {
        (self.small.pinned() + self.large.pinned()) as u64
    }

    /// Fills slabs piece by piece, in order, and sends each: `write(offset, piece)`, then `send(offset, piece)`, which gives
    /// the mark after which the slab is free.
    ///
    /// # Errors
    /// What `write`, `send` or pinning failed with.
    pub fn stage(&self, staging: &S, bytes: u64, write: Writer<'_>, send: Sender<'_, S>) -> Result<(), DeviceError> {
        let pool = if bytes <= SMALL_BYTES as u64 {
            &self.small
        } else {
            &self.large
        };
        let mut offset = 0;
        while offset < bytes {
            let mut slab = pool.take(staging)?;
            let length = usize::try_from(bytes - offset)
                .unwrap_or(usize::MAX)
                .min(slab.bytes().len());
            let piece = &mut slab.bytes()[..length];
            match write(offset, piece).and_then(|()| send(offset, piece)) {
                Ok(mark) => pool.sent(slab, mark),
                Err(error) => {
                    pool.free(slab);
                    return Err(error);
                }
            }
            offset += length as u64;
        }
        Ok(())
    }

    /// Receives pieces into slabs, in order, and copies each to where it belongs: `receive(offset, piece)` gives the mark
    /// after which the piece is there. Two pieces are on their way at once where there are slabs.
    ///
    /// # Errors
    /// What `receive` or pinning failed with.
    pub fn fetch(&self, staging: &S, into: &mut [u8], receive: Sender<'_, S>) -> Result<(), DeviceError> {
        let pool = if into.len() <= SMALL_BYTES {
            &self.small
        } else {
            &self.large
        };
        let mut coming: VecDeque<Coming<S>> = VecDeque::new();
        let mut asked = 0;
        while asked < into.len() || !coming.is_empty() {
            // A caller that holds a slab never waits for another.
            let slab = match (asked < into.len(), coming.len()) {
                (true, 0) => Some(pool.take(staging)?),
                (true, 1) => pool.try_take(staging)?,
                _ => None,
            };
            if let Some(mut slab) = slab {
                let length = (into.len() - asked).min(slab.bytes().len());
                match receive(asked as u64, &mut slab.bytes()[..length]) {
                    Ok(mark) => coming.push_back(Coming {
                        slab,
                        mark,
                        offset: asked,
                        length,
                    }),
                    Err(error) => {
                        pool.free(slab);
                        coming.into_iter().for_each(|piece| pool.sent(piece.slab, piece.mark));
                        return Err(error);
                    }
                }
                asked += length;
                continue;
            }
            let Some(mut piece) = coming.pop_front() else { continue };
            if let Err(error) = staging.wait(&piece.mark) {
                coming.push_back(piece);
                coming.into_iter().for_each(|piece| pool.sent(piece.slab, piece.mark));
                return Err(error);
            }
            into[piece.offset..piece.offset + piece.length].copy_from_slice(&piece.slab.bytes()[..piece.length]);
            pool.free(piece.slab);
        }
        Ok(())
    }
}

/// A piece that is on its way from the device.
struct Coming<S: Staging> {
    slab: S::Slab,
    mark: S::Mark,
    offset: usize,
    length: usize,
}

/// Slabs of one size.
struct Pool<S: Staging> {
    bytes: usize,
    max: usize,
    state: Mutex<State<S>>,
    given: Condvar,
}

struct State<S: Staging> {
    /// Free, busy, and with callers.
    pinned: usize,
    free: Vec<S::Slab>,
    busy: VecDeque<(S::Slab, S::Mark)>,
}

impl<S: Staging> Pool<S> {
    fn new(bytes: usize, max: usize) -> Self {
        Self {
            bytes,
            max,
            state: Mutex::new(State {
                pinned: 0,
                free: Vec::new(),
                busy: VecDeque::new(),
            }),
            given: Condvar::new(),
        }
    }

    fn pinned(&self) -> usize {
        self.state.lock().pinned * self.bytes
    }

    /// A free slab, a new one, or the oldest busy one once the device has read it.
    fn take(&self, staging: &S) -> Result<S::Slab, DeviceError> {
        let mut state = self.state.lock();
        loop {
            if let Some(slab) = state.free.pop() {
                return Ok(slab);
            }
            let reached = state.busy.front().map(|(_, mark)| staging.reached(mark)).transpose()?;
            if reached == Some(true)
                && let Some((slab, _)) = state.busy.pop_front()
            {
                return Ok(slab);
            }
            if state.pinned < self.max {
                let slab = staging.pin(self.bytes);
                match slab {
                    Ok(slab) => {
                        state.pinned += 1;
                        return Ok(slab);
                    }
                    Err(error) if state.pinned == 0 => return Err(error),
                    // Fewer will do.
                    Err(_) => {}
                }
            }
            match state.busy.pop_front() {
                Some((slab, mark)) => {
                    drop(state);
                    return match staging.wait(&mark) {
                        Ok(()) => Ok(slab),
                        Err(error) => {
                            // The device may still read it.
                            std::mem::forget(slab);
                            self.state.lock().pinned -= 1;
                            self.given.notify_one();
                            Err(error)
                        }
                    };
                }
                // All are with other callers, who give them back.
                None => self.given.wait(&mut state),
            }
        }
    }

    /// A slab, if there is one without a wait.
    fn try_take(&self, staging: &S) -> Result<Option<S::Slab>, DeviceError> {
        let mut state = self.state.lock();
        if let Some(slab) = state.free.pop() {
            return Ok(Some(slab));
        }
        let reached = state.busy.front().map(|(_, mark)| staging.reached(mark)).transpose()?;
        if reached == Some(true) {
            return Ok(state.busy.pop_front().map(|(slab, _)| slab));
        }
        if state.pinned >= self.max {
            return Ok(None);
        }
        let slab = staging.pin(self.bytes).ok();
        state.pinned += usize::from(slab.is_some());
        Ok(slab)
    }

    fn sent(&self, slab: S::Slab, mark: S::Mark) {
        self.state.lock().busy.push_back((slab, mark));
        self.given.notify_one();
    }

    fn free(&self, slab: S::Slab) {
        self.state.lock().free.push(slab);
        self.given.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Plain(Vec<u8>);

    impl Slab for Plain {
        fn bytes(&mut self) -> &mut [u8] {
            &mut self.0
        }
    }

    /// Marks are numbers; those below `read` are reached, and waiting for one reaches it.
    #[derive(Default)]
    struct Counting {
        pins: AtomicUsize,
        waits: AtomicUsize,
        read: AtomicUsize,
    }

    impl Staging for Counting {
        type Slab = Plain;
        type Mark = usize;

        fn pin(&self, bytes: usize) -> Result<Plain, DeviceError> {
            self.pins.fetch_add(1, Ordering::Relaxed);
            Ok(Plain(vec![0; bytes]))
        }

        fn reached(&self, mark: &usize) -> Result<bool, DeviceError> {
            Ok(*mark < self.read.load(Ordering::Relaxed))
        }

        fn wait(&self, mark: &usize) -> Result<(), DeviceError> {
            self.waits.fetch_add(1, Ordering::Relaxed);
            self.read.fetch_max(mark + 1, Ordering::Relaxed);
            Ok(())
        }
    }

    fn run(slabs: &Slabs<Counting>, staging: &Counting, bytes: u64) -> Vec<u8> {
        let mut sent = Vec::new();
        let mut mark = 100;
        slabs
            .stage(
                staging,
                bytes,
                &mut |offset, piece| {
                    for (i, byte) in piece.iter_mut().enumerate() {
                        *byte = ((offset + i as u64) % 251) as u8;
                    }
                    Ok(())
                },
                &mut |offset, piece| {
                    assert_eq!(offset, sent.len() as u64);
                    sent.extend_from_slice(piece);
                    mark += 1;
                    Ok(mark)
                },
            )
            .expect("staged");
        sent
    }

    #[test]
    fn pieces_arrive_in_order_and_slabs_stop_at_the_cap() {
        let (slabs, staging) = (Slabs::new(100_000, 3), Counting::default());
        let sent = run(&slabs, &staging, 1_234_567);
        assert!(sent.iter().enumerate().all(|(i, byte)| usize::from(*byte) == i % 251));
        assert_eq!(sent.len(), 1_234_567);
        assert_eq!(staging.pins.load(Ordering::Relaxed), 3);
        assert_eq!(staging.waits.load(Ordering::Relaxed), 13 - 3);
        assert_eq!(slabs.pinned_bytes(), 300_000);
    }

    #[test]
    fn slabs_that_were_read_are_used_again_before_more_are_pinned() {
        let (slabs, staging) = (Slabs::new(100_000, 3), Counting::default());
        staging.read.store(usize::MAX, Ordering::Relaxed);
        run(&slabs, &staging, 1_000_000);
        run(&slabs, &staging, 12);
        assert_eq!(staging.pins.load(Ordering::Relaxed), 2, "one large, one small");
        assert_eq!(staging.waits.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn pieces_are_received_in_order_two_at_a_time() {
        for max in [1, 2, 8] {
            let (slabs, staging) = (Slabs::new(100_000, max), Counting::default());
            for bytes in [0, 1, 65_536, 1_234_567] {
                let mut into = vec![0; bytes];
                let mut mark = 100;
                slabs
                    .fetch(&staging, &mut into, &mut |offset, piece| {
                        for (i, byte) in piece.iter_mut().enumerate() {
                            *byte = ((offset + i as u64) % 251) as u8;
                        }
                        mark += 1;
                        Ok(mark)
                    })
                    .expect("fetched");
                assert!(into.iter().enumerate().all(|(i, byte)| usize::from(*byte) == i % 251));
            }
            assert_eq!(staging.pins.load(Ordering::Relaxed), 1 + max.min(2));
        }
    }

    #[test]
    fn a_failed_write_gives_its_slab_back() {
        let (slabs, staging) = (Slabs::<Counting>::new(100_000, 1), Counting::default());
        for _ in 0..3 {
            let failed = slabs.stage(&staging, 10, &mut |_, _| Err(DeviceError::Cancelled), &mut |_, _| Ok(0));
            assert_eq!(failed, Err(DeviceError::Cancelled));
        }
        assert_eq!(staging.pins.load(Ordering::Relaxed), 1);
    }
}
