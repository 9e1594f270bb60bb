//! What went wrong with a statement, and how it is shown.
//!
//! A server sends one text per failure: the primary message on the first line, then lines `detail: …`, `hint: …` and a place
//! `at line L, column C`. This file takes that apart and prints it the way psql does, with the source line and a caret.
//! Servers that send plain text lose nothing: all of it is then the message.

use std::error::Error as _;
use std::fmt::Write as _;

use arrow_flight::error::FlightError;
use tonic::{Code, Status};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The server refused or failed the statement, or a command was wrong.
    Statement,
    /// The server cannot be reached any more, or does not know us.
    Connection,
    /// The user pressed Ctrl-C.
    Cancelled,
    /// The reader of our output went away, as `trisql … | head` does.
    BrokenPipe,
}

/// A failure of one statement or command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) message: String,
    pub(crate) detail: Vec<String>,
    pub(crate) hint: Vec<String>,
    /// Line and column in the statement's text, from 1.
    pub(crate) position: Option<(usize, usize)>,
}

/// The longest part of a source line that is shown around a caret.
const SHOWN_COLUMNS: usize = 100;

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Statement,
            message: message.into(),
            detail: Vec::new(),
            hint: Vec::new(),
            position: None,
        }
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.push(hint.into());
        self
    }

    pub(crate) fn cancelled() -> Self {
        Self {
            kind: Kind::Cancelled,
            ..Self::new("cancelled on user request")
        }
    }

    pub(crate) fn from_status(status: &Status) -> Self {
        let mut failure = Self::from_text(status.message());
        if is_transport(status) {
            failure.kind = Kind::Connection;
            failure.message = "the connection to the server failed".to_owned();
            failure.detail = vec![innermost(status)];
            let hint = "check that the server runs, and grpc+tls:// if it speaks TLS; \
                        the next statement connects again, with a new session";
            failure.hint = vec![hint.to_owned()];
            return failure;
        }
        if failure.message.is_empty() {
            failure.message = status.code().description().to_lowercase();
        }
        match status.code() {
            Code::Unauthenticated => {
                failure.kind = Kind::Connection;
                // The server says what it wants; only we know how to give it.
                failure.hint.push(
                    "a user comes with -U, a password with -W or TRISQL_PASSWORD, a token with TRISQL_TOKEN".into(),
                );
            }
            Code::Unimplemented => failure.detail.push("the server does not offer this call".into()),
            Code::OutOfRange if status.message().contains("message length too large") => {
                failure.hint.push("raise --max-message-mib".into());
            }
            _ => {}
        }
        failure
    }

    /// Takes the lines of a server's text apart.
    pub(crate) fn from_text(text: &str) -> Self {
        let mut failure = Self::new("");
        let mut message = Vec::new();
        let mut section = Section::Message;
        for line in text.lines() {
            let (named, content) = section_of(line).unwrap_or((section, line));
            section = named;
            let place = find_position(content);
            failure.position = failure.position.or(place.map(|place| place.position));
            if place.is_some_and(|place| place.is_whole_line) {
                continue;
            }
            match section {
                Section::Message => message.push(content.to_owned()),
                Section::Detail => failure.detail.push(content.to_owned()),
                Section::Hint => failure.hint.push(content.to_owned()),
            }
        }
        failure.message = message.join("\n").trim().to_owned();
        failure
    }

    /// The text for the terminal. `statement` is the text that the position counts in.
    pub(crate) fn render(&self, statement: Option<&str>, place: Option<&str>, color: bool) -> String {
        let (start, end) = if color { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
        let mut out = String::new();
        if let Some(place) = place {
            out.push_str("trisql:");
            out.push_str(place);
            out.push_str(": ");
        }
        out.push_str(start);
        out.push_str("ERROR:");
        out.push_str(end);
        out.push_str("  ");
        let caret = self
            .position
            .zip(statement)
            .and_then(|(position, statement)| caret(statement, position));
        // A caret says it better than `at line 1, column 15`.
        let message = match &caret {
            Some(_) => without_position(&self.message),
            None => &self.message,
        };
        out.push_str(&printable(message));
        out.push('\n');
        out.push_str(caret.as_deref().unwrap_or_default());
        for (label, lines) in [("DETAIL:", &self.detail), ("HINT:", &self.hint)] {
            if !lines.is_empty() {
                out.push_str(label);
                out.push_str("  ");
                out.push_str(&printable(&lines.join("\n")));
                out.push('\n');
            }
        }
        out
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::from_status(&status)
    }
}

