//! The commands of `trireme` that need no server: `generate`, `user`, `plan`, `calibrate`, `settings`. Each prints what it did and gives
//! its error back as one line.

use crate::args::{GenerateCommand, PlanArgs, SettingsArgs, UserArgs, UserCommand};
use crate::auth::{UsersError, add_user, remove_user};
use crate::bootstrap;
use crate::devices::{self, Processor};
use crate::generate::{self, GenerateError};
use indicatif::{HumanBytes, HumanCount};
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;
use std::time::Instant;
use trireme_config::Config;
use trireme_costs::calibrate::Effort;
use trireme_costs::fleet::{self, Wanted, Warmth};
use trireme_costs::recorded::Workload;
use trireme_costs::{Objective, Profile};
use trireme_device_api::Device;

/// Why a command ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// Of `generate`.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// Of `user`.
    #[error(transparent)]
    Users(#[from] UsersError),
    /// The password could not be read.
    #[error("cannot read the password: {0}")]
    Password(io::Error),
    /// Two passwords that differ.
    #[error("the two passwords differ; nothing was changed")]
    PasswordsDiffer,
    /// Of `plan`.
    #[error("{0}")]
    Plan(String),
    /// Standard output is gone.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

/// `trireme generate`.
///
/// # Errors
/// As [`generate::generate`].
pub fn generate(command: GenerateCommand) -> Result<(), CommandError> {
    let (dataset, options) = command.into_parts();
    let started = Instant::now();
    let made = generate::generate(dataset, &options)?;
    writeln!(
        io::stdout(),
        "made {} files with {} rows, {} in {:.1} s, in {}",
        made.files,
        HumanCount(made.rows),
        HumanBytes(made.bytes),
        started.elapsed().as_secs_f64(),
        options.out.display()
    )?;
    Ok(())
}

/// `trireme user`. A running server sees the change within a second.
///
/// # Errors
/// As [`add_user`] and [`remove_user`], and a password that cannot be read.
pub fn user(command: UserCommand) -> Result<(), CommandError> {
    let (name, file, done) = match command {
        UserCommand::Add(UserArgs { name, users_file }) => {
            let is_new = add_user(&users_file, &name, &password()?)?;
            (
                name,
                users_file,
                if is_new { "added to" } else { "has a new password in" },
            )
        }
        UserCommand::Remove(UserArgs { name, users_file }) => {
            remove_user(&users_file, &name)?;
            (name, users_file, "removed from")
        }
    };
    writeln!(io::stdout(), "user {name} {done} {}", file.display())?;
    Ok(())
}

/// `trireme plan`.
///
/// # Errors
/// Files that can't be read or aren't what they should be; a machine that can't run the workload.
pub fn plan(args: &PlanArgs) -> Result<(), CommandError> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|error| CommandError::Plan(format!("{}: {error}", path.display())))
    };
    let wrong = |error: &dyn std::fmt::Display| CommandError::Plan(error.to_string());
    let workload = Workload::from_json(&read(&args.workload)?).map_err(|error| wrong(&error))?;
    let warmth = Warmth::default();
    let mut out = io::stdout().lock();
    let Some(devices) = &args.devices else {
        let wanted = Wanted {
            longest_ms_max: args.longest_ms,
            ..Wanted::default()
        };
        let mixes = fleet::fleet(&workload, args.factor, warmth, wanted).map_err(|error| wrong(&error))?;
        out.write_all(fleet::report(&mixes).as_bytes())?;
        return Ok(());
    };
    let devices = read(devices)?;
    for query in &workload.queries {
        let Some(run) = query.runs.last() else { continue };
        let run = run.grown(args.factor);
        let text = fleet::plan_text(query, &run, &devices, warmth, &Objective::default());
        writeln!(out, "{}\n{}", query.name, text.map_err(|error| wrong(&error))?)?;
    }
    Ok(())
}

