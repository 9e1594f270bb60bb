//! Pruning against brute force: no wanted row is ever left out, and what is cached of a part is never taken for the whole.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray,
    UInt32Array,
};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use simstore::Profile;
use trireme_device_api::{BinaryOperator, ColumnTest, RowTest, ScanInput, Type, Value};
use trireme_lake::LakeOptions;

use super::remote::Remote;
use super::write::{batch, open, table};
use crate::{ColumnCache, Limits};

const ROWS: usize = 2_000;
const ROUNDS: usize = 24;

fn columns() -> Vec<(&'static str, Type)> {
    vec![
        ("id", Type::Int64),
        ("i", Type::Int64),
        ("u", Type::UInt32),
        ("d", Type::Date32),
        (
            "m",
            Type::Decimal {
                precision: 20,
                scale: 2,
            },
        ),
        ("f", Type::Float64),
        ("s", Type::Utf8),
        ("b", Type::Boolean),
    ]
}

/// Values by column, then row.
struct Model {
    values: Vec<Vec<Value>>,
}

/// Rows whose neighbours have like values.
fn model(random: &mut StdRng) -> Model {
    let step = |random: &mut StdRng, row: usize| i128::from(random.random_range(0..40)) + (row as i128 / 20) * 7 - 300;
    let mut values: Vec<Vec<Value>> = vec![Vec::new(); 8];
    for row in 0..ROWS {
        let all_null = (row / 100) % 7 == 3;
        let mut push = |column: usize, value: Value, random: &mut StdRng| {
            let null = column > 0 && (all_null || random.random_ratio(1, 30));
            values[column].push(if null { Value::Null } else { value });
        };
        push(0, Value::Int(row as i128), random);
        let value = step(random, row);
        push(1, Value::Int(value * 1_000_003), random);
        let value = step(random, row);
        push(2, Value::Int((value + 300) * 4_000_000 % (1 << 32)), random);
        let value = step(random, row);
        push(3, Value::Int(value), random);
        let value = step(random, row);
        push(4, Value::Int(value * 12_345_678_901_234), random);
        let value = match random.random_range(0..60) {
            0 => f64::NAN,
            1 => -f64::NAN,
            2 => -0.0,
            _ => step(random, row) as f64 / 4.0,
        };
        push(5, Value::Float(value), random);
        // Longer than the 64 bytes that statistics keep, some of them.
        let long = "x".repeat(if random.random_ratio(1, 4) { 80 } else { 0 });
        let text = format!("{:05}-{long}{}", step(random, row) + 400, random.random_range(0..3));
        push(6, Value::Bytes(text.as_bytes().into()), random);
        push(7, Value::Boolean((row / 50) % 3 == 0), random);
    }
    Model { values }
}

fn batch_of(model: &Model) -> RecordBatch {
    let ints = |column: usize| {
        model.values[column].iter().map(|value| match value {
            Value::Int(value) => Some(*value),
            _ => None,
        })
    };
    let floats = model.values[5].iter().map(|value| match value {
        Value::Float(value) => Some(*value),
        _ => None,
    });
    let texts = model.values[6].iter().map(|value| match value {
        Value::Bytes(value) => Some(String::from_utf8(value.to_vec()).unwrap()),
        _ => None,
    });
    let bits = model.values[7].iter().map(|value| match value {
        Value::Boolean(value) => Some(*value),
        _ => None,
    });
    let long = |value: Option<i128>| value.map(|value| i64::try_from(value).unwrap());
    let decimals = Decimal128Array::from_iter(ints(4))
        .with_precision_and_scale(20, 2)
        .unwrap();
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter(ints(0).map(long))),
        Arc::new(Int64Array::from_iter(ints(1).map(long))),
        Arc::new(UInt32Array::from_iter(
            ints(2).map(|value| value.map(|value| u32::try_from(value).unwrap())),
        )),
        Arc::new(Date32Array::from_iter(
            ints(3).map(|value| value.map(|value| i32::try_from(value).unwrap())),
        )),
        Arc::new(decimals),
        Arc::new(Float64Array::from_iter(floats)),
        Arc::new(StringArray::from_iter(texts)),
        Arc::new(BooleanArray::from_iter(bits)),
    ];
    let names = columns();
    batch(names.iter().map(|(name, _)| *name).zip(arrays).collect())
}

fn file(model: &Model) -> Vec<u8> {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(100))
        .set_statistics_truncate_length(Some(20))
        .set_bloom_filter_enabled(true)
        .set_data_page_row_count_limit(20)
        .set_write_batch_size(20)
        .build();
    let batch = batch_of(model);
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn random_test(random: &mut StdRng, model: &Model, depth: usize) -> RowTest {
    if depth > 0 && random.random_ratio(1, 2) {
        let count = random.random_range(1..4);
        let tests = (0..count).map(|_| random_test(random, model, depth - 1)).collect();
        return match random.random() {
            true => RowTest::All(tests),
            false => RowTest::Any(tests),
        };
    }
    let column = random.random_range(0..8);
    let constant = |random: &mut StdRng| loop {
        let value = &model.values[column][random.random_range(0..ROWS)];
        if *value != Value::Null {
            return match value {
                Value::Int(value) => Value::Int(value + random.random_range(-1..=1)),
                other => other.clone(),
            };
        }
    };
    let ops = [
        BinaryOperator::Equal,
        BinaryOperator::NotEqual,
        BinaryOperator::Less,
        BinaryOperator::LessOrEqual,
        BinaryOperator::Greater,
        BinaryOperator::GreaterOrEqual,
    ];
    let test = match random.random_range(0..8) {
        0 => ColumnTest::IsNull,
        1 => ColumnTest::IsNotNull,
        2 => ColumnTest::In((0..random.random_range(1..4)).map(|_| constant(random)).collect()),
        3 if column == 6 => match constant(random) {
            Value::Bytes(text) => ColumnTest::StartsWith(text[..4].into()),
            _ => ColumnTest::IsNull,
        },
        _ => ColumnTest::Compare(ops[random.random_range(0..ops.len())], constant(random)),
    };
    RowTest::Column(column, test)
}

