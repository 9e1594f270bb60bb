//! Aggregates and sorts of every type; all sinks at the sizes where something ends.

use std::collections::HashSet;

use trireme_device_api::{
    Aggregate, AggregateFunction, BinaryOperator, BuildSide, Expr, JoinKind, Probe, Sink, SortKey, Step, Type, Value,
};

use super::{EMIT, Extent, Pipeline, Table, Take, case};
use crate::conformance::{Mismatch, type_name};
use crate::generate::{Case, Flavor, Nulls, aggregate_type, all_types};
use crate::inputs::Segmentation;
use crate::values::Key;

const FUNCTIONS: [AggregateFunction; 11] = [
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
];

/// Sizes where vectors, tiles and morsels end, and some beyond.
const SIZES: [usize; 12] = [0, 1, 31, 32, 33, 2_047, 2_048, 2_049, 32_767, 32_768, 32_769, 70_000];

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

/// All functions of column 1, of one type.
fn all_of(argument: &Type) -> Vec<Aggregate> {
    let mut aggregates = vec![count_all()];
    for function in FUNCTIONS {
        let Some(data_type) = aggregate_type(function, argument) else {
            continue;
        };
        let plain = Aggregate {
            function,
            argument: Some(Expr::column(1, argument.clone())),
            data_type,
            ..count_all()
        };
        if matches!(
            function,
            AggregateFunction::Count | AggregateFunction::Sum | AggregateFunction::Average
        ) {
            aggregates.push(Aggregate {
                distinct: true,
                ..plain.clone()
            });
        }
        let positive = Expr::column(2, Type::Boolean);
        aggregates.push(Aggregate {
            filter: Some(positive),
            ..plain.clone()
        });
        aggregates.push(plain);
    }
    aggregates
}

/// First and last of column 1 by column 3.
fn ends_of(argument: &Type) -> Vec<Aggregate> {
    let mut aggregates = Vec::new();
    for function in [AggregateFunction::First, AggregateFunction::Last] {
        for descending in [false, true] {
            let key = SortKey {
                expr: Expr::column(3, Type::Int64),
                descending,
                nulls_first: true,
            };
            aggregates.push(Aggregate {
                function,
                argument: Some(Expr::column(1, argument.clone())),
                order: vec![key],
                data_type: argument.clone(),
                ..count_all()
            });
        }
    }
    aggregates
}

/// A table of (group, argument, boolean, unique integer), aggregated.
fn aggregate_case(
    group: Option<&Type>,
    aggregates: Vec<Aggregate>,
    argument: &Type,
    (nulls, flavor, rows): (Nulls, Flavor, usize),
    seed: u64,
) -> Case {
    let columns = [
        (
            group.cloned().unwrap_or(Type::Int8),
            Nulls::Some,
            if flavor == Flavor::Extreme {
                Flavor::Small
            } else {
                flavor
            },
        ),
        (argument.clone(), nulls, flavor),
        (Type::Boolean, Nulls::Some, Flavor::Small),
        (Type::Int64, Nulls::None, Flavor::Small),
    ];
    let mut table = Table::new(&columns, rows, seed);
    for (row, unique) in table.rows.iter_mut().zip((0..).map(|row| row * 7_919 % 1_000_003)) {
        row[3] = Value::Int(unique);
    }
    let groups: Vec<Expr> = group.map(|group| Expr::column(0, group.clone())).into_iter().collect();
    let output = groups.iter().map(|group| group.data_type.clone());
    let output = output
        .chain(aggregates.iter().map(|aggregate| aggregate.data_type.clone()))
        .collect();
    let name = format!(
        "aggregates of {} by {} ({nulls:?}, {flavor:?}, {rows} rows)",
        type_name(argument),
        group.map_or("nothing".to_owned(), type_name)
    );
    let pipeline = Pipeline {
        table,
        steps: Vec::new(),
        sink: Sink::Aggregate { groups, aggregates },
        output,
    };
    case(name, Segmentation::Random, seed, vec![pipeline])
}

