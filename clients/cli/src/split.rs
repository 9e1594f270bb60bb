//! Cuts input lines into statements and backslash commands.
//!
//! Owns the only place that knows where a statement ends, because a `;` inside a string, a quoted name, a dollar quote or a
//! comment is not an end, and neither is a backslash a command there. It keeps its state between lines, so a script of any
//! size is cut in one pass. It does not parse SQL: what stands between two ends is the server's business.

/// What one or more input lines held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A statement without its `;`, and the line it starts on (from 1).
    Sql { text: String, line: usize },
    /// A statement that ends in a command of its own, such as `select 1 \gx`. The command comes without its backslash.
    SqlThen { text: String, command: String, line: usize },
    /// A command without its backslash.
    Meta { text: String, line: usize },
}

/// What the splitter waits for, which is what the prompt shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    Statement,
    End,
    SingleQuote,
    DoubleQuote,
    DollarQuote,
    Comment,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Normal,
    Text { backslash_escapes: bool },
    Name { quote: char },
    Dollar { tag: String },
    Comment { depth: usize },
}

/// Commands that send the statement before them.
const SENDERS: [&str; 3] = ["g", "gx", "watch"];
const SPECIAL: [char; 9] = ['\'', '"', '`', '-', '/', '$', ';', '\\', '\n'];

#[derive(Debug)]
pub(crate) struct Splitter {
    buffer: String,
    state: State,
    has_content: bool,
    line: usize,
    start_line: usize,
}

impl Splitter {
    pub(crate) fn new() -> Self {
        Self {
            buffer: String::new(),
            state: State::Normal,
            has_content: false,
            line: 1,
            start_line: 1,
        }
    }

