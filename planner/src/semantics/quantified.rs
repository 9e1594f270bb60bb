//! `x > ALL (SELECT y …)`, `x = ANY (SELECT y …)` over one table.
//!
//! DataFusion makes an EXISTS of them whose condition compares the row's column with the subquery's, and where both are of one
//! table it can't tell them apart: `salary > ALL (SELECT salary FROM emp)` compared each row's salary with itself. So the
//! subquery's column gets a name of its own. With the one row of an aggregate without groups the comparison is a plain one: the
//! EXISTS would lose that row where no row fits.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::expr::SetComparison;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::AnalyzerRule;

const COMPARED: &str = "trireme_compared";

/// See the module.
#[derive(Debug)]
pub(super) struct Quantified;

impl AnalyzerRule for Quantified {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| {
            let names = NamePreserver::new(&node);
            node.map_expressions(|expr| {
                let name = names.save(&expr);
                let told = expr.transform_up(told_apart)?;
                Ok(if told.transformed {
                    told.update_data(|expr| name.restore(expr))
                } else {
                    told
                })
            })
        })
        .data()
    }

    fn name(&self) -> &str {
        "trireme_quantified"
    }
}

fn told_apart(expr: Expr) -> Result<Transformed<Expr>> {
    let Expr::SetComparison(comparison) = expr else {
        return Ok(Transformed::no(expr));
    };
    if gives_one_row(&comparison.subquery.subquery) {
        let SetComparison { expr, subquery, op, .. } = comparison;
        let value = Box::new(Expr::ScalarSubquery(subquery));
        return Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(expr, op, value))));
    }
    let SetComparison { mut subquery, .. } = comparison;
    let plan = Arc::unwrap_or_clone(subquery.subquery);
    let columns = plan.schema().columns();
    let renamed = columns
        .into_iter()
        .map(|column: Column| Expr::Column(column).alias(COMPARED));
    let plan = LogicalPlanBuilder::from(plan).project(renamed)?.build()?;
    subquery.subquery = Arc::new(plan);
    Ok(Transformed::yes(Expr::SetComparison(SetComparison {
        subquery,
        ..comparison
    })))
}

pub(super) fn gives_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => gives_one_row(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => gives_one_row(&alias.input),
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        _ => false,
    }
}
