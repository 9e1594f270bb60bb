//! How many rows and distinct values a relation is expected to have: what joins are ordered by.
//!
//! From files' row counts, bounds and distinct counts, where they are known; an integral column without a count has at most
//! as many distinct values as its bounds allow. Conditions are taken to be independent. Nothing here changes a result.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use trireme_device_api::{
    Aggregate, AggregateFunction, BinaryOperator, DatePart, Expr, Function, JoinKind, Node, Type, Value,
};
use trireme_exec::operators::FileScan;

use super::tree::{Join, Op, RelationId, Tree};

/// Rows of a stream or table of which nothing is known.
const ROWS_UNKNOWN: f64 = 10_000.0;
/// Distinct strings of a column of which nothing is known: this power of its rows.
const TEXT_DISTINCT_POWER: f64 = 0.5;
const LIKE_PREFIX: f64 = 0.05;
const LIKE_WITHIN: f64 = 0.08;
const RANGE: f64 = 1.0 / 3.0;
const NULLS: f64 = 0.05;
const COUNTS_PER_ROW: f64 = 4.0;
const DAYS_OF_YEAR: f64 = 365.25;
const PREFIXES_PER_CHARACTER: f64 = 12.0;
/// Conditions on aggregates look for the exception.
const HAVING: f64 = 0.3;
const OTHER: f64 = 0.25;

/// What is expected of a column.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct ColumnEstimate {
    pub(super) distinct: f64,
    /// Distinct values of the whole column that it comes from, and that one's rows.
    pub(super) domain: f64,
    pub(super) base_rows: f64,
    /// Bounds of an integral column, in units of its values.
    pub(super) range: Option<(f64, f64)>,
}

/// What is expected of a relation.
#[derive(Debug, Clone)]
pub(super) struct Estimate {
    pub(super) rows: f64,
    pub(super) columns: Vec<ColumnEstimate>,
}

impl ColumnEstimate {
    /// The same column among so many rows.
    pub(super) fn of_rows(self, rows: f64) -> Self {
        Self {
            distinct: self.distinct.min(rows.max(1.0)),
            ..self
        }
    }

    /// A column that is made here.
    fn made(distinct: f64, rows: f64) -> Self {
        Self {
            distinct,
            domain: distinct,
            base_rows: rows,
            range: None,
        }
    }
}

impl Estimate {
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
    parameters: &'a [Value],
    known: HashMap<RelationId, Arc<Estimate>>,
}

impl<'a> Estimator<'a> {
    pub(super) fn new(parameters: &'a [Value]) -> Self {
        Self {
            parameters,
            known: HashMap::new(),
        }
    }