    /// Takes whole lines, each with its line end, and returns what they complete.
    pub(crate) fn feed(&mut self, lines: &str) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut rest = lines;
        while !rest.is_empty() {
            let used = match self.state.clone() {
                State::Normal => self.normal(rest, &mut pieces),
                State::Text { backslash_escapes } => self.text(rest, backslash_escapes),
                State::Name { quote } => self.name(rest, quote),
                State::Dollar { tag } => self.dollar(rest, &tag),
                State::Comment { depth } => self.comment(rest, depth),
            };
            let (done, left) = rest.split_at(used);
            self.line += done.matches('\n').count();
            rest = left;
        }
        pieces
    }

    /// Returns the statement that the end of the input leaves without a `;`.
    pub(crate) fn finish(&mut self) -> Option<Piece> {
        let piece = self.take().map(|(text, line)| Piece::Sql { text, line });
        self.clear();
        piece
    }

    pub(crate) fn clear(&mut self) {
        self.buffer.clear();
        self.state = State::Normal;
        self.has_content = false;
    }

    pub(crate) fn waiting(&self) -> Waiting {
        match &self.state {
            State::Normal if self.has_content => Waiting::End,
            State::Normal => Waiting::Statement,
            State::Text { .. } => Waiting::SingleQuote,
            State::Name { .. } => Waiting::DoubleQuote,
            State::Dollar { .. } => Waiting::DollarQuote,
            State::Comment { .. } => Waiting::Comment,
        }
    }

    fn normal(&mut self, rest: &str, pieces: &mut Vec<Piece>) -> usize {
        let plain = rest.find(SPECIAL).unwrap_or(rest.len());
        if plain > 0 {
            self.push_code(&rest[..plain]);
            return plain;
        }
        match rest.as_bytes()[0] {
            b'\'' => {
                let backslash_escapes = self.after_escape_prefix();
                self.push_code("'");
                self.state = State::Text { backslash_escapes };
                1
            }
            quote @ (b'"' | b'`') => {
                self.push_code(&rest[..1]);
                self.state = State::Name {
                    quote: char::from(quote),
                };
                1
            }
            b'-' if rest.starts_with("--") => {
                let used = rest.find('\n').unwrap_or(rest.len());
                self.push_comment(&rest[..used]);
                used
            }
            b'/' if rest.starts_with("/*") => {
                self.push_comment("/*");
                self.state = State::Comment { depth: 1 };
                2
            }
            b'$' => self.dollar_start(rest),
            b';' => {
                if let Some((text, line)) = self.take() {
                    pieces.push(Piece::Sql { text, line });
                }
                1
            }
            b'\\' => self.command(rest, pieces),
            b'\n' => {
                self.push_comment("\n");
                1
            }
            _ => {
                self.push_code(&rest[..1]);
                1
            }
        }
    }

    fn text(&mut self, rest: &str, backslash_escapes: bool) -> usize {
        let stops: &[char] = if backslash_escapes { &['\'', '\\'] } else { &['\''] };
        let Some(stop) = rest.find(stops) else {
            self.buffer.push_str(rest);
            return rest.len();
        };
        let escaped = rest[stop + 1..].chars().next();
        let used = if rest[stop..].starts_with('\\') {
            stop + 1 + escaped.map_or(0, char::len_utf8)
        } else if escaped == Some('\'') {
            stop + 2
        } else {
            self.state = State::Normal;
            stop + 1
        };
        self.buffer.push_str(&rest[..used]);
        used
    }

    fn name(&mut self, rest: &str, quote: char) -> usize {
        let used = match rest.find(quote) {
            Some(end) => {
                self.state = State::Normal;
                end + 1
            }
            None => rest.len(),
        };
        self.buffer.push_str(&rest[..used]);
        used
    }

    fn dollar_start(&mut self, rest: &str) -> usize {
        let inside_word = self.buffer.ends_with(is_word);
        match dollar_tag(rest) {
            Some(tag) if !inside_word => {
                let tag = tag.to_owned();
                self.push_code(&tag);
                let used = tag.len();
                self.state = State::Dollar { tag };
                used
            }
            _ => {
                self.push_code("$");
                1
            }
        }
    }

    fn dollar(&mut self, rest: &str, tag: &str) -> usize {
        let used = match rest.find(tag) {
            Some(start) => {
                self.state = State::Normal;
                start + tag.len()
            }
            None => rest.len(),
        };
        self.buffer.push_str(&rest[..used]);
        used
    }

    fn comment(&mut self, rest: &str, depth: usize) -> usize {
        let open = rest.find("/*");
        let close = rest.find("*/");
        let (used, depth) = match (open, close) {
            (Some(open), Some(close)) if open < close => (open + 2, depth + 1),
            (Some(open), None) => (open + 2, depth + 1),
            (_, Some(close)) => (close + 2, depth - 1),
            (None, None) => (rest.len(), depth),
        };
        self.state = if depth == 0 {
            State::Normal
        } else {
            State::Comment { depth }
        };
        self.push_comment(&rest[..used]);
        used
    }

    fn command(&mut self, rest: &str, pieces: &mut Vec<Piece>) -> usize {
        let used = rest.find('\n').unwrap_or(rest.len());
        let command = rest[1..used].trim().to_owned();
        let name = command.split_whitespace().next().unwrap_or_default();
        let line = self.line;
        if matches!(name, "r" | "reset") {
            self.clear();
        }
        if SENDERS.contains(&name)
            && let Some((text, line)) = self.take()
        {
            pieces.push(Piece::SqlThen { text, command, line });
        } else {
            pieces.push(Piece::Meta { text: command, line });
        }
        used
    }

    fn push_code(&mut self, text: &str) {
        if !self.has_content {
            let text = text.trim_start();
            if text.is_empty() {
                return;
            }
            self.has_content = true;
            self.start_line = self.line;
            self.buffer.push_str(text);
            return;
        }
        self.buffer.push_str(text);
    }

    /// A comment or line end before a statement is no part of it: the prompt must not wait for its end.
    fn push_comment(&mut self, text: &str) {
        if self.has_content {
            self.buffer.push_str(text);
        }
    }

    fn after_escape_prefix(&self) -> bool {
        let mut back = self.buffer.chars().rev();
        matches!(back.next(), Some('e' | 'E')) && !back.next().is_some_and(is_word)
    }

    fn take(&mut self) -> Option<(String, usize)> {
        let has_content = std::mem::take(&mut self.has_content);
        let text = std::mem::take(&mut self.buffer);
        self.state = State::Normal;
        has_content.then(|| (text.trim_end().to_owned(), self.start_line))
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// Returns `$tag$` at the start of `text`; `$1` is a parameter, not a tag.
fn dollar_tag(text: &str) -> Option<&str> {
    let inner_len = text[1..].find('$')?;
    let inner = &text[1..=inner_len];
    let starts_well = !inner.starts_with(|c: char| c.is_ascii_digit());
    let is_tag = inner.chars().all(|c| c.is_alphanumeric() || c == '_');
    (starts_well && is_tag).then(|| &text[..inner_len + 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &str) -> Vec<Piece> {
        let mut splitter = Splitter::new();
        let mut pieces = Vec::new();
        for line in input.split_inclusive('\n') {
            pieces.extend(splitter.feed(line));
        }
        pieces.extend(splitter.finish());
        pieces
    }

    fn texts(input: &str) -> Vec<String> {
        all(input)
            .into_iter()
            .map(|piece| match piece {
                Piece::Sql { text, .. } => text,
                Piece::SqlThen { text, command, .. } => format!("{text} => {command}"),
                Piece::Meta { text, .. } => format!("\\{text}"),
            })
            .collect()
    }

    #[test]
    fn cuts_at_semicolons_and_at_the_end() {
        assert_eq!(
            texts("select 1; select 2 ;\nselect 3"),
            ["select 1", "select 2", "select 3"]
        );
        assert_eq!(texts(";;\n ; "), Vec::<String>::new());
    }

    #[test]
    fn quotes_hide_semicolons_and_backslashes() {
        assert_eq!(
            texts(r#"select 'a;b''c;', "x;""y", `k;` ; select '\d'"#),
            [r#"select 'a;b''c;', "x;""y", `k;`"#, r"select '\d'"]
        );
        assert_eq!(
            texts(r"select E'it\'s;', 'plain\'; select 2"),
            [r"select E'it\'s;', 'plain\'", "select 2"]
        );
        assert_eq!(texts("select 'a\n;\nb';"), ["select 'a\n;\nb'"]);
    }

    #[test]
    fn dollar_quotes_and_parameters() {
        assert_eq!(
            texts("select $$a;'b$$; select $f$ $$;$g$ $f$; select $1; select a$b$c;"),
            ["select $$a;'b$$", "select $f$ $$;$g$ $f$", "select $1", "select a$b$c"]
        );
    }

    #[test]
    fn comments_nest_and_do_not_end_statements() {
        assert_eq!(
            texts("-- first; comment\n/* a /* b; */ c; */ select 1 -- x;\n + 2; -- end"),
            ["select 1 -- x;\n + 2"]
        );
        assert_eq!(texts("/* only ; */ -- this"), Vec::<String>::new());
        assert_eq!(texts("select 4-1/2"), ["select 4-1/2"]);
    }

    #[test]
    fn commands_end_with_their_line() {
        assert_eq!(
            texts("\\d orders\nselect 1 \\gx\nselect\n\\timing\n2;"),
            ["\\d orders", "select 1 => gx", "\\timing", "select\n\n2"]
        );
        assert_eq!(texts("select 1\n\\r\nselect 2;"), ["\\r", "select 2"]);
        assert_eq!(texts("\\g"), ["\\g"]);
    }

    #[test]
    fn lines_are_counted_from_the_statement() {
        let pieces = all("\n-- c\n  select 1;\n\\dt\n select\n2;");
        let lines: Vec<usize> = pieces
            .iter()
            .map(|piece| match piece {
                Piece::Sql { line, .. } | Piece::SqlThen { line, .. } | Piece::Meta { line, .. } => *line,
            })
            .collect();
        assert_eq!(lines, [3, 4, 5]);
    }

    #[test]
    fn the_prompt_knows_what_is_open() {
        let after = |text: &str| {
            let mut splitter = Splitter::new();
            splitter.feed(text);
            splitter.waiting()
        };
        assert_eq!(after("select 1;\n"), Waiting::Statement);
        assert_eq!(after("-- x\n"), Waiting::Statement);
        assert_eq!(after("select\n"), Waiting::End);
        assert_eq!(after("select '\n"), Waiting::SingleQuote);
        assert_eq!(after("select \"\n"), Waiting::DoubleQuote);
        assert_eq!(after("select $a$\n"), Waiting::DollarQuote);
        assert_eq!(after("/*\n"), Waiting::Comment);
    }

    #[test]
    fn odd_text_is_never_cut_inside_a_character() {
        for text in [
            "select 'ü;ß' || $ü$;$ü$;",
            "select E'\\ü';",
            "é;ü\\é\n",
            "$",
            "'",
            "\\",
            "select $ü",
        ] {
            all(text);
        }
    }
}
