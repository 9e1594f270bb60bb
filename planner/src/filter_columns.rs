//! Filters that give out some of their columns, below projections.
//!
//! To swap a projection with the filter below it, DataFusion's `ProjectionPushdown` looks for the columns of the condition among
//! those of the projection. The condition's are columns of the filter's input, the projection's are of its output: where the
//! filter leaves out or moves columns, `k@0` is taken for another `k@0`, and the plan fails, or is wrong where the names fit. So
//! such filters give out all columns while the rule runs, with a projection above that leaves them out; the rule puts it into the
//! filter again.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr, update_expr};

/// `ProjectionPushdown` over filters that give out all their columns.
#[derive(Debug)]
pub(crate) struct WholeFilters {
    pub(crate) rule: Arc<dyn PhysicalOptimizerRule + Send + Sync>,
}

impl PhysicalOptimizerRule for WholeFilters {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = plan.transform_up(whole).data()?;
        self.rule.optimize(plan, config)
    }

    fn name(&self) -> &str {
        self.rule.name()
    }

    fn schema_check(&self) -> bool {
        self.rule.schema_check()
    }
}

fn whole(node: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let replaced = if let Some(filter) = node.downcast_ref::<FilterExec>() {
        columns_above(filter)?
    } else if let Some(projection) = node.downcast_ref::<ProjectionExec>() {
        merged(projection)?
    } else {
        None
    };
    Ok(replaced.map_or_else(
        || Transformed::no(node),
        |projection| Transformed::yes(Arc::new(projection) as _),
    ))
}

/// The filter with all columns, below a projection to those that it gave out; none if it gave out all.
fn columns_above(filter: &FilterExec) -> Result<Option<ProjectionExec>> {
    let Some(columns) = filter.projection() else {
        return Ok(None);
    };
    let schema = filter.input().schema();
    let columns: Vec<_> = columns
        .iter()
        .map(|&index| {
            let name = schema.field(index).name();
            ProjectionExpr {
                expr: Arc::new(Column::new(name, index)) as Arc<dyn PhysicalExpr>,
                alias: name.clone(),
            }
        })
        .collect();
    let filter = FilterExecBuilder::from(filter).apply_projection(None)?.build()?;
    ProjectionExec::try_new(columns, Arc::new(filter)).map(Some)
}

/// A projection and the one of [`columns_above`] below it as one.
fn merged(projection: &ProjectionExec) -> Result<Option<ProjectionExec>> {
    let Some(inner) = projection.input().downcast_ref::<ProjectionExec>() else {
        return Ok(None);
    };
    if !inner.input().is::<FilterExec>() || !inner.expr().iter().all(|one| one.expr.is::<Column>()) {
        return Ok(None);
    }
    let mut exprs = Vec::with_capacity(projection.expr().len());
    for one in projection.expr() {
        let Some(expr) = update_expr(&one.expr, inner.expr(), true)? else {
            return Ok(None);
        };
        exprs.push(ProjectionExpr {
            expr,
            alias: one.alias.clone(),
        });
    }
    ProjectionExec::try_new(exprs, Arc::clone(inner.input())).map(Some)
}
