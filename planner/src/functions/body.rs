//! A function's body: from text to an expression over the function's arguments, checked and typed.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::{Field, Schema};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DFSchemaRef, DataFusionError, Result, ScalarValue, TableReference, exec_err};
use datafusion::execution::SessionState;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{EmptyRelation, Expr, ExprSchemable, LogicalPlan, Projection, Volatility, lit, when};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, ExprWithAlias, Ident, Query, SelectItem, SetExpr, Statement as SqlStatement, Value, VisitMut,
    VisitorMut,
};
use trireme_exec::QueryError;

use super::inline::{self, converted, external};
use super::{DEPTH_MAX, FunctionSet, UserFunction, of_state, state_with};
use crate::ddl::{FunctionDefinition, Functions, TableName};
use crate::{bind, parse, spelling};

/// A planned body.
pub(super) struct Body {
    /// The body, with columns for the arguments: not coerced, so that it takes the types of the place it is put in.
    pub(super) template: Expr,
    /// How often each argument is used.
    pub(super) uses: Vec<usize>,
    /// Nodes of the template.
    pub(super) nodes: usize,
    pub(super) volatility: Volatility,
    /// Functions in functions, this one counted.
    depth: usize,
    /// The arguments as columns.
    pub(super) schema: DFSchemaRef,
    /// The template with its types coerced and its arithmetic checked.
    analyzed: Expr,
    physical: OnceLock<std::result::Result<Arc<dyn PhysicalExpr>, QueryError>>,
}

impl Body {
    /// The body as it is evaluated for calls that stay calls.
    pub(super) fn physical(&self, name: &TableName, options: &Arc<ConfigOptions>) -> Result<&Arc<dyn PhysicalExpr>> {
        if self.volatility == Volatility::Stable {
            return exec_err!(
                "function {name} reads the clock, and an argument of this call has another value at each use; \
                 compute the argument in a sub-query"
            );
        }
        let make = || {
            let context = SimplifyContext::builder()
                .with_schema(Arc::clone(&self.schema))
                .with_config_options(Arc::clone(options))
                .build();
            let simple = ExprSimplifier::new(context).simplify(self.analyzed.clone())?;
            let properties = ExecutionProps::new();
            create_physical_expr(&simple, &self.schema, &properties, &PhysicalPlanningContext::default())
        };
        let made = self.physical.get_or_init(|| make().map_err(QueryError::from));
        made.as_ref().map_err(|error| external(error.clone()))
    }
}

/// Plans a definition as if it were there already, and says how its value may change.
///
/// # Errors
/// Whatever is wrong with it.
pub(super) fn check(
    state: &SessionState,
    name: &TableName,
    definition: &FunctionDefinition,
) -> Result<Volatility, QueryError> {
    let mut functions = Functions::default();
    let known = of_state(state).unwrap_or_default();
    for registered in known.all() {
        let function = &registered.function;
        insert(&mut functions, &function.name, &function.definition);
    }
    insert(&mut functions, name, definition);
    let set = FunctionSet::compile(state, &functions);
    let function = set
        .get(name)
        .ok_or_else(|| QueryError::internal("the function was not planned"))?;
    Ok(function.body()?.volatility)
}

fn insert(functions: &mut Functions, name: &TableName, definition: &FunctionDefinition) {
    let schema = functions.definitions.entry(name.schema.clone()).or_default();
    schema.insert(name.table.clone(), definition.clone());
}

/// Plans the bodies of a set, each after those that it calls.
pub(super) struct Compiler<'a> {
    base: &'a SessionState,
    set: &'a FunctionSet,
    states: BTreeMap<String, SessionState>,
    /// The functions being planned, outermost first: calling one of them is a circle.
    stack: Vec<TableName>,
}

impl<'a> Compiler<'a> {
    pub(super) fn new(base: &'a SessionState, set: &'a FunctionSet) -> Self {
        Self {
            base,
            set,
            states: BTreeMap::new(),
            stack: Vec::new(),
        }
    }

    /// Plans a function's body, if that was not done.
    pub(super) fn compile(&mut self, function: &Arc<UserFunction>) {
        if function.body.get().is_some() {
            return;
        }
        self.stack.push(function.name.clone());
        let body = self.body(function).map_err(|error| in_body(function, error));
        self.stack.pop();
        let _ = function.body.set(body);
    }

