//! Ctrl-C, counted.
//!
//! A task counts the signals; whoever runs a statement takes a [`Watch`] at its start and waits for the next one beside its
//! work, so that no Ctrl-C is lost while the work is in a blocking write. With nothing running, a script has nothing to
//! cancel and the process ends, as it would without us.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

use crate::error::Failure;

/// What a shell reports for a process that Ctrl-C ended.
pub(crate) const EXIT_CODE: i32 = 130;
/// Someone who presses this often wants out, whatever the server does.
const IMPATIENT: u32 = 3;

#[derive(Clone)]
pub(crate) struct Interrupt {
    count: watch::Receiver<u32>,
    running: Arc<AtomicUsize>,
}

impl Interrupt {
    /// Starts listening. Must be called inside the runtime.
    pub(crate) fn listen(interactive: bool) -> Self {
        let (sender, count) = watch::channel(0_u32);
        let running = Arc::new(AtomicUsize::new(0));
        let is_running = Arc::clone(&running);
        tokio::spawn(async move {
            let mut unheard = 0;
            while tokio::signal::ctrl_c().await.is_ok() {
                if is_running.load(Ordering::SeqCst) > 0 {
                    unheard += 1;
                } else if interactive {
                    unheard = 0;
                } else {
                    std::process::exit(EXIT_CODE);
                }
                if unheard >= IMPATIENT && !interactive {
                    std::process::exit(EXIT_CODE);
                }
                sender.send_modify(|count: &mut u32| *count = count.wrapping_add(1));
            }
        });
        Self { count, running }
    }

    /// One that a test presses.
    #[cfg(test)]
    pub(crate) fn by_hand() -> (watch::Sender<u32>, Self) {
        let (sender, count) = watch::channel(0_u32);
        let running = Arc::new(AtomicUsize::new(0));
        (sender, Self { count, running })
    }

    /// Begins some work that Ctrl-C shall end.
    pub(crate) fn watch(&self) -> Watch {
        self.running.fetch_add(1, Ordering::SeqCst);
        let mut count = self.count.clone();
        count.mark_unchanged();
        Watch {
            count,
            running: Arc::clone(&self.running),
        }
    }
}

pub(crate) struct Watch {
    count: watch::Receiver<u32>,
    running: Arc<AtomicUsize>,
}

impl Watch {
    /// Returns at the next Ctrl-C since the work began.
    pub(crate) async fn pressed(&mut self) {
        if self.count.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Runs work that has nothing to cancel on the server, until it ends or Ctrl-C is pressed.
pub(crate) async fn unless_pressed<T: Send>(
    mut ctrl_c: Watch,
    work: impl Future<Output = Result<T, Failure>> + Send,
) -> Result<T, Failure> {
    tokio::select! {
        done = work => done,
        () = ctrl_c.pressed() => Err(Failure::cancelled()),
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::SeqCst);
    }
}
