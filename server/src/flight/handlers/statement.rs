//! Statements: planned at GetFlightInfo, run at DoGet; updates run once, at GetFlightInfo or DoPut.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, IpcMessage, SchemaAsIpc};
use trireme_exec::{ErrorClass, QueryError};

use crate::ahead;
use crate::engine::columns_changed;
use crate::engine::local::count_schema;
use crate::engine::{Fallbacks, Outcome, Rows, Submit, Submitted, Turn};
use crate::flight::front::Front;
use crate::flight::stream::{BatchResults, QueryStream, record_end};
use crate::flight::ticket;
use crate::query::run::Run;
use crate::query::{QueryHandle, QueryState};
use crate::session::Session;

/// A statement that went through the engine: its query, and what came of it.
pub struct Ran {
    /// The query's id.
    pub query_id: String,
    /// What the engine said.
    pub submitted: Submitted,
}

/// Plans a query, or runs an update once; applies its change of the session.
///
/// # Errors
/// Whatever is wrong with the statement, or with running the update.
pub async fn run(front: &Front, session: &Session, sql: &str, parameters: Vec<RecordBatch>) -> Result<Ran, QueryError> {
    front.check_statement(sql)?;
    front.check_tickets()?;
    let query = front.queries.register(session.id(), session.user(), sql);
    let guard = Unfinished {
        front,
        query: Some(Arc::clone(&query)),
    };
    let outcome = submit(front, session, sql, parameters, &query).await;
    match outcome {
        Ok(submitted) => {
            guard.keep();
            Ok(Ran {
                query_id: query.id().to_owned(),
                submitted,
            })
        }
        Err(error) => {
            let cancelled = error.class == ErrorClass::Cancelled;
            let ended = if cancelled {
                query.advance(QueryState::Cancelled)
            } else {
                query.fail(&error.to_string())
            };
            guard.keep();
            front.engine.forget(query.id());
            if ended {
                record_end(&front.metrics, &query);
            }
            Err(error)
        }
    }
}

/// Ends the record of a query whose client went away while it was planned or run as an update.
struct Unfinished<'a> {
    front: &'a Front,
    query: Option<Arc<QueryHandle>>,
}

impl Unfinished<'_> {
    fn keep(mut self) {
        self.query = None;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(query) = self.query.take() {
            self.front.engine.forget(query.id());
            if query.advance(QueryState::Cancelled) {
                record_end(&self.front.metrics, &query);
            }
        }
    }
}

async fn submit(
    front: &Front,
    session: &Session,
    sql: &str,
    parameters: Vec<RecordBatch>,
    query: &Arc<QueryHandle>,
) -> Result<Submitted, QueryError> {
    let kind = front.engine.classify(sql)?;
    query.set_command(&kind.command);
    let _permit = if kind.update {
        query.advance(QueryState::Queued);
        let permit = unless_cancelled(query, front.admission.admit()).await?;
        if !query.advance(QueryState::Running) {
            return Err(cancelled());
        }
        Some(permit)
    } else {
        None
    };
    let request = Submit {
        query_id: query.id().to_owned(),
        session: session.spec(),
        sql: sql.to_owned(),
        parameters,
    };
    let submitted = unless_cancelled(query, front.engine.submit(request.clone())).await?;
    ahead::start(front, query, request, &submitted).await?;
    if let Outcome::Done { count, change } = &submitted.outcome {
        if let Some(change) = change {
            apply_change(front, session, change).await?;
        }
        query.add_sent(u64::try_from(*count).unwrap_or(0), 0);
        if query.advance(QueryState::Finished) {
            record_end(&front.metrics, query);
        }
    }
    Ok(submitted)
}

fn cancelled() -> QueryError {
    QueryError::new(ErrorClass::Cancelled, "the statement was cancelled")
}

async fn unless_cancelled<T>(
    query: &QueryHandle,
    work: impl Future<Output = Result<T, QueryError>>,
) -> Result<T, QueryError> {
    let token = query.cancelled();
    tokio::select! {
        biased;
        () = token.cancelled() => Err(cancelled()),
        done = work => done,
    }
}

async fn apply_change(
    front: &Front,
    session: &Session,
    change: &trireme_planner::SessionChange,
) -> Result<(), QueryError> {
    if let trireme_planner::SessionChange::UseSchema { schema } = change {
        let schemas = front.engine.schemas().await?;
        if !schemas.contains(schema) {
            let error = QueryError::new(ErrorClass::NotFound, format!("schema {schema} does not exist"));
            return Err(
                match trireme_planner::names::nearest(schema, schemas.iter().map(String::as_str)) {
                    Some(near) => error.with_hint(format!("did you mean {near}?")),
                    None => error.with_hint(format!("schemas: {}", schemas.join(", "))),
                },
            );
        }
    }
    session.change(change, &front.sessions)
}

