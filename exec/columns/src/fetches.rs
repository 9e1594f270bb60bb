//! What a scan has under way: which ranges that are fetched ahead hold which column of which segment.
//!
//! ```text
//!  slot (segment, column)   none ── planned ──▶ ranges of a Prefetch ──┬─ claimed by the thread that decodes it ─▶ none
//!                              └── put off ──asked for──┘              └─ cancelled: the cache had it, nobody wants it
//! ```
//!
//! A slot without ranges is no promise of anything: what is loaded then is read on demand. All scans of a graph share the
//! [`Window`] of bytes, whose limit holds over all their prefetches.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;
use trireme_device_api::DevicePool;
use trireme_lake::{Planned, Prefetch, Window};

/// How long one who waits for bytes sleeps at most before it looks whether the query is still there.
const LOOK: Duration = Duration::from_millis(20);

/// The ranges of one column of one segment.
pub(crate) struct Fetch {
    prefetch: Arc<Prefetch>,
    first: usize,
    count: usize,
}

impl Fetch {
    /// All are here, or have failed. Makes them urgent.
    fn ready(&self) -> bool {
        // Each is asked: what is asked for is fetched first.
        let ready = |index| self.prefetch.ready(index);
        (self.first..self.first + self.count)
            .map(ready)
            .fold(true, |all, one| all & one)
    }

    /// Range `at`; waits for it.
    pub(crate) fn take(&self, at: usize) -> object_store::Result<Bytes> {
        self.prefetch.take_blocking(self.first + at)
    }
}

impl Drop for Fetch {
    /// What was not taken is cancelled.
    fn drop(&mut self) {
        (self.first..self.first + self.count).for_each(|index| self.prefetch.cancel(index));
    }
}

/// What is known of a column of a segment.
#[derive(Default)]
enum Slot {
    #[default]
    None,
    /// It is fetched once somebody asks for it.
    PutOff,
    Planned(Arc<Fetch>),
}

/// The fetches of one scan.
pub(crate) struct Fetches {
    columns: usize,
    /// By segment, then column; empty where nothing is ever fetched ahead.
    slots: Vec<Mutex<Slot>>,
    /// For what was put off.
    starter: OnceLock<Starter>,
}

/// What a [`Plan`] is started with.
#[derive(Clone)]
pub(crate) struct Starter {
    pub(crate) window: Arc<QueryWindow>,
    pub(crate) runtime: Handle,
    pub(crate) arrivals: Arc<Arrivals>,
}

/// Whether a column's bytes are here.
pub(crate) enum Readiness {
    Ready,
    UnderWay,
    /// It was put off until now: plan it.
    Due,
}

impl Fetches {
    /// Of a scan that reads local files, or all of whose columns are held.
    pub(crate) fn none() -> Self {
        Self {
            columns: 0,
            slots: Vec::new(),
            starter: OnceLock::new(),
        }
    }

    pub(crate) fn new(segments: usize, columns: usize) -> Self {
        Self {
            columns,
            slots: (0..segments * columns).map(|_| Mutex::default()).collect(),
            starter: OnceLock::new(),
        }
    }

    fn slot(&self, segment: usize, column: usize) -> Option<&Mutex<Slot>> {
        self.slots.get(segment * self.columns + column)
    }

