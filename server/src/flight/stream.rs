//! Results on their way out: counted, cancellable, with at least one batch, encoded as Flight data.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::FlightData;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use futures::{Stream, StreamExt, TryStreamExt};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::Status;
use trireme_exec::{ErrorClass, QueryError};

use super::status::status;
use crate::admission::Permit;
use crate::engine::BatchStream;
use crate::query::{QueryHandle, QueryState};
use crate::telemetry::Metrics;

/// Flight data on the wire.
pub type FlightStream = Pin<Box<dyn Stream<Item = Result<FlightData, Status>> + Send>>;

/// The batches of a running query. Ends the query's record exactly once: finished, failed, or, when the client drops the
/// stream, cancelled.
pub struct QueryStream {
    batches: Option<BatchStream>,
    schema: SchemaRef,
    query: Arc<QueryHandle>,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    metrics: Metrics,
    permit: Option<Permit>,
    sent_batches: u64,
}

impl QueryStream {
    /// A stream that holds its permit until the last batch.
    pub fn new(batches: BatchStream, schema: SchemaRef, query: Arc<QueryHandle>, metrics: Metrics, permit: Permit) -> Self {
        let cancelled = Box::pin(query.cancelled().cancelled_owned());
        Self { batches: Some(batches), schema, query, cancelled, metrics, permit: Some(permit), sent_batches: 0 }
    }

    fn end(&mut self) {
        self.batches = None;
        self.permit = None;
        record_end(&self.metrics, &self.query);
    }

    fn fail(&mut self, error: QueryError) -> Poll<Option<Result<RecordBatch, FlightError>>> {
        let state = if error.class == ErrorClass::Cancelled { QueryState::Cancelled } else { QueryState::Failed };
        if state == QueryState::Failed {
            self.query.fail(&error.to_string());
        } else {
            self.query.advance(state);
        }
        self.end();
        Poll::Ready(Some(Err(FlightError::Tonic(Box::new(status(&error))))))
    }
}

/// Counts a query that ended.
pub fn record_end(metrics: &Metrics, query: &QueryHandle) {
    let record = query.snapshot();
    let outcome = record.state.name().to_lowercase();
    metrics.queries_total.with_label_values(&[record.command.as_str(), outcome.as_str()]).inc();
    if let (Some(started), Some(finished)) = (record.started, record.finished)
        && let Ok(took) = finished.duration_since(started)
    {
        metrics.query_seconds.observe(took.as_secs_f64());
    }
}

impl Stream for QueryStream {
    type Item = Result<RecordBatch, FlightError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(batches) = this.batches.as_mut() else {
            return Poll::Ready(None);
        };
        if this.cancelled.as_mut().poll(context).is_ready() {
            return this.fail(QueryError::new(ErrorClass::Cancelled, "the statement was cancelled"));
        }
        match batches.poll_next_unpin(context) {
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
                this.query.advance(QueryState::Finished);
                this.end();
                // JDBC shows columns twice when a stream holds no batch.
                Poll::Ready(empty.then(|| Ok(RecordBatch::new_empty(Arc::clone(&this.schema)))))
            }
        }
    }
}

impl Drop for QueryStream {
    fn drop(&mut self) {
        if self.batches.is_some() {
            self.query.advance(QueryState::Cancelled);
            self.end();
        }
    }
}

/// Encodes batches; the first message is the schema.
pub fn encode(
    batches: impl Stream<Item = Result<RecordBatch, FlightError>> + Send + 'static,
    schema: SchemaRef,
    batch_bytes_max: usize,
    metrics: Metrics,
) -> FlightStream {
    let encoded = FlightDataEncoderBuilder::new().with_schema(schema).with_max_flight_data_size(batch_bytes_max).build(batches);
    let counted = encoded.inspect_ok(move |data| {
        metrics.bytes_sent_total.inc_by((data.data_header.len() + data.data_body.len()) as u64);
    });
    Box::pin(counted.map_err(to_status))
}

/// One batch as a whole stream.
pub fn encode_one(batch: RecordBatch, batch_bytes_max: usize, metrics: Metrics) -> FlightStream {
    let schema = batch.schema();
    encode(futures::stream::iter([Ok(batch)]), schema, batch_bytes_max, metrics)
}

fn to_status(error: FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => *status,
        other => Status::internal(other.to_string()),
    }
}
