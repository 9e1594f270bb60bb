//! Text → exactly one parsed statement, and the command word clients see for it.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use datafusion::common::TableReference;
use datafusion::common::format::ExplainStatementOptions;
use datafusion::sql::parser::{DFParserBuilder, ExplainStatement, Statement};
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast::{ObjectType, Statement as SqlStatement};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use trireme_exec::{Position, QueryError};

use crate::ddl::TableName;
use crate::dialect::TriremeDialect;
use crate::explain_placement::placement_request;
use crate::names::CATALOG;
use crate::redact::redacted_error;
use crate::{pins, secrets};

/// Nesting of expressions and sub-queries that the parser follows.
const RECURSION_LIMIT: usize = 100;

/// Queries parsed last, by text: one that comes in is classified, looked up and planned, each time from its text.
static RECENT: Mutex<VecDeque<(Box<str>, Statement)>> = Mutex::new(VecDeque::new());
const RECENT_MAX: usize = 16;
/// Longer texts are parsed anew each time.
const RECENT_BYTES: usize = 16 << 10;

/// Parses one statement; trailing semicolons and comments are fine.
///
/// # Errors
/// Syntax errors with their position; empty text; several statements.
pub fn parse(sql: &str) -> Result<Statement, QueryError> {
    let recent = || RECENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, statement)) = recent().iter().find(|(text, _)| **text == *sql) {
        return Ok(statement.clone());
    }
    if let Some(parsed) = secrets::parse(sql) {
        return parsed;
    }
    let statement = parse_text(sql).map_err(|error| redacted_error(sql, error))?;
    // Only queries: other statements may hold credentials.
    let is_query = matches!(&statement, Statement::Statement(inner) if matches!(**inner, SqlStatement::Query(_)));
    if is_query && sql.len() <= RECENT_BYTES {
        let mut recent = recent();
        recent.truncate(RECENT_MAX - 1);
        recent.push_front((sql.into(), statement.clone()));
    }
    Ok(statement)
}

fn parse_text(sql: &str) -> Result<Statement, QueryError> {
    check_chains(sql)?;
    // The engine answers it; for all who ask what kind of statement this is, it is an EXPLAIN.
    if let Some(request) = placement_request(sql)? {
        return Ok(Statement::Explain(ExplainStatement {
            options: ExplainStatementOptions::default(),
            statement: Box::new(parse_text(&request.statement)?),
        }));
    }
    if let Some(call) = pins::call(sql)? {
        return parse_text(&call);
    }
    let parsed = DFParserBuilder::new(sql)
        .with_dialect(&TriremeDialect)
        .with_recursion_limit(RECURSION_LIMIT)
        .build()
        .and_then(|mut parser| parser.parse_statements());
    let mut statements = parsed.map_err(|error| {
        let error = QueryError::from(error);
        let at_end = error.position.is_none() && error.message.ends_with("EOF");
        error.at(at_end.then(|| end_of(sql)))
    })?;
    let count = statements.len();
    match (statements.pop_front(), count) {
        (Some(statement), 1) => Ok(statement),
        (None, _) => Err(QueryError::invalid("the statement is empty").with_hint("send one SQL statement")),
        _ => Err(QueryError::invalid(format!("the text holds {count} statements"))
            .with_hint("send them one at a time (trisql splits scripts by itself)")),
    }
}

/// The place after the last character.
fn end_of(sql: &str) -> Position {
    let text = sql.trim_end();
    let last = text.rsplit('\n').next().unwrap_or_default();
    Position {
        line: text.matches('\n').count() as u64 + 1,
        column: last.chars().count() as u64 + 1,
    }
}

/// Statements shorter than this can't hold a chain that is too long.
const CHAIN_CHECK_BYTES: usize = 20_000;

/// Operators in a row that the parser may chain. A chain becomes a tree as deep as it is long, and merely dropping a deep
/// tree would overflow a stack.
const CHAIN_MAX: usize = 10_000;

fn check_chains(sql: &str) -> Result<(), QueryError> {
    if sql.len() < CHAIN_CHECK_BYTES {
        return Ok(());
    }
    let tokens = Tokenizer::new(&TriremeDialect, sql).tokenize().unwrap_or_default();
    let mut chain = 0;
    for token in &tokens {
        match token {
            Token::Comma | Token::SemiColon => chain = 0,
            Token::Word(word)
                if !matches!(
                    word.keyword,
                    Keyword::AND
                        | Keyword::OR
                        | Keyword::NOT
                        | Keyword::UNION
                        | Keyword::EXCEPT
                        | Keyword::INTERSECT
                        | Keyword::JOIN
                ) => {}
            Token::Word(_) => chain += 1,
            Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::Whitespace(_)
            | Token::RParen
            | Token::LParen
            | Token::Period => {}
            _ => chain += 1,
        }
        if chain > CHAIN_MAX {
            return Err(
                QueryError::invalid(format!("an expression chains more than {CHAIN_MAX} operators"))
                    .with_hint("write long OR lists as IN (…), and long unions as VALUES"),
            );
        }
    }
    Ok(())
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
        SqlStatement::CreateFunction(_) => "CREATE FUNCTION".into(),
        SqlStatement::DropFunction(_) => "DROP FUNCTION".into(),
        SqlStatement::AlterTable(_) => "ALTER TABLE".into(),
        SqlStatement::Drop { object_type, .. } => match object_type {
            ObjectType::View => "DROP VIEW".into(),
            ObjectType::Schema => "DROP SCHEMA".into(),
            _ => "DROP TABLE".into(),
        },
        other if pins::command(other).is_some() => pins::command(other).unwrap_or_default().into(),
        other if secrets::command(other).is_some() => secrets::command(other).unwrap_or_default().into(),
        other => other
            .to_string()
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_uppercase(),
    }
}

/// True when planning or running the statement may have to look at files: it names tables or table functions, or it
/// changes something other than its session.
///
/// # Errors
/// As [`parse`].
pub fn touches_files(sql: &str) -> Result<bool, QueryError> {
    let statement = parse(sql)?;
    if is_update(&statement) {
        return Ok(!matches!(command(&statement).as_str(), "SET" | "RESET" | "USE"));
    }
    let (tables, _) = resolve_table_references(&statement, true)?;
    Ok(!tables.is_empty())
}

/// Tables that a statement names, as far as they can be told without planning it.
pub fn named_tables(statement: &Statement, default_schema: &str) -> Vec<TableName> {
    let Ok((tables, _)) = resolve_table_references(statement, true) else {
        return Vec::new();
    };
    let named = |reference: TableReference| {
        let resolved = reference.resolve(CATALOG, default_schema);
        (*resolved.catalog == *CATALOG).then(|| TableName {
            schema: resolved.schema.to_string(),
            table: resolved.table.to_string(),
        })
    };
    tables.into_iter().filter_map(named).collect()
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
