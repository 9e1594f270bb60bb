//! A query's run, kept beside its record from its start to its end, so that whoever ends the query ends the run as well: also
//! when its client holds the connection open and reads no further.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::StreamExt;
use parking_lot::Mutex;
use trireme_exec::QueryError;

use crate::engine::{BatchStream, Rows, Submit};

/// How far a run is.
pub enum Run {
    /// It has begun before it is fetched.
    Ahead {
        /// Its rows.
        rows: Rows,
        /// The statement, to run it again.
        request: Submit,
    },
    /// It had begun, and nobody came: it has to be run again, and must have these columns.
    GivenUp(Submit, SchemaRef),
    /// Its rows are on their way to the client.
    Fetched(BatchStream),
}

/// Where a query keeps its run; empty before it begins and when the query has ended.
#[derive(Default)]
pub(super) struct Slot(Mutex<Option<Run>>);

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slot")
    }
}

impl Slot {
    pub(super) fn put(&self, run: Run) {
        *self.0.lock() = Some(run);
    }

    pub(super) fn take(&self) -> Option<Run> {
        self.0.lock().take()
    }

    /// The next batch of a run whose rows are on their way; none when there is no such run any more.
    pub(super) fn poll_next(&self, context: &mut Context<'_>) -> Option<Poll<Option<Result<RecordBatch, QueryError>>>> {
        match self.0.lock().as_mut() {
            Some(Run::Fetched(batches)) => Some(batches.poll_next_unpin(context)),
            _ => None,
        }
    }

    /// Stops a run that nobody fetched, once `stopping` was told; false if there is none.
    pub(super) fn give_up(&self, stopping: impl FnOnce()) -> bool {
        let mut slot = self.0.lock();
        match slot.take() {
            Some(Run::Ahead { rows, request }) => {
                stopping();
                *slot = Some(Run::GivenUp(request, Arc::clone(&rows.schema)));
                drop(slot);
                drop(rows);
                true
            }
            other => {
                *slot = other;
                false
            }
        }
    }
}
