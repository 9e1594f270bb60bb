//! Scans of a simulated store: what is fetched, how often, within which memory, and what happens when the store is sick.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use simstore::{Fault, Kind, Profile, Script};
use trireme_device_api::{BinaryOperator, ColumnTest, DeviceError, RowTest, ScanInput, Type, Value};
use trireme_lake::LakeOptions;

use super::remote::{BUCKET, Remote};
use super::write::{batch, cache, open, table};
use crate::{ColumnCache, Limits};

const GROUPS: usize = 20;
const GROUP_ROWS: usize = 10_000;

/// Ascending numbers, a dozen words, and numbers that don't compress.
fn content() -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(7);
    let rows = GROUPS * GROUP_ROWS;
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows as i64));
    let words: ArrayRef = Arc::new(StringArray::from_iter_values(
        (0..rows).map(|_| format!("word {}", random.random_range(0..12))),
    ));
    let noise: ArrayRef = Arc::new(Int64Array::from_iter_values((0..rows).map(|_| random.random())));
    let batch = batch(vec![("n", numbers), ("w", words), ("x", noise)]);
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_dictionary_enabled(false)
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn columns() -> [(&'static str, Type); 3] {
    [("n", Type::Int64), ("w", Type::Utf8), ("x", Type::Int64)]
}

fn small_segments() -> ColumnCache {
    ColumnCache::new(Limits {
        segment_rows: GROUP_ROWS,
        ..Limits::default()
    })
}

fn no_tiers() -> LakeOptions {
    LakeOptions {
        memory_bytes: 0,
        hedge_percent: 0,
        late_min: Duration::from_secs(60),
        attempt_timeout: Duration::from_secs(60),
        ..LakeOptions::default()
    }
}

fn slow(first_byte_ms: f64) -> Profile {
    Profile {
        first_byte_ms,
        ..Profile::none()
    }
}

/// A first byte so late that what is sent together is so on a slow machine too: before the first answer.
const TOGETHER_MS: f64 = 700.0;

fn between(low: usize, high: usize) -> RowTest {
    let compare = |op, value: usize| RowTest::Column(0, ColumnTest::Compare(op, Value::Int(value as i128)));
    compare(BinaryOperator::GreaterOrEqual, low).and(compare(BinaryOperator::Less, high))
}

fn load_all(scan: &dyn ScanInput) -> usize {
    let mut rows = 0;
    for segment in 0..scan.segments() {
        for column in 0..scan.columns().len() {
            assert_eq!(scan.load(segment, column).unwrap().rows, scan.rows(segment));
        }
        rows += scan.rows(segment);
    }
    rows
}

#[test]
fn remote_columns_are_local_ones() {
    let folder = tempfile::tempdir().unwrap();
    let content = content();
    std::fs::write(folder.path().join("a"), &content).unwrap();
    let local = open(&small_segments(), table(folder.path(), &["a"], &columns(), true)).unwrap();
    let remote = Remote::new(Profile::none(), LakeOptions::default());
    let far = remote.table(&[("a", content)], &columns(), RowTest::True);
    let far = remote.open(&small_segments(), far).unwrap();
    assert_eq!(local.segments(), far.segments());
    for segment in 0..local.segments() {
        for column in 0..3 {
            let near = local.load(segment, column).unwrap();
            let far = far.load(segment, column).unwrap();
            let (near_array, far_array) = (near.to_arrow(0, near.rows), far.to_arrow(0, far.rows));
            assert_eq!(&near_array.unwrap(), &far_array.unwrap());
            assert_eq!(near.zone, far.zone);
        }
    }
}

#[test]
fn a_cold_scan_takes_two_round_trips_and_one_with_its_footer() {
    let remote = Remote::new(slow(TOGETHER_MS), no_tiers());
    let cache = small_segments();
    let table = remote.table(&[("a", content()), ("b", content())], &columns(), between(0, 50_000));
    let first = remote.open(&cache, table.clone()).unwrap();
    assert_eq!(load_all(first.as_ref()), 100_000);
    assert_eq!(remote.round_trips(), 2, "{:?}", remote.sim.requests());
    drop(first);
    cache.clear_columns();
    remote.sim.reset_counters();
    let second = remote.open(&cache, table.clone()).unwrap();
    assert_eq!(load_all(second.as_ref()), 100_000);
    assert_eq!(remote.round_trips(), 1);
    drop(second);
    remote.sim.reset_counters();
    let third = remote.open(&cache, table).unwrap();
    assert_eq!(load_all(third.as_ref()), 100_000);
    assert_eq!(remote.sim.counters().total.requests(), 0, "all is in the column cache");
}

#[test]
fn fetched_bytes_are_used() {
    let remote = Remote::new(slow(5.0), no_tiers());
    let content = content();
    let size = content.len() as u64;
    let table = remote.table(&[("a", content)], &columns(), between(55_000, 75_000));
    let scan = remote.open(&small_segments(), table).unwrap();
    assert_eq!(load_all(scan.as_ref()), 30_000);
    drop(scan);
    let totals = remote.account.totals();
    // The end of the file, where its footer is.
    let footer = 64 << 10;
    assert!(
        totals.used_bytes * 10 >= (totals.fetched_bytes - footer) * 9,
        "{totals:?}"
    );
    assert!(totals.fetched_bytes < size / 4, "{totals:?} of {size}");
    assert_eq!(totals.wasted_bytes, 0);
    assert_eq!(remote.sim.counters().total.sent_bytes, totals.fetched_bytes);
}

#[test]
fn the_window_holds() {
    let mut remote = Remote::new(slow(2.0), no_tiers());
    remote.window_bytes = 1 << 20;
    let table = remote.table(&[("a", content())], &columns()[..1], RowTest::True);
    let cache = small_segments();
    cache.set_enabled(false);
    let scan = remote.open(&cache, table).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let most = remote.pool.most();
    assert!(most > 0 && most <= 1 << 20, "{most} bytes were fetched ahead");
    assert_eq!(load_all(scan.as_ref()), GROUPS * GROUP_ROWS);
    // While a column is decoded its bytes and its values are there too.
    assert!(remote.pool.most() < 2 << 20, "{}", remote.pool.most());
    drop(scan);
    wait(|| remote.pool.now() == 0);
}

fn wait(done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it takes too long");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn what_is_dropped_is_not_fetched() {
    let mut remote = Remote::new(slow(20.0), no_tiers());
    remote.window_bytes = 256 << 10;
    let content = content();
    let size = content.len() as u64;
    let table = remote.table(&[("a", content)], &[("x", Type::Int64)], RowTest::True);
    let scan = remote.open(&small_segments(), table).unwrap();
    scan.load(0, 0).unwrap();
    drop(scan);
    wait(|| remote.pool.now() == 0 && remote.sim.counters().total.in_flight == 0);
    let totals = remote.account.totals();
    assert!(totals.cancelled_ranges >= 15, "{totals:?}");
    assert!(remote.sim.counters().total.sent_bytes < size / 2);
}

#[test]
fn dismissed_segments_are_not_fetched() {
    let mut remote = Remote::new(slow(20.0), no_tiers());
    remote.window_bytes = 200 << 10;
    let table = remote.table(&[("a", content())], &[("x", Type::Int64)], RowTest::True);
    let scan = remote.open(&small_segments(), table).unwrap();
    (5..scan.segments()).for_each(|segment| scan.dismiss(segment));
    (0..5).for_each(|segment| assert_eq!(scan.load(segment, 0).unwrap().rows, GROUP_ROWS));
    let before = remote.account.totals();
    assert!(before.cancelled_ranges == 15, "{before:?}");
    assert_eq!(
        scan.load(9, 0).unwrap().rows,
        GROUP_ROWS,
        "it may be loaded all the same"
    );
}

#[test]
fn readiness_comes_with_the_bytes() {
    let remote = Remote::new(slow(TOGETHER_MS), no_tiers());
    let table = remote.table(&[("a", content())], &[("n", Type::Int64)], RowTest::True);
    let woken = Arc::new(AtomicUsize::new(0));
    let mut options = remote.options();
    let counter = Arc::clone(&woken);
    options.woken = Arc::new(move || {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let cache = small_segments();
    let scan = remote.runtime.block_on(cache.open(table, options)).unwrap();
    assert!(!scan.ready(3, 0));
    wait(|| scan.ready(3, 0));
    // Told just after the bytes are there, and of the other segments' too.
    wait(|| woken.load(Ordering::SeqCst) > 1);
    scan.load(3, 0).unwrap();
    assert!(scan.ready(3, 0));
}

fn read_fault(error: &DeviceError) -> &object_store::Error {
    let DeviceError::Read(fault) = error else {
        panic!("{error}");
    };
    fault.cause().downcast_ref().unwrap()
}

fn assert_replaced(error: &DeviceError) {
    let store_error = read_fault(error);
    assert!(
        matches!(store_error, object_store::Error::Precondition { .. }),
        "{error}"
    );
}

#[test]
fn a_replaced_object_is_an_error_that_says_so() {
    let remote = Remote::new(Profile::none(), no_tiers());
    let table = remote.table(&[("a", content())], &columns()[..1], RowTest::True);
    let cache = small_segments();
    remote.open(&cache, table.clone()).unwrap();
    remote.sim.put(BUCKET, "a", content()).unwrap();
    let longer = [content(), vec![0]].concat();
    remote.sim.put(BUCKET, "a", longer).unwrap();
    let scan = remote.open(&cache, table).unwrap();
    let error = scan.load(0, 0).unwrap_err();
    assert_replaced(&error);
}

#[test]
fn a_replaced_local_file_is_an_error_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let content = content();
    std::fs::write(&path, &content).unwrap();
    let cache = cache(1 << 20);
    let files = table(folder.path(), &["a"], &columns()[..1], true);
    let scan = open(&cache, files.clone()).unwrap();
    std::fs::write(&path, [content.clone(), vec![0]].concat()).unwrap();
    let error = scan.load(0, 0).unwrap_err();
    assert_replaced(&error);
    std::fs::write(&path, content).unwrap();
    let mut dated = files;
    dated.files[0].modified_us = Some(1);
    let scan = open(&cache, dated).unwrap();
    let error = scan.load(0, 0).unwrap_err();
    assert_replaced(&error);
}

#[test]
fn a_sick_store_is_survived_and_a_dead_one_is_an_error() {
    let mut profile = slow(1.0);
    profile.faults.error_503_percent = 10.0;
    profile.faults.reset_percent = 5.0;
    profile.faults.truncate_percent = 5.0;
    let remote = Remote::new(profile, no_tiers());
    let table = remote.table(&[("a", content())], &columns(), RowTest::True);
    let scan = remote.open(&small_segments(), table.clone()).unwrap();
    assert_eq!(load_all(scan.as_ref()), GROUPS * GROUP_ROWS);
    assert!(remote.account.totals().retries > 0);
    remote.sim.set_profile(Profile::none());
    remote.sim.script(Script {
        kind: Some(Kind::Get),
        key_contains: "a".to_owned(),
        skip: 0,
        times: u32::MAX,
        fault: Fault::Error(404),
    });
    let cache = small_segments();
    let error = remote.open(&cache, table).err().unwrap();
    let store_error = read_fault(&error);
    assert!(matches!(store_error, object_store::Error::NotFound { .. }), "{error}");
}

/// One row group of ascending numbers in pages of a thousand rows, and keys at random.
fn paged(bloom: bool) -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(9);
    let rows = 4 * GROUP_ROWS;
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter(
        (0..rows as i64).map(|row| (row % 7 > 0).then_some(row)),
    ));
    let words: ArrayRef = Arc::new(StringArray::from_iter_values(
        (0..rows).map(|_| format!("word {}", random.random_range(0..12))),
    ));
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(
        (0..rows).map(|_| random.random_range(0..1_i64 << 40) * 2),
    ));
    let batch = batch(vec![("n", numbers), ("w", words), ("x", keys)]);
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(2 * GROUP_ROWS))
        .set_data_page_row_count_limit(1000)
        .set_write_batch_size(1000)
        .set_bloom_filter_enabled(bloom)
        .set_dictionary_enabled(false)
        .set_column_dictionary_enabled("w".into(), true)
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

