//! The seam between the front (Flight, sessions, tickets, admission) and the engine (planner, exec, catalog).
//!
//! Everything that crosses it is plain data: text, numbers, Arrow schemas and batches; but a query's turn, whose drop says that
//! the next may run. In process today; later a supervised process, so that a driver's fault never reaches a client, and the nodes of a cluster.

mod ahead;
pub mod ddl;
pub mod functions;
pub mod local;
mod planning;
mod procedures;
mod states;
pub mod system;
mod views;

use std::any::Any;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::Stream;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use trireme_exec::{ErrorClass, QueryError};
use trireme_planner::SessionChange;
use trireme_planner::ddl::{Key, TableName};

/// A query's id, unguessable, chosen by the front.
pub type QueryId = String;

/// Batches of a result, each of exactly the promised schema. Dropping the stream cancels the query.
pub type BatchStream = Pin<Box<dyn Stream<Item = Result<RecordBatch, QueryError>> + Send>>;

/// The right to run, as the front gives it: held while a query runs, dropped when it has.
pub type Turn = Arc<dyn Any + Send + Sync>;

/// The rows of a started query.
pub struct Rows {
    /// Columns of every batch.
    pub schema: SchemaRef,
    /// The batches.
    pub batches: BatchStream,
    /// Why parts of it ran elsewhere than they were placed; complete when the batches have ended.
    pub fallbacks: Fallbacks,
}

/// What a query that is planned a second time is refused with when it has other columns then.
pub fn columns_changed() -> QueryError {
    QueryError::new(
        ErrorClass::Unavailable,
        "the columns of a table changed while the statement was planned",
    )
    .with_hint("send the statement again")
}

/// See [`Rows::fallbacks`].
pub type Fallbacks = Arc<Mutex<Vec<String>>>;

/// What the engine must know of a session; sent with every call, so that the engine keeps no sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionSpec {
    /// The session's id.
    pub session_id: String,
    /// Who runs it; empty without authentication.
    pub user: String,
    /// Current schema.
    pub schema: String,
    /// Settings by canonical name, already checked.
    pub settings: BTreeMap<String, String>,
    /// 0 means none.
    pub statement_timeout_ms: u64,
    /// Results may carry string and binary views.
    pub string_views: bool,
}

impl SessionSpec {
    /// A setting's value in this session, when it is one that the session carries.
    pub fn setting(&self, name: &str) -> Option<String> {
        match name {
            "trireme.statement_timeout_ms" => Some(self.statement_timeout_ms.to_string()),
            "trireme.string_views" => Some(self.string_views.to_string()),
            _ => self.settings.get(name).cloned(),
        }
    }
}

/// What a statement would return.
#[derive(Debug, Clone)]
pub struct Description {
    /// Command word, for example `SELECT`.
    pub command: String,
    /// True when it has no result rows of its own.
    pub update: bool,
    /// Result columns; empty for updates.
    pub schema: SchemaRef,
    /// One field per placeholder.
    pub parameters: SchemaRef,
}

/// A statement's kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementKind {
    /// Command word.
    pub command: String,
    /// True when it has no result rows of its own and runs at once.
    pub update: bool,
}

/// A statement to plan and, when it is an update, to run.
#[derive(Debug, Clone)]
pub struct Submit {
    /// Id under which its rows can be streamed.
    pub query_id: QueryId,
    /// The session.
    pub session: SessionSpec,
    /// SQL text.
    pub sql: String,
    /// Rows of bound parameters; none when nothing was bound.
    pub parameters: Vec<RecordBatch>,
}

/// What became of a submitted statement.
#[derive(Debug, Clone)]
pub struct Submitted {
    /// Command word.
    pub command: String,
    /// Result columns.
    pub schema: SchemaRef,
    /// What there is to fetch.
    pub outcome: Outcome,
}

/// The two kinds of outcome.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Rows wait for [`Engine::stream`].
    Rows,
    /// The update ran; the count of rows it touched, and what the front must change in the session.
    Done {
        /// Rows inserted, deleted, updated or copied.
        count: i64,
        /// A change of the session.
        change: Option<SessionChange>,
    },
}

