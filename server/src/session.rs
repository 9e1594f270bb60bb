//! Sessions: what a client SET, its schema, and its prepared statements.
//!
//! A session is found by bearer token, else by cookie, else by the HTTP/2 connection (ADBC without credentials has neither
//! token nor cookie, and its `SET` must hold). It ends when the client closes it, when its connection goes away (if that is
//! all it had), or when it was idle too long.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use bytes::Bytes;
use parking_lot::Mutex;
use trireme_config::{Config, SessionSettings};
use trireme_exec::steer::inject::Inject;
use trireme_exec::{ErrorClass, QueryError};
use trireme_planner::SessionChange;
use trireme_planner::names::DEFAULT_SCHEMA;

use crate::engine::{Description, SessionSpec};
use crate::telemetry::Metrics;

/// What identifies a session on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SessionKey {
    /// Digest of a bearer token.
    Token([u8; 32]),
    /// A cookie we gave out.
    Cookie(String),
    /// The connection.
    Connection(u64),
}

/// A prepared statement and what was bound to it last.
#[derive(Debug)]
pub struct Prepared {
    /// SQL text.
    pub sql: String,
    /// What it returns.
    pub description: Description,
    /// Bound rows.
    pub parameters: Mutex<Vec<RecordBatch>>,
}

/// One client's state.
#[derive(Debug)]
pub struct Session {
    id: String,
    user: String,
    state: Mutex<State>,
    prepared: Mutex<HashMap<Bytes, Arc<Prepared>>>,
    used: Mutex<Instant>,
    /// The client sends our cookie back, so its session may outlive a connection.
    keeps_cookies: AtomicBool,
    cookie_offered: AtomicBool,
}

#[derive(Debug)]
struct State {
    schema: String,
    settings: SessionSettings,
}

impl Session {
    /// Its id; also the value of its cookie.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Who it belongs to; empty without authentication.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// True once: the session's cookie goes out with its first response only.
    pub fn offer_cookie(&self) -> bool {
        !self.cookie_offered.swap(true, Ordering::Relaxed)
    }

    /// Its current schema.
    pub fn schema(&self) -> String {
        self.state.lock().schema.clone()
    }

    /// What the engine must know.
    pub fn spec(&self) -> SessionSpec {
        let state = self.state.lock();
        let mut settings = state.settings.engine.clone();
        let own = &state.settings;
        for (name, value) in [
            ("trireme.batch_rows", own.batch_rows.to_string()),
            ("trireme.target_partitions", own.target_partitions.to_string()),
            ("trireme.cpu_variant", own.cpu_variant.word().to_owned()),
            ("trireme.device_mode", own.device_mode.word().to_owned()),
            ("trireme.devices", own.devices.clone()),
            ("trireme.reorder_joins", own.reorder_joins.to_string()),
            ("trireme.placement", own.placement.word().to_owned()),
            ("trireme.objective", own.objective.word().to_owned()),
            ("trireme.max_ms", own.max_ms.to_string()),
            ("trireme.max_usd", own.max_usd.to_string()),
            ("trireme.max_joules", own.max_joules.to_string()),
            ("trireme.pinned", own.pinned.clone()),
            ("trireme.resteer", own.resteer.to_string()),
            ("trireme.co_execution", own.co_execution.word().to_owned()),
            ("trireme.inject", own.inject.clone()),
            ("trireme.plan_cache", own.plan_cache.to_string()),
        ] {
            settings.insert(name.to_owned(), value);
        }
        SessionSpec {
            session_id: self.id.clone(),
            user: self.user.clone(),
            schema: state.schema.clone(),
            settings,
            statement_timeout_ms: state.settings.statement_timeout_ms,
            string_views: state.settings.string_views,
        }
    }

