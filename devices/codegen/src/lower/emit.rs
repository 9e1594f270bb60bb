//! Rows kept as they come, in any order.
//!
//! ```text
//!  no row becomes several:  place in the group (atomic, local) ─▶ the group's place (one atomic) ─▶ store
//!  probes multiply:         a place per row (one atomic each) ─▶ store, if there is room
//! ```
//!
//! Where the count may exceed what is kept (LIMIT, OFFSET, a guessed capacity) a last kernel cuts it.

use super::{Lowered, Lowering, Row, Sink, Value};
use crate::build::{bool, place, u32, u64};
use crate::ir::{Atomic, Elem, Expr as Ir, LocalId, Scalar, Stmt, Target, Var};
use crate::program::{Fill, Groups, Lifetime, ProgramOutput, Region, When};
use crate::shape::{RegionRef, ResidentColumn, ResidentRows};

/// The sink that keeps rows as they come.
pub(super) fn sink(l: &mut Lowering<'_>, limit: Option<usize>, offset: usize) -> Lowered<Box<dyn Sink>> {
    let exact = l.rows_bound().is_some();
    let most = limit.map_or(u64::MAX, |limit| limit as u64);
    let mut store = RowStore::new(l, "output", l.rows_guess().min(most).max(1), Lifetime::Output);
    if l.has_passes()
        && let Some(values) = l.look(&|l, row| l.values(row))?
    {
        store.make(l, &values);
    }
    Ok(Box::new(Emit {
        most,
        offset: offset as u64,
        exact,
        store,
    }))
}

struct Emit {
    /// Rows to keep.
    most: u64,
    /// Rows to leave out.
    offset: u64,
    /// No more rows arrive than there is room for.
    exact: bool,
    store: RowStore,
}

impl Emit {
    fn cuts(&self) -> bool {
        !self.exact || self.offset > 0 || self.most < u64::MAX
    }
}

impl Sink for Emit {
    fn begin(&mut self, l: &mut Lowering<'_>) -> Lowered<()> {
        self.store.begin(l)
    }

    fn row(&mut self, l: &mut Lowering<'_>, row: &mut Row) -> Lowered<()> {
        let values = l.values(row)?;
        let (offset, cuts) = (self.offset, self.cuts());
        self.store.row(l, values, offset, cuts)
    }

    fn slot_end(&mut self, l: &mut Lowering<'_>) -> Lowered<()> {
        let (offset, cuts) = (self.offset, self.cuts());
        self.store.slot_end(l, offset, cuts)
    }

    fn end(&mut self, _: &mut Lowering<'_>) -> Lowered<()> {
        self.store.end();
        Ok(())
    }

    fn finish(&mut self, l: &mut Lowering<'_>) -> Lowered<ProgramOutput> {
        if self.cuts() {
            let (most, offset) = (self.most, self.offset);
            self.store.cut(l, offset, most)?;
        }
        Ok(ProgramOutput::Rows(self.store.rows()))
    }
}

