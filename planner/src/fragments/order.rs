//! The order of joins: small tables are built, large ones stream past them.
//!
//! DataFusion joins in the order of the statement and only swaps sides. Here the relations of neighbouring inner joins are
//! taken apart and joined anew in the order of the least estimated cost; semi and anti joins over them go to the relation
//! that they thin out, or stay on top with the smaller side built.
//!
//! ```text
//!  ((a ⋈ b) ⋈ c) ⋉ r   ─take apart─▶   relations a b c, equalities, conditions, reducers r
//!                       ─best of all subsets─▶   (c ⋈ (a ⋉ r)) ⋈ b   ─▶ a projection puts the columns back
//! ```
//!
//! Columns that equalities make equal form classes: any two relations of a class may be joined directly. Conditions that can
//! fail stay where no row reaches them that did not before.

mod classes;
mod cluster;
mod names;
mod place;
mod search;

use std::collections::HashMap;

use trireme_device_api::{Expr, Field, JoinKind, Value};
use trireme_exec::statistics::Statistics;

use super::estimate::Estimator;
use super::tree::{Join, Op, RelationId, Tree};
use classes::Classes;
use cluster::{Cluster, Reducer, filter_leaf, is_cluster};
use place::{Placed, place};
use search::Plan;

/// Cost of a row: of building, and of probing a table that is in the caches.
const BUILD: f64 = 3.0;
const PROBE: f64 = 1.0;
/// What a probe without a match takes of a cache miss: bits tell most of them before the table is read.
const NO_MATCH: f64 = 0.25;
/// Rows of tables that leave the second-level cache, and the third.
const LARGE_ROWS: f64 = 5e4;
const HUGE_ROWS: f64 = 1e6;

/// The tree's root with all joins in their best order.
pub(super) fn order(tree: &mut Tree, root: RelationId, parameters: &[Value], statistics: &Statistics) -> RelationId {
    let mut ordering = Ordering {
        estimator: Estimator::learned(parameters, statistics),
        done: HashMap::new(),
    };
    ordering.relation(tree, root)
}

struct Ordering<'a> {
    estimator: Estimator<'a>,
    /// New relations by old ones.
    done: HashMap<RelationId, RelationId>,
}

