//! What a prefetch has planned, started and holds: all its decisions, without any waiting. Its callers hold it under a lock.
//!
//! Invariants: an item is in at most one request; a request lives until its last item was taken or cancelled;
//! `held_bytes` is the sum of the lengths of all requests; what was taken from the window is given back
//! when its request goes.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use object_store::{Error, Result};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::{Planned, PrefetchState, Window};
use crate::coalesce::coalesce;
use crate::errors;
use crate::read::{Account, Read, ReadClass};
use crate::store::TieredStore;

/// Items after the first of a request that may join it.
const LOOK_AHEAD: usize = 64;

/// First bytes take long.
const FAR_SECONDS: f64 = 0.09;

/// Numbers that stay the same.
pub(super) struct Limits {
    /// Bytes held at most, but for one range, or what somebody waits for.
    pub(super) window_bytes: u64,
    /// About what one request brings of a long range.
    pub(super) part_bytes: u64,
    /// A merged range is no longer.
    pub(super) merged_bytes: u64,
    /// Requests under way at most, but for what somebody waits for. The store's controller decides how many of them it sends.
    pub(super) in_flight_max: usize,
    /// Bytes under way, beyond the window, that readers wait for; one request at least.
    pub(super) overdraft_bytes: u64,
}

impl Limits {
    /// Within a fixed window, many small requests bring more per second than few large ones, as their latencies overlap; too
    /// small ones cost processor time and money. 128 of them fill the window; twice as many if first bytes take long.
    pub(super) fn new(window_bytes: usize, planned: &[Planned]) -> Self {
        let window_bytes = window_bytes as u64;
        let mut stores: Vec<&Arc<TieredStore>> = Vec::new();
        for Planned { store, .. } in planned {
            if !stores.iter().any(|other| Arc::ptr_eq(other, store)) {
                stores.push(store);
            }
        }
        let first_byte = |store: &&Arc<TieredStore>| store.metrics().first_byte_p50_seconds;
        let is_far = stores.iter().any(|store| first_byte(store) > FAR_SECONDS);
        let in_window: u32 = if is_far { 256 } else { 128 };
        let part_bytes = (window_bytes / u64::from(in_window)).clamp(1 << 20, 8 << 20);
        Self {
            window_bytes,
            part_bytes,
            merged_bytes: part_bytes.min(window_bytes / 4),
            in_flight_max: in_window as usize * 5 / 4,
            overdraft_bytes: 16 << 20,
        }
    }
}

/// What a taker gets.
pub(super) enum Claim {
    /// The range, or why not.
    Here(Result<Bytes>),
    /// Ask again then; a request of this range, if any, is urgent now.
    Wait(oneshot::Receiver<()>, Option<Range<u64>>),
    /// Not ours any more: read it.
    Demand,
}

/// What it means that somebody waits for a range.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// Nobody has to wait.
    Ready,
    /// It can be started now.
    Start,
    /// It is under way, in a request of this range, which is urgent now.
    Raise(Range<u64>),
    /// It is wanted already.
    Known,
}

/// A request to send.
pub(super) struct Started {
    pub(super) id: u64,
    pub(super) store: Arc<TieredStore>,
    pub(super) read: Read,
    /// Of the range: what nobody needs.
    pub(super) gap_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Queued,
    Requested(u64),
    Taken,
    Cancelled,
}

struct Item {
    state: State,
    wanted: bool,
    waiting_since: Option<Instant>,
}

enum Outcome {
    Running(Option<AbortHandle>),
    Here(Bytes),
    Failed(Arc<Error>),
}

struct Request {
    store: Arc<TieredStore>,
    members: Vec<usize>,
    range: Range<u64>,
    /// Somebody waits for it, and the store knows.
    urgent: bool,
    /// It was sent as one that somebody waits for: the store counts how long.
    demand: bool,
    window_taken_bytes: usize,
    overdraft: bool,
    outcome: Outcome,
    waiters: Vec<oneshot::Sender<()>>,
}

impl Request {
    fn len(&self) -> u64 {
        self.range.end - self.range.start
    }
}

/// Why a request may start now.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    Window,
    Overdraft,
}

/// See the module.
pub(super) struct Queue {
    items: Vec<Item>,
    wanted: VecDeque<usize>,
    near: VecDeque<usize>,
    far: VecDeque<usize>,
    requests: HashMap<u64, Request>,
    id_next: u64,
    in_flight: usize,
    held_bytes: u64,
    ahead_bytes_max: u64,
    /// Of the held bytes: what a reader waited for and the window had no room for.
    overdraft_bytes: u64,
    overdraft_in_flight_bytes: u64,
    closed: bool,
}

