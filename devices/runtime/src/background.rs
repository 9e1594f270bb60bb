//! Threads that work for later: they yield to those that somebody waits for.

/// Added to a background thread's niceness: about a tenth of a core that others want as well.
const NICENESS: libc::c_int = 10;
const NICENESS_MAX: libc::c_int = 19;

/// From now on the calling thread, and threads that it starts, yield to the process's others where cores are short. Where the
/// system doesn't know priorities by thread nothing changes.
pub fn yields_to_others() {
    #[cfg(target_os = "linux")]
    // SAFETY: plain numbers; 0 is the calling thread, of which Linux keeps a niceness of its own.
    unsafe {
        let now = libc::getpriority(libc::PRIO_PROCESS, 0);
        libc::setpriority(libc::PRIO_PROCESS, 0, (now + NICENESS).min(NICENESS_MAX));
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_calling_thread_alone_that_yields() {
        // SAFETY: plain numbers; the calling thread's niceness.
        let niceness = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        let before = niceness();
        let of_other = std::thread::spawn(move || {
            yields_to_others();
            niceness()
        });
        assert_eq!(of_other.join().unwrap(), (before + NICENESS).min(NICENESS_MAX));
        assert_eq!(niceness(), before);
    }
}
