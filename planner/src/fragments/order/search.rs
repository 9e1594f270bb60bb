//! The cheapest order of a cluster's joins.

use std::collections::HashMap;
use std::sync::Arc;

use trireme_device_api::Expr;

use super::classes::Classes;
use super::cluster::Cluster;
use super::names::SetNames;
use super::{full, met_cost};
use crate::fragments::estimate::{ColumnEstimate, Estimate, Estimator, Meets, match_rows};
use crate::fragments::sample::Part;
use crate::fragments::tree::{RelationId, Tree};

/// With more relations the order is found step by step, not by trying all subsets.
const EXHAUSTIVE_MAX: usize = 12;
/// Cost of passing a match on.
const PASS: f64 = 0.7;

/// Some relations joined.
pub(super) struct Joined {
    pub(super) cost: f64,
    pub(super) estimate: Estimate,
    pub(super) how: How,
}

#[derive(Clone, Copy)]
pub(super) enum How {
    Relation(usize),
    /// The sets that probe and that are built.
    Join(u64, u64),
}

/// Ways to join sets of relations, by set; among them all relations.
pub(super) type Plan = HashMap<u64, Joined>;

/// The cheapest plan for the cluster's relations as they stand in `leaves`.
pub(super) fn best(
    estimator: &mut Estimator<'_>,
    tree: &Tree,
    cluster: &Cluster,
    classes: &Classes,
    leaves: &[RelationId],
) -> Plan {
    let mut plan = Plan::new();
    // All samples stand in every set's estimate, at the same places.
    let (mut parts, mut firsts) = (Vec::new(), Vec::with_capacity(leaves.len()));
    for leaf in leaves {
        firsts.push(parts.len());
        parts.extend(estimator.of(tree, *leaf).parts.iter().cloned());
    }
    let parts: Arc<[Part]> = parts.into();
    for (index, leaf) in leaves.iter().enumerate() {
        let own = estimator.of(tree, *leaf);
        let mut columns = own.columns.iter();
        let wide = cluster.columns.iter().map(|(relation, _)| {
            let known = if *relation == index { columns.next() } else { None };
            known.map_or_else(ColumnEstimate::default, |column| column.moved(firsts[index]))
        });
        let estimate = Estimate {
            rows: own.rows,
            columns: wide.collect(),
            parts: Arc::clone(&parts),
        };
        let how = How::Relation(index);
        plan.insert(
            1 << index,
            Joined {
                cost: 0.0,
                estimate,
                how,
            },
        );
    }
    let names = SetNames::of(estimator, tree, cluster, leaves);
    let search = Search {
        estimator,
        cluster,
        classes,
        names,
        meets: Meets::default(),
    };
    if leaves.len() <= EXHAUSTIVE_MAX {
        // Most pairs of sets are none: looking that up must cost nothing.
        let mut planned: Vec<bool> = (0..=full(leaves.len())).map(|set| set.count_ones() == 1).collect();
        for set in 1..=full(leaves.len()) {
            if set.count_ones() > 1 {
                search.best_of_set(set, &mut plan, &mut planned);
            }
        }
    }
    if !plan.contains_key(&full(leaves.len())) {
        let connected = search.connected(&plan, leaves.len());
        search.step_by_step(connected, &mut plan);
    }
    plan
}

struct Search<'s, 'a> {
    estimator: &'s Estimator<'a>,
    cluster: &'s Cluster,
    classes: &'s Classes,
    /// None where nothing was learned.
    names: Option<SetNames>,
    meets: Meets,
}

impl Search<'_, '_> {
    /// Of a set whose relations have keys in common; others are joined by nothing but their size, and last.
    fn best_of_set(&self, set: u64, plan: &mut Plan, planned: &mut [bool]) {
        let of = |set: u64| usize::try_from(set).unwrap_or(0);
        let mut best: Option<(f64, How)> = None;
        let mut estimate: Option<Estimate> = None;
        let mut part = (set - 1) & set;
        while part > 0 {
            let rest = set & !part;
            if !planned[of(part)] || !planned[of(rest)] {
                part = (part - 1) & set;
                continue;
            }
            if let (Some(probe), Some(build)) = (plan.get(&part), plan.get(&rest))
                && self.classes.connect(part, rest)
            {
                let rows = estimate
                    .get_or_insert_with(|| self.estimate((part, probe), (rest, build)))
                    .rows;
                let cost = cost(probe, build, rows);
                if best.is_none_or(|(least, _)| cost < least) {
                    best = Some((cost, How::Join(part, rest)));
                }
            }
            part = (part - 1) & set;
        }
        if let Some(((cost, how), estimate)) = best.zip(estimate) {
            plan.insert(set, Joined { cost, estimate, how });
            planned[of(set)] = true;
        }
    }

