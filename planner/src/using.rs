//! The columns that USING and NATURAL joins merge, as SQL means them.
//!
//! DataFusion takes a merged column for the left one, which is NULL beside rows of the right side alone, refuses it in WHERE,
//! and shows in `*` that of the table whose name comes first. Here such joins are spelled out before they are planned: the
//! merged column's name becomes what it stands for (`coalesce(a.k, b.k)` for FULL), `*` the tables one by one, and NATURAL the
//! USING that it means.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::common::{Result, plan_datafusion_err, plan_err};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::sql::parser::Statement;
use datafusion::sql::planner::object_name_to_table_reference;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Ident, Join, JoinConstraint, JoinOperator, ObjectName, Query, Select, SetExpr, TableFactor,
    TableWithJoins, VisitMut, VisitorMut,
};

use crate::bind::visit;
use crate::names::fold;

mod names;
mod select;

use names::{Columns, Scope};

/// The statement with its merged columns spelled out.
///
/// # Errors
/// For a NATURAL outer join of what has columns that can't be told without planning it.
pub(crate) async fn spelled(state: &SessionState, mut statement: Statement) -> Result<Statement> {
    let mut named = names::Named::default();
    let _ = visit(&mut statement, &mut named);
    if !named.merges {
        return Ok(statement);
    }
    let mut spelling = Spelling::default();
    for name in named.tables {
        let key = name.to_string();
        if let std::collections::hash_map::Entry::Vacant(entry) = spelling.tables.entry(key) {
            entry.insert(columns_of(state, name).await?);
        }
    }
    match visit(&mut statement, &mut spelling) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(statement),
    }
}

/// A table's columns; none if there is no such table, which planning will say.
async fn columns_of(state: &SessionState, name: ObjectName) -> Result<Columns> {
    let reference = object_name_to_table_reference(name, true)?;
    let table = reference.table().to_owned();
    let Ok(schema) = state.schema_for_ref(reference) else {
        return Ok(None);
    };
    let table = schema.table(&table).await?;
    Ok(table.map(|table| {
        table
            .schema()
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect()
    }))
}

#[derive(Default)]
struct Spelling {
    /// The catalog's tables, by their names as written.
    tables: HashMap<String, Columns>,
    /// Of each query around.
    scopes: Vec<Scope>,
    /// The names that each query within has of its own, by its text.
    within: HashMap<String, Columns>,
}

