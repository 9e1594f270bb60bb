//! How long memory that was freed stays with the process.
//!
//! What queries free, the next ones need again. Memory that went back to the system comes as pages that have to be cleared
//! and, on virtual machines that report free pages to their host, got from there anew: seconds per gigabyte, where reading
//! it takes tenths.

use std::ffi::{c_int, c_long};
use std::time::Duration;

// `mi_option_purge_delay` and `mi_option_minimal_purge_size` of mimalloc 3, which its binding does not name. The test knows
// what they are by default.
const PURGE_DELAY: c_int = 15;
const MINIMAL_PURGE_SIZE: c_int = 44;
/// A huge page. Giving back less would split it.
const GIVEN_BACK_KIB: c_long = 2048;

/// From now on the allocator gives freed memory back to the system after this time, in huge pages. Without effect in a process that
/// allocates otherwise.
pub fn keep_freed_memory(time: Duration) {
    let milliseconds = c_long::try_from(time.as_millis()).unwrap_or(c_long::MAX);
    // SAFETY: sets numbers that the allocator reads atomically; the indices are in its table.
    unsafe {
        libmimalloc_sys::mi_option_set(PURGE_DELAY, milliseconds);
        libmimalloc_sys::mi_option_set(MINIMAL_PURGE_SIZE, GIVEN_BACK_KIB);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_are_those_that_are_meant() {
        // SAFETY: as above.
        let get = || unsafe { [PURGE_DELAY, MINIMAL_PURGE_SIZE].map(|option| libmimalloc_sys::mi_option_get(option)) };
        assert_eq!(get(), [1000, 0], "mimalloc's defaults; its options were numbered anew");
        keep_freed_memory(Duration::from_secs(60));
        assert_eq!(get(), [60_000, 2048]);
    }
}
