//! Where results go: the screen, a pager when they are taller than the screen, or a file.
//!
//! Paging needs no knowledge of a result's size: what is written is held back until it is taller than the screen, and only
//! then is the pager started and fed. A result that fits is printed as it is.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

const DEFAULT_PAGER: &str = "less -SFRX";
/// A held line that is wider than this many screens would still be one line for us.
const HELD_BYTES_MAX: usize = 1 << 20;

/// The size of the screen, asked for anew for each result since windows change.
pub(crate) type ScreenSize = fn() -> Option<(usize, usize)>;

pub(crate) struct Output {
    file: Option<BufWriter<File>>,
    /// One result's own file (`\g FILE`), which goes before the session's.
    result_file: Option<BufWriter<File>>,
    screen: BufWriter<Stdout>,
    screen_size: ScreenSize,
    pub(crate) paging: bool,
    page: Page,
}

enum Page {
    Off,
    Holding {
        text: Vec<u8>,
        lines: usize,
        rows: usize,
        columns: usize,
        line_width: usize,
    },
    Running {
        child: Child,
        input: Option<BufWriter<ChildStdin>>,
    },
}

impl Output {
    pub(crate) fn new(screen_size: ScreenSize, paging: bool) -> Self {
        Self {
            file: None,
            result_file: None,
            screen: BufWriter::with_capacity(1 << 16, io::stdout()),
            screen_size,
            paging: paging && io::stdout().is_terminal(),
            page: Page::Off,
        }
    }

    /// Sends results to a file from now on, or to the screen again.
    pub(crate) fn redirect(&mut self, path: Option<&Path>) -> io::Result<()> {
        if let Some(mut file) = self.file.take() {
            file.flush()?;
        }
        self.file = path.map(create).transpose()?;
        Ok(())
    }

    /// Begins a result.
    pub(crate) fn begin(&mut self, file: Option<&Path>) -> io::Result<()> {
        self.result_file = file.map(create).transpose()?;
        self.page = Page::Off;
        let to_screen = self.file.is_none() && self.result_file.is_none();
        if to_screen
            && self.paging
            && let Some((columns, rows)) = (self.screen_size)()
        {
            self.page = Page::Holding {
                text: Vec::new(),
                lines: 0,
                rows,
                columns: columns.max(1),
                line_width: 0,
            };
        }
        Ok(())
    }

    /// Ends a result: prints what was held, or waits until the user leaves the pager.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        if let Some(mut file) = self.result_file.take() {
            file.flush()?;
        }
        match std::mem::replace(&mut self.page, Page::Off) {
            Page::Off => {}
            Page::Holding { text, .. } => self.screen.write_all(&text)?,
            Page::Running { mut child, input } => {
                // Dropping the input tells the pager that there is no more.
                let written = input.map_or(Ok(()), |mut input| input.flush());
                child.wait()?;
                return written.or_else(quit_early);
            }
        }
        self.flush()
    }

    /// True if the pager was left before the result's end, so that the rest is not wanted.
    pub(crate) fn is_left(&mut self) -> bool {
        match &mut self.page {
            Page::Running { child, .. } => matches!(child.try_wait(), Ok(Some(_))),
            _ => false,
        }
    }

    /// True while a pager shows the result: a broken pipe then means that the user has seen enough.
    pub(crate) fn is_paging(&self) -> bool {
        matches!(self.page, Page::Running { .. })
    }

    /// Prints a note for people to the screen, whatever results do.
    pub(crate) fn note(&mut self, text: &str) -> io::Result<()> {
        self.screen.write_all(text.as_bytes())?;
        self.screen.flush()
    }

    fn start_pager(&mut self) -> io::Result<()> {
        let Page::Holding { text, .. } = std::mem::replace(&mut self.page, Page::Off) else {
            return Ok(());
        };
        self.screen.flush()?;
        let pager = std::env::var("PAGER").ok().filter(|pager| !pager.trim().is_empty());
        let pager = pager.as_deref().unwrap_or(DEFAULT_PAGER);
        if !is_there(pager) {
            return self.screen.write_all(&text);
        }
        let started = Command::new("sh").arg("-c").arg(pager).stdin(Stdio::piped()).spawn();
        match started {
            Ok(mut child) => {
                let mut input = child.stdin.take().map(BufWriter::new);
                let written = input.as_mut().map_or(Ok(()), |input| input.write_all(&text));
                self.page = Page::Running { child, input };
                written
            }
            // No shell, no pager: the result matters more.
            Err(_) => self.screen.write_all(&text),
        }
    }
}

/// Whether the shell knows the pager's program: what is written to one that isn't there is lost.
fn is_there(pager: &str) -> bool {
    let program = pager.split_whitespace().find(|word| !word.contains('='));
    let asked = Command::new("sh")
        .args(["-c", "command -v -- \"$1\"", "sh", program.unwrap_or_default()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    asked.is_ok_and(|status| status.success())
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(file) = self.result_file.as_mut().or(self.file.as_mut()) {
            return file.write(bytes);
        }
        match &mut self.page {
            Page::Off => self.screen.write(bytes),
            Page::Running { input: Some(input), .. } => input.write(bytes),
            Page::Running { input: None, .. } => Ok(bytes.len()),
            Page::Holding {
                text,
                lines,
                rows,
                columns,
                line_width,
            } => {
                text.extend_from_slice(bytes);
                for byte in bytes {
                    if *byte == b'\n' {
                        *lines += 1;
                        *line_width = 0;
                    } else {
                        *line_width += 1;
                        if *line_width > *columns {
                            *lines += 1;
                            *line_width = 1;
                        }
                    }
                }
                // One row stays for the prompt.
                if *lines + 1 > *rows || text.len() > HELD_BYTES_MAX {
                    self.start_pager()?;
                }
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(file) = self.result_file.as_mut().or(self.file.as_mut()) {
            return file.flush();
        }
        match &mut self.page {
            Page::Running { input: Some(input), .. } => input.flush(),
            Page::Running { .. } | Page::Holding { .. } => Ok(()),
            Page::Off => self.screen.flush(),
        }
    }
}

fn create(path: &Path) -> io::Result<BufWriter<File>> {
    let file =
        File::create(path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    Ok(BufWriter::with_capacity(1 << 16, file))
}

fn quit_early(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Ok(())
    } else {
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_take_results_and_one_result_can_have_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let (session, own) = (folder.path().join("session"), folder.path().join("own"));
        let mut output = Output::new(|| None, false);
        output.redirect(Some(&session)).unwrap();
        for (file, text) in [(None, "a\n"), (Some(own.as_path()), "b\n"), (None, "c\n")] {
            output.begin(file).unwrap();
            output.write_all(text.as_bytes()).unwrap();
            output.end().unwrap();
        }
        output.redirect(None).unwrap();
        assert_eq!(std::fs::read_to_string(session).unwrap(), "a\nc\n");
        assert_eq!(std::fs::read_to_string(own).unwrap(), "b\n");
    }

    #[test]
    fn a_file_that_cannot_be_made_is_named() {
        let mut output = Output::new(|| None, false);
        let error = output.redirect(Some(Path::new("/no/such/folder/x"))).unwrap_err();
        assert!(error.to_string().contains("/no/such/folder/x"));
    }
}
