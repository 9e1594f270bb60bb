//! What a subquery refers to of the queries around it.
//!
//! DataFusion counts what a LATERAL within a subquery refers to of the table before it, which is the subquery's own, and does
//! not count what a subquery within it refers to further out.

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison};
use datafusion::logical_expr::utils::{find_out_reference_exprs, merge_schema};
use datafusion::logical_expr::{Expr, Join, LogicalPlan, Subquery};
use datafusion::optimizer::AnalyzerRule;

/// Corrects what subqueries are said to refer to.
#[derive(Debug)]
pub(super) struct References;

impl AnalyzerRule for References {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let anew = |subquery: Subquery| {
            Ok(Subquery {
                outer_ref_columns: references(&subquery.subquery),
                ..subquery
            })
        };
        plan.transform_up_with_subqueries(|node| {
            node.map_expressions(|expr| expr.transform_up(|expr| with_subquery(expr, &anew)))
        })
        .data()
    }

    fn name(&self) -> &str {
        "trireme_references"
    }
}

/// The expression with another subquery, if it has one.
pub(super) fn with_subquery(expr: Expr, other: &dyn Fn(Subquery) -> Result<Subquery>) -> Result<Transformed<Expr>> {
    Ok(Transformed::yes(match expr {
        Expr::ScalarSubquery(subquery) => Expr::ScalarSubquery(other(subquery)?),
        Expr::Exists(exists) => Expr::Exists(Exists {
            subquery: other(exists.subquery)?,
            ..exists
        }),
        Expr::InSubquery(found) => Expr::InSubquery(InSubquery {
            subquery: other(found.subquery)?,
            ..found
        }),
        Expr::SetComparison(comparison) => Expr::SetComparison(SetComparison {
            subquery: other(comparison.subquery)?,
            ..comparison
        }),
        expr => return Ok(Transformed::no(expr)),
    }))
}

fn subquery_of(expr: &Expr) -> Option<&Subquery> {
    match expr {
        Expr::ScalarSubquery(subquery) => Some(subquery),
        Expr::Exists(exists) => Some(&exists.subquery),
        Expr::InSubquery(found) => Some(&found.subquery),
        Expr::SetComparison(comparison) => Some(&comparison.subquery),
        _ => None,
    }
}

/// The columns of queries around it that the plan refers to, once each.
pub(crate) fn references(plan: &LogicalPlan) -> Vec<Expr> {
    let mut found = of_node(plan);
    match plan {
        LogicalPlan::Join(join) => {
            add(references(&join.left), &mut found);
            add(beside(join), &mut found);
        }
        _ => {
            for input in plan.inputs() {
                add(references(input), &mut found);
            }
        }
    }
    found
}

/// What a join's right side refers to that is not of its left.
pub(super) fn beside(join: &Join) -> Vec<Expr> {
    beyond(references(&join.right), join.left.schema())
}

/// Whether the plan refers to no query around it.
pub(crate) fn is_alone(plan: &LogicalPlan) -> bool {
    references(plan).is_empty()
}

/// What the node's own expressions refer to, with the subqueries in them.
pub(super) fn of_node(plan: &LogicalPlan) -> Vec<Expr> {
    let schema = visible(plan);
    let mut found = Vec::new();
    let walked = plan.apply_expressions(|expr| {
        add(of_expr(expr, &schema), &mut found);
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(walked.is_ok(), "the walk fails nowhere");
    found
}

/// What a node's expressions may name: an ORDER BY also what the SELECT below it doesn't give.
pub(super) fn visible(plan: &LogicalPlan) -> DFSchema {
    let mut schema = merge_schema(&plan.inputs());
    if let LogicalPlan::Sort(sort) = plan
        && let LogicalPlan::Projection(projection) = sort.input.as_ref()
    {
        schema.merge(projection.input.schema());
    }
    schema
}

/// What an expression over the schema refers to.
pub(super) fn of_expr(expr: &Expr, schema: &DFSchema) -> Vec<Expr> {
    let mut found = find_out_reference_exprs(expr);
    add(of_subqueries(expr, schema), &mut found);
    found
}

/// What the subqueries in an expression over the schema refer to beyond it.
pub(super) fn of_subqueries(expr: &Expr, schema: &DFSchema) -> Vec<Expr> {
    let mut found = Vec::new();
    let walked = expr.apply(|inner| {
        if let Some(subquery) = subquery_of(inner) {
            add(beyond(references(&subquery.subquery), schema), &mut found);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(walked.is_ok(), "the walk fails nowhere");
    found
}

/// Those that are not of the schema.
pub(super) fn beyond(mut references: Vec<Expr>, schema: &DFSchema) -> Vec<Expr> {
    references.retain(|expr| match expr {
        Expr::OuterReferenceColumn(_, column) => !schema.has_column(column),
        _ => true,
    });
    references
}

/// Whether a subquery within the plan refers to queries around the plan.
pub(super) fn is_deep(plan: &LogicalPlan) -> bool {
    let schema = visible(plan);
    let mut found = false;
    let walked = plan.apply_expressions(|expr| {
        found = found || !of_subqueries(expr, &schema).is_empty();
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(walked.is_ok(), "the walk fails nowhere");
    found || plan.inputs().into_iter().any(is_deep)
}

fn add(exprs: Vec<Expr>, found: &mut Vec<Expr>) {
    for expr in exprs {
        if !found.contains(&expr) {
            found.push(expr);
        }
    }
}
