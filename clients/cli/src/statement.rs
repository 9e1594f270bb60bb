//! A statement's way: send it, watch for Ctrl-C, print its rows or its tag.
//!
//! ```text
//!  GetFlightInfo ──▶ update? ──▶ DoGet: one count ──▶ INSERT 5
//!        │              └─ no ─▶ DoGet: batches ──▶ writer ──▶ screen, pager, file
//!        └ Ctrl-C: the call is dropped          └ Ctrl-C: CancelFlightInfo, and the stream is dropped
//! ```

use std::path::Path;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow_flight::FlightInfo;
use serde::Deserialize;

use crate::connection::ResultStream;
use crate::error::{Failure, Kind};
use crate::format::{Columns, ResultWriter, writer};
use crate::interrupt::Watch;
use crate::meta::{self, Meta};
use crate::output::Output;
use crate::shell::{Flow, Shell, Wish};

/// What a server may say about a statement in FlightInfo.app_metadata. Others leave it empty or put their own things there.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
struct Announcement {
    command: String,
    update: bool,
}

impl Announcement {
    fn read(app_metadata: &[u8]) -> Self {
        serde_json::from_slice(app_metadata).unwrap_or_default()
    }
}

impl Shell {
    /// Runs one statement and prints its result.
    pub(crate) async fn statement(&mut self, sql: &str, wish: &Wish) -> Result<(), Failure> {
        self.last_statement = Some(sql.to_owned());
        let mut ctrl_c = self.interrupt.watch();
        let started = Instant::now();
        let took = self.run(sql, wish, started, &mut ctrl_c).await;
        if self.settings.timing {
            let took = took.as_ref().copied().unwrap_or_else(|_| started.elapsed());
            self.note(&time_text(took))?;
        }
        took.map(|_| ())
    }

    /// A statement that ends in `\g`, `\gx` or `\watch`.
    pub(crate) async fn statement_then(&mut self, sql: &str, command: &str) -> Result<Flow, Failure> {
        let command = meta::parse(command)?;
        self.last_statement = Some(sql.to_owned());
        self.command(command).await
    }

    /// Runs `\g`, `\gx` and `\watch` on the last statement.
    pub(crate) async fn send_again(&mut self, command: Meta) -> Result<(), Failure> {
        let Some(sql) = self.last_statement.clone() else {
            return Err(Failure::new("there is no statement to send"));
        };
        match command {
            Meta::Watch { seconds } => self.watch(&sql, Duration::from_secs_f64(seconds)).await,
            Meta::Go { file, expanded } => {
                let wish = Wish {
                    expanded,
                    file: file.map(Into::into),
                };
                self.statement(&sql, &wish).await
            }
            _ => Ok(()),
        }
    }

    async fn watch(&mut self, sql: &str, pause: Duration) -> Result<(), Failure> {
        let mut ctrl_c = self.interrupt.watch();
        let paging = std::mem::replace(&mut self.output.paging, false);
        let result = loop {
            if let Err(failure) = self.statement(sql, &Wish::default()).await {
                break Err(failure);
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = ctrl_c.pressed() => break Ok(()),
            }
        };
        self.output.paging = paging;
        match result {
            Err(failure) if failure.kind == Kind::Cancelled => Ok(()),
            other => other,
        }
    }

    async fn run(&mut self, sql: &str, wish: &Wish, started: Instant, ctrl_c: &mut Watch) -> Result<Duration, Failure> {
        let info = tokio::select! {
            info = self.connection.statement(sql) => info?,
            () = ctrl_c.pressed() => return Err(Failure::cancelled()),
        };
        let announced = Announcement::read(&info.app_metadata);
        if announced.update {
            let count = self.count(info, ctrl_c).await?;
            let took = started.elapsed();
            if changes_names(&announced.command) {
                self.names.forget();
            }
            self.tag(&announced.command, count)?;
            return Ok(took);
        }
        self.print(sql, info, wish, started, ctrl_c).await
    }

    async fn count(&mut self, info: FlightInfo, ctrl_c: &mut Watch) -> Result<Option<i64>, Failure> {
        let mut rows = ResultStream::new(self.connection.clone(), info);
        let mut count = None;
        loop {
            let batch = tokio::select! {
                batch = rows.next() => batch?,
                () = ctrl_c.pressed() => return Err(Failure::cancelled()),
            };
            let Some(batch) = batch else { return Ok(count) };
            let mut text = String::new();
            if batch.num_rows() > 0 && Columns::new(&batch)?.read(0, 0, &mut text) {
                count = text.parse().ok();
            }
        }
    }

    async fn print(
        &mut self,
        sql: &str,
        info: FlightInfo,
        wish: &Wish,
        started: Instant,
        ctrl_c: &mut Watch,
    ) -> Result<Duration, Failure> {
        let mut printer = Printer {
            writer: writer(self.style(wish.expanded)),
            has_begun: false,
        };
        self.output.begin(wish.file.as_deref())?;
        let mut rows = ResultStream::new(self.connection.clone(), info.clone());
        // While a pager shows the first rows, writing waits for its reader: that is not the statement's time.
        let mut reading = Duration::ZERO;
        let outcome = loop {
            let next = tokio::select! {
                next = rows.next() => next,
                () = ctrl_c.pressed() => Err(Failure::cancelled()),
            };
            let writing = Instant::now();
            let done = match next {
                Ok(Some(batch)) => printer.batch(&batch, &mut self.output).map(|()| false),
                Ok(None) => printer.end(&rows, &mut self.output).map(|()| true),
                Err(failure) => Err(failure),
            };
            if self.output.is_paging() {
                reading += writing.elapsed();
            }
            match done {
                Ok(false) if self.output.is_left() => break Err(Kind::BrokenPipe.into()),
                Ok(false) => {}
                Ok(true) => break Ok(started.elapsed().saturating_sub(reading)),
                Err(failure) => break Err(failure),
            }
        };
        drop(rows);
        let was_paging = self.output.is_paging();
        if let Err(failure) = &outcome
            && matches!(failure.kind, Kind::Cancelled | Kind::BrokenPipe)
        {
            // The stream is gone, which stops most servers; the action stops those that look only at it. If it fails
            // the statement has just ended, or the server does not know the action.
            let _ = self.connection.cancel(info).await;
        }
        self.output.end()?;
        let took = match outcome {
            // The user left the pager: that is no failure.
            Err(failure) if failure.kind == Kind::BrokenPipe && was_paging => started.elapsed().saturating_sub(reading),
            other => other?,
        };
        if !printer.has_begun {
            self.names.forget();
            self.tag(&first_words(sql), None)?;
        }
        Ok(took)
    }