    /// The largest sets that are planned, each relation in one of them.
    fn connected(&self, plan: &Plan, count: usize) -> Vec<u64> {
        let mut sets: Vec<u64> = plan.keys().copied().collect();
        sets.sort_by_key(|set| (std::cmp::Reverse(set.count_ones()), *set));
        let mut taken = 0;
        sets.retain(|set| {
            let free = set & taken == 0;
            taken |= if free { *set } else { 0 };
            free
        });
        debug_assert_eq!(taken, full(count));
        sets
    }

    /// Joins the two sets that leave the fewest rows, again and again; sets without a common key last.
    fn step_by_step(&self, mut sets: Vec<u64>, plan: &mut Plan) {
        while sets.len() > 1 {
            let mut best: Option<(bool, Estimate, u64, u64)> = None;
            for (at, a) in sets.iter().enumerate() {
                for b in &sets[at + 1..] {
                    let (Some(left), Some(right)) = (plan.get(a), plan.get(b)) else {
                        continue;
                    };
                    let crosses = !self.classes.connect(*a, *b);
                    if crosses && best.as_ref().is_some_and(|(crosses, ..)| !crosses) {
                        continue;
                    }
                    let estimate = self.estimate((*a, left), (*b, right));
                    let better = best
                        .as_ref()
                        .is_none_or(|(best_crosses, best, ..)| (crosses, estimate.rows) < (*best_crosses, best.rows));
                    if better {
                        best = Some((crosses, estimate, *a, *b));
                    }
                }
            }
            let Some((_, estimate, a, b)) = best else { return };
            let (Some(left), Some(right)) = (plan.get(&a), plan.get(&b)) else {
                return;
            };
            let one = cost(left, right, estimate.rows);
            let other = cost(right, left, estimate.rows);
            let (cost, how) = if other < one {
                (other, How::Join(b, a))
            } else {
                (one, How::Join(a, b))
            };
            sets.retain(|set| *set != a && *set != b);
            sets.push(a | b);
            plan.insert(a | b, Joined { cost, estimate, how });
        }
    }

    fn estimate(&self, (left_set, left): (u64, &Joined), (right_set, right): (u64, &Joined)) -> Estimate {
        let keys = self.classes.keys(self.cluster, left_set, right_set);
        let pairs = keys.iter().map(|(a, b)| (a, b));
        let rows = match_rows(&left.estimate, &right.estimate, pairs, Some(&self.meets));
        let columns = self.cluster.columns.iter().enumerate().map(|(column, (relation, _))| {
            let own = if left_set >> relation & 1 == 1 { left } else { right };
            own.estimate.columns[column].of_rows(rows)
        });
        let joined = Estimate {
            rows,
            columns: columns.collect(),
            parts: Arc::clone(&left.estimate.parts),
        };
        let parts = [left_set, right_set];
        let conditions = self.cluster.conditions_of(left_set | right_set, &parts);
        let conditions: Vec<Expr> = conditions.cloned().collect();
        let estimate = self.estimator.filtered(&joined, &conditions);
        let set = left_set | right_set;
        let seen = self.names.as_ref().and_then(|names| {
            let name = names.name(self.classes, self.cluster, set, self.estimator.parameters);
            self.estimator.seen(name)
        });
        match seen {
            Some(rows) => estimate.with_rows(rows.max(1.0)),
            None => estimate,
        }
    }
}

fn cost(probe: &Joined, build: &Joined, rows: f64) -> f64 {
    let probing = probe.estimate.rows;
    let sides = met_cost(build.estimate.rows, probing, rows.min(probing));
    probe.cost + build.cost + sides + PASS * rows
}
