//! SUM of integers and decimals without wrapping: exact whatever the order of rows, and an error only when the result is
//! outside the result's type.
//!
//! ```text
//!  state of a group:  [ wrapped sum, native ]  +  carries × 2^bits      carries: sparse in memory, Int32 between stages
//! ```
//!
//! So a running sum may leave the type and come back. What it costs is one comparison per row. Floats, durations and
//! intervals are DataFusion's.

mod accumulators;
mod carry;

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{
    DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Field, FieldRef, Int64Type, UInt64Type,
};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, BinaryExpr, Documentation, Expr, GroupsAccumulator, Operator,
    ReversedUDAF, SetMonotonicity, Signature,
};

use self::accumulators::{DistinctSum, GroupsSum, RunningSum};
use super::arithmetic::CheckedOperator;

/// The aggregate function that stands for DataFusion's `sum`.
pub(super) fn exact_sum() -> Arc<AggregateUDF> {
    static FUNCTION: LazyLock<Arc<AggregateUDF>> =
        LazyLock::new(|| Arc::new(AggregateUDF::new_from_impl(ExactSum { stock: Sum::new() })));
    Arc::clone(&FUNCTION)
}

/// Whether the function is DataFusion's `sum`.
pub(super) fn is_stock_sum(function: &AggregateUDF) -> bool {
    function.inner().is::<Sum>()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ExactSum {
    stock: Sum,
}

/// Runs `$make::<T>` for the native type of a sum, or else the alternative.
macro_rules! by_type {
    ($data_type:expr, $make:ident, $otherwise:expr) => {
        match $data_type {
            DataType::Int64 => $make!(Int64Type),
            DataType::UInt64 => $make!(UInt64Type),
            DataType::Decimal32(..) => $make!(Decimal32Type),
            DataType::Decimal64(..) => $make!(Decimal64Type),
            DataType::Decimal128(..) => $make!(Decimal128Type),
            DataType::Decimal256(..) => $make!(Decimal256Type),
            _ => $otherwise,
        }
    };
}

fn is_exact(data_type: &DataType) -> bool {
    data_type.is_decimal() || matches!(data_type, DataType::Int64 | DataType::UInt64)
}

impl AggregateUDFImpl for ExactSum {
    fn name(&self) -> &str {
        self.stock.name()
    }

    fn signature(&self) -> &Signature {
        self.stock.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.stock.return_type(types)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let data_type = args.return_field.data_type().clone();
        macro_rules! make {
            ($native:ty) => {
                if args.is_distinct {
                    Ok(Box::new(DistinctSum::<$native>::new(data_type)))
                } else {
                    Ok(Box::new(RunningSum::<$native>::new(data_type)))
                }
            };
        }
        by_type!(data_type, make, self.stock.accumulator(args))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if !is_exact(args.return_field.data_type()) {
            return self.stock.create_sliding_accumulator(args);
        }
        // Both can retract.
        self.accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        if args.is_distinct || !is_exact(args.return_type()) {
            return self.stock.state_fields(args);
        }
        let low = Field::new(format_state_name(args.name, "sum"), args.return_type().clone(), true);
        let carries = Field::new(format_state_name(args.name, "carries"), DataType::Int32, false);
        Ok(vec![Arc::new(low), Arc::new(carries)])
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let data_type = args.return_field.data_type().clone();
        macro_rules! make {
            ($native:ty) => {
                Ok(Box::new(GroupsSum::<$native>::new(data_type)))
            };
        }
        by_type!(data_type, make, self.stock.create_groups_accumulator(args))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.stock.documentation()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.stock.set_monotonicity(data_type)
    }

    /// `sum(x + c)` → `sum(x) + c * count(x)`, for integers; the sum of floats and the type of decimals would change.
    fn simplify_expr_op_literal(
        &self,
        call: &AggregateFunction,
        argument: &Expr,
        operator: Operator,
        literal: &Expr,
        argument_is_left: bool,
    ) -> Result<Option<Expr>> {
        let is_integer = matches!(
            literal,
            Expr::Literal(ScalarValue::Int64(Some(_)) | ScalarValue::UInt64(Some(_)), _)
        );
        if !is_integer {
            return Ok(None);
        }
        let rewritten = self
            .stock
            .simplify_expr_op_literal(call, argument, operator, literal, argument_is_left)?;
        Ok(rewritten.map(checked))
    }
}

fn checked(expr: Expr) -> Expr {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match CheckedOperator::of(op) {
            Some(operator) => operator.call(vec![checked(*left), checked(*right)]),
            None => Expr::BinaryExpr(BinaryExpr { left, op, right }),
        },
        other => other,
    }
}
