//! Arithmetic on registers: values as bits, extended with zeros to 128.
#![expect(
    clippy::cast_possible_truncation,
    reason = "registers are cut to the width of their type"
)]

use super::violation::{ViolationKind, Wrong};
use crate::ir::{Binary, Compare, Const, Elem, Scalar, Unary};

/// A register.
pub(super) type Bits = u128;

type Computed = Result<Bits, Wrong>;

pub(super) fn constant(value: Const) -> Bits {
    match value {
        Const::Bool(value) => Bits::from(value),
        Const::I32(value) => Bits::from(value.cast_unsigned()),
        Const::U32(value) => Bits::from(value),
        Const::I64(value) => Bits::from(value.cast_unsigned()),
        Const::U64(value) => Bits::from(value),
        Const::I128(value) => value.cast_unsigned(),
        Const::F32(value) => Bits::from(value.to_bits()),
        Const::F64(value) => Bits::from(value.to_bits()),
    }
}

fn f32_of(bits: Bits) -> f32 {
    f32::from_bits(bits as u32)
}

fn f64_of(bits: Bits) -> f64 {
    f64::from_bits(bits as u64)
}

fn impossible(what: &str) -> Wrong {
    Wrong::new(ViolationKind::Invalid, format!("no {what} of this type"))
}

macro_rules! integer_binary {
    ($op:expr, $a:expr, $b:expr, $t:ident, $u:ident) => {{
        let (a, b) = ($a as $u as $t, $b as $u as $t);
        let result: $t = match $op {
            Binary::Add => a.wrapping_add(b),
            Binary::Subtract => a.wrapping_sub(b),
            Binary::Multiply => a.wrapping_mul(b),
            Binary::Divide | Binary::Remainder if b == 0 => {
                return Err(Wrong::new(ViolationKind::DivisionByZero, format!("{a} by zero")));
            }
            Binary::Divide => a.checked_div(b).ok_or_else(minimum)?,
            Binary::Remainder => a.checked_rem(b).ok_or_else(minimum)?,
            Binary::And => a & b,
            Binary::Or => a | b,
            Binary::Xor => a ^ b,
            Binary::ShiftLeft | Binary::ShiftRight if ($b as $u) >= <$u>::from(<$t>::BITS as u8) => {
                return Err(Wrong::new(ViolationKind::ShiftWidth, format!("by {b}")));
            }
            Binary::ShiftLeft => a << b,
            Binary::ShiftRight => a >> b,
            Binary::Min => a.min(b),
            Binary::Max => a.max(b),
            Binary::MultiplyHigh => high_half!($t, a, b),
        };
        Ok(Bits::from(result as $u))
    }};
}

macro_rules! high_half {
    (u32, $a:expr, $b:expr) => {
        ((u64::from($a) * u64::from($b)) >> 32) as u32
    };
    (u64, $a:expr, $b:expr) => {
        ((u128::from($a) * u128::from($b)) >> 64) as u64
    };
    (i64, $a:expr, $b:expr) => {
        ((i128::from($a) * i128::from($b)) >> 64) as i64
    };
    ($t:ident, $a:expr, $b:expr) => {
        return Err(impossible("high half"))
    };
}

fn minimum() -> Wrong {
    Wrong::new(ViolationKind::DivisionOverflow, "the smallest integer by −1")
}

macro_rules! float_binary {
    ($op:expr, $a:expr, $b:expr) => {{
        let (a, b) = ($a, $b);
        Ok(Bits::from(
            match $op {
                Binary::Add => a + b,
                Binary::Subtract => a - b,
                Binary::Multiply => a * b,
                Binary::Divide => a / b,
                Binary::Remainder => a % b,
                _ => return Err(impossible("such operator")),
            }
            .to_bits(),
        ))
    }};
}

pub(super) fn binary(op: Binary, scalar: Scalar, a: Bits, b: Bits) -> Computed {
    match scalar {
        Scalar::Bool => match op {
            Binary::And => Ok(a & b),
            Binary::Or => Ok(a | b),
            Binary::Xor => Ok(a ^ b),
            _ => Err(impossible("such operator")),
        },
        Scalar::I32 => integer_binary!(op, a, b, i32, u32),
        Scalar::U32 => integer_binary!(op, a, b, u32, u32),
        Scalar::I64 => integer_binary!(op, a, b, i64, u64),
        Scalar::U64 => integer_binary!(op, a, b, u64, u64),
        Scalar::I128 => integer_binary!(op, a, b, i128, u128),
        Scalar::F32 => float_binary!(op, f32_of(a), f32_of(b)),
        Scalar::F64 => float_binary!(op, f64_of(a), f64_of(b)),
    }
}

