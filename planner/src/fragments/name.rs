//! Names of sub-plans that are the same whatever the order of their joins: what counts of earlier runs are kept by.
//!
//! ```text
//!  leaves      a table's files in their version, with the conditions on it alone │ an outer join, groups, a limit: one leaf
//!  classes     columns that equal keys have made equal                            │
//!  conditions  over several leaves; semi and anti joins                           ├─ sum of each one's hash
//! ```
//!
//! A tree of relations and the graph that it is cut into give the same names. Two different sub-plans may share one only by
//! chance, or where a table stands twice under the same conditions; the cost is a worse estimate.

use std::fmt::{self, Write};

use trireme_device_api::{Aggregate, Expr, JoinKind, Node, Value};
use trireme_exec::operators::FileScan;
use trireme_exec::statistics::mix;

use super::tree::Join;

/// The column of a name that was computed, not read.
const MADE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Leaf {
    base: u64,
    /// Sum over the conditions on it alone.
    conditions: u64,
}

/// A column of a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    leaf: u32,
    column: u64,
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Name {
    leaves: Vec<Leaf>,
    classes: Vec<Vec<Tag>>,
    /// What each says, over tags.
    conditions: Vec<(u64, Vec<Tag>)>,
    columns: Vec<Tag>,
}

fn pair(left: u64, right: u64) -> u64 {
    mix(left.rotate_left(17) ^ mix(right))
}

fn text(of: fmt::Arguments<'_>) -> u64 {
    let mut digest = Fnv(0xcbf2_9ce4_8422_2325);
    // This writer takes everything.
    let _ = digest.write_fmt(of);
    digest.0
}

struct Fnv(u64);

impl Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}

/// What an expression says of its columns, which are numbered as they occur, and those columns.
pub(super) fn template(expr: &Expr, parameters: &[Value]) -> (u64, Vec<usize>) {
    let mut columns = Vec::new();
    expr.visit(&mut |expr| {
        if let Node::Column(column) = expr.node
            && !columns.contains(&column)
        {
            columns.push(column);
        }
    });
    let mut expr = expr.clone();
    expr.map_columns(&|column| columns.iter().position(|known| *known == column).unwrap_or(0));
    bind(&mut expr, parameters);
    (text(format_args!("{expr:?}")), columns)
}

fn bind(expr: &mut Expr, parameters: &[Value]) {
    if let Node::Parameter(index) = expr.node
        && let Some(value) = parameters.get(index)
    {
        expr.node = Node::Literal(value.clone());
    }
    for child in expr.children_mut() {
        bind(child, parameters);
    }
}

impl Name {
    pub(super) fn of_scan(scan: &FileScan) -> Self {
        let columns = scan.columns.iter().map(|column| Tag {
            leaf: 0,
            column: text(format_args!("{}", column.name)),
        });
        Self {
            leaves: vec![Leaf {
                base: scan.version(),
                conditions: 0,
            }],
            classes: Vec::new(),
            conditions: Vec::new(),
            columns: columns.collect(),
        }
    }

    /// A sub-plan that is a leaf to what stands above it.
    fn leaf(base: u64, columns: impl Iterator<Item = u64>) -> Self {
        Self {
            leaves: vec![Leaf { base, conditions: 0 }],
            classes: Vec::new(),
            conditions: Vec::new(),
            columns: columns.map(|column| Tag { leaf: 0, column }).collect(),
        }
    }

    fn resolved(&self, tag: Tag) -> u64 {
        match self.leaves.get(tag.leaf as usize) {
            Some(leaf) => pair(leaf.base.wrapping_add(leaf.conditions), tag.column),
            None => tag.column,
        }
    }

    /// A column as all orders of the joins name it.
    fn representative(&self, tag: Tag) -> u64 {
        let own = || self.resolved(tag);
        let class = self.classes.iter().find(|class| class.contains(&tag));
        class
            .and_then(|class| class.iter().map(|tag| self.resolved(*tag)).min())
            .unwrap_or_else(own)
    }

    fn tag(&self, column: usize) -> Tag {
        let none = Tag {
            leaf: MADE,
            column: column as u64,
        };
        self.columns.get(column).copied().unwrap_or(none)
    }

    fn said(&self, template: u64, tags: &[Tag]) -> u64 {
        tags.iter()
            .fold(template, |sum, tag| pair(sum, self.representative(*tag)))
    }

    /// An expression of its columns.
    fn expr(&self, expr: &Expr, parameters: &[Value]) -> u64 {
        if let Node::Column(column) = expr.node {
            return self.representative(self.tag(column));
        }
        let (template, columns) = template(expr, parameters);
        let tags: Vec<Tag> = columns.into_iter().map(|column| self.tag(column)).collect();
        self.said(template, &tags)
    }

