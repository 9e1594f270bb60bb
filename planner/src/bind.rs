//! Rewrites of the parsed statement that DataFusion's planner needs: `?` becomes `$n`, a table version becomes part of the
//! name that the catalog is asked for, a function's name in a schema one word; and where the parser is wrong, what was meant.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::parser::{CopyToSource, Statement};
use datafusion::sql::sqlparser::ast::{
    Assignment, AssignmentTarget, CastKind, DataType, Expr, GroupByExpr, Ident, ObjectName, ObjectNamePart, Query,
    Select, SelectItem, Statement as SqlStatement, TableAlias, TableFactor, TableVersion, UnaryOperator, Value,
    ValueWithSpan, VisitMut, VisitorMut,
};
use trireme_exec::QueryError;

use crate::chains;
use crate::ddl::{TableVersionRef, VERSION_MARK, versioned_name};
use crate::names::{fold, table_name};
use crate::order_names;

/// Numbers `?` placeholders in order of appearance and binds table versions.
///
/// # Errors
/// `?` mixed with `$n`; a version that is no literal; a version on something that is no table.
pub fn bind(statement: &mut Statement) -> Result<(), QueryError> {
    let mut binder = Binder::default();
    let flow = visit(statement, &mut binder);
    if let ControlFlow::Break(error) = flow {
        return Err(error);
    }
    if binder.question_marks > 0 && binder.numbered {
        return Err(QueryError::invalid("the statement mixes ? and $n placeholders").with_hint("use one kind"));
    }
    Ok(())
}

/// Visits what is parsed of a statement.
pub(crate) fn visit<V: VisitorMut>(statement: &mut Statement, visitor: &mut V) -> ControlFlow<V::Break> {
    match statement {
        Statement::Statement(statement) => statement.visit(visitor),
        Statement::Explain(explain) => visit(&mut explain.statement, visitor),
        Statement::CopyTo(copy) => match &mut copy.source {
            CopyToSource::Query(query) => query.visit(visitor),
            CopyToSource::Relation(_) => ControlFlow::Continue(()),
        },
        Statement::CreateExternalTable(_) | Statement::Reset(_) => ControlFlow::Continue(()),
    }
}

/// Levels an expression may be nested: far beyond what people write, and well within the engine's stacks.
const DEPTH_MAX: usize = 2000;

#[derive(Default)]
struct Binder {
    question_marks: usize,
    numbered: bool,
    /// The expressions around, outermost first: whether each is an AND or OR.
    links: Vec<bool>,
}

impl VisitorMut for Binder {
    type Break = QueryError;

