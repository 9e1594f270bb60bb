//! The five lanes as one trait, and the loops that all of them share: convert, map, combine, test against bounds.
//!
//! Arithmetic of a lane wraps: callers choose a lane that holds the result, or ask for the checked loops.

use std::borrow::Cow;

use crate::isa::{Isa, primitive};
use crate::vector::{Data, Lane};

/// An integer that a lane holds.
pub(crate) trait Number:
    Copy + Default + Ord + std::fmt::Debug + std::hash::Hash + Send + Sync + 'static
{
    /// Its lane.
    const LANE: Lane;
    /// The unsigned integer of the same width.
    type Unsigned: Copy + Ord;

    /// The low bits of `value`.
    fn of(value: i128) -> Self;
    /// The value.
    fn wide(self) -> i128;
    /// Sum, wrapped.
    fn plus(self, other: Self) -> Self;
    /// Difference, wrapped.
    fn minus(self, other: Self) -> Self;
    /// Product, wrapped.
    fn times(self, other: Self) -> Self;
    /// Bitwise and.
    fn and(self, other: Self) -> Self;
    /// Bitwise or.
    fn or(self, other: Self) -> Self;
    /// Bitwise exclusive or.
    fn xor(self, other: Self) -> Self;
    /// Sum, wrapped, and whether it wrapped.
    fn plus_checked(self, other: Self) -> (Self, bool);
    /// Difference, wrapped, and whether it wrapped.
    fn minus_checked(self, other: Self) -> (Self, bool);
    /// Product, wrapped, and whether it wrapped.
    fn times_checked(self, other: Self) -> (Self, bool);
    /// Quotient, truncated; 0 when `other` is 0; wrapped, and whether it wrapped.
    fn over(self, other: Self) -> (Self, bool);
    /// Remainder, with the sign of `self`; 0 when `other` is 0 or −1.
    fn rest(self, other: Self) -> Self;
    /// As a float, rounded.
    fn double(self) -> f64;
    /// From a float, truncated.
    fn of_double(value: f64) -> Self;
    /// How far `self` lies above `low`, as an unsigned number: `x.above(low) <= high.above(low)` is `low <= x <= high`.
    fn above(self, low: Self) -> Self::Unsigned;
    /// The low bits of such a distance.
    fn distance_bits(distance: Self::Unsigned) -> i64;
    /// Integral values of any lane, in this one; none when they aren't integral.
    fn converted(data: &Data<'_>, isa: Isa) -> Option<Vec<Self>>;
    /// Values of this lane.
    fn data(values: Cow<'_, [Self]>) -> Data<'_>;
    /// The values, when they are of this lane.
    fn slice<'v>(data: &'v Data<'_>) -> Option<&'v [Self]>;
    /// The values themselves, when they are of this lane.
    fn slice_of<S: Number>(values: &[S]) -> Option<&[Self]> {
        (S::LANE == Self::LANE).then(|| {
            // SAFETY: each lane is one type, so `S` is `Self`.
            unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), values.len()) }
        })
    }
    /// The values as they are held, or the data back when they are of another lane.
    fn take<'a>(data: Data<'a>) -> Result<Cow<'a, [Self]>, Data<'a>>;
}

