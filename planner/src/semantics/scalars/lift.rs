//! Correlated subqueries without their conditions on the outer query: these become keys, which the rows are told apart by.

mod inputs;

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType, NullEquality, Result};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::utils::{conjunction, split_conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Distinct, Expr, ExprFunctionExt, FetchType, Filter, Limit, LogicalPlan, LogicalPlanBuilder,
    Operator, Projection, SkipType, Sort, SubqueryAlias, Window, lit,
};

use super::values::Values;
use super::{key, left_join, with_keys};
use crate::semantics::carried::{has_subquery, is_outer, is_own};
use crate::semantics::floats::{CANONICAL, canonical};
use crate::semantics::references::{is_alone, of_expr, of_node, with_subquery};

/// A subquery's plan, and the columns of its keys.
pub(super) struct Lifted {
    pub plan: LogicalPlan,
    pub keys: Vec<Column>,
}

/// What a subquery's keys are compared with.
pub(super) struct Lifting {
    name: String,
    /// One for each key.
    outer: Vec<Expr>,
    values: Option<Values>,
    /// How many aggregates without groups there are.
    rows: usize,
}

impl Lifting {
    /// By what its conditions, all equalities, compare with the outer query.
    pub(super) fn of_keys(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            outer: Vec::new(),
            values: None,
            rows: 0,
        }
    }

    /// By the outer query's values; none where these may be others when they are computed again.
    pub(super) fn of_values(outer: &Arc<LogicalPlan>, columns: &[Column], name: &str) -> Result<Option<Self>> {
        let Some((values, compared)) = Values::of(outer, columns, name)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            name: name.to_owned(),
            outer: compared,
            values: Some(values),
            rows: 0,
        }))
    }

    /// Keys by their names.
    pub(super) fn named(&self, keys: &[Column]) -> Vec<Expr> {
        let named = keys.iter().enumerate();
        named
            .map(|(at, column)| Expr::Column(column.clone()).alias(key(&self.name, at)))
            .collect()
    }

    /// The outer query's values and the named keys of a table, and whether NULLs are equal.
    pub(super) fn pairs(&self, table: Option<&str>) -> (Vec<(Expr, Expr)>, NullEquality) {
        let keys = (0..self.outer.len()).map(|at| {
            let name = key(&self.name, at);
            Expr::Column(match table {
                Some(table) => Column::new(Some(table), name),
                None => Column::from_name(name),
            })
        });
        let null_equality = match self.values {
            Some(_) => NullEquality::NullEqualsNull,
            None => NullEquality::NullEqualsNothing,
        };
        (self.outer.iter().cloned().zip(keys).collect(), null_equality)
    }

    /// The outer query with a table of named keys beside it.
    pub(super) fn join(&self, outer: &Arc<LogicalPlan>, table: LogicalPlan, name: &str) -> Result<Arc<LogicalPlan>> {
        let (on, null_equality) = self.pairs(Some(name));
        left_join(outer, table, on, null_equality)
    }

    /// The expression over the keys, where it is over the outer query's columns; `schema` is that of what it is over.
    pub(super) fn own(&self, expr: Expr, keys: &[Column], schema: &DFSchema) -> Result<Expr> {
        let Some(values) = &self.values else { return Ok(expr) };
        let name = expr.schema_name().to_string();
        let own = expr.transform_up(|node| match node {
            Expr::OuterReferenceColumn(field, column) => {
                let at = values.columns.iter().position(|known| *known == column);
                Ok(match at {
                    Some(at) => Transformed::yes(Expr::Column(keys[at].clone())),
                    None => Transformed::no(Expr::OuterReferenceColumn(field, column)),
                })
            }
            other => with_subquery(other, &|subquery| values.within(subquery, keys, schema, schema)),
        })?;
        Ok(match own.transformed {
            true => own.data.alias_if_changed(name)?,
            false => own.data,
        })
    }

    fn all_own(&self, exprs: &[Expr], keys: &[Column], schema: &DFSchema) -> Result<Vec<Expr>> {
        let own = |expr: &Expr| self.own(expr.clone(), keys, schema);
        exprs.iter().map(own).collect()
    }

    /// The plan with its keys; none for what isn't known to keep them apart.
    pub(super) fn lift(&mut self, plan: &LogicalPlan) -> Result<Option<Lifted>> {
        if is_alone(plan) {
            return self.beside(plan).map(Some);
        }
        Ok(Some(match plan {
            LogicalPlan::Filter(filter) => {
                let Some(input) = self.lift(&filter.input)? else {
                    return Ok(None);
                };
                self.filter(filter, input)?
            }
            LogicalPlan::Projection(projection) => {
                let Some(Lifted { plan, keys }) = self.lift(&projection.input)? else {
                    return Ok(None);
                };
                let mut exprs = self.all_own(&projection.expr, &keys, plan.schema())?;
                exprs.extend(columns(&keys));
                let plan = LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(plan))?);
                Lifted { plan, keys }
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let Some(Lifted { plan, keys }) = self.lift(&alias.input)? else {
                    return Ok(None);
                };
                let outside = |key: Column| Column::new(Some(alias.alias.clone()), key.name);
                let keys = keys.into_iter().map(outside).collect();
                let plan = SubqueryAlias::try_new(Arc::new(plan), alias.alias.clone())?;
                Lifted {
                    plan: LogicalPlan::SubqueryAlias(plan),
                    keys,
                }
            }
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let Some(Lifted { plan, keys }) = self.lift(input)? else {
                    return Ok(None);
                };
                let plan = LogicalPlan::Distinct(Distinct::All(Arc::new(plan)));
                Lifted { plan, keys }
            }
            LogicalPlan::Sort(Sort { input, .. }) | LogicalPlan::Window(Window { input, .. }) => {
                let Some(input) = self.lift(input)? else {
                    return Ok(None);
                };
                self.ordered(plan, input)?
            }
            LogicalPlan::Aggregate(aggregate) if has_plain_groups(aggregate) => {
                let Some(input) = self.lift(&aggregate.input)? else {
                    return Ok(None);
                };
                self.grouped(aggregate, input)?
            }
            LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() => return self.row(aggregate),
            LogicalPlan::Limit(limit) => return self.limit(limit),
            LogicalPlan::Union(union) => return self.united(union),
            LogicalPlan::Values(values) => return self.listed(values),
            LogicalPlan::Join(join) => return self.joined(join),
            _ => return Ok(None),
        }))
    }

    /// What has no conditions on the outer query: beside its values, if they are asked for.
    fn beside(&self, plan: &LogicalPlan) -> Result<Lifted> {
        let Some(values) = &self.values else {
            return Ok(Lifted {
                plan: plan.clone(),
                keys: Vec::new(),
            });
        };
        let keys = values.plan.schema().columns();
        let plan = LogicalPlanBuilder::from(values.plan.clone())
            .cross_join(plan.clone())?
            .build()?;
        Ok(Lifted { plan, keys })
    }

    fn filter(&mut self, filter: &Filter, input: Lifted) -> Result<Lifted> {
        let Lifted { plan, mut keys } = input;
        let mut conditions = Vec::new();
        let mut exprs: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
        let before = keys.len();
        for condition in split_conjunction_owned(filter.predicate.clone()) {
            match (&self.values, equality(&condition)) {
                (None, Some((own, outer))) => {
                    let name = key(&self.name, self.outer.len());
                    self.outer.push(of_outer(outer.clone())?);
                    exprs.push(own.clone().alias(&name));
                    keys.push(Column::from_name(name));
                }
                _ => conditions.push(self.own(condition, &keys, plan.schema())?.unalias()),
            }
        }
        let mut plan = LogicalPlanBuilder::from(plan);
        if let Some(condition) = conjunction(conditions) {
            plan = plan.filter(condition)?;
        }
        if keys.len() > before {
            plan = plan.project(exprs)?;
        }
        let plan = plan.build()?;
        Ok(Lifted { plan, keys })
    }

    fn ordered(&self, node: &LogicalPlan, input: Lifted) -> Result<Lifted> {
        let Lifted { plan, keys } = input;
        let plan = match node {
            LogicalPlan::Window(window) => {
                let windows = window.window_expr.iter();
                let apart = compared(&keys, &plan)?;
                let windows = windows
                    .map(|expr| self.window(expr, &keys, &apart, plan.schema()))
                    .collect::<Result<_>>()?;
                LogicalPlan::Window(Window::try_new(windows, Arc::new(plan))?)
            }
            LogicalPlan::Sort(sort) => {
                let mut sort = sort.clone();
                for by in &mut sort.expr {
                    by.expr = self.own(by.expr.clone(), &keys, plan.schema())?;
                }
                sort.input = Arc::new(plan);
                LogicalPlan::Sort(sort)
            }
            _ => plan,
        };
        Ok(Lifted { plan, keys })
    }

    fn grouped(&self, aggregate: &Aggregate, input: Lifted) -> Result<Lifted> {
        let Lifted { plan, keys } = input;
        let mut groups = self.all_own(&aggregate.group_expr, &keys, plan.schema())?;
        groups.extend(columns(&keys));
        let results = self.all_own(&aggregate.aggr_expr, &keys, plan.schema())?;
        let plan = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(plan), groups, results)?);
        Ok(Lifted { plan, keys })
    }

    fn window(&self, expr: &Expr, keys: &[Column], apart: &[Expr], schema: &DFSchema) -> Result<Expr> {
        let name = expr.schema_name().to_string();
        let own = self.own(expr.clone(), keys, schema)?;
        let windowed = own.transform_down(|node| match node {
            Expr::WindowFunction(mut function) => {
                function.params.partition_by.extend_from_slice(apart);
                Ok(Transformed::new(
                    Expr::WindowFunction(function),
                    true,
                    TreeNodeRecursion::Jump,
                ))
            }
            other => Ok(Transformed::no(other)),
        })?;
        windowed.data.unalias().alias_if_changed(name)
    }

    /// Rows are numbered by key.
    fn limit(&mut self, limit: &Limit) -> Result<Option<Lifted>> {
        let (SkipType::Literal(skip), FetchType::Literal(fetch)) = (limit.get_skip_type()?, limit.get_fetch_type()?)
        else {
            return Ok(None);
        };
        if let LogicalPlan::Projection(projection) = limit.input.as_ref()
            && leads_to_sort(&projection.input)
        {
            let below = LogicalPlan::Limit(Limit {
                input: Arc::clone(&projection.input),
                ..limit.clone()
            });
            let swapped = Projection::try_new(projection.expr.clone(), Arc::new(below))?;
            return self.lift(&LogicalPlan::Projection(swapped));
        }
        let (input, order) = match limit.input.as_ref() {
            LogicalPlan::Sort(sort) => {
                let Sort { input, expr, .. } = with_keys(sort)?;
                (input, expr)
            }
            _ => (Arc::clone(&limit.input), Vec::new()),
        };
        let Some(Lifted { plan, keys }) = self.lift(&input)? else {
            return Ok(None);
        };
        let mut own = order;
        for by in &mut own {
            by.expr = self.own(by.expr.clone(), &keys, plan.schema())?;
        }
        // Within a key's rows it says nothing, and DataFusion takes its order for the key's by another name, which it then misses.
        own.retain(|by| !is_key(&by.expr, &keys, &plan));
        let due = limit.input.schema().columns().into_iter().map(Expr::Column);
        let due: Vec<Expr> = due.chain(columns(&keys)).collect();
        let number = row_number()
            .partition_by(compared(&keys, &plan)?)
            .order_by(own)
            .build()?;
        let found = Expr::Column(Column::from_name(number.schema_name().to_string()));
        let mut wanted = found.clone().gt(lit(skip as u64));
        if let Some(fetch) = fetch {
            wanted = wanted.and(found.lt_eq(lit(skip.saturating_add(fetch) as u64)));
        }
        let plan = LogicalPlanBuilder::from(plan)
            .window([number])?
            .filter(wanted)?
            .project(due)?
            .build()?;
        Ok(Some(Lifted { plan, keys }))
    }
}

