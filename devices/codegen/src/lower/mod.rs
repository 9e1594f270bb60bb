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
mod ahead;
mod emit;
mod expr;
mod join;
mod key;
mod look;
mod output;
mod partition;
#[cfg(test)]
mod rig;
mod sort;
mod source;
mod steps;
mod text;
mod value;

use std::rc::Rc;
use std::sync::Arc;

use trireme_device_api::{DeviceColumn, DeviceError, Expr, Fragment, FragmentId, Graph, Value as Constant};

pub use expr::supports;
pub use join::BuildShape;
pub(crate) use key::{Key, KeyShape, KeyWord, Nulls};
pub(crate) use value::{Kind, Row, Shape, Slot, Value};

use crate::build::{Builder, place, u64};
use crate::ir::{Atomic, Elem, Expr as Ir, FunctionId, Scalar, Stmt, Target as Place};
use crate::program::{
    Fault, Fill, Groups, Launch, Lifetime, Program, ProgramOutput, Region, STATUS_FAULTS, STATUS_LARGE, STATUS_NEEDED,
    STATUS_WORDS, When, Word,
};
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
    /// Work-items that run at once.
    pub work_items: u32,
    /// Local memory that a group may use.
    pub local_bytes: u32,
    /// Whether registers are cheap and work-items many (a GPU), or work-items run one after another (a processor).
    pub wide: bool,
    /// Hash tables of more bytes are so much larger than the device's cache that it is worth putting rows in order for them
    /// ([`STATUS_LARGE`]); none where it never is.
    pub large_bytes: Option<u64>,
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
    /// Groups that it had at most, as a power of two. Should there be more, the table is made as if this weren't known.
    pub groups: Option<u64>,
    /// Its hash table is larger than the device's cache: rows are put in order for it, if they take no more than so many bytes
    /// of memory on their way.
    pub partition: Option<u64>,
}

/// Evaluates expressions on the host.
pub trait Host {
    /// The expression for every row of `entries`, which is its column 0.
    ///
    /// # Errors
    /// Those of the expression's values.
    fn evaluate(
        &self,
        expr: &Expr,
        entries: &DeviceColumn,
        parameters: &[Constant],
    ) -> Result<DeviceColumn, DeviceError>;
}

/// Lowers one fragment. Earlier fragments are lowered before.
///
/// # Errors
/// The reason why not.
pub fn lower(graph: &Graph, fragment: FragmentId, bound: &Bound<'_>, target: Target) -> Lowered<Program> {
    let large = |output: &Input| matches!(output, Input::Build(build) if join::large(build).is_some());
    if (bound.hints.partition.is_some() || bound.outputs.iter().flatten().any(large))
        && let Ok(program) = lower_by(graph, fragment, bound, target, true)
    {
        return Ok(program);
    }
    lower_by(graph, fragment, bound, target, false)
}

/// With `partitions`, rows may be put in order; without, whatever can't be done with that can be done all the same.
fn lower_by(
    graph: &Graph,
    fragment: FragmentId,
    bound: &Bound<'_>,
    target: Target,
    partitions: bool,
) -> Lowered<Program> {
    let mut l = Lowering::new(graph, fragment, bound, target);
    l.partitions = partitions;
    let mut sink = steps::sink(&mut l)?;
    let (tile_rows, parked) = partition::kernels(&mut l, sink.as_mut())?;
    source::pass_kernels(&mut l, sink.as_mut())?;
    let takes_chunks = parked || sink.takes_chunks();
    let output = sink.finish(&mut l)?;
    let mut program = l.program(tile_rows, output);
    program.takes_chunks = takes_chunks;
    Ok(program)
}

/// A sink in the making. A fragment has one main kernel, and one more for each [`Pass`]; all of them share the sink.
pub(crate) trait Sink {
    /// Only so many groups get rows in main kernels, for sinks with memory per group.
    fn groups_max(&self) -> Option<u32> {
        None
    }

    /// Whether the main kernel may run once for each of many chunks of the source. Sinks that keep something per group for a
    /// finishing kernel can't.
    fn takes_chunks(&self) -> bool {
        true
    }

    /// Rows that stand next to each other in the source are to go to one work-item.
    fn in_runs(&self) -> bool {
        false
    }

    /// The sink's table of keys, where it is one that rows are to be put in order for.
    fn large(&self) -> Option<partition::Large> {
        None
    }

    /// U64: the hash by whose top bits the row's place in that table goes.
    fn hash(&mut self, _: &mut Lowering<'_>, _: &mut Row) -> Lowered<Ir> {
        Err(Unsupported("a sink without a table of keys".to_owned()))
    }

