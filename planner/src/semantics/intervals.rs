//! `interval_times(interval, n)`: an interval so many times, which DataFusion has no operator for.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::kernels::arity::try_binary;
use arrow::datatypes::{
    DataType, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit::MonthDayNano,
};
use arrow::error::ArrowError;
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

/// The function's name.
pub(crate) const INTERVAL_TIMES: &str = "interval_times";

/// The function.
pub(crate) fn interval_times() -> ScalarUDF {
    let types = vec![DataType::Interval(MonthDayNano), DataType::Int64];
    ScalarUDF::new_from_impl(IntervalTimes {
        signature: Signature::exact(types, Volatility::Immutable),
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct IntervalTimes {
    signature: Signature,
}

impl ScalarUDFImpl for IntervalTimes {
    fn name(&self) -> &str {
        INTERVAL_TIMES
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Interval(MonthDayNano))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [intervals, times] = &arrays[..] else {
            return exec_err!("{INTERVAL_TIMES} has two arguments");
        };
        let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>();
        let products = try_binary::<_, _, _, IntervalMonthDayNanoType>(
            intervals,
            times.as_primitive::<Int64Type>(),
            |interval, times| {
                product(interval, times).ok_or_else(|| ArrowError::ComputeError("interval overflow".into()))
            },
        )?;
        let products: ArrayRef = Arc::new(products);
        Ok(match is_constant {
            true => ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(&products, 0)?),
            false => ColumnarValue::Array(products),
        })
    }
}

fn product(interval: IntervalMonthDayNano, times: i64) -> Option<IntervalMonthDayNano> {
    let narrow = i32::try_from(times).ok();
    let of_days = |days: i32| match days {
        0 => Some(0),
        days => days.checked_mul(narrow?),
    };
    Some(IntervalMonthDayNano::new(
        of_days(interval.months)?,
        of_days(interval.days)?,
        interval.nanoseconds.checked_mul(times)?,
    ))
}
