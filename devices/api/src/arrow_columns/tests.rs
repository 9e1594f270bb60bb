//! Round trips of every type, with NULLs, sizes and slices.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, DictionaryArray, StringArray, UInt16Array, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, UInt16Type};

use crate::{Carrier, Codes, DeviceColumn, Field, IntervalKind, Rows, TimeUnit, Type, Values};

/// A generator that needs no crate.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, most: u64) -> u64 {
        (self.next() >> 11) % most
    }

    /// From `-2^bits` to `2^bits`.
    fn signed(&mut self, bits: u32) -> i128 {
        let value = i128::from(self.next()) << 64 | i128::from(self.next());
        value >> (127 - bits)
    }
}

fn seed() -> u64 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let seed = u64::from(now.subsec_nanos()) | 1;
    println!("seed {seed}");
    seed
}

fn types() -> Vec<Type> {
    let units = [
        TimeUnit::Second,
        TimeUnit::Millisecond,
        TimeUnit::Microsecond,
        TimeUnit::Nanosecond,
    ];
    let decimal = |precision, scale| Type::Decimal { precision, scale };
    let mut types = vec![
        Type::Null,
        Type::Boolean,
        Type::Int8,
        Type::Int16,
        Type::Int32,
        Type::Int64,
        Type::UInt8,
        Type::UInt16,
        Type::UInt32,
        Type::UInt64,
        Type::Float32,
        Type::Float64,
        decimal(5, 2),
        decimal(15, 2),
        decimal(38, 10),
        decimal(3, -2),
        Type::Date32,
        Type::Interval(IntervalKind::YearMonth),
        Type::Interval(IntervalKind::DayTime),
        Type::Interval(IntervalKind::MonthDayNano),
        Type::Utf8,
        Type::LargeUtf8,
        Type::Utf8View,
        Type::Binary,
        Type::LargeBinary,
        Type::BinaryView,
    ];
    for unit in units {
        types.push(Type::Time(unit));
        types.push(Type::Timestamp { unit, zone: None });
        types.push(Type::Timestamp {
            unit,
            zone: Some("Europe/Berlin".into()),
        });
    }
    types
}

/// An array of a type; `bits` bounds the size of integers.
fn array(data_type: &Type, rows: usize, nulls: u64, bits: u32, chance: &mut Chance) -> ArrayRef {
    use arrow::array::*;
    let present = |chance: &mut Chance| chance.below(100) >= nulls;
    macro_rules! primitive {
        ($array:ident, $value:expr) => {{
            let value: &dyn Fn(&mut Chance) -> _ = &$value;
            Arc::new(
                (0..rows)
                    .map(|_| present(chance).then(|| value(chance)))
                    .collect::<$array>(),
            ) as ArrayRef
        }};
    }
    if let Some((low, high)) = data_type.value_range() {
        let value = |chance: &mut Chance| chance.signed(bits).clamp(low, high);
        let small = |chance: &mut Chance| i64::try_from(value(chance)).unwrap();
        return match data_type {
            Type::UInt64 => primitive!(UInt64Array, |c| u64::try_from(value(c)).unwrap()),
            Type::Decimal { precision, scale } => {
                let values: Decimal128Array = (0..rows).map(|_| present(chance).then(|| value(chance))).collect();
                Arc::new(values.with_precision_and_scale(*precision, *scale).unwrap())
            }
            Type::Date32 => primitive!(Date32Array, |c| i32::try_from(small(c)).unwrap()),
            Type::Time(TimeUnit::Second) => primitive!(Time32SecondArray, |c| i32::try_from(small(c) % 86400).unwrap()),
            Type::Time(TimeUnit::Millisecond) => {
                primitive!(Time32MillisecondArray, |c| i32::try_from(small(c) % 86_400_000)
                    .unwrap())
            }
            // Arrow's casts from integers keep the number.
            other => {
                let wide = primitive!(Int64Array, |c| small(c));
                cast(&wide, &other.to_arrow()).unwrap()
            }
        };
    }
    let text = |chance: &mut Chance| {
        let most = if chance.below(2) == 0 { 4 } else { 40 };
        let length = chance.below(most);
        (0..length)
            .map(|_| if chance.below(9) == 0 { 'ü' } else { 'a' })
            .collect::<String>()
    };
    match data_type {
        Type::Null => Arc::new(NullArray::new(rows)),
        Type::Boolean => primitive!(BooleanArray, |c| c.below(2) == 0),
        Type::Float32 => primitive!(Float32Array, |c| c.signed(20) as f32 / 8.0),
        Type::Float64 => primitive!(Float64Array, |c| c.signed(60) as f64 / 8.0),
        Type::Interval(IntervalKind::YearMonth) => primitive!(IntervalYearMonthArray, |c| c.signed(9) as i32),
        Type::Interval(IntervalKind::DayTime) => primitive!(IntervalDayTimeArray, |c| {
            arrow::datatypes::IntervalDayTime::new(c.signed(9) as i32, c.signed(31) as i32)
        }),
        Type::Interval(IntervalKind::MonthDayNano) => primitive!(IntervalMonthDayNanoArray, |c| {
            arrow::datatypes::IntervalMonthDayNano::new(c.signed(9) as i32, c.signed(9) as i32, c.signed(62) as i64)
        }),
        Type::Binary | Type::LargeBinary | Type::BinaryView => {
            let value = |c: &mut Chance| text(c).into_bytes().into_iter().chain([0xff]).collect::<Vec<u8>>();
            let values: Vec<Option<Vec<u8>>> = (0..rows).map(|_| present(chance).then(|| value(chance))).collect();
            let values: BinaryArray = values.iter().map(Option::as_deref).collect();
            cast(&values, &data_type.to_arrow()).unwrap()
        }
        _ => cast(&primitive!(StringArray, text), &data_type.to_arrow()).unwrap(),
    }
}

