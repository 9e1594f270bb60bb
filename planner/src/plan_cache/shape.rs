//! A query's shape: its text with constants replaced by parameters, so that queries which differ only in constants share a
//! plan.
//!
//! A constant becomes `trireme_parameter(i, c)`, where `c` fixes the type and says nothing of the value. The function can't
//! be evaluated while planning, so no rule sees a value and none can make a plan that holds for one value only. Constants
//! are replaced where they are compared or computed with; elsewhere (LIMIT, ordinals, arguments of functions, the names of
//! unnamed columns) they stay and are part of the shape.

use std::ops::ControlFlow;

use chrono::{Days, Months, NaiveDate};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, DataType as SqlType, DateTimeField, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentList, FunctionArguments, Ident, Interval, ObjectName, SelectItem, SetExpr,
    Statement as SqlStatement, TypedString, UnaryOperator, Value as SqlValue, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Span;
use trireme_device_api::Value;

use crate::text::sql_text;

pub use crate::fragments::PARAMETER_FUNCTION as PARAMETER;

/// Statements with more constants are planned as they are.
const PARAMETERS_MAX: usize = 256;

/// A query without its constants.
#[derive(Debug, Clone)]
pub struct Shape {
    /// The statement to plan.
    pub statement: Statement,
    /// Its text, which identifies the shape.
    pub text: String,
    /// The constants.
    pub values: Vec<Value>,
}

/// The shape of a query; none for other statements and for queries without constants to replace.
pub fn shape(statement: &Statement) -> Option<Shape> {
    let Statement::Statement(inner) = statement else {
        return None;
    };
    let SqlStatement::Query(query) = inner.as_ref() else {
        return None;
    };
    let mut query = query.clone();
    let mut replacer = Replacer::default();
    // Names of unnamed columns come from their text.
    let unnamed = take_unnamed(query.body.as_mut());
    let flow = query.visit(&mut replacer);
    put_unnamed(query.body.as_mut(), unnamed);
    if flow.is_break() || replacer.values.len() > PARAMETERS_MAX {
        return None;
    }
    let statement = SqlStatement::Query(query);
    Some(Shape {
        text: sql_text(&statement),
        statement: Statement::Statement(Box::new(statement)),
        values: replacer.values,
    })
}

/// The unnamed columns of the outermost SELECT, by position, out of the visitor's way.
fn take_unnamed(body: &mut SetExpr) -> Vec<(usize, Expr)> {
    let SetExpr::Select(select) = body else {
        return Vec::new();
    };
    let mut taken = Vec::new();
    for (index, item) in select.projection.iter_mut().enumerate() {
        if let SelectItem::UnnamedExpr(expr) = item {
            let placeholder = Expr::Identifier(Ident::new("x"));
            taken.push((index, std::mem::replace(expr, placeholder)));
        }
    }
    taken
}

fn put_unnamed(body: &mut SetExpr, taken: Vec<(usize, Expr)>) {
    let SetExpr::Select(select) = body else { return };
    for (index, expr) in taken {
        if let Some(SelectItem::UnnamedExpr(place)) = select.projection.get_mut(index) {
            *place = expr;
        }
    }
}

#[derive(Default)]
struct Replacer {
    values: Vec<Value>,
}

