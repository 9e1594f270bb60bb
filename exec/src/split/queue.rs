//! The rows of a scan that the processor and a device share: each morsel is read by one of them.
//!
//! ```text
//!  segment 0                 segment 1
//!   0  1  2  3  4  5  6  7    8  9 10        H  the processor claims one when it comes to it, from the front
//!   H  H  H  .  .  .  .  .    D  D  D        D  a device takes some at a time, from the back, and may give them back
//! ```
//!
//! A part of a scan has all its segments; those that it doesn't read have no rows, so that what a device compiled for the whole
//! serves for a part. Columns of a part of a segment are slices of its columns, which no device keeps a copy of.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use trireme_device_api::{ColumnProfile, DeviceColumn, DeviceError, Loaded, MORSEL_ROWS, ScanInput, ZoneMap};

const FREE: u8 = 0;
const HOST: u8 = 1;
const DEVICE: u8 = 2;
/// No row of it passes.
const LEFT_OUT: u8 = 3;

/// Rows of a segment, and where they are.
struct Morsel {
    segment: usize,
    start: usize,
    rows: usize,
    owner: AtomicU8,
}

/// See the module.
pub(crate) struct Morsels {
    scan: Arc<dyn ScanInput>,
    all: Vec<Morsel>,
    /// By segment: those of it.
    of: Vec<Range<usize>>,
    /// Rows of those that are free.
    free_rows: AtomicUsize,
    host_rows: AtomicUsize,
    /// Times that something was given back.
    returns: AtomicUsize,
}

impl Morsels {
    pub(crate) fn new(scan: &Arc<dyn ScanInput>) -> Arc<Self> {
        let (mut all, mut of) = (Vec::new(), Vec::with_capacity(scan.segments()));
        for segment in 0..scan.segments() {
            let (first, rows) = (all.len(), scan.rows(segment));
            all.extend((0..rows).step_by(MORSEL_ROWS).map(|start| Morsel {
                segment,
                start,
                rows: MORSEL_ROWS.min(rows - start),
                owner: AtomicU8::new(FREE),
            }));
            of.push(first..all.len());
        }
        let rows = all.iter().map(|morsel| morsel.rows).sum();
        Arc::new(Self {
            scan: Arc::clone(scan),
            all,
            of,
            free_rows: AtomicUsize::new(rows),
            host_rows: AtomicUsize::new(0),
            returns: AtomicUsize::new(0),
        })
    }

    fn becomes(&self, at: usize, from: u8, to: u8) -> bool {
        let Some(Morsel { rows, owner, .. }) = self.all.get(at) else {
            return false;
        };
        let changed = owner
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok();
        if changed {
            if from == FREE {
                self.free_rows.fetch_sub(*rows, Ordering::SeqCst);
            }
            if to == FREE {
                self.free_rows.fetch_add(*rows, Ordering::SeqCst);
            }
            if to == HOST {
                self.host_rows.fetch_add(*rows, Ordering::SeqCst);
            }
        }
        changed
    }

    /// Rows that nobody has taken.
    pub(crate) fn free_rows(&self) -> usize {
        self.free_rows.load(Ordering::SeqCst)
    }

    /// Rows of all.
    pub(crate) fn rows(&self) -> usize {
        self.rows_of(&(0..self.all.len()).collect::<Vec<_>>())
    }

    /// Rows that the processor has taken, without those of the morsel that it is at.
    pub(crate) fn host_rows_read(&self) -> usize {
        self.host_rows.load(Ordering::SeqCst).saturating_sub(MORSEL_ROWS)
    }

    /// Takes free morsels from the back: one, and more as long as they are at most so many rows, and those of each segment are
    /// side by side.
    pub(crate) fn take(&self, rows: usize) -> Vec<usize> {
        let (mut taken, mut sum): (Vec<usize>, usize) = (Vec::new(), 0);
        for at in (0..self.all.len()).rev() {
            let morsel = &self.all[at];
            let last = taken.last().copied();
            let beside = |last: usize| last == at + 1 || self.all[last].segment != morsel.segment;
            if last.is_some() && sum + morsel.rows > rows {
                break;
            }
            if last.is_none_or(beside) && self.becomes(at, FREE, DEVICE) {
                taken.push(at);
                sum += morsel.rows;
            }
        }
        taken
    }

