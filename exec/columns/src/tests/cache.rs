//! Budget, sharing, versions, dictionaries.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, Int64Array, StringArray};
use parquet::basic::Encoding;
use parquet::file::properties::WriterProperties;
use trireme_device_api::{DeviceError, DevicePool, Type, Values};

use super::write::{batch, cache, open, table, write};
use crate::{ColumnCache, Limits, OpenOptions};

fn numbers(rows: i64) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values((0..rows).map(|row| row * 100_003)))
}

#[test]
fn a_second_scan_hits_and_a_new_version_misses() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    write(&path, &[batch(vec![("x", numbers(1000))])], WriterProperties::default());
    let cache = cache(1 << 20);
    let columns = [("x", Type::Int64)];
    for _ in 0..2 {
        let scan = open(&cache, table(folder.path(), &["a.parquet"], &columns, true)).unwrap();
        assert_eq!(scan.load(0, 0).unwrap().rows, 1000);
    }
    let metrics = cache.metrics();
    assert_eq!((metrics.hits, metrics.misses, metrics.entries), (1, 1, 1));
    assert_eq!(cache.snapshot()[0].hits, 1);
    write(&path, &[batch(vec![("x", numbers(2000))])], WriterProperties::default());
    let scan = open(&cache, table(folder.path(), &["a.parquet"], &columns, true)).unwrap();
    assert_eq!((scan.rows(0), scan.load(0, 0).unwrap().rows), (2000, 2000));
    let metrics = cache.metrics();
    assert_eq!((metrics.misses, metrics.entries, metrics.evictions), (2, 1, 1));
    assert_eq!(cache.snapshot()[0].rows, 2000);
}

#[test]
fn columns_in_order_tell_how_many_values_they_have() {
    let folder = tempfile::tempdir().unwrap();
    let ints = |of: fn(i64) -> i64, rows: std::ops::Range<i64>| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(rows.map(of)))
    };
    let columns = |rows: std::ops::Range<i64>| {
        let fours = ints(|row| row / 4 * 10, rows.clone());
        let mixed = ints(|row| row * 7919 % 1000, rows.clone());
        batch(vec![
            ("key", ints(|row| row * 3, rows)),
            ("fours", fours),
            ("mixed", mixed),
        ])
    };
    for (name, rows) in [("b.parquet", 6000..12_000), ("a.parquet", 0..6000)] {
        write(&folder.path().join(name), &[columns(rows)], WriterProperties::default());
    }
    let cache = cache(1 << 20);
    let wanted = [("key", Type::Int64), ("fours", Type::Int64), ("mixed", Type::Int64)];
    let files = table(folder.path(), &["b.parquet", "a.parquet"], &wanted, true);
    let (store, known) = (files.store_url.clone(), files.files.clone());
    let distinct = |column: &str| cache.distinct_in_order(&store, known.iter().cloned(), column, 12_000.0);
    assert_eq!(distinct("key"), None, "nothing is held");
    let scan = open(&cache, files).unwrap();
    for column in 0..3 {
        scan.load(0, column).unwrap();
    }
    assert_eq!(distinct("key"), None, "half is held");
    for column in 0..3 {
        scan.load(1, column).unwrap();
    }
    assert_eq!((distinct("key"), distinct("mixed")), (Some(12_000.0), None));
    let fours = distinct("fours").unwrap();
    assert!((2900.0..3100.0).contains(&fours), "{fours}");
    assert_eq!(
        cache.distinct_in_order(&store, known.iter().cloned(), "key", 12_001.0),
        None,
        "not all rows"
    );
    let mut other = known.clone();
    other[0].version.push('x');
    assert_eq!(
        cache.distinct_in_order(&store, other.into_iter(), "key", 12_000.0),
        None,
        "another version"
    );
}

