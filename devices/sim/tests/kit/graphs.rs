//! Graphs that tests of faults run: a join with groups and a sort, and random ones.

use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use trireme_device_api::{
    Aggregate, AggregateFunction, BinaryOperator, BuildSide, Expr, Fragment, GRAPH_VERSION, Graph, JoinKind, Probe,
    ScanSource, Sink, SortKey, Source, Step, Type, Value,
};
use trireme_device_testkit::generate::{Case, field};
use trireme_device_testkit::inputs::Segmentation;
use trireme_device_testkit::interpreter::Data;
use trireme_device_testkit::values::text;

fn column(index: usize, data_type: &Type) -> Expr {
    Expr::column(index, data_type.clone())
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

fn ascending(index: usize, data_type: &Type) -> SortKey {
    SortKey {
        expr: column(index, data_type),
        descending: false,
        nulls_first: false,
    }
}

/// Customers' names, built by their ids.
fn build() -> Fragment {
    Fragment {
        source: Source::Scan(0),
        steps: Vec::new(),
        sink: Sink::Build(BuildSide {
            keys: vec![column(0, &Type::Int32)],
            payload: vec![column(1, &Type::Utf8)],
        }),
        output: vec![field("name", Type::Utf8)],
    }
}

/// What each name bought.
fn group() -> Fragment {
    let amount = || column(1, &Type::Int64);
    let over = Expr::literal(Value::Int(10), Type::Int64);
    Fragment {
        source: Source::Scan(1),
        steps: vec![
            Step::Filter(Expr::binary(BinaryOperator::Greater, amount(), over, Type::Boolean)),
            Step::Probe(Probe {
                build: 0,
                kind: JoinKind::Inner,
                keys: vec![column(0, &Type::Int32)],
                residual: None,
                null_equals_null: false,
                null_aware: false,
            }),
        ],
        sink: Sink::Aggregate {
            groups: vec![column(2, &Type::Utf8)],
            aggregates: vec![
                aggregate(AggregateFunction::Sum, Some(amount()), Type::Int64),
                aggregate(AggregateFunction::Count, None, Type::Int64),
            ],
        },
        output: vec![
            field("name", Type::Utf8),
            field("total", Type::Int64),
            field("count", Type::Int64),
        ],
    }
}

/// Names of customers, sums of what they bought, sorted: three fragments, two of which read earlier ones.
pub fn join_group_sort(seed: u64, customers: usize, orders: usize) -> Case {
    let mut rng = SmallRng::seed_from_u64(seed);
    let group = group();
    let sort = Fragment {
        source: Source::Fragment(1),
        steps: Vec::new(),
        sink: Sink::Sort {
            keys: vec![ascending(1, &Type::Int64), ascending(0, &Type::Utf8)],
            limit: None,
            offset: 0,
        },
        output: group.output.clone(),
    };
    let customer = |id: usize| vec![Value::Int(id as i128), text(&format!("customer {}", id % 17))];
    let order = |_| {
        let id = rng.random_range(0..customers * 2);
        let amount = rng.random_range(0..1_000_000);
        let id = if amount % 11 == 0 {
            Value::Null
        } else {
            Value::Int(id as i128)
        };
        vec![id, Value::Int(amount)]
    };
    let scan = |name: &str, columns| ScanSource {
        name: name.to_owned(),
        columns,
    };
    Case {
        name: format!("join, group, sort of {orders} rows"),
        data: Data {
            scans: vec![(0..customers).map(customer).collect(), (0..orders).map(order).collect()],
            ..Data::default()
        },
        graph: Arc::new(Graph {
            version: GRAPH_VERSION,
            output: sort.output.clone(),
            fragments: vec![build(), group, sort],
            scans: vec![
                scan("customers", vec![field("id", Type::Int32), field("name", Type::Utf8)]),
                scan(
                    "orders",
                    vec![field("customer", Type::Int32), field("amount", Type::Int64)],
                ),
            ],
            streams: Vec::new(),
            parameters: Vec::new(),
        }),
        segmentation: Segmentation::Random,
        seed,
        alike: false,
    }
}
