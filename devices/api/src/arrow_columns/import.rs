//! Arrow arrays to device columns: one pass for the bounds, one that narrows. Nothing is copied where the layouts agree.

use std::collections::HashMap;
use std::mem::size_of;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowNativeType, ByteViewType, DataType, IntervalDayTimeType, IntervalMonthDayNanoType, IntervalYearMonthType,
};

use crate::column::{Carrier, Codes, DeviceColumn, Dictionary, Strings, Values, ZoneMap};
use crate::error::DeviceError;
use crate::types::{Interval, IntervalKind, TimeUnit, Type};

/// A code of no value yet.
const UNSEEN: u32 = u32::MAX;

impl DeviceColumn {
    /// A column of `data_type` from an array of that type; strings and binary may come in any of Arrow's layouts for them, as
    /// views or in a dictionary (which makes the column codes). The zone map has range, NULLs and order.
    ///
    /// # Errors
    /// [`DeviceError::Internal`] when the array is of another type, [`DeviceError::Unsupported`] when its strings are longer
    /// than 4 GiB together.
    pub fn from_arrow(array: &ArrayRef, data_type: &Type) -> Result<Self, DeviceError> {
        if !matches_type(array.data_type(), data_type) {
            let found = array.data_type();
            let text = format!("an array of type {found} where {} is due", data_type.to_arrow());
            return Err(DeviceError::Internal(text));
        }
        let rows = array.len();
        let logical = array.logical_nulls().filter(|nulls| nulls.null_count() > 0);
        let nulls = logical.as_ref();
        let mut zone = ZoneMap {
            null_count: if *data_type == Type::Null {
                rows
            } else {
                nulls.map_or(0, NullBuffer::null_count)
            },
            run_length: 1.0,
            ..ZoneMap::default()
        };
        let values = match data_type {
            Type::Null => Values::Nulls,
            Type::Boolean => Values::Booleans(aligned(array.as_boolean().values())),
            Type::Float32 => Values::Float32(natives(array)),
            Type::Float64 => Values::Float64(natives(array)),
            Type::Interval(kind) => Values::Intervals(intervals(array, *kind)),
            Type::UInt64 => unsigned(natives(array), nulls, &mut zone),
            Type::Decimal { .. } => wide(natives(array), nulls, &mut zone),
            _ if data_type.is_bytes() => {
                let values = bytes(array, nulls)?;
                if let Values::Strings(strings) = &values {
                    zone.sorted = is_sorted(rows, nulls, |row| strings.get(row));
                }
                values
            }
            _ => narrow(array, data_type, nulls, &mut zone),
        };
        Ok(Self {
            data_type: data_type.clone(),
            rows,
            values,
            validity: nulls
                .filter(|_| *data_type != Type::Null)
                .map(|nulls| aligned(nulls.inner())),
            zone,
        })
    }
}

fn matches_type(found: &DataType, data_type: &Type) -> bool {
    let of = |found: &DataType| match Type::from_arrow(found) {
        Ok(found) if data_type.is_text() => found.is_text(),
        Ok(found) if data_type.is_bytes() => found.is_bytes() && !found.is_text(),
        Ok(Type::Decimal { scale, .. }) => matches!(data_type, Type::Decimal { scale: due, .. } if *due == scale),
        Ok(found) => found == *data_type,
        Err(_) => false,
    };
    match found {
        DataType::Dictionary(_, values) => data_type.is_bytes() && of(values),
        found => of(found),
    }
}

/// Bits from bit 0 of their buffer, as devices read them.
fn aligned(bits: &BooleanBuffer) -> BooleanBuffer {
    if bits.offset() == 0 {
        bits.clone()
    } else {
        BooleanBuffer::new(bits.sliced(), 0, bits.len())
    }
}

fn natives<T: ArrowNativeType>(array: &ArrayRef) -> ScalarBuffer<T> {
    let data = array.to_data();
    ScalarBuffer::new(data.buffers()[0].clone(), data.offset(), data.len())
}

/// All integral types of at most 64 bits but UInt64.
fn narrow(array: &ArrayRef, data_type: &Type, nulls: Option<&NullBuffer>, zone: &mut ZoneMap) -> Values {
    match data_type {
        Type::Int8 => small::<i8>(natives(array), nulls, zone),
        Type::Int16 => small::<i16>(natives(array), nulls, zone),
        Type::UInt8 => small::<u8>(natives(array), nulls, zone),
        Type::UInt16 => small::<u16>(natives(array), nulls, zone),
        Type::UInt32 => small::<u32>(natives(array), nulls, zone),
        Type::Int32 | Type::Date32 | Type::Time(TimeUnit::Second | TimeUnit::Millisecond) => {
            small::<i32>(natives(array), nulls, zone)
        }
        _ => small::<i64>(natives(array), nulls, zone),
    }
}

