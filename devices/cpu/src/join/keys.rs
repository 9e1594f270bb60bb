//! Join keys as numbers: each key's distance from the smallest build key is a digit, and the digits of all keys make one
//! number by mixed radix.
//!
//! ```text
//!  keys (5..=9, "b".."d")   build bounds: 5..=9 → 5 digits, codes 1..=3 → 3 digits;  size 15
//!  (7, "c") → (7 − 5) + 5 · (2 − 1) = 7          (4, "c") → outside the bounds: matches no build row
//! ```
//!
//! Integral values of any lane, booleans, dictionary codes and floats are digits; a float counts as its bits, with one zero and
//! one NaN. Keys that don't fit 128 bits, strings and intervals are encoded as bytes instead (`encode.rs`).

use std::sync::Arc;

use trireme_device_api::{DeviceError, Dictionary, Type};

use crate::builder::bounds;
use crate::isa::{Isa, primitive};
use crate::vector::{Data, Shape};

/// How a key's values are compared; keys of one kind have equal values exactly where their digits or bytes are equal.
#[derive(Debug, Clone)]
pub(crate) enum KeyKind {
    /// Integral, with the decimal scale.
    Integer(i8),
    Boolean,
    Float32,
    Float64,
    Codes(Arc<Dictionary>),
    Bytes,
    Interval,
    Null,
}

impl KeyKind {
    /// Of keys of this shape.
    pub(crate) fn of(shape: &Shape) -> Self {
        if let Some(dictionary) = &shape.dictionary {
            return KeyKind::Codes(Arc::clone(dictionary));
        }
        match &shape.data_type {
            Type::Null => KeyKind::Null,
            Type::Boolean => KeyKind::Boolean,
            Type::Float32 => KeyKind::Float32,
            Type::Float64 => KeyKind::Float64,
            Type::Interval(_) => KeyKind::Interval,
            Type::Decimal { scale, .. } => KeyKind::Integer(*scale),
            other if other.is_bytes() => KeyKind::Bytes,
            _ => KeyKind::Integer(0),
        }
    }

    /// The kind's values are numbers, so that it can be a digit.
    pub(crate) fn is_number(&self) -> bool {
        !matches!(self, KeyKind::Bytes | KeyKind::Interval)
    }

    /// Values of both kinds can be compared.
    ///
    /// # Errors
    /// Unsupported when they can't: coercion gives both sides one type.
    pub(crate) fn check_comparable(&self, other: &KeyKind) -> Result<(), DeviceError> {
        use KeyKind::{Boolean, Bytes, Codes, Float32, Float64, Integer, Interval, Null};
        let comparable = match (self, other) {
            (Null, _)
            | (_, Null)
            | (Boolean, Boolean)
            | (Float32, Float32)
            | (Float64, Float64)
            | (Interval, Interval)
            | (Codes(_) | Bytes, Codes(_) | Bytes) => true,
            (Integer(left), Integer(right)) => left == right,
            _ => false,
        };
        if comparable {
            Ok(())
        } else {
            Err(DeviceError::Unsupported(
                "join keys of different types are not fused".into(),
            ))
        }
    }
}