#[test]
fn only_pages_with_wanted_rows_are_read() {
    let remote = Remote::new(slow(TOGETHER_MS), no_tiers());
    let content = paged(false);
    let cache = cache(64 << 20);
    let table = remote.table(
        &[("a", content)],
        &columns(),
        between(3_500, 5_500).or(between(12_000, 12_010)),
    );
    let read = |table| {
        remote.sim.reset_counters();
        let before = remote.account.totals();
        let scan = remote.open(&cache, table).unwrap();
        let rows = load_all(scan.as_ref());
        let first = scan.load(0, 0).unwrap().to_arrow(0, 2).unwrap();
        drop(scan);
        let totals = remote.account.totals();
        (
            rows,
            format!("{first:?}"),
            totals.used_bytes - before.used_bytes,
            remote.round_trips(),
        )
    };
    let (rows, first, used_bytes, trips) = read(table.clone());
    // Pages 3, 4, 5 and 12.
    assert_eq!((rows, trips), (4_000, 3));
    assert!(first.contains("3000") || first.contains("3001"), "{first}");
    let totals = remote.account.totals();
    assert!(totals.fetched_bytes < 64_000 + 64 * 1024 + used_bytes * 2, "{totals:?}");
    cache.clear_columns();
    let (rows, _, again_bytes, trips) = read(table.clone());
    assert_eq!((rows, again_bytes, trips), (4_000, used_bytes, 1), "the index is kept");
    let mut other = table;
    other.test = between(3_500, 4_500);
    let (rows, _, other_bytes, _) = read(other.clone());
    assert!(
        rows == 2_000 && other_bytes < used_bytes,
        "{other_bytes} of {used_bytes}"
    );
    other.test = RowTest::True;
    let (rows, _, all_bytes, _) = read(other);
    assert!(rows == 4 * GROUP_ROWS && all_bytes > 4 * used_bytes, "{all_bytes}");
}

