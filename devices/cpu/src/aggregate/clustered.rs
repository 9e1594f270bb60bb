//! Groups of keys that come in ascending order, as those of a table in the order of its primary key do: each run of rows is the next
//! group, and no table of slots is needed, which would have a place for every key that might have been there.
//!
//! ```text
//!  worker 0   1‥9  9‥14          31‥40 …      a piece per tile: its first and last key; ids in the order of the worker's keys
//!  worker 1             14‥30  …              sorted by their first keys, the pieces of all workers ascend, or they don't
//! ```
//!
//! A run that a tile's end cuts goes on as the same group where one worker takes both tiles, and is merged at the end where
//! two do. As soon as one tile doesn't ascend everything goes the usual way, and what was gathered is folded in at the end.

use std::ops::Range;
use std::sync::atomic::Ordering;

use trireme_device_api::DeviceError;

use crate::aggregate::hash::Keys;
use crate::aggregate::input::{Input, Pick};
use crate::aggregate::keys::Rung;
use crate::aggregate::primitive::Primitive;
use crate::aggregate::table::Table;
use crate::aggregate::{AggregatePlan, Local, runs};
use crate::isa::primitive;

/// Groups that one task makes the result of, if they come from one worker.
const TASK_GROUPS: usize = 1 << 15;

/// What a worker met in order.
pub(super) struct Ascending {
    pub(super) table: Table,
    pieces: Vec<Piece>,
    last: u32,
}

/// Groups of one tile.
struct Piece {
    first: u32,
    last: u32,
    ids: Range<usize>,
}

/// The groups of all workers, in order: ranges of ids of their tables.
pub(super) struct Ordered {
    pub(super) tables: Vec<Table>,
    pub(super) ranges: Vec<(usize, Range<usize>)>,
}

impl AggregatePlan {
    /// Whether ascending keys are looked for.
    pub(super) fn may_ascend(keys_rung: Rung, primitives: &[Primitive]) -> bool {
        keys_rung == Rung::DirectShared && runs::summable(primitives, 0, true)
    }

    /// Whether the next tile of a worker may be the next groups.
    pub(super) fn ascends(&self) -> bool {
        self.may_ascend && !self.disorder.load(Ordering::Relaxed)
    }

    /// Takes the runs of a tile, whose slots are in the scratch, as the next groups; false when they aren't.
    ///
    /// # Errors
    /// Memory is short, or a key is outside its range.
    pub(super) fn append(&self, local: &mut Local, inputs: &[Input], counted: usize) -> Result<bool, DeviceError> {
        let slots = &local.scratch.slots;
        let (Some(&first), Some(&last)) = (slots.first(), slots.last()) else {
            return Ok(true);
        };
        if last as usize >= self.keys.slots {
            return Err(DeviceError::Internal("a group key is outside its range".into()));
        }
        let before = local.ascending.as_ref().map(|ascending| ascending.last);
        let follows = before.is_none_or(|before| before <= first);
        if !follows || !ascend(self.isa, &slots[..slots.len() - 1], &slots[1..]) {
            self.disorder.store(true, Ordering::Relaxed);
            return Ok(false);
        }
        let made = match local.ascending.take() {
            Some(ascending) => ascending,
            None => Ascending {
                table: Table::ascending(&self.recipe.primitives, &self.pool)?,
                pieces: Vec::new(),
                last: 0,
            },
        };
        let ascending = local.ascending.insert(made);
        let known = usize::from(before == Some(first));
        let start = ascending.table.groups();
        ascending.table.append(&slots[known..])?;
        let end = ascending.table.groups();
        let ids: Vec<u32> = ((start - known) as u32..end as u32).collect();
        ascending.table.update(Pick::new(&ids, None), inputs, counted);
        ascending.last = last;
        if let Some(&first) = slots.get(known) {
            ascending.pieces.push(Piece {
                first,
                last,
                ids: start..end,
            });
        }
        Ok(true)
    }

    /// All groups in order; else the tables, to be folded into those by slot.
    pub(super) fn in_order(&self, locals: Vec<Ascending>) -> Result<Ordered, Vec<Table>> {
        let mut tables = Vec::new();
        let mut pieces = Vec::new();
        for (worker, ascending) in locals.into_iter().enumerate() {
            tables.push(ascending.table);
            pieces.extend(ascending.pieces.into_iter().map(|piece| (worker, piece)));
        }
        pieces.sort_unstable_by_key(|(_, piece)| (piece.first, piece.last));
        if self.disorder.load(Ordering::Relaxed) || !pieces.is_sorted_by(|(_, a), (_, b)| a.last <= b.first) {
            return Err(tables);
        }
        let mut ranges: Vec<(usize, Range<usize>)> = Vec::new();
        // The group met last: its worker, id and key.
        let mut before: Option<(usize, usize, u32)> = None;
        for (worker, Piece { first, last, mut ids }) in pieces {
            if let Some((other, id, key)) = before
                && key == first
            {
                merge(&mut tables, (worker, ids.start), (other, id));
                ids.start += 1;
            }
            if ids.is_empty() {
                continue;
            }
            before = Some((worker, ids.end - 1, last));
            match ranges.last_mut() {
                Some((of, range)) if *of == worker && range.end == ids.start && range.len() < TASK_GROUPS => {
                    range.end = ids.end;
                }
                _ => ranges.push((worker, ids)),
            }
        }
        Ok(Ordered { tables, ranges })
    }

    /// Whether a table's keys are the slots of a direct one.
    pub(super) fn by_slot<'t>(&self, table: &'t Table) -> Option<&'t [u64]> {
        match table.index.as_ref().map(|index| &index.keys) {
            Some(Keys::U64(slots)) if self.keys.direct() => Some(slots),
            _ => None,
        }
    }
}

/// Folds one worker's group into another's.
fn merge(tables: &mut [Table], (from, group): (usize, usize), (to, into): (usize, usize)) {
    if let Ok([from, to]) = tables.get_disjoint_mut([from, to]) {
        to.merge(from, &[group as u32], &[into as u32]);
    }
}

primitive! {
    /// Each slot is less than the one beside it in `next`.
    fn ascend[](slots: &[u32], next: &[u32]) -> bool {
        let mut descends = 0_u8;
        for (slot, next) in slots.iter().zip(next) {
            descends |= u8::from(slot >= next);
        }
        descends == 0
    }
}
