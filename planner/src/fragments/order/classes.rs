//! What a cluster's equalities say: classes of equal columns, and equalities of other expressions.

use trireme_device_api::{BinaryOperator, Expr, Type};

use super::cluster::{Cluster, column_of};

/// Columns that are equal in every row of the cluster.
pub(super) struct Classes {
    /// Members of each class, by the cluster's column.
    classes: Vec<Vec<usize>>,
    /// The relations of each class's members.
    sets: Vec<u64>,
    /// Equalities of other expressions, with the relations of both sides.
    others: Vec<(Expr, u64, Expr, u64)>,
}

impl Classes {
    pub(super) fn of(cluster: &Cluster) -> Self {
        let mut classes: Vec<Vec<usize>> = Vec::new();
        let mut others = Vec::new();
        for (left, right) in &cluster.equalities {
            let plain = column_of(left).zip(column_of(right));
            // Floats can be equal and differ.
            let same = left.data_type == right.data_type && !left.data_type.is_float();
            let Some((a, b)) = plain.filter(|_| same) else {
                let sets = (cluster.relations_of(left), cluster.relations_of(right));
                others.push((left.clone(), sets.0, right.clone(), sets.1));
                continue;
            };
            let of = |column: usize| classes.iter().position(|class| class.contains(&column));
            match (of(a), of(b)) {
                (Some(x), Some(y)) if x == y => {}
                (Some(x), Some(y)) => {
                    let gone = classes.swap_remove(x.max(y));
                    classes[x.min(y)].extend(gone);
                }
                (Some(x), None) => classes[x].push(b),
                (None, Some(y)) => classes[y].push(a),
                (None, None) => classes.push(vec![a, b]),
            }
        }
        let set = |class: &Vec<usize>| {
            class
                .iter()
                .fold(0, |set, column| set | 1 << cluster.columns[*column].0)
        };
        Self {
            sets: classes.iter().map(set).collect(),
            classes,
            others,
        }
    }

    /// The classes, by the cluster's columns.
    pub(super) fn classes(&self) -> &[Vec<usize>] {
        &self.classes
    }

    /// Equal columns of one relation, as conditions on it; and equalities that are no join.
    pub(super) fn within_relations(&self, cluster: &Cluster) -> Vec<Expr> {
        let column = |index: usize| Expr::column(index, cluster.fields[index].data_type.clone());
        let mut found = Vec::new();
        for class in &self.classes {
            for (at, a) in class.iter().enumerate() {
                let twin = class[at + 1..]
                    .iter()
                    .find(|b| cluster.columns[**b].0 == cluster.columns[*a].0);
                found.extend(twin.map(|b| equal(column(*a), column(*b))));
            }
        }
        let unusable = |left: u64, right: u64| left & right != 0 || left == 0 || right == 0;
        for (left, left_set, right, right_set) in &self.others {
            if unusable(*left_set, *right_set) {
                found.push(equal(left.clone(), right.clone()));
            }
        }
        found
    }

    /// Whether two sets have a key in common.
    pub(super) fn connect(&self, left: u64, right: u64) -> bool {
        self.near(left) & right != 0 || self.others_connect(left, right)
    }

    /// The relations that have columns in a set's classes.
    pub(super) fn near(&self, set: u64) -> u64 {
        let met = self.sets.iter().filter(|of_class| *of_class & set != 0);
        met.fold(0, |near, of_class| near | of_class)
    }

    /// Whether an equality of other expressions joins two sets.
    pub(super) fn others_connect(&self, left: u64, right: u64) -> bool {
        let within = |needed: u64, set: u64| needed != 0 && needed & !set == 0;
        self.others
            .iter()
            .any(|(_, a, _, b)| within(*a, left) && within(*b, right) || within(*a, right) && within(*b, left))
    }

    /// The columns of the only key between two sets, if there is one and it is of columns.
    pub(super) fn only_key(&self, cluster: &Cluster, left: u64, right: u64) -> Option<(usize, usize)> {
        let mut crossing = (self.classes.iter().zip(&self.sets)).filter(|(_, of)| *of & left != 0 && *of & right != 0);
        let (class, _) = crossing.next()?;
        if crossing.next().is_some() || !self.others.is_empty() {
            return None;
        }
        let member = |set: u64| {
            let there = class.iter().rfind(|column| set >> cluster.columns[**column].0 & 1 == 1);
            there.copied()
        };
        member(left).zip(member(right))
    }

    /// Keys between two sets: one for each class that has members in both, and the other equalities that they decide.
    pub(super) fn keys(&self, cluster: &Cluster, left: u64, right: u64) -> Vec<(Expr, Expr)> {
        let mut keys = Vec::new();
        let column = |index: usize| Expr::column(index, cluster.fields[index].data_type.clone());
        // A relation that has many of the keys knows best how many combinations there are.
        let mut shared = vec![0; cluster.relations.len()];
        let crossing = || {
            self.classes
                .iter()
                .zip(&self.sets)
                .filter(|(_, set)| *set & left != 0 && *set & right != 0)
        };
        for column in crossing().flat_map(|(class, _)| class) {
            shared[cluster.columns[*column].0] += 1;
        }
        for (class, _) in crossing() {
            let member = |set: u64| {
                let there = class
                    .iter()
                    .filter(|column| set >> cluster.columns[**column].0 & 1 == 1);
                there.max_by_key(|column| shared[cluster.columns[**column].0])
            };
            if let (Some(a), Some(b)) = (member(left), member(right)) {
                keys.push((column(*a), column(*b)));
            }
        }
        for (a, a_set, b, b_set) in &self.others {
            if a_set & b_set != 0 || *a_set == 0 || *b_set == 0 {
                continue;
            }
            if a_set & !left == 0 && b_set & !right == 0 {
                keys.push((a.clone(), b.clone()));
            } else if a_set & !right == 0 && b_set & !left == 0 {
                keys.push((b.clone(), a.clone()));
            }
        }
        keys
    }

    /// Equalities that a join of two sets decides but that aren't its keys.
    pub(super) fn left_over(&self, left: u64, right: u64) -> Vec<(Expr, Expr)> {
        let both = left | right;
        let outside = |needed: u64, set: u64| needed & !set != 0;
        self.others
            .iter()
            .filter(|(_, a, _, b)| {
                let needed = a | b;
                let key = !outside(*a, left) && !outside(*b, right) || !outside(*a, right) && !outside(*b, left);
                a & b == 0
                    && *a != 0
                    && *b != 0
                    && !outside(needed, both)
                    && outside(needed, left)
                    && outside(needed, right)
                    && !key
            })
            .map(|(a, _, b, _)| (a.clone(), b.clone()))
            .collect()
    }

    /// An expression of the cluster over one relation's own columns, if they or their equals are there.
    pub(super) fn within(&self, cluster: &Cluster, expr: &Expr, relation: usize) -> Option<Expr> {
        let mut own: Vec<Option<usize>> = Vec::new();
        for column in expr.columns() {
            let here = |column: &usize| cluster.columns[*column].0 == relation;
            let class = self.classes.iter().find(|class| class.contains(&column));
            let found = if here(&column) {
                Some(column)
            } else {
                class.and_then(|class| class.iter().copied().find(|other| here(other)))
            };
            own.resize(own.len().max(column + 1), None);
            own[column] = Some(cluster.columns[found?].1);
        }
        let mut expr = expr.clone();
        expr.map_columns(&|column| own[column].unwrap_or(column));
        Some(expr)
    }
}

pub(super) fn equal(left: Expr, right: Expr) -> Expr {
    Expr::binary(BinaryOperator::Equal, left, right, Type::Boolean)
}