#[test]
fn bloom_filters_rule_out_what_bounds_leave_open() {
    let remote = Remote::new(slow(5.0), no_tiers());
    let key = |value: i128| RowTest::Column(2, ColumnTest::In(vec![Value::Int(value), Value::Int(value + 2)]));
    let cache = cache(64 << 20);
    // No key is odd.
    let table = remote.table(&[("a", paged(true))], &columns(), key((1 << 40) + 1));
    let scan = remote.open(&cache, table).unwrap();
    assert_eq!(scan.segments(), 0);
    let word = RowTest::Column(
        1,
        ColumnTest::Compare(BinaryOperator::Equal, Value::Bytes(b"word 12"[..].into())),
    );
    let mut table = remote.table(&[("b", paged(true))], &columns(), word.clone());
    assert_eq!(
        remote.open(&cache, table.clone()).unwrap().segments(),
        0,
        "between word 1 and word 9"
    );
    table.test = RowTest::Column(
        1,
        ColumnTest::Compare(BinaryOperator::Equal, Value::Bytes(b"word 11"[..].into())),
    );
    assert_eq!(load_all(remote.open(&cache, table).unwrap().as_ref()), 4 * GROUP_ROWS);
}

#[test]
fn columns_of_a_needle_are_put_off() {
    let mut remote = Remote::new(slow(2.0), no_tiers());
    remote.window_bytes = 8 << 20;
    let columns = [("x", Type::Int64), ("n", Type::Int64)];
    // Noise reaches so far that no value is expected anywhere.
    let needle = RowTest::Column(0, ColumnTest::Compare(BinaryOperator::Equal, Value::Int(12_345)));
    let table = remote.table(&[("a", content())], &columns, needle.clone());
    let scan = remote.open(&small_segments(), table).unwrap();
    assert!(scan.late(0));
    wait(|| (0..scan.segments()).all(|segment| scan.ready(segment, 0)));
    let tested = remote.account.totals().fetched_bytes;
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(remote.account.totals().fetched_bytes, tested, "nothing else is fetched");
    assert!(!scan.ready(3, 1));
    wait(|| scan.ready(3, 1));
    assert!(remote.account.totals().fetched_bytes > tested);
    assert_eq!(scan.load(3, 1).unwrap().rows, GROUP_ROWS);
    assert_eq!(scan.load(4, 1).unwrap().rows, GROUP_ROWS, "without asking before");
    scan.dismiss(5);
    assert!(remote.account.totals().cancelled_ranges >= 1);
    let wide = needle.or(between(0, 1));
    let mut all = remote.table(&[("b", content())], &columns, wide);
    all.test = RowTest::Column(0, ColumnTest::Compare(BinaryOperator::Greater, Value::Int(0)));
    assert!(!remote.open(&small_segments(), all).unwrap().late(0));
}

