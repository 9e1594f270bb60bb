//! Rows after each step of a fragment, from distinct counts and bounds where they are known, else by rules of thumb.
//!
//! The rules are those of the planner's join order: conditions are independent, and of two joined columns one side's values are
//! among the other's.

use std::collections::HashMap;

use trireme_device_api::{
    Aggregate, BinaryOperator, Expr, Fragment, FragmentId, JoinKind, Node, Probe, Sink, Step, Value,
};

use super::relation::{Column, Origin, Relation, Text};
use super::work::{Meter, Random, Updates};
use super::{FragmentFacts, Known, Rows, RowsFrom, SinkKind};

const LIKE_PREFIX: f64 = 0.05;
const LIKE_WITHIN: f64 = 0.08;
const RANGE: f64 = 1.0 / 3.0;
const NULLS: f64 = 0.05;
const OTHER: f64 = 0.25;
/// Conditions beside equal keys keep so much of a semi join's matches.
const RESIDUAL_MATCHES: f64 = 0.8;
/// Anti joins keep at least this.
const ANTI_LEAST: f64 = 0.1;

/// Join tables whose keys, packed into one number, are below this many times their rows are arrays …
const DENSE_KEYS_PER_ROW: f64 = 8.0;
/// … and always below this.
const DENSE_KEYS: f64 = 262_144.0;
const DENSE_SLOT_BYTES: f64 = 4.0;
/// Those below this many times their rows are a bit per key, with counts, before a dense array …
const RANKED_KEYS_PER_ROW: f64 = 1_024.0;
/// … and always below the first, never above the second.
const RANKED_KEYS: (f64, f64) = (8_388_608.0, 134_217_728.0);
const RANKED_KEY_BYTES: f64 = 0.1875;
/// Groups whose keys are numbers below this are an array.
const DIRECT_SLOTS: f64 = 16_777_216.0;
/// Bytes of a hash table's slot beside the key; half of the slots are empty.
const HASH_SLOT_BYTES: f64 = 8.0;
const HASH_SLOTS_PER_ROW: f64 = 2.0;
/// Bytes of one aggregate of a group.
const STATE_BYTES: f64 = 16.0;

/// A build side.
#[derive(Debug, Clone)]
struct Build {
    rows: Relation,
    keys: Vec<Column>,
    /// Of what keys are looked up in, and whether that is a hash table.
    index_bytes: f64,
    hashed: bool,
}

/// Walks through a graph's fragments in order.
pub(super) struct Estimator<'a> {
    parameters: &'a [Value],
    known: &'a Known,
    outputs: Vec<Relation>,
    builds: HashMap<FragmentId, Build>,
}

impl<'a> Estimator<'a> {
    pub(super) fn new(parameters: &'a [Value], known: &'a Known) -> Self {
        Self {
            parameters,
            known,
            outputs: Vec::new(),
            builds: HashMap::new(),
        }
    }

    /// The rows that an earlier fragment left, as a source.
    pub(super) fn output(&self, id: FragmentId) -> Relation {
        match self.outputs.get(id) {
            Some(output) => output.clone().into_source(),
            None => Relation::of_stream(None, &[]),
        }
    }

    /// What a fragment needs.
    pub(super) fn fragment(&mut self, id: FragmentId, fragment: &Fragment, source: Relation) -> FragmentFacts {
        let mut meter = Meter::new(&source);
        let source_rows = source.rows;
        let mut relation = source;
        let mut step_rows = Vec::with_capacity(fragment.steps.len());
        let mut builds = Vec::new();
        if let Some(rows) = self.known.steps.get(&(id, 0)) {
            relation = relation.counted(*rows);
        }
        for (index, step) in fragment.steps.iter().enumerate() {
            relation = match step {
                Step::Filter(predicate) => self.filtered(relation, predicate, Some(&mut meter)),
                Step::Project(exprs) => {
                    exprs
                        .iter()
                        .filter(|expr| !matches!(expr.node, Node::Column(_)))
                        .for_each(|expr| meter.evaluate(expr, &relation));
                    Relation {
                        rows: relation.rows,
                        columns: exprs.iter().map(|expr| relation.column(expr)).collect(),
                    }
                }
                Step::Probe(probe) => {
                    builds.push(probe.build);
                    self.probed(relation, probe, &mut meter)
                }
            };
            if let Some(rows) = self.known.steps.get(&(id, index + 1)) {
                relation = relation.counted(*rows);
            }
            step_rows.push(relation.rows);
        }
        let (output, table_bytes) = self.sunk(id, &fragment.sink, &relation, &mut meter);
        let (work, source_bytes, encoded_bytes) = {
            let nodes = meter.nodes;
            let (work, memory_bytes, file_bytes) = meter.finish();
            ((work, nodes), memory_bytes, file_bytes)
        };
        let facts = FragmentFacts {
            text: String::new(),
            source: fragment.source.clone(),
            builds,
            sink: SinkKind::of(&fragment.sink),
            source_rows,
            source_bytes,
            encoded_bytes,
            step_rows,
            output_rows: output.rows,
            output_bytes: output.rows.rows * output.row_bytes(),
            table_bytes,
            nodes: work.1,
            work: work.0,
        };
        self.outputs.push(output);
        facts
    }