    fn set(&self, segment: usize, column: usize, to: Slot) {
        if let Some(slot) = self.slot(segment, column) {
            *slot.lock() = to;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(crate) fn is_planned(&self, segment: usize, column: usize) -> bool {
        let planned = |slot: &Mutex<Slot>| !matches!(*slot.lock(), Slot::None);
        self.slot(segment, column).is_some_and(planned)
    }

    /// Not yet.
    pub(crate) fn put_off(&self, segment: usize, column: usize, starter: &Starter) {
        let _ = self.starter.get_or_init(|| starter.clone());
        self.set(segment, column, Slot::PutOff);
    }

    /// With which to plan what is due.
    pub(crate) fn starter(&self) -> Option<&Starter> {
        self.starter.get()
    }

    /// Makes what is under way urgent.
    pub(crate) fn readiness(&self, segment: usize, column: usize) -> Readiness {
        let Some(slot) = self.slot(segment, column) else {
            return Readiness::Ready;
        };
        let fetch = {
            let mut slot = slot.lock();
            match &*slot {
                Slot::None => return Readiness::Ready,
                Slot::PutOff => {
                    *slot = Slot::None;
                    return Readiness::Due;
                }
                Slot::Planned(fetch) => Arc::clone(fetch),
            }
        };
        match fetch.ready() {
            true => Readiness::Ready,
            false => Readiness::UnderWay,
        }
    }

    /// Hands the ranges over: to decode them, or to cancel them by dropping them.
    pub(crate) fn claim(&self, segment: usize, column: usize) -> Option<Arc<Fetch>> {
        match std::mem::take(&mut *self.slot(segment, column)?.lock()) {
            Slot::Planned(fetch) => Some(fetch),
            _ => None,
        }
    }

    /// Nobody will load this; true when it had been put off.
    pub(crate) fn cancel(&self, segment: usize, column: usize) -> bool {
        let Some(slot) = self.slot(segment, column) else {
            return false;
        };
        let was = std::mem::take(&mut *slot.lock());
        matches!(was, Slot::PutOff)
    }
}

/// Ranges being listed for one [`Prefetch`], in the order of their use.
#[derive(Default)]
pub(crate) struct Plan<'a> {
    planned: Vec<Planned>,
    slots: Vec<(&'a Fetches, usize, usize, usize)>,
}

impl<'a> Plan<'a> {
    /// Adds all ranges of a column of a segment.
    pub(crate) fn add(&mut self, fetches: &'a Fetches, segment: usize, column: usize, ranges: Vec<Planned>) {
        if !ranges.is_empty() {
            self.slots.push((fetches, segment, column, ranges.len()));
            self.planned.extend(ranges);
        }
    }

    /// Begins to fetch.
    pub(crate) fn start(self, starter: &Starter) {
        if self.planned.is_empty() {
            return;
        }
        let arrivals = Arc::clone(&starter.arrivals);
        let prefetch = Prefetch::start(
            self.planned,
            starter.window.limit_bytes,
            Arc::clone(&starter.window) as Arc<dyn Window>,
            &starter.runtime,
            Arc::new(move || arrivals.tell()),
        );
        let mut first = 0;
        for (fetches, segment, column, count) in self.slots {
            let fetch = Fetch {
                prefetch: Arc::clone(&prefetch),
                first,
                count,
            };
            fetches.set(segment, column, Slot::Planned(Arc::new(fetch)));
            first += count;
        }
    }
}

/// The bytes that a graph's scans may fetch ahead: of the query's pool, and a limit over all prefetches.
pub(crate) struct QueryWindow {
    limit_bytes: usize,
    taken_bytes: AtomicUsize,
    pool: Arc<dyn DevicePool>,
}

impl QueryWindow {
    pub(crate) fn new(limit_bytes: usize, pool: &Arc<dyn DevicePool>) -> Arc<Self> {
        Arc::new(Self {
            limit_bytes,
            taken_bytes: AtomicUsize::new(0),
            pool: Arc::clone(pool),
        })
    }
}

impl Window for QueryWindow {
    fn take(&self, bytes: usize) -> bool {
        let before = self.taken_bytes.fetch_add(bytes, Ordering::AcqRel);
        // One range alone may be larger than the window.
        let fits = before == 0 || before.saturating_add(bytes) <= self.limit_bytes;
        if fits && self.pool.reserve(bytes).is_ok() {
            return true;
        }
        self.taken_bytes.fetch_sub(bytes, Ordering::AcqRel);
        false
    }

    fn give(&self, bytes: usize) {
        self.taken_bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.pool.release(bytes);
    }
}

/// Tells those who wait that bytes have come.
pub(crate) struct Arrivals {
    count: Mutex<u64>,
    signal: Condvar,
    woken: Arc<dyn Fn() + Send + Sync>,
}

impl Arrivals {
    pub(crate) fn new(woken: &Arc<dyn Fn() + Send + Sync>) -> Arc<Self> {
        Arc::new(Self {
            count: Mutex::new(0),
            signal: Condvar::new(),
            woken: Arc::clone(woken),
        })
    }

    fn tell(&self) {
        *self.count.lock() += 1;
        self.signal.notify_all();
        (self.woken)();
    }

    /// Arrivals so far: what [`Arrivals::wait`] compares with.
    pub(crate) fn count(&self) -> u64 {
        *self.count.lock()
    }

    /// Until there were more than `seen`, or a little while.
    pub(crate) fn wait(&self, seen: u64) {
        let mut count = self.count.lock();
        if *count == seen {
            self.signal.wait_for(&mut count, LOOK);
        }
    }
}