    /// Uniform code at the start of each main kernel: private accumulators, local arrays and their initialisation. Barriers
    /// are allowed.
    fn begin(&mut self, l: &mut Lowering<'_>) -> Lowered<()>;

    /// For each row that arrives, in divergent code: no barrier. The shapes of the first call hold: in the kernels of passes
    /// values are of the same shapes or narrower ones, or [`Kind::Null`] where they were nullable before.
    fn row(&mut self, l: &mut Lowering<'_>, row: &mut Row) -> Lowered<()>;

    /// Uniform code after every row slot of a tile. Each work-item has passed at most one row since the last when
    /// [`Lowering::multiplies`] is false: compaction goes here.
    fn slot_end(&mut self, l: &mut Lowering<'_>) -> Lowered<()>;

    /// Uniform code at the end of each main kernel: reduce, flush.
    fn end(&mut self, l: &mut Lowering<'_>) -> Lowered<()>;

    /// After the main kernels: finishing kernels, and the output. Regions that main kernels use are made in the constructor.
    fn finish(&mut self, l: &mut Lowering<'_>) -> Lowered<ProgramOutput>;
}

/// Build rows that go through the remaining steps after all rows were probed.
#[derive(Debug, Clone)]
pub(crate) struct Pass {
    /// The probe, by its position among the steps.
    pub(crate) step: usize,
    /// A u64 in the arena: how many build rows there are.
    pub(crate) count: RegionRef,
    /// There are at most so many.
    pub(crate) bound: u64,
    /// Where the probe notes which build rows matched; what is in it is the probe's affair.
    pub(crate) matched: RegionRef,
    /// Shapes of the row's columns before the probe, which are NULL in the pass.
    pub(crate) row: Vec<Shape>,
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
    /// Noted by probes through [`Lowering::pass`].
    pub(crate) passes: Vec<Pass>,
    status: RegionRef,
    hoist: source::Hoist,
    /// Bool, uniform, at the end of a slot: the group gets no further one in this kernel. For sinks with memory per group.
    pub(crate) last_slot: Option<Ir>,
    /// Rows may be put in order on their way ([`partition`]).
    partitions: bool,
    /// The kernel that is being written begins with this step,
    first_step: usize,
    /// and ends before this one, if not with the sink.
    until: Option<usize>,
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
    pub(crate) expressions: expr::State,
}

impl<'a> Lowering<'a> {
    fn new(graph: &'a Graph, fragment: FragmentId, bound: &'a Bound<'a>, target: Target) -> Self {
        let mut l = Self {
            graph,
            fragment,
            bound,
            target,
            b: Builder::new(),
            parts: Parts::default(),
            passes: Vec::new(),
            status: RegionRef { fragment, region: 0 },
            hoist: source::Hoist::default(),
            last_slot: None,
            partitions: false,
            first_step: 0,
            until: None,
        };
        l.status = l.region(Region {
            name: "status".to_owned(),
            bytes: STATUS_WORDS as u64 * 8,
            fill: Fill::Byte(0),
            lifetime: Lifetime::Output,
        });
        l
    }

    /// The fragment.
    pub(crate) fn fragment(&self) -> &'a Fragment {
        &self.graph.fragments[self.fragment]
    }

    fn program(self, tile_rows: u64, output: ProgramOutput) -> Program {
        let parts = self.parts;
        Program {
            module: crate::ir::Module {
                group: self.target.group,
                functions: parts.functions,
                kernels: parts.kernels,
            },
            regions: parts.regions,
            words: parts.words,
            launches: parts.launches,
            tables: parts.tables,
            faults: parts.faults,
            status: self.status,
            tile_rows,
            takes_chunks: true,
            output,
        }
    }

    /// Writes a kernel; its position.
    pub(crate) fn kernel(&mut self, name: &str, write: impl FnOnce(&mut Self) -> Lowered<()>) -> Lowered<usize> {
        let outer = std::mem::take(&mut self.b);
        self.b = Builder::new();
        let written = write(self);
        let builder = std::mem::replace(&mut self.b, outer);
        written?;
        let words = u32::try_from(self.parts.words.len()).unwrap_or(u32::MAX);
        self.parts.kernels.push(builder.kernel(name, words));
        Ok(self.parts.kernels.len() - 1)
    }

    /// Appends a launch.
    pub(crate) fn launch(&mut self, kernel: usize, groups: Groups, when: When) {
        self.parts.launches.push(Launch {
            kernel,
            groups,
            when,
            block: 0,
        });
    }

    /// Runs `inside` when the condition holds.
    pub(crate) fn when(&mut self, condition: Ir, inside: impl FnOnce(&mut Self) -> Lowered<()>) -> Lowered<()> {
        let then = self.block(inside)?;
        self.b.push(Stmt::If {
            condition,
            then,
            otherwise: Vec::new(),
        });
        Ok(())
    }

    /// Runs one of two.
    pub(crate) fn either(
        &mut self,
        condition: Ir,
        first: impl FnOnce(&mut Self) -> Lowered<()>,
        second: impl FnOnce(&mut Self) -> Lowered<()>,
    ) -> Lowered<()> {
        let then = self.block(first)?;
        let otherwise = self.block(second)?;
        self.b.push(Stmt::If {
            condition,
            then,
            otherwise,
        });
        Ok(())
    }

    /// Repeats until a break.
    pub(crate) fn repeat(&mut self, inside: impl FnOnce(&mut Self) -> Lowered<()>) -> Lowered<()> {
        let stmts = self.block(inside)?;
        self.b.push(Stmt::Loop(stmts));
        Ok(())
    }

    /// `for index in from, from + step … < end`: a variable of the bounds' type. Don't `continue` inside.
    pub(crate) fn range(
        &mut self,
        scalar: Scalar,
        (from, end, step): (Ir, Ir, Ir),
        inside: impl FnOnce(&mut Self, Ir) -> Lowered<()>,
    ) -> Lowered<()> {
        let index = self.b.set(scalar, from);
        self.repeat(|l| {
            l.b.when(Ir::from(index).ge(end), |b| b.push(Stmt::Break));
            inside(l, index.into())?;
            l.b.assign(index, Ir::from(index).plus(step));
            Ok(())
        })
    }

    /// The statements of `inside`, apart.
    pub(crate) fn block(&mut self, inside: impl FnOnce(&mut Self) -> Lowered<()>) -> Lowered<Vec<Stmt>> {
        self.b.begin();
        let written = inside(self);
        let stmts = self.b.end();
        written.map(|()| stmts)
    }

    /// A word of the block, as an expression of type U64; equal words share one.
    pub(crate) fn word(&mut self, word: Word) -> Ir {
        let position = self
            .parts
            .words
            .iter()
            .position(|other| *other == word)
            .unwrap_or_else(|| {
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

    /// A region's address, as an expression of type U64.
    pub(crate) fn base(&mut self, region: RegionRef) -> Ir {
        self.word(Word::Region(region, 0))
    }

    /// Notes a fault: sets its bit in the status. For work-items that reach this statement.
    pub(crate) fn fault(&mut self, fault: Fault) {
        let known = self.parts.faults.iter().position(|other| *other == fault);
        let bit = known.unwrap_or_else(|| {
            self.parts.faults.push(fault);
            self.parts.faults.len() - 1
        });
        let status = self.base(self.status);
        let target = Place::Arena(place(Elem::U64, status, u64(STATUS_FAULTS as u64)));
        // Beyond 64 different faults, which no fragment of sane size has, the last bit stands for the rest.
        self.b.atomic(target, Atomic::Or(u64(1 << bit.min(63))));
    }

    /// Notes that a table or output was too small, and what it would have needed at least.
    pub(crate) fn capacity_fault(&mut self, needed: Ir) {
        self.fault(Fault::Capacity);
        let status = self.base(self.status);
        let target = Place::Arena(place(Elem::U64, status, u64(STATUS_NEEDED as u64)));
        self.b.atomic(target, Atomic::Max(needed));
    }

    /// Notes that the fragment's table is larger than the device's cache. For one work-item.
    pub(crate) fn note_large(&mut self) {
        let status = self.base(self.status);
        let target = Place::Arena(place(Elem::U64, status, u64(STATUS_LARGE as u64)));
        self.b.atomic(target, Atomic::Store(u64(1)));
    }

    /// Notes that the build rows of a probe go through the remaining steps afterwards; `make` runs the first time that the
    /// step is lowered.
    pub(crate) fn pass(&mut self, step: usize, make: impl FnOnce(&mut Self) -> Lowered<Pass>) -> Lowered<Pass> {
        if let Some(pass) = self.passes.iter().find(|pass| pass.step == step) {
            return Ok(pass.clone());
        }
        let pass = make(self)?;
        self.passes.push(pass.clone());
        Ok(pass)
    }
}

type Load = Rc<dyn Fn(&mut Lowering<'_>) -> Lowered<Value>>;
