//! Pages to a column: the carrier is chosen by what the footer promises, checked while decoding, and narrowed afterwards if
//! the values turn out smaller.

use std::mem::size_of;
use std::sync::Arc;

use arrow::array::BooleanBufferBuilder;
use trireme_device_api::{Carrier, Codes, DeviceColumn, Dictionary, Strings, Values, ZoneMap};

use super::booleans::Bits;
use super::flat::{Flat, Float, Integer, Lane};
use super::pages::{self, PageError};
use super::physical::Physical;
use super::strings::{Code, Coded, Spelled};
use super::validity::Validity;
use super::{Shape, Task, estimate_bytes};
use crate::dictionary::{Domain, TakeBytes};
use crate::segments::{is_listed, is_spelled_out, page_bytes};
use crate::source::Ranges;

/// The column, as [`super::decode`] gives it, with range, NULLs and order in its zone map.
pub(crate) fn decode(task: &Task<'_>, ranges: &Ranges, physical: Physical) -> Result<DeviceColumn, PageError> {
    let rows = task.segment.rows;
    match physical {
        Physical::Boolean => {
            let bits = BooleanBufferBuilder::new(rows);
            let mut target = Bits { out: bits };
            let validity = fill(task, ranges, &mut target)?;
            Ok(finish(
                task,
                Values::Booleans(target.out.finish()),
                None,
                false,
                validity,
            ))
        }
        Physical::Float32 => {
            let mut target: Flat<Float<f32>> = Flat::new(physical, 0, rows);
            let validity = fill(task, ranges, &mut target)?;
            let values: Vec<f32> = target.out.into_iter().map(|value| value.0).collect();
            Ok(finish(task, Values::Float32(values.into()), None, false, validity))
        }
        Physical::Float64 => {
            let mut target: Flat<Float<f64>> = Flat::new(physical, 0, rows);
            let validity = fill(task, ranges, &mut target)?;
            let values: Vec<f64> = target.out.into_iter().map(|value| value.0).collect();
            Ok(finish(task, Values::Float64(values.into()), None, false, validity))
        }
        Physical::Bytes => match task.shape {
            Shape::Codes(domain, take) => codes(task, ranges, domain, take),
            Shape::Values => strings(task, ranges),
        },
        _ => integers(task, ranges, physical),
    }
}

fn fill(task: &Task<'_>, ranges: &Ranges, target: &mut impl pages::Target) -> Result<Validity, PageError> {
    let mut validity = Validity::default();
    pages::read(task, ranges, target, &mut validity)?;
    Ok(validity)
}

fn finish(
    task: &Task<'_>,
    values: Values,
    range: Option<(i128, i128)>,
    sorted: bool,
    validity: Validity,
) -> DeviceColumn {
    let (validity, null_count) = validity.finish();
    DeviceColumn {
        data_type: task.data_type.clone(),
        rows: task.segment.rows,
        values,
        validity,
        zone: ZoneMap {
            range,
            null_count,
            sorted,
            run_length: 1.0,
        },
    }
}

fn strings(task: &Task<'_>, ranges: &Ranges) -> Result<DeviceColumn, PageError> {
    let rows = task.segment.rows;
    // In plain pages each value stands behind its length; what a dictionary's become is known later.
    let pages = match is_spelled_out(task.metadata, task.segment, task.leaf) {
        true => page_bytes(task.metadata, task.segment, task.leaf),
        false => 0,
    };
    let bytes = estimate_bytes(task, pages).saturating_sub((rows + 1) * 4);
    let mut target = Spelled::new(rows, bytes, task.pool);
    let validity = fill(task, ranges, &mut target)?;
    let (offsets, mut bytes) = (target.offsets, target.bytes);
    if task.data_type.is_text() {
        let text = std::str::from_utf8(&bytes).ok();
        let whole = |text: &str| offsets.iter().all(|offset| text.is_char_boundary(*offset as usize));
        if !text.is_some_and(whole) {
            return Err(PageError::corrupt("a string that is not UTF-8"));
        }
    }
    if bytes.capacity() > bytes.len() + bytes.len() / 8 {
        bytes.shrink_to_fit();
    }
    let values = Strings {
        offsets: offsets.into(),
        bytes: bytes.into(),
    };
    Ok(finish(task, Values::Strings(values), None, false, validity))
}

fn codes(task: &Task<'_>, ranges: &Ranges, domain: &Domain, take: TakeBytes<'_>) -> Result<DeviceColumn, PageError> {
    let known = domain.lock().len();
    if known <= 1 << 8
        && let Some((out, validity)) = codes_of::<u8>(task, ranges, domain, take)?
    {
        return Ok(finish(task, with_codes(Codes::U8(out.into())), None, false, validity));
    }
    if known <= 1 << 16
        && let Some((out, validity)) = codes_of::<u16>(task, ranges, domain, take)?
    {
        return Ok(finish(task, with_codes(Codes::U16(out.into())), None, false, validity));
    }
    match codes_of::<u32>(task, ranges, domain, take)? {
        Some((out, validity)) => Ok(finish(task, with_codes(Codes::U32(out.into())), None, false, validity)),
        None => Err(PageError::Narrow),
    }
}

