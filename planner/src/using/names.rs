//! What the tables of a FROM clause are called, and their columns.

use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    ExceptSelectItem, ExcludeSelectItem, Ident, ObjectName, ObjectNamePart, Query, Select, SelectFlavor, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, TableAlias, TableFactor, VisitorMut, WildcardAdditionalOptions,
};

use super::{Side, Spelling, merges};
use crate::names::{fold, result_name};

/// The names of columns; none where they can't be told.
pub(super) type Columns = Option<Vec<String>>;

/// Finds whether a statement merges columns, and its tables; `FROM t` alone gets its `SELECT *`.
#[derive(Default)]
pub(super) struct Named {
    pub merges: bool,
    pub tables: Vec<ObjectName>,
}

impl VisitorMut for Named {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if select.projection.is_empty() && select.flavor == SelectFlavor::FromFirstNoSelect {
            select.projection = vec![SelectItem::Wildcard(WildcardAdditionalOptions::default())];
            select.flavor = SelectFlavor::FromFirst;
        }
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

/// The WITH queries of a query, by their folded names.
#[derive(Default)]
pub(super) struct Scope {
    known: HashMap<String, Columns>,
    /// Those that only what follows them may name.
    coming: VecDeque<(String, Columns)>,
    is_recursive: bool,
}

impl Scope {
    fn reveal(&mut self) {
        self.known.extend(self.coming.pop_front());
    }
}

impl Spelling {
    /// Goes into a query.
    pub(super) fn enter(&mut self, query: &Query) {
        if let Some(around) = self.scopes.last_mut().filter(|around| around.is_recursive) {
            around.reveal();
        }
        let scope = self.scope(query);
        self.scopes.push(scope);
    }

    /// Comes out of a query, which may be the next WITH query of the one around it.
    pub(super) fn leave(&mut self) {
        self.scopes.pop();
        if let Some(around) = self.scopes.last_mut().filter(|around| !around.is_recursive) {
            around.reveal();
        }
    }

    fn scope(&mut self, query: &Query) -> Scope {
        let Some(with) = &query.with else {
            return Scope::default();
        };
        self.scopes.push(Scope::default());
        let mut coming = VecDeque::new();
        for cte in &with.cte_tables {
            let columns = renamed(&cte.alias, self.outputs(&cte.query));
            coming.push_back((fold(&cte.alias.name), columns));
            if let Some(scope) = self.scopes.last_mut() {
                scope.known.extend(coming.back().cloned());
            }
        }
        self.scopes.pop();
        Scope {
            coming,
            is_recursive: with.recursive,
            ..Scope::default()
        }
    }

    fn outputs(&mut self, query: &Query) -> Columns {
        let mut scope = self.scope(query);
        scope.known.extend(scope.coming.drain(..));
        self.scopes.push(scope);
        let columns = self.of_body(&query.body);
        self.scopes.pop();
        columns
    }

    fn of_body(&mut self, body: &SetExpr) -> Columns {
        match body {
            SetExpr::SetOperation { left, .. } => self.of_body(left),
            SetExpr::Query(query) => self.outputs(query),
            SetExpr::Select(select) => self.of_select(select),
            SetExpr::Values(values) => {
                let row = values.rows.first()?;
                Some((1..=row.len()).map(|at| format!("column{at}")).collect())
            }
            _ => None,
        }
    }

    fn of_select(&mut self, select: &Select) -> Columns {
        let from = match select.projection.iter().any(|item| result_name(item).is_none()) {
            true => self.side_of_from(select)?,
            false => Side::default(),
        };
        let mut all = Vec::new();
        for item in &select.projection {
            all.extend(of_item(item, &from)?);
        }
        Some(all)
    }

    fn side_of_from(&mut self, select: &Select) -> Option<Side> {
        let mut from = Side::default();
        for mut item in select.from.clone() {
            from = from.beside(self.chain(&mut item, &mut 0).ok()?);
        }
        Some(from)
    }

    /// All names that a SELECT has: its results', and those of its FROM.
    pub(super) fn own_names(&mut self, select: &Select) -> Columns {
        let mut all: Vec<String> = select.projection.iter().filter_map(result_name).collect();
        for factor in self.side_of_from(select)?.factors {
            all.extend(factor.columns?);
        }
        Some(all)
    }

    /// The columns of a table.
    pub(super) fn columns(&mut self, factor: &TableFactor) -> Columns {
        let own = match factor {
            TableFactor::Table { name, args: None, .. } => self.of_table(name),
            TableFactor::Derived { subquery, .. } => self.outputs(subquery),
            _ => None,
        };
        match alias(factor) {
            Some(alias) => renamed(alias, own),
            None => own,
        }
    }

    fn of_table(&self, name: &ObjectName) -> Columns {
        let mut scopes = self.scopes.iter().rev();
        if let [ObjectNamePart::Identifier(name)] = &name.0[..]
            && let Some(columns) = scopes.find_map(|scope| scope.known.get(&fold(name)))
        {
            return columns.clone();
        }
        self.tables.get(&name.to_string()).cloned().flatten()
    }
}

/// The names that a result gives.
pub(super) fn of_item(item: &SelectItem, from: &Side) -> Columns {
    let (columns, options) = match item {
        SelectItem::Wildcard(options) => (from.columns()?, options),
        SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
            (from.factor(name)?.columns.clone()?, options)
        }
        item => return result_name(item).map(|name| vec![name]),
    };
    let excluded = excluded(options)?;
    let is_plain = options.opt_ilike.is_none() && options.opt_rename.is_none() && options.opt_alias.is_none();
    let shown = |name: &String| !excluded.contains(name);
    is_plain.then(|| columns.into_iter().filter(shown).collect())
}

/// The columns that a wildcard leaves out; none if it names a table with one.
pub(super) fn excluded(options: &WildcardAdditionalOptions) -> Columns {
    let mut names = Vec::new();
    match &options.opt_exclude {
        Some(ExcludeSelectItem::Single(name)) => names.push(name),
        Some(ExcludeSelectItem::Multiple(all)) => names.extend(all),
        None => {}
    }
    let plain = |name: &ObjectName| match &name.0[..] {
        [ObjectNamePart::Identifier(name)] => Some(fold(name)),
        _ => None,
    };
    let mut names: Vec<String> = names.into_iter().map(plain).collect::<Option<_>>()?;
    if let Some(ExceptSelectItem {
        first_element,
        additional_elements,
    }) = &options.opt_except
    {
        names.push(fold(first_element));
        names.extend(additional_elements.iter().map(fold));
    }
    Some(names)
}

/// What a table's columns are called by its alias, which names all of them or none.
pub(super) fn renamed(alias: &TableAlias, columns: Columns) -> Columns {
    if alias.columns.is_empty() {
        return columns;
    }
    Some(alias.columns.iter().map(|column| fold(&column.name)).collect())
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
