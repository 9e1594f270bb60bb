//! The first rows of an order, where they are few: each group keeps its own, one group merges them.
//!
//! ```text
//!  main     group: Selection of words and slots │ rows in `size` slots per group ─▶ entries in the arena
//!  merge    one group: Selection over the entries of all groups ─▶ rows in order
//! ```
//!
//! The main kernel may run several times, for chunks of the source: groups go on where they ended.

use trireme_device_api::SortKey;

use super::full::{Limits, copy_row, kept, output, scratch};
use super::order::Order;
use super::select::{Selection, State};
use crate::build::{bool, place, u32, u64};
use crate::ir::{Atomic, Elem, Expr as Ir, Scalar, Stmt, Target};
use crate::lower::{Lowered, Lowering, Row, Sink, Value};
use crate::program::{Fill, Groups, Lifetime, ProgramOutput, When, Word};
use crate::shape::{RegionRef, ResidentColumn};

/// Rows that are worth selecting; more are sorted.
const KEEP_MOST: u64 = 1024;

/// Candidates that one group merges in reasonable time.
const CANDIDATES: u32 = 1 << 16;

/// The sink that keeps the first rows.
pub(super) struct TopRows<'a> {
    keys: &'a [SortKey],
    limits: Limits,
    keep: u32,
    size: u32,
    groups: u32,
    order: Order,
    /// Rows in slots; made when the first row arrives.
    slots: Option<Vec<ResidentColumn>>,
    /// U32s: entries that each group keeps.
    counts: RegionRef,
    /// U32s: slots of each group's entries.
    numbers: RegionRef,
    /// U64s: words of each group's entries.
    words: Vec<RegionRef>,
    selection: Option<Selection>,
}

impl<'a> TopRows<'a> {
    /// None where all rows had better be sorted.
    pub(super) fn new(l: &mut Lowering<'_>, keys: &'a [SortKey], limits: Limits) -> Lowered<Option<Self>> {
        let keep = limits.most.saturating_add(limits.offset);
        if !(1..=KEEP_MOST).contains(&keep) || l.multiplies() {
            return Ok(None);
        }
        let keep = u32::try_from(keep).unwrap_or(u32::MAX);
        let size = (keep + l.target.group).next_power_of_two();
        let Some((keyed, values)) = l.look_at_rows(keys)? else {
            return Ok(None);
        };
        let order = Order::of(keys, &keyed);
        let words = order.words.len() as u64;
        if u64::from(size) * (8 * words + 4) > u64::from(l.target.local_bytes) * 3 / 4 {
            return Ok(None);
        }
        let groups = (CANDIDATES / keep.next_power_of_two()).clamp(64, 1024);
        let entries = u64::from(groups) * u64::from(size);
        let counts = scratch(l, "entries", u64::from(groups) * 4, Fill::Byte(0));
        let numbers = scratch(l, "slots of entries", entries * 4, Fill::Nothing);
        let words = order
            .words
            .iter()
            .map(|_| scratch(l, "words of entries", entries * 8, Fill::Nothing));
        let mut rows = Self {
            keys,
            limits,
            keep,
            size,
            groups,
            counts,
            numbers,
            words: words.collect(),
            order,
            slots: None,
            selection: None,
        };
        if l.has_passes() {
            rows.slots(l, &values);
        }
        Ok(Some(rows))
    }

    fn slots(&mut self, l: &mut Lowering<'_>, values: &[Value]) -> Vec<ResidentColumn> {
        if self.slots.is_none() {
            let rows = u64::from(self.groups) * u64::from(self.size);
            let columns = values.iter().enumerate();
            let columns = columns
                .map(|(index, value)| l.resident_column(&format!("slots {index}"), value, rows, Lifetime::Scratch));
            self.slots = Some(columns.collect());
        }
        self.slots.clone().unwrap_or_default()
    }

    fn room(&self, l: &mut Lowering<'_>) -> Selection {
        let keep = l.word(Word::Value(self.keep.into())).to(Scalar::U32);
        Selection::new(l, (keep, self.size), &self.order.words)
    }

    fn state(&self, l: &mut Lowering<'_>) -> State {
        State {
            groups: self.groups,
            counts: l.base(self.counts),
            numbers: l.base(self.numbers),
            words: self.words.iter().map(|region| l.base(*region)).collect(),
        }
    }
}

