//! Refuses expressions that would be written out without bounds.
//!
//! DataFusion's simplifier writes `coalesce(a, b)` as `CASE WHEN a IS NOT NULL THEN a ELSE b END` and `a BETWEEN b AND c` as two
//! comparisons: what stands in them stands there twice, and four times if that is in another, so that a short statement
//! could take all memory there is.

use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};
use trireme_exec::QueryError;

/// Parts of one expression that are copies.
const COPIES_MAX: u64 = 20_000;

/// Functions whose arguments but the last are written twice.
const COPYING: [&str; 3] = ["coalesce", "nvl", "ifnull"];

/// Refuses a plan with an expression too large to be written out.
pub(crate) fn check(plan: &LogicalPlan) -> Result<(), QueryError> {
    let mut most = 0;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            most = most.max(written_out(expr)?.copies);
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    if most <= COPIES_MAX {
        return Ok(());
    }
    Err(QueryError::invalid(format!(
        "coalesce, nvl or BETWEEN stand too deep in each other: {most} parts of an expression would be copied, at most {COPIES_MAX} may be"
    ))
    .with_hint("write coalesce(a, b, c) for coalesce(coalesce(a, b), c), or compute what is inside in a table of its own"))
}

/// Parts of an expression as it is written out.
struct Parts {
    all: u64,
    copies: u64,
}

fn written_out(expr: &Expr) -> Result<Parts> {
    let mut of_children = Vec::new();
    expr.apply_children(|child| {
        of_children.push(written_out(child)?);
        Ok(TreeNodeRecursion::Continue)
    })?;
    let copied = match expr {
        Expr::ScalarFunction(call) if COPYING.contains(&call.name()) => of_children.len().saturating_sub(1),
        Expr::Between(_) => 1,
        _ => 0,
    };
    let copies = of_children[..copied].iter().map(|child| child.all);
    let copies = of_children.iter().map(|child| child.copies).chain(copies);
    let copies = copies.fold(0, u64::saturating_add);
    let all = of_children.iter().map(|child| child.all).fold(1, u64::saturating_add);
    let again = of_children[..copied].iter().map(|child| child.all);
    Ok(Parts {
        all: again.fold(all, u64::saturating_add),
        copies,
    })
}
