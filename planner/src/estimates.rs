//! Plans whose filters DataFusion refuses to estimate.
//!
//! From the bounds of a filter's columns it computes the part of the rows that the filter keeps. It takes the bounds of a
//! cast that rounds, such as `CAST(ts AS DATE)`, for those of what is cast: more than all rows would be kept, which it calls
//! an internal error. Such a statement is planned once more, with `IS TRUE` around conditions that have a cast: these it
//! doesn't look into.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::DataFusionError;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, Filter, LogicalPlan};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::explain::ExplainExec;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};

/// What DataFusion's assertion says.
const OUT_OF_LIMIT: &str = "Selectivity is out of limit";

/// DataFusion's planner; see the module.
#[derive(Debug, Default)]
pub(crate) struct Planner;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::default();
        let planned = planner.create_physical_plan(plan, session).await;
        let is_refused = match &planned {
            Err(error) => is_out_of_limit(error),
            Ok(planned) => explains_refusal(planned.as_ref()),
        };
        if !is_refused {
            return planned;
        }
        let plan = plan.clone().transform_up_with_subqueries(unestimated).data()?;
        planner.create_physical_plan(&plan, session).await
    }
}

fn is_out_of_limit(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::Internal(message) if message.contains(OUT_OF_LIMIT))
}

/// EXPLAIN shows errors as plans.
fn explains_refusal(plan: &dyn ExecutionPlan) -> bool {
    let Some(explain) = plan.downcast_ref::<ExplainExec>() else {
        return false;
    };
    let mut shown = explain.stringified_plans().iter();
    shown.any(|shown| shown.plan.contains(OUT_OF_LIMIT))
}

fn unestimated(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Filter(Filter { predicate, input, .. }) = plan else {
        return Ok(Transformed::no(plan));
    };
    let casts = |condition: &Expr| condition.exists(|inner| Ok(matches!(inner, Expr::Cast(_) | Expr::TryCast(_))));
    let conditions: Vec<Expr> = split_conjunction_owned(predicate.clone())
        .into_iter()
        .map(|condition| {
            Ok(if casts(&condition)? {
                condition.is_true()
            } else {
                condition
            })
        })
        .collect::<Result<_>>()?;
    let predicate = conjunction(conditions).unwrap_or(predicate);
    Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(
        predicate, input,
    )?)))
}
