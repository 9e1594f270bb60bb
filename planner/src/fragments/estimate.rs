//! How many rows and distinct values a relation is expected to have: what joins are ordered by.
//!
//! From what earlier runs counted of the same sub-plan; from ANALYZE's distinct counts and samples; else from files' row
//! counts, bounds and distinct counts, where an integral column without a count has at most as many distinct values as its
//! bounds allow and conditions are taken to be independent. Nothing here changes a result.

mod conditions;
mod joins;

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use trireme_device_api::{DatePart, Expr, Function, Node, Type, Value};
use trireme_exec::operators::FileScan;
use trireme_exec::statistics::Feedback;

use super::name::Name;
use super::sample::Part;
use super::tree::{Op, RelationId, Tree};

pub(super) use conditions::split;
pub(super) use joins::{Meets, grouped, match_rows};

/// Rows of a stream or table of which nothing is known.
const ROWS_UNKNOWN: f64 = 10_000.0;
/// Distinct strings of a column of which nothing is known: this power of its rows.
const TEXT_DISTINCT_POWER: f64 = 0.5;
const DAYS_OF_YEAR: f64 = 365.25;
const PREFIXES_PER_CHARACTER: f64 = 12.0;
/// Conditions on aggregates look for the exception.
const HAVING: f64 = 0.3;

/// What is expected of a column.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct ColumnEstimate {
    pub(super) distinct: f64,
    /// Distinct values of the whole column that it comes from, and that one's rows.
    pub(super) domain: f64,
    pub(super) base_rows: f64,
    /// Bounds of an integral column, in units of its values.
    pub(super) range: Option<(f64, f64)>,
    /// Whether `domain` was counted, not guessed.
    pub(super) counted: bool,
    /// The part of the estimate and the column of its sketch that it comes from.
    pub(super) sampled: Option<(u16, u16)>,
}

/// What is expected of a relation.
#[derive(Debug, Clone)]
pub(super) struct Estimate {
    pub(super) rows: f64,
    pub(super) columns: Vec<ColumnEstimate>,
    /// Samples of the tables that it was made from.
    pub(super) parts: Arc<[Part]>,
}

impl ColumnEstimate {
    /// The same column among so many rows.
    pub(super) fn of_rows(self, rows: f64) -> Self {
        Self {
            distinct: self.distinct.min(rows.max(1.0)),
            ..self
        }
    }

    /// The same column behind so many parts of another estimate.
    pub(super) fn moved(self, parts: usize) -> Self {
        let parts = u16::try_from(parts).unwrap_or(u16::MAX);
        Self {
            sampled: self.sampled.map(|(part, column)| (part.saturating_add(parts), column)),
            ..self
        }
    }

    /// A column that is made here.
    fn made(distinct: f64, rows: f64) -> Self {
        Self {
            distinct,
            domain: distinct,
            base_rows: rows,
            ..Self::default()
        }
    }
}

impl Estimate {
    fn column(&self, expr: &Expr) -> Option<&ColumnEstimate> {
        column_of(expr).and_then(|index| self.columns.get(index))
    }

    /// The one part that an expression's columns all come from.
    fn part_of(&self, expr: &Expr) -> Option<u16> {
        let mut parts = expr
            .columns()
            .into_iter()
            .map(|index| self.columns.get(index)?.sampled.map(|(part, _)| part));
        let first = parts.next()??;
        parts.all(|part| part == Some(first)).then_some(first)
    }

    /// Whether a sample answers for all of an expression's columns.
    pub(super) fn is_sampled(&self, expr: &Expr) -> bool {
        self.part_of(expr).is_some()
    }