impl VisitorMut for Replacer {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Some(date) = folded_date(expr) {
            *expr = date_literal(date);
            return ControlFlow::Continue(());
        }
        match expr {
            Expr::BinaryOp { left, op, right } if replaceable(op) => {
                self.replace(left);
                self.replace(right);
            }
            Expr::Between { expr, low, high, .. } => {
                self.replace(expr);
                self.replace(low);
                self.replace(high);
            }
            Expr::InList { list, .. } => {
                for item in list {
                    self.replace(item);
                }
            }
            Expr::Like { pattern, .. } | Expr::ILike { pattern, .. } => self.replace(pattern),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn replaceable(op: &BinaryOperator) -> bool {
    matches!(
        op,
        BinaryOperator::Plus
            | BinaryOperator::Minus
            | BinaryOperator::Multiply
            | BinaryOperator::Divide
            | BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq
    )
}

impl Replacer {
    fn replace(&mut self, expr: &mut Expr) {
        let Some((value, example)) = constant(expr) else { return };
        let index = self.values.len();
        self.values.push(value);
        *expr = call(index, example);
    }
}

/// A constant's value, and an expression of its type.
fn constant(expr: &Expr) -> Option<(Value, Expr)> {
    match expr {
        Expr::Value(value) => match &value.value {
            SqlValue::Number(digits, false) => number(digits, false),
            SqlValue::SingleQuotedString(text) => Some((
                Value::Bytes(text.as_bytes().into()),
                literal(SqlValue::SingleQuotedString(String::new())),
            )),
            _ => None,
        },
        Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr,
        } => match expr.as_ref() {
            Expr::Value(value) => match &value.value {
                SqlValue::Number(digits, false) => number(digits, true),
                _ => None,
            },
            _ => None,
        },
        Expr::TypedString(_) => Some((
            Value::Int(days(typed_date(expr)?).into()),
            date_literal(NaiveDate::default()),
        )),
        _ => None,
    }
}

fn number(digits: &str, negative: bool) -> Option<(Value, Expr)> {
    if let Ok(integer) = digits.parse::<i64>() {
        let value = if negative {
            -i128::from(integer)
        } else {
            i128::from(integer)
        };
        return Some((Value::Int(value), literal(SqlValue::Number("0".to_owned(), false))));
    }
    if !digits.contains(['.', 'e', 'E']) {
        return None;
    }
    let float = digits.parse::<f64>().ok()?;
    let value = if negative { -float } else { float };
    Some((Value::Float(value), literal(SqlValue::Number("0.5".to_owned(), false))))
}

fn literal(value: SqlValue) -> Expr {
    Expr::Value(value.with_span(Span::empty()))
}

fn date_literal(date: NaiveDate) -> Expr {
    Expr::TypedString(TypedString {
        data_type: SqlType::Date,
        value: SqlValue::SingleQuotedString(date.format("%Y-%m-%d").to_string()).with_span(Span::empty()),
        uses_odbc_syntax: false,
    })
}

fn typed_date(expr: &Expr) -> Option<NaiveDate> {
    let Expr::TypedString(TypedString {
        data_type: SqlType::Date,
        value,
        ..
    }) = expr
    else {
        return None;
    };
    let SqlValue::SingleQuotedString(text) = &value.value else {
        return None;
    };
    // Only the plain form: whatever else the engine reads is left to it.
    (text.len() == 10)
        .then(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok())
        .flatten()
}

fn days(date: NaiveDate) -> i32 {
    i32::try_from(date.signed_duration_since(NaiveDate::default()).num_days()).unwrap_or_default()
}

/// `DATE 'd' ± INTERVAL 'n' unit` as a date, for whole days, months and years.
fn folded_date(expr: &Expr) -> Option<NaiveDate> {
    let Expr::BinaryOp { left, op, right } = expr else {
        return None;
    };
    let minus = match op {
        BinaryOperator::Plus => false,
        BinaryOperator::Minus => true,
        _ => return None,
    };
    let date = typed_date(left)?;
    let Expr::Interval(Interval {
        value,
        leading_field: Some(unit),
        leading_precision: None,
        last_field: None,
        fractional_seconds_precision: None,
    }) = right.as_ref()
    else {
        return None;
    };
    let Expr::Value(value) = value.as_ref() else {
        return None;
    };
    let (SqlValue::SingleQuotedString(digits) | SqlValue::Number(digits, _)) = &value.value else {
        return None;
    };
    let count: u32 = digits.trim().parse().ok()?;
    let months = match unit {
        DateTimeField::Month | DateTimeField::Months => Months::new(count),
        DateTimeField::Year | DateTimeField::Years => Months::new(count.checked_mul(12)?),
        DateTimeField::Day | DateTimeField::Days => {
            let days = Days::new(count.into());
            return if minus {
                date.checked_sub_days(days)
            } else {
                date.checked_add_days(days)
            };
        }
        _ => return None,
    };
    if minus {
        date.checked_sub_months(months)
    } else {
        date.checked_add_months(months)
    }
}

fn call(index: usize, example: Expr) -> Expr {
    let argument = |expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr));
    let place = literal(SqlValue::Number(index.to_string(), false));
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(PARAMETER)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: vec![argument(place), argument(example)],
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    fn shape_of(sql: &str) -> Shape {
        shape(&parse(sql).unwrap()).unwrap()
    }

    #[test]
    fn constants_that_are_compared_become_parameters() {
        let one = shape_of("SELECT a FROM t WHERE b < 5 AND c LIKE 'x%' AND d >= DATE '1994-01-01' LIMIT 3");
        let other = shape_of("SELECT a FROM t WHERE b < 7 AND c LIKE 'y' AND d >= DATE '1995-02-03' LIMIT 3");
        assert_eq!(one.text, other.text);
        assert_eq!(one.values.len(), 3);
        assert_eq!(one.values[0], Value::Int(5));
        assert_eq!(other.values[2], Value::Int(9164));
        assert!(one.text.ends_with("LIMIT 3"));
    }

    #[test]
    fn types_are_part_of_the_shape() {
        assert_ne!(
            shape_of("SELECT a FROM t WHERE b < 5").text,
            shape_of("SELECT a FROM t WHERE b < 5.0").text
        );
    }

    #[test]
    fn dates_and_intervals_are_one_constant() {
        let folded = shape_of("SELECT a FROM t WHERE d < DATE '1998-12-01' - INTERVAL '90' DAY");
        assert_eq!(folded.values, [Value::Int(10_471)]);
        let month = shape_of("SELECT a FROM t WHERE d < DATE '1996-01-31' + INTERVAL '1' MONTH");
        assert_eq!(month.values, [Value::Int(9_555)]);
    }

    #[test]
    fn ordinals_limits_and_unnamed_columns_stay() {
        let shape = shape_of("SELECT a + 1, 2 * b AS c FROM t GROUP BY 1, 2 ORDER BY 1 LIMIT 10");
        assert!(shape.text.starts_with("SELECT a + 1, "), "{}", shape.text);
        assert_eq!(shape.values, [Value::Int(2)]);
    }
}
