//! Races, found by vector clocks.
//!
//! ```text
//!  work-item     clock:    what it has seen of every other, as counts of their steps
//!                released: its clock at its last fence; atomic writes leave it at their place
//!                pending:  clocks that its atomic reads found; the next fence adds them to its own
//!  place         accesses since the last plain store: who, when, how;  the clock that atomic writes left
//! ```
//!
//! Two accesses race when one is a write, not both are atomic, and neither's work-item had seen the other's step. The model is
//! C11's with fences; a barrier joins the clocks of its group. Sources: Flanagan, Freund, "FastTrack", 2009; ISO C11 7.17.4.
//!
//! Atomic loads may give an older value than the last, as relaxed ones may on devices: any that the work-item has not seen, or
//! heard of, to be replaced. What changes a place takes the last one.

use std::sync::Arc;

use super::schedule::Random;
use super::violation::{ViolationKind, Wrong};

/// How a place is accessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    /// By a load that says that nothing writes there.
    ReadConstant,
    Write,
    AtomicRead,
    /// Also one that reads, too.
    AtomicWrite,
}

impl Access {
    fn races(self, other: Access) -> bool {
        match (self, other) {
            (Access::Write, _) | (_, Access::Write) => true,
            (Access::AtomicWrite, other) | (other, Access::AtomicWrite) => {
                matches!(other, Access::Read | Access::ReadConstant)
            }
            _ => false,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Access::Read => "load",
            Access::ReadConstant => "constant load",
            Access::Write => "store",
            Access::AtomicRead => "atomic load",
            Access::AtomicWrite => "atomic",
        }
    }
}

/// Who accesses, in which operation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Actor {
    pub(super) item: u32,
    pub(super) op: u32,
}

/// A race: the other access, for the message.
#[derive(Debug)]
pub(super) struct Race {
    pub(super) other: Actor,
    pub(super) kind: ViolationKind,
    pub(super) what: &'static str,
}

impl Race {
    /// In words: who and where the other is.
    pub(super) fn wrong(&self, address: u64, who: &str, statement: &str) -> Wrong {
        Wrong::at(self.kind, address, format!("a {} by {who} at [{statement}]", self.what))
    }
}

type Clock = Arc<[u32]>;

/// What a work-item knows.
#[derive(Debug)]
struct Knowledge {
    clock: Vec<u32>,
    released: Option<Clock>,
    pending: Option<Vec<u32>>,
}

#[derive(Debug, Clone)]
struct Entry {
    actor: Actor,
    time: u32,
    access: Access,
}

/// A place of 1, 2, 4 or 8 bytes.
#[derive(Debug, Clone, Default)]
struct Cell {
    entries: Vec<Entry>,
    /// Left by atomic writes.
    left: Option<Clock>,
    /// Values that atomic writes put there, oldest first; the first stood there before.
    history: Vec<Written>,
    /// Who read which of them.
    seen: Vec<Seen>,
    /// Accessed in different widths.
    mixed: bool,
}

#[derive(Debug, Clone)]
struct Written {
    value: u128,
    left: Option<Clock>,
    /// None: before the first atomic write.
    by: Option<(u32, u32)>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    item: u32,
    time: u32,
    place: usize,
}

/// Values that a place remembers.
const HISTORY_MAX: usize = 16;

/// Readers that a place remembers.
const SEEN_MAX: usize = 64;

/// Eight bytes, cut into cells as narrow as its accesses.
#[derive(Debug, Clone, Default)]
struct Block {
    cells: Vec<Cell>,
}

const PAGE_BLOCKS: u64 = 64;

impl Cell {
    /// A plain store: nothing of before is left to read.
    fn settle(&mut self) {
        self.history.clear();
        self.seen.clear();
    }

    /// Accesses of different widths: what parts of values are left is not followed.
    fn split(&mut self) {
        self.settle();
        self.mixed = true;
    }

