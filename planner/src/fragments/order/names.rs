//! Names of sets of a cluster's relations, without joining them: the same as [`Name`] gives to their joins.

use std::sync::Arc;

use trireme_device_api::Value;

use super::classes::Classes;
use super::cluster::Cluster;
use crate::fragments::estimate::Estimator;
use crate::fragments::name::{Name, class_hash};
use crate::fragments::tree::{RelationId, Tree};

pub(super) struct SetNames {
    /// By relation: its fingerprint and its name.
    relations: Vec<(u64, Arc<Name>)>,
    /// How each of the cluster's columns is told from others.
    columns: Vec<u64>,
}

impl SetNames {
    /// None where nothing was learned, or a relation has no name.
    pub(super) fn of(
        estimator: &mut Estimator<'_>,
        tree: &Tree,
        cluster: &Cluster,
        leaves: &[RelationId],
    ) -> Option<Self> {
        let mut relations = Vec::with_capacity(leaves.len());
        for leaf in leaves {
            let name = estimator.name(tree, *leaf)?;
            relations.push((name.fingerprint(), name));
        }
        let columns = cluster.columns.iter();
        let columns = columns.map(|(relation, column)| relations[*relation].1.column(*column));
        Some(Self {
            columns: columns.collect(),
            relations,
        })
    }

    pub(super) fn name(&self, classes: &Classes, cluster: &Cluster, set: u64, parameters: &[Value]) -> u64 {
        let within = |relation: usize| set >> relation & 1 == 1;
        let relations = self.relations.iter().enumerate();
        let own = relations
            .filter(|(index, _)| within(*index))
            .map(|(_, (name, _))| *name);
        let members = |class: &Vec<usize>| {
            let there = class.iter().filter(|column| within(cluster.columns[**column].0));
            there.map(|column| self.columns[*column]).collect::<Vec<_>>()
        };
        let equal = classes
            .classes()
            .iter()
            .map(members)
            .filter(|members| members.len() > 1);
        let equal = equal.map(|members| class_hash(members.into_iter()));
        let conditions = cluster
            .conditions
            .iter()
            .filter(|condition| cluster.relations_of(condition) & !set == 0)
            .map(|condition| {
                Name::said_of(condition, parameters, &|column| {
                    let class = classes.classes().iter().find(|class| class.contains(&column));
                    let twins = class.map(members).and_then(|members| members.into_iter().min());
                    twins.unwrap_or(self.columns[column])
                })
            });
        own.chain(equal).chain(conditions).fold(0, u64::wrapping_add)
    }
}