pub(super) fn unary(op: Unary, scalar: Scalar, a: Bits) -> Computed {
    Ok(match (op, scalar) {
        (Unary::Not, Scalar::Bool) => a ^ 1,
        (Unary::Negate, Scalar::I32 | Scalar::U32) => Bits::from((a as u32).wrapping_neg()),
        (Unary::Negate, Scalar::I64 | Scalar::U64) => Bits::from((a as u64).wrapping_neg()),
        (Unary::Negate, Scalar::I128) => a.wrapping_neg(),
        (Unary::Negate, Scalar::F32) => Bits::from((-f32_of(a)).to_bits()),
        (Unary::Negate, Scalar::F64) => Bits::from((-f64_of(a)).to_bits()),
        (Unary::Complement, Scalar::I32 | Scalar::U32) => Bits::from(!(a as u32)),
        (Unary::Complement, Scalar::I64 | Scalar::U64) => Bits::from(!(a as u64)),
        (Unary::CountOnes, Scalar::U32 | Scalar::U64) => Bits::from(a.count_ones()),
        (Unary::LeadingZeros, Scalar::U32) => Bits::from((a as u32).leading_zeros()),
        (Unary::LeadingZeros, Scalar::U64) => Bits::from((a as u64).leading_zeros()),
        (Unary::SquareRoot, Scalar::F32) => Bits::from(f32_of(a).sqrt().to_bits()),
        (Unary::SquareRoot, Scalar::F64) => Bits::from(f64_of(a).sqrt().to_bits()),
        (Unary::Floor, Scalar::F32) => Bits::from(f32_of(a).floor().to_bits()),
        (Unary::Floor, Scalar::F64) => Bits::from(f64_of(a).floor().to_bits()),
        (Unary::High, Scalar::I128) => a >> 64,
        _ => return Err(impossible("such operator")),
    })
}

macro_rules! compared {
    ($op:expr, $a:expr, $b:expr) => {{
        let (a, b) = ($a, $b);
        match $op {
            Compare::Equal => a == b,
            Compare::NotEqual => a != b,
            Compare::Less => a < b,
            Compare::LessOrEqual => a <= b,
            Compare::Greater => a > b,
            Compare::GreaterOrEqual => a >= b,
        }
    }};
}

#[expect(clippy::float_cmp, reason = "the kernels' comparison is the exact one")]
pub(super) fn compare(op: Compare, scalar: Scalar, a: Bits, b: Bits) -> Bits {
    Bits::from(match scalar {
        Scalar::Bool | Scalar::U32 | Scalar::U64 => compared!(op, a, b),
        Scalar::I32 => compared!(op, a as u32 as i32, b as u32 as i32),
        Scalar::I64 => compared!(op, a as u64 as i64, b as u64 as i64),
        Scalar::I128 => compared!(op, a as i128, b as i128),
        Scalar::F32 => compared!(op, f32_of(a), f32_of(b)),
        Scalar::F64 => compared!(op, f64_of(a), f64_of(b)),
    })
}

/// An integer in its full width, with its sign.
fn wide(scalar: Scalar, a: Bits) -> i128 {
    match scalar {
        Scalar::I32 => i128::from(a as u32 as i32),
        Scalar::I64 => i128::from(a as u64 as i64),
        _ => a as i128,
    }
}

fn float_of(scalar: Scalar, a: Bits) -> Option<f64> {
    match scalar {
        Scalar::F32 => Some(f64::from(f32_of(a))),
        Scalar::F64 => Some(f64_of(a)),
        _ => None,
    }
}

pub(super) fn convert(from: Scalar, to: Scalar, a: Bits) -> Computed {
    if let Some(float) = float_of(from, a) {
        return match to {
            Scalar::F32 => Ok(Bits::from(if from == Scalar::F32 {
                a as u32
            } else {
                (float as f32).to_bits()
            })),
            Scalar::F64 => Ok(Bits::from(float.to_bits())),
            _ => truncated(to, float),
        };
    }
    let integer = wide(from, a);
    Ok(match to {
        Scalar::Bool => return Err(impossible("conversion")),
        Scalar::I32 | Scalar::U32 => Bits::from(integer as u32),
        Scalar::I64 | Scalar::U64 => Bits::from(integer as u64),
        Scalar::I128 => integer.cast_unsigned(),
        // Every integer type but I128 rounds the same from i128.
        Scalar::F32 => Bits::from((integer as f32).to_bits()),
        Scalar::F64 => Bits::from((integer as f64).to_bits()),
    })
}

