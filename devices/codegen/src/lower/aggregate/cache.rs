//! A few slots kept in local memory: where all rows are of few groups, their slots in the arena are spared.
//!
//! ```text
//!  slot ─low bits─▶ entry: [ slot + 1 | words … ]      taken by the first slot that comes, until the kernel's end
//! ```
//!
//! Where many work-items run at once, a group of them shares its entries; where they run one after another, each has its own,
//! which lie together and need no atomics, and where the key is one word entries are known by it: the table is not asked for
//! those that are there. A slot whose entry is another's is folded into in the arena: with many groups that
//! costs little more than without.

use super::cells::{Cells, Shared};
use super::plan::Primitive;
use super::slots::Slots;
use super::table::{Found, Named, Table};
use crate::build::{bool, u32, u64};
use crate::ir::{Atomic, Elem, Expr as Ir, LocalId, Scalar, Stmt, Target};
use crate::lower::{Lowered, Lowering};

/// Local memory that it takes at most, in bytes and as a share of what there is.
const BYTES_MAX: u32 = 16 << 10;
const SHARE: u32 = 4;
/// Of one work-item's own entries.
const OWN_BYTES_MAX: u32 = 16 << 10;
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
    /// Of a group, or of a work-item.
    entries: u32,
    /// Words of an entry.
    width: u32,
    /// Each work-item has its own entries.
    own: bool,
    /// By entry its slot, where tags are keys.
    slots: Option<LocalId>,
}