/// A table as metadata commands show it.
#[derive(Debug, Clone)]
pub struct TableInfo {
    /// Its name.
    pub name: TableName,
    /// `TABLE`, `VIEW` or `SYSTEM TABLE`.
    pub table_type: &'static str,
    /// Columns, when asked for and readable.
    pub schema: Option<SchemaRef>,
}

/// Which tables [`Engine::tables`] gives.
#[derive(Debug, Clone, Default)]
pub struct TableFilter {
    /// SQL pattern of the schema's name.
    pub schema_pattern: Option<String>,
    /// SQL pattern of the table's name.
    pub table_pattern: Option<String>,
    /// Read the columns too.
    pub with_columns: bool,
}

/// The engine, as the front sees it.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// What kind of statement this is, from its text alone.
    fn classify(&self, sql: &str) -> Result<StatementKind, QueryError>;

    /// Plans without running.
    async fn describe(&self, session: &SessionSpec, sql: &str) -> Result<Description, QueryError>;

    /// Plans a query, or runs an update once.
    async fn submit(&self, request: Submit) -> Result<Submitted, QueryError>;

    /// Starts a planned query; each can be started once. `turn` is dropped when it has run, or nobody wants its rows any more.
    async fn stream(&self, query_id: &str, turn: Turn) -> Result<Rows, QueryError>;

    /// Forgets a planned query that nobody fetched.
    fn forget(&self, query_id: &str);

    /// Forgets planned queries that have ended: one may be cancelled just before its plan is ready.
    fn forget_unless(&self, lives: &dyn Fn(&str) -> bool);

    /// Schemas by name.
    async fn schemas(&self) -> Result<Vec<String>, QueryError>;

    /// Tables and views.
    async fn tables(&self, filter: TableFilter) -> Result<Vec<TableInfo>, QueryError>;

    /// Informational keys of all tables.
    async fn keys(&self) -> Result<Vec<(TableName, Key)>, QueryError>;

    /// Words for SqlInfo: keywords are the parser's, functions the engine's, by kind.
    fn functions(&self) -> FunctionNames;

    /// Bytes that running queries hold.
    fn reserved_bytes(&self) -> usize;

    /// What the engine has counted since it started.
    fn counts(&self) -> EngineCounts;

    /// Measures what its choices depend on, in the background, if there are choices and nothing was measured yet.
    fn measure(&self);

    /// Writes what was learned of runs since the last time.
    fn save(&self);
}

/// Counters of an engine, for metrics.
#[derive(Debug, Clone, Default)]
pub struct EngineCounts {
    /// The column cache.
    pub columns: trireme_columns::Metrics,
    /// Graphs of fragments that were run, and what was learned of them.
    pub fragments: trireme_exec::fused::FragmentCounts,
    /// The devices beside the processor.
    pub devices: DeviceCounts,
    /// Object stores and what is kept of them.
    pub lake: trireme_lake::LakeMetrics,
    /// Plans that came from the plan cache.
    pub plan_hits: u64,
    /// Statements that it had no plan for.
    pub plan_misses: u64,
    /// Tables that were found changed after a query over them had started.
    pub changed_ahead: u64,
    /// Kept plans that were made anew because runs or statistics had told other rows.
    pub replanned: u64,
    /// Tables that were analysed unasked.
    pub sketched: u64,
    /// Tables that were to be, and were not.
    pub not_sketched: u64,
}

/// Counters of all devices beside the processor.
#[derive(Debug, Clone, Default)]
pub struct DeviceCounts {
    /// Devices that take work.
    pub ready: u64,
    /// Devices that were latched off.
    pub off: u64,
    /// Their sums.
    pub vitals: trireme_device_api::Vitals,
}

/// Names of functions by the kinds that SqlInfo lists.
#[derive(Debug, Clone, Default)]
pub struct FunctionNames {
    /// Numeric functions.
    pub numeric: Vec<String>,
    /// String functions.
    pub string: Vec<String>,
    /// Date and time functions.
    pub datetime: Vec<String>,
    /// All others.
    pub system: Vec<String>,
}
