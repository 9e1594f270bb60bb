//! Batches of every type against the vectors they came from.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::*;
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, IntervalDayTime, IntervalMonthDayNano};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use trireme_device_api::{DeviceColumn, Dictionary, Field, IntervalKind, Strings, TimeUnit, Type, Values};

use super::BatchBuilder;
use crate::vector::{Data, Lane, Vector};

/// A generator whose seed is printed, so that a failure can be repeated.
pub(crate) fn chance() -> StdRng {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    StdRng::seed_from_u64(seed)
}

/// Every type but times of other units.
pub(crate) fn types() -> Vec<Type> {
    let decimal = |precision, scale| Type::Decimal { precision, scale };
    let kinds = [
        IntervalKind::YearMonth,
        IntervalKind::DayTime,
        IntervalKind::MonthDayNano,
    ];
    let integers = [Type::Int8, Type::Int16, Type::Int32, Type::Int64];
    let unsigned = [Type::UInt8, Type::UInt16, Type::UInt32, Type::UInt64];
    let strings = [
        Type::Utf8,
        Type::LargeUtf8,
        Type::Utf8View,
        Type::Binary,
        Type::LargeBinary,
        Type::BinaryView,
    ];
    let zoned = Type::Timestamp {
        unit: TimeUnit::Microsecond,
        zone: Some("UTC".into()),
    };
    let times = [
        Type::Date32,
        Type::Time(TimeUnit::Second),
        Type::Time(TimeUnit::Nanosecond),
        zoned,
    ];
    let mut all = vec![
        Type::Null,
        Type::Boolean,
        Type::Float32,
        Type::Float64,
        decimal(15, 2),
        decimal(38, 4),
    ];
    all.extend(integers.into_iter().chain(unsigned).chain(strings).chain(times));
    all.extend(kinds.map(Type::Interval));
    all
}

/// Random values: integers below `distinct` or, when that is large, of all sizes; strings of few or many values.
pub(crate) fn random_array(data_type: &Type, rows: usize, nulls: f64, distinct: i64, chance: &mut StdRng) -> ArrayRef {
    macro_rules! collect {
        ($array:ident, $value:expr) => {{
            let value: &dyn Fn(&mut StdRng) -> _ = &$value;
            Arc::new(
                (0..rows)
                    .map(|_| (!chance.random_bool(nulls)).then(|| value(chance)))
                    .collect::<$array>(),
            ) as ArrayRef
        }};
    }
    if let Some(values) = random_integers(data_type, rows, nulls, distinct, chance) {
        return values;
    }
    let small = move |chance: &mut StdRng| chance.random_range(0..distinct);
    let float = move |chance: &mut StdRng| match chance.random_range(0..12) {
        0 => f64::NAN,
        1 => -0.0,
        2 => 0.0,
        3 => f64::NEG_INFINITY,
        4 => -f64::NAN,
        _ => chance.random_range(-distinct..distinct) as f64 / 4.0,
    };
    let text = move |chance: &mut StdRng| {
        let value = chance.random_range(0..distinct);
        let padding = if value % 3 == 0 {
            "x".repeat((value % 40) as usize)
        } else {
            String::new()
        };
        format!("{padding}{value}")
    };
    match data_type {
        Type::Null => Arc::new(NullArray::new(rows)),
        Type::Boolean => collect!(BooleanArray, |c| c.random_bool(0.5)),
        Type::Float32 => collect!(Float32Array, |c| float(c) as f32),
        Type::Float64 => collect!(Float64Array, float),
        Type::Interval(IntervalKind::YearMonth) => collect!(IntervalYearMonthArray, |c| small(c) as i32),
        Type::Interval(IntervalKind::DayTime) => {
            collect!(IntervalDayTimeArray, |c| IntervalDayTime::new(
                small(c) as i32,
                small(c) as i32
            ))
        }
        Type::Interval(IntervalKind::MonthDayNano) => {
            collect!(IntervalMonthDayNanoArray, |c| IntervalMonthDayNano::new(
                small(c) as i32,
                3,
                small(c)
            ))
        }
        Type::Binary | Type::LargeBinary | Type::BinaryView => {
            let values =
                (0..rows).map(|_| (!chance.random_bool(nulls)).then(|| [text(chance).as_bytes(), &[255]].concat()));
            let values: Vec<Option<Vec<u8>>> = values.collect();
            let values: BinaryArray = values.iter().map(Option::as_deref).collect();
            cast(&values, &data_type.to_arrow()).unwrap()
        }
        text_type if text_type.is_text() => cast(&collect!(StringArray, text), &text_type.to_arrow()).unwrap(),
        other => unreachable!("{other:?}"),
    }
}

