//! The command line and the environment, and what they come to.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, CommandFactory, FromArgMatches, Parser};

use crate::connection::{ConnectError, ConnectOptions};
use crate::format::Shape;
use crate::uri::{Secret, Target};

const AFTER_HELP: &str = "\
Environment: TRISQL_URI, TRISQL_USER, TRISQL_PASSWORD, TRISQL_TOKEN, TRISQL_HISTORY, PAGER, NO_COLOR.
A password belongs into TRISQL_PASSWORD or the prompt of -W: other users can read a command line.
Exit codes: 0 done, 1 a statement of -c failed, 2 cannot connect or bad arguments, 3 a script of -f or \
standard input stopped at an error, 130 stopped by Ctrl-C.";

/// An interactive SQL client for Arrow Flight SQL.
#[derive(Debug, Parser)]
#[command(name = "trisql", version, disable_help_flag = true, after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Server, as grpc://HOST:PORT, grpc+tls://HOST:PORT, flightsql://HOST:PORT or HOST:PORT [default: grpc://127.0.0.1:7433]
    #[arg(env = "TRISQL_URI", hide_env_values = true)]
    uri: Option<String>,

    /// Server's host, in place of the URI's
    #[arg(short = 'h', long, value_name = "HOST")]
    host: Option<String>,

    /// Server's port, in place of the URI's
    #[arg(short = 'p', long, value_name = "PORT")]
    port: Option<u16>,

    /// Run SQL or a backslash command and exit; may be repeated and mixed with -f
    #[arg(short = 'c', long = "command", value_name = "SQL", allow_hyphen_values = true)]
    commands: Vec<String>,

    /// Run a script and exit; - is standard input
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    files: Vec<String>,

    /// User to log in as
    #[arg(short = 'U', long, value_name = "USER", env = "TRISQL_USER")]
    user: Option<String>,

    /// Ask for the password
    #[arg(short = 'W', long = "password")]
    ask_password: bool,

    /// Speak TLS, as the scheme grpc+tls does
    #[arg(long)]
    tls: bool,

    /// Trust this certificate (PEM) in place of the system's; implies --tls
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,

    /// Do not check the server's certificate; also allows a password without TLS. For tests only
    #[arg(long)]
    insecure: bool,

    /// How results are printed
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Shape,

    /// Print rows in the vertical form, as \x does
    #[arg(short = 'x', long)]
    pub(crate) expanded: bool,

    /// Print rows only: no header, no row count
    #[arg(short = 't', long)]
    pub(crate) tuples_only: bool,

    /// No welcome, no command tags such as INSERT 5
    #[arg(short = 'q', long)]
    pub(crate) quiet: bool,

    /// Write results to a file
    #[arg(short = 'o', long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// What to print for NULL
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) null: String,

    /// Never use a pager
    #[arg(long)]
    pub(crate) no_pager: bool,

    /// Print how long each statement took
    #[arg(long)]
    pub(crate) timing: bool,

    /// Do not read ~/.trisqlrc
    #[arg(short = 'X', long = "no-rc")]
    pub(crate) no_rc: bool,

    /// Go on after an error in -c and -f
    #[arg(long)]
    pub(crate) keep_going: bool,

    /// Give up connecting after this many seconds
    #[arg(long, value_name = "S", default_value_t = 10)]
    connect_timeout_s: u64,

    /// Largest message to accept from the server
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=4096))]
    max_message_mib: u32,

    /// Print help
    #[arg(short = '?', long = "help", action = ArgAction::Help)]
    help: Option<bool>,

    /// What -c and -f ask for, in the order they were written.
    #[arg(skip)]
    pub(crate) work: Vec<Work>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Work {
    Command(String),
    File(String),
}

impl Args {
    /// Reads the command line. On an error or for help and version the answer is what clap wants to print.
    pub(crate) fn read<I, T>(arguments: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        let matches = Self::command().try_get_matches_from(arguments)?;
        let mut args = Self::from_arg_matches(&matches)?;
        args.work = work_in_order(&matches, &args);
        if matches.value_source("uri") == Some(ValueSource::EnvVariable) && args.uri.as_deref() == Some("") {
            args.uri = None;
        }
        Ok(args)
    }