    /// Applies a change, checked.
    ///
    /// # Errors
    /// Unknown names (with the nearest one), wrong values.
    pub fn change(&self, change: &SessionChange, sessions: &Sessions) -> Result<(), QueryError> {
        let fresh = &sessions.fresh;
        let mut state = self.state.lock();
        match change {
            SessionChange::UseSchema { schema } => schema.clone_into(&mut state.schema),
            SessionChange::Set { name, value } => {
                let canonical = SessionSettings::validate(name, value).map_err(setting_error)?;
                if canonical.name == INJECT {
                    sessions.inject.check(&self.user, &canonical.value)?;
                }
                state.settings.apply(&canonical);
            }
            SessionChange::Reset { name: None } => state.settings = fresh.clone(),
            SessionChange::Reset { name: Some(name) } => {
                let name = SessionSettings::canonical_name(name).map_err(setting_error)?;
                state.settings.reset(&name, fresh);
            }
        }
        Ok(())
    }

    /// A prepared statement by handle.
    ///
    /// # Errors
    /// When the handle is not of this session.
    pub fn prepared(&self, handle: &Bytes) -> Result<Arc<Prepared>, QueryError> {
        self.prepared.lock().get(handle).cloned().ok_or_else(|| {
            QueryError::invalid("no prepared statement has this handle")
                .with_hint("it was closed, its session ended, or it belongs to another session: prepare it again")
        })
    }

    /// Removes a prepared statement; false when there was none.
    pub fn close_prepared(&self, handle: &Bytes) -> bool {
        self.prepared.lock().remove(handle).is_some()
    }
}

/// The setting that plants faults.
const INJECT: &str = "trireme.inject";

/// Who may plant faults into their own queries.
#[derive(Debug, Clone, Default)]
pub struct InjectPolicy {
    allowed: bool,
    administrators: Vec<String>,
    /// False where everybody may come in, and is an administrator.
    authenticated: bool,
}

impl InjectPolicy {
    /// As the server is set up.
    pub fn new(config: &Config) -> Self {
        Self {
            allowed: config.exec.allow_inject,
            administrators: config.secrets.administrators.clone(),
            authenticated: config.server.users_file.is_some(),
        }
    }

    fn check(&self, user: &str, value: &str) -> Result<(), QueryError> {
        let denied = |message: &str, hint: &str| {
            Err(QueryError::new(ErrorClass::PermissionDenied, message.to_owned()).with_hint(hint))
        };
        if value.is_empty() {
            return Ok(());
        }
        if !self.allowed {
            return denied(
                "nothing can be planted on this server",
                "its setting exec.allow_inject is off",
            );
        }
        if self.authenticated && !self.administrators.iter().any(|name| name == user) {
            return denied(
                "only administrators plant faults",
                "administrators stand in the setting secrets.administrators",
            );
        }
        let parsed = value.parse::<Inject>();
        parsed
            .map(drop)
            .map_err(|error| QueryError::invalid(error.to_string()).with_hint(error.hint()))
    }
}

fn setting_error(error: trireme_config::SettingError) -> QueryError {
    let hint = error.hint();
    QueryError::invalid(error.to_string()).with_hint(hint)
}

/// Limits of the registry.
#[derive(Debug, Clone, Copy)]
pub struct SessionLimits {
    /// Sessions of all users.
    pub sessions_max: usize,
    /// Sessions of one user.
    pub sessions_per_user_max: usize,
    /// Unused for longer: gone.
    pub idle: Duration,
    /// Prepared statements of one session.
    pub prepared_max: usize,
}

/// All sessions.
pub struct Sessions {
    limits: SessionLimits,
    fresh: SessionSettings,
    by_key: Mutex<HashMap<SessionKey, Arc<Session>>>,
    metrics: Metrics,
    inject: InjectPolicy,
}

impl Sessions {
    /// An empty registry; new sessions start with `fresh` settings.
    pub fn new(limits: SessionLimits, fresh: SessionSettings, metrics: Metrics) -> Self {
        Self {
            limits,
            fresh,
            by_key: Mutex::default(),
            metrics,
            inject: InjectPolicy::default(),
        }
    }