impl Sink for TopRows<'_> {
    fn groups_max(&self) -> Option<u32> {
        Some(self.groups)
    }

    fn begin(&mut self, l: &mut Lowering<'_>) -> Lowered<()> {
        let mut selection = self.room(l);
        let state = self.state(l);
        selection.resume(&mut l.b, &state);
        self.selection = Some(selection);
        Ok(())
    }

    fn row(&mut self, l: &mut Lowering<'_>, row: &mut Row) -> Lowered<()> {
        let keys = l.sort_keys(self.keys, row)?;
        let values = l.words_in(&self.order, keys)?;
        let words: Vec<Ir> = values.into_iter().map(|value| value.ir).collect();
        let Some(selection) = self.selection.take() else {
            return Ok(());
        };
        let wanted = selection.wants(&mut l.b, &words);
        l.when(wanted.into(), |l| {
            let (_, slot) = selection.add(&mut l.b, &words);
            let first = Ir::GroupIndex.times(u32(self.size));
            let index = l.b.set(Scalar::U32, first.plus(slot.into()));
            let values = l.values(&mut row.clone())?;
            for (column, value) in self.slots(l, &values).iter().zip(&values) {
                l.store_value(column, value, &index.into())?;
            }
            Ok(())
        })?;
        self.selection = Some(selection);
        Ok(())
    }

    fn slot_end(&mut self, l: &mut Lowering<'_>) -> Lowered<()> {
        let last = l.last_slot.clone().unwrap_or(bool(true));
        if let Some(selection) = &self.selection {
            selection.make_room(&mut l.b, last);
        }
        Ok(())
    }

    fn end(&mut self, l: &mut Lowering<'_>) -> Lowered<()> {
        let state = self.state(l);
        if let Some(selection) = self.selection.take() {
            let left = selection.kept(&mut l.b);
            selection.suspend(&mut l.b, &state, left);
        }
        Ok(())
    }

    fn finish(&mut self, l: &mut Lowering<'_>) -> Lowered<ProgramOutput> {
        let slots = self.slots.take().unwrap_or_default();
        let output = output(l, &slots, self.limits.most);
        let kernel = l.kernel("merge", |l| {
            let selection = self.room(l);
            selection.start(&mut l.b);
            self.merge(l, &selection);
            let left = selection.kept(&mut l.b);
            let count = l.base(output.count);
            let kept = kept(l, self.limits, Ir::from(left).to(Scalar::U64));
            l.b.when(Ir::LocalIndex.eq(u32(0)), |b| {
                b.store(place(Elem::U64, count, u64(0)), kept)
            });
            let group = u32(l.target.group);
            l.range(Scalar::U32, (Ir::LocalIndex, left.into(), group), |l, rank| {
                let row = l.b.set(Scalar::U32, selection.number_at(rank.clone()));
                copy_row(l, (&slots, &output.columns), self.limits, &row.into(), rank)
            })
        })?;
        l.launch(kernel, Groups::One, When::After);
        Ok(ProgramOutput::Rows(output))
    }
}

impl TopRows<'_> {
    /// Selects among the entries of all groups that have some. Groups without stand behind those with, but for few.
    fn merge(&self, l: &mut Lowering<'_>, selection: &Selection) {
        let state = self.state(l);
        let keep = selection.keep();
        let group = u32(l.target.group);
        let b = &mut l.b;
        let used = b.local(Elem::U32, 1);
        b.when(Ir::LocalIndex.eq(u32(0)), |b| {
            b.push(Stmt::StoreLocal(used, u32(0), u32(0)))
        });
        b.push(Stmt::Barrier);
        b.range(
            Scalar::U32,
            Ir::LocalIndex,
            u32(self.groups),
            group.clone(),
            |b, index| {
                let count = b.load(place(Elem::U32, state.counts.clone(), index.into()));
                b.when(Ir::from(count).ne(u32(0)), |b| {
                    b.atomic(Target::Local(used, u32(0)), Atomic::Max(Ir::from(index).plus(u32(1))));
                });
            },
        );
        b.push(Stmt::Barrier);
        let all = Ir::LoadLocal(used, Box::new(u32(0))).times(keep.clone());
        let all = b.set(Scalar::U32, all);
        b.range(Scalar::U32, u32(0), all.into(), group.clone(), |b, start| {
            let index = b.set(
                Scalar::U32,
                Ir::from(start).plus(Ir::LocalIndex).min(Ir::from(all).minus(u32(1))),
            );
            let owner = b.set(Scalar::U32, Ir::from(index).over(keep.clone()));
            let entry = Ir::from(index).minus(Ir::from(owner).times(keep));
            let entry = b.set(Scalar::U32, entry);
            let count = b.load(place(Elem::U32, state.counts, owner.into()));
            let mine = Ir::from(start).plus(Ir::LocalIndex).lt(all.into());
            b.when(mine.and(Ir::from(entry).lt(count.into())), |b| {
                let first = b.set(Scalar::U32, Ir::from(owner).times(u32(self.size)));
                let at = b.set(Scalar::U32, Ir::from(first).plus(entry.into()));
                let words = state.words.into_iter();
                let words: Vec<Ir> = words
                    .map(|words| b.load(place(Elem::U64, words, at.into())).into())
                    .collect();
                let wanted = selection.wants(b, &words);
                b.when(wanted.into(), |b| {
                    let (place_of_entry, _) = selection.add(b, &words);
                    let slot = b.load(place(Elem::U32, state.numbers, at.into()));
                    selection.number(b, place_of_entry, Ir::from(first).plus(slot.into()));
                });
            });
            let last = Ir::from(start).plus(group).ge(all.into());
            selection.make_room(b, last);
        });
    }
}
