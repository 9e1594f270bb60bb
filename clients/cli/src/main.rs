//! `trisql`, an interactive SQL client for Arrow Flight SQL with psql's habits.
//!
//! This file owns the way from the command line to an exit code. The rest: `args` and `uri` say where to connect,
//! `connection` speaks Flight SQL, `split` and `meta` read input, `shell`, `statement`, `commands` and `describe` act on it,
//! `format` and `output` print, `prompt` is the interactive loop.

mod args;
mod catalog;
mod commands;
mod complete;
mod connection;
mod describe;
mod error;
mod format;
mod highlight;
mod identity;
mod interrupt;
mod meta;
#[cfg(test)]
mod mock_server;
mod output;
mod pattern;
mod prompt;
mod shell;
mod split;
mod statement;
mod tls;
mod uri;

use std::fs::File;
use std::io::{BufReader, IsTerminal, Write};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};

use crate::args::{Args, Work};
use crate::complete::Names;
use crate::connection::{ConnectError, ConnectOptions, Connection};
use crate::error::Kind;
use crate::interrupt::{Interrupt, unless_pressed};
use crate::output::Output;
use crate::shell::{Flow, Settings, Shell, Step};

const EXIT_SQL_ERROR: u8 = 1;
const EXIT_NO_CONNECTION: u8 = 2;
const EXIT_SCRIPT_STOPPED: u8 = 3;
const EXIT_INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let args = match Args::read(std::env::args_os()) {
        Ok(args) => args,
        Err(answer) => {
            let _ = answer.print();
            return ExitCode::from(if answer.use_stderr() { EXIT_NO_CONNECTION } else { 0 });
        }
    };
    let runtime = match Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}"), None),
    };
    let connection = match connect(&args, &runtime) {
        Ok(connection) => connection,
        Err(error) => return fail(&error.to_string(), Some(error.hint())),
    };
    let code = match new_shell(&args, connection, &runtime) {
        Ok(mut shell) => {
            let code = work(&args, &mut shell, &runtime);
            let code = flushed(&mut shell, code);
            runtime.block_on(shell.connection.close());
            code
        }
        Err(error) => fail(&format!("cannot write results to {error}"), None),
    };
    // A stream that was cancelled may still be closing; nobody waits for it.
    runtime.shutdown_background();
    code
}

fn connect(args: &Args, runtime: &Runtime) -> Result<Connection, ConnectError> {
    let mut options = args.connect_options(|name| std::env::var(name).ok())?;
    if args.wants_password_prompt() && options.password.is_none() {
        if options.user.is_none() {
            options.user = std::env::var("USER").ok().filter(|user| !user.is_empty());
        }
        options.password = Some(ask_password(&options)?);
    }
    let can_ask = options.user.is_some() && options.password.is_none() && options.token.is_none();
    match runtime.block_on(Connection::open(options.clone())) {
        Err(error @ ConnectError::Refused { .. }) if can_ask => {
            options.password = Some(ask_password(&options).map_err(|_| error)?);
            runtime.block_on(Connection::open(options))
        }
        other => other,
    }
}

fn ask_password(options: &ConnectOptions) -> Result<uri::Secret, ConnectError> {
    let user = options.user.as_deref().unwrap_or_default();
    prompt::password(&format!("Password for user {user}: ")).ok_or_else(|| ConnectError::Refused {
        target: options.target.to_string(),
        reason: "there is no terminal to ask for the password on; set TRISQL_PASSWORD".to_owned(),
    })
}

fn new_shell(args: &Args, connection: Connection, runtime: &Runtime) -> std::io::Result<Shell> {
    let interactive = args.work.is_empty() && std::io::stdin().is_terminal();
    let interrupt = runtime.block_on(async { Interrupt::listen(interactive) });
    let settings = Settings {
        shape: args.format,
        expanded: args.expanded,
        tuples_only: args.tuples_only,
        null: args.null.clone(),
        timing: args.timing,
        quiet: args.quiet,
        keep_going: args.keep_going,
        interactive,
    };
    let mut output = Output::new(screen_size, !args.no_pager);
    output.redirect(args.output.as_deref())?;
    Ok(Shell::new(
        connection,
        settings,
        output,
        interrupt,
        Arc::new(Names::default()),
    ))
}