    /// The same, where faults may be planted.
    #[must_use]
    pub fn with_inject(self, inject: InjectPolicy) -> Self {
        Self { inject, ..self }
    }

    /// Settings of a new session.
    pub fn fresh(&self) -> &SessionSettings {
        &self.fresh
    }

    /// The session under `key`, if there is one; never makes one (pools ask as a probe).
    pub fn find(&self, key: &SessionKey) -> Option<Arc<Session>> {
        let found = self.by_key.lock().get(key).cloned();
        if let Some(session) = &found {
            *session.used.lock() = Instant::now();
        }
        found
    }

    /// The session under the first key that has one, else a new one under the last key.
    ///
    /// # Errors
    /// When there are too many.
    pub fn open(&self, keys: &[SessionKey], user: &str) -> Result<Arc<Session>, QueryError> {
        let mut by_key = self.by_key.lock();
        for key in keys {
            if let Some(session) = by_key.get(key)
                && session.user == user
            {
                *session.used.lock() = Instant::now();
                if matches!(key, SessionKey::Cookie(_)) {
                    session.keeps_cookies.store(true, Ordering::Relaxed);
                }
                return Ok(Arc::clone(session));
            }
        }
        let Some(key) = keys.iter().find(|key| !matches!(key, SessionKey::Cookie(_))) else {
            return Err(QueryError::internal("the connection has no identity"));
        };
        self.check_room(&by_key, user)?;
        let id = uuid::Uuid::new_v4().simple().to_string();
        let session = Arc::new(Session {
            id: id.clone(),
            user: user.to_owned(),
            state: Mutex::new(State {
                schema: DEFAULT_SCHEMA.to_owned(),
                settings: self.fresh.clone(),
            }),
            prepared: Mutex::default(),
            used: Mutex::new(Instant::now()),
            keeps_cookies: AtomicBool::new(false),
            cookie_offered: AtomicBool::new(false),
        });
        by_key.insert(key.clone(), Arc::clone(&session));
        by_key.insert(SessionKey::Cookie(id), Arc::clone(&session));
        self.count(&by_key);
        Ok(session)
    }

    fn check_room(&self, by_key: &HashMap<SessionKey, Arc<Session>>, user: &str) -> Result<(), QueryError> {
        let sessions = unique(by_key);
        let total = sessions.len();
        let own = sessions.iter().filter(|session| session.user == user).count();
        let (limit, setting) = if total >= self.limits.sessions_max {
            (self.limits.sessions_max, "limits.max_sessions")
        } else if !user.is_empty() && own >= self.limits.sessions_per_user_max {
            (self.limits.sessions_per_user_max, "limits.max_sessions_per_user")
        } else {
            return Ok(());
        };
        Err(
            QueryError::new(ErrorClass::Unavailable, format!("there are {limit} sessions already"))
                .with_hint(format!("close unused connections, or raise {setting}")),
        )
    }

    /// Keeps a prepared statement in a session; gives its handle.
    ///
    /// # Errors
    /// When the session holds too many.
    pub fn prepare(&self, session: &Session, sql: String, description: Description) -> Result<Bytes, QueryError> {
        let mut prepared = session.prepared.lock();
        if prepared.len() >= self.limits.prepared_max {
            return Err(QueryError::new(
                ErrorClass::ResourceExhausted,
                format!("the session holds {} prepared statements", prepared.len()),
            )
            .with_hint("close those you no longer need, or raise limits.prepared_statements_per_session_max"));
        }
        let handle = Bytes::from(uuid::Uuid::new_v4().simple().to_string());
        prepared.insert(
            handle.clone(),
            Arc::new(Prepared {
                sql,
                description,
                parameters: Mutex::default(),
            }),
        );
        self.metrics.prepared_statements.inc();
        Ok(handle)
    }

