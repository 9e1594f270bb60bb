//! What Tab offers: backslash commands, keywords, and the names of tables, which are fetched at the first Tab.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::catalog;
use crate::connection::Connection;
use crate::format::Shape;
use crate::meta::COMMANDS;

/// Tab must never hang: after this long there are no names.
const FETCH_TIMEOUT: Duration = Duration::from_secs(2);
const CANDIDATES_MAX: usize = 500;

pub(crate) const KEYWORDS: &[&str] = &[
    "ALL",
    "ALTER",
    "ANALYZE",
    "AND",
    "ANTI",
    "ANY",
    "AS",
    "ASC",
    "BETWEEN",
    "BIGINT",
    "BOOLEAN",
    "BY",
    "CASE",
    "CAST",
    "COALESCE",
    "COLUMNS",
    "COPY",
    "COUNT",
    "CREATE",
    "CROSS",
    "CURRENT_DATE",
    "DATE",
    "DECIMAL",
    "DELETE",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "DOUBLE",
    "DROP",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "EXTERNAL",
    "EXTRACT",
    "FALSE",
    "FILTER",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "IF",
    "ILIKE",
    "IN",
    "INNER",
    "INSERT",
    "INTERSECT",
    "INTERVAL",
    "INTO",
    "IS",
    "JOIN",
    "LATERAL",
    "LEFT",
    "LIKE",
    "LIMIT",
    "LOCATION",
    "NATURAL",
    "NOT",
    "NULL",
    "NULLS",
    "OFFSET",
    "ON",
    "OPTIONS",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PARTITION",
    "PARTITIONED",
    "QUALIFY",
    "RECURSIVE",
    "REPLACE",
    "RIGHT",
    "ROWS",
    "SCHEMA",
    "SELECT",
    "SEMI",
    "SET",
    "SHOW",
    "STORED",
    "SUM",
    "TABLE",
    "TABLES",
    "THEN",
    "TIMESTAMP",
    "TO",
    "TRUE",
    "UNION",
    "UNNEST",
    "UPDATE",
    "USING",
    "VALUES",
    "VARCHAR",
    "VIEW",
    "WHEN",
    "WHERE",
    "WINDOW",
    "WITH",
];

/// The known names of tables, shared between the editor and the shell, which forgets them after a change.
#[derive(Default)]
pub(crate) struct Names {
    known: Mutex<Option<Arc<Vec<String>>>>,
}

impl Names {
    pub(crate) fn forget(&self) {
        *self.known.lock() = None;
    }

    pub(crate) fn get(&self, connection: &Connection, runtime: &Handle) -> Arc<Vec<String>> {
        if let Some(known) = self.known.lock().clone() {
            return known;
        }
        let fetch = async { tokio::time::timeout(FETCH_TIMEOUT, catalog::tables(connection)).await };
        let Ok(Ok(tables)) = runtime.block_on(fetch) else {
            return Arc::default();
        };
        let mut names: Vec<String> = Vec::new();
        for table in tables {
            let name = quoted(&table.name);
            let schema = table.schema.as_deref().map(quoted);
            if !table.is_system() {
                names.push(name.clone());
            }
            if let Some(schema) = schema {
                names.push(format!("{schema}.{name}"));
            }
        }
        names.sort();
        names.dedup();
        let names = Arc::new(names);
        *self.known.lock() = Some(Arc::clone(&names));
        names
    }
}

/// What can stand at the end of `text`: where it begins, and the candidates.
pub(crate) struct Candidates {
    pub(crate) start: usize,
    pub(crate) words: Vec<String>,
}

pub(crate) fn candidates(text: &str, names: impl FnOnce() -> Arc<Vec<String>>) -> Candidates {
    let start = text
        .rfind(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '"' | '\\' | '?')))
        .map_or(0, |at| at + text[at..].chars().next().map_or(1, char::len_utf8));
    let word = &text[start..];
    let mut words = Vec::new();
    if let Some(command) = word.strip_prefix('\\') {
        words = commands(command);
    } else if text.trim_start().starts_with('\\') {
        words = arguments(text.trim_start(), word, names);
    } else if !word.is_empty() {
        let shouting = !word.chars().any(char::is_lowercase);
        let upper = word.to_uppercase();
        words.extend(
            KEYWORDS
                .iter()
                .filter(|keyword| keyword.starts_with(&upper))
                .map(|keyword| {
                    if shouting {
                        (*keyword).to_owned()
                    } else {
                        keyword.to_lowercase()
                    }
                }),
        );
        words.extend(starting_with(&names(), word));
    } else {
        words.extend(starting_with(&names(), ""));
    }
    words.truncate(CANDIDATES_MAX);
    Candidates { start, words }
}

fn commands(prefix: &str) -> Vec<String> {
    COMMANDS
        .iter()
        .flat_map(|command| command.names)
        .filter(|name| name.starts_with(prefix))
        .map(|name| format!("\\{name}"))
        .collect()
}

fn arguments(text: &str, word: &str, names: impl FnOnce() -> Arc<Vec<String>>) -> Vec<String> {
    let of = |options: &[&str]| {
        options
            .iter()
            .filter(|option| option.starts_with(word))
            .map(|option| (*option).to_owned())
            .collect()
    };
    match text[1..].split_whitespace().next().unwrap_or_default() {
        "d" | "d+" | "dt" | "dv" => starting_with(&names(), word),
        "timing" | "x" | "t" => of(&["on", "off"]),
        "pset" => of(&["null", "format", "expanded", "tuples_only", "timing", "pager"]),
        "format" => {
            let shapes = <Shape as clap::ValueEnum>::value_variants()
                .iter()
                .map(|shape| shape.name());
            shapes.filter(|name| name.starts_with(word)).collect()
        }
        _ => Vec::new(),
    }
}

fn starting_with(names: &[String], word: &str) -> Vec<String> {
    let lowered = word.to_lowercase();
    names
        .iter()
        .filter(|name| name.to_lowercase().starts_with(&lowered))
        .cloned()
        .collect()
}

/// A name as it has to be written in SQL.
fn quoted(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !KEYWORDS.contains(&name.to_uppercase().as_str());
    if is_plain {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(text: &str) -> (usize, Vec<String>) {
        let names = || {
            Arc::new(vec![
                "lineitem".to_owned(),
                "public.lineitem".to_owned(),
                "\"Odd\"".to_owned(),
            ])
        };
        let found = candidates(text, names);
        (found.start, found.words)
    }

    #[test]
    fn keywords_keep_the_case_that_was_begun() {
        assert_eq!(offered("sel"), (0, vec!["select".to_owned()]));
        assert_eq!(offered("SEL"), (0, vec!["SELECT".to_owned()]));
        assert_eq!(offered("select * from linei"), (14, vec!["lineitem".to_owned()]));
        assert_eq!(offered("select (pub").1, ["public.lineitem"]);
    }

    #[test]
    fn commands_and_their_arguments() {
        assert_eq!(offered("\\tim"), (0, vec!["\\timing".to_owned()]));
        assert_eq!(offered("\\d li"), (3, vec!["lineitem".to_owned()]));
        assert_eq!(offered("\\format c").1, ["csv"]);
        assert_eq!(offered("select 1 \\g").1, ["\\g", "\\gx"]);
    }

    #[test]
    fn names_are_quoted_when_needed() {
        assert_eq!(quoted("a_1"), "a_1");
        assert_eq!(quoted("A"), "\"A\"");
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
        assert_eq!(quoted("order"), "\"order\"");
    }
}