/// GetFlightInfo of a statement.
///
/// # Errors
/// As [`run`].
pub async fn flight_info(
    front: &Front,
    session: &Session,
    sql: &str,
    parameters: Vec<RecordBatch>,
    descriptor: FlightDescriptor,
) -> Result<FlightInfo, QueryError> {
    let ran = run(front, session, sql, parameters).await?;
    let update = matches!(ran.submitted.outcome, Outcome::Done { .. });
    if let Outcome::Done { count, .. } = ran.submitted.outcome {
        front.record_done(&ran.query_id, session.user(), count);
    }
    let about = serde_json::json!({ "query_id": ran.query_id, "command": ran.submitted.command, "update": update });
    let endpoint = FlightEndpoint::new().with_ticket(ticket::for_query(&ran.query_id));
    let info = FlightInfo {
        schema: schema_bytes(&ran.submitted.schema)?,
        flight_descriptor: Some(descriptor),
        endpoint: vec![endpoint],
        total_records: if update { 1 } else { -1 },
        total_bytes: -1,
        ordered: true,
        app_metadata: about.to_string().into(),
    };
    Ok(info)
}

/// A schema as an encapsulated IPC message.
///
/// # Errors
/// When it can't be encoded.
pub fn schema_bytes(schema: &Schema) -> Result<bytes::Bytes, QueryError> {
    let options = arrow::ipc::writer::IpcWriteOptions::default();
    let message: Result<IpcMessage, _> = SchemaAsIpc::new(schema, &options).try_into();
    message
        .map(|message| message.0)
        .map_err(|error| QueryError::internal(format!("the schema can't be encoded: {error}")))
}

/// DoGet of a statement's ticket.
///
/// # Errors
/// When the ticket is unknown, somebody else's, or was redeemed.
pub async fn fetch(front: &Front, user: &str, query_id: &str) -> Result<BatchResults, QueryError> {
    let expired = || {
        QueryError::new(ErrorClass::NotFound, "no result waits under this ticket")
            .with_hint("it expired (limits.ticket_ttl_seconds) or was never given out: run the statement again")
    };
    if let Some(count) = front.done(query_id, user) {
        return Ok(BatchResults::one(
            count_batch(count)?,
            front.limits.batch_bytes_max,
            front.metrics.clone(),
        ));
    }
    let query = front.queries.get(query_id).filter(|query| query.user() == user);
    let query = query.filter(|query| !query.has_expired()).ok_or_else(expired)?;
    if query.state() == QueryState::Cancelled {
        return Err(cancelled());
    }
    if !query.fetch() {
        return Err(
            QueryError::new(ErrorClass::Precondition, "this result was fetched already")
                .with_hint("run the statement again"),
        );
    }
    let guard = Unfinished {
        front,
        query: Some(Arc::clone(&query)),
    };
    let started = start(front, &query).await;
    guard.keep();
    match started {
        Ok((schema, batches, fallbacks)) => Ok(BatchResults {
            schema,
            batches: Box::pin(batches),
            fallbacks,
            batch_bytes_max: front.limits.batch_bytes_max,
            metrics: front.metrics.clone(),
        }),
        Err(NotStarted::Refused(error)) if query.wait_again() => Err(error),
        Err(NotStarted::Refused(error) | NotStarted::Failed(error)) => {
            if query.fail(&error.to_string()) {
                record_end(&front.metrics, &query);
            }
            front.engine.forget(query_id);
            Err(error)
        }
    }
}

/// Why no row comes.
enum NotStarted {
    /// There is no room now: the ticket stays good.
    Refused(QueryError),
    /// Something is wrong with the query.
    Failed(QueryError),
}

async fn start(front: &Front, query: &Arc<QueryHandle>) -> Result<(SchemaRef, QueryStream, Fallbacks), NotStarted> {
    let rows = match query.take_run() {
        Some(Run::Ahead { rows, .. }) => {
            front.metrics.started_ahead_total.with_label_values(&["fetched"]).inc();
            rows
        }
        run => {
            let turn = match unless_cancelled(query, front.admission.admit()).await {
                Ok(permit) => Arc::new(permit),
                Err(error) => {
                    run.into_iter().for_each(|run| query.keep_run(run));
                    return Err(match error.class {
                        ErrorClass::Unavailable => NotStarted::Refused(error),
                        _ => NotStarted::Failed(error),
                    });
                }
            };
            run_it(front, query, run, turn).await.map_err(NotStarted::Failed)?
        }
    };
    query.advance(QueryState::Running);
    let stream = QueryStream::new(
        rows.batches,
        Arc::clone(&rows.schema),
        Arc::clone(query),
        front.metrics.clone(),
    );
    Ok((rows.schema, stream, rows.fallbacks))
}

/// Runs what is planned; anew, if it ran before for nobody.
async fn run_it(front: &Front, query: &QueryHandle, run: Option<Run>, turn: Turn) -> Result<Rows, QueryError> {
    let Some(Run::GivenUp(request, promised)) = run else {
        return front.engine.stream(query.id(), turn).await;
    };
    unless_cancelled(query, front.engine.submit(request)).await?;
    let rows = front.engine.stream(query.id(), turn).await?;
    if rows.schema != promised {
        return Err(columns_changed());
    }
    Ok(rows)
}

fn count_batch(count: i64) -> Result<RecordBatch, QueryError> {
    let column: ArrayRef = Arc::new(Int64Array::from(vec![count]));
    RecordBatch::try_new(count_schema(), vec![column]).map_err(|error| QueryError::internal(error.to_string()))
}
