//! Random aggregations on the OpenCL device that is there; and what grouping costs by the number of groups, on the OpenCL device that is there: for who changes group tables.
//!
//! `cargo test --release -p trireme-device-opencl --test groups -- --ignored --nocapture` prints a line per number of groups
//! and kind of key: nanoseconds of the processor's time per row, of the best of a few runs, with all that the host does. The
//! ratio from line to line is what counts. `TRIREME_GROUPS_ORDERED` puts rows in order of their hashes first,
//! `TRIREME_GROUPS_POWER=22` takes 2^22 rows, `TRIREME_GROUPS_MIN` leaves out fewer groups, `TRIREME_GROUPS_RUN=4` puts so many
//! rows of a key together.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "../../sim/tests/kit/aggregates.rs"]
mod aggregates;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use aggregates::random;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use trireme_device_api::{
    Aggregate, AggregateFunction, Backend, DevicePool, Expr, Fragment, GRAPH_VERSION, Graph, Inputs, Output, ScanInput,
    ScanSource, Sink, Source, Type, Value, Variant,
};
use trireme_device_cpu::FusedVariant;
use trireme_device_opencl::{OpenClBackend, OpenClSettings};
use trireme_device_runtime::Partition;
use trireme_device_testkit::conformance::check_all;
use trireme_device_testkit::driver::{run, step_until_done};
use trireme_device_testkit::generate::field;
use trireme_device_testkit::inputs::{CountingPool, Layout, MemoryScan, Segmentation};
use trireme_device_testkit::values::{Row, text};

/// Rows that are measured, unless `TRIREME_GROUPS_POWER` says 2^that.
const POWER: u64 = 20;
const RUNS: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Keys {
    /// Without groups.
    None,
    /// 0, 1, 2, …
    Dense,
    /// Anywhere in 64 bits.
    Sparse,
    /// Strings that are no codes.
    Texts,
}

