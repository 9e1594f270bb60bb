//! `trireme_single(value, rows)`: the value, unless it is of several rows.

use std::sync::{Arc, LazyLock};

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, Projection, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};

/// A call of the function.
pub(in super::super) fn value(value: Expr, rows: Expr) -> Expr {
    static FUNCTION: LazyLock<ScalarUDF> = LazyLock::new(|| {
        ScalarUDF::new_from_impl(Single {
            signature: Signature::any(2, Volatility::Immutable),
        })
    });
    FUNCTION.call(vec![value, rows])
}

/// The plan, whose column is made of a call of one row, without the call.
pub(super) fn without(plan: &Arc<LogicalPlan>) -> Result<Arc<LogicalPlan>> {
    let LogicalPlan::Projection(projection) = plan.as_ref() else {
        return Ok(Arc::clone(plan));
    };
    let [Expr::Alias(alias)] = projection.expr.as_slice() else {
        return Ok(Arc::clone(plan));
    };
    match alias.expr.as_ref() {
        Expr::ScalarFunction(call) if call.name() == NAME => {
            let value = call.args[0]
                .clone()
                .alias_qualified(alias.relation.clone(), &alias.name);
            let projection = Projection::try_new(vec![value], Arc::clone(&projection.input))?;
            Ok(Arc::new(LogicalPlan::Projection(projection)))
        }
        _ => Ok(Arc::clone(plan)),
    }
}

const NAME: &str = "trireme_single";

#[derive(Debug, PartialEq, Eq, Hash)]
struct Single {
    signature: Signature,
}

impl ScalarUDFImpl for Single {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        Ok(args[0].clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let value = args.arg_fields[0].data_type().clone();
        Ok(Field::new(self.name(), value, true).into())
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let has_several = match &args.args[1] {
            ColumnarValue::Array(rows) => rows.as_primitive::<Int64Type>().iter().flatten().any(|rows| rows > 1),
            ColumnarValue::Scalar(rows) => matches!(rows, ScalarValue::Int64(Some(2..))),
        };
        if has_several {
            return exec_err!("a subquery that stands for a value gave more than one row: use LIMIT 1 or an aggregate");
        }
        Ok(args.args.swap_remove(0))
    }
}
