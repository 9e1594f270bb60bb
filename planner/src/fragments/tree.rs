//! What a physical plan means, before it is cut into fragments: a small tree of relations in the fragments' own
//! expressions.
//!
//! Nodes stand in an arena, children before parents. A node's columns are those of the DataFusion node it came from, in that
//! order. Breakers (aggregates, limited sorts) that stand twice are one node with two readers; `key` is the structural
//! identity that finds them.

use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;
use trireme_costs::rows::Pairing;
use trireme_device_api::{Aggregate, Expr, Field, JoinKind, Node as ExprNode, SortKey};
use trireme_exec::operators::{ColumnSource, FileScan};

/// Position of a relation in its [`Tree`].
pub(super) type RelationId = usize;

/// A relation.
#[derive(Debug, Clone)]
pub(super) struct Relation {
    pub(super) op: Op,
    pub(super) fields: Vec<Field>,
    /// Equal for relations that give the same rows.
    key: usize,
}

/// How a relation comes from others.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Scan(FileScan),
    Stream(Arc<dyn ExecutionPlan>),
    Filter {
        input: RelationId,
        predicates: Vec<Expr>,
    },
    Project {
        input: RelationId,
        exprs: Vec<Expr>,
    },
    Join(Join),
    Aggregate {
        input: RelationId,
        groups: Vec<Expr>,
        aggregates: Vec<Aggregate>,
    },
    Sort {
        input: RelationId,
        keys: Vec<SortKey>,
        limit: Option<usize>,
        offset: usize,
    },
    Limit {
        input: RelationId,
        limit: Option<usize>,
        offset: usize,
    },
}

/// A join. Its columns are the probe's, then the build's; for semi and anti the probe's; for mark the probe's and a boolean;
/// for build semi and build anti the build's.
#[derive(Debug, Clone)]
pub(super) struct Join {
    pub(super) probe: RelationId,
    pub(super) build: RelationId,
    pub(super) kind: JoinKind,
    pub(super) probe_keys: Vec<Expr>,
    pub(super) build_keys: Vec<Expr>,
    /// Over the probe's columns, then the build's.
    pub(super) residual: Option<Expr>,
    pub(super) null_equals_null: bool,
    pub(super) null_aware: bool,
}

impl Join {
    /// What its rows are estimated by.
    pub(super) fn pairing(&self) -> Pairing<'_> {
        Pairing {
            kind: self.kind,
            probe_keys: &self.probe_keys,
            build_keys: &self.build_keys,
            residual: self.residual.as_ref(),
        }
    }
}

impl Op {
    /// The relations it reads.
    pub(super) fn inputs(&self) -> Vec<RelationId> {
        match self {
            Op::Scan(_) | Op::Stream(_) => Vec::new(),
            Op::Filter { input, .. }
            | Op::Project { input, .. }
            | Op::Aggregate { input, .. }
            | Op::Sort { input, .. }
            | Op::Limit { input, .. } => vec![*input],
            Op::Join(join) => vec![join.probe, join.build],
        }
    }

    /// Its rows are made once and kept, so that a second reader costs nothing.
    fn is_kept(&self) -> bool {
        matches!(
            self,
            Op::Aggregate { .. } | Op::Sort { limit: Some(_), .. } | Op::Limit { .. }
        )
    }

    /// The same operation over inputs of the same meaning; `key` gives a relation's meaning.
    fn same(&self, other: &Op, key: &dyn Fn(RelationId) -> usize) -> bool {
        let inputs = |op: &Op| op.inputs().into_iter().map(key).collect::<Vec<_>>();
        if inputs(self) != inputs(other) {
            return false;
        }
        match (self, other) {
            (Op::Scan(a), Op::Scan(b)) => same_scan(a, b),
            (Op::Stream(a), Op::Stream(b)) => Arc::ptr_eq(a, b),
            (Op::Filter { predicates: a, .. }, Op::Filter { predicates: b, .. }) => a == b,
            (Op::Project { exprs: a, .. }, Op::Project { exprs: b, .. }) => a == b,
            (Op::Join(a), Op::Join(b)) => {
                a.kind == b.kind
                    && a.probe_keys == b.probe_keys
                    && a.build_keys == b.build_keys
                    && a.residual == b.residual
                    && a.null_equals_null == b.null_equals_null
                    && a.null_aware == b.null_aware
            }
            (
                Op::Aggregate {
                    groups: a,
                    aggregates: left,
                    ..
                },
                Op::Aggregate {
                    groups: b,
                    aggregates: right,
                    ..
                },
            ) => a == b && left == right,
            (
                Op::Sort {
                    keys: a,
                    limit: limit_a,
                    offset: offset_a,
                    ..
                },
                Op::Sort {
                    keys: b,
                    limit: limit_b,
                    offset: offset_b,
                    ..
                },
            ) => a == b && limit_a == limit_b && offset_a == offset_b,
            (
                Op::Limit {
                    limit: a, offset: left, ..
                },
                Op::Limit {
                    limit: b,
                    offset: right,
                    ..
                },
            ) => a == b && left == right,
            _ => false,
        }
    }
}