#[test]
fn the_budget_holds_under_eight_threads() {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..24).map(|file| format!("{file}.parquet")).collect();
    for name in &names {
        write(
            &folder.path().join(name),
            &[batch(
                vec![("x", numbers(4000)), ("y", numbers(900))]
                    .into_iter()
                    .map(|(name, array)| (name, arrow::compute::concat(&[&array]).unwrap().slice(0, 900)))
                    .collect(),
            )],
            WriterProperties::default(),
        );
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let columns = [("x", Type::Int64), ("y", Type::Int64)];
    let cache = cache(50_000);
    std::thread::scope(|scope| {
        for thread in 0..8_usize {
            let (cache, names, columns, folder) = (&cache, &names, &columns, folder.path());
            scope.spawn(move || {
                for round in 0..6 {
                    let scan = open(cache, table(folder, names, columns, true)).unwrap();
                    for at in 0..scan.segments() {
                        let segment = (at * 7 + thread * 3 + round) % scan.segments();
                        let column = scan.load(segment, at % 2).unwrap();
                        assert_eq!(column.rows, 900);
                        assert!(cache.metrics().used_bytes <= 50_000);
                    }
                }
            });
        }
    });
    let metrics = cache.metrics();
    assert!(
        metrics.evictions > 0 && metrics.hits > 0 && metrics.uncached > 0,
        "{metrics:?}"
    );
    let held: u64 = cache.snapshot().iter().map(|row| row.bytes).sum();
    assert_eq!(metrics.used_bytes, held);
    cache.clear();
    assert_eq!((cache.metrics().used_bytes, cache.metrics().entries), (0, 0));
}

#[test]
fn pinned_columns_count_until_their_readers_let_go() {
    let folder = tempfile::tempdir().unwrap();
    write(
        &folder.path().join("a"),
        &[batch(vec![("x", numbers(1000))])],
        WriterProperties::default(),
    );
    let cache = cache(1 << 20);
    let scan = open(&cache, table(folder.path(), &["a"], &[("x", Type::Int64)], true)).unwrap();
    let column = scan.load(0, 0).unwrap();
    assert!(cache.snapshot()[0].pinned);
    assert_eq!(cache.shrink(usize::MAX), 0);
    cache.clear();
    drop(scan);
    let used = cache.metrics().used_bytes;
    assert!(used >= 4000, "{used}");
    let values = column.values.clone();
    drop(column);
    assert_eq!(cache.metrics().used_bytes, used);
    drop(values);
    assert_eq!(cache.metrics().used_bytes, 0);
}

#[test]
fn switched_off_it_keeps_nothing_and_gives_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let strings: ArrayRef = Arc::new(StringArray::from_iter(
        (0..1000).map(|row| Some(format!("{}", row % 7))),
    ));
    write(
        &folder.path().join("a"),
        &[batch(vec![("s", strings)])],
        WriterProperties::default(),
    );
    let cache = cache(1 << 20);
    cache.set_enabled(false);
    let scan = open(&cache, table(folder.path(), &["a"], &[("s", Type::Utf8View)], true)).unwrap();
    let column = scan.load(0, 0).unwrap();
    let Values::Codes { codes, dictionary } = &column.values else {
        panic!("{column:?}")
    };
    assert_eq!(dictionary.get(codes.get(12)), b"5");
    assert_eq!((cache.metrics().used_bytes, cache.metrics().entries), (0, 0));
    // Nor do devices, which name what they keep.
    assert_eq!(scan.identity(0, 0), None);
    cache.set_enabled(true);
    assert!(scan.identity(0, 0).is_some());
}

#[test]
fn appended_files_extend_the_dictionary_and_keep_old_codes() {
    let folder = tempfile::tempdir().unwrap();
    for (name, first) in [("a", 0), ("b", 5)] {
        let strings: ArrayRef = Arc::new(StringArray::from_iter(
            (0..500).map(|row| Some(format!("{}", first + row % 10))),
        ));
        write(
            &folder.path().join(name),
            &[batch(vec![("s", strings)])],
            WriterProperties::default(),
        );
    }
    let cache = cache(1 << 20);
    let columns = [("s", Type::Utf8)];
    let first = open(&cache, table(folder.path(), &["a"], &columns, true)).unwrap();
    let old = first.load(0, 0).unwrap();
    let both = open(&cache, table(folder.path(), &["a", "b"], &columns, true)).unwrap();
    assert_eq!(first.columns()[0].dictionary.as_ref().unwrap().len(), 10);
    let dictionary = both.columns()[0].dictionary.as_ref().unwrap();
    assert_eq!((dictionary.len(), both.columns()[0].distinct), (15, Some(15)));
    let new = both.load(0, 0).unwrap();
    let (
        Values::Codes { codes: old, .. },
        Values::Codes {
            codes: new,
            dictionary: of,
        },
    ) = (&old.values, &new.values)
    else {
        panic!("{old:?} {new:?}")
    };
    assert!(Arc::ptr_eq(dictionary, of));
    assert!((0..500).all(|row| old.get(row) == new.get(row)));
    // Of the second file its dictionary alone was read.
    assert_eq!(cache.metrics().misses, 1);
}

