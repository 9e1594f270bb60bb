//! What a graph means: a naive interpreter over rows of values.
//!
//! It is the judge of every variant, so it is written to be read: one value at a time, whole tables between steps, exact
//! arithmetic in 256 bits, no choice of algorithm by data. It deliberately knows nothing of columns, tiles or memory.

mod aggregate;
mod arithmetic;
mod calendar;
mod evaluate;
mod join;
mod like;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use trireme_device_api::{DeviceError, Expr, Fragment, Graph, Node, Sink, SortKey, Source, Step, Value};

pub use evaluate::evaluate;

use crate::values::{Key, Row};

/// What a graph runs on, as rows.
#[derive(Debug, Clone, Default)]
pub struct Data {
    /// Rows of each table.
    pub scans: Vec<Vec<Row>>,
    /// Rows of each stream.
    pub streams: Vec<Vec<Row>>,
    /// Values of parameters.
    pub parameters: Vec<Value>,
}

/// What a graph gives.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The result's rows; sorted if the last sink sorts.
    pub rows: Vec<Row>,
    /// The rows before the last sink's offset and limit: a variant may choose among those that tie.
    pub candidates: Vec<Row>,
    /// For each column, how far a float may be off because its sum depends on the order; none where it is exact. Infinite
    /// where even overflow depends on it.
    pub slack: Vec<Option<f64>>,
}

/// Rows between two steps.
struct Table {
    rows: Vec<Row>,
    slack: Vec<Option<f64>>,
}

/// A build side.
struct Built {
    /// Keys and payload.
    rows: Vec<(Vec<Key>, Row)>,
    slack: Vec<Option<f64>>,
}

/// What a fragment leaves.
enum Left {
    Answer(Answer),
    Built(Built),
}

pub(crate) fn overflow(op: &str) -> DeviceError {
    DeviceError::Arithmetic(format!("overflow in {op}"))
}

/// Runs a graph.
///
/// # Errors
/// [`DeviceError::Arithmetic`] where the graph fails with these values, [`DeviceError::Unsupported`] where an expression has
/// no defined meaning, [`DeviceError::Internal`] where the graph is malformed.
pub fn interpret(graph: &Graph, data: &Data) -> Result<Answer, DeviceError> {
    let mut outputs: Vec<Left> = Vec::new();
    for fragment in &graph.fragments {
        let output = run_fragment(fragment, data, &outputs, graph)?;
        outputs.push(output);
    }
    match outputs.pop() {
        Some(Left::Answer(answer)) => Ok(answer),
        _ => Err(DeviceError::Internal("the last fragment leaves no rows".to_owned())),
    }
}

fn run_fragment(fragment: &Fragment, data: &Data, outputs: &[Left], graph: &Graph) -> Result<Left, DeviceError> {
    let mut table = source(&fragment.source, data, outputs, graph)?;
    for step in &fragment.steps {
        table = match step {
            Step::Filter(predicate) => filter(predicate, table, data)?,
            Step::Project(exprs) => project(exprs, &table, data)?,
            Step::Probe(probe) => match outputs.get(probe.build) {
                Some(Left::Built(built)) => join::probe(probe, table, built, &data.parameters)?,
                _ => {
                    return Err(DeviceError::Internal(format!(
                        "fragment {} is no build side",
                        probe.build
                    )));
                }
            },
        };
    }
    sink(&fragment.sink, table, data)
}

fn source(source: &Source, data: &Data, outputs: &[Left], graph: &Graph) -> Result<Table, DeviceError> {
    let missing = || DeviceError::Internal(format!("there is no {source:?}"));
    let table = match source {
        Source::Scan(index) => Table {
            rows: data.scans.get(*index).ok_or_else(missing)?.clone(),
            slack: vec![None; graph.scans.get(*index).ok_or_else(missing)?.columns.len()],
        },
        Source::Stream(index) => Table {
            rows: data.streams.get(*index).ok_or_else(missing)?.clone(),
            slack: vec![None; graph.streams.get(*index).ok_or_else(missing)?.len()],
        },
        Source::Fragment(id) => match outputs.get(*id) {
            Some(Left::Answer(answer)) => Table {
                rows: answer.rows.clone(),
                slack: answer.slack.clone(),
            },
            _ => return Err(missing()),
        },
    };
    Ok(table)
}

fn filter(predicate: &Expr, table: Table, data: &Data) -> Result<Table, DeviceError> {
    let mut rows = Vec::new();
    for row in table.rows {
        if evaluate(predicate, &row, &data.parameters)? == Value::Boolean(true) {
            rows.push(row);
        }
    }
    Ok(Table { rows, ..table })
}