    /// The oldest value that a work-item may read.
    fn oldest(&self, clock: &[u32]) -> usize {
        let knows = |item: u32, time: u32| time <= clock[item as usize];
        let written = self.history.iter().enumerate();
        let written = written.filter(|(_, written)| written.by.is_some_and(|(item, time)| knows(item, time)));
        let seen = self.seen.iter().filter(|seen| knows(seen.item, seen.time));
        let written = written.map(|(place, _)| place).max().unwrap_or(0);
        written.max(seen.map(|seen| seen.place).max().unwrap_or(0))
    }

    fn see(&mut self, item: u32, time: u32, place: usize) {
        if self.seen.len() < SEEN_MAX {
            self.seen.push(Seen { item, time, place });
            return;
        }
        // Only the last value is left to read.
        self.seen.clear();
        self.history.drain(..self.history.len().saturating_sub(1));
    }
}

/// What happened to the places of one memory.
#[derive(Debug, Default)]
pub(super) struct Shadow {
    pages: Vec<Option<Box<[Block]>>>,
}

impl Shadow {
    /// The cells of an access.
    fn cells(&mut self, at: u64, bytes: u64) -> &mut [Cell] {
        let index = usize::try_from(at / 8 / PAGE_BLOCKS).unwrap_or(usize::MAX);
        if self.pages.len() <= index {
            self.pages.resize_with(index + 1, || None);
        }
        let page = self.pages[index].get_or_insert_with(|| (0..PAGE_BLOCKS).map(|_| Block::default()).collect());
        let block = &mut page[usize::try_from(at / 8 % PAGE_BLOCKS).unwrap_or(0)];
        let wanted = usize::try_from(8 / bytes.min(8)).unwrap_or(8);
        if block.cells.is_empty() {
            block.cells.resize(wanted, Cell::default());
        } else if block.cells.len() < wanted {
            let copies = wanted / block.cells.len();
            block.cells.iter_mut().for_each(Cell::split);
            block.cells = block
                .cells
                .iter()
                .flat_map(|cell| std::iter::repeat_n(cell.clone(), copies))
                .collect();
        }
        let width = 8 / block.cells.len();
        let first = usize::try_from(at % 8).unwrap_or(0) / width;
        let count = usize::try_from(bytes.min(8)).unwrap_or(8) / width;
        &mut block.cells[first..first + count]
    }
}

/// What the work-items of a launch know of each other.
#[derive(Debug)]
pub(super) struct Races {
    items: Vec<Knowledge>,
}

impl Races {
    pub(super) fn new(items: usize) -> Self {
        let knowledge = |item| {
            let mut clock = vec![0; items];
            clock[item] = 1;
            Knowledge {
                clock,
                released: None,
                pending: None,
            }
        };
        Self {
            items: (0..items).map(knowledge).collect(),
        }
    }

    /// An access; an element of 16 bytes is two of 8.
    pub(super) fn access(
        &mut self,
        shadow: &mut Shadow,
        at: u64,
        bytes: u64,
        access: Access,
        actor: Actor,
    ) -> Result<(), Race> {
        for place in (at..at + bytes).step_by(8) {
            for cell in shadow.cells(place, bytes.min(8)) {
                self.touch(cell, access, actor)?;
            }
        }
        Ok(())
    }

    fn touch(&mut self, cell: &mut Cell, access: Access, actor: Actor) -> Result<(), Race> {
        let knowledge = &mut self.items[actor.item as usize];
        let time = knowledge.clock[actor.item as usize];
        for entry in &cell.entries {
            let other = entry.actor.item as usize;
            let constant = (access == Access::ReadConstant) != (entry.access == Access::ReadConstant);
            if access.races(entry.access) && (constant || entry.time > knowledge.clock[other]) {
                return Err(Race {
                    other: entry.actor,
                    kind: if constant {
                        ViolationKind::ConstantWritten
                    } else {
                        ViolationKind::Race
                    },
                    what: entry.access.name(),
                });
            }
        }
        // What was before a store is before all that is after it.
        if access == Access::Write {
            cell.entries.clear();
            cell.left = None;
            cell.settle();
        }
        // One constant load stands for all, for they forbid writes whoever made them.
        let same = |entry: &&mut Entry| {
            entry.access == access && (entry.actor.item == actor.item || access == Access::ReadConstant)
        };
        match cell.entries.iter_mut().find(same) {
            Some(entry) => (entry.time, entry.actor) = (time, actor),
            None => cell.entries.push(Entry { actor, time, access }),
        }
        Ok(())
    }

