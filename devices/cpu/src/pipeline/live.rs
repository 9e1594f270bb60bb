//! Which columns of a row somebody reads after a stage: those that nobody does are not carried through joins, and a join whose
//! build columns nobody reads only leaves out rows.

use trireme_device_api::{Expr, JoinKind, Sink};

use super::stages::{Projection, Stage};
use crate::expr::Program;

/// Columns of the last row that the sink reads.
pub(super) fn in_sink(sink: &Sink, columns: usize) -> Vec<bool> {
    let mut live = vec![!matches!(sink, Sink::Aggregate { .. } | Sink::Build(_)); columns];
    let mut mark = |expr: &Expr| {
        for column in expr.columns() {
            live[column] = true;
        }
    };
    match sink {
        Sink::Aggregate { groups, aggregates } => {
            groups.iter().for_each(&mut mark);
            for aggregate in aggregates {
                let order = aggregate.order.iter().map(|key| &key.expr);
                aggregate
                    .argument
                    .iter()
                    .chain(&aggregate.filter)
                    .chain(order)
                    .for_each(&mut mark);
            }
        }
        Sink::Build(build) => build.keys.iter().chain(&build.payload).for_each(&mut mark),
        Sink::Sort { .. } | Sink::Emit { .. } => {}
    }
    live
}

/// Tells probes which columns are read after them, from the last stage to the first; `live` are those that the sink reads.
pub(super) fn mark(stages: &mut [Stage], mut live: Vec<bool>) {
    for stage in stages.iter_mut().rev() {
        match stage {
            Stage::Filter(program) => add_programs(std::slice::from_ref(program), &mut live),
            Stage::Project(projections) => {
                live.resize(projections.len(), false);
                let mut before = Vec::new();
                for (projection, live) in projections.iter().zip(live) {
                    let columns = match projection {
                        Projection::Keep(index) if live => std::slice::from_ref(index),
                        Projection::Keep(_) => &[],
                        // A value that nobody reads is still computed.
                        Projection::Compute(program) => program.columns(),
                    };
                    add(columns, &mut before);
                }
                live = before;
            }
            Stage::Probe(probe) => {
                let kept = match probe.kind {
                    JoinKind::BuildSemi | JoinKind::BuildAnti => 0,
                    _ => probe.columns,
                };
                live.resize(kept.max(live.len()), false);
                let unread = live[kept..].iter().all(|live| !live);
                probe.masks = probe.residual.is_none()
                    && match probe.kind {
                        JoinKind::Semi | JoinKind::Anti => true,
                        JoinKind::Inner => unread && probe.table.is_unique(),
                        _ => false,
                    };
                live.truncate(kept);
                live.resize(probe.columns, false);
                let mut read = live.clone();
                probe
                    .residual
                    .iter()
                    .for_each(|residual| add(residual.columns(), &mut read));
                read.resize(probe.columns, false);
                probe.live = read;
                add_programs(&probe.keys, &mut live);
                probe
                    .residual
                    .iter()
                    .for_each(|residual| add(residual.columns(), &mut live));
                live.truncate(probe.columns);
            }
        }
    }
}

fn add_programs(programs: &[Program], live: &mut Vec<bool>) {
    programs.iter().for_each(|program| add(program.columns(), live));
}

fn add(columns: &[usize], live: &mut Vec<bool>) {
    for column in columns {
        if *column >= live.len() {
            live.resize(column + 1, false);
        }
        live[*column] = true;
    }
}