fn small<T: ArrowNativeType + Ord + Into<i64>>(
    values: ScalarBuffer<T>,
    nulls: Option<&NullBuffer>,
    zone: &mut ZoneMap,
) -> Values {
    let found = bounds(&values, nulls).map(|(low, high)| (low.into(), high.into()));
    zone.sorted = is_sorted(values.len(), nulls, |row| values[row]);
    carry(&values, T::into, found, nulls, zone)
}

fn unsigned(values: ScalarBuffer<u64>, nulls: Option<&NullBuffer>, zone: &mut ZoneMap) -> Values {
    zone.sorted = is_sorted(values.len(), nulls, |row| values[row]);
    match bounds(&values, nulls) {
        Some((low, high)) if i64::try_from(high).is_err() => {
            zone.range = Some((low.into(), high.into()));
            let widened = |row: usize| i128::from(values[row]);
            Values::Wide((0..values.len()).map(widened).collect::<Vec<_>>().into())
        }
        found => {
            let found = found.map(|(low, high)| (low.cast_signed(), high.cast_signed()));
            carry(&values, u64::cast_signed, found, nulls, zone)
        }
    }
}

fn wide(values: ScalarBuffer<i128>, nulls: Option<&NullBuffer>, zone: &mut ZoneMap) -> Values {
    let low_half = low_half as fn(i128) -> i64;
    zone.sorted = is_sorted(values.len(), nulls, |row| values[row]);
    if nulls.is_none()
        && let Some(found) = bounds_if_64_bits(&values)
    {
        return carry(&values, low_half, Some(found), nulls, zone);
    }
    match bounds(&values, nulls) {
        Some((low, high)) => match (i64::try_from(low), i64::try_from(high)) {
            (Ok(low), Ok(high)) => carry(&values, low_half, Some((low, high)), nulls, zone),
            _ => {
                zone.range = Some((low, high));
                Values::Wide(match nulls {
                    None => values,
                    Some(nulls) => {
                        let mut copy = values.to_vec();
                        fill_nulls(&mut copy, nulls, low);
                        copy.into()
                    }
                })
            }
        },
        None => carry(&values, low_half, None, nulls, zone),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
fn low_half(value: i128) -> i64 {
    value as i64
}

/// Smallest and largest value if all fit 64 bits: a pass without branches.
fn bounds_if_64_bits(values: &[i128]) -> Option<(i64, i64)> {
    let mut found = (i64::MAX, i64::MIN);
    let mut outside = 0_i64;
    for value in values {
        let low = low_half(*value);
        outside |= low_half(*value >> 64) ^ (low >> 63);
        found = (found.0.min(low), found.1.max(low));
    }
    (outside == 0 && !values.is_empty()).then_some(found)
}

/// Smallest and largest of the values that are not NULL.
fn bounds<T: Copy + Ord>(values: &[T], nulls: Option<&NullBuffer>) -> Option<(T, T)> {
    let fold = |found: (T, T), value: T| (found.0.min(value), found.1.max(value));
    let Some(nulls) = nulls else {
        let first = *values.first()?;
        return Some(values.iter().fold((first, first), |found, value| fold(found, *value)));
    };
    let first = values[nulls.valid_indices().next()?];
    let mut found = (first, first);
    for (bits, chunk) in nulls.inner().bit_chunks().iter_padded().zip(values.chunks(64)) {
        if bits == u64::MAX {
            found = chunk.iter().fold(found, |found, value| fold(found, *value));
        } else {
            for (place, value) in chunk.iter().enumerate() {
                found = fold(found, if bits >> place & 1 == 1 { *value } else { first });
            }
        }
    }
    Some(found)
}

fn is_sorted<V: Ord>(rows: usize, nulls: Option<&NullBuffer>, value: impl Fn(usize) -> V) -> bool {
    match nulls {
        None => (0..rows).map(value).is_sorted(),
        Some(nulls) => nulls.valid_indices().map(value).is_sorted(),
    }
}

/// Narrows to the smallest carrier for the bounds. `to` gives the value of a row that is not NULL.
fn carry<T: ArrowNativeType>(
    values: &ScalarBuffer<T>,
    to: impl Fn(T) -> i64 + Copy,
    found: Option<(i64, i64)>,
    nulls: Option<&NullBuffer>,
    zone: &mut ZoneMap,
) -> Values {
    zone.range = found.map(|(low, high)| (low.into(), high.into()));
    let (low, high) = found.unwrap_or((0, 0));
    let (width_bytes, base) = width_and_base(low, high);
    if width_bytes == size_of::<T>() && base == 0 && nulls.is_none() {
        return Values::Integers {
            carrier: reinterpret(values.inner().clone(), width_bytes),
            base,
        };
    }
    macro_rules! narrowed {
        ($variant:ident, $native:ty) => {{
            #[expect(clippy::allow_attributes, reason = "one of the four casts is none")]
            #[allow(
                clippy::cast_possible_truncation,
                clippy::unnecessary_cast,
                reason = "the bounds were looked at"
            )]
            let place = |value: i64| value.wrapping_sub(base) as $native;
            let mut carrier: Vec<$native> = values.iter().map(|value| place(to(*value))).collect();
            if let Some(nulls) = nulls {
                fill_nulls(&mut carrier, nulls, place(low));
            }
            Carrier::$variant(carrier.into())
        }};
    }
    let carrier = match width_bytes {
        1 => narrowed!(I8, i8),
        2 => narrowed!(I16, i16),
        4 => narrowed!(I32, i32),
        _ => narrowed!(I64, i64),
    };
    Values::Integers { carrier, base }
}

