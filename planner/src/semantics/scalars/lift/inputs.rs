//! Nodes of several inputs, and aggregates without groups, whose row for no rows comes from the outer query's values.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DataFusionError, JoinType, NullEquality, Result};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Expr, ExprSchemable, Join, JoinConstraint, LogicalPlan, LogicalPlanBuilder, Operator, Union,
    Values, lit, when,
};

use super::{Lifted, Lifting};
use crate::semantics::references::is_alone;
use crate::semantics::scalars::{is_lateral, key, left_join, value_of_none};

impl Lifting {
    pub(super) fn joined(&mut self, join: &Join) -> Result<Option<Lifted>> {
        if is_lateral(join) && !is_alone(&join.right) {
            return self.beside_lateral(join);
        }
        let (left, right) = (is_alone(&join.left), is_alone(&join.right));
        let whole = |plan: &Arc<LogicalPlan>| Lifted {
            plan: plan.as_ref().clone(),
            keys: Vec::new(),
        };
        let (left, right) = match join.join_type {
            JoinType::Inner | JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti if right => {
                (self.lift(&join.left)?, Some(whole(&join.right)))
            }
            JoinType::Inner | JoinType::Right if left => (Some(whole(&join.left)), self.lift(&join.right)?),
            JoinType::Inner if self.values.is_none() => (self.lift(&join.left)?, self.lift(&join.right)?),
            JoinType::Inner | JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti if self.values.is_some() => {
                return self.paired(join);
            }
            _ => return Ok(None),
        };
        let (Some(left), Some(right)) = (left, right) else {
            return Ok(None);
        };
        let keys = [left.keys, right.keys].concat();
        self.join_of(join, left.plan, right.plan, keys, Vec::new()).map(Some)
    }

    /// What a LATERAL refers to of the outer query it finds in the row before it.
    fn beside_lateral(&mut self, join: &Join) -> Result<Option<Lifted>> {
        let Some(left) = self.lift(&join.left)? else {
            return Ok(None);
        };
        let Some(values) = &self.values else { return Ok(None) };
        let schema = Arc::clone(left.plan.schema());
        let right = join.right.as_ref().clone().transform_down(|node| match node {
            LogicalPlan::Subquery(subquery) => {
                let subquery = values.within(subquery, &left.keys, &schema, join.left.schema())?;
                Ok(Transformed::new(
                    LogicalPlan::Subquery(subquery),
                    true,
                    TreeNodeRecursion::Jump,
                ))
            }
            other => Ok(Transformed::no(other)),
        })?;
        self.join_of(join, left.plan, right.data, left.keys, Vec::new())
            .map(Some)
    }

    /// Both sides for each of the outer query's values.
    fn paired(&mut self, join: &Join) -> Result<Option<Lifted>> {
        let (Some(left), Some(right)) = (self.lift(&join.left)?, self.lift(&join.right)?) else {
            return Ok(None);
        };
        let beside = |at: usize| format!("{}_beside_{at}", self.name);
        let mut exprs: Vec<Expr> = join.right.schema().columns().into_iter().map(Expr::Column).collect();
        let mut pairs = Vec::new();
        for (at, (one, other)) in left.keys.iter().zip(right.keys).enumerate() {
            exprs.push(Expr::Column(other).alias(beside(at)));
            pairs.push((Expr::Column(one.clone()), Expr::Column(Column::from_name(beside(at)))));
        }
        let right = LogicalPlanBuilder::from(right.plan).project(exprs)?.build()?;
        self.join_of(join, left.plan, right, left.keys, pairs).map(Some)
    }

    fn join_of(
        &self,
        join: &Join,
        left: LogicalPlan,
        right: LogicalPlan,
        keys: Vec<Column>,
        pairs: Vec<(Expr, Expr)>,
    ) -> Result<Lifted> {
        let schema = left.schema().join(right.schema())?;
        let own = |expr: &Expr| Ok::<_, DataFusionError>(self.own(expr.clone(), &keys, &schema)?.unalias());
        let mut conditions: Vec<Expr> = join.filter.iter().map(own).collect::<Result<_>>()?;
        let mut on = Vec::new();
        for (one, other) in &join.on {
            on.push((own(one)?, own(other)?));
        }
        match join.null_equality {
            NullEquality::NullEqualsNull => on.extend(pairs),
            NullEquality::NullEqualsNothing => conditions.extend(pairs.into_iter().map(|(one, other)| {
                let same = BinaryExpr::new(Box::new(one), Operator::IsNotDistinctFrom, Box::new(other));
                Expr::BinaryExpr(same)
            })),
        }
        let plan = Join::try_new(
            Arc::new(left),
            Arc::new(right),
            on,
            conjunction(conditions),
            join.join_type,
            JoinConstraint::On,
            join.null_equality,
            join.null_aware,
        )?;
        Ok(Lifted {
            plan: LogicalPlan::Join(plan),
            keys,
        })
    }