fn random_integers(data_type: &Type, rows: usize, nulls: f64, distinct: i64, chance: &mut StdRng) -> Option<ArrayRef> {
    let (low, high) = data_type.value_range()?;
    let present = |chance: &mut StdRng| !chance.random_bool(nulls);
    let small = |chance: &mut StdRng| i128::from(chance.random_range(-distinct..distinct));
    Some(match data_type {
        Type::Decimal { precision, scale } => {
            let shift = |chance: &mut StdRng| {
                if *precision > 20 && chance.random_bool(0.5) {
                    64
                } else {
                    0
                }
            };
            let valued = (0..rows).map(|_| present(chance).then(|| small(chance) << shift(chance)));
            let values = valued
                .collect::<Decimal128Array>()
                .with_precision_and_scale(*precision, *scale);
            Arc::new(values.unwrap())
        }
        Type::UInt64 => {
            let value = |chance: &mut StdRng| small(chance) as u64 >> 1 | u64::from(chance.random_bool(0.1)) << 63;
            let valued = (0..rows).map(|_| present(chance).then(|| value(chance)));
            Arc::new(valued.collect::<UInt64Array>())
        }
        Type::Time(TimeUnit::Second) => {
            let valued = (0..rows).map(|_| present(chance).then(|| (small(chance) % 86_400) as i32));
            Arc::new(valued.collect::<Time32SecondArray>())
        }
        integral => {
            let valued = (0..rows).map(|_| present(chance).then(|| small(chance).clamp(low, high) as i64));
            let values: ArrayRef = Arc::new(valued.collect::<Int64Array>());
            cast(&values, &integral.to_arrow()).unwrap()
        }
    })
}

/// Rows `start..start + rows` of a column as a tile's vector, in the lane of `range`.
pub(crate) fn vector(column: &DeviceColumn, range: Option<(i128, i128)>, start: usize, rows: usize) -> Vector<'_> {
    let taken = start..start + rows;
    let valid = column.validity.as_ref();
    let valid = valid.map(|valid| Cow::Owned(taken.clone().map(|row| u8::from(valid.value(row))).collect()));
    let integers = |value: &dyn Fn(usize) -> i128| {
        let (low, high) = range.or(column.zone.range).unwrap_or((0, 0));
        let values = taken.clone().map(value);
        match Lane::of_range(low, high) {
            Lane::I8 => Data::I8(values.map(|value| value as i8).collect()),
            Lane::I16 => Data::I16(values.map(|value| value as i16).collect()),
            Lane::I32 => Data::I32(values.map(|value| value as i32).collect()),
            Lane::I64 => Data::I64(values.map(|value| value as i64).collect()),
            Lane::I128 => Data::I128(values.collect()),
        }
    };
    let data = match &column.values {
        Values::Integers { carrier, base } => integers(&|row| (base + carrier.get(row)).into()),
        Values::Wide(values) => integers(&|row| values[row]),
        Values::Float32(values) => Data::F32(Cow::Borrowed(&values[taken.clone()])),
        Values::Float64(values) => Data::F64(Cow::Borrowed(&values[taken.clone()])),
        Values::Booleans(bits) => Data::Bool(taken.clone().map(|row| u8::from(bits.value(row))).collect()),
        Values::Codes { codes, dictionary } => Data::Codes(
            taken.clone().map(|row| codes.get(row)).collect(),
            Arc::clone(dictionary),
        ),
        Values::Strings(strings) => Data::Bytes(taken.clone().map(|row| strings.get(row)).collect()),
        Values::Intervals(values) => Data::Interval(values[taken.clone()].to_vec()),
        Values::Nulls => Data::Null(rows),
    };
    Vector { data, valid }
}

pub(crate) fn field(name: &str, data_type: &Type) -> Field {
    Field {
        name: name.to_owned(),
        data_type: data_type.clone(),
        nullable: true,
    }
}

/// The array as codes, where it can be.
pub(crate) fn keyed(array: &ArrayRef, data_type: &Type) -> ArrayRef {
    let keyed = DataType::Dictionary(Box::new(DataType::Int32), Box::new(data_type.to_arrow()));
    cast(array, &keyed).unwrap()
}

