//! Finds the parts of a plan that can be lowered and puts their replacements in.
//!
//! A replacement has one partition. Where the replaced part had several, a repartitioning gives them back, so that what
//! stands above finds what it was planned for; DataFusion's own check looks at the whole afterwards.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_expr::Partitioning;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::sanity_checker::SanityCheckPlan;
use datafusion::physical_plan::expressions::{Column, UnKnownColumn};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::scalar_subquery::ScalarSubqueryExec;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, ExecutionPlan, ExecutionPlanProperties, ReplaceChildrenOptions,
};
use trireme_device_api::{Expr, SortKey};

use super::assumptions::Assumptions;
use super::emit::{StreamColumns, emit};
use super::estimate::Estimator;
use super::expected::KnownInputs;
use super::lower::{JoinOrder, Lowering, fused_fields, is_quiet};
use super::order::order;
use super::tree::{Op, RelationId, Tree, hidden_key, only_columns};
use super::{Lowered, Outcome, Reason, Scalars};

/// Says whether a part is worth replacing, or why not.
pub(super) type Accept<'a> = &'a dyn Fn(&Lowered) -> Result<(), String>;

/// Makes the node that stands for a part; the part itself comes as its backup.
pub(super) type Make<'a> = &'a dyn Fn(Lowered, Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>>;

/// The largest part that is rooted at `plan`, with its streams as they are in the plan.
pub fn lower(plan: &Arc<dyn ExecutionPlan>) -> Outcome {
    let joins = JoinOrder {
        by_cost: true,
        distinct: &|_, _| None,
        statistics: &Arc::default(),
    };
    match part(plan, &[], true, joins) {
        Ok(part) => Outcome::Fused(Box::new(part.lowered)),
        Err(reason) => Outcome::Refused { reason },
    }
}

/// Replaces each largest part that can be lowered and that `accept` takes by what `make` makes of it. The list says why the
/// other operators stayed.
///
/// # Errors
/// What `make` fails with.
pub fn rewrite(
    plan: Arc<dyn ExecutionPlan>,
    joins: JoinOrder<'_>,
    accept: Accept<'_>,
    make: Make<'_>,
) -> Result<(Arc<dyn ExecutionPlan>, Vec<Reason>)> {
    let mut walk = Walk {
        joins,
        accept,
        make,
        reasons: Vec::new(),
        scalars: Vec::new(),
        replaced: false,
    };
    let new = walk.node(&plan, true)?;
    if !walk.replaced {
        return Ok((plan, walk.reasons));
    }
    match SanityCheckPlan::new().optimize(Arc::clone(&new), &ConfigOptions::default()) {
        Ok(_) => Ok((new, walk.reasons)),
        Err(error) => {
            walk.reasons.push(Reason::new(plan.as_ref(), error.strip_backtrace()));
            Ok((plan, walk.reasons))
        }
    }
}

/// Rows that an operator is expected to give; none where it can't be lowered.
pub fn foreseen(plan: &dyn ExecutionPlan, joins: JoinOrder<'_>) -> Option<f64> {
    let mut lowering = Lowering::new(&[], joins);
    let root = lowering.node(plan).ok()?;
    let parameters = lowering.parameters.take();
    let mut estimator = Estimator::learned(&parameters.values, joins.statistics);
    Some(estimator.of(&lowering.tree, root).rows)
}

/// A part that can be replaced.
struct Part {
    lowered: Lowered,
    streams: Vec<StreamColumns>,
    reasons: Vec<Reason>,
}

fn part(
    plan: &Arc<dyn ExecutionPlan>,
    enclosing: &[Scalars],
    needs_order: bool,
    joins: JoinOrder<'_>,
) -> Result<Part, String> {
    let mut lowering = Lowering::new(enclosing, joins);
    let root = lowering.node(plan.as_ref())?;
    let output = fused_fields(&plan.schema())?;
    let root = sort_on_top(&mut lowering.tree, root);
    let promised = plan.output_ordering();
    let mut ordered = promised.is_some() && matches!(lowering.tree.get(root).op, Op::Sort { .. });
    let mut root = root;
    if let Some(order) = promised.filter(|_| needs_order && !ordered) {
        let keys = lowering.sort_keys(root, order)?;
        root = lowering.tree.sort(root, keys, None);
        ordered = true;
    }
    let parameters = lowering.parameters.take();
    let validity = Arc::new(Assumptions::of(&lowering.tree, &parameters.values));
    if lowering.joins.by_cost {
        root = order(&mut lowering.tree, root, &parameters.values, joins.statistics);
    }
    let emitted = emit(&lowering.tree, root, output, parameters.types)?;
    let streams = emitted
        .streams
        .iter()
        .map(|stream| with_columns(Arc::clone(&stream.plan), &stream.columns))
        .collect::<Result<_>>()
        .map_err(|error| error.strip_backtrace())?;
    let inputs: Vec<_> = emitted.streams.iter().map(|stream| &stream.plan).collect();
    let expectations = Arc::new(KnownInputs::of(
        &emitted.graph,
        &emitted.scans,
        &inputs,
        joins.statistics,
    ));
    Ok(Part {
        lowered: Lowered {
            expectations,
            graph: emitted.graph,
            scans: emitted.scans,
            streams,
            ordered,
            validity,
        },
        streams: emitted.streams,
        reasons: lowering.reasons,
    })
}

/// Moves a projection below the sort it reads, or sorts its result anew, so that the result's order is the last thing made.
/// Columns that only the order needs stand behind the result's.
fn sort_on_top(tree: &mut Tree, root: RelationId) -> RelationId {
    let sort_below = match &tree.get(root).op {
        Op::Project { input, exprs } => match tree.get(*input).op.clone() {
            Op::Sort {
                input: below,
                keys,
                limit,
                offset,
            } => Some((*input, exprs.clone(), below, keys, limit, offset)),
            _ => None,
        },
        Op::Sort { .. } => return root,
        _ => None,
    };
    let Some((input, exprs, below, keys, limit, offset)) = sort_below else {
        return match tree.order(root) {
            Some((input, keys)) => {
                let fields = tree.fields(input).to_vec();
                let (limit, offset) = (None, 0);
                tree.add(
                    Op::Sort {
                        input,
                        keys,
                        limit,
                        offset,
                    },
                    fields,
                )
            }
            None => root,
        };
    };
    let mut fields = tree.fields(root).to_vec();
    let mut made = exprs;
    let mut new_keys: Vec<SortKey> = Vec::new();
    for key in keys {
        let at = made.iter().position(|expr| *expr == key.expr).unwrap_or_else(|| {
            fields.push(hidden_key(&key.expr));
            made.push(key.expr.clone());
            made.len() - 1
        });
        new_keys.push(SortKey {
            expr: Expr::column(at, key.expr.data_type.clone()),
            ..key
        });
    }
    // Rows that a limit leaves out must not be computed: they could fail.
    let (source, limit, offset) = if limit.is_none() && offset == 0 || only_columns(&made) {
        (below, limit, offset)
    } else {
        (input, None, 0)
    };
    let projected = tree.project(source, made, fields.clone());
    tree.add(
        Op::Sort {
            input: projected,
            keys: new_keys,
            limit,
            offset,
        },
        fields,
    )
}

/// Some columns of a plan, in this order.
fn with_columns(plan: Arc<dyn ExecutionPlan>, columns: &[usize]) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = plan.schema();
    if columns.len() == schema.fields().len() {
        return Ok(plan);
    }
    let exprs = columns.iter().map(|index| {
        let name = schema.field(*index).name();
        ProjectionExpr::new(Arc::new(Column::new(name, *index)), name.clone())
    });
    Ok(Arc::new(ProjectionExec::try_new(exprs.collect::<Vec<_>>(), plan)?))
}

