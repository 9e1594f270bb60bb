//! What is expected of a tree's relations: what joins are ordered by.
//!
//! From what earlier runs counted of the same sub-plan, else by the rules of `trireme_costs::rows` from what is known of
//! tables. Nothing here changes a result.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use trireme_costs::rows::{ColumnEstimate, Estimate, Part, ROWS_UNKNOWN, Rules};
use trireme_device_api::Value;
use trireme_exec::operators::FileScan;
use trireme_exec::statistics::{Feedback, Statistics};

use super::name::Name;
use super::tree::{Op, RelationId, Tree};

/// Estimates of a tree's relations, each made once.
pub(super) struct Estimator<'a> {
    pub(super) rules: Rules<'a>,
    /// What earlier runs counted.
    feedback: Option<&'a Feedback>,
    known: HashMap<RelationId, Arc<Estimate>>,
    names: HashMap<RelationId, Option<Arc<Name>>>,
}

impl<'a> Estimator<'a> {
    /// By what is known of tables alone.
    pub(super) fn new(parameters: &'a [Value]) -> Self {
        Self {
            rules: Rules::new(parameters),
            feedback: None,
            known: HashMap::new(),
            names: HashMap::new(),
        }
    }

    /// By what earlier runs counted, too.
    pub(super) fn learned(parameters: &'a [Value], statistics: &'a Statistics) -> Self {
        Self {
            rules: Rules::within(parameters, statistics.sample_values_max),
            feedback: Some(&statistics.feedback).filter(|feedback| !feedback.is_empty()),
            ..Self::new(parameters)
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
        let parameters = self.rules.parameters;
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
                match having {
                    true => self.rules.having(&input, predicates),
                    false => self.rules.filtered(&input, predicates),
                }
            }
            Op::Project { input, exprs } => {
                let input = self.of(tree, *input);
                self.rules.projected(&input, exprs)
            }
            Op::Join(join) => {
                let (probe, build) = (self.of(tree, join.probe), self.of(tree, join.build));
                self.rules.joined(&join.pairing(), &probe, &build)
            }
            Op::Aggregate {
                input,
                groups,
                aggregates,
            } => {
                let input = self.of(tree, *input);
                self.rules.grouped(&input, groups, aggregates)
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

pub(super) fn scan_estimate(scan: &FileScan) -> Estimate {
    let sketch = scan.statistics.sketch.as_ref();
    let analyzed = sketch.map(|sketch| sketch.rows);
    let rows = scan.statistics.rows.or(analyzed).unwrap_or(ROWS_UNKNOWN).max(1.0);
    let columns = scan.columns.iter().enumerate().map(|(index, column)| {
        let known = scan.statistics.columns.get(index).copied().unwrap_or_default();
        let at = sketch.and_then(|sketch| sketch.position(&column.name));
        let sketched = at.zip(sketch).and_then(|(at, sketch)| sketch.columns[at].distinct);
        let sampled = at.and_then(|at| u16::try_from(at).ok()).map(|at| (0, at));
        ColumnEstimate {
            sampled,
            nulls: known.nulls,
            ..ColumnEstimate::of_table(rows, sketched.or(known.distinct), known.range, &column.data_type)
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
