//! Neighbouring joins, taken apart into relations, equalities, conditions and reducers.

use trireme_device_api::{Expr, Field, JoinKind, Node};

use super::Ordering;
use crate::fragments::expr::is_infallible;
use crate::fragments::tree::{Join, Op, RelationId, Tree, only_columns};

/// Neighbouring joins, taken apart. Columns of all relations are numbered through.
#[derive(Default)]
pub(super) struct Cluster {
    pub(super) relations: Vec<RelationId>,
    /// The relation of each column, and its place there.
    pub(super) columns: Vec<(usize, usize)>,
    pub(super) fields: Vec<Field>,
    pub(super) equalities: Vec<(Expr, Expr)>,
    pub(super) conditions: Vec<Expr>,
    /// Conditions that can fail.
    pub(super) late: Vec<Expr>,
    pub(super) reducers: Vec<Reducer>,
}

/// A semi or anti join over a cluster.
pub(super) struct Reducer {
    pub(super) relation: RelationId,
    /// Of the cluster and of the relation.
    pub(super) keys: Vec<(Expr, Expr)>,
    /// Over the cluster's columns, then the relation's.
    pub(super) residual: Option<Expr>,
    pub(super) anti: bool,
}

impl Ordering<'_> {
    /// Adds a relation's parts to the cluster; gives the cluster's column of each of the relation's.
    pub(super) fn take_apart(&mut self, tree: &mut Tree, id: RelationId, cluster: &mut Cluster) -> Vec<usize> {
        if !is_part(tree, id) {
            return self.leaf(tree, id, cluster);
        }
        match tree.get(id).op.clone() {
            Op::Filter { input, predicates } => {
                let columns = self.take_apart(tree, input, cluster);
                for mut predicate in predicates {
                    predicate.map_columns(&|column| columns[column]);
                    cluster.condition(predicate);
                }
                columns
            }
            Op::Project { input, exprs } => {
                let columns = self.take_apart(tree, input, cluster);
                exprs
                    .iter()
                    .filter_map(column_of)
                    .map(|column| columns[column])
                    .collect()
            }
            Op::Join(join) if join.kind == JoinKind::Inner => {
                let mut columns = self.take_apart(tree, join.probe, cluster);
                let build = self.take_apart(tree, join.build, cluster);
                for (probe_key, build_key) in join.probe_keys.iter().zip(&join.build_keys) {
                    let (mut left, mut right) = (probe_key.clone(), build_key.clone());
                    left.map_columns(&|column| columns[column]);
                    right.map_columns(&|column| build[column]);
                    cluster.equalities.push((left, right));
                }
                columns.extend(build);
                if let Some(mut residual) = join.residual {
                    residual.map_columns(&|column| columns[column]);
                    cluster.condition(residual);
                }
                columns
            }
            Op::Join(join) => self.take_reducer(tree, &join, cluster),
            _ => self.leaf(tree, id, cluster),
        }
    }

    fn leaf(&mut self, tree: &mut Tree, id: RelationId, cluster: &mut Cluster) -> Vec<usize> {
        let new = self.relation(tree, id);
        let first = cluster.columns.len();
        let (relation, width) = (cluster.relations.len(), tree.fields(new).len());
        cluster.relations.push(new);
        cluster.columns.extend((0..width).map(|column| (relation, column)));
        cluster.fields.extend(tree.fields(new).iter().cloned());
        (first..first + width).collect()
    }

    fn take_reducer(&mut self, tree: &mut Tree, join: &Join, cluster: &mut Cluster) -> Vec<usize> {
        let build_side = matches!(join.kind, JoinKind::BuildSemi | JoinKind::BuildAnti);
        let (own, other) = if build_side {
            (join.build, join.probe)
        } else {
            (join.probe, join.build)
        };
        let columns = self.take_apart(tree, own, cluster);
        let relation = self.relation(tree, other);
        let (own_keys, other_keys) = if build_side {
            (&join.build_keys, &join.probe_keys)
        } else {
            (&join.probe_keys, &join.build_keys)
        };
        let keys = own_keys.iter().zip(other_keys).map(|(own, other)| {
            let mut own = own.clone();
            own.map_columns(&|column| columns[column]);
            (own, other.clone())
        });
        let keys = keys.collect();
        let probe_width = tree.fields(join.probe).len();
        let residual = join.residual.clone().map(|mut residual| {
            // The relation's columns are told by their distance from the end: the cluster's are not all known yet.
            residual.map_columns(&|column| {
                let (of_build, column) = match column.checked_sub(probe_width) {
                    Some(column) => (true, column),
                    None => (false, column),
                };
                if of_build == build_side {
                    columns[column]
                } else {
                    usize::MAX - column
                }
            });
            residual
        });
        cluster.reducers.push(Reducer {
            relation,
            keys,
            residual,
            anti: matches!(join.kind, JoinKind::Anti | JoinKind::BuildAnti),
        });
        columns
    }
}

