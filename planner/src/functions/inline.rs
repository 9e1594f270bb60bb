//! Puts the bodies of functions in the place of their calls.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, Result};
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, LogicalPlan};
use datafusion::sql::parser::Statement;
use trireme_exec::QueryError;

use super::call::user_function;
use super::{INLINE_NODES_MAX, UserFunction, of_state};
use crate::semantics::with_absent_values;
use crate::{dependencies, multisets, repeated, spelling, using};

/// Plans a statement; calls of user-defined functions become their bodies.
///
/// # Errors
/// As DataFusion's planner; for calls with wrong arguments, and of functions whose body can't be planned any more.
pub async fn statement_to_plan(state: &SessionState, statement: Statement) -> Result<LogicalPlan> {
    named_apart(state, statement, false).await
}

/// As [`statement_to_plan`], of a statement whose results may have one name.
///
/// # Errors
/// As [`statement_to_plan`].
pub async fn query_to_plan(state: &SessionState, statement: Statement) -> Result<LogicalPlan> {
    named_apart(state, statement, true).await
}

async fn named_apart(state: &SessionState, statement: Statement, results: bool) -> Result<LogicalPlan> {
    let mut statement = using::spelled(state, statement).await?;
    spelling::spell(state, &mut statement);
    // An error is told of the statement as it was written.
    if let Some(marked) = dependencies::marked(&statement)
        && let Ok(plan) = told_apart(state, marked, results).await
    {
        return settled(state, dependencies::unmarked(plan)?);
    }
    settled(state, told_apart(state, statement, results).await?)
}

async fn told_apart(state: &SessionState, statement: Statement, results: bool) -> Result<LogicalPlan> {
    match state.statement_to_plan(statement.clone()).await {
        Err(error) if repeated::refused(&error) => repeated::plan(state, statement, results).await.map_err(|_| error),
        Ok(plan) if repeated::groups_share_names(&plan)? => {
            repeated::plan(state, statement, results).await.or(Ok(plan))
        }
        plan => plan,
    }
}

/// A plan as it comes from the parser, with our meaning of what DataFusion takes otherwise.
fn settled(state: &SessionState, plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = with_bodies(state, multisets::counted(plan)?)?;
    with_absent_values(plan)
}

fn with_bodies(state: &SessionState, plan: LogicalPlan) -> Result<LogicalPlan> {
    match of_state(state) {
        Some(set) if !set.functions.is_empty() => inlined(plan),
        _ => Ok(plan),
    }
}

/// An error of ours on its way through DataFusion.
pub(super) fn external(error: QueryError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn inlined(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut called = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            called = called || calls(expr)?;
            Ok(if called {
                TreeNodeRecursion::Stop
            } else {
                TreeNodeRecursion::Continue
            })
        })
    })?;
    if !called {
        return Ok(plan);
    }
    plan.transform_up_with_subqueries(inlined_node).data()
}

fn calls(expr: &Expr) -> Result<bool> {
    expr.exists(|inner| Ok(matches!(inner, Expr::ScalarFunction(call) if user_function(&call.func).is_some())))
}

fn inlined_node(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let schema = merge_schema(&plan.inputs());
    let names = NamePreserver::new(&plan);
    plan.map_expressions(|expr| {
        // The names of grouping sets' columns are those of the expressions within: these calls stay calls.
        if matches!(expr, Expr::GroupingSet(_)) || !calls(&expr)? {
            return Ok(Transformed::no(expr));
        }
        let name = names.save(&expr);
        let expr = inlined_calls(expr, &schema, &mut |function| Ok(Arc::clone(function)))?;
        Ok(Transformed::yes(name.restore(expr)))
    })?
    .map_data(LogicalPlan::recompute_schema)
}

/// Which planned function a call means.
type Resolve<'a> = dyn FnMut(&Arc<UserFunction>) -> Result<Arc<UserFunction>, QueryError> + 'a;

/// Inlines the calls in an expression over `schema`.
pub(super) fn inlined_calls(expr: Expr, schema: &DFSchema, resolve: &mut Resolve<'_>) -> Result<Expr> {
    expr.transform_up(|expr| {
        let Expr::ScalarFunction(call) = expr else {
            return Ok(Transformed::no(expr));
        };
        let Some(function) = user_function(&call.func) else {
            return Ok(Transformed::no(Expr::ScalarFunction(call)));
        };
        let function = resolve(function).map_err(external)?;
        inlined_call(call, &function, schema).map(Transformed::yes)
    })
    .data()
}