impl Queue {
    pub(super) fn new(planned: &[Planned]) -> Self {
        let (far, near) = (0..planned.len()).partition(|&index| planned[index].class >= ReadClass::Far);
        let item = || Item {
            state: State::Queued,
            wanted: false,
            waiting_since: None,
        };
        Self {
            items: planned.iter().map(|_| item()).collect(),
            wanted: VecDeque::new(),
            near,
            far,
            requests: HashMap::new(),
            id_next: 0,
            in_flight: 0,
            held_bytes: 0,
            ahead_bytes_max: 0,
            overdraft_bytes: 0,
            overdraft_in_flight_bytes: 0,
            closed: false,
        }
    }

    pub(super) fn state(&self) -> PrefetchState {
        PrefetchState {
            in_flight: self.in_flight,
            held_bytes: self.held_bytes,
            ahead_bytes_max: self.ahead_bytes_max,
            started: self.id_next,
        }
    }

    /// Somebody waits for a range from now on, unless it is here.
    pub(super) fn want(&mut self, index: usize) -> Want {
        let item = &mut self.items[index];
        let want = match item.state {
            State::Taken | State::Cancelled => return Want::Ready,
            State::Queued if item.wanted => Want::Known,
            State::Queued => {
                self.wanted.push_back(index);
                Want::Start
            }
            State::Requested(id) => match self.requests.get_mut(&id) {
                Some(request) if !matches!(request.outcome, Outcome::Running(_)) => return Want::Ready,
                None => return Want::Ready,
                Some(request) if request.urgent => Want::Known,
                Some(request) => {
                    request.urgent = true;
                    Want::Raise(request.range.clone())
                }
            },
        };
        item.wanted = true;
        item.waiting_since.get_or_insert_with(Instant::now);
        want
    }

    pub(super) fn is_here(&self, index: usize) -> bool {
        match self.items[index].state {
            State::Requested(id) => self
                .requests
                .get(&id)
                .is_some_and(|request| !matches!(request.outcome, Outcome::Running(_))),
            State::Queued | State::Taken | State::Cancelled => false,
        }
    }

    /// The next request, if one may start now.
    pub(super) fn next(&mut self, planned: &[Planned], limits: &Limits, window: &dyn Window) -> Option<Started> {
        if self.closed {
            return None;
        }
        let first = self.first_queued()?;
        let wanted = self.items[first].wanted;
        if !wanted && self.in_flight >= limits.in_flight_max {
            return None;
        }
        let own_bytes = length(&planned[first].range);
        let room_bytes = limits.window_bytes.saturating_sub(self.held_bytes);
        let fits = |bytes: u64| bytes <= room_bytes || (self.held_bytes == 0 && limits.window_bytes > 0);
        // Not cut to the room that is there: with a full window, each range that is taken would make room for a small request.
        let (members, range, gap_bytes) = self.merge(first, planned, limits.merged_bytes.max(own_bytes));
        if fits(length(&range))
            && let Some(taken) = take(window, length(&range))
        {
            return Some(self.start(planned, members, range, gap_bytes, taken, Room::Window));
        }
        let may_shrink = wanted || fits(length(&range));
        if may_shrink
            && fits(own_bytes)
            && let Some(taken) = take(window, own_bytes)
        {
            let own = planned[first].range.clone();
            return Some(self.start(planned, vec![first], own, 0, taken, Room::Window));
        }
        let overdraft = self.overdraft_in_flight_bytes;
        if !wanted || (overdraft > 0 && overdraft + own_bytes > limits.overdraft_bytes) {
            return None;
        }
        Some(self.start_wanted(first, planned, limits, window))
    }

    /// Starts a range that somebody waits for, whatever is held.
    fn start_wanted(&mut self, first: usize, planned: &[Planned], limits: &Limits, window: &dyn Window) -> Started {
        let own = planned[first].range.clone();
        let fits = self.held_bytes + length(&own) <= limits.window_bytes;
        let room = if fits { Room::Window } else { Room::Overdraft };
        match take(window, length(&own)) {
            Some(taken) => self.start(planned, vec![first], own, 0, taken, room),
            None => self.start(planned, vec![first], own, 0, 0, Room::Overdraft),
        }
    }

    fn first_queued(&mut self) -> Option<usize> {
        for list in [&mut self.wanted, &mut self.near, &mut self.far] {
            while let Some(&index) = list.front() {
                if self.items[index].state == State::Queued {
                    return Some(index);
                }
                list.pop_front();
            }
        }
        None
    }