    fn tag(&mut self, command: &str, count: Option<i64>) -> Result<(), Failure> {
        if self.settings.quiet {
            return Ok(());
        }
        let command = if command.is_empty() { "OK" } else { command };
        match count.filter(|count| *count >= 0 && counts_rows(command)) {
            Some(count) => self.note(&format!("{command} {count}\n")),
            None => self.note(&format!("{command}\n")),
        }
    }
}

/// A writer that begins with the first batch, since only then the schema is certain.
struct Printer {
    writer: Box<dyn ResultWriter>,
    has_begun: bool,
}

impl Printer {
    fn batch(&mut self, batch: &RecordBatch, output: &mut Output) -> Result<(), Failure> {
        if !self.has_begun {
            let nothing_to_show = batch.num_columns() == 0 && batch.num_rows() == 0;
            if nothing_to_show {
                return Ok(());
            }
            self.has_begun = true;
            self.writer.begin(&batch.schema(), output)?;
        }
        Ok(self.writer.batch(batch, output)?)
    }

    fn end(&mut self, rows: &ResultStream, output: &mut Output) -> Result<(), Failure> {
        if !self.has_begun {
            // A statement without a result, from a server that does not say so.
            let Some(schema) = rows.schema().filter(|schema| !schema.fields().is_empty()) else {
                return Ok(());
            };
            self.has_begun = true;
            self.writer.begin(&schema, output)?;
        }
        Ok(self.writer.end(output)?)
    }
}

fn counts_rows(command: &str) -> bool {
    let first = command.split_whitespace().next().unwrap_or_default();
    matches!(
        first.to_ascii_uppercase().as_str(),
        "INSERT" | "UPDATE" | "DELETE" | "MERGE" | "COPY" | "SELECT" | "TRUNCATE"
    ) || command.to_ascii_uppercase().ends_with(" AS")
}

fn changes_names(command: &str) -> bool {
    let first = command.split_whitespace().next().unwrap_or_default();
    matches!(
        first.to_ascii_uppercase().as_str(),
        "CREATE" | "DROP" | "ALTER" | "SET" | "USE"
    )
}

/// `CREATE TABLE` out of `create table t (…)`.
fn first_words(sql: &str) -> String {
    let mut words = sql
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
        .map(str::to_uppercase);
    let first = words.next().unwrap_or_default();
    match (first.as_str(), words.next()) {
        ("CREATE" | "DROP" | "ALTER", Some(second)) => format!("{first} {second}"),
        _ => first,
    }
}

fn time_text(took: Duration) -> String {
    let ms = took.as_secs_f64() * 1e3;
    if took.as_secs() < 1 {
        return format!("Time: {ms:.3} ms\n");
    }
    let (minutes, seconds) = (took.as_secs() / 60, took.as_secs_f64() % 60.0);
    format!("Time: {ms:.3} ms ({minutes:02}:{seconds:06.3})\n")
}

impl From<Kind> for Failure {
    fn from(kind: Kind) -> Self {
        Self {
            kind,
            ..Self::new("the output was closed")
        }
    }
}

impl Shell {
    /// Prints a result that was made here, such as a list of tables.
    pub(crate) fn print_report(&mut self, report: crate::describe::Report, file: Option<&Path>) -> Result<(), Failure> {
        let mut style = self.style(false);
        style.title = report.title;
        style.footer = report.footer;
        style.count_rows = report.count_rows;
        let mut writer = writer(style);
        self.output.begin(file)?;
        let printed = writer
            .begin(&report.batch.schema(), &mut self.output)
            .and_then(|()| writer.batch(&report.batch, &mut self.output))
            .and_then(|()| writer.end(&mut self.output))
            .map_err(Failure::from);
        let was_paging = self.output.is_paging();
        self.output.end()?;
        match printed {
            Err(failure) if failure.kind == Kind::BrokenPipe && was_paging => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcements_are_read_and_others_ignored() {
        let read = Announcement::read(br#"{"query_id":"q","command":"INSERT","update":true}"#);
        assert_eq!(
            read,
            Announcement {
                command: "INSERT".into(),
                update: true
            }
        );
        for other in [&b""[..], b"\x08\x01", b"[]", b"\"x\""] {
            assert!(!Announcement::read(other).update);
        }
    }

    #[test]
    fn tags_and_times() {
        assert_eq!(first_words("create  table t(x)"), "CREATE TABLE");
        assert_eq!(first_words("set x = 1"), "SET");
        assert!(counts_rows("INSERT") && counts_rows("CREATE TABLE AS") && !counts_rows("CREATE TABLE"));
        assert_eq!(time_text(Duration::from_micros(1500)), "Time: 1.500 ms\n");
        assert_eq!(
            time_text(Duration::from_millis(61_500)),
            "Time: 61500.000 ms (01:01.500)\n"
        );
    }
}
