//! Runs of rows of one key: a work-item keeps the last row's slot and its words in registers while rows of that key follow.
//!
//! ```text
//!  rows of a work-item, neighbours in the source    a a a a b b c …
//!                                                   └─────┘ └─┘      found once, folded in registers, then where slots are
//! ```
//!
//! Only where keys are thought to stand together ([`crate::shape::ColumnShape::clustered`]): elsewhere each row would be a run.

use trireme_device_api::{Expr, JoinKind, Sink as SinkPlan, Step};

use super::cache::Cache;
use super::cells::{Cells, Register};
use super::plan::Primitive;
use super::slots::Slots;
use super::table::{Found, Named, Table};
use crate::build::{bool, u64};
use crate::ir::{Expr as Ir, Scalar, Var};
use crate::lower::{Lowered, Lowering};

/// Words of a slot that registers hold at most.
const WORDS_MAX: u32 = 16;

/// The run that a work-item is in.
pub(super) struct Run {
    /// Bool: it is in one.
    open: Var,
    /// U64.
    slot: Var,
    /// U64 each; none where the slot says it all.
    key: Vec<Var>,
    registers: Vec<Register>,
}

/// Whether rows whose groups are equal are thought to stand together, and a slot's words fit registers.
pub(super) fn worth(l: &Lowering<'_>, groups: &[Expr], words: u32) -> bool {
    let mut columns = l.clustered_columns();
    for step in &l.fragment().steps {
        match step {
            Step::Filter(_) => {}
            Step::Project(exprs) => columns = exprs.iter().map(|expr| steady(&columns, expr)).collect(),
            Step::Probe(probe) => {
                let built = match &l.graph.fragments[probe.build].sink {
                    SinkPlan::Build(side) => side.payload.len(),
                    _ => 0,
                };
                // A row has one match at most: its columns are as steady as its key.
                let keys = probe.keys.iter().all(|key| steady(&columns, key)) && !l.multiplies();
                match probe.kind {
                    JoinKind::Semi | JoinKind::Anti => {}
                    JoinKind::Mark => columns.push(keys),
                    JoinKind::BuildSemi | JoinKind::BuildAnti => return false,
                    JoinKind::Inner | JoinKind::Left | JoinKind::BuildOuter | JoinKind::Full => {
                        columns.extend(std::iter::repeat_n(keys, built));
                    }
                }
            }
        }
    }
    let mut keys = groups.iter().filter(|group| !group.columns().is_empty()).peekable();
    words <= WORDS_MAX && keys.peek().is_some() && keys.all(|key| steady(&columns, key))
}

/// The expression stays the same while these columns do.
fn steady(columns: &[bool], expr: &Expr) -> bool {
    expr.columns()
        .into_iter()
        .all(|index| columns.get(index).copied().unwrap_or(false))
}

impl Run {
    /// At the start of a kernel.
    pub(super) fn begin(l: &mut Lowering<'_>, table: &Table, primitives: &[Primitive]) -> Self {
        let rows = l.rows_of_one();
        let registers = primitives.iter().flat_map(|primitive| Register::of(l, primitive, rows));
        let registers = registers.collect();
        Self {
            open: l.b.set(Scalar::Bool, bool(false)),
            slot: l.b.set(Scalar::U64, u64(0)),
            key: (0..table.key_words()).map(|_| l.b.set(Scalar::U64, u64(0))).collect(),
            registers,
        }
    }

    /// Where rows of the run are folded into.
    pub(super) fn cells(&self) -> Cells {
        Cells::Registers(self.registers.clone())
    }

    /// The slot of a key, which is the run's from now on; `close` folds what the run has held so far into a slot (U64).
    pub(super) fn follow(
        &self,
        l: &mut Lowering<'_>,
        table: &Table,
        named: &Named,
        close: impl FnOnce(&mut Lowering<'_>, &Ir) -> Lowered<()>,
    ) -> Lowered<Found> {
        let words: Vec<Ir> = self.key.iter().map(|word| Ir::from(*word)).collect();
        let same = named.same(l, &self.slot.into(), &words);
        let same = l.b.set(Scalar::Bool, Ir::from(self.open).and(same));
        l.when(Ir::from(same).not(), |l| {
            l.when(self.open.into(), |l| {
                close(l, &self.slot.into())?;
                let cells = self.cells();
                primitive_words(&self.registers).for_each(|at| cells.clear(l, at));
                Ok(())
            })?;
            let found = table.find_named(l, named)?;
            l.b.assign(self.slot, found.slot);
            l.b.assign(self.open, found.found.unwrap_or(bool(true)));
            for (word, value) in self.key.iter().zip(named.words()) {
                l.b.assign(*word, value);
            }
            Ok(())
        })?;
        Ok(Found {
            slot: self.slot.into(),
            found: Some(self.open.into()),
            new: bool(false),
        })
    }

    /// At the end of a kernel: folds what is held into its slot in the arena.
    pub(super) fn end(self, l: &mut Lowering<'_>, slots: Slots, primitives: &[Primitive]) -> Lowered<()> {
        l.when(self.open.into(), |l| {
            let shared = slots.own(l, self.slot.into());
            self.cells().flush(l, &shared, primitives)
        })
    }
}

/// Folds private cells into a slot (U64): where the cache has it, else in the arena.
pub(super) fn put(
    l: &mut Lowering<'_>,
    (slots, cache): (Slots, Option<&Cache>),
    slot: &Ir,
    cells: &Cells,
    primitives: &[Primitive],
) -> Lowered<()> {
    let Some(cache) = cache else {
        let shared = slots.own(l, slot.clone());
        return cells.flush(l, &shared, primitives);
    };
    let (hit, cached) = cache.find(l, slot);
    l.either(
        hit,
        |l| cached.take(l, cells, primitives),
        |l| {
            let shared = slots.own(l, slot.clone());
            cells.flush(l, &shared, primitives)
        },
    )
}

fn primitive_words(registers: &[Register]) -> impl Iterator<Item = u32> {
    (0..).take(registers.len())
}
