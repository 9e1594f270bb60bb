//! EXISTS, IN, ANY and ALL (SELECT …) outside of conditions: in SELECT, below CASE, in aggregates' arguments.
//!
//! DataFusion makes joins of such predicates in WHERE and HAVING alone, and refuses them elsewhere. There they become counts,
//! which it joins everywhere: `EXISTS (s)` is `(SELECT count(1) FROM s) > 0`, and `x IN (s)` is true where s has x, else NULL
//! where x or one of s is NULL, unless s is empty. So do those in conditions that it refuses.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ExprSchema, Result, ScalarValue};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::expr::{SetComparison, SetQuantifier};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    BinaryExpr, Distinct, Expr, ExprSchemable, Filter, LogicalPlan, LogicalPlanBuilder, Operator, Projection, Subquery,
    col, lit, when,
};
use datafusion::optimizer::AnalyzerRule;

use super::correlated::{is_certain, is_refused};
use super::quantified::gives_one_row;
use super::references::{is_alone, references};

/// The subquery's column, told apart from those of the outer query.
const ELEMENT: &str = "trireme_element";

/// See the module.
#[derive(Debug)]
pub(super) struct Predicates;

impl AnalyzerRule for Predicates {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(counted_in).data()
    }

    fn name(&self) -> &str {
        "trireme_predicates"
    }
}

fn counted_in(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let input = match &plan {
        LogicalPlan::Projection(projection) => Arc::clone(&projection.input),
        LogicalPlan::Aggregate(aggregate) => Arc::clone(&aggregate.input),
        LogicalPlan::Filter(filter) => return counted_in_condition(filter.clone()),
        _ => return Ok(Transformed::no(plan)),
    };
    let schema = input.schema();
    let mut predicates: Vec<(Expr, Expr)> = Vec::new();
    let names = NamePreserver::new(&plan);
    let rewritten = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let expr = expr.transform_down(|node| {
            let known = predicates.iter().position(|(predicate, _)| *predicate == node);
            let at = match known {
                Some(at) => at,
                None => match counts(&node, schema)? {
                    Some(counts) => {
                        predicates.push((node, counts));
                        predicates.len() - 1
                    }
                    None => return Ok(Transformed::no(node)),
                },
            };
            Ok(Transformed::new(predicate_column(at), true, TreeNodeRecursion::Jump))
        })?;
        Ok(expr.update_data(|expr| name.restore(expr)))
    })?;
    if predicates.is_empty() {
        return Ok(rewritten);
    }
    let columns = schema.columns().into_iter().map(Expr::Column);
    let computed = predicates.into_iter().enumerate();
    let computed = computed.map(|(at, (_, counts))| counts.alias(predicate_name(at)));
    let below = Projection::try_new(columns.chain(computed).collect(), Arc::clone(&input))?;
    let plan = rewritten.data;
    let exprs = plan.expressions();
    plan.with_new_exprs(exprs, vec![LogicalPlan::Projection(below)])
        .map(Transformed::yes)
}

/// Those for which DataFusion has no join in conditions either.
fn counted_in_condition(filter: Filter) -> Result<Transformed<LogicalPlan>> {
    let schema = filter.input.schema();
    let counted = filter.predicate.clone().transform_down(|node| {
        let counts = match is_refused(&node) {
            true => counts(&node, schema)?,
            false => None,
        };
        Ok(match counts {
            Some(counts) => Transformed::new(counts, true, TreeNodeRecursion::Jump),
            None => Transformed::no(node),
        })
    })?;
    if !counted.transformed {
        return Ok(Transformed::no(LogicalPlan::Filter(filter)));
    }
    let filter = Filter::try_new(counted.data, filter.input)?;
    Ok(Transformed::yes(LogicalPlan::Filter(filter)))
}

fn predicate_name(at: usize) -> String {
    format!("trireme_predicate_{at}")
}

fn predicate_column(at: usize) -> Expr {
    Expr::Column(Column::from_name(predicate_name(at)))
}

