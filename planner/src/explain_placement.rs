//! `EXPLAIN (PLACEMENT …)`: which device each fragment of a statement would run on, and why.
//!
//! The parser's list of EXPLAIN options is closed, so this one is taken from the text before it is parsed. What it asks for
//! is a node over the statement's physical plan, which makes rows of the fragments that stand in it.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use trireme_exec::QueryError;
use trireme_exec::operators::PlacementFormat;

use crate::dialect::TriremeDialect;

/// What a statement asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacementRequest {
    /// The statement runs, and what it took stands beside what was expected.
    pub analyze: bool,
    /// How the answer is written.
    pub format: PlacementFormat,
    /// Devices of the catalogue that are taken to be there, in the place of those that are; empty: these.
    pub devices: Vec<String>,
    /// The statement, at its place in the text: what stands before it is blank.
    pub statement: String,
}

/// The request that a text is; none for all other statements.
///
/// # Errors
/// An option or a format that there isn't.
pub fn placement_request(sql: &str) -> Result<Option<PlacementRequest>, QueryError> {
    let start = sql.trim_start();
    // Most statements are told apart by a look; comments before EXPLAIN are rare enough to be parsed.
    let explains = |text: &str| text.get(..7).is_some_and(|word| word.eq_ignore_ascii_case("explain"));
    if !explains(start) && !start.starts_with("--") && !start.starts_with("/*") {
        return Ok(None);
    }
    let Ok(tokens) = Tokenizer::new(&TriremeDialect, sql).tokenize_with_location() else {
        return Ok(None);
    };
    let mut tokens = tokens
        .into_iter()
        .filter(|token| !matches!(token.token, Token::Whitespace(_)));
    let is_explain = tokens.next().is_some_and(|token| is_word(&token, "explain"));
    if !is_explain || tokens.next().is_none_or(|token| token.token != Token::LParen) {
        return Ok(None);
    }
    let mut options: Vec<Vec<TokenWithSpan>> = vec![Vec::new()];
    let mut end = None;
    for token in tokens {
        match token.token {
            Token::RParen => {
                end = Some(token.span.end);
                break;
            }
            Token::Comma => options.push(Vec::new()),
            Token::LParen => return Ok(None),
            _ => {
                if let Some(option) = options.last_mut() {
                    option.push(token);
                }
            }
        }
    }
    let asks = options
        .iter()
        .any(|option| option.first().is_some_and(|word| is_word(word, "placement")));
    let Some(end) = end.filter(|_| asks) else {
        return Ok(None);
    };
    let mut request = PlacementRequest {
        analyze: false,
        format: PlacementFormat::Table,
        devices: Vec::new(),
        statement: blanked(sql, end.line, end.column),
    };
    for option in &options {
        read_option(option, &mut request)?;
    }
    if request.statement.trim().is_empty() {
        return Err(QueryError::invalid("EXPLAIN (PLACEMENT) has no statement").with_hint("put a query behind it"));
    }
    Ok(Some(request))
}

fn is_word(token: &TokenWithSpan, name: &str) -> bool {
    matches!(&token.token, Token::Word(word) if word.value.eq_ignore_ascii_case(name))
}

fn text_of(token: &TokenWithSpan) -> String {
    match &token.token {
        Token::Word(word) => word.value.to_lowercase(),
        Token::SingleQuotedString(text) => text.to_lowercase(),
        other => other.to_string().to_lowercase(),
    }
}

fn read_option(option: &[TokenWithSpan], request: &mut PlacementRequest) -> Result<(), QueryError> {
    let words: Vec<String> = option.iter().map(text_of).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let known = "ANALYZE, FORMAT table, text, json or mermaid, and DEVICES 'gpu-l4, …'";
    match words.as_slice() {
        ["placement" | "verbose"] => {}
        ["analyze" | "analyse"] | ["analyze" | "analyse", "true" | "on" | "1"] => request.analyze = true,
        ["analyze" | "analyse", "false" | "off" | "0"] => request.analyze = false,
        ["format", "table"] => request.format = PlacementFormat::Table,
        ["format", "text" | "tree"] => request.format = PlacementFormat::Text,
        ["format", "json"] => request.format = PlacementFormat::Json,
        ["format", "mermaid"] => request.format = PlacementFormat::Mermaid,
        ["devices", list] => {
            let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
            request.devices = names.map(ToOwned::to_owned).collect();
        }
        _ => {
            let text = words.join(" ");
            return Err(
                QueryError::invalid(format!("EXPLAIN (PLACEMENT) has no option \"{text}\""))
                    .with_hint(format!("beside PLACEMENT there are {known}")),
            );
        }
    }
    Ok(())
}

/// The text with everything before a place (line and column from 1, in characters) as blanks, so that positions in errors hold.
fn blanked(sql: &str, line: u64, column: u64) -> String {
    let (mut at_line, mut at_column) = (1, 1);
    sql.chars()
        .map(|character| {
            let before = (at_line, at_column) < (line, column);
            if character == '\n' {
                (at_line, at_column) = (at_line + 1, 1);
                return character;
            }
            at_column += 1;
            if before { ' ' } else { character }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_and_the_statement_at_its_place() {
        let request = placement_request("explain (placement,\n analyze, format JSON) select 1")
            .unwrap()
            .unwrap();
        assert!(request.analyze);
        assert_eq!(request.format, PlacementFormat::Json);
        assert_eq!(request.statement.trim(), "select 1");
        assert_eq!(
            request.statement.find("select"),
            Some("explain (placement,\n analyze, format JSON) ".len())
        );
        let error = placement_request("EXPLAIN (PLACEMENT, COSTS) SELECT 1").unwrap_err();
        assert!(error.to_string().contains("costs"), "{error}");
        assert!(placement_request("EXPLAIN (PLACEMENT)").is_err());
        let request = placement_request("EXPLAIN (PLACEMENT, DEVICES 'gpu-l4, gpu-h200') SELECT 1");
        assert_eq!(request.unwrap().unwrap().devices, ["gpu-l4", "gpu-h200"]);
    }

    #[test]
    fn other_statements_are_left_alone() {
        for sql in [
            "SELECT 1",
            "EXPLAIN SELECT 1",
            "EXPLAIN (ANALYZE) SELECT 1",
            "explain (select placement from t)",
            "-- explain (placement) select 1",
            "",
        ] {
            assert_eq!(placement_request(sql).unwrap(), None, "{sql}");
        }
        let commented = "/* why */ EXPLAIN (PLACEMENT) SELECT 1";
        assert!(placement_request(commented).unwrap().is_some());
    }
}
