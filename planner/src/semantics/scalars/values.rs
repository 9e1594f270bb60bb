//! The distinct values that a subquery is computed for.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ExprSchema, Result, ScalarValue};
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, ExprSchemable, JoinType, LogicalPlan, LogicalPlanBuilder, Subquery, WindowFrameUnits,
};

use super::key;
use crate::semantics::floats::canonical;
use crate::semantics::references::{references, visible, with_subquery};

/// The distinct values of the outer query's columns.
pub(super) struct Values {
    pub plan: LogicalPlan,
    pub columns: Vec<Column>,
}

impl Values {
    /// Those of the outer query's columns, and the expressions that give them there; none where these may be others when they
    /// are computed again.
    pub(super) fn of(outer: &Arc<LogicalPlan>, columns: &[Column], name: &str) -> Result<Option<(Self, Vec<Expr>)>> {
        let Some((source, found)) = source(outer, columns.to_vec())? else {
            return Ok(None);
        };
        let compared_in = |plan: &LogicalPlan, columns: &[Column]| {
            let columns = columns.iter().cloned().map(Expr::Column);
            columns
                .map(|column| canonical(column, plan.schema()))
                .collect::<Result<Vec<_>>>()
        };
        let keys = compared_in(&source, &found)?.into_iter().enumerate();
        let plan = LogicalPlanBuilder::from(source)
            .aggregate(keys.map(|(at, expr)| expr.alias(key(name, at))), Vec::<Expr>::new())?
            .alias(format!("{name}_values"))?
            .build()?;
        let values = Self {
            plan,
            columns: columns.to_vec(),
        };
        Ok(Some((values, compared_in(outer, columns)?)))
    }

    /// A subquery, over `schema`, of the query that is lifted, with keys for what it refers to further out: what is not of
    /// `nearer` queries.
    pub(super) fn within(
        &self,
        subquery: Subquery,
        keys: &[Column],
        schema: &DFSchema,
        nearer: &DFSchema,
    ) -> Result<Subquery> {
        let plan = subquery.subquery.as_ref().clone().transform_up(|node| {
            let mut known = nearer.clone();
            known.merge(&visible(&node));
            node.map_expressions(|expr| {
                expr.transform_up(|inner| match inner {
                    Expr::OuterReferenceColumn(field, column) => {
                        let at = self.columns.iter().position(|known| *known == column);
                        Ok(match at {
                            Some(at) if !nearer.has_column(&column) => {
                                let field = Arc::clone(schema.field_from_column(&keys[at])?);
                                Transformed::yes(Expr::OuterReferenceColumn(field, keys[at].clone()))
                            }
                            _ => Transformed::no(Expr::OuterReferenceColumn(field, column)),
                        })
                    }
                    other => with_subquery(other, &|inner| self.within(inner, keys, schema, &known)),
                })
            })
        })?;
        Ok(Subquery {
            outer_ref_columns: references(&plan.data),
            subquery: Arc::new(plan.data),
            ..subquery
        })
    }
}

/// What gives all values of the columns, and the same ones again, with the columns' names there: the plan, or what is below it.
fn source(plan: &LogicalPlan, columns: Vec<Column>) -> Result<Option<(LogicalPlan, Vec<Column>)>> {
    if is_repeatable(plan)? {
        return Ok(Some((plan.clone(), columns)));
    }
    let gives = |plan: &LogicalPlan| columns.iter().all(|column| plan.schema().has_column(column));
    let below = |inner: &dyn Fn(usize) -> Option<Column>| {
        let places = columns.iter().map(|column| plan.schema().maybe_index_of_column(column));
        places.map(|at| inner(at?)).collect::<Option<Vec<_>>>()
    };
    let (input, columns) = match plan {
        LogicalPlan::Projection(projection) => {
            let inner = |at: usize| match projection.expr[at].clone().unalias() {
                Expr::Column(column) => Some(column),
                _ => None,
            };
            (&projection.input, below(&inner))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let inner = |at: usize| Some(Column::from(alias.input.schema().qualified_field(at)));
            (&alias.input, below(&inner))
        }
        LogicalPlan::Aggregate(aggregate) => {
            let inner = |at: usize| match aggregate.group_expr.get(at)?.clone().unalias() {
                Expr::Column(column) => Some(column),
                _ => None,
            };
            (&aggregate.input, below(&inner))
        }
        LogicalPlan::Filter(filter) => (&filter.input, Some(columns)),
        LogicalPlan::Sort(sort) => (&sort.input, Some(columns)),
        LogicalPlan::Limit(limit) => (&limit.input, Some(columns)),
        LogicalPlan::Distinct(Distinct::All(input)) => (input, Some(columns)),
        LogicalPlan::Window(window) => {
            let is_below = gives(&window.input);
            (&window.input, is_below.then_some(columns))
        }
        LogicalPlan::Join(join) => {
            let (side, is_optional) = match join.join_type {
                JoinType::RightSemi | JoinType::RightAnti => (&join.right, false),
                kind if gives(&join.left) => (&join.left, matches!(kind, JoinType::Right | JoinType::Full)),
                kind if gives(&join.right) => (&join.right, matches!(kind, JoinType::Left | JoinType::Full)),
                _ => return Ok(None),
            };
            return match source(side, columns)? {
                Some((plan, columns)) if is_optional => with_nulls(plan, &columns).map(Some),
                found => Ok(found),
            };
        }
        _ => return Ok(None),
    };
    match columns {
        Some(columns) => source(input, columns),
        None => Ok(None),
    }
}

