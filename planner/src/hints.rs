//! Hint comments: settings that hold for one statement.
//!
//! ```sql
//! SELECT /*+ objective(cost) max_ms(200) devices(cpu0) placement(cost) */ …
//! ```
//!
//! They are read from the text: the parser drops comments. A hint comment stands right behind the statement's SELECT; other
//! comments that begin like one, in views and functions among them, are comments.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, Whitespace};
use trireme_config::SessionSettings;
use trireme_exec::{Position, QueryError};

use crate::dialect::TriremeDialect;
use crate::names::nearest;

/// Settings that a hint may change, without `trireme.`.
const HINTS: [&str; 11] = [
    "objective",
    "max_ms",
    "max_usd",
    "max_joules",
    "devices",
    "device_mode",
    "placement",
    "pinned",
    "cpu_variant",
    "reorder_joins",
    "plan_cache",
];

/// Statements whose SELECT may have hints.
const STATEMENTS: [&str; 5] = ["select", "with", "explain", "insert", "copy"];

/// Settings that a statement asks for: canonical names and values.
///
/// # Errors
/// A hint that there isn't, or a value that it doesn't take, with its place.
pub fn hints(sql: &str) -> Result<Vec<(String, String)>, QueryError> {
    // Most statements are told apart by a look.
    if !sql.contains("/*+") {
        return Ok(Vec::new());
    }
    let Ok(tokens) = Tokenizer::new(&TriremeDialect, sql).tokenize_with_location() else {
        return Ok(Vec::new());
    };
    let word = |token: &TokenWithSpan| match &token.token {
        Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_lowercase()),
        _ => None,
    };
    let first = tokens
        .iter()
        .find(|token| !matches!(token.token, Token::Whitespace(_) | Token::LParen));
    if !first
        .and_then(word)
        .is_some_and(|word| STATEMENTS.contains(&word.as_str()))
    {
        return Ok(Vec::new());
    }
    let mut found: Option<Vec<(String, String)>> = None;
    let mut behind_select = false;
    for token in &tokens {
        match &token.token {
            Token::Whitespace(Whitespace::MultiLineComment(text)) if behind_select && text.starts_with('+') => {
                let start = token.span.start;
                let position = Position {
                    line: start.line,
                    column: start.column,
                };
                if found.is_some() {
                    let error = QueryError::invalid("the statement has two hint comments");
                    return Err(error
                        .with_hint("hints hold for the whole statement: write all in one")
                        .at(Some(position)));
                }
                found = Some(read(&text[1..]).map_err(|error| error.at(Some(position)))?);
            }
            Token::Whitespace(_) => {}
            _ => behind_select = word(token).is_some_and(|word| word == "select"),
        }
    }
    Ok(found.unwrap_or_default())
}

/// `name(value) …`, separated by blanks or commas.
fn read(text: &str) -> Result<Vec<(String, String)>, QueryError> {
    let mut settings = Vec::new();
    let mut rest = text.trim_matches(separates);
    while !rest.is_empty() {
        let (name, value, behind) = one(rest)?;
        rest = behind.trim_matches(separates);
        let name = name.trim().to_lowercase();
        if !HINTS.contains(&name.as_str()) {
            let error = QueryError::invalid(format!("there is no hint \"{name}\""));
            return Err(match nearest(&name, HINTS) {
                Some(near) => error.with_hint(format!("did you mean {near}?")),
                None => error.with_hint(format!("there are {}", HINTS.join(", "))),
            });
        }
        let checked = SessionSettings::validate(&format!("trireme.{name}"), unquoted(value)).map_err(|error| {
            let hint = error.hint();
            QueryError::invalid(error.to_string()).with_hint(hint)
        })?;
        settings.push((checked.name, checked.value));
    }
    Ok(settings)
}

fn separates(character: char) -> bool {
    character.is_whitespace() || character == ','
}

/// Name, value, and what stands behind; parentheses in quotes are the value's.
fn one(text: &str) -> Result<(&str, &str, &str), QueryError> {
    let malformed = || {
        QueryError::invalid(format!("\"{}\" is not a hint", text.trim()))
            .with_hint("write /*+ name(value) … */, for example /*+ objective(cost) max_ms(200) */")
    };
    let open = text.find('(').ok_or_else(malformed)?;
    let mut quote = None;
    for (at, character) in text[open + 1..].char_indices() {
        match (character, quote) {
            ('\'' | '"', None) => quote = Some(character),
            (character, Some(of)) if character == of => quote = None,
            (')', None) => {
                let (value, behind) = (&text[open + 1..open + 1 + at], &text[open + 2 + at..]);
                return Ok((&text[..open], value, behind));
            }
            _ => {}
        }
    }
    Err(malformed())
}

fn unquoted(value: &str) -> &str {
    let value = value.trim();
    let inner = value.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
    inner.unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sql: &str) -> Vec<(String, String)> {
        hints(sql).unwrap()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| (format!("trireme.{name}"), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn hints_are_settings() {
        assert_eq!(
            of("SELECT /*+ objective(cost), max_ms(0.5) Devices(cpu0, opencl0)placement(COST) */ 1"),
            pairs(&[
                ("objective", "cost"),
                ("max_ms", "0.5"),
                ("devices", "cpu0, opencl0"),
                ("placement", "cost")
            ])
        );
        assert_eq!(
            of("explain (placement) select\n /*+ pinned('{\"0\": \"cpu0\"}') */ 1"),
            pairs(&[("pinned", "{\"0\": \"cpu0\"}")])
        );
        assert_eq!(
            of("WITH a AS (SELECT /*+ max_ms(2s) */ 1) SELECT 1"),
            pairs(&[("max_ms", "2000")])
        );
    }

    #[test]
    fn comments_are_comments() {
        for sql in [
            "SELECT 1",
            "SELECT 1 /*+ objective(x) */",
            "SELECT '/*+ objective(x) */'",
            "SELECT \"select\" /*+ objective(x) */ FROM t",
            "/*+ objective(x) */ SELECT 1",
            "SELECT /* + objective(x) */ 1",
            "CREATE VIEW v AS SELECT /*+ objective(x) */ 1",
            "SELECT /*+ */ 1",
        ] {
            assert_eq!(of(sql), Vec::new(), "{sql}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (sql, words) in [
            ("SELECT /*+ objectiv(cost) */ 1", "objectiv"),
            ("SELECT /*+ objective(cheap) */ 1", "latency, cost"),
            ("SELECT /*+ max_ms(-1) */ 1", "max_ms"),
            ("SELECT /*+ max_ms */ 1", "not a hint"),
            ("SELECT /*+ max_ms(1 */ 1", "not a hint"),
            (
                "SELECT /*+ max_ms(1) */ 1 UNION SELECT /*+ max_ms(1) */ 2",
                "two hint comments",
            ),
        ] {
            let error = hints(sql).unwrap_err();
            assert!(error.to_string().contains(words), "{sql}: {error}");
            assert!(error.position.is_some(), "{sql}");
        }
        let near = hints("SELECT /*+ objectiv(cost) */ 1").unwrap_err();
        assert_eq!(near.hint.as_deref(), Some("did you mean objective?"));
    }
}
