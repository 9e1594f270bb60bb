//! Functions of other systems, in DataFusion's.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::LazyLock;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArgumentList,
    FunctionArguments, Ident, ObjectName, ObjectNamePart, OrderByExpr, OrderByOptions, Value, ValueWithSpan, VisitMut,
    VisitorMut,
};
use datafusion::sql::sqlparser::parser::Parser;

use crate::dialect::TriremeDialect;
use crate::repeated::call;
use crate::semantics::INTERVAL_TIMES;

/// Names for the same function.
const NAMES: &[(&str, &str)] = &[
    ("approx_count_distinct", "approx_distinct"),
    ("ceiling", "ceil"),
    ("char", "chr"),
    ("every", "bool_and"),
    ("first", "first_value"),
    ("gen_random_uuid", "uuid"),
    ("group_concat", "string_agg"),
    ("last", "last_value"),
    ("lcase", "lower"),
    ("len", "length"),
    ("listagg", "string_agg"),
    ("strftime", "to_char"),
    ("strptime", "to_timestamp"),
    ("ucase", "upper"),
];

/// Names, their arguments, and what they stand for.
const EXPRESSIONS: &[(&str, usize, &str)] = &[
    ("date_add", 2, "$1 + $2"),
    ("date_sub", 2, "$1 - $2"),
    ("day", 1, "date_part('day', $1)"),
    ("dayname", 1, "to_char($1, '%A')"),
    ("dayofmonth", 1, "date_part('day', $1)"),
    ("dayofyear", 1, "date_part('doy', $1)"),
    ("epoch", 1, "date_part('epoch', $1)"),
    ("hour", 1, "date_part('hour', $1)"),
    ("if", 3, "CASE WHEN $1 THEN $2 ELSE $3 END"),
    ("iif", 3, "CASE WHEN $1 THEN $2 ELSE $3 END"),
    (
        "last_day",
        1,
        "CAST(date_trunc('month', $1) + INTERVAL '1 month' - INTERVAL '1 day' AS DATE)",
    ),
    ("minute", 1, "date_part('minute', $1)"),
    ("month", 1, "date_part('month', $1)"),
    ("mod", 2, "($1 % $2)"),
    ("monthname", 1, "to_char($1, '%B')"),
    ("nullifzero", 1, "nullif($1, 0)"),
    ("quarter", 1, "date_part('quarter', $1)"),
    ("second", 1, "date_part('second', $1)"),
    ("space", 1, "repeat(' ', $1)"),
    ("week", 1, "date_part('week', $1)"),
    ("weekofyear", 1, "date_part('week', $1)"),
    ("year", 1, "date_part('year', $1)"),
    ("zeroifnull", 1, "coalesce($1, 0)"),
];

/// The boundaries of a unit between `$1` and `$2`.
const DIFFERENCES: &[(&str, &str)] = &[
    ("year", "CAST(date_part('year', $2) - date_part('year', $1) AS BIGINT)"),
    (
        "quarter",
        "CAST((date_part('year', $2) - date_part('year', $1)) * 4 + date_part('quarter', $2) - date_part('quarter', $1) AS BIGINT)",
    ),
    (
        "month",
        "CAST((date_part('year', $2) - date_part('year', $1)) * 12 + date_part('month', $2) - date_part('month', $1) AS BIGINT)",
    ),
    (
        "week",
        "(CAST(date_trunc('week', $2) AS DATE) - CAST(date_trunc('week', $1) AS DATE)) / 7",
    ),
    ("day", "CAST($2 AS DATE) - CAST($1 AS DATE)"),
    (
        "hour",
        "CAST((date_part('epoch', date_trunc('hour', $2)) - date_part('epoch', date_trunc('hour', $1))) / 3600 AS BIGINT)",
    ),
    (
        "minute",
        "CAST((date_part('epoch', date_trunc('minute', $2)) - date_part('epoch', date_trunc('minute', $1))) / 60 AS BIGINT)",
    ),
    (
        "second",
        "CAST(date_part('epoch', date_trunc('second', $2)) - date_part('epoch', date_trunc('second', $1)) AS BIGINT)",
    ),
];

