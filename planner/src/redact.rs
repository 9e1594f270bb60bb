//! Statements as they may be kept and shown: without credentials.
//!
//! ```text
//!  CREATE SECRET lake (TYPE s3, KEY_ID 'A', …)              ─▶ CREATE SECRET lake (…)
//!  … OPTIONS ('aws.secret_access_key' 'hunter2')            ─▶ … OPTIONS ('aws.secret_access_key' '…')
//! ```
//!
//! Works on texts that don't parse, too: those are kept as well, with what was wrong with them. So it has a lexer of its own,
//! which never fails, and it rather hides too much.

use std::borrow::Cow;

use trireme_exec::QueryError;

/// Words whose value is hidden when it follows them.
const KEYS: [&str; 15] = [
    "access_key_id",
    "account_key",
    "bearer_token",
    "client_secret",
    "connection_string",
    "key_id",
    "password",
    "sas_token",
    "secret",
    "secret_access_key",
    "service_account_key",
    "session_token",
    "sse_customer_key",
    "storage_account_key",
    "token",
];

/// Namespaces of the stores' options.
const NAMESPACES: [&str; 4] = ["aws.", "azure.", "gcp.", "google."];

/// What stands in for something hidden.
const HIDDEN: &str = "…";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Word,
    /// Quoted in any way.
    Literal,
    Symbol,
}

#[derive(Debug, Clone, Copy)]
struct Piece<'a> {
    kind: Kind,
    /// Where it starts in the text.
    at: usize,
    text: &'a str,
}

impl Piece<'_> {
    fn end(&self) -> usize {
        self.at + self.text.len()
    }

    fn is_word(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    /// True for a word, or a quoted one, whose value is hidden.
    fn is_key(&self) -> bool {
        if self.kind == Kind::Symbol {
            return false;
        }
        let name = self.text.trim_matches(['\'', '"', '`']).to_ascii_lowercase();
        KEYS.contains(&name.as_str()) || NAMESPACES.iter().any(|namespace| name.starts_with(namespace))
    }
}

