//! Sorts against a naive one: keys, limits, workers, memory.

use std::cmp::Ordering;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering as Memory};
use std::time::Instant;

use arrow::array::{ArrayRef, Int64Array};
use rand::Rng;
use rand::rngs::StdRng;
use trireme_device_api::{DeviceColumn, DeviceError, DevicePool, Interval, Rows, Type, Unlimited, Values};

use super::{Admitted, KeyOrder, SortLocal, SortSink};
use crate::emit::tests::{chance, keyed, random_array, types, vector};
use crate::vector::{Shape, Vector};

#[derive(Debug, Clone, PartialEq)]
enum Plain {
    Number(i128),
    Float(f64),
    Bytes(Vec<u8>),
    Interval(Interval),
}

fn plain(column: &DeviceColumn, row: usize) -> Option<Plain> {
    (!column.is_null(row)).then(|| match &column.values {
        Values::Integers { carrier, base } => Plain::Number((base + carrier.get(row)).into()),
        Values::Wide(values) => Plain::Number(values[row]),
        Values::Float32(values) => Plain::Float(values[row].into()),
        Values::Float64(values) => Plain::Float(values[row]),
        Values::Booleans(bits) => Plain::Number(bits.value(row).into()),
        Values::Codes { codes, dictionary } => Plain::Bytes(dictionary.get(codes.get(row)).to_vec()),
        Values::Strings(strings) => Plain::Bytes(strings.get(row).to_vec()),
        Values::Intervals(values) => Plain::Interval(values[row]),
        Values::Nulls => unreachable!(),
    })
}

fn naive(a: &Option<Plain>, b: &Option<Plain>, order: &KeyOrder) -> Ordering {
    let nulls = |null_is_less: bool| {
        if null_is_less {
            Ordering::Less
        } else {
            Ordering::Greater
        }
    };
    let values = match (a, b) {
        (None, None) => return Ordering::Equal,
        (None, Some(_)) => return nulls(order.nulls_first),
        (Some(_), None) => return nulls(order.nulls_first).reverse(),
        (Some(Plain::Number(a)), Some(Plain::Number(b))) => a.cmp(b),
        (Some(Plain::Bytes(a)), Some(Plain::Bytes(b))) => a.cmp(b),
        (Some(Plain::Float(a)), Some(Plain::Float(b))) => {
            a.partial_cmp(b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
        }
        (Some(Plain::Interval(a)), Some(Plain::Interval(b))) => {
            (a.months, a.days, a.nanoseconds).cmp(&(b.months, b.days, b.nanoseconds))
        }
        other => unreachable!("{other:?}"),
    };
    if order.descending { values.reverse() } else { values }
}

fn shape(column: &DeviceColumn, exact: bool) -> Shape {
    let dictionary = match &column.values {
        Values::Codes { dictionary, .. } => Some(Arc::clone(dictionary)),
        _ => None,
    };
    Shape {
        data_type: column.data_type.clone(),
        range: if exact {
            column.zone.range.or(column.data_type.value_range())
        } else {
            column.data_type.value_range()
        },
        nullable: column.zone.null_count > 0 || !exact,
        dictionary,
        distinct: None,
    }
}

/// A table of random columns, the last of which numbers the rows.
fn table(kinds: &[Type], rows: usize, chance: &mut StdRng) -> Vec<DeviceColumn> {
    let random = |kind: &Type, chance: &mut StdRng| {
        let nulls = [0.0, 0.1, 1.0][chance.random_range(0..20_usize).saturating_sub(17)];
        let nulls = if chance.random_bool(0.5) { nulls } else { 0.3 };
        let distinct = [2, 30, 1_000_000][chance.random_range(0..3)];
        let array = random_array(kind, rows, nulls, distinct, chance);
        let coded = kind.is_bytes() && chance.random_bool(0.5);
        let array = if coded { keyed(&array, kind) } else { array };
        DeviceColumn::from_arrow(&array, kind).unwrap()
    };
    let mut columns: Vec<_> = kinds.iter().map(|kind| random(kind, chance)).collect();
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows as i64));
    columns.push(DeviceColumn::from_arrow(&numbers, &Type::Int64).unwrap());
    columns
}

