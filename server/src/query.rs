//! The registry of queries: every statement of the last while, its state, and how to cancel it. Bounded; each query has
//! exactly one terminal state.

pub mod run;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use arrow::array::RecordBatch;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use trireme_exec::QueryError;
use trireme_planner::redact::redacted;

use run::{Run, Slot};

/// Where a query stands: Planned → Queued → Running → one of the last three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueryState {
    /// Planned; its rows were not asked for yet.
    Planned,
    /// Waits for its turn.
    Queued,
    /// Runs.
    Running,
    /// All rows were sent, or the update is done.
    Finished,
    /// Ended with an error.
    Failed,
    /// Cancelled by its client, or never fetched.
    Cancelled,
}

impl QueryState {
    /// As shown in `system.queries`.
    pub fn name(self) -> &'static str {
        match self {
            QueryState::Planned => "Planned",
            QueryState::Queued => "Queued",
            QueryState::Running => "Running",
            QueryState::Finished => "Finished",
            QueryState::Failed => "Failed",
            QueryState::Cancelled => "Cancelled",
        }
    }

    /// True for the three that nothing follows.
    pub fn is_terminal(self) -> bool {
        matches!(self, QueryState::Finished | QueryState::Failed | QueryState::Cancelled)
    }
}

/// What is known of a query.
#[derive(Debug, Clone)]
pub struct QueryRecord {
    /// Its id.
    pub id: String,
    /// Session that sent it.
    pub session_id: String,
    /// User, empty without authentication.
    pub user: String,
    /// SQL text, cut to a length and without credentials.
    pub sql: String,
    /// Command word.
    pub command: String,
    /// State.
    pub state: QueryState,
    /// When it came.
    pub created: SystemTime,
    /// When it began to run.
    pub started: Option<SystemTime>,
    /// When it ended.
    pub finished: Option<SystemTime>,
    /// Rows sent, or touched by an update.
    pub rows: u64,
    /// Bytes of Arrow data sent.
    pub bytes: u64,
    /// Error text of a failed one; why one was cancelled whose rows nobody fetched.
    pub error: Option<String>,
}

/// A live query: its record's moving parts and its switch.
#[derive(Debug)]
pub struct QueryHandle {
    id: String,
    user: String,
    record: Mutex<QueryRecord>,
    /// Shared with the registry: queries planned and not fetched.
    planned: Arc<AtomicUsize>,
    rows: AtomicU64,
    bytes: AtomicU64,
    cancel: CancellationToken,
    run: Slot,
}

impl QueryHandle {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Who runs it; empty without authentication.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Keeps its run until it is taken, or the query has ended.
    pub fn keep_run(&self, run: Run) {
        self.run.put(run);
        // Ended meanwhile: that found nothing to end.
        if self.state().is_terminal() {
            drop(self.run.take());
        }
    }

    /// Its run, to go on with.
    pub fn take_run(&self) -> Option<Run> {
        self.run.take()
    }

    /// Stops a run that has begun before it was fetched, and was not; false if there is none.
    pub fn give_up_run(&self) -> bool {
        self.run.give_up(|| self.set_started(None))
    }

    /// The next batch of its run; none when the query was ended from outside.
    pub fn poll_run(&self, context: &mut Context<'_>) -> Option<Poll<Option<Result<RecordBatch, QueryError>>>> {
        self.run.poll_next(context)
    }

    /// True when nobody fetched its rows in time.
    pub fn has_expired(&self) -> bool {
        let record = self.record.lock();
        record.state == QueryState::Cancelled && record.error.is_some()
    }

    /// Its state now.
    pub fn state(&self) -> QueryState {
        self.record.lock().state
    }

    /// A copy of all that is known now.
    pub fn snapshot(&self) -> QueryRecord {
        let mut record = self.record.lock().clone();
        record.rows = record.rows.max(self.rows.load(Ordering::Relaxed));
        record.bytes = self.bytes.load(Ordering::Relaxed);
        record
    }

    /// Fires when somebody cancels it.
    pub fn cancelled(&self) -> CancellationToken {
        self.cancel.clone()
    }

    fn is_live_in(&self, session_id: &str) -> bool {
        let record = self.record.lock();
        record.session_id == session_id && !record.state.is_terminal()
    }