/// What else is done with a row, where it is stored.
pub(super) type Then<'t> = &'t mut dyn FnMut(&mut Lowering<'_>, &Ir) -> Lowered<()>;

/// Resident rows that a kernel appends to.
pub(super) struct RowStore {
    name: &'static str,
    lifetime: Lifetime,
    /// A u64: rows that arrived; behind [`RowStore::cut`] those that are kept.
    pub(super) count: RegionRef,
    pub(super) capacity: u64,
    /// Made when the first row arrives.
    pub(super) columns: Option<Vec<ResidentColumn>>,
    slot: Option<SlotState>,
}

/// The row of a slot that waits for its place.
struct SlotState {
    /// U32: rows of the group in this slot.
    count: LocalId,
    /// U64: where they go.
    base: LocalId,
    /// Bool: this work-item has a row.
    passed: Var,
    /// U32: its place in the group.
    place: Var,
    values: Vec<Value>,
}

impl RowStore {
    pub(super) fn new(l: &mut Lowering<'_>, name: &'static str, capacity: u64, lifetime: Lifetime) -> Self {
        let count = l.region(Region {
            name: format!("{name} count"),
            bytes: 8,
            fill: Fill::Byte(0),
            lifetime,
        });
        Self {
            name,
            lifetime,
            count,
            capacity,
            columns: None,
            slot: None,
        }
    }

    /// Makes the columns, for values of these shapes.
    pub(super) fn make(&mut self, l: &mut Lowering<'_>, values: &[Value]) {
        let columns = values.iter().enumerate();
        let columns = columns.map(|(index, value)| {
            l.resident_column(&format!("{} {index}", self.name), value, self.capacity, self.lifetime)
        });
        self.columns = Some(columns.collect());
    }

    pub(super) fn begin(&mut self, l: &mut Lowering<'_>) -> Lowered<()> {
        self.slot = None;
        if l.multiplies() {
            return Ok(());
        }
        let count = l.b.local(Elem::U32, 1);
        let base = l.b.local(Elem::U64, 1);
        l.b.when(Ir::LocalIndex.eq(u32(0)), |b| {
            b.push(Stmt::StoreLocal(count, u32(0), u32(0)))
        });
        l.b.push(Stmt::Barrier);
        self.slot = Some(SlotState {
            count,
            base,
            passed: l.b.set(Scalar::Bool, bool(false)),
            place: l.b.set(Scalar::U32, u32(0)),
            values: Vec::new(),
        });
        Ok(())
    }

    /// Takes a row. The first `offset` are left out; with `cuts` the capacity may be exceeded.
    pub(super) fn row(&mut self, l: &mut Lowering<'_>, values: Vec<Value>, offset: u64, cuts: bool) -> Lowered<()> {
        self.row_then(l, values, offset, cuts, &mut |_, _| Ok(()))
    }

    /// As [`RowStore::row`]; where the row is stored at once, `then` gets its place (U64).
    pub(super) fn row_then(
        &mut self,
        l: &mut Lowering<'_>,
        values: Vec<Value>,
        offset: u64,
        cuts: bool,
        then: Then<'_>,
    ) -> Lowered<()> {
        if self.columns.is_none() {
            self.make(l, &values);
        }
        if let Some(slot) = &mut self.slot {
            let target = Target::Local(slot.count, u32(0));
            let old = l.b.fetch(Scalar::U32, target, Atomic::Add(u32(1)));
            l.b.assign(slot.place, old.into());
            l.b.assign(slot.passed, bool(true));
            slot.values = values;
            return Ok(());
        }
        let target = self.counter(l);
        let index = l.b.fetch(Scalar::U64, target, Atomic::Add(u64(1)));
        self.store(l, index, &values, offset, cuts, then)
    }

    pub(super) fn slot_end(&mut self, l: &mut Lowering<'_>, offset: u64, cuts: bool) -> Lowered<()> {
        self.slot_end_then(l, offset, cuts, &mut |_, _| Ok(()))
    }

    /// As [`RowStore::slot_end`]; where a row is stored, `then` gets its place (U64).
    pub(super) fn slot_end_then(
        &mut self,
        l: &mut Lowering<'_>,
        offset: u64,
        cuts: bool,
        then: Then<'_>,
    ) -> Lowered<()> {
        let target = self.counter(l);
        let Some(slot) = self.slot.take() else {
            return Ok(());
        };
        l.b.push(Stmt::Barrier);
        l.b.when(Ir::LocalIndex.eq(u32(0)), |b| {
            let rows = b.set(Scalar::U32, Ir::LoadLocal(slot.count, Box::new(u32(0))));
            b.when(Ir::from(rows).ne(u32(0)), |b| {
                let rows = Ir::from(rows).to(Scalar::U64);
                let old = b.fetch(Scalar::U64, target, Atomic::Add(rows));
                b.push(Stmt::StoreLocal(slot.base, u32(0), old.into()));
                b.push(Stmt::StoreLocal(slot.count, u32(0), u32(0)));
            });
        });
        l.b.push(Stmt::Barrier);
        l.when(slot.passed.into(), |l| {
            let base = Ir::LoadLocal(slot.base, Box::new(u32(0)));
            let index = l.b.set(Scalar::U64, base.plus(Ir::from(slot.place).to(Scalar::U64)));
            l.b.assign(slot.passed, bool(false));
            self.store(l, index, &slot.values, offset, cuts, then)
        })?;
        self.slot = Some(slot);
        Ok(())
    }

    pub(super) fn end(&mut self) {
        self.slot = None;
    }

    fn counter(&self, l: &mut Lowering<'_>) -> Target {
        let count = l.base(self.count);
        Target::Arena(place(Elem::U64, count, u64(0)))
    }

    fn store(
        &self,
        l: &mut Lowering<'_>,
        index: Var,
        values: &[Value],
        offset: u64,
        cuts: bool,
        then: Then<'_>,
    ) -> Lowered<()> {
        let columns = self.columns.as_deref().unwrap_or_default();
        let at = if offset == 0 {
            Ir::from(index)
        } else {
            let offset = l.word(crate::program::Word::Value(offset));
            l.b.assign(index, Ir::from(index).minus(offset));
            Ir::from(index)
        };
        let mut all = |l: &mut Lowering<'_>| {
            for (column, value) in columns.iter().zip(values) {
                l.store_value(column, value, &at)?;
            }
            then(l, &at)
        };
        if cuts {
            // Rows to leave out are below 0, which is above any capacity.
            let capacity = l.word(crate::program::Word::Value(self.capacity));
            l.when(Ir::from(index).lt(capacity), all)
        } else {
            all(l)
        }
    }

    /// A kernel that makes the count what is kept, and notes a fault if there was no room for that.
    pub(super) fn cut(&self, l: &mut Lowering<'_>, offset: u64, most: u64) -> Lowered<()> {
        let kernel = l.kernel("cut", |l| {
            let counter = l.base(self.count);
            let words = [offset, most, self.capacity].map(|value| l.word(crate::program::Word::Value(value)));
            l.when(Ir::GroupIndex.plus(Ir::LocalIndex).eq(u32(0)), |l| {
                let arrived = l.b.set(Scalar::U64, load(counter.clone()));
                let [offset, most, capacity] = words;
                let kept = Ir::from(arrived).max(offset.clone()).minus(offset).min(most);
                let kept = l.b.set(Scalar::U64, kept);
                l.when(Ir::from(kept).gt(capacity.clone()), |l| {
                    l.capacity_fault(arrived.into());
                    l.b.assign(kept, capacity);
                    Ok(())
                })?;
                l.b.store(place(Elem::U64, counter, u64(0)), kept.into());
                Ok(())
            })
        })?;
        l.launch(kernel, Groups::One, When::After);
        Ok(())
    }

    /// What is there. Without a row lowered there are no columns.
    pub(super) fn rows(&mut self) -> ResidentRows {
        ResidentRows {
            columns: self.columns.clone().unwrap_or_default(),
            count: self.count,
            bound: self.capacity,
        }
    }
}

fn load(counter: Ir) -> Ir {
    Ir::Load {
        place: place(Elem::U64, counter, u64(0)),
        constant: false,
    }
}
