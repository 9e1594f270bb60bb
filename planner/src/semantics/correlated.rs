//! Correlated subqueries that DataFusion would decorrelate wrongly.
//!
//! It makes joins of them, whose keys are the conditions on the outer query. An aggregate without groups gives a row for no
//! rows too, and no join finds that: where it is a predicate's subquery, the predicate becomes one over its value, which
//! DataFusion does mend. A window, or an OFFSET, above the condition would be of all outer rows' rows together, unless the
//! window's partitions keep them apart: `predicates` counts the rows of such a subquery, and where it can't it is refused here.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, NullEquality, Result, Spans, not_impl_err};
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison, WindowFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{merge_schema, split_conjunction};
use datafusion::logical_expr::{
    BinaryExpr, Expr, Filter, Join, JoinType, Limit, LogicalPlan, LogicalPlanBuilder, Operator, SkipType, Subquery,
    Window, lit,
};
use datafusion::optimizer::AnalyzerRule;

use super::carried::carried;
use super::references::{beside, is_alone, is_deep, of_subqueries, references};
use super::scalars::is_of_equalities;

/// See the module.
#[derive(Debug)]
pub(super) struct Correlated;

impl AnalyzerRule for Correlated {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(rewrite_node).data()
    }

    fn name(&self) -> &str {
        "trireme_correlated"
    }
}

/// Whether a predicate of a condition is one for which DataFusion has no join, or a wrong one.
pub(super) fn is_refused(expr: &Expr) -> bool {
    let (subquery, is_exists) = match expr {
        Expr::Exists(exists) => (&exists.subquery, true),
        Expr::InSubquery(found) => (&found.subquery, false),
        Expr::SetComparison(comparison) => (&comparison.subquery, false),
        _ => return false,
    };
    let is_row_refused = match one_row(&subquery.subquery) {
        None | Some(One::Nothing) => false,
        Some(One::Having(_)) => !is_exists,
        Some(One::Else) => true,
    };
    is_correlated(subquery)
        && (is_row_refused
            || is_deep(&subquery.subquery)
            || has_set_operation(&subquery.subquery)
            || checked(subquery.clone()).is_err()
            || !is_of_equalities(&subquery.subquery) && looks_at_several(&subquery.subquery))
}

/// Whether a predicate is EXISTS of an aggregate without groups.
pub(super) fn is_certain(expr: &Expr) -> bool {
    matches!(expr, Expr::Exists(exists) if matches!(one_row(&exists.subquery.subquery), Some(One::Nothing)))
}

fn has_set_operation(plan: &LogicalPlan) -> bool {
    let is_one = match plan {
        LogicalPlan::Union(_) => true,
        // EXCEPT and INTERSECT: DataFusion lifts a condition of theirs as if the row had its columns.
        LogicalPlan::Join(join) => join.null_equality == NullEquality::NullEqualsNull,
        _ => false,
    };
    !is_alone(plan) && (is_one || plan.inputs().into_iter().any(has_set_operation))
}

/// Whether rows that a condition on the outer query chooses are looked at together.
fn looks_at_several(plan: &LogicalPlan) -> bool {
    let is_one = matches!(
        plan,
        LogicalPlan::Limit(_) | LogicalPlan::Window(_) | LogicalPlan::Aggregate(_)
    );
    !is_alone(plan) && (is_one || plan.inputs().into_iter().any(looks_at_several))
}

fn rewrite_node(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let plan = match plan {
        // LATERAL.
        LogicalPlan::Subquery(subquery) => LogicalPlan::Subquery(checked(subquery)?),
        plan => plan,
    };
    let names = NamePreserver::new(&plan);
    let outer = merge_schema(&plan.inputs());
    plan.map_expressions(|expr| {
        reaches(&expr, &outer)?;
        let name = names.save(&expr);
        let rewritten = expr.transform_up(|expr| rewrite(expr, &outer))?;
        Ok(if rewritten.transformed {
            rewritten.update_data(|expr| name.restore(expr))
        } else {
            rewritten
        })
    })
}

/// That no subquery refers further out: `scalars` has made joins where it can.
fn reaches(expr: &Expr, outer: &DFSchema) -> Result<()> {
    match of_subqueries(expr, outer).as_slice() {
        [Expr::OuterReferenceColumn(_, column), ..] => not_impl_err!(
            "a subquery refers to {}, which is neither of its own query nor of the one around it, where it can't be made a \
             join: write it as one",
            column.flat_name()
        ),
        _ => Ok(()),
    }
}