    /// Command, state, and how long it ran, for the metrics.
    pub fn outcome(&self) -> (String, QueryState, Option<Duration>) {
        let record = self.record.lock();
        let took = record
            .started
            .zip(record.finished)
            .and_then(|(started, finished)| finished.duration_since(started).ok());
        (record.command.clone(), record.state, took)
    }

    /// Counts what was sent.
    pub fn add_sent(&self, rows: u64, bytes: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Names the command once it is parsed.
    pub fn set_command(&self, command: &str) {
        command.clone_into(&mut self.record.lock().command);
    }

    /// Notes when it began to run, though nobody has asked for its rows; none when that was for nothing.
    pub fn set_started(&self, at: Option<SystemTime>) {
        self.record.lock().started = at;
    }

    /// Moves on; false (and no change) when the query has ended already.
    pub fn advance(&self, state: QueryState) -> bool {
        self.advance_if(state, |_| true)
    }

    /// Moves on from where it waits to be fetched; false (and no change) when it doesn't.
    pub fn fetch(&self) -> bool {
        self.advance_if(QueryState::Queued, |record| record.state == QueryState::Planned)
    }

    /// Goes back to where it waits to be fetched; false (and no change) when it has begun to run.
    pub fn wait_again(&self) -> bool {
        self.advance_if(QueryState::Planned, |record| record.state == QueryState::Queued)
    }

    /// Ends it unless it was fetched.
    fn expire(&self) -> bool {
        let expired = self.advance_if(QueryState::Cancelled, |record| {
            let waits = record.state == QueryState::Planned;
            record.error = waits.then(|| "its rows were not fetched within limits.ticket_ttl_seconds".to_owned());
            waits
        });
        if expired {
            self.cancel.cancel();
        }
        expired
    }

    /// Cancels it, and tells who waits for it.
    fn cancel(&self) -> bool {
        let cancelled = self.advance(QueryState::Cancelled);
        if cancelled {
            self.cancel.cancel();
        }
        cancelled
    }

    fn advance_if(&self, state: QueryState, may: impl FnOnce(&mut QueryRecord) -> bool) -> bool {
        let mut record = self.record.lock();
        if record.state.is_terminal() || !may(&mut record) {
            return false;
        }
        match (record.state == QueryState::Planned, state == QueryState::Planned) {
            (true, false) => self.planned.fetch_sub(1, Ordering::Relaxed),
            (false, true) => self.planned.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
        record.state = state;
        if state == QueryState::Running {
            record.started.get_or_insert_with(SystemTime::now);
        }
        if state.is_terminal() {
            record.finished = Some(SystemTime::now());
            drop(record);
            drop(self.run.take());
        }
        true
    }

    /// Ends it with an error text.
    pub fn fail(&self, error: &str) -> bool {
        if !self.advance(QueryState::Failed) {
            return false;
        }
        self.record.lock().error = Some(error.to_owned());
        true
    }
}

/// All queries of the last while.
#[derive(Debug)]
pub struct QueryRegistry {
    limit: usize,
    planned: Arc<AtomicUsize>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_id: HashMap<String, Arc<QueryHandle>>,
    order: VecDeque<String>,
}

/// SQL text kept per query, in characters.
const SQL_CHARS_MAX: usize = 4096;

/// The text as it may be kept: only what comes first, without credentials.
fn shown(sql: &str) -> String {
    let end = sql.char_indices().nth(SQL_CHARS_MAX).map_or(sql.len(), |(end, _)| end);
    redacted(&sql[..end]).into_owned()
}

impl QueryRegistry {
    /// A registry of at most `limit` records; live queries are kept beyond it.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: limit.max(1),
            planned: Arc::default(),
            inner: Mutex::default(),
        })
    }

    /// Registers a new query.
    pub fn register(&self, session_id: &str, user: &str, sql: &str) -> Arc<QueryHandle> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let record = QueryRecord {
            id: id.clone(),
            session_id: session_id.to_owned(),
            user: user.to_owned(),
            sql: shown(sql),
            command: String::new(),
            state: QueryState::Planned,
            created: SystemTime::now(),
            started: None,
            finished: None,
            rows: 0,
            bytes: 0,
            error: None,
        };
        self.planned.fetch_add(1, Ordering::Relaxed);
        let handle = Arc::new(QueryHandle {
            id: id.clone(),
            user: user.to_owned(),
            record: Mutex::new(record),
            planned: Arc::clone(&self.planned),
            rows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            cancel: CancellationToken::new(),
            run: Slot::default(),
        });
        let mut inner = self.inner.lock();
        inner.by_id.insert(id.clone(), Arc::clone(&handle));
        inner.order.push_back(id);
        inner.trim(self.limit);
        handle
    }

    /// A query by id.
    pub fn get(&self, id: &str) -> Option<Arc<QueryHandle>> {
        self.inner.lock().by_id.get(id).cloned()
    }

    /// Cancels a live query and gives it; none when there is none of this id.
    pub fn cancel(&self, id: &str) -> Option<Arc<QueryHandle>> {
        self.get(id).filter(|query| query.cancel())
    }

    /// True for a query that has not ended.
    pub fn lives(&self, id: &str) -> bool {
        self.get(id).is_some_and(|query| !query.state().is_terminal())
    }

    /// The live queries of a session.
    pub fn live_in(&self, session_id: &str) -> Vec<String> {
        let inner = self.inner.lock();
        let live = inner.by_id.values().filter(|query| query.is_live_in(session_id));
        live.map(|query| query.id.clone()).collect()
    }

    /// Ends queries that were planned longer ago than `ttl` and never fetched; gives them.
    pub fn expire(&self, ttl: Duration) -> Vec<Arc<QueryHandle>> {
        if self.planned() == 0 {
            return Vec::new();
        }
        let now = SystemTime::now();
        let stale = |record: &QueryRecord| {
            record.state == QueryState::Planned && now.duration_since(record.created).is_ok_and(|age| age > ttl)
        };
        let stale = self.snapshots().into_iter().filter(stale);
        stale
            .filter_map(|record| self.get(&record.id))
            .filter(|query| query.expire())
            .collect()
    }

    /// Queries planned and not fetched.
    pub fn planned(&self) -> usize {
        self.planned.load(Ordering::Relaxed)
    }

    /// All records, oldest first.
    pub fn snapshots(&self) -> Vec<QueryRecord> {
        let inner = self.inner.lock();
        inner
            .order
            .iter()
            .filter_map(|id| inner.by_id.get(id))
            .map(|handle| handle.snapshot())
            .collect()
    }
}

