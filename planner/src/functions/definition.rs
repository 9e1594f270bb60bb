//! The SQL of functions: `CREATE FUNCTION` and `DROP FUNCTION` → what the catalog keeps.

use std::collections::{BTreeSet, HashMap};
use std::sync::OnceLock;

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{ExprSchemable, Volatility};
use datafusion::sql::sqlparser::ast::Expr as SqlExpr;
use datafusion::sql::sqlparser::ast::{
    ArgMode, CreateFunction, CreateFunctionBody, DropFunction, ExprWithAlias, FunctionBehavior, FunctionCalledOnNull,
    FunctionReturnType, Ident, ObjectName, OperateFunctionArg, Value,
};
use trireme_exec::{ErrorClass, QueryError};

use super::body::{expression, selected};
use super::{BODY_MAX, UserFunction, check, is_builtin, of_state};
use crate::ddl::{Ddl, FunctionDefinition, FunctionParameter, TableName};
use crate::ddl_sql::if_exists;
use crate::names::{fold, table_name};
use crate::parse;
use crate::text::sql_text;

/// The change that `CREATE FUNCTION` asks for.
///
/// # Errors
/// Whatever is wrong with the definition; the body is planned with the functions there are.
pub fn create_function(state: &SessionState, create: &CreateFunction, schema: &str) -> Result<Ddl, QueryError> {
    refuse_clauses(create)?;
    let name = function_name(state, &create.name, schema)?;
    let parameters = parameters(create.args.as_deref().unwrap_or_default())?;
    let returns = match &create.return_type {
        Some(FunctionReturnType::DataType(data_type)) => data_type.to_string(),
        Some(FunctionReturnType::SetOf(_)) => {
            return Err(unsupported("functions that return sets are not supported").with_hint("use a view"));
        }
        None => return Err(QueryError::invalid(format!("function {name} needs RETURNS and a type"))),
    };
    let definition = FunctionDefinition {
        parameters,
        returns,
        body: body_text(&name, create.function_body.as_ref())?,
        strict: matches!(
            create.called_on_null,
            Some(FunctionCalledOnNull::Strict | FunctionCalledOnNull::ReturnsNullOnNullInput)
        ),
        search_schema: schema.to_owned(),
    };
    let found = check(state, &name, &definition)?;
    let promised = match &create.behavior {
        Some(FunctionBehavior::Immutable) => Some(("IMMUTABLE", Volatility::Immutable)),
        Some(FunctionBehavior::Stable) => Some(("STABLE", Volatility::Stable)),
        _ => None,
    };
    let changes = |volatility| match volatility {
        Volatility::Immutable => 0,
        Volatility::Stable => 1,
        Volatility::Volatile => 2,
    };
    if let Some((word, promised)) = promised
        && changes(found) > changes(promised)
    {
        return Err(QueryError::invalid(format!(
            "function {name} is declared {word}, but its body calls a function that is not"
        ))
        .with_hint(format!("leave {word} out")));
    }
    Ok(Ddl::CreateFunction {
        name,
        definition,
        if_exists: if_exists(create.or_replace, create.if_not_exists)?,
    })
}

/// The change that `DROP FUNCTION` asks for.
///
/// # Errors
/// For a function of the engine, and for argument types that are not the function's.
pub fn drop_function(state: &SessionState, drop: &DropFunction, schema: &str) -> Result<Ddl, QueryError> {
    let [described] = drop.func_desc.as_slice() else {
        return Err(QueryError::invalid("DROP takes one name at a time"));
    };
    let name = table_name(&described.name, schema)?;
    if is_builtin(state, &name.table) {
        return Err(QueryError::invalid(format!(
            "{} is a part of the engine and can't be dropped",
            name.table
        )));
    }
    let missing_ok = drop.if_exists;
    let known = of_state(state);
    let function = known.as_ref().and_then(|known| known.get(&name));
    if let (Some(function), Some(args)) = (function, &described.args) {
        let mut types = HashMap::new();
        let wanted = args
            .iter()
            .map(|arg| data_type(state, &arg.data_type.to_string(), &mut types))
            .collect::<Result<Vec<_>, _>>()?;
        if wanted != function.parameters {
            return Err(
                QueryError::new(ErrorClass::NotFound, format!("function {described} does not exist"))
                    .with_hint(format!("there is {name}({})", function.definition.arguments())),
            );
        }
    }
    Ok(Ddl::DropFunction { name, missing_ok })
}

/// A definition with its types known; a type that isn't known (any more) makes it a function that can't be called.
pub(super) fn typed(
    state: &SessionState,
    name: TableName,
    definition: &FunctionDefinition,
    types: &mut HashMap<String, DataType>,
) -> UserFunction {
    let parameters = definition
        .parameters
        .iter()
        .map(|parameter| data_type(state, &parameter.data_type, types))
        .collect::<Result<Vec<_>, _>>();
    let returns = data_type(state, &definition.returns, types);
    let (parameters, returns, broken) = match (parameters, returns) {
        (Ok(parameters), Ok(returns)) => (parameters, returns, None),
        (Err(error), _) | (_, Err(error)) => {
            let parameters = vec![DataType::Null; definition.parameters.len()];
            (parameters, DataType::Null, Some(error))
        }
    };
    let body = OnceLock::new();
    if let Some(error) = broken {
        let _ = body.set(Err(error.with_detail(format!("in the definition of function {name}"))));
    }
    UserFunction {
        name,
        definition: definition.clone(),
        parameters,
        returns,
        body,
    }
}

