//! Stopping: a signal drains, a deadline ends what still runs.
//!
//! ```text
//!  SIGTERM or SIGINT ─▶ not ready, nothing new ─▶ running statements finish ─▶ exit 0
//!                                               └ deadline: they are cancelled, their clients told ─▶ exit 0
//! ```

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Waits for SIGTERM or SIGINT; gives its name.
///
/// # Errors
/// When signals can't be listened to.
pub async fn asked() -> io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}
