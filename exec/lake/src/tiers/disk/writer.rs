//! The only writer of a disk tier's file, on a thread of its own.
//!
//! Order within a slot: both headers are wiped before its payload is overwritten; payload is written before the header that
//! names it. So a process that is killed at any moment leaves slots that are right, or whose checksums say that they are not.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};

use bytes::Bytes;

use super::Inner;
use super::header::{Entry, Header, PREFIX_BYTES, checksums, entry_bytes};
use super::slots::Extent;
use crate::read::ObjectRef;

/// A range is not cut for a rest of a slot that is smaller.
const PIECE_BYTES_MIN: usize = 256 << 10;

/// What the writer is asked to do.
pub(super) enum Job {
    Write {
        store: Arc<str>,
        object: Arc<ObjectRef>,
        start: u64,
        bytes: Bytes,
    },
    /// The slot's content is wrong; the table has forgotten it.
    Damaged {
        slot: u32,
        generation: u32,
    },
    /// The table has forgotten everything.
    Clear,
    #[cfg(test)]
    Flush(std::sync::mpsc::Sender<()>),
    Stop,
}

struct Open {
    slot: u32,
    generation: u32,
    /// Where the next extent goes.
    offset: u32,
    header: Header,
    header_bytes: usize,
    /// Headers written so far.
    written: u64,
    dirty: bool,
}

