//! Tables of unequal files, partitions, statistics that lie, and bytes that are wrong.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int32Array, Int64Array, StringArray};
use arrow::buffer::BooleanBuffer;
use parquet::basic::Encoding;
use parquet::data_type::{ByteArray, ByteArrayType, Int96, Int96Type};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use trireme_device_api::{DeviceError, ScanInput, TimeUnit, Type, Value, Values};

use super::round_trip::{expected, found};
use super::write::{batch, cache, open, table, write};
use crate::{ColumnCache, ColumnRequest, ColumnSource, Limits, OpenOptions};

fn plain(rows: i64) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values((0..rows).map(|row| row * 3)))
}

#[test]
fn files_of_other_types_are_cast_and_missing_columns_are_null() {
    let folder = tempfile::tempdir().unwrap();
    let wide: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), None, Some(-9)]));
    let text: ArrayRef = Arc::new(StringArray::from(vec![Some("70"), None, Some("5")]));
    let small: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), Some(2), None]));
    let none: ArrayRef = Arc::new(StringArray::from(vec!["x", "y", "z"]));
    for (name, array) in [("a", wide), ("b", text), ("c", small)] {
        write(
            &folder.path().join(name),
            &[batch(vec![("x", array)])],
            WriterProperties::default(),
        );
    }
    write(
        &folder.path().join("d"),
        &[batch(vec![("other", none)])],
        WriterProperties::default(),
    );
    let cache = cache(1 << 20);
    let columns = [("x", Type::Int64), ("x", Type::Utf8), ("other", Type::Utf8View)];
    let scan = open(&cache, table(folder.path(), &["a", "b", "c", "d"], &columns, true)).unwrap();
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter([
        Some(7),
        None,
        Some(-9),
        Some(70),
        None,
        Some(5),
        Some(1),
        Some(2),
        None,
        None,
        None,
        None,
    ]));
    assert_eq!(&found_any(scan.as_ref(), 0), &numbers);
    let text: ArrayRef = Arc::new(StringArray::from_iter([
        Some("7"),
        None,
        Some("-9"),
        Some("70"),
        None,
        Some("5"),
        Some("1"),
        Some("2"),
        None,
        None,
        None,
        None,
    ]));
    assert_eq!(&found_any(scan.as_ref(), 1), &text);
    assert!(matches!(scan.load(3, 0).unwrap().values, Values::Nulls));
    assert!(matches!(scan.load(0, 2).unwrap().values, Values::Nulls));
    assert_eq!(scan.columns()[2].distinct, Some(3));
    let bad = open(&cache, table(folder.path(), &["d"], &[("other", Type::Int32)], true)).unwrap();
    assert!(matches!(bad.load(0, 0), Err(DeviceError::Input(_))));
}

fn found_any(scan: &dyn ScanInput, column: usize) -> ArrayRef {
    let of = |segment| {
        let loaded = scan.load(segment, column).unwrap();
        loaded.to_arrow(0, loaded.rows).unwrap()
    };
    let arrays: Vec<ArrayRef> = (0..scan.segments()).map(of).collect();
    let views: Vec<&dyn arrow::array::Array> = arrays.iter().map(AsRef::as_ref).collect();
    arrow::compute::concat(&views).unwrap()
}

#[test]
fn partition_values_are_columns() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        write(
            &folder.path().join(name),
            &[batch(vec![("x", plain(10))])],
            WriterProperties::default(),
        );
    }
    let mut files = table(folder.path(), &["a", "b", "c"], &[], true);
    let years = [Value::Int(2024), Value::Int(2026), Value::Null];
    let places = [
        Value::Bytes(b"Kos"[..].into()),
        Value::Bytes(b"Ios"[..].into()),
        Value::Bytes(b"Kos"[..].into()),
    ];
    for ((file, year), place) in files.files.iter_mut().zip(years).zip(places) {
        file.partition = vec![year, place];
    }
    for (at, data_type) in [(0, Type::Int32), (1, Type::Utf8)] {
        files.columns.push(ColumnRequest {
            source: ColumnSource::Partition(at),
            data_type,
        });
    }
    let scan = open(&cache(1 << 20), files).unwrap();
    let profile = &scan.columns()[0];
    assert_eq!((profile.range, profile.nullable), (Some((2024, 2026)), true));
    assert_eq!(scan.columns()[1].dictionary.as_ref().unwrap().len(), 2);
    assert_eq!(scan.zone(1, 0).unwrap().range, Some((2026, 2026)));
    let years: ArrayRef = Arc::new(Int32Array::from_iter(
        [Some(2024), Some(2026), None].iter().flat_map(|year| [*year; 10]),
    ));
    assert_eq!(&found_any(scan.as_ref(), 0), &years);
    let places: ArrayRef = Arc::new(StringArray::from_iter_values(
        ["Kos", "Ios", "Kos"].iter().flat_map(|place| [*place; 10]),
    ));
    assert_eq!(&found_any(scan.as_ref(), 1), &places);
}

