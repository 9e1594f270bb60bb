//! Colours for the line that is being typed. Only looks: it may be wrong about a line in the middle of a long text.

use crate::complete::KEYWORDS;

const KEYWORD: &str = "\x1b[1;34m";
const TEXT: &str = "\x1b[32m";
const COMMENT: &str = "\x1b[2m";
const COMMAND: &str = "\x1b[36m";
const RESET: &str = "\x1b[0m";

/// Returns the line with colours; without them it is the same text.
pub(crate) fn sql(line: &str) -> String {
    let mut out = String::with_capacity(line.len() * 2);
    let mut rest = line;
    if line.trim_start().starts_with('\\') {
        return format!("{COMMAND}{line}{RESET}");
    }
    while let Some(first) = rest.chars().next() {
        let (len, color) = if first == '\'' {
            (closed_by(rest, "'"), Some(TEXT))
        } else if first == '"' {
            (closed_by(rest, "\""), None)
        } else if rest.starts_with("--") {
            (rest.find('\n').unwrap_or(rest.len()), Some(COMMENT))
        } else if rest.starts_with("/*") {
            (closed_by(rest, "*/"), Some(COMMENT))
        } else if first.is_alphabetic() || first == '_' {
            let len = rest
                .find(|c: char| !(c.is_alphanumeric() || c == '_'))
                .unwrap_or(rest.len());
            let is_keyword = KEYWORDS.binary_search(&rest[..len].to_uppercase().as_str()).is_ok();
            (len, is_keyword.then_some(KEYWORD))
        } else {
            (first.len_utf8(), None)
        };
        let (token, left) = rest.split_at(len);
        match color {
            Some(color) => out.extend([color, token, RESET]),
            None => out.push_str(token),
        }
        rest = left;
    }
    out
}

fn closed_by(text: &str, end: &str) -> usize {
    let start = if end == "*/" { 2 } else { 1 };
    text[start..].find(end).map_or(text.len(), |at| start + at + end.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_sorted_for_the_search() {
        assert!(KEYWORDS.is_sorted());
    }

    #[test]
    fn the_text_stays_the_same() {
        for line in [
            "select 'a''b', \"c\" -- d",
            "select 'open",
            "/* ü */ é_1 'ß",
            "\\d x",
            "/*",
            "'",
        ] {
            let mut plain = sql(line);
            for code in [KEYWORD, TEXT, COMMENT, COMMAND, RESET] {
                plain = plain.replace(code, "");
            }
            assert_eq!(plain, line);
        }
        assert!(sql("Select 1").starts_with(KEYWORD));
    }
}
