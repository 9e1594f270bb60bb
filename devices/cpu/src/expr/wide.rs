//! Decimal arithmetic whose intermediate values may leave 128 bits: row by row, in 256.

use arrow::datatypes::i256;
use trireme_device_api::DeviceError;

use super::arithmetic::decimal_overflow;
use super::integral::{Operation, division_by_zero};
use super::{Compiled, Input, Node, not_integral};
use crate::vector::{Lane, Shape, Vector, both_valid};

/// An operation of two decimals.
struct Wide {
    operation: Operation,
    left: Compiled,
    right: Compiled,
    scales: Scales,
    limits: (i128, i128),
}

/// Scales of the operands and of the result.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scales {
    pub(super) left: i32,
    pub(super) right: i32,
    pub(super) result: i32,
}

pub(super) fn build(
    operation: Operation,
    left: Compiled,
    right: Compiled,
    shape: Shape,
    scales: Scales,
    limits: (i128, i128),
) -> Compiled {
    let (fails, costly) = (true, left.costly || right.costly);
    let node = Wide {
        operation,
        left,
        right,
        scales,
        limits,
    };
    Compiled::new(node, shape, fails, costly)
}

impl Node for Wide {
    fn eval<'x>(&self, input: &Input<'_, 'x>) -> Result<Vector<'x>, DeviceError> {
        let (left, right) = (self.left.eval(input)?, self.right.eval(input)?);
        let isa = input.isa;
        let a = left.to_i128(isa).ok_or_else(not_integral)?;
        let b = right.to_i128(isa).ok_or_else(not_integral)?;
        let mut values = vec![0_i128; input.rows];
        for (row, value) in values.iter_mut().enumerate() {
            if !left.is_null(row) && !right.is_null(row) {
                *value = self.one(a[row], b[row])?;
            }
        }
        drop((a, b));
        let valid = both_valid(left.valid, right.valid, isa);
        let lane = Lane::of_range(self.limits.0, self.limits.1);
        let vector = Vector::of(values).with_valid(valid);
        Ok(vector.into_lane(lane, isa))
    }
}

impl Wide {
    fn one(&self, a: i128, b: i128) -> Result<i128, DeviceError> {
        let Scales { left, right, result } = self.scales;
        let (a, b) = (i256::from_i128(a), i256::from_i128(b));
        let aligned = left.max(right);
        let exact = match self.operation {
            Operation::Multiply => a
                .checked_mul(b)
                .and_then(|product| rescale(product, left + right, result)),
            Operation::Divide | Operation::Remainder if b == i256::ZERO => return Err(division_by_zero()),
            Operation::Divide => {
                let shift = result - left + right;
                let (a, b) = if shift >= 0 {
                    (rescale(a, 0, shift), Some(b))
                } else {
                    (Some(a), rescale(b, 0, -shift))
                };
                a.zip(b).and_then(|(a, b)| a.checked_div(b))
            }
            operation => rescale(a, left, aligned)
                .zip(rescale(b, right, aligned))
                .and_then(|(a, b)| {
                    let exact = match operation {
                        Operation::Add => a.checked_add(b),
                        Operation::Subtract => a.checked_sub(b),
                        _ => a.checked_rem(b),
                    };
                    exact.and_then(|exact| rescale(exact, aligned, result))
                }),
        };
        exact
            .and_then(i256::to_i128)
            .filter(|value| (self.limits.0..=self.limits.1).contains(value))
            .ok_or_else(|| DeviceError::Arithmetic(decimal_overflow(self.operation).to_owned()))
    }
}

/// From one scale to another, truncated toward zero.
fn rescale(value: i256, from: i32, to: i32) -> Option<i256> {
    let factor = i256::from_i128(10).checked_pow((to - from).unsigned_abs());
    if to >= from {
        factor.and_then(|factor| value.checked_mul(factor))
    } else {
        factor.map_or(Some(i256::ZERO), |factor| value.checked_div(factor))
    }
}