fn check_zone(column: &DeviceColumn, array: &dyn Array, context: &str) {
    assert_eq!(column.zone.null_count, array.logical_null_count(), "{context}");
    let Values::Integers { carrier, base } = &column.values else {
        return;
    };
    let value = |row: usize| base.checked_add(carrier.get(row)).unwrap();
    let seen: Vec<i64> = (0..column.rows)
        .filter(|row| !column.is_null(*row))
        .map(value)
        .collect();
    let exact = seen
        .iter()
        .min()
        .zip(seen.iter().max())
        .map(|(low, high)| (i128::from(*low), i128::from(*high)));
    assert_eq!(column.zone.range, exact, "{context}");
    assert_eq!(column.zone.sorted, seen.is_sorted(), "{context}");
    let (low, high) = exact.unwrap_or((0, 0));
    let inside = |row: usize| (low..=high).contains(&i128::from(value(row)));
    assert!(
        (0..column.rows).all(inside),
        "{context}: a NULL row is outside the range"
    );
    let narrowest = match high - low {
        0..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    };
    assert!(
        carrier.width_bytes() <= narrowest,
        "{context}: {low}..{high} in {}",
        carrier.width_bytes()
    );
}

#[test]
fn every_type_comes_back() {
    let seed = seed();
    let mut chance = Chance(seed);
    for data_type in types() {
        for nulls in [0, 1, 50, 100] {
            for rows in [0, 1, 2, 63, 64, 65, 1000] {
                for bits in [3, 7, 8, 20, 40, 63, 100, 126] {
                    let whole = array(&data_type, rows, nulls, bits, &mut chance);
                    assert_eq!(whole.data_type(), &data_type.to_arrow());
                    let from = usize::try_from(chance.below(rows as u64 + 1)).unwrap();
                    for part in [Arc::clone(&whole), whole.slice(from, (rows - from) / 2)] {
                        let context = format!("{data_type:?} nulls {nulls} rows {rows} bits {bits} seed {seed}");
                        let column = DeviceColumn::from_arrow(&part, &data_type).unwrap();
                        check_zone(&column, &part, &context);
                        assert_eq!(&column.to_arrow(0, part.len()).unwrap(), &part, "{context}");
                        let skip = part.len() / 3;
                        let again = column.to_arrow(skip, part.len() - skip).unwrap();
                        assert_eq!(&again, &part.slice(skip, part.len() - skip), "{context}");
                        assert!(column.to_arrow(1, part.len()).is_err());
                    }
                    if rows < 65 && !data_type.is_integral() {
                        break;
                    }
                }
            }
        }
    }
}

