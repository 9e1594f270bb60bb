//! The shell's state, and how it works through scripts and commands piece by piece.
//!
//! Interactive use, `-c`, `-f` and `\i` all come through [`Shell::step`]: a failure is printed there, once, and its kind goes
//! back to whoever decides whether to go on.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;

use crate::complete::Names;
use crate::connection::Connection;
use crate::error::{Failure, Kind};
use crate::format::{Shape, Style};
use crate::interrupt::Interrupt;
use crate::meta;
use crate::output::Output;
use crate::split::{Piece, Splitter};

/// A script that includes itself must end somewhere.
pub(crate) const INCLUDE_DEPTH_MAX: usize = 32;

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) shape: Shape,
    pub(crate) expanded: bool,
    pub(crate) tuples_only: bool,
    pub(crate) null: String,
    pub(crate) timing: bool,
    /// No tags, no confirmations.
    pub(crate) quiet: bool,
    pub(crate) keep_going: bool,
    pub(crate) interactive: bool,
}

/// What a piece of input asks of the loop around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    GoOn,
    Quit,
}

/// The kind of a failure that has been printed already.
pub(crate) type Step = Result<Flow, Kind>;

pub(crate) struct Shell {
    pub(crate) connection: Connection,
    pub(crate) settings: Settings,
    pub(crate) output: Output,
    pub(crate) interrupt: Interrupt,
    pub(crate) names: Arc<Names>,
    pub(crate) last_statement: Option<String>,
    pub(crate) include_depth: usize,
    color: bool,
}

/// How one statement's result is to differ from the settings.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wish {
    pub(crate) expanded: bool,
    pub(crate) file: Option<PathBuf>,
}

impl Shell {
    pub(crate) fn new(
        connection: Connection,
        settings: Settings,
        output: Output,
        interrupt: Interrupt,
        names: Arc<Names>,
    ) -> Self {
        Self {
            connection,
            settings,
            output,
            interrupt,
            names,
            last_statement: None,
            include_depth: 0,
            color: std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        }
    }

    /// Works through a script. With `keep_going` failures are remembered and the first one's kind comes back at the end.
    pub(crate) async fn script<R: BufRead + Send>(&mut self, mut input: R, name: Option<&str>) -> Step {
        let mut splitter = Splitter::new();
        let mut first_failure = None;
        let mut line = String::new();
        let mut number = 0;
        loop {
            line.clear();
            number += 1;
            let pieces = match read_line(&mut input, &mut line, number) {
                Ok(0) => splitter.finish().into_iter().collect(),
                Ok(_) => splitter.feed(&line),
                Err(error) => {
                    return Err(self.report(&Failure::new(format!("cannot read the script: {error}")), None, None));
                }
            };
            for piece in pieces {
                match self.step(piece, name).await {
                    Ok(Flow::GoOn) => {}
                    Ok(Flow::Quit) => return first_failure.map_or(Ok(Flow::Quit), Err),
                    Err(kind) if self.settings.keep_going && kind == Kind::Statement => {
                        first_failure = first_failure.or(Some(kind));
                    }
                    Err(kind) => return Err(kind),
                }
            }
            if line.is_empty() {
                return first_failure.map_or(Ok(Flow::GoOn), Err);
            }
        }
    }

    /// Runs one piece of input and prints what fails. `script` is the name for messages.
    pub(crate) async fn step(&mut self, piece: Piece, script: Option<&str>) -> Step {
        let (statement, line, result) = match piece {
            Piece::Sql { text, line } => {
                let result = self.statement(&text, &Wish::default()).await;
                (Some(text), line, result.map(|()| Flow::GoOn))
            }
            Piece::SqlThen { text, command, line } => {
                let result = self.statement_then(&text, &command).await;
                (Some(text), line, result)
            }
            Piece::Meta { text, line } => match meta::parse(&text) {
                Ok(meta::Meta::Include(path)) => match self.include(&path).await {
                    Ok(step) => return step,
                    Err(failure) => (None, line, Err(failure)),
                },
                Ok(meta::Meta::Edit(path)) => match self.edit(path).await {
                    Ok(step) => return step,
                    Err(failure) => (None, line, Err(failure)),
                },
                Ok(command) => (self.last_statement.clone(), line, self.command(command).await),
                Err(failure) => (None, line, Err(failure)),
            },
        };
        result.map_err(|failure| {
            let place = script.map(|name| format!("{name}:{line}"));
            self.report(&failure, statement.as_deref(), place.as_deref())
        })
    }

    /// Prints a failure and gives back its kind.
    pub(crate) fn report(&mut self, failure: &Failure, statement: Option<&str>, place: Option<&str>) -> Kind {
        let _ = self.output.flush();
        if failure.kind != Kind::BrokenPipe {
            let text = failure.render(statement, place, self.color);
            let _ = std::io::stderr().write_all(text.as_bytes());
        }
        failure.kind
    }

    /// A note that belongs to a statement: a tag, a time. Programs that read our output must not meet it there.
    pub(crate) fn note(&mut self, text: &str) -> Result<(), Failure> {
        if self.settings.shape.is_for_people() {
            self.output.note(text)?;
        } else {
            std::io::stderr().write_all(text.as_bytes())?;
        }
        Ok(())
    }

    pub(crate) fn style(&self, expanded: bool) -> Style {
        let shape = match self.settings.shape {
            Shape::Table if expanded || self.settings.expanded => Shape::Vertical,
            shape => shape,
        };
        Style {
            tuples_only: self.settings.tuples_only,
            null: self.settings.null.clone(),
            ..Style::new(shape)
        }
    }
}

/// Reads line `number` of a script. Editors may begin a file with a byte order mark, which is none of its text.
fn read_line<R: BufRead>(input: &mut R, line: &mut String, number: usize) -> std::io::Result<usize> {
    let mut bytes = Vec::new();
    let count = input.read_until(b'\n', &mut bytes)?;
    let text = str::from_utf8(&bytes).map_err(|_| {
        let text = format!("line {number} is not UTF-8 (save it as such)");
        std::io::Error::new(std::io::ErrorKind::InvalidData, text)
    })?;
    let mark = if number == 1 { "\u{feff}" } else { "" };
    line.push_str(text.strip_prefix(mark).unwrap_or(text));
    Ok(count)
}
