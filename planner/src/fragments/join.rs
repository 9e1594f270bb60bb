//! DataFusion's joins. The side that DataFusion builds from is its left one, and so it is here, except where only the other
//! way round has a kind: marks of left rows, and NOT IN.
//!
//! ```text
//!  DataFusion: left ++ right          here: probe ++ build  ─▶ a projection puts the columns back
//! ```

use std::sync::Arc;

use datafusion::common::{JoinSide, JoinType, NullEquality};
use datafusion::physical_expr::PhysicalExprRef;
use datafusion::physical_plan::joins::utils::JoinFilter;
use trireme_device_api::{Expr, Field, JoinKind, Node};

use super::expr::Scope;
use super::lower::Lowering;
use super::tree::{Join, RelationId};

/// A join of DataFusion's, whichever operator does it.
pub(super) struct JoinSpec<'a> {
    pub(super) join_type: JoinType,
    pub(super) on: &'a [(PhysicalExprRef, PhysicalExprRef)],
    pub(super) filter: Option<&'a JoinFilter>,
    pub(super) null_equality: NullEquality,
    pub(super) null_aware: bool,
    /// Columns of the result among those of the join.
    pub(super) projection: Option<&'a [usize]>,
    /// The join's own columns, without projection.
    pub(super) mark: Option<Field>,
}

/// How a join of DataFusion's is done: the kind, and whether its left side is the one that probes.
fn kind(join_type: JoinType, null_aware: bool) -> (JoinKind, bool) {
    match join_type {
        JoinType::Inner => (JoinKind::Inner, false),
        JoinType::Left => (JoinKind::BuildOuter, false),
        JoinType::Right => (JoinKind::Left, false),
        JoinType::Full => (JoinKind::Full, false),
        JoinType::LeftSemi => (JoinKind::BuildSemi, false),
        JoinType::RightSemi => (JoinKind::Semi, false),
        JoinType::LeftAnti if null_aware => (JoinKind::Anti, true),
        JoinType::LeftAnti => (JoinKind::BuildAnti, false),
        JoinType::RightAnti => (JoinKind::Anti, false),
        JoinType::LeftMark => (JoinKind::Mark, true),
        JoinType::RightMark => (JoinKind::Mark, false),
    }
}

/// Key columns that hold the same value on both sides of every match, `(probe, build)`: the probe's own can be read, so that
/// the build side needn't carry it. Floats can be equal and differ.
fn twins(kind: JoinKind, probe_keys: &[Expr], build_keys: &[Expr]) -> Vec<(usize, usize)> {
    if kind != JoinKind::Inner {
        return Vec::new();
    }
    let same = |(probe, build): (&Expr, &Expr)| match (&probe.node, &build.node) {
        (Node::Column(left), Node::Column(right))
            if probe.data_type == build.data_type && !probe.data_type.is_float() =>
        {
            Some((*left, *right))
        }
        _ => None,
    };
    probe_keys.iter().zip(build_keys).filter_map(same).collect()
}

impl Lowering<'_> {
    /// Joins two relations. DataFusion's joins give their right side's rows in its order, and so a sort may stand below one,
    /// whose keys nobody reads above: it moves on top.
    pub(super) fn join(
        &mut self,
        left: RelationId,
        right: RelationId,
        spec: &JoinSpec<'_>,
    ) -> Result<RelationId, String> {
        let (kind, left_probes) = kind(spec.join_type, spec.null_aware);
        let right_width = self.tree.fields(right).len();
        let keeps = !left_probes
            && matches!(
                kind,
                JoinKind::Inner | JoinKind::Left | JoinKind::Semi | JoinKind::Anti | JoinKind::Mark
            );
        let (right, sort_keys) = match self.tree.order(right).filter(|_| keeps) {
            Some((wide, keys)) => (wide, keys),
            None => (right, Vec::new()),
        };
        let (left, right) = (self.tree.unordered(left), self.tree.unordered(right));
        let (probe, build) = if left_probes { (left, right) } else { (right, left) };
        let keys = |side: usize| -> Vec<_> {
            spec.on
                .iter()
                .map(|(left, right)| Arc::clone([left, right][side]))
                .collect()
        };
        let left_keys = self.exprs(left, &keys(0))?;
        let right_keys = self.exprs(right, &keys(1))?;
        let (probe_keys, build_keys) = if left_probes {
            (left_keys, right_keys)
        } else {
            (right_keys, left_keys)
        };
        let residual = spec
            .filter
            .map(|filter| self.join_filter(filter, probe, build, left_probes))
            .transpose()?;
        let (probe_width, build_width) = (self.tree.fields(probe).len(), self.tree.fields(build).len());
        let twins = twins(kind, &probe_keys, &build_keys);
        let joined = self.tree.join(
            Join {
                probe,
                build,
                kind,
                probe_keys,
                build_keys,
                residual,
                null_equals_null: spec.null_equality == NullEquality::NullEqualsNull,
                null_aware: spec.null_aware,
            },
            spec.mark.clone(),
        );
        let joined = match sort_keys.is_empty() {
            true => joined,
            // The right side probes, and its columns are the first ones.
            false => self.tree.sort(joined, sort_keys, None),
        };
        let order: Vec<_> = match kind {
            JoinKind::Inner | JoinKind::Left | JoinKind::BuildOuter | JoinKind::Full => {
                let build = (0..build_width).map(|column| {
                    let twin = twins.iter().find(|(_, build)| *build == column);
                    twin.map_or(probe_width + column, |(probe, _)| *probe)
                });
                let probe = if left_probes { probe_width } else { right_width };
                build.chain(0..probe).collect()
            }
            JoinKind::Semi | JoinKind::Anti | JoinKind::Mark if !left_probes => (0..right_width)
                .chain(probe_width..self.tree.fields(joined).len())
                .collect(),
            _ => (0..self.tree.fields(joined).len()).collect(),
        };
        let picked = match spec.projection {
            Some(projection) => projection.iter().map(|index| order[*index]).collect(),
            None => order,
        };
        Ok(self.tree.pick(joined, &picked))
    }

    /// The filter over probe columns, then build columns.
    fn join_filter(
        &self,
        filter: &JoinFilter,
        probe: RelationId,
        build: RelationId,
        left_probes: bool,
    ) -> Result<Expr, String> {
        let (probe_columns, build_columns) = (self.tree.columns(probe), self.tree.columns(build));
        let columns = filter
            .column_indices()
            .iter()
            .map(|column| {
                let from_probe = match column.side {
                    JoinSide::Left => left_probes,
                    JoinSide::Right => !left_probes,
                    JoinSide::None => return Err("a join's filter reads its mark".to_owned()),
                };
                let found = if from_probe {
                    probe_columns.get(column.index).cloned()
                } else {
                    build_columns.get(column.index).cloned().map(|mut expr| {
                        expr.map_columns(&|index| index + probe_columns.len());
                        expr
                    })
                };
                found.ok_or_else(|| "a join's filter reads a column outside its inputs".to_owned())
            })
            .collect::<Result<Vec<_>, _>>()?;
        let scope = Scope {
            schema: filter.schema(),
            columns: &columns,
            subquery: &|_| None,
            parameters: &self.parameters,
        };
        scope.lower(filter.expression())
    }
}
