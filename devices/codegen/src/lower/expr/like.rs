//! LIKE over strings that aren't codes: prefixes, suffixes and parts by themselves, other patterns element by element.

use std::sync::Arc;

use trireme_device_api::Type;

use super::bytes::{MANY, NOWHERE, ONE};
use crate::build;
use crate::ir::{Expr as Ir, Scalar};
use crate::lower::text::handle_length;
use crate::lower::{Lowered, Lowering, Unsupported};
use crate::program::Word;

/// A pattern's elements: bytes, [`ONE`], [`MANY`].
fn elements(pattern: &[u8]) -> Vec<u32> {
    let mut elements = Vec::with_capacity(pattern.len());
    let mut bytes = pattern.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' if elements.last() == Some(&MANY) => {}
            b'%' => elements.push(MANY),
            b'_' => elements.push(ONE),
            b'\\' => elements.push(u32::from(*bytes.next().unwrap_or(&b'\\'))),
            other => elements.push(u32::from(*other)),
        }
    }
    elements
}

/// The bytes of elements that are nothing else.
fn literal(elements: &[u32]) -> Option<Vec<u8>> {
    elements.iter().map(|element| u8::try_from(*element).ok()).collect()
}

impl Lowering<'_> {
    /// Bool: a handle's text matches the pattern.
    pub(super) fn like(&mut self, text: &Ir, pattern: &[u8], case_insensitive: bool) -> Lowered<Ir> {
        if case_insensitive {
            return Err(Unsupported(
                "ILIKE over strings without a dictionary has no kernel".to_owned(),
            ));
        }
        let elements = elements(pattern);
        match elements.as_slice() {
            [MANY] => return Ok(build::bool(true)),
            [MANY, middle @ .., MANY] => {
                if let Some(part) = literal(middle) {
                    let part = self.text_literal(&part)?;
                    return Ok(self.text_find(text.clone(), part).ne(build::u32(NOWHERE)));
                }
            }
            [MANY, suffix @ ..] => {
                if let Some(suffix) = literal(suffix) {
                    let suffix = self.text_literal(&suffix)?;
                    return Ok(self.at_end(text, suffix));
                }
            }
            [prefix @ .., MANY] => {
                if let Some(prefix) = literal(prefix) {
                    let prefix = self.text_literal(&prefix)?;
                    return Ok(self.text_at(text.clone(), prefix, build::u32(0)));
                }
            }
            all => {
                if let Some(exact) = literal(all) {
                    let exact = self.text_literal(&exact)?;
                    return Ok(self.text_equal(text.clone(), exact));
                }
            }
        }
        let bytes = elements
            .iter()
            .flat_map(|element| element.to_le_bytes().into_iter().take(2));
        let base = self.table(bytes.collect::<Arc<[u8]>>());
        let count = self.word(Word::Value(elements.len() as u64)).to(Scalar::U32);
        Ok(self.text_like(text.clone(), base, count))
    }

    /// Bool: a text ends with another.
    pub(super) fn at_end(&mut self, text: &Ir, suffix: Ir) -> Ir {
        let (length, size) = (handle_length(text.clone()), handle_length(suffix.clone()));
        let fits = self.flag(size.clone().le(length.clone()));
        let at = fits.clone().select(length.minus(size), build::u32(0));
        fits.and(self.text_at(text.clone(), suffix, at))
    }

    /// The handle of a constant text.
    fn text_literal(&mut self, bytes: &[u8]) -> Lowered<Ir> {
        let value = self.text_constant(bytes, &Type::Utf8);
        self.handle(&value)
    }
}
