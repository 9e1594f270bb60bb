//! The function that stands for a parameter in a cached plan: `trireme_parameter(position, constant of its type)`.
//!
//! It can't be evaluated while planning, so no rule sees a value and none makes a plan that holds for one value only. The
//! values that the shape was first seen with travel beside it, for estimates.

use std::any::Any;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use trireme_device_api::{Type, Value};

/// The function's name; its first argument is the parameter's position.
pub const PARAMETER_FUNCTION: &str = "trireme_parameter";

/// The function, with the values of all parameters.
#[derive(Debug)]
pub struct ParameterFunction {
    signature: Signature,
    values: Arc<[Value]>,
}

impl ParameterFunction {
    /// For a session that plans a shape which was seen with these values.
    pub fn udf(values: &[Value]) -> ScalarUDF {
        ScalarUDF::new_from_impl(Self {
            signature: Signature::any(2, Volatility::Immutable),
            values: values.into(),
        })
    }

    /// The values, if the function is this one.
    pub(super) fn values_of(function: &ScalarUDF) -> Option<Arc<[Value]>> {
        let inner: &dyn Any = function.inner().as_ref();
        inner.downcast_ref::<Self>().map(|own| Arc::clone(&own.values))
    }
}

impl PartialEq for ParameterFunction {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.values, &other.values)
    }
}

impl Eq for ParameterFunction {}

impl Hash for ParameterFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        PARAMETER_FUNCTION.hash(state);
    }
}

impl ScalarUDFImpl for ParameterFunction {
    fn name(&self) -> &str {
        PARAMETER_FUNCTION
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.get(1).cloned().unwrap_or(DataType::Null))
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(DataFusionError::Execution(
            "a parameter has no value while it is planned".to_owned(),
        ))
    }
}

/// The parameters that a part of a plan reads.
#[derive(Debug, Default)]
pub(super) struct Parameters {
    /// Types, by position.
    pub(super) types: Vec<Type>,
    /// Values to estimate with, by position.
    pub(super) values: Arc<[Value]>,
}