#[test]
fn string_layouts_are_one() {
    let seed = seed();
    let mut chance = Chance(seed);
    let layouts = [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View];
    let wanted = [Type::Utf8, Type::LargeUtf8, Type::Utf8View];
    for nulls in [0, 30] {
        let plain = array(&Type::Utf8, 500, nulls, 0, &mut chance);
        for layout in &layouts {
            for data_type in &wanted {
                let keyed = DataType::Dictionary(Box::new(DataType::Int32), Box::new(layout.clone()));
                let due = cast(&plain, &data_type.to_arrow()).unwrap().slice(100, 300);
                for from in [
                    cast(&plain, layout).unwrap(),
                    cast(&cast(&plain, layout).unwrap(), &keyed).unwrap(),
                ] {
                    let column = DeviceColumn::from_arrow(&from.slice(100, 300), data_type).unwrap();
                    assert_eq!(&column.to_arrow(0, 300).unwrap(), &due, "seed {seed}");
                    let coded = matches!(column.values, Values::Codes { .. });
                    assert_eq!(coded, matches!(from.data_type(), DataType::Dictionary(..)));
                }
            }
        }
    }
}

#[test]
fn dictionaries_are_made_distinct() {
    let values = StringArray::from(vec![Some("b"), None, Some("a"), Some("b")]);
    let keys = UInt16Array::from(vec![Some(3), Some(0), None, Some(1), Some(2)]);
    let array: ArrayRef = Arc::new(DictionaryArray::<UInt16Type>::try_new(keys, Arc::new(values)).unwrap());
    let column = DeviceColumn::from_arrow(&array, &Type::Utf8).unwrap();
    let Values::Codes { codes, dictionary } = &column.values else {
        panic!("{column:?}")
    };
    assert_eq!(dictionary.len(), 2);
    assert!(matches!(codes, Codes::U8(_)));
    assert_eq!(column.zone.null_count, 2);
    let due = StringArray::from(vec![Some("b"), Some("b"), None, None, Some("a")]);
    assert_eq!(column.to_arrow(0, 5).unwrap().as_ref(), &due as &dyn Array);
}

#[test]
fn a_dictionary_may_be_empty() {
    let keys = UInt16Array::from(vec![None, None]);
    let values = StringArray::from(Vec::<&str>::new());
    let array: ArrayRef = Arc::new(DictionaryArray::<UInt16Type>::try_new(keys, Arc::new(values)).unwrap());
    let column = DeviceColumn::from_arrow(&array, &Type::Utf8).unwrap();
    assert!(matches!(&column.values, Values::Codes { dictionary, .. } if dictionary.is_empty()));
    assert_eq!(&column.to_arrow(0, 2).unwrap(), &new_null_array(&DataType::Utf8, 2));
}

#[test]
fn a_large_dictionary_keeps_what_is_used() {
    let values: StringArray = (0..70_000).map(|i| Some(format!("value {i}"))).collect();
    let keys = arrow::array::UInt32Array::from((0..3000).map(|i| i * 20).collect::<Vec<u32>>());
    let keyed = DictionaryArray::<arrow::datatypes::UInt32Type>::try_new(keys, Arc::new(values)).unwrap();
    let array: ArrayRef = Arc::new(keyed);
    let column = DeviceColumn::from_arrow(&array, &Type::Utf8View).unwrap();
    let Values::Codes {
        codes: Codes::U16(_),
        dictionary,
    } = &column.values
    else {
        panic!("{:?}", column.zone)
    };
    assert_eq!(dictionary.len(), 3000);
    assert_eq!(
        &column.to_arrow(0, 3000).unwrap(),
        &cast(&array, &DataType::Utf8View).unwrap()
    );
}

