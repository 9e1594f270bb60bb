//! Random aggregations: of every function and type, by up to three keys, with filters, of distinct values, in an order.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part")]

use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use trireme_device_api::{
    Aggregate, AggregateFunction, Expr, Fragment, GRAPH_VERSION, Graph, ScanSource, Sink, SortKey, Source, Type, Value,
};
use trireme_device_testkit::generate::{Case, Flavor, Nulls, aggregate_type, all_types, column, field};
use trireme_device_testkit::inputs::Segmentation;
use trireme_device_testkit::interpreter::Data;
use trireme_device_testkit::values::Row;

const FUNCTIONS: [AggregateFunction; 13] = [
    AggregateFunction::Count,
    AggregateFunction::Sum,
    AggregateFunction::Min,
    AggregateFunction::Max,
    AggregateFunction::Average,
    AggregateFunction::VarianceSample,
    AggregateFunction::VariancePopulation,
    AggregateFunction::StddevSample,
    AggregateFunction::StddevPopulation,
    AggregateFunction::BoolAnd,
    AggregateFunction::BoolOr,
    AggregateFunction::First,
    AggregateFunction::Last,
];

/// A table of `types` and one aggregation of it; rows whose first `clustered` values are equal stand together.
fn case(
    name: String,
    columns: &[(Type, Nulls, Flavor)],
    (rows, clustered): (usize, usize),
    sink: Sink,
    seed: u64,
) -> Case {
    let mut rng = SmallRng::seed_from_u64(seed);
    let made: Vec<Vec<Value>> = columns
        .iter()
        .map(|(data_type, nulls, flavor)| column(data_type, rows, *nulls, *flavor, &mut rng))
        .collect();
    let mut table: Vec<Row> = (0..rows)
        .map(|row| made.iter().map(|values| values[row].clone()).collect())
        .collect();
    if clustered > 0 {
        table.sort_by_cached_key(|row| format!("{:?}", &row[..clustered]));
    }
    // The last column orders FIRST and LAST.
    for (row, unique) in table.iter_mut().zip((0..).map(|row| row * 7_919 % 1_000_003)) {
        row[columns.len() - 1] = Value::Int(unique);
    }
    let columns: Vec<(Type, bool)> = columns
        .iter()
        .map(|(data_type, nulls, _)| (data_type.clone(), *nulls != Nulls::None || *data_type == Type::Null))
        .collect();
    over(name, &columns, table, sink, seed)
}

/// An aggregation of rows of columns that may be NULL.
fn over(name: String, columns: &[(Type, bool)], table: Vec<Row>, sink: Sink, seed: u64) -> Case {
    let fields = columns.iter().enumerate().map(|(index, (data_type, nullable))| {
        let mut made = field(&format!("c{index}"), data_type.clone());
        made.nullable = *nullable;
        made
    });
    let Sink::Aggregate { groups, aggregates } = &sink else {
        panic!("an aggregation");
    };
    let types = groups.iter().map(|group| &group.data_type);
    let types = types.chain(aggregates.iter().map(|aggregate| &aggregate.data_type));
    let output: Vec<_> = types
        .enumerate()
        .map(|(index, data_type)| field(&format!("r{index}"), data_type.clone()))
        .collect();
    let graph = Graph {
        version: GRAPH_VERSION,
        scans: vec![ScanSource {
            name: "t".to_owned(),
            columns: fields.collect(),
        }],
        streams: Vec::new(),
        fragments: vec![Fragment {
            source: Source::Scan(0),
            steps: Vec::new(),
            sink,
            output: output.clone(),
        }],
        parameters: Vec::new(),
        output,
    };
    Case {
        name,
        graph: Arc::new(graph),
        data: Data {
            scans: vec![table],
            streams: Vec::new(),
            parameters: Vec::new(),
        },
        segmentation: Segmentation::Random,
        seed,
        alike: false,
    }
}

fn aggregate(function: AggregateFunction, argument: usize, data_type: &Type) -> Option<Aggregate> {
    Some(Aggregate {
        function,
        argument: Some(Expr::column(argument, data_type.clone())),
        distinct: false,
        filter: None,
        order: Vec::new(),
        data_type: aggregate_type(function, data_type)?,
    })
}

fn count_all() -> Aggregate {
    Aggregate {
        function: AggregateFunction::Count,
        argument: None,
        distinct: false,
        filter: None,
        order: Vec::new(),
        data_type: Type::Int64,
    }
}

