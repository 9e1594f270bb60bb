//! Tiles to Arrow arrays and back, for functions that only the host has: exact, not fast.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, BinaryViewArray, BooleanArray, Decimal128Array,
    GenericByteArray, GenericByteViewArray, IntervalDayTimeArray, IntervalMonthDayNanoArray, IntervalYearMonthArray,
    LargeBinaryArray, LargeStringArray, NullArray, PrimitiveArray, StringArray, StringViewArray,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::cast;
use arrow::datatypes::{
    ByteArrayType, ByteViewType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, IntervalDayTime, IntervalDayTimeType, IntervalMonthDayNano, IntervalMonthDayNanoType,
    IntervalYearMonthType, Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use trireme_device_api::{DeviceError, Interval, IntervalKind, Strings, TimeUnit, Type};

use super::text::views;
use crate::isa::Isa;
use crate::number::{Number, by_lane};
use crate::vector::{Data, Shape, Vector};

const NANOSECONDS_PER_MILLISECOND: i64 = 1_000_000;

/// Runs an expression with a type name bound to the Arrow type of an integral type that 64 bits hold.
macro_rules! by_type {
    ($data_type:expr, $arrow:ident => $body:expr, $otherwise:expr) => {
        match $data_type {
            Type::Int8 => by_type!(@ Int8Type, $arrow, $body),
            Type::Int16 => by_type!(@ Int16Type, $arrow, $body),
            Type::Int32 => by_type!(@ Int32Type, $arrow, $body),
            Type::Int64 => by_type!(@ Int64Type, $arrow, $body),
            Type::UInt8 => by_type!(@ UInt8Type, $arrow, $body),
            Type::UInt16 => by_type!(@ UInt16Type, $arrow, $body),
            Type::UInt32 => by_type!(@ UInt32Type, $arrow, $body),
            Type::UInt64 => by_type!(@ UInt64Type, $arrow, $body),
            Type::Decimal { .. } => by_type!(@ Decimal128Type, $arrow, $body),
            Type::Date32 => by_type!(@ Date32Type, $arrow, $body),
            Type::Time(TimeUnit::Second) => by_type!(@ Time32SecondType, $arrow, $body),
            Type::Time(TimeUnit::Millisecond) => by_type!(@ Time32MillisecondType, $arrow, $body),
            Type::Time(TimeUnit::Microsecond) => by_type!(@ Time64MicrosecondType, $arrow, $body),
            Type::Time(TimeUnit::Nanosecond) => by_type!(@ Time64NanosecondType, $arrow, $body),
            Type::Timestamp { unit: TimeUnit::Second, .. } => by_type!(@ TimestampSecondType, $arrow, $body),
            Type::Timestamp { unit: TimeUnit::Millisecond, .. } => by_type!(@ TimestampMillisecondType, $arrow, $body),
            Type::Timestamp { unit: TimeUnit::Microsecond, .. } => by_type!(@ TimestampMicrosecondType, $arrow, $body),
            Type::Timestamp { unit: TimeUnit::Nanosecond, .. } => by_type!(@ TimestampNanosecondType, $arrow, $body),
            _ => $otherwise,
        }
    };
    (@ $concrete:ident, $arrow:ident, $body:expr) => {{
        type $arrow = $concrete;
        $body
    }};
}

/// The native integer of an Arrow type, from and to 128 bits.
trait Native: Copy + Default {
    fn narrow(value: i128) -> Self;
    fn widen(self) -> i128;
}

macro_rules! native {
    ($($type:ty),+) => {
        $(impl Native for $type {
            fn narrow(value: i128) -> Self {
                value as Self
            }
            fn widen(self) -> i128 {
                self as i128
            }
        })+
    };
}

native!(i8, i16, i32, i64, i128, u8, u16, u32, u64);

/// A vector as an Arrow array of its type.
pub(super) fn to_array(vector: &Vector<'_>, data_type: &Type, isa: Isa) -> Result<ArrayRef, DeviceError> {
    let rows = vector.len();
    let mismatch = || DeviceError::Internal(format!("a vector is not of type {data_type:?}"));
    if *data_type == Type::Null {
        return Ok(Arc::new(NullArray::new(rows)));
    }
    let nulls = nulls(vector);
    if data_type.is_integral() {
        let values = vector.to_i128(isa).ok_or_else(mismatch)?;
        let array: ArrayRef = by_type!(data_type, A => integers::<A>(&values, nulls), return Err(mismatch()));
        return typed(array, data_type);
    }
    let array: ArrayRef = match (&vector.data, data_type) {
        (Data::Bool(values), Type::Boolean) => Arc::new(BooleanArray::new(
            values.iter().map(|value| *value != 0).collect::<BooleanBuffer>(),
            nulls,
        )),
        (Data::F32(values), Type::Float32) => {
            Arc::new(PrimitiveArray::<Float32Type>::new(values.to_vec().into(), nulls))
        }
        (Data::F64(values), Type::Float64) => {
            Arc::new(PrimitiveArray::<Float64Type>::new(values.to_vec().into(), nulls))
        }
        (Data::Interval(values), Type::Interval(kind)) => intervals(values, *kind, nulls),
        (Data::Codes(..) | Data::Bytes(_) | Data::Strings(_), _) => bytes(vector, data_type)?,
        _ => return Err(mismatch()),
    };
    Ok(array)
}

fn nulls(vector: &Vector<'_>) -> Option<NullBuffer> {
    match &vector.data {
        Data::Null(rows) => Some(NullBuffer::new_null(*rows)),
        _ => {
            let valid = vector.valid.as_ref()?;
            Some(NullBuffer::new(valid.iter().map(|valid| *valid != 0).collect()))
        }
    }
}

fn integers<A: ArrowPrimitiveType>(values: &[i128], nulls: Option<NullBuffer>) -> ArrayRef
where
    A::Native: Native,
{
    let values: Vec<A::Native> = values.iter().map(|value| A::Native::narrow(*value)).collect();
    Arc::new(PrimitiveArray::<A>::new(values.into(), nulls))
}

/// With the precision, scale or zone that the type has.
fn typed(array: ArrayRef, data_type: &Type) -> Result<ArrayRef, DeviceError> {
    match data_type {
        Type::Decimal { precision, scale } => {
            let decimals: &Decimal128Array = array.as_primitive();
            let decimals = decimals.clone().with_precision_and_scale(*precision, *scale);
            decimals
                .map(|array| Arc::new(array) as ArrayRef)
                .map_err(|error| DeviceError::Internal(error.to_string()))
        }
        Type::Timestamp { zone: Some(zone), unit } => {
            let zone = Arc::clone(zone);
            Ok(match unit {
                TimeUnit::Second => Arc::new(array.as_primitive::<TimestampSecondType>().clone().with_timezone(zone)),
                TimeUnit::Millisecond => Arc::new(
                    array
                        .as_primitive::<TimestampMillisecondType>()
                        .clone()
                        .with_timezone(zone),
                ),
                TimeUnit::Microsecond => Arc::new(
                    array
                        .as_primitive::<TimestampMicrosecondType>()
                        .clone()
                        .with_timezone(zone),
                ),
                TimeUnit::Nanosecond => Arc::new(
                    array
                        .as_primitive::<TimestampNanosecondType>()
                        .clone()
                        .with_timezone(zone),
                ),
            })
        }
        _ => Ok(array),
    }
}

fn intervals(values: &[Interval], kind: IntervalKind, nulls: Option<NullBuffer>) -> ArrayRef {
    match kind {
        IntervalKind::YearMonth => {
            let values: Vec<i32> = values.iter().map(|value| value.months).collect();
            Arc::new(IntervalYearMonthArray::new(values.into(), nulls))
        }
        IntervalKind::DayTime => {
            let one = |value: &Interval| {
                IntervalDayTime::new(value.days, (value.nanoseconds / NANOSECONDS_PER_MILLISECOND) as i32)
            };
            let values: Vec<IntervalDayTime> = values.iter().map(one).collect();
            Arc::new(IntervalDayTimeArray::new(values.into(), nulls))
        }
        IntervalKind::MonthDayNano => {
            let one = |value: &Interval| IntervalMonthDayNano::new(value.months, value.days, value.nanoseconds);
            let values: Vec<IntervalMonthDayNano> = values.iter().map(one).collect();
            Arc::new(IntervalMonthDayNanoArray::new(values.into(), nulls))
        }
    }
}

fn bytes(vector: &Vector<'_>, data_type: &Type) -> Result<ArrayRef, DeviceError> {
    let values = views(vector);
    let values = values
        .iter()
        .enumerate()
        .map(|(row, value)| (!vector.is_null(row)).then_some(*value));
    let text = |error: arrow::error::ArrowError| DeviceError::Internal(error.to_string());
    Ok(match data_type {
        Type::Binary => Arc::new(values.collect::<BinaryArray>()),
        Type::LargeBinary => Arc::new(values.collect::<LargeBinaryArray>()),
        Type::BinaryView => Arc::new(values.collect::<BinaryViewArray>()),
        Type::Utf8 => Arc::new(StringArray::try_from_binary(values.collect()).map_err(text)?),
        Type::LargeUtf8 => Arc::new(LargeStringArray::try_from_binary(values.collect()).map_err(text)?),
        Type::Utf8View => {
            let views: StringViewArray = values.collect::<BinaryViewArray>().to_string_view().map_err(text)?;
            Arc::new(views)
        }
        other => {
            return Err(DeviceError::Internal(format!(
                "a vector of strings is not of type {other:?}"
            )));
        }
    })
}

/// The vector of an Arrow array, in the lane of the shape, which covers all values of its type.
pub(super) fn from_array<'x>(array: &ArrayRef, shape: &Shape, rows: usize) -> Result<Vector<'x>, DeviceError> {
    let expected = shape.data_type.to_arrow();
    if array.len() != rows {
        return Err(DeviceError::Internal(format!(
            "a function gave {} rows of {rows}",
            array.len()
        )));
    }
    let array = if array.data_type() == &expected {
        Arc::clone(array)
    } else {
        cast(array, &expected).map_err(|error| DeviceError::Internal(error.to_string()))?
    };
    let data_type = &shape.data_type;
    let mismatch = || DeviceError::Internal(format!("a function's result is not of type {data_type:?}"));
    let valid = array.nulls().filter(|nulls| nulls.null_count() > 0);
    let valid: Option<Vec<u8>> = valid.map(|nulls| nulls.iter().map(u8::from).collect());
    let data = match data_type {
        Type::Null => return Ok(Vector::nulls(shape, rows)),
        Type::Boolean => {
            let values = array.as_boolean().values();
            Data::Bool(values.iter().map(u8::from).collect::<Vec<_>>().into())
        }
        Type::Float32 => Data::F32(array.as_primitive::<Float32Type>().values().to_vec().into()),
        Type::Float64 => Data::F64(array.as_primitive::<Float64Type>().values().to_vec().into()),
        Type::Interval(kind) => Data::Interval(interval_values(&array, *kind)),
        _ if data_type.is_bytes() => Data::Strings(strings(&array, &expected).ok_or_else(mismatch)?.addressed()?),
        _ => {
            let lane = shape.lane().ok_or_else(mismatch)?;
            let values: Vec<i128> = by_type!(data_type, A => {
                array.as_primitive::<A>().values().iter().map(|value| value.widen()).collect()
            }, return Err(mismatch()));
            by_lane!(lane, T => T::data(values.into_iter().map(<T as Number>::of).collect::<Vec<T>>().into()))
        }
    };
    Ok(Vector::new(data).with_valid(valid.map(Into::into)))
}

fn interval_values(array: &ArrayRef, kind: IntervalKind) -> Vec<Interval> {
    match kind {
        IntervalKind::YearMonth => {
            let values = array.as_primitive::<IntervalYearMonthType>().values();
            let one = |months: &i32| Interval {
                months: *months,
                ..Interval::default()
            };
            values.iter().map(one).collect()
        }
        IntervalKind::DayTime => {
            let values = array.as_primitive::<IntervalDayTimeType>().values();
            let one = |value: &IntervalDayTime| Interval {
                months: 0,
                days: value.days,
                nanoseconds: i64::from(value.milliseconds) * NANOSECONDS_PER_MILLISECOND,
            };
            values.iter().map(one).collect()
        }
        IntervalKind::MonthDayNano => {
            let values = array.as_primitive::<IntervalMonthDayNanoType>().values();
            let one = |value: &IntervalMonthDayNano| Interval {
                months: value.months,
                days: value.days,
                nanoseconds: value.nanoseconds,
            };
            values.iter().map(one).collect()
        }
    }
}

fn strings(array: &ArrayRef, data_type: &DataType) -> Option<Strings> {
    fn plain<T: ByteArrayType>(array: &GenericByteArray<T>) -> Strings {
        let values = (0..array.len()).map(|row| {
            if array.is_null(row) {
                &[][..]
            } else {
                array.value(row).as_ref()
            }
        });
        Strings::from_values(values)
    }
    fn viewed<T: ByteViewType + ?Sized>(array: &GenericByteViewArray<T>) -> Strings {
        let values = (0..array.len()).map(|row| {
            if array.is_null(row) {
                &[][..]
            } else {
                array.value(row).as_ref()
            }
        });
        Strings::from_values(values)
    }
    Some(match data_type {
        DataType::Utf8 => plain(array.as_string::<i32>()),
        DataType::LargeUtf8 => plain(array.as_string::<i64>()),
        DataType::Binary => plain(array.as_binary::<i32>()),
        DataType::LargeBinary => plain(array.as_binary::<i64>()),
        DataType::Utf8View => viewed(array.as_string_view()),
        DataType::BinaryView => viewed(array.as_binary_view()),
        _ => return None,
    })
}
