//! Quotients and remainders of decimals of 128 bits, exact where an operand at the result's scale needs more.
//!
//! DataFusion's kernel brings both operands to one scale first, and calls it an overflow when that does not fit, though the
//! result does. What needs no more than 38 digits on the way stays with that kernel.

use arrow::datatypes::{DataType, i256};
use arrow::error::ArrowError;
use datafusion::common::{Result, exec_err, internal_err};

use super::arithmetic::CheckedOperator;

/// Digits of a Decimal128, and the largest power of ten that an [`i256`] of so many can be multiplied by.
const DIGITS: u32 = 38;

/// Whether an operand may need more than 38 digits at the scale that the kernel brings it to.
pub(super) fn may_overflow(operator: CheckedOperator, left: (u8, i8), right: (u8, i8)) -> bool {
    let (left_shift, right_shift) = shifts(operator, left.1, right.1);
    u32::from(left.0) + left_shift > DIGITS || u32::from(right.0) + right_shift > DIGITS
}

/// The powers of ten that the operands are multiplied by.
fn shifts(operator: CheckedOperator, left: i8, right: i8) -> (u32, u32) {
    let (left, right) = (i32::from(left), i32::from(right));
    if operator == CheckedOperator::Remainder {
        let aligned = left.max(right);
        return ((aligned - left).unsigned_abs(), (aligned - right).unsigned_abs());
    }
    let shift = (left + 4).min(38) - left + right;
    (shift.max(0).unsigned_abs(), shift.min(0).unsigned_abs())
}

/// A division of decimals of two types.
pub(super) struct Quotient {
    operator: CheckedOperator,
    left_shift: u32,
    right_shift: u32,
    /// The least magnitude that has too many digits for the result.
    limit: i128,
}

impl Quotient {
    /// Of these types: left, right, result.
    ///
    /// # Errors
    /// When one isn't a Decimal128.
    pub(super) fn new(operator: CheckedOperator, types: (&DataType, &DataType, &DataType)) -> Result<Self> {
        let (DataType::Decimal128(_, left), DataType::Decimal128(_, right), DataType::Decimal128(digits, _)) = types
        else {
            return internal_err!("a division of {} by {}", types.0, types.1);
        };
        let (left_shift, right_shift) = shifts(operator, *left, *right);
        Ok(Self {
            operator,
            left_shift,
            right_shift,
            limit: 10_i128.pow(u32::from(*digits).min(DIGITS)),
        })
    }

    /// The result's unscaled value.
    ///
    /// # Errors
    /// Division by zero; more digits than the result has.
    pub(super) fn of(&self, left: i128, right: i128) -> Result<i128> {
        if right == 0 {
            return Err(ArrowError::DivideByZero.into());
        }
        let found = match (scaled(left, self.left_shift), scaled(right, self.right_shift)) {
            (Some(left), Some(right)) if self.operator == CheckedOperator::Remainder => left.checked_rem(right),
            (Some(left), Some(right)) => left.checked_div(right),
            _ => self.wide(i256::from_i128(left), i256::from_i128(right)),
        };
        match found.filter(|value| value.unsigned_abs() < self.limit.unsigned_abs()) {
            Some(value) => Ok(value),
            None => exec_err!("decimal overflow in {}", self.operator.symbol()),
        }
    }

    /// In 256 bits; none if the result does not fit 128.
    fn wide(&self, left: i256, right: i256) -> Option<i128> {
        let right = right.checked_mul(power(self.right_shift)?)?;
        if self.operator == CheckedOperator::Remainder {
            let left = left.checked_mul(power(self.left_shift)?)?;
            return left.checked_rem(right)?.to_i128();
        }
        let mut quotient = left.checked_div(right)?;
        let mut rest = left.checked_rem(right)?;
        let mut shift = self.left_shift;
        while shift > 0 {
            let some = shift.min(DIGITS);
            let scaled = rest.checked_mul(power(some)?)?;
            quotient = quotient
                .checked_mul(power(some)?)?
                .checked_add(scaled.checked_div(right)?)?;
            rest = scaled.checked_rem(right)?;
            shift -= some;
        }
        quotient.to_i128()
    }
}

fn scaled(value: i128, shift: u32) -> Option<i128> {
    value.checked_mul(10_i128.checked_pow(shift)?)
}

fn power(shift: u32) -> Option<i256> {
    i256::from_i128(10).checked_pow(shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quotient(operator: CheckedOperator, left: (u8, i8), right: (u8, i8), result: (u8, i8)) -> Quotient {
        let decimal = |(digits, scale)| DataType::Decimal128(digits, scale);
        Quotient::new(operator, (&decimal(left), &decimal(right), &decimal(result))).expect("decimals")
    }

    #[test]
    fn what_fits_is_found_though_the_dividend_at_its_scale_does_not() {
        let remainder = quotient(CheckedOperator::Remainder, (38, 1), (38, 30), (38, 30));
        let left = 12_345_678_901_234_567_890_123_456_785;
        assert_eq!(remainder.of(left, 3).expect("it fits"), 2);
        assert_eq!(remainder.of(-left, 3).expect("it fits"), -2);
        assert_eq!(remainder.of(3, left).expect("it fits"), 3 * 10_i128.pow(29) % left);
        assert!(remainder.of(left, 0).is_err());
        let divide = quotient(CheckedOperator::Divide, (38, 1), (38, 30), (38, 5));
        assert_eq!(divide.of(left, 10_i128.pow(30)).expect("it fits"), left * 10_000);
        assert_eq!(
            divide.of(-left, 3 * 10_i128.pow(30)).expect("it fits"),
            -(left * 10_000 / 3)
        );
        assert!(divide.of(left, 3).is_err());
    }

    #[test]
    fn only_what_may_need_more_digits_is_ours() {
        assert!(!may_overflow(CheckedOperator::Divide, (15, 2), (15, 2)));
        assert!(!may_overflow(CheckedOperator::Remainder, (15, 2), (10, 3)));
        assert!(may_overflow(CheckedOperator::Remainder, (38, 0), (4, 2)));
        assert!(may_overflow(CheckedOperator::Remainder, (4, 2), (38, 0)));
        assert!(may_overflow(CheckedOperator::Divide, (38, 4), (38, 4)));
    }
}
