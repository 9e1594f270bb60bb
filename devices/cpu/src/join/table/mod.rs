//! The join ladder's tables: from a key to the first build row that has it.
//!
//! ```text
//!  Dense   heads[key]               ─▶ row + 1, 0 for none
//!  Ranked  heads[number of the key]  ─▶ row + 1, 0 for none           a bit per possible key gives the number
//!  Sorted  number of the key         ─▶ row: the rows are in the order of their keys
//!  Same    key                       ─▶ row: and no key is missing
//!  Bitmap  bit[key]                 ─▶ there or not
//!  Hash    slots[hash … ] tag│row+1 ─▶ row + 1, 0 for none           a Bloom filter stands before a large one
//!
//!  chain   next[row]                ─▶ row + 1 of another row with the same key, 0 for none
//! ```
//!
//! Rows are inserted by several workers at once; all words are atomics, which cost nothing when they are only read.

pub(crate) mod bitmap;
pub(crate) mod bloom;
pub(crate) mod dense;
pub(crate) mod hash;
pub(crate) mod ranks;
pub(crate) mod zeroed;

use std::sync::atomic::AtomicU32;

use self::bitmap::Bitmap;
use self::dense::Dense;
use self::hash::HashTable;
use self::ranks::Ranks;
use self::zeroed::Zeroed;

/// A table; which one, the build side's data decide.
#[derive(Debug)]
pub(crate) enum Index {
    /// No build row can match.
    Empty,
    /// Without keys all build rows match.
    All,
    /// Packed keys of a small range.
    Dense(Dense),
    /// Packed keys of a wider range: by their numbers.
    Ranked(Ranks, Dense),
    /// Rows in the order of their keys, which don't repeat: the number is the row.
    Sorted(Ranks),
    /// As sorted, and no key is missing: the packed key is the row.
    Same,
    /// As dense, where only existence is asked.
    Bitmap(Bitmap),
    /// Any keys.
    Hash(HashTable),
}

/// Rows with equal keys, linked: the first stands in the table.
pub(crate) type Chain = Zeroed<AtomicU32>;

/// Asks for the cache line of a word that will be read soon; `at` may lie outside.
#[inline]
pub(crate) fn prefetch<T>(words: &[T], at: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch of any address has no effect but on caches; SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(words.as_ptr().wrapping_add(at).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (words, at);
}
