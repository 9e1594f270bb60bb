//! How many rows every fragment of a graph is expected to read, to carry from step to step and to leave, and how that is known.
//!
//! The estimates of `estimate`, walked over a finished graph instead of the tree it was cut from: so they can be made again
//! with a cached plan's values, and with true counts in the place of those fragments that have run.

use std::fmt;
use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;
use trireme_costs::rows::{Estimate, Rules};
use trireme_device_api::{BinaryOperator, Expr, Fragment, Graph, JoinKind, Node, Sink, Source, Step, Value};
use trireme_exec::operators::{Expectations, Expected, FileScan, Provenance};
use trireme_exec::statistics::Statistics;

use super::estimate::{Estimator, scan_estimate, stream_estimate};
use super::name::Name;
use super::tree::Join;

/// What is known of a graph's inputs, for [`Expectations`].
pub(super) struct KnownInputs {
    scans: Vec<Known>,
    streams: Vec<Known>,
    statistics: Arc<Statistics>,
}

impl KnownInputs {
    pub(super) fn of(
        graph: &Graph,
        scans: &[FileScan],
        streams: &[&Arc<dyn ExecutionPlan>],
        statistics: &Arc<Statistics>,
    ) -> Self {
        let stream = |(plan, fields): (&&Arc<dyn ExecutionPlan>, &Vec<_>)| unknown(stream_estimate(plan, fields.len()));
        Self {
            scans: scans.iter().map(scan_known).collect(),
            streams: streams.iter().zip(&graph.streams).map(stream).collect(),
            statistics: Arc::clone(statistics),
        }
    }
}

impl fmt::Debug for KnownInputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = |known: &[Known]| known.iter().map(|known| known.estimate.rows).collect::<Vec<_>>();
        f.debug_struct("KnownInputs")
            .field("scans", &rows(&self.scans))
            .field("streams", &rows(&self.streams))
            .finish()
    }
}

impl Expectations for KnownInputs {
    fn rows(&self, graph: &Graph, parameters: &[Value], counted: &[Option<f64>]) -> Vec<Expected> {
        let mut walk = Walk {
            graph,
            inputs: self,
            parameters,
            estimator: Estimator::learned(parameters, &self.statistics),
            left: Vec::with_capacity(graph.fragments.len()),
        };
        let count = |id: usize| counted.get(id).copied().flatten();
        (0..graph.fragments.len())
            .map(|id| walk.fragment(&graph.fragments[id], count(id)))
            .collect()
    }
}

fn scan_known(scan: &FileScan) -> Known {
    let of = |column: usize| match scan.statistics.columns.get(column) {
        Some(known) if known.cached => Provenance::Cache,
        Some(known) if known.distinct.is_some() || scan.statistics.sketch.is_some() => Provenance::Sketch,
        Some(known) if known.range.is_some() => Provenance::Bounds,
        _ => Provenance::Default,
    };
    Known {
        estimate: scan_estimate(scan),
        rows: match scan.statistics.rows {
            Some(_) => Provenance::Exact,
            None => Provenance::Default,
        },
        columns: (0..scan.columns.len()).map(of).collect(),
        name: Some(Name::of_scan(scan)),
    }
}

/// Rows and how they are known, by column too.
#[derive(Clone)]
struct Known {
    estimate: Estimate,
    rows: Provenance,
    columns: Vec<Provenance>,
    /// None where it reads what has no version.
    name: Option<Name>,
}

impl Known {
    /// As an earlier run counted it, if one did.
    fn or_seen(mut self, estimator: &Estimator<'_>) -> Self {
        let name = self.name.as_ref().map(Name::fingerprint);
        if let Some(rows) = name.and_then(|name| estimator.seen(name)) {
            self.estimate = self.estimate.with_rows(rows);
            self.rows = Provenance::Feedback;
        }
        self
    }
}

struct Walk<'a> {
    graph: &'a Graph,
    inputs: &'a KnownInputs,
    parameters: &'a [Value],
    estimator: Estimator<'a>,
    /// What the fragments before leave: for a build, its payload and then its keys.
    left: Vec<Known>,
}

