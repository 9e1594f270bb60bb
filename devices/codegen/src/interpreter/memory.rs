//! Bytes, and which of them hold something.

use std::collections::BTreeMap;

use super::violation::{ViolationKind, Wrong};

/// What stands in memory that nobody has written.
const POISON: u8 = 0xa5;

/// Bytes, each with a bit that says whether it was written.
#[derive(Debug)]
pub(super) struct Memory {
    bytes: Vec<u8>,
    written: Vec<u64>,
}

impl Memory {
    /// So many bytes, none written.
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            bytes: vec![0; bytes],
            written: vec![0; bytes.div_ceil(64)],
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The bytes of an element as a number.
    #[inline]
    pub(super) fn get(&self, at: usize, bytes: usize) -> u128 {
        let mut raw = [0; 16];
        raw[..bytes].copy_from_slice(&self.bytes[at..at + bytes]);
        u128::from_le_bytes(raw)
    }

    #[inline]
    pub(super) fn put(&mut self, at: usize, bytes: usize, value: u128) {
        self.bytes[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
        // An element is aligned to at most 8, so that 16 bytes may reach into the next word.
        self.mark_element(at, bytes.min(8));
        if bytes > 8 {
            self.mark_element(at + 8, bytes - 8);
        }
    }

    #[inline]
    fn mark_element(&mut self, at: usize, bytes: usize) {
        self.written[at / 64] |= ((1_u64 << bytes) - 1) << (at % 64);
    }

    /// Whether all of an element's bytes were written.
    #[inline]
    pub(super) fn is_written(&self, at: usize, bytes: usize) -> bool {
        (at..at + bytes).step_by(8).all(|word| {
            let mask = ((1_u64 << (at + bytes - word).min(8)) - 1) << (word % 64);
            self.written[word / 64] & mask == mask
        })
    }

    /// Bytes as they are.
    pub(super) fn slice(&self, at: usize, bytes: usize) -> &[u8] {
        &self.bytes[at..at + bytes]
    }

    /// Bytes that are about to be written, all of them.
    pub(super) fn slice_mut(&mut self, at: usize, bytes: usize) -> &mut [u8] {
        self.mark(at, bytes, true);
        &mut self.bytes[at..at + bytes]
    }

    /// Copies bytes, and what is known of them.
    pub(super) fn copy(&mut self, from: usize, to: usize, bytes: usize) {
        self.bytes.copy_within(from..from + bytes, to);
        for offset in 0..bytes {
            let written = self.written[(from + offset) / 64] >> ((from + offset) % 64) & 1;
            let place = to + offset;
            self.written[place / 64] = self.written[place / 64] & !(1 << (place % 64)) | written << (place % 64);
        }
    }

    /// Bytes that hold nothing.
    pub(super) fn forget(&mut self, at: usize, bytes: usize) {
        self.bytes[at..at + bytes].fill(POISON);
        self.mark(at, bytes, false);
    }

    fn mark(&mut self, at: usize, bytes: usize, written: bool) {
        let end = at + bytes;
        let mut place = at;
        while place < end {
            let upto = ((place / 64 + 1) * 64).min(end);
            let count = upto - place;
            let mask = if count == 64 {
                u64::MAX
            } else {
                ((1 << count) - 1) << (place % 64)
            };
            if written {
                self.written[place / 64] |= mask;
            } else {
                self.written[place / 64] &= !mask;
            }
            place = upto;
        }
    }
}

/// Which parts of the arena belong to somebody.
#[derive(Debug, Default)]
pub(super) struct Allocations {
    /// Start and end.
    live: BTreeMap<u64, u64>,
    /// Start and end of those that were given back, until others take their place.
    freed: BTreeMap<u64, u64>,
}

impl Allocations {
    pub(super) fn take(&mut self, at: u64, bytes: u64, limit: u64) -> Result<(), Wrong> {
        let Some(end) = at.checked_add(bytes).filter(|end| *end <= limit) else {
            return Err(Wrong::at(
                ViolationKind::Host,
                at,
                format!("an allocation of {bytes} bytes ends behind the arena"),
            ));
        };
        let before = self.live.range(..end).next_back().filter(|(_, other)| **other > at);
        if before.is_some() || self.live.contains_key(&at) {
            return Err(Wrong::at(
                ViolationKind::Host,
                at,
                format!("an allocation of {bytes} bytes overlaps another"),
            ));
        }
        self.freed.retain(|start, other| *start >= end || *other <= at);
        self.live.insert(at, end);
        Ok(())
    }

    /// Gives back; the length that it had.
    pub(super) fn give_back(&mut self, at: u64) -> Result<u64, Wrong> {
        let Some(end) = self.live.remove(&at) else {
            return Err(Wrong::at(
                ViolationKind::Host,
                at,
                "no allocation begins there that could be given back",
            ));
        };
        self.freed.insert(at, end);
        Ok(end - at)
    }

    /// The allocation that a base points into: start and end. A base may point behind the last byte, where nothing can be read.
    pub(super) fn find(&self, base: u64) -> Result<(u64, u64), Wrong> {
        let live = self.live.range(..=base).next_back().map(|(start, end)| (*start, *end));
        if let Some((start, end)) = live.filter(|(_, end)| base < *end) {
            return Ok((start, end));
        }
        if let Some((start, end)) = self.freed.range(..=base).next_back()
            && base < *end
        {
            return Err(Wrong::at(
                ViolationKind::UseAfterFree,
                base,
                format!("the base points into {start} … {end}, which was given back"),
            ));
        }
        // Behind the last byte nothing can be read, but bases may point there.
        if let Some((start, end)) = live.filter(|(_, end)| base == *end) {
            return Ok((start, end));
        }
        Err(Wrong::at(
            ViolationKind::OutOfBounds,
            base,
            "the base points into no allocation",
        ))
    }

    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.live.iter().map(|(start, end)| end - start).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_known_to_be_written_one_by_one() {
        let mut memory = Memory::new(300);
        memory.put(56, 16, u128::MAX);
        assert!(memory.is_written(56, 16));
        assert!(!memory.is_written(48, 16));
        assert!(!memory.is_written(72, 1));
        memory.slice_mut(100, 150).fill(1);
        assert!(memory.is_written(104, 8) && memory.is_written(249, 1));
        assert!(!memory.is_written(250, 1) && !memory.is_written(99, 1));
        memory.copy(95, 200, 10);
        assert!(!memory.is_written(204, 1) && memory.is_written(205, 1));
        memory.forget(0, 300);
        assert!(!memory.is_written(249, 1));
        assert_eq!(memory.get(249, 1), 0xa5);
    }

    #[test]
    fn allocations_do_not_overlap_and_are_remembered() {
        let mut allocations = Allocations::default();
        allocations.take(64, 64, 256).unwrap();
        assert!(allocations.take(100, 1, 256).is_err());
        assert!(allocations.take(32, 33, 256).is_err());
        assert!(allocations.take(200, 100, 256).is_err());
        allocations.take(128, 64, 256).unwrap();
        assert_eq!(allocations.find(70), Ok((64, 128)));
        assert_eq!(allocations.give_back(64), Ok(64));
        assert_eq!(
            allocations.find(70).map_err(|wrong| wrong.kind),
            Err(ViolationKind::UseAfterFree)
        );
        allocations.take(64, 8, 256).unwrap();
        assert_eq!(
            allocations.find(100).map_err(|wrong| wrong.kind),
            Err(ViolationKind::OutOfBounds)
        );
        assert_eq!((allocations.len(), allocations.bytes()), (2, 72));
    }
}
