//! Leading filters that are tests of source columns: random conjunctions over carriers of all widths, dictionaries, NULLs and
//! pairs of columns, that keep no row, few, most or all, before each kind of sink.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use trireme_device_api::{
    Aggregate, AggregateFunction, BinaryOperator, BuildSide, Expr, Field, Fragment, GRAPH_VERSION, Graph, JoinKind,
    Node, Probe, ScanSource, Sink, Source, Step, Type, Value,
};
use trireme_device_cpu::FusedVariant;
use trireme_device_testkit::conformance::check_all;
use trireme_device_testkit::generate::{Case, field};
use trireme_device_testkit::inputs::Segmentation;
use trireme_device_testkit::interpreter::Data;
use trireme_device_testkit::values::{Row, text};

const WIDE: Type = Type::Decimal {
    precision: 38,
    scale: 2,
};
const COLUMNS: [(&str, Type); 6] = [
    ("day", Type::Date32),
    ("other day", Type::Date32),
    ("number", Type::Int64),
    ("other number", Type::Int64),
    ("amount", WIDE),
    ("mode", Type::Utf8),
];
const MODES: [&str; 9] = [
    "AIR",
    "FOB",
    "MAIL",
    "RAIL",
    "REG AIR",
    "SHIP",
    "TRUCK",
    "",
    "a mode that is long",
];

fn column(index: usize) -> Expr {
    Expr::column(index, COLUMNS[index].1.clone())
}

fn boolean(op: BinaryOperator, left: Expr, right: Expr) -> Expr {
    Expr::binary(op, left, right, Type::Boolean)
}

/// Numbers of a column lie in `0..span`, the smallest of them at this one.
fn least(index: usize) -> i128 {
    [8000, 8000, -5, 1 << 40, 1 << 70, 0][index]
}

fn constant(index: usize, span: i128, rng: &mut SmallRng) -> Expr {
    let value = match COLUMNS[index].1 {
        Type::Utf8 => text(MODES[rng.random_range(0..MODES.len())]),
        _ => Value::Int(least(index) + rng.random_range(-2..span + 2)),
    };
    Expr::literal(value, COLUMNS[index].1.clone())
}

fn conjunct(span: i128, rng: &mut SmallRng) -> Expr {
    use BinaryOperator::{Distinct, Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual, Or};
    let operator = [Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual, Distinct][rng.random_range(0..7)];
    match rng.random_range(0..10) {
        0..=3 => {
            let at = rng.random_range(0..COLUMNS.len());
            boolean(operator, column(at), constant(at, span, rng))
        }
        4 => boolean(operator, column(0), column(1)),
        5 => boolean(operator, column(2), column(3)),
        6 | 7 => {
            let at = rng.random_range(0..COLUMNS.len());
            let list = (0..rng.random_range(1..6)).map(|_| constant(at, span, rng)).collect();
            let node = Node::InList {
                expr: Box::new(column(at)),
                list,
                negated: rng.random_bool(0.5),
            };
            Expr {
                node,
                data_type: Type::Boolean,
            }
        }
        8 => boolean(Or, conjunct(span, rng), conjunct(span, rng)),
        _ => {
            let node = Node::Like {
                expr: Box::new(column(5)),
                pattern: Box::new(Expr::literal(text("%AI%"), Type::Utf8)),
                negated: rng.random_bool(0.5),
                case_insensitive: false,
            };
            Expr {
                node,
                data_type: Type::Boolean,
            }
        }
    }
}

fn aggregate(function: AggregateFunction, argument: Option<Expr>, data_type: Type) -> Aggregate {
    Aggregate {
        function,
        argument,
        distinct: false,
        filter: None,
        order: Vec::new(),
        data_type,
    }
}