fn nulls(rng: &mut SmallRng) -> Nulls {
    *[Nulls::None, Nulls::None, Nulls::Some, Nulls::Runs, Nulls::All]
        .choose(rng)
        .unwrap()
}

/// By a column that repeats, perhaps, then by the last one, which doesn't.
fn order(rng: &mut SmallRng, column: usize, columns: &[(Type, Nulls, Flavor)]) -> Vec<SortKey> {
    let mut keys = Vec::new();
    let unique = (columns.len() - 1, Type::Int64);
    let first = (column, columns[column].0.clone());
    for (index, data_type) in [first, unique] {
        if data_type != Type::Null
            && !matches!(data_type, Type::Interval(_))
            && (index == columns.len() - 1 || rng.random_bool(0.5))
        {
            keys.push(SortKey {
                expr: Expr::column(index, data_type),
                descending: rng.random_bool(0.5),
                nulls_first: rng.random_bool(0.5),
            });
        }
    }
    keys
}

/// Up to three keys, up to five aggregates of two arguments, some with a filter or of distinct values.
pub fn random(seed: u64) -> Case {
    let mut rng = SmallRng::seed_from_u64(seed);
    let types = all_types();
    let usual = [
        Type::Int32,
        Type::Int64,
        Type::Utf8,
        Type::Boolean,
        Type::Float64,
        Type::Date32,
    ];
    let mut columns: Vec<(Type, Nulls, Flavor)> = Vec::new();
    let keys = *[0, 0, 1, 1, 1, 2, 2, 3].choose(&mut rng).unwrap();
    for _ in 0..keys {
        let from: &[Type] = if rng.random_bool(0.6) { &usual } else { &types };
        let data_type = from.choose(&mut rng).unwrap().clone();
        columns.push((data_type, nulls(&mut rng), Flavor::draw(&mut rng)));
    }
    let groups = (0..keys)
        .filter(|key| !matches!(columns[*key].0, Type::Null | Type::Interval(_)))
        .map(|key| Expr::column(key, columns[key].0.clone()))
        .collect();
    for _ in 0..2 {
        let data_type = types.choose(&mut rng).unwrap().clone();
        columns.push((data_type, nulls(&mut rng), Flavor::draw(&mut rng)));
    }
    columns.push((Type::Boolean, Nulls::Some, Flavor::Small));
    columns.push((Type::Int64, Nulls::None, Flavor::Small));
    let mut aggregates = Vec::new();
    for _ in 0..rng.random_range(1..6) {
        let argument = keys + rng.random_range(0..2);
        let function = *FUNCTIONS.choose(&mut rng).unwrap();
        let mut made = aggregate(function, argument, &columns[argument].0).unwrap_or_else(count_all);
        let counts = [
            AggregateFunction::Count,
            AggregateFunction::Sum,
            AggregateFunction::Average,
        ];
        made.distinct = made.argument.is_some() && counts.contains(&function) && rng.random_bool(0.3);
        if matches!(function, AggregateFunction::First | AggregateFunction::Last) {
            made.order = order(&mut rng, keys + 1, &columns);
        }
        made.filter = rng.random_bool(0.2).then(|| Expr::column(keys + 2, Type::Boolean));
        aggregates.push(made);
    }
    let rows = *[0, 1, 7, 60, 300].choose(&mut rng).unwrap();
    let sink = Sink::Aggregate { groups, aggregates };
    let clustered = if rng.random_bool(0.4) { keys } else { 0 };
    let name = format!("random aggregates {seed}");
    case(name, &columns, (rows, clustered), sink, seed)
}

/// SUM, AVG and MAX of these values, all in one group where there are groups.
pub fn totals(values: &[i128], data_type: &Type, grouped: bool) -> Vec<Case> {
    let functions = [
        AggregateFunction::Sum,
        AggregateFunction::Average,
        AggregateFunction::Max,
    ];
    let cases = functions.into_iter().filter_map(|function| {
        let groups = grouped.then(|| Expr::column(0, Type::Int32)).into_iter().collect();
        let aggregates = vec![aggregate(function, 1, data_type)?];
        let rows = values.iter().map(|value| vec![Value::Int(7), Value::Int(*value)]);
        let columns = [(Type::Int32, false), (data_type.clone(), false)];
        let sink = Sink::Aggregate { groups, aggregates };
        let name = format!("{function:?} of {values:?}");
        Some(over(name, &columns, rows.collect(), sink, 1))
    });
    cases.collect()
}
