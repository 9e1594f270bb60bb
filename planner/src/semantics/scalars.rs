//! Correlated subqueries for which DataFusion has no join: `(SELECT name FROM c WHERE c.id = o.c_id)`, the latest by
//! `ORDER BY … LIMIT 1`, running totals (`e.d <= d.d`), LATERAL with a LIMIT.
//!
//! ```text
//!  equalities alone:  rows of the subquery with what is compared as keys                    ─┐ one row per key
//!  any conditions:    the outer query's distinct values × the subquery's tables, filtered   ─┘ → left join of the outer query
//! ```
//!
//! [`lift`] gives the subquery its keys. A row number by key stands for a LIMIT; where several rows may come, they are counted,
//! and the outer row that meets several fails. An aggregate's value for no rows is computed beside the join.

mod lateral;
mod lift;
mod sides;
pub(super) mod single;
mod values;

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinType, NullEquality, Result, ScalarValue};
use datafusion::functions_aggregate::expr_fn::{count, first_value, min};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, FetchType, Join, JoinConstraint, Limit, LogicalPlan, LogicalPlanBuilder, Projection,
    SkipType, Sort, Subquery, lit, when,
};
use datafusion::optimizer::AnalyzerRule;

use self::lateral::is_lateral;
pub(super) use self::lift::is_of_equalities;
use self::lift::{Lifted, Lifting, is_plain, may_fail};
use super::carried::has_subquery;
use super::references::{of_node, references};

/// See the module.
#[derive(Debug)]
pub(super) struct Scalars;

impl AnalyzerRule for Scalars {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        Tables::default().settled(plan)
    }

    fn name(&self) -> &str {
        "trireme_scalars"
    }
}

/// Names the tables that subqueries become.
#[derive(Default)]
struct Tables {
    made: usize,
}

impl Tables {
    fn next(&mut self) -> String {
        self.made += 1;
        format!("trireme_scalar_{}", self.made)
    }

