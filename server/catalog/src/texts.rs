//! What a column may be set to that the table is partitioned by: a table's log has the same word for an empty text and for
//! NULL, so that an empty text is refused.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use trireme_exec::QueryError;

use crate::insert::FirstError;

/// Refuses empty texts in a column's values; other types have none.
pub(crate) fn check_not_empty(column: &str, values: &ArrayRef) -> Result<()> {
    let is_text = match values.data_type() {
        DataType::Dictionary(_, values) => values.is_string(),
        plain => plain.is_string(),
    };
    if !is_text {
        return Ok(());
    }
    let texts = cast(values, &DataType::Utf8View)?;
    if texts.as_string_view().iter().flatten().any(str::is_empty) {
        let error = QueryError::invalid(format!("column {column} can't be an empty text"))
            .with_hint("the table is partitioned by it; use NULL");
        return Err(DataFusionError::External(Box::new(error)));
    }
    Ok(())
}

/// The value, unless a row's is an empty text; the error is kept in `first` too, since the writer makes text of it.
pub(crate) fn not_empty(column: &str, value: Expr, first: &FirstError) -> Expr {
    let function = NotEmpty {
        column: column.to_owned(),
        first: first.clone(),
        signature: Signature::any(1, Volatility::Immutable),
    };
    ScalarUDF::new_from_impl(function).call(vec![value])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct NotEmpty {
    column: String,
    first: FirstError,
    signature: Signature,
}

impl ScalarUDFImpl for NotEmpty {
    fn name(&self) -> &str {
        "trireme_not_empty"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        Ok(args[0].clone())
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let value = args.args.swap_remove(0);
        let values = value.to_array(1)?;
        check_not_empty(&self.column, &values).map_err(|error| self.first.keep(error))?;
        Ok(value)
    }
}
