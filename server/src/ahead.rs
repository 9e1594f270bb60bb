//! Queries that begin to run at GetFlightInfo, when most slots are free: their first batches are ready when the client asks for
//! them. Whoever doesn't ask within `limits.start_ahead_ms` gives the slot back, and the query runs anew once it is fetched.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use trireme_exec::QueryError;

use crate::engine::{Outcome, Submit, Submitted};
use crate::flight::front::Front;
use crate::query::QueryHandle;
use crate::query::run::Run;

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
    let rows = front.engine.stream(query.id(), Arc::new(permit)).await?;
    query.set_started(Some(SystemTime::now()));
    query.keep_run(Run::Ahead { rows, request });
    let (query, counted) = (Arc::downgrade(query), front.metrics.started_ahead_total.clone());
    tokio::spawn(async move {
        tokio::time::sleep(hold).await;
        if Weak::upgrade(&query).is_some_and(|query| query.give_up_run()) {
            counted.with_label_values(&["given_up"]).inc();
        }
    });
    Ok(())
}
