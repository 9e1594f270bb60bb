//! Rows of values to and from Arrow arrays of exactly the type that [`Type::to_arrow`] says.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, BinaryViewArray, BooleanArray, Decimal128Array,
    LargeBinaryArray, LargeStringArray, NullArray, PrimitiveArray, RecordBatch, RecordBatchOptions, StringArray,
    StringViewArray,
};
use arrow::datatypes::{
    self as dt, DataType, Field as ArrowField, IntervalDayTime, IntervalDayTimeType, IntervalMonthDayNano,
    IntervalMonthDayNanoType, IntervalYearMonthType, Schema,
};
use trireme_device_api::{DeviceError, Field, Interval, IntervalKind, TimeUnit, Type, Value};

use crate::values::{Row, narrow_float};

/// Nanoseconds of a millisecond.
const NANOS_PER_MILLI: i64 = 1_000_000;

fn wrong(what: &str, data_type: &Type) -> DeviceError {
    DeviceError::Internal(format!("{what} doesn't belong into a column of {data_type:?}"))
}

/// An array of values that belong to the type.
///
/// # Errors
/// [`DeviceError::Internal`] when a value doesn't belong.
pub fn array_of(values: &[Value], data_type: &Type) -> Result<ArrayRef, DeviceError> {
    let arrow_type = data_type.to_arrow();
    Ok(match data_type {
        Type::Null => Arc::new(NullArray::new(values.len())),
        Type::Boolean => Arc::new(booleans(values, data_type)?),
        Type::Int8 => integers::<dt::Int8Type>(values, data_type, arrow_type)?,
        Type::Int16 => integers::<dt::Int16Type>(values, data_type, arrow_type)?,
        Type::Int32 => integers::<dt::Int32Type>(values, data_type, arrow_type)?,
        Type::Int64 => integers::<dt::Int64Type>(values, data_type, arrow_type)?,
        Type::UInt8 => integers::<dt::UInt8Type>(values, data_type, arrow_type)?,
        Type::UInt16 => integers::<dt::UInt16Type>(values, data_type, arrow_type)?,
        Type::UInt32 => integers::<dt::UInt32Type>(values, data_type, arrow_type)?,
        Type::UInt64 => integers::<dt::UInt64Type>(values, data_type, arrow_type)?,
        Type::Date32 => integers::<dt::Date32Type>(values, data_type, arrow_type)?,
        Type::Time(TimeUnit::Second) => integers::<dt::Time32SecondType>(values, data_type, arrow_type)?,
        Type::Time(TimeUnit::Millisecond) => integers::<dt::Time32MillisecondType>(values, data_type, arrow_type)?,
        Type::Time(TimeUnit::Microsecond) => integers::<dt::Time64MicrosecondType>(values, data_type, arrow_type)?,
        Type::Time(TimeUnit::Nanosecond) => integers::<dt::Time64NanosecondType>(values, data_type, arrow_type)?,
        Type::Timestamp { unit, .. } => match unit {
            TimeUnit::Second => integers::<dt::TimestampSecondType>(values, data_type, arrow_type)?,
            TimeUnit::Millisecond => integers::<dt::TimestampMillisecondType>(values, data_type, arrow_type)?,
            TimeUnit::Microsecond => integers::<dt::TimestampMicrosecondType>(values, data_type, arrow_type)?,
            TimeUnit::Nanosecond => integers::<dt::TimestampNanosecondType>(values, data_type, arrow_type)?,
        },
        Type::Decimal { .. } => decimals(values, data_type, arrow_type)?,
        Type::Float32 => {
            let floats = floats(values, data_type)?
                .into_iter()
                .map(|value| value.map(narrow_float));
            Arc::new(floats.collect::<PrimitiveArray<dt::Float32Type>>())
        }
        Type::Float64 => Arc::new(
            floats(values, data_type)?
                .into_iter()
                .collect::<PrimitiveArray<dt::Float64Type>>(),
        ),
        Type::Interval(kind) => intervals(values, data_type, *kind)?,
        Type::Utf8 => Arc::new(strings(values, data_type)?.into_iter().collect::<StringArray>()),
        Type::LargeUtf8 => Arc::new(strings(values, data_type)?.into_iter().collect::<LargeStringArray>()),
        Type::Utf8View => Arc::new(strings(values, data_type)?.into_iter().collect::<StringViewArray>()),
        Type::Binary => Arc::new(bytes(values, data_type)?.into_iter().collect::<BinaryArray>()),
        Type::LargeBinary => Arc::new(bytes(values, data_type)?.into_iter().collect::<LargeBinaryArray>()),
        Type::BinaryView => Arc::new(bytes(values, data_type)?.into_iter().collect::<BinaryViewArray>()),
    })
}

