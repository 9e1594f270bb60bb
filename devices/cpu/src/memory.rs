//! How long memory that was freed stays with the process.
//!
//! What queries free, the next ones need again. Memory that went back to the system comes as pages that have to be cleared
//! and, on virtual machines that report free pages to their host, got from there anew: seconds per gigabyte, where reading
//! it takes tenths.

use std::ffi::{c_int, c_long};
use std::time::Duration;

/// `mi_option_purge_delay` of mimalloc 3, which its binding does not name. The test knows what it is by default.
const PURGE_DELAY: c_int = 15;

/// From now on the allocator gives freed memory back to the system after this time. Without effect in a process that
/// allocates otherwise.
pub fn keep_freed_memory(time: Duration) {
    let milliseconds = c_long::try_from(time.as_millis()).unwrap_or(c_long::MAX);
    // SAFETY: sets a number that the allocator reads atomically; the index is in its table.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, milliseconds) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_the_delay() {
        // SAFETY: as above.
        let get = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert_eq!(get(), 1000, "mimalloc's default delay; its options were numbered anew");
        keep_freed_memory(Duration::from_secs(60));
        assert_eq!(get(), 60_000);
    }
}
