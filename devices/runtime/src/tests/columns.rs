//! Columns of all types to the device and back, in every layout; runs anew when a table was too small.

use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use trireme_device_api::{
    Device, DevicePool, Expr, Fragment, GRAPH_VERSION, Graph, JoinKind, Probe, ScanSource, Sink, Source, Step, Type,
};
use trireme_device_testkit::conformance::compare;
use trireme_device_testkit::driver::{Together, run_as};
use trireme_device_testkit::generate::{Flavor, Nulls, all_types, column, field};
use trireme_device_testkit::inputs::{CountingPool, Layout, bind};
use trireme_device_testkit::interpreter::{Data, interpret};
use trireme_device_testkit::values::Row;

use super::driver::TestDriver;
use super::kit::{accelerator, count};
use crate::accelerator::Limits;

fn emit() -> Sink {
    Sink::Emit { limit: None, offset: 0 }
}

fn run_data(graph: &Arc<Graph>, data: &Data, seed: u64) -> u32 {
    let driver = TestDriver::new(16 << 20);
    let device = accelerator(&driver, Limits::default());
    let mut rng = SmallRng::seed_from_u64(seed);
    let pool = Arc::new(CountingPool::new(usize::MAX));
    let shared: Arc<dyn DevicePool> = Arc::<CountingPool>::clone(&pool);
    let inputs = bind(graph, data, &Layout::default(), &shared, &mut rng).unwrap();
    let together = if rng.random_bool(0.5) {
        Together::All
    } else {
        Together::No
    };
    let actual = run_as(device.variant().as_ref(), graph, inputs, 2, together).unwrap();
    let expected = interpret(graph, data).unwrap();
    compare(graph, &data.parameters, &expected, &actual).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    pool.check().unwrap();
    let launches = u32::try_from(device.vitals().launches).unwrap();
    device.trim();
    assert_eq!(driver.machine.lock().allocated(), (0, 0));
    launches
}

#[test]
fn columns_of_all_types_come_back() {
    let types: Vec<_> = all_types()
        .into_iter()
        .filter(|data_type| !matches!(data_type, Type::Interval(_)))
        .collect();
    let flavors = [Flavor::Small, Flavor::Wide, Flavor::Extreme, Flavor::Sorted];
    for seed in 0..count(12) as u64 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let rows = [0, 1, 7, 8, 9, 65, 300][rng.random_range(0..7)];
        let fields: Vec<_> = types.iter().map(|data_type| field("c", data_type.clone())).collect();
        let columns: Vec<_> = types
            .iter()
            .map(|data_type| {
                let nulls = Nulls::ALL[rng.random_range(0..4)];
                let flavor = flavors[rng.random_range(0..4)];
                column(data_type, rows, nulls, flavor, &mut rng)
            })
            .collect();
        let table: Vec<Row> = (0..rows)
            .map(|row| columns.iter().map(|column| column[row].clone()).collect())
            .collect();
        let from = |source: Source| Fragment {
            source,
            steps: Vec::new(),
            sink: emit(),
            output: fields.clone(),
        };
        // The second passes on what lies in the device's memory.
        let graph = Arc::new(Graph {
            version: GRAPH_VERSION,
            fragments: vec![from(Source::Scan(0)), from(Source::Fragment(0))],
            scans: vec![ScanSource {
                name: "t".to_owned(),
                columns: fields.clone(),
            }],
            streams: Vec::new(),
            parameters: Vec::new(),
            output: fields.clone(),
        });
        let data = Data {
            scans: vec![table],
            ..Data::default()
        };
        run_data(&graph, &data, seed);
    }
}

#[test]
fn a_run_whose_output_was_too_small_runs_anew() {
    // 400 rows, each of which matches all of 400: more than anyone guesses.
    let fields = vec![field("number", Type::Int64)];
    let number = Expr::column(0, Type::Int64);
    let build = Fragment {
        source: Source::Scan(0),
        steps: Vec::new(),
        sink: Sink::Build(trireme_device_api::BuildSide {
            keys: Vec::new(),
            payload: vec![number],
        }),
        output: fields.clone(),
    };
    let output = vec![fields[0].clone(), fields[0].clone()];
    let probe = Fragment {
        source: Source::Scan(0),
        steps: vec![Step::Probe(Probe {
            build: 0,
            kind: JoinKind::Inner,
            keys: Vec::new(),
            residual: None,
            null_equals_null: false,
            null_aware: false,
        })],
        sink: emit(),
        output: output.clone(),
    };
    let graph = Arc::new(Graph {
        version: GRAPH_VERSION,
        fragments: vec![build, probe],
        scans: vec![ScanSource {
            name: "t".to_owned(),
            columns: fields,
        }],
        streams: Vec::new(),
        parameters: Vec::new(),
        output,
    });
    let rows: Vec<Row> = (0..400)
        .map(|number| vec![trireme_device_api::Value::Int(number)])
        .collect();
    let data = Data {
        scans: vec![rows],
        ..Data::default()
    };
    println!("{} launches", run_data(&graph, &data, 1));
}
