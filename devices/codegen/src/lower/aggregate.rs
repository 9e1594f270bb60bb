//! Groups and aggregates.
//!
//! ```text
//!  row ─key─▶ slot ─▶ for each FILTER: arguments ─▶ shares ─▶ fold into the slot's words
//!
//!  no groups, few words     registers                 reduced in local memory at the end of the kernel, then atomics
//!  few slots                local memory, private     likewise
//!  a slot per key, hashed   arena                     atomics; a few slots in local memory; a run of rows of one key in registers
//! ```
//!
//! Everything that tables and words depend on is known before the first kernel is written: the fragment is lowered once with
//! a sink that only looks at its rows' shapes. DISTINCT is a set of (slot, value) pairs beside the groups: the row that
//! brings a pair adds its value to the slot, so that one kernel does for all.

mod best;
mod cache;
mod cells;
mod finish;
mod fold;
mod known;
mod plan;
mod radix;
mod reduce;
mod result;
mod run;
mod slots;
mod table;
mod terms;
#[cfg(test)]
mod tests;

use trireme_device_api::{Aggregate, Expr};

use super::partition::Large;
use super::{Lowered, Lowering, ProgramOutput, Row, Sink, Unsupported, Value};
use crate::build::{u32, u64};
use crate::ir::{Elem, Expr as Ir, LocalId, Scalar, Stmt};
use best::Best;
use cache::Cache;
use cells::{Cells, Register, Shared};
use finish::Finisher;
use fold::Share;
use known::Known;
use plan::{Primitive, Recipe, Source};
use run::Run;
use slots::{Slots, slot_value};
use table::{Found, Table};
use terms::Terms;

/// Words in registers at most, and slots.
const REGISTERS_MAX: u64 = 48;
const REGISTER_SLOTS_MAX: u64 = 8;
/// Share of a group's local memory that accumulators may take.
const LOCAL_SHARE: u64 = 2;

/// The sink of groups and aggregates.
pub(super) fn sink(l: &mut Lowering<'_>, groups: &[Expr], aggregates: &[Aggregate]) -> Lowered<Box<dyn Sink>> {
    let terms = Terms::new(groups, aggregates);
    let (groups, arguments) = terms.known(l)?;
    Ok(Box::new(Grouping::new(l, terms, &groups, arguments, aggregates)?))
}

/// Where rows are accumulated while a kernel runs.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Home {
    Registers { slots: u64 },
    Local { slots: u64 },
    Arena,
}

/// The values of an argument under a filter that groups have seen.
struct Set {
    argument: usize,
    filter: Option<usize>,
    table: Table,
}

/// The sink.
struct Grouping {
    terms: Terms,
    recipe: Recipe,
    arguments: Vec<Known>,
    /// None: one slot for all rows.
    table: Option<Table>,
    slots: Slots,
    /// The table, where rows are put in order for it.
    large: Option<Large>,
    /// Rows of a key are thought to stand together.
    runs: bool,
    sets: Vec<Set>,
    bests: Vec<Best>,
    home: Home,
    /// Of the kernel that is being written: by slot and word.
    registers: Vec<Vec<Register>>,
    local: Option<LocalId>,
    cache: Option<Cache>,
    run: Option<Run>,
}

/// The slot of the current row.
struct Place {
    /// U64.
    slot: Ir,
    /// In the first copy, which says what all copies share.
    first: Shared,
    shared: Shared,
    held: Held,
}

/// Who folds for a slot before the arena does.
enum Held {
    Nobody,
    /// The cache is to be asked.
    Asked,
    /// The cache, where it has the slot (Bool).
    Cached(Ir, Cells),
    /// The work-item's run.
    Run(Cells),
}

