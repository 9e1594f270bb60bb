//! Times per row of every rung; ignored: `cargo test --release -p trireme-device-cpu --lib aggregate::bench -- --ignored --nocapture`.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use trireme_device_api::{Aggregate, AggregateFunction, DevicePool, Dictionary, Strings, Type, Unlimited};

use crate::aggregate::AggregatePlan;
use crate::aggregate::tests::{aggregate, decimal};
use crate::isa::Isa;
use crate::vector::{Data, Shape, TILE_ROWS, Vector};

const MORSEL_ROWS: usize = 1 << 15;

/// A whole column.
enum Flat {
    Codes(Vec<u32>, Arc<Dictionary>),
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    Bytes(Vec<String>),
}

impl Flat {
    fn vector(&self, start: usize, end: usize) -> Vector<'_> {
        let data = match self {
            Flat::Codes(values, dictionary) => Data::Codes(Cow::Borrowed(&values[start..end]), Arc::clone(dictionary)),
            Flat::I8(values) => Data::I8(Cow::Borrowed(&values[start..end])),
            Flat::I16(values) => Data::I16(Cow::Borrowed(&values[start..end])),
            Flat::I32(values) => Data::I32(Cow::Borrowed(&values[start..end])),
            Flat::I64(values) => Data::I64(Cow::Borrowed(&values[start..end])),
            Flat::Bytes(values) => Data::Bytes(values[start..end].iter().map(String::as_bytes).collect()),
        };
        Vector { data, valid: None }
    }
}

fn shape(data_type: Type, range: Option<(i128, i128)>) -> Shape {
    Shape {
        data_type,
        range,
        nullable: false,
        dictionary: None,
        distinct: None,
    }
}

fn coded(values: &[&str], rows: usize, random: &mut StdRng) -> (Shape, Flat) {
    let dictionary = Arc::new(Dictionary::new(Strings::from_values(
        values.iter().map(|value| value.as_bytes()),
    )));
    let codes = (0..rows).map(|_| random.random_range(0..values.len() as u32)).collect();
    let mut shape = shape(Type::Utf8, None);
    shape.dictionary = Some(Arc::clone(&dictionary));
    (shape, Flat::Codes(codes, dictionary))
}

/// Nanoseconds that this thread has run, on a machine that others use too.
#[cfg(unix)]
fn ran_ns() -> f64 {
    unsafe extern "C" {
        fn clock_gettime(clock: i32, time: *mut [i64; 2]) -> i32;
    }
    const THREAD_CPUTIME: i32 = 3;
    let mut time = [0; 2];
    // SAFETY: on 64-bit Linux a timespec is two words.
    unsafe { clock_gettime(THREAD_CPUTIME, &raw mut time) };
    time[0] as f64 * 1e9 + time[1] as f64
}

struct Bench {
    groups: Vec<(Shape, Flat)>,
    aggregates: Vec<(Aggregate, Option<(Shape, Flat)>)>,
    mask: Option<Vec<u8>>,
    rows: usize,
    /// Rows that columns have, read again and again: what the loops cost beside memory.
    window: usize,
}