struct Case {
    orders: Vec<KeyOrder>,
    shapes: Vec<Shape>,
    limit: Option<usize>,
    offset: usize,
    workers: usize,
}

/// Pushes tiles of random lengths to random workers.
fn sorted(columns: &[DeviceColumn], case: &Case, chance: &mut StdRng) -> Rows {
    let pool: Arc<dyn DevicePool> = Arc::new(Unlimited);
    let mut sink = SortSink::new(&case.orders, &case.shapes, case.limit, case.offset, &pool);
    sink.sizes.run_rows = chance.random_range(1..1000);
    sink.sizes.task_rows = chance.random_range(100..3000);
    sink.sizes.sample_step = chance.random_range(1..100);
    sink.sizes.segment_rows = chance.random_range(50..3000);
    sink.sizes.kept_rows_max = [10, 100_000][chance.random_range(0..2)];
    let mut locals: Vec<SortLocal> = (0..case.workers).map(|_| sink.local()).collect();
    let mut start = 0;
    let whole = columns[0].rows;
    while start < whole {
        let rows = chance.random_range(1..=2048.min(whole - start));
        let vectors: Vec<_> = columns
            .iter()
            .zip(&case.shapes)
            .map(|(c, s)| vector(c, s.range, start, rows))
            .collect();
        let keys = &vectors[..case.orders.len()];
        locals[chance.random_range(0..case.workers)]
            .push(keys, &vectors, rows)
            .unwrap();
        start += rows;
    }
    sink.seal(locals).unwrap();
    for task in (0..sink.tasks()).rev() {
        sink.run_task(task).unwrap();
    }
    let rows = sink.finish().unwrap();
    assert!(
        rows.segments
            .iter()
            .all(|(rows, _)| (1..=sink.sizes.segment_rows).contains(rows))
    );
    rows
}

fn check(columns: &[DeviceColumn], case: &Case, found: &Rows) {
    let whole = columns[0].rows;
    let keys: Vec<Vec<Option<Plain>>> = columns[..case.orders.len()]
        .iter()
        .map(|c| (0..whole).map(|row| plain(c, row)).collect())
        .collect();
    let by_keys = |a: usize, b: usize| {
        let each = keys
            .iter()
            .zip(&case.orders)
            .map(|(key, order)| naive(&key[a], &key[b], order));
        each.fold(Ordering::Equal, Ordering::then)
    };
    let mut due: Vec<usize> = (0..whole).collect();
    due.sort_by(|a, b| by_keys(*a, *b));
    let from = case.offset.min(whole);
    let to = case.limit.map_or(whole, |limit| from.saturating_add(limit).min(whole));
    let due = &due[from..to];
    assert_eq!(found.rows(), due.len());
    let mut at = 0;
    let mut seen = vec![false; whole];
    for (rows, segment) in &found.segments {
        assert!(segment.iter().all(|column| column.rows == *rows));
        for row in 0..*rows {
            let Some(Plain::Number(number)) = plain(&segment[columns.len() - 1], row) else {
                panic!()
            };
            let number = number as usize;
            assert!(!std::mem::replace(&mut seen[number], true), "row {number} comes twice");
            assert_eq!(
                by_keys(number, due[at]),
                Ordering::Equal,
                "row {at} is {number} where {} is due",
                due[at]
            );
            for (column, origin) in segment.iter().zip(columns) {
                let (found, due) = (plain(column, row), plain(origin, number));
                assert!(same(&found, &due), "{found:?} for {due:?}");
            }
            at += 1;
        }
        for column in segment {
            let nulls = (0..*rows).filter(|row| column.is_null(*row)).count();
            assert_eq!(column.zone.null_count, nulls);
            if let Some((low, high)) = column.zone.range {
                let value = |row| match &column.values {
                    Values::Integers { carrier, base } => i128::from(base + carrier.get(row)),
                    Values::Wide(values) => values[row],
                    _ => low,
                };
                assert!((0..*rows).all(|row| (low..=high).contains(&value(row))));
            }
        }
    }
}

