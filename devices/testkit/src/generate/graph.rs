//! Whole graphs: tables, build sides, pipelines and sinks, with data whose joins match.

use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use trireme_device_api::{
    Aggregate, AggregateFunction, BuildSide, Expr, Field, Fragment, FragmentId, GRAPH_VERSION, Graph, JoinKind, Probe,
    ScanSource, Sink, SortKey, Source, Step, Type, Value,
};

use super::data::{Flavor, Nulls, all_types, column};
use super::expr::{Expressions, aggregate_type};
use super::{Case, Column};
use crate::inputs::Segmentation;
use crate::interpreter::Data;
use crate::values::Row;

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

const KINDS: [JoinKind; 9] = [
    JoinKind::Inner,
    JoinKind::Left,
    JoinKind::Semi,
    JoinKind::Anti,
    JoinKind::Mark,
    JoinKind::BuildOuter,
    JoinKind::Full,
    JoinKind::BuildSemi,
    JoinKind::BuildAnti,
];

/// Rows that flow through a pipeline under construction.
struct Flow {
    source: Source,
    steps: Vec<Step>,
    columns: Vec<Column>,
    /// A column without repeats, if one is left.
    unique: Option<usize>,
}

/// A build side that probes may use.
#[derive(Clone)]
struct Side {
    fragment: FragmentId,
    keys: Vec<Type>,
    payload: Vec<Column>,
}

struct Generator {
    rng: SmallRng,
    /// Types that tables have in common.
    domain: Vec<Type>,
    most_rows: usize,
    scans: Vec<ScanSource>,
    streams: Vec<Vec<Field>>,
    fragments: Vec<Fragment>,
    parameters: Vec<(Type, Value)>,
    data: Data,
}

/// A random graph and its data.
pub fn graph(seed: u64) -> Case {
    let mut rng = SmallRng::seed_from_u64(seed);
    let types = all_types();
    let usual = [
        Type::Int32,
        Type::Int64,
        Type::Float64,
        types[12].clone(),
        Type::Date32,
        Type::Utf8,
        Type::Utf8View,
    ];
    let mut domain = Vec::new();
    for _ in 0..3 {
        let from = if rng.random_bool(0.6) { usual.as_slice() } else { &types };
        domain.extend(from.choose(&mut rng).cloned());
    }
    let most_rows = [0, 1, 2, 5, 17, 33, 100, 300, 300, 1_000]
        .choose(&mut rng)
        .copied()
        .unwrap_or_default();
    let most_rows = if rng.random_bool(0.02) { 5_000 } else { most_rows };
    let mut generator = Generator {
        rng,
        domain,
        most_rows,
        scans: Vec::new(),
        streams: Vec::new(),
        fragments: Vec::new(),
        parameters: Vec::new(),
        data: Data::default(),
    };
    generator.whole();
    let Generator {
        mut rng,
        scans,
        streams,
        fragments,
        parameters,
        mut data,
        ..
    } = generator;
    let output = fragments.last().map(|last| last.output.clone()).unwrap_or_default();
    let (types, values) = parameters.into_iter().unzip();
    data.parameters = values;
    let segmentation = match rng.random_range(0..4) {
        0 => Segmentation::One,
        1 => Segmentation::Of(rng.random_range(1..200)),
        _ => Segmentation::Random,
    };
    Case {
        name: format!("random {seed}"),
        graph: Arc::new(Graph {
            version: GRAPH_VERSION,
            fragments,
            scans,
            streams,
            parameters: types,
            output,
        }),
        data,
        segmentation,
        seed,
        alike: false,
    }
}

impl Generator {
    fn whole(&mut self) {
        let mut sides = Vec::new();
        for _ in 0..[0, 0, 1, 1, 2].choose(&mut self.rng).copied().unwrap_or_default() {
            let side = self.side();
            sides.push(side);
        }
        let mut flow = self.start(0.15);
        self.simple_steps(&mut flow);
        for side in sides {
            self.probe(&mut flow, &side);
            if self.rng.random_bool(0.15) {
                self.probe(&mut flow, &side);
            }
            self.simple_steps(&mut flow);
        }
        match self.rng.random_range(0..4) {
            0 => self.sort(flow, true),
            1 => self.emit(flow, true),
            _ => self.aggregate(flow),
        };
    }

