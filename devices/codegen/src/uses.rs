//! Which columns of its source a fragment reads: the others are not loaded.

use trireme_device_api::{Expr, Fragment, JoinKind, Sink, Step};

/// Of `width` source columns, those that are read by a fragment's steps and sink.
pub fn used_columns(fragment: &Fragment, width: usize) -> Vec<bool> {
    let mut used = Used(vec![false; width]);
    for step in &fragment.steps {
        match step {
            Step::Filter(predicate) => used.mark(predicate),
            Step::Project(exprs) => {
                exprs.iter().for_each(|expr| used.mark(expr));
                return used.0;
            }
            Step::Probe(probe) => {
                probe
                    .keys
                    .iter()
                    .chain(&probe.residual)
                    .for_each(|expr| used.mark(expr));
                if matches!(probe.kind, JoinKind::BuildSemi | JoinKind::BuildAnti) {
                    return used.0;
                }
            }
        }
    }
    match &fragment.sink {
        Sink::Aggregate { groups, aggregates } => {
            groups.iter().for_each(|expr| used.mark(expr));
            for aggregate in aggregates {
                let order = aggregate.order.iter().map(|key| &key.expr);
                let exprs = aggregate.argument.iter().chain(&aggregate.filter).chain(order);
                exprs.for_each(|expr| used.mark(expr));
            }
        }
        Sink::Build(build) => build.keys.iter().chain(&build.payload).for_each(|expr| used.mark(expr)),
        Sink::Sort { .. } | Sink::Emit { .. } => used.0.fill(true),
    }
    used.0
}

struct Used(Vec<bool>);

impl Used {
    fn mark(&mut self, expr: &Expr) {
        for index in expr.columns() {
            if let Some(used) = self.0.get_mut(index) {
                *used = true;
            }
        }
    }
}