/// The pieces of a text; comments and blanks are none. Whatever isn't closed goes to the end.
fn pieces(sql: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut at = 0;
    let mut escapes = false;
    std::iter::from_fn(move || {
        loop {
            let rest = sql.get(at..)?;
            let first = rest.chars().next()?;
            let start = at;
            let (kind, length) = match first {
                _ if first.is_whitespace() => (None, first.len_utf8()),
                '-' if rest.starts_with("--") => (None, rest.find('\n').unwrap_or(rest.len())),
                '/' if rest.starts_with("/*") => (None, rest.find("*/").map_or(rest.len(), |end| end + 2)),
                '\'' | '"' | '`' => (Some(Kind::Literal), quoted(rest, first, escapes)),
                '$' if rest.starts_with("$$") => (
                    Some(Kind::Literal),
                    rest[2..].find("$$").map_or(rest.len(), |end| end + 4),
                ),
                _ if is_word(first) => {
                    let length = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
                    (Some(Kind::Word), length)
                }
                _ => (Some(Kind::Symbol), first.len_utf8()),
            };
            at += length.max(1);
            escapes = rest[..length].eq_ignore_ascii_case("e");
            if let Some(kind) = kind {
                let text = &sql[start..start + length];
                return Some(Piece { kind, at: start, text });
            }
        }
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.')
}

/// Length of a quoted text with its quotes; a doubled quote is a part of it, and what follows a backslash in a text that `escapes`.
fn quoted(text: &str, quote: char, escapes: bool) -> usize {
    let mut rest = text.char_indices().skip(1).peekable();
    while let Some((at, char)) = rest.next() {
        if escapes && char == '\\' {
            rest.next();
        } else if char == quote && rest.next_if(|(_, next)| *next == quote).is_none() {
            return at + quote.len_utf8();
        }
    }
    text.len()
}

/// Where the secret part of a `CREATE SECRET` begins, wherever in the text it is.
fn secret_part(pieces: &[Piece<'_>]) -> Option<usize> {
    let create = pieces.iter().enumerate().filter(|(_, piece)| piece.is_word("create"));
    let after = create.filter_map(|(index, _)| {
        let words = pieces[index + 1..].iter().skip_while(|piece| {
            ["or", "replace", "temp", "temporary", "persistent"]
                .iter()
                .any(|word| piece.is_word(word))
        });
        let mut rest = words.skip_while(|piece| piece.kind == Kind::Symbol);
        let secret = rest.next().filter(|piece| piece.is_word("secret"))?;
        let open = rest
            .take_while(|piece| piece.kind != Kind::Literal)
            .find(|piece| piece.text == "(");
        Some(open.map_or(secret.end(), |open| open.at))
    });
    after.min()
}

/// True when the text holds a `CREATE SECRET`, as a statement or as a part of one.
pub fn holds_secret(sql: &str) -> bool {
    may_hold(sql) && secret_part(&pieces(sql).collect::<Vec<_>>()).is_some()
}

/// Most statements hold none of the words.
fn may_hold(sql: &str) -> bool {
    let lower = sql.to_ascii_lowercase();
    let mut words = KEYS.iter().chain(&NAMESPACES);
    words.any(|word| lower.contains(word))
}

/// The statement without the credentials in it.
pub fn redacted(sql: &str) -> Cow<'_, str> {
    if !may_hold(sql) {
        return Cow::Borrowed(sql);
    }
    let pieces: Vec<Piece<'_>> = pieces(sql).collect();
    let hidden_from = secret_part(&pieces);
    let shown = hidden_from.unwrap_or(sql.len());
    let mut out = String::with_capacity(sql.len());
    let mut copied = 0;
    for value in hidden_values(&pieces) {
        let (begin, end) = span(value);
        if begin < copied || end > shown {
            continue;
        }
        out.push_str(&sql[copied..begin]);
        out.push_str("'…'");
        copied = end;
    }
    out.push_str(sql.get(copied..shown).unwrap_or_default());
    if hidden_from.is_some() {
        let blank = if out.ends_with(char::is_whitespace) { "" } else { " " };
        out.push_str(blank);
        out.push_str("(…)");
    }
    Cow::Owned(out)
}

/// What follows keys, with or without a sign between them: in a list of options whatever stands there, elsewhere a literal.
fn hidden_values<'a, 'b>(pieces: &'b [Piece<'a>]) -> impl Iterator<Item = &'b [Piece<'a>]> + use<'a, 'b> {
    let mut open = 0_usize;
    pieces.iter().enumerate().filter_map(move |(index, piece)| {
        match piece.text {
            "(" if open > 0 || index > 0 && pieces[index - 1].is_word("options") => open += 1,
            ")" => open = open.saturating_sub(1),
            _ if !piece.is_key() => return None,
            _ => {}
        }
        let rest = &pieces[index + 1..];
        let signs = rest.iter().take_while(|piece| matches!(piece.text, "=" | ":" | ">"));
        let rest = &rest[signs.count()..];
        let length = match open {
            0 => literal_pieces(rest),
            _ => rest.iter().take_while(|piece| !matches!(piece.text, "," | ")")).count(),
        };
        (piece.is_key() && length > 0).then(|| &rest[..length])
    })
}