fn same(a: &Option<Plain>, b: &Option<Plain>) -> bool {
    match (a, b) {
        (Some(Plain::Float(a)), Some(Plain::Float(b))) => a.to_bits() == b.to_bits(),
        (a, b) => a == b,
    }
}

fn random_case(columns: &[DeviceColumn], keys: usize, chance: &mut StdRng) -> Case {
    let exact = chance.random_bool(0.5);
    let shapes: Vec<_> = columns.iter().map(|column| shape(column, exact)).collect();
    let whole = columns[0].rows;
    let order = |shape: &Shape, chance: &mut StdRng| KeyOrder {
        shape: shape.clone(),
        descending: chance.random_bool(0.5),
        nulls_first: chance.random_bool(0.5),
    };
    Case {
        orders: shapes[..keys].iter().map(|shape| order(shape, chance)).collect(),
        limit: [
            None,
            Some(0),
            Some(1),
            Some(7),
            Some(100),
            Some(whole / 2),
            Some(whole + 5),
            Some(usize::MAX),
        ][chance.random_range(0..8)],
        offset: [0, 0, 1, 50, whole / 3, whole + 1][chance.random_range(0..6)],
        workers: chance.random_range(1..4),
        shapes,
    }
}

#[test]
fn each_type_sorts_as_a_naive_sort() {
    let mut chance = chance();
    for kind in types() {
        for _ in 0..3 {
            let rows = [0, 1, 100, 3000][chance.random_range(0..4)];
            let columns = table(&[kind.clone(), Type::Utf8], rows, &mut chance);
            let case = random_case(&columns, 1, &mut chance);
            let found = sorted(&columns, &case, &mut chance);
            check(&columns, &case, &found);
        }
    }
}

#[test]
fn several_keys_sort_as_a_naive_sort() {
    let mut chance = chance();
    let types = types();
    for _ in 0..60 {
        let keys = chance.random_range(0..4);
        let kinds: Vec<_> = (0..keys)
            .map(|_| types[chance.random_range(0..types.len())].clone())
            .collect();
        let rows = chance.random_range(1..4000);
        let columns = table(&kinds, rows, &mut chance);
        let case = random_case(&columns, keys, &mut chance);
        let found = sorted(&columns, &case, &mut chance);
        check(&columns, &case, &found);
    }
}

/// The buffer is cut back only from 4,096 rows on.
#[test]
fn the_best_of_many_are_kept() {
    let mut chance = chance();
    let types = types();
    for kind in &types {
        for limit in [1, 3000] {
            let kinds = [kind.clone(), types[chance.random_range(0..types.len())].clone()];
            let columns = table(&kinds, 7_000, &mut chance);
            let mut case = random_case(&columns, 2, &mut chance);
            (case.limit, case.offset) = (Some(limit), chance.random_range(0..2));
            let found = sorted(&columns, &case, &mut chance);
            check(&columns, &case, &found);
        }
    }
}

#[test]
fn strings_with_zeros_and_common_beginnings() {
    let mut chance = chance();
    for limit in [None, Some(5)] {
        for descending in [false, true] {
            let pieces: [&[u8]; 5] = [b"\0", b"\0\0", b"a", b"sixteen bytes, at least", b"\xff"];
            let value = |chance: &mut StdRng| -> Vec<u8> {
                (0..chance.random_range(0..4))
                    .flat_map(|_| pieces[chance.random_range(0..5)])
                    .copied()
                    .collect()
            };
            let values: Vec<Vec<u8>> = (0..9000).map(|_| value(&mut chance)).collect();
            let array: ArrayRef = Arc::new(arrow::array::BinaryArray::from_iter_values(&values));
            let strings = DeviceColumn::from_arrow(&array, &Type::Binary).unwrap();
            let mut columns = table(&[Type::Int8], 9000, &mut chance);
            columns.insert(0, strings);
            let mut case = random_case(&columns, 2, &mut chance);
            case.orders[0].descending = descending;
            case.limit = limit;
            case.offset = 0;
            let found = sorted(&columns, &case, &mut chance);
            check(&columns, &case, &found);
        }
    }
}