fn reinterpret(buffer: Buffer, width_bytes: usize) -> Carrier {
    match width_bytes {
        1 => Carrier::I8(buffer.into()),
        2 => Carrier::I16(buffer.into()),
        4 => Carrier::I32(buffer.into()),
        _ => Carrier::I64(buffer.into()),
    }
}

/// The smallest carrier, with base 0 if that costs nothing; else the base is the middle, so that neither the carrier nor the
/// sum overflows.
fn width_and_base(low: i64, high: i64) -> (usize, i64) {
    let plain = |least: i64, most: i64| low >= least && high <= most;
    let without = if plain(i8::MIN.into(), i8::MAX.into()) {
        1
    } else if plain(i16::MIN.into(), i16::MAX.into()) {
        2
    } else if plain(i32::MIN.into(), i32::MAX.into()) {
        4
    } else {
        8
    };
    let spread = high.checked_sub(low).unwrap_or(i64::MAX);
    let with = match spread {
        0..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    };
    if with < without {
        (with, low + (spread + 1) / 2)
    } else {
        (without, 0)
    }
}

fn fill_nulls<T: Copy>(values: &mut [T], nulls: &NullBuffer, value: T) {
    for (bits, chunk) in nulls.inner().bit_chunks().iter_padded().zip(values.chunks_mut(64)) {
        if bits == u64::MAX {
            continue;
        }
        for (place, slot) in chunk.iter_mut().enumerate() {
            *slot = if bits >> place & 1 == 1 { *slot } else { value };
        }
    }
}

fn intervals(array: &ArrayRef, kind: IntervalKind) -> Arc<[Interval]> {
    match kind {
        IntervalKind::YearMonth => {
            let of = |months: &i32| Interval {
                months: *months,
                ..Interval::default()
            };
            array
                .as_primitive::<IntervalYearMonthType>()
                .values()
                .iter()
                .map(of)
                .collect()
        }
        IntervalKind::DayTime => {
            let of = |value: &arrow::datatypes::IntervalDayTime| Interval {
                months: 0,
                days: value.days,
                nanoseconds: i64::from(value.milliseconds) * 1_000_000,
            };
            array
                .as_primitive::<IntervalDayTimeType>()
                .values()
                .iter()
                .map(of)
                .collect()
        }
        IntervalKind::MonthDayNano => {
            let of = |value: &arrow::datatypes::IntervalMonthDayNano| Interval {
                months: value.months,
                days: value.days,
                nanoseconds: value.nanoseconds,
            };
            array
                .as_primitive::<IntervalMonthDayNanoType>()
                .values()
                .iter()
                .map(of)
                .collect()
        }
    }
}

fn bytes(array: &ArrayRef, nulls: Option<&NullBuffer>) -> Result<Values, DeviceError> {
    Ok(Values::Strings(match array.data_type() {
        DataType::Utf8 => packed(array.as_string::<i32>().offsets(), array.as_string::<i32>().values())?,
        DataType::LargeUtf8 => packed(array.as_string::<i64>().offsets(), array.as_string::<i64>().values())?,
        DataType::Binary => packed(array.as_binary::<i32>().offsets(), array.as_binary::<i32>().values())?,
        DataType::LargeBinary => packed(array.as_binary::<i64>().offsets(), array.as_binary::<i64>().values())?,
        DataType::Utf8View => views(array.as_string_view(), nulls)?,
        DataType::BinaryView => views(array.as_binary_view(), nulls)?,
        _ => return dictionary(array, nulls),
    }))
}

