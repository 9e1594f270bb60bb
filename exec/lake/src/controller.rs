//! Who may send a request, and when: one controller per store, whose slots go to the most urgent readers first.
//!
//! A slot is one request in flight. How many there are follows from what they bring ([`pace`]); whom they go to from
//! [`ReadClass`], with every [`FAIR_EVERY`]th going to whoever has waited longest, so that nothing starves. A waiting reader
//! can become more urgent ([`Controller::raise`]); one that goes away leaves the queue.

mod measures;
mod pace;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

pub(crate) use measures::Measures;
use pace::Pace;

use crate::options::LakeOptions;
use crate::read::ReadClass;

/// Every so many grants one goes to the longest waiting.
const FAIR_EVERY: u64 = 16;
/// Goodput is over this time.
const LATELY: Duration = Duration::from_secs(2);
/// And known at steps of this.
const MARK_EVERY: Duration = Duration::from_millis(100);
/// First byte that is assumed before one was measured.
const FIRST_BYTE_ASSUMED: Duration = Duration::from_millis(50);

const CLASSES: [ReadClass; 4] = [ReadClass::Demand, ReadClass::Near, ReadClass::Far, ReadClass::Upload];

/// How urgent something is that may become more urgent.
#[derive(Debug)]
pub(crate) struct Urgency(AtomicU8);

impl Urgency {
    pub(crate) fn new(class: ReadClass) -> Arc<Self> {
        Arc::new(Self(AtomicU8::new(class as u8)))
    }

    pub(crate) fn class(&self) -> ReadClass {
        CLASSES[usize::from(self.0.load(Ordering::Relaxed)).min(CLASSES.len() - 1)]
    }
}

/// A place in the queue.
#[derive(Debug, Default)]
pub(crate) struct Turn(Option<u64>);

#[derive(Debug)]
struct Waiting {
    urgency: Arc<Urgency>,
    granted: oneshot::Sender<Slot>,
}

#[derive(Debug)]
struct State {
    pace: Pace,
    in_flight: usize,
    waiting: BTreeMap<(ReadClass, u64), Waiting>,
    tickets: u64,
    grants: u64,
    marks: VecDeque<(Instant, u64)>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Controller {
    state: Mutex<State>,
    arrived_bytes: AtomicU64,
    /// Bytes per second, the most that came in a round.
    best_rate: AtomicU64,
    answers: AtomicU64,
    throttled: AtomicU64,
    measures: Measures,
}

/// The right to have one request in flight, until it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    controller: Option<Arc<Controller>>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(controller) = self.controller.take() {
            controller.release();
        }
    }
}