/// The aggregates that don't fail for the data together, each of the others by itself.
fn apart(whole: &Case, take: &mut Take<'_>) -> Result<(), Box<Mismatch>> {
    let fails = |case: &Case| crate::interpreter::interpret(&case.graph, &case.data).is_err();
    let Some(Sink::Aggregate { groups, aggregates }) = whole.graph.fragments.first().map(|only| &only.sink) else {
        return Ok(());
    };
    if !fails(whole) {
        return take(whole.clone());
    }
    let of = |kept: &[usize]| {
        let mut graph = trireme_device_api::Graph::clone(&whole.graph);
        let fragment = &mut graph.fragments[0];
        fragment.sink = Sink::Aggregate {
            groups: groups.clone(),
            aggregates: kept.iter().map(|index| aggregates[*index].clone()).collect(),
        };
        let outputs = (0..groups.len()).chain(kept.iter().map(|index| groups.len() + index));
        fragment.output = outputs.map(|output| fragment.output[output].clone()).collect();
        graph.output.clone_from(&fragment.output);
        Case {
            graph: graph.into(),
            ..whole.clone()
        }
    };
    let (failing, sound): (Vec<usize>, Vec<usize>) = (0..aggregates.len()).partition(|index| fails(&of(&[*index])));
    if !sound.is_empty() {
        take(of(&sound))?;
    }
    failing.iter().try_for_each(|index| take(of(&[*index])))
}

/// Every aggregate of every type, ungrouped and by keys of several types; groups of every type.
pub(super) fn aggregates(extent: Extent, take: &mut Take<'_>) -> Result<(), Box<Mismatch>> {
    let mut seed = 50_000;
    for argument in all_types() {
        for group in [None, Some(Type::Int8), Some(Type::Utf8), Some(Type::Int64)] {
            for nulls in Nulls::ALL {
                let quick = match nulls {
                    Nulls::Some => !matches!(group, Some(Type::Int8)),
                    Nulls::All => group.is_none(),
                    _ => false,
                };
                if extent == Extent::Quick && !quick {
                    continue;
                }
                for (flavor, rows) in [
                    (Flavor::Small, 0),
                    (Flavor::Small, 1),
                    (Flavor::Small, 90),
                    (Flavor::Wide, 90),
                    (Flavor::Extreme, 20),
                ] {
                    if extent == Extent::Quick && (rows == 1 || (rows == 0 && group.is_some())) {
                        continue;
                    }
                    seed += 1;
                    let how = (nulls, flavor, rows);
                    apart(
                        &aggregate_case(group.as_ref(), all_of(&argument), &argument, how, seed),
                        take,
                    )?;
                    take(aggregate_case(group.as_ref(), ends_of(&argument), &argument, how, seed))?;
                }
            }
        }
    }
    for group in all_types() {
        if matches!(group, Type::Interval(_) | Type::Null) {
            continue;
        }
        for (flavor, rows) in [(Flavor::Small, 100), (Flavor::Wide, 500), (Flavor::Sorted, 3_000)] {
            seed += 1;
            if extent == Extent::Quick && rows > 500 {
                continue;
            }
            let argument = Type::Decimal {
                precision: 15,
                scale: 2,
            };
            let how = (Nulls::Some, flavor, rows);
            apart(
                &aggregate_case(Some(&group), all_of(&argument), &argument, how, seed),
                take,
            )?;
        }
    }
    Ok(())
}