    /// The plan with tables for all subqueries that can have one. Within a table, what referred to queries further out refers to
    /// its keys, and can have one then.
    fn settled(&mut self, plan: LogicalPlan) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Join(join) if is_lateral(&join) => self.lateral(join),
            LogicalPlan::Join(join) => self.condition(join),
            node => self.rewrite(node),
        })
        .data()
    }

    fn rewrite(&mut self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let input = match &plan {
            LogicalPlan::Projection(projection) => &projection.input,
            LogicalPlan::Filter(filter) => &filter.input,
            LogicalPlan::Aggregate(aggregate) => &aggregate.input,
            LogicalPlan::Sort(sort) => &sort.input,
            LogicalPlan::Window(window) => &window.input,
            _ => return Ok(Transformed::no(plan)),
        };
        let is_joined = matches!(plan, LogicalPlan::Projection(_) | LogicalPlan::Filter(_));
        if !has_scalar(&plan)? {
            return Ok(Transformed::no(plan));
        }
        let due = plan.schema().columns();
        if let LogicalPlan::Sort(sort) = &plan {
            let mut sort = with_keys(sort)?;
            if sort.input.schema().fields().len() > due.len() {
                sort.input = Arc::new(self.rewrite(Arc::unwrap_or_clone(sort.input))?.data);
                let sorted = self.rewrite(LogicalPlan::Sort(sort))?.data;
                return with_columns(sorted, due).map(Transformed::yes);
            }
        }
        let outer = Arc::clone(input);
        let mut joined = Arc::clone(&outer);
        let mut known: Vec<(Subquery, Expr)> = Vec::new();
        let names = NamePreserver::new(&plan);
        let rewritten = plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let expr = expr.transform_down(|node| {
                let Expr::ScalarSubquery(subquery) = &node else {
                    return Ok(Transformed::no(node));
                };
                if subquery.outer_ref_columns.is_empty() {
                    return Ok(Transformed::no(node));
                }
                let value = match known.iter().find(|(other, _)| other == subquery) {
                    Some((_, value)) => Some(value.clone()),
                    None => self.value(subquery, is_joined, &outer, &mut joined)?,
                };
                Ok(match value {
                    None => Transformed::no(node),
                    Some(value) => {
                        known.push((subquery.clone(), value.clone()));
                        Transformed::new(value, true, TreeNodeRecursion::Jump)
                    }
                })
            })?;
            Ok(expr.update_data(|expr| name.restore(expr)))
        })?;
        if known.is_empty() {
            return Ok(Transformed::no(rewritten.data));
        }
        if let LogicalPlan::Sort(sort) = rewritten.data {
            let plan = sorted(sort, &joined)?;
            return with_columns(plan, due).map(Transformed::yes);
        }
        let exprs = rewritten.data.expressions();
        let plan = rewritten.data.with_new_exprs(exprs, vec![joined.as_ref().clone()])?;
        with_columns(plan, due).map(Transformed::yes)
    }

    /// What stands for the subquery, of a column that `joined` gets; none where none can be had, or where DataFusion has a
    /// join, which it makes (`is_joined`) for some nodes.
    fn value(
        &mut self,
        subquery: &Subquery,
        is_joined: bool,
        outer: &Arc<LogicalPlan>,
        joined: &mut Arc<LogicalPlan>,
    ) -> Result<Option<Expr>> {
        let Some(columns) = outer_columns(subquery, outer) else {
            return Ok(None);
        };
        // The join makes it one that may be NULL.
        let plan = single::without(&subquery.subquery)?;
        match one_row(&plan) {
            Some(One::Aggregate(aggregate)) => {
                if is_joined && is_bare(&plan) && is_plain(&aggregate.input) {
                    return Ok(None);
                }
                self.of_aggregate(&plan, aggregate, &columns, outer, joined)
            }
            Some(One::NoTable) if !has_subqueries(&plan)? => of_results(&plan, &[]),
            _ => self.of_rows(&plan, &columns, outer, joined),
        }
    }

    fn of_aggregate(
        &mut self,
        plan: &LogicalPlan,
        aggregate: &Aggregate,
        columns: &[Column],
        outer: &Arc<LogicalPlan>,
        joined: &mut Arc<LogicalPlan>,
    ) -> Result<Option<Expr>> {
        match self.results(plan, aggregate, columns, outer, joined)? {
            Some(results) => of_results(plan, &results),
            None => Ok(None),
        }
    }

    /// The aggregate's results for each outer row, of columns that `joined` gets.
    fn results(
        &mut self,
        plan: &LogicalPlan,
        aggregate: &Aggregate,
        columns: &[Column],
        outer: &Arc<LogicalPlan>,
        joined: &mut Arc<LogicalPlan>,
    ) -> Result<Option<Vec<Expr>>> {
        let name = self.next();
        let lifted = match has_outer_above(plan) {
            true => self.by_values(&aggregate.input, columns, outer, &name)?,
            false => self.lifted(&aggregate.input, columns, outer, &name)?,
        };
        let Some((lifting, Lifted { plan: input, keys })) = lifted else {
            return Ok(None);
        };
        let mut values = Vec::new();
        for expr in &aggregate.aggr_expr {
            values.push(lifting.own(expr.clone(), &keys, input.schema())?);
        }
        let groups = keys.iter().cloned().map(Expr::Column).collect();
        let grouped = Aggregate::try_new(Arc::new(input), groups, values)?;
        let grouped = self.settled(LogicalPlan::Aggregate(grouped))?;
        let (table, results) = lifting.table_of(aggregate, grouped, &name)?;
        *joined = lifting.join(joined, table, &name)?;
        Ok(Some(results))
    }

    fn of_rows(
        &mut self,
        plan: &LogicalPlan,
        columns: &[Column],
        outer: &Arc<LogicalPlan>,
        joined: &mut Arc<LogicalPlan>,
    ) -> Result<Option<Expr>> {
        let name = self.next();
        let Some((lifting, Lifted { plan: rows, keys })) = self.lifted(plan, columns, outer, &name)? else {
            return Ok(None);
        };
        let rows = self.settled(rows)?;
        let value = Expr::Column(rows.schema().columns().swap_remove(0));
        let of_table = |column: &str| Expr::Column(Column::new(Some(name.clone()), column));
        let rows = LogicalPlanBuilder::from(rows);
        let (rows, value) = if gives_one(plan)? {
            let mut exprs = lifting.named(&keys);
            exprs.push(value.alias("value"));
            (rows.project(exprs)?, of_table("value"))
        } else {
            let is_nested = rows.schema().field(0).data_type().is_nested();
            let one = match is_nested {
                true => first_value(value, Vec::new()),
                false => min(value),
            };
            let groups: Vec<Expr> = lifting.named(&keys);
            let results = [one.alias("value"), count(lit(1_i64)).alias("rows")];
            let table = rows.aggregate(groups, results)?;
            (table, single::value(of_table("value"), of_table("rows")))
        };
        let table = rows.alias(name.clone())?.build()?;
        *joined = lifting.join(joined, table, &name)?;
        Ok(Some(value))
    }

    fn lifted(
        &self,
        plan: &LogicalPlan,
        columns: &[Column],
        outer: &Arc<LogicalPlan>,
        name: &str,
    ) -> Result<Option<(Lifting, Lifted)>> {
        let is_of_equalities = is_of_equalities(plan);
        if !is_of_equalities || may_fail(plan)? {
            let lifted = self.by_values(plan, columns, outer, name)?;
            if lifted.is_some() || !is_of_equalities {
                return Ok(lifted);
            }
        }
        let mut lifting = Lifting::of_keys(name);
        Ok(lifting.lift(plan)?.map(|lifted| (lifting, lifted)))
    }

    fn by_values(
        &self,
        plan: &LogicalPlan,
        columns: &[Column],
        outer: &Arc<LogicalPlan>,
        name: &str,
    ) -> Result<Option<(Lifting, Lifted)>> {
        let Some(mut lifting) = Lifting::of_values(outer, columns, name)? else {
            return Ok(None);
        };
        Ok(lifting.lift(plan)?.map(|lifted| (lifting, lifted)))
    }
}

