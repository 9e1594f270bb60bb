//! Values of fixed width: integers in a carrier, floats.

use std::ops::Range;

use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::data_type::Int96;
use trireme_device_api::TimeUnit;

use super::hybrid::look_up;
use super::pages::{PageError, Target, keep, spread};
use super::physical::Physical;
use super::plain::plain;
use super::validity::Validity;
use crate::segments::big_endian;

/// What a plain value of a page becomes.
pub(crate) trait Lane: Copy + Default {
    /// Appends plain values of the physical type; `base` is taken off integers.
    fn place(values: &[u8], physical: Physical, base: i64, out: &mut Vec<Self>) -> Result<(), PageError>;
}

/// A vector of lanes being filled.
pub(crate) struct Flat<T> {
    physical: Physical,
    base: i64,
    dictionary: Vec<T>,
    pub(crate) out: Vec<T>,
}

impl<T: Lane> Flat<T> {
    pub(crate) fn new(physical: Physical, base: i64, rows: usize) -> Self {
        Self {
            physical,
            base,
            dictionary: Vec::new(),
            out: Vec::with_capacity(rows),
        }
    }
}

impl Physical {
    pub(super) fn width_bytes(self) -> usize {
        match self {
            Physical::Int32 | Physical::UInt32 | Physical::Float32 => 4,
            Physical::Int64 | Physical::UInt64 | Physical::Float64 => 8,
            Physical::Int96(_) => 12,
            Physical::Fixed(bytes) => bytes,
            Physical::Boolean | Physical::Bytes => 0,
        }
    }

    fn is_integer(self) -> bool {
        matches!(
            self,
            Physical::Int32 | Physical::UInt32 | Physical::Int64 | Physical::UInt64
        )
    }
}

impl<T: Lane> Target for Flat<T> {
    fn len(&self) -> usize {
        self.out.len()
    }

    fn dictionary(&mut self, page: &Bytes, count: usize) -> Result<(), PageError> {
        self.dictionary.clear();
        let values = plain(Encoding::PLAIN, page, count, self.physical.width_bytes(), false)?;
        T::place(&values, self.physical, self.base, &mut self.dictionary)
    }

    fn append(&mut self, encoding: Encoding, page: &Bytes, count: usize) -> Result<(), PageError> {
        if matches!(encoding, Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY) {
            return look_up(page, count, &self.dictionary, &mut self.out);
        }
        let physical = self.physical;
        let values = plain(encoding, page, count, physical.width_bytes(), physical.is_integer())?;
        T::place(&values, physical, self.base, &mut self.out)
    }

    fn spread(&mut self, rows: usize, count: usize, validity: &Validity) {
        spread(&mut self.out, rows, count, validity);
    }

    fn keep(&mut self, from: usize, ranges: &[Range<usize>]) {
        keep(&mut self.out, from, ranges);
    }
}

/// Integers: what is lost by narrowing is seen by the bits that differ, without a branch per value.
pub(crate) trait Integer: Copy + Default {
    fn of(value: i64, base: i64, lost: &mut i64) -> Self;

    fn of_wide(value: i128, base: i64, lost: &mut i64) -> Self {
        let low = value as i64;
        *lost |= (value >> 64) as i64 ^ (low >> 63);
        Self::of(low, base, lost)
    }
}

macro_rules! integers {
    ($($native:ty),*) => {$(
        impl Integer for $native {
            #[inline(always)]
            fn of(value: i64, base: i64, lost: &mut i64) -> Self {
                let less = value.wrapping_sub(base);
                let cut = less as $native;
                *lost |= i64::from(cut) ^ less;
                cut
            }
        }
    )*};
}

integers!(i8, i16, i32, i64);

impl Integer for i128 {
    fn of(value: i64, base: i64, _lost: &mut i64) -> Self {
        i128::from(value) - i128::from(base)
    }

    fn of_wide(value: i128, base: i64, _lost: &mut i64) -> Self {
        value - i128::from(base)
    }
}

#[inline(always)]
fn fill<T: Copy + Default, const N: usize>(values: &[u8], out: &mut Vec<T>, mut of: impl FnMut([u8; N]) -> T) {
    let (chunks, _) = values.as_chunks::<N>();
    let start = out.len();
    out.resize(start + chunks.len(), T::default());
    for (slot, chunk) in out[start..].iter_mut().zip(chunks) {
        *slot = of(*chunk);
    }
}

impl<T: Integer> Lane for T {
    fn place(values: &[u8], physical: Physical, base: i64, out: &mut Vec<Self>) -> Result<(), PageError> {
        let mut lost = 0;
        match physical {
            Physical::Int32 => fill(values, out, |value| {
                T::of(i32::from_le_bytes(value).into(), base, &mut lost)
            }),
            Physical::UInt32 => fill(values, out, |value| {
                T::of(u32::from_le_bytes(value).into(), base, &mut lost)
            }),
            Physical::Int64 => fill(values, out, |value| T::of(i64::from_le_bytes(value), base, &mut lost)),
            Physical::UInt64 => fill(values, out, |value| {
                T::of_wide(u64::from_le_bytes(value).into(), base, &mut lost)
            }),
            Physical::Int96(unit) => fill(values, out, |value| T::of(timestamp(value, unit), base, &mut lost)),
            Physical::Fixed(width) => out.extend(values.chunks_exact(width).map(|value| {
                // At most 16 bytes, and at least one: checked with the schema.
                T::of_wide(big_endian(value).unwrap_or(0), base, &mut lost)
            })),
            _ => return Err(PageError::Unknown),
        }
        if lost == 0 { Ok(()) } else { Err(PageError::Narrow) }
    }
}

fn timestamp(value: [u8; 12], unit: TimeUnit) -> i64 {
    let (words, _) = value.as_chunks::<4>();
    let mut int96 = Int96::new();
    int96.set_data(
        u32::from_le_bytes(words[0]),
        u32::from_le_bytes(words[1]),
        u32::from_le_bytes(words[2]),
    );
    match unit {
        TimeUnit::Second => int96.to_seconds(),
        TimeUnit::Millisecond => int96.to_millis(),
        TimeUnit::Microsecond => int96.to_micros(),
        TimeUnit::Nanosecond => int96.to_nanos(),
    }
}

/// Floats have their own type, so that they are not taken for integers.
#[derive(Debug, Clone, Copy, Default)]
#[repr(transparent)]
pub(crate) struct Float<F>(pub(crate) F);

impl Lane for Float<f32> {
    fn place(values: &[u8], _physical: Physical, _base: i64, out: &mut Vec<Self>) -> Result<(), PageError> {
        fill(values, out, |value| Float(f32::from_le_bytes(value)));
        Ok(())
    }
}

impl Lane for Float<f64> {
    fn place(values: &[u8], _physical: Physical, _base: i64, out: &mut Vec<Self>) -> Result<(), PageError> {
        fill(values, out, |value| Float(f64::from_le_bytes(value)));
        Ok(())
    }
}