fn through_batches(
    columns: &[DeviceColumn],
    fields: &[Field],
    batch_rows: usize,
    chance: &mut StdRng,
) -> Vec<RecordBatch> {
    let rows = columns[0].rows;
    let mut builder = BatchBuilder::new(fields, batch_rows);
    let mut batches = Vec::new();
    let mut start = 0;
    while start < rows {
        let count = chance.random_range(1..=2048.min(rows - start));
        let vectors: Vec<_> = columns
            .iter()
            .map(|column| vector(column, None, start, count))
            .collect();
        builder
            .push(&vectors, 0, count, &mut |batch| batches.push(batch))
            .unwrap();
        start += count;
    }
    batches.extend(builder.flush().unwrap());
    assert!(builder.flush().unwrap().is_none());
    batches
}

#[test]
fn every_type_is_emitted() {
    let mut chance = chance();
    for nulls in [0.0, 0.2, 1.0] {
        for distinct in [20, 100_000] {
            let fields: Vec<_> = types().iter().map(|data_type| field("c", data_type)).collect();
            let arrays = fields
                .iter()
                .map(|field| random_array(&field.data_type, 3000, nulls, distinct, &mut chance));
            let mut arrays: Vec<_> = arrays.collect();
            let mut all = fields.clone();
            for (at, field) in fields
                .iter()
                .enumerate()
                .filter(|(_, field)| field.data_type.is_bytes())
            {
                all.push(field.clone());
                arrays.push(keyed(&arrays[at], &field.data_type));
            }
            let column =
                |(array, field): (&ArrayRef, &Field)| DeviceColumn::from_arrow(array, &field.data_type).unwrap();
            let columns: Vec<_> = arrays.iter().zip(&all).map(column).collect();
            for batch_rows in [1, 700, 8192] {
                let batches = through_batches(&columns, &all, batch_rows, &mut chance);
                assert!(
                    batches[..batches.len() - 1]
                        .iter()
                        .all(|batch| batch.num_rows() == batch_rows)
                );
                let whole = concat_batches(&batches[0].schema(), &batches).unwrap();
                for ((found, due), field) in whole.columns().iter().zip(&arrays).zip(&all) {
                    assert_eq!(found, &cast(due, &field.data_type.to_arrow()).unwrap(), "{field:?}");
                }
            }
        }
    }
}

#[test]
fn dictionaries_may_change_between_tiles() {
    let codes = |values: &[&str]| {
        let dictionary = Arc::new(Dictionary::new(Strings::from_values(
            values.iter().map(|value| value.as_bytes()),
        )));
        Vector {
            data: Data::Codes((0..values.len() as u32).collect(), dictionary),
            valid: None,
        }
    };
    let long = "a string that is not inline";
    for data_type in [Type::Utf8, Type::LargeUtf8, Type::Utf8View] {
        let mut builder = BatchBuilder::new(&[field("a", &data_type)], 5);
        let mut batches = Vec::new();
        builder
            .push(&[codes(&["a", long])], 0, 2, &mut |batch| batches.push(batch))
            .unwrap();
        builder
            .push(&[codes(&["another string, not inline", "b", "c"])], 0, 3, &mut |b| {
                batches.push(b)
            })
            .unwrap();
        builder
            .push(&[codes(&["x", "yet another, and not inline"])], 1, 2, &mut |b| {
                batches.push(b)
            })
            .unwrap();
        batches.extend(builder.flush().unwrap());
        let whole = concat_batches(&batches[0].schema(), &batches).unwrap();
        let due = [
            "a",
            long,
            "another string, not inline",
            "b",
            "c",
            "yet another, and not inline",
        ];
        let due: ArrayRef = Arc::new(StringArray::from(due.to_vec()));
        assert_eq!(whole.column(0), &cast(&due, &data_type.to_arrow()).unwrap());
    }
}

#[test]
fn misfits_are_errors() {
    let numbers = || Vector {
        data: Data::I32(Cow::Owned(vec![1, 2])),
        valid: Some(Cow::Owned(vec![1, 0])),
    };
    let push = |field: Field, vectors: &[Vector<'_>]| {
        let mut builder = BatchBuilder::new(&[field], 2);
        builder.push(vectors, 0, 2, &mut |_| ())
    };
    assert!(push(field("a", &Type::Utf8), &[numbers()]).is_err());
    assert!(push(field("a", &Type::Float64), &[numbers()]).is_err());
    assert!(push(field("a", &Type::Int64), &[]).is_err());
    let strict = Field {
        nullable: false,
        ..field("a", &Type::Int64)
    };
    assert!(push(strict, &[numbers()]).is_err());
    assert!(push(field("a", &Type::Int64), &[numbers()]).is_ok());
}