#[test]
fn a_bound_spares_later_tiles() {
    let mut chance = chance();
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10_000));
    let column = DeviceColumn::from_arrow(&numbers, &Type::Int64).unwrap();
    let pool: Arc<dyn DevicePool> = Arc::new(Unlimited);
    let order = KeyOrder {
        shape: shape(&column, true),
        descending: false,
        nulls_first: chance.random_bool(0.5),
    };
    let sink = SortSink::new(&[order], &[shape(&column, true)], Some(10), 0, &pool);
    let mut local = sink.local();
    for start in (0..6000).step_by(2000) {
        let keys = vector(&column, None, start, 2000);
        let keys = [keys];
        local.push(&keys, &keys, 2000).unwrap();
    }
    assert_eq!(
        local.admit(&[vector(&column, None, 6000, 2000)], 2000).unwrap(),
        Admitted::None
    );
    assert_eq!(
        local.admit(&[vector(&column, None, 5, 100)], 100).unwrap(),
        Admitted::Some(&[0, 1, 2, 3])
    );
}

struct Little;

impl DevicePool for Little {
    fn reserve(&self, bytes: usize) -> Result<(), DeviceError> {
        if bytes > 1 << 20 {
            Err(DeviceError::OutOfMemory("1 MiB".to_owned()))
        } else {
            Ok(())
        }
    }

    fn release(&self, _bytes: usize) {}
}

#[test]
fn memory_is_reserved() {
    let mut chance = chance();
    let columns = table(&[Type::Int64], 2000, &mut chance);
    let case = random_case(&columns, 1, &mut chance);
    let pool: Arc<dyn DevicePool> = Arc::new(Little);
    let sink = SortSink::new(&case.orders, &case.shapes, None, 0, &pool);
    let mut local = sink.local();
    let failed = (0..1000).find_map(|_| {
        let vectors: Vec<_> = columns
            .iter()
            .zip(&case.shapes)
            .map(|(c, s)| vector(c, s.range, 0, 2000))
            .collect();
        local.push(&vectors[..1], &vectors, 2000).err()
    });
    // The step after step grows by little: the pool above refuses one request, not the sum.
    assert!(failed.is_none());
    assert!(local.held_bytes() > 1000 * 2000 * (16 + 8));
}

impl SortLocal {
    fn held_bytes(&self) -> usize {
        match self {
            SortLocal::One(local) => local.held.bytes(),
            SortLocal::Two(local) => local.held.bytes(),
            SortLocal::Bytes(local) => local.held.bytes(),
        }
    }
}

