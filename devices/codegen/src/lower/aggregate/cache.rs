//! A few slots of a group of work-items, kept in its local memory: where all rows are of few groups, their slots in the arena
//! are spared.
//!
//! ```text
//!  slot ─low bits─▶ entry: [ slot + 1 | words … ]      taken by the first slot that comes, until the kernel's end
//! ```
//!
//! A slot whose entry is another's is folded into in the arena: with many groups that costs little more than without.

use super::cells::{Cells, Shared};
use super::plan::Primitive;
use super::slots::Slots;
use crate::build::{u32, u64};
use crate::ir::{Atomic, Elem, Expr as Ir, LocalId, Scalar, Stmt, Target};
use crate::lower::{Lowered, Lowering};

/// Local memory that it takes at most, in bytes and as a share of what there is.
const BYTES_MAX: u32 = 16 << 10;
const SHARE: u32 = 4;
/// Entries below which it isn't worth it.
const ENTRIES_MIN: u32 = 8;
const ENTRIES_MAX: u32 = 512;
/// Entries that a slot may have, by work-item, where many run at once and wait for each other's atomics.
const COPIES_BITS: u32 = 3;
/// With so many slots for each entry there is none for a dense table: slots that all can be are seldom few that are. Of a hash
/// table the slots say how many rows there are, and nothing of how many keys.
const SLOTS_PER_ENTRY: u64 = 1 << 10;

pub(super) struct Cache {
    tags: LocalId,
    words: LocalId,
    entries: u32,
    /// Words of an entry.
    width: u32,
    copies_bits: u32,
}

impl Cache {
    /// For slots of so many words, of a dense table so many; where it is worth it.
    pub(super) fn begin(l: &mut Lowering<'_>, dense_slots: Option<u64>, width: u32) -> Option<Self> {
        let bytes = BYTES_MAX.min(l.target.local_bytes / SHARE);
        let entries = (bytes / (8 * (width + 1))).min(ENTRIES_MAX);
        let many = |slots: u64| slots > u64::from(entries) * SLOTS_PER_ENTRY;
        if entries < ENTRIES_MIN || dense_slots.is_some_and(many) {
            return None;
        }
        let entries = 1 << entries.ilog2();
        let cache = Self {
            tags: l.b.local(Elem::U64, entries),
            words: l.b.local(Elem::U64, entries * width),
            entries,
            width,
            copies_bits: if l.target.wide { COPIES_BITS } else { 0 },
        };
        let group = u32(l.target.group);
        for (array, len) in [(cache.tags, entries), (cache.words, entries * width)] {
            l.b.range(Scalar::U32, Ir::LocalIndex, u32(len), group.clone(), |b, index| {
                b.push(Stmt::StoreLocal(array, index.into(), u64(0)));
            });
        }
        l.b.push(Stmt::Barrier);
        Some(cache)
    }

    /// Whether the slot (U64) is here (Bool), and where.
    pub(super) fn find(&self, l: &mut Lowering<'_>, slot: &Ir) -> (Ir, Shared) {
        let mut entry = slot.clone().to(Scalar::U32);
        if self.copies_bits > 0 {
            let copy = Ir::LocalIndex.and(u32((1 << self.copies_bits) - 1));
            entry = entry.shl(u32(self.copies_bits)).or(copy);
        }
        let entry: Ir = l.b.set(Scalar::U32, entry.and(u32(self.entries - 1))).into();
        let mine: Ir = l.b.set(Scalar::U64, slot.clone().plus(u64(1))).into();
        let target = Target::Local(self.tags, entry.clone());
        let tag = l.b.fetch(Scalar::U64, target.clone(), Atomic::Load);
        l.b.when(Ir::from(tag).eq(u64(0)), |b| {
            let (expected, value) = (u64(0), mine.clone());
            let before = b.fetch(Scalar::U64, target, Atomic::CompareExchange { expected, value });
            let taken = Ir::from(before).eq(u64(0));
            b.assign(tag, taken.select(mine.clone(), before.into()));
        });
        let hit = l.b.set(Scalar::Bool, Ir::from(tag).eq(mine));
        let first = l.b.set(Scalar::U32, entry.times(u32(self.width)));
        (hit.into(), Shared::in_group(self.words, first.into()))
    }

    /// Folds all entries into their slots.
    pub(super) fn flush(self, l: &mut Lowering<'_>, slots: Slots, primitives: &[Primitive]) -> Lowered<()> {
        l.b.push(Stmt::Barrier);
        let bounds = (Ir::LocalIndex, u32(self.entries), u32(l.target.group));
        l.range(Scalar::U32, bounds, |l, entry| {
            let tag = Ir::LoadLocal(self.tags, Box::new(entry.clone()));
            let tag: Ir = l.b.set(Scalar::U64, tag).into();
            l.when(tag.clone().ne(u64(0)), |l| {
                let shared = slots.own(l, tag.minus(u64(1)));
                let first = l.b.set(Scalar::U32, entry.times(u32(self.width)));
                Cells::Shared(Shared::in_group(self.words, first.into())).flush(l, &shared, primitives)
            })
        })
    }
}