/// The function's name, if it is a plain one.
pub(super) fn name(function: &Function) -> Option<String> {
    match &function.name.0[..] {
        [ObjectNamePart::Identifier(name)] => Some(name.value.to_ascii_lowercase()),
        _ => None,
    }
}

/// What a call of `name` stands for; none for the words that are DataFusion's own, or nobody's.
pub(super) fn spelled(name: &str, function: &Function) -> Option<Expr> {
    static NAMED: LazyLock<HashMap<&str, &str>> = LazyLock::new(|| NAMES.iter().copied().collect());
    if let Some(other) = NAMED.get(name) {
        return Some(Expr::Function(renamed(function, other)));
    }
    match name {
        "arg_max" | "max_by" => best(function, false),
        "arg_min" | "min_by" => best(function, true),
        "count_if" | "countif" => counted(function),
        "date_diff" | "datediff" => difference(function),
        _ => expression(name, function),
    }
}

/// A text, in the place of a call without arguments.
pub(super) fn text(function: &Function, text: &str) -> Option<Expr> {
    let is_call = match &function.args {
        FunctionArguments::None => true,
        _ => plain_args(function)?.is_empty(),
    };
    is_call.then(|| Expr::value(Value::SingleQuotedString(text.to_owned())))
}

/// `INTERVAL '1 day' * n` as a call.
pub(super) fn interval_times(left: &Expr, right: &Expr) -> Option<Expr> {
    let is_interval = |expr: &Expr| match expr {
        Expr::Nested(inner) => matches!(**inner, Expr::Interval(_)),
        expr => matches!(expr, Expr::Interval(_)),
    };
    match (is_interval(left), is_interval(right)) {
        (true, false) => Some(call(INTERVAL_TIMES, [left.clone(), right.clone()])),
        (false, true) => Some(call(INTERVAL_TIMES, [right.clone(), left.clone()])),
        _ => None,
    }
}

fn renamed(function: &Function, name: &str) -> Function {
    let mut function = function.clone();
    function.name = ObjectName::from(vec![Ident::new(name)]);
    let order = std::mem::take(&mut function.within_group);
    if let FunctionArguments::List(list) = &mut function.args
        && name == "string_agg"
    {
        if list.args.len() == 1 {
            let comma = Expr::value(Value::SingleQuotedString(",".to_owned()));
            list.args.push(unnamed(comma));
        }
        if !order.is_empty() {
            list.clauses.push(FunctionArgumentClause::OrderBy(order));
        }
        return function;
    }
    function.within_group = order;
    function
}

/// The value at another's greatest or smallest; rows where one of them is NULL don't count.
fn best(function: &Function, is_ascending: bool) -> Option<Expr> {
    let [value, by] = args(function)?[..] else { return None };
    if function.over.is_some() {
        return None;
    }
    let known = |expr: &Expr| Expr::IsNotNull(nested(expr));
    let both = |left, right| Expr::BinaryOp {
        left: Box::new(left),
        op: BinaryOperator::And,
        right: Box::new(right),
    };
    let mut condition = both(known(value), known(by));
    if let Some(filter) = &function.filter {
        condition = both(Expr::Nested(filter.clone()), condition);
    }
    let order = OrderByExpr {
        expr: by.clone(),
        options: OrderByOptions {
            asc: Some(is_ascending),
            nulls_first: Some(false),
        },
        with_fill: None,
    };
    let mut best = renamed(function, "first_value");
    best.filter = Some(Box::new(condition));
    best.args = FunctionArguments::List(FunctionArgumentList {
        duplicate_treatment: None,
        args: vec![unnamed(value.clone())],
        clauses: vec![FunctionArgumentClause::OrderBy(vec![order])],
    });
    Some(Expr::Function(best))
}

