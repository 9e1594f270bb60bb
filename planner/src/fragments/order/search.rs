//! The cheapest order of a cluster's joins.

use std::collections::HashMap;
use std::sync::Arc;

use trireme_costs::rows::{ColumnEstimate, Estimate, Meets, Part, Side, match_rows};
use trireme_device_api::Expr;

use super::classes::Classes;
use super::cluster::Cluster;
use super::names::SetNames;
use super::{full, met_cost};
use crate::fragments::estimate::Estimator;
use crate::fragments::tree::{RelationId, Tree};

/// With more relations the order is found step by step, not by trying all subsets.
const EXHAUSTIVE_MAX: usize = 12;
/// Cost of passing a match on.
const PASS: f64 = 0.7;

/// Some relations joined.
#[derive(Clone, Copy)]
pub(super) struct Joined {
    pub(super) cost: f64,
    pub(super) rows: f64,
    pub(super) how: How,
}

#[derive(Clone, Copy)]
pub(super) enum How {
    Relation(usize),
    /// The sets that probe and that are built.
    Join(u64, u64),
}

/// Ways to join sets of relations, by set; among them all relations.
#[derive(Default)]
pub(super) struct Plan {
    /// Of few relations, by the set's number.
    dense: Vec<Option<Joined>>,
    others: HashMap<u64, Joined>,
}

impl Plan {
    fn of(relations: usize) -> Self {
        let sets = if relations <= EXHAUSTIVE_MAX { 1 << relations } else { 0 };
        Self {
            dense: vec![None; sets],
            others: HashMap::new(),
        }
    }

    pub(super) fn get(&self, set: u64) -> Option<&Joined> {
        match usize::try_from(set).ok().and_then(|at| self.dense.get(at)) {
            Some(joined) => joined.as_ref(),
            None => self.others.get(&set),
        }
    }

    fn insert(&mut self, set: u64, joined: Joined) {
        match usize::try_from(set).ok().and_then(|at| self.dense.get_mut(at)) {
            Some(place) => *place = Some(joined),
            None => {
                self.others.insert(set, joined);
            }
        }
    }

    fn sets(&self) -> Vec<u64> {
        let dense = (0_u64..).zip(&self.dense).filter(|(_, joined)| joined.is_some());
        dense.map(|(set, _)| set).chain(self.others.keys().copied()).collect()
    }
}

/// The cheapest plan for the cluster's relations as they stand in `leaves`.
pub(super) fn best(
    estimator: &mut Estimator<'_>,
    tree: &Tree,
    cluster: &Cluster,
    classes: &Classes,
    leaves: &[RelationId],
) -> Plan {
    let mut plan = Plan::of(leaves.len());
    // All columns and samples of all relations stand in one estimate, whose rows are each set's own.
    let (mut parts, mut columns) = (Vec::new(), vec![ColumnEstimate::default(); cluster.columns.len()]);
    for (index, leaf) in leaves.iter().enumerate() {
        let own = estimator.of(tree, *leaf);
        let mut known = own.columns.iter();
        for (at, (relation, _)) in cluster.columns.iter().enumerate() {
            if *relation == index
                && let Some(column) = known.next()
            {
                columns[at] = column.moved(parts.len());
            }
        }
        parts.extend::<Vec<Part>>(own.parts.to_vec());
        let joined = Joined {
            cost: 0.0,
            rows: own.rows,
            how: How::Relation(index),
        };
        plan.insert(1 << index, joined);
    }
    let search = Search {
        names: SetNames::of(estimator, tree, cluster, classes, leaves),
        estimator,
        cluster,
        classes,
        estimate: Estimate {
            rows: f64::INFINITY,
            columns,
            parts: parts.into(),
        },
        keys: cluster.column_exprs(),
        conditions: (cluster.conditions.iter())
            .map(|condition| (cluster.relations_of(condition), condition))
            .collect(),
        meets: Meets::default(),
    };
    if leaves.len() <= EXHAUSTIVE_MAX {
        search.all_sets(leaves.len(), &mut plan);
    }
    if plan.get(full(leaves.len())).is_none() {
        let connected = connected(&plan, leaves.len());
        search.step_by_step(connected, &mut plan);
    }
    plan
}

fn number(set: u64) -> usize {
    usize::try_from(set).unwrap_or(0)
}

