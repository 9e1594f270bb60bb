//! The first rows of an order, where they are few: each group keeps its own, one group merges them.
//!
//! ```text
//!  main     group: Selection of words and slots │ rows in `size` slots per group ─▶ candidates: words, row of the slots
//!  merge    one group: Selection over all candidates ─▶ rows in order
//! ```

use trireme_device_api::{JoinKind, SortKey, Step, Type};

use super::full::{Limits, copy_row, kept, output};
use super::order::Order;
use super::select::Selection;
use crate::build::{place, u32, u64};
use crate::ir::{Atomic, Elem, Expr as Ir, Scalar, Stmt, Target};
use crate::lower::{Lowered, Lowering, Row, Sink};
use crate::program::{Fill, Groups, Lifetime, ProgramOutput, Region, When};
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
    order: Option<Order>,
    /// Rows in slots; made when the first row arrives.
    slots: Option<Vec<ResidentColumn>>,
    /// A u64: candidates.
    count: RegionRef,
    /// U32s: the row of each candidate, by place in `slots`.
    rows: RegionRef,
    /// The words of each candidate's key.
    words: Vec<RegionRef>,
    selection: Option<Selection>,
}

impl<'a> TopRows<'a> {
    /// None where all rows had better be sorted.
    pub(super) fn new(l: &mut Lowering<'_>, keys: &'a [SortKey], limits: Limits) -> Option<Self> {
        let keep = limits
            .most
            .checked_add(limits.offset)
            .filter(|keep| (1..=KEEP_MOST).contains(keep))?;
        let keep = u32::try_from(keep).ok()?;
        let passes = l.fragment().steps.iter().any(|step| match step {
            Step::Probe(probe) => matches!(probe.kind, JoinKind::BuildSemi | JoinKind::BuildAnti),
            _ => false,
        });
        if passes || l.multiplies() {
            return None;
        }
        let size = (keep + l.target.group).next_power_of_two();
        let words = keys
            .iter()
            .map(|key| bits_at_most(&key.expr.data_type))
            .sum::<u32>()
            .div_ceil(64)
            + 1;
        if u64::from(size) * u64::from(8 * words + 4) > u64::from(l.target.local_bytes) * 3 / 4 {
            return None;
        }
        let groups = (CANDIDATES / keep).clamp(64, 1024);
        let mut region = |name: &str, bytes: u64, fill: Fill| {
            l.region(Region {
                name: name.to_owned(),
                bytes,
                fill,
                lifetime: Lifetime::Scratch,
            })
        };
        let candidates = u64::from(groups) * u64::from(keep);
        Some(Self {
            keys,
            limits,
            keep,
            size,
            groups,
            order: None,
            slots: None,
            count: region("candidates", 8, Fill::Byte(0)),
            rows: region("candidate rows", candidates * 4, Fill::Nothing),
            words: Vec::new(),
            selection: None,
        })
    }

    /// Memory for what the first row showed to be needed.
    fn make_areas(&mut self, l: &mut Lowering<'_>, row: &mut Row, words: usize) -> Lowered<()> {
        let values = l.values(row)?;
        let slots = u64::from(self.groups) * u64::from(self.size);
        let columns = values.iter().enumerate();
        let columns =
            columns.map(|(index, value)| l.resident_column(&format!("slots {index}"), value, slots, Lifetime::Scratch));
        self.slots = Some(columns.collect());
        let candidates = u64::from(self.groups) * u64::from(self.keep);
        for index in 0..words {
            let region = Region {
                name: format!("candidate words {index}"),
                bytes: candidates * 8,
                fill: Fill::Nothing,
                lifetime: Lifetime::Scratch,
            };
            self.words.push(l.region(region));
        }
        Ok(())
    }
}

