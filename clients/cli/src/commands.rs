//! What backslash commands do.

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::Path;
use std::process::Command;

use crate::catalog;
use crate::connection::Connection;
use crate::describe::{self, Report};
use crate::error::Failure;
use crate::format::Shape;
use crate::interrupt::unless_pressed;
use crate::meta::{self, Meta, parse_switch};
use crate::shell::{Flow, INCLUDE_DEPTH_MAX, Shell, Step};

impl Shell {
    pub(crate) async fn command(&mut self, command: Meta) -> Result<Flow, Failure> {
        match command {
            Meta::Quit => return Ok(Flow::Quit),
            Meta::Describe(Some(pattern)) => {
                let ctrl_c = self.interrupt.watch();
                for report in unless_pressed(ctrl_c, describe::describe(&self.connection, &pattern)).await? {
                    self.print_report(report, None)?;
                }
            }
            list @ (Meta::Describe(None) | Meta::List { .. } | Meta::Schemas(_) | Meta::Catalogs) => {
                let ctrl_c = self.interrupt.watch();
                let report = unless_pressed(ctrl_c, report(&self.connection, list)).await?;
                self.print_report(report, None)?;
            }
            Meta::ConnInfo => {
                let text = self.connection_text().await;
                self.output.note(&text)?;
            }
            again @ (Meta::Go { .. } | Meta::Watch { .. }) => self.send_again(again).await?,
            other => self.setting_or_text(other)?,
        }
        Ok(Flow::GoOn)
    }

    fn setting_or_text(&mut self, command: Meta) -> Result<(), Failure> {
        let settings = &mut self.settings;
        match command {
            Meta::Timing(on) => {
                settings.timing = on.unwrap_or(!settings.timing);
                self.confirm_switch("Timing", self.settings.timing)
            }
            Meta::Expanded(on) => {
                settings.expanded = on.unwrap_or(!settings.expanded);
                self.confirm_switch("Expanded display", self.settings.expanded)
            }
            Meta::TuplesOnly(on) => {
                settings.tuples_only = on.unwrap_or(!settings.tuples_only);
                self.confirm_switch("Tuples only", self.settings.tuples_only)
            }
            Meta::Format(name) => {
                if let Some(name) = name {
                    settings.shape = Shape::from_name(&name)?;
                }
                let text = format!("Output format is {}.\n", self.settings.shape.name());
                self.confirm(&text)
            }
            Meta::Pset(None) => {
                let text = self.settings_text();
                Ok(self.output.note(&text)?)
            }
            Meta::Pset(Some((name, value))) => self.pset(&name, value),
            Meta::Output(path) => Ok(self.output.redirect(path.as_deref().map(Path::new))?),
            Meta::Echo { text, line_end } => {
                let end = if line_end { "\n" } else { "" };
                self.output.begin(None)?;
                self.output.write_all(format!("{text}{end}").as_bytes())?;
                Ok(self.output.end()?)
            }
            Meta::Reset => self.confirm("The statement is forgotten.\n"),
            Meta::Help => Ok(self.output.note(&meta::help())?),
            Meta::SqlHelp(topic) => Ok(self.output.note(&meta::sql_help(&topic)?)?),
            _ => Ok(()),
        }
    }

    fn pset(&mut self, name: &str, value: Option<String>) -> Result<(), Failure> {
        let on = match value.as_deref() {
            None => None,
            Some(text) => parse_switch(text),
        };
        let switch = |current: bool| match (&value, on) {
            (None, _) => Ok(!current),
            (Some(_), Some(on)) => Ok(on),
            (Some(text), None) => Err(Failure::new(format!("\\pset {name} takes on or off, not \"{text}\""))),
        };
        match name {
            "null" => {
                if let Some(value) = value {
                    self.settings.null = value;
                }
                let text = format!("Null display is \"{}\".\n", self.settings.null);
                self.confirm(&text)
            }
            "format" => self.setting_or_text(Meta::Format(value)),
            "expanded" | "x" => self.setting_or_text(Meta::Expanded(Some(switch(self.settings.expanded)?))),
            "tuples_only" | "t" => self.setting_or_text(Meta::TuplesOnly(Some(switch(self.settings.tuples_only)?))),
            "timing" => self.setting_or_text(Meta::Timing(Some(switch(self.settings.timing)?))),
            "pager" => {
                self.output.paging = switch(self.output.paging)?;
                self.confirm_switch("Pager", self.output.paging)
            }
            other => Err(Failure::new(format!("unknown setting \"{other}\""))
                .with_hint("\\pset knows null, format, expanded, tuples_only, timing and pager")),
        }
    }