impl Bench {
    /// Nanoseconds of one core per row: in all, and of merging.
    fn once(&self, workers: usize, isa: Isa) -> (f64, f64, usize, &'static str) {
        let pool: Arc<dyn DevicePool> = Arc::new(Unlimited);
        let groups: Vec<_> = self.groups.iter().map(|(shape, _)| shape.clone()).collect();
        let aggregates: Vec<_> = self
            .aggregates
            .iter()
            .map(|(aggregate, column)| (aggregate.clone(), column.as_ref().map(|(shape, _)| shape.clone())))
            .collect();
        let plan = AggregatePlan::new(&groups, &aggregates, workers, isa, &pool, self.rows, false).expect("supported");
        let next = AtomicUsize::new(0);
        let work = || {
            let begin = ran_ns();
            let mut local = plan.local();
            let filters: Vec<Option<Vec<u8>>> = vec![None; self.aggregates.len()];
            loop {
                let start = next.fetch_add(MORSEL_ROWS, Ordering::Relaxed);
                if start >= self.rows {
                    return (local, ran_ns() - begin);
                }
                let last = (start + MORSEL_ROWS).min(self.rows);
                for start in (start..last).step_by(TILE_ROWS) {
                    let end = (start + TILE_ROWS).min(last);
                    let (start, end) = (start % self.window, start % self.window + end - start);
                    let groups: Vec<_> = self.groups.iter().map(|(_, flat)| flat.vector(start, end)).collect();
                    let arguments: Vec<_> = self
                        .aggregates
                        .iter()
                        .map(|(_, column)| column.as_ref().map(|(_, flat)| flat.vector(start, end)))
                        .collect();
                    let mask = self.mask.as_ref().map(|mask| &mask[start..end]);
                    plan.update(&mut local, &groups, &arguments, &filters, mask, end - start)
                        .expect("fits");
                }
            }
        };
        let worked: Vec<_> = std::thread::scope(|scope| {
            let handles: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            handles
                .into_iter()
                .map(|handle| handle.join().expect("no panic"))
                .collect()
        });
        let updating: f64 = worked.iter().map(|(_, time)| time).sum();
        let locals = worked.into_iter().map(|(local, _)| local).collect();
        let merge = plan.start_merge(locals);
        let task = AtomicUsize::new(0);
        let finish = || {
            let begin = ran_ns();
            loop {
                let task = task.fetch_add(1, Ordering::Relaxed);
                if task >= merge.tasks() {
                    return ran_ns() - begin;
                }
                plan.merge(&merge, task).expect("fits");
            }
        };
        let merging: f64 = std::thread::scope(|scope| {
            let handles: Vec<_> = (0..workers).map(|_| scope.spawn(finish)).collect();
            handles.into_iter().map(|handle| handle.join().expect("no panic")).sum()
        });
        let rows = plan.output(merge).rows();
        let per_row = |time: f64| time / self.rows as f64;
        (per_row(updating + merging), per_row(merging), rows, plan.rung())
    }

    fn report(&self, name: &str, workers: usize, isa: Isa) {
        let mut runs: Vec<_> = (0..3).map(|_| self.once(workers, isa)).collect();
        runs.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (total, merging, rows, rung) = runs[0];
        println!(
            "{name:28} {workers} threads {:8} {rung:16} {total:7.2} ns of core per row, merge {merging:6.2}, {rows} groups",
            isa.name()
        );
    }
}

fn sum(index: usize, scale: i8) -> Aggregate {
    aggregate(
        AggregateFunction::Sum,
        Some((index, decimal(15, scale))),
        decimal(25, scale),
    )
}

fn average(index: usize) -> Aggregate {
    aggregate(
        AggregateFunction::Average,
        Some((index, decimal(15, 2))),
        decimal(19, 6),
    )
}

