//! Columns that come as pages: what they save is counted, what is wrong in them is found, and then the host decodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::buffer::Buffer;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use trireme_device_api::{
    ColumnProfile, Device, DeviceColumn, DeviceError, EncodedColumn, EncodedType, FragmentReport, Graph, Inputs,
    Loaded, Output, PageEncoding, ScanInput, ZoneMap,
};
use trireme_device_testkit::conformance::compare;
use trireme_device_testkit::driver::{last_rows, step_until_done};
use trireme_device_testkit::inputs::{CountingPool, pages};
use trireme_device_testkit::values::Row;

use super::driver::TestDriver;
use super::kit::{Named, accelerator, emitting, expected, grouping, inputs, no_leak, rows, summing};
use crate::accelerator::{Accelerator, Encoded, Limits};

/// What is done to pages before they are handed out.
type Change = fn(&mut EncodedColumn, &mut SmallRng);

/// A table whose columns come as pages.
struct Paged {
    named: Arc<Named>,
    change: Change,
    handed: AtomicUsize,
}

impl ScanInput for Paged {
    fn columns(&self) -> &[ColumnProfile] {
        self.named.columns()
    }

    fn segments(&self) -> usize {
        self.named.segments()
    }

    fn rows(&self, segment: usize) -> usize {
        self.named.rows(segment)
    }

    fn zone(&self, segment: usize, column: usize) -> Option<ZoneMap> {
        self.named.zone(segment, column)
    }

    fn identity(&self, segment: usize, column: usize) -> Option<u64> {
        self.named.identity(segment, column)
    }

    fn load(&self, segment: usize, column: usize) -> Result<Arc<DeviceColumn>, DeviceError> {
        self.named.load(segment, column)
    }

    fn load_encoded(&self, segment: usize, column: usize, _: usize) -> Result<Loaded, DeviceError> {
        let loaded = self.named.load(segment, column)?;
        let mut rng = SmallRng::seed_from_u64((segment * 16 + column) as u64);
        let range = loaded.zone.range.or(self.columns()[column].range);
        match pages::encoded(&loaded, range, &mut rng) {
            Some(mut encoded) => {
                self.handed.fetch_add(1, Ordering::SeqCst);
                (self.change)(&mut encoded, &mut rng);
                Ok(Loaded::Encoded(Arc::new(encoded)))
            }
            None => Ok(Loaded::Decoded(loaded, Some("no pages hold such values"))),
        }
    }
}

fn on() -> Limits {
    Limits {
        encoded: Encoded::On,
        ..Limits::default()
    }
}

fn as_they_are(_: &mut EncodedColumn, _: &mut SmallRng) {}

/// Runs a graph of one fragment.
fn run(device: &Accelerator, graph: &Arc<Graph>, inputs: &Inputs, rows: &[Row]) -> FragmentReport {
    let variant = device.variant();
    let kernel = variant.prepare_many(graph, &[0], inputs, &[None]).unwrap();
    step_until_done(kernel.as_ref(), 2).unwrap();
    let Output::Many(mut outputs) = kernel.finish().unwrap() else {
        panic!("many outputs");
    };
    let found = last_rows(outputs.pop().map(|(_, output)| output)).unwrap();
    compare(graph, &[], &expected(graph, rows), &found).unwrap();
    let (_, report) = kernel.reports().pop().unwrap();
    report
}

fn paged(rows: &[Row], segment: usize, number: u64, change: Change) -> (Arc<Paged>, Inputs) {
    let named = Named::new(rows, segment, number);
    let pool = Arc::new(CountingPool::new(usize::MAX));
    let mut inputs = inputs(&named, &pool);
    let paged = Arc::new(Paged {
        named,
        change,
        handed: AtomicUsize::new(0),
    });
    inputs.scans = vec![Arc::<Paged>::clone(&paged)];
    (paged, inputs)
}

