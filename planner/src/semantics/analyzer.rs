//! The analyzer rule: finds the operations that could go wrong and replaces them by right ones.
//!
//! It runs after types are coerced, and on the logical plan, so that folded constants are right too. What the operands'
//! types prove safe (a SMALLINT plus 1 as BIGINT, decimals whose result has room for every digit) stays as it is: it costs
//! nothing and DataFusion's simplifications know it. Columns keep their names.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, Result};
use datafusion::logical_expr::expr::{AggregateFunction, Between, Case, ScalarFunction, WindowFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    AggregateUDF, BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, WindowFunctionDefinition, cast,
};
use datafusion::optimizer::AnalyzerRule;

use super::arithmetic::CheckedOperator;
use super::extremes::extreme;
use super::sum::{exact_sum, is_stock_sum};
use super::{filters, floats, keys, ranges, years};

/// See the module.
#[derive(Debug)]
pub(super) struct Semantics;

impl AnalyzerRule for Semantics {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(rewrite_plan).map(|plan| plan.data)
    }

    fn name(&self) -> &str {
        "trireme_semantics"
    }
}

fn rewrite_plan(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let mut schema = merge_schema(&plan.inputs());
    if let LogicalPlan::TableScan(scan) = &plan {
        let source = DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?;
        schema.merge(&source);
    }
    let share_parts = filters::share_parts(&plan)?;
    let names = NamePreserver::new(&plan);
    let rewritten = plan.map_expressions(|expr| {
        // The names of grouping sets' columns are those of the expressions within.
        if matches!(expr, Expr::GroupingSet(_)) {
            return expr.transform_up(|expr| checked(expr, &schema));
        }
        let name = names.save(&expr);
        let rewritten = expr.transform_up(|expr| rewrite(expr, &schema, share_parts))?;
        Ok(if rewritten.transformed {
            rewritten.update_data(|expr| name.restore(expr))
        } else {
            rewritten
        })
    })?;
    rewritten
        .transform_data(keys::canonical_keys)?
        .map_data(LogicalPlan::recompute_schema)
}

fn rewrite(expr: Expr, schema: &DFSchema, share_parts: bool) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(binary) if floats::compares_floats(&binary, schema)? => {
            floats::compared(binary, schema).map(Transformed::yes)
        }
        Expr::BinaryExpr(binary) if subtracts_dates(&binary, schema)? => Ok(Transformed::yes(days_between(binary))),
        Expr::Between(between) if between.expr.get_type(schema)?.is_floating() => {
            rewrite_between(between, schema).map(Transformed::yes)
        }
        Expr::InList(list) if list.expr.get_type(schema)?.is_floating() => {
            floats::in_list(list, schema).map(Transformed::yes)
        }
        Expr::Case(case) => rewrite_case(case, schema),
        Expr::ScalarFunction(call) if matches!(call.name(), "nullif" | "greatest" | "least") => {
            let ScalarFunction { func, args } = call;
            let args = args
                .into_iter()
                .map(|arg| floats::canonical(arg, schema))
                .collect::<Result<_>>()?;
            Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args })))
        }
        Expr::ScalarFunction(call) if years::within_reach(&call.func).is_some() => {
            let func = years::within_reach(&call.func).unwrap_or_else(|| Arc::clone(&call.func));
            let call = ScalarFunction { func, ..call };
            Ok(Transformed::yes(Expr::ScalarFunction(call)))
        }
        Expr::AggregateFunction(call) => rewrite_aggregate(call, schema, share_parts),
        Expr::WindowFunction(call) => rewrite_window(*call, schema),
        other => checked(other, schema),
    }
}

fn subtracts_dates(binary: &BinaryExpr, schema: &DFSchema) -> Result<bool> {
    let is_date = |expr: &Expr| Ok::<_, DataFusionError>(expr.get_type(schema)? == DataType::Date32);
    Ok(binary.op == Operator::Minus && is_date(&binary.left)? && is_date(&binary.right)?)
}

