//! Systematic cases: every operator, cast, aggregate, join and sort with every type, at the sizes where vectors, tiles and
//! morsels end.
//!
//! Random cases meet combinations that nobody thought of; these meet the ones that must not be left to luck.

mod expressions;
mod functions;
mod joins;
mod pipelines;

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use trireme_device_api::{
    Expr, Field, Fragment, GRAPH_VERSION, Graph, ScanSource, Sink, Source, Step, Type, Value, Variant,
};

use super::{Mismatch, Summary, judge_into};
use crate::generate::{Case, Flavor, Nulls, column, field};
use crate::inputs::Segmentation;
use crate::interpreter::Data;
use crate::values::Row;

/// How much of the matrix is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Seconds, also in a debug build: each operator with each type, at small sizes.
    Quick,
    /// Minutes: also every combination with NULL patterns, and all sizes.
    Full,
}

/// Takes cases; an error ends the matrix.
pub(super) type Take<'a> = dyn FnMut(Case) -> Result<(), Box<Mismatch>> + 'a;

/// All systematic cases.
///
/// # Errors
/// The first mismatch, shrunk.
pub fn matrix(variant: &dyn Variant, extent: Extent) -> Result<Summary, Box<Mismatch>> {
    let mut summary = Summary::default();
    for_each(extent, &mut |case| judge_into(variant, &case, &mut summary))?;
    Ok(summary)
}

/// Cases that wait to be taken.
const CASES_AHEAD: usize = 64;

/// All systematic cases, for who runs them in another way; made by a thread of their own, a few ahead.
pub fn matrix_cases(extent: Extent) -> impl Iterator<Item = Case> + Send {
    let (sender, receiver) = std::sync::mpsc::sync_channel(CASES_AHEAD);
    std::thread::spawn(move || {
        let mut take = |case: Case| sender.send(case).map_err(|unsent| Box::new(unwanted(unsent.0)));
        let _: Result<(), Box<Mismatch>> = for_each(extent, &mut take);
    });
    receiver.into_iter()
}

/// Ends the making of cases that nobody wants any more.
fn unwanted(case: Case) -> Mismatch {
    Mismatch {
        case,
        threads: 0,
        what: "nobody wants more cases".to_owned(),
        expected: Ok(Vec::new()),
        actual: None,
    }
}

/// Calls `take` with all systematic cases.
pub(super) fn for_each(extent: Extent, take: &mut Take<'_>) -> Result<(), Box<Mismatch>> {
    expressions::operators(extent, take)?;
    expressions::casts(extent, take)?;
    expressions::functions(take)?;
    functions::functions(take)?;
    pipelines::aggregates(extent, take)?;
    joins::joins(extent, take)?;
    pipelines::sorts(extent, take)?;
    pipelines::sizes(extent, take)?;
    pipelines::many(extent, take)
}

/// A part, for tests of the kit.
#[cfg(test)]
pub(super) fn some(take: &mut Take<'_>) -> Result<(), Box<Mismatch>> {
    expressions::functions(take)?;
    joins::joins(Extent::Quick, take)
}

/// A table under construction, of one column per type.
pub(super) struct Table {
    pub(super) fields: Vec<Field>,
    pub(super) rows: Vec<Row>,
}

impl Table {
    /// Columns of given types and NULL patterns.
    pub(super) fn new(columns: &[(Type, Nulls, Flavor)], rows: usize, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let values: Vec<Vec<Value>> = columns
            .iter()
            .map(|(data_type, nulls, flavor)| column(data_type, rows, *nulls, *flavor, &mut rng))
            .collect();
        let fields = columns
            .iter()
            .zip(&values)
            .enumerate()
            .map(|(index, ((data_type, _, _), values))| Field {
                nullable: values.contains(&Value::Null) || matches!(data_type, Type::Null),
                ..field(&format!("c{index}"), data_type.clone())
            });
        Self {
            fields: fields.collect(),
            rows: (0..rows)
                .map(|row| values.iter().map(|column| column[row].clone()).collect())
                .collect(),
        }
    }
}

/// A graph over tables, each scanned by the fragment of its number.
pub(super) struct Pipeline {
    pub(super) table: Table,
    pub(super) steps: Vec<Step>,
    pub(super) sink: Sink,
    pub(super) output: Vec<Type>,
}

/// A case of pipelines, the last of which gives the result.
pub(super) fn case(name: String, segmentation: Segmentation, seed: u64, pipelines: Vec<Pipeline>) -> Case {
    let mut graph = Graph {
        version: GRAPH_VERSION,
        fragments: Vec::new(),
        scans: Vec::new(),
        streams: Vec::new(),
        parameters: Vec::new(),
        output: Vec::new(),
    };
    let mut data = Data::default();
    for (index, pipeline) in pipelines.into_iter().enumerate() {
        let output = pipeline.output.into_iter().enumerate();
        graph.output = output
            .map(|(i, data_type)| field(&format!("o{i}"), data_type))
            .collect();
        graph.fragments.push(Fragment {
            source: Source::Scan(index),
            steps: pipeline.steps,
            sink: pipeline.sink,
            output: graph.output.clone(),
        });
        graph.scans.push(ScanSource {
            name: format!("t{index}"),
            columns: pipeline.table.fields,
        });
        data.scans.push(pipeline.table.rows);
    }
    Case {
        name,
        graph: Arc::new(graph),
        data,
        segmentation,
        seed,
        alike: false,
    }
}

/// All rows, as they come.
pub(super) const EMIT: Sink = Sink::Emit { limit: None, offset: 0 };

/// Scans a table and emits expressions over it.
pub(super) fn projection(name: String, table: Table, exprs: Vec<Expr>, seed: u64) -> Case {
    let output = exprs.iter().map(|expr| expr.data_type.clone()).collect();
    let pipeline = Pipeline {
        table,
        steps: vec![Step::Project(exprs)],
        sink: EMIT,
        output,
    };
    case(name, Segmentation::Random, seed, vec![pipeline])
}
