//! What a file holds when the tier opens it: its headers, the latest of either copy, in the order they were written.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::Inner;
use super::header::{Header, PREFIX_BYTES};
use super::slots::{Extent, Slot};

/// Fills the table; the next sequence number. What can't be read is not there.
pub(super) fn recover(inner: &Inner, slots_max: usize) -> u64 {
    let slot_bytes = inner.layout.slot_bytes;
    let most_bytes = slots_max as u64 * slot_bytes;
    let length = inner.file.metadata().map_or(0, |metadata| metadata.len());
    if length > most_bytes
        && let Err(error) = inner.file.set_len(most_bytes)
    {
        inner.switch_off(format!("its file can't be cut to its budget: {error}"));
        return 0;
    }
    let slots = usize::try_from(length.div_ceil(slot_bytes))
        .unwrap_or(usize::MAX)
        .min(slots_max);
    let mut headers = Vec::new();
    for slot in 0..u32::try_from(slots).unwrap_or(u32::MAX) {
        if inner.stopping.load(Ordering::Relaxed) {
            return 0;
        }
        let copies = [0, 1].map(|copy| read_header(inner, slot, copy));
        headers.extend(copies.into_iter().flatten().max_by_key(|header| header.sequence));
    }
    headers.sort_by_key(|header| header.sequence);
    let next = headers.last().map_or(0, |header| header.sequence + 1);
    let mut table = inner.table.lock();
    table.slots.resize_with(slots, Slot::default);
    for header in headers {
        for entry in header.entries {
            table.add(Arc::new(Extent {
                entry,
                slot: header.slot,
                generation: 0,
                hits: AtomicU64::new(0),
                recent: AtomicU32::new(0),
            }));
        }
    }
    next
}

fn read_header(inner: &Inner, slot: u32, copy: u64) -> Option<Header> {
    let at = inner.layout.header_at(slot, copy);
    let mut prefix = [0; PREFIX_BYTES];
    inner.file.read_exact_at(&mut prefix, at).ok()?;
    let mut bytes = vec![0; Header::length(&prefix, inner.layout)?];
    inner.file.read_exact_at(&mut bytes, at).ok()?;
    Header::decode(&bytes, inner.layout, slot)
}