/// Values of a key, borrowed from a vector.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Numbers<'v> {
    Bool(&'v [u8]),
    I8(&'v [i8]),
    I16(&'v [i16]),
    I32(&'v [i32]),
    I64(&'v [i64]),
    I128(&'v [i128]),
    F32(&'v [f32]),
    F64(&'v [f64]),
    Codes(&'v [u32]),
    /// All NULL.
    Null,
}

/// One key of a tile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyColumn<'v> {
    pub(crate) numbers: Numbers<'v>,
    pub(crate) valid: Option<&'v [u8]>,
}

impl<'v> Numbers<'v> {
    /// Of a vector; none when its values aren't numbers.
    pub(crate) fn of(data: &'v Data<'_>) -> Option<Self> {
        Some(match data {
            Data::Bool(values) => Numbers::Bool(values),
            Data::I8(values) => Numbers::I8(values),
            Data::I16(values) => Numbers::I16(values),
            Data::I32(values) => Numbers::I32(values),
            Data::I64(values) => Numbers::I64(values),
            Data::I128(values) => Numbers::I128(values),
            Data::F32(values) => Numbers::F32(values),
            Data::F64(values) => Numbers::F64(values),
            Data::Codes(values, _) => Numbers::Codes(values),
            Data::Null(_) => Numbers::Null,
            Data::Bytes(_) | Data::Strings(_) | Data::Interval(_) => return None,
        })
    }
}

/// Runs an expression for the values of a lane of up to 64 bits, another for the widest, a third for none.
macro_rules! each_numbers {
    ($numbers:expr, |$values:ident| $narrow:expr, |$wide:ident| $widest:expr, else $none:expr) => {
        match $numbers {
            Numbers::Bool($values) => $narrow,
            Numbers::I8($values) => $narrow,
            Numbers::I16($values) => $narrow,
            Numbers::I32($values) => $narrow,
            Numbers::I64($values) => $narrow,
            Numbers::F32($values) => $narrow,
            Numbers::F64($values) => $narrow,
            Numbers::Codes($values) => $narrow,
            Numbers::I128($wide) => $widest,
            Numbers::Null => $none,
        }
    };
}

impl KeyColumn<'_> {
    /// Smallest and largest number of the rows that aren't NULL.
    pub(crate) fn bounds(&self) -> Option<(i128, i128)> {
        fn of_keys<T: KeyValue>(values: &[T], valid: Option<&[u8]>) -> Option<(i128, i128)> {
            let keys: Vec<i64> = values.iter().map(|value| value.key()).collect();
            bounds(&keys, valid)
        }
        match self.numbers {
            Numbers::I8(values) => bounds(values, self.valid),
            Numbers::I16(values) => bounds(values, self.valid),
            Numbers::I32(values) => bounds(values, self.valid),
            Numbers::I64(values) => bounds(values, self.valid),
            Numbers::Codes(values) => bounds(values, self.valid),
            Numbers::Bool(values) => bounds(values, self.valid),
            numbers => {
                each_numbers!(numbers, |values| of_keys(values, self.valid), |wide| bounds(wide, self.valid), else None)
            }
        }
    }
}

/// A value that stands for itself, or for its bits, as a 64-bit number.
pub(crate) trait KeyValue: Copy {
    /// Bounds within which differences are exact in 32 bits: those of the 32-bit type that holds all values.
    const NARROW: (i64, i64);
    fn key(self) -> i64;
}

const SIGNED: (i64, i64) = (i32::MIN as i64, i32::MAX as i64);
const UNSIGNED: (i64, i64) = (0, u32::MAX as i64);
const NOTHING: (i64, i64) = (1, 0);

macro_rules! integer_keys {
    ($($value:ty: $narrow:expr),*) => {$(
        impl KeyValue for $value {
            const NARROW: (i64, i64) = $narrow;
            fn key(self) -> i64 {
                i64::from(self)
            }
        }
    )*};
}
integer_keys!(u8: UNSIGNED, i8: SIGNED, i16: SIGNED, i32: SIGNED, u32: UNSIGNED, i64: NOTHING);

impl KeyValue for f32 {
    const NARROW: (i64, i64) = UNSIGNED;
    fn key(self) -> i64 {
        let bits = if self.is_nan() {
            f32::NAN.to_bits()
        } else {
            (self + 0.0).to_bits()
        };
        i64::from(bits)
    }
}

impl KeyValue for f64 {
    const NARROW: (i64, i64) = NOTHING;
    fn key(self) -> i64 {
        let bits = if self.is_nan() {
            f64::NAN.to_bits()
        } else {
            (self + 0.0).to_bits()
        };
        bits as i64
    }
}

/// One key's digit.
#[derive(Debug, Clone, Copy)]
struct Digit {
    least: i128,
    /// Digits of values; 0 when all build keys are NULL.
    values: u128,
    /// NULL is a digit too, the last one.
    null: bool,
    multiplier: u128,
}

/// How keys become one number below [`Packing::size`].
#[derive(Debug, Clone)]
pub(crate) struct Packing {
    digits: Vec<Digit>,
    size: u128,
}

/// A digit in 64-bit terms, whose contribution to the number is of type `A`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Digit64<A> {
    least: i64,
    values: u64,
    multiplier: A,
    /// What NULL contributes; none when NULL matches nothing.
    null: Option<A>,
}

/// The number that digits are added up to; sums of keys outside the bounds wrap and aren't used.
pub(crate) trait Total: Copy + Default {
    fn of(value: u128) -> Self;
    fn plus_digit(self, digit: u64, multiplier: Self) -> Self;
    fn plus_wide(self, digit: u128, multiplier: Self) -> Self;
    fn plus(self, other: Self) -> Self;
}

macro_rules! totals {
    ($($total:ty),*) => {$(
        impl Total for $total {
            fn of(value: u128) -> Self {
                value as $total
            }
            fn plus_digit(self, digit: u64, multiplier: Self) -> Self {
                self.wrapping_add(<$total>::from(digit).wrapping_mul(multiplier))
            }
            fn plus_wide(self, digit: u128, multiplier: Self) -> Self {
                self.wrapping_add((digit as $total).wrapping_mul(multiplier))
            }
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
        }
    )*};
}
totals!(u64, u128);

impl Packing {
    /// For build keys with these bounds (none: no value) and NULLs that count as values; none when 128 bits don't do.
    pub(crate) fn new(keys: &[(Option<(i128, i128)>, bool)]) -> Option<Self> {
        let mut size = 1_u128;
        let mut digits = Vec::with_capacity(keys.len());
        for (bounds, null) in keys {
            let (least, values) = match bounds {
                Some((least, most)) => (*least, (most.wrapping_sub(*least) as u128).checked_add(1)?),
                None => (0, 0),
            };
            digits.push(Digit {
                least,
                values,
                null: *null,
                multiplier: size,
            });
            size = size.checked_mul(values.checked_add(u128::from(*null))?.max(1))?;
        }
        Some(Self { digits, size })
    }

    /// The key at a position alone.
    pub(crate) fn only(&self, position: usize) -> Option<Self> {
        let digit = *self.digits.get(position)?;
        Some(Self {
            digits: vec![Digit { multiplier: 1, ..digit }],
            size: (digit.values + u128::from(digit.null)).max(1),
        })
    }

    /// Smallest and largest value of the build keys at a position; none where all are NULL.
    pub(crate) fn bounds(&self, position: usize) -> Option<(i128, i128)> {
        let digit = self.digits.get(position).filter(|digit| digit.values > 0)?;
        Some((digit.least, digit.least.wrapping_add((digit.values - 1) as i128)))
    }

    /// Numbers are below this.
    pub(crate) fn size(&self) -> u128 {
        self.size
    }

    /// The number of each row in `totals`; `found` is 1 where there is one. `nulls`: NULL keys count as values.
    pub(crate) fn pack<A: Total>(
        &self,
        isa: Isa,
        keys: &[KeyColumn<'_>],
        rows: usize,
        nulls: bool,
        (totals, found): (&mut Vec<A>, &mut Vec<u8>),
    ) {
        totals.clear();
        totals.resize(rows, A::default());
        found.clear();
        found.resize(rows, 1);
        for (digit, key) in self.digits.iter().zip(keys) {
            digit.add(isa, key, nulls, totals, found);
        }
    }

    /// The number of each row, or [`Packing::size`], which must be below `u32::MAX`, where there is none.
    pub(crate) fn pack_positions(
        &self,
        isa: Isa,
        keys: &[KeyColumn<'_>],
        rows: usize,
        nulls: bool,
        positions: &mut Vec<u32>,
    ) {
        // Each is set below.
        positions.resize(rows, 0);
        let miss = self.size as u32;
        if let ([digit], [key]) = (self.digits.as_slice(), keys)
            && let Some(digit) = digit.narrow::<u64>(key, nulls)
        {
            let null = digit.null.map_or(miss, |null| null as u32);
            each_numbers!(
                key.numbers,
                |values| place(isa, &values[..rows], key.valid, (digit, null, miss), positions),
                |_wide| {},
                else positions.fill(null)
            );
            return;
        }
        let (mut totals, mut found) = (Vec::<u64>::new(), Vec::new());
        self.pack(isa, keys, rows, nulls, (&mut totals, &mut found));
        for ((position, total), found) in positions.iter_mut().zip(&totals).zip(&found) {
            *position = if *found != 0 { *total as u32 } else { miss };
        }
    }
}

impl Digit {
    /// In 64-bit terms, if the bounds and the key's lane allow.
    fn narrow<A: Total>(&self, key: &KeyColumn<'_>, nulls: bool) -> Option<Digit64<A>> {
        if matches!(key.numbers, Numbers::I128(_)) {
            return None;
        }
        i64::try_from(self.least.checked_add_unsigned(self.values)?).ok()?;
        Some(Digit64 {
            least: i64::try_from(self.least).ok()?,
            values: u64::try_from(self.values).ok()?,
            multiplier: A::of(self.multiplier),
            null: self.null_total(nulls),
        })
    }

    fn null_total<A: Total>(&self, nulls: bool) -> Option<A> {
        (nulls && self.null).then(|| A::default().plus_wide(self.values, A::of(self.multiplier)))
    }

    fn add<A: Total>(&self, isa: Isa, key: &KeyColumn<'_>, nulls: bool, totals: &mut [A], found: &mut [u8]) {
        let rows = totals.len();
        let narrow = self.narrow::<A>(key, nulls);
        let null = self.null_total::<A>(nulls);
        each_numbers!(
            key.numbers,
            |values| match narrow {
                Some(digit) => add_narrow(isa, &values[..rows], key.valid, digit, totals, found),
                None => self.add_wide(values.iter().map(|value| i128::from(value.key())), key.valid, null, totals, found),
            },
            |wide| self.add_wide(wide.iter().copied(), key.valid, null, totals, found),
            else match null {
                Some(null) => totals.iter_mut().for_each(|total| *total = total.plus(null)),
                None => found.fill(0),
            }
        );
    }

    fn add_wide<A: Total>(
        &self,
        values: impl Iterator<Item = i128>,
        valid: Option<&[u8]>,
        null: Option<A>,
        totals: &mut [A],
        found: &mut [u8],
    ) {
        let multiplier = A::of(self.multiplier);
        for (row, ((value, total), found)) in values.zip(totals).zip(found).enumerate() {
            if valid.is_none_or(|valid| valid[row] != 0) {
                let digit = value.wrapping_sub(self.least) as u128;
                *found &= u8::from(value >= self.least && digit < self.values);
                *total = total.plus_wide(digit, multiplier);
            } else {
                *found &= u8::from(null.is_some());
                *total = total.plus(null.unwrap_or_default());
            }
        }
    }
}

// A key below `least` wraps to a digit of at least 2^64 − (least − key), and `least + values` is a 64-bit number: the digit is
// not below `values`. The same holds in 32 bits where values and bounds are of one 32-bit type.

primitive! {
    /// Adds one digit of up to 64 bits to the number of each row.
    fn add_narrow[T: KeyValue, A: Total](
        values: &[T],
        valid: Option<&[u8]>,
        digit: Digit64<A>,
        totals: &mut [A],
        found: &mut [u8],
    ) {
        let Digit64 { least, values: count, multiplier, null } = digit;
        match valid {
            None => {
                for ((value, total), found) in values.iter().zip(totals).zip(found) {
                    let digit = value.key().wrapping_sub(least) as u64;
                    *found &= u8::from(digit < count);
                    *total = total.plus_digit(digit, multiplier);
                }
            }
            Some(valid) => {
                let null_found = u8::from(null.is_some());
                let null = null.unwrap_or_default();
                for (((value, total), found), valid) in values.iter().zip(totals).zip(found).zip(valid) {
                    let digit = value.key().wrapping_sub(least) as u64;
                    let with_value = total.plus_digit(digit, multiplier);
                    let with_null = total.plus(null);
                    *total = if *valid != 0 { with_value } else { with_null };
                    *found &= if *valid != 0 { u8::from(digit < count) } else { null_found };
                }
            }
        }
    }
}

primitive! {
    /// The only key's digit as a position below `miss`, `null` for NULL, and `miss` for digits outside.
    fn place[T: KeyValue](
        values: &[T],
        valid: Option<&[u8]>,
        how: (Digit64<u64>, u32, u32),
        positions: &mut [u32],
    ) {
        let (digit, null, miss) = how;
        let (least, count) = (digit.least, digit.values);
        let least32 = least as u32;
        let count32 = count as u32;
        let most = least.wrapping_add(count as i64).wrapping_sub(1);
        if least >= T::NARROW.0 && most <= T::NARROW.1 {
            for (value, position) in values.iter().zip(positions.iter_mut()) {
                let digit = (value.key() as u32).wrapping_sub(least32);
                *position = if digit < count32 { digit } else { miss };
            }
        } else {
            for (value, position) in values.iter().zip(positions.iter_mut()) {
                let digit = value.key().wrapping_sub(least) as u64;
                *position = if digit < count { digit as u32 } else { miss };
            }
        }
        if let Some(valid) = valid {
            for (position, valid) in positions.iter_mut().zip(valid) {
                *position = if *valid != 0 { *position } else { null };
            }
        }
    }
}
