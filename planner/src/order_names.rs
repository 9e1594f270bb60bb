//! Keeps what a grouped query is ordered by from being taken for a column below it.
//!
//! DataFusion names a cast after its operand. Beside `CAST(x AS INT)` as a group, a result column that is called `x` too loses
//! its name to the group: `SELECT upper(s) AS x, CAST(x AS INT) … GROUP BY … ORDER BY x` sorts by the cast. Ordered from
//! outside, as a table of its own, the names are the result's only.

use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, OrderByKind, Query, Select, SelectItem, SetExpr, Statement, TableFactor, Value,
};
use datafusion::sql::sqlparser::parser::Parser;

use crate::dialect::TriremeDialect;
use crate::names::fold;

const OUTSIDE: &str = "SELECT * FROM (SELECT 1) AS grouped";

/// Orders a query from outside where one of its names needs it.
pub(crate) fn keep(query: &mut Query) {
    if let SetExpr::Select(select) = query.body.as_ref()
        && is_taken(select)
        && orders_by_names(query, select)
        && let Some(mut outside) = outside()
        && let Some(inside) = innermost(&mut outside)
    {
        std::mem::swap(inside, &mut query.body);
        query.body = outside;
    }
}

/// Whether a cast among the groups or results has the name of a result column.
fn is_taken(select: &Select) -> bool {
    let GroupByExpr::Expressions(groups, _) = &select.group_by else {
        return false;
    };
    if groups.is_empty() {
        return false;
    }
    let items = select.projection.iter().filter_map(|item| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    });
    let casts: Vec<String> = groups.iter().chain(items).filter_map(name_of_cast).collect();
    aliases(select).any(|alias| casts.contains(&alias))
}

fn aliases(select: &Select) -> impl Iterator<Item = String> {
    select.projection.iter().filter_map(|item| match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(fold(alias)),
        _ => None,
    })
}

fn name_of_cast(expr: &Expr) -> Option<String> {
    let Expr::Cast { expr, .. } = expr else {
        return None;
    };
    match expr.as_ref() {
        Expr::Identifier(name) => Some(fold(name)),
        Expr::CompoundIdentifier(names) => names.last().map(fold),
        inner => name_of_cast(inner),
    }
}

/// Whether all that the query is ordered by are positions and names of its results.
fn orders_by_names(query: &Query, select: &Select) -> bool {
    let Some(OrderByKind::Expressions(exprs)) = query.order_by.as_ref().map(|order| &order.kind) else {
        return false;
    };
    exprs.iter().all(|by| match &by.expr {
        Expr::Identifier(name) => aliases(select).any(|alias| alias == fold(name)),
        Expr::Value(value) => matches!(value.value, Value::Number(..)),
        _ => false,
    })
}

fn outside() -> Option<Box<SetExpr>> {
    let parsed = Parser::parse_sql(&TriremeDialect, OUTSIDE).ok()?;
    match parsed.into_iter().next()? {
        Statement::Query(query) => Some(query.body),
        _ => None,
    }
}

fn innermost(outside: &mut SetExpr) -> Option<&mut Box<SetExpr>> {
    let SetExpr::Select(select) = outside else {
        return None;
    };
    match &mut select.from.first_mut()?.relation {
        TableFactor::Derived { subquery, .. } => Some(&mut subquery.body),
        _ => None,
    }
}
