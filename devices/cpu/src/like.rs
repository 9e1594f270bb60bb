//! LIKE and ILIKE against a constant pattern, specialised by the pattern's form.
//!
//! `%` is any run of characters, `_` one character, a backslash takes the next character as it is (the last one is itself).

use memchr::memmem::Finder;

use crate::bytes::{eight, low_bytes};
use crate::fold::folded;

/// A pattern, ready to match.
#[derive(Debug)]
pub(crate) struct Matcher {
    form: Form,
    fold: bool,
}

#[derive(Debug)]
enum Form {
    Exact(Vec<u8>),
    Prefix(Vec<u8>),
    Suffix(Vec<u8>),
    Contains(Box<Finder<'static>>),
    /// `prefix%part%part%suffix`.
    Parts {
        prefix: Vec<u8>,
        parts: Vec<Finder<'static>>,
        suffix: Vec<u8>,
    },
    General {
        items: Vec<Item>,
        /// A text that every match holds.
        anchor: Option<Box<Finder<'static>>>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    Byte(u8),
    One,
    Many,
}

impl Matcher {
    /// For a pattern; `fold` compares without regard to case.
    pub(crate) fn new(pattern: &[u8], fold: bool) -> Self {
        let pattern = if fold { folded(pattern) } else { pattern.to_vec() };
        let items = items(&pattern);
        let form = if items.contains(&Item::One) {
            let anchor = longest_text(&items).map(|text| Box::new(Finder::new(&text).into_owned()));
            Form::General { items, anchor }
        } else {
            literal_form(&items)
        };
        Self { form, fold }
    }

    /// For what begins with a text.
    pub(crate) fn starting_with(text: &[u8]) -> Self {
        Self::plain(Form::Prefix(text.to_vec()))
    }

    /// For what ends with a text.
    pub(crate) fn ending_with(text: &[u8]) -> Self {
        Self::plain(Form::Suffix(text.to_vec()))
    }

    /// For what holds a text.
    pub(crate) fn containing(text: &[u8]) -> Self {
        if text.is_empty() {
            return Self::starting_with(text);
        }
        Self::plain(Form::Contains(Box::new(Finder::new(text).into_owned())))
    }

    fn plain(form: Form) -> Self {
        Self { form, fold: false }
    }

    /// Whether a value matches as a whole.
    pub(crate) fn matches(&self, value: &[u8]) -> bool {
        if self.fold {
            return self.matches_folded(&folded(value));
        }
        self.matches_folded(value)
    }

    /// 1 for each of the values `bytes[offsets[i]..offsets[i + 1]]` that matches; `negated`, for each that doesn't.
    ///
    /// A pattern with a text in its middle is searched for through all values at once.
    pub(crate) fn matches_all(&self, offsets: &[u32], bytes: &[u8], negated: bool) -> Vec<u8> {
        let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else {
            return Vec::new();
        };
        let values = Values {
            offsets,
            bytes: &bytes[..*last as usize],
        };
        let mut out = vec![0; offsets.len() - 1];
        if !self.fold {
            self.mark(&values, &mut out);
        } else if values.bytes[*first as usize..].is_ascii() {
            let lowered = Values {
                offsets: &offsets.iter().map(|offset| offset - first).collect::<Vec<_>>(),
                bytes: &values.bytes[*first as usize..].to_ascii_lowercase(),
            };
            self.mark(&lowered, &mut out);
        } else {
            values.each(&mut out, |value| self.matches(value));
        }
        if negated {
            out.iter_mut().for_each(|byte| *byte ^= 1);
        }
        out
    }

    /// Marks the values that match, which are folded if that is asked for.
    fn mark(&self, values: &Values<'_>, out: &mut [u8]) {
        match &self.form {
            Form::Exact(_) => values.each(out, |value| self.matches_folded(value)),
            Form::Prefix(prefix) => values.mark_beginning(prefix, out),
            Form::Suffix(suffix) => values.mark_ending(suffix, out),
            Form::Contains(part) => values.search(part, out, |_, _| true),
            Form::Parts { prefix, parts, suffix } => match parts.split_first() {
                Some((first, rest)) if prefix.is_empty() => {
                    values.search(first, out, |value, after| in_order(&value[after..], rest, suffix));
                }
                Some((first, _)) => values.search(first, out, |value, _| self.matches_folded(value)),
                None => values.each(out, |value| self.matches_folded(value)),
            },
            Form::General { anchor: Some(part), .. } => {
                values.search(part, out, |value, _| self.matches_folded(value));
            }
            Form::General { anchor: None, .. } => values.each(out, |value| self.matches_folded(value)),
        }
    }

    fn matches_folded(&self, value: &[u8]) -> bool {
        match &self.form {
            Form::Exact(exact) => value == exact.as_slice(),
            Form::Prefix(prefix) => value.starts_with(prefix),
            Form::Suffix(suffix) => value.ends_with(suffix),
            Form::Contains(part) => part.find(value).is_some(),
            Form::Parts { prefix, parts, suffix } => {
                if prefix.is_empty() {
                    return in_order(value, parts, suffix);
                }
                let rest = value.strip_prefix(prefix.as_slice());
                rest.is_some_and(|rest| in_order(rest, parts, suffix))
            }
            Form::General { items, anchor } => {
                anchor.as_ref().is_none_or(|anchor| anchor.find(value).is_some()) && general(items, value)
            }
        }
    }
}

/// Values that lie one after another.
struct Values<'v> {
    /// Where values begin, and where the last ends.
    offsets: &'v [u32],
    bytes: &'v [u8],
}

impl<'v> Values<'v> {
    fn bounds(&self) -> impl Iterator<Item = (usize, usize)> + use<'v> {
        let pairs = self.offsets.iter().zip(self.offsets.iter().skip(1));
        pairs.map(|(start, end)| (*start as usize, *end as usize))
    }

