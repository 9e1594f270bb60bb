//! What users of other systems write, in the words that DataFusion plans: `year(d)` ([`words`]), `LIKE … ESCAPE '!'`, `FETCH FIRST
//! 3 ROWS ONLY`, `WHERE (a, b) IN (SELECT …)`.

use std::ops::ControlFlow;

use datafusion::execution::SessionState;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, Ident, LimitClause, NamedWindowDefinition, NamedWindowExpr, Query, Select,
    SelectItem, SetExpr, Statement as SqlStatement, TableFactor, Value, ValueWithSpan, VisitMut, VisitorMut,
    WindowFrame, WindowFrameBound, WindowFrameUnits, WindowSpec, WindowType,
};
use datafusion::sql::sqlparser::parser::Parser;

use crate::bind::visit;
use crate::dialect::TriremeDialect;
use crate::names::CATALOG;

mod words;

/// Spells a statement out, before it is planned.
pub(crate) fn spell(state: &SessionState, statement: &mut Statement) {
    let _ = visit(statement, &mut Spelling { state });
}

/// As [`spell`], of one expression.
pub(crate) fn spell_expr(state: &SessionState, expr: &mut Expr) {
    let _ = expr.visit(&mut Spelling { state });
}

/// The frame that a window has where none is written. DataFusion takes one of ROWS where it believes that no two rows are equal.
fn framed(window: &mut WindowSpec) {
    if window.window_name.is_none() && window.window_frame.is_none() && !window.order_by.is_empty() {
        window.window_frame = Some(WindowFrame {
            units: WindowFrameUnits::Range,
            start_bound: WindowFrameBound::Preceding(None),
            end_bound: Some(WindowFrameBound::CurrentRow),
        });
    }
}

struct Spelling<'a> {
    state: &'a SessionState,
}

impl Spelling<'_> {
    /// What a call stands for, unless a function has its name, the engine's or a user's.
    fn call(&self, function: &Function) -> Option<Expr> {
        let name = words::name(function)?;
        let other = match name.as_str() {
            "current_schema" => words::text(function, &self.state.config_options().catalog.default_schema)?,
            "current_catalog" | "current_database" => words::text(function, CATALOG)?,
            name => words::spelled(name, function)?,
        };
        let is_known = self.state.scalar_functions().contains_key(&name)
            || self.state.aggregate_functions().contains_key(&name)
            || self.state.window_functions().contains_key(&name);
        (!is_known).then_some(other)
    }
}

impl VisitorMut for Spelling<'_> {
    type Break = ();

    fn pre_visit_statement(&mut self, statement: &mut SqlStatement) -> ControlFlow<()> {
        match statement {
            SqlStatement::Delete(delete) => delete.selection.iter_mut().for_each(rows_in),
            SqlStatement::Update(update) => update.selection.iter_mut().for_each(rows_in),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for item in &mut select.projection {
            // It keeps the name that it was written with.
            if let SelectItem::UnnamedExpr(expr @ Expr::Function(_)) = item
                && let Expr::Function(function) = &*expr
                && self.call(function).is_some()
            {
                let alias = Ident::with_quote('"', function.to_string());
                let expr = expr.clone();
                *item = SelectItem::ExprWithAlias { expr, alias };
            }
        }
        for NamedWindowDefinition(_, window) in &mut select.named_window {
            if let NamedWindowExpr::WindowSpec(window) = window {
                framed(window);
            }
        }
        select.selection.iter_mut().for_each(rows_in);
        select.having.iter_mut().for_each(rows_in);
        ControlFlow::Continue(())
    }

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
            Expr::Function(function) => {
                if let Some(WindowType::WindowSpec(window)) = &mut function.over {
                    framed(window);
                }
                if let Some(other) = self.call(function) {
                    *expr = other;
                }
            }
            Expr::BinaryOp {
                left,
                op: BinaryOperator::Multiply,
                right,
            } => {
                if let Some(product) = words::interval_times(left, right) {
                    *expr = product;
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

/// A condition on rows of values, `(a, b) IN (SELECT …)`, as EXISTS: of what has to be true, a NULL says no more than a false.
fn rows_in(condition: &mut Expr) {
    match condition {
        Expr::Nested(inner) => rows_in(inner),
        Expr::BinaryOp {
            left,
            op: BinaryOperator::And,
            right,
        } => {
            rows_in(left);
            rows_in(right);
        }
        Expr::InSubquery {
            expr,
            subquery,
            negated: false,
        } => {
            if let Expr::Tuple(values) = expr.as_ref()
                && values.len() > 1
                && let Some(subquery) = exists_row(values, subquery)
            {
                *condition = Expr::Exists {
                    subquery,
                    negated: false,
                };
            }
        }
        _ => {}
    }
}

/// `SELECT 1 FROM (subquery) AS trireme_row (c0, c1, …) WHERE c0 = a AND c1 = b AND …`.
fn exists_row(values: &[Expr], subquery: &Query) -> Option<Box<Query>> {
    let columns: Vec<String> = (0..values.len()).map(|at| format!("trireme_row_{at}")).collect();
    let frame = format!("SELECT 1 FROM (SELECT 1) AS trireme_row ({})", columns.join(", "));
    let mut parser = Parser::new(&TriremeDialect).try_with_sql(&frame).ok()?;
    let mut outer = parser.parse_query().ok()?;
    let SetExpr::Select(select) = outer.body.as_mut() else {
        return None;
    };
    let TableFactor::Derived { subquery: inner, .. } = &mut select.from.first_mut()?.relation else {
        return None;
    };
    **inner = subquery.clone();
    let binary = |left, op, right| Expr::BinaryOp {
        left: Box::new(left),
        op,
        right: Box::new(right),
    };
    let equal = values.iter().zip(columns).map(|(value, column)| {
        let column = Expr::Identifier(Ident::new(column));
        binary(column, BinaryOperator::Eq, Expr::Nested(Box::new(value.clone())))
    });
    select.selection = equal.reduce(|left, right| binary(left, BinaryOperator::And, right));
    Some(outer)
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