/// The columns' values, and a row of NULLs, which an outer join gives too.
fn with_nulls(plan: LogicalPlan, columns: &[Column]) -> Result<(LogicalPlan, Vec<Column>)> {
    let name = |at: usize| format!("trireme_value_{at}");
    let mut values = Vec::new();
    let mut nulls = Vec::new();
    for (at, column) in columns.iter().enumerate() {
        let null = ScalarValue::try_from(plan.schema().field_from_column(column)?.data_type())?;
        values.push(Expr::Column(column.clone()).alias(name(at)));
        nulls.push(Expr::Literal(null, None).alias(name(at)));
    }
    let nulls = LogicalPlanBuilder::empty(true).project(nulls)?.build()?;
    let plan = LogicalPlanBuilder::from(plan).project(values)?.union(nulls)?.build()?;
    let columns = plan.schema().columns();
    Ok((plan, columns))
}

/// Whether the plan gives the same rows when it is run twice.
fn is_repeatable(plan: &LogicalPlan) -> Result<bool> {
    let mut found = true;
    plan.apply_with_subqueries(|node| {
        found &= match node {
            LogicalPlan::TableScan(scan) => scan.fetch.is_none(),
            LogicalPlan::Sort(sort) => sort.fetch.is_none(),
            LogicalPlan::Aggregate(aggregate) => aggregate.aggr_expr.iter().all(|expr| is_exact(expr, aggregate)),
            LogicalPlan::Window(window) => window.window_expr.iter().all(is_exact_window),
            LogicalPlan::Distinct(Distinct::All(_))
            | LogicalPlan::Filter(_)
            | LogicalPlan::Projection(_)
            | LogicalPlan::Join(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::Union(_)
            | LogicalPlan::Values(_)
            | LogicalPlan::EmptyRelation(_) => true,
            _ => false,
        };
        found &= !node.contains_outer_reference();
        node.apply_expressions(|expr| {
            found &= !expr.is_volatile();
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(match found {
            true => TreeNodeRecursion::Continue,
            false => TreeNodeRecursion::Stop,
        })
    })?;
    Ok(found)
}

/// Whether a window function gives rows that its ORDER BY takes for equal the same value.
fn is_exact_window(expr: &Expr) -> bool {
    match expr.clone().unalias() {
        Expr::WindowFunction(call) => {
            let has_rows = call.params.window_frame.units == WindowFrameUnits::Rows;
            match call.fun.name() {
                "rank" | "dense_rank" | "percent_rank" | "cume_dist" => true,
                "count" | "min" | "max" | "float_min" | "float_max" | "bool_and" | "bool_or" => !has_rows,
                _ => false,
            }
        }
        _ => false,
    }
}

/// Whether an aggregate doesn't depend on the order of its rows.
fn is_exact(expr: &Expr, aggregate: &Aggregate) -> bool {
    let Expr::AggregateFunction(call) = expr.clone().unalias() else {
        return false;
    };
    let is_float = expr
        .get_type(aggregate.input.schema())
        .map_or(true, |data_type| data_type.is_floating());
    match call.func.name() {
        "count" | "min" | "max" | "float_min" | "float_max" | "bool_and" | "bool_or" => true,
        "sum" => !is_float,
        _ => false,
    }
}
