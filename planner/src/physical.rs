//! Statement's plan → physical plan: types coerced, the clock set where it is read, and a short way for constants.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::SessionState;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::physical_expr::create_physical_expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::projection::ProjectionExec;
use trireme_exec::QueryError;

use crate::copies;

/// Coerces types; only then does a plan's schema tell the truth (a UNION's type is its first input's before).
///
/// # Errors
/// When types can't be coerced, or an expression is too large.
pub fn analyze(state: &SessionState, plan: &LogicalPlan) -> Result<LogicalPlan, QueryError> {
    if matches!(plan, LogicalPlan::Explain(_)) {
        copies::check(plan)?;
        return Ok(plan.clone());
    }
    let analyzed = state
        .analyzer()
        .execute_and_check(plan.clone(), state.config_options(), |_, _| {})?;
    copies::check(&analyzed)?;
    Ok(analyzed)
}

/// The physical plan of an analyzed one.
///
/// # Errors
/// When it can't be planned.
pub async fn physical_plan(state: &SessionState, analyzed: LogicalPlan) -> Result<Arc<dyn ExecutionPlan>, QueryError> {
    let clocked;
    let state = if reads_clock(&analyzed)? {
        clocked = with_clock(state);
        &clocked
    } else {
        state
    };
    if matches!(analyzed, LogicalPlan::Explain(_)) {
        return Ok(state.create_physical_plan(&analyzed).await?);
    }
    if let Some(constant) = constant_plan(state, &analyzed)? {
        return Ok(constant);
    }
    let optimized = state.optimizer().optimize(analyzed, state, |_, _| {})?;
    Ok(state.query_planner().create_physical_plan(&optimized, state).await?)
}

/// The plan of `SELECT 1` and its like, which pools send to see whether we live: there is nothing to optimise. Functions
/// are out, since some of them exist only until the optimiser replaces them.
fn constant_plan(state: &SessionState, plan: &LogicalPlan) -> Result<Option<Arc<dyn ExecutionPlan>>, QueryError> {
    let LogicalPlan::Projection(projection) = plan else {
        return Ok(None);
    };
    if !matches!(projection.input.as_ref(), LogicalPlan::EmptyRelation(empty) if empty.produce_one_row) {
        return Ok(None);
    }
    let input = projection.input.schema();
    let mut columns = Vec::with_capacity(projection.expr.len());
    for (expr, field) in projection.expr.iter().zip(projection.schema.fields()) {
        let computed = |inner: &Expr| {
            Ok(!matches!(
                inner,
                Expr::Literal(..) | Expr::Alias(_) | Expr::Cast(_) | Expr::BinaryExpr(_)
            ))
        };
        if expr.exists(computed)? {
            return Ok(None);
        }
        let expr = create_physical_expr(
            expr,
            input,
            state.execution_props(),
            &PhysicalPlanningContext::default(),
        )?;
        columns.push((expr, field.name().clone()));
    }
    let row = PlaceholderRowExec::new(Arc::new(input.as_arrow().clone()));
    Ok(Some(Arc::new(ProjectionExec::try_new(columns, Arc::new(row))?)))
}

/// True for plans that read nothing and multiply nothing, such as `SELECT 1`: they run where the call came in.
pub fn is_constant(plan: &Arc<dyn ExecutionPlan>) -> bool {
    matches!(plan.name(), "PlaceholderRowExec" | "EmptyExec" | "ProjectionExec")
        && plan.children().into_iter().all(is_constant)
}

/// A copy of the state whose clock is set to now. Copying costs more than planning a small query, so only statements that
/// may read the clock get one.
pub fn with_clock(state: &SessionState) -> SessionState {
    let mut state = state.clone();
    state.mark_start_execution();
    state
}

/// True when the plan calls a function whose value is fixed per statement, as `now()` is.
///
/// # Errors
/// When the plan can't be walked.
pub fn reads_clock(plan: &LogicalPlan) -> Result<bool, QueryError> {
    if matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_)) {
        return Ok(true);
    }
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|inner| {
                if let Expr::ScalarFunction(call) = inner {
                    found |= call.func.signature().volatility == Volatility::Stable;
                }
                Ok(if found {
                    TreeNodeRecursion::Stop
                } else {
                    TreeNodeRecursion::Continue
                })
            })
        })
    })?;
    Ok(found)
}