struct Walk<'a> {
    joins: JoinOrder<'a>,
    accept: Accept<'a>,
    make: Make<'a>,
    reasons: Vec<Reason>,
    /// Scalar subqueries of the plans above.
    scalars: Vec<Scalars>,
    replaced: bool,
}

impl Walk<'_> {
    fn node(&mut self, plan: &Arc<dyn ExecutionPlan>, needs_order: bool) -> Result<Arc<dyn ExecutionPlan>> {
        let reason = match part(plan, &self.scalars, needs_order, self.joins) {
            Err(reason) => reason,
            Ok(part) => match (self.accept)(&part.lowered) {
                Ok(()) => return self.replace(plan, part),
                Err(reason) => reason,
            },
        };
        if !is_quiet(plan) {
            self.reasons.push(Reason::new(plan.as_ref(), reason));
        }
        self.children(plan, needs_order)
    }

    fn replace(&mut self, plan: &Arc<dyn ExecutionPlan>, part: Part) -> Result<Arc<dyn ExecutionPlan>> {
        let mut lowered = part.lowered;
        self.reasons.extend(part.reasons);
        lowered.streams = part
            .streams
            .iter()
            .map(|stream| with_columns(self.children(&stream.plan, false)?, &stream.columns))
            .collect::<Result<_>>()?;
        self.replaced = true;
        (self.make)(lowered, Arc::clone(plan))
    }

    /// The same operator over rewritten children.
    fn children(&mut self, plan: &Arc<dyn ExecutionPlan>, needs_order: bool) -> Result<Arc<dyn ExecutionPlan>> {
        let scope = plan.downcast_ref::<ScalarSubqueryExec>().map(Scalars::of);
        let scoped = scope.is_some();
        self.scalars.extend(scope);
        let orders = plan.required_input_ordering();
        let maintains = plan.maintains_input_order();
        let mut changed = false;
        let mut children = Vec::new();
        for (index, child) in plan.children().into_iter().enumerate() {
            let required = orders.get(index).is_some_and(Option::is_some);
            let kept = needs_order && maintains.get(index).copied().unwrap_or(false);
            let new = self.node(child, required || kept)?;
            changed |= !Arc::ptr_eq(&new, child);
            children.push(partitioned(new, child, required || kept)?);
        }
        if scoped {
            self.scalars.pop();
        }
        if changed {
            Arc::clone(plan).replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
        } else {
            Ok(Arc::clone(plan))
        }
    }
}

/// Gives a replacement the partitions of what it replaces.
fn partitioned(
    new: Arc<dyn ExecutionPlan>,
    old: &Arc<dyn ExecutionPlan>,
    ordered: bool,
) -> Result<Arc<dyn ExecutionPlan>> {
    let wanted = old.output_partitioning();
    let count = wanted.partition_count();
    if Arc::ptr_eq(&new, old) || new.output_partitioning().partition_count() == count || count <= 1 {
        return Ok(new);
    }
    let partitioning = match wanted {
        // A column that a projection above the hash dropped can't be hashed again; nobody asks for it either.
        Partitioning::Hash(exprs, count) if !exprs.iter().any(|expr| expr.is::<UnKnownColumn>()) => {
            Partitioning::Hash(exprs.clone(), *count)
        }
        _ if ordered => return Ok(new),
        _ => Partitioning::RoundRobinBatch(count),
    };
    Ok(Arc::new(RepartitionExec::try_new(new, partitioning)?))
}
