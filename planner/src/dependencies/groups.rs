//! The groups that a statement asks for.
//!
//! Planning adds the columns to a GROUP BY that it takes to be determined by one of its keys, which may be false, and they are
//! not told apart from those that were written. So a mark ends the written list while it is planned.

use std::ops::ControlFlow;

use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::builder::add_group_by_exprs_from_dependencies;
use datafusion::logical_expr::{Aggregate, Distinct, Expr, LogicalPlan};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, GroupByExpr, Query, SetExpr, Value, VisitorMut};

use super::sound;
use crate::bind::visit;

/// No column's value.
const MARK: &str = "\u{2}groups";

/// The statement with its groups marked; none when it has no subquery that could determine any.
pub(crate) fn marked(statement: &Statement) -> Option<Statement> {
    let mut marking = Marking::default();
    let mut marked = statement.clone();
    let _ = visit(&mut marked, &mut marking);
    (marking.grouped > 0 && marking.selects > 1).then_some(marked)
}

/// The plan of a marked statement, without marks and what was added falsely.
///
/// # Errors
/// When a column is asked for that is no group.
pub(crate) fn unmarked(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| {
        let node = match node {
            LogicalPlan::Aggregate(aggregate) => written(aggregate)?,
            other => other.recompute_schema()?,
        };
        Ok(match node {
            // It gives no keys, and the rules to come compare its list with its ORDER BY.
            node @ LogicalPlan::Distinct(Distinct::On(_)) => Transformed::yes(node),
            other => Transformed::yes(sound(other)?.data),
        })
    })
    .data()
}

fn written(aggregate: Aggregate) -> Result<LogicalPlan> {
    let Aggregate {
        input,
        mut group_expr,
        aggr_expr,
        ..
    } = aggregate;
    if let Some(at) = group_expr.iter().position(is_mark) {
        group_expr.truncate(at);
        group_expr = add_group_by_exprs_from_dependencies(group_expr, input.schema())?;
    }
    Aggregate::try_new(input, group_expr, aggr_expr).map(LogicalPlan::Aggregate)
}

fn is_mark(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)), _) if text == MARK)
}

#[derive(Default)]
struct Marking {
    selects: usize,
    grouped: usize,
}

impl VisitorMut for Marking {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.mark(&mut query.body);
        ControlFlow::Continue(())
    }
}

impl Marking {
    fn mark(&mut self, body: &mut SetExpr) {
        match body {
            SetExpr::Select(select) => {
                self.selects += 1;
                if let GroupByExpr::Expressions(groups, modifiers) = &mut select.group_by
                    && modifiers.is_empty()
                    && !groups.is_empty()
                    && groups.iter().all(is_plain)
                {
                    self.grouped += 1;
                    groups.push(SqlExpr::value(Value::SingleQuotedString(MARK.to_owned())));
                }
            }
            SetExpr::SetOperation { left, right, .. } => {
                self.mark(left);
                self.mark(right);
            }
            // Queries in parentheses are visited themselves.
            _ => {}
        }
    }
}

/// To sets of groups nothing is added.
fn is_plain(group: &SqlExpr) -> bool {
    !matches!(
        group,
        SqlExpr::GroupingSets(_) | SqlExpr::Cube(_) | SqlExpr::Rollup(_) | SqlExpr::Tuple(_)
    )
}