/// Sorted by columns: what is computed stands below.
fn sorted(mut sort: Sort, input: &Arc<LogicalPlan>) -> Result<LogicalPlan> {
    let mut exprs: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    for (at, by) in sort.expr.iter_mut().enumerate() {
        if !matches!(by.expr, Expr::Column(_)) {
            let name = format!("trireme_sort_{at}");
            let column = Expr::Column(Column::from_name(&name));
            exprs.push(std::mem::replace(&mut by.expr, column).alias(name));
        }
    }
    let projection = Projection::try_new(exprs, Arc::clone(input))?;
    sort.input = Arc::new(LogicalPlan::Projection(projection));
    Ok(LogicalPlan::Sort(sort))
}

/// The sort by columns, where its keys have subqueries: the SELECT below it computes these, as other columns than its results.
fn with_keys(sort: &Sort) -> Result<Sort> {
    let mut sort = sort.clone();
    let LogicalPlan::Projection(projection) = sort.input.as_ref() else {
        return Ok(sort);
    };
    let (results, input) = (Arc::clone(&projection.schema), projection.input.schema());
    let mut exprs = projection.expr.clone();
    for by in &mut sort.expr {
        let is_above = |outer: &Expr| match outer {
            Expr::OuterReferenceColumn(_, column) => results.has_column(column) && !input.has_column(column),
            _ => false,
        };
        let is_below = |inner: &Expr| match inner {
            Expr::ScalarSubquery(subquery) => Ok(!references(&subquery.subquery).iter().any(is_above)),
            _ => Ok(false),
        };
        if !by.expr.exists(is_below)? {
            continue;
        }
        let key = by.expr.clone().transform_up(|node| match node {
            Expr::Column(column) if results.has_column(&column) => {
                let result = projection.expr[results.index_of_column(&column)?].clone();
                Ok(Transformed::yes(result.unalias()))
            }
            other => Ok(Transformed::no(other)),
        })?;
        let name = format!("trireme_order_{}", exprs.len());
        exprs.push(key.data.alias(&name));
        by.expr = Expr::Column(Column::from_name(name));
    }
    let projection = Projection::try_new(exprs, Arc::clone(&projection.input))?;
    sort.input = Arc::new(LogicalPlan::Projection(projection));
    Ok(sort)
}

