//! The engine in this process: DataFusion sessions over the catalog, plans run by `exec`'s driver.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, UInt64Type};
use async_trait::async_trait;
use datafusion::execution::{SessionState, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::{DmlStatement, LogicalPlan};
use datafusion::physical_plan::ExecutionPlan;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use trireme_catalog::{Catalog, DescribeFilter, TableKind, ViewPlanner, ahead_of_checks, in_statement};
use trireme_exec::fused::FragmentRuntime;
use trireme_exec::io::StoreRegistry;
use trireme_exec::runtime::Runtime;
use trireme_exec::{ErrorClass, QueryError, driver};
use trireme_planner::ddl::{Key, TableName};
use trireme_planner::explain_placement::placement_request;
use trireme_planner::parse::touches_files;
use trireme_planner::plan_cache::{Cached, PlanCache};
use trireme_planner::statement::{PlannedStatement, delete_parts, update_parts};
use trireme_planner::{Planned, SessionChange, output, parameters, physical};

use super::ahead::Ready;
use super::ddl::SecretPolicy;
use super::states::States;
use super::views::Views;
use super::{
    Description, Engine, EngineCounts, FunctionNames, Outcome, QueryId, Rows, SessionSpec, StatementKind, Submit,
    Submitted, TableFilter, TableInfo, Turn,
};
use crate::devices;

/// Session states kept ready: one per combination of schema and settings.
const STATES_MAX: u64 = 256;

/// The engine in this process.
pub struct LocalEngine {
    runtime: Runtime,
    pub(super) workers: Handle,
    pub(super) catalog: Arc<Catalog>,
    pub(super) stores: Arc<StoreRegistry>,
    states: Arc<States>,
    /// By session and by the state of the functions.
    ready_states: moka::sync::Cache<(SessionSpec, u64), Arc<SessionState>>,
    pub(super) plans: Arc<PlanCache>,
    pub(super) fragments: Arc<FragmentRuntime>,
    policy: SecretPolicy,
    pub(super) ready: Mutex<HashMap<QueryId, Ready>>,
}

impl LocalEngine {
    /// An engine over an open catalog; plans run on `workers`.
    pub fn new(
        runtime: Runtime,
        workers: Handle,
        catalog: Arc<Catalog>,
        base: SessionState,
        plans: Arc<PlanCache>,
        fragments: Arc<FragmentRuntime>,
        policy: SecretPolicy,
    ) -> Arc<Self> {
        let states = Arc::new(States::new(base, &catalog));
        let engine = Arc::new(Self {
            runtime,
            workers,
            catalog: Arc::clone(&catalog),
            stores: Arc::clone(catalog.stores()),
            states: Arc::clone(&states),
            ready_states: moka::sync::Cache::new(STATES_MAX),
            plans,
            fragments,
            policy,
            ready: Mutex::new(HashMap::new()),
        });
        let planner: Arc<dyn ViewPlanner> = Arc::new(Views::new(states));
        catalog.set_planner(planner);
        engine
    }

    /// The session's state. Its clock is not set: see [`physical::with_clock`].
    pub(super) fn state(&self, spec: &SessionSpec) -> Result<Arc<SessionState>, QueryError> {
        let anyone = SessionSpec {
            session_id: String::new(),
            user: String::new(),
            ..spec.clone()
        };
        let functions = self.states.functions();
        let key = (anyone, functions.version());
        if let Some(state) = self.ready_states.get(&key) {
            return Ok(state);
        }
        let mut state = self.states.session(&spec.schema, &spec.settings, &functions)?;
        state.config_mut().set_extension(Arc::new(key.0.clone()));
        let state = Arc::new(state);
        self.ready_states.insert(key, Arc::clone(&state));
        Ok(state)
    }

    pub(super) async fn submit(&self, request: &Submit) -> Result<Submitted, QueryError> {
        let asked = self.asked(&request.session, &request.sql)?;
        let asked = asked.map(|session| Submit {
            session,
            ..request.clone()
        });
        let request = asked.as_ref().unwrap_or(request);
        let state = self.state(&request.session)?;
        self.look_at_tables(request).await?;
        if let Some(placement) = placement_request(&request.sql)? {
            return self.submit_placement(&state, request, &placement).await;
        }
        let shape = match request.parameters.as_slice() {
            [] => self.shape(&state, &request.session, &request.sql)?,
            _ => None,
        };
        let Some((key, shape, statement)) = shape else {
            return self.submit_planned(&state, request).await;
        };
        match self.plans.lookup(&key, &state, &shape, &statement).await {
            Cached::Plan(plan, schema) => {
                self.make_ready(&state, request, vec![plan], Arc::clone(&schema));
                Ok(Submitted {
                    command: trireme_planner::parse::command(&statement),
                    schema,
                    outcome: Outcome::Rows,
                })
            }
            Cached::Plain => self.submit_planned(&state, request).await,
            Cached::Learn => {
                let submitted = self.submit_planned(&state, request).await?;
                let (plans, schema) = (Arc::clone(&self.plans), Arc::clone(&submitted.schema));
                self.workers.spawn(in_statement(
                    async move { plans.learn(key, &state, &shape, &schema).await },
                ));
                Ok(submitted)
            }
        }
    }

    async fn submit_planned(&self, state: &Arc<SessionState>, request: &Submit) -> Result<Submitted, QueryError> {
        let PlannedStatement { command, planned } = trireme_planner::plan(state, &request.sql).await?;
        if let Planned::Rows(plan) = planned {
            return self.submit_rows(state, request, command, plan).await;
        }
        let update = self.run_update(physical::with_clock(state), request, planned);
        let (count, change) = match timeout(&request.session) {
            Some(limit) => tokio::time::timeout(limit, update)
                .await
                .unwrap_or_else(|_| Err(driver::timed_out(limit)))?,
            None => update.await?,
        };
        Ok(Submitted {
            command,
            schema: count_schema(),
            outcome: Outcome::Done { count, change },
        })
    }

    async fn submit_rows(
        &self,
        state: &Arc<SessionState>,
        request: &Submit,
        command: String,
        plan: LogicalPlan,
    ) -> Result<Submitted, QueryError> {
        let bound = match request.parameters.as_slice() {
            [] => vec![plan],
            batches => parameters::bind_rows(&plan, batches)?,
        };
        let mut plans = Vec::with_capacity(bound.len());
        let mut schema: Option<SchemaRef> = None;
        for plan in &bound {
            parameters::require_bound(plan)?;
            let analyzed = physical::analyze(state, plan)?;
            let own = output::advertised_schema(analyzed.schema().as_arrow(), request.session.string_views);
            schema = Some(schema.map_or(Arc::clone(&own), |all| output::with_nulls_of(&all, &own)));
            plans.push(physical::physical_plan(state, analyzed).await?);
        }
        let Some(schema) = schema else {
            return Err(QueryError::invalid("no row of parameters was bound").with_hint("bind at least one row"));
        };
        self.make_ready(state, request, plans, Arc::clone(&schema));
        Ok(Submitted {
            command,
            schema,
            outcome: Outcome::Rows,
        })
    }

    /// Plans wait to be fetched.
    pub(super) fn make_ready(
        &self,
        state: &SessionState,
        request: &Submit,
        plans: Vec<Arc<dyn ExecutionPlan>>,
        schema: SchemaRef,
    ) {
        let lists_functions = plans.iter().any(super::functions::lists_functions);
        let ready = Ready {
            context: if lists_functions {
                super::functions::with_functions(&self.task_context(state, &request.query_id), state)
            } else {
                self.task_context(state, &request.query_id)
            },
            plans,
            schema,
            timeout: timeout(&request.session),
            ahead: None,
            reading: None,
        };
        self.ready.lock().insert(request.query_id.clone(), ready);
    }

    /// The state for a statement that the catalog runs: all that it reserves counts as one query's.
    fn with_query_memory(&self, state: SessionState) -> SessionState {
        let (env, _pool) = self.runtime.for_query();
        SessionStateBuilder::new_from_existing(state)
            .with_runtime_env(env)
            .build()
    }

    fn task_context(&self, state: &SessionState, query_id: &str) -> Arc<TaskContext> {
        let (env, _pool) = self.runtime.for_query();
        // The function tables serve plans that come serialised; copying them would cost more than a small query.
        let (scalar, higher, aggregate, window) = (HashMap::new(), HashMap::new(), HashMap::new(), HashMap::new());
        let config = state.config().clone();
        Arc::new(TaskContext::new(
            Some(query_id.to_owned()),
            state.session_id().to_owned(),
            config,
            scalar,
            higher,
            aggregate,
            window,
            env,
        ))
    }

    /// Runs a plan whose result is a `count` column.
    async fn run_count(&self, state: &SessionState, request: &Submit, plan: LogicalPlan) -> Result<i64, QueryError> {
        let plan = match plan {
            LogicalPlan::Copy(copy) => LogicalPlan::Copy(self.allowed_copy(copy)?),
            plan => plan,
        };
        let physical = state.create_physical_plan(&plan).await?;
        let context = self.task_context(state, &request.query_id);
        let mut batches = driver::run(
            &self.workers,
            physical,
            context,
            timeout(&request.session),
            Arc::new(Ok),
            (),
        );
        let mut count = 0;
        while let Some(batch) = batches.next().await {
            count += batch_count(&batch?);
        }
        // COPY may have written files that are tables.
        self.catalog.refresh();
        Ok(count)
    }

    async fn run_update(
        &self,
        state: SessionState,
        request: &Submit,
        planned: Planned,
    ) -> Result<(i64, Option<SessionChange>), QueryError> {
        if let Planned::Session(change) = planned {
            return Ok((0, Some(change)));
        }
        let state = self.with_query_memory(state);
        let plans = match (&planned, request.parameters.as_slice()) {
            (Planned::Ddl(ddl), _) => {
                let user = &request.session.user;
                let applied = super::ddl::apply(&self.catalog, &self.policy, state, user, ddl).await?;
                return Ok((applied.rows.map_or(0, clamp_count), None));
            }
            (Planned::Call(procedure), _) => {
                self.policy.check_call(&request.session.user)?;
                let count = super::procedures::call(&self.fragments, *procedure).await?;
                return Ok((clamp_count(count), None));
            }
            (_, []) => planned.logical_plan().cloned().into_iter().collect(),
            (_, batches) => match planned.logical_plan() {
                Some(plan) => parameters::bind_rows(plan, batches)?,
                None => Vec::new(),
            },
        };
        for plan in &plans {
            parameters::require_bound(plan)?;
        }
        let count = match planned {
            Planned::Write(_) => {
                let Some(plan) = one_write(plans)? else {
                    return Ok((0, None));
                };
                self.run_count(&state, request, plan).await?
            }
            Planned::Delete(_) => self.run_deletes(Arc::new(state), &plans).await?,
            _ => self.run_updates(Arc::new(state), &plans).await?,
        };
        Ok((count, None))
    }

    /// All bound rows in one commit: a row is deleted when any of the bound predicates holds.
    async fn run_deletes(&self, state: Arc<SessionState>, plans: &[LogicalPlan]) -> Result<i64, QueryError> {
        let mut table = None;
        let mut predicates = Vec::new();
        for plan in plans {
            let (name, predicate) = delete_parts(plan)?;
            table = Some(name);
            predicates.push(predicate);
        }
        let Some(name) = table else { return Ok(0) };
        let name = self.qualified(&state, name);
        let predicate = predicates
            .into_iter()
            .collect::<Option<Vec<_>>>()
            .and_then(datafusion::logical_expr::utils::disjunction);
        self.catalog
            .delete(state, &name, predicate)
            .await
            .map(clamp_count)
            .map_err(QueryError::from)
    }

    async fn run_updates(&self, state: Arc<SessionState>, plans: &[LogicalPlan]) -> Result<i64, QueryError> {
        let [plan] = plans else {
            return Err(
                QueryError::new(ErrorClass::Unsupported, "UPDATE takes one row of parameters at a time")
                    .with_hint("execute it once per row, or use DELETE and INSERT"),
            );
        };
        let (name, assignments, predicate) = update_parts(plan)?;
        let name = self.qualified(&state, name);
        self.catalog
            .update(state, &name, assignments, predicate)
            .await
            .map(clamp_count)
            .map_err(QueryError::from)
    }

    fn qualified(&self, state: &SessionState, name: TableName) -> TableName {
        if name.schema.is_empty() {
            return TableName {
                schema: state.config_options().catalog.default_schema.clone(),
                ..name
            };
        }
        name
    }
}

fn clamp_count(rows: u64) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

fn timeout(session: &SessionSpec) -> Option<Duration> {
    (session.statement_timeout_ms > 0).then(|| Duration::from_millis(session.statement_timeout_ms))
}

/// The rows of a count column, whichever integer it is.
fn batch_count(batch: &RecordBatch) -> i64 {
    let Some(column) = batch.columns().first() else {
        return 0;
    };
    if let Some(counts) = column.as_primitive_opt::<UInt64Type>() {
        return counts.iter().flatten().map(clamp_count).sum();
    }
    column
        .as_primitive_opt::<Int64Type>()
        .map_or(0, |counts| counts.iter().flatten().sum())
}

/// Several bound rows of one INSERT become one plan, so that they commit together.
fn one_write(mut plans: Vec<LogicalPlan>) -> Result<Option<LogicalPlan>, QueryError> {
    if plans.len() <= 1 {
        return Ok(plans.pop());
    }
    let mut inputs = Vec::with_capacity(plans.len());
    let mut first: Option<DmlStatement> = None;
    for plan in plans {
        match plan {
            LogicalPlan::Dml(dml) => {
                inputs.push(dml.input.as_ref().clone());
                first.get_or_insert(dml);
            }
            _ => {
                return Err(QueryError::invalid(
                    "this statement takes one row of parameters at a time",
                ));
            }
        }
    }
    let Some(dml) = first else { return Ok(None) };
    let input = Arc::new(parameters::union(inputs)?);
    Ok(Some(LogicalPlan::Dml(DmlStatement::new(
        dml.table_name,
        dml.target,
        dml.op,
        input,
    ))))
}

/// The one column of an update's recorded result.
pub fn count_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("count", DataType::Int64, false)]))
}

