//! Columns that are handed out encoded, decoded here as a device would, against columns that the host decodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, Float64Array, Int64Array, StringArray};
use arrow::datatypes::DataType;
use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::file::properties::{WriterProperties, WriterVersion};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use trireme_device_api::{
    DeviceColumn, EncodedColumn, EncodedPage, EncodedType, Loaded, PageEncoding, ScanInput, Type, Values,
};

use super::round_trip::{array, properties, types};
use super::write::{batch, open, table, write};
use crate::decode::reference;
use crate::{ColumnCache, Limits};

fn values(column: &EncodedColumn, page: &EncodedPage) -> Vec<u64> {
    let bytes = Bytes::copy_from_slice(&page.bytes);
    let width = match column.values {
        EncodedType::Integers { bytes, .. } => bytes,
        EncodedType::Float32 => 4,
        EncodedType::Float64 => 8,
        EncodedType::Codes(_) => 0,
    };
    let wide = |value: u64| match column.values {
        EncodedType::Integers {
            bytes: 4, signed: true, ..
        } => ((value << 32).cast_signed() >> 32).cast_unsigned(),
        _ if width == 4 => value << 32 >> 32,
        _ => value,
    };
    match page.encoding {
        PageEncoding::Plain => bytes
            .chunks_exact(width.max(1) as usize)
            .take(page.values)
            .map(|value| {
                let mut word = [0; 8];
                word[..value.len()].copy_from_slice(value);
                wide(u64::from_le_bytes(word))
            })
            .collect(),
        PageEncoding::Delta => reference::deltas(&bytes, page.values).into_iter().map(wide).collect(),
        PageEncoding::Dictionary(number) => reference::indexed(&bytes, page.values, &column.dictionaries[number]),
    }
}

/// Values by row, as bits.
fn decoded(column: &EncodedColumn) -> Vec<Option<u64>> {
    let mut rows = Vec::new();
    for page in &column.pages {
        assert_eq!(page.first, rows.len());
        let values = values(column, page);
        assert_eq!(values.len(), page.values);
        if let EncodedType::Integers { range: (low, high), .. } = column.values {
            let inside = |value: &u64| (low..=high).contains(&value.cast_signed());
            assert!(values.iter().all(inside), "{values:?} {low} {high}");
        }
        let mut next = page.passed;
        for row in page.first..page.first + page.keep {
            if !page.nullable {
                rows.push(Some(values[page.skip + row - page.first]));
            } else if column.validity.as_ref().is_none_or(|valid| valid.value(row)) {
                rows.push(Some(values[next]));
                next += 1;
            } else {
                rows.push(None);
            }
        }
    }
    assert_eq!(rows.len(), column.rows);
    rows
}

fn held(column: &DeviceColumn) -> Vec<Option<u64>> {
    let value = |row: usize| match &column.values {
        Values::Integers { carrier, base } => (base.wrapping_add(carrier.get(row))).cast_unsigned(),
        Values::Float32(values) => u64::from(values[row].to_bits()),
        Values::Float64(values) => values[row].to_bits(),
        Values::Codes { codes, .. } => u64::from(codes.get(row)),
        other => panic!("pages of {other:?}"),
    };
    let rows = 0..column.rows;
    rows.map(|row| (!column.is_null(row)).then(|| value(row))).collect()
}

/// Compares all segments of a column; counts by what was handed out.
fn compare(
    cache: &ColumnCache,
    scan: &dyn ScanInput,
    column: usize,
    decoded_bytes: usize,
    found: &mut BTreeMap<&'static str, usize>,
) {
    for segment in 0..scan.segments() {
        cache.shrink(usize::MAX);
        let name = match scan.load_encoded(segment, column, decoded_bytes).unwrap() {
            Loaded::Encoded(encoded) => {
                let host = scan.load(segment, column).unwrap();
                assert_eq!(decoded(&encoded), held(&host));
                assert!(
                    encoded.reservation.bytes() >= encoded.pages.iter().map(|page| page.bytes.len()).max().unwrap()
                );
                "encoded"
            }
            Loaded::Decoded(decoded, reason) => {
                assert_eq!(decoded.rows, scan.rows(segment));
                reason.unwrap_or("held")
            }
        };
        *found.entry(name).or_default() += 1;
    }
}

