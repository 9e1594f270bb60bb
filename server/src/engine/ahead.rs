//! Planned queries that wait to be fetched, and what becomes of those that were planned before it was known that a remote
//! table's files are still the same: their first batch waits for that, and they run again if not.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use futures::{StreamExt, future, stream};
use tokio::runtime::Handle;
use trireme_catalog::{Checks, Reading, ahead_of_checks, in_statement};
use trireme_exec::{ErrorClass, QueryError, driver, operators};
use trireme_planner::parse::{self, touches_files};
use trireme_planner::{output, physical};

use super::local::{LocalEngine, LocalHandle};
use super::{BatchStream, Fallbacks, Rows, Submit, Submitted, Turn, columns_changed};

/// A planned query that waits to be fetched.
pub(super) struct Ready {
    /// One plan, or one per bound row of parameters, run one after another.
    pub(super) plans: Vec<Arc<dyn ExecutionPlan>>,
    pub(super) context: Arc<TaskContext>,
    pub(super) schema: SchemaRef,
    pub(super) timeout: Option<Duration>,
    pub(super) ahead: Option<Ahead>,
    /// The files that it reads stay.
    pub(super) reading: Option<Reading>,
}

/// What has to hold before rows are handed out, and the statement to run again otherwise.
pub(super) struct Ahead {
    checks: Checks,
    request: Submit,
}

/// Plans a statement whose tables' files stay until its plans have run.
async fn submit_reading(engine: &LocalEngine, request: &Submit) -> Result<Submitted, QueryError> {
    let reading = engine.catalog.reading();
    let submitted = engine.submit(request).await?;
    if let Some(ready) = engine.ready.lock().get_mut(&request.query_id) {
        ready.reading = Some(reading);
    }
    Ok(submitted)
}

impl LocalHandle {
    /// Plans a statement; updates run. Only queries, whose rows can wait, are planned ahead of checks.
    pub(super) async fn plan(&self, request: Submit) -> Result<Submitted, QueryError> {
        let may_read = touches_files(&request.sql)?;
        if !may_read || parse::is_update(&parse::parse(&request.sql)?) {
            return self.plan_checked(request, may_read).await;
        }
        let engine = Arc::clone(&self.0);
        let work = async move {
            let (submitted, checks) = Box::pin(ahead_of_checks(submit_reading(&engine, &request))).await;
            let submitted = submitted?;
            if !checks.is_empty()
                && let Some(ready) = engine.ready.lock().get_mut(&request.query_id)
            {
                ready.ahead = Some(Ahead { checks, request });
            }
            Ok(submitted)
        };
        self.near(may_read, Box::pin(work)).await
    }

    async fn plan_checked(&self, request: Submit, may_read: bool) -> Result<Submitted, QueryError> {
        let engine = Arc::clone(&self.0);
        self.near(
            may_read,
            Box::pin(in_statement(async move { submit_reading(&engine, &request).await })),
        )
        .await
    }

    /// Starts a planned query.
    pub(super) fn rows(&self, query_id: &str, turn: Turn) -> Result<Rows, QueryError> {
        let mut ready = self.take(query_id)?;
        let Some(Ahead { checks, request }) = ready.ahead.take() else {
            return Ok(self.run(ready, Fallbacks::default(), turn));
        };
        let Rows {
            schema,
            mut batches,
            fallbacks,
        } = self.run(ready, Fallbacks::default(), Arc::clone(&turn));
        let (this, promised, told) = (self.clone(), Arc::clone(&schema), Arc::clone(&fallbacks));
        let checked = async move {
            let first = batches.next().await;
            if checks.hold().await {
                return stream::iter(first).chain(batches).boxed();
            }
            drop(batches);
            let again = this.again(request, &promised, told, turn).await;
            again.unwrap_or_else(|error| stream::once(future::ready(Err(error))).boxed())
        };
        Ok(Rows {
            schema,
            batches: stream::once(checked).flatten().boxed(),
            fallbacks,
        })
    }

    fn take(&self, query_id: &str) -> Result<Ready, QueryError> {
        self.0.ready.lock().remove(query_id).ok_or_else(|| {
            QueryError::new(
                ErrorClass::Precondition,
                "this result was fetched already, or has expired",
            )
            .with_hint("run the statement again")
        })
    }

    fn run(&self, ready: Ready, fallbacks: Fallbacks, turn: Turn) -> Rows {
        let Ready {
            plans,
            context,
            schema,
            timeout,
            reading,
            ..
        } = ready;
        let here = plans
            .iter()
            .all(physical::is_constant)
            .then(Handle::try_current)
            .and_then(Result::ok);
        let workers = here.unwrap_or_else(|| self.0.workers.clone());
        let promised = Arc::clone(&schema);
        let finish: driver::Finish = Arc::new(move |batch| output::conform(&batch, &promised));
        let (mut left, mut turn) = (plans.len(), Some(turn));
        let mut run = move |plan| {
            left -= 1;
            let turn = if left == 0 { turn.take() } else { turn.clone() };
            let held = (turn, reading.clone());
            driver::run(&workers, plan, Arc::clone(&context), timeout, Arc::clone(&finish), held)
        };
        let (told, ran) = (Arc::clone(&fallbacks), plans.clone());
        let end = stream::poll_fn(move |_| {
            *told.lock() = ran.iter().flat_map(operators::fallbacks).collect();
            Poll::Ready(None)
        });
        // The first runs from now on, whether somebody looks or not.
        let mut plans = plans.into_iter();
        let first = stream::iter(plans.next().map(&mut run)).flatten();
        Rows {
            schema,
            batches: first.chain(stream::iter(plans).flat_map(run)).chain(end).boxed(),
            fallbacks,
        }
    }

    /// The query over the files that are there now.
    async fn again(
        &self,
        request: Submit,
        promised: &SchemaRef,
        fallbacks: Fallbacks,
        turn: Turn,
    ) -> Result<BatchStream, QueryError> {
        let query_id = request.query_id.clone();
        tracing::debug!(%query_id, "the files of a table have changed; the query is planned anew");
        self.plan_checked(request, true).await?;
        let rows = self.run(self.take(&query_id)?, fallbacks, turn);
        if rows.schema != *promised {
            return Err(columns_changed());
        }
        Ok(rows.batches)
    }
}