#[test]
fn narrowing_takes_a_base_only_where_it_gains() {
    let column = |values: Vec<i64>| {
        let array: ArrayRef = Arc::new(arrow::array::Int64Array::from(values));
        let column = DeviceColumn::from_arrow(&array, &Type::Int64).unwrap();
        assert_eq!(&column.to_arrow(0, array.len()).unwrap(), &array);
        let Values::Integers { carrier, base } = column.values else {
            panic!()
        };
        (carrier.width_bytes(), base)
    };
    assert_eq!(column(vec![-128, 127]), (1, 0));
    assert_eq!(column(vec![0, 255]), (1, 128));
    assert_eq!(column(vec![0, 256]), (2, 0));
    assert_eq!(column(vec![i64::MAX - 1, i64::MAX]).0, 1);
    assert_eq!(column(vec![i64::MIN, i64::MIN + 255]).0, 1);
    assert_eq!(column(vec![i64::MIN, i64::MIN + 0xffff_ffff]).0, 4);
    assert_eq!(column(vec![i64::MIN, i64::MAX]), (8, 0));
}

#[test]
fn wrong_types_are_errors() {
    let mut chance = Chance(7);
    for data_type in types() {
        for other in types() {
            let found = array(&data_type, 3, 0, 3, &mut chance);
            let same = data_type == other
                || data_type.is_text() && other.is_text()
                || data_type.is_bytes() && other.is_bytes() && data_type.is_text() == other.is_text()
                || matches!((&data_type, &other), (Type::Decimal { scale: a, .. }, Type::Decimal { scale: b, .. }) if a == b);
            assert_eq!(
                DeviceColumn::from_arrow(&found, &other).is_ok(),
                same,
                "{data_type:?} as {other:?}"
            );
        }
    }
    let wrong = DeviceColumn {
        values: Values::Integers {
            carrier: Carrier::I8(vec![1].into()),
            base: 0,
        },
        ..DeviceColumn::from_arrow(&array(&Type::Utf8, 1, 0, 0, &mut chance), &Type::Utf8).unwrap()
    };
    assert!(wrong.to_arrow(0, 1).is_err());
}

#[test]
fn nulls_without_values_take_any_type() {
    for data_type in types() {
        let column = DeviceColumn {
            data_type: data_type.clone(),
            rows: 5,
            values: Values::Nulls,
            validity: None,
            zone: Default::default(),
        };
        assert_eq!(
            &column.to_arrow(1, 3).unwrap(),
            &new_null_array(&data_type.to_arrow(), 3)
        );
    }
}

#[test]
fn rows_become_batches() {
    let mut chance = Chance(11);
    let field = |name: &str, data_type| Field {
        name: name.to_owned(),
        data_type,
        nullable: true,
    };
    let fields = [field("a", Type::Int32), field("b", Type::Utf8View)];
    let arrays: Vec<Vec<ArrayRef>> = [10, 25]
        .iter()
        .map(|rows| {
            fields
                .iter()
                .map(|f| array(&f.data_type, *rows, 20, 9, &mut chance))
                .collect()
        })
        .collect();
    let column = |array: &ArrayRef, f: &Field| Arc::new(DeviceColumn::from_arrow(array, &f.data_type).unwrap());
    let segment = |arrays: &Vec<ArrayRef>| {
        (
            arrays[0].len(),
            arrays.iter().zip(&fields).map(|(array, f)| column(array, f)).collect(),
        )
    };
    let rows = Rows {
        segments: arrays.iter().map(segment).collect(),
        held: Vec::new(),
    };
    let batches: Vec<_> = rows.to_batches(&fields, 10).collect::<Result<_, _>>().unwrap();
    assert_eq!(
        batches.iter().map(|b| b.num_rows()).collect::<Vec<_>>(),
        [10, 10, 10, 5]
    );
    assert_eq!(batches[2].column(1), &arrays[1][1].slice(10, 10));
    let none = Rows {
        segments: vec![(3, Vec::new())],
        held: Vec::new(),
    };
    assert_eq!(none.to_batches(&[], 2).map(|b| b.unwrap().num_rows()).sum::<usize>(), 3);
}