impl Walk<'_> {
    fn fragment(&mut self, fragment: &Fragment, counted: Option<f64>) -> Expected {
        let mut row = self.source(&fragment.source);
        let source_rows = row.estimate.rows;
        let mut step_rows = Vec::with_capacity(fragment.steps.len());
        for step in &fragment.steps {
            row = self.step(row, step);
            if !matches!(step, Step::Project(_)) {
                row = row.or_seen(&self.estimator);
            }
            step_rows.push(row.estimate.rows);
        }
        let mut left = sink(&row, &fragment.sink, &self.estimator.rules);
        if matches!(fragment.sink, Sink::Aggregate { .. }) {
            left = left.or_seen(&self.estimator);
        }
        let name_of = |known: &Known| known.name.as_ref().map(Name::fingerprint);
        // A limit ends a fragment before all its rows were seen.
        let all_seen = !matches!(
            fragment.sink,
            Sink::Sort { limit: Some(_), .. } | Sink::Emit { limit: Some(_), .. }
        );
        let sink_name = name_of(&row).filter(|_| all_seen && !fragment.steps.is_empty());
        let output_name = name_of(&left).filter(|_| all_seen);
        if let Some(rows) = counted {
            left.estimate = left.estimate.with_rows(rows);
            left.rows = Provenance::Feedback;
        }
        let expected = Expected {
            source_rows,
            step_rows,
            output_rows: left.estimate.rows,
            provenance: left.rows.max(row.rows),
            sink_name,
            output_name,
        };
        self.left.push(left);
        expected
    }

    fn source(&self, source: &Source) -> Known {
        match source {
            Source::Fragment(id) => self.left[*id].clone(),
            Source::Scan(index) => self.inputs.scans[*index].clone(),
            Source::Stream(index) => self.inputs.streams[*index].clone(),
        }
    }

    fn step(&self, row: Known, step: &Step) -> Known {
        match step {
            Step::Filter(predicate) => Known {
                estimate: self
                    .estimator
                    .rules
                    .filtered(&row.estimate, std::slice::from_ref(predicate)),
                rows: row.rows.max(match row.estimate.is_sampled(predicate) {
                    true => Provenance::Sample,
                    false => basis(predicate, &row.columns),
                }),
                columns: row.columns,
                name: row
                    .name
                    .map(|name| name.filtered(std::slice::from_ref(predicate), self.parameters)),
            },
            Step::Project(exprs) => Known {
                estimate: self.estimator.rules.projected(&row.estimate, exprs),
                rows: row.rows,
                columns: exprs.iter().map(|expr| of_values(expr, &row.columns)).collect(),
                name: row.name.map(|name| name.projected(exprs, self.parameters)),
            },
            Step::Probe(probe) => {
                let build = &self.left[probe.build];
                let payload = self.graph.fragments[probe.build].output.len();
                let key = |index: usize, expr: &Expr| Expr::column(payload + index, expr.data_type.clone());
                let join = Join {
                    probe: 0,
                    build: 0,
                    kind: probe.kind,
                    probe_keys: probe.keys.clone(),
                    build_keys: probe
                        .keys
                        .iter()
                        .enumerate()
                        .map(|(index, expr)| key(index, expr))
                        .collect(),
                    residual: probe.residual.clone(),
                    null_equals_null: probe.null_equals_null,
                    null_aware: probe.null_aware,
                };
                let mut estimate = self
                    .estimator
                    .rules
                    .joined(&join.pairing(), &row.estimate, &build.estimate);
                let mut columns = row.columns.clone();
                match probe.kind {
                    JoinKind::Semi | JoinKind::Anti => {}
                    JoinKind::Mark => columns.push(Provenance::Default),
                    JoinKind::BuildSemi | JoinKind::BuildAnti => {
                        columns = build.columns[..payload].to_vec();
                        estimate.columns.truncate(payload);
                    }
                    _ => {
                        columns.extend_from_slice(&build.columns[..payload]);
                        estimate.columns.truncate(columns.len());
                    }
                }
                let keys = probe.keys.iter().map(|key| of_values(key, &row.columns));
                let keys = keys.chain(build.columns[payload..].iter().copied()).max();
                let residual = probe.residual.as_ref().map(|_| Provenance::Default);
                let by = keys.max(residual).unwrap_or(Provenance::Exact);
                let names = row.name.as_ref().zip(build.name.as_ref());
                Known {
                    name: names.map(|(row, build)| probed(&join, row, build, payload, self.parameters)),
                    estimate,
                    rows: row.rows.max(build.rows).max(by),
                    columns,
                }
            }
        }
    }
}

