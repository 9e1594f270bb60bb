//! `x IN (SELECT …)` that is NULL, within a larger condition.
//!
//! DataFusion makes a join of such a predicate that only says whether a row matches: false where SQL says NULL. Within AND
//! and OR of a WHERE that makes no difference, but below a NOT it does: `x NOT IN (SELECT …) OR y` would be true for a NULL.
//! There the rows that make it NULL are looked for too. A predicate that is a conjunct itself is right as it is, unless it is
//! a NOT IN of a correlated subquery.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ExprSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::InSubquery;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, Filter, LogicalPlan, LogicalPlanBuilder, Operator, exists, lit, when,
};
use datafusion::optimizer::AnalyzerRule;

/// What a NULL may be replaced by where the predicate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Instead {
    False,
    True,
    Nothing,
}

impl Instead {
    fn below_not(self) -> Self {
        match self {
            Self::False => Self::True,
            Self::True => Self::False,
            Self::Nothing => Self::Nothing,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct NullsOfSubqueries;

impl AnalyzerRule for NullsOfSubqueries {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(rewrite_filter).data()
    }

    fn name(&self) -> &str {
        "trireme_nulls_of_subqueries"
    }
}

fn rewrite_filter(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Filter(filter) = plan else {
        return Ok(Transformed::no(plan));
    };
    if !contains(&filter.predicate)? {
        return Ok(Transformed::no(LogicalPlan::Filter(filter)));
    }
    let schema = Arc::clone(filter.input.schema());
    let parts: Vec<_> = split_conjunction_owned(filter.predicate)
        .into_iter()
        .map(|part| match part {
            Expr::InSubquery(ref predicate) if itself_right(predicate, predicate.negated) => Ok(part),
            Expr::Not(inner) => match *inner {
                Expr::InSubquery(predicate) if itself_right(&predicate, !predicate.negated) => {
                    Ok(Expr::Not(Box::new(Expr::InSubquery(predicate))))
                }
                inner => rewrite(Expr::Not(Box::new(inner)), Instead::False, &schema),
            },
            part => rewrite(part, Instead::False, &schema),
        })
        .collect::<Result<_>>()?;
    let predicate = conjunction(parts).unwrap_or_else(|| lit(true));
    Filter::try_new(predicate, filter.input).map(|filter| Transformed::yes(LogicalPlan::Filter(filter)))
}

/// Whether DataFusion's semi or anti join does all of a conjunct: its anti join knows NULLs, but then has one key only, and has
/// to have one.
fn itself_right(predicate: &InSubquery, negated: bool) -> bool {
    !negated || predicate.subquery.outer_ref_columns.is_empty() && !predicate.expr.column_refs().is_empty()
}

fn contains(expr: &Expr) -> Result<bool> {
    expr.exists(|inner| Ok(matches!(inner, Expr::InSubquery(_))))
}

fn rewrite(expr: Expr, instead: Instead, schema: &DFSchema) -> Result<Expr> {
    if !contains(&expr)? {
        return Ok(expr);
    }
    match expr {
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: op @ (Operator::And | Operator::Or),
            right,
        }) => Ok(Expr::BinaryExpr(BinaryExpr {
            left: Box::new(rewrite(*left, instead, schema)?),
            op,
            right: Box::new(rewrite(*right, instead, schema)?),
        })),
        Expr::Not(inner) => Ok(Expr::Not(Box::new(rewrite(*inner, instead.below_not(), schema)?))),
        Expr::InSubquery(predicate) => with_nulls(predicate, instead, schema),
        other => other
            .transform_down(|inner| match inner {
                Expr::InSubquery(predicate) => {
                    let right = with_nulls(predicate, Instead::Nothing, schema)?;
                    Ok(Transformed::new(right, true, TreeNodeRecursion::Jump))
                }
                inner => Ok(Transformed::no(inner)),
            })
            .data(),
    }
}

/// The predicate with its NULLs, as far as they matter.
fn with_nulls(predicate: InSubquery, instead: Instead, schema: &DFSchema) -> Result<Expr> {
    if predicate.negated {
        let inner = InSubquery {
            negated: false,
            ..predicate
        };
        return Ok(Expr::Not(Box::new(with_nulls(inner, instead.below_not(), schema)?)));
    }
    if instead == Instead::False {
        return Ok(Expr::InSubquery(predicate));
    }
    let nulls = nulls_of(&predicate, schema)?;
    let found = match (&nulls, matching(&predicate, schema)?) {
        (Some(_), Some(matching)) => matching,
        _ => Expr::InSubquery(predicate),
    };
    Ok(match (nulls, instead) {
        (None, _) => found,
        (Some(null), Instead::True) => found.or(null),
        (Some(null), _) => when(found, lit(true))
            .when(null, lit(ScalarValue::Boolean(None)))
            .otherwise(lit(false))?,
    })
}

/// Whether a row of a correlated subquery matches, as EXISTS: a NOT IN would be made an anti join of one key again.
fn matching(predicate: &InSubquery, schema: &DFSchema) -> Result<Option<Expr>> {
    let outer = |expr: &Expr| matches!(expr, Expr::OuterReferenceColumn(..) | Expr::ScalarSubquery(_));
    if predicate.subquery.outer_ref_columns.is_empty() || predicate.expr.exists(|expr| Ok(outer(expr)))? {
        return Ok(None);
    }
    let wanted = predicate.expr.as_ref().clone().transform(|expr| {
        let Expr::Column(column) = expr else {
            return Ok(Transformed::no(expr));
        };
        let field = Arc::clone(schema.field_from_column(&column)?);
        Ok(Transformed::yes(Expr::OuterReferenceColumn(field, column)))
    })?;
    let plan = &predicate.subquery.subquery;
    let (relation, field) = plan.schema().qualified_field(0);
    let column = Expr::Column(Column::new(relation.cloned(), field.name()));
    let rows = LogicalPlanBuilder::from(plan.as_ref().clone()).filter(column.eq(wanted.data))?;
    Ok(Some(exists(Arc::new(rows.build()?))))
}

/// Whether no match means NULL rather than false: a NULL is in the subquery, or is looked for in one that isn't empty.
fn nulls_of(predicate: &InSubquery, schema: &DFSchema) -> Result<Option<Expr>> {
    let plan = &predicate.subquery.subquery;
    let correlated = !predicate.subquery.outer_ref_columns.is_empty();
    let (relation, field) = plan.schema().qualified_field(0);
    let column = Expr::Column(Column::new(relation.cloned(), field.name()));
    let some_row = |condition: Option<Expr>| {
        let mut rows = LogicalPlanBuilder::from(plan.as_ref().clone());
        if let Some(condition) = condition {
            rows = rows.filter(condition)?;
        }
        if !correlated {
            rows = rows.limit(0, Some(1))?;
        }
        rows.build().map(|rows| exists(Arc::new(rows)))
    };
    let in_it = if field.is_nullable() {
        Some(some_row(Some(column.is_null()))?)
    } else {
        None
    };
    let looked_for = if predicate.expr.nullable(schema)? {
        Some(predicate.expr.as_ref().clone().is_null().and(some_row(None)?))
    } else {
        None
    };
    Ok(match (in_it, looked_for) {
        (Some(one), Some(other)) => Some(one.or(other)),
        (one, other) => one.or(other),
    })
}