    /// Each row of a list for each of the outer query's values.
    pub(super) fn listed(&mut self, list: &Values) -> Result<Option<Lifted>> {
        let Some(values) = self.values.as_ref().map(|values| values.plan.clone()) else {
            return Ok(None);
        };
        let keys = values.schema().columns();
        let mut rows = Vec::new();
        for row in &list.values {
            let own = self
                .all_own(row, &keys, values.schema())?
                .into_iter()
                .zip(list.schema.iter());
            let mut exprs = Vec::new();
            for (expr, (_, field)) in own {
                exprs.push(
                    expr.unalias()
                        .cast_to(field.data_type(), values.schema())?
                        .alias(field.name()),
                );
            }
            exprs.extend(self.named(&keys));
            rows.push(Arc::new(
                LogicalPlanBuilder::from(values.clone()).project(exprs)?.build()?,
            ));
        }
        let plan = match rows.as_slice() {
            [row] => row.as_ref().clone(),
            _ => LogicalPlan::Union(Union::try_new(rows)?),
        };
        let keys = plan.schema().columns().split_off(list.schema.fields().len());
        Ok(Some(Lifted { plan, keys }))
    }

    /// Each arm for each of the outer query's values.
    pub(super) fn united(&mut self, union: &Union) -> Result<Option<Lifted>> {
        if self.values.is_none() {
            return Ok(None);
        }
        let due = union.schema.columns();
        let mut arms = Vec::new();
        for input in &union.inputs {
            let Some(Lifted { plan, keys }) = self.lift(input)? else {
                return Ok(None);
            };
            let own = input.schema().columns().into_iter().zip(&due);
            let mut exprs: Vec<Expr> = own
                .map(|(own, due)| Expr::Column(own).alias_qualified(due.relation.clone(), &due.name))
                .collect();
            exprs.extend(self.named(&keys));
            arms.push(Arc::new(LogicalPlanBuilder::from(plan).project(exprs)?.build()?));
        }
        let union = Union::try_new(arms)?;
        let columns = union.schema.columns();
        let (own, keys) = columns.split_at(due.len());
        let mut exprs: Vec<Expr> = own
            .iter()
            .zip(due)
            .map(|(own, due)| Expr::Column(own.clone()).alias_qualified(due.relation, due.name))
            .collect();
        exprs.extend(keys.iter().cloned().map(Expr::Column));
        let plan = LogicalPlanBuilder::from(LogicalPlan::Union(union))
            .project(exprs)?
            .build()?;
        let keys = keys.to_vec();
        Ok(Some(Lifted { plan, keys }))
    }

    /// One row for each of the outer query's values.
    pub(super) fn row(&mut self, aggregate: &Aggregate) -> Result<Option<Lifted>> {
        let Some(values) = self.values.as_ref().map(|values| values.plan.clone()) else {
            return Ok(None);
        };
        let Some(Lifted { plan, keys }) = self.lift(&aggregate.input)? else {
            return Ok(None);
        };
        let results = self.all_own(&aggregate.aggr_expr, &keys, plan.schema())?;
        let name = format!("{}_rows_{}", self.name, self.rows);
        self.rows += 1;
        let groups: Vec<Expr> = keys.into_iter().map(Expr::Column).collect();
        let grouped = LogicalPlanBuilder::from(plan).aggregate(groups, results)?.build()?;
        let (table, results) = self.table_of(aggregate, grouped, &name)?;
        let keys = values.schema().columns();
        let named = (0..keys.len()).map(|at| Expr::Column(Column::new(Some(name.clone()), key(&self.name, at))));
        let on = keys.iter().cloned().map(Expr::Column).zip(named).collect();
        let joined = left_join(&Arc::new(values), table, on, NullEquality::NullEqualsNull)?;
        let mut exprs = Vec::new();
        for (at, value) in results.into_iter().enumerate() {
            let (relation, field) = aggregate.schema.qualified_field(at);
            exprs.push(value.alias_qualified(relation.cloned(), field.name()));
        }
        exprs.extend(keys.iter().cloned().map(Expr::Column));
        let plan = LogicalPlanBuilder::from(joined.as_ref().clone())
            .project(exprs)?
            .build()?;
        Ok(Some(Lifted { plan, keys }))
    }

    /// What an aggregate without groups became with the keys as its groups, as a table of this name; and its results from there
    /// beside rows that are joined with the table by an outer join.
    pub(in super::super) fn table_of(
        &self,
        aggregate: &Aggregate,
        grouped: LogicalPlan,
        name: &str,
    ) -> Result<(LogicalPlan, Vec<Expr>)> {
        let columns = grouped.schema().columns();
        let (keys, found) = columns.split_at(columns.len() - aggregate.aggr_expr.len());
        let of_table = |column: String| Expr::Column(Column::new(Some(name), column));
        let mut exprs = self.named(keys);
        let mut results = Vec::new();
        for (at, (expr, found)) in aggregate.aggr_expr.iter().zip(found).enumerate() {
            let result = format!("value_{at}");
            exprs.push(Expr::Column(found.clone()).alias(&result));
            let none = value_of_none(expr, aggregate, at)?;
            results.push(match none.is_null() {
                true => of_table(result),
                false => when(of_table(PRESENT.to_owned()).is_null(), Expr::Literal(none, None))
                    .otherwise(of_table(result))?,
            });
        }
        exprs.push(lit(true).alias(PRESENT));
        let table = LogicalPlanBuilder::from(grouped).project(exprs)?.alias(name)?.build()?;
        Ok((table, results))
    }
}

/// Says that a table has a row.
const PRESENT: &str = "present";
