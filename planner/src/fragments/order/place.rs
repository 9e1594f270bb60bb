//! A plan's joins, put into the tree.

use trireme_device_api::{Expr, JoinKind};

use super::classes::{Classes, equal};
use super::cluster::{Cluster, column_of};
use super::search::{How, Plan};
use crate::fragments::tree::{Join, RelationId, Tree};

/// What a set of relations became in the tree.
pub(super) struct Placed {
    pub(super) id: RelationId,
    /// Where each of the cluster's columns stands.
    pub(super) columns: Vec<Option<usize>>,
}

impl Placed {
    pub(super) fn at(&self, column: usize) -> usize {
        self.columns.get(column).copied().flatten().unwrap_or(usize::MAX)
    }

    pub(super) fn expr(&self, expr: &Expr) -> Expr {
        let mut expr = expr.clone();
        expr.map_columns(&|column| self.at(column));
        expr
    }
}

/// Puts a set's joins into the tree.
pub(super) fn place(
    tree: &mut Tree,
    cluster: &Cluster,
    classes: &Classes,
    leaves: &[RelationId],
    plan: &Plan,
    set: u64,
) -> Placed {
    let how = plan.get(set).map(|joined| joined.how);
    let (probe_set, build_set) = match how {
        Some(How::Join(probe, build)) => (probe, build),
        Some(How::Relation(index)) => return place_leaf(cluster, index, leaves[index]),
        None => return place_leaf(cluster, 0, leaves[0]),
    };
    let probe = place(tree, cluster, classes, leaves, plan, probe_set);
    let build = place(tree, cluster, classes, leaves, plan, build_set);
    let keys = classes.keys(cluster, probe_set, build_set);
    let width = tree.fields(probe.id).len();
    let mut columns: Vec<_> = (0..cluster.columns.len())
        .map(|column| probe.columns[column].or(build.columns[column].map(|at| width + at)))
        .collect();
    // The probe's own key can be read in the place of the build's, which then needn't be carried.
    for (on_probe, on_build) in &keys {
        if let (Some(a), Some(b)) = (column_of(on_probe), column_of(on_build))
            && !on_probe.data_type.is_float()
            && on_probe.data_type == on_build.data_type
        {
            let twin = build.columns[b];
            for (column, at) in build.columns.iter().enumerate() {
                if at.is_some() && *at == twin {
                    columns[column] = probe.columns[a];
                }
            }
        }
    }
    let id = tree.join(
        Join {
            probe: probe.id,
            build: build.id,
            kind: JoinKind::Inner,
            probe_keys: keys.iter().map(|(key, _)| probe.expr(key)).collect(),
            build_keys: keys.iter().map(|(_, key)| build.expr(key)).collect(),
            residual: None,
            null_equals_null: false,
            null_aware: false,
        },
        None,
    );
    let mut placed = Placed { id, columns };
    let parts = [probe_set, build_set];
    let conditions = cluster.conditions_of(set, &parts).cloned();
    let left_over = classes.left_over(probe_set, build_set).into_iter();
    let left_over = left_over.map(|(left, right)| equal(left, right));
    let conditions = conditions.chain(left_over).map(|condition| placed.expr(&condition));
    let conditions = conditions.collect();
    placed.id = tree.filter(placed.id, conditions);
    placed
}

fn place_leaf(cluster: &Cluster, index: usize, id: RelationId) -> Placed {
    let columns = cluster.columns.iter();
    Placed {
        id,
        columns: columns
            .map(|(relation, column)| (*relation == index).then_some(*column))
            .collect(),
    }
}
