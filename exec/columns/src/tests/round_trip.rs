//! Files of all types and encodings, decoded here and by Parquet's Arrow reader.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, new_empty_array};
use arrow::compute::{cast, concat, concat_batches};
use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use trireme_device_api::{Carrier, DeviceColumn, ScanInput, Type, Values};

use super::write::{batch, open, table, write};
use crate::{ColumnCache, Limits};

pub(crate) fn types() -> Vec<(DataType, &'static [Encoding])> {
    use Encoding::{BYTE_STREAM_SPLIT, DELTA_BINARY_PACKED, DELTA_BYTE_ARRAY, DELTA_LENGTH_BYTE_ARRAY, PLAIN, RLE};
    let integers: &[Encoding] = &[PLAIN, DELTA_BINARY_PACKED, BYTE_STREAM_SPLIT];
    let bytes: &[Encoding] = &[PLAIN, DELTA_LENGTH_BYTE_ARRAY, DELTA_BYTE_ARRAY];
    let mut types: Vec<(DataType, &[Encoding])> = vec![
        (DataType::Boolean, &[PLAIN, RLE]),
        (DataType::Float32, &[PLAIN, BYTE_STREAM_SPLIT]),
        (DataType::Float64, &[PLAIN, BYTE_STREAM_SPLIT]),
        (
            DataType::Decimal128(38, 4),
            &[PLAIN, DELTA_BYTE_ARRAY, BYTE_STREAM_SPLIT],
        ),
        (
            DataType::Decimal128(20, 0),
            &[PLAIN, DELTA_BYTE_ARRAY, BYTE_STREAM_SPLIT],
        ),
        (DataType::Interval(IntervalUnit::DayTime), &[PLAIN]),
        (DataType::Interval(IntervalUnit::YearMonth), &[PLAIN]),
        (
            DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
            &[PLAIN],
        ),
    ];
    let of_integers = [
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::UInt8,
        DataType::UInt16,
        DataType::UInt32,
        DataType::UInt64,
        DataType::Decimal128(9, 2),
        DataType::Decimal128(15, 2),
        DataType::Date32,
        DataType::Time32(TimeUnit::Second),
        DataType::Time32(TimeUnit::Millisecond),
        DataType::Time64(TimeUnit::Microsecond),
        DataType::Time64(TimeUnit::Nanosecond),
        DataType::Timestamp(TimeUnit::Second, None),
        DataType::Timestamp(TimeUnit::Millisecond, None),
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Timestamp(TimeUnit::Nanosecond, Some("+02:00".into())),
    ];
    types.extend(of_integers.into_iter().map(|data_type| (data_type, integers)));
    let of_bytes = [
        DataType::Utf8,
        DataType::LargeUtf8,
        DataType::Utf8View,
        DataType::Binary,
        DataType::LargeBinary,
        DataType::BinaryView,
    ];
    types.extend(of_bytes.into_iter().map(|data_type| (data_type, bytes)));
    types
}

/// Values of some distribution: few or many distinct, runs, ascending; NULLs none, some, all.
fn numbers(rng: &mut StdRng, rows: usize, largest: i64) -> Int64Array {
    let largest = match rng.random_range(0..4) {
        0 => largest.min(rng.random_range(1..300)),
        1 => largest.min(100_000),
        _ => largest,
    };
    let least = if rng.random_bool(0.3) { -largest } else { 0 };
    let nulls = *[0.0, 0.0, 0.1, 0.9, 1.0].choose(rng).unwrap();
    let repeat = *[0.0, 0.5, 0.98].choose(rng).unwrap();
    let ascending = rng.random_bool(0.2);
    let mut last = rng.random_range(least..=largest);
    let mut values = Vec::new();
    for _ in 0..rows {
        if !rng.random_bool(repeat) {
            last = match ascending {
                true => (last + rng.random_range(0..2)).min(largest),
                false => rng.random_range(least..=largest),
            };
        }
        values.push(if rng.random_bool(nulls) { None } else { Some(last) });
    }
    values.into()
}

