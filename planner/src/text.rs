//! Parsed SQL as text that is parsed to the same again.
//!
//! The parser's own texts leave quotes alone that stand twice or behind a backslash, as if they were escaped already, so the
//! texts `'` and `''` are written alike. With every quote doubled they are, and nothing is left to guess.

use std::fmt::Display;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, ObjectNamePart, Value, ValueWithSpan, VisitMut, VisitorMut,
};

/// A statement, query or expression as text.
pub(crate) fn sql_text<T: VisitMut + Display + Clone>(parsed: &T) -> String {
    let text = parsed.to_string();
    if !["''", r"\'", "\"\"", "``"].iter().any(|quotes| text.contains(quotes)) {
        return text;
    }
    let mut doubled = parsed.clone();
    let _ = doubled.visit(&mut Doubling);
    doubled.to_string()
}

struct Doubling;

impl VisitorMut for Doubling {
    type Break = ();

    fn pre_visit_value(&mut self, value: &mut ValueWithSpan) -> ControlFlow<()> {
        if let Value::SingleQuotedString(text) = &mut value.value {
            double(text, '\'');
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(name) => double_name(name),
            Expr::CompoundIdentifier(names) => names.iter_mut().for_each(double_name),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<()> {
        for part in &mut relation.0 {
            if let ObjectNamePart::Identifier(name) = part {
                double_name(name);
            }
        }
        ControlFlow::Continue(())
    }
}

fn double_name(name: &mut Ident) {
    if let Some(quote) = name.quote_style {
        double(&mut name.value, quote);
    }
}

fn double(text: &mut String, quote: char) {
    if text.contains(quote) {
        *text = text.replace(quote, &format!("{quote}{quote}"));
    }
}

#[cfg(test)]
mod tests {
    use super::sql_text;
    use crate::parse;
    use datafusion::sql::parser::Statement;

    #[test]
    fn texts_are_parsed_to_the_same_again() {
        let text = |sql: &str| match parse::parse(sql).unwrap() {
            Statement::Statement(statement) => sql_text(statement.as_ref()),
            _ => panic!("{sql}"),
        };
        for literal in [
            "'a'",
            "''''",
            "''''''",
            "'a''''b'",
            r"'\'",
            r"'\'''",
            r"'\\'''''",
            "'x''y'",
        ] {
            let sql = format!("SELECT s FROM t WHERE s = {literal} OR \"a\"\"\"\"b\" LIKE {literal}");
            assert_eq!(text(&sql), sql);
            assert_eq!(text(&text(&sql)), sql);
        }
    }
}