    /// An atomic takes over what earlier ones left, and leaves its own. A plain store leaves nothing.
    pub(super) fn atomic(&mut self, shadow: &mut Shadow, at: u64, bytes: u64, reads: bool, writes: bool, item: u32) {
        let knowledge = &mut self.items[item as usize];
        for cell in shadow.cells(at, bytes) {
            if let Some(left) = cell.left.as_ref().filter(|_| reads) {
                let pending = knowledge.pending.get_or_insert_with(|| vec![0; left.len()]);
                join(pending, left);
            }
            if !writes {
                continue;
            }
            // A write that reads goes on with the release sequence that it found; one that doesn't ends it.
            match (&mut cell.left, &knowledge.released) {
                (Some(left), Some(released)) if reads && !Arc::ptr_eq(left, released) => {
                    let mut joined = left.to_vec();
                    join(&mut joined, released);
                    *left = joined.into();
                }
                (Some(_), None) if reads => {}
                (left, released) => left.clone_from(released),
            }
        }
    }

    /// An atomic load of what is not always the last value: that value, and its clock is pending. None: the last one.
    pub(super) fn older(
        &mut self,
        shadow: &mut Shadow,
        (at, bytes): (u64, u64),
        item: u32,
        random: &mut Random,
    ) -> Option<u128> {
        let knowledge = &mut self.items[item as usize];
        let [cell] = shadow.cells(at, bytes) else {
            return None;
        };
        let last = cell.history.len().checked_sub(1).filter(|_| !cell.mixed)?;
        let oldest = cell.oldest(&knowledge.clock);
        let place = oldest + random.below(last + 1 - oldest);
        let written = cell.history[place].clone();
        cell.see(item, knowledge.clock[item as usize], place);
        if place == last {
            return None;
        }
        if let Some(left) = &written.left {
            join(knowledge.pending.get_or_insert_with(|| vec![0; left.len()]), left);
        }
        Some(written.value)
    }

    /// An atomic changed a place, and left its clock there; or read the last value and changed nothing.
    pub(super) fn changed(
        &mut self,
        shadow: &mut Shadow,
        (at, bytes): (u64, u64),
        item: u32,
        (old, new): (u128, Option<u128>),
    ) {
        let time = self.items[item as usize].clock[item as usize];
        let cells = shadow.cells(at, bytes);
        let [cell] = cells else {
            cells.iter_mut().for_each(Cell::split);
            return;
        };
        let Some(value) = new else {
            if let Some(last) = cell.history.len().checked_sub(1) {
                cell.see(item, time, last);
            }
            return;
        };
        if cell.history.is_empty() {
            cell.history.push(Written {
                value: old,
                left: None,
                by: None,
            });
        }
        if cell.history.len() == HISTORY_MAX {
            cell.history.remove(0);
            for seen in &mut cell.seen {
                seen.place = seen.place.saturating_sub(1);
            }
        }
        cell.history.push(Written {
            value,
            left: cell.left.clone(),
            by: Some((item, time)),
        });
    }

    pub(super) fn fence(&mut self, item: u32) {
        let knowledge = &mut self.items[item as usize];
        if let Some(pending) = knowledge.pending.take() {
            join(&mut knowledge.clock, &pending);
        }
        knowledge.released = Some(knowledge.clock.as_slice().into());
        knowledge.clock[item as usize] += 1;
    }

    /// All of a group know what each knew.
    pub(super) fn barrier(&mut self, items: std::ops::Range<usize>) {
        let mut joined = vec![0; self.items.len()];
        for knowledge in &self.items[items.clone()] {
            join(&mut joined, &knowledge.clock);
        }
        for item in items {
            self.items[item].clock.copy_from_slice(&joined);
            self.items[item].clock[item] += 1;
        }
    }
}

fn join(into: &mut [u32], from: &[u32]) {
    for (into, from) in into.iter_mut().zip(from) {
        *into = (*into).max(*from);
    }
}