#[test]
fn opening_that_nobody_waits_for_ends() {
    let mut remote = Remote::new(slow(1000.0), no_tiers());
    remote.window_bytes = 64 << 10;
    let table = remote.table(&[("a", content())], &columns(), RowTest::True);
    let cache = small_segments();
    let opened = remote.runtime.block_on(async {
        let open = cache.open(table, remote.options());
        tokio::time::timeout(Duration::from_millis(1300), open).await
    });
    assert!(opened.is_err(), "its words take longer");
    wait(|| remote.pool.now() == 0 && remote.sim.counters().total.in_flight == 0);
    let begun = remote.sim.counters().total.requests();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(remote.sim.counters().total.requests(), begun);
}

#[test]
fn two_tables_are_opened_together() {
    let mut options = no_tiers();
    options.in_flight_start = 64;
    let remote = Remote::new(slow(TOGETHER_MS), options);
    let one = remote.table(&[("a", content())], &columns()[..1], between(0, 10_000));
    let mut other = remote.table(&[("b", content()), ("c", content())], &columns()[..1], RowTest::True);
    other.name = "other".to_owned();
    let cache = small_segments();
    let options = crate::OpenOptions {
        order: vec![1, 0],
        ..remote.options()
    };
    let scans = remote
        .runtime
        .block_on(cache.open_all(vec![one, other], options))
        .unwrap();
    assert_eq!(load_all(scans[0].as_ref()), GROUP_ROWS);
    assert_eq!(load_all(scans[1].as_ref()), 2 * GROUPS * GROUP_ROWS);
    assert_eq!(remote.round_trips(), 2);
}

