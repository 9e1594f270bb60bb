//! Comparison of strings and binary values, byte by byte.

use std::borrow::Cow;
use std::sync::Arc;

use trireme_device_api::BinaryOperator;

use super::compare::{holds, numbers};
use crate::isa::Isa;
use crate::number::{map, map_values};
use crate::vector::{Data, Vector};

/// A byte per row, 1 where the operator holds; NULL rows are 0 or 1.
pub(super) fn compare(operator: BinaryOperator, left: &Vector<'_>, right: &Vector<'_>, isa: Isa) -> Vec<u8> {
    if let (Data::Codes(a, left), Data::Codes(b, right)) = (&left.data, &right.data)
        && Arc::ptr_eq(left, right)
    {
        let equality = matches!(operator, BinaryOperator::Equal | BinaryOperator::NotEqual);
        if equality {
            return numbers(isa, operator, &signed(isa, a), &signed(isa, b));
        }
        let ranks = left.ranks();
        let rank = |codes: &[u32]| -> Vec<i64> {
            map_values(codes, |code| {
                ranks.get(code as usize).map_or(0, |rank| i64::from(*rank))
            })
        };
        return numbers(isa, operator, &rank(a), &rank(b));
    }
    let (a, b) = (views(left), views(right));
    a.iter()
        .zip(b.iter())
        .map(|(a, b)| u8::from(decide(operator, a, b)))
        .collect()
}

fn decide(operator: BinaryOperator, a: &[u8], b: &[u8]) -> bool {
    match operator {
        BinaryOperator::Equal => a == b,
        BinaryOperator::NotEqual => a != b,
        other => holds(other, a.cmp(b)),
    }
}

fn signed(isa: Isa, codes: &[u32]) -> Vec<i32> {
    map(isa, codes, u32::cast_signed)
}

/// The values as slices; those of NULL rows are any.
pub(super) fn views<'v>(vector: &'v Vector<'_>) -> Cow<'v, [&'v [u8]]> {
    match &vector.data {
        Data::Bytes(values) => Cow::Borrowed(values),
        _ => Cow::Owned((0..vector.len()).map(|row| vector.bytes_at(row)).collect()),
    }
}
