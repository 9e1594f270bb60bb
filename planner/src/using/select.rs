//! Puts what merged columns stand for into a SELECT and its ORDER BY.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::common::{Result, internal_err};
use datafusion::sql::sqlparser::ast::{
    ExcludeSelectItem, Expr, Ident, ObjectName, OrderBy, OrderByKind, Query, ReplaceSelectElement, ReplaceSelectItem,
    Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, Statement, TableAlias, TableFactor, TableWithJoins,
    VisitMut, VisitorMut, WildcardAdditionalOptions,
};
use datafusion::sql::sqlparser::parser::Parser;

use super::names::{Columns, excluded, of_item};
use super::{Merged, Side};
use crate::dialect::TriremeDialect;
use crate::names::{fold, result_name};
use crate::repeated::call;

/// What a merged column is.
pub(super) fn value(merged: &Merged) -> Expr {
    match &merged.value[..] {
        [one] => one.clone(),
        all => call("coalesce", all.iter().cloned()),
    }
}

/// Replaces the names of merged columns, within subqueries only where these have no columns of the names.
pub(super) struct Replacing<'a> {
    merged: &'a [Merged],
    within: &'a HashMap<String, Columns>,
    /// The columns of the subqueries around; none for those that can't be told.
    around: Vec<&'a Columns>,
}

impl<'a> Replacing<'a> {
    pub(super) fn new(merged: &'a [Merged], within: &'a HashMap<String, Columns>) -> Self {
        let around = Vec::new();
        Self { merged, within, around }
    }

    fn is_own(&self, name: &Ident) -> bool {
        let name = fold(name);
        let has = |columns: &&Columns| columns.as_ref().is_none_or(|columns| columns.contains(&name));
        self.around.iter().any(has)
    }

    fn find(&self, name: &Ident) -> Option<&'a Merged> {
        let name = fold(name);
        let mut found = self.merged.iter().filter(|merged| fold(&merged.name) == name);
        // Two joins that merge columns of one name: planning says that it is ambiguous.
        found.next().filter(|_| found.next().is_none())
    }
}

impl VisitorMut for Replacing<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.around.push(self.within.get(&query.to_string()).unwrap_or(&None));
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.around.pop();
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Identifier(name) = expr
            && !self.is_own(name)
            && let Some(merged) = self.find(name)
        {
            *expr = value(merged);
        }
        ControlFlow::Continue(())
    }
}

/// Spells merged columns out.
pub(super) fn spell(
    select: &mut Select,
    order_by: Option<&mut OrderBy>,
    from: &Side,
    within: &HashMap<String, Columns>,
) {
    if let Some(order_by) = order_by {
        spell_order(select, order_by, from, within);
    }
    let mut replacing = Replacing::new(&from.merged, within);
    let items = std::mem::take(&mut select.projection);
    select.projection = items
        .into_iter()
        .flat_map(|item| shown(item, from, &mut replacing))
        .collect();
    let _ = select.distinct.visit(&mut replacing);
    let _ = select.selection.visit(&mut replacing);
    let _ = select.group_by.visit(&mut replacing);
    let _ = select.having.visit(&mut replacing);
    let _ = select.named_window.visit(&mut replacing);
    let _ = select.qualify.visit(&mut replacing);
}

/// A name in ORDER BY is a result's first, and a merged column's then.
fn spell_order(select: &Select, order_by: &mut OrderBy, from: &Side, within: &HashMap<String, Columns>) {
    let OrderByKind::Expressions(exprs) = &mut order_by.kind else {
        return;
    };
    let all = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_));
    let has_all = select.projection.iter().any(all);
    let gives = |item: &SelectItem, name: &String| match item {
        SelectItem::QualifiedWildcard(..) => of_item(item, from).is_none_or(|columns| columns.contains(name)),
        item => result_name(item).as_ref() == Some(name),
    };
    let is_result = |name: &Ident| {
        let name = fold(name);
        has_all || select.projection.iter().any(|item| gives(item, &name))
    };
    // A result that is the merged column itself stands for it everywhere.
    let is_itself = |merged: &Merged| {
        let plain = |item: &SelectItem| match item {
            SelectItem::UnnamedExpr(Expr::Identifier(name)) => fold(name) == fold(&merged.name),
            _ => false,
        };
        has_all || select.projection.iter().any(plain)
    };
    let others: Vec<Merged> = from
        .merged
        .iter()
        .filter(|merged| !is_itself(merged))
        .cloned()
        .collect();
    let mut replacing = Replacing::new(&others, within);
    for by in exprs {
        if !matches!(&by.expr, Expr::Identifier(name) if is_result(name)) {
            let _ = by.expr.visit(&mut replacing);
        }
    }
}

/// What a result becomes.
fn shown(item: SelectItem, from: &Side, replacing: &mut Replacing<'_>) -> Vec<SelectItem> {
    match item {
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => vec![match replacing.find(&name).map(value) {
            None => SelectItem::UnnamedExpr(Expr::Identifier(name)),
            Some(column @ (Expr::Identifier(_) | Expr::CompoundIdentifier(_))) => SelectItem::UnnamedExpr(column),
            Some(expr) => SelectItem::ExprWithAlias { expr, alias: name },
        }],
        SelectItem::Wildcard(mut options) => {
            let _ = options.opt_replace.visit(replacing);
            if let Some(items) = all(from, &options) {
                return items;
            }
            let known = is_bare(&options);
            let merged = from.merged.iter().filter(|merged| !known || !merged.plain);
            replace(&mut options, &merged.cloned().collect::<Vec<_>>());
            vec![SelectItem::Wildcard(options)]
        }
        mut item => {
            let _ = item.visit(replacing);
            vec![item]
        }
    }
}