/// The same columns of the same rows of the same files: two versions of a table may differ in which rows of a file are left.
pub(super) fn same_scan(a: &FileScan, b: &FileScan) -> bool {
    let files = |scan: &FileScan| {
        let mut files: Vec<_> = scan
            .files
            .iter()
            .map(|file| (file.object_meta.location.clone(), file.partition_values.clone()))
            .collect();
        files.sort_by(|left, right| left.0.cmp(&right.0));
        files
    };
    a.name == b.name
        && a.store == b.store
        && a.columns == b.columns
        && a.file_schema == b.file_schema
        && files(a) == files(b)
        && a.version() == b.version()
}

/// Relations.
#[derive(Debug, Default)]
pub(super) struct Tree {
    relations: Vec<Relation>,
    keys: usize,
}

impl Tree {
    pub(super) fn get(&self, id: RelationId) -> &Relation {
        &self.relations[id]
    }

    pub(super) fn len(&self) -> usize {
        self.relations.len()
    }

    pub(super) fn fields(&self, id: RelationId) -> &[Field] {
        &self.relations[id].fields
    }

    /// All columns of a relation.
    pub(super) fn columns(&self, id: RelationId) -> Vec<Expr> {
        identity(self.fields(id))
    }

    /// Adds a relation, or finds the one that stands already if its rows are kept.
    pub(super) fn add(&mut self, op: Op, fields: Vec<Field>) -> RelationId {
        let twin = self.relations.iter().position(|relation| {
            relation.fields.len() == fields.len() && relation.op.same(&op, &|id| self.relations[id].key)
        });
        let key = match twin {
            Some(twin) if op.is_kept() => return twin,
            Some(twin) => self.relations[twin].key,
            None => {
                self.keys += 1;
                self.keys
            }
        };
        self.relations.push(Relation { op, fields, key });
        self.relations.len() - 1
    }

    pub(super) fn scan(&mut self, scan: FileScan, nullable: &[bool]) -> RelationId {
        let fields = scan
            .columns
            .iter()
            .zip(nullable)
            .map(|(column, nullable)| Field {
                name: column.name.clone(),
                data_type: column.data_type.clone(),
                nullable: *nullable || matches!(column.source, ColumnSource::Partition(_)),
            })
            .collect();
        self.add(Op::Scan(scan), fields)
    }

    pub(super) fn filter(&mut self, input: RelationId, predicates: Vec<Expr>) -> RelationId {
        if predicates.is_empty() {
            return input;
        }
        let fields = self.fields(input).to_vec();
        self.add(Op::Filter { input, predicates }, fields)
    }

    pub(super) fn project(&mut self, input: RelationId, exprs: Vec<Expr>, fields: Vec<Field>) -> RelationId {
        if exprs == self.columns(input) {
            // Names are for people; the result takes its own from the plan.
            return input;
        }
        if only_columns(&exprs)
            && let Op::Project {
                input: below,
                exprs: inner,
            } = &self.get(input).op
        {
            let (below, mut exprs) = (*below, exprs);
            for expr in &mut exprs {
                substitute(expr, inner);
            }
            return self.project(below, exprs, fields);
        }
        self.add(Op::Project { input, exprs }, fields)
    }

    /// Only some columns, in this order.
    pub(super) fn pick(&mut self, input: RelationId, picked: &[usize]) -> RelationId {
        let fields: Vec<_> = picked.iter().map(|index| self.fields(input)[*index].clone()).collect();
        let exprs = picked
            .iter()
            .zip(&fields)
            .map(|(index, field)| Expr::column(*index, field.data_type.clone()))
            .collect();
        self.project(input, exprs, fields)
    }