fn has_scalar(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_expressions(|expr| {
        found = found || expr.exists(|inner| Ok(is_correlated_value(inner)))?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

fn is_correlated_value(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarSubquery(subquery) if !subquery.outer_ref_columns.is_empty())
}

fn numbers_rows(plan: &LogicalPlan) -> Result<bool> {
    plan.exists(|node| Ok(matches!(node, LogicalPlan::Limit(_) | LogicalPlan::Window(_))))
}

/// The outer query's columns that a subquery refers to, if all are of the plan.
fn outer_columns(subquery: &Subquery, outer: &LogicalPlan) -> Option<Vec<Column>> {
    let mut columns = Vec::new();
    for expr in references(&subquery.subquery) {
        match expr {
            Expr::OuterReferenceColumn(_, column) if outer.schema().has_column(&column) => columns.push(column),
            _ => return None,
        }
    }
    (!columns.is_empty()).then_some(columns)
}

/// What a subquery's one row comes from.
enum One<'a> {
    Aggregate(&'a Aggregate),
    NoTable,
}

fn one_row(plan: &LogicalPlan) -> Option<One<'_>> {
    match plan {
        LogicalPlan::Projection(projection) => one_row(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => one_row(&alias.input),
        LogicalPlan::Filter(filter) => one_row(&filter.input),
        LogicalPlan::Sort(sort) => one_row(&sort.input),
        LogicalPlan::Distinct(Distinct::All(input)) => one_row(input),
        LogicalPlan::Limit(limit) if keeps_one(limit) => one_row(&limit.input),
        LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() => Some(One::Aggregate(aggregate)),
        LogicalPlan::EmptyRelation(one) if one.produce_one_row => Some(One::NoTable),
        _ => None,
    }
}

/// Whether a LIMIT lets the one row through.
fn keeps_one(limit: &Limit) -> bool {
    matches!(limit.get_skip_type(), Ok(SkipType::Literal(0)))
        && matches!(limit.get_fetch_type(), Ok(FetchType::Literal(None | Some(1..))))
}

/// Whether the plan gives one row, that of an aggregate without groups or of no table, and nothing above that is of the outer
/// query.
pub(super) fn is_bare(plan: &LogicalPlan) -> bool {
    let is_known = match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::EmptyRelation(one) => one.produce_one_row,
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => plan.inputs().into_iter().all(is_bare),
        _ => false,
    };
    is_known && of_node(plan).is_empty()
}

/// Whether the outer query is referred to by the aggregate without groups, or above it.
fn has_outer_above(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(_) => !of_node(plan).is_empty(),
        _ => !of_node(plan).is_empty() || plan.inputs().into_iter().any(has_outer_above),
    }
}

fn value_of_none(expr: &Expr, aggregate: &Aggregate, at: usize) -> Result<ScalarValue> {
    let data_type = aggregate.schema.field(at).data_type();
    match expr.clone().unalias() {
        Expr::AggregateFunction(call) => call.func.default_value(data_type),
        _ => ScalarValue::try_from(data_type),
    }
}