fn inlined_call(call: ScalarFunction, function: &UserFunction, schema: &DFSchema) -> Result<Expr> {
    let body = function.body().map_err(external)?;
    let ScalarFunction { func, args } = call;
    if args.len() != function.parameters.len() {
        return Err(external(wrong_count(function, args.len())));
    }
    let mut arguments = Vec::with_capacity(args.len());
    for (index, (argument, wanted)) in args.into_iter().zip(&function.parameters).enumerate() {
        let found = argument.get_type(schema)?;
        let argument =
            converted(argument, &found, wanted).ok_or_else(|| external(wrong_type(function, index, &found)))?;
        arguments.push(argument);
    }
    if stays_call(&arguments, &body.uses, body.nodes)? {
        return Ok(Expr::ScalarFunction(ScalarFunction { func, args: arguments }));
    }
    let put = body.template.clone().transform_down(|expr| {
        let Expr::Column(column) = &expr else {
            return Ok(Transformed::no(expr));
        };
        let index = (0..arguments.len()).find(|index| function.parameter_name(*index) == column.name);
        match index.and_then(|index| arguments.get(index)) {
            // The argument's own columns are not the body's.
            Some(argument) => Ok(Transformed::new(argument.clone(), true, TreeNodeRecursion::Jump)),
            None => Ok(Transformed::no(expr)),
        }
    })?;
    Ok(put.data)
}

/// A value that differs each time is computed once per call; and what would grow beyond measure is left small.
fn stays_call(arguments: &[Expr], uses: &[usize], nodes: usize) -> Result<bool> {
    let mut size = nodes;
    for (argument, &uses) in arguments.iter().zip(uses) {
        if uses > 1 && argument.is_volatile() {
            return Ok(true);
        }
        let mut own = 0_usize;
        argument.apply(|_| {
            own += 1;
            Ok(TreeNodeRecursion::Continue)
        })?;
        size = size.saturating_add(own.saturating_mul(uses));
    }
    Ok(size > INLINE_NODES_MAX)
}

fn wrong_count(function: &UserFunction, found: usize) -> QueryError {
    let wanted = function.parameters.len();
    let arguments = match function.definition.arguments() {
        none if none.is_empty() => String::new(),
        some => format!(" ({some})"),
    };
    QueryError::invalid(format!(
        "function {} takes {wanted} argument{}{arguments}, not {found}",
        function.name,
        if wanted == 1 { "" } else { "s" }
    ))
}

fn wrong_type(function: &UserFunction, index: usize, found: &DataType) -> QueryError {
    let wanted = function
        .definition
        .parameters
        .get(index)
        .map_or("", |parameter| parameter.data_type.as_str());
    QueryError::invalid(format!(
        "argument {} of function {} is {wanted}, and can't be taken from {found}",
        function.parameter_name(index),
        function.name
    ))
    .with_hint(format!("write CAST(… AS {wanted})"))
}

/// The expression as a value of type `to`; none where that takes a CAST that nobody wrote. Texts stay as they are laid out.
pub(super) fn converted(expr: Expr, from: &DataType, to: &DataType) -> Option<Expr> {
    if from == to || (is_text(from) && is_text(to)) {
        return Some(expr);
    }
    let untyped = matches!(&expr, Expr::Placeholder(_))
        || matches!(&expr, Expr::Literal(value, _) if is_text(&value.data_type()));
    (untyped || converts(from, to)).then(|| Expr::Cast(Cast::new(Box::new(expr), to.clone())))
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

/// What a value is taken as without a CAST: another width (checked), a wider kind of number, a date as a time stamp.
fn converts(from: &DataType, to: &DataType) -> bool {
    use DataType::{Binary, BinaryView, Date32, Date64, Interval, LargeBinary, Null, Time32, Time64, Timestamp};
    match (from, to) {
        (Null, _) => true,
        (
            DataType::List(from) | DataType::LargeList(from) | DataType::FixedSizeList(from, _),
            DataType::List(to) | DataType::LargeList(to),
        ) => from.data_type() == to.data_type() || converts(from.data_type(), to.data_type()),
        (DataType::Dictionary(_, values), to) => values.as_ref() == to || converts(values, to),
        (from, to) if to.is_integer() => from.is_integer(),
        (from, to) if to.is_numeric() => from.is_numeric(),
        (Date32 | Date64, Date32 | Date64 | Timestamp(..))
        | (Timestamp(..), Timestamp(..))
        | (Time32(_) | Time64(_), Time32(_) | Time64(_))
        | (Interval(_), Interval(_))
        | (Binary | LargeBinary | BinaryView, Binary | LargeBinary | BinaryView) => true,
        _ => false,
    }
}
