//! What operators give, in Rust's own arithmetic: what compiled kernels are compared with.

use rand::Rng;
use rand::rngs::StdRng;
use trireme_device_codegen::ir::{Binary, Compare, Const, Elem, Scalar, Unary};

/// All types.
pub(crate) const SCALARS: [Scalar; 8] = [
    Scalar::Bool,
    Scalar::I32,
    Scalar::U32,
    Scalar::I64,
    Scalar::U64,
    Scalar::I128,
    Scalar::F32,
    Scalar::F64,
];

pub(crate) const BINARY: [Binary; 13] = [
    Binary::Add,
    Binary::Subtract,
    Binary::Multiply,
    Binary::Divide,
    Binary::Remainder,
    Binary::And,
    Binary::Or,
    Binary::Xor,
    Binary::ShiftLeft,
    Binary::ShiftRight,
    Binary::Min,
    Binary::Max,
    Binary::MultiplyHigh,
];

pub(crate) const UNARY: [Unary; 8] = [
    Unary::Not,
    Unary::Negate,
    Unary::Complement,
    Unary::CountOnes,
    Unary::LeadingZeros,
    Unary::SquareRoot,
    Unary::Floor,
    Unary::High,
];

pub(crate) const COMPARE: [Compare; 6] = [
    Compare::Equal,
    Compare::NotEqual,
    Compare::Less,
    Compare::LessOrEqual,
    Compare::Greater,
    Compare::GreaterOrEqual,
];

/// The element that keeps a register of a type.
pub(crate) fn elem(scalar: Scalar) -> Elem {
    match scalar {
        Scalar::Bool => Elem::U8,
        Scalar::I32 => Elem::I32,
        Scalar::U32 => Elem::U32,
        Scalar::I64 => Elem::I64,
        Scalar::U64 => Elem::U64,
        Scalar::I128 => Elem::I128,
        Scalar::F32 => Elem::F32,
        Scalar::F64 => Elem::F64,
    }
}

fn is_float(scalar: Scalar) -> bool {
    matches!(scalar, Scalar::F32 | Scalar::F64)
}

/// Whether the language has the operator for the type.
pub(crate) fn has_binary(operator: Binary, scalar: Scalar) -> bool {
    match operator {
        Binary::Add | Binary::Subtract | Binary::Multiply | Binary::Divide | Binary::Remainder => {
            scalar != Scalar::Bool
        }
        Binary::And | Binary::Or | Binary::Xor => !is_float(scalar),
        Binary::ShiftLeft | Binary::ShiftRight => !is_float(scalar) && !matches!(scalar, Scalar::Bool | Scalar::I128),
        Binary::Min | Binary::Max => !is_float(scalar) && scalar != Scalar::Bool,
        Binary::MultiplyHigh => matches!(scalar, Scalar::U32 | Scalar::U64 | Scalar::I64),
    }
}

/// Likewise.
pub(crate) fn has_unary(operator: Unary, scalar: Scalar) -> bool {
    match operator {
        Unary::Not => scalar == Scalar::Bool,
        Unary::Negate => scalar != Scalar::Bool,
        Unary::Complement => !is_float(scalar) && !matches!(scalar, Scalar::Bool | Scalar::I128),
        Unary::CountOnes | Unary::LeadingZeros => matches!(scalar, Scalar::U32 | Scalar::U64),
        Unary::SquareRoot | Unary::Floor => is_float(scalar),
        Unary::High => scalar == Scalar::I128,
    }
}

/// The type of the result.
pub(crate) fn result(operator: Unary, scalar: Scalar) -> Scalar {
    if operator == Unary::High { Scalar::I64 } else { scalar }
}

/// Likewise.
pub(crate) fn has_compare(operator: Compare, scalar: Scalar) -> bool {
    scalar != Scalar::Bool || matches!(operator, Compare::Equal | Compare::NotEqual)
}

