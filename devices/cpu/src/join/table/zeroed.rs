//! Zeroed words of tables: large ones in huge pages where the system has them, so that accesses at random miss fewer page
//! tables, and pages aren't cleared one small one after another.

use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

/// Memory from here on is asked for in huge pages.
#[cfg(target_os = "linux")]
const HUGE_FROM_BYTES: usize = 4 << 20;

#[cfg(target_os = "linux")]
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// What all bits zero are a value of, and what needs no drop.
pub(crate) trait Word {}
impl Word for AtomicU8 {}
impl Word for AtomicU32 {}
impl Word for AtomicU64 {}

/// A fixed number of words, zero at first; pages that are never touched cost nothing.
#[derive(Debug)]
pub(crate) struct Zeroed<T: Word> {
    words: NonNull<[T]>,
    /// Start and length of the mapping they lie in; without one they are a box's.
    mapping: Option<(NonNull<u8>, usize)>,
}

impl<T: Word> Zeroed<T> {
    /// So many zeros.
    pub(crate) fn new(length: usize) -> Self {
        #[cfg(target_os = "linux")]
        if length * size_of::<T>() >= HUGE_FROM_BYTES
            && let Some((words, start, bytes)) = map(length * size_of::<T>())
        {
            return Self {
                words: NonNull::slice_from_raw_parts(words.cast(), length),
                mapping: Some((start, bytes)),
            };
        }
        // SAFETY: all bits zero are a valid word.
        let words = unsafe { Box::<[T]>::new_zeroed_slice(length).assume_init() };
        Self {
            words: NonNull::from(Box::leak(words)),
            mapping: None,
        }
    }
}

impl<T: Word> Deref for Zeroed<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: the words are initialised, and live as long as `self`.
        unsafe { self.words.as_ref() }
    }
}

impl<T: Word> Drop for Zeroed<T> {
    fn drop(&mut self) {
        match self.mapping {
            // SAFETY: made by `map`, and nothing borrows from it any more.
            #[cfg(target_os = "linux")]
            Some((start, bytes)) => unsafe {
                libc::munmap(start.as_ptr().cast(), bytes);
            },
            // SAFETY: leaked from such a box by `new`.
            _ => drop(unsafe { Box::from_raw(self.words.as_ptr()) }),
        }
    }
}

// SAFETY: it owns its words as a box does.
unsafe impl<T: Word + Send> Send for Zeroed<T> {}
// SAFETY: as above.
unsafe impl<T: Word + Sync> Sync for Zeroed<T> {}

/// New memory for so many bytes at the start of a huge page, and the start and length of its mapping; none when the system has
/// none.
#[cfg(target_os = "linux")]
fn map(bytes: usize) -> Option<(NonNull<u8>, NonNull<u8>, usize)> {
    let needed = bytes.checked_next_multiple_of(HUGE_PAGE_BYTES)?;
    let mapped = needed + HUGE_PAGE_BYTES;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping of memory that nothing else uses.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), mapped, access, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return None;
    }
    let words = start.wrapping_byte_add(start.cast::<u8>().align_offset(HUGE_PAGE_BYTES));
    // SAFETY: the range lies in the mapping; advice changes no content, and that it is refused does no harm.
    unsafe { libc::madvise(words, needed, libc::MADV_HUGEPAGE) };
    Some((NonNull::new(words.cast())?, NonNull::new(start.cast())?, mapped))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::Zeroed;

    #[test]
    fn words_are_zero_and_keep_what_is_stored() {
        for length in [0, 1, 1000, (4 << 20) / 4, (9 << 20) / 4 + 1] {
            let words = Zeroed::<AtomicU32>::new(length);
            assert_eq!(words.len(), length);
            assert!(words.iter().all(|word| word.load(Ordering::Relaxed) == 0));
            if let Some(last) = words.last() {
                last.store(7, Ordering::Relaxed);
                assert_eq!(words[length - 1].load(Ordering::Relaxed), 7);
            }
        }
    }
}