/// How many pieces the literal has that comes first, with a prefix such as `E` or `U&`; 0 if none comes.
fn literal_pieces(pieces: &[Piece<'_>]) -> usize {
    let letter = |piece: &Piece<'_>| piece.kind == Kind::Word && piece.text.len() == 1;
    let touch = |one: &Piece<'_>, next: &Piece<'_>| one.end() == next.at;
    let prefix = match pieces {
        [first, next, ..] if letter(first) && touch(first, next) => 1 + usize::from(next.text == "&"),
        _ => 0,
    };
    match pieces.get(prefix) {
        Some(piece) if piece.kind == Kind::Literal => prefix + 1,
        _ => 0,
    }
}

fn span(value: &[Piece<'_>]) -> (usize, usize) {
    let begin = value.first().map_or(0, |piece| piece.at);
    (begin, value.last().map_or(begin, Piece::end))
}

/// An error about a text, without the credentials that it may quote.
pub(crate) fn redacted_error(sql: &str, mut error: QueryError) -> QueryError {
    if !may_hold(sql) {
        return error;
    }
    let pieces: Vec<Piece<'_>> = pieces(sql).collect();
    if secret_part(&pieces).is_some() {
        return QueryError::invalid("syntax error in CREATE SECRET")
            .with_hint("write CREATE SECRET name (TYPE s3, KEY_ID '…', SECRET '…', SCOPE 's3://bucket/folder')")
            .at(error.position);
    }
    let values: Vec<&str> = hidden_values(&pieces)
        .flat_map(|value| {
            let (begin, end) = span(value);
            let parts = value
                .iter()
                .filter(|piece| piece.text.len() > 1)
                .map(|piece| piece.text);
            [&sql[begin..end]].into_iter().chain(parts)
        })
        .map(|value| value.trim_matches(['\'', '"', '`', '$']))
        .filter(|value| !value.is_empty())
        .collect();
    error.message = without(&values, error.message);
    error.detail = error.detail.map(|text| without(&values, text));
    error.hint = error.hint.map(|text| without(&values, text));
    error
}

fn without(values: &[&str], text: String) -> String {
    values.iter().fold(text, |text, value| text.replace(value, HIDDEN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_cut_off() {
        for (sql, shown) in [
            ("CREATE SECRET s (TYPE s3, SECRET 'hunter2')", "CREATE SECRET s (…)"),
            (
                "create or replace persistent secret if not exists s(TYPE s3)",
                "create or replace persistent secret if not exists s (…)",
            ),
            (
                "/* a */ CREATE -- b\n SECRET s (TYPE",
                "/* a */ CREATE -- b\n SECRET s (…)",
            ),
            (
                "SELECT 1; CREATE SECRET s (TYPE s3, SECRET 'hunter2'); SELECT 2",
                "SELECT 1; CREATE SECRET s (…)",
            ),
            (
                "EXPLAIN CREATE TEMP SECRET (TYPE s3, SECRET 'hunter2",
                "EXPLAIN CREATE TEMP SECRET (…)",
            ),
            ("CREATE SECRET 'hunter2' (x)", "CREATE SECRET (…)"),
            ("CREATE SECRET s TYPE s3 SECRET 'hunter2'", "CREATE SECRET (…)"),
        ] {
            assert_eq!(redacted(sql), shown);
            assert!(holds_secret(sql));
        }
    }

    #[test]
    fn options_lose_their_values() {
        for (sql, shown) in [
            (
                "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 's3://b/x' OPTIONS ('aws.secret_access_key' 'hun''ter2', format.x 'y')",
                "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 's3://b/x' OPTIONS ('aws.secret_access_key' '…', format.x 'y')",
            ),
            (
                "COPY t TO 's3://b' OPTIONS (aws.region 'x', secret 'lake')",
                "COPY t TO 's3://b' OPTIONS (aws.region '…', secret '…')",
            ),
            (
                "CREATE SECERT s (TYPE s3, SECRET = 'hunter2",
                "CREATE SECERT s (TYPE s3, SECRET = '…'",
            ),
            ("x token => $$hunter2$$ y", "x token => '…' y"),
            (
                "x token E'hun\\'ter2' y, secret = U&'hunter2'",
                "x token '…' y, secret = '…'",
            ),
            (
                "COPY t TO 'f' OPTIONS (aws.x hunter2, 'secret' -12, token E'a\\'b', password ab/c+d==, format.x y)",
                "COPY t TO 'f' OPTIONS (aws.x '…', 'secret' '…', token '…', password '…', format.x y)",
            ),
        ] {
            assert_eq!(redacted(sql), shown);
        }
    }

    #[test]
    fn others_stay_as_they_are() {
        for sql in [
            "SELECT secret, 'x' FROM t",
            "SELECT count(secret), token t FROM options WHERE (token = 5)",
            "SELECT 'secret' || 'it''s' AS password FROM t -- token 'x'",
            "SELECT * FROM system.secrets WHERE name = 'lake'",
            "DROP SECRET lake",
            "SELECT 1",
            "ünï 'cödé",
        ] {
            assert_eq!(redacted(sql), sql);
            assert!(!holds_secret(sql));
        }
    }

    #[test]
    fn errors_quote_no_value() {
        let sql = "COPY t TO 's3://b' OPTIONS (aws.session_token 'hunter2' oops";
        let error = redacted_error(sql, QueryError::invalid("found: 'hunter2'").with_hint("hunter2?"));
        assert!(!error.to_string().contains("hunter2"), "{error}");
        let sql = "CREATE EXTERNAL TABLE t OPTIONS (secret hunter2 oops";
        let error = redacted_error(sql, QueryError::invalid("found: hunter2"));
        assert!(!error.to_string().contains("hunter2"), "{error}");
        let error = redacted_error("CREATE SECRET x y hunter2", QueryError::invalid("found: hunter2"));
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
