//! Device columns from plain vectors: the narrowest carrier, validity, zone map.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::buffer::BooleanBuffer;
use trireme_device_api::{
    Carrier, Codes, DeviceColumn, DeviceError, Dictionary, Interval, Strings, Type, Values, ZoneMap,
};

use crate::isa::{Isa, primitive};
use crate::number::{convert, map};

/// Integral values, in 64 bits where all fit.
pub(super) enum Whole<'a> {
    Words(Cow<'a, [i64]>),
    Wide(Vec<i128>),
}

impl Whole<'_> {
    pub(super) fn words(values: Vec<i64>) -> Self {
        Whole::Words(Cow::Owned(values))
    }
}

/// Which rows are values; none when all are.
pub(super) type Valid = Option<Vec<bool>>;

fn bits(valid: Valid) -> (Option<BooleanBuffer>, usize) {
    let Some(valid) = valid else { return (None, 0) };
    let bits: BooleanBuffer = valid.into();
    let null_count = bits.len() - bits.count_set_bits();
    ((null_count > 0).then_some(bits), null_count)
}

fn column(
    data_type: &Type,
    rows: usize,
    values: Values,
    range: Option<(i128, i128)>,
    validity: (Option<BooleanBuffer>, usize),
) -> DeviceColumn {
    DeviceColumn {
        data_type: data_type.clone(),
        rows,
        values,
        validity: validity.0,
        zone: ZoneMap {
            range,
            null_count: validity.1,
            sorted: false,
            run_length: 1.0,
        },
    }
}

/// All NULL.
pub(super) fn nulls(data_type: &Type, rows: usize) -> DeviceColumn {
    column(data_type, rows, Values::Nulls, None, (None, rows))
}

/// Smallest and largest value, after NULLs were made a value; none of no rows or only NULLs.
fn normalise<T: Copy + Ord>(values: &mut [T], valid: &Valid) -> Option<(T, T)> {
    let Some(valid) = valid else {
        let first = *values.first()?;
        let fold = |(low, high): (T, T), &value: &T| (low.min(value), high.max(value));
        return Some(values.iter().fold((first, first), fold));
    };
    let present = || {
        values
            .iter()
            .zip(valid)
            .filter(|(_, valid)| **valid)
            .map(|(value, _)| *value)
    };
    let range = (present().min()?, present().max()?);
    for (value, valid) in values.iter_mut().zip(valid) {
        *value = if *valid { *value } else { range.0 };
    }
    Some(range)
}

/// An integral column, whose values must be in the range of its type. `name` is the function that made them.
///
/// # Errors
/// They aren't.
pub(super) fn integers(data_type: &Type, values: Whole, valid: Valid, name: &str) -> Result<DeviceColumn, DeviceError> {
    let (rows, range, values) = match values {
        Whole::Words(mut values) => {
            let range = match &valid {
                None => extremes(Isa::detect(), &values),
                Some(_) => normalise(values.to_mut(), &valid),
            };
            let (low, high) = range.unwrap_or((0, 0));
            if range.is_none() && !values.is_empty() {
                values.to_mut().fill(0);
            }
            let range = range.map(|(low, high)| (i128::from(low), i128::from(high)));
            (values.len(), range, words(values, low, high))
        }
        Whole::Wide(mut values) => {
            let range = normalise(&mut values, &valid);
            let (low, high) = range.unwrap_or((0, 0));
            if range.is_none() {
                values.fill(0);
            }
            let rows = values.len();
            match (i64::try_from(low), i64::try_from(high)) {
                (Ok(low), Ok(high)) => {
                    let narrow = convert(Isa::detect(), &values);
                    (rows, range, words(Cow::Owned(narrow), low, high))
                }
                _ => (rows, range, Values::Wide(values.into())),
            }
        }
    };
    let (least, most) = data_type.value_range().unwrap_or((i128::MIN, i128::MAX));
    if range.is_some_and(|(low, high)| low < least || high > most) {
        return Err(overflow(data_type, name));
    }
    Ok(column(data_type, rows, values, range, bits(valid)))
}

/// The error of a result that is outside its type.
pub(super) fn overflow(data_type: &Type, name: &str) -> DeviceError {
    let kind = if matches!(data_type, Type::Decimal { .. }) {
        "decimal"
    } else {
        "integer"
    };
    DeviceError::Arithmetic(format!("{kind} overflow in {name}"))
}

