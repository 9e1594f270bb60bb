//! Correlated subqueries that DataFusion would decorrelate wrongly.
//!
//! It makes joins of them, whose keys are the conditions on the outer query. An aggregate without groups gives a row for no
//! rows too, and no join finds that: where it is a predicate's subquery, the predicate becomes one over its value, which
//! DataFusion does mend. A window, or an OFFSET, above the condition would be of all outer rows' rows together: such a
//! subquery is refused, unless the window's partitions keep them apart.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, not_impl_err};
use datafusion::logical_expr::expr::{Exists, InSubquery, WindowFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    BinaryExpr, Expr, Filter, Limit, LogicalPlan, LogicalPlanBuilder, Operator, SkipType, Subquery, Window, lit,
};
use datafusion::optimizer::AnalyzerRule;

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

fn rewrite_node(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    // LATERAL.
    if let LogicalPlan::Subquery(subquery) = &plan {
        check(subquery)?;
    }
    let names = NamePreserver::new(&plan);
    plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let rewritten = expr.transform_up(rewrite)?;
        Ok(if rewritten.transformed {
            rewritten.update_data(|expr| name.restore(expr))
        } else {
            rewritten
        })
    })
}

fn rewrite(expr: Expr) -> Result<Transformed<Expr>> {
    match expr {
        Expr::Exists(exists) if is_correlated(&exists.subquery) => {
            check(&exists.subquery)?;
            exists_of_one(exists)
        }
        Expr::InSubquery(found) if is_correlated(&found.subquery) => {
            check(&found.subquery)?;
            in_one(found)
        }
        Expr::ScalarSubquery(subquery) if is_correlated(&subquery) => {
            check(&subquery)?;
            Ok(Transformed::no(Expr::ScalarSubquery(subquery)))
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
                return (!aggregate.input.all_out_ref_exprs().is_empty()).then_some(above);
            }
            _ => return None,
        };
    }
}

fn exists_of_one(exists: Exists) -> Result<Transformed<Expr>> {
    let Exists { subquery, negated } = exists;
    let value = match one_row(&subquery.subquery) {
        None => return Ok(Transformed::no(Expr::Exists(Exists { subquery, negated }))),
        Some(One::Nothing) => return Ok(Transformed::yes(lit(!negated))),
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
    Ok(Transformed::yes(match negated {
        false => value.is_true(),
        true => value.is_not_true(),
    }))
}

fn in_one(found: InSubquery) -> Result<Transformed<Expr>> {
    match one_row(&found.subquery.subquery) {
        None => Ok(Transformed::no(Expr::InSubquery(found))),
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

/// That no window and no OFFSET takes rows of several outer rows for one's.
fn check(subquery: &Subquery) -> Result<()> {
    subquery.subquery.apply(|node| {
        match node {
            LogicalPlan::Window(window) if !keeps_apart(window) => {
                return not_impl_err!(
                    "a window function over rows that a condition on the outer query chooses: PARTITION BY the columns \
                     that it compares with the outer query's"
                );
            }
            LogicalPlan::Limit(limit) if skips(limit)? && !limit.input.all_out_ref_exprs().is_empty() => {
                return not_impl_err!("OFFSET in a subquery that refers to the outer query");
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

fn skips(limit: &Limit) -> Result<bool> {
    Ok(!matches!(limit.get_skip_type()?, SkipType::Literal(0)))
}

/// Whether each partition of a window has rows for one outer row only: all conditions on the outer query say that a column by
/// which it is partitioned equals something.
fn keeps_apart(window: &Window) -> bool {
    if window.input.all_out_ref_exprs().is_empty() {
        return true;
    }
    let by_all = |column: &Expr| {
        window.window_expr.iter().all(|expr| match expr.clone().unalias() {
            Expr::WindowFunction(function) => {
                let WindowFunction { params, .. } = *function;
                params.partition_by.contains(column)
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
            LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => node.all_out_ref_exprs().is_empty(),
            node => !node.contains_outer_reference(),
        };
        Ok(TreeNodeRecursion::Continue)
    });
    walked.is_ok() && found
}