#[test]
fn rows_that_deletion_vectors_leave_are_a_column() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        let groups = WriterProperties::builder().set_max_row_group_row_count(Some(7)).build();
        write(&folder.path().join(name), &[batch(vec![("x", plain(30))])], groups);
    }
    let mut files = table(folder.path(), &["a", "b", "c"], &[], true);
    let third = |row: usize| !row.is_multiple_of(3);
    files.files[0].kept = Some(BooleanBuffer::collect_bool(30, third));
    // Rows behind the end of a vector are there.
    files.files[2].kept = Some(BooleanBuffer::new_unset(10));
    files.columns.push(ColumnRequest {
        source: ColumnSource::Kept,
        data_type: Type::Boolean,
    });
    let scan = open(&cache(1 << 20), files).unwrap();
    let wanted: ArrayRef =
        Arc::new(BooleanArray::from_iter((0..90).map(|row| {
            Some(if row < 30 { third(row) } else { !(60..70).contains(&row) })
        })));
    assert_eq!(&found_any(scan.as_ref(), 0), &wanted);
}

#[test]
fn nested_columns_are_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let list: ArrayRef = Arc::new(arrow::array::ListArray::from_iter_primitive::<
        arrow::datatypes::Int32Type,
        _,
        _,
    >(vec![Some(vec![Some(1)])]));
    write(
        &folder.path().join("a"),
        &[batch(vec![("x", list)])],
        WriterProperties::default(),
    );
    let error = open(
        &cache(1 << 20),
        table(folder.path(), &["a"], &[("x", Type::Int32)], true),
    );
    assert_eq!(
        error.err(),
        Some(DeviceError::Unsupported("column x is nested".to_owned()))
    );
}

/// A file with one column by Parquet's low-level writer.
fn write_one(path: &Path, schema: &str, write: impl FnOnce(&mut parquet::file::writer::SerializedColumnWriter<'_>)) {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = std::fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    write(&mut column);
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn int96_are_nanoseconds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let of = |day: u32, nanoseconds: u64| {
        let mut value = Int96::new();
        value.set_data(nanoseconds as u32, (nanoseconds >> 32) as u32, day);
        value
    };
    write_one(&path, "message m { required int96 x; }", |column| {
        let values = [of(2_440_588, 5), of(2_460_000, 86_399_999_999_999), of(2_440_587, 0)];
        column.typed::<Int96Type>().write_batch(&values, None, None).unwrap();
    });
    let wanted = Type::Timestamp {
        unit: TimeUnit::Nanosecond,
        zone: None,
    };
    let scan = open(
        &cache(1 << 20),
        table(folder.path(), &["a"], &[("x", wanted.clone())], true),
    )
    .unwrap();
    assert_eq!(&found(scan.as_ref(), 0), &expected(&path, 0, &wanted));
    assert_eq!(scan.zone(0, 0).unwrap().range.unwrap().0, -86_400_000_000_000);
}

#[test]
fn int96_reach_further_in_microseconds() {
    let folder = tempfile::tempdir().unwrap();
    write_one(&folder.path().join("a"), "message m { required int96 x; }", |column| {
        let mut last_day = Int96::new();
        last_day.set_data(1_000, 0, 5_373_484);
        column
            .typed::<Int96Type>()
            .write_batch(&[last_day], None, None)
            .unwrap();
    });
    let wanted = Type::Timestamp {
        unit: TimeUnit::Microsecond,
        zone: Some("UTC".into()),
    };
    let scan = open(&cache(1 << 20), table(folder.path(), &["a"], &[("x", wanted)], true)).unwrap();
    found(scan.as_ref(), 0);
    // 9999-12-31 and a microsecond.
    assert_eq!(
        scan.zone(0, 0).unwrap().range.unwrap(),
        (253_402_214_400_000_001, 253_402_214_400_000_001)
    );
}

#[test]
fn decimals_of_bytes_go_through_arrow() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    write_one(&path, "message m { required binary x (DECIMAL(20, 2)); }", |column| {
        let values = [ByteArray::from(vec![1, 0]), ByteArray::from(vec![0xff])];
        column
            .typed::<ByteArrayType>()
            .write_batch(&values, None, None)
            .unwrap();
    });
    let wanted = Type::Decimal {
        precision: 20,
        scale: 2,
    };
    let cache = cache(1 << 20);
    let scan = open(&cache, table(folder.path(), &["a"], &[("x", wanted.clone())], true)).unwrap();
    assert_eq!(&found(scan.as_ref(), 0), &expected(&path, 0, &wanted));
    assert_eq!(
        (cache.metrics().arrow_reads, scan.zone(0, 0).unwrap().range),
        (1, Some((-1, 256)))
    );
}

