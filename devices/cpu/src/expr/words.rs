//! Short strings as words, so that equality with constants is a comparison of integers.
//!
//! ```text
//!  "abc"    bytes 0–6: 'a' 'b' 'c' 0 0 0 0    byte 7: 3, the length
//!  longer than seven bytes: all ones
//! ```

use std::borrow::Cow;

use trireme_device_api::DeviceError;

use super::text::views;
use super::{Compiled, Input};
use crate::bytes::{eight, low_bytes};
use crate::tile::RawStrings;
use crate::vector::Data;

/// The longest string that a word tells from all others.
pub(super) const WORD_BYTES: usize = 7;
/// A string that doesn't fit.
const LONG: i64 = -1;

/// A word per row, and which rows have a value.
pub(super) type Words<'x> = (Vec<i64>, Option<Cow<'x, [u8]>>);

/// The word of a value.
pub(super) fn word(value: &[u8]) -> i64 {
    let at = |from: usize| u64::from(value.get(from).copied().unwrap_or_default()) << (8 * from);
    let low = match value.len() {
        0 => 0,
        len @ 4..=WORD_BYTES => {
            let four = |from: usize| {
                let mut bytes = [0; 4];
                bytes.copy_from_slice(&value[from..from + 4]);
                u64::from(u32::from_le_bytes(bytes))
            };
            four(0) | four(len - 4) << (8 * (len - 4))
        }
        1..=3 => at(0) | at(1) | at(2),
        _ => return LONG,
    };
    tagged(low, value.len())
}

/// A word of its bytes and its length, which is at most seven.
fn tagged(bytes: u64, len: usize) -> i64 {
    (bytes | (len as u64) << 56).cast_signed()
}

/// The words of an expression of strings.
pub(super) fn of<'x>(operand: &Compiled, input: &Input<'_, 'x>) -> Result<Words<'x>, DeviceError> {
    if let Some(words) = operand.node.words(input)? {
        return Ok(words);
    }
    let vector = operand.eval(input)?;
    let words = match &vector.data {
        Data::Codes(codes, dictionary) if dictionary.len() <= codes.len() => {
            let entries: Vec<i64> = (0..dictionary.len() as u32)
                .map(|code| word(dictionary.get(code)))
                .collect();
            let entry = |code: &u32| entries.get(*code as usize).copied().unwrap_or_default();
            codes.iter().map(entry).collect()
        }
        _ => views(&vector).iter().map(|value| word(value)).collect(),
    };
    Ok((words, vector.valid))
}

/// The words of strings as they lie in a segment.
pub(super) fn raw(strings: &RawStrings<'_>) -> Vec<i64> {
    bounds(strings)
        .map(|(start, end)| match end - start {
            len @ 0..=WORD_BYTES => tagged(eight(strings.bytes, start) & low_bytes(len), len),
            _ => LONG,
        })
        .collect()
}

/// The words of characters `first..after` of strings as they lie in a segment; `slow` gives the word of a value that isn't
/// ASCII. `after` is at most eight and the part at most seven characters.
pub(super) fn raw_parts(strings: &RawStrings<'_>, first: usize, after: usize, slow: impl Fn(&[u8]) -> i64) -> Vec<i64> {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    debug_assert!(first <= after && after <= 8 && after - first <= WORD_BYTES);
    bounds(strings)
        .map(|(start, end)| {
            let len = (end - start).min(after);
            let bytes = eight(strings.bytes, start) & low_bytes(len);
            if bytes & HIGH != 0 {
                return slow(&strings.bytes[start..end]);
            }
            match len.checked_sub(first) {
                None | Some(0) => 0,
                Some(len) => tagged(bytes >> (8 * first), len),
            }
        })
        .collect()
}

fn bounds<'s>(strings: &'s RawStrings<'_>) -> impl Iterator<Item = (usize, usize)> + 's {
    let pairs = strings.offsets.iter().zip(strings.offsets.iter().skip(1));
    pairs.map(|(start, end)| (*start as usize, *end as usize))
}

#[cfg(test)]
mod tests {
    use super::{LONG, raw, raw_parts, word};
    use crate::tile::RawStrings;

    #[test]
    fn words_differ_as_the_values_do() {
        let values: [&[u8]; 12] = [
            b"",
            b"\0",
            b"a",
            b"a\0",
            b"ab",
            b"abc",
            b"abcd",
            b"abcde",
            b"abcdef",
            b"abcdefg",
            b"\xff\xff\xff\xff\xff\xff\xff",
            b"b",
        ];
        for (at, value) in values.iter().enumerate() {
            assert_ne!(word(value), LONG);
            for other in &values[at + 1..] {
                assert_ne!(word(value), word(other), "{value:?} {other:?}");
            }
        }
        assert_eq!(word(b"abcdefgh"), LONG);
        assert_eq!(word(&[0; 300]), LONG);
    }

    #[test]
    fn values_in_a_segment_have_the_same_words() {
        let values = ["", "a", "abcdefg", "abcdefgh", "é", "abécd", "13-555", "xy"];
        let mut offsets = vec![0_u32];
        let mut bytes = Vec::new();
        for value in values {
            bytes.extend_from_slice(value.as_bytes());
            offsets.push(bytes.len() as u32);
        }
        let strings = RawStrings {
            offsets: &offsets,
            bytes: &bytes,
            valid: None,
        };
        let expected: Vec<i64> = values.iter().map(|value| word(value.as_bytes())).collect();
        assert_eq!(raw(&strings), expected);
        for first in 0..8 {
            for after in first..=8.min(first + 7) {
                let part = |value: &str| -> String { value.chars().take(after).skip(first).collect() };
                let slow = |value: &[u8]| word(part(std::str::from_utf8(value).unwrap()).as_bytes());
                let expected: Vec<i64> = values.iter().map(|value| word(part(value).as_bytes())).collect();
                assert_eq!(raw_parts(&strings, first, after, slow), expected, "{first}..{after}");
            }
        }
    }
}
