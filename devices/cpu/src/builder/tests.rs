//! Columns hold what was pushed.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use trireme_device_api::Dictionary;

use super::*;

/// A value as plain as can be: bytes of whatever it is.
fn shown(column: &DeviceColumn, row: usize) -> Option<String> {
    if column.is_null(row) {
        return None;
    }
    Some(match &column.values {
        Values::Integers { carrier, base } => (base + carrier.get(row)).to_string(),
        Values::Wide(values) => values[row].to_string(),
        Values::Float32(values) => values[row].to_string(),
        Values::Float64(values) => values[row].to_string(),
        Values::Booleans(values) => values.value(row).to_string(),
        Values::Codes { codes, dictionary } => format!("{:?}", dictionary.get(codes.get(row))),
        Values::Strings(values) => format!("{:?}", values.get(row)),
        Values::Intervals(values) => format!("{:?}", values[row]),
        Values::Nulls => return None,
    })
}

fn expected(data: &Data<'_>, row: usize) -> String {
    match data {
        Data::Bool(values) => (values[row] != 0).to_string(),
        Data::I8(values) => values[row].to_string(),
        Data::I16(values) => values[row].to_string(),
        Data::I32(values) => values[row].to_string(),
        Data::I64(values) => values[row].to_string(),
        Data::I128(values) => values[row].to_string(),
        Data::F32(values) => values[row].to_string(),
        Data::F64(values) => values[row].to_string(),
        Data::Codes(codes, dictionary) => format!("{:?}", dictionary.get(codes[row])),
        Data::Bytes(values) => format!("{:?}", values[row]),
        Data::Strings(values) => format!("{:?}", values.get(row)),
        Data::Interval(values) => format!("{:?}", values[row]),
        Data::Null(_) => String::new(),
    }
}

fn shapes() -> Vec<Shape> {
    let dictionary = |words: usize| {
        let words: Vec<_> = (0..words).map(|word| format!("w{word}").into_bytes()).collect();
        Arc::new(Dictionary::new(Strings::from_values(words.iter().map(Vec::as_slice))))
    };
    let mut shapes: Vec<_> = [
        Type::Null,
        Type::Boolean,
        Type::Float32,
        Type::Float64,
        Type::Utf8,
        Type::Interval(trireme_device_api::IntervalKind::MonthDayNano),
    ]
    .map(|data_type| Shape::of_type(data_type, true))
    .into();
    for bits in [7, 15, 31, 63, 120] {
        let mut shape = Shape::of_type(
            Type::Decimal {
                precision: 38,
                scale: 0,
            },
            true,
        );
        shape.range = Some((-1_i128 << bits, (1 << bits) - 1));
        shapes.push(shape);
    }
    for words in [3, 300, 70_000] {
        let mut shape = Shape::of_type(Type::Utf8, true);
        shape.dictionary = Some(dictionary(words));
        shapes.push(shape);
    }
    shapes
}

fn random_data(random: &mut StdRng, shape: &Shape, rows: usize) -> Data<'static> {
    let mut number = || random.random::<i128>();
    if let Some(dictionary) = &shape.dictionary {
        let codes: Vec<u32> = (0..rows).map(|_| (number() as u32) % dictionary.len() as u32).collect();
        return Data::Codes(codes.into(), Arc::clone(dictionary));
    }
    match &shape.data_type {
        Type::Null => Data::Null(rows),
        Type::Boolean => Data::Bool((0..rows).map(|_| number() as u8 & 1).collect()),
        Type::Float32 => Data::F32((0..rows).map(|_| number() as f32).collect()),
        Type::Float64 => Data::F64((0..rows).map(|_| number() as f64).collect()),
        Type::Utf8 => {
            let words: Vec<_> = (0..rows)
                .map(|_| "ab".repeat(number() as usize % 5).into_bytes())
                .collect();
            Data::Strings(Strings::from_values(words.iter().map(Vec::as_slice)))
        }
        Type::Interval(_) => Data::Interval(
            (0..rows)
                .map(|_| Interval {
                    months: number() as i32,
                    days: 1,
                    nanoseconds: number() as i64,
                })
                .collect(),
        ),
        _ => match shape.lane() {
            Some(Lane::I8) => Data::I8((0..rows).map(|_| number() as i8).collect()),
            Some(Lane::I16) => Data::I16((0..rows).map(|_| number() as i16).collect()),
            Some(Lane::I32) => Data::I32((0..rows).map(|_| number() as i32).collect()),
            Some(Lane::I64) => Data::I64((0..rows).map(|_| number() as i64).collect()),
            _ => Data::I128((0..rows).map(|_| number() >> 8).collect()),
        },
    }
}

#[test]
fn columns_hold_what_was_pushed() {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for shape in shapes() {
        for workers in [1, 3] {
            let mut values = Vec::new();
            let mut builders = Vec::new();
            for _ in 0..workers {
                let mut builder = ColumnBuilder::new(&shape);
                for _ in 0..random.random_range(0..4) {
                    let rows = random.random_range(0..70);
                    let data = random_data(&mut random, &shape, rows);
                    let nulls = random.random::<bool>();
                    let valid: Vec<u8> = (0..rows).map(|_| u8::from(!nulls || random.random())).collect();
                    for (row, valid) in valid.iter().enumerate() {
                        let value = (*valid != 0 && shape.data_type != Type::Null).then(|| expected(&data, row));
                        values.push(value);
                    }
                    let vector = Vector {
                        data,
                        valid: nulls.then(|| valid.into()),
                    };
                    let room = builder.growth_bytes(Some(&vector), rows);
                    let before = builder.used_bytes();
                    builder.push(&vector).unwrap();
                    assert!(
                        room + before * 3 + 4 >= builder.used_bytes(),
                        "reserved before it was taken"
                    );
                    let gap = random.random_range(0..3);
                    builder.push_null(gap).unwrap();
                    values.resize(values.len() + gap, None);
                }
                let view = builder.view(0, builder.rows());
                let first = values.len() - builder.rows();
                for (row, value) in values[first..].iter().enumerate() {
                    let seen = (!view.is_null(row)).then(|| expected(&view.data, row));
                    assert_eq!(seen, *value);
                }
                builders.push(builder);
            }
            let column = concat(&shape, builders, None).unwrap();
            assert_eq!(column.rows, values.len());
            let nulls = values.iter().filter(|value| value.is_none()).count();
            assert_eq!(column.zone.null_count, nulls);
            for (row, value) in values.iter().enumerate() {
                assert_eq!(shown(&column, row), *value, "{:?} row {row}", shape.data_type);
            }
            if let (Some((least, most)), true) = (column.zone.range, shape.range.is_some()) {
                let numbers: Vec<i128> = values.iter().flatten().map(|value| value.parse().unwrap()).collect();
                assert_eq!(
                    (numbers.iter().min(), numbers.iter().max()),
                    (Some(&least), Some(&most))
                );
            }
        }
    }
}

#[test]
fn narrower_lanes_are_widened_and_others_refused() {
    let mut builder = ColumnBuilder::new(&Shape::of_type(Type::Int32, false));
    builder.push(&Vector::new(Data::I8(vec![1, -2].into()))).unwrap();
    assert!(builder.push(&Vector::new(Data::I64(vec![1].into()))).is_err());
    assert!(builder.push(&Vector::new(Data::F64(vec![1.0].into()))).is_err());
    let column = builder.finish();
    assert_eq!((column.rows, column.zone.range), (2, Some((-2, 1))));
    assert!(column.validity.is_none());
}