    /// The name as a number.
    pub(super) fn fingerprint(&self) -> u64 {
        let leaves = self
            .leaves
            .iter()
            .map(|leaf| leaf_hash(leaf.base.wrapping_add(leaf.conditions)));
        let classes = self
            .classes
            .iter()
            .map(|class| class_hash(class.iter().map(|tag| self.resolved(*tag))));
        let conditions = self.conditions.iter().map(|(said, tags)| mix(self.said(*said, tags)));
        leaves.chain(classes).chain(conditions).fold(0, u64::wrapping_add)
    }

    pub(super) fn filtered(mut self, predicates: &[Expr], parameters: &[Value]) -> Self {
        let mut conjuncts = Vec::new();
        for predicate in predicates {
            trireme_costs::rows::split(predicate, &mut conjuncts);
        }
        for conjunct in conjuncts {
            let (said, columns) = template(conjunct, parameters);
            let tags = columns.into_iter().map(|column| self.tag(column)).collect();
            self.condition(said, tags);
        }
        self
    }

    /// A condition on one leaf is that leaf's, wherever it is checked.
    fn condition(&mut self, said: u64, tags: Vec<Tag>) {
        let first = tags.first().map(|tag| tag.leaf);
        let alone = first.filter(|first| tags.iter().all(|tag| tag.leaf == *first));
        match alone.and_then(|leaf| self.leaves.get_mut(leaf as usize)) {
            Some(leaf) => {
                let all = tags.iter().fold(said, |sum, tag| pair(sum, tag.column));
                leaf.conditions = leaf.conditions.wrapping_add(mix(all));
            }
            None => self.conditions.push((said, tags)),
        }
    }

    pub(super) fn projected(&self, exprs: &[Expr], parameters: &[Value]) -> Self {
        let columns = exprs.iter().map(|expr| match expr.node {
            Node::Column(column) => self.tag(column),
            _ => Tag {
                leaf: MADE,
                column: self.expr(expr, parameters),
            },
        });
        Self {
            columns: columns.collect(),
            ..self.clone()
        }
    }

    pub(super) fn limited(&self, limit: Option<usize>, offset: usize) -> Self {
        if limit.is_none() && offset == 0 {
            return self.clone();
        }
        let base = pair(self.fingerprint(), text(format_args!("limit {limit:?} {offset}")));
        Self::leaf(base, self.columns.iter().map(|tag| self.representative(*tag)))
    }

    pub(super) fn grouped(&self, groups: &[Expr], aggregates: &[Aggregate], parameters: &[Value]) -> Self {
        let groups: Vec<u64> = groups.iter().map(|group| self.expr(group, parameters)).collect();
        let keys = groups.iter().map(|group| mix(*group)).fold(0, u64::wrapping_add);
        let base = pair(pair(self.fingerprint(), text(format_args!("groups"))), keys);
        let made = aggregates.iter().map(|aggregate| {
            let of = aggregate.argument.iter().chain(&aggregate.filter);
            let kind = text(format_args!("{:?} {}", aggregate.function, aggregate.distinct));
            of.fold(kind, |sum, expr| pair(sum, self.expr(expr, parameters)))
        });
        Self::leaf(base, groups.iter().copied().chain(made))
    }

    /// Both sides' columns; of semi and anti joins the kept side's, as [`Join`] has them.
    pub(super) fn joined(join: &Join, probe: &Self, build: &Self, parameters: &[Value]) -> Self {
        match join.kind {
            JoinKind::Inner => Self::inner(join, probe, build, parameters),
            JoinKind::Semi | JoinKind::Anti => {
                Self::reduced(join, (probe, &join.probe_keys), (build, &join.build_keys), parameters)
            }
            JoinKind::BuildSemi | JoinKind::BuildAnti => {
                Self::reduced(join, (build, &join.build_keys), (probe, &join.probe_keys), parameters)
            }
            kind => {
                let both = Self::beside(probe, build);
                let keys = join
                    .probe_keys
                    .iter()
                    .zip(&join.build_keys)
                    .map(|(left, right)| mix(pair(probe.expr(left, parameters), build.expr(right, parameters))));
                let keys = keys.fold(0, u64::wrapping_add);
                let residual = join
                    .residual
                    .as_ref()
                    .map_or(0, |residual| both.expr(residual, parameters));
                let turned = matches!(kind, JoinKind::BuildOuter);
                let sides = match turned {
                    true => pair(build.fingerprint(), probe.fingerprint()),
                    false => pair(probe.fingerprint(), build.fingerprint()),
                };
                let kind = if turned { JoinKind::Left } else { kind };
                let base = pair(
                    pair(sides, text(format_args!("{kind:?} {}", join.null_equals_null))),
                    pair(keys, residual),
                );
                let mark = (kind == JoinKind::Mark).then_some(base);
                let columns = if kind == JoinKind::Mark {
                    &probe.columns
                } else {
                    &both.columns
                };
                let owner = if kind == JoinKind::Mark { probe } else { &both };
                Self::leaf(base, columns.iter().map(|tag| owner.representative(*tag)).chain(mark))
            }
        }
    }