/// Whether it is what a key is.
fn is_key(expr: &Expr, keys: &[Column], plan: &LogicalPlan) -> bool {
    let plain = match expr {
        Expr::ScalarFunction(call) if call.func.name() == CANONICAL => &call.args[0],
        other => other,
    };
    let Expr::Column(column) = plain else { return false };
    let LogicalPlan::Projection(projection) = plan else {
        return keys.contains(column);
    };
    let source = |column: &Column| {
        let at = projection.schema.maybe_index_of_column(column)?;
        Some(projection.expr[at].clone().unalias())
    };
    let found = source(column);
    found.is_some() && keys.iter().any(|key| source(key) == found)
}

fn columns(keys: &[Column]) -> Vec<Expr> {
    keys.iter().cloned().map(Expr::Column).collect()
}

/// Keys as a window compares them: fused pipelines give floats as they are.
fn compared(keys: &[Column], plan: &LogicalPlan) -> Result<Vec<Expr>> {
    let of_key = |key: Expr| canonical(key, plan.schema());
    columns(keys).into_iter().map(of_key).collect()
}

/// Whether all conditions on the outer query are equalities of what is the subquery's own with what is the outer query's.
pub(in super::super) fn is_of_equalities(plan: &LogicalPlan) -> bool {
    if is_alone(plan) {
        return true;
    }
    let is_fit = match plan {
        LogicalPlan::Filter(filter) => split_conjunction(&filter.predicate)
            .into_iter()
            .all(|condition| of_expr(condition, filter.input.schema()).is_empty() || equality(condition).is_some()),
        LogicalPlan::Aggregate(aggregate) => has_plain_groups(aggregate) && of_node(plan).is_empty(),
        LogicalPlan::Join(join) => {
            let fits = match join.join_type {
                JoinType::Inner => true,
                JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti => is_alone(&join.right),
                JoinType::Right => is_alone(&join.left),
                _ => false,
            };
            fits && of_node(plan).is_empty()
        }
        LogicalPlan::Union(_) | LogicalPlan::Values(_) | LogicalPlan::Subquery(_) => false,
        _ => of_node(plan).is_empty(),
    };
    is_fit && plan.inputs().into_iter().all(is_of_equalities)
}

