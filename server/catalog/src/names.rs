//! Nearest names, and LIKE patterns over names.

/// How many candidates an error lists.
const CANDIDATES_MAX: usize = 5;

/// The names that look most like `wanted`, best first. A table of the same name in another schema is near.
pub(crate) fn nearest(wanted: &str, known: impl IntoIterator<Item = String>) -> Vec<String> {
    let wanted = wanted.to_lowercase();
    let (wanted_schema, wanted_table) = split(&wanted);
    let distance_max = 2.max(wanted_table.chars().count() / 3);
    let mut scored: Vec<(usize, String)> = known
        .into_iter()
        .filter_map(|name| {
            let lower = name.to_lowercase();
            let (schema, table) = split(&lower);
            let distance = strsim::damerau_levenshtein(table, wanted_table);
            (distance <= distance_max).then_some((2 * distance + usize::from(schema != wanted_schema), name))
        })
        .collect();
    scored.sort();
    scored.into_iter().map(|(_, name)| name).take(CANDIDATES_MAX).collect()
}

fn split(name: &str) -> (&str, &str) {
    name.rsplit_once('.').unwrap_or(("", name))
}

#[derive(PartialEq, Clone, Copy)]
enum Token {
    Run,
    One,
    Char(char),
}

/// SQL LIKE with `%`, `_` and the escape `\`, in time proportional to both lengths.
pub(crate) fn like(text: &str, pattern: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let pattern = tokens(pattern);
    let (mut at, mut token) = (0, 0);
    // Where the last run began, and how far its text reached: the only place a mismatch can go back to.
    let mut retry: Option<(usize, usize)> = None;
    while at < text.len() {
        match pattern.get(token) {
            Some(Token::Run) => {
                retry = Some((token, at));
                token += 1;
            }
            Some(Token::One) => (at, token) = (at + 1, token + 1),
            Some(Token::Char(wanted)) if *wanted == text[at] => (at, token) = (at + 1, token + 1),
            _ => {
                let Some((run, reached)) = retry else { return false };
                retry = Some((run, reached + 1));
                (at, token) = (reached + 1, run + 1);
            }
        }
    }
    pattern[token..].iter().all(|rest| *rest == Token::Run)
}

fn tokens(pattern: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars();
    while let Some(next) = chars.next() {
        tokens.push(match next {
            '%' => Token::Run,
            '_' => Token::One,
            '\\' => Token::Char(chars.next().unwrap_or('\\')),
            plain => Token::Char(plain),
        });
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_names() {
        let known = || ["public.orders", "public.customer", "sales.items"].map(str::to_owned);
        assert_eq!(nearest("public.ordrs", known()), ["public.orders"]);
        assert_eq!(nearest("public.items", known()), ["sales.items"]);
        assert!(nearest("public.zzzzzz", known()).is_empty());
    }

    #[test]
    fn like_patterns() {
        assert!(like("orders", "%") && like("orders", "ord%") && like("orders", "_rders") && like("a_b", "a\\_b"));
        assert!(like("abcabd", "%ab_") && like("", "%") && like("a%b", "a\\%%b"));
        assert!(!like("abc", "%ab") && !like("orders", "ord") && !like("axb", "a\\_b"));
    }
}
