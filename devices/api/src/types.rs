//! Types and values of the fragment language.
//!
//! A [`Type`] is the logical type that SQL sees; how a column carries it is [`crate::Values`]. Types that no variant takes
//! have no [`Type`]: [`Type::from_arrow`] gives the reason, and EXPLAIN shows it.

use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalUnit};
use serde::{Deserialize, Serialize};

/// Unit of times and timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TimeUnit {
    /// Seconds.
    Second,
    /// Milliseconds.
    Millisecond,
    /// Microseconds.
    Microsecond,
    /// Nanoseconds.
    Nanosecond,
}

impl TimeUnit {
    /// Units in one second.
    pub fn per_second(self) -> i64 {
        match self {
            TimeUnit::Second => 1,
            TimeUnit::Millisecond => 1_000,
            TimeUnit::Microsecond => 1_000_000,
            TimeUnit::Nanosecond => 1_000_000_000,
        }
    }

    /// Arrow's name for it.
    pub fn to_arrow(self) -> arrow::datatypes::TimeUnit {
        match self {
            TimeUnit::Second => arrow::datatypes::TimeUnit::Second,
            TimeUnit::Millisecond => arrow::datatypes::TimeUnit::Millisecond,
            TimeUnit::Microsecond => arrow::datatypes::TimeUnit::Microsecond,
            TimeUnit::Nanosecond => arrow::datatypes::TimeUnit::Nanosecond,
        }
    }

    fn from_arrow(unit: arrow::datatypes::TimeUnit) -> Self {
        match unit {
            arrow::datatypes::TimeUnit::Second => TimeUnit::Second,
            arrow::datatypes::TimeUnit::Millisecond => TimeUnit::Millisecond,
            arrow::datatypes::TimeUnit::Microsecond => TimeUnit::Microsecond,
            arrow::datatypes::TimeUnit::Nanosecond => TimeUnit::Nanosecond,
        }
    }
}

/// Arrow's three layouts of an interval; the value is always an [`Interval`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum IntervalKind {
    /// Months.
    YearMonth,
    /// Days and milliseconds.
    DayTime,
    /// Months, days and nanoseconds.
    MonthDayNano,
}

/// A logical type.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are Arrow's")]
pub enum Type {
    Null,
    Boolean,
    Int8,
    Int16,
    Int32,
    Int64,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
    Float32,
    Float64,
    /// Arrow's Decimal128: the value is `unscaled / 10^scale`.
    Decimal {
        precision: u8,
        scale: i8,
    },
    /// Days since 1970-01-01.
    Date32,
    /// Units since midnight; Arrow's Time32 for seconds and milliseconds, else Time64.
    Time(TimeUnit),
    /// Units since 1970-01-01T00:00:00Z, or local when `zone` is none.
    Timestamp {
        unit: TimeUnit,
        #[serde(with = "shared_text")]
        zone: Option<Arc<str>>,
    },
    Interval(IntervalKind),
    Utf8,
    LargeUtf8,
    Utf8View,
    Binary,
    LargeBinary,
    BinaryView,
}

impl Type {
    /// The type of an Arrow column.
    ///
    /// # Errors
    /// The reason why no variant takes it, for people.
    pub fn from_arrow(data_type: &DataType) -> Result<Self, String> {
        Ok(match data_type {
            DataType::Null => Type::Null,
            DataType::Boolean => Type::Boolean,
            DataType::Int8 => Type::Int8,
            DataType::Int16 => Type::Int16,
            DataType::Int32 => Type::Int32,
            DataType::Int64 => Type::Int64,
            DataType::UInt8 => Type::UInt8,
            DataType::UInt16 => Type::UInt16,
            DataType::UInt32 => Type::UInt32,
            DataType::UInt64 => Type::UInt64,
            DataType::Float32 => Type::Float32,
            DataType::Float64 => Type::Float64,
            DataType::Decimal128(precision, scale) => Type::Decimal {
                precision: *precision,
                scale: *scale,
            },
            DataType::Date32 => Type::Date32,
            DataType::Time32(unit) | DataType::Time64(unit) => Type::Time(TimeUnit::from_arrow(*unit)),
            DataType::Timestamp(unit, zone) => Type::Timestamp {
                unit: TimeUnit::from_arrow(*unit),
                zone: zone.clone(),
            },
            DataType::Interval(IntervalUnit::YearMonth) => Type::Interval(IntervalKind::YearMonth),
            DataType::Interval(IntervalUnit::DayTime) => Type::Interval(IntervalKind::DayTime),
            DataType::Interval(IntervalUnit::MonthDayNano) => Type::Interval(IntervalKind::MonthDayNano),
            DataType::Utf8 => Type::Utf8,
            DataType::LargeUtf8 => Type::LargeUtf8,
            DataType::Utf8View => Type::Utf8View,
            DataType::Binary => Type::Binary,
            DataType::LargeBinary => Type::LargeBinary,
            DataType::BinaryView => Type::BinaryView,
            other => return Err(format!("columns of type {other} are not fused")),
        })
    }

