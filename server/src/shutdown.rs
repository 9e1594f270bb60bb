//! Stopping: a signal drains, a deadline ends what still runs.
//!
//! ```text
//!  SIGTERM or SIGINT ─▶ not ready, nothing new ─▶ running statements finish ─▶ exit 0
//!                                               └ deadline: they are cancelled, their clients told ─▶ exit 0
//! ```

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens from the moment it is made: before drivers are started, which may install handlers of their own.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// When signals can't be listened to.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for SIGTERM or SIGINT; gives its name.
    pub async fn asked(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
