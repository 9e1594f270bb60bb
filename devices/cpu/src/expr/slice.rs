//! Functions of one string that loops over bytes do: substrings, lengths, upper and lower case.
//!
//! All of them have one path for ASCII, which is found out as they go, and one for the rest. Substrings borrow: they are
//! slices of the operand's values.

use trireme_device_api::{DeviceError, Strings, Type};

use super::words::{self, WORD_BYTES, Words};
use super::{Compiled, Input, Node};
use crate::isa::primitive;
use crate::number::{Number, by_lane, map, map_values};
use crate::tile::RawStrings;
use crate::vector::{Data, Shape, Vector};

/// Builds the characters `first..after` of a string.
pub(super) fn part(text: Compiled, first: usize, after: usize, data_type: &Type) -> Compiled {
    let shape = Shape::of_type(data_type.clone(), text.shape.nullable);
    let (fails, costly) = (text.fails, text.costly);
    Compiled::new(Part { text, first, after }, shape, fails, costly)
}

/// Builds a string's length in characters, or in bytes.
pub(super) fn length(text: Compiled, characters: bool, data_type: &Type) -> Compiled {
    let mut shape = Shape::of_type(data_type.clone(), text.shape.nullable);
    shape.range = Some((0, i32::MAX.into()));
    let (fails, costly) = (text.fails, text.costly);
    let node = Length {
        text,
        characters,
        shape: shape.clone(),
    };
    Compiled::new(node, shape, fails, costly)
}

/// Builds a string in upper or lower case.
pub(super) fn folded(text: Compiled, upper: bool, data_type: &Type) -> Compiled {
    let shape = Shape::of_type(data_type.clone(), text.shape.nullable);
    let fails = text.fails;
    Compiled::new(Folded { text, upper }, shape, fails, true)
}

fn raw<'x>(text: &Compiled, input: &Input<'_, 'x>) -> Option<RawStrings<'x>> {
    text.column.and_then(|index| input.raw_strings(index))
}

/// Characters of a string.
struct Part {
    text: Compiled,
    first: usize,
    after: usize,
}

impl Node for Part {
    fn eval<'x>(&self, input: &Input<'_, 'x>) -> Result<Vector<'x>, DeviceError> {
        let Vector { data, valid } = self.text.eval(input)?;
        let data = match data {
            Data::Bytes(mut values) => {
                for value in &mut values {
                    *value = self.of(value);
                }
                Data::Bytes(values)
            }
            data => {
                let vector = Vector::new(data);
                let values = (0..vector.len()).map(|row| self.of(vector.bytes_at(row)));
                Data::Strings(Strings::from_values(values).addressed()?)
            }
        };
        Ok(Vector { data, valid })
    }

    fn words<'x>(&self, input: &Input<'_, 'x>) -> Result<Option<Words<'x>>, DeviceError> {
        if self.after > 8 || self.after.saturating_sub(self.first) > WORD_BYTES {
            return Ok(None);
        }
        Ok(raw(&self.text, input).map(|raw| {
            let first = self.first.min(self.after);
            let words = words::raw_parts(&raw, first, self.after, |value| words::word(self.of(value)));
            (words, raw.valid)
        }))
    }
}

impl Part {
    fn of<'v>(&self, value: &'v [u8]) -> &'v [u8] {
        let open = self.after == usize::MAX;
        let known = if open { self.first } else { self.after }.min(value.len());
        let (first, after) = if value[..known].is_ascii() {
            (self.first, if open { value.len() } else { known })
        } else {
            (begin(value, self.first), begin(value, self.after))
        };
        &value[first.min(after)..after]
    }
}

/// Where a character begins; the end of the value when there are fewer.
fn begin(value: &[u8], character: usize) -> usize {
    let mut starts = value.iter().enumerate().filter(|(_, byte)| starts_character(**byte));
    starts.nth(character).map_or(value.len(), |(at, _)| at)
}

