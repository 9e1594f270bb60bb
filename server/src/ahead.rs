//! Queries that begin to run at GetFlightInfo, when most slots are free: their first batches are ready when the client asks for
//! them. Whoever doesn't ask within `limits.start_ahead_ms` gives the slot back, and the query runs anew once it is fetched.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;
use trireme_exec::QueryError;

use crate::admission::Permit;
use crate::engine::{Outcome, Rows, Submit, Submitted};
use crate::flight::front::Front;
use crate::query::QueryHandle;

/// What became of a query's early start.
pub enum Ahead {
    /// It runs.
    Runs {
        /// Its rows.
        rows: Rows,
        /// Its turn.
        permit: Permit,
        /// The statement, to run it again.
        request: Submit,
    },
    /// Nobody came: it has to be run again, and must have these columns.
    GivenUp(Submit, SchemaRef),
}

/// Where a query keeps its early start until it is fetched; empty again when it has ended.
#[derive(Default)]
pub struct Slot(Mutex<Option<Ahead>>);

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slot")
    }
}

impl Slot {
    /// Takes it out.
    pub fn take(&self) -> Option<Ahead> {
        self.0.lock().take()
    }

    /// Stops a run of `query` that nobody fetched; false if there is none.
    fn give_up(&self, query: &QueryHandle) -> bool {
        let mut slot = self.0.lock();
        match slot.take() {
            Some(Ahead::Runs { rows, permit, request }) => {
                query.set_started(None);
                *slot = Some(Ahead::GivenUp(request, Arc::clone(&rows.schema)));
                drop(slot);
                drop((rows, permit));
                true
            }
            other => {
                *slot = other;
                false
            }
        }
    }
}

/// Time limits of statements that are as long as so many holds, or longer, hardly notice that nobody fetched yet.
const HOLDS_OF_A_TIMEOUT: u32 = 10;

/// Starts a planned query, if more than half of the slots are free and its own time limit is none or long.
///
/// # Errors
/// As [`crate::engine::Engine::stream`].
pub async fn start(
    front: &Front,
    query: &Arc<QueryHandle>,
    request: Submit,
    submitted: &Submitted,
) -> Result<(), QueryError> {
    let hold = front.limits.start_ahead;
    let timeout = Duration::from_millis(request.session.statement_timeout_ms);
    let hurries = !timeout.is_zero() && timeout < hold * HOLDS_OF_A_TIMEOUT;
    if hold.is_zero() || hurries || matches!(submitted.outcome, Outcome::Done { .. }) {
        return Ok(());
    }
    let Some(permit) = front.admission.try_admit() else {
        return Ok(());
    };
    let rows = front.engine.stream(query.id()).await?;
    query.set_started(Some(SystemTime::now()));
    *query.ahead().0.lock() = Some(Ahead::Runs { rows, permit, request });
    // Cancelled meanwhile: its end found an empty slot.
    if query.state().is_terminal() {
        drop(query.ahead().take());
        return Ok(());
    }
    let (query, counted) = (Arc::downgrade(query), front.metrics.started_ahead_total.clone());
    tokio::spawn(async move {
        tokio::time::sleep(hold).await;
        if Weak::upgrade(&query).is_some_and(|query| query.ahead().give_up(&query)) {
            counted.with_label_values(&["given_up"]).inc();
        }
    });
    Ok(())
}
