//! Keys as numbers 0 … n − 1 without gaps: each part a digit of its own radix, NULL its first value.
//!
//! Slots of dense tables are counted so and not by bits, for a few keys of three values should be few slots.

use std::sync::Arc;

use super::known::Known;
use crate::build::{bool, u32, u64};
use crate::ir::{Const, Expr as Ir, Scalar};
use crate::lower::{Kind, Lowered, Lowering, Unsupported, Value};
use crate::program::Word;

/// How keys become numbers.
#[derive(Debug)]
pub(super) struct Radix {
    digits: Vec<Digit>,
    /// Numbers are below this.
    pub(super) count: u64,
}

#[derive(Debug)]
struct Digit {
    known: Known,
    /// Values that it has, NULL among them.
    radix: u64,
    /// What it counts for.
    weight: u64,
}

/// Different values of a part, NULL among them; none where they aren't counted.
fn radix_of(known: &Known) -> Option<u64> {
    let values = match &known.shape.kind {
        Kind::Null => return Some(1),
        Kind::Float32 | Kind::Float64 | Kind::Text => return None,
        Kind::Boolean | Kind::Code(_) | Kind::Integer(_) => {
            let (low, high) = known.bounds();
            u64::try_from(high.checked_sub(low)?).ok()?.checked_add(1)?
        }
    };
    values.checked_add(known.nullable.into())
}

impl Radix {
    /// For parts of these shapes; none where their values aren't counted or there are too many.
    pub(super) fn new(parts: &[Known]) -> Option<Self> {
        let mut count = 1_u64;
        let mut digits = Vec::with_capacity(parts.len());
        for known in parts {
            let radix = radix_of(known)?;
            digits.push(Digit {
                known: known.clone(),
                radix,
                weight: count,
            });
            count = count.checked_mul(radix)?;
        }
        Some(Self { digits, count })
    }

    /// U32 where numbers are that small, else U64.
    pub(super) fn scalar(&self) -> Scalar {
        if self.count <= u64::from(u32::MAX) {
            Scalar::U32
        } else {
            Scalar::U64
        }
    }

    /// The number of these values, which are of the parts' shapes or narrower ones.
    pub(super) fn number(&self, l: &mut Lowering<'_>, values: &[Value]) -> Lowered<Ir> {
        let scalar = self.scalar();
        let mut sum: Option<Ir> = None;
        for (digit, value) in self.digits.iter().zip(values) {
            if digit.radix == 1 {
                continue;
            }
            let code = digit.code(l, scalar, value)?;
            let part = if digit.weight == 1 {
                code
            } else {
                code.times(l.word(Word::Value(digit.weight)).to(scalar))
            };
            sum = Some(match sum {
                None => part,
                Some(sum) => sum.plus(part),
            });
        }
        let zero = if scalar == Scalar::U32 { u32(0) } else { u64(0) };
        Ok(l.b.set(scalar, sum.unwrap_or(zero)).into())
    }

    /// The values of a number (U64).
    pub(super) fn values(&self, l: &mut Lowering<'_>, number: &Ir) -> Vec<Value> {
        let digits = self.digits.iter().map(|digit| {
            if let Kind::Null = digit.known.shape.kind {
                return digit.known.value(bool(false), Some(bool(true)));
            }
            let mut code = number.clone();
            if digit.weight != 1 {
                code = code.over(l.word(Word::Value(digit.weight)));
            }
            if digit.weight.saturating_mul(digit.radix) < self.count {
                code = code.rem(l.word(Word::Value(digit.radix)));
            }
            let code = l.b.set(Scalar::U64, code);
            digit.value(l, code.into())
        });
        digits.collect()
    }
}

impl Digit {
    fn code(&self, l: &mut Lowering<'_>, scalar: Scalar, value: &Value) -> Lowered<Ir> {
        let zero = if scalar == Scalar::U32 { u32(0) } else { u64(0) };
        let (low, _) = self.known.bounds();
        let ir = value.ir.clone();
        let code = match (&self.known.shape.kind, &value.shape.kind) {
            (_, Kind::Null) => return Ok(zero),
            (Kind::Boolean, Kind::Boolean) => {
                let one = if scalar == Scalar::U32 { u32(1) } else { u64(1) };
                ir.select(one, zero.clone())
            }
            (Kind::Code(dictionary), Kind::Code(other)) if Arc::ptr_eq(dictionary, other) => ir.to(scalar),
            (Kind::Integer(_), Kind::Integer(Scalar::I128)) => {
                let low = super::result::literal(l, Scalar::I128, low);
                ir.minus(low).to(scalar)
            }
            // Words wrap to the right distance.
            (Kind::Integer(_), Kind::Integer(_)) => {
                let low = l.word(Word::Value(low_word(low))).to(scalar);
                ir.to(scalar).minus(low)
            }
            _ => return Err(Unsupported("a group key whose rows differ in shape".to_owned())),
        };
        if !self.known.nullable {
            return Ok(code);
        }
        let one = if scalar == Scalar::U32 { u32(1) } else { u64(1) };
        let code = code.plus(one);
        Ok(match &value.null {
            Some(null) => null.clone().select(zero, code),
            None => code,
        })
    }

    fn value(&self, l: &mut Lowering<'_>, code: Ir) -> Value {
        let null = self
            .known
            .nullable
            .then(|| l.b.set(Scalar::Bool, code.clone().eq(u64(0))));
        let code = match null {
            // NULL's place holds some value too.
            Some(_) => code.max(u64(1)).minus(u64(1)),
            None => code,
        };
        let (low, _) = self.known.bounds();
        let (scalar, ir) = match &self.known.shape.kind {
            Kind::Boolean => (Scalar::Bool, code.ne(u64(0))),
            Kind::Code(_) => (Scalar::U32, code.to(Scalar::U32)),
            Kind::Integer(Scalar::I128) => {
                let low = match i64::try_from(low) {
                    Ok(_) => super::result::literal(l, Scalar::I128, low),
                    Err(_) => Ir::Const(Const::I128(low)),
                };
                (Scalar::I128, code.to(Scalar::I128).plus(low))
            }
            Kind::Integer(lane) => {
                let low = l.word(Word::Value(low_word(low)));
                (*lane, code.plus(low).to(*lane))
            }
            _ => (Scalar::U64, code),
        };
        let ir = l.b.set(scalar, ir);
        self.known.value(ir.into(), null.map(Ir::from))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the low word is meant"
)]
fn low_word(value: i128) -> u64 {
    value as u64
}