pub(super) fn column_of(expr: &Expr) -> Option<usize> {
    match expr.node {
        Node::Column(column) => Some(column),
        _ => None,
    }
}

/// A join that a cluster takes apart.
fn is_joining(tree: &Tree, id: RelationId) -> bool {
    match &tree.get(id).op {
        Op::Join(join) if join.null_equals_null || join.null_aware => false,
        Op::Join(join) => match join.kind {
            // A scalar subquery's value is a cross join with one row.
            JoinKind::Inner => !join.probe_keys.is_empty() || tree.row_bounds(join.build).1.is_none_or(|most| most > 1),
            JoinKind::Semi | JoinKind::Anti | JoinKind::BuildSemi | JoinKind::BuildAnti => !join.probe_keys.is_empty(),
            _ => false,
        },
        _ => false,
    }
}

/// A join, or what only rearranges or thins out one.
fn is_part(tree: &Tree, id: RelationId) -> bool {
    match &tree.get(id).op {
        Op::Join(_) => is_joining(tree, id),
        Op::Filter { input, .. } => is_part(tree, *input),
        Op::Project { input, exprs } => only_columns(exprs) && is_part(tree, *input),
        _ => false,
    }
}

/// A part of few enough relations to number in a word.
pub(super) fn is_cluster(tree: &Tree, id: RelationId) -> bool {
    is_part(tree, id) && leaf_count(tree, id) < 60
}

fn leaf_count(tree: &Tree, id: RelationId) -> usize {
    if !is_part(tree, id) {
        return 1;
    }
    tree.get(id)
        .op
        .inputs()
        .into_iter()
        .map(|input| leaf_count(tree, input))
        .sum()
}

impl Cluster {
    pub(super) fn condition(&mut self, expr: Expr) {
        if is_infallible(&expr) {
            self.conditions.push(expr);
        } else {
            self.late.push(expr);
        }
    }

    /// Its columns, as expressions.
    pub(super) fn column_exprs(&self) -> Vec<Expr> {
        let fields = self.fields.iter().enumerate();
        fields
            .map(|(index, field)| Expr::column(index, field.data_type.clone()))
            .collect()
    }

    /// The relations that an expression reads.
    pub(super) fn relations_of(&self, expr: &Expr) -> u64 {
        expr.columns()
            .into_iter()
            .fold(0, |set, column| set | 1 << self.columns[column].0)
    }

    /// Conditions that can be decided in a set and in none of its parts.
    pub(super) fn conditions_of<'c>(&'c self, set: u64, parts: &'c [u64]) -> impl Iterator<Item = &'c Expr> {
        self.conditions.iter().filter(move |condition| {
            let needed = self.relations_of(condition);
            needed & !set == 0 && parts.iter().all(|part| needed & !part != 0)
        })
    }
}

/// The conditions over one relation alone, put on it.
pub(super) fn filter_leaf(
    tree: &mut Tree,
    cluster: &Cluster,
    index: usize,
    leaf: RelationId,
    conditions: &mut Vec<Expr>,
) -> RelationId {
    let (own, rest): (Vec<_>, Vec<_>) = std::mem::take(conditions)
        .into_iter()
        .partition(|condition| matches!(cluster.relations_of(condition), set if set == 1 << index || set == 0));
    *conditions = rest;
    let own = own.into_iter().map(|mut condition| {
        condition.map_columns(&|column| cluster.columns[column].1);
        condition
    });
    let own = own.collect();
    tree.filter(leaf, own)
}
