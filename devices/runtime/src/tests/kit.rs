//! Graphs and tables for tests of the executor.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use trireme_device_api::{
    Aggregate, AggregateFunction, BinaryOperator, ColumnProfile, DeviceColumn, DeviceError, DevicePool, Expr, Field,
    Fragment, GRAPH_VERSION, Graph, Inputs, ScanInput, ScanSource, Sink, Source, Step, Type, Value, Variant, ZoneMap,
};
use trireme_device_cpu::FusedVariant;
use trireme_device_testkit::generate::{aggregate_type, field};
use trireme_device_testkit::inputs::{CountingPool, Layout, MemoryScan, Segmentation};
use trireme_device_testkit::interpreter::{Answer, Data, interpret};
use trireme_device_testkit::values::Row;

use super::driver::TestDriver;
use crate::accelerator::{Accelerator, Limits};
use crate::driver::Driver;

pub(crate) fn accelerator(driver: &Arc<TestDriver>, limits: Limits) -> Accelerator {
    let driver: Arc<dyn Driver> = Arc::<TestDriver>::clone(driver);
    let host: Arc<dyn Variant> = Arc::new(FusedVariant::new());
    Accelerator::new(driver, host, limits).unwrap()
}

/// That nothing is left, once the device's threads are done with what was dropped.
pub(crate) fn no_leak(driver: &TestDriver, device: &Accelerator) {
    let began = Instant::now();
    loop {
        device.trim();
        let left = driver.machine.lock().allocated();
        if left == (0, 0) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{left:?} are left");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// `TRIREME_CASES` or so many.
pub(crate) fn count(cases: usize) -> usize {
    let asked = std::env::var("TRIREME_CASES").ok();
    asked.and_then(|asked| asked.parse().ok()).unwrap_or(cases)
}

/// Columns number, kind (of a few values), text.
pub(crate) fn fields() -> Vec<Field> {
    vec![
        field("number", Type::Int64),
        field("kind", Type::Int32),
        field("text", Type::Utf8),
    ]
}

pub(crate) fn rows(count: usize, kinds: i128, rng: &mut SmallRng) -> Vec<Row> {
    let mut row = |number: usize| {
        let text = format!("text {}", number % 97);
        vec![
            match rng.random_bool(0.1) {
                true => Value::Null,
                false => Value::Int(rng.random_range(-5_000..100_000)),
            },
            Value::Int(rng.random_range(0..kinds)),
            Value::Bytes(text.as_bytes().into()),
        ]
    };
    (0..count).map(&mut row).collect()
}

fn graph(steps: Vec<Step>, sink: Sink, output: Vec<Field>) -> Arc<Graph> {
    Arc::new(Graph {
        version: GRAPH_VERSION,
        fragments: vec![Fragment {
            source: Source::Scan(0),
            steps,
            sink,
            output: output.clone(),
        }],
        scans: vec![ScanSource {
            name: "t".to_owned(),
            columns: fields(),
        }],
        streams: Vec::new(),
        parameters: Vec::new(),
        output,
    })
}

fn positive() -> Step {
    let zero = Expr::literal(Value::Int(0), Type::Int64);
    let number = Expr::column(0, Type::Int64);
    Step::Filter(Expr::binary(BinaryOperator::Greater, number, zero, Type::Boolean))
}

/// Sum, largest and count of the positive numbers of each kind.
pub(crate) fn grouping() -> Arc<Graph> {
    aggregating(vec![Expr::column(1, Type::Int32)])
}

/// Sum, largest and count of all positive numbers.
pub(crate) fn summing() -> Arc<Graph> {
    aggregating(Vec::new())
}

fn aggregating(groups: Vec<Expr>) -> Arc<Graph> {
    let number = Expr::column(0, Type::Int64);
    let aggregate = |function| Aggregate {
        function,
        argument: Some(number.clone()),
        distinct: false,
        filter: None,
        order: Vec::new(),
        data_type: aggregate_type(function, &Type::Int64).unwrap(),
    };
    let functions = [AggregateFunction::Sum, AggregateFunction::Max, AggregateFunction::Count];
    let aggregates: Vec<_> = functions.into_iter().map(aggregate).collect();
    let mut output: Vec<_> = groups.iter().map(|_| field("kind", Type::Int32)).collect();
    output.extend(
        aggregates
            .iter()
            .map(|aggregate| field("a", aggregate.data_type.clone())),
    );
    graph(vec![positive()], Sink::Aggregate { groups, aggregates }, output)
}

/// The rows with a positive number.
pub(crate) fn emitting() -> Arc<Graph> {
    graph(vec![positive()], Sink::Emit { limit: None, offset: 0 }, fields())
}

/// As [`grouping`], in two fragments, without the texts: what handles point to stays on the device.
pub(crate) fn filtered_then_grouped() -> Arc<Graph> {
    let columns = vec![Expr::column(0, Type::Int64), Expr::column(1, Type::Int32)];
    let steps = vec![positive(), Step::Project(columns)];
    let first = graph(steps, Sink::Emit { limit: None, offset: 0 }, fields()[..2].to_vec());
    let second = grouping();
    let mut graph = Graph::clone(&second);
    graph.fragments = vec![first.fragments[0].clone(), second.fragments[0].clone()];
    graph.fragments[1].source = Source::Fragment(0);
    Arc::new(graph)
}

/// A table whose content has names.
pub(crate) struct Named {
    scan: MemoryScan,
    first: u64,
    pub(crate) loads: AtomicUsize,
}

impl Named {
    /// In segments of `segment` rows; `number` is unique among tables.
    pub(crate) fn new(rows: &[Row], segment: usize, number: u64) -> Arc<Self> {
        let layout = Layout {
            segmentation: Segmentation::Of(segment),
            dictionary: 0.0,
            ..Layout::default()
        };
        let mut rng = SmallRng::seed_from_u64(number);
        Arc::new(Self {
            scan: MemoryScan::new(&fields(), rows, &layout, &mut rng).unwrap(),
            first: number << 32,
            loads: AtomicUsize::new(0),
        })
    }
}

impl ScanInput for Named {
    fn columns(&self) -> &[ColumnProfile] {
        self.scan.columns()
    }

    fn segments(&self) -> usize {
        self.scan.segments()
    }

    fn rows(&self, segment: usize) -> usize {
        self.scan.rows(segment)
    }

    fn zone(&self, segment: usize, column: usize) -> Option<ZoneMap> {
        self.scan.zone(segment, column)
    }

    fn identity(&self, segment: usize, column: usize) -> Option<u64> {
        Some(self.first + (segment * 16 + column) as u64)
    }

    fn load(&self, segment: usize, column: usize) -> Result<Arc<DeviceColumn>, DeviceError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        self.scan.load(segment, column)
    }
}

pub(crate) fn inputs(scan: &Arc<Named>, pool: &Arc<CountingPool>) -> Inputs {
    Inputs {
        scans: vec![Arc::<Named>::clone(scan)],
        streams: Vec::new(),
        parameters: Vec::new(),
        workers: 2,
        pool: Arc::<CountingPool>::clone(pool) as Arc<dyn DevicePool>,
        cancelled: Arc::default(),
        batch_rows: 100,
        emit: None,
        wake: None,
    }
}

pub(crate) fn expected(graph: &Graph, rows: &[Row]) -> Answer {
    let data = Data {
        scans: vec![rows.to_vec()],
        ..Data::default()
    };
    interpret(graph, &data).unwrap()
}