    /// Distinct values of the whole columns that keys come from.
    fn domain<'e>(&self, keys: impl Iterator<Item = &'e Expr>) -> f64 {
        let (mut values, mut rows) = (1.0, 1.0_f64);
        for key in keys {
            match key.node {
                Node::Column(index) if index < self.columns.len() => {
                    values *= self.columns[index].domain;
                    rows = rows.max(self.columns[index].base_rows);
                }
                _ => {
                    values *= self.distinct(key);
                    rows = rows.max(self.rows);
                }
            }
        }
        // Keys of several columns go together: there are no more of them than rows.
        values.min(rows)
    }

    /// Distinct values of an expression.
    pub(super) fn distinct(&self, expr: &Expr) -> f64 {
        let own = match &expr.node {
            Node::Column(index) => self.columns.get(*index).map_or(self.rows, |column| column.distinct),
            Node::Extract { part, expr } => self.distinct(expr).min(self.parts(*part, expr)),
            Node::Function {
                function: Function::Substring,
                args,
            } => args
                .first()
                .map_or(self.rows, |text| self.distinct(text).min(prefixes(args))),
            _ => expr
                .columns()
                .into_iter()
                .map(|index| self.columns.get(index).map_or(self.rows, |column| column.distinct))
                .product(),
        };
        own.min(self.rows).max(1.0)
    }

    /// The same rows as these expressions.
    pub(super) fn projected(&self, exprs: &[Expr]) -> Self {
        let columns = exprs.iter().map(|expr| match &expr.node {
            Node::Column(index) => self.columns[*index],
            _ => ColumnEstimate::made(self.distinct(expr), self.rows),
        });
        Self {
            rows: self.rows,
            columns: columns.collect(),
            parts: Arc::clone(&self.parts),
        }
    }

    /// As many rows as a limit lets pass.
    pub(super) fn limited(&self, limit: Option<usize>, offset: usize) -> Self {
        let most = limit.map_or(f64::INFINITY, |limit| limit as f64);
        let rows = (self.rows - offset as f64).clamp(1.0, most.max(1.0));
        self.scaled(rows / self.rows.max(1.0))
    }

    /// So many rows, as was counted.
    pub(super) fn with_rows(&self, rows: f64) -> Self {
        let columns = self.columns.iter().map(|column| column.of_rows(rows));
        Self {
            rows,
            columns: columns.collect(),
            parts: Arc::clone(&self.parts),
        }
    }

    /// Distinct values that a part of a date can have.
    fn parts(&self, part: DatePart, date: &Expr) -> f64 {
        let range = match (&date.node, &date.data_type) {
            (Node::Column(index), Type::Date32) => self.columns.get(*index).and_then(|column| column.range),
            _ => None,
        };
        let days = range.map_or(f64::INFINITY, |(low, high)| high - low + 1.0);
        match part {
            DatePart::Year => (days / DAYS_OF_YEAR).ceil() + 1.0,
            DatePart::Quarter => 4.0,
            DatePart::Month => 12.0,
            DatePart::Week => 53.0,
            DatePart::Day => 31.0,
            DatePart::DayOfWeek => 7.0,
            DatePart::DayOfYear => 366.0,
            DatePart::Hour => 24.0,
            DatePart::Minute | DatePart::Second => 60.0,
        }
    }

    /// With a part of its rows.
    fn scaled(&self, part: f64) -> Self {
        let rows = (self.rows * part).max(1.0);
        let columns = self.columns.iter().map(|column| ColumnEstimate {
            distinct: kept_distinct(column.distinct, self.rows, rows),
            ..*column
        });
        Self {
            rows,
            columns: columns.collect(),
            parts: Arc::clone(&self.parts),
        }
    }
}

/// Distinct prefixes of texts: so many per character that is kept.
fn prefixes(args: &[Expr]) -> f64 {
    match args.get(2).map(|length| &length.node) {
        Some(Node::Literal(Value::Int(length))) => PREFIXES_PER_CHARACTER.powf((*length).clamp(0, 12) as f64),
        _ => f64::INFINITY,
    }
}

/// Distinct values left when `after` of `before` rows are, chosen without regard to the value.
fn kept_distinct(distinct: f64, before: f64, after: f64) -> f64 {
    if after >= before || before <= 0.0 {
        return distinct.min(after.max(1.0));
    }
    let rows_per_value = before / distinct.max(1.0);
    let none_left = (1.0 - after / before).powf(rows_per_value);
    (distinct * (1.0 - none_left)).clamp(1.0, after.max(1.0))
}

/// Estimates of a tree's relations, each made once.
pub(super) struct Estimator<'a> {
    /// Values of the graph's parameters, as far as they are known.
    pub(super) parameters: &'a [Value],
    /// What earlier runs counted.
    feedback: Option<&'a Feedback>,
    known: HashMap<RelationId, Arc<Estimate>>,
    names: HashMap<RelationId, Option<Arc<Name>>>,
}

impl<'a> Estimator<'a> {
    pub(super) fn new(parameters: &'a [Value], feedback: Option<&'a Feedback>) -> Self {
        Self {
            parameters,
            feedback: feedback.filter(|feedback| !feedback.is_empty()),
            known: HashMap::new(),
            names: HashMap::new(),
        }
    }

    /// Rows that a sub-plan of this name was seen to have.
    pub(super) fn seen(&self, name: u64) -> Option<f64> {
        self.feedback?.rows(name)
    }

    /// The name of a relation; none where nothing was learned, or where it reads what has no version.
    pub(super) fn name(&mut self, tree: &Tree, id: RelationId) -> Option<Arc<Name>> {
        self.feedback?;
        if let Some(known) = self.names.get(&id) {
            return known.clone();
        }
        let made = self.make_name(tree, id).map(Arc::new);
        self.names.insert(id, made.clone());
        made
    }

