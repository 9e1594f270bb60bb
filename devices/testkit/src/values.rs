//! Values: their order, their equality as keys, and their way to and from Arrow and device columns.
//!
//! Everything goes through one [`Key`], whose derived order and equality are SQL's, so that comparisons, groups, joins,
//! DISTINCT and sorting can't disagree with each other. Nothing here is fast.

use std::cmp::Ordering;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::i256;
use trireme_device_api::{DeviceColumn, DeviceError, Interval, Type, Value, Values};

/// One row.
pub type Row = Vec<Value>;

/// A value in a form whose order and equality are those of SQL among values of one type (decimals: of any scale).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// NULL; before all others, until a sort key says otherwise.
    Null,
    /// False is less than true.
    Boolean(bool),
    /// Integers, dates, times.
    Int(i128),
    /// Decimals at a common, large scale.
    Decimal(i256),
    /// Floats, mapped so that the order is total: −0.0 is 0.0, NaN is one value, larger than all others.
    Float(i64),
    /// Strings and binary, by bytes.
    Bytes(Arc<[u8]>),
    /// Months, days, nanoseconds, in this order.
    Interval(i32, i32, i64),
}

/// The scale at which decimals are compared: 38 digits before it and 38 after fit 256 bits.
const COMMON_SCALE: i8 = 38;

/// Powers of ten, by exponent.
static POWERS: LazyLock<Vec<i256>> = LazyLock::new(|| (0..=76).map(power_of_ten).collect());

impl Key {
    /// The key of a value of a type.
    pub fn of(value: &Value, data_type: &Type) -> Key {
        match (value, data_type) {
            (Value::Null, _) => Key::Null,
            (Value::Boolean(value), _) => Key::Boolean(*value),
            (Value::Int(unscaled), Type::Decimal { scale, .. }) => {
                let shift = usize::from(COMMON_SCALE.saturating_sub(*scale).unsigned_abs());
                let factor = POWERS[shift.min(POWERS.len() - 1)];
                Key::Decimal(i256::from_i128(*unscaled).wrapping_mul(factor))
            }
            (Value::Int(value), _) => Key::Int(*value),
            (Value::Float(value), _) => Key::Float(float_order(*value)),
            (Value::Bytes(bytes), _) => Key::Bytes(Arc::clone(bytes)),
            (Value::Interval(value), _) => Key::Interval(value.months, value.days, value.nanoseconds),
        }
    }

    /// Keys of a row.
    pub fn of_row(row: &[Value], types: &[Type]) -> Vec<Key> {
        row.iter()
            .zip(types)
            .map(|(value, data_type)| Key::of(value, data_type))
            .collect()
    }
}

/// Bits whose integer order is the float's: −inf … −0.0 = 0.0 … inf, NaN.
fn float_order(value: f64) -> i64 {
    if value.is_nan() {
        return i64::MAX;
    }
    let bits = (if value == 0.0 { 0.0 } else { value }).to_bits().cast_signed();
    if bits < 0 { i64::MIN - bits } else { bits }
}

/// 10 to the power of `exponent`, at most 76.
pub fn power_of_ten(exponent: u8) -> i256 {
    i256::from_i128(10).wrapping_pow(u32::from(exponent))
}

/// The order of two values of one type that are not NULL; of decimals of any scales.
pub fn compare(left: &Value, left_type: &Type, right: &Value, right_type: &Type) -> Ordering {
    Key::of(left, left_type).cmp(&Key::of(right, right_type))
}

/// A string value.
pub fn text(value: &str) -> Value {
    Value::Bytes(value.as_bytes().into())
}

/// True when a value may stand in a column of the type.
pub fn belongs(value: &Value, data_type: &Type) -> bool {
    match (value, data_type) {
        (Value::Null, _) => true,
        (Value::Boolean(_), Type::Boolean)
        | (Value::Interval(_), Type::Interval(_))
        | (Value::Float(_), Type::Float64) => true,
        (Value::Float(value), Type::Float32) => value.is_nan() || f64::from(narrow_float(*value)) == *value,
        (Value::Int(value), _) => data_type
            .value_range()
            .is_some_and(|(low, high)| (low..=high).contains(value)),
        (Value::Bytes(bytes), _) if data_type.is_text() => std::str::from_utf8(bytes).is_ok(),
        (Value::Bytes(_), _) => data_type.is_bytes(),
        _ => false,
    }
}

/// A float rounded to 32 bits.
#[allow(clippy::cast_possible_truncation, reason = "rounding is what is asked for")]
pub fn narrow_float(value: f64) -> f32 {
    value as f32
}

/// An unsigned or signed integer as the nearest float.
pub fn int_to_float(value: i128) -> f64 {
    value as f64
}

/// One value of a device column.
///
/// # Errors
/// [`DeviceError::Internal`] when the column breaks its own invariants.
pub fn value_of(column: &DeviceColumn, row: usize) -> Result<Value, DeviceError> {
    if column.is_null(row) {
        return Ok(Value::Null);
    }
    let value = match &column.values {
        Values::Integers { carrier, base } => {
            let sum = base
                .checked_add(carrier.get(row))
                .ok_or_else(|| DeviceError::Internal(format!("base + carrier overflows in row {row}")))?;
            Value::Int(sum.into())
        }
        Values::Wide(values) => Value::Int(values[row]),
        Values::Float32(values) => Value::Float(values[row].into()),
        Values::Float64(values) => Value::Float(values[row]),
        Values::Booleans(values) => Value::Boolean(values.value(row)),
        Values::Codes { codes, dictionary } => {
            let code = codes.get(row);
            if code as usize >= dictionary.len() {
                return Err(DeviceError::Internal(format!(
                    "code {code} of row {row} is outside the dictionary"
                )));
            }
            Value::Bytes(dictionary.get(code).into())
        }
        Values::Strings(strings) => Value::Bytes(strings.get(row).into()),
        Values::Intervals(values) => Value::Interval(values[row]),
        Values::Nulls => Value::Null,
    };
    if belongs(&value, &column.data_type) {
        Ok(value)
    } else {
        Err(DeviceError::Internal(format!(
            "{value:?} in a column of {:?}",
            column.data_type
        )))
    }
}

/// An interval of nothing but months, days and nanoseconds.
pub fn interval(months: i32, days: i32, nanoseconds: i64) -> Value {
    Value::Interval(Interval {
        months,
        days,
        nanoseconds,
    })
}