/// A task that is aborted when the caller goes away.
async fn abort_on_drop<T: Send + 'static>(
    workers: &Handle,
    work: impl Future<Output = Result<T, QueryError>> + Send + 'static,
) -> Result<T, QueryError> {
    let handle = tokio_util::task::AbortOnDropHandle::new(workers.spawn(work));
    handle.await.map_err(|error| {
        if error.is_cancelled() {
            QueryError::new(ErrorClass::Cancelled, "the statement was cancelled")
        } else {
            QueryError::internal("the statement ended abnormally").with_detail(error.to_string())
        }
    })?
}

/// [`Engine`] over a shared [`LocalEngine`]: statements run on the engine's own threads.
#[derive(Clone)]
pub struct LocalHandle(pub Arc<LocalEngine>);

impl LocalHandle {
    /// Work that may look at files belongs to the engine's threads. What can't is done where the call came in: waking
    /// another thread would take longer than planning `SELECT 1`.
    pub(super) async fn near<T: Send + 'static>(
        &self,
        may_read: bool,
        work: impl Future<Output = Result<T, QueryError>> + Send + 'static,
    ) -> Result<T, QueryError> {
        if may_read {
            return abort_on_drop(&self.0.workers, work).await;
        }
        work.await
    }
}

#[async_trait]
impl Engine for LocalHandle {
    fn classify(&self, sql: &str) -> Result<StatementKind, QueryError> {
        let statement = trireme_planner::parse::parse(sql)?;
        Ok(StatementKind {
            command: trireme_planner::parse::command(&statement),
            update: trireme_planner::parse::is_update(&statement),
        })
    }

