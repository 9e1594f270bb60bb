//! DoPut: updates, prepared updates with rows of parameters, and binding rows to a prepared query.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{DoPutPreparedStatementResult, DoPutUpdateResult};
use arrow_flight::{FlightData, FlightDescriptor, PutResult};
use futures::{FutureExt, Stream, StreamExt};
use prost::Message;
use tonic::Status;
use trireme_exec::{ErrorClass, QueryError};

use super::{prepared, statement};
use crate::engine::Outcome;
use crate::flight::command::{Command, from_descriptor};
use crate::flight::front::Front;
use crate::session::Session;

/// How long a client may leave a DoPut stream silent before it is given up.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The command of a DoPut stream and its messages, the first included.
pub struct Put<S> {
    /// Command.
    pub command: Command,
    first: FlightData,
    rest: S,
}

/// Reads the first message and its command.
///
/// # Errors
/// When the stream is empty, silent, or begins without a command.
pub async fn open<S>(mut messages: S) -> Result<Put<S>, QueryError>
where
    S: Stream<Item = Result<FlightData, Status>> + Send + Unpin + 'static,
{
    let first = match tokio::time::timeout(SILENCE_MAX, messages.next()).await {
        Ok(Some(Ok(first))) => first,
        Ok(Some(Err(status))) => {
            return Err(QueryError::invalid("the DoPut stream broke off").with_detail(status.message()));
        }
        Ok(None) => {
            return Err(
                QueryError::invalid("the DoPut stream is empty").with_hint("its first message names the command")
            );
        }
        Err(_) => return Err(QueryError::invalid("the DoPut stream stayed silent")),
    };
    let descriptor: &FlightDescriptor = first.flight_descriptor.as_ref().ok_or_else(|| {
        QueryError::invalid("the first message has no descriptor").with_hint("put the command into its descriptor")
    })?;
    let command = from_descriptor(descriptor)?;
    Ok(Put {
        command,
        first,
        rest: messages,
    })
}

/// Runs the command; gives the one message that answers it.
///
/// # Errors
/// Malformed data, and whatever running it fails with.
pub async fn run<S>(front: &Front, session: &Session, put: Put<S>) -> Result<PutResult, QueryError>
where
    S: Stream<Item = Result<FlightData, Status>> + Send + Unpin + 'static,
{
    let command = put.command.clone();
    match command {
        Command::StatementUpdate { sql } | Command::StatementQuery { sql } => {
            update_result(front, statement::run(front, session, &sql, Vec::new()).await?)
        }
        Command::PreparedUpdate { handle } => {
            let prepared = session.prepared(&handle)?;
            let batches = rows(front, put).await?;
            let batches = prepared::checked(&prepared, batches)?;
            update_result(front, statement::run(front, session, &prepared.sql, batches).await?)
        }
        Command::PreparedQuery { handle } => {
            session.prepared(&handle)?;
            let batches = rows(front, put).await?;
            prepared::bind(session, &handle, batches)?;
            let result = DoPutPreparedStatementResult {
                prepared_statement_handle: Some(handle),
            };
            Ok(PutResult {
                app_metadata: result.encode_to_vec().into(),
            })
        }
        Command::StatementTicket { .. } | Command::Metadata(_) => {
            Err(QueryError::invalid("this command takes no data").with_hint("call GetFlightInfo"))
        }
    }
}

fn update_result(front: &Front, ran: statement::Ran) -> Result<PutResult, QueryError> {
    let record_count = match ran.submitted.outcome {
        Outcome::Done { count, .. } => count,
        Outcome::Rows => {
            // Nobody gets a ticket for them.
            front.cancel(&ran.query_id);
            return Err(QueryError::invalid("this statement returns rows")
                .with_hint("run it as a query, with GetFlightInfo and DoGet"));
        }
    };
    Ok(PutResult {
        app_metadata: DoPutUpdateResult { record_count }.encode_to_vec().into(),
    })
}

/// The batches of a DoPut stream; none when it carries only the command.
async fn rows<S>(front: &Front, put: Put<S>) -> Result<Vec<RecordBatch>, QueryError>
where
    S: Stream<Item = Result<FlightData, Status>> + Send + Unpin + 'static,
{
    let first = (!put.first.data_header.is_empty()).then_some(Ok(put.first));
    let rest = put.rest.filter(|message| {
        let empty = matches!(message, Ok(data) if data.data_header.is_empty() && data.data_body.is_empty());
        futures::future::ready(!empty)
    });
    let messages = futures::stream::iter(first).chain(rest).map(|message| {
        let message = message.map_err(|status| FlightError::Tonic(Box::new(status)))?;
        check_bounds(&message)?;
        Ok(message)
    });
    let mut decoded = FlightRecordBatchStream::new_from_flight_data(messages);
    let mut batches = Vec::new();
    let mut bytes = 0;
    loop {
        // What `check_bounds` doesn't foresee must not take the server along.
        let next = AssertUnwindSafe(decoded.next()).catch_unwind();
        let next = match tokio::time::timeout(SILENCE_MAX, next).await {
            Ok(Ok(next)) => Ok(next),
            Ok(Err(_)) => return Err(QueryError::invalid("the data of the DoPut stream can't be read")),
            Err(silent) => Err(silent),
        };
        let batch = match next {
            Err(_) => return Err(QueryError::invalid("the DoPut stream stayed silent")),
            Ok(None) => break,
            Ok(Some(Err(error))) => {
                return Err(
                    QueryError::invalid("the data of the DoPut stream can't be read").with_detail(error.to_string())
                );
            }
            Ok(Some(Ok(batch))) => batch,
        };
        bytes += batch.get_array_memory_size();
        if bytes > front.limits.parameter_bytes_max {
            return Err(
                QueryError::new(ErrorClass::ResourceExhausted, "the bound rows are too large")
                    .with_detail(format!("more than {} bytes", front.limits.parameter_bytes_max))
                    .with_hint("bind fewer rows at a time, or raise limits.max_message_bytes"),
            );
        }
        front.metrics.rows_received_total.inc_by(batch.num_rows() as u64);
        batches.push(batch);
    }
    // A stream that its client has reset looks like one that has ended; who waits once more is dropped in that case.
    tokio::task::yield_now().await;
    Ok(batches)
}

/// Every buffer of a batch must lie within its body; arrow's reader takes that for granted.
fn check_bounds(message: &FlightData) -> Result<(), FlightError> {
    let header = arrow::ipc::root_as_message(&message.data_header)
        .map_err(|error| FlightError::DecodeError(format!("a message's header can't be read: {error}")))?;
    let dictionary = header
        .header_as_dictionary_batch()
        .and_then(|dictionary| dictionary.data());
    let Some(buffers) = header
        .header_as_record_batch()
        .or(dictionary)
        .and_then(|batch| batch.buffers())
    else {
        return Ok(());
    };
    let end = i64::try_from(message.data_body.len()).unwrap_or(i64::MAX);
    let outside =
        |offset: i64, length: i64| offset < 0 || length < 0 || offset.checked_add(length).is_none_or(|last| last > end);
    if buffers.iter().any(|buffer| outside(buffer.offset(), buffer.length())) {
        return Err(FlightError::DecodeError(
            "a batch's body is shorter than its header says".into(),
        ));
    }
    Ok(())
}
