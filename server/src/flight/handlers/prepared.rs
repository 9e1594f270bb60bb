//! Prepared statements: created, bound, run, closed; they live in their session.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_flight::sql::ActionCreatePreparedStatementResult;
use bytes::Bytes;
use trireme_exec::QueryError;

use super::statement::schema_bytes;
use crate::flight::front::Front;
use crate::session::{Prepared, Session};

/// Prepares a statement. The dataset schema of an update is empty: JDBC and the Python driver decide by it.
///
/// # Errors
/// Whatever is wrong with the statement; too many prepared statements.
pub async fn create(
    front: &Front,
    session: &Session,
    sql: String,
) -> Result<ActionCreatePreparedStatementResult, QueryError> {
    front.check_statement(&sql)?;
    let description = front.engine.describe(&session.spec(), &sql).await?;
    let dataset_schema = if description.update {
        Bytes::new()
    } else {
        schema_bytes(&description.schema)?
    };
    let parameter_schema = schema_bytes(&description.parameters)?;
    let handle = front.sessions.prepare(session, sql, description)?;
    Ok(ActionCreatePreparedStatementResult {
        prepared_statement_handle: handle,
        dataset_schema,
        parameter_schema,
    })
}

/// Binds rows to a prepared statement for its next run.
///
/// # Errors
/// When the handle is unknown, or the rows have too few or too many columns.
pub fn bind(session: &Session, handle: &Bytes, batches: Vec<RecordBatch>) -> Result<(), QueryError> {
    let prepared = session.prepared(handle)?;
    *prepared.parameters.lock() = checked(&prepared, batches)?;
    Ok(())
}

/// Rows of parameters that fit the statement. No rows, or rows without columns, bind nothing.
///
/// # Errors
/// When the number of columns differs.
pub fn checked(prepared: &Prepared, batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>, QueryError> {
    let wanted = prepared.description.parameters.fields().len();
    let batches: Vec<_> = batches
        .into_iter()
        .filter(|batch| batch.num_rows() > 0 && batch.num_columns() > 0)
        .collect();
    if let Some(wrong) = batches.iter().find(|batch| batch.num_columns() != wanted) {
        return Err(QueryError::invalid(format!(
            "the statement has {wanted} parameters, but {} were bound",
            wrong.num_columns()
        )));
    }
    Ok(batches)
}

/// What a prepared statement runs with now.
///
/// # Errors
/// When the handle is unknown.
pub fn bound(session: &Session, handle: &Bytes) -> Result<(Arc<Prepared>, Vec<RecordBatch>), QueryError> {
    let prepared = session.prepared(handle)?;
    let parameters = prepared.parameters.lock().clone();
    Ok((prepared, parameters))
}