/// Every type of sort key, NULL pattern, direction and size; top-k.
pub(super) fn sorts(extent: Extent, take: &mut Take<'_>) -> Result<(), Box<Mismatch>> {
    let mut seed = 60_000_u64;
    let sizes = if extent == Extent::Full {
        &SIZES[..8]
    } else {
        &[0, 33, 300][..]
    };
    for data_type in all_types() {
        if matches!(data_type, Type::Interval(_) | Type::Null) {
            continue;
        }
        for (nulls, rows) in Nulls::ALL
            .into_iter()
            .flat_map(|nulls| sizes.iter().map(move |rows| (nulls, *rows)))
        {
            if extent == Extent::Quick && nulls == Nulls::Runs {
                continue;
            }
            for (descending, nulls_first) in [(false, false), (false, true), (true, false), (true, true)] {
                seed += 1;
                let flavor =
                    [Flavor::Wide, Flavor::Small, Flavor::Skewed][usize::try_from(seed % 3).unwrap_or_default()];
                let columns = [
                    (data_type.clone(), nulls, flavor),
                    (Type::Int32, Nulls::None, Flavor::Wide),
                ];
                let key = |column: usize| SortKey {
                    expr: Expr::column(column, columns[column].0.clone()),
                    descending,
                    nulls_first,
                };
                let limit = [None, Some(10), Some(2_000), None][usize::try_from(seed % 4).unwrap_or_default()];
                let keys = if seed.is_multiple_of(2) {
                    vec![key(0)]
                } else {
                    vec![key(0), key(1)]
                };
                let sink = Sink::Sort {
                    keys,
                    limit,
                    offset: if limit.is_some() { 3 } else { 0 },
                };
                let name = format!("sort of {rows} {} ({nulls:?}, {flavor:?})", type_name(&data_type));
                let pipeline = Pipeline {
                    table: Table::new(&columns, rows, seed),
                    steps: Vec::new(),
                    sink,
                    output: vec![data_type.clone(), Type::Int32],
                };
                take(case(name, Segmentation::Random, seed, vec![pipeline]))?;
            }
        }
    }
    Ok(())
}

/// Pipelines of a filter and each sink over tables of each size, cut in several ways.
pub(super) fn sizes(extent: Extent, take: &mut Take<'_>) -> Result<(), Box<Mismatch>> {
    let mut seed = 70_000;
    for rows in SIZES {
        for segmentation in [Segmentation::One, Segmentation::Of(rows / 3 + 1), Segmentation::Random] {
            if extent == Extent::Quick && rows > 40_000 && segmentation != Segmentation::One {
                continue;
            }
            let large = extent == Extent::Quick && rows > 2_049;
            for (sink, nulls) in (0..4).zip([Nulls::Some, Nulls::None, Nulls::Runs, Nulls::Some]) {
                seed += 1;
                if large && seed % 5 != 0 {
                    continue;
                }
                take(sized(rows, segmentation, sink, nulls, seed))?;
            }
        }
    }
    Ok(())
}

/// Many groups, many build rows, many sorted rows: tables that grow, spread over partitions, merge.
pub(super) fn many(extent: Extent, take: &mut Take<'_>) -> Result<(), Box<Mismatch>> {
    let types = [Type::Int64, Type::Utf8, Type::Int32, Type::Float64, Type::Date32];
    let (types, sizes) = match extent {
        Extent::Quick => (&types[..2], &[10_000][..]),
        Extent::Full => (&types[..], &[10_000, 100_000, 300_000][..]),
    };
    let mut seed = 80_000_u64;
    for data_type in types {
        for rows in sizes {
            for (sink, flavor) in (0..3).flat_map(|sink| [(sink, Flavor::Wide), (sink, Flavor::Sorted)]) {
                seed += 1;
                if extent == Extent::Full || seed.is_multiple_of(2) {
                    take(large(data_type, *rows, sink, flavor, seed))?;
                }
            }
        }
    }
    Ok(())
}