    /// The password of the environment, which a URI's own overrides.
    pub(crate) fn connect_options(
        &self,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<ConnectOptions, ConnectError> {
        let mut target = match &self.uri {
            Some(uri) => Target::parse(uri)?,
            None => Target::default(),
        };
        if let Some(host) = &self.host {
            target.host = host.trim_matches(['[', ']']).to_owned();
        }
        if let Some(port) = self.port {
            target.port = port;
        }
        target.tls |= self.tls || self.tls_ca.is_some();
        let from_environment = |name: &str| environment(name).filter(|text| !text.is_empty()).map(Secret::new);
        let user = target.user.take().or_else(|| self.user.clone());
        let password = target.password.take().or_else(|| from_environment("TRISQL_PASSWORD"));
        Ok(ConnectOptions {
            target,
            user,
            password,
            token: from_environment("TRISQL_TOKEN"),
            tls_ca: self.tls_ca.clone(),
            insecure: self.insecure,
            connect_timeout: Duration::from_secs(self.connect_timeout_s.max(1)),
            message_bytes_max: usize::try_from(self.max_message_mib).unwrap_or(256) << 20,
        })
    }

    pub(crate) fn wants_password_prompt(&self) -> bool {
        self.ask_password
    }
}

fn work_in_order(matches: &ArgMatches, args: &Args) -> Vec<Work> {
    let positions = |id: &str| {
        matches
            .indices_of(id)
            .map(Iterator::collect::<Vec<_>>)
            .unwrap_or_default()
    };
    let commands = positions("commands")
        .into_iter()
        .zip(args.commands.iter().cloned().map(Work::Command));
    let files = positions("files")
        .into_iter()
        .zip(args.files.iter().cloned().map(Work::File));
    let mut work: Vec<(usize, Work)> = commands.chain(files).collect();
    work.sort_by_key(|(position, _)| *position);
    work.into_iter().map(|(_, work)| work).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Args {
        Args::read(std::iter::once("trisql").chain(arguments.iter().copied())).unwrap()
    }

    fn options(arguments: &[&str]) -> ConnectOptions {
        read(arguments).connect_options(|_| None).unwrap()
    }

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn host_and_port_override_the_uri() {
        let target = options(&["grpc+tls://a:1", "-h", "b", "-p", "2"]).target;
        assert_eq!(target.to_string(), "grpc+tls://b:2");
        assert_eq!(options(&["-h", "::1"]).target.to_string(), "grpc://[::1]:7433");
        assert_eq!(
            options(&["--tls-ca", "x.pem", "h"]).target.to_string(),
            "grpc+tls://h:7433"
        );
    }

    #[test]
    fn commands_and_files_keep_their_order() {
        assert_eq!(
            read(&["-c", "a", "-f", "b.sql", "-c", "c"]).work,
            [
                Work::Command("a".into()),
                Work::File("b.sql".into()),
                Work::Command("c".into())
            ]
        );
    }

    #[test]
    fn secrets_come_from_the_environment() {
        let environment = |name: &str| match name {
            "TRISQL_PASSWORD" => Some("pw".to_owned()),
            "TRISQL_TOKEN" => Some(String::new()),
            _ => None,
        };
        let options = read(&["grpc://ann@h"]).connect_options(environment).unwrap();
        assert_eq!(options.user.as_deref(), Some("ann"));
        assert_eq!(options.password.unwrap().reveal(), "pw");
        assert!(options.token.is_none());
    }

    #[test]
    fn help_is_a_question_mark_and_bad_flags_are_errors() {
        for flag in ["-?", "--help"] {
            let error = Args::read(["trisql", flag]).unwrap_err();
            assert_eq!(error.kind(), clap::error::ErrorKind::DisplayHelp);
        }
        assert!(Args::read(["trisql", "--format", "xml"]).is_err());
        assert!(Args::read(["trisql", "-h"]).is_err());
    }
}
