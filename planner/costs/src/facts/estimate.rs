//! Rows after each step of a fragment, by the rules of [`crate::rows`], and the work that they make.

use std::collections::HashMap;

use trireme_device_api::{
    Aggregate, BinaryOperator, Expr, Fragment, FragmentId, JoinKind, Node, Probe, Sink, Step, Value,
};

use super::relation::{Column, Origin, Relation, Text};
use super::work::{Meter, Random, Updates};
use super::{FragmentFacts, Known, Rows, RowsFrom, SinkKind};
use crate::rows::{Estimate, Pairing, Rules, split};

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
    /// Its payload, and then its keys.
    rows: Relation,
    payload: usize,
    /// Of what keys are looked up in, and whether that is a hash table.
    index_bytes: f64,
    hashed: bool,
}

/// Walks through a graph's fragments in order.
pub(super) struct Estimator<'a> {
    rules: Rules<'a>,
    known: &'a Known,
    outputs: Vec<Relation>,
    builds: HashMap<FragmentId, Build>,
}

impl<'a> Estimator<'a> {
    pub(super) fn new(parameters: &'a [Value], known: &'a Known) -> Self {
        Self {
            rules: Rules::new(parameters),
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
                    relation.projected(exprs)
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
            first: id == 0,
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
                meter.work.tested_rows += relation.rows.rows;
            }
            relation = self.kept(&relation, conjunct);
        }
        relation
    }

    fn kept(&self, relation: &Relation, conjunct: &Expr) -> Relation {
        let estimate = self.rules.filtered(&relation.estimate, std::slice::from_ref(conjunct));
        let rows = relation.rows.rows * (estimate.rows / relation.estimate.rows);
        Relation {
            rows: Rows {
                rows,
                from: relation.rows.from.max(basis(relation, conjunct)),
            },
            estimate,
            columns: relation.columns.clone(),
        }
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
        let mut payload = build.rows.columns[..build.payload].to_vec();
        for column in &mut payload {
            column.origin = meter.payload(column.bytes * build.rows.rows.rows);
        }
        let keys = probe.keys.iter().enumerate();
        let keys: Vec<_> = keys
            .map(|(at, key)| Expr::column(build.payload + at, key.data_type.clone()))
            .collect();
        let pairing = Pairing {
            kind: probe.kind,
            probe_keys: &probe.keys,
            build_keys: &keys,
            residual: probe.residual.as_ref(),
        };
        let is_known = probe.keys.iter().any(|key| relation.is_known(key))
            || keys.iter().any(|key| build.rows.is_known(key))
            || keys.is_empty();
        let by = if is_known { RowsFrom::Sketch } else { RowsFrom::Default };
        let mut from = relation.rows.from.max(build.rows.rows.from).max(by);
        if let Some(residual) = pairing.residual {
            let inner = Pairing {
                kind: JoinKind::Inner,
                residual: None,
                ..pairing
            };
            let pairs = self.rules.joined(&inner, &relation.estimate, &build.rows.estimate);
            let columns = relation.columns.iter().chain(&payload).copied().collect();
            let pairs = Relation::estimated(pairs, from, columns);
            meter.evaluate(residual, &pairs);
            from = from.max(basis(&pairs, residual));
        }
        let estimate = self.rules.joined(&pairing, &relation.estimate, &build.rows.estimate);
        joined(&relation, payload, estimate, from, probe.kind)
    }

    /// What is left, and the memory of the sink's table.
    fn sunk(&mut self, id: FragmentId, sink: &Sink, relation: &Relation, meter: &mut Meter) -> (Relation, f64) {
        let rows = relation.rows;
        let (mut output, table_bytes) = match sink {
            Sink::Aggregate { groups, aggregates } => {
                let known = self.known.outputs.get(&id).copied();
                return grouped(&self.rules, relation, (groups, aggregates), known, meter);
            }
            Sink::Build(side) => {
                side.keys
                    .iter()
                    .chain(&side.payload)
                    .for_each(|expr| meter.evaluate(expr, relation));
                let exprs: Vec<Expr> = side.payload.iter().chain(&side.keys).cloned().collect();
                let all = relation.projected(&exprs);
                let all = match self.known.outputs.get(&id) {
                    Some(known) => all.counted(*known),
                    None => all,
                };
                let keys = slots(&all, side.payload.len()..exprs.len());
                let mut kept = all.clone();
                kept.columns.truncate(side.payload.len());
                kept.estimate.columns.truncate(side.payload.len());
                let key_bytes = all.row_bytes() - kept.row_bytes();
                let (index_bytes, hashed) = index(kept.rows.rows, side.keys.len(), keys, key_bytes);
                let table_bytes = index_bytes + kept.rows.rows * kept.row_bytes();
                meter.work.inserts = Some(Random {
                    footprint_bytes: index_bytes,
                    accesses: rows.rows,
                    hashed,
                });
                meter.work.written_bytes += kept.rows.rows * kept.row_bytes();
                let build = Build {
                    rows: all,
                    payload: side.payload.len(),
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
                let kept = output.rows.rows + *offset as f64;
                if kept < rows.rows {
                    // Each is compared with the last of those kept, many at once.
                    meter.work.simple_operations += rows.rows;
                }
                meter.work.comparisons += comparisons(rows.rows, kept);
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

/// What a join of this kind leaves, without the build's keys behind its payload.
fn joined(
    relation: &Relation,
    payload: Vec<Column>,
    mut estimate: Estimate,
    from: RowsFrom,
    kind: JoinKind,
) -> Relation {
    let mut columns = relation.columns.clone();
    match kind {
        JoinKind::Semi | JoinKind::Anti => {}
        JoinKind::BuildSemi | JoinKind::BuildAnti => columns = payload,
        JoinKind::Mark => columns.push(Column {
            bytes: 1.0,
            encoded_bytes: 1.0,
            text: Text::No,
            origin: Origin::Made,
            known: true,
        }),
        _ => columns.extend(payload),
    }
    estimate.columns.truncate(columns.len());
    Relation::estimated(estimate, from, columns)
}

/// How the part of the rows that pass a condition is known.
fn basis(relation: &Relation, expr: &Expr) -> RowsFrom {
    let known = |known: bool| if known { RowsFrom::Sketch } else { RowsFrom::Default };
    match &expr.node {
        Node::Literal(_) => RowsFrom::Exact,
        Node::Not(inner) => basis(relation, inner),
        Node::InList { expr, .. } => known(relation.is_known(expr)),
        Node::Binary { op, left, right } => match op {
            BinaryOperator::And | BinaryOperator::Or => basis(relation, left).max(basis(relation, right)),
            BinaryOperator::Equal
            | BinaryOperator::NotDistinct
            | BinaryOperator::NotEqual
            | BinaryOperator::Distinct => known(relation.is_known(left) || relation.is_known(right)),
            _ => {
                let bounded = |side: &Expr| match side.node {
                    Node::Column(index) => relation
                        .estimate
                        .columns
                        .get(index)
                        .is_some_and(|column| column.range.is_some()),
                    _ => side.columns().is_empty(),
                };
                known(bounded(left) && bounded(right))
            }
        },
        _ => RowsFrom::Default,
    }
}

fn grouped(
    rules: &Rules<'_>,
    relation: &Relation,
    (groups, aggregates): (&[Expr], &[Aggregate]),
    known: Option<Rows>,
    meter: &mut Meter,
) -> (Relation, f64) {
    let rows = relation.rows;
    meter.keys(groups.iter(), relation);
    let estimate = rules.grouped(&relation.estimate, groups, aggregates);
    let from = match groups.iter().all(|expr| relation.is_known(expr)) {
        _ if groups.is_empty() => RowsFrom::Exact,
        true => rows.from.max(RowsFrom::Sketch),
        false => RowsFrom::Default,
    };
    let output_rows = known.unwrap_or(Rows {
        rows: estimate.rows,
        from,
    });
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
            let values = (relation.estimate.distinct(argument) * output_rows.rows).min(rows.rows);
            meter.work.updates.push(Updates {
                groups: values,
                rows: rows.rows,
                hashed: true,
            });
        }
    }
    if !groups.is_empty() {
        let keys = relation.projected(groups);
        meter.work.updates.push(Updates {
            groups: output_rows.rows,
            rows: rows.rows,
            hashed: slots(&keys, 0..groups.len()) > DIRECT_SLOTS,
        });
    }
    let keys = groups.iter().map(|expr| Column {
        origin: Origin::Made,
        ..relation.column(expr)
    });
    let states = aggregates.iter().map(|aggregate| Column {
        bytes: super::type_bytes(&aggregate.data_type),
        encoded_bytes: 0.0,
        text: Text::No,
        origin: Origin::Made,
        known: false,
    });
    let output = Relation::estimated(estimate, from, keys.chain(states).collect());
    let table_bytes = output_rows.rows * (output.row_bytes() + aggregates.len() as f64 * STATE_BYTES);
    (output.counted(output_rows), table_bytes)
}

/// Numbers that some columns can be packed into; endless when one of them is no number.
fn slots(of: &Relation, columns: std::ops::Range<usize>) -> f64 {
    let slots = columns.map(|at| match (of.columns[at].text, &of.estimate.columns[at]) {
        (Text::Codes, column) => column.domain + 1.0,
        (Text::No, column) => column.range.map_or(f64::INFINITY, |(low, high)| high - low + 2.0),
        _ => f64::INFINITY,
    });
    slots.product()
}

/// Memory of what keys are looked up in, and whether that is a hash table.
fn index(rows: f64, keys: usize, slots: f64, key_bytes: f64) -> (f64, bool) {
    let ranked = (RANKED_KEYS_PER_ROW * rows).clamp(RANKED_KEYS.0, RANKED_KEYS.1);
    if keys == 0 {
        return (0.0, false);
    }
    if slots <= (DENSE_KEYS_PER_ROW * rows).max(DENSE_KEYS) {
        return (slots * DENSE_SLOT_BYTES, false);
    }
    if slots <= ranked {
        return (slots * RANKED_KEY_BYTES + rows * DENSE_SLOT_BYTES, false);
    }
    (rows * HASH_SLOTS_PER_ROW * (HASH_SLOT_BYTES + key_bytes), true)
}

fn limited(relation: &Relation, limit: Option<usize>, offset: usize) -> Relation {
    let most = limit.map_or(f64::INFINITY, |limit| limit as f64);
    Relation {
        rows: Rows {
            rows: (relation.rows.rows - offset as f64).clamp(0.0, most),
            ..relation.rows
        },
        estimate: relation.estimate.limited(limit, offset),
        columns: relation.columns.clone(),
    }
}

/// To sort rows of which the first `kept` are wanted: few enter these.
fn comparisons(rows: f64, kept: f64) -> f64 {
    if kept >= rows {
        return rows * rows.max(2.0).log2();
    }
    let entering = kept * (1.0 + (rows / kept.max(1.0)).ln());
    entering * kept.max(2.0).log2()
}
