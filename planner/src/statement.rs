//! What a statement is, planned: rows to stream, a write to run once, a change of the catalog, or of the session.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, TableReference};
use datafusion::execution::SessionState;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{DescribeTable, Expr, LogicalPlan, WriteOp};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    ContextModifier, Expr as SqlExpr, ObjectName, Reset, Set, Statement as SqlStatement, Use, Value,
};
use trireme_config::SessionSettings;
use trireme_exec::{ErrorClass, QueryError};

use crate::bind::bind;
use crate::ddl::{Ddl, TableName};
use crate::names::{fold, locate, nearest, parts, schema_name};
use crate::output::stored_schema;
use crate::procedures::Procedure;
use crate::redact::redacted_error;
use crate::{copies, ddl_sql, functions, parse, procedures};

/// A change of the session's own settings.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum SessionChange {
    /// `SET name = value`.
    Set {
        /// Setting's name, lower case.
        name: String,
        /// Value as text.
        value: String,
    },
    /// `RESET name`; `None` is `RESET ALL`.
    Reset {
        /// Setting's name, lower case.
        name: Option<String>,
    },
    /// `USE schema`.
    UseSchema {
        /// Schema's name.
        schema: String,
    },
}

/// A planned statement.
#[derive(Debug, Clone)]
pub enum Planned {
    /// Streams rows.
    Rows(LogicalPlan),
    /// INSERT or COPY: runs as a plan whose result is a count.
    Write(LogicalPlan),
    /// DELETE: a plan kept whole, so that parameters can be bound; see [`delete_parts`].
    Delete(LogicalPlan),
    /// UPDATE, likewise; see [`update_parts`].
    Update(LogicalPlan),
    /// A change of the catalog.
    Ddl(Box<Ddl>),
    /// A change of the session.
    Session(SessionChange),
    /// A procedure of the cost model.
    Call(Procedure),
}

impl Planned {
    /// The plan whose placeholders are the statement's parameters.
    pub fn logical_plan(&self) -> Option<&LogicalPlan> {
        match self {
            Planned::Rows(plan) | Planned::Write(plan) | Planned::Delete(plan) | Planned::Update(plan) => Some(plan),
            Planned::Ddl(_) | Planned::Session(_) | Planned::Call(_) => None,
        }
    }

    /// The same statement over another plan (after binding parameters).
    #[must_use]
    pub fn with_plan(self, plan: LogicalPlan) -> Self {
        match self {
            Planned::Rows(_) => Planned::Rows(plan),
            Planned::Write(_) => Planned::Write(plan),
            Planned::Delete(_) => Planned::Delete(plan),
            Planned::Update(_) => Planned::Update(plan),
            other => other,
        }
    }

    /// True when the statement has no result rows of its own.
    pub fn is_update(&self) -> bool {
        !matches!(self, Planned::Rows(_))
    }
}

/// A statement with the command word that names it.
#[derive(Debug, Clone)]
pub struct PlannedStatement {
    /// For example `CREATE TABLE`.
    pub command: String,
    /// What to do.
    pub planned: Planned,
}

/// Parses, binds and plans one statement in a session's state.
///
/// # Errors
/// Anything wrong with the statement, with position and hint where they are known.
pub async fn plan(state: &SessionState, sql: &str) -> Result<PlannedStatement, QueryError> {
    let mut statement = parse::parse(sql)?;
    let command = parse::command(&statement);
    // Views and functions keep their text as written; it is bound anew at each use.
    if !matches!(command.as_str(), "CREATE VIEW" | "CREATE FUNCTION") {
        bind(&mut statement).map_err(|error| redacted_error(sql, error))?;
    }
    let planned = match plan_statement(state, statement, sql).await {
        Ok(planned) => planned,
        // Checked without a word of its values.
        Err(error) if command == "CREATE SECRET" => return Err(error),
        Err(error) => return Err(redacted_error(sql, explain_error(state, sql, error))),
    };
    Ok(PlannedStatement { command, planned })
}

/// Plans a view's text, whose columns have names of their own.
///
/// # Errors
/// As [`plan`].
pub async fn plan_view(state: &SessionState, sql: &str) -> Result<LogicalPlan, QueryError> {
    let mut statement = parse::parse(sql)?;
    bind(&mut statement).map_err(|error| redacted_error(sql, error))?;
    let plan = functions::statement_to_plan(state, statement).await;
    plan.map_err(|error| redacted_error(sql, explain_error(state, sql, error.into())))
}