    /// Ends a user's session under `key`; gives its id.
    pub fn close(&self, key: &SessionKey, user: &str) -> Option<String> {
        self.close_if(key, |session| session.user == user)
    }

    fn close_if(&self, key: &SessionKey, may: impl FnOnce(&Session) -> bool) -> Option<String> {
        let mut by_key = self.by_key.lock();
        let session = by_key.get(key).filter(|session| may(session)).cloned()?;
        by_key.retain(|_, other| !Arc::ptr_eq(other, &session));
        self.count(&by_key);
        Some(session.id.clone())
    }

    /// Ends the session of a connection that went away, unless a cookie can bring its client back; gives its id.
    pub fn close_connection(&self, connection: u64) -> Option<String> {
        let key = SessionKey::Connection(connection);
        let cookie = self
            .by_key
            .lock()
            .get(&key)
            .is_some_and(|session| session.keeps_cookies.load(Ordering::Relaxed));
        if cookie {
            self.by_key.lock().remove(&key);
            return None;
        }
        self.close_if(&key, |_| true)
    }

    /// Ends sessions that were idle too long, in which no statement runs or waits (`busy`, by id); gives their ids.
    pub fn expire(&self, busy: impl Fn(&str) -> bool) -> Vec<String> {
        let mut by_key = self.by_key.lock();
        let idle = self.limits.idle;
        let mut ended = Vec::new();
        by_key.retain(|_, session| {
            let mut used = session.used.lock();
            if used.elapsed() > idle && busy(&session.id) {
                *used = Instant::now();
            }
            let keep = used.elapsed() <= idle;
            if !keep && !ended.contains(&session.id) {
                ended.push(session.id.clone());
            }
            keep
        });
        self.count(&by_key);
        ended
    }

    /// All sessions, each once.
    pub fn list(&self) -> Vec<SessionRow> {
        unique(&self.by_key.lock())
            .into_iter()
            .map(|session| SessionRow {
                id: session.id.clone(),
                user: session.user.clone(),
                schema: session.schema(),
                idle_seconds: session.used.lock().elapsed().as_secs(),
                prepared_statements: session.prepared.lock().len() as u64,
            })
            .collect()
    }

    fn count(&self, by_key: &HashMap<SessionKey, Arc<Session>>) {
        let sessions = unique(by_key);
        self.metrics
            .sessions
            .set(i64::try_from(sessions.len()).unwrap_or(i64::MAX));
        let prepared: usize = sessions.iter().map(|session| session.prepared.lock().len()).sum();
        self.metrics
            .prepared_statements
            .set(i64::try_from(prepared).unwrap_or(i64::MAX));
    }
}

/// A row of `system.sessions`.
#[derive(Debug, Clone)]
pub struct SessionRow {
    /// Id.
    pub id: String,
    /// User, empty without authentication.
    pub user: String,
    /// Current schema.
    pub schema: String,
    /// Seconds since its last call.
    pub idle_seconds: u64,
    /// Prepared statements it holds.
    pub prepared_statements: u64,
}

/// A session stands under up to two keys; each counts once.
fn unique(by_key: &HashMap<SessionKey, Arc<Session>>) -> Vec<Arc<Session>> {
    let mut seen = std::collections::HashSet::new();
    by_key
        .values()
        .filter(|session| seen.insert(session.id.clone()))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_administrators_plant_faults_and_only_where_it_is_allowed() {
        let policy = |allowed, authenticated| InjectPolicy {
            allowed,
            administrators: vec!["ann".to_owned()],
            authenticated,
        };
        let may = |policy: InjectPolicy, user: &str| policy.check(user, "lost@opencl0").is_ok();
        assert!(may(policy(true, false), "") && may(policy(true, true), "ann"));
        assert!(!may(policy(true, true), "bob") && !may(policy(false, false), "") && !may(policy(false, true), "ann"));
        assert!(policy(false, true).check("bob", "").is_ok(), "planting nothing");
        assert!(policy(true, false).check("", "boom").is_err());
    }
}
