//! Arguments of aggregates with a FILTER, kept from rows that the filter leaves out.
//!
//! `sum(10 / n) FILTER (WHERE n <> 0)` evaluates its argument where the filter is true. DataFusion computes what several
//! aggregates have in common once, below the aggregate, for all rows, and the arguments of windows for all rows anyway. What can
//! fail there is put under the filter's own condition.

use std::collections::HashSet;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, LogicalPlan, when};
use datafusion::physical_expr::create_physical_expr;

use super::fallible::is_fallible;

/// Whether an aggregate with a FILTER has a part in common with another, or with its filter.
pub(super) fn share_parts(plan: &LogicalPlan) -> Result<bool> {
    let LogicalPlan::Aggregate(aggregate) = plan else {
        return Ok(false);
    };
    let mut filtered = false;
    for expr in &aggregate.aggr_expr {
        filtered |=
            expr.exists(|node| Ok(matches!(node, Expr::AggregateFunction(call) if call.params.filter.is_some())))?;
    }
    if !filtered {
        return Ok(false);
    }
    let mut seen: HashSet<&Expr> = HashSet::new();
    let mut twice = false;
    for expr in &aggregate.aggr_expr {
        expr.apply(|node| {
            let plain = matches!(
                node,
                Expr::Column(_) | Expr::Literal(..) | Expr::Alias(_) | Expr::AggregateFunction(_)
            );
            twice |= !plain && !seen.insert(node);
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    Ok(twice)
}

/// Puts what can fail of an aggregate's arguments and keys under the condition of its filter.
pub(super) fn guard<'e>(
    filter: Option<&Expr>,
    exprs: impl Iterator<Item = &'e mut Expr>,
    schema: &DFSchema,
) -> Result<()> {
    // One that draws would draw twice.
    let Some(filter) = filter.filter(|filter| !filter.is_volatile()) else {
        return Ok(());
    };
    for expr in exprs {
        if !expr.column_refs().is_empty() && may_fail(expr, schema) {
            *expr = when(filter.clone(), expr.clone()).end()?;
        }
    }
    Ok(())
}

/// What has no physical form yet may be anything.
fn may_fail(expr: &Expr, schema: &DFSchema) -> bool {
    let (properties, context) = (ExecutionProps::new(), PhysicalPlanningContext::default());
    create_physical_expr(expr, schema, &properties, &context)
        .map_or(true, |physical| is_fallible(&physical, schema.as_arrow()))
}
