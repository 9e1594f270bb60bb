//! Values into words.

use super::{
    Coding, Const, Dictionary, Field, Ir, Key, KeyShape, KeyWord, Kind, Lowered, Lowering, NullCoding, Nulls, Part,
    Scalar, Unsupported, Value, Word, WordKind, bool, lane_range, u64,
};
use crate::build::{place, u32};
use crate::ir::Elem;

use std::collections::HashMap;
use std::sync::Arc;

/// What a code of another dictionary becomes when the value isn't in the part's.
pub(super) const NO_CODE: u32 = u32::MAX;

/// The words while they are put together.
struct Words {
    words: Vec<Option<Ir>>,
    null: Option<Ir>,
    impossible: Option<Ir>,
}

impl Words {
    fn put(&mut self, field: Field, bits: Ir) {
        let shifted = match field.shift {
            0 => bits,
            shift => bits.shl(u64(shift.into())),
        };
        let word = &mut self.words[field.word];
        *word = Some(match word.take() {
            None => shifted,
            Some(before) => before.or(shifted),
        });
    }
}

fn either(flag: &mut Option<Ir>, other: Ir) {
    *flag = Some(match flag.take() {
        None => other,
        Some(before) => before.or(other),
    });
}

impl Lowering<'_> {
    /// The key of some values; their shapes may differ from those that the shape was made for.
    pub(crate) fn key(&mut self, shape: &KeyShape, values: &[Value]) -> Lowered<Key> {
        let mut words = Words {
            words: vec![None; shape.words.len()],
            null: None,
            impossible: None,
        };
        for (part, value) in shape.parts.iter().zip(values) {
            self.part(shape.nulls, part, value, &mut words)?;
        }
        let flag = |l: &mut Self, flag: Option<Ir>| flag.map(|ir| l.b.set(Scalar::Bool, ir).into());
        let (null, impossible) = (flag(self, words.null), flag(self, words.impossible));
        let words = shape.words.iter().zip(words.words).map(|(kind, ir)| {
            let ir = match ir {
                Some(ir) => self.b.set(Scalar::U64, ir).into(),
                None => u64(0),
            };
            match kind {
                WordKind::Plain { .. } => KeyWord::Plain(ir),
                WordKind::Text => KeyWord::Text(ir),
            }
        });
        Ok(Key {
            words: words.collect(),
            null,
            impossible,
        })
    }

    fn part(&mut self, nulls: Nulls, part: &Part, value: &Value, words: &mut Words) -> Lowered<()> {
        if let (Nulls::Any, Some(null)) = (nulls, &value.null) {
            either(&mut words.null, null.clone());
        }
        if matches!(value.shape.kind, Kind::Null) {
            Self::null_part(nulls, part, words);
            return Ok(());
        }
        if let (Nulls::Group, NullCoding::Never, Some(null)) = (nulls, part.null, &value.null) {
            either(&mut words.impossible, null.clone());
        }
        if let Coding::Nothing = part.coding {
            // Every stored part is NULL: with Group a value equals none of them, with Any no build row has a key.
            let is_value = value.null.clone().map_or(bool(true), Ir::not);
            either(&mut words.impossible, is_value);
            return Ok(());
        }
        let impossible = self.encode(part, value, words)?;
        if let Some(impossible) = impossible {
            let impossible = match &value.null {
                Some(null) => impossible.and(null.clone().not()),
                None => impossible,
            };
            either(&mut words.impossible, impossible);
        }
        if let (NullCoding::Flag(field), Some(null)) = (part.null, &value.null) {
            words.put(field, null.clone().select(u64(1), u64(0)));
        }
        Ok(())
    }

    /// A part that is NULL for sure.
    fn null_part(nulls: Nulls, part: &Part, words: &mut Words) {
        match part.null {
            NullCoding::Flag(field) => words.put(field, u64(1)),
            NullCoding::Never if nulls == Nulls::Group => either(&mut words.impossible, bool(true)),
            _ => {}
        }
    }

    /// Puts a value's fields; gives where it can't be expressed.
    fn encode(&mut self, part: &Part, value: &Value, words: &mut Words) -> Lowered<Option<Ir>> {
        let ir = value.ir.clone();
        let mut impossible = None;
        match (&part.coding, &value.shape.kind) {
            (Coding::Integer { field, low, most }, Kind::Integer(lane)) => {
                impossible = self.outside(value, *lane, (*low, *low + i128::from(*most)));
                let low = self.word(Word::Value(low_word(*low)));
                let bits = ir.to(Scalar::I64).to(Scalar::U64).minus(low);
                self.put_counted(*field, part, value, bits, impossible.as_ref(), words);
            }
            (Coding::Wide([low, high]), Kind::Integer(_)) => {
                let wide = self.b.set(Scalar::I128, ir.to(Scalar::I128));
                let low_bits = self.b.set(Scalar::U64, Ir::from(wide).to(Scalar::U64));
                let rest = Ir::from(wide).minus(Ir::from(low_bits).to(Scalar::I128));
                let two_to_64 = Ir::Const(Const::I128(1 << 64));
                let high_bits = rest.over(two_to_64).to(Scalar::U64);
                words.put(*low, or_zero(value, low_bits.into()));
                words.put(*high, or_zero(value, high_bits));
            }
            (Coding::Boolean(field), Kind::Boolean) => {
                let bits = ir.select(u64(1), u64(0));
                self.put_counted(*field, part, value, bits, None, words);
            }
            (Coding::Code { field, dictionary }, Kind::Code(other)) => {
                let mut code = ir;
                if !Arc::ptr_eq(dictionary, other) {
                    code = self.translated(dictionary, other, value)?;
                    impossible = Some(code.clone().eq(u32(NO_CODE)));
                }
                self.put_counted(*field, part, value, code.to(Scalar::U64), impossible.as_ref(), words);
            }
            (Coding::Float32(field), Kind::Float32) => {
                let bits = self.canonical_f32(ir).to(Scalar::U64);
                words.put(*field, or_zero(value, bits));
            }
            (Coding::Float64(field), Kind::Float64) => {
                let bits = self.canonical_f64(ir);
                words.put(*field, or_zero(value, bits));
            }
            (Coding::Code { field, dictionary }, Kind::Text) => {
                let handle = self.b.set(Scalar::U64, or_zero(value, ir));
                let code = self.found(dictionary, handle.into())?;
                impossible = Some(code.clone().eq(u32(NO_CODE)));
                self.put_counted(*field, part, value, code.to(Scalar::U64), impossible.as_ref(), words);
            }
            (Coding::Text(word), Kind::Text | Kind::Code(_)) => {
                let handle = self.handle(value)?;
                words.words[*word] = Some(or_zero(value, handle));
            }
            _ => return Err(Unsupported("keys of different representations".to_owned())),
        }
        Ok(impossible)
    }

    /// Puts a number into its field: 0 where the value is NULL or can't be expressed.
    fn put_counted(
        &mut self,
        field: Field,
        part: &Part,
        value: &Value,
        bits: Ir,
        impossible: Option<&Ir>,
        words: &mut Words,
    ) {
        let bits = match part.null {
            NullCoding::Inside => bits.plus(u64(1)),
            _ => bits,
        };
        // A NULL's own bits are in range only with the value's shape, so that they are cleared even where nobody reads them.
        let cleared = match (&value.null, impossible) {
            (None, None) => None,
            (Some(null), None) => Some(null.clone()),
            (None, Some(impossible)) => Some(impossible.clone()),
            (Some(null), Some(impossible)) => Some(null.clone().or(impossible.clone())),
        };
        words.put(
            field,
            match cleared {
                None => bits,
                Some(cleared) => cleared.select(u64(0), bits),
            },
        );
    }

    /// Bool: the integer isn't in a range; none when it always is.
    fn outside(&mut self, value: &Value, lane: Scalar, (low, high): (i128, i128)) -> Option<Ir> {
        let (least, most) = value.shape.range.unwrap_or(lane_range(lane));
        let mut outside = None;
        if least < low {
            let bound = self.bound_word(low, lane);
            either(
                &mut outside,
                bound.map_or(bool(true), |bound| value.ir.clone().lt(bound)),
            );
        }
        if most > high {
            let bound = self.bound_word(high, lane);
            either(
                &mut outside,
                bound.map_or(bool(true), |bound| value.ir.clone().gt(bound)),
            );
        }
        outside
    }

    /// A bound in a value's register. A low bound above the lane's values, or a high one below them, lies beyond all of them:
    /// none.
    fn bound_word(&mut self, bound: i128, lane: Scalar) -> Option<Ir> {
        let (least, most) = lane_range(lane);
        if bound < least || bound > most {
            return None;
        }
        Some(match i64::try_from(bound) {
            Ok(_) => self.word(Word::Value(low_word(bound))).to(Scalar::I64).to(lane),
            Err(_) => Ir::Const(Const::I128(bound)),
        })
    }

    /// U32: the code of the same value in the part's dictionary, or [`NO_CODE`].
    fn translated(&mut self, into: &Arc<Dictionary>, from: &Arc<Dictionary>, value: &Value) -> Lowered<Ir> {
        let codes = 0..u32::try_from(into.len()).unwrap_or(NO_CODE);
        let known: HashMap<&[u8], u32> = codes.map(|code| (into.get(code), code)).collect();
        let mut table = Vec::with_capacity(from.len() * 4);
        for code in 0..u32::try_from(from.len()).unwrap_or(NO_CODE) {
            let found = known.get(from.get(code)).copied().unwrap_or(NO_CODE);
            table.extend_from_slice(&found.to_le_bytes());
        }
        if table.is_empty() {
            table.extend_from_slice(&NO_CODE.to_le_bytes());
        }
        let table = self.table(table.into());
        let code = match &value.null {
            Some(null) => null.clone().select(u32(0), value.ir.clone()),
            None => value.ir.clone(),
        };
        Ok(self.b.load(place(Elem::U32, table, code)).into())
    }

    /// U64: equal where the floats are equal, all NaNs alike.
    pub(crate) fn canonical_f64(&mut self, ir: Ir) -> Ir {
        let zero = ir.clone().eq(Ir::Const(Const::F64(0.0)));
        let nan = ir.clone().ne(ir.clone());
        let bits = zero.select(u64(0), ir.bits(Scalar::U64));
        self.b
            .set(Scalar::U64, nan.select(u64(0x7ff8_0000_0000_0000), bits))
            .into()
    }

    /// U32: as [`Lowering::canonical_f64`].
    pub(crate) fn canonical_f32(&mut self, ir: Ir) -> Ir {
        let zero = ir.clone().eq(Ir::Const(Const::F32(0.0)));
        let nan = ir.clone().ne(ir.clone());
        let bits = zero.select(u32(0), ir.bits(Scalar::U32));
        self.b.set(Scalar::U32, nan.select(u32(0x7fc0_0000), bits)).into()
    }
}

/// 0 where the value is NULL.
fn or_zero(value: &Value, bits: Ir) -> Ir {
    match &value.null {
        Some(null) => null.clone().select(u64(0), bits),
        None => bits,
    }
}

/// The low 64 bits, two's complement.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the low word is meant"
)]
pub(super) fn low_word(value: i128) -> u64 {
    value as u64
}
