//! Aggregates over lists of values, the simple way.

use trireme_device_api::{Aggregate, AggregateFunction, Type, Value};

pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Float(value) if value.is_nan() => "NaN;".into(),
        Value::Float(value) => format!("{};", value + 0.0),
        other => format!("{other:?};"),
    }
}

pub(super) fn sort_key(value: &Value) -> (i128, u64, Vec<u8>) {
    match value {
        Value::Int(value) => (*value, 0, Vec::new()),
        Value::Boolean(value) => (i128::from(*value), 0, Vec::new()),
        Value::Float(value) if value.is_nan() => (1 << 100, 0, Vec::new()),
        Value::Float(value) => {
            let bits = (value + 0.0).to_bits();
            let order = if bits >> 63 == 1 {
                -i128::from(bits & (u64::MAX >> 1))
            } else {
                i128::from(bits)
            };
            (order, 0, Vec::new())
        }
        Value::Bytes(bytes) => (0, 0, bytes.to_vec()),
        _ => (0, 0, Vec::new()),
    }
}

pub(super) fn expected(aggregate: &Aggregate, scale: i8, mut values: Vec<Value>) -> Option<Value> {
    use AggregateFunction as F;
    if aggregate.distinct {
        values.sort_by_key(text);
        values.dedup_by_key(|value| text(value));
    }
    if aggregate.function == F::Count {
        return Some(Value::Int(values.len() as i128));
    }
    if values.is_empty() {
        return Some(Value::Null);
    }
    let count = values.len() as i128;
    let power = 10_f64.powi(scale.into());
    let number = |value: &Value| match value {
        Value::Int(value) => *value as f64 / power,
        Value::Float(value) => *value,
        _ => 0.0,
    };
    let (mut high, mut low) = (0_i128, 0_i128);
    for value in &values {
        if let Value::Int(value) = value {
            high += value >> 32;
            low += value & 0xFFFF_FFFF;
        }
    }
    high += low >> 32;
    low &= 0xFFFF_FFFF;
    let sum = high.checked_mul(1 << 32).and_then(|sum| sum.checked_add(low));
    let float: f64 = values.iter().map(number).sum();
    let within = |value: i128| {
        let (low, high) = aggregate.data_type.value_range().expect("integral");
        (low..=high).contains(&value).then_some(Value::Int(value))
    };
    Some(match (aggregate.function, &aggregate.data_type) {
        (F::Sum, Type::Float64) => Value::Float(float),
        (F::Sum, _) => within(sum?)?,
        (F::Average, Type::Decimal { scale: finer, .. }) => {
            let factor = 10_i128.pow((finer - scale).unsigned_abs().into());
            match sum.and_then(|sum| sum.checked_mul(factor)) {
                Some(scaled) => within(scaled / count)?,
                None => return None,
            }
        }
        (F::Average, _) => Value::Float(float / count as f64),
        (F::Min | F::BoolAnd, _) => values.into_iter().min_by_key(sort_key)?,
        (F::Max | F::BoolOr, _) => values.into_iter().max_by_key(sort_key)?,
        (function, _) => {
            let mean = float / count as f64;
            let squares: f64 = values.iter().map(|value| (number(value) - mean).powi(2)).sum();
            let sample = matches!(function, F::VarianceSample | F::StddevSample);
            if sample && count == 1 {
                return Some(Value::Null);
            }
            let variance = squares / if sample { count as f64 - 1.0 } else { count as f64 };
            let root = matches!(function, F::StddevSample | F::StddevPopulation);
            Value::Float(if root { variance.sqrt() } else { variance })
        }
    })
}
