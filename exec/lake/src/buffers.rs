//! Memory for what is fetched, used again: the pages of a fresh buffer cost as much as reading into it (measured: 0.2 of
//! 0.4 seconds of processor per GB).

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

/// Shorter buffers are the allocator's business.
const POOLED_BYTES_MIN: usize = 128 << 10;
/// Bytes that lie idle at most.
const IDLE_BYTES_MAX: usize = 64 << 20;

#[derive(Debug, Default)]
struct Idle {
    by_capacity: HashMap<usize, Vec<BytesMut>>,
    bytes: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    idle: Mutex<Idle>,
}

/// A full buffer, given back when nobody holds a part of it any more.
struct Lent {
    buffer: BytesMut,
    home: Arc<Buffers>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.give(std::mem::take(&mut self.buffer));
    }
}

impl Buffers {
    /// An empty buffer with room for so many bytes.
    pub(crate) fn take(&self, bytes: usize) -> BytesMut {
        if bytes < POOLED_BYTES_MIN {
            return BytesMut::with_capacity(bytes);
        }
        let capacity = capacity(bytes);
        let mut idle = self.idle.lock();
        if let Some(buffer) = idle.by_capacity.get_mut(&capacity).and_then(Vec::pop) {
            idle.bytes -= capacity;
            return buffer;
        }
        drop(idle);
        BytesMut::with_capacity(capacity)
    }

    /// What was read, which comes back here in the end.
    pub(crate) fn freeze(self: &Arc<Self>, buffer: BytesMut) -> Bytes {
        if buffer.capacity() < POOLED_BYTES_MIN {
            return buffer.freeze();
        }
        Bytes::from_owner(Lent {
            buffer,
            home: Arc::clone(self),
        })
    }

    fn give(&self, mut buffer: BytesMut) {
        buffer.clear();
        let bytes = buffer.capacity();
        if !(POOLED_BYTES_MIN..=IDLE_BYTES_MAX / 2).contains(&bytes) || bytes != capacity(bytes) {
            return;
        }
        let mut idle = self.idle.lock();
        let mut dropped = HashMap::new();
        if idle.bytes + bytes > IDLE_BYTES_MAX {
            // Other lengths than are wanted now may fill it.
            dropped = std::mem::take(&mut idle.by_capacity);
            idle.bytes = 0;
        }
        idle.bytes += bytes;
        idle.by_capacity.entry(bytes).or_default().push(buffer);
        drop(idle);
        drop(dropped);
    }
}

/// Eight sizes between a power of two and the next, so that at most an eighth is unused.
fn capacity(bytes: usize) -> usize {
    let step = (1_usize << bytes.max(1).ilog2()) / 8;
    bytes.next_multiple_of(step.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_when_its_last_part_is_dropped() {
        let buffers = Arc::new(Buffers::default());
        let mut buffer = buffers.take(1_000_000);
        let place = buffer.as_ptr();
        buffer.extend_from_slice(&[7; 1_000_000]);
        let bytes = buffers.freeze(buffer);
        let part = bytes.slice(10..20);
        drop(bytes);
        assert_ne!(buffers.take(1_000_000).as_ptr(), place);
        assert_eq!(part, [7_u8; 10][..]);
        drop(part);
        let again = buffers.take(999_999);
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
    }

    #[test]
    fn parts_of_a_buffer_that_was_split_come_back_as_one() {
        let buffers = Arc::new(Buffers::default());
        let mut first = buffers.take(1 << 20);
        let (place, room) = (first.as_ptr(), first.capacity());
        let mut second = first.split_off(1 << 19);
        first.extend_from_slice(&[1; 1 << 19]);
        second.extend_from_slice(&[2; 1 << 19]);
        first.unsplit(second);
        drop(buffers.freeze(first));
        let again = buffers.take(1 << 20);
        assert_eq!((again.as_ptr(), again.capacity()), (place, room));
    }

    #[test]
    fn little_lies_idle() {
        let buffers = Arc::new(Buffers::default());
        let many: Vec<_> = (0..100)
            .map(|at| buffers.freeze(buffers.take((1 << 20) + at * 40_000)))
            .collect();
        drop(many);
        let idle = buffers.idle.lock();
        let held: usize = idle.by_capacity.iter().map(|(bytes, all)| bytes * all.len()).sum();
        assert_eq!(held, idle.bytes);
        assert!(held <= IDLE_BYTES_MAX && held > 0, "{held}");
        drop(idle);
        for bytes in [POOLED_BYTES_MIN, 1_000_000, 8 << 20, (16 << 20) + 1] {
            assert!(capacity(bytes) >= bytes && capacity(bytes) <= bytes + bytes / 8);
            assert_eq!(capacity(capacity(bytes)), capacity(bytes));
        }
    }
}
