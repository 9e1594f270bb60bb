//! Which files' types the page decoder gives in which of the table's types without a cast.

use arrow::datatypes::DataType;
use parquet::basic::Type as PhysicalType;
use parquet::schema::types::ColumnDescriptor;
use trireme_device_api::{TimeUnit, Type};

/// What pages hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Physical {
    Boolean,
    Int32,
    Int64,
    /// INT32 without a sign.
    UInt32,
    /// INT64 without a sign.
    UInt64,
    /// Nanoseconds of a day and the Julian day, wanted in such units: in nanoseconds they would end in 2262.
    Int96(TimeUnit),
    Float32,
    Float64,
    /// Signed numbers of so many bytes, at most 16, the most significant first.
    Fixed(usize),
    Bytes,
}

impl Physical {
    /// Of a leaf column that Arrow reads as `found`, wanted as `wanted`; none where it takes a cast or Arrow's reader.
    pub(crate) fn of(descriptor: &ColumnDescriptor, found: &DataType, wanted: &Type) -> Option<Self> {
        if descriptor.physical_type() == PhysicalType::INT96 {
            return int96(wanted);
        }
        let found = Type::from_arrow(found).ok()?;
        if !is_same(&found, wanted) {
            return None;
        }
        let unsigned = matches!(found, Type::UInt8 | Type::UInt16 | Type::UInt32 | Type::UInt64);
        Some(match descriptor.physical_type() {
            PhysicalType::BOOLEAN if found == Type::Boolean => Physical::Boolean,
            PhysicalType::INT32 if unsigned => Physical::UInt32,
            PhysicalType::INT32 if found.is_integral() => Physical::Int32,
            PhysicalType::INT64 if unsigned => Physical::UInt64,
            PhysicalType::INT64 if found.is_integral() => Physical::Int64,
            PhysicalType::FLOAT if found == Type::Float32 => Physical::Float32,
            PhysicalType::DOUBLE if found == Type::Float64 => Physical::Float64,
            PhysicalType::FIXED_LEN_BYTE_ARRAY if matches!(found, Type::Decimal { .. }) => {
                let length = usize::try_from(descriptor.type_length()).ok()?;
                (1..=16).contains(&length).then_some(Physical::Fixed(length))?
            }
            PhysicalType::BYTE_ARRAY if found.is_bytes() => Physical::Bytes,
            _ => return None,
        })
    }
}

/// They are instants in UTC.
fn int96(wanted: &Type) -> Option<Physical> {
    match wanted {
        Type::Timestamp { unit, zone } if zone.as_deref().is_none_or(|zone| matches!(zone, "UTC" | "+00:00")) => {
            Some(Physical::Int96(*unit))
        }
        _ => None,
    }
}

/// Values of one type are values of the other, unchanged.
fn is_same(found: &Type, wanted: &Type) -> bool {
    match (found, wanted) {
        (
            Type::Decimal { precision, scale },
            Type::Decimal {
                precision: wanted_precision,
                scale: wanted_scale,
            },
        ) => scale == wanted_scale && precision <= wanted_precision,
        _ if found.is_integer() && wanted.is_integer() => match (found.value_range(), wanted.value_range()) {
            (Some((low, high)), Some((least, most))) => low >= least && high <= most,
            _ => false,
        },
        _ if found.is_bytes() && wanted.is_bytes() => found.is_text() || !wanted.is_text(),
        _ => found == wanted,
    }
}
