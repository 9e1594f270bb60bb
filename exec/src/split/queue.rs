//! The segments of a scan that the processor and a device share: each is read by one of them.
//!
//! ```text
//!   0  1  2  3  4  5  6  7        H  the processor claims one when it comes to it, from the front
//!   H  H  H  .  .  D  D  D        D  a device takes some at a time, from the back, and may give them back
//! ```
//!
//! A part of a scan has all its segments; those that it doesn't read have no rows, so that what a device compiled for the whole
//! serves for a part.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use trireme_device_api::{ColumnProfile, DeviceColumn, DeviceError, Loaded, ScanInput, ZoneMap};

const FREE: u8 = 0;
const HOST: u8 = 1;
const DEVICE: u8 = 2;
/// No row of it passes.
const LEFT_OUT: u8 = 3;

/// See the module.
pub(crate) struct Segments {
    scan: Arc<dyn ScanInput>,
    owners: Vec<AtomicU8>,
    /// Rows of those that are free.
    free_rows: AtomicUsize,
    host_rows: AtomicUsize,
    /// Times that something was given back.
    returns: AtomicUsize,
}

impl Segments {
    pub(crate) fn new(scan: &Arc<dyn ScanInput>) -> Arc<Self> {
        let rows = (0..scan.segments()).map(|segment| scan.rows(segment)).sum();
        Arc::new(Self {
            scan: Arc::clone(scan),
            owners: (0..scan.segments()).map(|_| AtomicU8::new(FREE)).collect(),
            free_rows: AtomicUsize::new(rows),
            host_rows: AtomicUsize::new(0),
            returns: AtomicUsize::new(0),
        })
    }

    fn becomes(&self, segment: usize, from: u8, to: u8) -> bool {
        let owner = &self.owners[segment];
        let changed = owner
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok();
        if changed {
            let rows = self.scan.rows(segment);
            if from == FREE {
                self.free_rows.fetch_sub(rows, Ordering::SeqCst);
            }
            if to == FREE {
                self.free_rows.fetch_add(rows, Ordering::SeqCst);
            }
            if to == HOST {
                self.host_rows.fetch_add(rows, Ordering::SeqCst);
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
        (0..self.owners.len()).map(|segment| self.scan.rows(segment)).sum()
    }

    /// Rows that the processor has taken, without those of the segment that it is at.
    pub(crate) fn host_rows_read(&self) -> usize {
        let segment = self.rows() / self.owners.len().max(1);
        self.host_rows.load(Ordering::SeqCst).saturating_sub(segment)
    }

    /// Takes free segments from the back: one, and more as long as they are at most so many rows.
    pub(crate) fn take(&self, rows: usize) -> Vec<usize> {
        let (mut taken, mut sum) = (Vec::new(), 0);
        for segment in (0..self.owners.len()).rev() {
            let more = self.scan.rows(segment);
            if !taken.is_empty() && sum + more > rows {
                break;
            }
            if more > 0 && self.becomes(segment, FREE, DEVICE) {
                taken.push(segment);
                sum += more;
            }
        }
        taken
    }

    /// Rows of segments.
    pub(crate) fn rows_of(&self, segments: &[usize]) -> usize {
        segments.iter().map(|segment| self.scan.rows(*segment)).sum()
    }

    /// How many times something was given back.
    pub(crate) fn returns(&self) -> usize {
        self.returns.load(Ordering::SeqCst)
    }

    /// What the processor ended without, though nobody else has it, no row passes of.
    pub(crate) fn leave_out(&self) {
        for segment in 0..self.owners.len() {
            self.becomes(segment, FREE, LEFT_OUT);
        }
    }

    /// What a device took and doesn't run.
    pub(crate) fn give_back(&self, segments: &[usize]) {
        if !segments.is_empty() {
            self.returns.fetch_add(1, Ordering::SeqCst);
        }
        for segment in segments {
            self.becomes(*segment, DEVICE, FREE);
        }
    }

    /// The scan as the processor reads it.
    pub(crate) fn for_host(self: &Arc<Self>) -> Arc<dyn ScanInput> {
        Arc::new(HostPart(Arc::clone(self)))
    }

    /// These segments, as a device reads them.
    pub(crate) fn for_device(&self, segments: &[usize]) -> Arc<dyn ScanInput> {
        let mut reads = vec![false; self.owners.len()];
        segments.iter().for_each(|segment| reads[*segment] = true);
        Arc::new(DevicePart {
            scan: Arc::clone(&self.scan),
            reads,
        })
    }
}

struct HostPart(Arc<Segments>);

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

    fn dismiss(&self, segment: usize) {
        let owner = self.0.owners[segment].load(Ordering::SeqCst);
        if self.0.becomes(segment, FREE, LEFT_OUT) || owner == HOST {
            self.0.scan.dismiss(segment);
        }
    }

    fn claim(&self, segment: usize) -> bool {
        self.0.becomes(segment, FREE, HOST)
    }

    fn load(&self, segment: usize, column: usize) -> Result<Arc<DeviceColumn>, DeviceError> {
        self.0.scan.load(segment, column)
    }
}

struct DevicePart {
    scan: Arc<dyn ScanInput>,
    reads: Vec<bool>,
}

impl ScanInput for DevicePart {
    fn columns(&self) -> &[ColumnProfile] {
        self.scan.columns()
    }

    fn segments(&self) -> usize {
        self.scan.segments()
    }

    fn rows(&self, segment: usize) -> usize {
        if self.reads[segment] {
            self.scan.rows(segment)
        } else {
            0
        }
    }

    fn zone(&self, segment: usize, column: usize) -> Option<ZoneMap> {
        self.scan.zone(segment, column)
    }

    fn identity(&self, segment: usize, column: usize) -> Option<u64> {
        self.scan.identity(segment, column)
    }

    fn ready(&self, segment: usize, column: usize) -> bool {
        self.scan.ready(segment, column)
    }

    fn load(&self, segment: usize, column: usize) -> Result<Arc<DeviceColumn>, DeviceError> {
        self.scan.load(segment, column)
    }

    fn load_encoded(&self, segment: usize, column: usize, decoded_bytes: usize) -> Result<Loaded, DeviceError> {
        self.scan.load_encoded(segment, column, decoded_bytes)
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
    fn each_segment_is_read_once() {
        let scan: Arc<dyn ScanInput> = Arc::new(Rows(vec![10, 10, 0, 10, 10]));
        let segments = Segments::new(&scan);
        let host = segments.for_host();
        assert!(host.claim(0) && !host.claim(0), "it has it");
        assert_eq!(segments.take(25), [4, 3]);
        assert!(!host.claim(4));
        assert_eq!(
            (segments.free_rows(), segments.rows(), segments.host_rows_read()),
            (10, 40, 2)
        );
        assert_eq!(segments.rows_of(&[4, 3]), 20);
        let device = segments.for_device(&[4, 3]);
        assert_eq!((0..5).map(|at| device.rows(at)).collect::<Vec<_>>(), [0, 0, 0, 10, 10]);
        // One is always taken, however few rows are asked for.
        assert_eq!(segments.take(1), [1]);
        assert_eq!(segments.take(100), [] as [usize; 0]);
        segments.give_back(&[3]);
        assert!(host.claim(3) && !host.claim(4));
        segments.give_back(&[4]);
        host.dismiss(4);
        assert_eq!(segments.take(100), [] as [usize; 0], "no row of it passes");
        assert_eq!((segments.free_rows(), segments.returns()), (0, 2));
        segments.give_back(&[1]);
        segments.leave_out();
        assert!(!host.claim(1) && segments.free_rows() == 0);
    }
}