    fn make_name(&mut self, tree: &Tree, id: RelationId) -> Option<Name> {
        let parameters = self.parameters;
        Some(match &tree.get(id).op {
            Op::Scan(scan) => Name::of_scan(scan),
            Op::Stream(_) => return None,
            Op::Filter { input, predicates } => {
                let input = self.name(tree, *input)?;
                input.as_ref().clone().filtered(predicates, parameters)
            }
            Op::Project { input, exprs } => self.name(tree, *input)?.projected(exprs, parameters),
            Op::Join(join) => {
                let (probe, build) = (self.name(tree, join.probe)?, self.name(tree, join.build)?);
                Name::joined(join, &probe, &build, parameters)
            }
            Op::Aggregate {
                input,
                groups,
                aggregates,
            } => self.name(tree, *input)?.grouped(groups, aggregates, parameters),
            Op::Sort {
                input, limit, offset, ..
            }
            | Op::Limit { input, limit, offset } => self.name(tree, *input)?.limited(*limit, *offset),
        })
    }

    pub(super) fn of(&mut self, tree: &Tree, id: RelationId) -> Arc<Estimate> {
        if let Some(known) = self.known.get(&id) {
            return Arc::clone(known);
        }
        let mut made = self.make(tree, id);
        if matches!(tree.get(id).op, Op::Filter { .. } | Op::Join(_) | Op::Aggregate { .. })
            && let Some(rows) = self.name(tree, id).and_then(|name| self.seen(name.fingerprint()))
        {
            made = made.with_rows(rows.max(1.0));
        }
        let made = Arc::new(made);
        self.known.insert(id, Arc::clone(&made));
        made
    }

    fn make(&mut self, tree: &Tree, id: RelationId) -> Estimate {
        match &tree.get(id).op {
            Op::Scan(scan) => scan_estimate(scan),
            Op::Stream(plan) => stream_estimate(plan, tree.fields(id).len()),
            Op::Filter { input, predicates } => {
                let having = matches!(tree.get(*input).op, Op::Aggregate { .. });
                let input = self.of(tree, *input);
                let kept = self.filtered(&input, predicates);
                if having { kept.scaled(HAVING) } else { kept }
            }
            Op::Project { input, exprs } => {
                let input = self.of(tree, *input);
                input.projected(exprs)
            }
            Op::Join(join) => {
                let (probe, build) = (self.of(tree, join.probe), self.of(tree, join.build));
                self.joined(join, &probe, &build)
            }
            Op::Aggregate {
                input,
                groups,
                aggregates,
            } => {
                let input = self.of(tree, *input);
                grouped(&input, groups, aggregates, self.parameters)
            }
            Op::Sort {
                input, limit, offset, ..
            }
            | Op::Limit { input, limit, offset } => {
                let input = self.of(tree, *input);
                input.limited(*limit, *offset)
            }
        }
    }
}

fn column_of(expr: &Expr) -> Option<usize> {
    match expr.node {
        Node::Column(index) => Some(index),
        _ => None,
    }
}

pub(super) fn scan_estimate(scan: &FileScan) -> Estimate {
    let sketch = scan.statistics.sketch.as_ref();
    let analyzed = sketch.map(|sketch| sketch.rows);
    let rows = scan.statistics.rows.or(analyzed).unwrap_or(ROWS_UNKNOWN).max(1.0);
    let columns = scan.columns.iter().enumerate().map(|(index, column)| {
        let known = scan.statistics.columns.get(index).copied().unwrap_or_default();
        let at = sketch.and_then(|sketch| sketch.position(&column.name));
        let sketched = at.zip(sketch).and_then(|(at, sketch)| sketch.columns[at].distinct);
        let sampled = at.and_then(|at| u16::try_from(at).ok()).map(|at| (0, at));
        let of_range = known.range.map(|(low, high)| high - low + 1.0);
        let guess = if column.data_type.is_bytes() {
            rows.powf(TEXT_DISTINCT_POWER)
        } else {
            rows
        };
        let counted = sketched.or(known.distinct);
        let distinct = counted.or(of_range).unwrap_or(guess).clamp(1.0, rows);
        ColumnEstimate {
            counted: counted.is_some(),
            sampled,
            range: known.range.filter(|_| column.data_type.is_integral()),
            ..ColumnEstimate::made(distinct, rows)
        }
    });
    let columns = columns.collect();
    Estimate {
        rows,
        columns,
        parts: sketch.map(|sketch| Part::of(sketch, rows)).into_iter().collect(),
    }
}

pub(super) fn stream_estimate(plan: &Arc<dyn ExecutionPlan>, columns: usize) -> Estimate {
    let known = StatisticsContext::new()
        .compute(plan.as_ref(), &StatisticsArgs::new())
        .ok();
    let known = known.and_then(|statistics| statistics.num_rows.get_value().copied());
    let rows = known.map_or(ROWS_UNKNOWN, |rows| rows as f64).max(1.0);
    Estimate {
        rows,
        columns: vec![ColumnEstimate::made(rows, rows); columns],
        parts: Arc::default(),
    }
}