fn each<'a, T>(
    values: &'a [Value],
    data_type: &Type,
    take: impl Fn(&'a Value) -> Option<T>,
) -> Result<Vec<Option<T>>, DeviceError> {
    values
        .iter()
        .map(|value| match value {
            Value::Null => Ok(None),
            _ => take(value)
                .map(Some)
                .ok_or_else(|| wrong(&format!("{value:?}"), data_type)),
        })
        .collect()
}

fn booleans(values: &[Value], data_type: &Type) -> Result<BooleanArray, DeviceError> {
    let values = each(values, data_type, |value| match value {
        Value::Boolean(value) => Some(*value),
        _ => None,
    })?;
    Ok(values.into_iter().collect())
}

fn integers<T: ArrowPrimitiveType>(
    values: &[Value],
    data_type: &Type,
    arrow_type: DataType,
) -> Result<ArrayRef, DeviceError>
where
    T::Native: TryFrom<i128>,
{
    let values = each(values, data_type, |value| match value {
        Value::Int(value) => T::Native::try_from(*value).ok(),
        _ => None,
    })?;
    Ok(Arc::new(
        values
            .into_iter()
            .collect::<PrimitiveArray<T>>()
            .with_data_type(arrow_type),
    ))
}

fn decimals(values: &[Value], data_type: &Type, arrow_type: DataType) -> Result<ArrayRef, DeviceError> {
    let values = each(values, data_type, |value| match value {
        Value::Int(value) => Some(*value),
        _ => None,
    })?;
    Ok(Arc::new(
        values
            .into_iter()
            .collect::<Decimal128Array>()
            .with_data_type(arrow_type),
    ))
}

fn floats(values: &[Value], data_type: &Type) -> Result<Vec<Option<f64>>, DeviceError> {
    each(values, data_type, |value| match value {
        Value::Float(value) => Some(*value),
        _ => None,
    })
}

fn bytes<'a>(values: &'a [Value], data_type: &Type) -> Result<Vec<Option<&'a [u8]>>, DeviceError> {
    each(values, data_type, |value| match value {
        Value::Bytes(value) => Some(value.as_ref()),
        _ => None,
    })
}

fn strings<'a>(values: &'a [Value], data_type: &Type) -> Result<Vec<Option<&'a str>>, DeviceError> {
    each(values, data_type, |value| match value {
        Value::Bytes(value) => std::str::from_utf8(value).ok(),
        _ => None,
    })
}

fn intervals(values: &[Value], data_type: &Type, kind: IntervalKind) -> Result<ArrayRef, DeviceError> {
    let values = each(values, data_type, |value| match value {
        Value::Interval(value) => Some(*value),
        _ => None,
    })?;
    Ok(match kind {
        IntervalKind::YearMonth => {
            let months = values.into_iter().map(|value| value.map(|value| value.months));
            Arc::new(months.collect::<PrimitiveArray<IntervalYearMonthType>>())
        }
        IntervalKind::DayTime => {
            let parts = values.into_iter().map(|value| {
                value.map(|value| {
                    let millis = i32::try_from(value.nanoseconds / NANOS_PER_MILLI).unwrap_or(i32::MAX);
                    IntervalDayTime::new(value.days, millis)
                })
            });
            Arc::new(parts.collect::<PrimitiveArray<IntervalDayTimeType>>())
        }
        IntervalKind::MonthDayNano => {
            let parts = values
                .into_iter()
                .map(|value| value.map(|value| IntervalMonthDayNano::new(value.months, value.days, value.nanoseconds)));
            Arc::new(parts.collect::<PrimitiveArray<IntervalMonthDayNanoType>>())
        }
    })
}

/// One value of an array.
///
/// # Errors
/// [`DeviceError::Internal`] when the array isn't of the type's Arrow type.
pub fn value_at(array: &dyn Array, row: usize, data_type: &Type) -> Result<Value, DeviceError> {
    if *array.data_type() != data_type.to_arrow() {
        return Err(wrong(&format!("an array of {}", array.data_type()), data_type));
    }
    if array.is_null(row) || matches!(data_type, Type::Null) {
        return Ok(Value::Null);
    }
    Ok(match data_type {
        Type::Null => Value::Null,
        Type::Boolean => Value::Boolean(array.as_boolean().value(row)),
        Type::Float32 => Value::Float(array.as_primitive::<dt::Float32Type>().value(row).into()),
        Type::Float64 => Value::Float(array.as_primitive::<dt::Float64Type>().value(row)),
        Type::Utf8 => Value::Bytes(array.as_string::<i32>().value(row).as_bytes().into()),
        Type::LargeUtf8 => Value::Bytes(array.as_string::<i64>().value(row).as_bytes().into()),
        Type::Utf8View => Value::Bytes(array.as_string_view().value(row).as_bytes().into()),
        Type::Binary => Value::Bytes(array.as_binary::<i32>().value(row).into()),
        Type::LargeBinary => Value::Bytes(array.as_binary::<i64>().value(row).into()),
        Type::BinaryView => Value::Bytes(array.as_binary_view().value(row).into()),
        Type::Interval(kind) => Value::Interval(interval_at(array, row, *kind)),
        _ => Value::Int(integer_at(array, row, data_type)),
    })
}