/// The days between two dates as a difference of integers: DataFusion types it so, but bounds it as a duration, and fails
/// where it compares the two.
fn days_between(binary: BinaryExpr) -> Expr {
    let days = |date: Expr| cast(cast(date, DataType::Int32), DataType::Int64);
    days(*binary.left) - days(*binary.right)
}

/// Integer and decimal arithmetic, checked.
fn checked(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match CheckedOperator::of(op) {
            Some(operator) if ranges::may_overflow(operator, &left, &right, schema)? => {
                Ok(Transformed::yes(operator.call(vec![*left, *right])))
            }
            _ => Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
        },
        Expr::Negative(operand) if ranges::negation_may_overflow(&operand, schema)? => {
            Ok(Transformed::yes(CheckedOperator::Negate.call(vec![*operand])))
        }
        other => Ok(Transformed::no(other)),
    }
}

fn rewrite_between(between: Between, schema: &DFSchema) -> Result<Expr> {
    let Between {
        expr,
        negated,
        low,
        high,
    } = between;
    let side = |op, bound| {
        let left = expr.clone();
        floats::compared(BinaryExpr { left, op, right: bound }, schema)
    };
    let within = side(Operator::GtEq, low)?.and(side(Operator::LtEq, high)?);
    Ok(if negated { Expr::Not(Box::new(within)) } else { within })
}

/// `CASE x WHEN 0.0 …`.
fn rewrite_case(case: Case, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let Case {
        expr: Some(operand),
        when_then_expr,
        else_expr,
    } = case
    else {
        return Ok(Transformed::no(Expr::Case(case)));
    };
    let case = Case {
        expr: Some(Box::new(floats::canonical(*operand, schema)?)),
        when_then_expr: when_then_expr
            .into_iter()
            .map(|(when, then)| Ok((Box::new(floats::canonical(*when, schema)?), then)))
            .collect::<Result<_>>()?,
        else_expr,
    };
    Ok(Transformed::yes(Expr::Case(case)))
}

fn rewrite_aggregate(mut call: AggregateFunction, schema: &DFSchema, share_parts: bool) -> Result<Transformed<Expr>> {
    let params = &mut call.params;
    keys::canonical_sorts(&mut params.order_by, schema)?;
    if params.distinct {
        keys::canonical_all(&mut params.args, schema)?;
    }
    if let Some(function) = replacement(&call.func, &params.args, schema)? {
        call.func = function;
    }
    if share_parts {
        let params = &mut call.params;
        let keys = params.order_by.iter_mut().map(|sort| &mut sort.expr);
        filters::guard(params.filter.as_deref(), params.args.iter_mut().chain(keys), schema)?;
    }
    Ok(Transformed::yes(Expr::AggregateFunction(call)))
}

fn rewrite_window(mut call: WindowFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let params = &mut call.params;
    keys::canonical_sorts(&mut params.order_by, schema)?;
    keys::canonical_all(&mut params.partition_by, schema)?;
    if params.distinct {
        keys::canonical_all(&mut params.args, schema)?;
    }
    if let WindowFunctionDefinition::AggregateUDF(function) = &call.fun
        && let Some(function) = replacement(function, &params.args, schema)?
    {
        call.fun = WindowFunctionDefinition::AggregateUDF(function);
    }
    filters::guard(params.filter.as_deref(), params.args.iter_mut(), schema)?;
    Ok(Transformed::yes(Expr::WindowFunction(Box::new(call))))
}

/// The function that is right where DataFusion's is not.
fn replacement(
    function: &AggregateUDF,
    args: &[Expr],
    schema: &DFSchema,
) -> Result<Option<std::sync::Arc<AggregateUDF>>> {
    if is_stock_sum(function) {
        return Ok(Some(exact_sum()));
    }
    match args {
        [argument] => Ok(extreme(function, &argument.get_type(schema)?)),
        _ => Ok(None),
    }
}