async fn plan_statement(state: &SessionState, statement: Statement, sql: &str) -> Result<Planned, QueryError> {
    let schema = state.config_options().catalog.default_schema.clone();
    if let Some(change) = session_change(&statement)? {
        return Ok(Planned::Session(change));
    }
    if let Some(procedure) = procedures::procedure(&statement)? {
        return Ok(Planned::Call(procedure));
    }
    if let Some(ddl) = ddl_sql::ddl(state, &statement, &schema, sql).await? {
        return Ok(Planned::Ddl(Box::new(ddl)));
    }
    refuse_unsupported(&statement)?;
    let statement = show_settings(state, statement)?;
    let planned = classify(functions::query_to_plan(state, statement).await?)?;
    if let Planned::Write(plan) | Planned::Delete(plan) | Planned::Update(plan) = &planned {
        copies::check(plan)?;
    }
    Ok(planned)
}

fn classify(plan: LogicalPlan) -> Result<Planned, QueryError> {
    match &plan {
        LogicalPlan::Dml(dml) => match &dml.op {
            WriteOp::Insert(_) => Ok(Planned::Write(plan)),
            WriteOp::Delete => Ok(Planned::Delete(plan)),
            WriteOp::Update => Ok(Planned::Update(plan)),
            other => Err(unsupported(&format!("{} is not supported", other.name()))),
        },
        LogicalPlan::Copy(_) => Ok(Planned::Write(plan)),
        LogicalPlan::Ddl(ddl) => Err(unsupported(&format!("{} is not supported", ddl.name()))),
        LogicalPlan::Statement(statement) => Err(unsupported(&format!("{} is not supported", statement.name()))),
        LogicalPlan::Analyze(analyze) if writes(&analyze.input) => {
            Err(QueryError::invalid("EXPLAIN ANALYZE would run the write").with_hint("use EXPLAIN without ANALYZE"))
        }
        LogicalPlan::DescribeTable(describe) => {
            // What clients get, not how the engine reads it.
            let schema = stored_schema(&describe.schema);
            Ok(Planned::Rows(LogicalPlan::DescribeTable(DescribeTable {
                schema,
                output_schema: Arc::clone(&describe.output_schema),
            })))
        }
        _ => Ok(Planned::Rows(plan)),
    }
}

fn writes(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Dml(_) | LogicalPlan::Copy(_) | LogicalPlan::Ddl(_))
}

fn unsupported(message: &str) -> QueryError {
    QueryError::new(ErrorClass::Unsupported, message)
}

fn refuse_unsupported(statement: &Statement) -> Result<(), QueryError> {
    let Statement::Statement(statement) = statement else {
        return Ok(());
    };
    match statement.as_ref() {
        SqlStatement::StartTransaction { .. } | SqlStatement::Commit { .. } | SqlStatement::Rollback { .. } => {
            Err(unsupported("transactions over several statements are not supported")
                .with_hint("every statement commits by itself, atomically"))
        }
        SqlStatement::Prepare { .. } | SqlStatement::Execute { .. } | SqlStatement::Deallocate { .. } => {
            Err(unsupported("PREPARE in SQL is not supported")
                .with_hint("use the client's prepared statements (Flight SQL, ADBC, JDBC)"))
        }
        SqlStatement::Merge(_) => Err(unsupported("MERGE is not supported").with_hint("use DELETE and INSERT")),
        SqlStatement::Truncate(_) => {
            Err(unsupported("TRUNCATE is not supported").with_hint("use DELETE FROM without WHERE"))
        }
        _ => Ok(()),
    }
}

/// `SHOW name` and `SHOW ALL` read `system.settings`, where the session's own values are; DataFusion's table of settings has
/// only its own.
fn show_settings(state: &SessionState, statement: Statement) -> Result<Statement, QueryError> {
    let Statement::Statement(inner) = &statement else {
        return Ok(statement);
    };
    let SqlStatement::ShowVariable { variable } = inner.as_ref() else {
        return Ok(statement);
    };
    let name = variable.iter().map(fold).collect::<Vec<_>>().join(".").to_lowercase();
    let filter = match name.as_str() {
        "all" => "scope = 'session'".to_owned(),
        "schema" | "search_path" | "current_schema" => return parse::parse("SELECT current_schema() AS value"),
        name => format!("name = '{}'", shown_setting(state, name)?),
    };
    parse::parse(&format!(
        "SELECT name, value FROM system.settings WHERE {filter} ORDER BY name"
    ))
}