pub(crate) fn array(rng: &mut StdRng, data_type: &DataType, rows: usize) -> ArrayRef {
    let largest = match data_type {
        DataType::Boolean => 1,
        DataType::Int8 => 127,
        DataType::UInt8 => 255,
        DataType::Int16 => 32_767,
        DataType::UInt16 => 65_535,
        DataType::Int32 | DataType::Date32 => i64::from(i32::MAX),
        DataType::Interval(_) => 2_000_000,
        DataType::UInt32 => i64::from(u32::MAX),
        DataType::Decimal128(9, _) => 9_999_999,
        DataType::Decimal128(15, _) => 9_999_999_999_999,
        DataType::Decimal128(20, _) => i64::MAX,
        DataType::Time32(_) | DataType::Time64(_) => 86_399,
        _ => i64::MAX,
    };
    let values = numbers(rng, rows, largest);
    let unsigned = data_type.is_unsigned_integer() || matches!(data_type, DataType::Time32(_) | DataType::Time64(_));
    let values: Int64Array = match unsigned {
        true => values
            .iter()
            .map(|value| value.map(|value| value.saturating_abs()))
            .collect(),
        false => values,
    };
    let source: ArrayRef = Arc::new(values);
    let via = match data_type {
        DataType::Decimal128(_, _)
        | DataType::Interval(IntervalUnit::YearMonth)
        | DataType::Date32
        | DataType::Time32(_) => None,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Some(DataType::Utf8),
        _ => None,
    };
    let source = via.map_or(Arc::clone(&source), |via| cast(&source, &via).unwrap());
    match data_type {
        DataType::Decimal128(_, scale) => {
            let wide = cast(&source, &DataType::Decimal128(38, 0)).unwrap();
            let wide = wide.as_any().downcast_ref::<arrow::array::Decimal128Array>().unwrap();
            let factor = if *scale == 4 && rng.random_bool(0.5) {
                1_000_000_007
            } else {
                1
            };
            let scaled = wide.unary::<_, arrow::datatypes::Decimal128Type>(|value| value * factor);
            Arc::new(scaled.with_data_type(data_type.clone()))
        }
        DataType::Date32 | DataType::Time32(_) | DataType::Interval(IntervalUnit::YearMonth) => {
            let days = cast(&source, &DataType::Int32).unwrap();
            cast(&days, data_type).unwrap()
        }
        DataType::Interval(IntervalUnit::DayTime) => {
            let of = |value: i64| arrow::datatypes::IntervalDayTime::new(value as i32, (value / 7) as i32);
            let numbers = source.as_any().downcast_ref::<Int64Array>().unwrap();
            Arc::new(numbers.unary::<_, arrow::datatypes::IntervalDayTimeType>(of))
        }
        _ => cast(&source, data_type).unwrap(),
    }
}

pub(crate) fn properties(rng: &mut StdRng, encodings: &[Encoding]) -> WriterProperties {
    let compression = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::ZSTD(ZstdLevel::default()),
    ];
    let version = [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0];
    let statistics = [
        EnabledStatistics::Chunk,
        EnabledStatistics::Chunk,
        EnabledStatistics::None,
    ];
    WriterProperties::builder()
        .set_compression(*compression.choose(rng).unwrap())
        .set_writer_version(*version.choose(rng).unwrap())
        .set_statistics_enabled(*statistics.choose(rng).unwrap())
        .set_encoding(*encodings.choose(rng).unwrap())
        .set_dictionary_enabled(rng.random_bool(0.5))
        .set_dictionary_page_size_limit(*[200, 1 << 20].choose(rng).unwrap())
        .set_data_page_row_count_limit(*[37, 700, 20_000].choose(rng).unwrap())
        .set_write_batch_size(*[16, 1024].choose(rng).unwrap())
        .set_max_row_group_row_count(Some(*[350, 1 << 20].choose(rng).unwrap()))
        .build()
}

pub(crate) fn expected(path: &Path, column: usize, data_type: &Type) -> ArrayRef {
    let file = std::fs::File::open(path).unwrap();
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let schema = Arc::clone(builder.schema());
    let batches: Vec<_> = builder.build().unwrap().map(Result::unwrap).collect();
    let whole = concat_batches(&schema, &batches).unwrap();
    cast(whole.column(column), &data_type.to_arrow()).unwrap()
}

pub(crate) fn found(scan: &dyn ScanInput, column: usize) -> ArrayRef {
    let mut arrays = Vec::new();
    for segment in 0..scan.segments() {
        let loaded = scan.load(segment, column).unwrap();
        check(scan, segment, column, &loaded);
        arrays.push(loaded.to_arrow(0, loaded.rows).unwrap());
    }
    if arrays.is_empty() {
        return new_empty_array(&scan.columns()[column].data_type.to_arrow());
    }
    let views: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
    concat(&views).unwrap()
}

fn integer(column: &DeviceColumn, row: usize) -> Option<i128> {
    match &column.values {
        Values::Integers { carrier, base } => Some(i128::from(carrier.get(row)) + i128::from(*base)),
        Values::Wide(values) => Some(values[row]),
        _ => None,
    }
}

