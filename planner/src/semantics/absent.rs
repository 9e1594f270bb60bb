//! A subquery's value where it has no row: NULL, whatever its column says.
//!
//! DataFusion types the value as the column. `v IS NULL` of one that is NOT NULL was folded to false, and results differed from
//! their schemas. So such a column is made one that may be NULL as the plan comes from the parser, before views and the
//! analyzer look at it, and all schemas above are made anew.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Subquery, Union, lit};

use super::references::{visible, with_subquery};
use super::scalars::{is_bare, single};

/// The plan with such values.
///
/// # Errors
/// When a node can't be made anew.
pub(crate) fn with_absent_values(plan: LogicalPlan) -> Result<LogicalPlan> {
    if !has_absent(&plan)? {
        return Ok(plan);
    }
    plan.transform_up_with_subqueries(|node| {
        let schema = visible(&node);
        let node = node.map_expressions(|expr| {
            expr.transform_up(|expr| match expr {
                Expr::ScalarSubquery(subquery) if may_be_absent(&subquery) => {
                    Ok(Transformed::yes(Expr::ScalarSubquery(nullable(subquery, &schema)?)))
                }
                expr => with_subquery(expr, &|subquery| referring(subquery, &schema)),
            })
        })?;
        with_schema(node.data).map(Transformed::yes)
    })
    .data()
}

fn has_absent(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            found = found
                || expr
                    .exists(|inner| Ok(matches!(inner, Expr::ScalarSubquery(subquery) if may_be_absent(subquery))))?;
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(found)
}

/// Whether a value is declared to be there that is NULL where the subquery has no row.
fn may_be_absent(subquery: &Subquery) -> bool {
    let plan = &subquery.subquery;
    !plan.schema().field(0).is_nullable() && !is_bare(plan)
}

fn nullable(subquery: Subquery, outer: &DFSchema) -> Result<Subquery> {
    let subquery = referring(subquery, outer)?;
    let (relation, field) = subquery.subquery.schema().qualified_field(0);
    let value = single::value(Expr::Column((relation, field).into()), lit(1_i64));
    let plan = LogicalPlanBuilder::from(subquery.subquery.as_ref().clone())
        .project([value.alias_qualified(relation.cloned(), field.name())])?
        .build()?;
    Ok(Subquery {
        subquery: Arc::new(plan),
        ..subquery
    })
}

/// The subquery, whose references know that the outer query's columns may be NULL.
fn referring(subquery: Subquery, outer: &DFSchema) -> Result<Subquery> {
    let plan = subquery
        .subquery
        .as_ref()
        .clone()
        .transform_up_with_subqueries(|node| {
            let node = node.map_expressions(|expr| {
                expr.transform_up(|inner| match inner {
                    Expr::OuterReferenceColumn(field, column) => {
                        let known = outer.qualified_field_from_column(&column);
                        Ok(match known {
                            Ok((_, known)) if known.is_nullable() && known.data_type() == field.data_type() => {
                                let field = field.as_ref().clone().with_nullable(true);
                                Transformed::yes(Expr::OuterReferenceColumn(Arc::new(field), column))
                            }
                            _ => Transformed::no(Expr::OuterReferenceColumn(field, column)),
                        })
                    }
                    other => Ok(Transformed::no(other)),
                })
            })?;
            with_schema(node.data).map(Transformed::yes)
        })?;
    Ok(Subquery {
        subquery: Arc::new(plan.data),
        ..subquery
    })
}

/// The node with a schema of its inputs; that of a UNION is kept by DataFusion.
fn with_schema(node: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Union(Union { inputs, schema }) = node else {
        return node.recompute_schema();
    };
    let fields = schema.iter().enumerate().map(|(at, (relation, field))| {
        let is_nullable = inputs.iter().any(|input| input.schema().field(at).is_nullable());
        let field = field.as_ref().clone().with_nullable(field.is_nullable() || is_nullable);
        (relation.cloned(), Arc::new(field))
    });
    let schema = Arc::new(DFSchema::new_with_metadata(
        fields.collect(),
        schema.metadata().clone(),
    )?);
    Ok(LogicalPlan::Union(Union { inputs, schema }))
}