    /// Rows of morsels.
    pub(crate) fn rows_of(&self, morsels: &[usize]) -> usize {
        morsels.iter().map(|at| self.all[*at].rows).sum()
    }

    /// How many times something was given back.
    pub(crate) fn returns(&self) -> usize {
        self.returns.load(Ordering::SeqCst)
    }

    /// What the processor ended without, though nobody else has it, no row passes of.
    pub(crate) fn leave_out(&self) {
        for at in 0..self.all.len() {
            self.becomes(at, FREE, LEFT_OUT);
        }
    }

    /// What a device took and doesn't run.
    pub(crate) fn give_back(&self, morsels: &[usize]) {
        if !morsels.is_empty() {
            self.returns.fetch_add(1, Ordering::SeqCst);
        }
        for at in morsels {
            self.becomes(*at, DEVICE, FREE);
        }
    }

    /// The scan as the processor reads it.
    pub(crate) fn for_host(self: &Arc<Self>) -> Arc<dyn ScanInput> {
        Arc::new(HostPart(Arc::clone(self)))
    }

    /// These morsels, as [`Morsels::take`] gave them, as a device reads them.
    pub(crate) fn for_device(&self, morsels: &[usize]) -> Arc<dyn ScanInput> {
        let mut reads = vec![0..0; self.of.len()];
        for at in morsels {
            let Morsel {
                segment, start, rows, ..
            } = &self.all[*at];
            let read: &mut Range<usize> = &mut reads[*segment];
            *read = match read.start == read.end {
                true => *start..start + rows,
                false => read.start.min(*start)..read.end.max(start + rows),
            };
        }
        Arc::new(DevicePart {
            scan: Arc::clone(&self.scan),
            reads,
        })
    }
}

struct HostPart(Arc<Morsels>);

impl ScanInput for HostPart {
    fn columns(&self) -> &[ColumnProfile] {
        self.0.scan.columns()
    }

    fn segments(&self) -> usize {
        self.0.scan.segments()
    }

    fn rows(&self, segment: usize) -> usize {
        self.0.scan.rows(segment)
    }

    fn zone(&self, segment: usize, column: usize) -> Option<ZoneMap> {
        self.0.scan.zone(segment, column)
    }

    fn identity(&self, segment: usize, column: usize) -> Option<u64> {
        self.0.scan.identity(segment, column)
    }

    fn ready(&self, segment: usize, column: usize) -> bool {
        self.0.scan.ready(segment, column)
    }

    fn late(&self, segment: usize) -> bool {
        self.0.scan.late(segment)
    }

    /// What is free of it no row passes of; a device may be reading the rest.
    fn dismiss(&self, segment: usize) {
        let of = || self.0.of[segment].clone();
        of().for_each(|at| {
            self.0.becomes(at, FREE, LEFT_OUT);
        });
        if of().all(|at| self.0.all[at].owner.load(Ordering::SeqCst) != DEVICE) {
            self.0.scan.dismiss(segment);
        }
    }

    fn claim(&self, segment: usize, start: usize) -> bool {
        self.0
            .becomes(self.0.of[segment].start + start / MORSEL_ROWS, FREE, HOST)
    }

    fn load(&self, segment: usize, column: usize) -> Result<Arc<DeviceColumn>, DeviceError> {
        self.0.scan.load(segment, column)
    }
}

struct DevicePart {
    scan: Arc<dyn ScanInput>,
    /// By segment.
    reads: Vec<Range<usize>>,
}

impl DevicePart {
    fn is_whole(&self, segment: usize) -> bool {
        self.reads[segment] == (0..self.scan.rows(segment))
    }
}

impl ScanInput for DevicePart {
    fn columns(&self) -> &[ColumnProfile] {
        self.scan.columns()
    }

