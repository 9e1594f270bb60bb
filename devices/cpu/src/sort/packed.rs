//! What of a row's sort key stands beside the row: one number of packed codes, or the first bytes of a byte string.

use std::cmp::Ordering;

use trireme_device_api::DeviceError;

use super::keys::Plan;
use crate::vector::Vector;

/// Bytes of a byte string key that are kept beside the row: with worker and row they fill half a cache line.
pub(super) const PREFIX_BYTES: usize = 24;

/// What of a key stands beside the row.
pub(crate) trait SortKey: Copy + Ord + Default + Send + Sync + std::fmt::Debug + 'static {
    /// The order of items: key, worker, row.
    fn compare(a: (Self, u32, u32), b: (Self, u32, u32)) -> Ordering;
    /// Keys of all rows, as [`Plan::pack`] makes them.
    fn pack(plan: &Plan, vectors: &[Vector<'_>], rows: usize, out: &mut Vec<Self>) -> Result<(), DeviceError>;
    /// The first bytes of a byte string key.
    fn of_bytes(bytes: [u8; PREFIX_BYTES]) -> Self;
    /// Back again.
    fn bytes(self) -> [u8; PREFIX_BYTES];
    /// The packed codes.
    fn code(self) -> u128;
}

/// A number that holds packed codes.
pub(crate) trait Packed: SortKey {
    /// The low bits.
    fn of(value: i128) -> Self;
    fn of_code(code: u128) -> Self;
    fn plus(self, other: Self) -> Self;
    fn minus(self, other: Self) -> Self;
    /// `self` moved up to make room for `bits`, and `low` in that room.
    fn then(self, bits: u32, low: Self) -> Self;
}

/// The first bytes of a byte string key, as numbers of the same order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Prefix([u64; PREFIX_BYTES / 8]);

impl SortKey for Prefix {
    fn compare(a: (Self, u32, u32), b: (Self, u32, u32)) -> Ordering {
        a.cmp(&b)
    }

    fn pack(_: &Plan, _: &[Vector<'_>], _: usize, _: &mut Vec<Self>) -> Result<(), DeviceError> {
        Err(DeviceError::Internal("byte string keys are not packed".to_owned()))
    }

    fn of_bytes(bytes: [u8; PREFIX_BYTES]) -> Self {
        let (words, _) = bytes.as_chunks::<8>();
        let mut prefix = Self::default();
        for (to, word) in prefix.0.iter_mut().zip(words) {
            *to = u64::from_be_bytes(*word);
        }
        prefix
    }

    fn bytes(self) -> [u8; PREFIX_BYTES] {
        let mut bytes = [0; PREFIX_BYTES];
        for (to, word) in bytes.chunks_mut(8).zip(self.0) {
            to.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    fn code(self) -> u128 {
        0
    }
}

macro_rules! packed {
    ($native:ty, $compare:expr) => {
        impl Packed for $native {
            #[inline(always)]
            fn of(value: i128) -> Self {
                value as Self
            }
            #[inline(always)]
            fn of_code(code: u128) -> Self {
                code as Self
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
            fn then(self, bits: u32, low: Self) -> Self {
                self.checked_shl(bits).unwrap_or(0) | low
            }
        }

        impl SortKey for $native {
            #[inline(always)]
            fn compare(a: (Self, u32, u32), b: (Self, u32, u32)) -> Ordering {
                $compare(a, b)
            }

            fn pack(plan: &Plan, vectors: &[Vector<'_>], rows: usize, out: &mut Vec<Self>) -> Result<(), DeviceError> {
                plan.pack(vectors, rows, out)
            }

            fn of_bytes(_: [u8; PREFIX_BYTES]) -> Self {
                0
            }

            fn bytes(self) -> [u8; PREFIX_BYTES] {
                [0; PREFIX_BYTES]
            }

            fn code(self) -> u128 {
                u128::from(self)
            }
        }
    };
}
// One number of 128 bits compares without branches.
packed!(u64, |a, b| {
    let number =
        |(key, worker, row): (u64, u32, u32)| u128::from(key) << 64 | u128::from(worker) << 32 | u128::from(row);
    number(a).cmp(&number(b))
});
packed!(u128, |a: (u128, u32, u32), b| a.cmp(&b));