#[test]
fn a_limit_reads_no_more_than_it_needs() {
    let remote = Remote::new(slow(1.0), no_tiers());
    let mut table = remote.table(&[("a", paged(false)), ("b", content())], &columns(), RowTest::True);
    table.limit = Some(10);
    let cache = cache(64 << 20);
    let scan = remote.open(&cache, table.clone()).unwrap();
    assert_eq!((scan.segments(), load_all(scan.as_ref())), (1, 10));
    drop(scan);
    let totals = remote.account.totals();
    assert!(
        totals.used_bytes < 40_000 && totals.fetched_bytes < 300_000,
        "{totals:?}"
    );
    table.limit = Some(100_000);
    let scan = remote.open(&cache, table.clone()).unwrap();
    assert!(load_all(scan.as_ref()) >= 100_000);
    table.limit = None;
    let scan = remote.open(&cache, table).unwrap();
    assert_eq!(load_all(scan.as_ref()), (4 + GROUPS) * GROUP_ROWS);
}

#[test]
fn a_reader_that_stops_early_reads_no_words_of_what_it_never_comes_to() {
    let mut remote = Remote::new(slow(1.0), no_tiers());
    remote.window_bytes = 128 << 10;
    let cache = small_segments();
    let mut table = remote.table(&[("a", content())], &columns(), RowTest::True);
    let of_words = |cache: &ColumnCache, table: &crate::TableFiles| {
        let before = remote.account.totals().fetched_bytes;
        let scan = remote.open(cache, table.clone()).unwrap();
        // A filter found enough rows in the third segment.
        let mut words = Vec::new();
        for segment in 0..3 {
            let column = scan.load(segment, 1).unwrap();
            words.push(column.to_arrow(0, column.rows).unwrap());
        }
        (2..scan.segments()).for_each(|segment| scan.dismiss(segment));
        let distinct = scan.columns()[1].distinct;
        drop(scan);
        (remote.account.totals().fetched_bytes - before, distinct, words)
    };
    table.stops = true;
    let (few, distinct, found) = of_words(&cache, &table);
    assert_eq!(distinct, None, "they are strings");
    table.stops = false;
    let fresh = small_segments();
    let (all, distinct, expected) = of_words(&fresh, &table);
    assert_eq!(distinct, Some(12));
    assert!(few * 2 < all, "{few} bytes of {all}");
    let plain = |arrays: &[ArrayRef]| -> Vec<ArrayRef> {
        let text = |array: &ArrayRef| arrow::compute::cast(array, &arrow::datatypes::DataType::Utf8).unwrap();
        arrays.iter().map(text).collect()
    };
    assert_eq!(plain(&found), plain(&expected));
    // What is known is used.
    table.stops = true;
    assert_eq!(of_words(&fresh, &table).1, Some(12));
}

#[test]
fn doubtful_words_of_one_table_do_not_hold_up_another() {
    let remote = Remote::new(slow(1.0), LakeOptions::default());
    let cache = ColumnCache::new(Limits {
        segment_rows: 500,
        ..Limits::default()
    });
    // Without a dictionary of the writer's, words may be too many for one: 20 · 20 segments of which all but one can wait.
    let one = remote.table(&[("a", content())], &columns()[1..2], RowTest::True);
    let mut other = remote.table(&[("b", paged(false))], &columns()[1..2], RowTest::True);
    other.name = "other".to_owned();
    let scans = remote
        .runtime
        .block_on(cache.open_all(vec![one, other], remote.options()))
        .unwrap();
    for scan in &scans {
        assert_eq!(scan.columns()[0].distinct, Some(12));
    }
    assert!(scans[0].segments() > 256);
}
