//! The binary `trireme`: reads the command line and hands over. Errors end in one line on standard error.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong command line or configuration.

use clap::Parser;
use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;
use trireme_config::Config;
use trireme_server::args::{CalibrateArgs, Cli, Command, ServeArgs};
use trireme_server::{bootstrap, commands, telemetry};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(args) => return serve(&args),
        Command::Generate(command) => commands::generate(command),
        Command::User(command) => commands::user(command),
        Command::Calibrate(args) => return calibrate(&args),
        Command::Plan(args) => commands::plan(&args),
        Command::Settings(args) => commands::settings(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

fn serve(args: &ServeArgs) -> ExitCode {
    let began = Instant::now();
    let config = match Config::load(args.config.as_deref(), std::env::vars_os(), &args.overrides()) {
        Ok(config) => config,
        Err(error) => return fail(&error, 2),
    };
    if let Err(error) = telemetry::init_logs(config.server.log_format, config.server.log_level) {
        return fail(&error, 2);
    }
    match bootstrap::serve(config, began) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 2),
    }
}

fn calibrate(args: &CalibrateArgs) -> ExitCode {
    let given = &args.server;
    let config = match Config::load(given.config.as_deref(), std::env::vars_os(), &given.overrides()) {
        Ok(config) => config,
        Err(error) => return fail(&error, 2),
    };
    match commands::calibrate(&config, args.quick) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

fn fail(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "trireme: {error}");
    ExitCode::from(code)
}