fn work(args: &Args, shell: &mut Shell, runtime: &Runtime) -> ExitCode {
    if !args.no_rc {
        match runtime.block_on(run_rc(shell)) {
            Ok(Flow::GoOn) => {}
            Ok(Flow::Quit) => return ExitCode::SUCCESS,
            Err(kind) => return exit_code(kind, EXIT_SCRIPT_STOPPED),
        }
    }
    if shell.settings.interactive {
        return interactive(args, shell, runtime);
    }
    let standard_input = [Work::File("-".to_owned())];
    let work = if args.work.is_empty() {
        &standard_input[..]
    } else {
        &args.work
    };
    let mut first_failure = None;
    for item in work {
        let (step, stopped) = match item {
            Work::Command(text) => (runtime.block_on(shell.script(text.as_bytes(), None)), EXIT_SQL_ERROR),
            Work::File(path) if path == "-" => {
                let input = BufReader::new(std::io::stdin());
                (
                    runtime.block_on(shell.script(input, Some("<stdin>"))),
                    EXIT_SCRIPT_STOPPED,
                )
            }
            Work::File(path) => match File::open(path) {
                Ok(file) => (
                    runtime.block_on(shell.script(BufReader::new(file), Some(path))),
                    EXIT_SCRIPT_STOPPED,
                ),
                Err(error) => return fail(&format!("cannot open {path}: {error}"), None),
            },
        };
        match step {
            Ok(Flow::Quit) if matches!(item, Work::Command(_)) => break,
            // In a script it ends the script.
            Ok(_) => {}
            Err(Kind::Statement) if args.keep_going => first_failure = Some(EXIT_SQL_ERROR),
            Err(kind) => return exit_code(kind, stopped),
        }
    }
    ExitCode::from(first_failure.unwrap_or(0))
}

fn interactive(args: &Args, shell: &mut Shell, runtime: &Runtime) -> ExitCode {
    // The question also shows at once whether the server speaks to us at all.
    let ctrl_c = shell.interrupt.watch();
    let server = runtime.block_on(unless_pressed(ctrl_c, catalog::server(&shell.connection)));
    if let Err(failure) = &server
        && failure.kind == Kind::Connection
    {
        shell.report(failure, None, None);
        return ExitCode::from(EXIT_NO_CONNECTION);
    }
    if !args.quiet {
        let server = match server {
            Ok((Some(name), version)) => format!(" (server {name} {})", version.unwrap_or_default()),
            _ => String::new(),
        };
        let welcome = format!("trisql {}{server}\nType \\? for help.\n\n", env!("CARGO_PKG_VERSION"));
        let _ = shell.output.note(&welcome);
    }
    match prompt::run(shell, runtime.handle()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("cannot read from the terminal: {error}"), None),
    }
}

/// Runs `~/.trisqlrc` without its confirmations. An error in it is shown and passed over.
async fn run_rc(shell: &mut Shell) -> Step {
    let Some(file) = std::env::home_dir().and_then(|home| File::open(home.join(".trisqlrc")).ok()) else {
        return Ok(Flow::GoOn);
    };
    let quiet = std::mem::replace(&mut shell.settings.quiet, true);
    let keep_going = std::mem::replace(&mut shell.settings.keep_going, true);
    let step = shell.script(BufReader::new(file), Some("~/.trisqlrc")).await;
    shell.settings.quiet = quiet;
    shell.settings.keep_going = keep_going;
    match step {
        Err(Kind::Statement) => Ok(Flow::GoOn),
        other => other,
    }
}

fn exit_code(kind: Kind, stopped: u8) -> ExitCode {
    ExitCode::from(match kind {
        Kind::Statement => stopped,
        Kind::Connection => EXIT_NO_CONNECTION,
        Kind::Cancelled => EXIT_INTERRUPTED,
        Kind::BrokenPipe => 0,
    })
}

/// The last bytes can fail too: a full disk must not look like success.
fn flushed(shell: &mut Shell, code: ExitCode) -> ExitCode {
    match shell.output.redirect(None).and_then(|()| shell.output.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            fail(&format!("cannot write the result: {error}"), None);
            ExitCode::from(EXIT_SQL_ERROR)
        }
        _ => code,
    }
}

fn fail(message: &str, hint: Option<&str>) -> ExitCode {
    let mut text = format!("trisql: error: {}\n", error::printable(message));
    if let Some(hint) = hint {
        text.push_str(&format!("HINT:  {hint}\n"));
    }
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::from(EXIT_NO_CONNECTION)
}

/// Columns and rows of the terminal. `stty` knows them on every system, and asking it needs no unsafe code here.
fn screen_size() -> Option<(usize, usize)> {
    let terminal = File::open("/dev/tty").ok()?;
    let answer = Command::new("stty")
        .arg("size")
        .stdin(terminal)
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(answer.stdout).ok()?;
    let mut numbers = text.split_whitespace().map(str::parse::<usize>);
    let rows = numbers.next()?.ok().filter(|rows| *rows > 0)?;
    let columns = numbers.next()?.ok().filter(|columns| *columns > 0)?;
    Some((columns, rows))
}