    /// The planned body of a function that the one being planned calls.
    fn called<'f>(&mut self, function: &'f Arc<UserFunction>) -> Result<&'f Body, QueryError> {
        if function.body.get().is_none() {
            if self.stack.contains(&function.name) {
                let way: Vec<_> = self.stack.iter().skip(1).map(TableName::to_string).collect();
                let way = if way.is_empty() {
                    String::new()
                } else {
                    format!(" (by way of {})", way.join(", "))
                };
                return Err(
                    QueryError::invalid(format!("function {} calls itself{way}", function.name))
                        .with_hint("functions can't be recursive; use WITH RECURSIVE"),
                );
            }
            if self.stack.len() >= DEPTH_MAX {
                return Err(too_deep(&function.name));
            }
            self.compile(function);
        }
        function.body()
    }

    fn body(&mut self, function: &Arc<UserFunction>) -> Result<Body, QueryError> {
        let definition = &function.definition;
        let schema = arguments_schema(function)?;
        let mut sql = arguments_named(expression(&definition.body)?, function)?;
        let state = self.state(&definition.search_schema)?;
        spelling::spell_expr(state, &mut sql);
        let planned = state.create_logical_expr_from_sql_expr(ExprWithAlias { expr: sql, alias: None }, &schema)?;
        refuse_unfit(&planned)?;
        let planned = planned.unalias_nested().data;
        let mut depth = 1;
        let inlined = inline::inlined_calls(planned, &schema, &mut |called| {
            let known = self.set.get(&called.name).unwrap_or(called);
            let known = Arc::clone(known);
            depth = depth.max(1 + self.called(&known)?.depth);
            Ok(known)
        })?;
        if depth > DEPTH_MAX {
            return Err(too_deep(&function.name));
        }
        let found = analyzed(self.base, inlined.clone(), &schema)?.get_type(&schema)?;
        let template = converted(inlined, &found, &function.returns).ok_or_else(|| {
            QueryError::invalid(format!(
                "function {} returns {}, but its body is of type {found}",
                function.name, definition.returns
            ))
            .with_hint(format!("write CAST(… AS {})", definition.returns))
        })?;
        let template = if definition.strict {
            strict(template, &schema)?
        } else {
            template
        };
        let (uses, nodes) = uses(&template, function)?;
        Ok(Body {
            analyzed: analyzed(self.base, template.clone(), &schema)?,
            volatility: volatility(&template)?,
            depth,
            template,
            uses,
            nodes,
            schema,
            physical: OnceLock::new(),
        })
    }

    fn state(&mut self, schema: &str) -> Result<&SessionState, QueryError> {
        if !self.states.contains_key(schema) {
            let state = state_with(self.base, schema, self.set)?;
            self.states.insert(schema.to_owned(), state);
        }
        self.states
            .get(schema)
            .ok_or_else(|| QueryError::internal("no state for a function's schema"))
    }
}

fn too_deep(name: &TableName) -> QueryError {
    QueryError::invalid(format!("function {name} calls functions more than {DEPTH_MAX} deep"))
}

/// Positions would be those of the body's own text: they say nothing to who calls the function.
fn in_body(function: &UserFunction, mut error: QueryError) -> QueryError {
    error.position = None;
    let unknown = error
        .message
        .strip_prefix("column ")
        .and_then(|rest| rest.strip_suffix(" does not exist"));
    if let Some(unknown) = unknown {
        let error = QueryError::invalid(format!(
            "the body of function {} names {unknown}, which is not an argument",
            function.name
        ));
        return match function.definition.arguments() {
            none if none.is_empty() => error.with_hint("the function has no arguments"),
            arguments => error.with_hint(format!("its arguments: {arguments}")),
        };
    }
    if error.detail.is_none() && !error.message.contains(&function.name.to_string()) {
        error.detail = Some(format!("in the body of function {}", function.name));
    }
    error
}

/// The arguments as columns of a table that has the function's name: the body may write `a` and `f.a`.
fn arguments_schema(function: &UserFunction) -> Result<DFSchemaRef, QueryError> {
    let fields: Vec<_> = function
        .parameters
        .iter()
        .enumerate()
        .map(|(index, data_type)| Field::new(function.parameter_name(index), data_type.clone(), true))
        .collect();
    let table = TableReference::bare(function.name.table.clone());
    let schema = DFSchema::try_from_qualified_schema(table, &Schema::new(fields))?;
    Ok(Arc::new(schema))
}

/// The one expression that a body's text is.
pub(super) fn expression(text: &str) -> Result<SqlExpr, QueryError> {
    let mut statement = parse::parse(&format!("SELECT {text}"))?;
    bind::bind(&mut statement)?;
    selected(statement).ok_or_else(|| {
        QueryError::invalid("the body of a function is one expression").with_hint("write RETURN expression")
    })
}

/// The expression of `SELECT expression`, without anything else around it.
pub(crate) fn selected(statement: Statement) -> Option<SqlExpr> {
    let Statement::Statement(statement) = statement else {
        return None;
    };
    let SqlStatement::Query(query) = *statement else {
        return None;
    };
    let text = query.to_string();
    let SetExpr::Select(select) = *query.body else {
        return None;
    };
    let [item] = <[SelectItem; 1]>::try_from(select.projection).ok()?;
    if text != format!("SELECT {item}") {
        return None;
    }
    match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    }
}

