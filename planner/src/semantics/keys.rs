//! Keys of plans, by which rows are grouped, joined and sorted: floats among them become canonical.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::Sort as SortExpr;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    Aggregate, Distinct, DistinctOn, Expr, ExprSchemable, Join, LogicalPlan, Projection, Sort,
};

use super::floats::canonical;

/// The plan's own keys in canonical form; its schema stays.
///
/// # Errors
/// An expression that does not type.
pub(super) fn canonical_keys(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    Ok(match plan {
        LogicalPlan::Sort(Sort { mut expr, input, fetch }) => {
            canonical_sorts(&mut expr, input.schema())?;
            Transformed::yes(LogicalPlan::Sort(Sort { expr, input, fetch }))
        }
        LogicalPlan::Aggregate(aggregate) => grouped(aggregate)?,
        LogicalPlan::Join(mut join) => {
            canonical_pairs(&mut join)?;
            Transformed::yes(LogicalPlan::Join(join))
        }
        LogicalPlan::Distinct(Distinct::All(input)) => distinct_all(input)?,
        LogicalPlan::Distinct(Distinct::On(mut distinct)) => {
            let DistinctOn {
                on_expr,
                sort_expr,
                input,
                ..
            } = &mut distinct;
            canonical_all(on_expr, input.schema())?;
            if let Some(sorts) = sort_expr {
                canonical_sorts(sorts, input.schema())?;
            }
            Transformed::yes(LogicalPlan::Distinct(Distinct::On(distinct)))
        }
        other => Transformed::no(other),
    })
}

fn grouped(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let schema = aggregate.input.schema();
    let mut changed = false;
    let mut groups = Vec::with_capacity(aggregate.group_expr.len());
    for group in &aggregate.group_expr {
        // The columns of grouping sets are found again by their expressions.
        let is_float = !matches!(group, Expr::GroupingSet(_)) && group.get_type(schema)?.is_floating();
        changed |= is_float;
        groups.push(if is_float {
            named(group.clone(), schema)?
        } else {
            group.clone()
        });
    }
    if !changed {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let Aggregate { input, aggr_expr, .. } = aggregate;
    Ok(Transformed::yes(LogicalPlan::Aggregate(Aggregate::try_new(
        input, groups, aggr_expr,
    )?)))
}

fn canonical_pairs(join: &mut Join) -> Result<()> {
    for (left, right) in &mut join.on {
        *left = canonical(std::mem::take(left), join.left.schema())?;
        *right = canonical(std::mem::take(right), join.right.schema())?;
    }
    Ok(())
}

fn distinct_all(input: Arc<LogicalPlan>) -> Result<Transformed<LogicalPlan>> {
    if !input
        .schema()
        .fields()
        .iter()
        .any(|field| field.data_type().is_floating())
    {
        return Ok(Transformed::no(LogicalPlan::Distinct(Distinct::All(input))));
    }
    let columns = input
        .schema()
        .columns()
        .into_iter()
        .map(|column| named(Expr::Column(column), input.schema()))
        .collect::<Result<_>>()?;
    let projection = Projection::try_new(columns, input)?;
    let input = Arc::new(LogicalPlan::Projection(projection));
    Ok(Transformed::yes(LogicalPlan::Distinct(Distinct::All(input))))
}

/// In canonical form, with the name it had.
fn named(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let name = NamePreserver::new_for_projection().save(&expr);
    Ok(name.restore(canonical(expr, schema)?))
}

/// All of them in canonical form.
///
/// # Errors
/// An expression that does not type.
pub(super) fn canonical_all(exprs: &mut [Expr], schema: &DFSchema) -> Result<()> {
    for expr in exprs {
        *expr = canonical(std::mem::take(expr), schema)?;
    }
    Ok(())
}

/// Their operands in canonical form.
///
/// # Errors
/// An expression that does not type.
pub(super) fn canonical_sorts(sorts: &mut [SortExpr], schema: &DFSchema) -> Result<()> {
    for sort in sorts {
        sort.expr = canonical(std::mem::take(&mut sort.expr), schema)?;
    }
    Ok(())
}
