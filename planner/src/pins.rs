//! `PIN PLACEMENT '<json>' FOR <query>` and `UNPIN PLACEMENT FOR <query>`: which statements run where a user says.
//!
//! What is pinned is the statement's shape in its schema, so that constants don't matter, where they are no part of a plan.
//! The parser knows neither statement: they become calls of procedures, which are DDL of the catalog.

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Statement as SqlStatement, Value,
};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, Tokenizer};
use trireme_costs::Pins;
use trireme_exec::QueryError;

use crate::bind::bind;
use crate::ddl::{Ddl, PinnedStatement};
use crate::dialect::TriremeDialect;
use crate::parse;
use crate::plan_cache::shape;
use crate::text::sql_text;

const PIN: &str = "trireme_pin_placement";
const UNPIN: &str = "trireme_unpin_placement";

/// Bytes of the text of a pinned statement.
const SQL_BYTES_MAX: usize = 64 << 10;

/// The call that the text stands for; none for all other statements.
///
/// # Errors
/// When it is one of ours and not whole.
pub(crate) fn call(sql: &str) -> Result<Option<String>, QueryError> {
    let start = sql.trim_start();
    let begins = |word: &str| {
        start
            .get(..word.len())
            .is_some_and(|text| text.eq_ignore_ascii_case(word))
    };
    if !begins("pin") && !begins("unpin") {
        return Ok(None);
    }
    let Ok(tokens) = Tokenizer::new(&TriremeDialect, sql).tokenize_with_location() else {
        return Ok(None);
    };
    let tokens: Vec<_> = tokens
        .into_iter()
        .filter(|token| !matches!(token.token, Token::Whitespace(_)))
        .collect();
    let word = |at: usize, name: &str| {
        let token = tokens.get(at).map(|token| &token.token);
        matches!(token, Some(Token::Word(word)) if word.value.eq_ignore_ascii_case(name))
    };
    let pins = word(0, "pin");
    if !(pins || word(0, "unpin")) || !word(1, "placement") {
        return Ok(None);
    }
    let json = match tokens.get(2).map(|token| &token.token) {
        Some(Token::SingleQuotedString(text)) if pins => Some(text.clone()),
        _ => None,
    };
    let at = if pins { 3 } else { 2 };
    let statement = tokens.get(at + 1).map(|token| from(sql, token.span.start));
    match (json, statement.filter(|_| word(at, "for"))) {
        (Some(json), Some(statement)) if pins => Ok(Some(text(PIN, &[&json, statement]))),
        (None, Some(statement)) if !pins => Ok(Some(text(UNPIN, &[statement]))),
        _ => Err(QueryError::invalid("the statement is not whole").with_hint(
            "write PIN PLACEMENT '<json>' FOR <query>, or UNPIN PLACEMENT FOR <query>; \
             EXPLAIN (PLACEMENT, FORMAT json) <query> writes the JSON",
        )),
    }
}

fn text(procedure: &str, arguments: &[&str]) -> String {
    let quoted: Vec<_> = arguments
        .iter()
        .map(|argument| format!("'{}'", argument.trim().trim_end_matches(';').replace('\'', "''")))
        .collect();
    format!("CALL {procedure}({})", quoted.join(", "))
}

/// The text from a place on: line and column from 1, in characters.
fn from(sql: &str, place: Location) -> &str {
    let (mut line, mut column) = (1, 1);
    for (at, character) in sql.char_indices() {
        if (line, column) == (place.line, place.column) {
            return &sql[at..];
        }
        if character == '\n' {
            (line, column) = (line + 1, 1);
        } else {
            column += 1;
        }
    }
    ""
}

/// The command word of a call that is one of ours.
pub(crate) fn command(statement: &SqlStatement) -> Option<&'static str> {
    match called(statement)?.0.as_str() {
        PIN => Some("PIN PLACEMENT"),
        UNPIN => Some("UNPIN PLACEMENT"),
        _ => None,
    }
}

pub(crate) fn called(statement: &SqlStatement) -> Option<(String, Vec<&str>)> {
    let SqlStatement::Call(Function { name, args, .. }) = statement else {
        return None;
    };
    let FunctionArguments::List(list) = args else {
        return None;
    };
    let texts = list.args.iter().map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value))) => match &value.value {
            Value::SingleQuotedString(text) => Some(text.as_str()),
            _ => None,
        },
        _ => None,
    });
    Some((name.to_string().to_lowercase(), texts.collect::<Option<_>>()?))
}

