//! What joins cost by the size of the build side, on the OpenCL device that is there: for who changes join tables.
//!
//! `cargo test --release -p trireme-device-opencl --test joins -- --ignored --nocapture` prints a line per size and kind of
//! key: nanoseconds of the processor's time per row of both sides, of the best of a few runs, with all that the host does. The
//! ratio from line to line is what counts. `TRIREME_JOINS=Dense` leaves out other kinds of keys, and
//! `TRIREME_JOINS_POWER=20` other sizes than 2^20; `TRIREME_JOINS_ORDERED` puts rows in order of their
//! hashes first. Results are checked.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use trireme_device_api::{
    Aggregate, AggregateFunction, Backend, BinaryOperator, BuildSide, DevicePool, Expr, Fragment, GRAPH_VERSION, Graph,
    Inputs, JoinKind, Output, Probe, ScanInput, ScanSource, Sink, Source, Step, Type, Value, Values, Variant,
};
use trireme_device_cpu::FusedVariant;
use trireme_device_opencl::{OpenClBackend, OpenClSettings};
use trireme_device_runtime::Partition;
use trireme_device_testkit::driver::step_until_done;
use trireme_device_testkit::generate::field;
use trireme_device_testkit::inputs::{CountingPool, Layout, MemoryScan, Segmentation};
use trireme_device_testkit::values::Row;

const PROBE_ROWS: usize = 1 << 20;
const RUNS: usize = 4;
/// Build sides of 2^this rows.
const POWERS: [u32; 10] = [4, 7, 10, 12, 14, 15, 17, 18, 20, 21];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Keys {
    /// 0, 1, 2, … in any order: heads by key.
    Dense,
    /// As dense, of a build side of which a filter leaves one row in ten: bits before the heads.
    Filtered,
    /// Anywhere in 64 bits: a hash table.
    Sparse,
    /// As sparse, of a filtered build side, and one row in ten has a match.
    Selective,
    /// As sparse, and only whether there is a match is asked.
    Exists,
}

fn int(column: usize) -> Expr {
    Expr::column(column, Type::Int64)
}

fn graph(keys: Keys) -> Graph {
    let kind = if keys == Keys::Exists {
        JoinKind::Semi
    } else {
        JoinKind::Inner
    };
    let all = Expr::binary(
        BinaryOperator::GreaterOrEqual,
        int(1),
        Expr::literal(Value::Int(least(keys).into()), Type::Int64),
        Type::Boolean,
    );
    let filter = matches!(keys, Keys::Selective | Keys::Filtered).then_some(Step::Filter(all));
    let aggregate = |function, argument: Option<usize>| Aggregate {
        function,
        argument: argument.map(int),
        distinct: false,
        filter: None,
        order: Vec::new(),
        data_type: Type::Int64,
    };
    let last = if kind == JoinKind::Inner { 3 } else { 1 };
    let aggregates = vec![
        aggregate(AggregateFunction::Count, None),
        aggregate(AggregateFunction::Sum, Some(last)),
    ];
    let mut columns = vec![field("k", Type::Int64), field("v", Type::Int64)];
    columns.iter_mut().for_each(|column| column.nullable = false);
    let scan = |name: &str| ScanSource {
        name: name.to_owned(),
        columns: columns.clone(),
    };
    let output = vec![field("count", Type::Int64), field("sum", Type::Int64)];
    Graph {
        version: GRAPH_VERSION,
        scans: vec![scan("build"), scan("probe")],
        streams: Vec::new(),
        fragments: vec![
            Fragment {
                source: Source::Scan(0),
                steps: filter.into_iter().collect(),
                sink: Sink::Build(BuildSide {
                    keys: vec![int(0)],
                    payload: vec![int(0), int(1)],
                }),
                output: columns.clone(),
            },
            Fragment {
                source: Source::Scan(1),
                steps: vec![Step::Probe(Probe {
                    build: 0,
                    kind,
                    keys: vec![int(0)],
                    residual: None,
                    null_equals_null: false,
                    null_aware: false,
                })],
                sink: Sink::Aggregate {
                    groups: Vec::new(),
                    aggregates,
                },
                output: output.clone(),
            },
        ],
        parameters: Vec::new(),
        output,
    }
}

/// The least value that a build row is kept with.
fn least(keys: Keys) -> i64 {
    if keys == Keys::Filtered { 900 } else { 0 }
}

fn key(keys: Keys, number: i64) -> Value {
    Value::Int(match keys {
        Keys::Dense | Keys::Filtered => number.into(),
        _ => number.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64.cast_signed()).into(),
    })
}

