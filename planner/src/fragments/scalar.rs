//! Scalar subqueries that may give several rows: what makes more than one an error of the query.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::Int64Type;
use trireme_device_api::{Aggregate, AggregateFunction, Expr, Field, HostFunction, HostFunctionRef, Node, Type};

use super::tree::{Op, RelationId, Tree};

/// Its first argument, if the second is at most 1.
struct OnlyRow;

impl HostFunction for OnlyRow {
    fn evaluate(&self, args: &[ArrayRef], _rows: usize) -> Result<ArrayRef, String> {
        let [value, count] = args else {
            return Err("a value and a count are wanted".to_owned());
        };
        let counts = count.as_primitive_opt::<Int64Type>().ok_or("a count is an integer")?;
        if counts.iter().flatten().any(|count| count > 1) {
            return Err("Scalar subquery returned more than one row".to_owned());
        }
        Ok(Arc::clone(value))
    }
}

/// One row with the value of the only row of a relation of one column, NULL if it has none; an error if it has several.
pub(super) fn at_most_one_row(tree: &mut Tree, input: RelationId) -> RelationId {
    let field = Field {
        nullable: true,
        ..tree.fields(input)[0].clone()
    };
    let count = Field {
        name: "count".to_owned(),
        data_type: Type::Int64,
        nullable: false,
    };
    let aggregate = |function, argument, data_type: &Type| Aggregate {
        function,
        argument,
        distinct: false,
        filter: None,
        order: Vec::new(),
        data_type: data_type.clone(),
    };
    // The least of one value is that value.
    let value = Expr::column(0, field.data_type.clone());
    let aggregates = vec![
        aggregate(AggregateFunction::Min, Some(value), &field.data_type),
        aggregate(AggregateFunction::Count, None, &Type::Int64),
    ];
    let op = Op::Aggregate {
        input,
        groups: Vec::new(),
        aggregates,
    };
    let counted = tree.add(op, vec![field.clone(), count]);
    let only = Expr {
        node: Node::Host {
            function: HostFunctionRef {
                name: format!("only_row [{:?}]", field.data_type),
                implementation: Some(Arc::new(OnlyRow)),
            },
            args: tree.columns(counted),
        },
        data_type: field.data_type.clone(),
    };
    tree.project(counted, vec![only], vec![field])
}
