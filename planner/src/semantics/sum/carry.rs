//! Addition that remembers how often it wrapped.

use arrow::array::{Array, ArrowNativeTypeOp, ArrowPrimitiveType, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Int64Type, UInt64Type, i256,
};
use datafusion::common::{Result, exec_err};

use super::super::kernels::digits_fit;

/// A native type whose sums are exact.
pub(super) trait Exact: ArrowPrimitiveType<Native: Summand> + Send + Sized {
    /// Whether the values are of the result type's digits, for decimals.
    fn fit(values: &PrimitiveArray<Self>, data_type: &DataType) -> bool;
}

/// A native number, as the low part of a sum.
pub(super) trait Summand: ArrowNativeTypeOp + std::hash::Hash + Eq {
    /// Adds, and says how the high part changes.
    fn add_carrying(&mut self, value: Self) -> i64;

    /// Subtracts, and says how the high part changes.
    fn subtract_carrying(&mut self, value: Self) -> i64;

    /// The sum of all values that are not NULL.
    fn total(values: &[Self], nulls: Option<&NullBuffer>) -> (Self, i64) {
        let mut low = Self::ZERO;
        let mut carry = 0;
        match nulls {
            None => values.iter().for_each(|value| carry += low.add_carrying(*value)),
            Some(nulls) => {
                for row in nulls.valid_indices() {
                    carry += low.add_carrying(values[row]);
                }
            }
        }
        (low, carry)
    }
}

macro_rules! signed {
    ($native:ty { $($total:tt)* }) => {
        impl Summand for $native {
            fn add_carrying(&mut self, value: Self) -> i64 {
                let sum = self.wrapping_add(value);
                let wrapped = (sum < *self) != (value < Self::ZERO);
                *self = sum;
                if !wrapped {
                    0
                } else if value < Self::ZERO {
                    -1
                } else {
                    1
                }
            }

            fn subtract_carrying(&mut self, value: Self) -> i64 {
                let difference = self.wrapping_sub(value);
                let wrapped = (difference > *self) != (value < Self::ZERO);
                *self = difference;
                if !wrapped {
                    0
                } else if value < Self::ZERO {
                    1
                } else {
                    -1
                }
            }
            $($total)*
        }
    };
}

signed!(i32 {});
signed!(i64 {
    fn total(values: &[Self], nulls: Option<&NullBuffer>) -> (Self, i64) {
        let total = total_i64(values, nulls);
        #[expect(clippy::cast_possible_truncation, reason = "the low half, and what remains is small")]
        let (low, high) = (total as i64, ((total - i128::from(total as i64)) >> 64) as i64);
        (low, high)
    }
});
signed!(i128 {});
signed!(i256 {});

impl Summand for u64 {
    fn add_carrying(&mut self, value: Self) -> i64 {
        let (sum, wrapped) = self.overflowing_add(value);
        *self = sum;
        i64::from(wrapped)
    }

    fn subtract_carrying(&mut self, value: Self) -> i64 {
        let (difference, wrapped) = self.overflowing_sub(value);
        *self = difference;
        -i64::from(wrapped)
    }
}

/// By halves of 32 bits, which vectorise; the sums of halves can't wrap within a piece.
fn total_i64(values: &[i64], nulls: Option<&NullBuffer>) -> i128 {
    const PIECE_ROWS: usize = 1 << 20;
    const LOW: i64 = 0xFFFF_FFFF;
    let Some(nulls) = nulls else {
        return values
            .chunks(PIECE_ROWS)
            .map(|piece| {
                let low: i64 = piece.iter().map(|value| value & LOW).sum();
                let high: i64 = piece.iter().map(|value| value >> 32).sum();
                (i128::from(high) << 32) + i128::from(low)
            })
            .sum();
    };
    nulls
        .valid_slices()
        .map(|(start, end)| total_i64(&values[start..end], None))
        .sum()
}

impl Exact for Int64Type {
    fn fit(_: &PrimitiveArray<Self>, _: &DataType) -> bool {
        true
    }
}

impl Exact for UInt64Type {
    fn fit(_: &PrimitiveArray<Self>, _: &DataType) -> bool {
        true
    }
}

macro_rules! decimals {
    ($($type:ty)*) => {$(
        impl Exact for $type {
            fn fit(values: &PrimitiveArray<Self>, data_type: &DataType) -> bool {
                digits_fit::<$type>(values, data_type)
            }
        }
    )*};
}

decimals!(Decimal32Type Decimal64Type Decimal128Type Decimal256Type);

/// What says that a sum is outside its type.
pub(super) fn overflow<T>(data_type: &DataType) -> Result<T> {
    let kind = if data_type.is_decimal() { "decimal" } else { "integer" };
    exec_err!("{kind} overflow in sum")
}

/// Sums with the result's type, checked.
pub(super) fn finished<T: Exact>(sums: PrimitiveArray<T>, data_type: &DataType) -> Result<PrimitiveArray<T>> {
    if sums.null_count() < sums.len() && !T::fit(&sums, data_type) {
        return overflow(data_type);
    }
    Ok(sums.with_data_type(data_type.clone()))
}
