//! The command line of `trireme`. Options of `serve` that are settings have no defaults here: an option that was not
//! given must not hide the file or the environment.

use crate::generate::{Compression, Dataset, Format, GenerateOptions};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// SQL over Arrow Flight on a folder of files.
#[derive(Debug, Parser)]
#[command(
    name = "trireme",
    version,
    about = "SQL over Arrow Flight on a folder of files",
    propagate_version = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve a data folder over Arrow Flight SQL.
    Serve(ServeArgs),
    /// Make data to try things with.
    #[command(subcommand)]
    Generate(GenerateCommand),
    /// Change who may log in.
    #[command(subcommand)]
    User(UserCommand),
    /// What if: where a recorded workload would run on machines that one doesn't have, and which is cheapest.
    Plan(PlanArgs),
    /// Measure this machine's processor, for the cost model: up to a minute of all its cores.
    Calibrate(CalibrateArgs),
    /// Print every setting with its default and meaning.
    Settings(SettingsArgs),
}

/// Options of `trireme plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Recorded workload (JSON), as planner/costs/testdata has.
    #[arg(long, value_name = "FILE")]
    pub workload: PathBuf,
    /// The machine: a TOML list of devices, each `like` one of the catalogue with what differs. Without it all mixes of the
    /// catalogue are compared.
    #[arg(long, value_name = "FILE")]
    pub devices: Option<PathBuf>,
    /// How many times as large the data would be.
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    pub factor: f64,
    /// Mixes on which a query takes longer are left out.
    #[arg(long, value_name = "MS")]
    pub longest_ms: Option<f64>,
}

/// Options of `trireme calibrate`.
#[derive(Debug, Args)]
pub struct CalibrateArgs {
    /// Less than 3 s, and less exact.
    #[arg(long)]
    pub quick: bool,
    /// As of `serve`: where profiles are kept follows from the data folder.
    #[command(flatten)]
    pub server: ServeArgs,
}

/// Options of `trireme serve`.
#[derive(Debug, Default, Args)]
pub struct ServeArgs {
    /// Configuration file (TOML); TRIREME_CONFIG does the same.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Data folder [default: ./trireme-data].
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,
    /// Address of Arrow Flight SQL [default: 127.0.0.1:7433].
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Address of HTTP: metrics and health [default: 127.0.0.1:7480].
    #[arg(long, value_name = "ADDRESS")]
    pub http: Option<String>,
    /// Form of log lines: text or json [default: text].
    #[arg(long, value_name = "FORM")]
    pub log_format: Option<String>,
    /// Least severe log lines: error, warn, info, debug or trace [default: info].
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Any other setting, such as exec.memory_bytes=4GiB; may be given many times.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
}

impl ServeArgs {
    /// The settings that were given, as (dotted key, value) for `Config::load`. Named options win over `--set`.
    pub fn overrides(&self) -> Vec<(String, String)> {
        let named = [
            ("server.data_dir", &self.data),
            ("server.listen", &self.listen),
            ("server.http_listen", &self.http),
            ("server.log_format", &self.log_format),
            ("server.log_level", &self.log_level),
        ];
        let given = named
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_string(), value.clone()?)));
        self.set.iter().cloned().chain(given).collect()
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_string(), value.trim().to_string())),
        _ => Err("not of the form KEY=VALUE".to_string()),
    }
}

/// Kinds of data.
#[derive(Debug, Subcommand)]
pub enum GenerateCommand {
    /// The eight tables of the TPC-H benchmark; at scale 1 the largest has 6 million rows.
    Tpch(GenerateArgs),
    /// The 24 tables of the TPC-DS benchmark; at scale 1 the largest has 12 million rows.
    Tpcds(GenerateArgs),
}

impl GenerateCommand {
    /// Which data, and how.
    pub fn into_parts(self) -> (Dataset, GenerateOptions) {
        match self {
            Self::Tpch(args) => (Dataset::Tpch, args.into()),
            Self::Tpcds(args) => (Dataset::Tpcds, args.into()),
        }
    }
}

/// Options of `trireme generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// Scale factor; 1 is about 1 GB of text.
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    pub scale: f64,
    /// Folder for the files; it is created.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Files of each table that is not small; with more than one, each table is a folder.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub parts: usize,
    /// What the files are.
    #[arg(long, value_enum, default_value_t = Format::Parquet)]
    pub format: Format,
    /// How Parquet is compressed.
    #[arg(long, value_enum, default_value_t = Compression::Snappy)]
    pub compression: Compression,
    /// Replace files of an earlier run.
    #[arg(long)]
    pub overwrite: bool,
}

impl From<GenerateArgs> for GenerateOptions {
    fn from(args: GenerateArgs) -> Self {
        let GenerateArgs {
            scale,
            out,
            parts,
            format,
            compression,
            overwrite,
        } = args;
        Self {
            scale,
            out,
            parts,
            format,
            compression,
            overwrite,
        }
    }
}

/// Changes of the users file.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Add a user or give it a new password, which is asked for or read from standard input.
    Add(UserArgs),
    /// Remove a user.
    Remove(UserArgs),
}

/// Options of `trireme user`.
#[derive(Debug, Args)]
pub struct UserArgs {
    /// Name of the user.
    pub name: String,
    /// The file that `server.users_file` names.
    #[arg(long, value_name = "FILE", env = "TRIREME_SERVER_USERS_FILE")]
    pub users_file: PathBuf,
}

/// Options of `trireme settings`.
#[derive(Debug, Args)]
pub struct SettingsArgs {
    /// As Markdown: the reference.
    #[arg(long, conflicts_with = "toml")]
    pub markdown: bool,
    /// As TOML: a configuration file to start from.
    #[arg(long)]
    pub toml: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn serve(args: &[&str]) -> ServeArgs {
        let all = ["trireme", "serve"].iter().chain(args);
        match Cli::try_parse_from(all).unwrap().command {
            Command::Serve(serve) => serve,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn only_what_is_given_overrides() {
        assert!(serve(&[]).overrides().is_empty());
        let args = serve(&["--data", "d", "--set", "exec.memory_bytes=1GiB", "--log-level", "debug"]);
        let pair = |key: &str, value: &str| (key.to_string(), value.to_string());
        assert_eq!(
            args.overrides(),
            [
                pair("exec.memory_bytes", "1GiB"),
                pair("server.data_dir", "d"),
                pair("server.log_level", "debug")
            ]
        );
        assert!(Cli::try_parse_from(["trireme", "serve", "--set", "x"]).is_err());
    }

    /// Every key that an option sets is one that the configuration knows.
    #[test]
    fn options_are_settings() {
        let args = serve(&[
            "--data",
            "d",
            "--listen",
            "127.0.0.1:1",
            "--http",
            "127.0.0.1:2",
            "--log-format",
            "json",
            "--log-level",
            "warn",
        ]);
        let config = trireme_config::Config::load(None, [], &args.overrides()).unwrap();
        assert_eq!(config.server.http_listen.port(), 2);
    }
}
