//! Fragments lowered to programs: one work-item takes one row at a time through the whole pipeline.
//!
//! ```text
//!  for each tile of the source: for each row of mine:          (source)
//!     load columns when asked for                              (Row)
//!     if filter { for each match of the probe { … sink } }     (steps, join)
//! ```
//!
//! Steps nest as statements do: a filter is an `if`, a probe a loop over its matches, so an expression is only evaluated for
//! rows that reach it and its errors count only there. Values live in registers from the load to the sink.
//!
//! What is known while lowering (ranges, NULLs, dictionaries) chooses types and drops checks; values (literals, bases,
//! addresses, sizes) are words of the block.

mod aggregate;
mod emit;
mod expr;
mod join;
mod sort;
mod source;
mod steps;
mod value;

use std::rc::Rc;
use std::sync::Arc;

use trireme_device_api::{DeviceColumn, DeviceError, Expr, FragmentId, Graph, Value as Constant};

pub use join::BuildShape;
pub(crate) use value::{Kind, Row, Shape, Slot, Value};

use crate::build::Builder;
use crate::ir::{Expr as Ir, FunctionId};
use crate::program::{Fault, Launch, Program, ProgramOutput, Region, Word};
use crate::shape::{RegionRef, ResidentRows, ScanShape};

/// Why a fragment can't be lowered, for EXPLAIN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported(pub String);

/// A result of lowering.
pub type Lowered<T> = Result<T, Unsupported>;

/// What the device is like.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Work-items per group: a power of two, 8 … 1024.
    pub group: u32,
    /// Rows that a work-item takes of one tile.
    pub items: u32,
    /// Local memory that a group may use.
    pub local_bytes: u32,
    /// Whether registers are cheap and work-items many (a GPU), or work-items run one after another (a processor).
    pub wide: bool,
}

/// What an earlier fragment left.
#[derive(Debug, Clone)]
pub enum Input {
    /// Rows in device memory.
    Resident(ResidentRows),
    /// Rows that came from the host, as segments.
    Segments(ScanShape),
    /// A build side.
    Build(BuildShape),
}

/// What is known when a fragment is lowered.
pub struct Bound<'a> {
    /// Of the graph's scans.
    pub scans: &'a [ScanShape],
    /// Of the graph's streams, which have been collected.
    pub streams: &'a [Option<ScanShape>],
    /// Of earlier fragments.
    pub outputs: &'a [Option<Input>],
    /// Values.
    pub parameters: &'a [Constant],
    /// Evaluates expressions on the host.
    pub host: &'a dyn Host,
    /// What an earlier run found out.
    pub hints: Hints,
}

/// What an earlier run of the same fragment found out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hints {
    /// Entries that its hash table or output needs at least.
    pub capacity: Option<u64>,
}

/// Evaluates expressions on the host.
pub trait Host {
    /// The expression for every row of `entries`, which is its column 0.
    ///
    /// # Errors
    /// Those of the expression's values.
    fn evaluate(&self, expr: &Expr, entries: &DeviceColumn, parameters: &[Constant]) -> Result<DeviceColumn, DeviceError>;
}

/// Lowers one fragment. Earlier fragments are lowered before.
///
/// # Errors
/// The reason why not.
pub fn lower(graph: &Graph, fragment: FragmentId, bound: &Bound<'_>, target: Target) -> Lowered<Program> {
    let _ = (graph, fragment, bound, target);
    Err(Unsupported("not yet".to_owned()))
}

/// A program in the making.
pub(crate) struct Lowering<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) fragment: FragmentId,
    pub(crate) bound: &'a Bound<'a>,
    pub(crate) target: Target,
    /// The kernel that is being written.
    pub(crate) b: Builder,
    pub(crate) parts: Parts,
}

/// What has been put together so far.
#[derive(Default)]
pub(crate) struct Parts {
    pub(crate) functions: Vec<crate::ir::Function>,
    pub(crate) kernels: Vec<crate::ir::Kernel>,
    pub(crate) regions: Vec<Region>,
    pub(crate) words: Vec<Word>,
    pub(crate) launches: Vec<Launch>,
    pub(crate) tables: Vec<Arc<[u8]>>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) output: Option<ProgramOutput>,
}

impl Lowering<'_> {
    /// A word of the block, as an expression of type U64; equal words share one.
    pub(crate) fn word(&mut self, word: Word) -> Ir {
        let position = self.parts.words.iter().position(|other| *other == word).unwrap_or_else(|| {
            self.parts.words.push(word);
            self.parts.words.len() - 1
        });
        Ir::Word(u32::try_from(position).unwrap_or(u32::MAX))
    }

    /// Memory.
    pub(crate) fn region(&mut self, region: Region) -> RegionRef {
        self.parts.regions.push(region);
        RegionRef {
            fragment: self.fragment,
            region: self.parts.regions.len() - 1,
        }
    }

    /// Content to upload; the word is where it lies.
    pub(crate) fn table(&mut self, content: Arc<[u8]>) -> Ir {
        let known = self.parts.tables.iter().position(|other| Arc::ptr_eq(other, &content));
        let position = known.unwrap_or_else(|| {
            self.parts.tables.push(content);
            self.parts.tables.len() - 1
        });
        self.word(Word::Table(position))
    }

    /// A function, by name: made the first time.
    pub(crate) fn function(&mut self, name: &str, make: impl FnOnce(&mut Self) -> crate::ir::Function) -> FunctionId {
        let known = self.parts.functions.iter().position(|function| function.name == name);
        let position = known.unwrap_or_else(|| {
            let function = make(self);
            self.parts.functions.push(function);
            self.parts.functions.len() - 1
        });
        FunctionId(u32::try_from(position).unwrap_or(u32::MAX))
    }

    /// Notes a fault: sets its bit in the status. For work-items that reach this statement.
    pub(crate) fn fault(&mut self, fault: Fault) {
        let _ = fault;
    }
}

type Load = Rc<dyn Fn(&mut Lowering<'_>) -> Lowered<Value>>;
