//! EXCEPT ALL and INTERSECT ALL as SQL means them: of a row that one side has m times and the other n times, `max(m - n, 0)` and
//! `min(m, n)` stay.
//!
//! DataFusion plans them as anti and semi joins over whole rows, which let all or none stay. Equal rows are numbered on both
//! sides, and the join compares the numbers too.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{Column, JoinType, NullEquality, Result};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{
    Distinct, Expr, ExprFunctionExt, Join, JoinConstraint, LogicalPlan, LogicalPlanBuilder,
};

const LEFT_NUMBER: &str = "trireme_left";

/// The plan of a statement, as it comes from the parser: no other join compares whole rows with NULLs.
pub(crate) fn counted(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) if keeps_all(&join) => numbered(join).map(Transformed::yes),
        other => Ok(Transformed::no(other)),
    })
    .data()
}

fn keeps_all(join: &Join) -> bool {
    matches!(join.join_type, JoinType::LeftAnti | JoinType::LeftSemi)
        && join.null_equality == NullEquality::NullEqualsNull
        && !matches!(*join.left, LogicalPlan::Distinct(Distinct::All(_)))
        // A view's rows were numbered when it was planned.
        && !join.on.iter().any(|(left, _)| *left == Expr::Column(Column::from_name(LEFT_NUMBER)))
}

fn numbered(join: Join) -> Result<LogicalPlan> {
    let columns = join.left.schema().columns();
    let (left, right) = (
        with_number(&join.left, LEFT_NUMBER)?,
        with_number(&join.right, "trireme_right")?,
    );
    let mut on = join.on;
    on.push((left.1, right.1));
    let join = Join::try_new(
        Arc::new(left.0),
        Arc::new(right.0),
        on,
        join.filter,
        join.join_type,
        JoinConstraint::On,
        NullEquality::NullEqualsNull,
        false,
    )?;
    let columns = columns.into_iter().map(Expr::Column);
    LogicalPlanBuilder::from(LogicalPlan::Join(join))
        .project(columns)?
        .build()
}

/// The rows with their number among the equal ones.
fn with_number(plan: &Arc<LogicalPlan>, name: &str) -> Result<(LogicalPlan, Expr)> {
    let columns: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
    let number = row_number().partition_by(columns.clone()).build()?;
    let named = Expr::Column(Column::from_name(number.schema_name().to_string())).alias(name);
    let plan = LogicalPlanBuilder::from(plan.as_ref().clone()).window([number])?;
    let plan = plan.project(columns.into_iter().chain([named]))?.build()?;
    Ok((plan, Expr::Column(Column::from_name(name))))
}