impl Grouping {
    fn new(
        l: &mut Lowering<'_>,
        terms: Terms,
        groups: &[Known],
        arguments: Vec<Known>,
        aggregates: &[Aggregate],
    ) -> Lowered<Self> {
        let sources: Vec<(Aggregate, Source<'_>)> = aggregates
            .iter()
            .zip(&terms.uses)
            .map(|(aggregate, (argument, filter))| {
                let argument = argument.map(|argument| (argument, &arguments[argument]));
                let filter = *filter;
                (aggregate.clone(), Source { argument, filter })
            })
            .collect();
        let recipe = Recipe::new(&sources, !terms.groups.is_empty(), l.rows_bound())?;
        let words = u64::from(recipe.words);
        let (table, slots) = if terms.groups.is_empty() {
            (None, Slots::one(l, words))
        } else {
            let (table, slots) = Table::groups(l, groups, words)?;
            (Some(table), slots)
        };
        let home = home(l, table.as_ref(), words);
        let runs = home == Home::Arena && run::worth(l, &terms.groups, recipe.words);
        // Rows in another order would have no runs, and those that stand together need none.
        let large = table.as_ref().filter(|_| !runs);
        let large = large.and_then(|table| table.large(l, words));
        let bests = recipe.bests.iter().map(|wanted| Best::new(l, wanted.clone())).collect();
        let mut grouping = Self {
            bests,
            terms,
            recipe,
            arguments,
            table,
            slots,
            large,
            runs,
            sets: Vec::new(),
            home,
            registers: Vec::new(),
            local: None,
            cache: None,
            run: None,
        };
        grouping.make_sets(l)?;
        Ok(grouping)
    }

    fn make_sets(&mut self, l: &mut Lowering<'_>) -> Lowered<()> {
        for primitive in &self.recipe.primitives {
            let Some(argument) = primitive.argument.filter(|_| primitive.distinct) else {
                continue;
            };
            let filter = primitive.filter;
            if self.set(argument, filter).is_none() {
                let slots = self.table.as_ref().map(Table::slots);
                let table = Table::set(l, slots, &self.arguments[argument])?;
                self.sets.push(Set {
                    argument,
                    filter,
                    table,
                });
            }
        }
        Ok(())
    }

    fn set(&self, argument: usize, filter: Option<usize>) -> Option<&Set> {
        let mut sets = self.sets.iter();
        sets.find(|set| (set.argument, set.filter) == (argument, filter))
    }

    /// Primitives of this filter, by argument and whether only new values count; counts of rows come first.
    fn batches(&self, filter: Option<usize>) -> Vec<(Option<usize>, bool, Vec<Primitive>)> {
        let mut batches: Vec<(Option<usize>, bool, Vec<Primitive>)> = Vec::new();
        for primitive in self.recipe.primitives.iter().filter(|one| one.filter == filter) {
            let wanted = (primitive.argument, primitive.distinct);
            match batches.iter_mut().find(|batch| (batch.0, batch.1) == wanted) {
                Some(batch) => batch.2.push(primitive.clone()),
                None => batches.push((wanted.0, wanted.1, vec![primitive.clone()])),
            }
        }
        batches
    }

    /// Folds the values of a row that passes the filter into its slot.
    fn apply(
        &self,
        l: &mut Lowering<'_>,
        filter: Option<usize>,
        values: &[Option<Value>],
        place: &Place,
    ) -> Lowered<()> {
        let mut always = Vec::new();
        for (argument, distinct, primitives) in self.batches(filter) {
            let value = argument.and_then(|argument| values[argument].as_ref());
            if value.is_some_and(|value| matches!(value.shape.kind, super::Kind::Null)) {
                continue;
            }
            let null = value.and_then(|value| value.null.clone());
            if null.is_none() && !distinct {
                for primitive in &primitives {
                    always.extend(Share::new(l, primitive, value)?);
                }
                continue;
            }
            let valid = |l: &mut Lowering<'_>| {
                let set = argument
                    .filter(|_| distinct)
                    .and_then(|argument| self.set(argument, filter));
                match (set, value) {
                    (Some(set), Some(value)) => self.when_new(l, set, value, place, &primitives),
                    _ => {
                        let shares = shares(l, &primitives, value)?;
                        self.fold(l, &shares, place)
                    }
                }
            };
            match null {
                Some(null) => l.when(null.not(), valid)?,
                None => valid(l)?,
            }
        }
        self.fold(l, &always, place)
    }

    fn when_new(
        &self,
        l: &mut Lowering<'_>,
        set: &Set,
        value: &Value,
        place: &Place,
        primitives: &[Primitive],
    ) -> Lowered<()> {
        let mut key: Vec<Value> = Vec::new();
        if let Some(table) = &self.table {
            let mut slot = slot_value(table.slots(), place.slot.clone());
            slot.ir = l.b.set(scalar_of(&slot), slot.ir).into();
            key.push(slot);
        }
        key.push(Value {
            null: None,
            ..value.clone()
        });
        let found = set.table.find(l, &key)?;
        l.when(found.new, |l| {
            let shares = shares(l, primitives, Some(value))?;
            self.fold(l, &shares, place)
        })
    }

