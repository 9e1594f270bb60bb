//! LATERAL: a table for each row of what stands before it in FROM.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, Result, TableReference};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, Join, JoinConstraint, JoinType, LogicalPlan, LogicalPlanBuilder, Subquery, when};

use super::lift::{Lifted, Lifting, is_of_equalities};
use super::{One, Tables, above, has_subqueries, numbers_rows, one_row, outer_columns, with_columns};

impl Tables {
    /// The subquery's rows by keys, joined; none where its rows can't be told apart by the outer row.
    pub(super) fn lateral(&mut self, join: Join) -> Result<Transformed<LogicalPlan>> {
        let plan = match lateral_side(&join.right) {
            Some((alias, subquery)) if is_plain_join(&join) => match outer_columns(subquery, &join.left) {
                Some(columns) => self.lateral_table(&join, alias, &subquery.subquery, &columns)?,
                None => None,
            },
            _ => None,
        };
        Ok(match plan {
            Some(plan) => Transformed::yes(with_columns(plan, join.schema.columns())?),
            None => Transformed::no(LogicalPlan::Join(join)),
        })
    }

    fn lateral_table(
        &mut self,
        join: &Join,
        alias: Option<&TableReference>,
        plan: &LogicalPlan,
        columns: &[Column],
    ) -> Result<Option<LogicalPlan>> {
        match one_row(plan) {
            Some(One::Aggregate(aggregate)) => {
                let mut joined = Arc::clone(&join.left);
                return match self.results(plan, aggregate, columns, &join.left, &mut joined)? {
                    Some(results) => lateral_row(join, alias, plan, joined, &results),
                    None => Ok(None),
                };
            }
            Some(One::NoTable) if !has_subqueries(plan)? => {
                return lateral_row(join, alias, plan, Arc::clone(&join.left), &[]);
            }
            _ => {}
        }
        let name = self.next();
        let lifted = if is_of_equalities(plan) && !numbers_rows(plan)? {
            let mut lifting = Lifting::of_keys(&name);
            lifting.lift(plan)?.map(|lifted| (lifting, lifted))
        } else {
            self.lifted(plan, columns, &join.left, &name)?
        };
        let Some((lifting, Lifted { plan: rows, keys })) = lifted else {
            return Ok(None);
        };
        let rows = self.settled(rows)?;
        let own = plan.schema().columns().into_iter().map(Expr::Column);
        let exprs: Vec<Expr> = own.chain(lifting.named(&keys)).collect();
        let mut right = LogicalPlanBuilder::from(rows).project(exprs)?;
        if let Some(alias) = alias {
            right = right.alias(alias.clone())?;
        }
        let (on, null_equality) = lifting.pairs(alias.map(TableReference::table));
        let join = Join::try_new(
            Arc::clone(&join.left),
            Arc::new(right.build()?),
            on,
            join.filter.clone(),
            join.join_type,
            JoinConstraint::On,
            null_equality,
            false,
        )?;
        Ok(Some(LogicalPlan::Join(join)))
    }
}

/// An aggregate without groups, or no table: one row for each, unless a condition takes it away.
fn lateral_row(
    join: &Join,
    alias: Option<&TableReference>,
    plan: &LogicalPlan,
    joined: Arc<LogicalPlan>,
    results: &[Expr],
) -> Result<Option<LogicalPlan>> {
    let mut exprs: Vec<Expr> = join.left.schema().columns().into_iter().map(Expr::Column).collect();
    let mut own = Vec::new();
    let mut conditions = Vec::new();
    for column in plan.schema().columns() {
        conditions.clear();
        let Some(value) = above(plan, Expr::Column(column.clone()), results, &mut conditions)? else {
            return Ok(None);
        };
        let column = Column::new(alias.cloned().or(column.relation), column.name);
        exprs.push(value.alias_qualified(column.relation.clone(), column.name.clone()));
        own.push(column);
    }
    let having = conjunction(conditions).map(|condition| {
        exprs.push(condition.alias(HAVING));
        Expr::Column(Column::from_name(HAVING))
    });
    let rows = LogicalPlanBuilder::from(joined.as_ref().clone()).project(exprs)?;
    let Some(condition) = conjunction(having.into_iter().chain(join.filter.clone())) else {
        return rows.build().map(Some);
    };
    if join.join_type == JoinType::Inner {
        return rows.filter(condition)?.build().map(Some);
    }
    let mut exprs: Vec<Expr> = join.left.schema().columns().into_iter().map(Expr::Column).collect();
    for column in own {
        let value = when(condition.clone(), Expr::Column(column.clone())).end()?;
        exprs.push(value.alias_qualified(column.relation, column.name));
    }
    rows.project(exprs)?.build().map(Some)
}

const HAVING: &str = "trireme_having";

pub(super) fn is_lateral(join: &Join) -> bool {
    lateral_side(&join.right).is_some()
}

fn lateral_side(right: &LogicalPlan) -> Option<(Option<&TableReference>, &Subquery)> {
    match right {
        LogicalPlan::Subquery(subquery) => Some((None, subquery)),
        LogicalPlan::SubqueryAlias(alias) => match alias.input.as_ref() {
            LogicalPlan::Subquery(subquery) => Some((Some(&alias.alias), subquery)),
            _ => None,
        },
        _ => None,
    }
}

fn is_plain_join(join: &Join) -> bool {
    matches!(join.join_type, JoinType::Inner | JoinType::Left) && join.on.is_empty()
}