    /// The range of `first`, with queued neighbours that come soon after it in the order of use. Who waits for a range does
    /// not wait for what nobody wants yet.
    fn merge(&self, first: usize, planned: &[Planned], longest: u64) -> (Vec<usize>, Range<u64>, u64) {
        let (head, wanted) = (&planned[first], self.items[first].wanted);
        let joins = |index: usize| {
            let other = &planned[index];
            self.items[index].state == State::Queued
                && self.items[index].wanted == wanted
                && other.class == head.class
                && Arc::ptr_eq(&other.store, &head.store)
                && Arc::ptr_eq(&other.account, &head.account)
                && (Arc::ptr_eq(&other.object, &head.object) || other.object == head.object)
        };
        let last = planned.len().min(first + 1 + LOOK_AHEAD);
        let indices: Vec<usize> = std::iter::once(first)
            .chain((first + 1..last).filter(|&index| joins(index)))
            .collect();
        let ranges: Vec<Range<u64>> = indices.iter().map(|&index| planned[index].range.clone()).collect();
        let merged = coalesce(&ranges, head.store.gap_bytes(), longest)
            .into_iter()
            .find(|merged| merged.members.contains(&0));
        match merged {
            Some(merged) => {
                let members = merged.members.iter().map(|&member| indices[member]).collect();
                (members, merged.range, merged.gap_bytes)
            }
            None => (vec![first], head.range.clone(), 0),
        }
    }

    fn start(
        &mut self,
        planned: &[Planned],
        members: Vec<usize>,
        range: Range<u64>,
        gap_bytes: u64,
        window_taken_bytes: usize,
        room: Room,
    ) -> Started {
        let id = self.id_next;
        self.id_next += 1;
        let wanted = members.iter().any(|&member| self.items[member].wanted);
        let head = &planned[members[0]];
        let class = if wanted { ReadClass::Demand } else { head.class };
        let started = Started {
            id,
            store: Arc::clone(&head.store),
            read: head.read(range.clone(), class),
            gap_bytes,
        };
        for &member in &members {
            self.items[member].state = State::Requested(id);
        }
        self.in_flight += 1;
        self.held_bytes += length(&range);
        match room {
            Room::Window => {
                let ahead_bytes = self.held_bytes - self.overdraft_bytes;
                self.ahead_bytes_max = self.ahead_bytes_max.max(ahead_bytes);
            }
            Room::Overdraft => {
                self.overdraft_bytes += length(&range);
                self.overdraft_in_flight_bytes += length(&range);
            }
        }
        if room == Room::Window {
            head.store.hold(length(&range));
        }
        let request = Request {
            store: Arc::clone(&head.store),
            members,
            range,
            urgent: wanted,
            demand: wanted,
            window_taken_bytes,
            overdraft: room == Room::Overdraft,
            outcome: Outcome::Running(None),
            waiters: Vec::new(),
        };
        self.requests.insert(id, request);
        started
    }

    /// Whether somebody waits for a request by now.
    pub(super) fn is_urgent(&mut self, id: u64) -> bool {
        self.requests.get_mut(&id).is_some_and(|request| {
            request.demand = request.urgent;
            request.urgent
        })
    }

    /// The task of a request is known; given back when nobody needs it any more.
    pub(super) fn running(&mut self, id: u64, task: AbortHandle) -> Option<AbortHandle> {
        match self.requests.get_mut(&id).map(|request| &mut request.outcome) {
            Some(Outcome::Running(handle)) => {
                *handle = Some(task);
                None
            }
            Some(_) => None,
            None => Some(task),
        }
    }

    /// A request has ended; false when nobody needs it any more.
    pub(super) fn end(&mut self, id: u64, result: Result<Bytes>, planned: &[Planned]) -> bool {
        let Some(request) = self.requests.get_mut(&id) else {
            return false;
        };
        let (bytes, head) = (request.len(), &planned[request.members[0]]);
        self.in_flight -= 1;
        if request.overdraft {
            self.overdraft_in_flight_bytes -= bytes;
        }
        request.outcome = match result {
            Ok(came) if came.len() as u64 == bytes => Outcome::Here(came),
            Ok(came) => Outcome::Failed(Arc::new(errors::generic(
                "prefetch",
                format!("{} ended after {} of {bytes} bytes", head.object.location, came.len()),
            ))),
            Err(error) => Outcome::Failed(Arc::new(error)),
        };
        for &member in &request.members {
            if let Some(since) = self.items[member].waiting_since.take() {
                let waited_ns = count_wait(&planned[member].account, since);
                if !request.demand {
                    request.store.count_wait(waited_ns);
                }
            }
        }
        for waiter in request.waiters.drain(..) {
            let _ = waiter.send(());
        }
        true
    }

