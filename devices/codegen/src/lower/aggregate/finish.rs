//! The last kernel: used slots become rows, and accumulators results.
//!
//! ```text
//!  slot ─used?─▶ place in the group of work-items ─▶ one atomic per group on the count ─▶ keys and results as columns
//! ```
//!
//! Averages, variances, and whether a sum fits its type are decided here, once per group.

use std::sync::Arc;

use super::best::Best;
use super::cells::{Cells, Register, Shared};
use super::plan::{Finish, Recipe};
use super::result::Slot;
use super::slots::Slots;
use super::table::Table;
use crate::build::{bool, place, u32, u64};
use crate::ir::{Atomic, Elem, Expr as Ir, Scalar, Stmt, Target, Var};
use crate::lower::{Lowered, Lowering, Value};
use crate::program::{Fill, Groups, Lifetime, ProgramOutput, Region, When, Word};
use crate::shape::{RegionRef, ResidentColumn, ResidentRows};

/// What is known when all rows have gone through.
pub(super) struct Finisher<'a> {
    pub(super) recipe: &'a Recipe,
    /// None: exactly one row.
    pub(super) table: Option<&'a Table>,
    pub(super) slots: Slots,
    /// From so many groups on the table is larger than the cache, and it is worth saying so.
    pub(super) large_from: Option<u64>,
    pub(super) bests: &'a [Best],
    /// No more rows than this.
    pub(super) rows: u64,
}

/// Slots that one work-item alone goes over.
const FEW_SLOTS: u64 = 1024;

impl Finisher<'_> {
    pub(super) fn finish(&self, l: &mut Lowering<'_>) -> Lowered<ProgramOutput> {
        let slots = self.table.map_or(1, Table::slots);
        let bound = slots.min(l.rows_bound().unwrap_or(u64::MAX)).max(1);
        let count = l.region(Region {
            name: "group count".to_owned(),
            bytes: 8,
            fill: Fill::Byte(0),
            lifetime: Lifetime::Output,
        });
        let mut columns = None;
        let kernel = l.kernel("finish", |l| match self.table {
            None => self.only(l, count, &mut columns),
            Some(table) => self.each(l, table, (count, bound), &mut columns),
        })?;
        let groups = if slots <= FEW_SLOTS {
            Groups::One
        } else {
            Groups::Rows(slots)
        };
        l.launch(kernel, groups, When::After);
        Ok(ProgramOutput::Rows(ResidentRows {
            columns: columns.unwrap_or_default(),
            count,
            bound,
        }))
    }

    fn only(&self, l: &mut Lowering<'_>, count: RegionRef, columns: &mut Option<Vec<ResidentColumn>>) -> Lowered<()> {
        l.when(Ir::LocalIndex.eq(u32(0)), |l| {
            let shared = self.slots.shared(l, u64(0));
            let words = (0..self.recipe.words).map(|at| l.b.set(Scalar::U64, shared.word(at)));
            let words: Vec<Var> = words.collect();
            let values = self.results(l, &words)?;
            store(l, columns, &values, &u64(0), 1)?;
            let count = l.base(count);
            l.b.store(place(Elem::U64, count, u64(0)), u64(1));
            Ok(())
        })
    }

    fn each(
        &self,
        l: &mut Lowering<'_>,
        table: &Table,
        (count, bound): (RegionRef, u64),
        columns: &mut Option<Vec<ResidentColumn>>,
    ) -> Lowered<()> {
        let group = u64::from(l.target.group);
        let slots = l.word(Word::Value(table.slots()));
        let first = Ir::GroupIndex.to(Scalar::U64).times(u64(group));
        let step = Ir::Groups.to(Scalar::U64).times(u64(group));
        let mut place = Places::new(l, count, self.large_from);
        l.range(Scalar::U64, (first, slots.clone(), step), |l, start| {
            let slot = l.b.set(Scalar::U64, start.plus(Ir::LocalIndex.to(Scalar::U64)));
            let used = l.b.set(Scalar::Bool, bool(false));
            let words: Vec<Var> = (0..self.recipe.words).map(|_| l.b.var(Scalar::U64)).collect();
            l.when(Ir::from(slot).lt(slots.clone()), |l| {
                let shared = self.slots.shared(l, slot.into());
                l.b.assign(words[0], shared.word(0));
                if self.slots.copies > 1 {
                    self.read(l, &shared, &words);
                    self.fold_copies(l, slot, &words)?;
                }
                l.b.assign(used, Ir::from(words[0]).ne(u64(0)));
                Ok(())
            })?;
            let index = place.of(l, used);
            l.when(used.into(), |l| {
                if self.slots.copies == 1 {
                    let shared = self.slots.shared(l, slot.into());
                    self.read(l, &shared, &words);
                }
                let mut values = table.key(l, slot.into());
                values.extend(self.results(l, &words)?);
                store(l, columns, &values, &index, bound)
            })
        })
    }

    /// All words but the first.
    fn read(&self, l: &mut Lowering<'_>, shared: &Shared, words: &[Var]) {
        for (at, word) in (0..).zip(words).skip(1) {
            l.b.assign(*word, shared.word(at));
        }
    }

    fn fold_copies(&self, l: &mut Lowering<'_>, slot: Var, words: &[Var]) -> Lowered<()> {
        let cells = Cells::Registers(words.iter().map(|word| Register::Word(*word)).collect());
        l.range(Scalar::U64, (u64(1), u64(self.slots.copies), u64(1)), |l, copy| {
            let other = Cells::Shared(self.slots.copy(l, slot.into(), copy));
            cells.fold_all(l, &other, &self.recipe.primitives)
        })
    }

    /// The aggregates of a slot.
    fn results(&self, l: &mut Lowering<'_>, words: &[Var]) -> Lowered<Vec<Value>> {
        let slot = Slot {
            recipe: self.recipe,
            words,
            rows: self.rows,
            bests: self.bests,
        };
        let finishes = self.recipe.finishes.iter();
        finishes
            .map(|(finish, data_type): &(Finish, _)| slot.result(l, finish, data_type))
            .collect()
    }
}