    /// The Arrow type of a result column.
    pub fn to_arrow(&self) -> DataType {
        match self {
            Type::Null => DataType::Null,
            Type::Boolean => DataType::Boolean,
            Type::Int8 => DataType::Int8,
            Type::Int16 => DataType::Int16,
            Type::Int32 => DataType::Int32,
            Type::Int64 => DataType::Int64,
            Type::UInt8 => DataType::UInt8,
            Type::UInt16 => DataType::UInt16,
            Type::UInt32 => DataType::UInt32,
            Type::UInt64 => DataType::UInt64,
            Type::Float32 => DataType::Float32,
            Type::Float64 => DataType::Float64,
            Type::Decimal { precision, scale } => DataType::Decimal128(*precision, *scale),
            Type::Date32 => DataType::Date32,
            Type::Time(unit @ (TimeUnit::Second | TimeUnit::Millisecond)) => DataType::Time32(unit.to_arrow()),
            Type::Time(unit) => DataType::Time64(unit.to_arrow()),
            Type::Timestamp { unit, zone } => DataType::Timestamp(unit.to_arrow(), zone.clone()),
            Type::Interval(IntervalKind::YearMonth) => DataType::Interval(IntervalUnit::YearMonth),
            Type::Interval(IntervalKind::DayTime) => DataType::Interval(IntervalUnit::DayTime),
            Type::Interval(IntervalKind::MonthDayNano) => DataType::Interval(IntervalUnit::MonthDayNano),
            Type::Utf8 => DataType::Utf8,
            Type::LargeUtf8 => DataType::LargeUtf8,
            Type::Utf8View => DataType::Utf8View,
            Type::Binary => DataType::Binary,
            Type::LargeBinary => DataType::LargeBinary,
            Type::BinaryView => DataType::BinaryView,
        }
    }

    /// True when the value is one integer: integers, decimals (unscaled), dates, times, timestamps.
    pub fn is_integral(&self) -> bool {
        self.value_range().is_some()
    }

    /// True for strings and binary.
    pub fn is_bytes(&self) -> bool {
        self.is_text() || matches!(self, Type::Binary | Type::LargeBinary | Type::BinaryView)
    }

    /// True for strings, which are UTF-8.
    pub fn is_text(&self) -> bool {
        matches!(self, Type::Utf8 | Type::LargeUtf8 | Type::Utf8View)
    }

    /// True for the two float types.
    pub fn is_float(&self) -> bool {
        matches!(self, Type::Float32 | Type::Float64)
    }

    /// True for the plain integer types.
    pub fn is_integer(&self) -> bool {
        matches!(
            self,
            Type::Int8
                | Type::Int16
                | Type::Int32
                | Type::Int64
                | Type::UInt8
                | Type::UInt16
                | Type::UInt32
                | Type::UInt64
        )
    }

    /// Smallest and largest value of an integral type; results outside are an overflow.
    pub fn value_range(&self) -> Option<(i128, i128)> {
        Some(match self {
            Type::Int8 => (i8::MIN.into(), i8::MAX.into()),
            Type::Int16 => (i16::MIN.into(), i16::MAX.into()),
            Type::Int32 | Type::Date32 => (i32::MIN.into(), i32::MAX.into()),
            Type::Int64 | Type::Time(_) | Type::Timestamp { .. } => (i64::MIN.into(), i64::MAX.into()),
            Type::UInt8 => (0, u8::MAX.into()),
            Type::UInt16 => (0, u16::MAX.into()),
            Type::UInt32 => (0, u32::MAX.into()),
            Type::UInt64 => (0, u64::MAX.into()),
            Type::Decimal { precision, .. } => {
                let largest = 10_i128.pow(u32::from(*precision).min(38)) - 1;
                (-largest, largest)
            }
            _ => return None,
        })
    }
}

/// An interval, whatever its layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Interval {
    /// Months.
    pub months: i32,
    /// Days.
    pub days: i32,
    /// Nanoseconds.
    pub nanoseconds: i64,
}

/// A value of some [`Type`]. Floats are equal when their bits are: what is computed from 0.0 is not what is computed from -0.0.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Value {
    /// NULL of any type.
    Null,
    /// Booleans.
    Boolean(bool),
    /// All integral types: the integer, the unscaled decimal, days, units.
    Int(i128),
    /// Both floats; a 32-bit one is exact here.
    Float(f64),
    /// Strings (UTF-8) and binary.
    Bytes(#[serde(with = "shared_bytes")] Arc<[u8]>),
    /// Intervals.
    Interval(Interval),
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Boolean(left), Value::Boolean(right)) => left == right,
            (Value::Int(left), Value::Int(right)) => left == right,
            (Value::Float(left), Value::Float(right)) => left.to_bits() == right.to_bits(),
            (Value::Bytes(left), Value::Bytes(right)) => left == right,
            (Value::Interval(left), Value::Interval(right)) => left == right,
            _ => false,
        }
    }
}

/// Shared text is written as text: serde's own support would be a feature that all crates are built with.
mod shared_text {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &Option<Arc<str>>, serializer: S) -> Result<S::Ok, S::Error> {
        text.as_deref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Arc<str>>, D::Error> {
        Ok(Option::<String>::deserialize(deserializer)?.map(Arc::from))
    }
}

/// As [`shared_text`], for bytes.
mod shared_bytes {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &Arc<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
        bytes.as_ref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<[u8]>, D::Error> {
        Ok(Vec::<u8>::deserialize(deserializer)?.into())
    }
}
