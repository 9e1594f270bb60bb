//! Columns that DataFusion gives one name: `SELECT a.id, a.id`, `SELECT t.*, upper(name) AS name`, `SELECT x, CAST(x AS TEXT)`.
//!
//! DataFusion wants a name of its own for each column of a plan's node, and calls a cast as its operand. SQL wants no such
//! thing. A statement that is refused for its names is planned again: its casts are calls then, with names of their own, until
//! it is planned, and what it gives has marked names, whose marks are taken off in the schema that clients are promised.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, SchemaError};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::registry::FunctionRegistry;
use datafusion::logical_expr::{
    ColumnarValue, Expr as Planned, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::sql::parser::{ExplainStatement, Statement};
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName, OrderBy,
    OrderByKind, Query, Select, SelectItem, SetExpr, Statement as SqlStatement, UnaryOperator, Value, VisitorMut,
    visit_expressions,
};

use crate::bind::visit;
use crate::names::{fold, result_name};

/// Stands between a name and what makes it unique.
const MARK: char = '\u{2}';

/// The name without its mark.
pub(crate) fn shown(name: &str) -> &str {
    name.split(MARK).next().unwrap_or_default()
}

/// Whether two columns of one name may be what is wrong.
pub(crate) fn refused(error: &DataFusionError) -> bool {
    match error.find_root() {
        DataFusionError::SchemaError(error, _) => !matches!(**error, SchemaError::FieldNotFound { .. }),
        DataFusionError::Plan(message) => message.contains("unique expression names"),
        _ => false,
    }
}

/// Whether an aggregate has two groups of one name, which is refused when it is optimised.
pub(crate) fn groups_share_names(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Aggregate(aggregate) = node
            && let [_, _, ..] = aggregate.group_expr[..]
        {
            let names = aggregate.group_expr.iter().map(|expr| expr.schema_name().to_string());
            let names: HashSet<_> = names.collect();
            found |= names.len() < aggregate.group_expr.len();
        }
        Ok(if found {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    })?;
    Ok(found)
}

/// Plans a statement whose columns are told apart; its results may have one name if they have none but in what clients see.
///
/// # Errors
/// As DataFusion's planner.
pub(crate) async fn plan(state: &SessionState, mut statement: Statement, results: bool) -> Result<LogicalPlan> {
    mark_statement(&mut statement, results);
    let _ = visit(&mut statement, &mut Naming);
    let mut planning = state.clone();
    planning.register_udf(Arc::new(ScalarUDF::from(Named::new())))?;
    let plan = planning.statement_to_plan(statement).await?;
    plan.transform_up_with_subqueries(unnamed).data()
}

fn mark_statement(statement: &mut Statement, results: bool) {
    match statement {
        Statement::Explain(ExplainStatement { statement, .. }) => mark_statement(statement, results),
        Statement::Statement(statement) => {
            if let Some(query) = query(statement) {
                let order_by = query.order_by.as_mut();
                mark_operands(&mut query.body, order_by, results);
            }
        }
        _ => {}
    }
}

fn query(statement: &mut SqlStatement) -> Option<&mut Query> {
    match statement {
        SqlStatement::Query(query) => Some(query),
        SqlStatement::Insert(insert) => insert.source.as_deref_mut(),
        SqlStatement::CreateTable(create) => create.query.as_deref_mut(),
        _ => None,
    }
}

fn mark_operands(body: &mut SetExpr, order_by: Option<&mut OrderBy>, results: bool) {
    match body {
        SetExpr::Select(select) => mark(select, order_by, results),
        SetExpr::SetOperation { left, right, .. } => {
            mark_operands(left, None, results);
            mark_operands(right, None, results);
        }
        SetExpr::Query(query) => mark_operands(&mut query.body, query.order_by.as_mut(), results),
        _ => {}
    }
}

/// A result's name, as written where it has none of its own; none for a wildcard.
fn name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::UnnamedExpr(expr) => result_name(item).or_else(|| Some(expr.to_string())),
        _ => result_name(item),
    }
}