#[test]
fn pages_hold_what_the_host_decodes() {
    let seed: u64 = std::env::var("TRIREME_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random);
    println!("TRIREME_SEED={seed}");
    let folder = tempfile::tempdir().unwrap();
    let mut found = BTreeMap::new();
    for (data_type, encodings) in types() {
        for round in 0..4_u64 {
            let mut rng = StdRng::seed_from_u64(seed ^ round);
            let rows = *[1, 31, 500, 2100].choose(&mut rng).unwrap();
            let written = array(&mut rng, &data_type, rows);
            let properties = properties(&mut rng, encodings);
            println!("{data_type} round {round} rows {rows} {properties:?}");
            let path = folder.path().join("a.parquet");
            write(&path, &[batch(vec![("x", Arc::clone(&written))])], properties);
            let wanted = match &data_type {
                DataType::Dictionary(_, values) => Type::from_arrow(values).unwrap(),
                other => Type::from_arrow(other).unwrap(),
            };
            let cache = ColumnCache::new(Limits {
                segment_rows: *[100, 400, 1 << 20].choose(&mut rng).unwrap(),
                ..Limits::default()
            });
            let columns = [("x", wanted)];
            let local = rng.random_bool(0.5);
            let scan = open(&cache, table(folder.path(), &["a.parquet"], &columns, local)).unwrap();
            compare(&cache, scan.as_ref(), 0, usize::MAX, &mut found);
        }
    }
    println!("{found:?}");
    assert!(found["encoded"] > 10, "{found:?}");
}

#[test]
fn what_devices_decode_and_why_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let rows = 3000;
    let texts: ArrayRef = Arc::new(StringArray::from_iter(
        (0..rows).map(|row| (row % 7 != 3).then(|| format!("text {}", row % 40))),
    ));
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values((0..rows).map(|row| row * 3 + 1_000_000)));
    let money = Decimal128Array::from_iter_values((0..rows).map(|row| i128::from(row % 90)));
    let money: ArrayRef = Arc::new(money.with_precision_and_scale(30, 2).unwrap());
    let floats: ArrayRef = Arc::new(Float64Array::from_iter_values((0..rows).map(|row| (row % 11) as f64)));
    let long: ArrayRef = Arc::new(StringArray::from_iter_values(
        (0..rows).map(|row| format!("text {row}")),
    ));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("texts", texts),
        ("keys", keys),
        ("money", money),
        ("floats", floats),
        ("long", long),
    ];
    let properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_2_0)
        .set_data_page_row_count_limit(250)
        .set_write_batch_size(50)
        .set_column_dictionary_enabled("keys".into(), false)
        .set_column_encoding("keys".into(), Encoding::DELTA_BINARY_PACKED)
        .set_column_dictionary_page_size_limit("long".into(), 4000)
        .build();
    write(&path, &[batch(columns)], properties);
    let cache = ColumnCache::new(Limits::default());
    let named = [
        ("texts", Type::Utf8),
        ("keys", Type::Int64),
        (
            "money",
            Type::Decimal {
                precision: 30,
                scale: 2,
            },
        ),
        ("floats", Type::Float64),
        ("long", Type::Utf8),
    ];
    let opened = || open(&cache, table(folder.path(), &["a.parquet"], &named, true)).unwrap();
    let handed = |column: usize, bytes: usize| {
        let scan = opened();
        let mut found = BTreeMap::new();
        compare(&cache, scan.as_ref(), column, bytes, &mut found);
        found.into_keys().collect::<Vec<_>>()
    };
    assert_eq!(handed(0, 20_000), ["encoded"]);
    assert_eq!(handed(0, 100), ["pages that are no smaller than the decoded column"]);
    assert_eq!(handed(1, 20_000), ["encoded"]);
    assert_eq!(handed(2, 20_000), ["encoded"]);
    assert_eq!(handed(3, 20_000), ["encoded"]);
    // Its dictionary overflowed.
    assert_eq!(handed(4, usize::MAX), ["pages of strings without a dictionary"]);
    // What the host has is not decoded again.
    let scan = opened();
    let kept = scan.load(0, 1).unwrap();
    let again = scan.load_encoded(0, 1, usize::MAX).unwrap();
    assert!(matches!(again, Loaded::Decoded(column, None) if Arc::ptr_eq(&column, &kept)));
}