impl Controller {
    pub(crate) fn new(options: &LakeOptions) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self {
            state: Mutex::new(State {
                pace: Pace::new(options.in_flight_start, options.in_flight_max, now),
                in_flight: 0,
                waiting: BTreeMap::new(),
                tickets: 0,
                grants: 0,
                marks: VecDeque::new(),
            }),
            arrived_bytes: AtomicU64::new(0),
            best_rate: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            throttled: AtomicU64::new(0),
            measures: Measures::default(),
        })
    }

    /// Waits for a slot. Who comes with the same `turn` again, after an error, stands where it stood before.
    pub(crate) async fn acquire(self: &Arc<Self>, urgency: &Arc<Urgency>, turn: &mut Turn) -> Slot {
        let (granted, receiver) = oneshot::channel();
        let ticket = {
            let mut state = self.state.lock();
            let ticket = *turn.0.get_or_insert(state.tickets);
            state.tickets += 1;
            if state.waiting.is_empty() && state.in_flight < state.pace.limit() {
                self.count(&mut state);
                return self.slot();
            }
            let waiting = Waiting {
                urgency: Arc::clone(urgency),
                granted,
            };
            state.waiting.insert((urgency.class(), ticket), waiting);
            ticket
        };
        let _leave = Leave {
            controller: self,
            ticket,
        };
        self.pump();
        match receiver.await {
            Ok(slot) => slot,
            // Nobody drops a waiting sender without a grant; if it were so, a request too many is better than none.
            Err(_) => {
                self.state.lock().in_flight += 1;
                self.slot()
            }
        }
    }

    /// A slot beyond the limit, for a second request in place of a slow one; none when many are out already.
    pub(crate) fn overdraw(self: &Arc<Self>) -> Option<Slot> {
        let mut state = self.state.lock();
        let limit = state.pace.limit();
        if state.in_flight >= limit + (limit / 8).max(2) {
            return None;
        }
        self.count(&mut state);
        Some(self.slot())
    }

    /// Makes what waits with this urgency at least this urgent.
    pub(crate) fn raise(&self, urgency: &Arc<Urgency>, class: ReadClass) {
        if urgency.0.fetch_min(class as u8, Ordering::Relaxed) <= class as u8 {
            return;
        }
        let mut state = self.state.lock();
        let keys: Vec<_> = (state.waiting.iter())
            .filter(|((at, _), waiting)| *at > class && Arc::ptr_eq(&waiting.urgency, urgency))
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            if let Some(waiting) = state.waiting.remove(&key) {
                state.waiting.insert((class, key.1), waiting);
            }
        }
    }

    /// Bytes came.
    pub(crate) fn arrived(&self, bytes: u64) {
        self.arrived_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes per second that came at most, as far as rounds have been measured.
    pub(crate) fn best_rate(&self) -> u64 {
        self.best_rate.load(Ordering::Relaxed)
    }

    /// Whether the store has ever answered.
    pub(crate) fn has_answered(&self) -> bool {
        self.answers.load(Ordering::Relaxed) > 0
    }

    /// An answer came: what was asked for, or a request for fewer requests.
    pub(crate) fn answered(&self, throttled: bool) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        if throttled {
            self.throttled.fetch_add(1, Ordering::Relaxed);
        }
        self.state.lock().pace.answered(Instant::now(), throttled);
    }

    /// What requests lately took.
    pub(crate) fn measures(&self) -> &Measures {
        &self.measures
    }

    /// Requests in flight, and how many may be.
    pub(crate) fn in_flight(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.in_flight, state.pace.limit())
    }

    /// Requests that wait for a slot.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().waiting.len()
    }

    /// 503s and 429s.
    pub(crate) fn throttled(&self) -> u64 {
        self.throttled.load(Ordering::Relaxed)
    }

    /// Bytes per second that came lately, and the most that were seen.
    pub(crate) fn goodput(&self) -> (f64, f64) {
        let mut state = self.state.lock();
        self.mark(&mut state, Instant::now());
        let best = state.pace.best();
        let lately = match (state.marks.front(), state.marks.back()) {
            (Some((first, from)), Some((last, to))) if last > first => {
                #[expect(clippy::cast_precision_loss, reason = "a rate")]
                let bytes = (to - from) as f64;
                bytes / (*last - *first).as_secs_f64()
            }
            _ => 0.0,
        };
        (lately, best.max(lately))
    }

    fn slot(self: &Arc<Self>) -> Slot {
        Slot {
            controller: Some(Arc::clone(self)),
        }
    }

    fn count(&self, state: &mut State) {
        state.in_flight += 1;
        self.tick(state);
    }

    fn release(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.in_flight = state.in_flight.saturating_sub(1);
        self.tick(&mut state);
        drop(state);
        self.pump();
    }

    fn tick(&self, state: &mut State) {
        let now = Instant::now();
        let first_byte = self.measures.any_first_bytes();
        let first_byte = first_byte.map_or(FIRST_BYTE_ASSUMED, |known| Duration::from_secs_f64(known.p50));
        let waiting = !state.waiting.is_empty();
        state
            .pace
            .tick(now, self.arrived_bytes.load(Ordering::Relaxed), waiting, first_byte);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate")]
        self.best_rate.store(state.pace.best() as u64, Ordering::Relaxed);
        self.mark(state, now);
    }

    fn mark(&self, state: &mut State, now: Instant) {
        if state.marks.back().is_some_and(|(last, _)| now - *last < MARK_EVERY) {
            return;
        }
        state.marks.push_back((now, self.arrived_bytes.load(Ordering::Relaxed)));
        while state.marks.len() > 2 && state.marks.front().is_some_and(|(first, _)| now - *first > LATELY) {
            state.marks.pop_front();
        }
    }

    /// Gives free slots to those that wait. Sends outside of the lock: a receiver that is gone hands the slot back.
    fn pump(self: &Arc<Self>) {
        loop {
            let waiting = {
                let mut state = self.state.lock();
                if state.in_flight >= state.pace.limit() {
                    return;
                }
                let Some(waiting) = state.next() else { return };
                state.in_flight += 1;
                waiting
            };
            if let Err(mut slot) = waiting.granted.send(self.slot()) {
                slot.controller = None;
                self.state.lock().in_flight -= 1;
            }
        }
    }
}

impl State {
    fn next(&mut self) -> Option<Waiting> {
        self.grants += 1;
        let key = if self.grants.is_multiple_of(FAIR_EVERY) {
            let first = |class: ReadClass| self.waiting.range((class, 0)..).next().map(|(key, _)| *key);
            CLASSES.into_iter().filter_map(first).min_by_key(|(_, ticket)| *ticket)
        } else {
            self.waiting.first_key_value().map(|(key, _)| *key)
        };
        self.waiting.remove(&key?)
    }
}

/// Takes a reader out of the queue that does not wait any more.
struct Leave<'a> {
    controller: &'a Arc<Controller>,
    ticket: u64,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let mut state = self.controller.state.lock();
        for class in CLASSES {
            if let Some(waiting) = state.waiting.remove(&(class, self.ticket)) {
                drop(state);
                drop(waiting);
                return;
            }
        }
    }
}