    /// The columns of two names, which nothing connects.
    fn beside(probe: &Self, build: &Self) -> Self {
        let offset = u32::try_from(probe.leaves.len()).unwrap_or(MADE);
        let moved = |tag: &Tag| match tag.leaf {
            MADE => *tag,
            leaf => Tag {
                leaf: leaf + offset,
                ..*tag
            },
        };
        let all = |tags: &Vec<Tag>| tags.iter().map(moved).collect::<Vec<_>>();
        let classes = build.classes.iter().map(all);
        let conditions = build.conditions.iter().map(|(said, tags)| (*said, all(tags)));
        Self {
            leaves: probe.leaves.iter().chain(&build.leaves).copied().collect(),
            classes: probe.classes.iter().cloned().chain(classes).collect(),
            conditions: probe.conditions.iter().cloned().chain(conditions).collect(),
            columns: probe
                .columns
                .iter()
                .copied()
                .chain(build.columns.iter().map(moved))
                .collect(),
        }
    }

    fn inner(join: &Join, probe: &Self, build: &Self, parameters: &[Value]) -> Self {
        let mut both = Self::beside(probe, build);
        let width = probe.columns.len();
        for (left, right) in join.probe_keys.iter().zip(&join.build_keys) {
            match (&left.node, &right.node) {
                (Node::Column(left), Node::Column(right)) => {
                    let (left, right) = (both.tag(*left), both.tag(width + right));
                    both.equal(left, right);
                }
                _ => {
                    let mut moved = right.clone();
                    moved.map_columns(&|column| width + column);
                    let sides = [both.expr(left, parameters), both.expr(&moved, parameters)];
                    let (least, most) = (sides[0].min(sides[1]), sides[0].max(sides[1]));
                    both.conditions.push((pair(least, most), Vec::new()));
                }
            }
        }
        match &join.residual {
            Some(residual) => both.filtered(std::slice::from_ref(residual), parameters),
            None => both,
        }
    }

    fn equal(&mut self, left: Tag, right: Tag) {
        let of = |tag: Tag| self.classes.iter().position(|class| class.contains(&tag));
        match (of(left), of(right)) {
            _ if left == right => {}
            (Some(a), Some(b)) if a == b => {}
            (Some(a), Some(b)) => {
                let gone = self.classes.swap_remove(a.max(b));
                self.classes[a.min(b)].extend(gone);
            }
            (Some(a), None) => self.classes[a].push(right),
            (None, Some(b)) => self.classes[b].push(left),
            (None, None) => self.classes.push(vec![left, right]),
        }
    }

    fn reduced(
        join: &Join,
        (own, own_keys): (&Self, &[Expr]),
        (other, other_keys): (&Self, &[Expr]),
        parameters: &[Value],
    ) -> Self {
        let anti = matches!(join.kind, JoinKind::Anti | JoinKind::BuildAnti);
        let keys = own_keys
            .iter()
            .zip(other_keys)
            .map(|(left, right)| mix(pair(own.expr(left, parameters), other.expr(right, parameters))));
        let keys = keys.fold(0, u64::wrapping_add);
        let residual = join.residual.as_ref().map_or(0, |residual| {
            let both = match join.kind {
                JoinKind::BuildSemi | JoinKind::BuildAnti => Self::beside(other, own),
                _ => Self::beside(own, other),
            };
            both.expr(residual, parameters)
        });
        let said = pair(pair(other.fingerprint(), keys), residual ^ u64::from(anti));
        let mut reduced = own.clone();
        reduced.conditions.push((said, Vec::new()));
        reduced
    }

    pub(super) fn width(&self) -> usize {
        self.columns.len()
    }

    /// The first columns only.
    pub(super) fn keep(&mut self, columns: usize) {
        self.columns.truncate(columns);
    }

    /// How a column is told from others in sets that [`leaf_hash`] and [`class_hash`] name.
    pub(super) fn column(&self, column: usize) -> u64 {
        self.resolved(self.tag(column))
    }
}

fn leaf_hash(leaf: u64) -> u64 {
    mix(pair(leaf, 1))
}

/// What a condition over several leaves adds to a fingerprint: its [`template`] and its columns' names.
pub(super) fn condition_hash(said: u64, columns: impl Iterator<Item = u64>) -> u64 {
    mix(columns.fold(said, pair))
}

/// What a class of equal columns adds to a fingerprint.
pub(super) fn class_hash(columns: impl Iterator<Item = u64>) -> u64 {
    mix(pair(columns.map(mix).fold(0, u64::wrapping_add), 2))
}
