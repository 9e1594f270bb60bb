//! The threads that wait for a device, so that no worker does.
//!
//! A run that finds no room in the device's memory goes back into the queue and is tried again when something was given back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use trireme_device_api::DeviceError;

use crate::arena::Arena;

/// Threads per device: one waits for it while the next run is put into its queues.
const THREADS: usize = 2;

/// How long a thread sleeps at most while runs wait for room.
const NAP: Duration = Duration::from_millis(1);

/// After this time a run is tried again though nobody seems to have given memory back: that may have been during its try.
const AGAIN: Duration = Duration::from_millis(10);

/// How long a thread without work stays.
const STAY: Duration = Duration::from_secs(5);

/// How a try went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ran {
    /// Done, or failed; it told whoever waits.
    Done,
    /// There was no room: again when there may be.
    Again,
}

/// Something to run.
pub(crate) trait Job: Send + Sync {
    /// Runs it. `last`: it is not asked again.
    fn run(&self, last: bool) -> Ran;
}

struct Queued {
    job: Arc<dyn Job>,
    deadline: Instant,
    /// The arena's epoch when it was tried last, and when that was.
    tried: Option<(u64, Instant)>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Queued>,
    threads: usize,
    idle: usize,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    queued: Condvar,
}

/// The queue and its threads, which end when there has been nothing to do for a while.
#[derive(Default)]
pub(crate) struct Executor {
    shared: Arc<Shared>,
}

impl Executor {
    /// Queues a job; one that holds memory of the device already goes first, because others may wait for that memory.
    ///
    /// # Errors
    /// [`DeviceError::Internal`] when the system refuses a thread.
    pub(crate) fn submit(
        &self,
        job: Arc<dyn Job>,
        holds: bool,
        wait: Duration,
        arena: &Arc<Arena>,
    ) -> Result<(), DeviceError> {
        let queued = Queued {
            job,
            deadline: Instant::now() + wait,
            tried: None,
        };
        let mut state = self.shared.state.lock();
        if holds {
            state.queue.push_front(queued);
        } else {
            state.queue.push_back(queued);
        }
        if state.idle == 0 && state.threads < THREADS {
            let (shared, arena) = (Arc::clone(&self.shared), Arc::clone(arena));
            let spawned = std::thread::Builder::new()
                .name("device".to_owned())
                .spawn(move || shared.work(&arena));
            match spawned {
                Ok(_) => state.threads += 1,
                Err(error) if state.threads == 0 => {
                    state.queue.clear();
                    return Err(DeviceError::Internal(format!("no thread for the device: {error}")));
                }
                Err(_) => {}
            }
        }
        drop(state);
        self.shared.queued.notify_one();
        Ok(())
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.queued.notify_all();
    }
}

impl Shared {
    fn work(&self, arena: &Arena) {
        while let Some((mut queued, last)) = self.next(arena) {
            if queued.job.run(last) == Ran::Again && !last {
                // Its own try gave memory back too: the epoch before it would say that there is room.
                queued.tried = Some((arena.epoch(), Instant::now()));
                self.state.lock().queue.push_front(queued);
            }
        }
    }

    /// The first job that may have got room, or whose time is up; none when there is no job.
    fn next(&self, arena: &Arena) -> Option<(Queued, bool)> {
        let mut state = self.state.lock();
        loop {
            let (epoch, now) = (arena.epoch(), Instant::now());
            let due = |queued: &Queued| match queued.tried {
                None => true,
                Some((tried, at)) => tried != epoch || at + AGAIN <= now || queued.deadline <= now,
            };
            if let Some(position) = state.queue.iter().position(due)
                && let Some(queued) = state.queue.remove(position)
            {
                let last = queued.deadline <= now && queued.tried.is_some();
                return Some((queued, last));
            }
            let empty = state.queue.is_empty();
            let nap = if empty { STAY } else { NAP };
            state.idle += 1;
            let slept = !state.closed && self.queued.wait_for(&mut state, nap).timed_out();
            state.idle -= 1;
            if state.queue.is_empty() && (slept && empty || state.closed) {
                state.threads -= 1;
                return None;
            }
        }
    }
}