/// The full name of a setting that SHOW can show.
fn shown_setting(state: &SessionState, name: &str) -> Result<String, QueryError> {
    let name = match SessionSettings::canonical_name(name) {
        Ok(name) => name,
        // Shown, though it can't be SET.
        Err(_) if name.starts_with("datafusion.") => name.to_owned(),
        Err(error) => {
            let hint = error.hint();
            return Err(QueryError::invalid(error.to_string()).with_hint(hint));
        }
    };
    let known = || {
        state
            .config_options()
            .entries()
            .into_iter()
            .map(|entry| entry.key)
            .collect::<Vec<_>>()
    };
    if name.starts_with("datafusion.") && !known().contains(&name) {
        let error = QueryError::invalid(format!("unknown setting {name}"));
        return Err(match nearest(&name, known().iter().map(String::as_str)) {
            Some(near) => error.with_hint(format!("did you mean {near}?")),
            None => error.with_hint("SHOW ALL lists them"),
        });
    }
    Ok(name)
}

fn session_change(statement: &Statement) -> Result<Option<SessionChange>, QueryError> {
    let statement = match statement {
        Statement::Reset(datafusion::sql::parser::ResetStatement::Variable(name)) => {
            let name = Some(setting_name(name)?).filter(|name| name != "all");
            return Ok(Some(SessionChange::Reset { name }));
        }
        Statement::Statement(statement) => statement.as_ref(),
        _ => return Ok(None),
    };
    match statement {
        SqlStatement::Set(set) => set_change(set).map(Some),
        SqlStatement::Reset(reset) => match &reset.reset {
            Reset::ALL => Ok(Some(SessionChange::Reset { name: None })),
            Reset::ConfigurationParameter(name) => Ok(Some(SessionChange::Reset {
                name: Some(setting_name(name)?),
            })),
        },
        SqlStatement::Use(target) => match target {
            Use::Schema(name) | Use::Database(name) | Use::Object(name) | Use::Catalog(name) => {
                use_change(name).map(Some)
            }
            other => Err(unsupported(&format!("{other} is not supported"))),
        },
        _ => Ok(None),
    }
}

fn use_change(name: &ObjectName) -> Result<SessionChange, QueryError> {
    Ok(SessionChange::UseSchema {
        schema: schema_name(name)?,
    })
}

fn set_change(set: &Set) -> Result<SessionChange, QueryError> {
    match set {
        Set::SingleAssignment {
            scope: Some(ContextModifier::Global),
            ..
        } => Err(unsupported("SET GLOBAL is not supported")
            .with_hint("the server's settings stand in its configuration file")),
        Set::SingleAssignment { variable, values, .. } => {
            let name = setting_name(variable)?;
            let value = values.iter().map(set_value).collect::<Result<Vec<_>, _>>()?.join(",");
            match name.as_str() {
                "schema" | "search_path" | "current_schema" => Ok(SessionChange::UseSchema { schema: value }),
                _ => Ok(SessionChange::Set { name, value }),
            }
        }
        Set::SetTimeZone { value, .. } => Ok(SessionChange::Set {
            name: "time_zone".into(),
            value: set_value(value)?,
        }),
        other => Err(unsupported(&format!("{other} is not supported"))),
    }
}

/// `timezone`, `TIME ZONE` and `time_zone` are one setting.
fn setting_name(name: &ObjectName) -> Result<String, QueryError> {
    let name = parts(name)?.join(".").to_lowercase();
    Ok(if name == "timezone" { "time_zone".into() } else { name })
}

fn set_value(value: &SqlExpr) -> Result<String, QueryError> {
    match value {
        SqlExpr::Identifier(ident) => Ok(fold(ident)),
        SqlExpr::CompoundIdentifier(idents) => Ok(idents.iter().map(fold).collect::<Vec<_>>().join(".")),
        SqlExpr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) => Ok(text.clone()),
            Value::Number(text, _) => Ok(text.to_string()),
            Value::Boolean(flag) => Ok(flag.to_string()),
            other => Err(QueryError::invalid(format!("{other} can't be a setting's value"))),
        },
        SqlExpr::UnaryOp { .. } => Ok(value.to_string()),
        other => Err(QueryError::invalid(format!("{other} can't be a setting's value")).with_hint("write a literal")),
    }
}