fn graph(key: Option<&Type>) -> Graph {
    let aggregate = |function, argument: Option<usize>| Aggregate {
        function,
        argument: argument.map(|argument| Expr::column(argument, Type::Int64)),
        distinct: false,
        filter: None,
        order: Vec::new(),
        data_type: Type::Int64,
    };
    let aggregates = vec![
        aggregate(AggregateFunction::Count, None),
        aggregate(AggregateFunction::Sum, Some(1)),
        aggregate(AggregateFunction::Max, Some(1)),
    ];
    let groups: Vec<Expr> = key.map(|key| Expr::column(0, key.clone())).into_iter().collect();
    let types = groups.iter().map(|group| &group.data_type);
    let types = types.chain(aggregates.iter().map(|aggregate| &aggregate.data_type));
    let output: Vec<_> = types.map(|data_type| field("r", data_type.clone())).collect();
    let mut columns = [key.unwrap_or(&Type::Int64), &Type::Int64].map(|data_type| field("c", data_type.clone()));
    columns.iter_mut().for_each(|column| column.nullable = false);
    Graph {
        version: GRAPH_VERSION,
        scans: vec![ScanSource {
            name: "t".to_owned(),
            columns: columns.to_vec(),
        }],
        streams: Vec::new(),
        fragments: vec![Fragment {
            source: Source::Scan(0),
            steps: Vec::new(),
            sink: Sink::Aggregate { groups, aggregates },
            output: output.clone(),
        }],
        parameters: Vec::new(),
        output,
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn row_count() -> usize {
    1 << number("TRIREME_GROUPS_POWER", POWER)
}

fn rows(keys: Keys, groups: i64) -> Vec<Row> {
    let mut rng = SmallRng::seed_from_u64(7);
    let run = usize::try_from(number("TRIREME_GROUPS_RUN", 1)).unwrap();
    let mut drawn = 0;
    (0..row_count())
        .map(|row| {
            if row % run == 0 {
                drawn = rng.random_range(0..groups);
            }
            vec![key(keys, drawn), Value::Int(rng.random_range(0..10_000))]
        })
        .collect()
}

fn key(keys: Keys, number: i64) -> Value {
    match keys {
        Keys::None | Keys::Dense => Value::Int(number.into()),
        Keys::Sparse => Value::Int(number.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64.cast_signed()).into()),
        Keys::Texts => text(&format!("key number {number}")),
    }
}

fn scan(graph: &Graph, rows: &[Row]) -> Arc<dyn ScanInput> {
    let layout = Layout {
        segmentation: Segmentation::One,
        dictionary: 0.0,
        wide: 0.0,
        offset: 0.0,
        ..Layout::default()
    };
    let mut rng = SmallRng::seed_from_u64(1);
    Arc::new(MemoryScan::new(&graph.scans[0].columns, rows, &layout, &mut rng).unwrap())
}

fn inputs(scan: &Arc<dyn ScanInput>) -> Inputs {
    let pool: Arc<dyn DevicePool> = Arc::new(CountingPool::new(usize::MAX));
    Inputs {
        scans: vec![Arc::clone(scan)],
        streams: Vec::new(),
        parameters: Vec::new(),
        workers: 1,
        pool,
        cancelled: Arc::new(AtomicBool::new(false)),
        batch_rows: 8192,
        emit: None,
        wake: None,
    }
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
fn measure(variant: &dyn Variant, keys: Keys, groups: i64) -> f64 {
    let key = match keys {
        Keys::None => None,
        Keys::Dense | Keys::Sparse => Some(Type::Int64),
        Keys::Texts => Some(Type::Utf8),
    };
    let graph = Arc::new(graph(key.as_ref()));
    let scan = scan(&graph, &rows(keys, groups));
    let once = || {
        let inputs = inputs(&scan);
        let started = busy_ns();
        let kernel = variant.prepare(&graph, 0, &inputs, &[None]).unwrap();
        step_until_done(kernel.as_ref(), 1).unwrap();
        let rows = match kernel.finish().unwrap() {
            Output::Resident(resident) => resident.download().unwrap(),
            Output::Rows(rows) => rows,
            _ => panic!("no rows"),
        };
        assert!(rows.rows() > 0);
        (busy_ns() - started) as f64 / row_count() as f64
    };
    once();
    (0..RUNS).map(|_| once()).fold(f64::INFINITY, f64::min)
}

/// More groups than a first guess has room for: the fragment runs again with a larger table.
#[test]
fn more_groups_than_expected() {
    let probed = OpenClBackend::new(OpenClSettings::default(), Arc::new(FusedVariant::new())).probe();
    let Some(device) = probed.devices.into_iter().next() else {
        assert!(std::env::var("TRIREME_REQUIRE_OPENCL").is_err(), "no OpenCL device");
        return;
    };
    for (keys, data_type, count) in [(Keys::Sparse, Type::Int64, 520_000), (Keys::Texts, Type::Utf8, 300_000)] {
        let graph = Arc::new(graph(Some(&data_type)));
        let rows: Vec<Row> = (0..count).map(|row| vec![key(keys, row), Value::Int(1)]).collect();
        let scan = scan(&graph, &rows);
        let inputs = inputs(&scan);
        let found = run(device.variant().as_ref(), &graph, inputs, 1).unwrap();
        assert_eq!(found.len(), rows.len(), "{keys:?}");
        assert!(
            found
                .iter()
                .all(|row| row[1..] == [Value::Int(1), Value::Int(1), Value::Int(1)])
        );
    }
}

/// A table is made for as many groups as an earlier run had; when the same graph has more, it runs again, with the same answer.
#[test]
fn more_groups_than_last_time() {
    let probed = OpenClBackend::new(OpenClSettings::default(), Arc::new(FusedVariant::new())).probe();
    let Some(device) = probed.devices.into_iter().next() else {
        assert!(std::env::var("TRIREME_REQUIRE_OPENCL").is_err(), "no OpenCL device");
        return;
    };
    let graph = Arc::new(graph(Some(&Type::Int64)));
    // Both span the same values, so that they are the same kernels.
    let scan_of = |groups: i64| {
        let rows = (0..300_000).map(|row| vec![key(Keys::Sparse, row % groups * (140_000 / groups)), Value::Int(1)]);
        scan(&graph, &rows.collect::<Vec<Row>>())
    };
    for groups in [10, 140_000, 10] {
        let found = run(device.variant().as_ref(), &graph, inputs(&scan_of(groups)), 1).unwrap();
        assert_eq!(found.len(), usize::try_from(groups).unwrap());
        let rows: i128 = found
            .iter()
            .map(|row| if let Value::Int(rows) = row[1] { rows } else { 0 })
            .sum();
        assert_eq!(rows, 300_000, "{groups} groups");
    }
}

/// Rows in order of their keys' hashes, and as they come: the same groups.
#[test]
fn groups_of_rows_in_order_of_hashes() {
    let probe = |partition: Partition| {
        let mut settings = OpenClSettings::default();
        settings.limits.partition = partition;
        settings.arena_bytes_max = Some(256 << 20);
        let probed = OpenClBackend::new(settings, Arc::new(FusedVariant::new())).probe();
        probed.devices.into_iter().next()
    };
    let (Some(ordered), Some(unordered)) = (probe(Partition::On), probe(Partition::Off)) else {
        assert!(std::env::var("TRIREME_REQUIRE_OPENCL").is_err(), "no OpenCL device");
        return;
    };
    for (keys, data_type) in [(Keys::Sparse, Type::Int64), (Keys::Texts, Type::Utf8)] {
        let graph = Arc::new(graph(Some(&data_type)));
        let rows: Vec<Row> = (0..30_000)
            .map(|row| vec![key(keys, row % 20_000), Value::Int(row.into())])
            .collect();
        let scan = scan(&graph, &rows);
        let [with, without] = [&ordered, &unordered].map(|device| {
            let before = device.vitals().launches;
            let mut found = run(device.variant().as_ref(), &graph, inputs(&scan), 1).unwrap();
            found.sort_by_key(|row| format!("{row:?}"));
            (found, device.vitals().launches - before)
        });
        assert_eq!(with.0.len(), 20_000, "{keys:?}");
        assert!(with.0 == without.0, "{keys:?}: other groups");
        assert_eq!(with.1, without.1 + 2, "{keys:?}: rows are not put in order");
    }
}

/// As many cases as fit into `TRIREME_CONFORMANCE_SECONDS` (10); `TRIREME_CONFORMANCE_SEED` is the first one's.
#[test]
fn random_aggregates() {
    let probed = OpenClBackend::new(OpenClSettings::default(), Arc::new(FusedVariant::new())).probe();
    let Some(device) = probed.devices.into_iter().next() else {
        assert!(std::env::var("TRIREME_REQUIRE_OPENCL").is_err(), "no OpenCL device");
        println!("skipped: no OpenCL device");
        return;
    };
    let (started, variant) = (Instant::now(), device.variant());
    let most = Duration::from_secs(number("TRIREME_CONFORMANCE_SECONDS", 10));
    let mut cases = 0;
    for seed in number("TRIREME_CONFORMANCE_SEED", 1).. {
        if started.elapsed() > most {
            break;
        }
        check_all(variant.as_ref(), [random(seed)]).unwrap_or_else(|mismatch| panic!("{mismatch}"));
        cases += 1;
    }
    println!("{cases} cases");
}

#[test]
#[ignore = "measures"]
fn cost_by_number_of_groups() {
    let mut settings = OpenClSettings::default();
    if std::env::var_os("TRIREME_GROUPS_ORDERED").is_some() {
        settings.limits.partition = Partition::On;
    }
    let probed = OpenClBackend::new(settings, Arc::new(FusedVariant::new())).probe();
    let Some(device) = probed.devices.into_iter().next() else {
        println!("skipped: no OpenCL device");
        return;
    };
    let variant = device.variant();
    let nothing = measure(variant.as_ref(), Keys::None, 1);
    println!("groups.none = {nothing:.1} ns/row");
    let least = i64::try_from(number("TRIREME_GROUPS_MIN", 1)).unwrap();
    for keys in [Keys::Dense, Keys::Sparse, Keys::Texts] {
        let mut before = None;
        let most = if keys == Keys::Texts { 100_000 } else { 1_000_000 };
        for groups in [1, 4, 16, 100, 1_000, 10_000, 100_000, 1_000_000] {
            if groups > most || groups < least {
                continue;
            }
            let cost = measure(variant.as_ref(), keys, groups);
            let ratio = before.map_or(1.0, |before: f64| cost / before);
            println!("groups.{keys:?}.{groups} = {cost:.1} ns/row (×{ratio:.2})");
            before = Some(cost);
        }
    }
}