/// `cargo test --release -p trireme-device-cpu sort_speed -- --ignored --nocapture`
#[test]
#[ignore = "prints times; run it optimised"]
fn sort_speed() {
    let mut chance = chance();
    let column = |array: ArrayRef, kind: Type| DeviceColumn::from_arrow(&array, &kind).unwrap();
    let many = 6_000_000;
    let integers = |rows: usize, chance: &mut StdRng| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(
            (0..rows).map(|_| chance.random_range(0..1 << 40)),
        ))
    };
    let narrow = |rows: usize, most: i64, chance: &mut StdRng| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(
            (0..rows).map(|_| chance.random_range(0..most)),
        ))
    };
    let text = |rows: usize, chance: &mut StdRng| -> ArrayRef {
        let values = (0..rows).map(|_| format!("Customer#{:09}", chance.random_range(0..1_000_000)));
        Arc::new(arrow::array::StringArray::from_iter_values(values))
    };
    let wide = column(integers(many, &mut chance), Type::Int64);
    let small = column(narrow(many, 1 << 30, &mut chance), Type::Int64);
    let names = column(text(1_500_000, &mut chance), Type::Utf8);
    let dates = column(narrow(1_500_000, 2500, &mut chance), Type::Int64);
    let half = column(integers(1_500_000, &mut chance), Type::Int64);
    let coded = column(keyed(&names.to_arrow(0, 1_500_000).unwrap(), &Type::Utf8), Type::Utf8);
    measure("top 10 of 6 M by i64", &[&wide], Some(10));
    measure("top 10 of 6 M by i32", &[&small], Some(10));
    measure("top 10 of 1.5 M by (string, i16)", &[&names, &dates], Some(10));
    measure("top 100000 of 6 M by i64", &[&wide], Some(100_000));
    let mut bare: Vec<(u64, u32)> = (0..1_500_000).map(|row| (chance.random(), row)).collect();
    let began = Instant::now();
    bare.sort_unstable();
    println!(
        "1.5 M bare (u64, u32), sort_unstable: {:.1} ms",
        began.elapsed().as_secs_f64() * 1e3
    );
    measure("1.5 M by i64", &[&half], None);
    measure("1.5 M by (code, i16)", &[&coded, &dates], None);
    measure("1.5 M by (string, i16)", &[&names, &dates], None);
}

fn measure(name: &str, columns: &[&DeviceColumn], limit: Option<usize>) {
    let shapes: Vec<_> = columns.iter().map(|column| shape(column, true)).collect();
    let order = |shape: &Shape| KeyOrder {
        shape: shape.clone(),
        descending: true,
        nulls_first: false,
    };
    let orders: Vec<_> = shapes.iter().map(order).collect();
    let rows = columns[0].rows;
    let vectors = |start| {
        let count = 2048.min(rows - start);
        columns
            .iter()
            .map(|column| vector(column, None, start, count))
            .collect::<Vec<_>>()
    };
    let tiles: Vec<_> = (0..rows).step_by(2048).map(vectors).collect();
    for workers in [1, 2] {
        let pool: Arc<dyn DevicePool> = Arc::new(Unlimited);
        let once = || {
            let sink = SortSink::new(&orders, &shapes, limit, 0, &pool);
            let times = run_threads(&sink, &tiles, workers);
            assert_eq!(sink.finish().unwrap().rows(), limit.unwrap_or(rows));
            times
        };
        let [all, pushed, sealed] = (0..5).map(|_| once()).min_by(|a, b| a[0].total_cmp(&b[0])).unwrap();
        let per_row = all * 1e6 / rows as f64;
        println!(
            "{name}, {workers} workers: {all:.1} ms, {per_row:.2} ns/row (push until {pushed:.1}, seal until {sealed:.1} ms)"
        );
    }
}

/// Milliseconds until all tasks are done, until the last push, until the seal.
fn run_threads(sink: &SortSink, tiles: &[Vec<Vector<'_>>], workers: usize) -> [f64; 3] {
    let began = Instant::now();
    let elapsed = || began.elapsed().as_secs_f64() * 1e3;
    let push = |part: &[Vec<Vector<'_>>], mut local: SortLocal| {
        part.iter()
            .for_each(|tile| local.push(tile, tile, tile[0].len()).unwrap());
        local
    };
    let locals = std::thread::scope(|scope| {
        let parts = tiles
            .chunks(tiles.len().div_ceil(workers))
            .map(|part| (part, sink.local()));
        let running: Vec<_> = parts
            .map(|(part, local)| scope.spawn(move || push(part, local)))
            .collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let pushed = elapsed();
    sink.seal(locals).unwrap();
    let sealed = elapsed();
    let next = AtomicUsize::new(0);
    let work = || {
        let tasks = || Some(next.fetch_add(1, Memory::Relaxed)).filter(|task| *task < sink.tasks());
        std::iter::from_fn(tasks).for_each(|task| sink.run_task(task).unwrap());
    };
    std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
    [elapsed(), pushed, sealed]
}
