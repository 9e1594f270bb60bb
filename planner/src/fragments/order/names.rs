//! Names of sets of a cluster's relations, without joining them: the same as [`Name`] gives to their joins.

use super::classes::Classes;
use super::cluster::Cluster;
use crate::fragments::estimate::Estimator;
use crate::fragments::name::{class_hash, condition_hash, template};
use crate::fragments::tree::{RelationId, Tree};

/// What relations, classes and conditions add to the name of a set that has them.
pub(super) struct SetNames {
    /// By relation.
    relations: Vec<u64>,
    /// By class: its columns, each with its relation as a set.
    classes: Vec<Vec<(u64, u64)>>,
    conditions: Vec<Condition>,
}

struct Condition {
    /// The relations that it reads.
    needed: u64,
    said: u64,
    /// Its columns, with the class of each.
    columns: Vec<(u64, Option<usize>)>,
}

impl SetNames {
    /// None where nothing was learned, or a relation has no name.
    pub(super) fn of(
        estimator: &mut Estimator<'_>,
        tree: &Tree,
        cluster: &Cluster,
        classes: &Classes,
        leaves: &[RelationId],
    ) -> Option<Self> {
        let mut names = Vec::with_capacity(leaves.len());
        for leaf in leaves {
            names.push(estimator.name(tree, *leaf)?);
        }
        let columns = cluster.columns.iter();
        let columns: Vec<u64> = columns.map(|(relation, at)| names[*relation].column(*at)).collect();
        let member = |column: &usize| (1 << cluster.columns[*column].0, columns[*column]);
        let of_class = |column: usize| classes.classes().iter().position(|class| class.contains(&column));
        let condition = |condition| {
            let (said, read) = template(condition, estimator.rules.parameters);
            Condition {
                needed: cluster.relations_of(condition),
                said,
                columns: read
                    .iter()
                    .map(|column| (columns[*column], of_class(*column)))
                    .collect(),
            }
        };
        Some(Self {
            relations: names.iter().map(|name| name.fingerprint()).collect(),
            classes: (classes.classes().iter())
                .map(|class| class.iter().map(member).collect())
                .collect(),
            conditions: cluster.conditions.iter().map(condition).collect(),
        })
    }

    pub(super) fn name(&self, set: u64) -> u64 {
        let own = (0..).zip(&self.relations).filter(|(at, _)| set >> at & 1 == 1);
        let mut name = own.fold(0, |sum: u64, (_, own)| sum.wrapping_add(*own));
        let within = |class: &Vec<(u64, u64)>| class.iter().filter(|(relation, _)| relation & set != 0).count();
        for class in self.classes.iter().filter(|class| within(class) > 1) {
            let there = class.iter().filter(|(relation, _)| relation & set != 0);
            name = name.wrapping_add(class_hash(there.map(|(_, column)| *column)));
        }
        for condition in self.conditions.iter().filter(|condition| condition.needed & !set == 0) {
            let columns = condition.columns.iter().map(|(own, class)| match class {
                Some(class) => {
                    let there = self.classes[*class].iter().filter(|(relation, _)| relation & set != 0);
                    there.map(|(_, column)| *column).min().unwrap_or(*own)
                }
                None => *own,
            });
            name = name.wrapping_add(condition_hash(condition.said, columns));
        }
        name
    }
}