    fn each(&self, out: &mut [u8], matches: impl Fn(&[u8]) -> bool) {
        for (out, (start, end)) in out.iter_mut().zip(self.bounds()) {
            *out = u8::from(matches(&self.bytes[start..end]));
        }
    }

    fn mark_beginning(&self, prefix: &[u8], out: &mut [u8]) {
        let first = prefix.len().min(8);
        let (wanted, mask) = (eight(prefix, 0) & low_bytes(first), low_bytes(first));
        for (out, (start, end)) in out.iter_mut().zip(self.bounds()) {
            let found = (eight(self.bytes, start) & mask == wanted) & (end - start >= prefix.len());
            *out = u8::from(found);
        }
        if prefix.len() > 8 {
            for (out, (start, _)) in out.iter_mut().zip(self.bounds()).filter(|(out, _)| **out == 1) {
                *out = u8::from(self.bytes[start..].starts_with(prefix));
            }
        }
    }

    fn mark_ending(&self, suffix: &[u8], out: &mut [u8]) {
        let last = suffix.len().min(8);
        let (wanted, mask) = (eight(suffix, suffix.len() - last), low_bytes(last));
        for (out, (start, end)) in out.iter_mut().zip(self.bounds()) {
            let found = eight(self.bytes, end.saturating_sub(last)) & mask == wanted;
            *out = u8::from(found & (end - start >= suffix.len()));
        }
        if suffix.len() > 8 {
            for (out, (_, end)) in out.iter_mut().zip(self.bounds()).filter(|(out, _)| **out == 1) {
                *out = u8::from(self.bytes[..end].ends_with(suffix));
            }
        }
    }

    /// Marks values that hold `part` and for which `matches` says so, given the value and where its first `part` ends.
    fn search(&self, part: &Finder<'_>, out: &mut [u8], matches: impl Fn(&[u8], usize) -> bool) {
        let length = part.needle().len();
        let (mut row, mut at) = (0, self.offsets[0] as usize);
        while let Some(found) = part.find(&self.bytes[at..]) {
            let found = at + found;
            while self.offsets[row + 1] as usize <= found {
                row += 1;
            }
            let next = self.offsets[row + 1] as usize;
            if found + length > next {
                // It begins in one value and ends in another.
                at = found + 1;
                continue;
            }
            let start = self.offsets[row] as usize;
            out[row] = u8::from(matches(&self.bytes[start..next], found + length - start));
            at = next;
        }
    }
}

/// Whether a value holds the parts one after another and then ends with the suffix.
fn in_order(value: &[u8], parts: &[Finder<'_>], suffix: &[u8]) -> bool {
    let mut rest = value;
    // Comparing nothing costs dozens of nanoseconds where the text is a place that no memory has.
    if !suffix.is_empty() {
        let Some(before) = rest.strip_suffix(suffix) else {
            return false;
        };
        rest = before;
    }
    for part in parts {
        match part.find(rest) {
            Some(at) => rest = &rest[at + part.needle().len()..],
            None => return false,
        }
    }
    true
}

/// The longest run of bytes between wildcards, if there is one.
fn longest_text(items: &[Item]) -> Option<Vec<u8>> {
    let byte = |item: &Item| match item {
        Item::Byte(byte) => Some(*byte),
        _ => None,
    };
    let texts = items.split(|item| byte(item).is_none());
    let longest = texts.max_by_key(|text| text.len())?;
    let longest: Vec<u8> = longest.iter().filter_map(byte).collect();
    (!longest.is_empty()).then_some(longest)
}

fn items(pattern: &[u8]) -> Vec<Item> {
    let mut items = Vec::with_capacity(pattern.len());
    let mut bytes = pattern.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                if items.last() != Some(&Item::Many) {
                    items.push(Item::Many);
                }
            }
            b'_' => items.push(Item::One),
            b'\\' => items.push(Item::Byte(*bytes.next().unwrap_or(&b'\\'))),
            other => items.push(Item::Byte(*other)),
        }
    }
    items
}

