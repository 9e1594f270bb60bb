//! Aggregates over the rows of one group.

use std::collections::BTreeSet;

use arrow::datatypes::i256;
use trireme_device_api::{Aggregate, AggregateFunction, DeviceError, SortKey, Type, Value};

use super::arithmetic::{fit_decimal, rescale};
use super::evaluate::{evaluate, truth};
use super::{overflow, sort_keys};
use crate::values::{Key, Row, int_to_float, narrow_float, power_of_ten};

/// An aggregate's value, and how far another order of summation may put a float.
pub(crate) struct Aggregated {
    pub(crate) value: Value,
    /// None: exact.
    pub(crate) slack: Option<f64>,
}

fn exact(value: Value) -> Result<Aggregated, DeviceError> {
    Ok(Aggregated { value, slack: None })
}

/// The aggregate over the rows of a group.
pub(crate) fn aggregate(aggregate: &Aggregate, rows: &[&Row], parameters: &[Value]) -> Result<Aggregated, DeviceError> {
    let mut kept = Vec::new();
    for row in rows {
        let keep = match &aggregate.filter {
            Some(filter) => truth(&evaluate(filter, row, parameters)?)? == Some(true),
            None => true,
        };
        if keep {
            kept.push(*row);
        }
    }
    let Some(argument) = &aggregate.argument else {
        return exact(Value::Int(count(kept.len())));
    };
    let data_type = &argument.data_type;
    match aggregate.function {
        AggregateFunction::First => return exact(first(&aggregate.order, argument, &kept, parameters, false)?),
        AggregateFunction::Last => return exact(first(&aggregate.order, argument, &kept, parameters, true)?),
        _ => {}
    }
    let mut values = Vec::new();
    let mut seen = BTreeSet::new();
    for row in kept {
        let value = evaluate(argument, row, parameters)?;
        if value != Value::Null && (!aggregate.distinct || seen.insert(Key::of(&value, data_type))) {
            values.push(value);
        }
    }
    over_values(aggregate.function, &values, data_type, &aggregate.data_type)
}

fn count(rows: usize) -> i128 {
    i128::try_from(rows).unwrap_or(i128::MAX)
}

fn first(
    order: &[SortKey],
    argument: &trireme_device_api::Expr,
    rows: &[&Row],
    parameters: &[Value],
    last: bool,
) -> Result<Value, DeviceError> {
    let mut keyed = Vec::new();
    for row in rows {
        keyed.push((sort_keys(order, row, parameters)?, evaluate(argument, row, parameters)?));
    }
    keyed.sort_by(|a, b| a.0.cmp(&b.0));
    let chosen = if last { keyed.pop() } else { keyed.into_iter().next() };
    Ok(chosen.map_or(Value::Null, |(_, value)| value))
}

/// Over values that are not NULL.
fn over_values(
    function: AggregateFunction,
    values: &[Value],
    data_type: &Type,
    result: &Type,
) -> Result<Aggregated, DeviceError> {
    use AggregateFunction as Function;
    if function == Function::Count {
        return exact(Value::Int(count(values.len())));
    }
    if values.is_empty() {
        return exact(Value::Null);
    }
    let by_key = |value: &&Value| Key::of(value, data_type);
    match function {
        Function::Min => exact(values.iter().min_by_key(by_key).cloned().unwrap_or(Value::Null)),
        Function::Max => exact(values.iter().max_by_key(by_key).cloned().unwrap_or(Value::Null)),
        Function::BoolAnd => exact(Value::Boolean(!values.contains(&Value::Boolean(false)))),
        Function::BoolOr => exact(Value::Boolean(values.contains(&Value::Boolean(true)))),
        Function::Sum => sum(values, data_type, result),
        Function::Average => average(values, data_type, result),
        _ => Ok(spread(function, values, data_type)),
    }
}

fn exact_sum(values: &[Value]) -> Option<i256> {
    values.iter().try_fold(i256::ZERO, |sum, value| match value {
        Value::Int(value) => sum.checked_add(i256::from_i128(*value)),
        _ => None,
    })
}