#[test]
fn opening_reads_dictionaries_alone_and_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let text = |row: usize| (!row.is_multiple_of(3)).then(|| format!("{}", row % 700));
    let strings: ArrayRef = Arc::new(StringArray::from_iter((0..5000).map(text)));
    let listed = WriterProperties::builder().set_max_row_group_row_count(Some(1000));
    let spelled = listed.clone().set_dictionary_enabled(false);
    let lengths = spelled.clone().set_encoding(Encoding::DELTA_LENGTH_BYTE_ARRAY);
    for (name, properties) in [("listed", listed), ("spelled", spelled), ("lengths", lengths)] {
        write(
            &folder.path().join(name),
            &[batch(vec![("s", Arc::clone(&strings))])],
            properties.build(),
        );
    }
    let (all, cases) = (
        ["listed", "spelled", "lengths"],
        [(true, 1), (true, 3), (false, 1), (false, 3)],
    );
    for (enabled, files) in cases {
        let cache = ColumnCache::new(Limits {
            segment_rows: 2500,
            ..Limits::default()
        });
        cache.set_enabled(enabled);
        let scan = open(&cache, table(folder.path(), &all[..files], &[("s", Type::Utf8)], true)).unwrap();
        // Strings one by one are worth codes where these are kept.
        let coded = enabled || files == 1;
        let read_ahead = if enabled { 3 * (files as u64 - 1) } else { 0 };
        assert_eq!(cache.metrics().misses, read_ahead, "{enabled} {files}");
        let dictionary = scan.columns()[0].dictionary.as_ref().map(|dictionary| dictionary.len());
        assert_eq!(dictionary, coded.then_some(700), "{enabled} {files}");
        assert_eq!(scan.segments(), 3 * files);
        assert!(scan.decode_ns(0, 0) > 0.0);
        for segment in 0..scan.segments() {
            let column = scan.load(segment, 0).unwrap();
            for row in (0..column.rows).filter(|row| !column.is_null(*row)) {
                let found = match &column.values {
                    Values::Codes { codes, dictionary } => dictionary.get(codes.get(row)).to_vec(),
                    Values::Strings(strings) => strings.get(row).to_vec(),
                    other => panic!("{other:?}"),
                };
                let of_file = segment % 3 * 2000 + row;
                assert_eq!(Some(found), text(of_file).map(String::into_bytes));
            }
        }
        // Some are held by the scan itself.
        assert_eq!(scan.decode_ns(0, 0) == 0.0, enabled || files == 1);
        assert_eq!(cache.metrics().misses, 3 * files as u64, "{enabled} {files}");
    }
}

#[test]
fn too_many_values_are_strings_in_all_segments() {
    let folder = tempfile::tempdir().unwrap();
    for (name, distinct) in [("a", 10), ("b", 70_000)] {
        let strings: ArrayRef = Arc::new(StringArray::from_iter(
            (0..80_000).map(|row| Some(format!("{}", row % distinct))),
        ));
        write(
            &folder.path().join(name),
            &[batch(vec![("s", strings)])],
            WriterProperties::default(),
        );
    }
    let cache = cache(16 << 20);
    let columns = [("s", Type::Utf8)];
    let coded = open(&cache, table(folder.path(), &["a"], &columns, true)).unwrap();
    let raw = open(&cache, table(folder.path(), &["a", "b"], &columns, true)).unwrap();
    assert!(raw.columns()[0].dictionary.is_none());
    for segment in 0..2 {
        let column = raw.load(segment, 0).unwrap();
        let Values::Strings(strings) = &column.values else {
            panic!()
        };
        assert_eq!(strings.get(7), b"7");
    }
    // The scan that was open keeps its codes.
    let column = coded.load(0, 0).unwrap();
    assert!(matches!(&column.values, Values::Codes { dictionary, .. } if dictionary.len() == 10));
}

