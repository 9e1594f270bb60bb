//! DataFusion's aggregates: the pair of a partial and a final one is one aggregate of a graph.

use std::sync::Arc;

use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column, Literal};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateInputMode, AggregateOutputMode};
use datafusion::physical_plan::sorts::sort::SortExec;
use trireme_device_api::{Aggregate, AggregateFunction, BinaryOperator, Expr, Node, SortKey, Type};

use super::expr::{Scope, fused_type};
use super::lower::seen_through;
use crate::semantics::{plain, plain_aggregate};

/// The aggregate that reads rows (not states): itself, or the partial one below a final one.
pub(super) fn reading(aggregate: &AggregateExec) -> Result<&AggregateExec, String> {
    let mut reading = aggregate;
    while reading.mode().input_mode() == AggregateInputMode::Partial {
        let mut below: &Arc<dyn ExecutionPlan> = reading.input();
        loop {
            if let Some(next) = seen_through(below.as_ref()) {
                below = next;
            } else if let Some(sort) = below.downcast_ref::<SortExec>().filter(|sort| sort.fetch().is_none()) {
                below = sort.input();
            } else {
                break;
            }
        }
        reading = below
            .downcast_ref::<AggregateExec>()
            .filter(|partial| partial.mode().output_mode() == AggregateOutputMode::Partial)
            .ok_or("a final aggregate without its partial one")?;
    }
    Ok(reading)
}

/// True for an aggregate whose rows are states that only DataFusion's final aggregate understands.
pub(super) fn gives_states(aggregate: &AggregateExec) -> bool {
    aggregate.mode().output_mode() == AggregateOutputMode::Partial
}

/// The aggregates of `aggregate`, over the input of `reading`.
pub(super) fn aggregates(
    aggregate: &AggregateExec,
    reading: &AggregateExec,
    scope: &Scope<'_>,
) -> Result<Vec<Aggregate>, String> {
    aggregate
        .aggr_expr()
        .iter()
        .zip(reading.aggr_expr())
        .zip(reading.filter_expr())
        .map(|((outer, inner), filter)| {
            let filter = filter.as_ref().map(|filter| scope.lower(filter)).transpose()?;
            one(inner, fused_type(outer.field().data_type())?, filter, scope)
        })
        .collect()
}

fn one(
    expr: &AggregateFunctionExpr,
    data_type: Type,
    filter: Option<Expr>,
    scope: &Scope<'_>,
) -> Result<Aggregate, String> {
    let name = plain_aggregate(expr.fun().name());
    let function = function(name).ok_or_else(|| format!("aggregate function {name} is not fused"))?;
    let arguments = expr.expressions();
    let argument = match arguments.as_slice() {
        [argument] => &plain(argument).map_err(|error| error.strip_backtrace())?,
        _ => return Err(format!("{name} of {} arguments is not fused", arguments.len())),
    };
    let is_positional = matches!(function, AggregateFunction::First | AggregateFunction::Last);
    let mut filter = filter;
    let argument = if function == AggregateFunction::Count && !expr.is_distinct() && never_null(argument, scope) {
        None
    } else if function == AggregateFunction::Average {
        Some(scope.lower(exact(argument, scope)?)?)
    } else {
        Some(scope.lower(argument)?)
    };
    if is_positional && expr.ignore_nulls() {
        filter = and_not_null(filter, argument.as_ref());
    }
    let order = if is_positional {
        sort_keys(expr.order_bys(), scope)?
    } else {
        Vec::new()
    };
    Ok(Aggregate {
        function,
        argument,
        distinct: expr.is_distinct() && !is_positional,
        filter,
        order,
        data_type,
    })
}

fn function(name: &str) -> Option<AggregateFunction> {
    Some(match name {
        "count" => AggregateFunction::Count,
        "sum" => AggregateFunction::Sum,
        "min" => AggregateFunction::Min,
        "max" => AggregateFunction::Max,
        "avg" | "mean" => AggregateFunction::Average,
        "var" | "var_samp" | "var_sample" => AggregateFunction::VarianceSample,
        "var_pop" | "var_population" => AggregateFunction::VariancePopulation,
        "stddev" | "stddev_samp" => AggregateFunction::StddevSample,
        "stddev_pop" => AggregateFunction::StddevPopulation,
        "bool_and" => AggregateFunction::BoolAnd,
        "bool_or" => AggregateFunction::BoolOr,
        "first_value" => AggregateFunction::First,
        "last_value" => AggregateFunction::Last,
        _ => return None,
    })
}

fn never_null(argument: &Arc<dyn PhysicalExpr>, scope: &Scope<'_>) -> bool {
    if let Some(literal) = argument.downcast_ref::<Literal>() {
        return !literal.value().is_null();
    }
    argument.is::<Column>() && argument.nullable(scope.schema).is_ok_and(|nullable| !nullable)
}

/// The argument of an average without the cast to Float64 that DataFusion puts around an integer.
fn exact<'a>(argument: &'a Arc<dyn PhysicalExpr>, scope: &Scope<'_>) -> Result<&'a Arc<dyn PhysicalExpr>, String> {
    let Some(cast) = argument.downcast_ref::<CastExpr>() else {
        return Ok(argument);
    };
    let inner = cast
        .expr()
        .data_type(scope.schema)
        .map_err(|error| error.strip_backtrace())?;
    let strip =
        fused_type(cast.cast_type())? == Type::Float64 && fused_type(&inner).is_ok_and(|inner| inner.is_integer());
    Ok(if strip { cast.expr() } else { argument })
}

fn and_not_null(filter: Option<Expr>, argument: Option<&Expr>) -> Option<Expr> {
    let present = argument.map(|argument| Expr {
        node: Node::IsNotNull(Box::new(argument.clone())),
        data_type: Type::Boolean,
    });
    match (filter, present) {
        (Some(filter), Some(present)) => Some(Expr::binary(BinaryOperator::And, filter, present, Type::Boolean)),
        (filter, present) => filter.or(present),
    }
}

/// Sort keys of a graph.
pub(super) fn sort_keys<'a>(
    keys: impl IntoIterator<Item = &'a PhysicalSortExpr>,
    scope: &Scope<'_>,
) -> Result<Vec<SortKey>, String> {
    keys.into_iter()
        .map(|key| {
            Ok(SortKey {
                expr: scope.lower(&key.expr)?,
                descending: key.options.descending,
                nulls_first: key.options.nulls_first,
            })
        })
        .collect()
}