/// The predicate by counts; none for other expressions, and where the rows of one outer row can't be counted apart.
fn counts(expr: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
    let subquery = match expr {
        Expr::Exists(exists) => &exists.subquery,
        Expr::InSubquery(predicate) => &predicate.subquery,
        Expr::SetComparison(comparison) if !gives_one_row(&comparison.subquery.subquery) => &comparison.subquery,
        _ => return Ok(None),
    };
    if !keeps_rows(&subquery.subquery) || is_certain(expr) {
        return Ok(None);
    }
    let (holds, negated) = match expr {
        Expr::Exists(exists) => (any(subquery, None)?, exists.negated),
        Expr::InSubquery(predicate) => (
            compares(&predicate.expr, Operator::Eq, subquery, schema)?,
            predicate.negated,
        ),
        Expr::SetComparison(SetComparison {
            expr, op, quantifier, ..
        }) => {
            let (op, is_all) = match (quantifier, op.negate()) {
                (SetQuantifier::Any, _) => (*op, false),
                (SetQuantifier::All, Some(other)) => (other, true),
                (SetQuantifier::All, None) => return Ok(None),
            };
            (compares(expr, op, subquery, schema)?, is_all)
        }
        _ => return Ok(None),
    };
    Ok(Some(if negated { Expr::Not(Box::new(holds)) } else { holds }))
}

/// Whether the rows can be told apart by the outer query's columns; `scalars` has joins for such.
fn keeps_rows(plan: &LogicalPlan) -> bool {
    let is_known = matches!(
        plan,
        LogicalPlan::Aggregate(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::Projection(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Join(_)
            | LogicalPlan::Distinct(Distinct::All(_))
            | LogicalPlan::Sort(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Union(_)
            | LogicalPlan::Window(_)
    );
    is_alone(plan) || is_known && plan.inputs().into_iter().all(keeps_rows)
}

/// Whether the value compares so with one of the subquery's.
fn compares(value: &Expr, op: Operator, subquery: &Subquery, schema: &DFSchema) -> Result<Expr> {
    let has_nulls = subquery.subquery.schema().field(0).is_nullable();
    let outer = value
        .clone()
        .transform_up(|node| match node {
            Expr::Column(column) => {
                let field = Arc::clone(schema.field_from_column(&column)?);
                Ok(Transformed::yes(Expr::OuterReferenceColumn(field, column)))
            }
            other => Ok(Transformed::no(other)),
        })
        .data()?;
    let compared = BinaryExpr::new(Box::new(outer), op, Box::new(col(ELEMENT)));
    let found = any(subquery, Some(Expr::BinaryExpr(compared)))?;
    let mut unknown = Vec::new();
    if value.nullable(schema)? {
        unknown.push(value.clone().is_null().and(any(subquery, None)?));
    }
    if has_nulls {
        unknown.push(any(subquery, Some(col(ELEMENT).is_null()))?);
    }
    match unknown.into_iter().reduce(Expr::or) {
        None => Ok(found),
        Some(unknown) => when(found, lit(true))
            .when(unknown, Expr::Literal(ScalarValue::Boolean(None), None))
            .otherwise(lit(false)),
    }
}

/// Whether the subquery has a row, for which the condition is true.
fn any(subquery: &Subquery, condition: Option<Expr>) -> Result<Expr> {
    let mut plan = LogicalPlanBuilder::from(subquery.subquery.as_ref().clone());
    if let Some(condition) = condition {
        let element = Expr::Column(Column::from(subquery.subquery.schema().qualified_field(0)));
        plan = plan.project([element.alias(ELEMENT)])?.filter(condition)?;
    }
    let plan = plan.aggregate(Vec::<Expr>::new(), [count(lit(1_i64))])?.build()?;
    let outer_ref_columns = references(&plan);
    let count = Expr::ScalarSubquery(Subquery {
        subquery: Arc::new(plan),
        outer_ref_columns,
        spans: subquery.spans.clone(),
    });
    Ok(count.gt(lit(0_i64)))
}
