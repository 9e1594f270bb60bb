//! Parsed SQL as text that is parsed to the same again.
//!
//! The parser's own texts leave quotes alone that stand twice or behind a backslash, as if they were escaped already, so the
//! texts `'` and `''` are written alike. With every quote doubled they are, and nothing is left to guess.

use std::fmt::Display;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, ObjectNamePart, Value, ValueWithSpan, Visit, VisitMut, Visitor, VisitorMut,
};

/// A statement, query or expression as text.
pub(crate) fn sql_text<T: Visit + VisitMut + Display + Clone>(parsed: &T) -> String {
    if Visit::visit(parsed, &mut Quotes).is_continue() {
        return parsed.to_string();
    }
    let mut doubled = parsed.clone();
    let _ = VisitMut::visit(&mut doubled, &mut Doubling);
    doubled.to_string()
}

/// Breaks at the first text or name that has its own quote in it.
struct Quotes;

impl Visitor for Quotes {
    type Break = ();

    fn pre_visit_value(&mut self, value: &ValueWithSpan) -> ControlFlow<()> {
        match &value.value {
            Value::SingleQuotedString(text) if text.contains('\'') => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(name) if is_doubled(name) => ControlFlow::Break(()),
            Expr::CompoundIdentifier(names) if names.iter().any(is_doubled) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        let mut names = relation.0.iter().filter_map(ObjectNamePart::as_ident);
        match names.any(is_doubled) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

fn is_doubled(name: &Ident) -> bool {
    name.quote_style.is_some_and(|quote| name.value.contains(quote))
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
