//! How fast simple fragments run on the device that is there, by group and items: to choose what `Target` says of it.
//!
//! Asked for by name only: it takes minutes and proves nothing.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests fail by panicking; numbers are cut on purpose"
)]

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use trireme_device_api::{
    Aggregate, AggregateFunction, Backend, BinaryOperator, DevicePool, Expr, Field, Fragment, GRAPH_VERSION, Graph,
    Node, ScanSource, Sink, Source, Step, Type, Unlimited, Value,
};
use trireme_device_cpu::FusedVariant;
use trireme_device_opencl::{OpenClBackend, OpenClSettings};
use trireme_device_testkit::driver::step_until_done;
use trireme_device_testkit::inputs::{Layout, Segmentation, bind};
use trireme_device_testkit::interpreter::Data;

const ROWS: i128 = 1_000_000;

fn column(index: usize) -> Expr {
    Expr {
        node: Node::Column(index),
        data_type: Type::Int64,
    }
}

fn binary(op: BinaryOperator, left: Expr, right: Expr, data_type: Type) -> Expr {
    Expr {
        node: Node::Binary {
            op,
            left: Box::new(left),
            right: Box::new(right),
        },
        data_type,
    }
}

fn sum(argument: Expr) -> Aggregate {
    Aggregate {
        function: AggregateFunction::Sum,
        argument: Some(argument),
        distinct: false,
        filter: None,
        order: Vec::new(),
        data_type: Type::Int64,
    }
}

fn field(name: &str) -> Field {
    Field {
        name: name.to_owned(),
        data_type: Type::Int64,
        nullable: false,
    }
}

/// sum(a · b), sum(a) of rows with a < 800,000 in groups by `groups`.
fn graph(groups: Vec<Expr>) -> Arc<Graph> {
    let literal = Expr {
        node: Node::Literal(Value::Int(800_000)),
        data_type: Type::Int64,
    };
    let product = binary(BinaryOperator::Multiply, column(1), column(2), Type::Int64);
    let output: Vec<_> = (0..groups.len() + 2).map(|i| field(&format!("o{i}"))).collect();
    Arc::new(Graph {
        version: GRAPH_VERSION,
        fragments: vec![Fragment {
            source: Source::Scan(0),
            steps: vec![Step::Filter(binary(
                BinaryOperator::Less,
                column(0),
                literal,
                Type::Boolean,
            ))],
            sink: Sink::Aggregate {
                groups,
                aggregates: vec![sum(product), sum(column(0))],
            },
            output: output.clone(),
        }],
        scans: vec![ScanSource {
            name: "t".to_owned(),
            columns: ["a", "b", "c", "d"].map(field).to_vec(),
        }],
        streams: Vec::new(),
        parameters: Vec::new(),
        output,
    })
}

#[test]
#[ignore = "it takes minutes and proves nothing"]
fn fragments_by_group_and_items() {
    let rows = (0..ROWS).map(|row| {
        let chance = row * 7_919 % ROWS;
        vec![
            Value::Int(chance),
            Value::Int(row % 1000),
            Value::Int(row % 77),
            Value::Int(chance % 50_000),
        ]
    });
    let data = Data {
        scans: vec![rows.collect()],
        streams: Vec::new(),
        parameters: Vec::new(),
    };
    let pool: Arc<dyn DevicePool> = Arc::new(Unlimited);
    for (name, groups) in [
        ("ungrouped", vec![]),
        ("77 groups", vec![column(2)]),
        ("50,000 groups", vec![column(3)]),
    ] {
        let graph = graph(groups);
        let layout = Layout {
            segmentation: Segmentation::One,
            ..Layout::default()
        };
        let mut rng = SmallRng::seed_from_u64(1);
        let inputs = bind(&graph, &data, &layout, &pool, &mut rng).expect("bound");
        for (group, items) in [
            (8, 256),
            (16, 64),
            (16, 256),
            (16, 1024),
            (32, 256),
            (64, 64),
            (256, 16),
        ] {
            let settings = OpenClSettings {
                arena_bytes_max: Some(256 << 20),
                group: Some(group),
                items: Some(items),
                ..OpenClSettings::default()
            };
            let probed = OpenClBackend::new(settings, Arc::new(FusedVariant::new())).probe();
            let Some(device) = probed.devices.first() else { return };
            let variant = device.variant();
            let mut least = u64::MAX;
            for _ in 0..6 {
                let kernel = variant.prepare(&graph, 0, &inputs, &[None]).expect("prepared");
                step_until_done(kernel.as_ref(), 1).expect("done");
                drop(kernel.finish().expect("finished"));
                let took: u64 = kernel.reports().iter().map(|(_, report)| report.kernel_ns).sum();
                least = least.min(took);
            }
            println!("{name}: group {group} items {items}: {} µs", least / 1000);
        }
    }
}
