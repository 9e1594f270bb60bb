//! The interactive loop: reads lines, keeps the history, and hands complete pieces to the shell.
//!
//! Each line has its own prompt, which shows what is still open, as psql's does. A statement goes into the history as a whole,
//! so that Up brings all its lines back into one buffer that can be edited; Alt-Enter adds a line to such a buffer.

use std::borrow::Cow;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;

use rustyline::completion::{Completer, Pair};
use rustyline::config::{Behavior, Configurer};
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{
    Cmd, ColorMode, CompletionType, Config, Context, Editor, EventHandler, Helper, KeyCode, KeyEvent, Modifiers,
};
use tokio::runtime::Handle;
use unicode_width::UnicodeWidthStr;

use crate::complete::{self, Names};
use crate::connection::Connection;
use crate::error::Kind;
use crate::highlight;
use crate::shell::{Flow, Shell};
use crate::split::{Piece, Splitter, Waiting};
use crate::uri::Secret;

const HISTORY_ENTRIES_MAX: usize = 10_000;

/// Runs until the user quits.
pub(crate) fn run(shell: &mut Shell, runtime: &Handle) -> rustyline::Result<()> {
    let color = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut editor = editor(shell, runtime, color)?;
    let history = history_file();
    if let Some(file) = &history {
        // There is none at the first start.
        let _ = editor.load_history(file);
    }
    let mut splitter = Splitter::new();
    let mut entry = String::new();
    loop {
        let prompt = prompt(splitter.waiting());
        let styled = if color {
            format!("\x1b[1m{prompt}\x1b[0m")
        } else {
            prompt.clone()
        };
        let mut line = match editor.readline(&(prompt, styled)) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                splitter = Splitter::new();
                entry.clear();
                continue;
            }
            Err(ReadlineError::Eof) => {
                let _ = shell.output.note("\\q\n");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        line.push('\n');
        entry.push_str(&line);
        let mut pieces = Vec::new();
        match bare_word(&line).filter(|_| splitter.waiting() == Waiting::Statement) {
            Some(command) => pieces.push(Piece::Meta {
                text: command.to_owned(),
                line: 1,
            }),
            None => pieces.extend(splitter.feed(&line)),
        }
        if splitter.waiting() == Waiting::Statement {
            remember(&mut editor, history.as_ref(), &entry);
            entry.clear();
        }
        if run_pieces(shell, runtime, pieces) == Flow::Quit {
            return Ok(());
        }
    }
}

/// Asks for a password on the terminal, showing nothing. None without a terminal or when the user gives up.
pub(crate) fn password(question: &str) -> Option<Secret> {
    let has_terminal = std::io::stdin().is_terminal() || std::fs::File::open("/dev/tty").is_ok();
    if !has_terminal {
        return None;
    }
    let config = Config::builder()
        .behavior(Behavior::PreferTerm)
        .auto_add_history(false)
        .color_mode(ColorMode::Forced)
        .build();
    let mut editor: Editor<Masked, DefaultHistory> = Editor::with_config(config).ok()?;
    editor.set_helper(Some(Masked));
    editor.set_max_history_size(0).ok()?;
    editor.readline(question).ok().map(Secret::new)
}

fn run_pieces(shell: &mut Shell, runtime: &Handle, pieces: Vec<Piece>) -> Flow {
    for piece in pieces {
        match runtime.block_on(shell.step(piece, None)) {
            Ok(Flow::GoOn) => {}
            Ok(Flow::Quit) => return Flow::Quit,
            // After Ctrl-C the rest of the line is not wanted either.
            Err(Kind::Cancelled) => return Flow::GoOn,
            Err(_) => {}
        }
    }
    Flow::GoOn
}

fn editor(shell: &Shell, runtime: &Handle, color: bool) -> rustyline::Result<Editor<Assistant, DefaultHistory>> {
    let config = Config::builder()
        .max_history_size(HISTORY_ENTRIES_MAX)?
        .history_ignore_dups(true)?
        .history_ignore_space(true)
        .completion_type(CompletionType::List)
        .auto_add_history(false)
        .color_mode(if color { ColorMode::Enabled } else { ColorMode::Disabled })
        .build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(Assistant {
        connection: shell.connection.clone(),
        names: Arc::clone(&shell.names),
        runtime: runtime.clone(),
        color,
    }));
    editor.bind_sequence(
        KeyEvent(KeyCode::Enter, Modifiers::ALT),
        EventHandler::Simple(Cmd::Newline),
    );
    Ok(editor)
}

fn remember(editor: &mut Editor<Assistant, DefaultHistory>, file: Option<&PathBuf>, entry: &str) {
    let entry = entry.trim_end();
    if entry.is_empty() || holds_credentials(entry) || !editor.add_history_entry(entry).unwrap_or(false) {
        return;
    }
    if let Some(file) = file {
        // A history that cannot be written is no reason to disturb the session.
        let _ = editor.append_history(file);
    }
}