impl Sink for TopRows<'_> {
    fn groups_max(&self) -> Option<u32> {
        Some(self.groups)
    }

    fn takes_chunks(&self) -> bool {
        false
    }

    fn begin(&mut self, l: &mut Lowering<'_>) -> Lowered<()> {
        self.selection = Some(Selection::new(&mut l.b, l.target.group, self.keep, self.size));
        Ok(())
    }

    fn row(&mut self, l: &mut Lowering<'_>, row: &mut Row) -> Lowered<()> {
        let values = l.order_words(self.keys, &mut self.order, row)?;
        let words: Vec<Ir> = values.into_iter().map(|value| value.ir).collect();
        let (Some(order), Some(mut selection)) = (&self.order, self.selection.take()) else {
            return Ok(());
        };
        let comparer = l.comparer(&order.words);
        selection.ordered(&mut l.b, &order.words, comparer);
        let wanted = selection.wants(&mut l.b, &words);
        l.when(wanted.into(), |l| {
            let mut row = row.clone();
            if self.slots.is_none() {
                self.make_areas(l, &mut row, words.len())?;
            }
            let (_, slot) = selection.add(&mut l.b, &words);
            let first = Ir::GroupIndex.times(u32(self.size));
            let index = l.b.set(Scalar::U32, first.plus(slot.into()));
            let values = l.values(&mut row)?;
            for (column, value) in self.slots.iter().flatten().zip(&values) {
                l.store_value(column, value, &index.into())?;
            }
            Ok(())
        })?;
        self.selection = Some(selection);
        Ok(())
    }

    fn slot_end(&mut self, l: &mut Lowering<'_>) -> Lowered<()> {
        if let Some(selection) = &self.selection {
            selection.make_room(&mut l.b);
        }
        Ok(())
    }

    fn end(&mut self, l: &mut Lowering<'_>) -> Lowered<()> {
        let Some(selection) = self.selection.take() else {
            return Ok(());
        };
        let count = l.base(self.count);
        let rows = l.base(self.rows);
        let words: Vec<Ir> = self.words.iter().map(|region| l.base(*region)).collect();
        let b = &mut l.b;
        let left = selection.finish(b);
        let base = b.local(Elem::U64, 1);
        b.when(Ir::LocalIndex.eq(u32(0)), |b| {
            let target = Target::Arena(place(Elem::U64, count, u64(0)));
            let old = b.fetch(Scalar::U64, target, Atomic::Add(Ir::from(left).to(Scalar::U64)));
            b.push(Stmt::StoreLocal(base, u32(0), old.into()));
        });
        b.push(Stmt::Barrier);
        let first = b.set(Scalar::U64, Ir::LoadLocal(base, Box::new(u32(0))));
        b.range(
            Scalar::U32,
            Ir::LocalIndex,
            left.into(),
            u32(selection.group()),
            |b, index| {
                let at = b.set(Scalar::U64, Ir::from(first).plus(Ir::from(index).to(Scalar::U64)));
                for (position, region) in words.iter().enumerate() {
                    let word = selection.word(position, index.into());
                    b.store(place(Elem::U64, region.clone(), at.into()), word);
                }
                let slot = selection.number_at(index.into());
                let row = Ir::GroupIndex.times(u32(self.size)).plus(slot);
                b.store(place(Elem::U32, rows, at.into()), row);
            },
        );
        Ok(())
    }

    fn finish(&mut self, l: &mut Lowering<'_>) -> Lowered<ProgramOutput> {
        let slots = self.slots.take().unwrap_or_default();
        let output = output(l, &slots, self.limits.most);
        let kernel = l.kernel("merge", |l| {
            let mut selection = Selection::new(&mut l.b, l.target.group, self.keep, self.size);
            if let Some(order) = &self.order {
                let comparer = l.comparer(&order.words);
                selection.ordered(&mut l.b, &order.words, comparer);
            }
            self.merge(l, &selection);
            let left = selection.finish(&mut l.b);
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
    /// Selects among all candidates.
    fn merge(&self, l: &mut Lowering<'_>, selection: &Selection) {
        let count = l.base(self.count);
        let rows = l.base(self.rows);
        let words: Vec<Ir> = self.words.iter().map(|region| l.base(*region)).collect();
        let b = &mut l.b;
        let count = b.load(place(Elem::U64, count, u64(0)));
        let count = b.set(Scalar::U32, Ir::from(count).to(Scalar::U32));
        b.range(Scalar::U32, u32(0), count.into(), u32(selection.group()), |b, start| {
            let index = b.set(Scalar::U32, Ir::from(start).plus(Ir::LocalIndex));
            b.when(Ir::from(index).lt(count.into()), |b| {
                let words: Vec<Ir> = words
                    .into_iter()
                    .map(|region| b.load(place(Elem::U64, region, index.into())).into())
                    .collect();
                let wanted = selection.wants(b, &words);
                b.when(wanted.into(), |b| {
                    let (entry, _) = selection.add(b, &words);
                    let row = b.load(place(Elem::U32, rows, index.into()));
                    selection.number(b, entry, row.into());
                });
            });
            selection.make_room(b);
        });
    }
}

/// Bits that a key of a type takes in an order's words, at most.
fn bits_at_most(data_type: &Type) -> u32 {
    1 + match data_type {
        Type::Boolean | Type::Null => 1,
        Type::Float32 => 32,
        Type::Float64 => 64,
        _ => match data_type.value_range() {
            Some((low, high)) => match high.checked_sub(low).map(u64::try_from) {
                Some(Ok(most)) => 64 - most.leading_zeros(),
                _ => 128,
            },
            // A prefix, and a word for itself.
            None => 191,
        },
    }
}
