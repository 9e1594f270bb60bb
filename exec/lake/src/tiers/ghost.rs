//! Ranges that were fetched lately and are kept nowhere: the second touch admits to the disk tier, so that what is read once
//! is never written.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::read::ObjectRef;

/// Longer ranges are remembered by their aligned blocks of this size, as they may be merged and cut differently next time.
const BLOCK_BYTES: u64 = 1 << 20;

/// See the module. Hashes only: a wrong "seen" costs one write.
pub(super) struct Ghost {
    hasher: RandomState,
    capacity: usize,
    seen: Mutex<(HashSet<u64>, VecDeque<u64>)>,
}

impl Ghost {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            hasher: RandomState::new(),
            capacity,
            seen: Mutex::default(),
        }
    }

    /// Whether most of the range was touched before; from now on it was.
    pub(super) fn touch(&self, store: &Arc<str>, object: &ObjectRef, range: &Range<u64>) -> bool {
        let identity = (store, object.location.as_ref(), object.version.as_str());
        let object = self.hasher.hash_one(identity);
        let blocks = range.start.div_ceil(BLOCK_BYTES)..range.end / BLOCK_BYTES;
        if blocks.is_empty() {
            return self.touch_one(self.hasher.hash_one((object, range.start, range.end)));
        }
        let count = blocks.end - blocks.start;
        let known = blocks
            .filter(|block| self.touch_one(self.hasher.hash_one((object, block))))
            .count();
        known as u64 * 2 >= count
    }

    pub(super) fn clear(&self) {
        *self.seen.lock() = Default::default();
    }

    fn touch_one(&self, hash: u64) -> bool {
        let mut seen = self.seen.lock();
        let (known, order) = &mut *seen;
        if !known.insert(hash) {
            return true;
        }
        order.push_back(hash);
        if order.len() > self.capacity
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use object_store::path::Path;

    use super::*;

    #[test]
    fn the_second_touch_is_known_however_it_is_cut() {
        let (ghost, store) = (Ghost::new(10), Arc::from("s"));
        let object = |version: &str| ObjectRef {
            location: Path::from("o"),
            size_bytes: 0,
            e_tag: None,
            version: version.to_owned(),
        };
        assert!(!ghost.touch(&store, &object("1"), &(5..10)));
        assert!(!ghost.touch(&store, &object("1"), &(5..11)));
        assert!(!ghost.touch(&store, &object("2"), &(5..10)));
        assert!(ghost.touch(&store, &object("1"), &(5..10)));
        assert!(!ghost.touch(&store, &object("1"), &(0..4 << 20)));
        assert!(ghost.touch(&store, &object("1"), &(10..4 << 20)));
        assert!(ghost.touch(&store, &object("1"), &(2 << 20..5 << 20)));
        for start in 20..30 {
            ghost.touch(&store, &object("1"), &(start..start + 1));
        }
        assert!(!ghost.touch(&store, &object("1"), &(5..10)), "the list is bounded");
    }
}