/// None when the codes don't fit.
fn codes_of<T: Code>(
    task: &Task<'_>,
    ranges: &Ranges,
    domain: &Domain,
    take: TakeBytes<'_>,
) -> Result<Option<(Vec<T>, Validity)>, PageError> {
    let is_listed = task.source.is_local() && is_listed(task.metadata, task.segment, task.leaf);
    let is_text = task.data_type.is_text();
    let mut target: Coded<'_, T> = Coded::new(domain, take, is_text, is_listed, task.segment.rows);
    match fill(task, ranges, &mut target) {
        Ok(validity) => Ok(Some((target.out, validity))),
        Err(PageError::Narrow) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Codes without their dictionary, which the scan knows.
pub(crate) fn with_codes(codes: Codes) -> Values {
    Values::Codes {
        codes,
        dictionary: Arc::new(Dictionary::new(Strings::from_values([]))),
    }
}

fn integers(task: &Task<'_>, ranges: &Ranges, physical: Physical) -> Result<DeviceColumn, PageError> {
    let (low, high) = task.range.unwrap_or((0, 0));
    let narrow = match (i64::try_from(low), i64::try_from(high)) {
        (Ok(low), Ok(high)) => {
            let (width_bytes, base) = width_and_base(low, high);
            match width_bytes {
                1 => integers_of::<i8>(task, ranges, physical, base),
                2 => integers_of::<i16>(task, ranges, physical, base),
                4 => integers_of::<i32>(task, ranges, physical, base),
                _ => integers_of::<i64>(task, ranges, physical, base),
            }
        }
        _ => Err(PageError::Narrow),
    };
    // Values outside of what the footer promised are found again, as such, when the range is compared.
    match narrow {
        Err(PageError::Narrow) => integers_of::<i128>(task, ranges, physical, 0),
        other => other,
    }
}

fn integers_of<T: Carried>(
    task: &Task<'_>,
    ranges: &Ranges,
    physical: Physical,
    base: i64,
) -> Result<DeviceColumn, PageError> {
    let mut target: Flat<T> = Flat::new(physical, base, task.segment.rows);
    let validity = fill(task, ranges, &mut target)?;
    let mut out = target.out;
    if out.capacity() > out.len() + out.len() / 8 {
        out.shrink_to_fit();
    }
    let (bits, null_count) = validity.finish();
    let valid = out.len() - null_count;
    match bits.as_ref().map(|bits| bits.set_indices().next()) {
        Some(Some(first)) => {
            let value = out[first];
            out[..first].fill(value);
        }
        Some(None) => out.fill(T::default()),
        None => {}
    }
    let bounds = if valid == 0 { None } else { bounds(&out) };
    let sorted = out.is_sorted();
    let range = bounds.map(|(least, most)| (least.value(base), most.value(base)));
    Ok(DeviceColumn {
        data_type: task.data_type.clone(),
        rows: out.len(),
        values: narrowed(out, base, range.unwrap_or((0, 0))),
        validity: bits,
        zone: ZoneMap {
            range,
            null_count,
            sorted,
            run_length: 1.0,
        },
    })
}

/// An integer lane that can be a carrier.
pub(crate) trait Carried: Lane + Integer + Ord {
    /// Value, with the base added.
    fn value(self, base: i64) -> i128;

    /// The vector as it is.
    fn keep(values: Vec<Self>, base: i64) -> Values;
}

macro_rules! carried {
    ($($native:ty: $variant:ident),*) => {$(
        impl Carried for $native {
            fn value(self, base: i64) -> i128 {
                i128::from(self) + i128::from(base)
            }

            fn keep(values: Vec<Self>, base: i64) -> Values {
                Values::Integers { carrier: Carrier::$variant(values.into()), base }
            }
        }
    )*};
}

carried!(i8: I8, i16: I16, i32: I32, i64: I64);

impl Carried for i128 {
    fn value(self, base: i64) -> i128 {
        self + i128::from(base)
    }

    fn keep(values: Vec<Self>, _base: i64) -> Values {
        Values::Wide(values.into())
    }
}

fn bounds<T: Carried>(values: &[T]) -> Option<(T, T)> {
    let first = *values.first()?;
    Some(values.iter().fold((first, first), |(least, most), value| {
        (least.min(*value), most.max(*value))
    }))
}

/// In a smaller carrier if the values that are there fit.
fn narrowed<T: Carried>(values: Vec<T>, base: i64, (low, high): (i128, i128)) -> Values {
    let (Ok(low), Ok(high)) = (i64::try_from(low), i64::try_from(high)) else {
        return T::keep(values, base);
    };
    let (width_bytes, new_base) = width_and_base(low, high);
    if width_bytes >= size_of::<T>() {
        return T::keep(values, base);
    }
    macro_rules! cut {
        ($variant:ident, $native:ty) => {{
            let cut = |value: &T| (value.value(base) as i64).wrapping_sub(new_base) as $native;
            Carrier::$variant(values.iter().map(cut).collect::<Vec<_>>().into())
        }};
    }
    let carrier = match width_bytes {
        1 => cut!(I8, i8),
        2 => cut!(I16, i16),
        4 => cut!(I32, i32),
        _ => cut!(I64, i64),
    };
    Values::Integers {
        carrier,
        base: new_base,
    }
}

/// The smallest carrier, with base 0 if that costs nothing; else the base is the middle, so that neither the carrier nor the
/// sum overflows.
pub(crate) fn width_and_base(low: i64, high: i64) -> (usize, i64) {
    let within = |bits: u32| low >= -(1_i64 << (bits - 1)) && high < 1_i64 << (bits - 1);
    let without = match (within(8), within(16), within(32)) {
        (true, ..) => 1,
        (_, true, _) => 2,
        (.., true) => 4,
        _ => 8,
    };
    let spread = high.checked_sub(low).unwrap_or(i64::MAX);
    let with = match spread {
        ..=0xff => 1,
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
