//! The expressions of a sink of groups, each once, and what their values are like in all kernels.

use trireme_device_api::{Aggregate, Expr};

use super::known::{Known, learn};
use crate::lower::{Lowered, Lowering, ProgramOutput, Row, Sink, Unsupported, Value};

/// The expressions of the sink, each once.
#[derive(Clone)]
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

    /// No filter, then each.
    pub(super) fn sections(&self) -> impl Iterator<Item = Option<usize>> + use<> {
        std::iter::once(None).chain((0..self.filters.len()).map(Some))
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
        for (argument, used) in &self.uses {
            if let Some(argument) = argument.filter(|_| *used == filter)
                && values[argument].is_none()
            {
                values[argument] = Some(l.expr(row, &self.arguments[argument])?);
            }
        }
        Ok(values)
    }
}

/// A sink that learns what its rows are like.
pub(super) struct Look {
    pub(super) terms: Terms,
    pub(super) groups: Vec<Option<Known>>,
    pub(super) arguments: Vec<Option<Known>>,
}

impl Look {
    fn section(&mut self, l: &mut Lowering<'_>, row: &mut Row, filter: Option<usize>) -> Lowered<()> {
        let values = self.terms.arguments(l, row, filter)?;
        for (known, value) in self.arguments.iter_mut().zip(&values) {
            if let Some(value) = value {
                learn(known, value)?;
            }
        }
        Ok(())
    }
}

impl Sink for Look {
    fn begin(&mut self, _: &mut Lowering<'_>) -> Lowered<()> {
        Ok(())
    }

    fn row(&mut self, l: &mut Lowering<'_>, row: &mut Row) -> Lowered<()> {
        let keys = self.terms.keys(l, row)?;
        for (known, key) in self.groups.iter_mut().zip(&keys) {
            learn(known, key)?;
        }
        for section in self.terms.sections() {
            match section {
                None => self.section(l, row, None)?,
                Some(filter) => {
                    let condition = l.condition(row, &self.terms.filters[filter])?;
                    let mut inner = row.clone();
                    l.when(condition, |l| self.section(l, &mut inner, section))?;
                }
            }
        }
        Ok(())
    }

    fn slot_end(&mut self, _: &mut Lowering<'_>) -> Lowered<()> {
        Ok(())
    }

    fn end(&mut self, _: &mut Lowering<'_>) -> Lowered<()> {
        Ok(())
    }

    fn finish(&mut self, _: &mut Lowering<'_>) -> Lowered<ProgramOutput> {
        Err(Unsupported("a sink that only looks".to_owned()))
    }
}