/// A type's name → the type; what was looked up before is in `known`.
fn data_type(state: &SessionState, name: &str, known: &mut HashMap<String, DataType>) -> Result<DataType, QueryError> {
    if let Some(found) = known.get(name) {
        return Ok(found.clone());
    }
    let expr = expression(&format!("CAST(NULL AS {name})"))?;
    let schema = DFSchema::empty();
    let found = state
        .create_logical_expr_from_sql_expr(ExprWithAlias { expr, alias: None }, &schema)?
        .get_type(&schema)?;
    known.insert(name.to_owned(), found.clone());
    Ok(found)
}

fn function_name(state: &SessionState, name: &ObjectName, schema: &str) -> Result<TableName, QueryError> {
    let name = table_name(name, schema)?;
    if name.table.is_empty() || name.table.contains(['.', '"']) {
        return Err(QueryError::invalid(
            "a function's name can't be empty and can't hold a dot or a quote",
        ));
    }
    if is_builtin(state, &name.table) {
        return Err(QueryError::new(
            ErrorClass::AlreadyExists,
            format!("{} is a function of the engine", name.table),
        )
        .with_hint("choose another name"));
    }
    Ok(name)
}

fn unsupported(message: &str) -> QueryError {
    QueryError::new(ErrorClass::Unsupported, message)
}

fn refuse_clauses(create: &CreateFunction) -> Result<(), QueryError> {
    if create.temporary {
        return Err(unsupported("temporary functions are not supported").with_hint("CREATE FUNCTION and DROP it"));
    }
    if let Some(language) = &create.language
        && fold(language) != "sql"
    {
        return Err(unsupported(&format!("LANGUAGE {language} is not supported"))
            .with_hint("a function's body is an SQL expression"));
    }
    let other = [
        (create.security.is_some(), "SECURITY"),
        (!create.set_params.is_empty(), "SET"),
        (create.using.is_some(), "USING"),
        (create.options.is_some(), "OPTIONS"),
        (create.remote_connection.is_some(), "REMOTE"),
        (create.or_alter, "OR ALTER"),
    ];
    match other.iter().find(|(given, _)| *given) {
        Some((_, clause)) => Err(unsupported(&format!("{clause} is not supported for functions"))),
        None => Ok(()),
    }
}

fn parameters(args: &[OperateFunctionArg]) -> Result<Vec<FunctionParameter>, QueryError> {
    let mut names = BTreeSet::new();
    let mut parameters = Vec::with_capacity(args.len());
    for arg in args {
        if let Some(mode @ (ArgMode::Out | ArgMode::InOut | ArgMode::Variadic)) = &arg.mode {
            return Err(unsupported(&format!("{mode} arguments are not supported")));
        }
        if arg.default_expr.is_some() {
            return Err(unsupported("default values of arguments are not supported"));
        }
        let name = arg.name.as_ref().map(argument_name);
        if let Some(name) = &name
            && !names.insert(name.clone())
        {
            return Err(QueryError::invalid(format!("argument {name} appears twice")));
        }
        parameters.push(FunctionParameter {
            name,
            data_type: arg.data_type.to_string(),
        });
    }
    Ok(parameters)
}

/// The parser keeps the name of an argument as it was written, quotes and all.
fn argument_name(name: &Ident) -> String {
    let quoted = |quote: char| name.value.strip_prefix(quote)?.strip_suffix(quote);
    for quote in ['"', '`'] {
        if let Some(inner) = quoted(quote) {
            return inner.replace(&format!("{quote}{quote}"), &quote.to_string());
        }
    }
    fold(name)
}

/// The text of the body: of `RETURN expression`, or of `AS 'SELECT expression'` and `AS 'expression'`.
fn body_text(name: &TableName, body: Option<&CreateFunctionBody>) -> Result<String, QueryError> {
    let text = match body {
        Some(CreateFunctionBody::Return(expr)) => sql_text(expr),
        Some(CreateFunctionBody::AsBeforeOptions {
            body,
            link_symbol: None,
        }) => quoted_body(name, body)?,
        Some(_) => {
            return Err(
                unsupported("this form of a function's body is not supported").with_hint("write RETURN expression")
            );
        }
        None => {
            return Err(
                QueryError::invalid(format!("function {name} has no body")).with_hint("write RETURN expression")
            );
        }
    };
    let length = text.chars().count();
    if length > BODY_MAX {
        return Err(QueryError::invalid(format!(
            "the body of function {name} has {length} characters; at most {BODY_MAX} are allowed"
        )));
    }
    Ok(text)
}

fn quoted_body(name: &TableName, body: &SqlExpr) -> Result<String, QueryError> {
    let text = match body {
        SqlExpr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text.as_str()),
            Value::DollarQuotedString(quoted) => Some(quoted.value.as_str()),
            _ => None,
        },
        _ => None,
    };
    let text = text.ok_or_else(|| QueryError::invalid(format!("the body of function {name} is no text")))?;
    let text = text.trim().trim_end_matches(';');
    let is_query = text
        .split_whitespace()
        .next()
        .is_some_and(|word| word.eq_ignore_ascii_case("select"));
    if !is_query {
        return Ok(sql_text(&expression(text)?));
    }
    match selected(parse::parse(text)?) {
        Some(expr) => Ok(sql_text(&expr)),
        None => Err(
            QueryError::invalid(format!("the body of function {name} is more than one expression"))
                .with_hint("a function computes with its arguments only; use a view for queries"),
        ),
    }
}
