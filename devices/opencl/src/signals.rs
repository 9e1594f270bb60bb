//! Keeps the process's signal handlers: drivers that compile by LLVM install their own for SIGTERM and the like, and a server that is
//! asked to stop would be killed in the middle of its queries.

use std::ptr;

/// Signals that belong to the process, not to a driver. Faults of arithmetic and memory are left to it.
const KEPT: [libc::c_int; 7] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGPIPE,
];

/// What is installed when it is made is installed again when it is dropped.
pub(crate) struct KeptSignals(Vec<(libc::c_int, libc::sigaction)>);

impl KeptSignals {
    pub(crate) fn hold() -> Self {
        let now = |signal: &libc::c_int| {
            // SAFETY: all zeros are a sigaction.
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            // SAFETY: no new action is given; the old one is written to memory that is ours.
            let done = unsafe { libc::sigaction(*signal, ptr::null(), &raw mut action) };
            (done == 0).then_some((*signal, action))
        };
        Self(KEPT.iter().filter_map(now).collect())
    }
}

impl Drop for KeptSignals {
    fn drop(&mut self) {
        for (signal, action) in &self.0 {
            // SAFETY: the action is one that the system gave out for this signal.
            unsafe { libc::sigaction(*signal, &raw const *action, ptr::null_mut()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers_come_back() {
        let handler_of = |signal| {
            // SAFETY: as above.
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            // SAFETY: as above.
            unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) };
            action.sa_sigaction
        };
        let before = handler_of(libc::SIGUSR2);
        let kept = KeptSignals::hold();
        // SAFETY: to ignore a signal needs no handler.
        unsafe { libc::signal(libc::SIGUSR2, libc::SIG_IGN) };
        assert_eq!(handler_of(libc::SIGUSR2), libc::SIG_IGN);
        drop(kept);
        assert_eq!(handler_of(libc::SIGUSR2), before);
    }
}