    fn expressions<'a>(&'a mut self, columns: &'a [Column]) -> Expressions<'a> {
        Expressions {
            rng: &mut self.rng,
            columns,
            parameters: &mut self.parameters,
        }
    }

    /// A table, a stream, or an earlier fragment's rows.
    fn start(&mut self, from_fragment: f64) -> Flow {
        if !self.rng.random_bool(from_fragment) {
            return self.table();
        }
        let mut flow = self.table();
        self.simple_steps(&mut flow);
        match self.rng.random_range(0..4) {
            0 => self.sort(flow, false),
            1 => self.emit(flow, false),
            _ => self.aggregate(flow),
        }
    }

    fn table(&mut self) -> Flow {
        let rows = self.rng.random_range(0..=self.most_rows);
        let mut columns = Vec::new();
        let mut values: Vec<Vec<Value>> = Vec::new();
        for index in 0..self.rng.random_range(1..6) {
            let from = if self.rng.random_bool(0.7) {
                self.domain.clone()
            } else {
                all_types()
            };
            let data_type = from.choose(&mut self.rng).cloned().unwrap_or(Type::Int64);
            let nulls = match self.rng.random_range(0..10) {
                0..5 => Nulls::None,
                5..8 => Nulls::Some,
                8 => Nulls::Runs,
                _ => Nulls::All,
            };
            let flavor = Flavor::draw(&mut self.rng);
            values.push(column(&data_type, rows, nulls, flavor, &mut self.rng));
            let mut made = Column::new(&format!("c{index}"), data_type);
            let has_null = values[index].contains(&Value::Null) || matches!(made.field.data_type, Type::Null);
            made.field.nullable = has_null || self.rng.random_bool(0.3);
            columns.push(made);
        }
        let mut ids: Vec<i128> = (0..).take(rows).collect();
        if self.rng.random_bool(0.5) {
            ids.shuffle(&mut self.rng);
        }
        values.push(ids.into_iter().map(Value::Int).collect());
        columns.push(Column::new("id", Type::Int64));
        let unique = columns.len() - 1;
        columns[unique].field.nullable = false;
        let table: Vec<Row> = (0..rows)
            .map(|row| values.iter().map(|column| column[row].clone()).collect())
            .collect();
        let fields: Vec<Field> = columns.iter().map(|column| column.field.clone()).collect();
        let source = if self.rng.random_bool(0.8) {
            self.scans.push(ScanSource {
                name: format!("t{}", self.scans.len()),
                columns: fields,
            });
            self.data.scans.push(table);
            Source::Scan(self.scans.len() - 1)
        } else {
            self.streams.push(fields);
            self.data.streams.push(table);
            Source::Stream(self.streams.len() - 1)
        };
        Flow {
            source,
            steps: Vec::new(),
            columns,
            unique: Some(unique),
        }
    }

    fn simple_steps(&mut self, flow: &mut Flow) {
        while self.rng.random_bool(0.45) {
            if self.rng.random_bool(0.6) {
                let predicate = self.expressions(&flow.columns).predicate(2);
                flow.steps.push(Step::Filter(predicate));
            } else {
                self.project(flow);
            }
        }
    }

    fn project(&mut self, flow: &mut Flow) {
        let mut exprs = Vec::new();
        let mut columns = Vec::new();
        for _ in 0..self.rng.random_range(1..6) {
            if self.rng.random_bool(0.5) {
                let index = self.rng.random_range(0..flow.columns.len());
                let column = flow.columns[index].clone();
                exprs.push(Expr::column(index, column.field.data_type.clone()));
                columns.push(column);
            } else {
                let mut expressions = self.expressions(&flow.columns);
                let wanted = expressions.some_type();
                exprs.push(expressions.expr(&wanted, 3));
                columns.push(Column::new(&format!("p{}", columns.len()), wanted));
            }
        }
        let unique = flow.unique.filter(|_| self.rng.random_bool(0.7)).map(|unique| {
            exprs.push(Expr::column(unique, flow.columns[unique].field.data_type.clone()));
            columns.push(flow.columns[unique].clone());
            columns.len() - 1
        });
        flow.steps.push(Step::Project(exprs));
        flow.columns = columns;
        flow.unique = unique;
    }