fn integer_at(array: &dyn Array, row: usize, data_type: &Type) -> i128 {
    fn get<T: ArrowPrimitiveType>(array: &dyn Array, row: usize) -> i128
    where
        T::Native: Into<i128>,
    {
        array.as_primitive::<T>().value(row).into()
    }
    match data_type {
        Type::Int8 => get::<dt::Int8Type>(array, row),
        Type::Int16 => get::<dt::Int16Type>(array, row),
        Type::Int32 => get::<dt::Int32Type>(array, row),
        Type::Int64 => get::<dt::Int64Type>(array, row),
        Type::UInt8 => get::<dt::UInt8Type>(array, row),
        Type::UInt16 => get::<dt::UInt16Type>(array, row),
        Type::UInt32 => get::<dt::UInt32Type>(array, row),
        Type::UInt64 => get::<dt::UInt64Type>(array, row),
        Type::Date32 => get::<dt::Date32Type>(array, row),
        Type::Time(TimeUnit::Second) => get::<dt::Time32SecondType>(array, row),
        Type::Time(TimeUnit::Millisecond) => get::<dt::Time32MillisecondType>(array, row),
        Type::Time(TimeUnit::Microsecond) => get::<dt::Time64MicrosecondType>(array, row),
        Type::Time(TimeUnit::Nanosecond) => get::<dt::Time64NanosecondType>(array, row),
        Type::Timestamp { unit, .. } => match unit {
            TimeUnit::Second => get::<dt::TimestampSecondType>(array, row),
            TimeUnit::Millisecond => get::<dt::TimestampMillisecondType>(array, row),
            TimeUnit::Microsecond => get::<dt::TimestampMicrosecondType>(array, row),
            TimeUnit::Nanosecond => get::<dt::TimestampNanosecondType>(array, row),
        },
        _ => get::<dt::Decimal128Type>(array, row),
    }
}

fn interval_at(array: &dyn Array, row: usize, kind: IntervalKind) -> Interval {
    match kind {
        IntervalKind::YearMonth => Interval {
            months: array.as_primitive::<IntervalYearMonthType>().value(row),
            ..Interval::default()
        },
        IntervalKind::DayTime => {
            let value = array.as_primitive::<IntervalDayTimeType>().value(row);
            Interval {
                months: 0,
                days: value.days,
                nanoseconds: i64::from(value.milliseconds) * NANOS_PER_MILLI,
            }
        }
        IntervalKind::MonthDayNano => {
            let value = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
            Interval {
                months: value.months,
                days: value.days,
                nanoseconds: value.nanoseconds,
            }
        }
    }
}

/// A batch of rows.
///
/// # Errors
/// [`DeviceError::Internal`] when a value doesn't belong to its column.
pub fn batch_of(rows: &[Row], fields: &[Field]) -> Result<RecordBatch, DeviceError> {
    let mut arrays = Vec::with_capacity(fields.len());
    for (index, field) in fields.iter().enumerate() {
        let column: Vec<Value> = rows.iter().map(|row| row[index].clone()).collect();
        arrays.push(array_of(&column, &field.data_type)?);
    }
    let schema = Schema::new(
        fields
            .iter()
            .map(|field| ArrowField::new(&field.name, field.data_type.to_arrow(), field.nullable))
            .collect::<Vec<_>>(),
    );
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(Arc::new(schema), arrays, &options)
        .map_err(|error| DeviceError::Internal(error.to_string()))
}

/// The rows of a batch.
///
/// # Errors
/// [`DeviceError::Internal`] when the batch's columns aren't those of the fields.
pub fn rows_of(batch: &RecordBatch, fields: &[Field]) -> Result<Vec<Row>, DeviceError> {
    if batch.num_columns() != fields.len() {
        return Err(DeviceError::Internal(format!(
            "a batch of {} columns where {} are promised",
            batch.num_columns(),
            fields.len()
        )));
    }
    (0..batch.num_rows())
        .map(|row| {
            let columns = batch.columns().iter().zip(fields);
            columns
                .map(|(array, field)| value_at(array, row, &field.data_type))
                .collect()
        })
        .collect()
}
