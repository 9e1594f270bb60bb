//! Results on their way out: counted, cancellable, with at least one batch, encoded as Flight data.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::FlightData;
use arrow_flight::error::FlightError;
use futures::{Stream, StreamExt};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::Status;
use trireme_exec::{ErrorClass, QueryError};

use super::status::status;
use super::wire::MessageEncoder;
use crate::engine::{BatchStream, Fallbacks};
use crate::query::run::Run;
use crate::query::{QueryHandle, QueryState};
use crate::telemetry::Metrics;

/// Flight data on the wire.
pub type FlightStream = Pin<Box<dyn Stream<Item = Result<FlightData, Status>> + Send>>;

/// The batches of a running query. Ends the query's record exactly once: finished, failed, or, when the client drops the
/// stream, cancelled.
pub struct QueryStream {
    schema: SchemaRef,
    query: Arc<QueryHandle>,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    metrics: Metrics,
    ended: bool,
    sent_batches: u64,
}

impl QueryStream {
    /// The stream of a run. The query keeps the batches: ending it ends them, also while nobody asks for the next one.
    pub fn new(batches: BatchStream, schema: SchemaRef, query: Arc<QueryHandle>, metrics: Metrics) -> Self {
        let cancelled = Box::pin(query.cancelled().cancelled_owned());
        query.keep_run(Run::Fetched(batches));
        Self {
            schema,
            query,
            cancelled,
            metrics,
            ended: false,
            sent_batches: 0,
        }
    }

    fn end(&mut self, end: impl FnOnce(&QueryHandle) -> bool) {
        self.ended = true;
        if end(&self.query) {
            record_end(&self.metrics, &self.query);
        }
    }

    fn fail(&mut self, error: QueryError) -> Poll<Option<Result<RecordBatch, FlightError>>> {
        self.end(|query| match error.class {
            ErrorClass::Cancelled => query.advance(QueryState::Cancelled),
            _ => query.fail(&error.to_string()),
        });
        Poll::Ready(Some(Err(FlightError::Tonic(Box::new(status(&error))))))
    }
}

/// Counts a query, for whoever ended it.
pub fn record_end(metrics: &Metrics, query: &QueryHandle) {
    let (command, state, took) = query.outcome();
    let outcome = state.name().to_lowercase();
    metrics
        .queries_total
        .with_label_values(&[command.as_str(), outcome.as_str()])
        .inc();
    if let Some(took) = took {
        metrics.query_seconds.observe(took.as_secs_f64());
    }
}

impl Stream for QueryStream {
    type Item = Result<RecordBatch, FlightError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        let next = match this.cancelled.as_mut().poll(context) {
            Poll::Ready(()) => None,
            Poll::Pending => this.query.poll_run(context),
        };
        let Some(next) = next else {
            return this.fail(QueryError::new(ErrorClass::Cancelled, "the statement was cancelled"));
        };
        match next {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(batch))) => {
                let (rows, bytes) = (batch.num_rows() as u64, batch.get_array_memory_size() as u64);
                this.query.add_sent(rows, bytes);
                this.metrics.rows_sent_total.inc_by(rows);
                this.sent_batches += 1;
                Poll::Ready(Some(Ok(batch)))
            }
            Poll::Ready(Some(Err(error))) => this.fail(error),
            Poll::Ready(None) => {
                let empty = this.sent_batches == 0;
                this.end(|query| query.advance(QueryState::Finished));
                // JDBC shows columns twice when a stream holds no batch.
                Poll::Ready(empty.then(|| Ok(RecordBatch::new_empty(Arc::clone(&this.schema)))))
            }
        }
    }
}

impl Drop for QueryStream {
    fn drop(&mut self) {
        if !self.ended {
            self.end(|query| query.advance(QueryState::Cancelled));
        }
    }
}

/// Batches to send, with their schema.
pub struct BatchResults {
    /// Schema of every batch.
    pub schema: SchemaRef,
    /// The batches; at least one.
    pub batches: Pin<Box<dyn Stream<Item = Result<RecordBatch, FlightError>> + Send>>,
    /// What is told behind the batches.
    pub fallbacks: Fallbacks,
    /// Arrow data in one message.
    pub batch_bytes_max: usize,
    /// Where sent bytes are counted.
    pub metrics: Metrics,
}

impl BatchResults {
    /// One batch as a whole result.
    pub fn one(batch: RecordBatch, batch_bytes_max: usize, metrics: Metrics) -> Self {
        let schema = batch.schema();
        Self {
            schema,
            batches: Box::pin(futures::stream::iter([Ok(batch)])),
            fallbacks: Fallbacks::default(),
            batch_bytes_max,
            metrics,
        }
    }

    /// The messages for tonic's codec; the first is the schema.
    ///
    /// # Errors
    /// When the schema can't be encoded.
    pub fn into_flight_data(self) -> Result<FlightStream, Status> {
        let internal = |error: arrow::error::ArrowError| Status::internal(error.to_string());
        let (mut encoder, schema) = MessageEncoder::new(&self.schema, self.batch_bytes_max).map_err(internal)?;
        let first = futures::stream::iter([Ok(schema.into_flight_data())]);
        let rest = self.batches.flat_map(move |batch| {
            let messages = batch
                .map_err(to_status)
                .and_then(|batch| encoder.encode(&batch).map_err(internal));
            let items = match messages {
                Ok(messages) => messages
                    .into_iter()
                    .map(|message| Ok(message.into_flight_data()))
                    .collect(),
                Err(error) => vec![Err(error)],
            };
            futures::stream::iter(items)
        });
        Ok(Box::pin(first.chain(rest)))
    }
}

/// The status inside a stream's error.
pub fn to_status(error: FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => *status,
        other => Status::internal(other.to_string()),
    }
}
