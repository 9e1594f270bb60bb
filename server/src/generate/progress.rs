//! How far a long generation is: a bar on a terminal, a line for each finished file otherwise.

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

/// Shows progress on standard error.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(super) fn start(groups: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(groups as u64);
            if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent:>3} %  {elapsed} (left {eta})  {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        Self { bar }
    }

    pub(super) fn group_done(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    pub(super) fn file_done(&self, path: &Path, rows: u64, bytes: u64, elapsed: Duration) {
        let line = format!("{}: {} rows, {}", path.display(), HumanCount(rows), HumanBytes(bytes));
        match &self.bar {
            Some(bar) => bar.set_message(line),
            None => {
                // Progress that cannot be shown is no reason to stop.
                let _ = writeln!(std::io::stderr(), "{line}, after {:.1} s", elapsed.as_secs_f64());
            }
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