fn rewrite(expr: Expr, outer: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::Exists(exists) if is_correlated(&exists.subquery) => {
            let subquery = checked(exists.subquery)?;
            exists_of_one(Exists { subquery, ..exists }, outer)
        }
        Expr::InSubquery(found) if is_correlated(&found.subquery) => {
            let subquery = checked(found.subquery)?;
            in_one(InSubquery { subquery, ..found })
        }
        Expr::ScalarSubquery(subquery) if is_correlated(&subquery) => {
            Ok(Transformed::yes(Expr::ScalarSubquery(checked(subquery)?)))
        }
        Expr::SetComparison(comparison) if is_correlated(&comparison.subquery) => {
            let subquery = checked(comparison.subquery)?;
            let comparison = SetComparison { subquery, ..comparison };
            Ok(Transformed::yes(Expr::SetComparison(comparison)))
        }
        expr => Ok(Transformed::no(expr)),
    }
}

fn is_correlated(subquery: &Subquery) -> bool {
    !subquery.outer_ref_columns.is_empty()
}

/// What stands above an aggregate that gives one row for no rows.
enum One<'a> {
    Nothing,
    Having(&'a Filter),
    Else,
}

/// The aggregate without groups that the subquery's rows come from, if they do; conditions on the outer query are below it.
fn one_row(plan: &LogicalPlan) -> Option<One<'_>> {
    let mut above = One::Nothing;
    let mut node = plan;
    loop {
        node = match node {
            LogicalPlan::Projection(projection) => &projection.input,
            LogicalPlan::SubqueryAlias(alias) => &alias.input,
            LogicalPlan::Sort(sort) => &sort.input,
            LogicalPlan::Filter(filter) => {
                above = match (&above, filter.input.as_ref()) {
                    (One::Nothing, LogicalPlan::Aggregate(_)) => One::Having(filter),
                    _ => One::Else,
                };
                &filter.input
            }
            LogicalPlan::Limit(limit) => {
                above = One::Else;
                &limit.input
            }
            LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() => {
                return (!is_alone(&aggregate.input)).then_some(above);
            }
            _ => return None,
        };
    }
}

fn exists_of_one(exists: Exists, outer: &DFSchema) -> Result<Transformed<Expr>> {
    let Exists { subquery, negated } = exists;
    let holds = |condition: Expr| match negated {
        false => condition.is_true(),
        true => condition.is_not_true(),
    };
    let value = match one_row(&subquery.subquery) {
        None => return Ok(Transformed::yes(Expr::Exists(Exists { subquery, negated }))),
        Some(One::Nothing) => return Ok(Transformed::yes(lit(!negated))),
        Some(One::Having(filter)) if filter.predicate.contains_outer() => {
            return Ok(Transformed::yes(holds(outside(filter, outer)?)));
        }
        Some(One::Having(filter)) => {
            let condition = filter.predicate.clone().alias("condition");
            LogicalPlanBuilder::from(filter.input.as_ref().clone())
                .project([condition])?
                .build()?
        }
        Some(One::Else) => {
            return not_impl_err!(
                "EXISTS of an aggregate without GROUP BY that refers to the outer query, with conditions or a LIMIT \
                 above it: compare its value instead"
            );
        }
    };
    let value = Expr::ScalarSubquery(Subquery {
        subquery: Arc::new(value),
        ..subquery
    });
    Ok(Transformed::yes(holds(value)))
}

/// A condition of one row's values and the outer query's, as the outer query's: each value is a subquery.
fn outside(filter: &Filter, outer: &DFSchema) -> Result<Expr> {
    let own = filter.input.schema();
    let place = |expr: Expr| match expr {
        Expr::OuterReferenceColumn(_, column) if outer.has_column(&column) => {
            Ok(Transformed::yes(Expr::Column(column)))
        }
        Expr::Column(column) if own.has_column(&column) => {
            let value = LogicalPlanBuilder::from(filter.input.as_ref().clone())
                .project([Expr::Column(column)])?
                .build()?;
            Ok(Transformed::new(
                Expr::ScalarSubquery(Subquery {
                    outer_ref_columns: references(&value),
                    subquery: Arc::new(value),
                    spans: Spans::new(),
                }),
                true,
                TreeNodeRecursion::Jump,
            ))
        }
        expr => Ok(Transformed::no(expr)),
    };
    filter.predicate.clone().transform_down(place).data()
}

fn in_one(found: InSubquery) -> Result<Transformed<Expr>> {
    match one_row(&found.subquery.subquery) {
        None => Ok(Transformed::yes(Expr::InSubquery(found))),
        Some(One::Nothing) => {
            let equal = (*found.expr).eq(Expr::ScalarSubquery(found.subquery));
            Ok(Transformed::yes(if found.negated { !equal } else { equal }))
        }
        Some(One::Having(_) | One::Else) => not_impl_err!(
            "IN of an aggregate without GROUP BY that refers to the outer query, with conditions or a LIMIT above it: \
             compare with its value instead"
        ),
    }
}

