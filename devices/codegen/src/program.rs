//! A fragment as a device runs it: kernels, the memory they need, and what to put into their block of words.
//!
//! ```text
//!  regions: allocate, fill ─▶ block: words resolved, uploaded ─▶ launches in order ─▶ status: faults? ─▶ output
//! ```
//!
//! A program holds no address and no literal in its kernels, so that its text is the same for all values of a shape: they
//! stand in `words`.

use std::sync::Arc;

use trireme_device_api::DeviceError;

use crate::ir::Module;
use crate::lower::BuildShape;
use crate::shape::{RegionRef, ResidentRows};

/// Words of the status region, u64 each, zero at the start: [`STATUS_FAULTS`], [`STATUS_NEEDED`], [`STATUS_LARGE`].
pub const STATUS_WORDS: usize = 3;

/// Bits of [`Program::faults`] that happened.
pub const STATUS_FAULTS: usize = 0;

/// What a table or output that was too small would have needed, in entries; the largest demand.
pub const STATUS_NEEDED: usize = 1;

/// 1 where the fragment's hash table was larger than the device's cache, and rows came in any order: the next run may put them
/// in order first ([`crate::Hints::partition`]).
pub const STATUS_LARGE: usize = 2;

/// What a device runs for one fragment.
#[derive(Debug, Clone)]
pub struct Program {
    /// Kernels and functions.
    pub module: Module,
    /// Memory to allocate before the first launch.
    pub regions: Vec<Region>,
    /// The block, which all kernels of the program share.
    pub words: Vec<Word>,
    /// In order; each sees all that the ones before it wrote.
    pub launches: Vec<Launch>,
    /// Contents to upload: look-up tables, texts. The same `Arc` is the same content, so that uploads can be cached.
    pub tables: Vec<Arc<[u8]>>,
    /// What the bits of [`STATUS_FAULTS`] mean.
    pub faults: Vec<Fault>,
    /// The status region.
    pub status: RegionRef,
    /// Rows of one tile: what the segment table's tiles count in. 0 when the source is not a scan.
    pub tile_rows: u64,
    /// Launches of [`When::Chunk`] may run more than once, each time over other segments.
    pub takes_chunks: bool,
    /// What it leaves.
    pub output: ProgramOutput,
}

/// Memory of a program.
#[derive(Debug, Clone)]
pub struct Region {
    /// For people.
    pub name: String,
    /// Size.
    pub bytes: u64,
    /// What stands there before the first launch.
    pub fill: Fill,
    /// How long it lives.
    pub lifetime: Lifetime,
}

/// What stands in memory before the first launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// Anything.
    Nothing,
    /// This byte everywhere.
    Byte(u8),
    /// This 64-bit word everywhere.
    Word(u64),
}

/// How long memory lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Until the fragment is done.
    Scratch,
    /// As long as its output.
    Output,
}

/// A word of the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// This value.
    Value(u64),
    /// Where a region of this or an earlier program lies, plus so many bytes.
    Region(RegionRef, u64),
    /// Where the segment table of the fragment's source lies.
    Segments,
    /// Where a table of this program lies.
    Table(usize),
    /// Where the block itself lies.
    Block,
}

/// A launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Position in [`Module::kernels`].
    pub kernel: usize,
    /// How many groups.
    pub groups: Groups,
    /// When it runs.
    pub when: When,
    /// The word of the program's block with which the kernel's begins.
    pub block: u64,
}

/// How many groups a launch has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Groups {
    /// Exactly one.
    One,
    /// As many as the device runs at once, but not more than it takes for so many rows: kernels loop over the rest.
    Rows(u64),
}

/// When a launch runs, where the source is uploaded in chunks of segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Before the first chunk.
    Before,
    /// For each chunk.
    Chunk,
    /// After the last chunk.
    After,
}

/// A fault that kernels may find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The query's own: overflow, division by zero.
    Error(DeviceError),
    /// A hash table or the output was too small: run again with [`crate::Hints`] of what was needed.
    Capacity,
}

/// What a program leaves.
#[derive(Debug, Clone)]
pub enum ProgramOutput {
    /// Rows.
    Rows(ResidentRows),
    /// A build side.
    Build(BuildShape),
}