/// See the module.
pub(super) struct Writer<'a> {
    inner: &'a Inner,
    sequence: u64,
    open: Option<Open>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(inner: &'a Inner, sequence: u64) -> Self {
        Self {
            inner,
            sequence,
            open: None,
        }
    }

    /// Works until it is told to stop, or can't write.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        while let Some(job) = self.next(jobs) {
            let off = self.inner.off.lock().is_some();
            if let Job::Write { bytes, .. } = &job {
                let length = bytes.len() as u64;
                self.inner.counts.queued_bytes.fetch_sub(length, Ordering::Relaxed);
            }
            let done = match job {
                Job::Write { .. } | Job::Damaged { .. } | Job::Clear if off => Ok(()),
                Job::Write {
                    store,
                    object,
                    start,
                    bytes,
                } => self.write(&store, &object, start, &bytes),
                Job::Damaged { slot, generation } => self.wipe_damaged(slot, generation),
                Job::Clear => self.wipe_all(),
                #[cfg(test)]
                Job::Flush(sender) => {
                    let written = self.write_header();
                    let _ = sender.send(());
                    written
                }
                Job::Stop => break,
            };
            self.check(done);
        }
        let written = self.write_header();
        self.check(written);
    }

    fn check(&mut self, done: io::Result<()>) {
        if let Err(error) = done {
            self.inner.counts.errors.fetch_add(1, Ordering::Relaxed);
            self.inner.switch_off(format!("its file can't be written: {error}"));
            self.open = None;
        }
    }

    /// The next job; the header is written before there is a wait for one.
    fn next(&mut self, jobs: &Receiver<Job>) -> Option<Job> {
        if self.inner.stopping.load(Ordering::Relaxed) {
            return None;
        }
        match jobs.try_recv() {
            Ok(job) => return Some(job),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => {}
        }
        let written = self.write_header();
        self.check(written);
        jobs.recv().ok()
    }

    fn write(&mut self, store: &Arc<str>, object: &Arc<ObjectRef>, start: u64, bytes: &Bytes) -> io::Result<()> {
        let range = start..start + bytes.len() as u64;
        let room = self.inner.table.lock().make_room(store, object, &range);
        let Some(room) = room else { return Ok(()) };
        let offset = |at: u64| usize::try_from(at - start).unwrap_or(usize::MAX);
        let mut rest = bytes.get(offset(room.start)..offset(room.end)).unwrap_or_default();
        let mut at = room.start;
        while !rest.is_empty() {
            let Some(length) = self.room_for(store, object, rest.len())? else {
                self.inner.counts.dropped.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            };
            let (piece, after) = rest.split_at(length);
            self.append(store, object, at, piece)?;
            at += length as u64;
            rest = after;
        }
        Ok(())
    }

    /// How much of so many bytes goes into the open slot; opens the next one when it is full. None when no slot is free.
    fn room_for(&mut self, store: &str, object: &ObjectRef, bytes: usize) -> io::Result<Option<usize>> {
        let layout = self.inner.layout;
        let payload_bytes = usize::try_from(layout.slot_bytes).unwrap_or(usize::MAX) - 2 * layout.header_bytes();
        let most_bytes = Header::EMPTY_BYTES + entry_bytes(store, object, bytes.min(payload_bytes));
        if most_bytes > layout.header_bytes() {
            return Ok(None);
        }
        for _ in 0..2 {
            if let Some(open) = &self.open {
                let left = layout.slot_bytes - u64::from(open.offset);
                let piece = bytes.min(usize::try_from(left).unwrap_or(usize::MAX));
                let header_bytes = open.header_bytes + entry_bytes(store, object, piece);
                let worth = piece == bytes || piece >= PIECE_BYTES_MIN.min(payload_bytes / 4);
                if worth && header_bytes <= layout.header_bytes() {
                    return Ok(Some(piece));
                }
            }
            if !self.open_next()? {
                return Ok(None);
            }
        }
        Ok(None)
    }

    fn append(&mut self, store: &Arc<str>, object: &Arc<ObjectRef>, start: u64, piece: &[u8]) -> io::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let at = self.inner.layout.at(open.slot, open.offset);
        self.inner.file.write_all_at(piece, at)?;
        let entry = Entry {
            store: Arc::clone(store),
            object: Arc::clone(object),
            range: start..start + piece.len() as u64,
            offset: open.offset,
            checksums: checksums(piece),
        };
        open.header_bytes += entry_bytes(store, object, piece.len());
        open.offset = u32::try_from(piece.len()).map_or(u32::MAX, |length| open.offset.saturating_add(length));
        open.header.entries.push(entry.clone());
        open.dirty = true;
        let added = self.inner.table.lock().add(Arc::new(Extent {
            entry,
            slot: open.slot,
            generation: open.generation,
            hits: AtomicU64::new(0),
            recent: AtomicU32::new(0),
        }));
        if !added {
            // Found damaged, or cleared, while it was open.
            self.close_forgotten()?;
        }
        Ok(())
    }

    fn open_next(&mut self) -> io::Result<bool> {
        self.write_header()?;
        if let Some(open) = self.open.take() {
            self.set_open(open.slot, false);
        }
        let given = self.inner.table.lock().next_slot();
        let Some(given) = given else { return Ok(false) };
        let survivors: Vec<_> = (given.survivors.iter())
            .filter_map(|extent| {
                let mut bytes = vec![0; usize::try_from(extent.len()).ok()?];
                (self.inner.read_checked(extent, 0, &mut bytes)).then_some((extent, bytes))
            })
            .collect();
        if given.generation > 0 || self.sequence > 0 {
            self.wipe(given.slot)?;
        }
        self.open = Some(Open {
            slot: given.slot,
            generation: given.generation,
            offset: self.inner.layout.payload_start(),
            header: Header {
                slot: given.slot,
                sequence: 0,
                entries: Vec::new(),
            },
            header_bytes: Header::EMPTY_BYTES,
            written: 0,
            dirty: false,
        });
        for (extent, bytes) in survivors {
            let entry = &extent.entry;
            self.append(&entry.store, &entry.object, entry.range.start, &bytes)?;
        }
        Ok(true)
    }

    fn write_header(&mut self) -> io::Result<()> {
        let Some(open) = self.open.as_mut().filter(|open| open.dirty) else {
            return Ok(());
        };
        open.header.sequence = self.sequence;
        self.sequence += 1;
        let bytes = open.header.encode(self.inner.layout);
        let at = self.inner.layout.header_at(open.slot, open.written);
        open.written += 1;
        open.dirty = false;
        self.inner.file.write_all_at(&bytes, at)
    }

    fn wipe(&self, slot: u32) -> io::Result<()> {
        for copy in 0..2 {
            let at = self.inner.layout.header_at(slot, copy);
            self.inner.file.write_all_at(&[0; PREFIX_BYTES], at)?;
        }
        Ok(())
    }

    fn wipe_damaged(&mut self, slot: u32, generation: u32) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|open| open.slot == slot) {
            // Only if it is still the one that was found damaged: else it is written anew already.
            if self.open.as_ref().is_some_and(|open| open.generation == generation) {
                self.close_forgotten()?;
            }
            return Ok(());
        }
        let forgotten = {
            let table = self.inner.table.lock();
            let slot = table.slots.get(slot as usize);
            slot.is_some_and(|slot| slot.generation == generation.wrapping_add(1) && slot.extents.is_empty())
        };
        if forgotten { self.wipe(slot) } else { Ok(()) }
    }

    fn wipe_all(&mut self) -> io::Result<()> {
        if self.open.is_some() {
            self.close_forgotten()?;
        }
        let empty: Vec<u32> = {
            let table = self.inner.table.lock();
            let slots = 0..u32::try_from(table.slots.len()).unwrap_or(u32::MAX);
            slots
                .filter(|&slot| table.slots[slot as usize].extents.is_empty())
                .collect()
        };
        empty.into_iter().try_for_each(|slot| self.wipe(slot))
    }

    /// The open slot's content is not needed any more.
    fn close_forgotten(&mut self) -> io::Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        self.set_open(open.slot, false);
        self.wipe(open.slot)
    }

    fn set_open(&self, slot: u32, open: bool) {
        if let Some(slot) = self.inner.table.lock().slots.get_mut(slot as usize) {
            slot.open = open;
        }
    }
}