/// The largest sets that are planned, each relation in one of them.
fn connected(plan: &Plan, count: usize) -> Vec<u64> {
    let mut sets = plan.sets();
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

struct Search<'s, 'a> {
    estimator: &'s Estimator<'a>,
    cluster: &'s Cluster,
    classes: &'s Classes,
    /// None where nothing was learned.
    names: Option<SetNames>,
    estimate: Estimate,
    /// The cluster's columns.
    keys: Vec<Expr>,
    /// With the relations that each reads.
    conditions: Vec<(u64, &'s Expr)>,
    meets: Meets,
}

impl Search<'_, '_> {
    /// The cheapest way to join every set whose relations have keys in common; others are joined by nothing but their size, and
    /// last.
    fn all_sets(&self, relations: usize, plan: &mut Plan) {
        // Most of the time goes to halves that are no pair: what tells them is small, and next to one another.
        let mut near = vec![0_u16; 1 << relations];
        let mut costs = vec![0.0; 1 << relations];
        for set in 1..=full(relations) {
            let joined = match set.count_ones() {
                1 => plan.dense[number(set)],
                _ => self.best_of_set(set, &near, &costs, plan),
            };
            plan.dense[number(set)] = joined;
            if let Some(joined) = joined {
                // A relation is near itself, so what is near no relation was not planned.
                near[number(set)] = u16::try_from(self.classes.near(set) | set).unwrap_or(u16::MAX);
                costs[number(set)] = joined.cost;
            }
        }
    }

    /// `near` has the relations that share a class with a set, and none for sets that can't be joined.
    fn best_of_set(&self, set: u64, near: &[u16], costs: &[f64], plan: &Plan) -> Option<Joined> {
        let (first, others) = (set & set.wrapping_neg(), set & (set - 1));
        let mut best: Option<Joined> = None;
        let mut most = f64::INFINITY;
        // Each way to cut the set in two, once: `first` is in the one half.
        let mut with_first = 0;
        loop {
            let (a, b) = (first | with_first, others & !with_first);
            if b == 0 {
                return best;
            }
            with_first = with_first.wrapping_sub(others) & others;
            let (near_a, near_b) = (near[number(a)], near[number(b)]);
            if near_a == 0 || near_b == 0 || costs[number(a)] + costs[number(b)] >= most {
                continue;
            }
            if u64::from(near_a) & b == 0 && !self.classes.others_connect(a, b) {
                continue;
            }
            let (Some(left), Some(right)) = (plan.dense[number(a)], plan.dense[number(b)]) else {
                continue;
            };
            let rows = best.map_or_else(|| self.rows((a, left.rows), (b, right.rows)), |best| best.rows);
            let joined = cheaper((a, &left), (b, &right), rows);
            if joined.cost < best.map_or(f64::INFINITY, |best| best.cost) {
                most = joined.cost - PASS * rows;
                best = Some(joined);
            }
        }
    }

    /// Joins the two sets that leave the fewest rows, again and again; sets without a common key last.
    fn step_by_step(&self, mut sets: Vec<u64>, plan: &mut Plan) {
        // What a pair leaves does not change while others are joined.
        let mut known: HashMap<(u64, u64), (bool, f64)> = HashMap::new();
        while sets.len() > 1 {
            let mut best: Option<((bool, f64), u64, u64)> = None;
            for (at, a) in sets.iter().enumerate() {
                for b in &sets[at + 1..] {
                    let (Some(left), Some(right)) = (plan.get(*a), plan.get(*b)) else {
                        continue;
                    };
                    let found = *known.entry((*a, *b)).or_insert_with(|| {
                        let crosses = !self.classes.connect(*a, *b);
                        (crosses, self.rows((*a, left.rows), (*b, right.rows)))
                    });
                    if best.is_none_or(|(best, ..)| found < best) {
                        best = Some((found, *a, *b));
                    }
                }
            }
            let Some(((_, rows), a, b)) = best else { return };
            let (Some(left), Some(right)) = (plan.get(a), plan.get(b)) else {
                return;
            };
            let joined = cheaper((a, left), (b, right), rows);
            sets.retain(|set| *set != a && *set != b);
            sets.push(a | b);
            plan.insert(a | b, joined);
        }
    }

    /// Rows of two sets joined.
    fn rows(&self, (a, left): (u64, f64), (b, right): (u64, f64)) -> f64 {
        let set = a | b;
        if let Some(rows) = self.names.as_ref().and_then(|names| {
            let name = names.name(set);
            self.estimator.seen(name)
        }) {
            return rows.max(1.0);
        }
        let side = |rows: f64| Side {
            estimate: &self.estimate,
            rows,
        };
        let rows = match self.classes.only_key(self.cluster, a, b) {
            Some((on_left, on_right)) => {
                let pair = std::iter::once((&self.keys[on_left], &self.keys[on_right]));
                match_rows(side(left), side(right), pair, Some(&self.meets))
            }
            None => {
                let keys = self.classes.keys(self.cluster, a, b);
                let pairs = keys.iter().map(|(a, b)| (a, b));
                match_rows(side(left), side(right), pairs, Some(&self.meets))
            }
        };
        let decided = |needed: u64| needed & !set == 0 && needed & !a != 0 && needed & !b != 0;
        let conditions = self.conditions.iter().filter(|(needed, _)| decided(*needed));
        let conditions: Vec<Expr> = conditions.map(|(_, condition)| (*condition).clone()).collect();
        if conditions.is_empty() {
            return rows;
        }
        let columns = self.estimate.columns.iter().map(|column| column.of_rows(rows));
        let joined = Estimate {
            rows,
            columns: columns.collect(),
            parts: Arc::clone(&self.estimate.parts),
        };
        self.estimator.rules.filtered(&joined, &conditions).rows
    }
}

/// Two sets joined, the side that costs less built.
fn cheaper((a, left): (u64, &Joined), (b, right): (u64, &Joined), rows: f64) -> Joined {
    let below = left.cost + right.cost + PASS * rows;
    let one = met_cost(right.rows, left.rows, rows.min(left.rows));
    let other = met_cost(left.rows, right.rows, rows.min(right.rows));
    let (sides, how) = match other < one {
        true => (other, How::Join(b, a)),
        false => (one, How::Join(a, b)),
    };
    Joined {
        cost: below + sides,
        rows,
        how,
    }
}
