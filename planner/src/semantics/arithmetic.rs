//! The checked forms of `+`, `-`, `*`, of a decimal's `/` and `%`, and of negation, as functions of the logical and the physical
//! plan.
//!
//! Each prints, names its column, types itself and bounds itself as the operator that it stands for. What needs a check, and
//! so a function, is decided in the analyzer rule; how it is computed, in the kernels.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::interval_arithmetic::{Interval, apply_operator};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    ColumnarValue, Expr, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::kernels;

/// What a checked function computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CheckedOperator {
    /// `left + right`.
    Add,
    /// `left - right`.
    Subtract,
    /// `left * right`.
    Multiply,
    /// `left / right`, of decimals.
    Divide,
    /// `left % right`, of decimals.
    Remainder,
    /// `-operand`.
    Negate,
}

impl CheckedOperator {
    /// The operator that it checks, if that is one of two operands.
    pub fn binary(self) -> Option<Operator> {
        match self {
            Self::Add => Some(Operator::Plus),
            Self::Subtract => Some(Operator::Minus),
            Self::Multiply => Some(Operator::Multiply),
            Self::Divide => Some(Operator::Divide),
            Self::Remainder => Some(Operator::Modulo),
            Self::Negate => None,
        }
    }

    /// The checked form of an operator.
    pub(super) fn of(operator: Operator) -> Option<Self> {
        match operator {
            Operator::Plus => Some(Self::Add),
            Operator::Minus => Some(Self::Subtract),
            Operator::Multiply => Some(Self::Multiply),
            Operator::Divide => Some(Self::Divide),
            Operator::Modulo => Some(Self::Remainder),
            _ => None,
        }
    }

    /// As people write it.
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract | Self::Negate => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
        }
    }

    fn function(self) -> &'static Arc<ScalarUDF> {
        static FUNCTIONS: LazyLock<[Arc<ScalarUDF>; 6]> = LazyLock::new(|| {
            [
                CheckedOperator::Add,
                CheckedOperator::Subtract,
                CheckedOperator::Multiply,
                CheckedOperator::Divide,
                CheckedOperator::Remainder,
                CheckedOperator::Negate,
            ]
            .map(|operator| Arc::new(ScalarUDF::new_from_impl(Checked::new(operator))))
        });
        let [add, subtract, multiply, divide, remainder, negate] = &*FUNCTIONS;
        match self {
            Self::Add => add,
            Self::Subtract => subtract,
            Self::Multiply => multiply,
            Self::Divide => divide,
            Self::Remainder => remainder,
            Self::Negate => negate,
        }
    }

    /// The checked operation on operands.
    pub(super) fn call(self, operands: Vec<Expr>) -> Expr {
        self.function().call(operands)
    }
}

/// The operator that a function checks, if it is one of these: what lowering asks.
pub fn checked_operator(function: &ScalarUDF) -> Option<CheckedOperator> {
    function
        .inner()
        .downcast_ref::<Checked>()
        .map(|checked| checked.operator)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    operator: CheckedOperator,
    signature: Signature,
}

impl Checked {
    fn new(operator: CheckedOperator) -> Self {
        let operands = if operator == CheckedOperator::Negate { 1 } else { 2 };
        Self {
            operator,
            signature: Signature::any(operands, Volatility::Immutable),
        }
    }

    /// `left symbol right`, with the operands as `show` writes them.
    fn written(&self, operands: &[Expr], show: impl Fn(&Expr) -> String) -> String {
        match operands {
            [left, right] => format!("{} {} {}", show(left), self.operator.symbol(), show(right)),
            [operand] => format!("(- {})", show(operand)),
            _ => self.name().to_owned(),
        }
    }
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.operator {
            CheckedOperator::Add => "checked_add",
            CheckedOperator::Subtract => "checked_subtract",
            CheckedOperator::Multiply => "checked_multiply",
            CheckedOperator::Divide => "checked_divide",
            CheckedOperator::Remainder => "checked_remainder",
            CheckedOperator::Negate => "checked_negate",
        }
    }

    fn schema_name(&self, operands: &[Expr]) -> Result<String> {
        Ok(self.written(operands, |operand| operand.schema_name().to_string()))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match (self.operator.binary(), types) {
            (Some(operator), [left, right]) => BinaryTypeCoercer::new(left, &operator, right).get_result_type(),
            (None, [operand]) => Ok(operand.clone()),
            _ => plan_err!("{} has other operands", self.name()),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<_> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, nullable)))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let result = args.return_field.data_type();
        match (args.args.as_slice(), args.number_rows) {
            ([left, right], rows) => kernels::binary(self.operator, left, right, result, rows),
            ([operand], _) => kernels::negate(operand),
            _ => exec_err!("{} has other operands", self.name()),
        }
    }

    fn simplify(&self, operands: Vec<Expr>, _info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        Ok(match (self.operator, operands.as_slice()) {
            (CheckedOperator::Add | CheckedOperator::Subtract, [left, right]) if is_integer(right, 0) => {
                ExprSimplifyResult::Simplified(left.clone())
            }
            (CheckedOperator::Add, [left, right]) if is_integer(left, 0) => {
                ExprSimplifyResult::Simplified(right.clone())
            }
            (CheckedOperator::Multiply, [left, right]) if is_integer(right, 1) => {
                ExprSimplifyResult::Simplified(left.clone())
            }
            (CheckedOperator::Multiply, [left, right]) if is_integer(left, 1) => {
                ExprSimplifyResult::Simplified(right.clone())
            }
            _ => ExprSimplifyResult::Original(operands),
        })
    }

    fn evaluate_bounds(&self, inputs: &[&Interval]) -> Result<Interval> {
        match (self.operator.binary(), inputs) {
            // Bounds of quotients are computed by the kernel that this stands for.
            (Some(Operator::Divide | Operator::Modulo), [left, right]) => {
                Interval::make_unbounded(&self.return_type(&[left.data_type(), right.data_type()])?)
            }
            (Some(operator), [left, right]) => apply_operator(&operator, left, right),
            (None, [operand]) => operand.arithmetic_negate(),
            _ => Interval::make_unbounded(&DataType::Null),
        }
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        Ok(match (self.operator, inputs) {
            (CheckedOperator::Add, [left, right]) => left.sort_properties.add(&right.sort_properties),
            (CheckedOperator::Subtract, [left, right]) => left.sort_properties.sub(&right.sort_properties),
            (CheckedOperator::Negate, [operand]) => -operand.sort_properties,
            _ => SortProperties::Unordered,
        })
    }
}

/// Whether the expression is this integer: an identity whose removal keeps the other operand's type.
fn is_integer(expr: &Expr, value: i8) -> bool {
    let Expr::Literal(literal, _) = expr else { return false };
    literal.data_type().is_integer()
        && ScalarValue::Int8(Some(value))
            .cast_to(&literal.data_type())
            .is_ok_and(|value| value == *literal)
}