    pub(super) fn of(&mut self, tree: &Tree, id: RelationId) -> Arc<Estimate> {
        if let Some(known) = self.known.get(&id) {
            return Arc::clone(known);
        }
        let made = Arc::new(self.make(tree, id));
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
                grouped(&input, groups, aggregates)
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

    /// The rows of `input` for which all predicates hold.
    pub(super) fn filtered(&self, input: &Estimate, predicates: &[Expr]) -> Estimate {
        let mut conjuncts = Vec::new();
        for predicate in predicates {
            split(predicate, &mut conjuncts);
        }
        let mut part = 1.0;
        let mut columns: HashMap<usize, ColumnEstimate> = HashMap::new();
        for conjunct in conjuncts {
            let bounds = self.bounds(conjunct);
            // Later bounds of a column are within those before.
            let known = bounds.map(|(index, ..)| columns.get(&index).copied().unwrap_or(input.columns[index]));
            if let (Some((index, low, high)), Some(column)) = (bounds, known)
                && let Some((share, range)) = share(column.range, (low, high))
            {
                part *= share;
                let distinct = (column.distinct * share).max(1.0);
                columns.insert(
                    index,
                    ColumnEstimate {
                        distinct,
                        range,
                        ..column
                    },
                );
                continue;
            }
            part *= self.selectivity(input, conjunct);
        }
        let mut kept = input.scaled(part.clamp(1e-9, 1.0));
        for (index, column) in columns {
            kept.columns[index].distinct = kept.columns[index].distinct.min(column.distinct);
            kept.columns[index].range = column.range;
        }
        kept
    }

    /// A comparison of a column with a known constant, as closed bounds.
    fn bounds(&self, expr: &Expr) -> Option<(usize, f64, f64)> {
        let Node::Binary { op, left, right } = &expr.node else {
            return None;
        };
        let (column, value, op) = match (&left.node, &right.node) {
            (Node::Column(index), _) => (*index, self.constant(right)?, *op),
            (_, Node::Column(index)) => (*index, self.constant(left)?, mirrored(*op)),
            _ => return None,
        };
        match op {
            BinaryOperator::Less => Some((column, f64::NEG_INFINITY, value - 1.0)),
            BinaryOperator::LessOrEqual => Some((column, f64::NEG_INFINITY, value)),
            BinaryOperator::Greater => Some((column, value + 1.0, f64::INFINITY)),
            BinaryOperator::GreaterOrEqual => Some((column, value, f64::INFINITY)),
            _ => None,
        }
    }

    fn constant(&self, expr: &Expr) -> Option<f64> {
        let value = match &expr.node {
            Node::Literal(value) => value,
            Node::Parameter(index) => self.parameters.get(*index)?,
            _ => return None,
        };
        match value {
            Value::Int(value) => Some(*value as f64),
            Value::Float(value) if value.is_finite() => Some(*value),
            _ => None,
        }
    }

    /// The part of the rows for which a condition holds.
    fn selectivity(&self, input: &Estimate, expr: &Expr) -> f64 {
        let all = |negated: bool, part: f64| if negated { 1.0 - part } else { part };
        match &expr.node {
            Node::Literal(Value::Boolean(value)) => f64::from(u8::from(*value)),
            Node::Binary { op, left, right } => match op {
                BinaryOperator::And => self.selectivity(input, left) * self.selectivity(input, right),
                BinaryOperator::Or => {
                    let (a, b) = (self.selectivity(input, left), self.selectivity(input, right));
                    a + b - a * b
                }
                BinaryOperator::Equal | BinaryOperator::NotDistinct => {
                    1.0 / input.distinct(left).max(input.distinct(right))
                }
                BinaryOperator::NotEqual | BinaryOperator::Distinct => {
                    1.0 - 1.0 / input.distinct(left).max(input.distinct(right)).max(1.01)
                }
                _ if left.columns().is_empty() || right.columns().is_empty() => {
                    let share = self
                        .bounds(expr)
                        .and_then(|(index, low, high)| share(input.columns[index].range, (low, high)));
                    share.map_or(RANGE, |(share, _)| share)
                }
                _ => 0.5,
            },
            Node::Not(inner) => 1.0 - self.selectivity(input, inner),
            Node::InList { expr, list, negated } => all(*negated, (list.len() as f64 / input.distinct(expr)).min(1.0)),
            Node::Like { pattern, negated, .. } => {
                let within = match &pattern.node {
                    Node::Literal(Value::Bytes(bytes)) => bytes.first() == Some(&b'%'),
                    Node::Parameter(index) => {
                        matches!(self.parameters.get(*index), Some(Value::Bytes(bytes)) if bytes.first() == Some(&b'%'))
                    }
                    _ => true,
                };
                all(*negated, if within { LIKE_WITHIN } else { LIKE_PREFIX })
            }
            // All that are known to be read are true.
            Node::Column(index) if input.columns.get(*index).is_some_and(|column| column.distinct <= 1.0) => 1.0,
            Node::IsNull(_) => NULLS,
            Node::IsNotNull(_) => 1.0 - NULLS,
            _ => OTHER,
        }
    }

    pub(super) fn joined(&self, join: &Join, probe: &Estimate, build: &Estimate) -> Estimate {
        let keys = || join.probe_keys.iter().zip(&join.build_keys);
        let mut inner = match_rows(probe, build, keys());
        let both = || probe.columns.iter().chain(&build.columns).copied();
        if let Some(residual) = &join.residual {
            let pair = Estimate {
                rows: inner,
                columns: both().collect(),
            };
            inner = self.filtered(&pair, std::slice::from_ref(residual)).rows;
        }
        let sure = join.residual.as_ref().map_or(1.0, |_| 0.8);
        let found = |own: &Estimate, other: &Estimate, swap: bool| {
            let sides = |swap: bool| keys().map(move |(probe, build)| if swap { build } else { probe });
            let domain = own.domain(sides(swap)).min(other.domain(sides(!swap)));
            let values: f64 = sides(!swap).map(|key| other.distinct(key)).product();
            (values.min(other.rows) / domain.max(1.0)).min(1.0) * sure
        };
        let (rows, columns): (f64, Vec<_>) = match join.kind {
            JoinKind::Inner => (inner, both().collect()),
            JoinKind::Left => (inner.max(probe.rows), both().collect()),
            JoinKind::BuildOuter => (inner.max(build.rows), both().collect()),
            JoinKind::Full => (inner.max(probe.rows).max(build.rows), both().collect()),
            JoinKind::Semi => {
                let mut kept = probe.scaled(found(probe, build, false));
                for (left, right) in keys() {
                    if let Some(column) = column_of(left).and_then(|index| kept.columns.get_mut(index)) {
                        column.distinct = column.distinct.min(build.distinct(right));
                    }
                }
                return kept;
            }
            JoinKind::Anti => return probe.scaled((1.0 - found(probe, build, false)).max(0.1)),
            JoinKind::BuildSemi => return build.scaled(found(build, probe, true)),
            JoinKind::BuildAnti => return build.scaled((1.0 - found(build, probe, true)).max(0.1)),
            JoinKind::Mark => {
                let mark = [ColumnEstimate::made(2.0, probe.rows)];
                (probe.rows, probe.columns.iter().copied().chain(mark).collect())
            }
        };
        let columns = columns.into_iter().map(|column| ColumnEstimate {
            distinct: column.distinct.min(rows.max(1.0)),
            ..column
        });
        let mut joined = Estimate {
            rows: rows.max(1.0),
            columns: columns.collect(),
        };
        if join.kind == JoinKind::Inner {
            for (left, right) in keys() {
                let most = probe.distinct(left).min(build.distinct(right));
                let right = column_of(right).map(|index| probe.columns.len() + index);
                for index in column_of(left).into_iter().chain(right) {
                    if let Some(column) = joined.columns.get_mut(index) {
                        column.distinct = column.distinct.min(most);
                    }
                }
            }
        }
        joined
    }
}

fn column_of(expr: &Expr) -> Option<usize> {
    match expr.node {
        Node::Column(index) => Some(index),
        _ => None,
    }
}

/// Pairs with equal keys. One side's keys are among the other's, as foreign keys are: the smaller domain is that of the
/// primary key, whose distinct values are known best.
pub(super) fn match_rows<'e>(
    left: &Estimate,
    right: &Estimate,
    keys: impl Iterator<Item = (&'e Expr, &'e Expr)> + Clone,
) -> f64 {
    let on_left = left.domain(keys.clone().map(|(left, _)| left));
    let on_right = right.domain(keys.map(|(_, right)| right));
    (left.rows * right.rows / on_left.min(on_right).max(1.0)).max(1.0)
}