#[test]
fn strings_that_are_not_text_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    for (name, dictionary) in [("a", true), ("b", false)] {
        let path = folder.path().join(name);
        let schema = Arc::new(parse_message_type("message m { required binary x (UTF8); }").unwrap());
        let properties = Arc::new(WriterProperties::builder().set_dictionary_enabled(dictionary).build());
        let mut writer = SerializedFileWriter::new(std::fs::File::create(&path).unwrap(), schema, properties).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let values = [ByteArray::from("fine"), ByteArray::from(vec![0xc3])];
        column
            .typed::<ByteArrayType>()
            .write_batch(&values, None, None)
            .unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
        let opened = open(
            &cache(1 << 20),
            table(folder.path(), &[name], &[("x", Type::Utf8)], true),
        );
        assert!(matches!(opened.err(), Some(DeviceError::Input(_))));
        let binary = open(
            &cache(1 << 20),
            table(folder.path(), &[name], &[("x", Type::Binary)], true),
        )
        .unwrap();
        assert_eq!(binary.load(0, 0).unwrap().rows, 2);
    }
}

#[test]
fn statistics_that_lie_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let x: ArrayRef = Arc::new(Int64Array::from(vec![77, 47_114_711, 90]));
    let properties = WriterProperties::builder().set_dictionary_enabled(false).build();
    write(&path, &[batch(vec![("x", x)])], properties);
    let mut bytes = std::fs::read(&path).unwrap();
    let value = 47_114_711_i64.to_le_bytes();
    let places: Vec<usize> = (0..bytes.len() - 8).filter(|at| bytes[*at..*at + 8] == value).collect();
    // The first is the value itself, the others are statistics.
    assert!(places.len() > 1);
    for at in &places[1..] {
        bytes[*at..*at + 8].copy_from_slice(&100_i64.to_le_bytes());
    }
    std::fs::write(&path, bytes).unwrap();
    let scan = open(
        &cache(1 << 20),
        table(folder.path(), &["a"], &[("x", Type::Int64)], true),
    )
    .unwrap();
    assert_eq!(scan.columns()[0].range, Some((77, 100)));
    let Err(DeviceError::Input(text)) = scan.load(0, 0) else {
        panic!()
    };
    assert!(text.contains("statistics"), "{text}");
}

/// As a second dictionary page of the chunk would bring them.
#[test]
fn strings_that_the_dictionary_lacks_are_not_handed_out() {
    let folder = tempfile::tempdir().unwrap();
    let put = |values: [&str; 2]| {
        let strings: ArrayRef = Arc::new(StringArray::from(values.to_vec()));
        let path = folder.path().join("a");
        write(&path, &[batch(vec![("x", strings)])], WriterProperties::default());
    };
    put(["aa", "bb"]);
    let cache = cache(1 << 20);
    let table = || table(folder.path(), &["a"], &[("x", Type::Utf8)], true);
    let scan = open(&cache, table()).unwrap();
    put(["aa", "cc"]);
    let loaded = scan.load(0, 0);
    assert!(matches!(loaded, Err(DeviceError::Unsupported(_))), "{loaded:?}");
    let scan = open(&cache, table()).unwrap();
    assert_eq!(scan.columns()[0].dictionary.as_ref().unwrap().len(), 3);
    assert!(scan.load(0, 0).is_ok());
}