impl VisitorMut for Spelling {
    type Break = DataFusionError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<DataFusionError> {
        self.enter(query);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<DataFusionError> {
        let order_by = query.order_by.as_mut();
        let result = match query.body.as_mut() {
            SetExpr::Select(select) => self.spell(select).map(|from| {
                if let Some(from) = from {
                    select::spell(select, order_by, &from, &self.within);
                }
            }),
            body => self.spell_operands(body),
        };
        if let SetExpr::Select(select) = query.body.as_ref() {
            let columns = self.own_names(select);
            self.within.insert(query.to_string(), columns);
        }
        self.leave();
        match result {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

impl Spelling {
    fn spell_operands(&mut self, body: &mut SetExpr) -> Result<()> {
        match body {
            SetExpr::Select(select) => {
                if let Some(from) = self.spell(select)? {
                    select::spell(select, None, &from, &self.within);
                }
                Ok(())
            }
            SetExpr::SetOperation { left, right, .. } => {
                self.spell_operands(left)?;
                self.spell_operands(right)
            }
            _ => Ok(()),
        }
    }

    /// What the FROM clause gives, its joins spelled out; none where nothing is merged.
    fn spell(&mut self, select: &mut Select) -> Result<Option<Side>> {
        if !select.from.iter().any(merges) {
            return Ok(None);
        }
        let mut all = Side::default();
        let mut unnamed = 0;
        for item in &mut select.from {
            self.refer(&mut item.relation, &all.merged);
            let side = self.chain(item, &mut unnamed)?;
            all = all.beside(side);
        }
        Ok(Some(all))
    }

    fn chain(&mut self, chain: &mut TableWithJoins, unnamed: &mut usize) -> Result<Side> {
        let mut left = self.side(&mut chain.relation, unnamed)?;
        for join in &mut chain.joins {
            self.refer(&mut join.relation, &left.merged);
            let right = self.side(&mut join.relation, unnamed)?;
            left = self.joined(left, right, join)?;
        }
        Ok(left)
    }

    /// What a LATERAL names of the merged columns before it.
    fn refer(&self, factor: &mut TableFactor, merged: &[Merged]) {
        if let TableFactor::Derived {
            lateral: true,
            subquery,
            ..
        } = factor
        {
            let _ = subquery.visit(&mut select::Replacing::new(merged, &self.within));
        }
    }

    fn side(&mut self, factor: &mut TableFactor, unnamed: &mut usize) -> Result<Side> {
        if let TableFactor::NestedJoin {
            table_with_joins,
            alias: None,
        } = factor
        {
            return self.chain(table_with_joins, unnamed);
        }
        if let TableFactor::NestedJoin {
            table_with_joins,
            alias: Some(alias),
        } = factor
        {
            let columns = match merges(table_with_joins) {
                true => {
                    let from = self.chain(table_with_joins, unnamed)?;
                    let columns = names::renamed(alias, from.columns());
                    *factor = select::derived(table_with_joins, alias, &from, &self.within)?;
                    columns
                }
                false => None,
            };
            return Ok(Side {
                factors: vec![Factor {
                    name: names::of_factor(factor),
                    columns,
                    ..Factor::default()
                }],
                ..Side::default()
            });
        }
        names::name_derived(factor, unnamed);
        Ok(Side {
            factors: vec![Factor {
                name: names::of_factor(factor),
                columns: self.columns(factor),
                ..Factor::default()
            }],
            ..Side::default()
        })
    }
}

fn merges(item: &TableWithJoins) -> bool {
    let nested = |factor: &TableFactor| match factor {
        TableFactor::NestedJoin { table_with_joins, .. } => merges(table_with_joins),
        _ => false,
    };
    let merging = |join: &Join| {
        matches!(
            kind(&join.join_operator),
            Some((_, JoinConstraint::Using(_) | JoinConstraint::Natural))
        ) || nested(&join.relation)
    };
    nested(&item.relation) || item.joins.iter().any(merging)
}

/// A table of a FROM clause, and how `*` shows it.
#[derive(Default)]
struct Factor {
    /// What qualifies its columns; none for what has no name.
    name: Option<Vec<Ident>>,
    columns: Columns,
    hidden: Vec<Ident>,
}

/// A column that a join merged.
#[derive(Clone)]
struct Merged {
    name: Ident,
    /// It is the first of these that isn't NULL.
    value: Vec<Expr>,
    /// The factors of which one has it, where `*` shows it.
    homes: Vec<usize>,
    /// Whether it is what DataFusion takes it for.
    plain: bool,
}

/// What a part of a FROM clause gives.
#[derive(Default)]
struct Side {
    factors: Vec<Factor>,
    merged: Vec<Merged>,
    /// Whether it can't be told which table has a merged column.
    untold: bool,
}

impl Side {
    fn beside(mut self, mut right: Self) -> Self {
        let offset = self.factors.len();
        for merged in &mut right.merged {
            merged.homes.iter_mut().for_each(|home| *home += offset);
        }
        self.factors.append(&mut right.factors);
        self.merged.append(&mut right.merged);
        self.untold |= right.untold;
        self
    }

    /// The table of a name, if it is the only one.
    fn factor(&self, name: &ObjectName) -> Option<&Factor> {
        let wanted = name.0.last()?.as_ident().map(fold)?;
        let is_named = |factor: &&Factor| {
            let parts = factor.name.as_deref().unwrap_or_default();
            parts.last().is_some_and(|last| fold(last) == wanted)
        };
        let mut named = self.factors.iter().filter(is_named);
        named.next().filter(|_| named.next().is_none())
    }

    /// The columns `*` shows.
    fn columns(&self) -> Columns {
        if self.untold {
            return None;
        }
        let mut all = Vec::new();
        for factor in &self.factors {
            let shown = |name: &&String| !factor.hidden.iter().any(|hidden| fold(hidden) == **name);
            all.extend(factor.columns.as_ref()?.iter().filter(shown).cloned());
        }
        Some(all)
    }

    /// Takes out a column to merge it.
    fn take(&mut self, name: &Ident) -> Merged {
        let folded = fold(name);
        if let Some(at) = self.merged.iter().position(|merged| fold(&merged.name) == folded) {
            let mut merged = self.merged.swap_remove(at);
            // DataFusion knows a name that one join merged, not one of several.
            merged.plain &= !merged
                .value
                .iter()
                .all(|value| matches!(value, Expr::CompoundIdentifier(_)));
            return merged;
        }
        let may_have = |factor: &Factor| factor.columns.as_ref().is_none_or(|columns| columns.contains(&folded));
        let homes: Vec<usize> = (0..self.factors.len())
            .filter(|&at| may_have(&self.factors[at]))
            .collect();
        let qualified = match homes[..] {
            [home] => self.factors[home].name.clone(),
            _ => None,
        };
        let column = match qualified {
            Some(mut parts) => {
                parts.push(name.clone());
                Expr::CompoundIdentifier(parts)
            }
            None => Expr::Identifier(name.clone()),
        };
        Merged {
            name: name.clone(),
            value: vec![column],
            homes,
            plain: true,
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Inner,
    Left,
    Right,
    Full,
    /// Semi and anti joins: one side's rows.
    LeftOnly,
    RightOnly,
}

fn kind(operator: &JoinOperator) -> Option<(Kind, &JoinConstraint)> {
    Some(match operator {
        JoinOperator::Join(on) | JoinOperator::Inner(on) => (Kind::Inner, on),
        JoinOperator::Left(on) | JoinOperator::LeftOuter(on) => (Kind::Left, on),
        JoinOperator::Right(on) | JoinOperator::RightOuter(on) => (Kind::Right, on),
        JoinOperator::FullOuter(on) => (Kind::Full, on),
        JoinOperator::LeftSemi(on) | JoinOperator::LeftAnti(on) => (Kind::LeftOnly, on),
        JoinOperator::RightSemi(on) | JoinOperator::RightAnti(on) => (Kind::RightOnly, on),
        _ => return None,
    })
}

fn constraint(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    match operator {
        JoinOperator::Join(on)
        | JoinOperator::Inner(on)
        | JoinOperator::Left(on)
        | JoinOperator::LeftOuter(on)
        | JoinOperator::Right(on)
        | JoinOperator::RightOuter(on)
        | JoinOperator::FullOuter(on)
        | JoinOperator::LeftSemi(on)
        | JoinOperator::LeftAnti(on)
        | JoinOperator::RightSemi(on)
        | JoinOperator::RightAnti(on) => Some(on),
        _ => None,
    }
}

impl Spelling {
    /// What a join gives.
    fn joined(&self, mut left: Side, mut right: Side, join: &mut Join) -> Result<Side> {
        let Some(kind) = kind(&join.join_operator).map(|(kind, _)| kind) else {
            return Ok(left.beside(right));
        };
        let Some(constraint) = constraint(&mut join.join_operator) else {
            return Ok(left.beside(right));
        };
        let mut merged = Vec::new();
        match constraint {
            JoinConstraint::On(condition) => {
                let known = [&left.merged[..], &right.merged[..]].concat();
                let _ = condition.visit(&mut select::Replacing::new(&known, &self.within));
            }
            JoinConstraint::None => {}
            JoinConstraint::Using(_) | JoinConstraint::Natural => {
                let names = using(constraint, &left, &right, kind)?;
                let pairs: Vec<_> = names.iter().map(|name| (left.take(name), right.take(name))).collect();
                if pairs.iter().any(|(left, right)| !left.plain || !right.plain) {
                    *constraint = JoinConstraint::On(equal(&pairs)?);
                }
                let offset = left.factors.len();
                for (mine, its) in pairs {
                    let (hides, hidden, homes) = match kind {
                        Kind::RightOnly => (&mut left, mine.homes.clone(), its.homes.clone()),
                        _ => (&mut right, its.homes.clone(), mine.homes.clone()),
                    };
                    match hidden[..] {
                        [home] => hides.factors[home].hidden.push(mine.name.clone()),
                        _ => hides.untold = true,
                    }
                    let offset = if kind == Kind::RightOnly { offset } else { 0 };
                    merged.push(Merged {
                        homes: homes.into_iter().map(|home| home + offset).collect(),
                        plain: mine.plain && !matches!(kind, Kind::Right | Kind::Full),
                        name: mine.name,
                        value: match kind {
                            Kind::Inner | Kind::Left | Kind::LeftOnly => mine.value,
                            Kind::Right | Kind::RightOnly => its.value,
                            Kind::Full => mine.value.into_iter().chain(its.value).collect(),
                        },
                    });
                }
            }
        }
        let offset = left.factors.len();
        let mut both = left.beside(right);
        both.merged.extend(merged);
        both.keep(kind, offset);
        Ok(both)
    }
}

impl Side {
    /// Drops the side that a semi or anti join doesn't give.
    fn keep(&mut self, kind: Kind, offset: usize) {
        match kind {
            Kind::LeftOnly => {
                self.factors.truncate(offset);
                self.merged
                    .retain(|merged| merged.homes.iter().all(|&home| home < offset));
            }
            Kind::RightOnly => {
                self.factors.drain(..offset);
                self.merged
                    .retain(|merged| merged.homes.iter().all(|&home| home >= offset));
                for merged in &mut self.merged {
                    merged.homes.iter_mut().for_each(|home| *home -= offset);
                }
            }
            _ => {}
        }
    }
}

/// The names a join merges; NATURAL becomes the USING that it means.
fn using(constraint: &mut JoinConstraint, left: &Side, right: &Side, kind: Kind) -> Result<Vec<Ident>> {
    if let JoinConstraint::Using(names) = constraint {
        let plain = |name: &ObjectName| match &name.0[..] {
            [part] => part.as_ident().map(|name| Ident::with_quote('"', fold(name))),
            _ => None,
        };
        let folded: Option<Vec<_>> = names.iter().map(plain).collect();
        let folded = folded.ok_or_else(|| plan_datafusion_err!("USING takes names of columns, without a table's"))?;
        *names = folded.iter().cloned().map(ObjectName::from).collect();
        return Ok(folded);
    }
    let (Some(left), Some(right)) = (left.columns(), right.columns()) else {
        return match kind {
            Kind::Left | Kind::Right | Kind::Full => plan_err!(
                "NATURAL can't tell the columns of a subquery with unnamed results, or of a function: write USING with the columns' names"
            ),
            _ => Ok(Vec::new()),
        };
    };
    let common: Vec<Ident> = left
        .into_iter()
        .filter(|name| right.contains(name))
        .map(|name| Ident::with_quote('"', name))
        .collect();
    if !common.is_empty() {
        *constraint = JoinConstraint::Using(common.iter().cloned().map(ObjectName::from).collect());
    }
    Ok(common)
}

/// The condition of a USING whose columns are merged ones themselves.
fn equal(pairs: &[(Merged, Merged)]) -> Result<Expr> {
    pairs
        .iter()
        .map(|(left, right)| Expr::BinaryOp {
            left: Box::new(select::value(left)),
            op: BinaryOperator::Eq,
            right: Box::new(select::value(right)),
        })
        .reduce(|all, one| Expr::BinaryOp {
            left: Box::new(all),
            op: BinaryOperator::And,
            right: Box::new(one),
        })
        .ok_or_else(|| plan_datafusion_err!("USING names no column"))
}
