//! The arguments of FIRST and LAST: their values together with the keys they are ordered by.

use std::sync::Arc;

use trireme_device_api::{Aggregate, AggregateFunction, DeviceError, Expr, Inputs, Node, Rows};

use crate::aggregate::Ordered;
use crate::expr::Program;
use crate::isa::Isa;
use crate::sort::KeyOrder;
use crate::tile::Tile;
use crate::vector::{Shape, Vector};

/// One FIRST or LAST and its keys.
pub(super) struct OrderedArgument {
    keys: Vec<Program>,
    ordered: Ordered,
}

impl OrderedArgument {
    /// For an aggregate over values of `argument`; none for other aggregates.
    pub(super) fn compile(
        aggregate: &Aggregate,
        argument: Option<&Program>,
        row: &[Shape],
        inputs: &Inputs,
        isa: Isa,
    ) -> Result<Option<Self>, DeviceError> {
        let last = match aggregate.function {
            AggregateFunction::First => false,
            AggregateFunction::Last => true,
            _ => return Ok(None),
        };
        let Some(argument) = argument else {
            return Err(DeviceError::Unsupported(
                "FIRST without an argument is not fused".to_owned(),
            ));
        };
        let program = |expr: &Expr| Program::compile(expr, row, &inputs.parameters, isa);
        let mut keys = Vec::new();
        for key in &aggregate.order {
            let plain = program(&key.expr)?;
            keys.push(match &aggregate.filter {
                Some(filter) if plain.can_fail() => program(&where_true(filter, &key.expr))?,
                _ => plain,
            });
        }
        let orders: Vec<KeyOrder> = aggregate
            .order
            .iter()
            .zip(&keys)
            .map(|(key, program)| KeyOrder {
                shape: program.shape().clone(),
                descending: key.descending,
                nulls_first: key.nulls_first,
            })
            .collect();
        let ordered = Ordered::new(&orders, argument.shape(), last);
        Ok(Some(Self { keys, ordered }))
    }

    /// The expressions of its keys.
    pub(super) fn keys(&self) -> &[Program] {
        &self.keys
    }

    /// What the aggregate sink computes instead.
    pub(super) fn aggregate(&self, aggregate: &Aggregate, index: usize) -> (Aggregate, Shape) {
        self.ordered.aggregate(aggregate, index)
    }

    /// The argument of that.
    pub(super) fn argument(&self, tile: &Tile<'_>, value: &Vector<'_>) -> Result<Vector<'static>, DeviceError> {
        let keys = self.keys.iter().map(|program| program.view(tile));
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        self.ordered.argument(&keys, value, tile.rows)
    }
}

/// The rows of an aggregate sink with the values of each FIRST and LAST, which stand after `groups` columns.
pub(super) fn values(rows: Rows, arguments: &[Option<OrderedArgument>], groups: usize) -> Result<Rows, DeviceError> {
    let mut rows = rows;
    for (_, columns) in &mut rows.segments {
        for (column, argument) in columns.iter_mut().skip(groups).zip(arguments) {
            if let Some(argument) = argument {
                *column = Arc::new(argument.ordered.values(column)?);
            }
        }
    }
    Ok(rows)
}

/// An expression where a filter passes, so that it can only fail there.
pub(super) fn where_true(filter: &Expr, expr: &Expr) -> Expr {
    Expr {
        node: Node::Case {
            branches: vec![(filter.clone(), expr.clone())],
            otherwise: None,
        },
        data_type: expr.data_type.clone(),
    }
}
