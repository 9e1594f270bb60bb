//! Ranges fetched ahead of need, in the order of their use, within a window of bytes.
//!
//! ```text
//!  planned, in the order of use        requests under way or untaken: at most `window_bytes`
//!  ─────────────────────────────▶     ┌──────────────────────────────────────────────┐
//!  near: 7 8 9 …   far: 20 21 …   ──▶ │ [3 4] here   [5] under way   [6 + gap + 2] … │ ──▶ take(3), take(4), …
//!        ▲ wanted ones first          └──────────────────────────────────────────────┘
//! ```
//!
//! There is no driver that runs all the time: whatever changes the state (a request ends, a range is taken, wanted or
//! cancelled) starts what fits then. Neighbours of one object are merged when the first of them is started, so that what was
//! cancelled before costs nothing. Ranges longer than a request should be are split by the store, below the tiers.
//!
//! Memory: a request's bytes are taken from the [`Window`] before it starts and given back when its last range was taken or
//! cancelled, as the ranges share one buffer. When the window refuses, only what a reader waits for is started.

mod queue;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use object_store::Result;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::errors;
use crate::read::{Account, ObjectRef, Read, ReadClass};
use crate::store::TieredStore;
use queue::{Claim, Limits, Queue, Started, Want};

/// How long after a range was cancelled others may start in its place.
const CANCELS: Duration = Duration::from_millis(1);

/// A range that a plan will need.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Of which store.
    pub store: Arc<TieredStore>,
    /// Of which object.
    pub object: Arc<ObjectRef>,
    /// Bytes.
    pub range: Range<u64>,
    /// [`ReadClass::Near`] or [`ReadClass::Far`].
    pub class: ReadClass,
    /// On whose account.
    pub account: Arc<Account>,
}

impl Planned {
    fn read(&self, range: Range<u64>, class: ReadClass) -> Read {
        Read {
            object: Arc::clone(&self.object),
            range,
            class,
            account: Some(Arc::clone(&self.account)),
        }
    }
}

/// Memory for what is fetched ahead: the query's pool behind it. Called from any thread, under a lock of the [`Prefetch`]; must
/// neither block nor call back.
pub trait Window: Send + Sync {
    /// Takes so many bytes; false when they are not there now.
    fn take(&self, bytes: usize) -> bool;

    /// Gives bytes back.
    fn give(&self, bytes: usize);
}

/// What a [`Prefetch`] holds now, for tests and EXPLAIN ANALYZE.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PrefetchState {
    /// Requests under way.
    pub in_flight: usize,
    /// Bytes of requests under way and of ranges that were not taken yet.
    pub held_bytes: u64,
    /// The most that was held at once, without what a reader waited for and the window had no room for.
    pub ahead_bytes_max: u64,
    /// Requests that were started.
    pub started: u64,
}

/// Running prefetch of a query. Dropping it cancels what is not taken.
pub struct Prefetch {
    inner: Arc<Inner>,
}

struct Inner {
    planned: Vec<Planned>,
    runtime: Handle,
    window: Arc<dyn Window>,
    woken: Arc<dyn Fn() + Send + Sync>,
    limits: Limits,
    queue: Mutex<Queue>,
    /// A task will look soon what can be started.
    pump_due: AtomicBool,
}

impl Prefetch {
    /// Starts to fetch `planned`, in this order, `window_bytes` ahead at most; what is fetched is taken from `window` until it
    /// is handed over. At least one range is under way at any time, whatever its size, unless `window` refuses it; then, and
    /// when `window_bytes` is 0, a range is fetched once it is wanted. `woken` is called when a range has come, from a thread
    /// of `runtime`.
    pub fn start(
        planned: Vec<Planned>,
        window_bytes: usize,
        window: Arc<dyn Window>,
        runtime: &Handle,
        woken: Arc<dyn Fn() + Send + Sync>,
    ) -> Arc<Self> {
        for one in &planned {
            let bytes = one.range.end.saturating_sub(one.range.start);
            one.account.planned_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        let inner = Arc::new(Inner {
            queue: Mutex::new(Queue::new(&planned)),
            limits: Limits::new(window_bytes, &planned),
            planned,
            runtime: runtime.clone(),
            window,
            woken,
            pump_due: AtomicBool::new(false),
        });
        inner.pump();
        Arc::new(Self { inner })
    }

    /// True when [`Prefetch::take_blocking`] would not wait: the range is here or has failed; also when it was taken or
    /// cancelled. Otherwise the range is wanted from now on: it is fetched before all that nobody waits for.
    pub fn ready(&self, index: usize) -> bool {
        if index >= self.inner.planned.len() {
            return true;
        }
        let want = self.inner.queue.lock().want(index);
        match want {
            Want::Ready => return true,
            Want::Start => self.inner.pump(),
            Want::Raise(range) => self.inner.raise(index, &range),
            Want::Known => {}
        }
        false
    }

    /// The bytes of a planned range, once; waits for them. A range that was cancelled or taken before is read on demand. The
    /// bytes may share one buffer with those of neighbouring ranges.
    ///
    /// # Errors
    /// The store's.
    pub async fn take(&self, index: usize) -> Result<Bytes> {
        let Some(planned) = self.inner.planned.get(index) else {
            return Err(errors::generic("prefetch", format!("no range {index} was planned")));
        };
        loop {
            match self.inner.claim(index) {
                Claim::Here(result) => return result,
                Claim::Wait(receiver, raise) => {
                    if let Some(range) = raise {
                        self.inner.raise(index, &range);
                    }
                    let _ = receiver.await;
                }
                Claim::Demand => return self.inner.read_on_demand(planned.clone()).await,
            }
        }
    }

    /// [`Prefetch::take`] for a thread that is not the runtime's.
    ///
    /// # Errors
    /// The store's.
    pub fn take_blocking(&self, index: usize) -> Result<Bytes> {
        // What `take` awaits are channels that tasks of the runtime send to: any thread can wait for them.
        futures::executor::block_on(self.take(index))
    }

    /// The bytes of a planned range if they are here; none when [`Prefetch::take`] would wait or read on demand. As
    /// [`Prefetch::ready`], marks the range as wanted.
    pub fn try_take(&self, index: usize) -> Option<Result<Bytes>> {
        if !self.ready(index) {
            return None;
        }
        self.inner.claim_if_here(index)
    }

    /// Not needed any more: nothing further is spent on it.
    pub fn cancel(&self, index: usize) {
        if index < self.inner.planned.len() {
            let inner = &self.inner;
            let task = inner.queue.lock().cancel(index, &inner.planned, &*inner.window);
            if let Some(task) = task {
                task.abort();
            }
            inner.pump_soon();
        }
    }

    /// What is held now.
    pub fn state(&self) -> PrefetchState {
        self.inner.queue.lock().state()
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        let inner = &self.inner;
        let tasks = inner.queue.lock().close(&inner.planned, &*inner.window);
        for task in tasks {
            task.abort();
        }
    }
}

impl Inner {
    /// Starts what fits now.
    fn pump(self: &Arc<Self>) {
        loop {
            let started = self.queue.lock().next(&self.planned, &self.limits, &*self.window);
            let Some(started) = started else { return };
            self.spawn(started);
        }
    }