/// A float without its fraction, which must fit.
fn truncated(to: Scalar, float: f64) -> Computed {
    let whole = float.trunc();
    // Powers of two are exact; the upper bound itself is outside.
    let power = |exponent: i32| 2_f64.powi(exponent);
    let (low, high) = match to {
        Scalar::I32 => (-power(31), power(31)),
        Scalar::U32 => (0.0, power(32)),
        Scalar::I64 => (-power(63), power(63)),
        Scalar::U64 => (0.0, power(64)),
        Scalar::I128 => (-power(127), power(127)),
        _ => return Err(impossible("conversion")),
    };
    if !(low <= whole && whole < high) {
        return Err(Wrong::new(ViolationKind::FloatRange, format!("{float} as {to:?}")));
    }
    Ok(match to {
        Scalar::I32 => Bits::from(whole as i32 as u32),
        Scalar::U32 => Bits::from(whole as u32),
        Scalar::I64 => Bits::from(whole as i64 as u64),
        Scalar::U64 => Bits::from(whole as u64),
        _ => (whole as i128).cast_unsigned(),
    })
}

/// The register of an element's bytes: widened.
pub(super) fn loaded(elem: Elem, raw: u128) -> Bits {
    match elem {
        Elem::I8 => Bits::from(i32::from(raw as u8 as i8).cast_unsigned()),
        Elem::I16 => Bits::from(i32::from(raw as u16 as i16).cast_unsigned()),
        _ => raw,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_wrap_and_keep_their_sign() {
        let minus = |value: i32| constant(Const::I32(value));
        assert_eq!(
            binary(Binary::Add, Scalar::I32, minus(i32::MAX), minus(1)),
            Ok(minus(i32::MIN))
        );
        assert_eq!(binary(Binary::Divide, Scalar::I32, minus(-7), minus(2)), Ok(minus(-3)));
        assert_eq!(
            binary(Binary::ShiftRight, Scalar::I32, minus(-8), minus(1)),
            Ok(minus(-4))
        );
        assert_eq!(compare(Compare::Less, Scalar::I32, minus(-1), minus(0)), 1);
        assert_eq!(compare(Compare::Less, Scalar::U32, minus(-1), minus(0)), 0);
        assert_eq!(
            convert(Scalar::I32, Scalar::I128, minus(-5)),
            Ok(constant(Const::I128(-5)))
        );
        assert_eq!(
            convert(Scalar::U32, Scalar::I64, minus(-1)),
            Ok(constant(Const::I64(0xffff_ffff)))
        );
        let high = binary(
            Binary::MultiplyHigh,
            Scalar::I64,
            constant(Const::I64(-1)),
            constant(Const::I64(1)),
        );
        assert_eq!(high, Ok(constant(Const::I64(-1))));
        assert_eq!(loaded(Elem::I8, 0xff), minus(-1));
    }

    #[test]
    fn what_is_not_defined_is_named() {
        let kind = |result: Computed| result.map_err(|wrong| wrong.kind);
        let int = |value: i64| constant(Const::I64(value));
        let scalar = Scalar::I64;
        assert_eq!(
            kind(binary(Binary::Divide, scalar, 1, 0)),
            Err(ViolationKind::DivisionByZero)
        );
        assert_eq!(
            kind(binary(Binary::Remainder, scalar, int(i64::MIN), int(-1))),
            Err(ViolationKind::DivisionOverflow)
        );
        assert_eq!(
            kind(binary(Binary::ShiftLeft, scalar, 1, 64)),
            Err(ViolationKind::ShiftWidth)
        );
        assert_eq!(
            kind(binary(Binary::ShiftLeft, scalar, 1, int(-1))),
            Err(ViolationKind::ShiftWidth)
        );
        let float = |value: f64| constant(Const::F64(value));
        for (value, to, fits) in [
            (2_147_483_647.9, Scalar::I32, true),
            (2_147_483_648.0, Scalar::I32, false),
            (-2_147_483_648.9, Scalar::I32, true),
            (-0.9, Scalar::U64, true),
            (-1.0, Scalar::U64, false),
            (f64::NAN, Scalar::I128, false),
            (9.3e18, Scalar::I64, false),
        ] {
            assert_eq!(
                convert(Scalar::F64, to, float(value)).is_ok(),
                fits,
                "{value} as {to:?}"
            );
        }
    }
}