/// Spreads keys that are alike over entries.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Cache {
    /// For slots of so many words; where it is worth it. Without `keyed`, slots are asked for by their numbers.
    pub(super) fn begin(l: &mut Lowering<'_>, table: Option<&Table>, width: u32, keyed: bool) -> Option<Self> {
        let (own, group) = (!l.target.wide, l.target.group);
        let share = l.target.local_bytes / SHARE;
        let bytes = if own {
            OWN_BYTES_MAX.min(share / group)
        } else {
            BYTES_MAX.min(share)
        };
        let entries = (bytes / (8 * (width + 1))).min(ENTRIES_MAX);
        let many = |table: &Table| table.dense() && table.slots() > u64::from(entries) * SLOTS_PER_ENTRY;
        if entries < ENTRIES_MIN || table.is_some_and(many) {
            return None;
        }
        let entries = 1 << entries.ilog2();
        let all = if own { entries * group } else { entries };
        let keyed = keyed && own && table.is_some_and(Table::one_word);
        let cache = Self {
            slots: keyed.then(|| l.b.local(Elem::U64, all)),
            tags: l.b.local(Elem::U64, all),
            words: l.b.local(Elem::U64, all * width),
            entries,
            width,
            own,
        };
        if own {
            // Words are cleared when their entry is taken.
            let (first, end) = cache.bounds();
            l.b.range(Scalar::U32, first, end, u32(1), |b, index| {
                b.push(Stmt::StoreLocal(cache.tags, index.into(), u64(0)));
            });
            return Some(cache);
        }
        for (array, len) in [(cache.tags, entries), (cache.words, entries * width)] {
            l.b.range(Scalar::U32, Ir::LocalIndex, u32(len), u32(group), |b, index| {
                b.push(Stmt::StoreLocal(array, index.into(), u64(0)));
            });
        }
        l.b.push(Stmt::Barrier);
        Some(cache)
    }

    /// The first of a work-item's own entries (U32), and their end.
    fn bounds(&self) -> (Ir, Ir) {
        let first = Ir::LocalIndex.times(u32(self.entries));
        (first.clone(), first.plus(u32(self.entries)))
    }

    /// The slot of a key, and where it is here if it is (Bool); none where slots are asked for by their numbers.
    pub(super) fn find_keyed(
        &self,
        l: &mut Lowering<'_>,
        table: &Table,
        named: &Named,
    ) -> Lowered<Option<(Found, Ir, Cells)>> {
        let words = named.words();
        let (Some(slots), [word]) = (self.slots, words.as_slice()) else {
            return Ok(None);
        };
        let mine: Ir = l.b.set(Scalar::U64, word.clone().plus(u64(1))).into();
        let bits = u64((u64::BITS - self.entries.ilog2()).into());
        let spread = mine.clone().times(u64(SPREAD)).shr(bits).to(Scalar::U32);
        let (first, _) = self.bounds();
        let entry: Ir = l.b.set(Scalar::U32, first.plus(spread)).into();
        let tag = l.b.set(Scalar::U64, Ir::LoadLocal(self.tags, Box::new(entry.clone())));
        let hit = l.b.set(Scalar::Bool, Ir::from(tag).eq(mine.clone()));
        let slot = l.b.set(Scalar::U64, u64(0));
        let there = l.b.set(Scalar::Bool, bool(true));
        let cells = self.cells(l, entry.clone());
        l.either(
            hit.into(),
            |l| {
                l.b.assign(slot, Ir::LoadLocal(slots, Box::new(entry.clone())));
                Ok(())
            },
            |l| {
                let found = table.find_named(l, named)?;
                l.b.assign(slot, found.slot);
                l.b.assign(there, found.found.unwrap_or(bool(true)));
                l.when(Ir::from(tag).eq(u64(0)).and(there.into()), |l| {
                    l.b.push(Stmt::StoreLocal(self.tags, entry.clone(), mine.clone()));
                    l.b.push(Stmt::StoreLocal(slots, entry.clone(), slot.into()));
                    (0..self.width).for_each(|at| cells.clear(l, at));
                    l.b.assign(hit, bool(true));
                    Ok(())
                })
            },
        )?;
        let found = Found {
            slot: slot.into(),
            found: Some(there.into()),
            new: bool(false),
        };
        Ok(Some((found, hit.into(), cells)))
    }

    /// Whether the slot (U64) is here (Bool), and where.
    pub(super) fn find(&self, l: &mut Lowering<'_>, slot: &Ir) -> (Ir, Cells) {
        let mine: Ir = l.b.set(Scalar::U64, slot.clone().plus(u64(1))).into();
        let entry = slot.clone().to(Scalar::U32);
        if self.own {
            return self.find_own(l, entry, mine);
        }
        let copy = Ir::LocalIndex.and(u32((1 << COPIES_BITS) - 1));
        let entry = entry.shl(u32(COPIES_BITS)).or(copy);
        let entry: Ir = l.b.set(Scalar::U32, entry.and(u32(self.entries - 1))).into();
        let target = Target::Local(self.tags, entry.clone());
        let tag = l.b.fetch(Scalar::U64, target.clone(), Atomic::Load);
        l.b.when(Ir::from(tag).eq(u64(0)), |b| {
            let (expected, value) = (u64(0), mine.clone());
            let before = b.fetch(Scalar::U64, target, Atomic::CompareExchange { expected, value });
            let taken = Ir::from(before).eq(u64(0));
            b.assign(tag, taken.select(mine.clone(), before.into()));
        });
        let hit = l.b.set(Scalar::Bool, Ir::from(tag).eq(mine));
        let cells = self.cells(l, entry);
        (hit.into(), cells)
    }

    /// Entry (U32) of a work-item's own for a tag (U64).
    fn find_own(&self, l: &mut Lowering<'_>, entry: Ir, mine: Ir) -> (Ir, Cells) {
        let (first, _) = self.bounds();
        let entry = first.plus(entry.and(u32(self.entries - 1)));
        let entry: Ir = l.b.set(Scalar::U32, entry).into();
        let tag = Ir::LoadLocal(self.tags, Box::new(entry.clone()));
        let tag = l.b.set(Scalar::U64, tag);
        let cells = self.cells(l, entry.clone());
        l.b.begin();
        l.b.push(Stmt::StoreLocal(self.tags, entry, mine.clone()));
        (0..self.width).for_each(|at| cells.clear(l, at));
        l.b.assign(tag, mine.clone());
        let then = l.b.end();
        l.b.push(Stmt::If {
            condition: Ir::from(tag).eq(u64(0)),
            then,
            otherwise: Vec::new(),
        });
        (l.b.set(Scalar::Bool, Ir::from(tag).eq(mine)).into(), cells)
    }

    /// The words of an entry (U32).
    fn cells(&self, l: &mut Lowering<'_>, entry: Ir) -> Cells {
        let first = l.b.set(Scalar::U32, entry.times(u32(self.width))).into();
        let array = self.words;
        if self.own {
            return Cells::Local {
                array,
                first,
                stride: 1,
            };
        }
        Cells::Shared(Shared::in_group(array, first))
    }

    /// Folds all entries into their slots.
    pub(super) fn flush(self, l: &mut Lowering<'_>, slots: Slots, primitives: &[Primitive]) -> Lowered<()> {
        let bounds = if self.own {
            let (first, end) = self.bounds();
            (first, end, u32(1))
        } else {
            l.b.push(Stmt::Barrier);
            (Ir::LocalIndex, u32(self.entries), u32(l.target.group))
        };
        l.range(Scalar::U32, bounds, |l, entry| {
            let tag = Ir::LoadLocal(self.tags, Box::new(entry.clone()));
            let tag: Ir = l.b.set(Scalar::U64, tag).into();
            l.when(tag.clone().ne(u64(0)), |l| {
                let slot = match self.slots {
                    Some(slots) => {
                        l.b.set(Scalar::U64, Ir::LoadLocal(slots, Box::new(entry.clone())))
                            .into()
                    }
                    None => tag.minus(u64(1)),
                };
                let shared = slots.own(l, slot);
                self.cells(l, entry.clone()).flush(l, &shared, primitives)
            })
        })
    }
}
