//! Subqueries in DELETE and UPDATE: run first, so that the writer, which sees one table only, gets plain values.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Subquery, lit};
use datafusion::physical_plan::collect;

use crate::error::CatalogError;

/// Values that an IN may stand for: they are held in memory and looked through for each file.
const VALUES_MAX: usize = 100_000;

/// The expression with every subquery replaced by its result.
pub(crate) async fn evaluated(session: &SessionState, expr: Expr, verb: &str) -> Result<Expr, CatalogError> {
    let mut found = Vec::new();
    expr.apply(|node| {
        if is_subquery(node) {
            found.push(node.clone());
            return Ok(TreeNodeRecursion::Jump);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let mut results = Vec::with_capacity(found.len());
    for node in found {
        let value = evaluate(session, &node, verb).await?;
        results.push((node, value));
    }
    let replaced = expr.transform_down(|node| match results.iter().find(|(known, _)| *known == node) {
        Some((_, value)) => Ok(Transformed::new(value.clone(), true, TreeNodeRecursion::Jump)),
        None => Ok(Transformed::no(node)),
    })?;
    Ok(replaced.data)
}

fn is_subquery(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_)
    )
}

async fn evaluate(session: &SessionState, node: &Expr, verb: &str) -> Result<Expr, CatalogError> {
    match node {
        Expr::ScalarSubquery(subquery) => {
            let mut values = values(session, plan(subquery, verb)?, 2, verb).await?;
            if values.len() > 1 {
                return Err(CatalogError::invalid(
                    "a subquery that stands for one value returned several rows",
                ));
            }
            let null = || ScalarValue::try_from(subquery.subquery.schema().field(0).data_type());
            let value = values.pop().map_or_else(null, Ok)?;
            Ok(lit(value))
        }
        Expr::InSubquery(inner) => {
            if inner.expr.exists(|node| Ok(is_subquery(node)))? {
                return Err(unsupported(verb));
            }
            let values = values(session, plan(&inner.subquery, verb)?, VALUES_MAX, verb).await?;
            if values.is_empty() {
                return Ok(lit(inner.negated));
            }
            if values.iter().all(ScalarValue::is_null) {
                return Ok(lit(ScalarValue::Boolean(None)));
            }
            let list = values.into_iter().map(lit).collect();
            Ok(Expr::InList(InList::new(inner.expr.clone(), list, inner.negated)))
        }
        Expr::Exists(exists) => {
            let one = LogicalPlanBuilder::from(plan(&exists.subquery, verb)?.clone())
                .limit(0, Some(1))?
                .build()?;
            let rows: usize = run(session, &one).await?.iter().map(|batch| batch.num_rows()).sum();
            Ok(lit((rows > 0) != exists.negated))
        }
        _ => Err(unsupported(verb)),
    }
}

/// A subquery that looks at the changed row has no one result.
fn plan<'a>(subquery: &'a Subquery, verb: &str) -> Result<&'a LogicalPlan, CatalogError> {
    if subquery.outer_ref_columns.is_empty() {
        return Ok(&subquery.subquery);
    }
    Err(unsupported(verb))
}

fn unsupported(verb: &str) -> CatalogError {
    CatalogError::DataFusion(DataFusionError::NotImplemented(format!(
        "{verb} with a subquery that refers to the changed table's row is not supported"
    )))
}

async fn values(
    session: &SessionState,
    plan: &LogicalPlan,
    values_max: usize,
    verb: &str,
) -> Result<Vec<ScalarValue>, CatalogError> {
    let limited = LogicalPlanBuilder::from(plan.clone())
        .limit(0, Some(values_max + 1))?
        .build()?;
    let mut values = Vec::new();
    for batch in run(session, &limited).await? {
        for row in 0..batch.num_rows() {
            values.push(ScalarValue::try_from_array(batch.column(0), row)?);
        }
    }
    if values.len() > VALUES_MAX {
        return Err(CatalogError::invalid_hint(
            format!("{verb} with a subquery of more than {VALUES_MAX} values is not supported"),
            "change the rows in several statements",
        ));
    }
    Ok(values)
}

async fn run(session: &SessionState, plan: &LogicalPlan) -> Result<Vec<arrow::array::RecordBatch>, CatalogError> {
    let physical = session.create_physical_plan(plan).await?;
    Ok(collect(Arc::clone(&physical), session.task_ctx()).await?)
}
