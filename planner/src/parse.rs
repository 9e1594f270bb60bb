//! Text → exactly one parsed statement, and the command word clients see for it.

use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{ObjectType, Statement as SqlStatement};
use trireme_exec::QueryError;

use crate::dialect::TriremeDialect;

/// Nesting of expressions and sub-queries that the parser follows.
const RECURSION_LIMIT: usize = 100;

/// Parses one statement; trailing semicolons and comments are fine.
///
/// # Errors
/// Syntax errors with their position; empty text; several statements.
pub fn parse(sql: &str) -> Result<Statement, QueryError> {
    let mut statements = DFParserBuilder::new(sql)
        .with_dialect(&TriremeDialect)
        .with_recursion_limit(RECURSION_LIMIT)
        .build()?
        .parse_statements()?;
    let count = statements.len();
    match (statements.pop_front(), count) {
        (Some(statement), 1) => Ok(statement),
        (None, _) => Err(QueryError::invalid("the statement is empty").with_hint("send one SQL statement")),
        _ => Err(QueryError::invalid(format!("the text holds {count} statements"))
            .with_hint("send them one at a time (trisql splits scripts by itself)")),
    }
}

/// The command word of a statement, as in psql's command tags.
pub fn command(statement: &Statement) -> String {
    match statement {
        Statement::CreateExternalTable(_) => "CREATE EXTERNAL TABLE".into(),
        Statement::CopyTo(_) => "COPY".into(),
        Statement::Explain(_) => "EXPLAIN".into(),
        Statement::Reset(_) => "RESET".into(),
        Statement::Statement(statement) => sql_command(statement),
    }
}

fn sql_command(statement: &SqlStatement) -> String {
    match statement {
        SqlStatement::Query(_) => "SELECT".into(),
        SqlStatement::Insert(_) => "INSERT".into(),
        SqlStatement::Update(_) => "UPDATE".into(),
        SqlStatement::Delete(_) => "DELETE".into(),
        SqlStatement::Set(_) => "SET".into(),
        SqlStatement::Use(_) => "USE".into(),
        SqlStatement::Analyze(_) => "ANALYZE".into(),
        SqlStatement::CreateTable(_) => "CREATE TABLE".into(),
        SqlStatement::CreateView(_) => "CREATE VIEW".into(),
        SqlStatement::CreateSchema { .. } => "CREATE SCHEMA".into(),
        SqlStatement::AlterTable(_) => "ALTER TABLE".into(),
        SqlStatement::Drop { object_type, .. } => match object_type {
            ObjectType::View => "DROP VIEW".into(),
            ObjectType::Schema => "DROP SCHEMA".into(),
            _ => "DROP TABLE".into(),
        },
        other => other.to_string().split_whitespace().next().unwrap_or_default().to_uppercase(),
    }
}

/// True for statements without result rows of their own; they run once, at once.
pub fn is_update(statement: &Statement) -> bool {
    match statement {
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => true,
        Statement::Explain(_) => false,
        Statement::Statement(statement) => !matches!(
            statement.as_ref(),
            SqlStatement::Query(_)
                | SqlStatement::ExplainTable { .. }
                | SqlStatement::ShowTables { .. }
                | SqlStatement::ShowColumns { .. }
                | SqlStatement::ShowVariable { .. }
                | SqlStatement::ShowFunctions { .. }
                | SqlStatement::ShowCreate { .. }
                | SqlStatement::ShowSchemas { .. }
                | SqlStatement::ShowDatabases { .. }
        ),
    }
}
