//! The disk tier's table: which extents are in which slot, and which slot goes when room is needed.
//!
//! Slots are used round and round. When one is needed, the next in turn goes; what was read from it lately stays (it is written
//! again, at the front of the same slot), unless that is more than half of it: then the slot is passed over once.
//!
//! Invariants: an extent that the index holds is in its slot's list; a slot with readers is never given to the writer.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::header::Entry;
use crate::read::ObjectRef;
use crate::tiers::ranges::Ranges;

/// A range in the file.
#[derive(Debug)]
pub(super) struct Extent {
    pub(super) entry: Entry,
    pub(super) slot: u32,
    pub(super) generation: u32,
    /// Times it was found.
    pub(super) hits: AtomicU64,
    /// The same lately: halved when its slot's turn comes.
    pub(super) recent: AtomicU32,
}

impl Extent {
    pub(super) fn len(&self) -> u64 {
        self.entry.range.end - self.entry.range.start
    }
}

#[derive(Debug, Default)]
pub(super) struct Slot {
    /// Other content, other number.
    pub(super) generation: u32,
    pub(super) readers: u32,
    /// The writer has it.
    pub(super) open: bool,
    pub(super) extents: Vec<Arc<Extent>>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Table {
    ranges: Ranges<Arc<Extent>>,
    pub(super) slots: Vec<Slot>,
    slots_max: usize,
    hand: usize,
    pub(super) used_bytes: u64,
}

/// A slot for the writer.
pub(super) struct Given {
    pub(super) slot: u32,
    pub(super) generation: u32,
    /// What should stay of what it held.
    pub(super) survivors: Vec<Arc<Extent>>,
}

impl Table {
    pub(super) fn new(slots_max: usize) -> Self {
        Self {
            slots_max,
            ..Self::default()
        }
    }

    /// The extents that contain a range, in order; their slots are kept until [`Table::release`].
    pub(super) fn find(&mut self, store: &str, object: &ObjectRef, range: &Range<u64>) -> Option<Vec<Arc<Extent>>> {
        let found = self.ranges.covering(store, object, range)?;
        let extents: Vec<Arc<Extent>> = found.into_iter().map(|held| held.place).collect();
        for extent in &extents {
            extent.hits.fetch_add(1, Ordering::Relaxed);
            extent.recent.fetch_add(1, Ordering::Relaxed);
            if let Some(slot) = self.slots.get_mut(extent.slot as usize) {
                slot.readers += 1;
            }
        }
        Some(extents)
    }

    pub(super) fn release(&mut self, extents: &[Arc<Extent>]) {
        for extent in extents {
            if let Some(slot) = self.slots.get_mut(extent.slot as usize) {
                slot.readers = slot.readers.saturating_sub(1);
            }
        }
    }

    /// Whether a range is held, without finding it.
    pub(super) fn holds(&self, store: &str, object: &ObjectRef, range: &Range<u64>) -> bool {
        self.ranges.covering(store, object, range).is_some()
    }

    /// Makes room in the index; the part of the range that is worth writing.
    pub(super) fn make_room(&mut self, store: &str, object: &ObjectRef, range: &Range<u64>) -> Option<Range<u64>> {
        let room = self.ranges.make_room(store, object, range);
        for extent in room.dropped {
            self.unlist(&extent);
        }
        room.range
    }

    /// Adds an extent that is written; false when its slot is another's by now.
    pub(super) fn add(&mut self, extent: Arc<Extent>) -> bool {
        let Entry {
            store, object, range, ..
        } = &extent.entry;
        let known = |slot: &Slot| slot.generation == extent.generation;
        if !self.slots.get(extent.slot as usize).is_some_and(known) {
            return false;
        }
        if self.make_room(store, object, range).as_ref() != Some(range) {
            return true;
        }
        self.ranges.insert(store, object, range.clone(), Arc::clone(&extent));
        self.used_bytes += extent.len();
        self.slots[extent.slot as usize].extents.push(extent);
        true
    }