macro_rules! number {
    ($type:ty, $unsigned:ty, $lane:ident) => {
        impl Number for $type {
            const LANE: Lane = Lane::$lane;
            type Unsigned = $unsigned;

            #[inline(always)]
            fn of(value: i128) -> Self {
                value as Self
            }
            #[inline(always)]
            fn wide(self) -> i128 {
                self as i128
            }
            #[inline(always)]
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn minus(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            #[inline(always)]
            fn times(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
            #[inline(always)]
            fn and(self, other: Self) -> Self {
                self & other
            }
            #[inline(always)]
            fn or(self, other: Self) -> Self {
                self | other
            }
            #[inline(always)]
            fn xor(self, other: Self) -> Self {
                self ^ other
            }
            #[inline(always)]
            fn plus_checked(self, other: Self) -> (Self, bool) {
                let sum = self.wrapping_add(other);
                (sum, (self ^ sum) & (other ^ sum) < 0)
            }
            #[inline(always)]
            fn minus_checked(self, other: Self) -> (Self, bool) {
                let difference = self.wrapping_sub(other);
                (difference, (self ^ other) & (self ^ difference) < 0)
            }
            #[inline(always)]
            fn times_checked(self, other: Self) -> (Self, bool) {
                self.overflowing_mul(other)
            }
            #[inline(always)]
            fn over(self, other: Self) -> (Self, bool) {
                if other == 0 {
                    (0, false)
                } else {
                    self.overflowing_div(other)
                }
            }
            #[inline(always)]
            fn rest(self, other: Self) -> Self {
                if other == 0 { 0 } else { self.wrapping_rem(other) }
            }
            #[inline(always)]
            fn double(self) -> f64 {
                self as f64
            }
            #[inline(always)]
            fn of_double(value: f64) -> Self {
                value as Self
            }
            #[inline(always)]
            fn above(self, low: Self) -> $unsigned {
                self.wrapping_sub(low) as $unsigned
            }
            #[inline(always)]
            fn distance_bits(distance: $unsigned) -> i64 {
                distance as i64
            }
            fn converted(data: &Data<'_>, isa: Isa) -> Option<Vec<Self>> {
                Some(match data {
                    Data::I8(values) => convert(isa, values),
                    Data::I16(values) => convert(isa, values),
                    Data::I32(values) => convert(isa, values),
                    Data::I64(values) => convert(isa, values),
                    Data::I128(values) => convert(isa, values),
                    _ => return None,
                })
            }
            fn data(values: Cow<'_, [Self]>) -> Data<'_> {
                Data::$lane(values)
            }
            fn slice<'v>(data: &'v Data<'_>) -> Option<&'v [Self]> {
                match data {
                    Data::$lane(values) => Some(values),
                    _ => None,
                }
            }
            fn take<'a>(data: Data<'a>) -> Result<Cow<'a, [Self]>, Data<'a>> {
                match data {
                    Data::$lane(values) => Ok(values),
                    other => Err(other),
                }
            }
        }
    };
}

number!(i8, u8, I8);
number!(i16, u16, I16);
number!(i32, u32, I32);
number!(i64, u64, I64);
number!(i128, u128, I128);

/// The low bits of a number, or its sign extended.
pub(crate) trait Convert<T>: Copy {
    /// In the other lane.
    fn convert(self) -> T;
}

macro_rules! convert {
    ($($from:ty => $($to:ty),+;)+) => {
        $($(impl Convert<$to> for $from {
            #[inline(always)]
            fn convert(self) -> $to {
                self as $to
            }
        })+)+
    };
}

convert! {
    i8 => i8, i16, i32, i64, i128;
    i16 => i8, i16, i32, i64, i128;
    i32 => i8, i16, i32, i64, i128;
    i64 => i8, i16, i32, i64, i128;
    i128 => i8, i16, i32, i64, i128;
}

/// Runs an expression with a type name bound to the integer of a lane.
macro_rules! by_lane {
    ($lane:expr, $type:ident => $body:expr) => {
        match $lane {
            $crate::vector::Lane::I8 => {
                type $type = i8;
                $body
            }
            $crate::vector::Lane::I16 => {
                type $type = i16;
                $body
            }
            $crate::vector::Lane::I32 => {
                type $type = i32;
                $body
            }
            $crate::vector::Lane::I64 => {
                type $type = i64;
                $body
            }
            $crate::vector::Lane::I128 => {
                type $type = i128;
                $body
            }
        }
    };
}
pub(crate) use by_lane;

/// `f` of each value, in a new vector.
#[inline(always)]
#[allow(clippy::inline_always, reason = "the loop must take on the features of its caller")]
pub(crate) fn map_values<A: Copy, T>(a: &[A], f: impl Fn(A) -> T) -> Vec<T> {
    let mut out = Vec::with_capacity(a.len());
    for (slot, a) in out.spare_capacity_mut().iter_mut().zip(a) {
        slot.write(f(*a));
    }
    // SAFETY: the capacity is at least `a.len()`, so the loop wrote that many values.
    unsafe { out.set_len(a.len()) };
    out
}

/// `f` of each pair, in a new vector as long as the shorter slice.
#[inline(always)]
#[allow(clippy::inline_always, reason = "the loop must take on the features of its caller")]
pub(crate) fn zip_values<A: Copy, B: Copy, T>(a: &[A], b: &[B], f: impl Fn(A, B) -> T) -> Vec<T> {
    let rows = a.len().min(b.len());
    let mut out = Vec::with_capacity(rows);
    for ((slot, a), b) in out.spare_capacity_mut().iter_mut().zip(a).zip(b) {
        slot.write(f(*a, *b));
    }
    // SAFETY: the capacity is at least `rows`, so the loop wrote that many values.
    unsafe { out.set_len(rows) };
    out
}

primitive! {
    /// Each value in another lane.
    fn convert[S: Convert<T>, T](values: &[S]) -> Vec<T> {
        map_values(values, S::convert)
    }
}

primitive! {
    /// Each value in another lane, plus `base`, wrapped.
    fn convert_base[S: Convert<T>, T: Number](values: &[S], base: T) -> Vec<T> {
        map_values(values, |value| value.convert().plus(base))
    }
}

primitive! {
    /// `f` of each value.
    fn map[A: Copy, T, F: Fn(A) -> T](a: &[A], f: F) -> Vec<T> {
        map_values(a, f)
    }
}

primitive! {
    /// `f` of each pair.
    fn zip[A: Copy, B: Copy, T, F: Fn(A, B) -> T](a: &[A], b: &[B], f: F) -> Vec<T> {
        zip_values(a, b, f)
    }
}

primitive! {
    /// True when a value lies outside `low..=high`.
    fn any_outside[T: Number](values: &[T], low: T, high: T) -> bool {
        let span = high.above(low);
        let mut outside = 0_u8;
        for value in values {
            outside |= u8::from(value.above(low) > span);
        }
        outside != 0
    }
}

primitive! {
    /// 1 where `low <= value <= high`, else 0; with `negated` the other way round.
    fn between[T: Number](values: &[T], low: T, high: T, negated: bool) -> Vec<u8> {
        let span = high.above(low);
        if negated {
            map_values(values, |value| u8::from(value.above(low) > span))
        } else {
            map_values(values, |value| u8::from(value.above(low) <= span))
        }
    }
}

primitive! {
    /// As [`between`], and with what `mask` holds, in place.
    fn between_and[T: Number](values: &[T], low: T, high: T, negated: bool, mask: &mut [u8]) {
        let span = high.above(low);
        if negated {
            for (mask, value) in mask.iter_mut().zip(values) {
                *mask &= u8::from(value.above(low) > span);
            }
        } else {
            for (mask, value) in mask.iter_mut().zip(values) {
                *mask &= u8::from(value.above(low) <= span);
            }
        }
    }
}

primitive! {
    /// `mask & other`, in place.
    fn and_bytes[](mask: &mut [u8], other: &[u8]) {
        for (mask, other) in mask.iter_mut().zip(other) {
            *mask &= other;
        }
    }
}

primitive! {
    /// How many bytes are 1; all are 0 or 1.
    fn count_ones[](mask: &[u8]) -> usize {
        mask.chunks(128)
            .map(|chunk| usize::from(chunk.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte))))
            .sum()
    }
}
