//! What several expressions of a sink have in common: computed once per tile, as columns after those of the row.
//!
//! TPC-H Q1 sums `price * (1 - discount)` and `price * (1 - discount) * (1 + tax)`. Constants that are parameters are compared
//! by value: a statement's two 1s are two parameters.

use trireme_device_api::{BinaryOperator, DeviceError, Expr, Node, Value};

use crate::expr::Program;
use crate::isa::Isa;
use crate::vector::Shape;

/// Replaces arithmetic that occurs more than once, and can't fail, by columns from `row.len()` on. What they compute, in
/// order: each may read those before. `row` gets their shapes.
///
/// # Errors
/// An expression doesn't compile.
pub(super) fn share(
    exprs: &mut [&mut Expr],
    row: &mut Vec<Shape>,
    parameters: &[Value],
    isa: Isa,
) -> Result<Vec<Program>, DeviceError> {
    for expr in &mut *exprs {
        inline(expr, parameters);
    }
    let mut programs = Vec::new();
    let mut refused: Vec<Expr> = Vec::new();
    while let Some(found) = repeated(exprs, &refused) {
        let program = Program::compile(&found, row, &[], isa)?;
        if program.can_fail() {
            refused.push(found);
            continue;
        }
        for expr in &mut *exprs {
            replace(expr, &found, row.len());
        }
        row.push(program.shape().clone());
        programs.push(program);
    }
    Ok(programs)
}

/// Parameters become the constants that they are.
fn inline(expr: &mut Expr, parameters: &[Value]) {
    if let Node::Parameter(index) = expr.node
        && let Some(value) = parameters.get(index)
    {
        expr.node = Node::Literal(value.clone());
    }
    for child in expr.children_mut() {
        inline(child, parameters);
    }
}

/// The largest arithmetic that occurs more than once.
fn repeated(exprs: &[&mut Expr], refused: &[Expr]) -> Option<Expr> {
    let mut candidates: Vec<(&Expr, usize)> = Vec::new();
    let mut best: Option<(&Expr, usize)> = None;
    for expr in exprs {
        expr.visit(&mut |expr| {
            if !is_arithmetic(expr) || expr.columns().is_empty() || refused.contains(expr) {
                return;
            }
            match candidates.iter().find(|(other, _)| *other == expr) {
                None => candidates.push((expr, size(expr))),
                Some((_, size)) if best.is_none_or(|(_, largest)| *size > largest) => best = Some((expr, *size)),
                Some(_) => {}
            }
        });
    }
    best.map(|(expr, _)| expr.clone())
}

fn is_arithmetic(expr: &Expr) -> bool {
    let number = expr.data_type.is_integral() || expr.data_type.is_float();
    let arithmetic = match expr.node {
        Node::Binary { op, .. } => matches!(
            op,
            BinaryOperator::Add | BinaryOperator::Subtract | BinaryOperator::Multiply | BinaryOperator::Divide
        ),
        Node::Extract { .. } => true,
        _ => false,
    };
    number && arithmetic
}

fn size(expr: &Expr) -> usize {
    let mut nodes = 0;
    expr.visit(&mut |_| nodes += 1);
    nodes
}

fn replace(expr: &mut Expr, wanted: &Expr, column: usize) {
    if expr == wanted {
        expr.node = Node::Column(column);
        return;
    }
    for child in expr.children_mut() {
        replace(child, wanted, column);
    }
}

#[cfg(test)]
mod tests {
    use trireme_device_api::Type;

    use super::*;

    fn column(index: usize) -> Expr {
        Expr::column(index, Type::Int64)
    }

    fn parameter(index: usize) -> Expr {
        Expr {
            node: Node::Parameter(index),
            data_type: Type::Int64,
        }
    }

    fn binary(op: BinaryOperator, left: Expr, right: Expr) -> Expr {
        Expr::binary(op, left, right, Type::Int64)
    }

    fn row() -> Vec<Shape> {
        let shape = |high| Shape {
            range: Some((0, high)),
            ..Shape::of_type(Type::Int64, false)
        };
        vec![shape(1000), shape(i64::MAX.into())]
    }

    #[test]
    fn equal_arithmetic_is_computed_once_also_with_parameters_of_equal_value() {
        let discounted = |one| binary(BinaryOperator::Subtract, parameter(one), column(0));
        let mut first = binary(BinaryOperator::Multiply, column(0), discounted(0));
        let mut second = binary(
            BinaryOperator::Multiply,
            binary(BinaryOperator::Multiply, column(0), discounted(1)),
            discounted(2),
        );
        let mut row = row();
        let programs = share(
            &mut [&mut first, &mut second],
            &mut row,
            &[Value::Int(1), Value::Int(1), Value::Int(2)],
            Isa::detect(),
        )
        .expect("compiles");
        assert_eq!((programs.len(), row.len()), (1, 3));
        assert_eq!(first, column(2));
        assert_eq!(row[2].range, Some((-999_000, 1000)));
        let Node::Binary { left, .. } = &second.node else {
            panic!("{second:?}")
        };
        assert_eq!(**left, column(2));
    }

    #[test]
    fn what_may_fail_stays_where_it_is() {
        let sum = || binary(BinaryOperator::Add, column(1), column(1));
        let (mut first, mut second) = (sum(), sum());
        let mut row = row();
        let programs = share(&mut [&mut first, &mut second], &mut row, &[], Isa::detect()).expect("compiles");
        assert!(programs.is_empty() && row.len() == 2);
        assert_eq!(first, sum());
    }
}
