//! Which columns of each relation anyone reads, from the result down: only they travel.

use trireme_device_api::{Aggregate, Expr, JoinKind, SortKey};

use super::tree::{Join, Op, RelationId, Tree};

/// Needed columns by relation; none for relations that nobody reads.
pub(super) struct Needs {
    columns: Vec<Option<Vec<bool>>>,
}

impl Needs {
    /// What is needed for the first `width` columns of `root`.
    pub(super) fn of(tree: &Tree, root: RelationId, width: usize) -> Self {
        let mut needs = Self {
            columns: vec![None; tree.len()],
        };
        needs.add(tree, root, 0..width);
        for id in (0..=root).rev() {
            if needs.columns[id].is_some() {
                needs.below(tree, id);
            }
        }
        needs
    }

    /// Needed columns, ascending.
    pub(super) fn columns(&self, id: RelationId) -> Vec<usize> {
        let flags = self.columns[id].iter().flatten();
        flags
            .enumerate()
            .filter_map(|(index, needed)| needed.then_some(index))
            .collect()
    }

    fn add(&mut self, tree: &Tree, id: RelationId, columns: impl IntoIterator<Item = usize>) {
        let flags = self.columns[id].get_or_insert_with(|| vec![false; tree.fields(id).len()]);
        for column in columns {
            flags[column] = true;
        }
    }

    fn add_exprs<'e>(&mut self, tree: &Tree, id: RelationId, exprs: impl IntoIterator<Item = &'e Expr>) {
        self.add(tree, id, []);
        for expr in exprs {
            self.add(tree, id, expr.columns());
        }
    }

    fn below(&mut self, tree: &Tree, id: RelationId) {
        let needed = self.columns(id);
        match &tree.get(id).op {
            Op::Scan(_) | Op::Stream(_) => {}
            Op::Filter { input, predicates } => {
                self.add(tree, *input, needed);
                self.add_exprs(tree, *input, predicates);
            }
            Op::Project { input, exprs } => {
                self.add_exprs(tree, *input, needed.iter().map(|index| &exprs[*index]));
            }
            Op::Join(join) => self.below_join(tree, join, &needed),
            Op::Aggregate {
                input,
                groups,
                aggregates,
            } => {
                self.add_exprs(tree, *input, groups);
                let needed = needed.iter().filter_map(|index| index.checked_sub(groups.len()));
                for aggregate in needed.map(|index| &aggregates[index]) {
                    self.add_exprs(tree, *input, aggregate_exprs(aggregate));
                }
            }
            Op::Sort { input, keys, .. } => {
                self.add(tree, *input, needed);
                self.add_exprs(tree, *input, keys.iter().map(|key| &key.expr));
            }
            Op::Limit { input, .. } => self.add(tree, *input, needed),
        }
    }

    fn below_join(&mut self, tree: &Tree, join: &Join, needed: &[usize]) {
        let probe_width = tree.fields(join.probe).len();
        self.add_exprs(tree, join.probe, &join.probe_keys);
        self.add_exprs(tree, join.build, &join.build_keys);
        let (probe, build) = join_columns(join, probe_width, needed);
        self.add(tree, join.probe, probe);
        self.add(tree, join.build, build);
    }
}

/// Columns of the probe and of the build side that a join's `needed` columns and its residual read.
pub(super) fn join_columns(join: &Join, probe_width: usize, needed: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let (mut probe, mut build) = (Vec::new(), Vec::new());
    let mut put = |column: usize| match column.checked_sub(probe_width) {
        None => probe.push(column),
        Some(column) => build.push(column),
    };
    for column in needed {
        match join.kind {
            JoinKind::BuildSemi | JoinKind::BuildAnti => put(column + probe_width),
            JoinKind::Mark if *column >= probe_width => {}
            _ => put(*column),
        }
    }
    for column in join.residual.iter().flat_map(Expr::columns) {
        put(column);
    }
    build.sort_unstable();
    build.dedup();
    (probe, build)
}

fn aggregate_exprs(aggregate: &Aggregate) -> impl Iterator<Item = &Expr> {
    let order = aggregate.order.iter().map(|key: &SortKey| &key.expr);
    aggregate.argument.iter().chain(&aggregate.filter).chain(order)
}
