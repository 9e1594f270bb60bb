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
        let runs: Option<Vec<Vec<u8>>> = elements.split(|element| *element == MANY).map(literal).collect();
        match runs.as_deref() {
            Some([exact]) => {
                let exact = self.text_literal(exact)?;
                Ok(self.text_equal(text.clone(), exact))
            }
            Some([prefix, parts @ .., suffix]) => self.in_order(text, prefix, parts, suffix),
            _ => {
                let bytes = elements
                    .iter()
                    .flat_map(|element| element.to_le_bytes().into_iter().take(2));
                let base = self.table(bytes.collect::<Arc<[u8]>>());
                let count = self.word(Word::Value(elements.len() as u64)).to(Scalar::U32);
                Ok(self.text_like(text.clone(), base, count))
            }
        }
    }

    /// Bool: the text begins with the prefix, holds the parts one after another, and ends with the suffix after them.
    fn in_order(&mut self, text: &Ir, prefix: &[u8], parts: &[Vec<u8>], suffix: &[u8]) -> Lowered<Ir> {
        let nowhere = || build::u32(NOWHERE);
        let mut tests = Vec::new();
        let mut at = build::u32(0);
        if !prefix.is_empty() {
            let prefix = self.text_literal(prefix)?;
            let begins = self.text_at(text.clone(), prefix.clone(), build::u32(0));
            if parts.is_empty() && suffix.is_empty() {
                return Ok(begins);
            }
            let begins = self.flag(begins);
            at = self.keep(Scalar::U32, begins.clone().select(handle_length(prefix), nowhere()));
            tests.push(begins);
        }
        for part in parts {
            let part = self.text_literal(part)?;
            let found = self.text_find(text.clone(), part.clone(), at);
            let found = self.keep(Scalar::U32, found);
            let somewhere = self.flag(found.clone().ne(nowhere()));
            let after = found.plus(handle_length(part));
            at = self.keep(Scalar::U32, somewhere.clone().select(after, nowhere()));
            // Where an earlier part isn't, no later one is.
            tests = vec![somewhere];
        }
        if !suffix.is_empty() {
            let suffix = self.text_literal(suffix)?;
            let (length, size) = (handle_length(text.clone()), handle_length(suffix.clone()));
            let start = self.keep(Scalar::U32, length.clone().minus(size.clone()));
            let fits = self.flag(size.le(length).and(at.le(start.clone())));
            let start = fits.clone().select(start, build::u32(0));
            let ends = fits.and(self.text_at(text.clone(), suffix, start));
            tests.push(ends);
        }
        Ok(tests.into_iter().reduce(Ir::and).unwrap_or(build::bool(true)))
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