    /// Takes a range, or starts it, or tells when to ask again.
    pub(super) fn claim(
        &mut self,
        index: usize,
        planned: &[Planned],
        limits: &Limits,
        window: &dyn Window,
    ) -> (Claim, Option<Started>) {
        let mut started = None;
        if self.items[index].state == State::Queued {
            self.want(index);
            started = Some(self.start_wanted(index, planned, limits, window));
        }
        let State::Requested(id) = self.items[index].state else {
            return (Claim::Demand, None);
        };
        let Some(request) = self.requests.get_mut(&id) else {
            return (Claim::Demand, None);
        };
        let result = match &request.outcome {
            Outcome::Running(_) => {
                let (sender, receiver) = oneshot::channel();
                request.waiters.push(sender);
                let raise = match self.want(index) {
                    Want::Raise(range) => Some(range),
                    Want::Ready | Want::Start | Want::Known => None,
                };
                return (Claim::Wait(receiver, raise), started);
            }
            Outcome::Here(bytes) => {
                let (range, base) = (&planned[index].range, request.range.start);
                Ok(part(bytes, range, base))
            }
            Outcome::Failed(error) => Err(Arc::clone(error)),
        };
        self.items[index].state = State::Taken;
        self.leave(id, index, window);
        (Claim::Here(result.map_err(errors::share)), None)
    }

    /// An item is not needed. A task to stop is given to the caller, who must not hold the lock when it stops it.
    pub(super) fn cancel(&mut self, index: usize, planned: &[Planned], window: &dyn Window) -> Option<AbortHandle> {
        let state = self.items[index].state;
        if matches!(state, State::Taken | State::Cancelled) {
            return None;
        }
        let Planned { store, account, .. } = &planned[index];
        store.meter(account).add(|account| &account.cancelled_ranges, 1);
        self.items[index].state = State::Cancelled;
        let State::Requested(id) = state else { return None };
        self.count_wasted(id, index, planned);
        self.leave(id, index, window)
    }

    fn count_wasted(&self, id: u64, index: usize, planned: &[Planned]) {
        let here = |request: &Request| matches!(request.outcome, Outcome::Here(_));
        if self.requests.get(&id).is_some_and(here) {
            let Planned {
                store, account, range, ..
            } = &planned[index];
            (store.meter(account)).add(|account| &account.wasted_bytes, length(range));
        }
    }

    /// An item leaves its request; with the last one, the request goes.
    fn leave(&mut self, id: u64, index: usize, window: &dyn Window) -> Option<AbortHandle> {
        let request = self.requests.get_mut(&id)?;
        request.members.retain(|member| *member != index);
        if !request.members.is_empty() {
            return None;
        }
        let request = self.requests.remove(&id)?;
        self.held_bytes -= request.len();
        match request.overdraft {
            true => self.overdraft_bytes -= request.len(),
            false => request.store.release(request.len()),
        }
        window.give(request.window_taken_bytes);
        let Outcome::Running(task) = request.outcome else {
            return None;
        };
        self.in_flight -= 1;
        if request.overdraft {
            self.overdraft_in_flight_bytes -= length(&request.range);
        }
        task
    }

    /// Everything that is held goes; what is still queued will not start.
    pub(super) fn close(&mut self, planned: &[Planned], window: &dyn Window) -> Vec<AbortHandle> {
        self.closed = true;
        let held: Vec<usize> = (0..self.items.len())
            .filter(|&index| matches!(self.items[index].state, State::Requested(_)))
            .collect();
        let mut tasks = Vec::new();
        for index in held {
            if let State::Requested(id) = self.items[index].state {
                self.count_wasted(id, index, planned);
                self.items[index].state = State::Cancelled;
                tasks.extend(self.leave(id, index, window));
            }
        }
        tasks
    }
}

/// A reader has waited since then.
pub(super) fn count_wait(account: &Account, since: Instant) -> u64 {
    let waited_ns = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
    account.count_wait(waited_ns);
    waited_ns
}

fn length(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

/// A part of what begins at `base` in its object; callers have checked that it lies within.
fn part(bytes: &Bytes, range: &Range<u64>, base: u64) -> Bytes {
    let start = usize::try_from(range.start - base).unwrap_or(usize::MAX);
    let end = usize::try_from(length(range)).map_or(usize::MAX, |length| start.saturating_add(length));
    bytes.slice(start.min(bytes.len())..end.min(bytes.len()))
}

fn take(window: &dyn Window, bytes: u64) -> Option<usize> {
    let bytes = usize::try_from(bytes).ok()?;
    window.take(bytes).then_some(bytes)
}