fn floats(values: &[Value], data_type: &Type) -> Vec<f64> {
    let scale = match data_type {
        Type::Decimal { scale, .. } => i32::from(*scale),
        _ => 0,
    };
    values
        .iter()
        .map(|value| match value {
            Value::Int(value) => int_to_float(*value) / 10_f64.powi(scale),
            Value::Float(value) => *value,
            _ => f64::NAN,
        })
        .collect()
}

/// A sum of floats and what the order of summation may change in it.
fn float_sum(values: &[f64]) -> (f64, f64) {
    let magnitude: f64 = values
        .iter()
        .filter(|value| value.is_finite())
        .map(|value| value.abs())
        .sum();
    // Near the largest float one order overflows and another doesn't.
    let slack = if magnitude > f64::MAX / 4.0 {
        f64::INFINITY
    } else {
        magnitude * 1e-12
    };
    (values.iter().sum(), slack)
}

fn sum(values: &[Value], data_type: &Type, result: &Type) -> Result<Aggregated, DeviceError> {
    if data_type.is_float() {
        let (sum, mut slack) = float_sum(&floats(values, data_type));
        let sum = if matches!(result, Type::Float32) {
            slack = slack.max(1e-5 * sum.abs());
            narrow_float(sum).into()
        } else {
            sum
        };
        return Ok(Aggregated {
            value: Value::Float(sum),
            slack: Some(slack),
        });
    }
    let sum = exact_sum(values);
    match (data_type, result) {
        (Type::Decimal { scale: from, .. }, Type::Decimal { scale: to, .. }) => {
            let sum = sum.and_then(|sum| rescale(sum, i32::from(*from), i32::from(*to)));
            exact(fit_decimal(sum, result)?)
        }
        _ if result.is_integer() => {
            let (low, high) = result.value_range().unwrap_or((0, 0));
            let sum = sum.and_then(i256::to_i128).filter(|sum| (low..=high).contains(sum));
            exact(Value::Int(sum.ok_or_else(|| overflow("SUM"))?))
        }
        _ => Err(DeviceError::Unsupported(format!("SUM of {data_type:?} as {result:?}"))),
    }
}

fn average(values: &[Value], data_type: &Type, result: &Type) -> Result<Aggregated, DeviceError> {
    if let (Type::Decimal { scale: from, .. }, Type::Decimal { scale: to, .. }) = (data_type, result) {
        let shift = u8::try_from(i16::from(*to) - i16::from(*from));
        let shift =
            shift.map_err(|_| DeviceError::Unsupported("AVG with fewer decimals than its argument".to_owned()))?;
        let count = i256::from_i128(count(values.len()));
        let mean = exact_sum(values)
            .and_then(|sum| sum.checked_mul(power_of_ten(shift)))
            .and_then(|sum| sum.checked_div(count));
        return exact(fit_decimal(mean, result)?);
    }
    if !matches!(result, Type::Float64) {
        return Err(DeviceError::Unsupported(format!("AVG of {data_type:?} as {result:?}")));
    }
    let floats = floats(values, data_type);
    let count = int_to_float(count(floats.len()));
    let (sum, slack) = float_sum(&floats);
    Ok(Aggregated {
        value: Value::Float(sum / count),
        slack: Some(slack / count),
    })
}

/// Variances and standard deviations, in two passes.
fn spread(function: AggregateFunction, values: &[Value], data_type: &Type) -> Aggregated {
    use AggregateFunction as Function;
    let floats = floats(values, data_type);
    let count = int_to_float(count(floats.len()));
    let sample = matches!(function, Function::VarianceSample | Function::StddevSample);
    let root = matches!(function, Function::StddevSample | Function::StddevPopulation);
    let divisor = if sample { count - 1.0 } else { count };
    if divisor == 0.0 {
        return Aggregated {
            value: Value::Null,
            slack: None,
        };
    }
    let mean = float_sum(&floats).0 / count;
    let variance = floats.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / divisor;
    let largest = floats
        .iter()
        .filter(|value| value.is_finite())
        .fold(0.0, |most: f64, value| most.max(value.abs()));
    let slack = if largest > 1e150 {
        f64::INFINITY
    } else {
        largest * largest * 1e-12
    };
    Aggregated {
        value: Value::Float(if root { variance.sqrt() } else { variance }),
        slack: Some(if root { slack.sqrt() } else { slack }),
    }
}