/// A value: often an edge of its type or of a smaller one.
pub(crate) fn random(rng: &mut StdRng, scalar: Scalar) -> Const {
    let bits = match rng.random_range(0..6) {
        0 => u128::from(rng.random_range(0..4_u8)),
        1 => (rng.random_range(0..4_u8) as u128).wrapping_neg(),
        2 => (1_u128 << rng.random_range(0..128))
            .wrapping_add(rng.random_range(0..3))
            .wrapping_sub(1),
        3 => !(1_u128 << rng.random_range(0..128)),
        4 => rng.random::<u128>() >> rng.random_range(0..128),
        _ => rng.random(),
    };
    match scalar {
        Scalar::Bool => Const::Bool(bits & 1 == 1),
        Scalar::I32 => Const::I32(bits as i32),
        Scalar::U32 => Const::U32(bits as u32),
        Scalar::I64 => Const::I64(bits as i64),
        Scalar::U64 => Const::U64(bits as u64),
        Scalar::I128 => Const::I128(bits as i128),
        Scalar::F32 => Const::F32(random_float(rng, bits) as f32),
        Scalar::F64 => Const::F64(random_float(rng, bits)),
    }
}

fn random_float(rng: &mut StdRng, bits: u128) -> f64 {
    match rng.random_range(0..8) {
        0 => f64::from_bits(bits as u64),
        1 => f64::from(f32::from_bits(bits as u32)),
        2 => [
            0.0,
            -0.0,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
            f64::MIN_POSITIVE,
            f64::MAX,
            f64::MIN,
        ][rng.random_range(0..8)],
        3 => bits as i128 as f64,
        4 => f64::from(bits as i32) / 10.0,
        5 => f64::from(bits as i16) + 0.5,
        _ => f64::from(bits as i8),
    }
}

/// Values of every edge.
pub(crate) fn edges(scalar: Scalar) -> Vec<Const> {
    match scalar {
        Scalar::Bool => vec![Const::Bool(false), Const::Bool(true)],
        Scalar::I32 => [0, 1, -1, 7, i32::MIN, i32::MAX, i32::MIN + 1].map(Const::I32).to_vec(),
        Scalar::U32 => [0, 1, 7, u32::MAX, 1 << 31, u32::MAX - 1].map(Const::U32).to_vec(),
        Scalar::I64 => [0, 1, -1, 7, i64::MIN, i64::MAX, i64::MIN + 1, 1 << 32, -(1 << 53) - 1]
            .map(Const::I64)
            .to_vec(),
        Scalar::U64 => [0, 1, 7, u64::MAX, 1 << 63, u64::MAX - 1, 1 << 32, (1 << 53) + 1]
            .map(Const::U64)
            .to_vec(),
        Scalar::I128 => [
            0,
            1,
            -1,
            10,
            i128::MIN,
            i128::MAX,
            i128::MIN + 1,
            i128::from(u64::MAX),
            1 << 64,
            -(1 << 64),
            (1 << 64) + 1,
            i128::from(i64::MIN),
            1 << 63,
            10_i128.pow(38) - 1,
            -(10_i128.pow(38) - 1),
            10_i128.pow(19),
            // Halfway between two doubles, and a bit above: 2^100 + 2^47 (+ 1).
            (1 << 100) + (1 << 47),
            (1 << 100) + (1 << 47) + 1,
            (1 << 100) + 3 * (1 << 47),
            (1 << 100) + (1 << 76),
            (1 << 100) + (1 << 76) + 1,
        ]
        .map(Const::I128)
        .to_vec(),
        Scalar::F32 => [
            0.0,
            -0.0,
            1.0,
            -1.5,
            f32::MIN_POSITIVE,
            1e-45,
            f32::MAX,
            f32::INFINITY,
            f32::NAN,
            16_777_217.0,
        ]
        .map(Const::F32)
        .to_vec(),
        Scalar::F64 => [
            0.0,
            -0.0,
            1.0,
            -1.5,
            5e-324,
            f64::MAX,
            f64::NEG_INFINITY,
            f64::NAN,
            0.1,
            9e15 + 0.5,
            1e38,
        ]
        .map(Const::F64)
        .to_vec(),
    }
}