fn large(data_type: &Type, rows: usize, sink: usize, flavor: Flavor, seed: u64) -> Case {
    let columns = [
        (data_type.clone(), Nulls::Some, flavor),
        (Type::Int32, Nulls::None, Flavor::Small),
    ];
    let column = |index: usize| Expr::column(index, columns[index].0.clone());
    let table = Table::new(&columns, rows, seed);
    let mut pipelines = Vec::new();
    let mut steps = Vec::new();
    let mut output = vec![data_type.clone(), Type::Int64, Type::Int64];
    let sum = |argument: usize| Aggregate {
        function: AggregateFunction::Sum,
        argument: Some(column(argument)),
        ..count_all()
    };
    let mut last = Sink::Aggregate {
        groups: vec![column(0)],
        aggregates: vec![count_all(), sum(1)],
    };
    if sink == 1 {
        output = vec![data_type.clone(), Type::Int32];
        last = Sink::Sort {
            keys: vec![SortKey {
                expr: column(0),
                descending: false,
                nulls_first: false,
            }],
            limit: None,
            offset: 0,
        };
    } else if sink == 2 {
        // The table joined with its own distinct keys, half of them, and counted.
        let mut build = Table::new(&columns, rows, seed);
        let mut seen = HashSet::new();
        build
            .rows
            .retain(|row| seen.insert(Key::of(&row[0], data_type)) && seen.len() % 2 == 0);
        pipelines.push(Pipeline {
            table: build,
            steps: Vec::new(),
            sink: Sink::Build(BuildSide {
                keys: vec![column(0)],
                payload: Vec::new(),
            }),
            output: Vec::new(),
        });
        steps.push(Step::Probe(Probe {
            build: 0,
            kind: JoinKind::Semi,
            keys: vec![column(0)],
            residual: None,
            null_equals_null: false,
            null_aware: false,
        }));
        output = vec![Type::Int32, Type::Int64];
        last = Sink::Aggregate {
            groups: vec![column(1)],
            aggregates: vec![count_all()],
        };
    }
    pipelines.push(Pipeline {
        table,
        steps,
        sink: last,
        output,
    });
    case(
        format!("many {}", type_name(data_type)),
        Segmentation::Random,
        seed,
        pipelines,
    )
}

fn sized(rows: usize, segmentation: Segmentation, sink: usize, nulls: Nulls, seed: u64) -> Case {
    let columns = [
        (Type::Int32, nulls, Flavor::Small),
        (Type::Int64, Nulls::None, Flavor::Sorted),
        (Type::Utf8, nulls, Flavor::Small),
    ];
    let column = |index: usize| Expr::column(index, columns[index].0.clone());
    let literal = Expr::literal(Value::Int(4), Type::Int32);
    let mut steps = vec![Step::Filter(Expr::binary(
        BinaryOperator::NotEqual,
        column(0),
        literal,
        Type::Boolean,
    ))];
    let mut pipelines = Vec::new();
    let mut output: Vec<Type> = columns.iter().map(|column| column.0.clone()).collect();
    let sink = match sink {
        0 => EMIT,
        1 => {
            output = vec![Type::Utf8, Type::Int64, Type::Int64];
            let sum = Aggregate {
                function: AggregateFunction::Sum,
                argument: Some(column(0)),
                ..count_all()
            };
            Sink::Aggregate {
                groups: vec![column(2)],
                aggregates: vec![count_all(), sum],
            }
        }
        2 => Sink::Sort {
            keys: vec![SortKey {
                expr: column(0),
                descending: seed.is_multiple_of(2),
                nulls_first: true,
            }],
            limit: seed.is_multiple_of(3).then_some(100),
            offset: 0,
        },
        _ => {
            pipelines.push(few(seed));
            steps.push(Step::Probe(Probe {
                build: 0,
                kind: JoinKind::Left,
                keys: vec![column(0)],
                residual: None,
                null_equals_null: false,
                null_aware: false,
            }));
            output.push(Type::Int64);
            EMIT
        }
    };
    pipelines.push(Pipeline {
        table: Table::new(&columns, rows, seed),
        steps,
        sink,
        output,
    });
    case(format!("{rows} rows, {segmentation:?}"), segmentation, seed, pipelines)
}

/// A small build side.
fn few(seed: u64) -> Pipeline {
    let columns = [
        (Type::Int32, Nulls::Some, Flavor::Small),
        (Type::Int64, Nulls::Some, Flavor::Wide),
    ];
    Pipeline {
        table: Table::new(&columns, 3, seed),
        steps: Vec::new(),
        sink: Sink::Build(BuildSide {
            keys: vec![Expr::column(0, Type::Int32)],
            payload: vec![Expr::column(1, Type::Int64)],
        }),
        output: vec![Type::Int64],
    }
}
