//! LIKE, by trying everything.

enum Piece {
    /// `%`.
    Run,
    /// `_`.
    One,
    Char(char),
}

fn pieces(pattern: &str) -> Vec<Piece> {
    let mut chars = pattern.chars();
    let mut pieces = Vec::new();
    while let Some(next) = chars.next() {
        pieces.push(match next {
            '%' => Piece::Run,
            '_' => Piece::One,
            '\\' => Piece::Char(chars.next().unwrap_or('\\')),
            other => Piece::Char(other),
        });
    }
    pieces
}

fn lower(text: &str) -> String {
    text.chars()
        .map(|c| {
            let mut lowered = c.to_lowercase();
            match (lowered.next(), lowered.next()) {
                (Some(one), None) => one,
                _ => c,
            }
        })
        .collect()
}

/// True when the whole text matches.
pub(crate) fn like(text: &str, pattern: &str, case_insensitive: bool) -> bool {
    let (text, pattern) = if case_insensitive {
        (lower(text), lower(pattern))
    } else {
        (text.to_owned(), pattern.to_owned())
    };
    let pieces = pieces(&pattern);
    // reached[p]: the text so far can be matched by the first p pieces.
    let mut reached = vec![false; pieces.len() + 1];
    reached[0] = true;
    skip_runs(&pieces, &mut reached);
    for c in text.chars() {
        let mut next = vec![false; pieces.len() + 1];
        for (p, piece) in pieces.iter().enumerate() {
            match piece {
                Piece::Run => next[p] |= reached[p],
                Piece::One => next[p + 1] |= reached[p],
                Piece::Char(wanted) => next[p + 1] |= reached[p] && *wanted == c,
            }
        }
        skip_runs(&pieces, &mut next);
        reached = next;
    }
    reached[pieces.len()]
}

/// A run may be empty.
fn skip_runs(pieces: &[Piece], reached: &mut [bool]) {
    for (p, piece) in pieces.iter().enumerate() {
        if matches!(piece, Piece::Run) && reached[p] {
            reached[p + 1] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::like;

    #[test]
    fn patterns() {
        for (text, pattern, matches) in [
            ("", "", true),
            ("", "%", true),
            ("", "_", false),
            ("abc", "a%c", true),
            ("abc", "a%b", false),
            ("äb", "_b", true),
            ("a%b", "a\\%b", true),
            ("axb", "a\\%b", false),
            ("a\\", "a\\", true),
            ("aXbXc", "%X%X%", true),
            ("aXbc", "%X%X%", false),
        ] {
            assert_eq!(like(text, pattern, false), matches, "{text} like {pattern}");
        }
        assert!(like("ÄB", "äb", true) && !like("ÄB", "äb", false));
    }
}
