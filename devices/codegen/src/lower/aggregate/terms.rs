//! The expressions of a sink of groups, each once, and what their values are like in all kernels.

use trireme_device_api::{Aggregate, Expr};

use super::known::Known;
use crate::lower::{Lowered, Lowering, Row, Value};

/// The expressions of the sink, each once.
pub(super) struct Terms {
    pub(super) groups: Vec<Expr>,
    pub(super) arguments: Vec<Expr>,
    pub(super) filters: Vec<Expr>,
    /// By aggregate: its argument and filter.
    pub(super) uses: Vec<(Option<usize>, Option<usize>)>,
}

impl Terms {
    pub(super) fn new(groups: &[Expr], aggregates: &[Aggregate]) -> Self {
        let (mut arguments, mut filters) = (Vec::new(), Vec::new());
        let once = |all: &mut Vec<Expr>, expr: &Option<Expr>| {
            let expr = expr.as_ref()?;
            let found = all.iter().position(|other| other == expr);
            Some(found.unwrap_or_else(|| {
                all.push(expr.clone());
                all.len() - 1
            }))
        };
        let uses = aggregates
            .iter()
            .map(|aggregate| {
                let argument = once(&mut arguments, &aggregate.argument);
                (argument, once(&mut filters, &aggregate.filter))
            })
            .collect();
        Self {
            groups: groups.to_vec(),
            arguments,
            filters,
            uses,
        }
    }

    /// What the groups and the arguments are like in all kernels.
    pub(super) fn known(&self, l: &mut Lowering<'_>) -> Lowered<(Vec<Known>, Vec<Known>)> {
        let values = l.look(&|l, row| self.values(l, row))?.unwrap_or_default();
        let mut values = values.iter().map(Known::of);
        let or_nothing = |known: Option<Known>, expr: &Expr| known.unwrap_or_else(|| Known::nothing(&expr.data_type));
        let groups = self.groups.iter().map(|expr| or_nothing(values.next(), expr)).collect();
        let mut arguments: Vec<Option<Known>> = vec![None; self.arguments.len()];
        let used = self.sections().flat_map(|section| self.used(section));
        for (argument, known) in used.zip(values) {
            match &mut arguments[argument] {
                Some(other) => other.merge(known)?,
                first => *first = Some(known),
            }
        }
        let arguments = arguments.into_iter().zip(&self.arguments);
        let arguments = arguments.map(|(known, expr)| or_nothing(known, expr)).collect();
        Ok((groups, arguments))
    }

    /// Values of the groups, then those of each section's arguments.
    fn values(&self, l: &mut Lowering<'_>, row: &mut Row) -> Lowered<Vec<Value>> {
        let mut values = self.keys(l, row)?;
        for section in self.sections() {
            match section.map(|filter| &self.filters[filter]) {
                None => values.extend(self.arguments(l, row, section)?.into_iter().flatten()),
                Some(filter) => {
                    let condition = l.condition(row, filter)?;
                    let mut inner = row.clone();
                    l.when(condition, |l| {
                        values.extend(self.arguments(l, &mut inner, section)?.into_iter().flatten());
                        Ok(())
                    })?;
                }
            }
        }
        Ok(values)
    }

    /// No filter, then each.
    fn sections(&self) -> impl Iterator<Item = Option<usize>> + use<> {
        std::iter::once(None).chain((0..self.filters.len()).map(Some))
    }

    /// The arguments that aggregates with this filter have, ascending.
    fn used(&self, filter: Option<usize>) -> impl Iterator<Item = usize> {
        let uses = move |argument: &usize| self.uses.contains(&(Some(*argument), filter));
        (0..self.arguments.len()).filter(uses)
    }

    pub(super) fn keys(&self, l: &mut Lowering<'_>, row: &mut Row) -> Lowered<Vec<Value>> {
        self.groups.iter().map(|group| l.expr(row, group)).collect()
    }

    /// The arguments that aggregates with this filter have, by position.
    pub(super) fn arguments(
        &self,
        l: &mut Lowering<'_>,
        row: &mut Row,
        filter: Option<usize>,
    ) -> Lowered<Vec<Option<Value>>> {
        let mut values = vec![None; self.arguments.len()];
        for argument in self.used(filter) {
            values[argument] = Some(l.expr(row, &self.arguments[argument])?);
        }
        Ok(values)
    }
}