    /// The slot of a key, and who folds for it.
    fn find(&self, l: &mut Lowering<'_>, table: &Table, keys: &[Value]) -> Lowered<(Found, Held)> {
        let named = table.named(l, keys)?;
        if let Some(run) = &self.run {
            let found = run.follow(l, table, &named, |l, slot| {
                let into = (self.slots, self.cache.as_ref());
                run::put(l, into, slot, &run.cells(), &self.recipe.primitives)
            })?;
            return Ok((found, Held::Run(run.cells())));
        }
        let Some(cache) = &self.cache else {
            return Ok((table.find_named(l, &named)?, Held::Nobody));
        };
        if let Some((found, hit, cells)) = cache.find_keyed(l, table, &named)? {
            return Ok((found, Held::Cached(hit, cells)));
        }
        Ok((table.find_named(l, &named)?, Held::Asked))
    }

    fn fold(&self, l: &mut Lowering<'_>, shares: &[Share], place: &Place) -> Lowered<()> {
        let into = |l: &mut Lowering<'_>, cells: &Cells| {
            let mut shares = shares.iter();
            shares.try_for_each(|share| share.fold(l, cells, &place.first))
        };
        if shares.is_empty() {
            return Ok(());
        }
        match self.home {
            Home::Registers { .. } => {
                let small = place.slot.clone().to(Scalar::U32);
                for (slot, words) in (0..).zip(&self.registers) {
                    let cells = Cells::Registers(words.clone());
                    if self.registers.len() == 1 {
                        into(l, &cells)?;
                    } else {
                        l.when(small.clone().eq(u32(slot)), |l| into(l, &cells))?;
                    }
                }
                Ok(())
            }
            Home::Local { .. } => {
                let first = self.private(l, place.slot.clone().to(Scalar::U32));
                into(l, &self.local_cells(l, first))
            }
            Home::Arena => {
                let arena = Cells::Shared(place.shared.clone());
                match &place.held {
                    Held::Nobody | Held::Asked => into(l, &arena),
                    Held::Cached(hit, cached) => l.either(hit.clone(), |l| into(l, cached), |l| into(l, &arena)),
                    Held::Run(cells) => into(l, cells),
                }
            }
        }
    }

    /// U32: the first word of a slot (U32) in this work-item's column of local memory.
    fn private(&self, l: &mut Lowering<'_>, slot: Ir) -> Ir {
        let group = l.target.group;
        let first = slot.times(u32(self.recipe.words * group)).plus(Ir::LocalIndex);
        l.b.set(Scalar::U32, first).into()
    }

    fn local_cells(&self, l: &Lowering<'_>, first: Ir) -> Cells {
        Cells::Local {
            array: self.local.unwrap_or(LocalId(0)),
            first,
            stride: l.target.group,
        }
    }

    fn slots_at_home(&self) -> u64 {
        match self.home {
            Home::Registers { slots } | Home::Local { slots } => slots,
            Home::Arena => 0,
        }
    }
}

fn scalar_of(value: &Value) -> Scalar {
    match value.shape.kind {
        super::Kind::Integer(lane) => lane,
        _ => Scalar::U64,
    }
}

fn shares(l: &mut Lowering<'_>, primitives: &[Primitive], value: Option<&Value>) -> Lowered<Vec<Share>> {
    let mut all = Vec::new();
    for primitive in primitives {
        all.extend(Share::new(l, primitive, value)?);
    }
    Ok(all)
}

/// Offers the row to those that look for the best one under this filter.
fn offer(l: &mut Lowering<'_>, bests: &mut [Best], row: &mut Row, filter: Option<usize>, place: &Place) -> Lowered<()> {
    let mut bests = bests.iter_mut().filter(|best| best.wanted.filter == filter);
    bests.try_for_each(|best| best.row(l, row, &place.first))
}

fn home(l: &Lowering<'_>, table: Option<&Table>, words: u64) -> Home {
    let Some(table) = table else {
        return Home::Registers { slots: 1 };
    };
    let slots = table.slots();
    let column = slots.saturating_mul(words);
    if !table.dense() {
        return Home::Arena;
    }
    if slots == 1 || l.target.wide && slots <= REGISTER_SLOTS_MAX && column <= REGISTERS_MAX {
        return Home::Registers { slots };
    }
    let bytes = column.saturating_mul(u64::from(l.target.group) * 8);
    if bytes <= u64::from(l.target.local_bytes) / LOCAL_SHARE {
        Home::Local { slots }
    } else {
        Home::Arena
    }
}

impl Sink for Grouping {
    fn in_runs(&self) -> bool {
        self.runs
    }

    fn large(&self) -> Option<Large> {
        self.large
    }

    fn hash(&mut self, l: &mut Lowering<'_>, row: &mut Row) -> Lowered<Ir> {
        let keys = self.terms.keys(l, row)?;
        match &self.table {
            Some(table) => table.hash(l, &keys),
            None => Err(Unsupported("rows without groups".to_owned())),
        }
    }