fn project(exprs: &[Expr], table: &Table, data: &Data) -> Result<Table, DeviceError> {
    let evaluate_all = |row: &Row| exprs.iter().map(|expr| evaluate(expr, row, &data.parameters)).collect();
    Ok(Table {
        rows: table.rows.iter().map(evaluate_all).collect::<Result<_, _>>()?,
        slack: exprs.iter().map(|expr| slack_of(expr, &table.slack)).collect(),
    })
}

/// Only a column that is passed on keeps its slack: computing with an inexact column is left to those who compare.
fn slack_of(expr: &Expr, slack: &[Option<f64>]) -> Option<f64> {
    match expr.node {
        Node::Column(index) => slack.get(index).copied().flatten(),
        _ => None,
    }
}

fn sink(sink: &Sink, table: Table, data: &Data) -> Result<Left, DeviceError> {
    Ok(match sink {
        Sink::Aggregate { groups, aggregates } => Left::Answer(group(groups, aggregates, &table, data)?),
        Sink::Build(side) => {
            let mut rows = Vec::new();
            for row in &table.rows {
                let values = |exprs: &[Expr]| {
                    let values = exprs.iter().map(|expr| evaluate(expr, row, &data.parameters));
                    values.collect::<Result<Row, _>>()
                };
                let keys = values(&side.keys)?;
                let keys = side
                    .keys
                    .iter()
                    .zip(&keys)
                    .map(|(expr, key)| Key::of(key, &expr.data_type));
                rows.push((keys.collect(), values(&side.payload)?));
            }
            let slack = side.payload.iter().map(|expr| slack_of(expr, &table.slack)).collect();
            Left::Built(Built { rows, slack })
        }
        Sink::Sort { keys, limit, offset } => {
            let mut keyed = Vec::new();
            for row in table.rows {
                keyed.push((sort_keys(keys, &row, &data.parameters)?, row));
            }
            keyed.sort_by(|a, b| a.0.cmp(&b.0));
            let rows = keyed.into_iter().map(|(_, row)| row).collect();
            Left::Answer(limited(rows, table.slack, *limit, *offset))
        }
        Sink::Emit { limit, offset } => Left::Answer(limited(table.rows, table.slack, *limit, *offset)),
    })
}

fn limited(candidates: Vec<Row>, slack: Vec<Option<f64>>, limit: Option<usize>, offset: usize) -> Answer {
    let rows = candidates
        .iter()
        .skip(offset)
        .take(limit.unwrap_or(usize::MAX))
        .cloned()
        .collect();
    Answer {
        rows,
        candidates,
        slack,
    }
}

fn group(
    groups: &[Expr],
    aggregates: &[trireme_device_api::Aggregate],
    table: &Table,
    data: &Data,
) -> Result<Answer, DeviceError> {
    let mut members: BTreeMap<Vec<Key>, (Row, Vec<&Row>)> = BTreeMap::new();
    if groups.is_empty() {
        members.insert(Vec::new(), (Vec::new(), Vec::new()));
    }
    for row in &table.rows {
        let values = groups
            .iter()
            .map(|expr| evaluate(expr, row, &data.parameters))
            .collect::<Result<Row, _>>()?;
        let keys = groups
            .iter()
            .zip(&values)
            .map(|(expr, value)| Key::of(value, &expr.data_type))
            .collect();
        members.entry(keys).or_insert_with(|| (values, Vec::new())).1.push(row);
    }
    let mut slack: Vec<Option<f64>> = groups.iter().map(|expr| slack_of(expr, &table.slack)).collect();
    slack.resize(groups.len() + aggregates.len(), None);
    let mut rows = Vec::new();
    for (mut row, members) in members.into_values() {
        for aggregate in aggregates {
            let result = aggregate::aggregate(aggregate, &members, &data.parameters)?;
            let slack = &mut slack[row.len()];
            *slack = match (*slack, result.slack) {
                (Some(a), Some(b)) => Some(a.max(b)),
                (a, b) => a.or(b),
            };
            row.push(result.value);
        }
        rows.push(row);
    }
    Ok(limited(rows, slack, None, 0))
}

/// One sort key of one row; their order is the wanted one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// NULL, first.
    NullFirst,
    /// Smallest first.
    Ascending(Key),
    /// Largest first.
    Descending(Reverse<Key>),
    /// NULL, last.
    NullLast,
}

/// Where a row stands in an order.
///
/// # Errors
/// Those of the keys' expressions.
pub fn sort_keys(keys: &[SortKey], row: &[Value], parameters: &[Value]) -> Result<Vec<Place>, DeviceError> {
    keys.iter()
        .map(|key| {
            Ok(
                match Key::of(&evaluate(&key.expr, row, parameters)?, &key.expr.data_type) {
                    Key::Null if key.nulls_first => Place::NullFirst,
                    Key::Null => Place::NullLast,
                    value if key.descending => Place::Descending(Reverse(value)),
                    value => Place::Ascending(value),
                },
            )
        })
        .collect()
}