pub(super) fn scan_estimate(scan: &FileScan) -> Estimate {
    let rows = scan.statistics.rows.unwrap_or(ROWS_UNKNOWN).max(1.0);
    let columns = scan.columns.iter().enumerate().map(|(index, column)| {
        let known = scan.statistics.columns.get(index).copied().unwrap_or_default();
        let of_range = known.range.map(|(low, high)| high - low + 1.0);
        let guess = if column.data_type.is_bytes() {
            rows.powf(TEXT_DISTINCT_POWER)
        } else {
            rows
        };
        let distinct = known.distinct.or(of_range).unwrap_or(guess).clamp(1.0, rows);
        ColumnEstimate {
            range: known.range.filter(|_| column.data_type.is_integral()),
            ..ColumnEstimate::made(distinct, rows)
        }
    });
    Estimate {
        rows,
        columns: columns.collect(),
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
    }
}

pub(super) fn grouped(input: &Estimate, groups: &[Expr], aggregates: &[Aggregate]) -> Estimate {
    let values: f64 = groups.iter().map(|group| input.distinct(group)).product();
    let rows = if groups.is_empty() {
        1.0
    } else {
        values.min(input.rows).max(1.0)
    };
    let keys = groups.iter().map(|group| match &group.node {
        Node::Column(index) => ColumnEstimate {
            distinct: input.columns[*index].distinct.min(rows),
            ..input.columns[*index]
        },
        _ => ColumnEstimate::made(input.distinct(group).min(rows), rows),
    });
    // Counts of groups are about as large as groups are.
    let counts = (COUNTS_PER_ROW * input.rows / rows).clamp(1.0, rows);
    let made = aggregates.iter().map(|aggregate| match aggregate.function {
        AggregateFunction::Count => ColumnEstimate::made(counts, rows),
        _ => ColumnEstimate::made(rows, rows),
    });
    Estimate {
        rows,
        columns: keys.chain(made).collect(),
    }
}

/// The part of a closed range of integral values that is within bounds, and what is left of the range.
fn share(range: Option<(f64, f64)>, bounds: (f64, f64)) -> Option<(f64, Option<(f64, f64)>)> {
    let (least, most) = range?;
    let (low, high) = (least.max(bounds.0), most.min(bounds.1));
    let share = ((high - low + 1.0) / (most - least + 1.0)).clamp(0.0, 1.0);
    Some((share, (low <= high).then_some((low, high))))
}

fn split<'e>(expr: &'e Expr, conjuncts: &mut Vec<&'e Expr>) {
    match &expr.node {
        Node::Binary {
            op: BinaryOperator::And,
            left,
            right,
        } => {
            split(left, conjuncts);
            split(right, conjuncts);
        }
        _ => conjuncts.push(expr),
    }
}

fn mirrored(op: BinaryOperator) -> BinaryOperator {
    match op {
        BinaryOperator::Less => BinaryOperator::Greater,
        BinaryOperator::LessOrEqual => BinaryOperator::GreaterOrEqual,
        BinaryOperator::Greater => BinaryOperator::Less,
        BinaryOperator::GreaterOrEqual => BinaryOperator::LessOrEqual,
        other => other,
    }
}