    async fn describe(&self, session: &SessionSpec, sql: &str) -> Result<Description, QueryError> {
        let (engine, session, sql) = (Arc::clone(&self.0), session.clone(), sql.to_owned());
        let may_read = touches_files(&sql)?;
        // What it is run with is checked then.
        let work = async move { Box::pin(ahead_of_checks(engine.describe(&session, &sql))).await.0 };
        self.near(may_read, Box::pin(work)).await
    }

    async fn submit(&self, request: Submit) -> Result<Submitted, QueryError> {
        self.plan(request).await
    }

    async fn stream(&self, query_id: &str, turn: Turn) -> Result<Rows, QueryError> {
        self.rows(query_id, turn)
    }

    fn forget(&self, query_id: &str) {
        // What it holds goes after the lock.
        let gone = self.0.ready.lock().remove(query_id);
        drop(gone);
    }

    fn forget_unless(&self, lives: &dyn Fn(&str) -> bool) {
        let gone: Vec<_> = self.0.ready.lock().extract_if(|query_id, _| !lives(query_id)).collect();
        drop(gone);
    }

    async fn schemas(&self) -> Result<Vec<String>, QueryError> {
        Ok(self.0.catalog.schemas())
    }

    async fn tables(&self, filter: TableFilter) -> Result<Vec<TableInfo>, QueryError> {
        let engine = Arc::clone(&self.0);
        abort_on_drop(&self.0.workers, async move {
            let filter = DescribeFilter {
                schema_pattern: filter.schema_pattern,
                table_pattern: filter.table_pattern,
                with_columns: filter.with_columns,
                with_sizes: false,
            };
            let entries = engine.catalog.describe(&filter).await;
            Ok(entries
                .into_iter()
                .map(|entry| TableInfo {
                    name: entry.name,
                    table_type: match entry.kind {
                        TableKind::View => "VIEW",
                        TableKind::System => "SYSTEM TABLE",
                        _ => "TABLE",
                    },
                    schema: entry.schema.map(|schema| output::advertised_schema(&schema, false)),
                })
                .collect())
        })
        .await
    }

