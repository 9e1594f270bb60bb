//! Columns of all types to the device and back, in every layout; runs anew when a table was too small.

use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use trireme_device_api::{
    Carrier, Device, DeviceColumn, DevicePool, Expr, Fragment, Function, GRAPH_VERSION, Graph, JoinKind, Output, Probe,
    ScanSource, Sink, Source, Step, Strings, Type, Value, Values, ZoneMap,
};
use trireme_device_codegen::Host;
use trireme_device_codegen::ir::Elem;
use trireme_device_codegen::shape::{ColumnShape, Storage};
use trireme_device_cpu::FusedVariant;
use trireme_device_testkit::conformance::compare;
use trireme_device_testkit::driver::{Together, run_as, step_until_done};
use trireme_device_testkit::generate::{Flavor, Nulls, all_types, column, field};
use trireme_device_testkit::inputs::{CountingPool, Layout, bind};
use trireme_device_testkit::interpreter::{Data, interpret};
use trireme_device_testkit::values::{Row, value_of};

use super::driver::TestDriver;
use super::kit::{accelerator, count, no_leak};
use crate::accelerator::Limits;
use crate::host::HostEvaluator;
use crate::image::Image;

fn emit() -> Sink {
    Sink::Emit { limit: None, offset: 0 }
}

fn run_data(graph: &Arc<Graph>, data: &Data, seed: u64) {
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
    no_leak(&driver, &device);
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
fn a_narrowed_segment_of_nulls_has_a_value_of_the_range() {
    let column = DeviceColumn {
        data_type: Type::Int64,
        rows: 2,
        values: Values::Integers {
            carrier: Carrier::I16(vec![1_000, 1_100].into()),
            base: 0,
        },
        validity: Some([false, false].into_iter().collect()),
        zone: ZoneMap {
            null_count: 2,
            ..ZoneMap::default()
        },
    };
    let shape = ColumnShape {
        data_type: Type::Int64,
        storage: Storage::Integer(Elem::I8),
        nullable: true,
        range: Some((1_000, 1_100)),
        dictionary: None,
        clustered: false,
    };
    let image = Image::new(&column, &shape).unwrap();
    let mut bytes = [0; 2];
    image.values.unwrap().write(0, &mut bytes);
    let values = bytes.map(|byte| image.base + i64::from(byte.cast_signed()));
    assert!(values.iter().all(|value| (1_000..=1_100).contains(value)), "{values:?}");
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
    let rows: Vec<Row> = (0..400).map(|number| vec![Value::Int(number)]).collect();
    let data = Data {
        scans: vec![rows],
        ..Data::default()
    };
    run_data(&graph, &data, 1);
    let device = accelerator(&TestDriver::new(16 << 20), Limits::default());
    let retries = || {
        let pool: Arc<dyn DevicePool> = Arc::new(CountingPool::new(usize::MAX));
        let mut rng = SmallRng::seed_from_u64(1);
        let inputs = bind(&graph, &data, &Layout::default(), &pool, &mut rng).unwrap();
        let kernel = device
            .variant()
            .prepare_many(&graph, &[0, 1], &inputs, &[None, None])
            .unwrap();
        step_until_done(kernel.as_ref(), 1).unwrap();
        let Output::Many(outputs) = kernel.finish().unwrap() else {
            panic!("one output of many fragments");
        };
        let [(1, Output::Rows(rows))] = outputs.as_slice() else {
            panic!("only the last fragment's rows are read");
        };
        assert_eq!(rows.rows(), 160_000);
        let reports = kernel.reports();
        assert_eq!(reports[1].1.output_rows, Some(160_000));
        reports.iter().map(|(_, report)| report.retries).sum::<u32>()
    };
    assert!(retries() > 0);
    assert_eq!(retries(), 0, "what was found out is known");
}

#[test]
fn the_host_evaluates_entries_in_order_and_once() {
    let texts: Vec<String> = (0..70_000).map(|number| format!("entry {number}")).collect();
    let strings = Strings::from_values(texts.iter().map(|text| text.as_bytes()));
    let entries = DeviceColumn {
        data_type: Type::Utf8,
        rows: texts.len(),
        values: Values::Strings(strings),
        validity: None,
        zone: ZoneMap::default(),
    };
    let host = HostEvaluator::new(Arc::new(FusedVariant::new()));
    let length = Expr::call(
        Function::CharacterLength,
        vec![Expr::column(0, Type::Utf8)],
        Type::Int32,
    );
    let first = host.evaluate(&length, &entries, &[]).unwrap();
    for (row, text) in texts.iter().enumerate() {
        let expected = Value::Int(text.len() as i128);
        assert_eq!(value_of(&first, row).unwrap(), expected, "{row}");
    }
    let again = host.evaluate(&length, &entries, &[]).unwrap();
    let address = |column: &DeviceColumn| match &column.values {
        Values::Integers {
            carrier: Carrier::I8(values),
            ..
        } => Some(values.as_ptr()),
        _ => None,
    };
    assert_eq!(address(&first), address(&again));
    assert!(address(&first).is_some());
}