fn starts_character(byte: u8) -> bool {
    byte & 0xc0 != 0x80
}

/// Characters or bytes of a string.
struct Length {
    text: Compiled,
    characters: bool,
    shape: Shape,
}

impl Node for Length {
    fn eval<'x>(&self, input: &Input<'_, 'x>) -> Result<Vector<'x>, DeviceError> {
        let (lengths, valid) = match raw(&self.text, input) {
            Some(raw) => (self.raw(&raw, input), raw.valid),
            None => {
                let vector = self.text.eval(input)?;
                let lengths = super::text::views(&vector).iter().map(|value| self.of(value)).collect();
                (lengths, vector.valid)
            }
        };
        let lane = self.shape.lane().ok_or_else(super::not_integral)?;
        let data = by_lane!(lane, T => T::data(map_values(&lengths, |length: u32| T::of(length.into())).into()));
        Ok(Vector { data, valid })
    }
}

impl Length {
    fn of(&self, value: &[u8]) -> u32 {
        if self.characters {
            value.iter().filter(|byte| starts_character(**byte)).count() as u32
        } else {
            value.len() as u32
        }
    }

    fn raw(&self, raw: &RawStrings<'_>, input: &Input<'_, '_>) -> Vec<u32> {
        let bytes = all_bytes(raw);
        if !self.characters || bytes.is_ascii() {
            return differences(input.isa, raw.offsets);
        }
        let pairs = raw.offsets.iter().zip(raw.offsets.iter().skip(1));
        pairs
            .map(|(start, end)| self.of(&raw.bytes[*start as usize..*end as usize]))
            .collect()
    }
}

/// The bytes of all rows.
fn all_bytes<'x>(raw: &RawStrings<'x>) -> &'x [u8] {
    match (raw.offsets.first(), raw.offsets.last()) {
        (Some(start), Some(end)) => &raw.bytes[*start as usize..*end as usize],
        _ => &[],
    }
}

primitive! {
    /// Each offset less the one before.
    fn differences[](offsets: &[u32]) -> Vec<u32> {
        let ends = offsets.get(1..).unwrap_or_default();
        ends.iter().zip(offsets).map(|(end, start)| end.wrapping_sub(*start)).collect()
    }
}

/// Upper or lower case.
struct Folded {
    text: Compiled,
    upper: bool,
}

impl Node for Folded {
    fn eval<'x>(&self, input: &Input<'_, 'x>) -> Result<Vector<'x>, DeviceError> {
        let ascii = if self.upper {
            |byte: u8| byte.to_ascii_uppercase()
        } else {
            |byte: u8| byte.to_ascii_lowercase()
        };
        if let Some(raw) = raw(&self.text, input)
            && all_bytes(&raw).is_ascii()
        {
            let first = raw.offsets.first().copied().unwrap_or_default();
            let strings = Strings {
                offsets: map(input.isa, raw.offsets, |offset: u32| offset.wrapping_sub(first)).into(),
                bytes: map(input.isa, all_bytes(&raw), ascii).into(),
            };
            return Ok(Vector::new(Data::Strings(strings)).with_valid(raw.valid));
        }
        let vector = self.text.eval(input)?;
        let mut offsets = vec![0_u32];
        let mut bytes = Vec::new();
        for value in super::text::views(&vector).iter() {
            if value.is_ascii() {
                bytes.extend(value.iter().map(|byte| ascii(*byte)));
            } else {
                bytes.extend_from_slice(self.unicode(value).as_bytes());
            }
            offsets.push(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        }
        let strings = Strings {
            offsets: offsets.into(),
            bytes: bytes.into(),
        };
        Ok(Vector::new(Data::Strings(strings.addressed()?)).with_valid(vector.valid))
    }
}

impl Folded {
    fn unicode(&self, value: &[u8]) -> String {
        let text = String::from_utf8_lossy(value);
        if self.upper {
            text.to_uppercase()
        } else {
            text.to_lowercase()
        }
    }
}
