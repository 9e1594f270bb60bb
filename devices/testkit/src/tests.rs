//! The kit's own tests.

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use trireme_device_api::{Field, IntervalKind, ScanInput, StreamInput, StreamPoll, TimeUnit, Type, Value};

use crate::arrays::rows_of;
use crate::inputs::{Layout, MemoryScan, MemoryStream};
use crate::values::{Row, interval, text, value_of};

fn field(data_type: Type) -> Field {
    Field {
        name: "c".to_owned(),
        data_type,
        nullable: true,
    }
}

fn table() -> (Vec<Field>, Vec<Row>) {
    let fields = vec![
        field(Type::Int64),
        field(Type::UInt64),
        field(Type::Decimal {
            precision: 38,
            scale: 3,
        }),
        field(Type::Utf8View),
        field(Type::Boolean),
        field(Type::Float32),
        field(Type::Interval(IntervalKind::MonthDayNano)),
        field(Type::Timestamp {
            unit: TimeUnit::Millisecond,
            zone: Some("UTC".into()),
        }),
        field(Type::Null),
    ];
    let mut rows = Vec::new();
    for i in 0..50_i32 {
        let int = |value: i128| if i % 7 == 3 { Value::Null } else { Value::Int(value) };
        rows.push(vec![
            int(if i % 2 == 0 { i64::MIN.into() } else { i64::MAX.into() }),
            int(if i % 5 == 0 { u64::MAX.into() } else { i.into() }),
            int(10_i128.pow(20) * i128::from(i)),
            if i % 4 == 0 {
                Value::Null
            } else {
                text(&"ä€".repeat(usize::try_from(i % 3).unwrap()))
            },
            Value::Boolean(i % 3 == 0),
            Value::Float(f64::from(i) * 0.5),
            interval(i, -i, 7),
            int(i128::from(i) * 1_000),
            Value::Null,
        ]);
    }
    (fields, rows)
}

#[test]
fn a_scan_gives_back_its_rows_in_every_layout() {
    let (fields, rows) = table();
    for seed in 0..200 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let scan = MemoryScan::new(&fields, &rows, &Layout::default(), &mut rng).unwrap();
        let mut found: Vec<Row> = Vec::new();
        for segment in 0..scan.segments() {
            let columns: Vec<_> = (0..fields.len())
                .map(|column| scan.load(segment, column).unwrap())
                .collect();
            for row in 0..scan.rows(segment) {
                let values = columns.iter().zip(scan.columns()).map(|(column, profile)| {
                    let value = value_of(column, row).unwrap();
                    if let (Value::Int(value), Some((low, high))) = (&value, profile.range) {
                        assert!((low..=high).contains(value), "seed {seed}");
                        let (low, high) = column.zone.range.unwrap();
                        assert!((low..=high).contains(value), "seed {seed}");
                    }
                    assert!(value != Value::Null || profile.nullable, "seed {seed}");
                    value
                });
                found.push(values.collect());
            }
        }
        assert_eq!(found, rows, "seed {seed}");
    }
}

#[test]
fn a_stream_gives_back_its_rows() {
    let (fields, rows) = table();
    for seed in 0..20 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let stream = Arc::new(MemoryStream::new(&fields, &rows, &mut rng).unwrap());
        let mut found = Vec::new();
        loop {
            match stream.poll().unwrap() {
                StreamPoll::Batch(batch) => found.extend(rows_of(&batch, &fields).unwrap()),
                StreamPoll::Waiting => {}
                StreamPoll::End => break,
            }
        }
        assert_eq!(found, rows, "seed {seed}");
    }
}