    fn unlist(&mut self, extent: &Arc<Extent>) {
        let Some(slot) = self.slots.get_mut(extent.slot as usize) else {
            return;
        };
        let before = slot.extents.len();
        slot.extents.retain(|other| !Arc::ptr_eq(other, extent));
        if slot.extents.len() < before {
            self.used_bytes -= extent.len();
        }
    }

    /// The next slot for the writer; none while all have readers.
    pub(super) fn next_slot(&mut self) -> Option<Given> {
        if self.slots.len() < self.slots_max {
            let slot = u32::try_from(self.slots.len()).ok()?;
            self.slots.push(Slot {
                open: true,
                ..Slot::default()
            });
            return Some(Given {
                slot,
                generation: 0,
                survivors: Vec::new(),
            });
        }
        let count = self.slots.len();
        for turn in 0..2 * count {
            let index = self.hand % count;
            self.hand = (self.hand + 1) % count;
            let slot = &mut self.slots[index];
            if slot.readers > 0 || slot.open {
                continue;
            }
            let (survivors, all_bytes) = survivors(slot);
            let wanted_bytes: u64 = survivors.iter().map(|extent| extent.len()).sum();
            if turn < count && wanted_bytes * 2 > all_bytes {
                for extent in &slot.extents {
                    let recent = extent.recent.load(Ordering::Relaxed);
                    extent.recent.store(recent / 2, Ordering::Relaxed);
                }
                continue;
            }
            let survivors = at_most(survivors, all_bytes / 2);
            let slot = u32::try_from(index).ok()?;
            let generation = self.empty(slot)?;
            self.slots[index].open = true;
            return Some(Given {
                slot,
                generation,
                survivors,
            });
        }
        None
    }

    /// Forgets what a slot holds; its new generation.
    pub(super) fn empty(&mut self, slot: u32) -> Option<u32> {
        let slot = self.slots.get_mut(slot as usize)?;
        slot.generation = slot.generation.wrapping_add(1);
        let generation = slot.generation;
        for extent in std::mem::take(&mut slot.extents) {
            let Entry {
                store, object, range, ..
            } = &extent.entry;
            self.ranges.remove(store, &object.location, range.start, |place| {
                Arc::ptr_eq(place, &extent)
            });
            self.used_bytes -= extent.len();
        }
        Some(generation)
    }

    /// [`Table::empty`] if the slot still is what it was.
    pub(super) fn empty_damaged(&mut self, slot: u32, generation: u32) -> bool {
        let same = |slot: &Slot| slot.generation == generation;
        self.slots.get(slot as usize).is_some_and(same) && self.empty(slot).is_some()
    }

    pub(super) fn extents(&self) -> impl Iterator<Item = &Arc<Extent>> {
        self.slots.iter().flat_map(|slot| &slot.extents)
    }

    pub(super) fn clear(&mut self) {
        for slot in 0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX) {
            self.empty(slot);
        }
    }
}

/// What was read lately, the most often read first; and the bytes of all.
fn survivors(slot: &Slot) -> (Vec<Arc<Extent>>, u64) {
    let recent = |extent: &Arc<Extent>| extent.recent.load(Ordering::Relaxed);
    let mut wanted: Vec<_> = (slot.extents.iter())
        .filter(|extent| recent(extent) > 0)
        .cloned()
        .collect();
    wanted.sort_by_key(|extent| std::cmp::Reverse(recent(extent)));
    (wanted, slot.extents.iter().map(|extent| extent.len()).sum())
}

fn at_most(extents: Vec<Arc<Extent>>, bytes_max: u64) -> Vec<Arc<Extent>> {
    let mut bytes = 0;
    let fits = |extent: &Arc<Extent>| {
        let fits = bytes + extent.len() <= bytes_max;
        bytes += if fits { extent.len() } else { 0 };
        fits
    };
    extents.into_iter().filter(fits).collect()
}
