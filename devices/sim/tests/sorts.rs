//! Sorted and emitted rows of random tables against the naive interpreter of graphs, under drawn schedules: keys of every
//! type, ties, NULLs, limits and offsets; by selection, by one group and by samples, over scans and over resident rows.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panics")]

mod kit;

use std::sync::Arc;

use kit::{Fresh, number};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use trireme_device_api::{
    BinaryOperator, Device, DevicePool, Expr, Field, Fragment, GRAPH_VERSION, Graph, ScanSource, Sink, SortKey, Source,
    Step, Type, Value, Variant,
};
use trireme_device_cpu::FusedVariant;
use trireme_device_runtime::Limits;
use trireme_device_sim::{Script, device};
use trireme_device_testkit::conformance::{check_all, compare};
use trireme_device_testkit::driver::{Together, run_as};
use trireme_device_testkit::generate::{Case, Flavor, Nulls, all_types, column, field};
use trireme_device_testkit::inputs::{CountingPool, Layout, Segmentation, bind};
use trireme_device_testkit::interpreter::{Data, interpret};

fn limits(rng: &mut SmallRng) -> (Option<usize>, usize) {
    let limit = match rng.random_range(0..4) {
        0 => None,
        1 => Some(rng.random_range(0..12)),
        2 => Some(rng.random_range(1..60)),
        _ => Some(rng.random_range(1..2_000)),
    };
    let offset = if rng.random_bool(0.3) {
        rng.random_range(0..20)
    } else {
        0
    };
    (limit, offset)
}

fn sort(rng: &mut SmallRng, columns: &[Type], limit: Option<usize>, offset: usize) -> Sink {
    let keys = (0..rng.random_range(1..4)).map(|_| {
        let index = rng.random_range(0..columns.len());
        SortKey {
            expr: Expr::column(index, columns[index].clone()),
            descending: rng.random_bool(0.5),
            nulls_first: rng.random_bool(0.5),
        }
    });
    Sink::Sort {
        keys: keys.collect(),
        limit,
        offset,
    }
}

/// Columns of drawn types, the last Int32, and their values.
fn table(rng: &mut SmallRng, rows: usize) -> (Vec<Type>, Vec<Vec<Value>>) {
    let mut types = all_types();
    types.retain(|data_type| !matches!(data_type, Type::Interval(_)));
    let mut columns: Vec<Type> = (0..rng.random_range(1..4))
        .map(|_| types.choose(rng).unwrap().clone())
        .collect();
    columns.push(Type::Int32);
    let flavors = [
        Flavor::Wide,
        Flavor::Small,
        Flavor::Skewed,
        Flavor::Sorted,
        Flavor::Extreme,
    ];
    let values = columns.iter().map(|data_type| {
        let nulls = *Nulls::ALL.choose(rng).unwrap();
        column(data_type, rows, nulls, *flavors.choose(rng).unwrap(), rng)
    });
    let values = values.collect();
    (columns, values)
}

/// One or two fragments that keep all columns: a filter perhaps, then a sort or an emit, the last with limits.
fn fragments(rng: &mut SmallRng, columns: &[Type], fields: &[Field]) -> Vec<Fragment> {
    let mut steps = Vec::new();
    if rng.random_bool(0.4) {
        let key = Expr::column(columns.len() - 1, Type::Int32);
        let bound = Expr::literal(Value::Int(rng.random_range(-50..50)), Type::Int32);
        steps.push(Step::Filter(Expr::binary(
            BinaryOperator::Less,
            key,
            bound,
            Type::Boolean,
        )));
    }
    let (limit, offset) = limits(rng);
    let mut fragments = Vec::new();
    let mut add = |source, steps, sink| {
        fragments.push(Fragment {
            source,
            steps,
            sink,
            output: fields.to_vec(),
        });
    };
    let mut source = Source::Scan(0);
    if rng.random_bool(0.4) {
        let sink = if rng.random_bool(0.5) {
            Sink::Emit { limit: None, offset: 0 }
        } else {
            sort(rng, columns, None, 0)
        };
        add(source, std::mem::take(&mut steps), sink);
        source = Source::Fragment(0);
    }
    let sink = if rng.random_bool(0.2) {
        Sink::Emit { limit, offset }
    } else {
        sort(rng, columns, limit, offset)
    };
    add(source, steps, sink);
    fragments
}