    fn segments(&self) -> usize {
        self.scan.segments()
    }

    fn rows(&self, segment: usize) -> usize {
        self.reads[segment].len()
    }

    fn zone(&self, segment: usize, column: usize) -> Option<ZoneMap> {
        let zone = self.scan.zone(segment, column)?;
        // More NULLs than a part has rows don't say that all of its rows are.
        let known = zone.range.is_some() || zone.null_count >= self.scan.rows(segment);
        Some(ZoneMap {
            null_count: if known { zone.null_count } else { 0 },
            ..zone
        })
    }

    fn identity(&self, segment: usize, column: usize) -> Option<u64> {
        self.scan.identity(segment, column).filter(|_| self.is_whole(segment))
    }

    fn ready(&self, segment: usize, column: usize) -> bool {
        self.scan.ready(segment, column)
    }

    fn load(&self, segment: usize, column: usize) -> Result<Arc<DeviceColumn>, DeviceError> {
        let whole = self.scan.load(segment, column)?;
        let reads = &self.reads[segment];
        Ok(match self.is_whole(segment) {
            true => whole,
            false => Arc::new(whole.slice(reads.start, reads.len())),
        })
    }

    fn load_encoded(&self, segment: usize, column: usize, decoded_bytes: usize) -> Result<Loaded, DeviceError> {
        match self.is_whole(segment) {
            true => self.scan.load_encoded(segment, column, decoded_bytes),
            false => Ok(Loaded::Decoded(self.load(segment, column)?, None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Rows(Vec<usize>);

    impl ScanInput for Rows {
        fn columns(&self) -> &[ColumnProfile] {
            &[]
        }

        fn segments(&self) -> usize {
            self.0.len()
        }

        fn rows(&self, segment: usize) -> usize {
            self.0[segment]
        }

        fn zone(&self, _segment: usize, _column: usize) -> Option<ZoneMap> {
            None
        }

        fn load(&self, _segment: usize, _column: usize) -> Result<Arc<DeviceColumn>, DeviceError> {
            Err(DeviceError::Internal("nothing is here".to_owned()))
        }
    }

    #[test]
    fn each_morsel_is_read_once() {
        let scan: Arc<dyn ScanInput> = Arc::new(Rows(vec![10, 3 * MORSEL_ROWS, 0, MORSEL_ROWS + 5]));
        let morsels = Morsels::new(&scan);
        let host = morsels.for_host();
        assert!(host.claim(0, 0) && !host.claim(0, 0), "it has it");
        assert_eq!(morsels.take(2 * MORSEL_ROWS + 5), [5, 4, 3]);
        assert!(!host.claim(3, MORSEL_ROWS) && !host.claim(1, 2 * MORSEL_ROWS));
        assert_eq!(morsels.rows(), 4 * MORSEL_ROWS + 15);
        assert_eq!(morsels.free_rows(), 2 * MORSEL_ROWS);
        assert_eq!(morsels.rows_of(&[5, 4, 3]), 2 * MORSEL_ROWS + 5);
        let device = morsels.for_device(&[5, 4, 3]);
        let rows: Vec<_> = (0..4).map(|segment| device.rows(segment)).collect();
        assert_eq!(rows, [0, MORSEL_ROWS, 0, MORSEL_ROWS + 5]);
        assert!(host.claim(1, MORSEL_ROWS));
        morsels.give_back(&[3, 4, 5]);
        // The processor has the one between 1 and 3: those of a segment are side by side.
        assert_eq!(morsels.take(usize::MAX), [5, 4, 3]);
        assert_eq!(morsels.take(1), [1], "one is always taken");
        assert_eq!(morsels.take(100), [] as [usize; 0]);
        morsels.give_back(&[1]);
        host.dismiss(1);
        assert_eq!((morsels.free_rows(), morsels.returns()), (0, 2));
        morsels.give_back(&[4]);
        morsels.leave_out();
        assert!(!host.claim(3, 0) && morsels.free_rows() == 0);
    }
}