/// Every outcome but a panic, an endless loop or values out of range is right.
#[test]
fn wrong_bytes_are_errors_not_panics() {
    let seed: u64 = std::env::var("TRIREME_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random);
    let rounds: usize = std::env::var("TRIREME_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(60);
    println!("TRIREME_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let files = [
        (true, Encoding::PLAIN, WriterVersion::PARQUET_1_0),
        (false, Encoding::PLAIN, WriterVersion::PARQUET_2_0),
        (false, Encoding::DELTA_BINARY_PACKED, WriterVersion::PARQUET_2_0),
        (false, Encoding::DELTA_BYTE_ARRAY, WriterVersion::PARQUET_1_0),
        (false, Encoding::DELTA_LENGTH_BYTE_ARRAY, WriterVersion::PARQUET_1_0),
    ];
    let mut errors = 0;
    for (dictionary, encoding, version) in files {
        let text = matches!(
            encoding,
            Encoding::DELTA_BYTE_ARRAY | Encoding::DELTA_LENGTH_BYTE_ARRAY | Encoding::PLAIN
        );
        let values = (0..300).map(|row| (row % 7 != 0).then_some(row * row % 50));
        let array: ArrayRef = match text {
            true => Arc::new(StringArray::from_iter(
                values.map(|value| value.map(|value| format!("Ωmega{value}"))),
            )),
            false => Arc::new(Int64Array::from_iter(values)),
        };
        let wanted = if text { Type::Utf8 } else { Type::Int64 };
        let properties = WriterProperties::builder()
            .set_dictionary_enabled(dictionary)
            .set_encoding(encoding)
            .set_writer_version(version)
            .set_data_page_row_count_limit(64)
            .set_write_batch_size(64)
            .build();
        write(&path, &[batch(vec![("x", array)])], properties);
        let original = std::fs::read(&path).unwrap();
        for round in 0..rounds {
            let mut bytes = original.clone();
            // Mostly pages, sometimes the footer.
            let end = if round % 4 == 0 { bytes.len() } else { bytes.len() / 2 };
            for _ in 0..rng.random_range(1..4) {
                bytes[rng.random_range(4..end)] = rng.random();
            }
            std::fs::write(&path, &bytes).unwrap();
            let cache = ColumnCache::new(Limits::default());
            let outcome = open(&cache, table(folder.path(), &["a"], &[("x", wanted.clone())], true));
            errors += usize::from(outcome.is_err());
            let Ok(scan) = outcome else { continue };
            for segment in 0..scan.segments() {
                match scan.load(segment, 0) {
                    Ok(loaded) => assert!(loaded.to_arrow(0, loaded.rows).is_ok()),
                    Err(error) => {
                        errors += 1;
                        let told = matches!(error, DeviceError::Input(_) | DeviceError::Unsupported(_));
                        assert!(told, "{error:?}");
                    }
                }
            }
        }
    }
    assert!(errors > 0);
}

#[test]
fn an_object_store_gives_what_a_local_file_gives() {
    let folder = tempfile::tempdir().unwrap();
    write(
        &folder.path().join("a"),
        &[batch(vec![("x", plain(5000))])],
        WriterProperties::default(),
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let cache = cache(1 << 20);
    let pool = OpenOptions::new(Arc::new(trireme_device_api::Unlimited), 2);
    let scan = runtime
        .block_on(cache.open(table(folder.path(), &["a"], &[("x", Type::Int64)], false), pool))
        .unwrap();
    assert_eq!(&found(scan.as_ref(), 0), &plain(5000));
    let missing = table(folder.path(), &["a"], &[("x", Type::Int64)], false);
    std::fs::remove_file(folder.path().join("a")).unwrap();
    cache.clear();
    let error = runtime.block_on(cache.open(missing, OpenOptions::new(Arc::new(trireme_device_api::Unlimited), 2)));
    assert!(matches!(error.err(), Some(DeviceError::Read(_))));
}