impl From<FlightError> for Failure {
    fn from(error: FlightError) -> Self {
        match error {
            FlightError::Tonic(status) => Self::from_status(&status),
            FlightError::Arrow(error) => error.into(),
            other => Self::new(format!("the server's answer cannot be read: {other}")),
        }
    }
}

impl From<arrow::error::ArrowError> for Failure {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::new(format!("the server's answer cannot be read: {error}"))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self {
                kind: Kind::BrokenPipe,
                ..Self::new("the reader of the output has gone")
            };
        }
        Self::new(format!("cannot write the result: {error}"))
    }
}

/// Makes control characters visible: neither a server's text nor a value may drive the terminal.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' && c != '\t' {
            let _ = write!(out, "\\x{:02X}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// The innermost cause, which says what really happened: the outer ones only say "transport error".
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[derive(Clone, Copy)]
enum Section {
    Message,
    Detail,
    Hint,
}

#[derive(Clone, Copy)]
struct Place {
    position: (usize, usize),
    is_whole_line: bool,
}

/// A status that was made on this side carries its cause; one that the server sent does not.
fn is_transport(status: &Status) -> bool {
    status.source().is_some()
        && matches!(
            status.code(),
            Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled | Code::DeadlineExceeded
        )
}

fn section_of(line: &str) -> Option<(Section, &str)> {
    let line = line.trim_start();
    for (label, section) in [("detail:", Section::Detail), ("hint:", Section::Hint)] {
        if let Some(head) = line.get(..label.len())
            && head.eq_ignore_ascii_case(label)
        {
            return Some((section, line[label.len()..].trim_start()));
        }
    }
    None
}

/// Finds `line L, column C`, also as `Line: L, Column: C`, which is how the SQL parser of many servers says it.
fn find_position(text: &str) -> Option<Place> {
    let lower = text.to_ascii_lowercase();
    for (start, _) in lower.match_indices("line") {
        let Some((line, rest)) = number_after(&lower[start + "line".len()..]) else {
            continue;
        };
        let Some(rest) = rest.trim_start_matches([',', ' ']).strip_prefix("column") else {
            continue;
        };
        let Some((column, rest)) = number_after(rest) else {
            continue;
        };
        let before = lower[..start].trim();
        let after = rest.trim_matches(['.', ' ', ')']);
        return Some(Place {
            position: (line, column),
            is_whole_line: matches!(before, "" | "at" | "position:" | "(at") && after.is_empty(),
        });
    }
    None
}

fn number_after(text: &str) -> Option<(usize, &str)> {
    let text = text.trim_start_matches([':', ' ']);
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// The message without a place at its very end.
fn without_position(message: &str) -> &str {
    let Some(start) = message.to_ascii_lowercase().rfind(" at line") else {
        return message;
    };
    match (message.get(..start), message.get(start..).and_then(find_position)) {
        (Some(before), Some(place)) if place.is_whole_line => before,
        _ => message,
    }
}

/// The source line of a place and a caret under it; nothing if the statement has no such line.
fn caret(statement: &str, (line, column): (usize, usize)) -> Option<String> {
    let source = statement.lines().nth(line.checked_sub(1)?)?;
    let mut shown: Vec<char> = source.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut caret = column.saturating_sub(1).min(shown.len());
    let label = format!("LINE {line}: ");
    if shown.len() > SHOWN_COLUMNS {
        let start = caret.saturating_sub(SHOWN_COLUMNS / 2);
        let end = (start + SHOWN_COLUMNS).min(shown.len());
        let dots_before = if start > 0 { "..." } else { "" };
        let dots_after = if end < shown.len() { "..." } else { "" };
        caret = caret - start + dots_before.len();
        shown = dots_before
            .chars()
            .chain(shown[start..end].iter().copied())
            .chain(dots_after.chars())
            .collect();
    }
    let indent: usize = shown[..caret].iter().map(|c| c.width().unwrap_or(0)).sum::<usize>() + label.width();
    let shown: String = shown.into_iter().collect();
    Some(format!("{label}{shown}\n{}^\n", " ".repeat(indent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_text_is_taken_apart() {
        let failure = Failure::from_text(
            "table \"ordrs\" not found\ndetail: searched trireme.public\nhint: did you mean \"orders\"?\nat line 2, column 6",
        );
        assert_eq!(failure.message, "table \"ordrs\" not found");
        assert_eq!(failure.detail, ["searched trireme.public"]);
        assert_eq!(failure.hint, ["did you mean \"orders\"?"]);
        assert_eq!(failure.position, Some((2, 6)));
        assert_eq!(
            failure.render(Some("select *\nfrom ordrs"), None, false),
            "ERROR:  table \"ordrs\" not found\nLINE 2: from ordrs\n             ^\nDETAIL:  searched trireme.public\nHINT:  did you mean \"orders\"?\n"
        );
    }

    #[test]
    fn a_position_inside_the_message_stays_there() {
        let failure = Failure::from_text("unexpected token at Line: 1, Column: 8");
        assert_eq!(failure.message, "unexpected token at Line: 1, Column: 8");
        assert_eq!(failure.position, Some((1, 8)));
        assert!(failure.render(None, None, false).contains("Line: 1"));
        let text = failure.render(Some("select nope"), None, false);
        assert_eq!(
            text,
            "ERROR:  unexpected token\nLINE 1: select nope\n               ^\n"
        );
        assert!(Failure::from_text("in line with column b").position.is_none());
    }

    #[test]
    fn scripts_name_their_line_and_colour_is_optional() {
        let failure = Failure::new("no");
        assert_eq!(
            failure.render(None, Some("a.sql:3"), true),
            "trisql:a.sql:3: \x1b[1;31mERROR:\x1b[0m  no\n"
        );
    }

    #[test]
    fn long_lines_are_cut_around_the_caret() {
        let statement = format!("select {}, nope from t", "x, ".repeat(200));
        let column = statement.find("nope").unwrap() + 1;
        let mut failure = Failure::new("m");
        failure.position = Some((1, column));
        let text = failure.render(Some(&statement), None, false);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].len() < 130);
        let caret = lines[2].find('^').unwrap();
        assert!(lines[1][caret..].starts_with("nope"), "{text}");
    }

    #[test]
    fn a_position_outside_the_text_is_harmless() {
        let mut failure = Failure::new("m");
        for position in [(0, 0), (9, 1), (1, 999)] {
            failure.position = Some(position);
            failure.render(Some("select"), None, false);
        }
    }

    #[test]
    fn control_characters_become_visible() {
        assert_eq!(printable("a\x1b[31m\tb\nc\x07"), "a\\x1B[31m\tb\nc\\x07");
    }

    #[test]
    fn statuses_are_classified() {
        let refused = Failure::from_status(&Status::unauthenticated("no token"));
        assert_eq!(refused.kind, Kind::Connection);
        assert!(refused.hint[0].contains("-U"));
        assert_eq!(
            Failure::from_status(&Status::invalid_argument("x")).kind,
            Kind::Statement
        );
        assert_eq!(
            Failure::from_status(&Status::unavailable("busy; try again")).kind,
            Kind::Statement
        );
    }
}