    fn begin(&mut self, l: &mut Lowering<'_>) -> Lowered<()> {
        self.table.iter_mut().for_each(|table| table.begin(l));
        self.sets.iter_mut().for_each(|set| set.table.begin(l));
        self.bests.iter_mut().for_each(|best| best.begin(l));
        self.registers.clear();
        match self.home {
            Home::Registers { slots } => {
                let rows = l.rows_of_one();
                for _ in 0..slots {
                    let primitives = self.recipe.primitives.iter();
                    let words = primitives.flat_map(|primitive| Register::of(l, primitive, rows));
                    self.registers.push(words.collect());
                }
            }
            Home::Local { slots } => {
                let cells = u32::try_from(slots).unwrap_or(u32::MAX) * self.recipe.words;
                let group = l.target.group;
                let array = l.b.local(Elem::U64, cells * group);
                self.local = Some(array);
                l.b.range(
                    Scalar::U32,
                    Ir::LocalIndex,
                    u32(cells * group),
                    u32(group),
                    |b, cell| {
                        b.push(Stmt::StoreLocal(array, cell.into(), u64(0)));
                    },
                );
            }
            Home::Arena => {
                self.cache = Cache::begin(l, self.table.as_ref(), self.recipe.words, !self.runs);
                let table = self.table.as_ref().filter(|_| self.runs);
                self.run = table.map(|table| Run::begin(l, table, &self.recipe.primitives));
            }
        }
        Ok(())
    }

    fn row(&mut self, l: &mut Lowering<'_>, row: &mut Row) -> Lowered<()> {
        let keys = self.terms.keys(l, row)?;
        let values = self.terms.arguments(l, row, None)?;
        let (slot, found, held) = match &self.table {
            None => (u64(0), None, Held::Nobody),
            Some(table) => {
                let (found, held) = self.find(l, table, &keys)?;
                (found.slot, found.found, held)
            }
        };
        let mut bests = std::mem::take(&mut self.bests);
        let rest = |l: &mut Lowering<'_>| {
            let first = self.slots.shared(l, slot.clone());
            let shared = match self.home {
                Home::Arena if self.slots.copies > 1 && self.run.is_none() => self.slots.own(l, slot.clone()),
                _ => first.clone(),
            };
            // Asked where there is a slot: entries that are taken are folded into it.
            let held = match (held, &self.cache) {
                (Held::Asked, Some(cache)) => {
                    let (hit, cells) = cache.find(l, &slot);
                    Held::Cached(hit, cells)
                }
                (held, _) => held,
            };
            let place = Place {
                slot,
                first,
                shared,
                held,
            };
            self.apply(l, None, &values, &place)?;
            offer(l, &mut bests, row, None, &place)?;
            for (index, filter) in self.terms.filters.iter().enumerate() {
                let condition = l.condition(row, filter)?;
                let mut inner = row.clone();
                l.when(condition, |l| {
                    let values = self.terms.arguments(l, &mut inner, Some(index))?;
                    self.apply(l, Some(index), &values, &place)?;
                    offer(l, &mut bests, &mut inner, Some(index), &place)
                })?;
            }
            Ok(())
        };
        match found {
            Some(found) => l.when(found, rest)?,
            None => rest(l)?,
        }
        self.bests = bests;
        Ok(())
    }

    fn slot_end(&mut self, _: &mut Lowering<'_>) -> Lowered<()> {
        Ok(())
    }

    fn end(&mut self, l: &mut Lowering<'_>) -> Lowered<()> {
        match self.home {
            Home::Registers { .. } => self.flush_registers(l),
            Home::Local { .. } => self.flush_local(l),
            Home::Arena => {
                if let Some(run) = self.run.take() {
                    run.end(l, self.slots, &self.recipe.primitives)?;
                }
                match self.cache.take() {
                    Some(cache) => cache.flush(l, self.slots, &self.recipe.primitives),
                    None => Ok(()),
                }
            }
        }
    }

    fn finish(&mut self, l: &mut Lowering<'_>) -> Lowered<ProgramOutput> {
        let rows = l.rows_bound().unwrap_or(plan::ROWS_MAX);
        let finisher = Finisher {
            recipe: &self.recipe,
            table: self.table.as_ref(),
            slots: self.slots,
            large_from: self
                .table
                .as_ref()
                .filter(|_| !self.runs)
                .and_then(|table| table.large_from(l, u64::from(self.recipe.words))),
            bests: &self.bests,
            rows,
        };
        finisher.finish(l)
    }
}
