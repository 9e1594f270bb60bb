//! Words back into values.

use super::code::low_word;
use super::{Coding, Const, Field, Ir, KeyShape, Kind, Lowering, NullCoding, Part, Scalar, Value, bool, u64};
use crate::lower::source::null_value;
use crate::program::Word;

fn field_of(stored: &[Ir], field: Field) -> Ir {
    let word = stored[field.word].clone();
    let shifted = match field.shift {
        0 => word,
        shift => word.shr(u64(shift.into())),
    };
    match field.bits {
        64 => shifted,
        bits => shifted.and(u64((1 << bits) - 1)),
    }
}

impl Lowering<'_> {
    /// The values of a stored key (cheap expressions of type U64), in the shapes that the key's shape was made for.
    pub(crate) fn key_values(&mut self, shape: &KeyShape, stored: &[Ir]) -> Vec<Value> {
        shape.parts.iter().map(|part| self.key_value(part, stored)).collect()
    }

    fn key_value(&mut self, part: &Part, stored: &[Ir]) -> Value {
        let mut null = match part.null {
            NullCoding::Flag(field) => Some(field_of(stored, field).ne(u64(0))),
            _ => None,
        };
        let mut counted = |l: &mut Self, field: Field| {
            let bits = l.b.set(Scalar::U64, field_of(stored, field));
            if part.null != NullCoding::Inside {
                return Ir::from(bits);
            }
            null = Some(Ir::from(bits).eq(u64(0)));
            // NULL's 0 stays 0, so that it is a value in range too.
            l.b.set(Scalar::U64, Ir::from(bits).max(u64(1)).minus(u64(1))).into()
        };
        let (ir, scalar) = match &part.coding {
            Coding::Nothing => return null_value(part.shape.clone()),
            Coding::Integer { field, low, .. } => {
                let lane = match part.shape.kind {
                    Kind::Integer(lane) => lane,
                    _ => Scalar::I64,
                };
                let bits = counted(self, *field);
                let fits = i64::try_from(*low).is_ok();
                let ir = if lane == Scalar::I128 {
                    let low = match fits {
                        true => self.word(Word::Value(low_word(*low))).to(Scalar::I64).to(Scalar::I128),
                        false => Ir::Const(Const::I128(*low)),
                    };
                    bits.to(Scalar::I128).plus(low)
                } else {
                    let low = self.word(Word::Value(low_word(*low)));
                    bits.plus(low).to(Scalar::I64).to(lane)
                };
                (ir, lane)
            }
            Coding::Wide([low, high]) => {
                let high = field_of(stored, *high).to(Scalar::I64).to(Scalar::I128);
                let low = field_of(stored, *low).to(Scalar::I128);
                (high.times(Ir::Const(Const::I128(1 << 64))).plus(low), Scalar::I128)
            }
            Coding::Boolean(field) => (counted(self, *field).ne(u64(0)), Scalar::Bool),
            Coding::Code { field, .. } => (counted(self, *field).to(Scalar::U32), Scalar::U32),
            Coding::Float32(field) => {
                let bits = field_of(stored, *field).to(Scalar::U32);
                (bits.bits(Scalar::F32), Scalar::F32)
            }
            Coding::Float64(field) => (field_of(stored, *field).bits(Scalar::F64), Scalar::F64),
            Coding::Text(word) => (stored[*word].clone(), Scalar::U64),
        };
        let ir = self.b.set(scalar, ir).into();
        let null = null.map(|null| self.b.set(Scalar::Bool, null).into());
        debug_assert!(
            null.is_some() || part.null == NullCoding::Never,
            "a NULL without a place"
        );
        let null = match part.null {
            NullCoding::Always => Some(bool(true)),
            _ => null,
        };
        Value {
            ir,
            null,
            shape: part.shape.clone(),
        }
    }
}