/// In the order that comparisons of floats have: total.
fn order(left: &Value, right: &Value) -> Ordering {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => left.cmp(right),
        (Value::Bytes(left), Value::Bytes(right)) => left.cmp(right),
        (Value::Boolean(left), Value::Boolean(right)) => left.cmp(right),
        (Value::Float(left), Value::Float(right)) => left.total_cmp(right),
        other => panic!("{other:?}"),
    }
}

fn passes(test: &RowTest, model: &Model, row: usize) -> bool {
    test.may_pass(&mut |column, test| {
        let value = &model.values[column][row];
        if *value == Value::Null {
            return *test == ColumnTest::IsNull;
        }
        match test {
            ColumnTest::IsNull => false,
            ColumnTest::IsNotNull => true,
            ColumnTest::In(values) => values.iter().any(|other| order(value, other).is_eq()),
            ColumnTest::StartsWith(prefix) => matches!(value, Value::Bytes(value) if value.starts_with(prefix)),
            ColumnTest::Compare(op, other) => {
                let order = order(value, other);
                match op {
                    BinaryOperator::Equal => order.is_eq(),
                    BinaryOperator::NotEqual => order.is_ne(),
                    BinaryOperator::Less => order.is_lt(),
                    BinaryOperator::LessOrEqual => order.is_le(),
                    BinaryOperator::Greater => order.is_gt(),
                    _ => order.is_ge(),
                }
            }
        }
    })
}

/// The rows of a scan by their ids, each checked against the whole.
fn rows_of(scan: &dyn ScanInput, whole: &RecordBatch) -> Vec<usize> {
    let mut ids = Vec::new();
    for segment in 0..scan.segments() {
        let found = scan.load(segment, 0).unwrap();
        let found = found.to_arrow(0, found.rows).unwrap();
        let found = found.as_any().downcast_ref::<Int64Array>().unwrap();
        let rows: Vec<usize> = found.values().iter().map(|id| *id as usize).collect();
        let take = arrow::array::UInt64Array::from_iter_values(rows.iter().map(|row| *row as u64));
        for column in 0..whole.num_columns() {
            let loaded = scan.load(segment, column).unwrap();
            assert_eq!(loaded.rows, rows.len());
            let expected = arrow::compute::take(whole.column(column), &take, None).unwrap();
            let found = loaded.to_arrow(0, loaded.rows).unwrap();
            assert_eq!(format!("{found:?}"), format!("{expected:?}"), "column {column}");
        }
        ids.extend(rows);
    }
    ids
}

#[test]
fn no_wanted_row_is_left_out() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let remote = Remote::new(Profile::none(), LakeOptions::default());
    let model = model(&mut random);
    let (whole, bytes) = (batch_of(&model), file(&model));
    std::fs::write(folder.path().join("a"), &bytes).unwrap();
    let limits = Limits {
        segment_rows: 250,
        ..Limits::default()
    };
    let (near, far) = (ColumnCache::new(limits), ColumnCache::new(limits));
    let columns = columns();
    let mut table_of = remote.table(&[("a", bytes)], &columns, RowTest::True);
    let (mut local_rows, mut remote_rows, mut wanted_rows) = (0, 0, 0);
    for round in 0..ROUNDS {
        let test = random_test(&mut random, &model, 2);
        let wanted: Vec<usize> = (0..ROWS).filter(|row| passes(&test, &model, *row)).collect();
        let mut local = table(folder.path(), &["a"], &columns, true);
        local.test = test.clone();
        table_of.test = test.clone();
        if round % 8 == 7 {
            far.clear();
        }
        let scans = [
            (open(&near, local).unwrap(), &mut local_rows),
            (remote.open(&far, table_of.clone()).unwrap(), &mut remote_rows),
        ];
        for (scan, count) in scans {
            let found = rows_of(scan.as_ref(), &whole);
            assert!(found.is_sorted(), "rows in order");
            for row in &wanted {
                assert!(found.binary_search(row).is_ok(), "row {row} is missing; {test:?}");
            }
            *count += found.len();
        }
        wanted_rows += wanted.len();
    }
    println!(
        "of {} rows {local_rows} and {remote_rows} were read, {wanted_rows} wanted",
        ROUNDS * ROWS
    );
    assert!(remote_rows < local_rows && local_rows < ROUNDS * ROWS);
}
