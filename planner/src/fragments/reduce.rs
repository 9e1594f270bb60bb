//! Aggregates that only feed a join see only the join's keys.
//!
//! ```text
//!  before:  scan ─▶ aggregate by k ─▶ probe B (k)            after:  scan ─▶ probe B semi (k) ─▶ aggregate by k ─▶ probe B (k)
//! ```
//!
//! A group whose key is not in the build side is made for nothing: in `x < (SELECT avg(x) … WHERE key = outer key)` that is
//! nearly all of them. Only where the build side holds part of its table: otherwise the probe would cost and drop nothing.

use trireme_device_api::{Expr, FragmentId, Graph, JoinKind, Node, Probe, Sink, Source, Step};

/// Adds the semi probes.
pub(super) fn reduce(graph: &mut Graph) {
    let mut id = 0;
    while id < graph.fragments.len() {
        if let Some((aggregate, probe)) = found(graph, id) {
            let build = probe.build;
            graph.fragments[aggregate].steps.push(Step::Probe(probe));
            if build > aggregate {
                move_behind(graph, aggregate, build);
            }
        }
        id += 1;
    }
}

/// The aggregate that fragment `id` reads, and the probe to put before it.
fn found(graph: &Graph, id: FragmentId) -> Option<(FragmentId, Probe)> {
    let fragment = &graph.fragments[id];
    let Source::Fragment(from) = fragment.source else {
        return None;
    };
    let Sink::Aggregate { groups, .. } = &graph.fragments[from].sink else {
        return None;
    };
    let readers = graph
        .fragments
        .iter()
        .filter(|other| other.inputs().contains(&from))
        .count();
    if groups.is_empty() || readers != 1 {
        return None;
    }
    let probe = first_probe(fragment)?;
    let drops = matches!(
        probe.kind,
        JoinKind::Inner | JoinKind::BuildSemi | JoinKind::BuildAnti | JoinKind::BuildOuter
    );
    if !drops || probe.keys.is_empty() || probe.null_aware {
        return None;
    }
    if !is_restricted(graph, probe.build) || depends(graph, probe.build, from) {
        return None;
    }
    let keys = group_keys(fragment, groups, probe)?;
    let semi = Probe {
        build: probe.build,
        kind: JoinKind::Semi,
        keys,
        residual: None,
        null_equals_null: probe.null_equals_null,
        null_aware: false,
    };
    let again = Step::Probe(semi.clone());
    (!graph.fragments[from].steps.contains(&again)).then_some((from, semi))
}

fn first_probe(fragment: &trireme_device_api::Fragment) -> Option<&Probe> {
    fragment.steps.iter().find_map(|step| match step {
        Step::Probe(probe) => Some(probe),
        _ => None,
    })
}

/// The group expressions that the probe's keys are, if each is one.
fn group_keys(fragment: &trireme_device_api::Fragment, groups: &[Expr], probe: &Probe) -> Option<Vec<Expr>> {
    // Which group each column of the current row is.
    let mut row: Vec<Option<usize>> = (0..groups.len()).map(Some).collect();
    for step in &fragment.steps {
        match step {
            Step::Filter(_) => {}
            Step::Project(exprs) => {
                let column = |expr: &Expr| match expr.node {
                    Node::Column(index) => row.get(index).copied().flatten(),
                    _ => None,
                };
                row = exprs.iter().map(column).collect();
            }
            Step::Probe(_) => break,
        }
    }
    let group = |key: &Expr| match key.node {
        Node::Column(index) => row.get(index).copied().flatten().map(|group| groups[group].clone()),
        _ => None,
    };
    probe.keys.iter().map(group).collect()
}

/// The fragment's rows are but a part of what it reads.
fn is_restricted(graph: &Graph, id: FragmentId) -> bool {
    let fragment = &graph.fragments[id];
    let steps = fragment.steps.iter().any(|step| match step {
        Step::Filter(_) => true,
        Step::Probe(probe) => {
            matches!(probe.kind, JoinKind::Inner | JoinKind::Semi | JoinKind::BuildSemi)
                && is_restricted(graph, probe.build)
        }
        Step::Project(_) => false,
    });
    steps || matches!(fragment.source, Source::Fragment(from) if is_restricted(graph, from))
}

fn depends(graph: &Graph, id: FragmentId, on: FragmentId) -> bool {
    graph.fragments[id]
        .inputs()
        .into_iter()
        .any(|input| input == on || depends(graph, input, on))
}

/// Puts a fragment right behind a later one.
fn move_behind(graph: &mut Graph, from: FragmentId, to: FragmentId) {
    let moved = graph.fragments.remove(from);
    graph.fragments.insert(to, moved);
    let place = |id: FragmentId| match id {
        id if id == from => to,
        id if id > from && id <= to => id - 1,
        id => id,
    };
    for fragment in &mut graph.fragments {
        if let Source::Fragment(id) = &mut fragment.source {
            *id = place(*id);
        }
        for step in &mut fragment.steps {
            if let Step::Probe(probe) = step {
                probe.build = place(probe.build);
            }
        }
    }
}