/// As DataFusion decorrelates it rightly.
fn checked(subquery: Subquery) -> Result<Subquery> {
    let subquery = carried(subquery)?;
    check(&subquery)?;
    Ok(subquery)
}

/// That no window and no OFFSET takes rows of several outer rows for one's.
fn check(subquery: &Subquery) -> Result<()> {
    lifted(&subquery.subquery)?;
    subquery.subquery.apply(|node| {
        match node {
            LogicalPlan::Window(window) if !keeps_apart(window) => {
                return not_impl_err!(
                    "a window function over rows that a condition on the outer query chooses: PARTITION BY the columns \
                     that it compares with the outer query's"
                );
            }
            LogicalPlan::Join(join) if has_outer_in_optional(join) => {
                return not_impl_err!(
                    "a condition on the outer query within the optional side of an outer join: write it into the \
                     join's ON, or its WHERE"
                );
            }
            LogicalPlan::Limit(limit) if skips(limit)? && !is_alone(&limit.input) => {
                return not_impl_err!("OFFSET in a subquery that refers to the outer query");
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// The columns of conditions on the outer query as they are called above the plan: a table in FROM gives them its own name,
/// and its column of that name must be no other.
fn lifted(plan: &LogicalPlan) -> Result<BTreeSet<Column>> {
    let mut columns = BTreeSet::new();
    for input in plan.inputs() {
        columns.extend(lifted(input)?);
    }
    match plan {
        LogicalPlan::Filter(filter) => {
            let conditions = split_conjunction(&filter.predicate).into_iter();
            let of_outer = conditions.filter(|condition| condition.contains_outer());
            columns.extend(of_outer.flat_map(Expr::column_refs).cloned());
            Ok(columns)
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let own = alias.input.schema();
            let mut names = BTreeSet::new();
            for column in columns {
                let is_other = own.iter().enumerate().any(|(at, (qualifier, field))| {
                    *field.name() == column.name
                        && qualifier != column.relation.as_ref()
                        && !is_alias_of(&alias.input, at, &column)
                });
                if is_other || !names.insert(Column::new(Some(alias.alias.clone()), column.name.clone())) {
                    return not_impl_err!(
                        "a subquery in FROM with a condition on the outer query of {}, and another column {}: give that \
                         one another name",
                        column.flat_name(),
                        column.name
                    );
                }
            }
            Ok(names)
        }
        _ => Ok(columns),
    }
}

fn is_alias_of(plan: &LogicalPlan, at: usize, column: &Column) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => match &projection.expr[at] {
            Expr::Alias(alias) => *alias.expr == Expr::Column(column.clone()),
            _ => false,
        },
        _ => false,
    }
}

/// Whether a condition on the outer query chooses rows that an outer join gives NULLs for.
fn has_outer_in_optional(join: &Join) -> bool {
    let (left, right) = match join.join_type {
        JoinType::Left => (false, true),
        JoinType::Right => (true, false),
        JoinType::Full => (true, true),
        _ => (false, false),
    };
    left && !is_alone(&join.left) || right && !beside(join).is_empty()
}

fn skips(limit: &Limit) -> Result<bool> {
    Ok(!matches!(limit.get_skip_type()?, SkipType::Literal(0)))
}

/// Whether each partition of a window has rows for one outer row only: all conditions on the outer query say that what a
/// partition has one value of equals something.
fn keeps_apart(window: &Window) -> bool {
    if is_alone(&window.input) {
        return true;
    }
    let by_all = |side: &Expr| {
        window.window_expr.iter().all(|expr| match expr.clone().unalias() {
            Expr::WindowFunction(function) => {
                let WindowFunction { params, .. } = *function;
                let is_key = |column: &Column| params.partition_by.contains(&Expr::Column(column.clone()));
                let columns = side.column_refs();
                params.partition_by.contains(side)
                    || !columns.is_empty() && !side.is_volatile() && columns.into_iter().all(is_key)
            }
            _ => false,
        })
    };
    let apart = |condition: &Expr| match condition {
        condition if !condition.contains_outer() => true,
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Eq,
            right,
        }) => (!left.contains_outer() && by_all(left)) || (!right.contains_outer() && by_all(right)),
        _ => false,
    };
    let mut found = true;
    let walked = window.input.apply(|node| {
        found &= match node {
            LogicalPlan::Filter(filter) => split_conjunction(&filter.predicate).into_iter().all(apart),
            // Names may mean other columns above.
            LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => is_alone(node),
            node => !node.contains_outer_reference(),
        };
        Ok(TreeNodeRecursion::Continue)
    });
    walked.is_ok() && found
}