impl Ordering<'_> {
    fn relation(&mut self, tree: &mut Tree, id: RelationId) -> RelationId {
        if let Some(done) = self.done.get(&id) {
            return *done;
        }
        let new = if is_cluster(tree, id) {
            self.cluster(tree, id)
        } else {
            self.other(tree, id)
        };
        self.done.insert(id, new);
        new
    }

    /// The same operation over ordered inputs.
    fn other(&mut self, tree: &mut Tree, id: RelationId) -> RelationId {
        let mut op = tree.get(id).op.clone();
        let fields = tree.fields(id).to_vec();
        match &mut op {
            Op::Scan(_) | Op::Stream(_) => return id,
            Op::Filter { input, .. }
            | Op::Project { input, .. }
            | Op::Aggregate { input, .. }
            | Op::Sort { input, .. }
            | Op::Limit { input, .. } => {
                let new = self.relation(tree, *input);
                if new == *input {
                    return id;
                }
                *input = new;
            }
            Op::Join(join) => {
                let (probe, build) = (self.relation(tree, join.probe), self.relation(tree, join.build));
                (join.probe, join.build) = (probe, build);
                if let Some(turned) = self.turned(tree, join, &fields) {
                    return turned;
                }
            }
        }
        tree.add(op, fields)
    }

    /// A left or build-outer join the other way round, if that builds the smaller side.
    fn turned(&mut self, tree: &mut Tree, join: &Join, fields: &[Field]) -> Option<RelationId> {
        let kind = match join.kind {
            JoinKind::Left => JoinKind::BuildOuter,
            JoinKind::BuildOuter => JoinKind::Left,
            _ => return None,
        };
        let probe = self.estimator.of(tree, join.probe).rows;
        let build = self.estimator.of(tree, join.build).rows;
        if join.probe_keys.is_empty() || side_cost(build, probe) <= side_cost(probe, build) {
            return None;
        }
        let (probe_width, build_width) = (tree.fields(join.probe).len(), tree.fields(join.build).len());
        let residual = join.residual.clone().map(|mut residual| {
            residual.map_columns(&|column| match column.checked_sub(probe_width) {
                Some(of_build) => of_build,
                None => build_width + column,
            });
            residual
        });
        let joined = tree.join(
            Join {
                probe: join.build,
                build: join.probe,
                kind,
                probe_keys: join.build_keys.clone(),
                build_keys: join.probe_keys.clone(),
                residual,
                ..join.clone()
            },
            None,
        );
        let back = (build_width..build_width + probe_width).chain(0..build_width);
        let exprs = back
            .zip(fields)
            .map(|(column, field)| Expr::column(column, field.data_type.clone()))
            .collect();
        Some(tree.project(joined, exprs, fields.to_vec()))
    }

    fn cluster(&mut self, tree: &mut Tree, id: RelationId) -> RelationId {
        let mut cluster = Cluster::default();
        let output = self.take_apart(tree, id, &mut cluster);
        let fields = tree.fields(id).to_vec();
        let classes = Classes::of(&cluster);
        for condition in classes.within_relations(&cluster) {
            cluster.condition(condition);
        }
        let mut leaves: Vec<_> = cluster.relations.clone();
        let mut conditions = std::mem::take(&mut cluster.conditions);
        for (index, leaf) in leaves.iter_mut().enumerate() {
            *leaf = filter_leaf(tree, &cluster, index, *leaf, &mut conditions);
        }
        cluster.conditions = conditions;
        let mut plan = search::best(&mut self.estimator, tree, &cluster, &classes, &leaves);
        let mut on_top = Vec::new();
        for reducer in std::mem::take(&mut cluster.reducers) {
            match self.reduce_leaf(tree, &cluster, &classes, (&leaves, &plan), &reducer) {
                Some(reduced) => (leaves, plan) = reduced,
                None => on_top.push(reducer),
            }
        }
        let all = full(leaves.len());
        let mut placed = place(tree, &cluster, &classes, &leaves, &plan, all);
        for reducer in on_top {
            self.reduce_top(tree, &mut placed, &reducer);
        }
        let late = cluster.late.iter().map(|expr| placed.expr(expr)).collect();
        placed.id = tree.filter(placed.id, late);
        let exprs = output
            .iter()
            .zip(&fields)
            .map(|(column, field)| Expr::column(placed.at(*column), field.data_type.clone()))
            .collect();
        tree.project(placed.id, exprs, fields)
    }

    /// Puts a reducer on the smallest relation that has its keys, if that costs less than on top.
    fn reduce_leaf(
        &mut self,
        tree: &mut Tree,
        cluster: &Cluster,
        classes: &Classes,
        (leaves, plan): (&[RelationId], &Plan),
        reducer: &Reducer,
    ) -> Option<(Vec<RelationId>, Plan)> {
        if reducer.residual.is_some() {
            return None;
        }
        let mut best: Option<(f64, usize, Vec<Expr>)> = None;
        for (index, leaf) in leaves.iter().enumerate() {
            let keys = reducer.keys.iter().map(|(own, _)| classes.within(cluster, own, index));
            let keys: Option<Vec<_>> = keys.collect();
            let rows = self.estimator.of(tree, *leaf).rows;
            if let Some(keys) = keys
                && best.as_ref().is_none_or(|(least, ..)| rows < *least)
            {
                best = Some((rows, index, keys));
            }
        }
        let (rows, index, keys) = best?;
        let mut reduced = leaves.to_vec();
        reduced[index] = self.reduced(tree, leaves[index], reducer, keys, None);
        let below = search::best(&mut self.estimator, tree, cluster, classes, &reduced);
        let other = self.estimator.of(tree, reducer.relation).rows;
        let reducing = |rows: f64| side_cost(other, rows).min(side_cost(rows, other));
        let all = full(leaves.len());
        let (top, below_top) = (plan.get(all)?, below.get(all)?);
        let worth = below_top.cost + reducing(rows) < top.cost + reducing(top.rows);
        (leaves.len() == 1 || worth).then_some((reduced, below))
    }

    fn reduce_top(&mut self, tree: &mut Tree, placed: &mut Placed, reducer: &Reducer) {
        let keys = reducer.keys.iter().map(|(own, _)| placed.expr(own)).collect();
        placed.id = self.reduced(tree, placed.id, reducer, keys, Some(placed));
    }

    /// A relation under a reducer, with the smaller side built.
    fn reduced(
        &mut self,
        tree: &mut Tree,
        own: RelationId,
        reducer: &Reducer,
        own_keys: Vec<Expr>,
        placed: Option<&Placed>,
    ) -> RelationId {
        let other = reducer.relation;
        let other_keys = reducer.keys.iter().map(|(_, other)| other.clone()).collect();
        let (own_rows, other_rows) = (self.estimator.of(tree, own).rows, self.estimator.of(tree, other).rows);
        let build_own = side_cost(own_rows, other_rows) < side_cost(other_rows, own_rows);
        let (own_width, other_width) = (tree.fields(own).len(), tree.fields(other).len());
        let (own_first, other_first) = if build_own { (other_width, 0) } else { (0, own_width) };
        let residual = reducer.residual.clone().map(|mut residual| {
            residual.map_columns(&|column| {
                let from_end = usize::MAX - column;
                match placed {
                    _ if from_end < other_width => other_first + from_end,
                    Some(placed) => own_first + placed.at(column),
                    None => own_first + column,
                }
            });
            residual
        });
        let (probe, build, probe_keys, build_keys) = if build_own {
            (other, own, other_keys, own_keys)
        } else {
            (own, other, own_keys, other_keys)
        };
        let kind = match (reducer.anti, build_own) {
            (false, false) => JoinKind::Semi,
            (false, true) => JoinKind::BuildSemi,
            (true, false) => JoinKind::Anti,
            (true, true) => JoinKind::BuildAnti,
        };
        let join = Join {
            probe,
            build,
            kind,
            probe_keys,
            build_keys,
            residual,
            null_equals_null: false,
            null_aware: false,
        };
        tree.join(join, None)
    }
}

/// The cost of building one side and probing with the other, of which all rows match.
fn side_cost(build: f64, probe: f64) -> f64 {
    met_cost(build, probe, probe)
}

/// The cost of building one side and probing with the other, of which so many rows match.
fn met_cost(build: f64, probe: f64, met: f64) -> f64 {
    let miss = if build < LARGE_ROWS {
        0.0
    } else if build < HUGE_ROWS {
        1.0
    } else {
        2.5
    };
    // A row that is built is written and found again.
    (BUILD + 2.0 * miss) * build + PROBE * probe + miss * (met + NO_MATCH * (probe - met))
}

fn full(count: usize) -> u64 {
    (1 << count) - 1
}