/// The names of an ORDER BY's columns `t.x`, which are no results'.
fn qualified(order_by: &OrderBy) -> HashSet<String> {
    let mut names = HashSet::new();
    let _ = visit_expressions(order_by, |expr| {
        if let Expr::CompoundIdentifier(parts) = expr {
            names.extend(parts.last().map(fold));
        }
        ControlFlow::<()>::Continue(())
    });
    names
}

/// Names what has no name, and marks what may have another's: any, beside a wildcard.
fn mark(select: &mut Select, order_by: Option<&mut OrderBy>, results: bool) {
    let wildcards = select.projection.iter().any(|item| name(item).is_none());
    let sorted_by = order_by.as_deref().map(qualified).unwrap_or_default();
    let mut seen: HashMap<String, Ident> = HashMap::new();
    for (at, item) in select.projection.iter_mut().enumerate() {
        let has_name = result_name(item).is_some();
        let name = name(item);
        let (Some(name), SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = (name, &mut *item)
        else {
            continue;
        };
        let is_first = !results || !wildcards && !seen.contains_key(&name) && !sorted_by.contains(&name);
        let alias = match is_first {
            true => Ident::with_quote('"', name.clone()),
            false => Ident::with_quote('"', format!("{name}{MARK}{at}")),
        };
        seen.entry(name).or_insert_with(|| alias.clone());
        if !is_first || !has_name {
            let expr = std::mem::replace(expr, Expr::Identifier(alias.clone()));
            *item = SelectItem::ExprWithAlias { expr, alias };
        }
    }
    let Some(OrderByKind::Expressions(exprs)) = order_by.map(|order_by| &mut order_by.kind) else {
        return;
    };
    for by in exprs {
        if let Expr::Identifier(name) = &mut by.expr
            && let Some(marked) = seen.get(&fold(name)).filter(|ident| ident.value.contains(MARK))
        {
            *name = marked.clone();
        }
    }
}

/// Makes what DataFusion calls as its operand, or as all of its kind, a call of [`Named`].
struct Naming;

impl VisitorMut for Naming {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let is_called_as_operand = matches!(
            expr,
            Expr::Cast { .. }
                | Expr::TypedString { .. }
                | Expr::AtTimeZone { .. }
                | Expr::Exists { .. }
                | Expr::InSubquery { .. }
                | Expr::UnaryOp {
                    op: UnaryOperator::Plus,
                    ..
                }
        );
        if is_called_as_operand {
            let text = Expr::value(Value::SingleQuotedString(expr.to_string()));
            let own = std::mem::replace(expr, text.clone());
            *expr = call(NAMED, [own, text]);
        }
        ControlFlow::Continue(())
    }
}

/// A call of a function.
pub(crate) fn call(name: &str, args: impl IntoIterator<Item = Expr>) -> Expr {
    let unnamed = |arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg));
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: args.into_iter().map(unnamed).collect(),
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// A node whose calls of [`Named`] are their first arguments, under the calls' names.
fn unnamed(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let names = NamePreserver::new(&plan);
    plan.map_expressions(|expr| {
        // The names of grouping sets' columns are those of the expressions within: these calls stay calls.
        if matches!(expr, Planned::GroupingSet(_)) {
            return Ok(Transformed::no(expr));
        }
        let name = names.save(&expr);
        let inner = expr.transform_up(|expr| match expr {
            Planned::ScalarFunction(mut call) if call.func.name() == NAMED => {
                Ok(Transformed::yes(call.args.swap_remove(0)))
            }
            expr => Ok(Transformed::no(expr)),
        })?;
        Ok(inner.update_data(|expr| name.restore(expr)))
    })?
    .map_data(LogicalPlan::recompute_schema)
}

const NAMED: &str = "trireme_named";

/// Its first argument; the second makes its name.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Named {
    signature: Signature,
}

impl Named {
    fn new() -> Self {
        Self {
            signature: Signature::any(2, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Named {
    fn name(&self) -> &str {
        NAMED
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        Ok(args[0].clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(args.arg_fields[0].as_ref().clone().with_name(NAMED)))
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(args.args.swap_remove(0))
    }
}