    pub(super) fn join(&mut self, join: Join, mark: Option<Field>) -> RelationId {
        let probe = || self.fields(join.probe).to_vec();
        let build = || self.fields(join.build).to_vec();
        let nullable = |fields: Vec<Field>| {
            fields.into_iter().map(|field| Field {
                nullable: true,
                ..field
            })
        };
        let fields: Vec<_> = match join.kind {
            JoinKind::Inner => probe().into_iter().chain(build()).collect(),
            JoinKind::Left => probe().into_iter().chain(nullable(build())).collect(),
            JoinKind::BuildOuter => nullable(probe()).chain(build()).collect(),
            JoinKind::Full => nullable(probe()).chain(nullable(build())).collect(),
            JoinKind::Semi | JoinKind::Anti => probe(),
            JoinKind::Mark => probe().into_iter().chain(mark).collect(),
            JoinKind::BuildSemi | JoinKind::BuildAnti => build(),
        };
        self.add(Op::Join(join), fields)
    }

    /// Sorted; merged with a sort below that it refines.
    pub(super) fn sort(&mut self, input: RelationId, keys: Vec<SortKey>, limit: Option<usize>) -> RelationId {
        match self.get(input).op.clone() {
            Op::Sort {
                input: below,
                keys: finer,
                limit: inner,
                offset,
            } if finer.starts_with(&keys) => {
                let limit = smaller(limit, inner);
                return self.sorted(below, finer, limit, offset);
            }
            Op::Project { input: below, exprs } if only_columns(&exprs) => {
                let fields = self.fields(input).to_vec();
                let mut keys = keys;
                for key in &mut keys {
                    substitute(&mut key.expr, &exprs);
                }
                let sorted = self.sort(below, keys, limit);
                return self.project(sorted, exprs, fields);
            }
            _ => {}
        }
        let input = self.unordered(input);
        self.sorted(input, keys, limit, 0)
    }

    fn sorted(&mut self, input: RelationId, keys: Vec<SortKey>, limit: Option<usize>, offset: usize) -> RelationId {
        let fields = self.fields(input).to_vec();
        self.add(
            Op::Sort {
                input,
                keys,
                limit,
                offset,
            },
            fields,
        )
    }

    /// At most `limit` rows after `skip`; merged with a limit or sort below.
    pub(super) fn limit(&mut self, input: RelationId, limit: Option<usize>, skip: usize) -> RelationId {
        if limit.is_none() && skip == 0 {
            return input;
        }
        let fields = self.fields(input).to_vec();
        match self.get(input).op.clone() {
            Op::Project { input: below, exprs } => {
                let limited = self.limit(below, limit, skip);
                self.project(limited, exprs, fields)
            }
            Op::Sort {
                input: below,
                keys,
                limit: inner,
                offset,
            } => {
                let limit = smaller(limit, inner.map(|inner| inner.saturating_sub(skip)));
                self.sorted(below, keys, limit, offset.saturating_add(skip))
            }
            Op::Limit {
                input: below,
                limit: inner,
                offset,
            } => {
                let limit = smaller(limit, inner.map(|inner| inner.saturating_sub(skip)));
                let offset = offset.saturating_add(skip);
                self.add(
                    Op::Limit {
                        input: below,
                        limit,
                        offset,
                    },
                    fields,
                )
            }
            _ => self.add(
                Op::Limit {
                    input,
                    limit,
                    offset: skip,
                },
                fields,
            ),
        }
    }

    /// Whether its rows come from a sort, in that order.
    pub(super) fn is_sorted(&self, id: RelationId) -> bool {
        match &self.get(id).op {
            Op::Sort { .. } => true,
            Op::Project { input, .. } => self.is_sorted(*input),
            _ => false,
        }
    }