    pub(crate) async fn include(&mut self, path: &str) -> Result<Step, Failure> {
        if self.include_depth >= INCLUDE_DEPTH_MAX {
            return Err(Failure::new(format!(
                "more than {INCLUDE_DEPTH_MAX} scripts include each other"
            )));
        }
        let path = expanded_home(path);
        let file = File::open(&path).map_err(|error| Failure::new(format!("cannot open {path}: {error}")))?;
        self.include_depth += 1;
        // A script can include scripts, so the future has to live on the heap.
        let step = Box::pin(self.script(BufReader::new(file), Some(&path))).await;
        self.include_depth -= 1;
        // \q ends the script that it stands in.
        Ok(step.map(|_| Flow::GoOn))
    }

    pub(crate) async fn edit(&mut self, path: Option<String>) -> Result<Step, Failure> {
        if !self.settings.interactive {
            return Err(Failure::new("\\e needs a terminal"));
        }
        if let Some(path) = path {
            let path = expanded_home(&path);
            run_editor(Path::new(&path))?;
            return self.include(&path).await;
        }
        let mut draft = tempfile::Builder::new().suffix(".sql").tempfile()?;
        let text = self.last_statement.clone().unwrap_or_default();
        if !text.is_empty() {
            writeln!(draft, "{text};")?;
        }
        run_editor(draft.path())?;
        let text = std::fs::read_to_string(draft.path())?;
        Ok(Box::pin(self.script(text.as_bytes(), None)).await)
    }

    async fn connection_text(&self) -> String {
        let options = self.connection.options();
        let mut text = format!("You are connected to {}", options.target);
        if let Some(user) = &options.user {
            text.push_str(&format!(" as user \"{user}\""));
        } else if options.token.is_some() {
            text.push_str(" with a token");
        }
        match (options.target.tls, options.insecure) {
            (true, false) => text.push_str(", over TLS"),
            (true, true) => text.push_str(", over TLS with an unchecked certificate"),
            (false, _) => text.push_str(", without TLS"),
        }
        text.push_str(".\n");
        let server = unless_pressed(self.interrupt.watch(), catalog::server(&self.connection)).await;
        if let Ok((Some(name), version)) = server {
            text.push_str(&format!("The server is {name} {}.\n", version.unwrap_or_default()));
        }
        text
    }

    fn settings_text(&self) -> String {
        let switch = |on: bool| if on { "on" } else { "off" };
        let settings = &self.settings;
        format!(
            "null         '{}'\nformat       {}\nexpanded     {}\ntuples_only  {}\ntiming       {}\npager        {}\n",
            settings.null,
            settings.shape.name(),
            switch(settings.expanded),
            switch(settings.tuples_only),
            switch(settings.timing),
            switch(self.output.paging),
        )
    }

    fn confirm_switch(&mut self, what: &str, on: bool) -> Result<(), Failure> {
        self.confirm(&format!("{what} is {}.\n", if on { "on" } else { "off" }))
    }

    fn confirm(&mut self, text: &str) -> Result<(), Failure> {
        if !self.settings.quiet {
            self.note(text)?;
        }
        Ok(())
    }
}

async fn report(connection: &Connection, command: Meta) -> Result<Report, Failure> {
    match command {
        Meta::List {
            what,
            pattern,
            with_system,
        } => describe::list_tables(connection, Some(what), pattern.as_ref(), with_system).await,
        Meta::Schemas(pattern) => describe::list_schemas(connection, pattern.as_ref()).await,
        Meta::Catalogs => describe::list_catalogs(connection).await,
        _ => describe::list_tables(connection, None, None, false).await,
    }
}

fn expanded_home(path: &str) -> String {
    match (path.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest).to_string_lossy().into_owned(),
        _ => path.to_owned(),
    }
}

fn run_editor(path: &Path) -> Result<(), Failure> {
    let named = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let editor = named("VISUAL")
        .or_else(|| named("EDITOR"))
        .unwrap_or_else(|| "vi".to_owned());
    let status = Command::new("sh")
        .arg("-c")
        .arg(format!("{editor} \"$1\""))
        .arg("sh")
        .arg(path)
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::new(format!("the editor \"{editor}\" ended with {status}"))),
        Err(error) => Err(Failure::new(format!("cannot start the editor \"{editor}\": {error}"))
            .with_hint("set EDITOR to a program that is installed")),
    }
}