macro_rules! integer {
    ($operator:expr, $a:expr, $b:expr, $variant:ident, $type:ty) => {
        Const::$variant(match $operator {
            Binary::Add => $a.wrapping_add($b),
            Binary::Subtract => $a.wrapping_sub($b),
            Binary::Multiply => $a.wrapping_mul($b),
            Binary::Divide => $a / $b,
            Binary::Remainder => $a % $b,
            Binary::And => $a & $b,
            Binary::Or => $a | $b,
            Binary::Xor => $a ^ $b,
            Binary::ShiftLeft => $a << $b,
            Binary::ShiftRight => $a >> $b,
            Binary::Min => $a.min($b),
            Binary::Max => $a.max($b),
            Binary::MultiplyHigh => ((($a as i128 as u128).wrapping_mul($b as i128 as u128)) >> <$type>::BITS) as $type,
        })
    };
}

macro_rules! float {
    ($operator:expr, $a:expr, $b:expr, $variant:ident) => {
        Const::$variant(match $operator {
            Binary::Add => $a + $b,
            Binary::Subtract => $a - $b,
            Binary::Multiply => $a * $b,
            Binary::Divide => $a / $b,
            Binary::Remainder => $a % $b,
            other => panic!("{other:?} of floats"),
        })
    };
}