/// Stores a row; makes the columns for it if there are none yet.
fn store(
    l: &mut Lowering<'_>,
    columns: &mut Option<Vec<ResidentColumn>>,
    values: &[Value],
    index: &Ir,
    bound: u64,
) -> Lowered<()> {
    if columns.is_none() {
        let made = values.iter().enumerate();
        let made = made
            .map(|(position, value)| l.resident_column(&format!("result {position}"), value, bound, Lifetime::Output));
        *columns = Some(made.collect());
    }
    let columns = columns.as_deref().unwrap_or_default();
    for (column, value) in columns.iter().zip(values) {
        l.store_value(column, value, index)?;
    }
    Ok(())
}

/// Numbers those work-items of a group that have something, tile by tile.
struct Places {
    /// U32: how many of this tile.
    taken: crate::ir::LocalId,
    /// U64: where they begin.
    start: crate::ir::LocalId,
    count: Ir,
    /// See [`Finisher::large_from`].
    large_from: Option<u64>,
}

impl Places {
    fn new(l: &mut Lowering<'_>, count: RegionRef, large_from: Option<u64>) -> Self {
        Self {
            taken: l.b.local(Elem::U32, 1),
            start: l.b.local(Elem::U64, 1),
            count: l.base(count),
            large_from,
        }
    }

    /// U64: the number, where `has`. In uniform flow.
    fn of(&mut self, l: &mut Lowering<'_>, has: Var) -> Ir {
        let leader = Ir::LocalIndex.eq(u32(0));
        let (taken, start) = (self.taken, self.start);
        l.b.when(leader.clone(), |b| b.push(Stmt::StoreLocal(taken, u32(0), u32(0))));
        l.b.push(Stmt::Barrier);
        let mine = l.b.set(Scalar::U32, u32(0));
        l.b.when(has.into(), |b| {
            let old = b.fetch(Scalar::U32, Target::Local(taken, u32(0)), Atomic::Add(u32(1)));
            b.assign(mine, old.into());
        });
        l.b.push(Stmt::Barrier);
        let target = Target::Arena(place(Elem::U64, self.count.clone(), u64(0)));
        l.b.begin();
        let rows = l.b.set(Scalar::U32, Ir::LoadLocal(taken, Box::new(u32(0))));
        let rows = l.b.set(Scalar::U64, Ir::from(rows).to(Scalar::U64));
        let old = l.b.fetch(Scalar::U64, target, Atomic::Add(rows.into()));
        l.b.push(Stmt::StoreLocal(start, u32(0), old.into()));
        if let Some(most) = self.large_from {
            // Whose groups are those that are too many says so.
            let most = l.word(Word::Value(most));
            l.b.begin();
            l.note_large();
            let then = l.b.end();
            l.b.push(Stmt::If {
                condition: Ir::from(old)
                    .le(most.clone())
                    .and(Ir::from(old).plus(rows.into()).gt(most)),
                then,
                otherwise: Vec::new(),
            });
        }
        let then = l.b.end();
        l.b.push(Stmt::If {
            condition: leader,
            then,
            otherwise: Vec::new(),
        });
        l.b.push(Stmt::Barrier);
        let start = Ir::LoadLocal(start, Box::new(u32(0)));
        let index = start.plus(Ir::from(mine).to(Scalar::U64));
        l.b.set(Scalar::U64, index).into()
    }
}

/// A table of the codes by rank, as content to upload.
pub(super) fn codes_by_rank(dictionary: &trireme_device_api::Dictionary) -> Arc<[u8]> {
    let ranks = dictionary.ranks();
    let mut codes = vec![0_u32; ranks.len().max(1)];
    for (code, rank) in (0_u32..).zip(ranks.iter()) {
        if let Some(place) = codes.get_mut(*rank as usize) {
            *place = code;
        }
    }
    let bytes: Vec<u8> = codes.iter().flat_map(|code| code.to_ne_bytes()).collect();
    bytes.into()
}