/// True for statements that give credentials of a store: they don't belong into a file in the user's home.
fn holds_credentials(entry: &str) -> bool {
    const KEYS: [&str; 8] = [
        "secret_access_key",
        "session_token",
        "sse_customer_key_base64",
        "service_account_key",
        "storage_account_key",
        "storage_client_secret",
        "storage_sas_key",
        "access_key_id",
    ];
    let lower = entry.to_lowercase();
    let mut words = lower
        .split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty());
    let before = ["or", "replace", "temp", "temporary", "persistent"];
    let mut rest = words.clone().skip_while(|word| *word != "create").skip(1);
    rest.find(|word| !before.contains(word)) == Some("secret") || words.any(|word| KEYS.contains(&word))
}

fn prompt(waiting: Waiting) -> String {
    let mark = match waiting {
        Waiting::Statement => '=',
        Waiting::End => '-',
        Waiting::SingleQuote => '\'',
        Waiting::DoubleQuote => '"',
        Waiting::DollarQuote => '$',
        Waiting::Comment => '*',
    };
    format!("trireme{mark}> ")
}

/// `quit`, `exit` and `help` alone on a line are meant for us, as in psql.
fn bare_word(line: &str) -> Option<&'static str> {
    match line.trim().trim_end_matches(';').to_lowercase().as_str() {
        "quit" | "exit" => Some("q"),
        "help" => Some("?"),
        _ => None,
    }
}

fn history_file() -> Option<PathBuf> {
    match std::env::var_os("TRISQL_HISTORY") {
        Some(path) if path.is_empty() => None,
        Some(path) => Some(path.into()),
        None => std::env::home_dir().map(|home| home.join(".trisql_history")),
    }
}

/// What the editor asks while a line is being typed.
struct Assistant {
    connection: Connection,
    names: Arc<Names>,
    runtime: Handle,
    color: bool,
}

impl Helper for Assistant {}
impl Validator for Assistant {}
impl Hinter for Assistant {
    type Hint = String;
}

impl Completer for Assistant {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _ctx: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let found = complete::candidates(&line[..pos], || self.names.get(&self.connection, &self.runtime));
        let pairs = found
            .words
            .into_iter()
            .map(|word| Pair {
                display: word.clone(),
                replacement: word,
            })
            .collect();
        Ok((found.start, pairs))
    }
}

impl Highlighter for Assistant {
    fn highlight<'l>(&self, line: &'l str, _pos: usize) -> Cow<'l, str> {
        if self.color {
            Cow::Owned(highlight::sql(line))
        } else {
            Cow::Borrowed(line)
        }
    }

    fn highlight_char(&self, _line: &str, _pos: usize, kind: CmdKind) -> bool {
        self.color && !matches!(kind, CmdKind::MoveCursor)
    }
}

/// Shows spaces in place of what is typed.
struct Masked;

impl Helper for Masked {}
impl Validator for Masked {}
impl Hinter for Masked {
    type Hint = String;
}
impl Completer for Masked {
    type Candidate = Pair;
}
impl Highlighter for Masked {
    fn highlight<'l>(&self, line: &'l str, _pos: usize) -> Cow<'l, str> {
        Cow::Owned(" ".repeat(line.width()))
    }

    fn highlight_char(&self, _line: &str, _pos: usize, kind: CmdKind) -> bool {
        !matches!(kind, CmdKind::MoveCursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_show_what_is_open() {
        assert_eq!(prompt(Waiting::Statement), "trireme=> ");
        assert_eq!(prompt(Waiting::End), "trireme-> ");
        assert_eq!(prompt(Waiting::SingleQuote), "trireme'> ");
    }

    #[test]
    fn statements_with_credentials_are_not_remembered() {
        for held in [
            "CREATE SECRET s (TYPE s3, SECRET 'x');",
            "create or replace persistent\n secret s (type s3)",
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 's3://b' OPTIONS ('aws.secret_access_key' 'x')",
        ] {
            assert!(holds_credentials(held), "{held}");
        }
        for plain in [
            "SELECT * FROM system.secrets",
            "DROP SECRET s",
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 's3://b' OPTIONS (secret 'lake')",
            "CREATE TABLE secret (a INT)",
        ] {
            assert!(!holds_credentials(plain), "{plain}");
        }
    }

    #[test]
    fn bare_words() {
        assert_eq!(bare_word(" QUIT;\n"), Some("q"));
        assert_eq!(bare_word("help"), Some("?"));
        assert_eq!(bare_word("help me"), None);
    }
}
