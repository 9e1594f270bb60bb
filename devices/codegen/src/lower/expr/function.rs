//! Functions of the contract over handles: what they give is a number, a boolean or a part of the text, never new bytes.

use std::sync::Arc;

use trireme_device_api::{Expr, Function, Type, Value as Constant, substring_range};

use super::bytes::{NOWHERE, part_of};
use super::range::Range;
use super::register::{Number, arithmetic_error, boolean, constant, integral, is_null, null_of, number, other};
use crate::build;
use crate::ir::{Expr as Ir, Scalar};
use crate::lower::text::handle_length;
use crate::lower::{Kind, Lowered, Lowering, Unsupported, Value};
use crate::program::Word;
use crate::shape::HANDLE_LENGTH_BITS;

/// Bytes, and so characters, that a handle may have.
const LENGTH_MAX: i64 = (1 << HANDLE_LENGTH_BITS) - 1;
const LENGTHS: Range = (0, LENGTH_MAX as i128);

/// The reason why a function of strings without a dictionary has no kernel.
pub(super) fn support(function: Function) -> Result<(), String> {
    match function {
        Function::Upper | Function::Lower | Function::Concat | Function::Append => {
            let name = function.name();
            Err(format!("{name} over strings without a dictionary has no kernel"))
        }
        _ => Ok(()),
    }
}

/// A position among characters, or a number of them: U32.
type Count = Ir;