    fn pre_visit_value(&mut self, value: &mut ValueWithSpan) -> ControlFlow<QueryError> {
        if let Value::Placeholder(text) = &mut value.value {
            if text == "?" {
                self.question_marks += 1;
                *text = format!("${}", self.question_marks);
            } else {
                self.numbered = true;
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<QueryError> {
        if !self.links.last().is_some_and(|&link| link) {
            chains::mend(expr);
        }
        self.links.push(chains::is_link(expr));
        if let Expr::Function(call) = expr
            && call.name.0.len() > 1
            && let Ok(name) = table_name(&call.name, "")
        {
            // Functions are registered under their full names too.
            call.name = ObjectName::from(vec![Ident::with_quote('"', name.to_string())]);
        }
        if self.links.len() <= DEPTH_MAX {
            return ControlFlow::Continue(());
        }
        ControlFlow::Break(
            QueryError::invalid(format!("an expression is nested more than {DEPTH_MAX} levels deep"))
                .with_hint("write long OR lists as IN (…), and long sums as aggregates over VALUES"),
        )
    }

    fn post_visit_expr(&mut self, _expr: &mut Expr) -> ControlFlow<QueryError> {
        self.links.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<QueryError> {
        let forged = relation
            .0
            .iter()
            .any(|part| part.as_ident().is_some_and(|ident| ident.value.contains(VERSION_MARK)));
        // Versions are bound after this visit, on the way up, so a mark found here was typed by somebody.
        if forged {
            return ControlFlow::Break(QueryError::invalid("a table's name holds a control character"));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<QueryError> {
        let TableFactor::Table {
            name, alias, version, ..
        } = factor
        else {
            return ControlFlow::Continue(());
        };
        let Some(asked) = version.take() else {
            return ControlFlow::Continue(());
        };
        match version_of(&asked) {
            Ok(bound) => {
                bind_version(name, alias, &bound);
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<QueryError> {
        order_names::keep(query);
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<QueryError> {
        unlike_positions(select);
        ControlFlow::Continue(())
    }

    fn pre_visit_statement(&mut self, statement: &mut SqlStatement) -> ControlFlow<QueryError> {
        match statement {
            SqlStatement::CreateTable(table) if table.version.is_some() => ControlFlow::Break(
                QueryError::invalid("CREATE TABLE takes no version")
                    .with_hint("use CREATE TABLE … AS SELECT … VERSION AS OF …"),
            ),
            SqlStatement::Update(update) => match fold_targets(&mut update.assignments) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => ControlFlow::Break(error),
            },
            _ => ControlFlow::Continue(()),
        }
    }
}

/// DataFusion takes the columns that are SET as they are written, and of two assignments of one column the last.
fn fold_targets(assignments: &mut [Assignment]) -> Result<(), QueryError> {
    let mut known = HashSet::new();
    for assignment in assignments {
        let AssignmentTarget::ColumnName(name) = &mut assignment.target else {
            continue;
        };
        let Some(ObjectNamePart::Identifier(column)) = name.0.last_mut() else {
            continue;
        };
        *column = Ident::with_quote_and_span('"', column.span, fold(column));
        if !known.insert(column.value.clone()) {
            let error = QueryError::invalid(format!("column {} is set twice", column.value));
            return Err(error.with_hint("an UPDATE gives each column one value"));
        }
    }
    Ok(())
}

/// `SELECT 39 AS a … GROUP BY a` groups by a constant; DataFusion would put 39 in the place of `a`, and read a position.
fn unlike_positions(select: &mut Select) {
    let GroupByExpr::Expressions(groups, _) = &select.group_by else {
        return;
    };
    let names: Vec<String> = groups
        .iter()
        .filter_map(|group| match group {
            Expr::Identifier(name) => Some(fold(name)),
            _ => None,
        })
        .collect();
    for item in &mut select.projection {
        let SelectItem::ExprWithAlias { expr, alias } = item else {
            continue;
        };
        let number = match &*expr {
            Expr::UnaryOp {
                op: UnaryOperator::Minus,
                expr,
            } => expr.as_ref(),
            expr => expr,
        };
        let is_integer = matches!(number, Expr::Value(value)
            if matches!(&value.value, Value::Number(digits, _) if digits.parse::<i64>().is_ok()));
        if is_integer && names.contains(&fold(alias)) {
            *expr = Expr::Cast {
                kind: CastKind::Cast,
                expr: Box::new(expr.clone()),
                data_type: DataType::BigInt(None),
                array: false,
                format: None,
            };
        }
    }
}

fn bind_version(name: &mut ObjectName, alias: &mut Option<TableAlias>, version: &TableVersionRef) {
    let Some(ObjectNamePart::Identifier(last)) = name.0.last_mut() else {
        return;
    };
    let plain = last.clone();
    *last = Ident {
        value: versioned_name(&fold(&plain), version),
        quote_style: Some('"'),
        span: plain.span,
    };
    if alias.is_none() {
        *alias = Some(TableAlias {
            explicit: true,
            name: plain,
            columns: Vec::new(),
            at: None,
        });
    }
}

fn version_of(version: &TableVersion) -> Result<TableVersionRef, QueryError> {
    match version {
        TableVersion::VersionAsOf(expr) => match literal(expr) {
            Some(text) => text.parse().map(TableVersionRef::Version).map_err(|_| {
                QueryError::invalid(format!("{text} is not a table version")).with_hint("versions count from 0")
            }),
            None => Err(QueryError::invalid("VERSION AS OF needs a number")),
        },
        TableVersion::TimestampAsOf(expr) | TableVersion::ForSystemTimeAsOf(expr) => match literal(expr) {
            Some(text) => Ok(TableVersionRef::Timestamp(text)),
            None => Err(QueryError::invalid(
                "TIMESTAMP AS OF needs a literal, for example '2026-01-31 12:00:00'",
            )),
        },
        other => Err(QueryError::invalid(format!("{other} is not supported"))
            .with_hint("use VERSION AS OF n or TIMESTAMP AS OF '…'")),
    }
}

fn literal(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(text, _) => Some(text.to_string()),
            Value::SingleQuotedString(text) => Some(text.clone()),
            _ => None,
        },
        Expr::TypedString(typed) => match &typed.value.value {
            Value::SingleQuotedString(text) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    fn bound(sql: &str) -> Result<String, QueryError> {
        let mut statement = parse(sql)?;
        bind(&mut statement)?;
        Ok(statement.to_string())
    }

    #[test]
    fn question_marks_are_numbered_in_order() {
        assert_eq!(
            bound("SELECT ? + a FROM t WHERE b = ?").unwrap(),
            "SELECT $1 + a FROM t WHERE b = $2"
        );
        assert!(bound("SELECT ? + $1").is_err());
    }

    #[test]
    fn versions_move_into_the_name_and_keep_the_alias() {
        let sql = bound("SELECT t.a FROM t VERSION AS OF 3, s.u VERSION AS OF 0 AS x").unwrap();
        assert_eq!(sql, "SELECT t.a FROM \"t\u{1}v3\" AS t, s.\"u\u{1}v0\" AS x");
        let sql = bound("SELECT * FROM t TIMESTAMP AS OF '2026-01-01'").unwrap();
        assert!(sql.contains("\u{1}t2026-01-01"), "{sql}");
    }

    #[test]
    fn an_order_by_a_name_that_a_cast_has_too_is_put_outside() {
        let sql =
            bound("SELECT upper(s) AS x, CAST(x AS INT) AS y FROM t GROUP BY 1, 2 ORDER BY x, 2 LIMIT 3").unwrap();
        assert_eq!(
            sql,
            "SELECT * FROM (SELECT upper(s) AS x, CAST(x AS INT) AS y FROM t GROUP BY 1, 2) AS grouped ORDER BY x, 2 LIMIT 3"
        );
        let plain = "SELECT upper(s) AS x, CAST(y AS INT) AS z FROM t GROUP BY 1, 2 ORDER BY x, 2 LIMIT 3";
        assert_eq!(bound(plain).unwrap(), plain);
    }

    #[test]
    fn a_typed_mark_is_refused() {
        assert!(bound("SELECT * FROM \"t\u{1}v0\"").is_err());
    }
}