/// Counts what is held of it.
struct Pool {
    limit_bytes: usize,
    used_bytes: AtomicUsize,
}

impl DevicePool for Pool {
    fn reserve(&self, bytes: usize) -> Result<(), DeviceError> {
        let fits = |used: usize| (used + bytes <= self.limit_bytes).then_some(used + bytes);
        let taken = self.used_bytes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits);
        taken
            .map(|_| ())
            .map_err(|_| DeviceError::OutOfMemory("none left".to_owned()))
    }

    fn release(&self, bytes: usize) {
        self.used_bytes.fetch_sub(bytes, Ordering::SeqCst);
    }
}

#[test]
fn what_does_not_fit_is_of_the_querys_pool_and_goes_back() {
    let folder = tempfile::tempdir().unwrap();
    let text: ArrayRef = Arc::new(StringArray::from_iter_values(
        (0..1000).map(|row| format!("{}", row % 9)),
    ));
    write(
        &folder.path().join("a"),
        &[batch(vec![("x", numbers(1000)), ("s", text)])],
        WriterProperties::default(),
    );
    let columns = [("x", Type::Int64), ("s", Type::Utf8)];
    let cache = cache(100);
    for (limit_bytes, enough) in [(100_000, true), (1000, false)] {
        let pool = Arc::new(Pool {
            limit_bytes,
            used_bytes: AtomicUsize::new(0),
        });
        let files = table(folder.path(), &["a"], &columns, true);
        let opened = futures::executor::block_on(
            cache.open(files, OpenOptions::new(Arc::clone(&pool) as Arc<dyn DevicePool>, 2)),
        );
        match opened {
            Ok(scan) => {
                assert!(enough);
                let column = scan.load(0, 0).unwrap();
                scan.load(0, 1).unwrap();
                assert!(pool.used_bytes.load(Ordering::SeqCst) >= 5000);
                drop(scan);
                assert!(pool.used_bytes.load(Ordering::SeqCst) >= 4000);
                drop(column);
            }
            Err(error) => assert!(!enough && matches!(error, DeviceError::OutOfMemory(_)), "{error:?}"),
        }
        assert_eq!(pool.used_bytes.load(Ordering::SeqCst), 0);
        assert_eq!((cache.metrics().used_bytes, cache.metrics().entries), (0, 0));
    }
}

#[test]
fn many_threads_decode_a_column_once() {
    let folder = tempfile::tempdir().unwrap();
    write(
        &folder.path().join("a"),
        &[batch(vec![("x", numbers(300_000))])],
        WriterProperties::default(),
    );
    let cache = cache(16 << 20);
    let scans: Vec<_> = (0..8)
        .map(|_| open(&cache, table(folder.path(), &["a"], &[("x", Type::Int64)], true)).unwrap())
        .collect();
    std::thread::scope(|scope| {
        for scan in &scans {
            scope.spawn(|| assert_eq!(scan.load(0, 0).unwrap().rows, 300_000));
        }
    });
    let metrics = cache.metrics();
    assert_eq!((metrics.misses, metrics.hits), (1, 7));
}

#[test]
fn a_scan_larger_than_the_budget_keeps_a_part_resident() {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..20).map(|file| file.to_string()).collect();
    for name in &names {
        write(
            &folder.path().join(name),
            &[batch(vec![("x", numbers(1000))])],
            WriterProperties::default(),
        );
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let cache = cache(10 * 4000);
    for _ in 0..10 {
        let scan = open(&cache, table(folder.path(), &names, &[("x", Type::Int64)], true)).unwrap();
        (0..scan.segments()).for_each(|segment| assert_eq!(scan.load(segment, 0).unwrap().rows, 1000));
    }
    // Least recently used would hit never.
    let metrics = cache.metrics();
    assert!(metrics.hits >= 40, "{metrics:?}");
}
