//! Simple case folding of Unicode: characters that regular expressions take for the same but for case, one by one.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};

/// Beyond it no character has cases.
const CASED_MAX: char = '\u{1ffff}';

/// A text, each of its characters replaced by the one that stands for all that differ from it in case only.
pub(crate) fn folded(value: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(value) {
        Ok(text) => text.chars().map(fold).collect::<String>().into_bytes(),
        Err(_) => value.to_ascii_lowercase(),
    }
}

fn fold(char: char) -> char {
    if char.is_ascii() {
        return char.to_ascii_lowercase();
    }
    static FOLDS: LazyLock<HashMap<char, char>> = LazyLock::new(|| {
        let cased =
            ('\u{80}'..=CASED_MAX).filter(|char| !(char.to_lowercase().eq([*char]) && char.to_uppercase().eq([*char])));
        cased
            .map(|char| (char, first_alike(char).to_ascii_lowercase()))
            .collect()
    });
    FOLDS.get(&char).copied().unwrap_or(char)
}

/// The first of the characters that differ from `char` in case only.
fn first_alike(char: char) -> char {
    let mut class = ClassUnicode::new([ClassUnicodeRange::new(char, char)]);
    class.case_fold_simple();
    class.ranges().first().map_or(char, ClassUnicodeRange::start)
}

#[cfg(test)]
mod tests {
    use super::{first_alike, fold};

    #[test]
    fn all_characters_fold_as_in_regular_expressions() {
        for char in '\0'..=char::MAX {
            assert_eq!(fold(char), first_alike(char).to_ascii_lowercase(), "{char:?}");
        }
        assert_eq!(fold('\u{212a}'), 'k');
        assert_eq!(fold('\u{17f}'), 's');
        assert_eq!(fold('ς'), fold('Σ'));
        assert_ne!(fold('İ'), fold('i'));
    }
}