    fn side(&mut self) -> Side {
        let mut flow = self.start(0.2);
        self.simple_steps(&mut flow);
        let mut keys = Vec::new();
        for _ in 0..[0, 1, 1, 1, 1, 2, 2, 3].choose(&mut self.rng).copied().unwrap_or(1) {
            let mut expressions = self.expressions(&flow.columns);
            let wanted = expressions.some_type();
            if !matches!(wanted, Type::Null | Type::Interval(_)) {
                let depth = usize::from(expressions.rng.random_bool(0.2));
                keys.push(expressions.expr(&wanted, depth));
            }
        }
        let mut payload = Vec::new();
        let mut columns = Vec::new();
        for _ in 0..self.rng.random_range(0..4) {
            let index = self.rng.random_range(0..flow.columns.len());
            payload.push(Expr::column(index, flow.columns[index].field.data_type.clone()));
            columns.push(flow.columns[index].clone());
        }
        let types = keys.iter().map(|key| key.data_type.clone()).collect();
        let fragment = self.finish(flow, Sink::Build(BuildSide { keys, payload }), &columns);
        Side {
            fragment,
            keys: types,
            payload: columns,
        }
    }

    fn probe(&mut self, flow: &mut Flow, side: &Side) {
        let mut keys = Vec::new();
        for wanted in &side.keys {
            let mut expressions = self.expressions(&flow.columns);
            let depth = usize::from(expressions.rng.random_bool(0.2));
            keys.push(expressions.expr(wanted, depth));
        }
        let kind = KINDS[self.rng.random_range(0..KINDS.len())];
        if matches!(kind, JoinKind::BuildSemi | JoinKind::BuildAnti) && side.payload.is_empty() {
            return;
        }
        let null_aware = kind == JoinKind::Anti && keys.len() == 1 && self.rng.random_bool(0.7);
        let both = [flow.columns.as_slice(), &side.payload].concat();
        let residual = (!null_aware && self.rng.random_bool(0.3)).then(|| self.expressions(&both).predicate(0));
        flow.steps.push(Step::Probe(Probe {
            build: side.fragment,
            kind,
            null_equals_null: !null_aware && !keys.is_empty() && self.rng.random_bool(0.2),
            keys,
            residual,
            null_aware,
        }));
        match kind {
            JoinKind::Inner | JoinKind::Left | JoinKind::BuildOuter | JoinKind::Full => {
                flow.unique = None;
                flow.columns = both;
            }
            JoinKind::Semi | JoinKind::Anti => {}
            JoinKind::Mark => flow.columns.push(Column::new("mark", Type::Boolean)),
            JoinKind::BuildSemi | JoinKind::BuildAnti => {
                flow.unique = None;
                flow.columns.clone_from(&side.payload);
            }
        }
        for column in &mut flow.columns {
            column.field.nullable = true;
        }
    }

    fn finish(&mut self, flow: Flow, sink: Sink, columns: &[Column]) -> FragmentId {
        self.fragments.push(Fragment {
            source: flow.source,
            steps: flow.steps,
            sink,
            output: columns.iter().map(|column| column.field.clone()).collect(),
        });
        self.fragments.len() - 1
    }

    fn pass_on(&mut self, flow: Flow, sink: Sink) -> Flow {
        let (columns, unique) = (flow.columns.clone(), flow.unique);
        let fragment = self.finish(flow, sink, &columns);
        Flow {
            source: Source::Fragment(fragment),
            steps: Vec::new(),
            columns,
            unique,
        }
    }

    fn sort_key(&mut self, columns: &[Column]) -> SortKey {
        let mut expressions = self.expressions(columns);
        let mut wanted = expressions.some_type();
        if matches!(wanted, Type::Null | Type::Interval(_)) {
            wanted = Type::Int64;
        }
        let depth = usize::from(expressions.rng.random_bool(0.2));
        SortKey {
            expr: expressions.expr(&wanted, depth),
            descending: self.rng.random_bool(0.5),
            nulls_first: self.rng.random_bool(0.5),
        }
    }