primitive! {
    /// The smallest and the largest.
    fn extremes[](values: &[i64]) -> Option<(i64, i64)> {
        let first = *values.first()?;
        let (mut low, mut high) = (first, first);
        for &value in values {
            low = low.min(value);
            high = high.max(value);
        }
        Some((low, high))
    }
}

fn words(values: Cow<[i64]>, low: i64, high: i64) -> Values {
    let isa = Isa::detect();
    let carrier = if low >= i8::MIN.into() && high <= i8::MAX.into() {
        Carrier::I8(convert(isa, &values).into())
    } else if low >= i16::MIN.into() && high <= i16::MAX.into() {
        Carrier::I16(convert(isa, &values).into())
    } else if low >= i32::MIN.into() && high <= i32::MAX.into() {
        Carrier::I32(convert(isa, &values).into())
    } else {
        Carrier::I64(values.into_owned().into())
    };
    Values::Integers { carrier, base: 0 }
}

/// `start + offset` of ascending offsets, all within 64 bits and the type.
pub(super) fn ascending(data_type: &Type, start: i64, offsets: &[u32]) -> DeviceColumn {
    let isa = Isa::detect();
    let of = |offset: u32| start.wrapping_add(offset.into());
    let bounds = offsets.first().zip(offsets.last());
    let range = bounds.map(|(&first, &last)| (of(first), of(last)));
    let (low, high) = range.unwrap_or((0, 0));
    let carrier = if low >= i8::MIN.into() && high <= i8::MAX.into() {
        Carrier::I8(map(isa, offsets, |offset| of(offset) as i8).into())
    } else if low >= i16::MIN.into() && high <= i16::MAX.into() {
        Carrier::I16(map(isa, offsets, |offset| of(offset) as i16).into())
    } else if low >= i32::MIN.into() && high <= i32::MAX.into() {
        Carrier::I32(map(isa, offsets, |offset| of(offset) as i32).into())
    } else {
        Carrier::I64(map(isa, offsets, of).into())
    };
    let values = Values::Integers { carrier, base: 0 };
    let range = range.map(|(low, high)| (low.into(), high.into()));
    column(data_type, offsets.len(), values, range, (None, 0))
}

/// A boolean column.
pub(super) fn booleans(data_type: &Type, values: Vec<bool>, valid: Valid) -> DeviceColumn {
    let rows = values.len();
    column(data_type, rows, Values::Booleans(values.into()), None, bits(valid))
}

/// A column of either float type.
pub(super) fn floats(data_type: &Type, values: Vec<f64>, valid: Valid) -> DeviceColumn {
    let rows = values.len();
    let values = if *data_type == Type::Float32 {
        Values::Float32(values.into_iter().map(|value| value as f32).collect())
    } else {
        Values::Float64(values.into())
    };
    column(data_type, rows, values, None, bits(valid))
}

/// An interval column.
pub(super) fn intervals(data_type: &Type, values: Vec<Interval>, valid: Valid) -> DeviceColumn {
    let rows = values.len();
    column(data_type, rows, Values::Intervals(values.into()), None, bits(valid))
}

/// Strings or binary.
///
/// # Errors
/// More than 4 GiB.
pub(super) fn strings(data_type: &Type, values: &[Option<&[u8]>]) -> Result<DeviceColumn, DeviceError> {
    let length: usize = values.iter().flatten().map(|value| value.len()).sum();
    if u32::try_from(length).is_err() {
        return Err(DeviceError::Unsupported(
            "a result column holds more than 4 GiB of strings".into(),
        ));
    }
    let valid = Some(values.iter().map(Option::is_some).collect());
    let strings = Strings::from_values(values.iter().map(|value| value.unwrap_or_default()));
    Ok(column(
        data_type,
        values.len(),
        Values::Strings(strings),
        None,
        bits(valid),
    ))
}

/// Codes; those of NULL rows are any in range.
pub(super) fn coded(data_type: &Type, dictionary: &Arc<Dictionary>, codes: Vec<u32>, valid: Valid) -> DeviceColumn {
    let rows = codes.len();
    let codes = match dictionary.len() {
        0..=0x100 => Codes::U8(codes.into_iter().map(|code| code as u8).collect()),
        0x101..=0x1_0000 => Codes::U16(codes.into_iter().map(|code| code as u16).collect()),
        _ => Codes::U32(codes.into()),
    };
    let dictionary = Arc::clone(dictionary);
    column(data_type, rows, Values::Codes { codes, dictionary }, None, bits(valid))
}