/// The name of a probe's rows: without the build's keys, which stand behind its payload.
fn probed(join: &Join, row: &Name, build: &Name, payload: usize, parameters: &[Value]) -> Name {
    let mut joined = Name::joined(join, row, build, parameters);
    let own = match join.kind {
        JoinKind::BuildSemi | JoinKind::BuildAnti => payload,
        JoinKind::Semi | JoinKind::Anti | JoinKind::Mark => return joined,
        _ => row.width() + payload,
    };
    joined.keep(own);
    joined
}

fn unknown(estimate: Estimate) -> Known {
    Known {
        rows: Provenance::Default,
        columns: vec![Provenance::Default; estimate.columns.len()],
        name: None,
        estimate,
    }
}

fn sink(row: &Known, sink: &Sink, rules: &Rules<'_>) -> Known {
    let parameters = rules.parameters;
    let name = row.name.as_ref();
    match sink {
        Sink::Aggregate { groups, aggregates } => {
            let keys: Vec<_> = groups.iter().map(|group| of_values(group, &row.columns)).collect();
            let by = keys.iter().copied().max();
            Known {
                estimate: rules.grouped(&row.estimate, groups, aggregates),
                rows: by.map_or(Provenance::Exact, |by| by.max(Provenance::Sketch)),
                columns: keys
                    .into_iter()
                    .chain(aggregates.iter().map(|_| Provenance::Default))
                    .collect(),
                name: name.map(|name| name.grouped(groups, aggregates, parameters)),
            }
        }
        Sink::Build(side) => {
            let exprs: Vec<Expr> = side.payload.iter().chain(&side.keys).cloned().collect();
            Known {
                estimate: rules.projected(&row.estimate, &exprs),
                rows: row.rows,
                columns: exprs.iter().map(|expr| of_values(expr, &row.columns)).collect(),
                name: name.map(|name| name.projected(&exprs, parameters)),
            }
        }
        Sink::Sort { limit, offset, .. } | Sink::Emit { limit, offset } => Known {
            estimate: row.estimate.limited(*limit, *offset),
            rows: row.rows,
            columns: row.columns.clone(),
            name: name.map(|name| name.limited(*limit, *offset)),
        },
    }
}

/// How the number of distinct values of an expression is known.
fn of_values(expr: &Expr, columns: &[Provenance]) -> Provenance {
    match expr.node {
        Node::Column(index) => columns.get(index).copied().unwrap_or(Provenance::Default),
        Node::Literal(_) | Node::Parameter(_) => Provenance::Exact,
        _ => Provenance::Default,
    }
}

/// How the share of rows that pass a condition is known.
fn basis(expr: &Expr, columns: &[Provenance]) -> Provenance {
    match &expr.node {
        Node::Literal(_) => Provenance::Exact,
        Node::Not(inner) => basis(inner, columns),
        Node::InList { expr, .. } => of_values(expr, columns),
        Node::Binary { op, left, right } => {
            let sides = of_values(left, columns).max(of_values(right, columns));
            match op {
                BinaryOperator::And | BinaryOperator::Or => basis(left, columns).max(basis(right, columns)),
                BinaryOperator::Equal | BinaryOperator::NotEqual => sides,
                // Bounds tell the share of a range of integral values only.
                _ if left.data_type.is_integral() => sides.max(Provenance::Bounds),
                _ => Provenance::Default,
            }
        }
        _ => Provenance::Default,
    }
}