    /// The rows for which a predicate holds; its conjuncts are evaluated one after another, each by the rows that are left.
    fn filtered(&self, mut relation: Relation, predicate: &Expr, mut meter: Option<&mut Meter>) -> Relation {
        let mut conjuncts = Vec::new();
        split(predicate, &mut conjuncts);
        for conjunct in conjuncts {
            if let Some(meter) = meter.as_deref_mut() {
                meter.evaluate(conjunct, &relation);
            }
            relation = self.kept(&relation, conjunct);
        }
        relation
    }

    fn kept(&self, relation: &Relation, conjunct: &Expr) -> Relation {
        if let Some((index, low, high)) = self.bounds(conjunct)
            && let Some(column) = relation.columns.get(index)
            && let Some((part, range)) = share(column.range, low, high)
        {
            let distinct = (column.distinct * part).max(1.0);
            let mut kept = relation.scaled(part, RowsFrom::Sketch);
            let column = &mut kept.columns[index];
            column.distinct = column.distinct.min(distinct);
            column.range = Some(range);
            return kept;
        }
        let (part, from) = self.selectivity(relation, conjunct);
        relation.scaled(part.clamp(1e-9, 1.0), from)
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
    fn selectivity(&self, relation: &Relation, expr: &Expr) -> (f64, RowsFrom) {
        let guess = |part: f64| (part, RowsFrom::Default);
        let from = |operands: &[&Expr]| match operands.iter().any(|operand| relation.is_known(operand)) {
            true => RowsFrom::Sketch,
            false => RowsFrom::Default,
        };
        let all = |negated: bool, part: f64| if negated { 1.0 - part } else { part };
        match &expr.node {
            Node::Literal(Value::Boolean(value)) => (f64::from(u8::from(*value)), RowsFrom::Exact),
            Node::Binary { op, left, right } => {
                let distinct = relation.distinct(left).max(relation.distinct(right));
                match op {
                    BinaryOperator::And | BinaryOperator::Or => {
                        let (a, from_a) = self.selectivity(relation, left);
                        let (b, from_b) = self.selectivity(relation, right);
                        let both = a * b;
                        let part = if *op == BinaryOperator::And { both } else { a + b - both };
                        (part, from_a.max(from_b))
                    }
                    BinaryOperator::Equal | BinaryOperator::NotDistinct => (1.0 / distinct, from(&[left, right])),
                    BinaryOperator::NotEqual | BinaryOperator::Distinct => {
                        (1.0 - 1.0 / distinct.max(1.01), from(&[left, right]))
                    }
                    _ if left.columns().is_empty() || right.columns().is_empty() => {
                        let bounds = self
                            .bounds(expr)
                            .and_then(|(index, low, high)| share(relation.columns.get(index)?.range, low, high));
                        bounds.map_or(guess(RANGE), |(part, _)| (part, RowsFrom::Sketch))
                    }
                    _ => guess(0.5),
                }
            }
            Node::Not(inner) => {
                let (part, from) = self.selectivity(relation, inner);
                (1.0 - part, from)
            }
            Node::InList { expr, list, negated } => {
                let part = (list.len() as f64 / relation.distinct(expr)).min(1.0);
                (all(*negated, part), from(&[expr]))
            }
            Node::Like { pattern, negated, .. } => guess(all(
                *negated,
                if self.is_within(pattern) {
                    LIKE_WITHIN
                } else {
                    LIKE_PREFIX
                },
            )),
            Node::IsNull(_) => guess(NULLS),
            Node::IsNotNull(_) => guess(1.0 - NULLS),
            _ => guess(OTHER),
        }
    }

    /// A LIKE pattern that may match anywhere.
    fn is_within(&self, pattern: &Expr) -> bool {
        let value = match &pattern.node {
            Node::Literal(value) => Some(value),
            Node::Parameter(index) => self.parameters.get(*index),
            _ => None,
        };
        !matches!(value, Some(Value::Bytes(bytes)) if bytes.first() != Some(&b'%'))
    }

    fn probed(&self, relation: Relation, probe: &Probe, meter: &mut Meter) -> Relation {
        meter.keys(probe.keys.iter(), &relation);
        let Some(build) = self.builds.get(&probe.build) else {
            return relation;
        };
        let each = match probe.keys.is_empty() {
            // A cross join: every build row is met.
            true => build.rows.rows.rows,
            false => 1.0,
        };
        meter.work.lookups.push(Random {
            footprint_bytes: build.index_bytes,
            accesses: relation.rows.rows * each,
            hashed: build.hashed,
        });
        let mut build_rows = build.rows.clone();
        for column in &mut build_rows.columns {
            column.origin = meter.payload(column.bytes * build.rows.rows.rows);
        }
        let pairs = pairs(&relation, &build_rows, probe, &build.keys);
        let pairs = match &probe.residual {
            Some(residual) => {
                meter.evaluate(residual, &pairs);
                self.filtered(pairs, residual, None)
            }
            None => pairs,
        };
        joined(relation, build_rows, pairs, probe, &build.keys)
    }

    /// What is left, and the memory of the sink's table.
    fn sunk(&mut self, id: FragmentId, sink: &Sink, relation: &Relation, meter: &mut Meter) -> (Relation, f64) {
        let rows = relation.rows;
        let (mut output, table_bytes) = match sink {
            Sink::Aggregate { groups, aggregates } => {
                let known = self.known.outputs.get(&id).copied();
                return grouped(relation, groups, aggregates, known, meter);
            }
            Sink::Build(side) => {
                side.keys
                    .iter()
                    .chain(&side.payload)
                    .for_each(|expr| meter.evaluate(expr, relation));
                let kept = Relation {
                    rows,
                    columns: side.payload.iter().map(|expr| relation.column(expr)).collect(),
                };
                let kept = match self.known.outputs.get(&id) {
                    Some(known) => kept.counted(*known),
                    None => kept,
                };
                let keys: Vec<_> = side.keys.iter().map(|key| relation.column(key)).collect();
                let (index_bytes, hashed) = index(kept.rows.rows, &keys);
                let table_bytes = index_bytes + kept.rows.rows * kept.row_bytes();
                meter.work.inserts = Some(Random {
                    footprint_bytes: index_bytes,
                    accesses: rows.rows,
                    hashed,
                });
                meter.work.written_bytes += kept.rows.rows * kept.row_bytes();
                let build = Build {
                    rows: kept.clone(),
                    keys,
                    index_bytes,
                    hashed,
                };
                self.builds.insert(id, build);
                (kept, table_bytes)
            }
            Sink::Sort { keys, limit, offset } => {
                keys.iter().for_each(|key| meter.evaluate(&key.expr, relation));
                let output = limited(relation, *limit, *offset);
                meter.read_all(&output);
                meter.work.comparisons += comparisons(rows.rows, output.rows.rows + *offset as f64);
                let bytes = output.rows.rows * output.row_bytes();
                meter.work.written_bytes += bytes;
                (output, bytes)
            }
            Sink::Emit { limit, offset } => {
                let output = limited(relation, *limit, *offset);
                meter.read_all(&output);
                if limit.is_some() && rows.rows > 0.0 {
                    let early = (output.rows.rows + *offset as f64) / rows.rows;
                    meter.work.scale(early.min(1.0));
                }
                meter.work.written_bytes += output.rows.rows * output.row_bytes();
                (output, 0.0)
            }
        };
        if let Some(known) = self.known.outputs.get(&id) {
            output = output.counted(*known);
        }
        (output, table_bytes)
    }
}

/// Pairs with equal keys. One side's keys are among the other's, as foreign keys are: the smaller domain is that of the
/// primary key, whose distinct values are known best.
fn pairs(relation: &Relation, build: &Relation, probe: &Probe, keys: &[Column]) -> Relation {
    let on_probe = relation.domain(probe.keys.iter());
    let (values, rows) = keys.iter().fold((1.0, 1.0_f64), |(values, rows), key| {
        (values * key.domain, rows.max(key.base_rows))
    });
    let on_build = values.min(rows);
    let known = probe.keys.iter().any(|key| relation.is_known(key)) || keys.iter().any(|key| key.known);
    let count = relation.rows.rows * build.rows.rows / on_probe.min(on_build).max(1.0);
    let from = if known || keys.is_empty() {
        RowsFrom::Sketch
    } else {
        RowsFrom::Default
    };
    Relation {
        rows: Rows {
            rows: count,
            from: relation.rows.from.max(build.rows.from).max(from),
        },
        columns: relation.columns.iter().chain(&build.columns).copied().collect(),
    }
}

/// What a join of this kind leaves of its pairs.
fn joined(relation: Relation, build: Relation, pairs: Relation, probe: &Probe, keys: &[Column]) -> Relation {
    let from = pairs.rows.from;
    let with = |count: f64| Relation {
        rows: Rows { rows: count, from },
        columns: pairs.columns.clone(),
    };
    let sure = probe.residual.as_ref().map_or(1.0, |_| RESIDUAL_MATCHES);
    let values = |columns: &mut dyn Iterator<Item = f64>, rows: f64| columns.product::<f64>().min(rows);
    let on_build = values(&mut keys.iter().map(|key| key.distinct), build.rows.rows);
    let on_probe = values(
        &mut probe.keys.iter().map(|key| relation.distinct(key)),
        relation.rows.rows,
    );
    let domain = relation
        .domain(probe.keys.iter())
        .min(values(&mut keys.iter().map(|key| key.domain), f64::INFINITY))
        .max(1.0);
    let found = |others: f64| (others / domain).min(1.0) * sure;
    match probe.kind {
        JoinKind::Inner => pairs,
        JoinKind::Left => with(pairs.rows.rows.max(relation.rows.rows)),
        JoinKind::BuildOuter => with(pairs.rows.rows.max(build.rows.rows)),
        JoinKind::Full => with(pairs.rows.rows.max(relation.rows.rows).max(build.rows.rows)),
        JoinKind::Semi => relation.scaled(found(on_build), from),
        JoinKind::Anti => relation.scaled((1.0 - found(on_build)).max(ANTI_LEAST), from),
        JoinKind::BuildSemi => build.scaled(found(on_probe), from),
        JoinKind::BuildAnti => build.scaled((1.0 - found(on_probe)).max(ANTI_LEAST), from),
        JoinKind::Mark => {
            let mut marked = relation;
            let mark = Column {
                bytes: 1.0,
                encoded_bytes: 1.0,
                distinct: 2.0,
                domain: 2.0,
                base_rows: marked.rows.rows,
                range: None,
                text: Text::No,
                origin: Origin::Made,
                known: true,
            };
            marked.columns.push(mark);
            marked
        }
    }
}

fn grouped(
    relation: &Relation,
    groups: &[Expr],
    aggregates: &[Aggregate],
    known: Option<Rows>,
    meter: &mut Meter,
) -> (Relation, f64) {
    let rows = relation.rows;
    meter.keys(groups.iter(), relation);
    let is_known = groups.iter().all(|expr| relation.is_known(expr));
    let values: f64 = groups.iter().map(|expr| relation.distinct(expr)).product();
    let estimate = match groups.is_empty() {
        true => Rows::exact(1.0),
        false => Rows {
            rows: super::relation::kept_distinct(values, values.max(rows.rows), rows.rows).min(rows.rows.max(1.0)),
            from: rows
                .from
                .max(if is_known { RowsFrom::Sketch } else { RowsFrom::Default }),
        },
    };
    let output_rows = known.unwrap_or(estimate);
    for aggregate in aggregates {
        aggregate
            .argument
            .iter()
            .chain(&aggregate.filter)
            .chain(aggregate.order.iter().map(|key| &key.expr))
            .for_each(|expr| meter.evaluate(expr, relation));
        meter.nodes += 1.0;
        meter.work.simple_operations += rows.rows;
        if let (true, Some(argument)) = (aggregate.distinct, &aggregate.argument) {
            let values = (relation.distinct(argument) * output_rows.rows).min(rows.rows);
            meter.work.updates.push(Updates {
                groups: values,
                rows: rows.rows,
                hashed: true,
            });
        }
    }
    if !groups.is_empty() {
        meter.work.updates.push(Updates {
            groups: output_rows.rows,
            rows: rows.rows,
            hashed: slots(groups.iter().map(|group| relation.column(group))) > DIRECT_SLOTS,
        });
    }
    let columns = groups.iter().map(|expr| Column {
        origin: Origin::Made,
        ..relation.column(expr)
    });
    let states = aggregates.iter().map(|aggregate| Column {
        bytes: super::type_bytes(&aggregate.data_type),
        encoded_bytes: 0.0,
        distinct: output_rows.rows,
        domain: output_rows.rows,
        base_rows: output_rows.rows,
        range: None,
        text: Text::No,
        origin: Origin::Made,
        known: false,
    });
    let output = Relation {
        rows: output_rows,
        columns: columns.chain(states).collect(),
    };
    let table_bytes = output_rows.rows * (output.row_bytes() + aggregates.len() as f64 * STATE_BYTES);
    (output.counted(output_rows), table_bytes)
}

/// Numbers that keys can be packed into; endless when one of them is no number.
fn slots(keys: impl Iterator<Item = Column>) -> f64 {
    let of = |column: Column| match (column.text, column.range) {
        (Text::Codes, _) => column.domain + 1.0,
        (Text::No, Some((low, high))) => high - low + 2.0,
        _ => f64::INFINITY,
    };
    keys.map(of).product()
}

/// Memory of what keys are looked up in, and whether that is a hash table.
fn index(rows: f64, keys: &[Column]) -> (f64, bool) {
    let slots = slots(keys.iter().copied());
    let ranked = (RANKED_KEYS_PER_ROW * rows).clamp(RANKED_KEYS.0, RANKED_KEYS.1);
    if keys.is_empty() {
        return (0.0, false);
    }
    if slots <= (DENSE_KEYS_PER_ROW * rows).max(DENSE_KEYS) {
        return (slots * DENSE_SLOT_BYTES, false);
    }
    if slots <= ranked {
        return (slots * RANKED_KEY_BYTES + rows * DENSE_SLOT_BYTES, false);
    }
    let key_bytes: f64 = keys.iter().map(|key| key.bytes).sum();
    (rows * HASH_SLOTS_PER_ROW * (HASH_SLOT_BYTES + key_bytes), true)
}

fn limited(relation: &Relation, limit: Option<usize>, offset: usize) -> Relation {
    let most = limit.map_or(f64::INFINITY, |limit| limit as f64);
    let rows = (relation.rows.rows - offset as f64).clamp(0.0, most);
    relation.scaled(rows / relation.rows.rows.max(1e-9), RowsFrom::Exact)
}

/// To sort rows of which the first `kept` are wanted: each is compared with the last of those kept, few enter.
fn comparisons(rows: f64, kept: f64) -> f64 {
    if kept >= rows {
        return rows * rows.max(2.0).log2();
    }
    let entering = kept * (1.0 + (rows / kept.max(1.0)).ln());
    rows + entering * kept.max(2.0).log2()
}

/// The part of a column's values within closed bounds, and what bounds are left.
fn share(range: Option<(f64, f64)>, low: f64, high: f64) -> Option<(f64, (f64, f64))> {
    let (least, most) = range?;
    let (low, high) = (low.max(least), high.min(most));
    let values = (most - least + 1.0).max(1.0);
    match low <= high {
        true => Some((((high - low + 1.0) / values).min(1.0), (low, high))),
        false => Some((1.0 / values.max(1e3), (least, least))),
    }
}

fn split<'e>(expr: &'e Expr, into: &mut Vec<&'e Expr>) {
    match &expr.node {
        Node::Binary {
            op: BinaryOperator::And,
            left,
            right,
        } => {
            split(left, into);
            split(right, into);
        }
        _ => into.push(expr),
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