fn case(seed: u64, rows: &[usize]) -> Case {
    let mut rng = SmallRng::seed_from_u64(seed);
    let rows = *rows.choose(&mut rng).unwrap();
    let (columns, values) = table(&mut rng, rows);
    let named = columns.iter().enumerate();
    let fields: Vec<_> = named
        .map(|(index, data_type)| field(&format!("c{index}"), data_type.clone()))
        .collect();
    let rows = (0..rows).map(|row| values.iter().map(|column| column[row].clone()).collect());
    Case {
        name: format!("sort {seed}"),
        data: Data {
            scans: vec![rows.collect()],
            ..Data::default()
        },
        graph: Arc::new(Graph {
            version: GRAPH_VERSION,
            fragments: fragments(&mut rng, &columns, &fields),
            scans: vec![ScanSource {
                name: "table".to_owned(),
                columns: fields.clone(),
            }],
            streams: Vec::new(),
            parameters: Vec::new(),
            output: fields,
        }),
        segmentation: Segmentation::Random,
        seed,
        alike: false,
    }
}

fn checked(script: Script, rows: &[usize], seed: u64, cases: u64) {
    let variant = Fresh::new(script);
    let summary = check_all(&variant, (seed..seed + cases).map(|seed| case(seed, rows))).unwrap();
    println!("seed {seed}, {} launches: {summary}", variant.launches());
    assert!(summary.rows * 2 > summary.cases, "{summary}");
    // Each launch is under a schedule of its own.
    assert!(variant.launches() >= 100, "{} launches", variant.launches());
}

fn script(group: u32, local_bytes: u32) -> Script {
    Script {
        memory_bytes: 16 << 20,
        group,
        local_bytes,
        texts: std::env::var_os("TRIREME_SORT_TEXTS").map(Into::into),
        ..Script::default()
    }
}

#[test]
fn sorts_of_few_rows() {
    let cases = number("TRIREME_SORT_CASES", 150);
    let rows = [0, 1, 2, 7, 33, 100, 200];
    checked(script(8, 4 << 10), &rows, number("TRIREME_SORT_SEED", 1), cases);
}

#[test]
fn sorts_by_samples() {
    let cases = number("TRIREME_SORT_CASES", 25);
    let rows = [300, 500, 900];
    checked(script(16, 2 << 10), &rows, number("TRIREME_SORT_SEED", 1_000), cases);
}

/// A table that comes in several chunks: what kernels leave after one, they go on with in the next.
#[test]
fn sorts_of_chunks() {
    let rows = 1_000;
    let mut rng = SmallRng::seed_from_u64(1);
    let columns = [Type::Int64, Type::Int64, Type::Int64];
    let mut case = case(1, &[1]);
    for (limit, sorted) in [(Some(5), true), (None, true), (Some(7), false)] {
        let values: Vec<Vec<Value>> = columns
            .iter()
            .map(|data_type| column(data_type, rows, Nulls::Some, Flavor::Wide, &mut rng))
            .collect();
        let fields: Vec<_> = (0..columns.len())
            .map(|index| field(&format!("c{index}"), Type::Int64))
            .collect();
        let sink = if sorted {
            sort(&mut rng, &columns, limit, 2)
        } else {
            Sink::Emit { limit, offset: 2 }
        };
        case.data.scans = vec![
            (0..rows)
                .map(|row| values.iter().map(|column| column[row].clone()).collect())
                .collect(),
        ];
        case.graph = Arc::new(Graph {
            fragments: vec![Fragment {
                source: Source::Scan(0),
                steps: Vec::new(),
                sink,
                output: fields.clone(),
            }],
            scans: vec![ScanSource {
                name: "table".to_owned(),
                columns: fields.clone(),
            }],
            output: fields,
            ..(*case.graph).clone()
        });
        chunked(&case);
    }
}

fn chunked(case: &Case) {
    let expected = interpret(&case.graph, &case.data).unwrap();
    let host: Arc<dyn Variant> = Arc::new(FusedVariant::new());
    for chunk_bytes in [1, 3_000, 8_000] {
        let limits = Limits {
            chunk_bytes: Some(chunk_bytes),
            ..Limits::default()
        };
        let (_, device) = device(&script(8, 4 << 10), 0, &host, limits).unwrap();
        let layout = Layout {
            segmentation: Segmentation::Of(60),
            ..Layout::default()
        };
        let pool: Arc<dyn DevicePool> = Arc::new(CountingPool::new(usize::MAX));
        let mut rng = SmallRng::seed_from_u64(chunk_bytes);
        let inputs = bind(&case.graph, &case.data, &layout, &pool, &mut rng).unwrap();
        let rows = run_as(device.variant().as_ref(), &case.graph, inputs, 1, Together::All).unwrap();
        compare(&case.graph, &[], &expected, &rows).unwrap();
        let launches = device.vitals().launches;
        assert!(launches > 3, "{launches} launches: no chunks");
    }
}