    /// The rows without their order, and its keys: the columns that only it needs stand behind the others. None where no sort
    /// says it.
    pub(super) fn order(&mut self, id: RelationId) -> Option<(RelationId, Vec<SortKey>)> {
        match self.get(id).op.clone() {
            Op::Sort {
                input,
                keys,
                limit: None,
                offset: 0,
            } => Some((input, keys)),
            Op::Project { input, exprs } => {
                let (below, mut keys) = self.order(input)?;
                let (mut fields, mut made) = (self.fields(id).to_vec(), exprs);
                for key in &mut keys {
                    let at = made.iter().position(|expr| *expr == key.expr).unwrap_or_else(|| {
                        fields.push(hidden_key(&key.expr));
                        made.push(key.expr.clone());
                        made.len() - 1
                    });
                    key.expr = Expr::column(at, key.expr.data_type.clone());
                }
                Some((self.project(below, made, fields), keys))
            }
            Op::Filter { input, predicates } => {
                let width = self.fields(input).len();
                let (below, keys) = self.order(input)?;
                // Its columns are the first ones still.
                (width <= self.fields(below).len()).then(|| (self.filter(below, predicates), keys))
            }
            _ => None,
        }
    }

    /// The same rows in any order: a sort without limit goes.
    pub(super) fn unordered(&mut self, id: RelationId) -> RelationId {
        let fields = self.fields(id).to_vec();
        match self.get(id).op.clone() {
            Op::Sort {
                input,
                limit: None,
                offset: 0,
                ..
            } => self.unordered(input),
            Op::Project { input, exprs } => {
                let below = self.unordered(input);
                if below == input {
                    id
                } else {
                    self.project(below, exprs, fields)
                }
            }
            Op::Filter { input, predicates } => {
                let below = self.unordered(input);
                if below == input {
                    id
                } else {
                    self.filter(below, predicates)
                }
            }
            _ => id,
        }
    }

    /// Whether an operator of DataFusion's gives some of its rows.
    pub(super) fn reads_stream(&self, id: RelationId) -> bool {
        let op = &self.get(id).op;
        matches!(op, Op::Stream(_)) || op.inputs().into_iter().any(|input| self.reads_stream(input))
    }

    /// How many rows there can be, when that is known: `(at least, at most)`.
    pub(super) fn row_bounds(&self, id: RelationId) -> (usize, Option<usize>) {
        match &self.get(id).op {
            Op::Aggregate { groups, .. } if groups.is_empty() => (1, Some(1)),
            Op::Stream(plan) if plan.name() == "PlaceholderRowExec" => (1, Some(1)),
            Op::Stream(plan) if plan.name() == "EmptyExec" => (0, Some(0)),
            Op::Filter { input, .. } => (0, self.row_bounds(*input).1),
            Op::Project { input, .. } => self.row_bounds(*input),
            Op::Sort {
                input, limit, offset, ..
            }
            | Op::Limit { input, limit, offset } => {
                let (least, most) = self.row_bounds(*input);
                let least = least.saturating_sub(*offset).min(limit.unwrap_or(usize::MAX));
                (least, smaller(most.map(|most| most.saturating_sub(*offset)), *limit))
            }
            Op::Join(join) => match join.kind {
                JoinKind::Inner if join.probe_keys.is_empty() => {
                    let (probe, build) = (self.row_bounds(join.probe), self.row_bounds(join.build));
                    let least = if join.residual.is_none() {
                        probe.0.saturating_mul(build.0)
                    } else {
                        0
                    };
                    let most = probe.1.zip(build.1).and_then(|(a, b)| a.checked_mul(b));
                    (least, most)
                }
                JoinKind::Semi | JoinKind::Anti => (0, self.row_bounds(join.probe).1),
                JoinKind::Mark => self.row_bounds(join.probe),
                _ => (0, None),
            },
            _ => (0, None),
        }
    }
}

/// A column that only an order needs.
pub(super) fn hidden_key(expr: &Expr) -> Field {
    Field {
        name: "key".to_owned(),
        data_type: expr.data_type.clone(),
        nullable: true,
    }
}

/// The smaller of two limits, none being no limit.
pub(super) fn smaller(a: Option<usize>, b: Option<usize>) -> Option<usize> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Each column as itself.
pub(super) fn identity(fields: &[Field]) -> Vec<Expr> {
    fields
        .iter()
        .enumerate()
        .map(|(index, field)| Expr::column(index, field.data_type.clone()))
        .collect()
}

pub(super) fn only_columns(exprs: &[Expr]) -> bool {
    exprs.iter().all(|expr| matches!(expr.node, ExprNode::Column(_)))
}

/// Replaces columns by expressions.
pub(super) fn substitute(expr: &mut Expr, columns: &[Expr]) {
    if let ExprNode::Column(index) = expr.node {
        expr.clone_from(&columns[index]);
        return;
    }
    for child in expr.children_mut() {
        substitute(child, columns);
    }
}