#[test]
fn pages_are_decoded_on_the_device_and_kept() {
    let rows = rows(3_000, 5, &mut SmallRng::seed_from_u64(7));
    for (number, graph) in [grouping(), summing(), emitting()].into_iter().enumerate() {
        let driver = TestDriver::new(8 << 20);
        let device = accelerator(&driver, on());
        let (scan, inputs) = paged(&rows, 700, 40 + number as u64, as_they_are);
        let report = run(&device, &graph, &inputs, &rows);
        assert!(
            report.encoded_bytes > 0 && report.encoded_bytes < report.uploaded_bytes,
            "{report:?}"
        );
        let most = 3_000 * (4 + 1) + 3_000 / 8 * 2 + 64;
        assert!(
            report.decoded_bytes > 3_000 && report.decoded_bytes <= most,
            "{report:?}"
        );
        assert_eq!(report.syncs, 2, "{report:?}");
        assert!(report.load_ns > 0, "{report:?}");
        // Once more, from the device's memory.
        let handed = scan.handed.load(Ordering::SeqCst);
        assert!(handed > 0);
        let report = run(&device, &graph, &inputs, &rows);
        assert_eq!(scan.handed.load(Ordering::SeqCst), handed);
        assert_eq!((report.encoded_bytes, report.decoded_bytes), (0, 0));
        assert_eq!(report.load_ns, 0, "{report:?}");
        no_leak(&driver, &device);
    }
}

#[test]
fn pages_come_in_chunks_too() {
    let rows = rows(3_000, 5, &mut SmallRng::seed_from_u64(8));
    let driver = TestDriver::new(8 << 20);
    let limits = Limits {
        chunk_bytes: Some(2_000),
        ..on()
    };
    let device = accelerator(&driver, limits);
    let (_, inputs) = paged(&rows, 200, 50, as_they_are);
    let report = run(&device, &grouping(), &inputs, &rows);
    assert!(report.encoded_bytes > 0 && report.syncs > 3, "{report:?}");
    no_leak(&driver, &device);
}

#[test]
fn switched_off_the_host_decodes() {
    let rows = rows(500, 5, &mut SmallRng::seed_from_u64(9));
    let driver = TestDriver::new(8 << 20);
    let limits = Limits {
        encoded: Encoded::Off,
        ..on()
    };
    let device = accelerator(&driver, limits);
    let (scan, inputs) = paged(&rows, 200, 60, as_they_are);
    let report = run(&device, &grouping(), &inputs, &rows);
    assert_eq!(scan.handed.load(Ordering::SeqCst), 0);
    assert_eq!((report.encoded_bytes, report.decoded_bytes), (0, 0));
}

#[test]
fn wrong_pages_are_decoded_by_the_host() {
    let rows = rows(800, 5, &mut SmallRng::seed_from_u64(10));
    let cut: Change = |column, _| {
        for page in column.pages.iter_mut().filter(|page| page.values > 20) {
            page.bytes = page.bytes.slice_with_length(0, page.bytes.len() / 3);
        }
    };
    let garbled: Change = |column, rng| {
        for page in &mut column.pages {
            let bytes: Vec<u8> = page.bytes.iter().map(|_| rng.random()).collect();
            page.bytes = Buffer::from(bytes);
        }
    };
    let outside: Change = |column, _| {
        for page in column
            .pages
            .iter_mut()
            .filter(|page| page.encoding == PageEncoding::Plain)
        {
            page.bytes = Buffer::from(vec![0x7f_u8; page.bytes.len()]);
        }
    };
    let beyond: Change = |column, _| column.dictionaries.iter_mut().for_each(|entries| entries.truncate(1));
    for (number, change) in [cut, garbled, outside, beyond].into_iter().enumerate() {
        for chunk_bytes in [None, Some(1_000)] {
            let driver = TestDriver::new(8 << 20);
            let limits = Limits { chunk_bytes, ..on() };
            let device = accelerator(&driver, limits);
            let (_, inputs) = paged(&rows, 300, 70 + number as u64, change);
            let report = run(&device, &grouping(), &inputs, &rows);
            assert!(
                report
                    .host_decoded
                    .contains_key("pages that the device could not decode"),
                "change {number}: {report:?}"
            );
            // What was wrong isn't kept for others.
            let report = run(&device, &grouping(), &inputs, &rows);
            println!("change {number}: {report:?}");
            no_leak(&driver, &device);
        }
    }
}

#[test]
fn columns_that_do_not_lie_as_promised_are_decoded_by_the_host() {
    let rows = rows(300, 5, &mut SmallRng::seed_from_u64(11));
    let wider: Change = |column, _| {
        if let EncodedType::Integers { range, .. } = &mut column.values {
            *range = (i64::MIN, i64::MAX);
        }
    };
    let driver = TestDriver::new(8 << 20);
    let device = accelerator(&driver, on());
    let (scan, inputs) = paged(&rows, 100, 80, wider);
    let report = run(&device, &grouping(), &inputs, &rows);
    assert!(scan.handed.load(Ordering::SeqCst) > 0);
    assert_eq!(report.encoded_bytes, 0);
}