    fn sort(&mut self, flow: Flow, last: bool) -> Flow {
        let keys = (0..self.rng.random_range(1..4))
            .map(|_| self.sort_key(&flow.columns))
            .collect();
        let (limit, offset) = self.limit(last);
        self.pass_on(flow, Sink::Sort { keys, limit, offset })
    }

    fn emit(&mut self, flow: Flow, last: bool) -> Flow {
        let limited = last && self.rng.random_bool(0.5);
        let (limit, offset) = self.limit(limited);
        self.pass_on(flow, Sink::Emit { limit, offset })
    }

    fn limit(&mut self, allowed: bool) -> (Option<usize>, usize) {
        if !allowed || self.rng.random_bool(0.4) {
            return (None, 0);
        }
        let limit = [0, 1, 3, 10, 100, 2_000].choose(&mut self.rng).copied();
        (
            limit,
            [0, 0, 0, 1, 20].choose(&mut self.rng).copied().unwrap_or_default(),
        )
    }

    fn aggregate(&mut self, flow: Flow) -> Flow {
        let mut groups = Vec::new();
        let mut columns = Vec::new();
        for index in 0..[0, 0, 1, 1, 1, 2, 2, 3]
            .choose(&mut self.rng)
            .copied()
            .unwrap_or_default()
        {
            let mut expressions = self.expressions(&flow.columns);
            let wanted = expressions.some_type();
            if !matches!(wanted, Type::Null | Type::Interval(_)) {
                let depth = usize::from(expressions.rng.random_bool(0.3));
                groups.push(expressions.expr(&wanted, depth));
                let mut column = Column::new(&format!("g{index}"), wanted);
                column.exact = !column.field.data_type.is_float();
                columns.push(column);
            }
        }
        let mut aggregates = Vec::new();
        for index in 0..self.rng.random_range(usize::from(groups.is_empty())..5) {
            let aggregate = self.one_aggregate(&flow);
            let mut column = Column::new(&format!("a{index}"), aggregate.data_type.clone());
            column.exact = !column.field.data_type.is_float();
            columns.push(column);
            aggregates.push(aggregate);
        }
        let fragment = self.finish(flow, Sink::Aggregate { groups, aggregates }, &columns);
        Flow {
            source: Source::Fragment(fragment),
            steps: Vec::new(),
            columns,
            unique: None,
        }
    }

    fn one_aggregate(&mut self, flow: &Flow) -> Aggregate {
        let function = FUNCTIONS[self.rng.random_range(0..FUNCTIONS.len())];
        let ordered = matches!(function, AggregateFunction::First | AggregateFunction::Last);
        let mut expressions = self.expressions(&flow.columns);
        let filter = expressions.rng.random_bool(0.2).then(|| expressions.predicate(1));
        let wanted = expressions.some_type();
        let unique = flow.unique.filter(|_| ordered);
        let data_type = aggregate_type(function, &wanted).filter(|_| unique.is_some() == ordered);
        let Some(data_type) = data_type else {
            return Aggregate {
                function: AggregateFunction::Count,
                argument: None,
                distinct: false,
                filter,
                order: Vec::new(),
                data_type: Type::Int64,
            };
        };
        let depth = usize::from(expressions.rng.random_bool(0.4)) * 2;
        let argument = Some(expressions.expr(&wanted, depth));
        let mut order = Vec::new();
        if let Some(unique) = unique {
            if self.rng.random_bool(0.5) {
                order.push(self.sort_key(&flow.columns));
            }
            order.push(SortKey {
                expr: Expr::column(unique, flow.columns[unique].field.data_type.clone()),
                descending: self.rng.random_bool(0.5),
                nulls_first: false,
            });
        }
        let may_be_distinct = matches!(
            function,
            AggregateFunction::Count | AggregateFunction::Sum | AggregateFunction::Average | AggregateFunction::Max
        );
        Aggregate {
            function,
            argument,
            distinct: may_be_distinct && self.rng.random_bool(0.3),
            filter,
            order,
            data_type,
        }
    }
}
