//! Refuses expressions that would be written out without bounds.
//!
//! DataFusion's simplifier writes `coalesce(a, b)` as `CASE WHEN a IS NOT NULL THEN a ELSE b END` and `a BETWEEN b AND c` as two
//! comparisons: what stands in them stands there twice, and four times if that is in another, so that a short statement
//! could take all memory there is.

use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};
use trireme_exec::QueryError;

/// Parts of one expression as it is written out.
const PARTS_MAX: u64 = 20_000;

/// Functions whose arguments but the last are written twice.
const COPYING: [&str; 3] = ["coalesce", "nvl", "ifnull"];

/// Refuses a plan with an expression too large to be written out.
pub(crate) fn check(plan: &LogicalPlan) -> Result<(), QueryError> {
    let mut largest = 0;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            largest = largest.max(parts(expr)?);
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    if largest <= PARTS_MAX {
        return Ok(());
    }
    Err(QueryError::invalid(format!(
        "coalesce, nvl or BETWEEN stand too deep in each other: an expression would have {largest} parts, at most {PARTS_MAX} are allowed"
    ))
    .with_hint("write coalesce(a, b, c) for coalesce(coalesce(a, b), c), or compute what is inside in a table of its own"))
}

/// Parts of an expression as it is written out.
fn parts(expr: &Expr) -> Result<u64> {
    let mut of_children = Vec::new();
    expr.apply_children(|child| {
        of_children.push(parts(child)?);
        Ok(TreeNodeRecursion::Continue)
    })?;
    let copied = match expr {
        Expr::ScalarFunction(call) if COPYING.contains(&call.name()) => of_children.len().saturating_sub(1),
        Expr::Between(_) => 1,
        _ => 0,
    };
    let all = of_children.iter().chain(&of_children[..copied]);
    Ok(all.fold(1, |sum: u64, part| sum.saturating_add(*part)))
}