    /// [`Inner::pump`] in a moment: whoever cancels one range often cancels the next ones too, which must not start meanwhile.
    fn pump_soon(self: &Arc<Self>) {
        if self.pump_due.swap(true, Ordering::AcqRel) {
            return;
        }
        let inner = Arc::clone(self);
        self.runtime.spawn(async move {
            tokio::time::sleep(CANCELS).await;
            inner.pump_due.store(false, Ordering::Release);
            inner.pump();
        });
    }

    fn claim(self: &Arc<Self>, index: usize) -> Claim {
        let (claim, started) = self
            .queue
            .lock()
            .claim(index, &self.planned, &self.limits, &*self.window);
        if let Some(started) = started {
            self.spawn(started);
        }
        if matches!(claim, Claim::Here(_)) {
            self.pump();
        }
        claim
    }

    fn raise(&self, index: usize, range: &Range<u64>) {
        let Planned { store, object, .. } = &self.planned[index];
        store.raise(object, range, ReadClass::Demand);
    }

    fn claim_if_here(self: &Arc<Self>, index: usize) -> Option<Result<Bytes>> {
        let result = {
            let mut queue = self.queue.lock();
            if !queue.is_here(index) {
                return None;
            }
            match queue.claim(index, &self.planned, &self.limits, &*self.window).0 {
                Claim::Here(result) => result,
                Claim::Wait(..) | Claim::Demand => return None,
            }
        };
        self.pump();
        Some(result)
    }

    fn spawn(self: &Arc<Self>, started: Started) {
        let ending = Ending {
            inner: Arc::clone(self),
            id: started.id,
            done: false,
        };
        let id = started.id;
        let task = self.runtime.spawn(async move {
            let (mut ending, mut started) = (ending, started);
            if ending.inner.queue.lock().is_urgent(started.id) {
                started.read.class = ReadClass::Demand;
            }
            let Started {
                store, read, gap_bytes, ..
            } = &started;
            let result = store
                .read_merged(read, *gap_bytes, ending.inner.limits.part_bytes)
                .await;
            ending.end(result);
        });
        if let Some(unneeded) = self.queue.lock().running(id, task.abort_handle()) {
            unneeded.abort();
        }
    }

    async fn read_on_demand(self: &Arc<Self>, planned: Planned) -> Result<Bytes> {
        let begun = Instant::now();
        let account = Arc::clone(&planned.account);
        let (sender, receiver) = oneshot::channel();
        let task = self.runtime.spawn(async move {
            let read = planned.read(planned.range.clone(), ReadClass::Demand);
            let _ = sender.send(planned.store.read(&read).await);
        });
        let guard = AbortOnDrop(task.abort_handle());
        let result = receiver.await;
        drop(guard);
        queue::count_wait(&account, begun);
        result.unwrap_or_else(|_| Err(errors::generic("prefetch", "the read was stopped")))
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Ends a request even when its task is dropped or panics, so that nobody waits for ever.
struct Ending {
    inner: Arc<Inner>,
    id: u64,
    done: bool,
}

impl Ending {
    fn end(&mut self, result: Result<Bytes>) {
        self.done = true;
        let known = self.inner.queue.lock().end(self.id, result, &self.inner.planned);
        if known {
            self.inner.pump();
            (self.inner.woken)();
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.done {
            self.end(Err(errors::generic("prefetch", "the read was stopped")));
        }
    }
}

#[cfg(test)]
mod tests;
