//! Groups by strings of a build side, which are found by their build rows: rows that differ in one column only, equal rows,
//! NULLs, numbers that many rows share, and so many rows that the result is made in parts.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use trireme_device_api::{
    Aggregate, AggregateFunction, BuildSide, Expr, Field, Fragment, GRAPH_VERSION, Graph, JoinKind, Probe, ScanSource,
    Sink, Source, Step, Type, Value,
};
use trireme_device_cpu::FusedVariant;
use trireme_device_testkit::conformance::check_all;
use trireme_device_testkit::generate::{Case, field};
use trireme_device_testkit::inputs::Segmentation;
use trireme_device_testkit::interpreter::Data;
use trireme_device_testkit::values::{Row, text};

/// (id, number, name, note, weight) joined by id with (id, day).
const COLUMNS: [(&str, Type); 5] = [
    ("id", Type::Int64),
    ("number", Type::Int64),
    ("name", Type::Utf8),
    ("note", Type::Utf8),
    ("weight", Type::Float64),
];

fn build_column(index: usize) -> Expr {
    // After the two columns of the probing table.
    Expr::column(2 + index, COLUMNS[index].1.clone())
}

fn count(data_type: &Type) -> Aggregate {
    Aggregate {
        function: AggregateFunction::Count,
        argument: None,
        distinct: false,
        filter: None,
        order: Vec::new(),
        data_type: data_type.clone(),
    }
}

/// `groups` of the build side's columns, and the probing table's day if `day`.
fn graph(groups: &[usize], day: bool, kind: JoinKind) -> Graph {
    let fields: Vec<Field> = COLUMNS.iter().map(|(name, kind)| field(name, kind.clone())).collect();
    let probing = vec![field("id", Type::Int64), field("day", Type::Int64)];
    let payload = (0..COLUMNS.len())
        .map(|index| Expr::column(index, COLUMNS[index].1.clone()))
        .collect();
    let build = Fragment {
        source: Source::Scan(0),
        steps: Vec::new(),
        sink: Sink::Build(BuildSide {
            keys: vec![Expr::column(0, Type::Int64)],
            payload,
        }),
        output: fields.clone(),
    };
    let mut by: Vec<Expr> = groups.iter().map(|index| build_column(*index)).collect();
    let mut output: Vec<Field> = groups.iter().map(|index| fields[*index].clone()).collect();
    if day {
        by.insert(1, Expr::column(1, Type::Int64));
        output.insert(1, probing[1].clone());
    }
    output.push(field("count", Type::Int64));
    let all = Fragment {
        source: Source::Scan(1),
        steps: vec![Step::Probe(Probe {
            build: 0,
            kind,
            keys: vec![Expr::column(0, Type::Int64)],
            residual: None,
            null_equals_null: false,
            null_aware: false,
        })],
        sink: Sink::Aggregate {
            groups: by,
            aggregates: vec![count(&Type::Int64)],
        },
        output: output.clone(),
    };
    let scan = |name: &str, columns: Vec<Field>| ScanSource {
        name: name.to_owned(),
        columns,
    };
    Graph {
        version: GRAPH_VERSION,
        fragments: vec![build, all],
        scans: vec![scan("build", fields), scan("probe", probing)],
        streams: Vec::new(),
        parameters: Vec::new(),
        output,
    }
}

/// One of so few values, or none.
fn few(values: i128, rng: &mut SmallRng) -> Option<i128> {
    let value = rng.random_range(0..=values);
    (value > 0).then_some(value)
}

fn build_row(id: usize, rng: &mut SmallRng) -> Row {
    let name = |value: Option<i128>| value.map_or(Value::Null, |value| text(&format!("a long name, number {value}")));
    let weights = [
        Value::Float(0.0),
        Value::Float(-0.0),
        Value::Float(f64::NAN),
        Value::Null,
    ];
    vec![
        Value::Int(i128::try_from(id / 2).unwrap()),
        few(20, rng).map_or(Value::Null, Value::Int),
        name(few(3, rng)),
        name(few(2, rng)),
        weights[rng.random_range(0..4)].clone(),
    ]
}

/// So many build rows, and probing rows that meet them.
fn data(build: usize, probing: usize, rng: &mut SmallRng) -> Data {
    let rows = (0..build).map(|id| build_row(id, rng)).collect();
    let mut met = || {
        let id = rng.random_range(0..build / 2 + 3);
        vec![
            Value::Int(i128::try_from(id).unwrap()),
            Value::Int(rng.random_range(0..2)),
        ]
    };
    let probing = (0..probing).map(|_| met()).collect();
    Data {
        scans: vec![rows, probing],
        ..Data::default()
    }
}

#[test]
fn rows_with_equal_columns_are_one_group() {
    let seed = 20_261_122;
    println!("seed {seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut cases = Vec::new();
    let mut case = |groups: &[usize], day: bool, kind: JoinKind, build: usize, probing: usize| {
        cases.push(Case {
            name: format!("by {groups:?}, day {day}, {kind:?}, {build} build rows"),
            graph: Arc::new(graph(groups, day, kind)),
            data: data(build, probing, &mut rng),
            segmentation: Segmentation::One,
            seed,
            alike: false,
        });
    };
    for groups in [&[2][..], &[1, 2], &[2, 3], &[0, 2, 3], &[3, 1, 2, 4], &[4, 2]] {
        for day in [false, true] {
            case(groups, day, JoinKind::Inner, 120, 300);
        }
        case(groups, true, JoinKind::Left, 60, 100);
        case(groups, false, JoinKind::BuildOuter, 60, 100);
    }
    case(&[1, 2, 3], false, JoinKind::Inner, 9000, 400);
    for name in FusedVariant::instructions() {
        let variant = FusedVariant::with_instructions(name).unwrap();
        let summary = check_all(&variant, cases.iter().cloned()).unwrap();
        assert_eq!(summary.rows, cases.len(), "{summary}");
    }
}
