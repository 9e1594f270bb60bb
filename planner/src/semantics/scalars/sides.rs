//! Subqueries in a join's condition: of one side's columns they are values there, of both sides' above an inner join.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, Filter, Join, JoinType, LogicalPlan};

use super::{Tables, is_correlated_value, outer_columns, with_columns};

impl Tables {
    pub(super) fn condition(&mut self, join: Join) -> Result<Transformed<LogicalPlan>> {
        let has_value = |expr: &Expr| expr.exists(|inner| Ok(is_correlated_value(inner)));
        let Some(filter) = &join.filter else {
            return Ok(Transformed::no(LogicalPlan::Join(join)));
        };
        if !has_value(filter)? {
            return Ok(Transformed::no(LogicalPlan::Join(join)));
        }
        let due = join.schema.columns();
        let (mut left, mut right) = (Arc::clone(&join.left), Arc::clone(&join.right));
        let (mut conditions, mut above) = (Vec::new(), Vec::new());
        for condition in split_conjunction_owned(filter.clone()) {
            let found = condition.clone().transform_down(|node| {
                let Expr::ScalarSubquery(subquery) = &node else {
                    return Ok(Transformed::no(node));
                };
                let value = if outer_columns(subquery, &join.left).is_some() {
                    self.value(subquery, false, &join.left, &mut left)?
                } else if outer_columns(subquery, &join.right).is_some() {
                    self.value(subquery, false, &join.right, &mut right)?
                } else {
                    None
                };
                Ok(match value {
                    Some(value) => Transformed::new(value, true, TreeNodeRecursion::Jump),
                    None => Transformed::no(node),
                })
            });
            let found = found.data()?;
            match join.join_type == JoinType::Inner && has_value(&found)? {
                true => above.push(condition),
                false => conditions.push(found),
            }
        }
        let join = Join::try_new(
            left,
            right,
            join.on,
            conjunction(conditions),
            join.join_type,
            join.join_constraint,
            join.null_equality,
            join.null_aware,
        )?;
        let plan = LogicalPlan::Join(join);
        let plan = match conjunction(above) {
            Some(condition) => {
                let filter = Filter::try_new(condition, Arc::new(plan))?;
                self.rewrite(LogicalPlan::Filter(filter))?.data
            }
            None => plan,
        };
        with_columns(plan, due).map(Transformed::yes)
    }
}