/// The rows of both sides; the number of matches and the sum of their values.
fn tables(keys: Keys, build: i64) -> ([Vec<Row>; 2], [i64; 2]) {
    let mut rng = SmallRng::seed_from_u64(7);
    let mut numbers: Vec<i64> = (0..build).collect();
    numbers.shuffle(&mut rng);
    let row = |number: i64| vec![key(keys, number), Value::Int((number % 1000).into())];
    let most = if keys == Keys::Selective { build * 10 } else { build };
    let probe: Vec<i64> = (0..PROBE_ROWS).map(|_| rng.random_range(0..most)).collect();
    let matches = probe
        .iter()
        .filter(|number| **number < build && **number % 1000 >= least(keys));
    let expected = [
        matches.clone().count() as i64,
        matches.map(|number| number % 1000).sum(),
    ];
    let rows = [numbers, probe].map(|numbers| numbers.into_iter().map(row).collect());
    (rows, expected)
}

/// Time that this process's threads have run so far: PoCL's device is the processor, and others' work is not in it.
fn busy_ns() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let times = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    times.sum()
}

/// Nanoseconds per row of the best run.
fn measure(variant: &dyn Variant, keys: Keys, build: i64) -> f64 {
    let graph = Arc::new(graph(keys));
    let layout = Layout {
        segmentation: Segmentation::One,
        dictionary: 0.0,
        wide: 0.0,
        offset: 0.0,
        ..Layout::default()
    };
    let mut rng = SmallRng::seed_from_u64(1);
    let mut scans: Vec<Arc<dyn ScanInput>> = Vec::new();
    let (tables, expected) = tables(keys, build);
    for rows in tables {
        let scan = MemoryScan::new(&graph.scans[0].columns, &rows, &layout, &mut rng).unwrap();
        scans.push(Arc::new(scan));
    }
    let pool: Arc<dyn DevicePool> = Arc::new(CountingPool::new(usize::MAX));
    let once = || {
        let inputs = Inputs {
            scans: scans.clone(),
            streams: Vec::new(),
            parameters: Vec::new(),
            workers: 1,
            pool: Arc::clone(&pool),
            cancelled: Arc::new(AtomicBool::new(false)),
            batch_rows: 8192,
            emit: None,
            wake: None,
        };
        let started = busy_ns();
        let kernel = variant.prepare_many(&graph, &[0, 1], &inputs, &[None, None]).unwrap();
        step_until_done(kernel.as_ref(), 1).unwrap();
        let Output::Many(outputs) = kernel.finish().unwrap() else {
            panic!("one output");
        };
        let rows = match &outputs.last().unwrap().1 {
            Output::Resident(resident) => resident.download().unwrap(),
            Output::Rows(rows) => Arc::clone(rows),
            _ => panic!("no rows"),
        };
        assert_eq!(rows.rows(), 1);
        let found = rows.segments[0].1.iter().map(|column| match &column.values {
            Values::Integers { carrier, base } => base + carrier.get(0),
            other => panic!("{other:?}"),
        });
        assert_eq!(found.collect::<Vec<_>>(), expected, "{keys:?}, {build} rows");
        (busy_ns() - started) as f64 / (PROBE_ROWS as f64 + build as f64)
    };
    once();
    (0..RUNS).map(|_| once()).fold(f64::INFINITY, f64::min)
}

#[test]
#[ignore = "measures"]
fn cost_by_size_of_the_build_side() {
    let mut settings = OpenClSettings::default();
    if std::env::var_os("TRIREME_JOINS_ORDERED").is_some() {
        settings.limits.partition = Partition::On;
    }
    let probed = OpenClBackend::new(settings, Arc::new(FusedVariant::new())).probe();
    let Some(device) = probed.devices.into_iter().next() else {
        println!("skipped: no OpenCL device");
        return;
    };
    let variant = device.variant();
    let (mut worst, mut where_worst) = (0.0_f64, String::new());
    let wanted = std::env::var("TRIREME_JOINS").unwrap_or_default();
    let all = [Keys::Dense, Keys::Filtered, Keys::Sparse, Keys::Selective, Keys::Exists];
    for keys in all {
        if !format!("{keys:?}").contains(&wanted) {
            continue;
        }
        let mut before = None;
        let only = std::env::var("TRIREME_JOINS_POWER")
            .ok()
            .and_then(|power| power.parse().ok());
        let powers = only.map_or(POWERS.to_vec(), |only| vec![only]);
        for power in powers {
            let cost = measure(variant.as_ref(), keys, 1 << power);
            let ratio = before.map_or(1.0, |before: f64| cost / before);
            println!("joins.{keys:?}.2^{power} = {cost:.1} ns/row (×{ratio:.2})");
            if ratio > worst {
                (worst, where_worst) = (ratio, format!("{keys:?}.2^{power}"));
            }
            before = Some(cost);
        }
    }
    let verdict = if worst <= 3.0 { "ok" } else { "short" };
    println!("joins.cliff = {worst:.2} at {where_worst} (target ≤ 3) {verdict}");
}
