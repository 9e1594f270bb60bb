//! Starts, feeds and cancels the running of one plan.
//!
//! Plans run on a runtime of their own, so that a busy query never delays the network threads. A bounded channel hands
//! batches over; dropping the receiver stops the plan at once, also before its first batch.
//!
//! ```text
//!  engine runtime: plan ──batches──▶ [ channel of 4 ] ──▶ front: encode, send
//!                    ▲ abort on drop ◀──────────────────── BatchReceiver
//! ```

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arrow::array::RecordBatch;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::{FutureExt, Stream, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::error::{ErrorClass, QueryError};
use crate::io::damaged_file;

/// Batches that may wait between the plan and the network.
const CHANNEL_BATCHES: usize = 4;

/// The running plan's output; dropping it cancels the plan.
#[derive(Debug)]
pub struct BatchReceiver {
    batches: mpsc::Receiver<Result<RecordBatch, QueryError>>,
    task: AbortHandle,
}

impl Stream for BatchReceiver {
    type Item = Result<RecordBatch, QueryError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.batches.poll_recv(context)
    }
}

impl Drop for BatchReceiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What becomes of each batch before it is handed over, still on the engine's threads.
pub type Finish = Arc<dyn Fn(RecordBatch) -> Result<RecordBatch, QueryError> + Send + Sync>;

/// Runs `plan` on `runtime`; `timeout` counts from now until the last batch was handed over. `turn` is dropped when the plan has
/// ended, in whatever way, though batches of it may still wait.
pub fn run(
    runtime: &Handle,
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    timeout: Option<Duration>,
    finish: Finish,
    turn: impl Send + 'static,
) -> BatchReceiver {
    let (sender, batches) = mpsc::channel(CHANNEL_BATCHES);
    let task = runtime.spawn(async move {
        // A panic would close the channel, and what was sent so far would look like the whole result.
        let pump = AssertUnwindSafe(pump(Arc::clone(&plan), Arc::clone(&context), &sender, &finish)).catch_unwind();
        let pump = pump.map(|ended| ended.unwrap_or_else(|panic| Err(panicked(panic.as_ref()))));
        let outcome = match timeout {
            Some(limit) => tokio::time::timeout(limit, pump)
                .await
                .unwrap_or_else(|_| Err(timed_out(limit))),
            None => pump.await,
        };
        // A receiver that takes nothing more keeps nobody from running.
        drop(turn);
        if let Err(error) = outcome {
            let error = name_damaged_file(error, &plan, &context).await;
            // A receiver that is gone has no use for the error.
            let _ = sender.send(Err(error)).await;
        }
    });
    BatchReceiver {
        batches,
        task: task.abort_handle(),
    }
}

/// The error of a statement that runs too long.
pub fn timed_out(limit: Duration) -> QueryError {
    QueryError::new(
        ErrorClass::TimedOut,
        format!("the statement ran longer than {} ms", limit.as_millis()),
    )
    .with_hint("raise it with SET trireme.statement_timeout_ms = …, or 0 for none")
}

/// The error of a panic, which the log shows in full.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> QueryError {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    QueryError::new(
        ErrorClass::Internal,
        format!("an operator panicked: {}", text.unwrap_or("no message")),
    )
}

async fn pump(
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    sender: &mpsc::Sender<Result<RecordBatch, QueryError>>,
    finish: &Finish,
) -> Result<(), QueryError> {
    let mut stream = execute_stream(plan, context)?;
    while let Some(batch) = stream.next().await {
        if sender.send(Ok(finish(batch?)?)).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Readers don't say which file a damaged page stood in; a user must know it.
async fn name_damaged_file(error: QueryError, plan: &Arc<dyn ExecutionPlan>, context: &Arc<TaskContext>) -> QueryError {
    if error.class != ErrorClass::Corrupt || error.message.starts_with("file ") {
        return error;
    }
    match damaged_file(plan, context).await {
        Some(file) => QueryError {
            message: format!("file {file} can't be read"),
            detail: error.detail.or(Some(error.message)),
            ..error
        },
        None => error,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use arrow::datatypes::{DataType, Schema};
    use datafusion::config::ConfigOptions;
    use datafusion::logical_expr::{Volatility, create_udf};
    use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
    use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
    use datafusion::physical_plan::projection::ProjectionExec;

    use super::*;

    /// A plan that panics when it runs.
    pub(crate) fn panicking_plan() -> Arc<dyn ExecutionPlan> {
        let boom = create_udf(
            "boom",
            vec![],
            DataType::Int64,
            Volatility::Volatile,
            Arc::new(|_| panic!("boom")),
        );
        let config = Arc::new(ConfigOptions::default());
        let call = ScalarFunctionExpr::try_new(Arc::new(boom), vec![], &Schema::empty(), config).expect("a call");
        let row = Arc::new(PlaceholderRowExec::new(Arc::new(Schema::empty())));
        let columns = vec![(Arc::new(call) as Arc<dyn PhysicalExpr>, "x".to_owned())];
        Arc::new(ProjectionExec::try_new(columns, row).expect("a projection"))
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_not_the_end_of_the_result() {
        let finish: Finish = Arc::new(Ok);
        let context = Arc::new(TaskContext::default());
        let mut batches = run(&Handle::current(), panicking_plan(), context, None, finish, ());
        let error = batches.next().await.expect("an error").expect_err("it panicked");
        assert_eq!(error.class, ErrorClass::Internal);
        assert!(error.message.contains("boom"), "{error}");
        assert!(batches.next().await.is_none());
    }
}