/// Of arrays with offsets: the bytes stay, the offsets too if they begin at 0 and have 32 bits.
fn packed<O: ArrowNativeType>(offsets: &OffsetBuffer<O>, bytes: &Buffer) -> Result<Strings, DeviceError> {
    let first = offsets.first().map_or(0, |offset| offset.as_usize());
    let last = offsets.last().map_or(0, |offset| offset.as_usize());
    u32::try_from(last - first).map_err(|_| too_long(last - first))?;
    let kept = bytes.slice_with_length(first, last - first);
    if first == 0 && size_of::<O>() == size_of::<u32>() {
        return Ok(Strings {
            offsets: offsets.inner().inner().clone().into(),
            bytes: kept,
        });
    }
    #[expect(clippy::cast_possible_truncation, reason = "the last one fits")]
    let moved = offsets.iter().map(|offset| (offset.as_usize() - first) as u32);
    Ok(Strings {
        offsets: moved.collect::<Vec<_>>().into(),
        bytes: kept,
    })
}

fn views<T: ByteViewType + ?Sized>(
    array: &arrow::array::GenericByteViewArray<T>,
    nulls: Option<&NullBuffer>,
) -> Result<Strings, DeviceError> {
    let present = |row: usize| nulls.is_none_or(|nulls| nulls.is_valid(row));
    #[expect(clippy::cast_possible_truncation, reason = "a view's length is its low 32 bits")]
    let length = |row: usize| if present(row) { array.views()[row] as u32 } else { 0 };
    let total: usize = (0..array.len()).map(|row| length(row) as usize).sum();
    u32::try_from(total).map_err(|_| too_long(total))?;
    let mut bytes: Vec<u8> = Vec::with_capacity(total);
    let mut offsets = Vec::with_capacity(array.len() + 1);
    let mut end = 0_u32;
    offsets.push(end);
    for row in 0..array.len() {
        if present(row) {
            bytes.extend_from_slice(array.value(row).as_ref());
        }
        end += length(row);
        offsets.push(end);
    }
    Ok(Strings {
        offsets: offsets.into(),
        bytes: bytes.into(),
    })
}

fn too_long(bytes: usize) -> DeviceError {
    DeviceError::Unsupported(format!("{bytes} bytes of strings in one segment (at most 4 GiB)"))
}

/// Arrow's dictionaries may hold a value twice, or NULL, or values of no row; ours hold none of these, but keep the order of
/// values where they can.
fn dictionary(array: &ArrayRef, nulls: Option<&NullBuffer>) -> Result<Values, DeviceError> {
    let keyed = array.as_any_dictionary();
    let Values::Strings(strings) = bytes(keyed.values(), None)? else {
        return Err(DeviceError::Internal("a dictionary of dictionaries".to_owned()));
    };
    let keys = match strings.len() {
        // Arrow's own look at keys needs a value.
        0 => vec![0; keyed.keys().len()],
        _ => keyed.normalized_keys(),
    };
    let mut seen: HashMap<&[u8], u32> = HashMap::with_capacity(strings.len().min(keys.len().max(1024)));
    let mut codes = vec![UNSEEN; strings.len()];
    let mut order: Vec<usize> = Vec::new();
    let mut code_of = |key: usize| {
        if codes[key] == UNSEEN {
            let next = u32::try_from(order.len()).unwrap_or(UNSEEN - 1);
            codes[key] = *seen.entry(strings.get(key)).or_insert_with(|| {
                order.push(key);
                next
            });
        }
        codes[key]
    };
    if strings.len() <= keys.len().max(1024) {
        let valued = |key: &usize| keyed.values().is_valid(*key);
        (0..strings.len()).filter(valued).for_each(|key| {
            code_of(key);
        });
    }
    let present = |row: usize| nulls.is_none_or(|nulls| nulls.is_valid(row));
    let coded = |(row, key): (usize, &usize)| if present(row) { code_of(*key) } else { 0 };
    let rows: Vec<u32> = keys.iter().enumerate().map(coded).collect();
    let kept = if order.len() == strings.len() && order.is_sorted() {
        strings
    } else {
        Strings::from_values(order.iter().map(|key| strings.get(*key)))
    };
    Ok(Values::Codes {
        codes: narrow_codes(rows, kept.len()),
        dictionary: Arc::new(Dictionary::new(kept)),
    })
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "codes are less than the number of values"
)]
fn narrow_codes(codes: Vec<u32>, values: usize) -> Codes {
    if values <= 1 << 8 {
        Codes::U8(codes.iter().map(|code| *code as u8).collect::<Vec<_>>().into())
    } else if values <= 1 << 16 {
        Codes::U16(codes.iter().map(|code| *code as u16).collect::<Vec<_>>().into())
    } else {
        Codes::U32(codes.into())
    }
}