/// Whether DataFusion lifts the conditions rightly.
pub(super) fn is_plain(plan: &LogicalPlan) -> bool {
    let is_known = matches!(
        plan,
        LogicalPlan::Filter(_) | LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Join(_)
    );
    is_alone(plan) || is_known && is_of_equalities(plan) && plan.inputs().into_iter().all(is_plain)
}

/// The subquery's own side, and the outer query's.
fn equality(condition: &Expr) -> Option<(&Expr, &Expr)> {
    let Expr::BinaryExpr(BinaryExpr {
        left,
        op: Operator::Eq,
        right,
    }) = condition
    else {
        return None;
    };
    if has_subquery(condition).unwrap_or(true) {
        return None;
    }
    match (is_own(left) && is_outer(right), is_own(right) && is_outer(left)) {
        (true, _) => Some((left, right)),
        (_, true) => Some((right, left)),
        _ => None,
    }
}

/// The expression as the outer query's.
fn of_outer(expr: Expr) -> Result<Expr> {
    expr.transform_up(|node| match node {
        Expr::OuterReferenceColumn(_, column) => Ok(Transformed::yes(Expr::Column(column))),
        other => Ok(Transformed::no(other)),
    })
    .data()
}

fn has_plain_groups(aggregate: &Aggregate) -> bool {
    let is_set = |expr: &Expr| matches!(expr, Expr::GroupingSet(_));
    !aggregate.group_expr.is_empty() && !aggregate.group_expr.iter().any(is_set)
}

fn leads_to_sort(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => leads_to_sort(&projection.input),
        plan => matches!(plan, LogicalPlan::Sort(_)),
    }
}

/// Whether what a subquery computes of its rows may fail: then rows that no outer row asks for must not be seen.
pub(super) fn may_fail(plan: &LogicalPlan) -> Result<bool> {
    if is_alone(plan) {
        return Ok(false);
    }
    // Conditions are looked at for all rows.
    let mut found = false;
    let is_filter = matches!(plan, LogicalPlan::Filter(_));
    plan.apply_expressions(|expr| {
        found |= !is_filter
            && expr.exists(|node| {
                Ok(match node {
                    Expr::ScalarFunction(call) => call.func.name() != CANONICAL,
                    Expr::Cast(_) => true,
                    Expr::BinaryExpr(binary) => binary.op.is_numerical_operators(),
                    _ => false,
                })
            })?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    for input in plan.inputs() {
        found = found || may_fail(input)?;
    }
    Ok(found)
}