    async fn keys(&self) -> Result<Vec<(TableName, Key)>, QueryError> {
        let keys = self.0.catalog.keys();
        Ok(keys
            .into_iter()
            .flat_map(|(table, keys)| keys.into_iter().map(move |key| (table.clone(), key)))
            .collect())
    }

    fn functions(&self) -> FunctionNames {
        super::functions::function_names(self.0.states.base())
    }

    fn reserved_bytes(&self) -> usize {
        self.0.runtime.reserved_bytes()
    }

    fn measure(&self) {
        self.0.measure_in_background();
    }

    fn save(&self) {
        if let Err(error) = self.0.fragments.costs().save() {
            tracing::warn!(%error, "what was learned of runs can't be kept");
        }
    }

    fn counts(&self) -> EngineCounts {
        let (plan_hits, plan_misses) = self.0.plans.counts();
        let sketches = self.0.catalog.sketch_counts();
        EngineCounts {
            columns: self.0.fragments.columns().metrics(),
            fragments: self.0.fragments.counts(),
            devices: devices::counts(self.0.fragments.devices()),
            lake: self.0.stores.lake().metrics(),
            plan_hits,
            plan_misses,
            changed_ahead: self.0.catalog.changed_ahead(),
            replanned: self.0.plans.replanned(),
            sketched: sketches.done,
            not_sketched: sketches.left,
        }
    }
}
