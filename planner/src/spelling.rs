//! What users of other systems write, in the words that DataFusion plans: `mod(a, b)`, `LIKE … ESCAPE '!'`, `FETCH FIRST 3 ROWS
//! ONLY`.

use std::ops::ControlFlow;

use datafusion::execution::FunctionRegistry;
use datafusion::execution::SessionState;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, LimitClause, Query, Value, ValueWithSpan,
    VisitorMut,
};

use crate::bind::visit;

/// Spells a statement out, before it is planned.
pub(crate) fn spell(state: &SessionState, statement: &mut Statement) {
    let has_mod = state.udf("mod").is_ok();
    let _ = visit(statement, &mut Spelling { has_mod });
}

struct Spelling {
    /// A user's function has the name.
    has_mod: bool,
}

impl VisitorMut for Spelling {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let offset = match &query.limit_clause {
            None => None,
            Some(LimitClause::LimitOffset {
                limit: None,
                offset,
                limit_by,
            }) if limit_by.is_empty() => offset.clone(),
            Some(_) => return ControlFlow::Continue(()),
        };
        if let Some(fetch) = query.fetch.take_if(|fetch| !fetch.with_ties && !fetch.percent) {
            let one = || Expr::value(Value::Number("1".to_owned(), false));
            query.limit_clause = Some(LimitClause::LimitOffset {
                limit: Some(fetch.quantity.unwrap_or_else(one)),
                offset,
                limit_by: Vec::new(),
            });
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(function)
                if !self.has_mod
                    && function.name.to_string().eq_ignore_ascii_case("mod")
                    && function.over.is_none() =>
            {
                if let FunctionArguments::List(list) = &function.args
                    && let [
                        FunctionArg::Unnamed(FunctionArgExpr::Expr(left)),
                        FunctionArg::Unnamed(FunctionArgExpr::Expr(right)),
                    ] = &list.args[..]
                {
                    let nested = |operand: &Expr| Box::new(Expr::Nested(Box::new(operand.clone())));
                    *expr = Expr::Nested(Box::new(Expr::BinaryOp {
                        left: nested(left),
                        op: BinaryOperator::Modulo,
                        right: nested(right),
                    }));
                }
            }
            Expr::Like {
                pattern, escape_char, ..
            }
            | Expr::ILike {
                pattern, escape_char, ..
            } => unescape(pattern, escape_char),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// A pattern whose escape character is the backslash, which DataFusion knows.
fn unescape(pattern: &mut Expr, escape_char: &mut Option<ValueWithSpan>) {
    let Some(ValueWithSpan {
        value: Value::SingleQuotedString(escape),
        ..
    }) = escape_char
    else {
        return;
    };
    let mut letters = escape.chars();
    let (Some(escape), None) = (letters.next(), letters.next()) else {
        return;
    };
    let Expr::Value(ValueWithSpan {
        value: Value::SingleQuotedString(text),
        ..
    }) = pattern
    else {
        return;
    };
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(letter) = rest.next() {
        let (literal, letter) = match (letter == escape, rest.clone().next()) {
            (true, Some(next)) => {
                rest.next();
                (true, next)
            }
            // A pattern that ends with its escape character: DataFusion says what it thinks of it.
            (true, None) => return,
            (false, _) => (letter == '\\', letter),
        };
        if literal {
            plain.push('\\');
        }
        plain.push(letter);
    }
    *text = plain;
    *escape_char = None;
}
