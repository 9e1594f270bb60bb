//! Joins that multiply their rows ten thousand times: each step does a bounded part of them and hands out a bounded number of
//! batches, whatever a morsel matches, so that other queries' steps come in between.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use trireme_device_api::{
    BinaryOperator, BuildSide, Emit, Expr, Field, Fragment, GRAPH_VERSION, Graph, Inputs, JoinKind, Kernel, Output,
    Probe, Progress, ScanSource, Sink, Source, Step, Type, Unlimited, Value, Variant,
};
use trireme_device_cpu::FusedVariant;
use trireme_device_testkit::inputs::{Layout, MemoryScan, Segmentation};

const PROBE_ROWS: usize = 40;
const BUILD_ROWS: usize = 10_000;

fn field(name: &str) -> Field {
    Field {
        name: name.to_owned(),
        data_type: Type::Int64,
        nullable: true,
    }
}

fn column(index: usize) -> Expr {
    Expr::column(index, Type::Int64)
}

/// (one, id) of the probe side meets all of (one, id) of the build side `joins` times, where `residual` says so.
fn graph(joins: usize, residual: Option<&Expr>) -> Arc<Graph> {
    let columns = vec![field("one"), field("id")];
    let build = Fragment {
        source: Source::Scan(0),
        steps: Vec::new(),
        sink: Sink::Build(BuildSide {
            keys: vec![column(0)],
            payload: vec![column(1)],
        }),
        output: vec![field("id")],
    };
    let probe = Step::Probe(Probe {
        build: 0,
        kind: JoinKind::Inner,
        keys: vec![column(0)],
        residual: residual.cloned(),
        null_equals_null: false,
        null_aware: false,
    });
    let output: Vec<_> = (0..2 + joins).map(|index| field(&format!("c{index}"))).collect();
    let all = Fragment {
        source: Source::Scan(1),
        steps: vec![probe; joins],
        sink: Sink::Emit { limit: None, offset: 0 },
        output: output.clone(),
    };
    let table = |name: &str| ScanSource {
        name: name.to_owned(),
        columns: columns.clone(),
    };
    Arc::new(Graph {
        version: GRAPH_VERSION,
        fragments: vec![build, all],
        scans: vec![table("b"), table("p")],
        streams: Vec::new(),
        parameters: Vec::new(),
        output,
    })
}

/// A client that takes so many batches before it is behind, until it is asked for more.
struct Client {
    room: AtomicUsize,
    batches: Mutex<Vec<RecordBatch>>,
}

impl Emit for Client {
    fn ready(&self) -> bool {
        self.batches.lock().unwrap().len() < self.room.load(Ordering::SeqCst)
    }

    fn push(&self, batch: RecordBatch) {
        self.batches.lock().unwrap().push(batch);
    }
}

/// The kernel of the probing fragment, after the build.
fn probing(variant: &FusedVariant, graph: &Arc<Graph>, emit: Arc<dyn Emit>) -> (Arc<dyn Kernel>, Vec<Arc<dyn Kernel>>) {
    let mut rng = SmallRng::seed_from_u64(7);
    let layout = Layout {
        segmentation: Segmentation::One,
        ..Layout::default()
    };
    let mut scan = |rows: usize| {
        let rows: Vec<_> = (0..rows)
            .map(|id| vec![Value::Int(1), Value::Int(i128::try_from(id).unwrap())])
            .collect();
        let scan = MemoryScan::new(&graph.scans[0].columns, &rows, &layout, &mut rng).unwrap();
        Arc::new(scan) as _
    };
    let inputs = Inputs {
        scans: vec![scan(BUILD_ROWS), scan(PROBE_ROWS)],
        streams: Vec::new(),
        parameters: Vec::new(),
        workers: 1,
        pool: Arc::new(Unlimited),
        cancelled: Arc::default(),
        batch_rows: 1024,
        emit: Some(emit),
        wake: None,
    };
    let mut outputs: Vec<Option<Output>> = vec![None, None];
    let build = variant.prepare(graph, 0, &inputs, &outputs).unwrap();
    while build.step(0).unwrap() != Progress::Done {}
    outputs[0] = Some(build.finish().unwrap());
    (variant.prepare(graph, 1, &inputs, &outputs).unwrap(), vec![build])
}

#[test]
fn a_step_makes_a_bounded_number_of_pairs() {
    const STEP_PAIRS: usize = 20_000;
    // One of 10⁴ pairs passes; the others take their time all the same.
    let passes = Expr::binary(BinaryOperator::Equal, column(1), column(2), Type::Boolean);
    for (residual, rows) in [(None, PROBE_ROWS * BUILD_ROWS), (Some(&passes), PROBE_ROWS)] {
        let client = Arc::new(Client {
            room: AtomicUsize::new(usize::MAX),
            batches: Mutex::default(),
        });
        let variant = FusedVariant::new().with_step_pairs(STEP_PAIRS);
        let (kernel, _build) = probing(&variant, &graph(1, residual), Arc::clone(&client) as _);
        let mut steps = 0;
        while kernel.step(0).unwrap() != Progress::Done {
            steps += 1;
            assert!(steps < 1000, "it goes on for ever");
        }
        kernel.finish().unwrap();
        let found: usize = client.batches.lock().unwrap().iter().map(RecordBatch::num_rows).sum();
        assert_eq!(found, rows);
        // Between the two, another query's kernel has its turn so often.
        let least = PROBE_ROWS * BUILD_ROWS / (2 * STEP_PAIRS);
        assert!(steps >= least, "{steps} steps for {} pairs", PROBE_ROWS * BUILD_ROWS);
    }
}

#[test]
fn a_client_that_is_behind_holds_few_batches() {
    // 4 · 10⁹ rows: they can't all be made.
    let client = Arc::new(Client {
        room: AtomicUsize::new(4),
        batches: Mutex::default(),
    });
    let (kernel, _build) = probing(&FusedVariant::new(), &graph(2, None), Arc::clone(&client) as _);
    let mut seen = 0;
    for _ in 0..50 {
        let progress = kernel.step(0).unwrap();
        let held = client.batches.lock().unwrap().len();
        // A piece of 2048 pairs may fill two batches more than there is room for.
        assert!(held <= 4 + 2, "{held} batches wait for the client");
        if progress == Progress::Waiting {
            assert!(held >= 4, "it waits for a client that waits for it");
            for batch in client.batches.lock().unwrap().drain(..) {
                let rows = batch.num_rows();
                seen += rows;
            }
        }
    }
    assert!(seen > 20_000, "only {seen} rows came");
}