impl Lowering<'_> {
    /// A call whose arguments are these values, of which some string isn't a constant.
    pub(super) fn call_function(
        &mut self,
        function: Function,
        args: &[Expr],
        values: &[Value],
        data_type: &Type,
    ) -> Lowered<Value> {
        if function.descriptor().strict && values.iter().any(is_null) {
            return Ok(null_of(data_type));
        }
        support(function).map_err(Unsupported)?;
        let mut null = None;
        for value in values {
            null = self.either_null(null, value.null.clone());
        }
        let absent = || Unsupported(format!("{} without arguments", function.name()));
        let text = values.first().ok_or_else(absent)?;
        let text = self.handle(text)?;
        let text = self.keep(Scalar::U64, text);
        let second = values.get(1);
        let ir = match function {
            Function::OctetLength => return Ok(self.length(handle_length(text), data_type, null)),
            Function::CharacterLength => {
                let count = self.text_characters(text);
                return Ok(self.length(count, data_type, null));
            }
            Function::StartsWith | Function::EndsWith | Function::Contains | Function::Position => {
                let part = self.handle(second.ok_or_else(absent)?)?;
                let ir = match function {
                    Function::StartsWith => self.text_at(text, part, build::u32(0)),
                    Function::EndsWith => self.at_end(&text, part),
                    _ => {
                        let at = self.text_find(text.clone(), part, build::u32(0));
                        let at = self.keep(Scalar::U32, at);
                        let found = at.clone().ne(build::u32(NOWHERE));
                        if function == Function::Position {
                            return Ok(self.position(text, at, found, data_type, null));
                        }
                        found
                    }
                };
                return Ok(boolean(self.flag(ir), null));
            }
            Function::Substring => self.substring(&text, values, null.as_ref())?,
            Function::Left | Function::Right => self.side(function, &text, second.ok_or_else(absent)?)?,
            Function::Trim | Function::TrimStart | Function::TrimEnd => self.trim(function, text, args.get(1))?,
            _ => return Err(absent()),
        };
        Ok(other(data_type, Kind::Text, self.keep(Scalar::U64, ir), null))
    }

    fn length(&mut self, count: Ir, data_type: &Type, null: Option<Ir>) -> Value {
        let ir = self.keep(Scalar::I32, count.to(Scalar::I32));
        integral(data_type, Number { ir, range: LENGTHS }, null)
    }

    fn position(&mut self, text: Ir, at: Ir, found: Ir, data_type: &Type, null: Option<Ir>) -> Value {
        let found = self.flag(found);
        let end = found.clone().select(at, build::u32(0));
        let before = self.text_characters(part_of(text, build::u32(0), end));
        let place = before.plus(build::u32(1)).to(Scalar::I32);
        let ir = self.keep(Scalar::I32, found.select(place, build::i32(0)));
        let range = (0, LENGTHS.1 + 1);
        integral(data_type, Number { ir, range }, null)
    }

    fn substring(&mut self, text: &Ir, values: &[Value], null: Option<&Ir>) -> Lowered<Ir> {
        let start = number(
            values
                .get(1)
                .ok_or_else(|| Unsupported("substr of nothing".to_owned()))?,
        )?;
        let length = values.get(2).map(number).transpose()?;
        let far = |range: Range| range.0 < -(1 << 62) || range.1 > 1 << 62;
        let odd = |length: &Number| far(length.range) || length.range.0 < 0;
        if far(start.range) || length.as_ref().is_some_and(odd) {
            return self.constant_substring(text, &start, length.as_ref(), null);
        }
        let lane = Scalar::I64;
        let first = self.keep(lane, start.to(lane).minus(constant(lane, 1)));
        let from = self.count(first.clone());
        let begin = self.text_skip(text.clone(), build::u32(0), from.clone());
        let begin = self.keep(Scalar::U32, begin);
        let end = match length {
            None => handle_length(text.clone()),
            Some(length) => {
                let after = self.keep(lane, first.plus(length.to(lane)));
                let after = self.count(after);
                let more = after.clone().gt(from.clone()).select(after.minus(from), build::u32(0));
                self.text_skip(text.clone(), begin.clone(), more)
            }
        };
        let end = self.keep(Scalar::U32, end);
        Ok(part_of(text.clone(), begin, end))
    }

    /// With numbers so large, or negative lengths: only constants, of which it is known whether they are errors.
    fn constant_substring(
        &mut self,
        text: &Ir,
        start: &Number,
        length: Option<&Number>,
        null: Option<&Ir>,
    ) -> Lowered<Ir> {
        let unknown = || Unsupported("substr of any start and length over strings without a dictionary".to_owned());
        let exact = |number: &Number| {
            let value = (number.range.0 == number.range.1).then_some(number.range.0);
            value.and_then(|value| i64::try_from(value).ok()).ok_or_else(unknown)
        };
        let range = substring_range(exact(start)?, length.map(exact).transpose()?);
        let (first, after) = match range {
            Ok(range) => range,
            Err(message) => {
                self.fail(build::bool(true), null, arithmetic_error(&message));
                return Ok(text.clone());
            }
        };
        let clamp = |at: u64| Word::Value(at.min(u32::MAX.into()));
        let (first, after) = (self.word(clamp(first)), self.word(clamp(after.max(first))));
        let (first, after) = (first.to(Scalar::U32), after.to(Scalar::U32));
        let begin = self.text_skip(text.clone(), build::u32(0), first.clone());
        let begin = self.keep(Scalar::U32, begin);
        let end = self.text_skip(text.clone(), begin.clone(), after.minus(first));
        let end = self.keep(Scalar::U32, end);
        Ok(part_of(text.clone(), begin, end))
    }

    /// A number of characters from an I64: nothing where it is negative, all where it is too large.
    fn count(&mut self, value: Ir) -> Count {
        let value = value.max(build::i64(0)).min(build::i64(LENGTH_MAX + 1));
        self.keep(Scalar::U32, value.to(Scalar::U32))
    }

    fn side(&mut self, function: Function, text: &Ir, count: &Value) -> Lowered<Ir> {
        let count = number(count)?;
        let wide = count.to(Scalar::I64);
        let forward = count.range.0 >= 0;
        if !forward && count.range.1 >= 0 {
            let name = function.name();
            return Err(Unsupported(format!(
                "{name} of any sign over strings without a dictionary"
            )));
        }
        let size = if forward {
            wide.clone()
        } else {
            // The smallest integer has no opposite; no text is as long as its neighbour.
            wide.clone().max(build::i64(-i64::MAX)).negate()
        };
        let size = self.count(size);
        let length = handle_length(text.clone());
        let (from, to) = match (function, forward) {
            (Function::Left, true) => (build::u32(0), self.text_skip(text.clone(), build::u32(0), size)),
            (Function::Left, false) => (build::u32(0), self.text_back(text.clone(), size)),
            (_, true) => (self.text_back(text.clone(), size), length),
            (_, false) => (self.text_skip(text.clone(), build::u32(0), size), length),
        };
        let (from, to) = (self.keep(Scalar::U32, from), self.keep(Scalar::U32, to));
        Ok(part_of(text.clone(), from, to))
    }

    fn trim(&mut self, function: Function, text: Ir, characters: Option<&Expr>) -> Lowered<Ir> {
        let characters: Arc<[u8]> = match characters {
            None => Arc::from(*b" "),
            Some(characters) => match self.folded(characters)? {
                Some(Ok(Constant::Bytes(bytes))) if bytes.is_ascii() => bytes,
                _ => {
                    return Err(Unsupported(
                        "trimming of other than constant ASCII characters".to_owned(),
                    ));
                }
            },
        };
        let flags = (0..128_u8).map(|byte| u8::from(characters.contains(&byte)));
        let flags = self.table(flags.collect::<Arc<[u8]>>());
        let mut ir = text;
        if function != Function::TrimEnd {
            ir = self.text_trim(ir, flags.clone(), true);
            ir = self.keep(Scalar::U64, ir);
        }
        if function != Function::TrimStart {
            ir = self.text_trim(ir, flags, false);
        }
        Ok(ir)
    }
}