/// `trireme calibrate`: the processor, then every device that is there. A running server takes the profiles when it starts again.
///
/// # Errors
/// When the processor's profile can't be written; a device that can't be measured is only named.
pub fn calibrate(config: &Config, quick: bool) -> Result<(), CommandError> {
    let effort = if quick { Effort::Quick } else { Effort::Full };
    let processor = Processor::new();
    let costs = bootstrap::cost_model(config, &processor);
    let mut out = io::stdout().lock();
    let began = Instant::now();
    let profile = costs.calibrate(effort)?;
    tell_profile(&mut out, &profile, began)?;
    for backend in devices::backends(config, &processor.variant()) {
        let probed = backend.probe();
        for device in &probed.devices {
            let began = Instant::now();
            match costs.calibrate_device(device, effort) {
                Ok(profile) => tell_profile(&mut out, &profile, began)?,
                Err(reason) => writeln!(out, "{} is not measured: {reason}", device.info().id)?,
            }
        }
    }
    writeln!(out, "kept in {}", bootstrap::costs_dir(config).display())?;
    Ok(())
}

fn tell_profile(out: &mut impl Write, profile: &Profile, began: Instant) -> io::Result<()> {
    let gigabytes = |bytes: f64| bytes / 1e9;
    let seconds = began.elapsed().as_secs_f64();
    writeln!(out, "{} ({}), measured in {seconds:.1} s", profile.id, profile.name)?;
    for (bytes, rate) in profile.stream_bytes_per_second_by_carrier_bytes.points() {
        writeln!(out, "  columns of {bytes} bytes: {:.1} GB/s a worker", gigabytes(*rate))?;
    }
    writeln!(
        out,
        "  {} workers together: {:.1} GB/s",
        profile.workers,
        gigabytes(profile.memory_bytes_per_second_max)
    )?;
    for (bytes, rate) in profile.random_accesses_per_second_by_footprint_bytes.points() {
        let kib = bytes / 1024.0;
        writeln!(out, "  at random in {kib:.0} KiB: {:.0} M/s a worker", rate / 1e6)?;
    }
    for (groups, rate) in profile.group_updates_per_second_by_groups.points() {
        writeln!(out, "  into {groups:.0} groups: {:.0} M/s a worker", rate / 1e6)?;
    }
    if let Some(link) = &profile.upload {
        let started_ms = profile.start_ms + profile.launches * profile.launch_ms;
        writeln!(
            out,
            "  a fragment starts in {started_ms:.3} ms, a wait takes {:.3} ms",
            profile.sync_ms
        )?;
        for (bytes, rate) in link.bytes_per_second_by_bytes.points() {
            let kib = bytes / 1024.0;
            writeln!(out, "  copies of {kib:.0} KiB to it: {:.1} GB/s", gigabytes(*rate))?;
        }
    }
    let power = &profile.power;
    writeln!(
        out,
        "  {:.0} W working, {:.0} W waiting ({}), {:.2} USD an hour",
        power.active_watts,
        power.idle_watts,
        power.provenance.name(),
        profile.price_usd_per_hour
    )
}

/// `trireme settings`.
///
/// # Errors
/// Standard output that is gone.
pub fn settings(args: &SettingsArgs) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    if args.markdown {
        out.write_all(Config::reference_markdown().as_bytes())?;
    } else if args.toml {
        out.write_all(Config::example_toml().as_bytes())?;
    } else {
        for row in Config::default().describe() {
            let value = if row.default.is_empty() { "\"\"" } else { &row.default };
            writeln!(out, "{} = {value}\n    {} Allowed: {}.", row.key, row.help, row.allowed)?;
        }
    }
    Ok(())
}

/// Asks twice on a terminal; otherwise the first line of standard input.
fn password() -> Result<String, CommandError> {
    if io::stdin().is_terminal() {
        let ask = |prompt| rpassword::prompt_password(prompt).map_err(CommandError::Password);
        let first = ask("password: ")?;
        return if first == ask("again: ")? {
            Ok(first)
        } else {
            Err(CommandError::PasswordsDiffer)
        };
    }
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(CommandError::Password)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_string())
}