/// The change that a call asks for; none when it is another's.
///
/// # Errors
/// When the JSON is no placement, or the statement no query.
pub(crate) fn ddl(statement: &SqlStatement, schema: &str) -> Result<Option<Ddl>, QueryError> {
    let Some((procedure, arguments)) = called(statement) else {
        return Ok(None);
    };
    match (procedure.as_str(), arguments.as_slice()) {
        (PIN, [json, sql]) => {
            let pins = Pins::parse(json).map_err(|reason| {
                QueryError::invalid(format!("this placement can't be pinned: {reason}"))
                    .with_hint("EXPLAIN (PLACEMENT, FORMAT json) <query> writes one")
            })?;
            Ok(Some(Ddl::PinPlacement {
                schema: schema.to_owned(),
                shape: shape_of(sql)?,
                pinned: PinnedStatement {
                    sql: (*sql).to_owned(),
                    pins: pins.to_json(),
                },
            }))
        }
        (UNPIN, [sql]) => Ok(Some(Ddl::UnpinPlacement {
            schema: schema.to_owned(),
            shape: shape_of(sql)?,
        })),
        _ => Ok(None),
    }
}

fn shape_of(sql: &str) -> Result<String, QueryError> {
    if sql.len() > SQL_BYTES_MAX {
        return Err(QueryError::invalid(format!(
            "a pinned statement has at most {SQL_BYTES_MAX} bytes"
        )));
    }
    let mut statement = parse::parse(sql)?;
    bind(&mut statement)?;
    key(&statement).ok_or_else(|| QueryError::invalid("only a query's placement can be pinned"))
}

/// What a bound query is pinned by: its shape. Of EXPLAIN it is the explained query's; other statements have none.
pub fn key(statement: &Statement) -> Option<String> {
    match statement {
        Statement::Explain(explain) => key(&explain.statement),
        Statement::Statement(inner) if matches!(inner.as_ref(), SqlStatement::Query(_)) => {
            Some(shape::shape(statement).map_or_else(|| sql_text(inner.as_ref()), |shape| shape.text))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ddl_of(sql: &str) -> Result<Option<Ddl>, QueryError> {
        let Statement::Statement(statement) = parse::parse(sql)? else {
            return Ok(None);
        };
        ddl(&statement, "public")
    }

    #[test]
    fn a_query_is_pinned_by_its_shape() {
        let sql = "PIN PLACEMENT '{\"0\": \"cpu0\"}'\n FOR SELECT a FROM t WHERE b = 'it''s' AND c < 7;";
        let Ddl::PinPlacement { shape, pinned, .. } = ddl_of(sql).unwrap().unwrap() else {
            panic!("no pin");
        };
        assert_eq!(pinned.sql, "SELECT a FROM t WHERE b = 'it''s' AND c < 7");
        assert_eq!(pinned.pins, r#"[{"graph":0,"devices":{"0":"cpu0"}}]"#);
        let mut other = parse::parse("EXPLAIN (PLACEMENT) SELECT a FROM t WHERE b = 'x' AND c < 8").unwrap();
        bind(&mut other).unwrap();
        assert_eq!(key(&other), Some(shape.clone()));
        let Ddl::UnpinPlacement { shape: unpinned, .. } =
            ddl_of("unpin placement for select a from t where b = 'y' and c < 9")
                .unwrap()
                .unwrap()
        else {
            panic!("no unpin");
        };
        assert_eq!(unpinned, shape);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (sql, words) in [
            ("PIN PLACEMENT FOR SELECT 1", "not whole"),
            ("PIN PLACEMENT '{}' SELECT 1", "not whole"),
            ("PIN PLACEMENT '{}' FOR SELECT 1", "no fragment"),
            ("PIN PLACEMENT '{\"0\": \"cpu0\"}' FOR SET x = 1", "only a query"),
            ("UNPIN PLACEMENT FOR", "not whole"),
            ("PIN PLACEMENT '{\"0\": \"cpu0\"}' FOR SELEC 1", "SELEC"),
        ] {
            let error = ddl_of(sql).unwrap_err();
            assert!(error.to_string().contains(words), "{sql}: {error}");
        }
        assert_eq!(call("pinned").unwrap(), None);
    }
}
