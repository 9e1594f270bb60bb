//! From an expression to nodes: leaves, dictionary tables, operators, and what is constant.

use trireme_device_api::{BinaryOperator, DeviceError, Expr, Node as ExprNode};

use super::bound::{Bound, bound};
use super::constant::{column, constant, fail};
use super::{
    Compiled, Compiler, Input, Slots, arithmetic, case, cast, compare, dictionary, extract, function, host, in_list,
    like, logic,
};
use crate::isa::Isa;
use crate::vector::{Shape, Vector};

impl Compiler<'_> {
    /// The node of an expression.
    pub(super) fn compile(&self, expr: &Expr) -> Result<Compiled, DeviceError> {
        match &expr.node {
            ExprNode::Column(index) => {
                let shape = self.row.get(*index);
                let shape =
                    shape.ok_or_else(|| DeviceError::Internal(format!("no column {index} to compile against")))?;
                return Ok(column(*index, shape));
            }
            ExprNode::Literal(value) => return Ok(constant(value.clone(), &expr.data_type)),
            ExprNode::Parameter(index) => {
                let value = self.parameters.get(*index);
                let value = value.ok_or_else(|| DeviceError::Internal(format!("no parameter {index}")))?;
                return Ok(constant(value.clone(), &expr.data_type));
            }
            _ => {}
        }
        if let Some(looked_up) = dictionary::build(self, expr)? {
            return Ok(looked_up);
        }
        let compiled = self.operator(expr)?;
        if compiled.constant.is_none() && expr.columns().is_empty() {
            return self.folded(&compiled);
        }
        Ok(compiled)
    }

    /// The value of an expression without columns; its error stays for the rows that reach it.
    fn folded(&self, compiled: &Compiled) -> Result<Compiled, DeviceError> {
        let slots = NoColumns;
        match compiled.eval(&Input::new(&slots, 1, self.isa)) {
            Ok(vector) => Ok(constant(vector.value(0), &compiled.shape.data_type)),
            Err(error @ (DeviceError::Arithmetic(_) | DeviceError::Input(_))) => Ok(fail(error, &compiled.shape)),
            Err(error) => Err(error),
        }
    }

    fn operator(&self, expr: &Expr) -> Result<Compiled, DeviceError> {
        match &expr.node {
            ExprNode::Binary { op, left, right } => self.binary(expr, *op, left, right),
            ExprNode::Not(operand) => Ok(logic::not(self.compile(operand)?)),
            ExprNode::Negate(operand) => arithmetic::negate(self.compile(operand)?, &expr.data_type),
            ExprNode::IsNull(operand) => Ok(logic::is_null(self.compile(operand)?, false)),
            ExprNode::IsNotNull(operand) => Ok(logic::is_null(self.compile(operand)?, true)),
            ExprNode::Case { branches, otherwise } => {
                let pair = |(condition, value): &(Expr, Expr)| Ok((self.compile(condition)?, self.compile(value)?));
                let branches = branches.iter().map(pair).collect::<Result<_, DeviceError>>()?;
                let otherwise = otherwise
                    .as_deref()
                    .map(|otherwise| self.compile(otherwise))
                    .transpose()?;
                case::build(branches, otherwise, &expr.data_type)
            }
            ExprNode::InList { expr, list, negated } => {
                let list = list
                    .iter()
                    .map(|item| self.compile(item))
                    .collect::<Result<Vec<_>, _>>()?;
                in_list::build(self.compile(expr)?, &list, *negated)
            }
            ExprNode::Like {
                expr,
                pattern,
                negated,
                case_insensitive,
            } => like::build(
                self.compile(expr)?,
                &self.compile(pattern)?,
                *negated,
                *case_insensitive,
            ),
            ExprNode::Cast { expr: operand, safe } => cast::build(self.compile(operand)?, &expr.data_type, *safe),
            ExprNode::Extract { part, expr: operand } => extract::build(*part, self.compile(operand)?, &expr.data_type),
            ExprNode::Function { function, args } => {
                let args = args.iter().map(|arg| self.compile(arg)).collect::<Result<_, _>>()?;
                function::build(*function, args, &expr.data_type)
            }
            ExprNode::Host { function, args } => {
                let args = args.iter().map(|arg| self.compile(arg)).collect::<Result<_, _>>()?;
                host::function(function, args, &expr.data_type)
            }
            ExprNode::Column(_) | ExprNode::Literal(_) | ExprNode::Parameter(_) => self.compile(expr),
        }
    }

    fn binary(&self, expr: &Expr, op: BinaryOperator, left: &Expr, right: &Expr) -> Result<Compiled, DeviceError> {
        match op {
            BinaryOperator::And | BinaryOperator::Or => logic::junction(self, expr, op),
            BinaryOperator::Add
            | BinaryOperator::Subtract
            | BinaryOperator::Multiply
            | BinaryOperator::Divide
            | BinaryOperator::Remainder
            | BinaryOperator::BitAnd
            | BinaryOperator::BitOr
            | BinaryOperator::BitXor => {
                arithmetic::build(op, self.compile(left)?, self.compile(right)?, &expr.data_type)
            }
            _ => match bound(self, expr)? {
                Some(Bound { operand, low, high }) => compare::interval(self.compile(operand)?, low, high, false),
                None => compare::build(op, self.compile(left)?, self.compile(right)?),
            },
        }
    }
}

/// Rows without columns.
struct NoColumns;

impl<'x> Slots<'x> for NoColumns {
    fn slot(&self, index: usize, _: &Shape, _: Option<&[u32]>, _: Isa) -> Result<Vector<'x>, DeviceError> {
        Err(DeviceError::Internal(format!(
            "column {index} of a constant expression"
        )))
    }
}