#[test]
#[ignore = "a measurement"]
#[expect(clippy::too_many_lines, reason = "a list of inputs")]
fn tpch_shapes() {
    let mut random = StdRng::seed_from_u64(1);
    let rows = 1 << 16;
    let quantity = || (shape(decimal(15, 2), Some((100, 5000))), Flat::I16(vec![1234; rows]));
    let price = || {
        (
            shape(decimal(15, 2), Some((90_000, 10_494_950))),
            Flat::I32(vec![1_234_567; rows]),
        )
    };
    let discount = || (shape(decimal(15, 2), Some((0, 10))), Flat::I8(vec![7; rows]));
    let discounted = (
        shape(decimal(15, 4), Some((0, 1_049_495_000))),
        Flat::I32(vec![123_456_789; rows]),
    );
    let charge = (
        shape(decimal(15, 6), Some((0, 113_345_460_000))),
        Flat::I64(vec![12_345_678_901; rows]),
    );
    let rows = 32 << 20;
    let mut q1 = Bench {
        window: 1 << 16,
        groups: vec![
            coded(&["A", "N", "R"], 1 << 16, &mut random),
            coded(&["O", "F"], 1 << 16, &mut random),
        ],
        aggregates: vec![
            (sum(0, 2), Some(quantity())),
            (sum(1, 2), Some(price())),
            (sum(2, 4), Some(discounted)),
            (sum(3, 6), Some(charge)),
            (average(0), Some(quantity())),
            (average(1), Some(price())),
            (average(4), Some(discount())),
            (aggregate(AggregateFunction::Count, None, Type::Int64), None),
        ],
        mask: None,
        rows,
    };
    for isa in Isa::all_available() {
        q1.report("Q1", 1, isa);
    }
    q1.report("Q1", 2, Isa::detect());
    for kept in [0, 2, 4, 5, 6] {
        let mut part = Bench {
            rows,
            window: 1 << 16,
            mask: None,
            aggregates: vec![],
            groups: vec![],
        };
        part.groups = vec![
            coded(&["A", "N", "R"], 1 << 16, &mut random),
            coded(&["O", "F"], 1 << 16, &mut random),
        ];
        part.aggregates = q1.aggregates.drain(..q1.aggregates.len().min(2)).collect();
        part.report(&format!("Q1 two of {kept}"), 1, Isa::detect());
    }
    let q6 = Bench {
        window: 1 << 16,
        groups: vec![],
        aggregates: vec![(sum(0, 2), Some(price()))],
        mask: Some((0..rows).map(|_| u8::from(random.random_bool(0.02))).collect()),
        rows,
    };
    for isa in Isa::all_available() {
        q6.report("Q6", 1, isa);
    }
    let rows = 4 << 20;
    let quantity = || (shape(decimal(15, 2), Some((100, 5000))), Flat::I16(vec![1234; rows]));
    let mut orders = Vec::with_capacity(rows);
    let mut order = 1_i32;
    while orders.len() < rows {
        for _ in 0..random.random_range(1..8) {
            orders.push(order);
        }
        order += if order % 8 == 7 { 25 } else { 1 };
    }
    orders.truncate(rows);
    let key = shape(Type::Int64, Some((1, order.into())));
    let q18 = Bench {
        window: rows,
        groups: vec![(key, Flat::I32(orders))],
        aggregates: vec![(sum(0, 2), Some(quantity()))],
        mask: None,
        rows,
    };
    q18.report("Q18", 1, Isa::detect());
    q18.report("Q18", 2, Isa::detect());
}

#[test]
#[ignore = "a measurement"]
fn sweep() {
    let mut random = StdRng::seed_from_u64(2);
    let rows = std::env::var("ROWS")
        .ok()
        .and_then(|rows| rows.parse().ok())
        .unwrap_or(12_000_000);
    let quantity = || (shape(decimal(15, 2), Some((100, 5000))), Flat::I16(vec![1234; rows]));
    let only = std::env::var("KIND").ok();
    for kind in ["direct", "hash", "hash sorted", "hash each", "direct sorted", "bytes"] {
        if only.as_ref().is_some_and(|only| only != kind) {
            continue;
        }
        for power in 0..8 {
            let count = 10_i64.pow(power);
            if kind == "bytes" && count > 1_000_000 {
                continue;
            }
            let mut keys: Vec<i64> = (0..rows).map(|_| random.random_range(0..count)).collect();
            if kind.ends_with("sorted") {
                keys.sort_unstable();
            }
            if kind.ends_with("each") {
                // Each key equally often, in runs.
                keys = (0..rows as i64).map(|row| row * count / rows as i64).collect();
            }
            let key = if kind.starts_with("direct") {
                let keys = keys.iter().map(|&key| key as i32).collect();
                (
                    shape(Type::Int32, Some((0, i128::from(count).max(1 << 15)))),
                    Flat::I32(keys),
                )
            } else if kind == "bytes" {
                let keys = keys.iter().map(|key| format!("customer#{key}")).collect();
                (shape(Type::Utf8, None), Flat::Bytes(keys))
            } else {
                let keys = keys
                    .iter()
                    .map(|&key| key.wrapping_mul(0x1E37_79B9_7F4A_7C15) & i64::MAX)
                    .collect();
                (shape(Type::Int64, Some((0, i64::MAX.into()))), Flat::I64(keys))
            };
            let bench = Bench {
                window: rows,
                groups: vec![key],
                aggregates: vec![
                    (sum(0, 2), Some(quantity())),
                    (aggregate(AggregateFunction::Count, None, Type::Int64), None),
                ],
                mask: None,
                rows,
            };
            for workers in [1, 2] {
                bench.report(&format!("{kind} {count}"), workers, Isa::detect());
            }
        }
    }
}
