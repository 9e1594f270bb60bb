//! Results of one name: `SELECT a.id, a.id`, `SELECT t.*, upper(name) AS name`.
//!
//! DataFusion wants a name of its own for each column of a projection; SQL doesn't, for what a statement gives or inserts. Such
//! results get marked names, and the marks are taken off in the schema that clients are promised.

use std::collections::HashMap;

use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::sql::parser::{ExplainStatement, Statement};
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, OrderBy, OrderByKind, Query, Select, SelectItem, SetExpr, Statement as SqlStatement,
};

use crate::names::{fold, result_name};

/// Stands between a name and what makes it unique.
const MARK: char = '\u{2}';

/// The name without its mark.
pub(crate) fn shown(name: &str) -> &str {
    name.split(MARK).next().unwrap_or_default()
}

/// Whether two columns of one name are what is wrong.
pub(crate) fn refused(error: &DataFusionError) -> bool {
    match error.find_root() {
        DataFusionError::SchemaError(error, _) => !matches!(**error, SchemaError::FieldNotFound { .. }),
        DataFusionError::Plan(message) => message.contains("unique expression names"),
        _ => false,
    }
}

/// The statement with marked names where its results may have one name; none where they can't.
pub(crate) fn marked(statement: &Statement) -> Option<Statement> {
    let repeats = match statement {
        Statement::Explain(explain) => return marked_explain(explain),
        Statement::Statement(statement) => query(statement).is_some_and(|query| repeats(&query.body)),
        _ => false,
    };
    if !repeats {
        return None;
    }
    let mut marked = statement.clone();
    if let Statement::Statement(statement) = &mut marked
        && let Some(query) = query_mut(statement)
    {
        let order_by = query.order_by.as_mut();
        mark_operands(&mut query.body, order_by);
    }
    Some(marked)
}

fn marked_explain(explain: &ExplainStatement) -> Option<Statement> {
    let statement = Box::new(marked(&explain.statement)?);
    let options = explain.options.clone();
    Some(Statement::Explain(ExplainStatement { options, statement }))
}

fn query(statement: &SqlStatement) -> Option<&Query> {
    match statement {
        SqlStatement::Query(query) => Some(query),
        SqlStatement::Insert(insert) => insert.source.as_deref(),
        _ => None,
    }
}

fn query_mut(statement: &mut SqlStatement) -> Option<&mut Query> {
    match statement {
        SqlStatement::Query(query) => Some(query),
        SqlStatement::Insert(insert) => insert.source.as_deref_mut(),
        _ => None,
    }
}

fn repeats(body: &SetExpr) -> bool {
    match body {
        SetExpr::Select(select) => {
            let mut names: Vec<String> = select.projection.iter().filter_map(name).collect();
            let wildcards = select.projection.len() > names.len();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            wildcards && count > 0 || names.len() < count
        }
        SetExpr::SetOperation { left, right, .. } => repeats(left) || repeats(right),
        SetExpr::Query(query) => repeats(&query.body),
        _ => false,
    }
}

/// A result's name, as written where it has none of its own; none for a wildcard.
fn name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::UnnamedExpr(expr) => result_name(item).or_else(|| Some(expr.to_string())),
        _ => result_name(item),
    }
}

fn mark_operands(body: &mut SetExpr, order_by: Option<&mut OrderBy>) {
    match body {
        SetExpr::Select(select) => mark(select, order_by),
        SetExpr::SetOperation { left, right, .. } => {
            mark_operands(left, None);
            mark_operands(right, None);
        }
        SetExpr::Query(query) => mark_operands(&mut query.body, query.order_by.as_mut()),
        _ => {}
    }
}

/// Marks results whose name another may have: any, beside a wildcard.
fn mark(select: &mut Select, order_by: Option<&mut OrderBy>) {
    let names: Vec<Option<String>> = select.projection.iter().map(name).collect();
    let wildcards = names.contains(&None);
    let mut seen: HashMap<String, Ident> = HashMap::new();
    for (at, (item, name)) in select.projection.iter_mut().zip(&names).enumerate() {
        let is_named = result_name(item).is_some();
        let (Some(name), SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = (name, &mut *item)
        else {
            continue;
        };
        let is_first = !wildcards && !seen.contains_key(name);
        let alias = match is_first {
            true => Ident::with_quote('"', name),
            false => Ident::with_quote('"', format!("{name}{MARK}{at}")),
        };
        seen.entry(name.clone()).or_insert_with(|| alias.clone());
        // What has no name of its own is called as the others like it are.
        let is_alone = names.iter().flatten().filter(|other| *other == name).count() == 1;
        if !is_first || !is_alone && !is_named {
            let expr = std::mem::replace(expr, Expr::Identifier(alias.clone()));
            *item = SelectItem::ExprWithAlias { expr, alias };
        }
    }
    let Some(OrderByKind::Expressions(exprs)) = order_by.map(|order_by| &mut order_by.kind) else {
        return;
    };
    for by in exprs {
        if let Expr::Identifier(name) = &mut by.expr
            && let Some(marked) = seen.get(&fold(name)).filter(|ident| ident.value.contains(MARK))
        {
            *name = marked.clone();
        }
    }
}