/// Adds candidates and a position to errors that lack them.
fn explain_error(state: &SessionState, sql: &str, mut error: QueryError) -> QueryError {
    if error.class == ErrorClass::NotFound
        && error.hint.is_none()
        && let Some(name) = error
            .message
            .strip_prefix("table ")
            .and_then(|rest| rest.strip_suffix(" does not exist"))
    {
        let table = name.rsplit('.').next().unwrap_or(name).to_owned();
        let shown = name.strip_prefix("trireme.").unwrap_or(name).to_owned();
        error.message = format!("table {shown} does not exist");
        error.hint = Some(table_hint(state, &table));
        if error.position.is_none() {
            error.position = locate(sql, &table);
        }
    }
    if error.position.is_none()
        && let Some(quoted) = error.message.split('\'').nth(1)
    {
        error.position = locate(sql, quoted);
    }
    error
}

fn table_hint(state: &SessionState, wanted: &str) -> String {
    let current = &state.config_options().catalog.default_schema;
    let catalog = state.catalog_list().catalog(crate::names::CATALOG);
    let mut known = Vec::new();
    for schema in catalog.iter().flat_map(|catalog| catalog.schema_names()) {
        let provider = catalog.as_ref().and_then(|catalog| catalog.schema(&schema));
        for table in provider.map(|schema| schema.table_names()).unwrap_or_default() {
            known.push(if schema == *current {
                table
            } else {
                format!("{schema}.{table}")
            });
        }
    }
    let bare = known.iter().map(|name| name.rsplit('.').next().unwrap_or(name));
    if let Some(near) = nearest(wanted, bare) {
        let full = known
            .iter()
            .find(|name| name.rsplit('.').next() == Some(near))
            .map_or(near, String::as_str);
        return format!("did you mean {full}?");
    }
    let mut users: Vec<_> = known
        .into_iter()
        .filter(|name| !name.starts_with("information_schema.") && !name.starts_with("system."))
        .collect();
    users.sort();
    users.truncate(10);
    if users.is_empty() {
        return "there are no tables yet: put Parquet, CSV or JSON files into the data folder, or CREATE TABLE".into();
    }
    format!("tables here: {}", users.join(", "))
}

/// Table and predicate of a bound DELETE.
///
/// # Errors
/// For shapes that need a join or a sub-query.
pub fn delete_parts(plan: &LogicalPlan) -> Result<(TableName, Option<Expr>), QueryError> {
    let LogicalPlan::Dml(dml) = plan else {
        return Err(QueryError::internal("not a DELETE"));
    };
    Ok((dml_table(&dml.table_name), predicate(&dml.input)?))
}

/// Table, assignments and predicate of a bound UPDATE.
///
/// # Errors
/// For shapes that need a join or a sub-query.
#[expect(clippy::type_complexity, reason = "three parts of one statement, used once")]
pub fn update_parts(plan: &LogicalPlan) -> Result<(TableName, Vec<(String, Expr)>, Option<Expr>), QueryError> {
    let LogicalPlan::Dml(dml) = plan else {
        return Err(QueryError::internal("not an UPDATE"));
    };
    let LogicalPlan::Projection(projection) = dml.input.as_ref() else {
        return Err(
            unsupported("this UPDATE is not supported").with_hint("set columns of one table from expressions over it")
        );
    };
    let mut assignments = Vec::new();
    for (expr, field) in projection.expr.iter().zip(projection.schema.fields()) {
        let value = unqualified(expr.clone().unalias())?;
        if !matches!(&value, Expr::Column(column) if column.name == *field.name()) {
            assignments.push((field.name().clone(), value));
        }
    }
    Ok((dml_table(&dml.table_name), assignments, predicate(&projection.input)?))
}

fn dml_table(reference: &TableReference) -> TableName {
    TableName {
        schema: reference.schema().unwrap_or_default().to_owned(),
        table: reference.table().to_owned(),
    }
}

fn predicate(plan: &LogicalPlan) -> Result<Option<Expr>, QueryError> {
    let mut filters = Vec::new();
    let mut plan = Arc::new(plan.clone());
    loop {
        plan = match plan.as_ref() {
            LogicalPlan::Filter(filter) => {
                filters.push(unqualified(filter.predicate.clone())?);
                Arc::clone(&filter.input)
            }
            LogicalPlan::SubqueryAlias(alias) => Arc::clone(&alias.input),
            LogicalPlan::TableScan(_) => return Ok(conjunction(filters)),
            _ => {
                return Err(unsupported("this DELETE or UPDATE is not supported")
                    .with_hint("only one table, with a WHERE over its own columns"));
            }
        };
    }
}

fn unqualified(expr: Expr) -> Result<Expr, QueryError> {
    let rewritten = expr.transform(|expr| {
        Ok(match expr {
            Expr::Column(column) => Transformed::yes(Expr::Column(Column::new_unqualified(column.name))),
            other => Transformed::no(other),
        })
    })?;
    Ok(rewritten.data)
}
