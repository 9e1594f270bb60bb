//! A device that is a vector of bytes: allocations, copies, launches.

use super::compile::Code;
use super::memory::{Allocations, Memory};
use super::run::Running;
use super::schedule::Schedule;
use super::violation::{Violation, ViolationKind, Wrong};
use crate::ir::Module;

/// Places that [`Machine::place`] chooses begin at multiples of this, with as much left free between them.
const GAP_BYTES: u64 = 256;

/// What a launch did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Operations of all work-items.
    pub operations: u64,
    /// Accesses to memory that another work-item could see.
    pub accesses: u64,
    /// Barriers that groups passed.
    pub barriers: u64,
}

/// An arena, and what is known of it.
#[derive(Debug)]
pub struct Machine {
    pub(super) memory: Memory,
    pub(super) allocations: Allocations,
    next: u64,
}

impl Machine {
    /// An arena of so many bytes, nothing of it allocated.
    pub fn new(arena_bytes: usize) -> Self {
        Self {
            memory: Memory::new(arena_bytes),
            allocations: Allocations::default(),
            next: GAP_BYTES,
        }
    }

    /// Bytes of the arena.
    pub fn arena_bytes(&self) -> u64 {
        self.memory.len()
    }

    /// An allocation begins; its bytes hold nothing.
    ///
    /// # Errors
    /// When it overlaps another, or the arena's end.
    pub fn allocate(&mut self, at: u64, bytes: u64) -> Result<(), Violation> {
        self.allocations
            .take(at, bytes, self.memory.len())
            .map_err(Wrong::host)?;
        self.memory.forget(position(at), position(bytes));
        Ok(())
    }

    /// An allocation where there is room behind all others that were placed so; for tests.
    ///
    /// # Errors
    /// When there is no room.
    pub fn place(&mut self, bytes: u64) -> Result<u64, Violation> {
        let at = self.next;
        self.allocate(at, bytes)?;
        self.next = (at + bytes).next_multiple_of(GAP_BYTES) + GAP_BYTES;
        Ok(at)
    }

    /// An allocation ends.
    ///
    /// # Errors
    /// When none begins there.
    pub fn free(&mut self, at: u64) -> Result<(), Violation> {
        let bytes = self.allocations.give_back(at).map_err(Wrong::host)?;
        self.memory.forget(position(at), position(bytes));
        Ok(())
    }

    /// Number of allocations, and their bytes.
    pub fn allocated(&self) -> (usize, u64) {
        (self.allocations.len(), self.allocations.bytes())
    }

    /// Sets 64-bit words.
    ///
    /// # Errors
    /// When the place is not inside one allocation, or not made of words.
    pub fn fill(&mut self, at: u64, bytes: u64, word: u64) -> Result<(), Violation> {
        if !at.is_multiple_of(8) || !bytes.is_multiple_of(8) {
            let wrong = Wrong::at(ViolationKind::Misaligned, at, format!("a fill of {bytes} bytes"));
            return Err(wrong.host());
        }
        let slab = self.slab(at, bytes)?;
        for piece in slab.chunks_exact_mut(8) {
            piece.copy_from_slice(&word.to_le_bytes());
        }
        Ok(())
    }

    /// Bytes to be written by the host, all of them.
    ///
    /// # Errors
    /// When the place is not inside one allocation.
    pub fn slab(&mut self, at: u64, bytes: u64) -> Result<&mut [u8], Violation> {
        self.inside(at, bytes)?;
        Ok(self.memory.slice_mut(position(at), position(bytes)))
    }

    /// Writes.
    ///
    /// # Errors
    /// When the place is not inside one allocation.
    pub fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), Violation> {
        self.slab(at, bytes.len() as u64)?.copy_from_slice(bytes);
        Ok(())
    }

    /// Reads, whether or not the bytes were written.
    ///
    /// # Errors
    /// When the place is not inside one allocation.
    pub fn read(&self, at: u64, bytes: u64) -> Result<&[u8], Violation> {
        self.inside(at, bytes)?;
        Ok(self.memory.slice(position(at), position(bytes)))
    }

    /// Copies, with what is known of the bytes.
    ///
    /// # Errors
    /// When a place is not inside one allocation.
    pub fn copy(&mut self, from: u64, to: u64, bytes: u64) -> Result<(), Violation> {
        self.inside(from, bytes)?;
        self.inside(to, bytes)?;
        self.memory.copy(position(from), position(to), position(bytes));
        Ok(())
    }

    /// Writes 64-bit words; for tests.
    ///
    /// # Errors
    /// When the place is not inside one allocation.
    pub fn write_words(&mut self, at: u64, words: &[u64]) -> Result<(), Violation> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.write(at, &bytes)
    }

    /// Reads 64-bit words; for tests.
    ///
    /// # Errors
    /// When the place is not inside one allocation.
    pub fn read_words(&self, at: u64, words: u64) -> Result<Vec<u64>, Violation> {
        let (chunks, _) = self.read(at, words * 8)?.as_chunks::<8>();
        Ok(chunks.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect())
    }

    /// Runs a kernel of a module; [`Machine::run`] of code that is made only once is faster.
    ///
    /// # Errors
    /// What the module or a work-item does wrong.
    pub fn launch(
        &mut self,
        module: &Module,
        kernel: usize,
        groups: u32,
        block: u64,
        schedule: &Schedule,
    ) -> Result<Stats, Violation> {
        self.run(&Code::new(module)?, kernel, groups, block, schedule)
    }

    /// Runs kernel number `kernel` with `groups` groups and the block of words at `block`.
    ///
    /// # Errors
    /// What a work-item does wrong.
    pub fn run(
        &mut self,
        code: &Code,
        kernel: usize,
        groups: u32,
        block: u64,
        schedule: &Schedule,
    ) -> Result<Stats, Violation> {
        let Some(kernel) = code.kernels.get(kernel) else {
            return Err(Wrong::new(ViolationKind::Host, format!("there is no kernel {kernel}")).host());
        };
        if groups == 0 {
            return Err(Wrong::new(ViolationKind::Host, "a launch of no groups").host());
        }
        Running::new(self, kernel, code.group, groups, block, schedule)?.run()
    }

    fn inside(&self, at: u64, bytes: u64) -> Result<(), Violation> {
        let (_, end) = self.allocations.find(at).map_err(Wrong::host)?;
        if at.checked_add(bytes).is_some_and(|last| last <= end) {
            return Ok(());
        }
        let what = format!("{bytes} bytes; the allocation ends at {end}");
        Err(Wrong::at(ViolationKind::OutOfBounds, at, what).host())
    }
}

/// A byte of the arena, which is in the host's memory.
pub(super) fn position(at: u64) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}