impl Inner {
    fn trim(&mut self, limit: usize) {
        let mut looked_at = 0;
        while self.by_id.len() > limit && looked_at < limit {
            looked_at += 1;
            let Some(id) = self.order.pop_front() else { return };
            let live = self
                .by_id
                .get(&id)
                .is_some_and(|handle| !handle.record.lock().state.is_terminal());
            if live {
                self.order.push_back(id);
            } else {
                self.by_id.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_terminal_state() {
        let registry = QueryRegistry::new(10);
        let query = registry.register("s", "", "SELECT 1");
        assert!(query.advance(QueryState::Running));
        assert!(registry.cancel(query.id()).is_some());
        assert!(registry.cancel(query.id()).is_none());
        assert!(!query.advance(QueryState::Finished));
        assert!(!query.fail("late"));
        assert_eq!(query.snapshot().state, QueryState::Cancelled);
    }

    #[test]
    fn credentials_are_not_kept() {
        let registry = QueryRegistry::new(10);
        let long = " ".repeat(SQL_CHARS_MAX - 60);
        for sql in [
            "CREATE SECRET x (TYPE s3, KEY_ID 'a', SECRET 'hunter2')".to_owned(),
            format!("{long}CREATE EXTERNAL TABLE t OPTIONS (aws.secret_access_key 'hunter2hunter2')"),
        ] {
            let kept = registry.register("s", "", &sql).snapshot().sql;
            assert!(kept.contains("CREATE") && !kept.contains("hunter"), "{kept}");
        }
    }

    #[test]
    fn bounded_but_live_queries_stay() {
        let registry = QueryRegistry::new(3);
        let live = registry.register("s", "", "live");
        for _ in 0..10 {
            registry.register("s", "", "x").advance(QueryState::Finished);
        }
        assert!(registry.snapshots().len() <= 4);
        assert!(registry.get(live.id()).is_some());
    }
}