/// Gives `$n` the name of the argument; refuses sub-queries.
fn arguments_named(mut expr: SqlExpr, function: &UserFunction) -> Result<SqlExpr, QueryError> {
    match expr.visit(&mut Arguments { function }) {
        ControlFlow::Continue(()) => Ok(expr),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Arguments<'a> {
    function: &'a UserFunction,
}

impl VisitorMut for Arguments<'_> {
    type Break = QueryError;

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<QueryError> {
        let error = QueryError::invalid(format!("the body of function {} holds a sub-query", self.function.name));
        ControlFlow::Break(error.with_hint("a function computes with its arguments only; use a view for queries"))
    }

    fn pre_visit_expr(&mut self, expr: &mut SqlExpr) -> ControlFlow<QueryError> {
        let SqlExpr::Value(value) = expr else {
            return ControlFlow::Continue(());
        };
        let Value::Placeholder(text) = &value.value else {
            return ControlFlow::Continue(());
        };
        let count = self.function.parameters.len();
        let number = text.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok());
        let Some(index) = number.filter(|number| (1..=count).contains(number)) else {
            return ControlFlow::Break(QueryError::invalid(format!(
                "the body of function {} names {text}, and the function has {count} argument{}",
                self.function.name,
                if count == 1 { "" } else { "s" }
            )));
        };
        *expr = SqlExpr::Identifier(Ident::with_quote('"', self.function.parameter_name(index - 1)));
        ControlFlow::Continue(())
    }
}

/// Whatever needs more than one row.
fn refuse_unfit(expr: &Expr) -> Result<(), QueryError> {
    let mut unfit = None;
    expr.apply(|inner| {
        unfit = match inner {
            Expr::AggregateFunction(_) | Expr::GroupingSet(_) => Some("an aggregate"),
            Expr::WindowFunction(_) => Some("a window function"),
            Expr::Unnest(_) => Some("UNNEST"),
            Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) => Some("a sub-query"),
            _ => None,
        };
        Ok(match unfit {
            Some(_) => TreeNodeRecursion::Stop,
            None => TreeNodeRecursion::Continue,
        })
    })?;
    match unfit {
        None => Ok(()),
        Some(what) => Err(QueryError::invalid(format!("the body of a function holds {what}"))
            .with_hint("a function computes with the arguments of one call; use a view for queries")),
    }
}

/// The expression with its types coerced and its arithmetic checked, as the analyzer makes it in a plan.
fn analyzed(state: &SessionState, expr: Expr, schema: &DFSchemaRef) -> Result<Expr> {
    let rows = LogicalPlan::EmptyRelation(EmptyRelation {
        produce_one_row: false,
        schema: Arc::clone(schema),
    });
    let plan = LogicalPlan::Projection(Projection::try_new(vec![expr], Arc::new(rows))?);
    match state
        .analyzer()
        .execute_and_check(plan, state.config_options(), |_, _| {})?
    {
        LogicalPlan::Projection(projection) => match <[Expr; 1]>::try_from(projection.expr) {
            Ok([expr]) => Ok(expr.unalias()),
            Err(_) => Err(DataFusionError::Internal("a body of several expressions".to_owned())),
        },
        _ => Err(DataFusionError::Internal("a body that is no projection".to_owned())),
    }
}

/// `CASE WHEN an argument IS NULL THEN NULL ELSE body END`.
fn strict(body: Expr, schema: &DFSchemaRef) -> Result<Expr> {
    let nulls = schema
        .columns()
        .into_iter()
        .map(|column| Expr::Column(column).is_null());
    match nulls.reduce(Expr::or) {
        Some(any) => when(any, lit(ScalarValue::Null)).otherwise(body),
        None => Ok(body),
    }
}

fn uses(template: &Expr, function: &UserFunction) -> Result<(Vec<usize>, usize), QueryError> {
    let mut uses = vec![0; function.parameters.len()];
    let mut nodes = 0;
    template.apply(|expr| {
        nodes += 1;
        if let Expr::Column(column) = expr {
            let index = (0..uses.len()).find(|index| function.parameter_name(*index) == column.name);
            if let Some(count) = index.and_then(|index| uses.get_mut(index)) {
                *count += 1;
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok((uses, nodes))
}

fn volatility(template: &Expr) -> Result<Volatility> {
    let mut found = Volatility::Immutable;
    template.apply(|expr| {
        if let Expr::ScalarFunction(call) = expr {
            match call.func.signature().volatility {
                Volatility::Volatile => found = Volatility::Volatile,
                Volatility::Stable if found == Volatility::Immutable => found = Volatility::Stable,
                _ => {}
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}
