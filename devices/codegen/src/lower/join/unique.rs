//! Build sides whose rows have different keys, as far as plans tell: those of groups.

use trireme_device_api::{BuildSide, Expr, FragmentId, Graph, JoinKind, Node, Sink, Source, Step};

/// No two rows of the build side that fragment `id` ends in have equal keys: it reads groups, each at most once, and all
/// columns of the groups' keys are among its keys.
pub(super) fn has_unique_keys(graph: &Graph, id: FragmentId, side: &BuildSide) -> bool {
    let Some(fragment) = graph.fragments.get(id) else {
        return false;
    };
    let Source::Fragment(source) = fragment.source else {
        return false;
    };
    let Some(Sink::Aggregate { groups, .. }) = graph.fragments.get(source).map(|fragment| &fragment.sink) else {
        return false;
    };
    // Where the columns of the groups stand in the row; a column may be there several times.
    let mut places: Vec<Vec<usize>> = (0..groups.len()).map(|group| vec![group]).collect();
    for step in &fragment.steps {
        match step {
            Step::Filter(_) => {}
            Step::Project(exprs) => {
                for places in &mut places {
                    let holds = |expr: &Expr| matches!(expr.node, Node::Column(column) if places.contains(&column));
                    let moved = exprs.iter().enumerate().filter(|(_, expr)| holds(expr));
                    *places = moved.map(|(place, _)| place).collect();
                }
            }
            Step::Probe(probe) if matches!(probe.kind, JoinKind::Semi | JoinKind::Anti | JoinKind::Mark) => {}
            Step::Probe(_) => return false,
        }
    }
    places.iter().all(|places| {
        let is_key = |expr: &Expr| matches!(expr.node, Node::Column(column) if places.contains(&column));
        side.keys.iter().any(is_key)
    })
}
