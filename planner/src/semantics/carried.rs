//! Conditions on the outer query, by columns of their own.
//!
//! DataFusion lifts such a condition out of the subquery, into a join, and lets the columns that it needs through what stands
//! between. Through an aggregate it lets the plain column where the condition has a cast of it, so that
//! `(SELECT count(*) FROM e WHERE CAST(e.ts AS DATE) = d.day)` gave a row for each time of the day; it refuses other
//! expressions; and a subquery in FROM does not let through what it doesn't select. So what is compared becomes a column below
//! the condition, and such subqueries select it too.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, JoinType, Result};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Expr, Filter, Join, LogicalPlan, Operator, Projection, Subquery, SubqueryAlias, lit,
};

use super::references::is_alone;

const CARRIED: &str = "trireme_carried_";

/// The subquery with columns for its conditions on the outer query.
///
/// # Errors
/// When a node can't be made anew.
pub(super) fn carried(subquery: Subquery) -> Result<Subquery> {
    let plan = subquery.subquery.as_ref().clone();
    let (plan, _) = Carrying::default().below(plan, false)?;
    Ok(Subquery {
        subquery: Arc::new(plan),
        ..subquery
    })
}

#[derive(Default)]
struct Carrying {
    columns: usize,
}

impl Carrying {
    /// The plan, and what it gives besides its own columns where it `lets_through`.
    fn below(&mut self, plan: LogicalPlan, lets_through: bool) -> Result<(LogicalPlan, Vec<Column>)> {
        if is_alone(&plan) {
            return Ok((plan, Vec::new()));
        }
        match plan {
            LogicalPlan::Filter(filter) => {
                let (input, mut columns) = self.below(Arc::unwrap_or_clone(filter.input), lets_through)?;
                let (plan, own) = self.filtered(filter.predicate, input, lets_through)?;
                columns.extend(own);
                Ok((plan, columns))
            }
            LogicalPlan::Projection(projection) => {
                let (input, columns) = self.below(Arc::unwrap_or_clone(projection.input), lets_through)?;
                let mut exprs = projection.expr;
                if lets_through {
                    exprs.extend(columns.iter().cloned().map(Expr::Column));
                }
                let projection = Projection::try_new(exprs, Arc::new(input))?;
                Ok((LogicalPlan::Projection(projection), columns))
            }
            LogicalPlan::SubqueryAlias(alias) if can_let_through(&alias.input) => {
                let (input, columns) = self.below(Arc::unwrap_or_clone(alias.input), true)?;
                let outside = |column: Column| Column::new(Some(alias.alias.clone()), column.name);
                let columns = columns.into_iter().map(outside).collect();
                let alias = SubqueryAlias::try_new(Arc::new(input), alias.alias)?;
                Ok((LogicalPlan::SubqueryAlias(alias), columns))
            }
            LogicalPlan::Join(mut join) => {
                let (left, mut columns) = self.below(Arc::unwrap_or_clone(join.left), lets_through)?;
                let (right, others) = self.below(Arc::unwrap_or_clone(join.right), lets_through)?;
                (join.left, join.right) = (Arc::new(left), Arc::new(right));
                columns.extend(others);
                Ok((LogicalPlan::Join(join).recompute_schema()?, columns))
            }
            LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_) if !lets_through => {
                let plan = plan.map_children(|child| {
                    let (child, _) = self.below(child, false)?;
                    Ok(Transformed::yes(child))
                })?;
                Ok((plan.data.recompute_schema()?, Vec::new()))
            }
            other => Ok((other, Vec::new())),
        }
    }

    fn filtered(
        &mut self,
        predicate: Expr,
        input: LogicalPlan,
        lets_through: bool,
    ) -> Result<(LogicalPlan, Vec<Column>)> {
        let before = self.columns;
        // DataFusion forgets the columns of conditions further down where it takes all of a filter away.
        let is_table = matches!(&input, LogicalPlan::SubqueryAlias(alias) if !is_alone(&alias.input));
        let lets_through = lets_through || is_table;
        let mut below: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
        let mut carry = |side: Expr| {
            let name = format!("{CARRIED}{}", self.columns);
            self.columns += 1;
            below.push(side.alias(&name));
            Expr::Column(Column::from_name(name))
        };
        let mut conditions = Vec::new();
        for condition in split_conjunction_owned(predicate) {
            conditions.push(match condition {
                condition if !condition.contains_outer() || has_subquery(&condition)? => condition,
                Expr::BinaryExpr(BinaryExpr {
                    left,
                    op: Operator::Eq,
                    right,
                }) if is_own(&left) && is_outer(&right) => match needs_column(&left, lets_through) {
                    true => carry(*left).eq(*right),
                    false => (*left).eq(*right),
                },
                Expr::BinaryExpr(BinaryExpr {
                    left,
                    op: Operator::Eq,
                    right,
                }) if is_own(&right) && is_outer(&left) => match needs_column(&right, lets_through) {
                    true => (*left).eq(carry(*right)),
                    false => (*left).eq(*right),
                },
                condition if lets_through => condition
                    .transform_up(|expr| match expr {
                        Expr::Column(_) if needs_column(&expr, true) => Ok(Transformed::yes(carry(expr))),
                        other => Ok(Transformed::no(other)),
                    })
                    .data()?,
                condition => condition,
            });
        }
        let columns: Vec<Column> = (before..self.columns)
            .map(|at| Column::from_name(format!("{CARRIED}{at}")))
            .collect();
        let input = match columns.is_empty() {
            true => input,
            false => LogicalPlan::Projection(Projection::try_new(below, Arc::new(input))?),
        };
        let predicate = conjunction(conditions).unwrap_or_else(|| lit(true));
        let filter = Filter::try_new(predicate, Arc::new(input))?;
        Ok((LogicalPlan::Filter(filter), columns))
    }
}

/// Of the subquery's own columns alone.
pub(super) fn is_own(side: &Expr) -> bool {
    !side.contains_outer() && !side.column_refs().is_empty() && !side.is_volatile()
}

/// Of the outer query's alone.
pub(super) fn is_outer(side: &Expr) -> bool {
    side.contains_outer() && side.column_refs().is_empty()
}

/// A plain column is let through by all but a subquery in FROM. What was carried once may be seen again.
fn needs_column(side: &Expr, lets_through: bool) -> bool {
    match side {
        Expr::Column(column) => lets_through && !(column.relation.is_none() && column.name.starts_with(CARRIED)),
        _ => true,
    }
}

pub(super) fn has_subquery(condition: &Expr) -> Result<bool> {
    condition.exists(|inner| {
        Ok(matches!(
            inner,
            Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_)
        ))
    })
}

/// Whether everything down to the conditions on the outer query gives the columns of its input besides its own.
fn can_let_through(plan: &LogicalPlan) -> bool {
    let is_plain = match plan {
        LogicalPlan::Filter(_) | LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => true,
        LogicalPlan::Join(Join { join_type, filter, .. }) => {
            matches!(join_type, JoinType::Inner | JoinType::Left | JoinType::Right)
                && !filter.as_ref().is_some_and(Expr::contains_outer)
        }
        _ => false,
    };
    is_alone(plan) || is_plain && plan.inputs().into_iter().all(can_let_through)
}
