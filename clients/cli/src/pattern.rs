//! Names and patterns after `\d`, `\dt` and their kin: `orders`, `sales.ord*`, `"Odd Name"`.
//!
//! `*` stands for any text and `?` for any character, except between double quotes. Matching is done here and not on the
//! server, because servers differ in how they escape `_` and `%`. Outside quotes case does not count.

use crate::error::Failure;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    pub(crate) catalog: Option<Glob>,
    pub(crate) schema: Option<Glob>,
    pub(crate) name: Glob,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Glob(Vec<Token>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Exactly(char),
    AnyCase(char),
    One,
    Many,
}

impl Pattern {
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let mut parts = vec![Glob::default()];
        let mut in_quotes = false;
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let token = match c {
                '"' if in_quotes && chars.next_if_eq(&'"').is_some() => Token::Exactly('"'),
                '"' => {
                    in_quotes = !in_quotes;
                    continue;
                }
                c if in_quotes => Token::Exactly(c),
                '.' => {
                    parts.push(Glob::default());
                    continue;
                }
                '*' => Token::Many,
                '?' => Token::One,
                c => Token::AnyCase(c),
            };
            if let Some(part) = parts.last_mut() {
                part.0.push(token);
            }
        }
        if in_quotes {
            return Err(Failure::new("a double quote is not closed"));
        }
        if parts.len() > 3 {
            return Err(
                Failure::new("too many dots in a name").with_hint("write CATALOG.SCHEMA.NAME, SCHEMA.NAME or NAME")
            );
        }
        let name = parts.pop().unwrap_or_default();
        let schema = parts.pop();
        let catalog = parts.pop();
        Ok(Self { catalog, schema, name })
    }

    /// True if the pattern can name one thing only.
    pub(crate) fn is_plain(&self) -> bool {
        let plain = |glob: &Glob| !glob.0.iter().any(|token| matches!(token, Token::One | Token::Many));
        plain(&self.name) && self.schema.as_ref().is_none_or(plain)
    }

    pub(crate) fn matches(&self, catalog: &str, schema: &str, name: &str) -> bool {
        self.name.matches(name)
            && self.schema.as_ref().is_none_or(|glob| glob.matches(schema))
            && self.catalog.as_ref().is_none_or(|glob| glob.matches(catalog))
    }
}

impl Glob {
    pub(crate) fn text(&self) -> String {
        self.0
            .iter()
            .map(|token| match token {
                Token::Exactly(c) | Token::AnyCase(c) => *c,
                Token::One => '?',
                Token::Many => '*',
            })
            .collect()
    }

    pub(crate) fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        // The usual walk with one point to come back to: the last `*`.
        let (mut token, mut at) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while at < text.len() {
            match self.0.get(token) {
                Some(Token::Many) => {
                    star = Some((token, at));
                    token += 1;
                }
                Some(one) if one.is(text[at]) => {
                    token += 1;
                    at += 1;
                }
                _ => match &mut star {
                    Some((star_token, star_at)) => {
                        *star_at += 1;
                        at = *star_at;
                        token = *star_token + 1;
                    }
                    None => return false,
                },
            }
        }
        self.0[token..].iter().all(|token| *token == Token::Many)
    }
}

impl Token {
    fn is(self, c: char) -> bool {
        match self {
            Self::Exactly(own) => own == c,
            Self::AnyCase(own) => own == c || own.to_lowercase().eq(c.to_lowercase()),
            Self::One => true,
            Self::Many => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, schema: &str, name: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches("c", schema, name)
    }

    #[test]
    fn names_and_patterns_match() {
        assert!(matches("orders", "public", "Orders"));
        assert!(!matches("\"orders\"", "public", "Orders"));
        assert!(matches("ord*", "x", "orders"));
        assert!(matches("*d?rs", "x", "orders"));
        assert!(!matches("o_ders", "x", "orders"));
        assert!(matches("sales.*", "sales", "anything"));
        assert!(!matches("sales.*", "public", "anything"));
        assert!(matches("\"a.b\".\"x*\"\"\"", "a.b", "x*\""));
        assert!(matches("a*b*c", "x", "a-b-b-c"));
        assert!(!matches("a*b*c", "x", "a-b-b-"));
        assert!(matches("c.public.t", "public", "t"));
        assert!(!matches("d.public.t", "public", "t"));
    }

    #[test]
    fn bad_patterns_are_refused() {
        assert!(Pattern::parse("\"open").is_err());
        assert!(Pattern::parse("a.b.c.d").is_err());
        assert!(Pattern::parse("a.b").unwrap().is_plain());
        assert!(!Pattern::parse("a*.b").unwrap().is_plain());
    }
}