fn counted(function: &Function) -> Option<Expr> {
    let [_] = args(function)?[..] else { return None };
    static ONE: LazyLock<Option<Expr>> = LazyLock::new(|| parsed("CASE WHEN $1 THEN 1 END"));
    let one = filled(ONE.as_ref()?, &args(function)?);
    let mut count = renamed(function, "count");
    if let FunctionArguments::List(list) = &mut count.args {
        list.args = vec![unnamed(one)];
    }
    Some(Expr::Function(count))
}

fn difference(function: &Function) -> Option<Expr> {
    static UNITS: LazyLock<HashMap<&str, Expr>> = LazyLock::new(|| {
        let units = DIFFERENCES.iter();
        units.filter_map(|(unit, text)| Some((*unit, parsed(text)?))).collect()
    });
    let [unit, from, to] = plain_args(function)?[..] else {
        return None;
    };
    let unit = match unit {
        Expr::Identifier(unit) => unit.value.to_ascii_lowercase(),
        Expr::Value(ValueWithSpan {
            value: Value::SingleQuotedString(unit),
            ..
        }) => unit.to_ascii_lowercase(),
        _ => return None,
    };
    let unit = UNITS.get(unit.strip_suffix('s').unwrap_or(&unit))?;
    Some(Expr::Nested(Box::new(filled(unit, &[from, to]))))
}

fn expression(name: &str, function: &Function) -> Option<Expr> {
    static PARSED: LazyLock<HashMap<&str, (usize, Expr)>> = LazyLock::new(|| {
        let expressions = EXPRESSIONS.iter();
        expressions
            .filter_map(|(name, args, text)| Some((*name, (*args, parsed(text)?))))
            .collect()
    });
    let (count, template) = PARSED.get(name)?;
    let args = plain_args(function)?;
    (args.len() == *count).then(|| Expr::Nested(Box::new(filled(template, &args))))
}

fn parsed(text: &str) -> Option<Expr> {
    let mut parser = Parser::new(&TriremeDialect).try_with_sql(text).ok()?;
    parser.parse_expr().ok()
}

/// The template with arguments in the place of `$1`, `$2`.
fn filled(template: &Expr, args: &[&Expr]) -> Expr {
    let mut expr = template.clone();
    let _ = expr.visit(&mut Filling { args });
    expr
}

struct Filling<'a> {
    args: &'a [&'a Expr],
}

impl VisitorMut for Filling<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Value(ValueWithSpan {
            value: Value::Placeholder(place),
            ..
        }) = expr
            && let Some(arg) = place.strip_prefix('$').and_then(|at| at.parse::<usize>().ok())
            && let Some(arg) = self.args.get(arg - 1)
        {
            *expr = Expr::Nested(Box::new((*arg).clone()));
        }
        ControlFlow::Continue(())
    }
}

fn nested(expr: &Expr) -> Box<Expr> {
    Box::new(Expr::Nested(Box::new(expr.clone())))
}

fn unnamed(expr: Expr) -> FunctionArg {
    FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
}

fn args(function: &Function) -> Option<Vec<&Expr>> {
    let FunctionArguments::List(list) = &function.args else {
        return None;
    };
    let plain = |arg| match arg {
        &FunctionArg::Unnamed(FunctionArgExpr::Expr(ref expr)) => Some(expr),
        _ => None,
    };
    let is_bare = list.clauses.is_empty() && list.duplicate_treatment.is_none();
    list.args
        .iter()
        .map(plain)
        .collect::<Option<Vec<_>>>()
        .filter(|_| is_bare)
}

/// Of a call without OVER, FILTER and their like.
fn plain_args(function: &Function) -> Option<Vec<&Expr>> {
    let is_bare = function.over.is_none()
        && function.filter.is_none()
        && function.within_group.is_empty()
        && function.null_treatment.is_none();
    args(function).filter(|_| is_bare)
}

#[cfg(test)]
mod tests {
    use super::{DIFFERENCES, EXPRESSIONS, parsed};

    #[test]
    fn templates_are_expressions() {
        let all = EXPRESSIONS.iter().map(|(_, _, text)| text);
        for text in all.chain(DIFFERENCES.iter().map(|(_, text)| text)) {
            assert!(parsed(text).is_some(), "{text}");
        }
    }
}