/// What the contract says of a column and its profile.
fn check(scan: &dyn ScanInput, segment: usize, column: usize, loaded: &DeviceColumn) {
    let profile = &scan.columns()[column];
    assert_eq!(loaded.rows, scan.rows(segment));
    assert_eq!(loaded.data_type, profile.data_type);
    let nulls = (0..loaded.rows).filter(|row| loaded.is_null(*row)).count();
    assert_eq!(nulls, loaded.zone.null_count);
    assert!(profile.nullable || nulls == 0);
    assert_eq!(loaded.validity.is_some(), nulls > 0);
    let slots: Vec<i128> = (0..loaded.rows).filter_map(|row| integer(loaded, row)).collect();
    if profile.data_type.is_integral() && nulls < loaded.rows {
        let values = (0..loaded.rows)
            .filter(|row| !loaded.is_null(*row))
            .map(|row| slots[row]);
        let exact = values.clone().min().zip(values.max());
        assert_eq!(loaded.zone.range, exact);
        // NULL rows hold values that occur.
        assert_eq!(exact, slots.iter().min().copied().zip(slots.iter().max().copied()));
        let (low, high) = profile.range.unwrap();
        assert!(exact.unwrap().0 >= low && exact.unwrap().1 <= high);
        let values = (0..loaded.rows)
            .filter(|row| !loaded.is_null(*row))
            .map(|row| slots[row]);
        assert_eq!(loaded.zone.sorted, values.is_sorted());
    }
    match (&loaded.values, &profile.dictionary) {
        (Values::Codes { codes, dictionary }, Some(of)) => {
            assert!(Arc::ptr_eq(dictionary, of));
            let in_range = |row: usize| of.is_empty() || (codes.get(row) as usize) < of.len();
            assert!((0..loaded.rows).all(in_range));
        }
        (Values::Codes { .. }, None) => panic!("codes without a dictionary"),
        (_, Some(_)) => panic!("a dictionary without codes"),
        _ => {}
    }
    assert!(loaded.zone.run_length >= 1.0);
}

#[test]
fn all_types_and_encodings() {
    let seed: u64 = std::env::var("TRIREME_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random);
    let rounds: usize = std::env::var("TRIREME_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(6);
    println!("TRIREME_SEED={seed}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    for (data_type, encodings) in types() {
        for round in 0..rounds as u64 {
            let mut rng = StdRng::seed_from_u64(seed ^ round);
            let rows = *[1, 31, 500, 2100].choose(&mut rng).unwrap();
            let written = array(&mut rng, &data_type, rows);
            let properties = properties(&mut rng, encodings);
            println!("{data_type} round {round} rows {rows} {properties:?}");
            write(&path, &[batch(vec![("x", Arc::clone(&written))])], properties);
            let wanted = match &data_type {
                DataType::Dictionary(_, values) => Type::from_arrow(values).unwrap(),
                other => Type::from_arrow(other).unwrap(),
            };
            let cache = ColumnCache::new(Limits {
                segment_rows: *[100, 400, 1 << 20].choose(&mut rng).unwrap(),
                ..Limits::default()
            });
            cache.set_enabled(rng.random_bool(0.5));
            let columns = [("x", wanted.clone())];
            let scan = open(
                &cache,
                table(folder.path(), &["a.parquet"], &columns, rng.random_bool(0.5)),
            )
            .unwrap();
            assert_eq!(&found(scan.as_ref(), 0), &expected(&path, 0, &wanted));
            let through_arrow = cache.metrics().arrow_reads > 0;
            assert_eq!(
                through_arrow,
                matches!(data_type, DataType::Interval(_)),
                "{:?}",
                cache.snapshot()
            );
        }
    }
}

#[test]
fn carriers_are_as_small_as_the_statistics_say_or_the_values_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    for statistics in [EnabledStatistics::Chunk, EnabledStatistics::None] {
        let x: ArrayRef = Arc::new(Int64Array::from_iter_values((0..3000).map(|row| 1_000_000 + row % 200)));
        let y: ArrayRef = Arc::new(Int64Array::from_iter_values((0..3000).map(|row| row * 10)));
        let properties = WriterProperties::builder().set_statistics_enabled(statistics).build();
        write(&path, &[batch(vec![("x", x), ("y", y)])], properties);
        let cache = ColumnCache::new(Limits::default());
        let columns = [("x", Type::Int64), ("y", Type::Int64)];
        let scan = open(&cache, table(folder.path(), &["a"], &columns, true)).unwrap();
        let values = scan.load(0, 0).unwrap().values.clone();
        assert!(
            matches!(
                &values,
                Values::Integers {
                    carrier: Carrier::I8(_),
                    ..
                }
            ),
            "{values:?}"
        );
        let values = scan.load(0, 1).unwrap().values.clone();
        assert!(
            matches!(
                &values,
                Values::Integers {
                    carrier: Carrier::I16(_),
                    base: 0
                }
            ),
            "{values:?}"
        );
        assert_eq!(
            scan.columns()[0].range.unwrap().0 == 1_000_000,
            statistics == EnabledStatistics::Chunk
        );
        assert_eq!(scan.zone(0, 0).unwrap().range, Some((1_000_000, 1_000_199)));
    }
}