pub(crate) fn binary(operator: Binary, a: Const, b: Const) -> Const {
    match (a, b) {
        (Const::Bool(a), Const::Bool(b)) => Const::Bool(match operator {
            Binary::And => a & b,
            Binary::Or => a | b,
            Binary::Xor => a ^ b,
            other => panic!("{other:?} of booleans"),
        }),
        (Const::I32(a), Const::I32(b)) => integer!(operator, a, b, I32, i32),
        (Const::U32(a), Const::U32(b)) => integer!(operator, a, b, U32, u32),
        (Const::I64(a), Const::I64(b)) => integer!(operator, a, b, I64, i64),
        (Const::U64(a), Const::U64(b)) => integer!(operator, a, b, U64, u64),
        (Const::I128(a), Const::I128(b)) => Const::I128(match operator {
            Binary::Add => a.wrapping_add(b),
            Binary::Subtract => a.wrapping_sub(b),
            Binary::Multiply => a.wrapping_mul(b),
            Binary::Divide => a / b,
            Binary::Remainder => a % b,
            Binary::And => a & b,
            Binary::Or => a | b,
            Binary::Xor => a ^ b,
            Binary::Min => a.min(b),
            Binary::Max => a.max(b),
            other => panic!("{other:?} of I128"),
        }),
        (Const::F32(a), Const::F32(b)) => float!(operator, a, b, F32),
        (Const::F64(a), Const::F64(b)) => float!(operator, a, b, F64),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn unary(operator: Unary, a: Const) -> Const {
    match (operator, a) {
        (Unary::Not, Const::Bool(a)) => Const::Bool(!a),
        (Unary::Negate, Const::I32(a)) => Const::I32(a.wrapping_neg()),
        (Unary::Negate, Const::U32(a)) => Const::U32(a.wrapping_neg()),
        (Unary::Negate, Const::I64(a)) => Const::I64(a.wrapping_neg()),
        (Unary::Negate, Const::U64(a)) => Const::U64(a.wrapping_neg()),
        (Unary::Negate, Const::I128(a)) => Const::I128(a.wrapping_neg()),
        (Unary::Negate, Const::F32(a)) => Const::F32(-a),
        (Unary::Negate, Const::F64(a)) => Const::F64(-a),
        (Unary::Complement, Const::I32(a)) => Const::I32(!a),
        (Unary::Complement, Const::U32(a)) => Const::U32(!a),
        (Unary::Complement, Const::I64(a)) => Const::I64(!a),
        (Unary::Complement, Const::U64(a)) => Const::U64(!a),
        (Unary::CountOnes, Const::U32(a)) => Const::U32(a.count_ones()),
        (Unary::CountOnes, Const::U64(a)) => Const::U64(u64::from(a.count_ones())),
        (Unary::LeadingZeros, Const::U32(a)) => Const::U32(a.leading_zeros()),
        (Unary::LeadingZeros, Const::U64(a)) => Const::U64(u64::from(a.leading_zeros())),
        (Unary::SquareRoot, Const::F32(a)) => Const::F32(a.sqrt()),
        (Unary::SquareRoot, Const::F64(a)) => Const::F64(a.sqrt()),
        (Unary::Floor, Const::F32(a)) => Const::F32(a.floor()),
        (Unary::Floor, Const::F64(a)) => Const::F64(a.floor()),
        (Unary::High, Const::I128(a)) => Const::I64((a >> 64) as i64),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn compare(operator: Compare, a: Const, b: Const) -> Const {
    let order = match (a, b) {
        (Const::Bool(a), Const::Bool(b)) => a.partial_cmp(&b),
        (Const::F32(a), Const::F32(b)) => a.partial_cmp(&b),
        (Const::F64(a), Const::F64(b)) => a.partial_cmp(&b),
        (a, b) => match (a, b) {
            (Const::U64(a), Const::U64(b)) => a.partial_cmp(&b),
            (a, b) => integral(a).partial_cmp(&integral(b)),
        },
    };
    Const::Bool(match operator {
        Compare::Equal => order.is_some_and(|order| order.is_eq()),
        Compare::NotEqual => !order.is_some_and(|order| order.is_eq()),
        Compare::Less => order.is_some_and(|order| order.is_lt()),
        Compare::LessOrEqual => order.is_some_and(|order| order.is_le()),
        Compare::Greater => order.is_some_and(|order| order.is_gt()),
        Compare::GreaterOrEqual => order.is_some_and(|order| order.is_ge()),
    })
}

fn integral(a: Const) -> i128 {
    match a {
        Const::Bool(a) => i128::from(a),
        Const::I32(a) => i128::from(a),
        Const::U32(a) => i128::from(a),
        Const::I64(a) => i128::from(a),
        Const::U64(a) => i128::from(a),
        Const::I128(a) => a,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn convert(to: Scalar, a: Const) -> Const {
    macro_rules! from {
        ($a:expr) => {
            match to {
                Scalar::Bool => panic!("to Bool"),
                Scalar::I32 => Const::I32($a as i32),
                Scalar::U32 => Const::U32($a as u32),
                Scalar::I64 => Const::I64($a as i64),
                Scalar::U64 => Const::U64($a as u64),
                Scalar::I128 => Const::I128($a as i128),
                Scalar::F32 => Const::F32($a as f32),
                Scalar::F64 => Const::F64($a as f64),
            }
        };
    }
    match a {
        Const::F32(a) => from!(a),
        Const::F64(a) => from!(a),
        Const::I128(a) => from!(a),
        Const::U64(a) => from!(a),
        other => {
            let a = integral(other) as i64;
            from!(a)
        }
    }
}

/// The same value; any NaN is as good as another.
pub(crate) fn same(a: Const, b: Const) -> bool {
    match (a, b) {
        (Const::F32(a), Const::F32(b)) => a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(),
        (Const::F64(a), Const::F64(b)) => a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(),
        (a, b) => a == b,
    }
}

/// As it lies in memory.
pub(crate) fn bytes(value: Const) -> Vec<u8> {
    match value {
        Const::Bool(value) => vec![u8::from(value)],
        Const::I32(value) => value.to_le_bytes().to_vec(),
        Const::U32(value) => value.to_le_bytes().to_vec(),
        Const::I64(value) => value.to_le_bytes().to_vec(),
        Const::U64(value) => value.to_le_bytes().to_vec(),
        Const::I128(value) => value.to_le_bytes().to_vec(),
        Const::F32(value) => value.to_le_bytes().to_vec(),
        Const::F64(value) => value.to_le_bytes().to_vec(),
    }
}

/// Back from memory.
pub(crate) fn read(scalar: Scalar, bytes: &[u8]) -> Const {
    match scalar {
        Scalar::Bool => Const::Bool(bytes[0] != 0),
        Scalar::I32 => Const::I32(i32::from_le_bytes(bytes[..4].try_into().unwrap())),
        Scalar::U32 => Const::U32(u32::from_le_bytes(bytes[..4].try_into().unwrap())),
        Scalar::I64 => Const::I64(i64::from_le_bytes(bytes[..8].try_into().unwrap())),
        Scalar::U64 => Const::U64(u64::from_le_bytes(bytes[..8].try_into().unwrap())),
        Scalar::I128 => Const::I128(i128::from_le_bytes(bytes[..16].try_into().unwrap())),
        Scalar::F32 => Const::F32(f32::from_le_bytes(bytes[..4].try_into().unwrap())),
        Scalar::F64 => Const::F64(f64::from_le_bytes(bytes[..8].try_into().unwrap())),
    }
}