/// The sink, and the fields it gives.
fn sink(kind: usize) -> (Sink, Vec<Field>) {
    let fields = || COLUMNS.iter().map(|(name, kind)| field(name, kind.clone()));
    if kind == 0 {
        let sink = Sink::Emit { limit: None, offset: 0 };
        return (sink, fields().collect());
    }
    let groups = [&[][..], &[5], &[2, 5]][kind - 1];
    let mut output: Vec<Field> = groups.iter().map(|group| fields().nth(*group).unwrap()).collect();
    output.push(field("count", Type::Int64));
    output.push(field("sum", Type::Int64));
    let aggregates = vec![
        aggregate(AggregateFunction::Count, None, Type::Int64),
        aggregate(AggregateFunction::Sum, Some(column(3)), Type::Int64),
    ];
    let groups = groups.iter().map(|group| column(*group)).collect();
    (Sink::Aggregate { groups, aggregates }, output)
}

/// Filters, perhaps a join with some days, and a sink.
fn graph(filters: Vec<Expr>, probe: bool, kind: usize) -> Graph {
    let (sink, output) = sink(kind);
    let days = Fragment {
        source: Source::Scan(1),
        steps: Vec::new(),
        sink: Sink::Build(BuildSide {
            keys: vec![Expr::column(0, Type::Date32)],
            payload: Vec::new(),
        }),
        output: Vec::new(),
    };
    let mut steps: Vec<Step> = filters.into_iter().map(Step::Filter).collect();
    if probe {
        steps.push(Step::Probe(Probe {
            build: 0,
            kind: JoinKind::Semi,
            keys: vec![column(0)],
            residual: None,
            null_equals_null: false,
            null_aware: false,
        }));
    }
    let all = Fragment {
        source: Source::Scan(0),
        steps,
        sink,
        output: output.clone(),
    };
    let scan = |name: &str, columns: Vec<Field>| ScanSource {
        name: name.to_owned(),
        columns,
    };
    let fields = COLUMNS.iter().map(|(name, kind)| field(name, kind.clone())).collect();
    Graph {
        version: GRAPH_VERSION,
        fragments: vec![days, all],
        scans: vec![scan("rows", fields), scan("days", vec![field("day", Type::Date32)])],
        streams: Vec::new(),
        parameters: Vec::new(),
        output,
    }
}

fn data(rows: usize, span: i128, nulls: f64, rng: &mut SmallRng) -> Data {
    let mut value = |index: usize| match COLUMNS[index].1 {
        _ if rng.random_bool(nulls) => Value::Null,
        Type::Utf8 => text(MODES[rng.random_range(0..MODES.len())]),
        _ => Value::Int(least(index) + rng.random_range(0..span)),
    };
    let rows = (0..rows).map(|_| -> Row { (0..COLUMNS.len()).map(&mut value).collect() });
    let rows = rows.collect();
    let days = (0..span)
        .step_by(2)
        .map(|day| vec![Value::Int(least(0) + day)])
        .collect();
    Data {
        scans: vec![rows, days],
        ..Data::default()
    }
}

#[test]
fn conjunctions_keep_the_rows_that_they_are_true_for() {
    let seed = std::env::var("SEED").map_or(20_261_123, |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut cases = Vec::new();
    for number in 0..50 {
        let span = [3, 100, 20_000][rng.random_range(0..3)];
        let rows = [0, 1, 63, 64, 65, 700, 2048, 2500][rng.random_range(0..8)];
        let nulls = [0.0, 0.0, 0.1, 1.0][rng.random_range(0..4)];
        let filters: Vec<Expr> = (0..rng.random_range(1..5)).map(|_| conjunct(span, &mut rng)).collect();
        let probe = rng.random_bool(0.3);
        cases.push(Case {
            name: format!("case {number}: {rows} rows, {span} values, {nulls} NULL"),
            graph: Arc::new(graph(filters, probe, rng.random_range(0..4))),
            data: data(rows, span, nulls, &mut rng),
            segmentation: [Segmentation::One, Segmentation::Of(1000), Segmentation::Random][rng.random_range(0..3)],
            seed: seed + number,
            alike: false,
        });
    }
    for name in FusedVariant::instructions() {
        let variant = FusedVariant::with_instructions(name).unwrap();
        let summary = check_all(&variant, cases.iter().cloned()).unwrap();
        assert_eq!(summary.rows, cases.len(), "{summary}");
    }
}
