//! What the tables of a FROM clause are called, and their columns.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Ident, ObjectName, ObjectNamePart, Query, Select, SetExpr, TableAlias, TableFactor, VisitorMut,
};

use super::{Tables, merges};
use crate::names::{fold, result_name};

/// Finds whether a statement merges columns, its tables, and what columns its WITH queries have.
#[derive(Default)]
pub(super) struct Named {
    pub merges: bool,
    pub tables: Vec<ObjectName>,
    pub queries: Tables,
}

impl VisitorMut for Named {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        for with in query.with.iter().flat_map(|with| &with.cte_tables) {
            let name = with.alias.name.to_string();
            let columns = renamed(&with.alias, outputs(&with.query));
            // Two of one name: which is meant where isn't told here.
            let columns = match self.queries.get(&name) {
                Some(other) if *other != columns => None,
                _ => columns,
            };
            self.queries.insert(name, columns);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        self.merges |= select.from.iter().any(merges);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, args: None, .. } = factor {
            self.tables.push(name.clone());
        }
        ControlFlow::Continue(())
    }
}

/// The names of a query's columns, if each has one.
fn outputs(query: &Query) -> Option<Vec<String>> {
    let mut body = query.body.as_ref();
    loop {
        body = match body {
            SetExpr::SetOperation { left, .. } => left,
            SetExpr::Query(query) => &query.body,
            SetExpr::Select(select) => return select.projection.iter().map(result_name).collect(),
            _ => return None,
        };
    }
}

fn renamed(alias: &TableAlias, columns: Option<Vec<String>>) -> Option<Vec<String>> {
    if alias.columns.is_empty() {
        return columns;
    }
    let mut names: Vec<String> = alias.columns.iter().map(|column| fold(&column.name)).collect();
    if let Some(columns) = columns {
        names.extend(columns.into_iter().skip(alias.columns.len()));
    }
    Some(names)
}

fn alias(factor: &TableFactor) -> Option<&TableAlias> {
    match factor {
        TableFactor::Table { alias, .. }
        | TableFactor::Derived { alias, .. }
        | TableFactor::TableFunction { alias, .. }
        | TableFactor::Function { alias, .. }
        | TableFactor::UNNEST { alias, .. }
        | TableFactor::NestedJoin { alias, .. }
        | TableFactor::Pivot { alias, .. }
        | TableFactor::Unpivot { alias, .. } => alias.as_ref(),
        _ => None,
    }
}

/// What qualifies the columns of a table.
pub(super) fn of_factor(factor: &TableFactor) -> Option<Vec<Ident>> {
    if let Some(alias) = alias(factor) {
        return Some(vec![alias.name.clone()]);
    }
    match factor {
        TableFactor::Table { name, args: None, .. } => name
            .0
            .iter()
            .map(ObjectNamePart::as_ident)
            .map(Option::<&Ident>::cloned)
            .collect(),
        _ => None,
    }
}

/// The columns of a table, if they can be told.
pub(super) fn columns(factor: &TableFactor, tables: &Tables) -> Option<Vec<String>> {
    let own = match factor {
        TableFactor::Table { name, args: None, .. } => tables.get(&name.to_string()).cloned().flatten(),
        TableFactor::Derived { subquery, .. } => outputs(subquery),
        _ => None,
    };
    match alias(factor) {
        // More columns may follow those that are renamed.
        Some(alias) if own.is_some() => renamed(alias, own),
        _ => own,
    }
}

/// Names a subquery that has no name, so that its columns can be told from another table's.
pub(super) fn name_derived(factor: &mut TableFactor, unnamed: &mut usize) {
    if let TableFactor::Derived {
        alias: alias @ None, ..
    } = factor
    {
        *unnamed += 1;
        *alias = Some(TableAlias {
            explicit: true,
            name: Ident::with_quote('"', format!("subquery {unnamed}")),
            columns: Vec::new(),
            at: None,
        });
    }
}