/// A plan's value by the results of the aggregate below it.
fn of_results(plan: &LogicalPlan, results: &[Expr]) -> Result<Option<Expr>> {
    let mut having = Vec::new();
    let value = Expr::Column(plan.schema().columns().swap_remove(0));
    let Some(value) = above(plan, value, results, &mut having)? else {
        return Ok(None);
    };
    match conjunction(having) {
        None => Ok(Some(value)),
        Some(condition) => when(condition, value).end().map(Some),
    }
}

fn has_subqueries(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply(|node| {
        node.apply_expressions(|expr| {
            found = found || has_subquery(expr)?;
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(found)
}

/// An expression over a plan's columns as one of the results of the aggregate below it, if there is one; conditions between are told too.
fn above(plan: &LogicalPlan, expr: Expr, results: &[Expr], having: &mut Vec<Expr>) -> Result<Option<Expr>> {
    let schema = Arc::clone(plan.schema());
    let replaced = |expr: Expr, by: &dyn Fn(usize) -> Expr| {
        expr.transform_up(|node| match node {
            Expr::Column(column) => Ok(Transformed::yes(by(schema.index_of_column(&column)?))),
            other => Ok(Transformed::no(other)),
        })
        .data()
    };
    match plan {
        LogicalPlan::Projection(projection) => {
            let expr = replaced(expr, &|at| projection.expr[at].clone().unalias())?;
            above(&projection.input, expr, results, having)
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let columns = alias.input.schema().columns();
            let expr = replaced(expr, &|at| Expr::Column(columns[at].clone()))?;
            above(&alias.input, expr, results, having)
        }
        LogicalPlan::Filter(filter) => {
            if let Some(condition) = above(&filter.input, filter.predicate.clone(), results, &mut Vec::new())? {
                having.push(condition);
            }
            above(&filter.input, expr, results, having)
        }
        LogicalPlan::Sort(Sort { input, .. })
        | LogicalPlan::Distinct(Distinct::All(input))
        | LogicalPlan::Limit(Limit { input, .. }) => above(input, expr, results, having),
        LogicalPlan::Aggregate(_) | LogicalPlan::EmptyRelation(_) => {
            let expr = expr.transform_up(|node| match node {
                Expr::Column(column) => Ok(Transformed::yes(results[schema.index_of_column(&column)?].clone())),
                Expr::OuterReferenceColumn(_, column) => Ok(Transformed::yes(Expr::Column(column))),
                other => Ok(Transformed::no(other)),
            });
            expr.data().map(Some)
        }
        _ => Ok(None),
    }
}

/// Whether a subquery's LIMIT lets one row through.
fn gives_one(plan: &LogicalPlan) -> Result<bool> {
    Ok(match plan {
        LogicalPlan::Projection(projection) => gives_one(&projection.input)?,
        LogicalPlan::SubqueryAlias(alias) => gives_one(&alias.input)?,
        LogicalPlan::Limit(limit) => {
            matches!(limit.get_fetch_type()?, FetchType::Literal(Some(0 | 1)))
                && matches!(limit.get_skip_type()?, SkipType::Literal(_))
        }
        _ => false,
    })
}

/// The plan with these columns alone.
fn with_columns(plan: LogicalPlan, due: Vec<Column>) -> Result<LogicalPlan> {
    if plan.schema().columns() == due {
        return Ok(plan);
    }
    LogicalPlanBuilder::from(plan)
        .project(due.into_iter().map(Expr::Column))?
        .build()
}

fn key(name: &str, at: usize) -> String {
    format!("{name}_key_{at}")
}

/// A left join by keys.
fn left_join(
    left: &Arc<LogicalPlan>,
    right: LogicalPlan,
    on: Vec<(Expr, Expr)>,
    null_equality: NullEquality,
) -> Result<Arc<LogicalPlan>> {
    let join = Join::try_new(
        Arc::clone(left),
        Arc::new(right),
        on,
        None,
        JoinType::Left,
        JoinConstraint::On,
        null_equality,
        false,
    )?;
    Ok(Arc::new(LogicalPlan::Join(join)))
}