/// The form of a pattern without `_`.
fn literal_form(items: &[Item]) -> Form {
    let literal = |items: &[Item]| -> Vec<u8> {
        items
            .iter()
            .filter_map(|item| match item {
                Item::Byte(byte) => Some(*byte),
                _ => None,
            })
            .collect()
    };
    let mut runs: Vec<Vec<u8>> = items.split(|item| *item == Item::Many).map(literal).collect();
    let suffix = runs.pop().unwrap_or_default();
    if runs.is_empty() {
        return Form::Exact(suffix);
    }
    let prefix = runs.remove(0);
    let finder = |run: &Vec<u8>| Finder::new(run.as_slice()).into_owned();
    match (prefix.is_empty(), runs.as_slice(), suffix.is_empty()) {
        (_, [], true) => Form::Prefix(prefix),
        (true, [], false) => Form::Suffix(suffix),
        (true, [only], true) => Form::Contains(Box::new(finder(only))),
        _ => Form::Parts {
            prefix,
            parts: runs.iter().map(finder).collect(),
            suffix,
        },
    }
}

/// Greedy, with one point to come back to: the last `%`.
fn general(items: &[Item], value: &[u8]) -> bool {
    let (mut item, mut at) = (0, 0);
    let mut again: Option<(usize, usize)> = None;
    loop {
        let advanced = match items.get(item) {
            Some(Item::Many) => {
                again = Some((item + 1, at));
                item += 1;
                continue;
            }
            Some(Item::Byte(byte)) => (value.get(at) == Some(byte)).then_some(1),
            Some(Item::One) => value.get(at).map(|_| width(value, at)),
            None if at == value.len() => return true,
            None => None,
        };
        match (advanced, again) {
            (Some(width), _) => {
                item += 1;
                at += width;
            }
            (None, Some((start, from))) if from < value.len() => {
                let from = from + width(value, from);
                again = Some((start, from));
                (item, at) = (start, from);
            }
            _ => return false,
        }
    }
}

/// Bytes of the character that starts at `at`.
fn width(value: &[u8], at: usize) -> usize {
    let wide = match value[at] {
        0xf0.. => 4,
        0xe0..=0xef => 3,
        0xc0..=0xdf => 2,
        _ => 1,
    };
    wide.min(value.len() - at)
}

#[cfg(test)]
mod tests {
    use super::Matcher;

    #[test]
    fn forms_match_what_they_say() {
        let cases = [
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("abc%", "abcd", true),
            ("%abc", "xabc", true),
            ("%abc", "abcx", false),
            ("%b%", "abc", true),
            ("%", "", true),
            ("", "", true),
            ("", "a", false),
            ("a%a", "a", false),
            ("a%a", "aa", true),
            ("%special%requests%", "x special y requests z", true),
            ("%special%requests%", "requests special", false),
            ("a_c", "aäc", true),
            ("a_c", "ac", false),
            ("_%", "ä", true),
            ("%_", "", false),
            ("%a_b%", "aaxb", true),
            (r"100\%", "100%", true),
            (r"100\%", "1000", false),
            (r"a\_b", "a_b", true),
            (r"a\_b", "axb", false),
            (r"a\", r"a\", true),
        ];
        for (pattern, value, expected) in cases {
            let matcher = Matcher::new(pattern.as_bytes(), false);
            assert_eq!(matcher.matches(value.as_bytes()), expected, "{value} LIKE {pattern}");
        }
    }

    #[test]
    fn many_at_once_match_as_one_by_one() {
        let values = [
            "",
            "ab",
            "xabcx",
            "ca",
            "bc",
            "abab",
            "%",
            "special requests",
            "requests special",
            "",
            "c",
        ];
        let mut offsets = vec![0_u32];
        let mut bytes = Vec::new();
        for value in values {
            bytes.extend_from_slice(value.as_bytes());
            offsets.push(bytes.len() as u32);
        }
        for pattern in [
            "%ab%",
            "%b%c%",
            "%abc%",
            "a%b",
            "%special%requests%",
            "_b%",
            "%",
            "",
            "x%b%x",
            "%ca%",
            "special r%",
            "spe%",
            "%requests",
            "%l requests",
            "%ial%qu%ts",
            "%_bc%",
            "ab",
            "%s_ecial%",
            "%%_",
        ] {
            let matcher = Matcher::new(pattern.as_bytes(), false);
            for first in 0..values.len() {
                let all = matcher.matches_all(&offsets[first..], &bytes, false);
                let expected: Vec<u8> = values[first..]
                    .iter()
                    .map(|value| u8::from(matcher.matches(value.as_bytes())))
                    .collect();
                assert_eq!(all, expected, "{pattern} from {first}");
                let none: Vec<u8> = expected.iter().map(|matches| matches ^ 1).collect();
                assert_eq!(
                    matcher.matches_all(&offsets[first..], &bytes, true),
                    none,
                    "NOT {pattern} from {first}"
                );
            }
        }
        assert!(Matcher::new(b"%", false).matches_all(&[], &[], false).is_empty());
        let folded = Matcher::new(b"%SPECIAL%", true);
        assert_eq!(folded.matches_all(&offsets[7..], &bytes, false), [1, 1, 0, 0]);
    }

    #[test]
    fn case_folds() {
        assert!(Matcher::new("%ÄB_".as_bytes(), true).matches("xäBc".as_bytes()));
        assert!(!Matcher::new("%ÄB_".as_bytes(), false).matches("xäBc".as_bytes()));
    }
}