/// A join with a name of its own, as the subquery that it is.
pub(super) fn derived(
    join: &TableWithJoins,
    alias: &TableAlias,
    from: &Side,
    within: &HashMap<String, Columns>,
) -> Result<TableFactor> {
    let statements = Parser::parse_sql(&TriremeDialect, "SELECT * FROM t")?;
    let Some(Statement::Query(mut query)) = statements.into_iter().next() else {
        return internal_err!("a query is no query");
    };
    if let SetExpr::Select(select) = query.body.as_mut() {
        select.from = vec![join.clone()];
        spell(select, None, from, within);
    }
    Ok(TableFactor::Derived {
        lateral: false,
        subquery: query,
        alias: Some(alias.clone()),
        sample: None,
    })
}

fn is_bare(options: &WildcardAdditionalOptions) -> bool {
    options.opt_ilike.is_none()
        && options.opt_exclude.is_none()
        && options.opt_except.is_none()
        && options.opt_replace.is_none()
        && options.opt_rename.is_none()
        && options.opt_alias.is_none()
}

/// `*` as the tables one by one; none where one of them has no name, or columns that can't be told matter.
fn all(from: &Side, options: &WildcardAdditionalOptions) -> Option<Vec<SelectItem>> {
    let is_split = options.opt_ilike.is_none() && options.opt_rename.is_none() && options.opt_alias.is_none();
    if from.untold || !is_split {
        return None;
    }
    let excluded = excluded(options)?;
    let replaced = options.opt_replace.iter().flat_map(|replaced| &replaced.items);
    let replaced: Vec<_> = replaced.map(|item| (fold(&item.column_name), item)).collect();
    let named = || excluded.iter().chain(replaced.iter().map(|(name, _)| name));
    if named().next().is_some() {
        let shown = from.columns()?;
        // What isn't there is planning's to say.
        if !named().all(|name| shown.contains(name)) {
            return None;
        }
    }
    let mut items = Vec::new();
    for (at, factor) in from.factors.iter().enumerate() {
        let name = factor.name.clone()?;
        let columns = factor.columns.as_deref().unwrap_or_default();
        let mut left_out: Vec<Ident> = factor.hidden.clone();
        let is_left_out = |left_out: &[Ident], name: &String| left_out.iter().any(|other| fold(other) == *name);
        for name in excluded.iter().filter(|name| columns.contains(name)) {
            if !is_left_out(&left_out, name) {
                left_out.push(Ident::with_quote('"', name));
            }
        }
        if !columns.is_empty() && columns.iter().all(|column| is_left_out(&left_out, column)) {
            continue;
        }
        let mut options = WildcardAdditionalOptions::default();
        let mine = |name: &String| columns.contains(name) && !is_left_out(&left_out, name);
        let replaced = replaced.iter().filter(|(name, _)| mine(name));
        let replaced: Vec<_> = replaced.map(|(_, item)| (*item).clone()).collect();
        if !replaced.is_empty() {
            options.opt_replace = Some(ReplaceSelectItem { items: replaced });
        }
        let own = |merged: &Merged| match &merged.value[..] {
            [Expr::CompoundIdentifier(parts)] => parts.split_last().is_some_and(|(_, table)| *table == name[..]),
            _ => false,
        };
        let here = |merged: &&Merged| {
            !merged.plain && !own(merged) && merged.homes.contains(&at) && !is_left_out(&left_out, &fold(&merged.name))
        };
        let merged: Vec<Merged> = from.merged.iter().filter(here).cloned().collect();
        if !merged.is_empty() && options.opt_replace.is_none() && !columns.is_empty() {
            // One by one: names that another table has too are told apart then.
            let shown = columns.iter().filter(|column| !is_left_out(&left_out, column));
            items.extend(shown.map(|column| {
                let alias = Ident::with_quote('"', column);
                match merged.iter().find(|merged| fold(&merged.name) == *column) {
                    Some(merged) => SelectItem::ExprWithAlias {
                        expr: value(merged),
                        alias,
                    },
                    None => SelectItem::UnnamedExpr(Expr::CompoundIdentifier([&name[..], &[alias]].concat())),
                }
            }));
            continue;
        }
        replace(&mut options, &merged);
        if !left_out.is_empty() {
            let left_out = left_out.into_iter().map(ObjectName::from).collect();
            options.opt_exclude = Some(ExcludeSelectItem::Multiple(left_out));
        }
        let name = SelectItemQualifiedWildcardKind::ObjectName(ObjectName::from(name));
        items.push(SelectItem::QualifiedWildcard(name, options));
    }
    Some(items)
}

/// Adds what merged columns are to what a `*` replaces.
fn replace(options: &mut WildcardAdditionalOptions, merged: &[Merged]) {
    let mut items = options
        .opt_replace
        .take()
        .map(|replaced| replaced.items)
        .unwrap_or_default();
    for merged in merged {
        if items.iter().any(|item| fold(&item.column_name) == fold(&merged.name)) {
            continue;
        }
        items.push(Box::new(ReplaceSelectElement {
            expr: value(merged),
            column_name: merged.name.clone(),
            as_keyword: true,
        }));
    }
    if !items.is_empty() {
        options.opt_replace = Some(ReplaceSelectItem { items });
    }
}
