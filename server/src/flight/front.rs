//! What every handler works with: the engine behind its seam, sessions, queries, admission, limits.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use trireme_exec::{ErrorClass, QueryError};

use crate::admission::Admission;
use crate::auth::Authenticator;
use crate::engine::Engine;
use crate::query::QueryRegistry;
use crate::session::Sessions;
use crate::telemetry::Metrics;

use super::stream::record_end;

/// Limits that handlers apply.
#[derive(Debug, Clone, Copy)]
pub struct FrontLimits {
    /// SQL text of one statement.
    pub statement_bytes_max: usize,
    /// Arrow data in one message to the client.
    pub batch_bytes_max: usize,
    /// Parameters that one DoPut may bind.
    pub parameter_bytes_max: usize,
    /// Planned results that wait to be fetched.
    pub tickets_max: usize,
    /// How long they wait.
    pub ticket_ttl: Duration,
    /// How long a query that runs before it is fetched keeps its slot; zero: none runs before.
    pub start_ahead: Duration,
    /// Metadata commands at once.
    pub metadata_max: usize,
}

/// The front's shared parts.
pub struct Front {
    /// The engine.
    pub engine: Arc<dyn Engine>,
    /// Sessions.
    pub sessions: Arc<Sessions>,
    /// Queries.
    pub queries: Arc<QueryRegistry>,
    /// Admission.
    pub admission: Admission,
    /// Users; none without authentication.
    pub authenticator: Option<Arc<Authenticator>>,
    /// Metrics.
    pub metrics: Metrics,
    /// Limits.
    pub limits: FrontLimits,
    /// Slots for metadata commands.
    pub metadata_slots: Semaphore,
    /// Updates that ran at GetFlightInfo and wait for their DoGet.
    done: Mutex<HashMap<String, Done>>,
}

/// The count of an update, whose it is, and when it was done.
struct Done {
    count: i64,
    user: String,
    at: Instant,
}

impl Front {
    /// A front over an engine.
    pub fn new(
        engine: Arc<dyn Engine>,
        sessions: Arc<Sessions>,
        queries: Arc<QueryRegistry>,
        admission: Admission,
        authenticator: Option<Arc<Authenticator>>,
        metrics: Metrics,
        limits: FrontLimits,
    ) -> Arc<Self> {
        let metadata_slots = Semaphore::new(limits.metadata_max.max(1));
        Arc::new(Self {
            engine,
            sessions,
            queries,
            admission,
            authenticator,
            metrics,
            limits,
            metadata_slots,
            done: Mutex::default(),
        })
    }

    /// Refuses over-long SQL text.
    ///
    /// # Errors
    /// When it is longer than the limit.
    pub fn check_statement(&self, sql: &str) -> Result<(), QueryError> {
        if sql.len() <= self.limits.statement_bytes_max {
            return Ok(());
        }
        Err(QueryError::invalid(format!(
            "the statement has {} bytes; at most {} are allowed",
            sql.len(),
            self.limits.statement_bytes_max
        ))
        .with_hint("raise limits.max_statement_bytes, or load large data from files"))
    }

    /// Keeps an update's count for its DoGet.
    pub fn record_done(&self, query_id: &str, user: &str, count: i64) {
        let (user, at) = (user.to_owned(), Instant::now());
        self.done.lock().insert(query_id.to_owned(), Done { count, user, at });
    }

    /// The recorded count of a user's update; reading it again gives the same.
    pub fn done(&self, query_id: &str, user: &str) -> Option<i64> {
        let done = self.done.lock();
        let own = done.get(query_id).filter(|done| done.user == user);
        own.map(|done| done.count)
    }

    /// Refuses a further ticket when too many wait.
    ///
    /// # Errors
    /// Unavailable: clients may try again.
    pub fn check_tickets(&self) -> Result<(), QueryError> {
        if self.queries.planned() <= self.limits.tickets_max {
            return Ok(());
        }
        Err(QueryError::new(
            ErrorClass::Unavailable,
            format!("{} results wait to be fetched", self.limits.tickets_max),
        )
        .with_hint("fetch or cancel them, or raise limits.tickets_max"))
    }

    /// Ends what waited too long: tickets, recorded counts, sessions.
    pub fn expire(&self) {
        let ttl = self.limits.ticket_ttl;
        for query in self.queries.expire(ttl) {
            record_end(&self.metrics, &query);
        }
        self.done.lock().retain(|_, done| done.at.elapsed() <= ttl);
        for session_id in self.sessions.expire(|id| !self.queries.live_in(id).is_empty()) {
            self.cancel_session(&session_id);
        }
        self.engine.forget_unless(&|query_id| self.queries.lives(query_id));
        self.metrics
            .tickets
            .set(i64::try_from(self.queries.planned()).unwrap_or(i64::MAX));
    }

    /// Ends everything that a closed connection left.
    pub fn connection_closed(&self, connection: u64) {
        if let Some(session_id) = self.sessions.close_connection(connection) {
            self.cancel_session(&session_id);
        }
    }

    /// Cancels a live query, and forgets its plan; false when there is none of this id.
    pub fn cancel(&self, query_id: &str) -> bool {
        let cancelled = self.queries.cancel(query_id);
        self.engine.forget(query_id);
        if let Some(query) = &cancelled {
            record_end(&self.metrics, query);
        }
        cancelled.is_some()
    }

    /// Cancels everything that a closed session left.
    pub fn cancel_session(&self, session_id: &str) {
        for query_id in self.queries.live_in(session_id) {
            self.cancel(&query_id);
        }
    }
}
