//! Steps as nested statements, and what is known of the number of rows that pass them.
//!
//! A filter is an `if` per conjunct, a projection names new values, a probe (`join`) a loop; innermost stands the sink's row.

use std::rc::Rc;

use trireme_device_api::{BinaryOperator, Expr, Node, Probe, Sink as SinkPlan, Step};

use super::{Input, Lowered, Lowering, Row, Sink, Slot, Value, aggregate, emit, join, sort};

/// The sink of the fragment.
pub(super) fn sink<'a>(l: &mut Lowering<'a>) -> Lowered<Box<dyn Sink + 'a>> {
    let fragment = l.fragment();
    match &fragment.sink {
        SinkPlan::Aggregate { groups, aggregates } => Ok(aggregate::sink(l, groups, aggregates)?),
        SinkPlan::Build(side) => Ok(join::build_sink(l, side)?),
        SinkPlan::Sort { keys, limit, offset } => sort::sink(l, keys, *limit, *offset),
        SinkPlan::Emit { limit, offset } => Ok(emit::sink(l, *limit, *offset)?),
    }
}

/// Conjuncts, in order of evaluation.
fn conjuncts<'e>(predicate: &'e Expr, into: &mut Vec<&'e Expr>) {
    match &predicate.node {
        Node::Binary {
            op: BinaryOperator::And,
            left,
            right,
        } => {
            conjuncts(left, into);
            conjuncts(right, into);
        }
        _ => into.push(predicate),
    }
}

impl Lowering<'_> {
    /// Lowers the steps from `index` on, and the sink's row.
    pub(crate) fn steps(&mut self, index: usize, row: &mut Row, sink: &mut dyn Sink) -> Lowered<()> {
        let Some(step) = self.fragment().steps.get(index).filter(|_| self.until != Some(index)) else {
            return sink.row(self, row);
        };
        match step {
            Step::Filter(predicate) => {
                let mut parts = Vec::new();
                conjuncts(predicate, &mut parts);
                self.filter(&parts, row, &mut |l, row| l.steps(index + 1, row, sink))
            }
            Step::Project(exprs) => {
                let mut next = self.project(exprs, row)?;
                self.steps(index + 1, &mut next, sink)
            }
            Step::Probe(probe) => join::probe(self, index, probe, row, sink),
        }
    }

    fn filter(
        &mut self,
        conjuncts: &[&Expr],
        row: &mut Row,
        then: &mut dyn FnMut(&mut Self, &mut Row) -> Lowered<()>,
    ) -> Lowered<()> {
        let Some((first, rest)) = conjuncts.split_first() else {
            return then(self, row);
        };
        let condition = self.condition(row, first)?;
        let mut inner = row.clone();
        self.when(condition, |l| l.filter(rest, &mut inner, then))
    }

    /// Columns stay unloaded until somebody asks for them; what is computed is computed here, for its errors are this step's.
    fn project(&mut self, exprs: &[Expr], row: &mut Row) -> Lowered<Row> {
        let mut slots = Vec::with_capacity(exprs.len());
        for expr in exprs {
            slots.push(match expr.node {
                Node::Column(index) => row.slots[index].clone(),
                _ => Slot::Value(self.expr(row, expr)?),
            });
        }
        Ok(Row { slots })
    }

    /// All columns of a row.
    pub(crate) fn values(&mut self, row: &mut Row) -> Lowered<Vec<Value>> {
        (0..row.slots.len()).map(|index| row.column(self, index)).collect()
    }

    /// Whether rows arrive from several kernels.
    pub(crate) fn has_passes(&self) -> bool {
        self.probes().any(|probe| join::has_pass(probe.kind))
    }

    /// Whether a row of the kernel that is being written may arrive at its sink more than once.
    pub(crate) fn multiplies(&self) -> bool {
        probes(&self.fragment().steps[self.own_steps()]).any(|probe| join::multiplies(self.build_shape(probe), probe))
    }

    /// Upper bound of the rows that can arrive at the sink; none where probes multiply.
    pub(crate) fn rows_bound(&self) -> Option<u64> {
        self.rows_bound_before(self.fragment().steps.len())
    }

    /// Upper bound of the rows that can arrive at a step; none where probes before it multiply.
    pub(crate) fn rows_bound_before(&self, step: usize) -> Option<u64> {
        probes(&self.fragment().steps[..step]).try_fold(self.source_bound(), |rows, probe| {
            join::rows_after(self.build_shape(probe), probe, rows)
        })
    }

    /// The steps of the kernel that is being written.
    pub(crate) fn own_steps(&self) -> std::ops::Range<usize> {
        self.first_step..self.until.unwrap_or(self.fragment().steps.len())
    }

    /// [`Lowering::rows_bound`], or what an earlier run found to be needed, or a guess, which a probe may exceed.
    pub(crate) fn rows_guess(&self) -> u64 {
        let builds = |probe: &Probe| self.build_shape(probe).map_or(0, join::build_rows_bound);
        self.rows_bound().or(self.bound.hints.capacity).unwrap_or_else(|| {
            let most = self.probes().map(builds).max().unwrap_or(0);
            self.source_bound().max(most).max(1024)
        })
    }

    /// What the probe's build fragment left.
    pub(crate) fn build_shape(&self, probe: &Probe) -> Option<&join::BuildShape> {
        match self.bound.outputs.get(probe.build) {
            Some(Some(Input::Build(shape))) => Some(shape),
            _ => None,
        }
    }

    fn probes(&self) -> impl Iterator<Item = &Probe> {
        probes(&self.fragment().steps)
    }
}

fn probes(steps: &[Step]) -> impl Iterator<Item = &Probe> {
    steps.iter().filter_map(|step| match step {
        Step::Probe(probe) => Some(probe),
        _ => None,
    })
}

/// A slot that is computed when it is asked for.
pub(super) fn lazy(load: impl Fn(&mut Lowering<'_>) -> Lowered<Value> + 'static) -> Slot {
    Slot::Load(Rc::new(load))
}
