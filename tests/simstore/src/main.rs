//! `simstore --port 9100 --profile near`: the simulated store as a program.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use simstore::{Access, Config, Profile, SimStore};

/// A simulated object store: S3, GCS and Azure (under `/devstoreaccount1`) on one port.
#[derive(Debug, Parser)]
struct Options {
    /// Port; 0 takes any that is free, and the first line of the output says which.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Speed and faults: none, near, far, express, slow5 or sick.
    #[arg(long, default_value = "none")]
    profile: String,
    /// Seed of latencies and faults.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Buckets that are there from the start.
    #[arg(long, default_value = "lake")]
    bucket: Vec<String>,
    /// `bucket=folder`: a folder of local files as a bucket, read-only.
    #[arg(long)]
    folder: Vec<String>,
    /// Access key ids, bearer tokens or accounts that may come in; all, if none is given.
    #[arg(long)]
    key: Vec<String>,
    /// Threads that serve.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

fn config(options: Options) -> Result<Config, String> {
    let profile = Profile::named(&options.profile).ok_or_else(|| {
        format!(
            "no profile {}; there are {}",
            options.profile,
            Profile::NAMES.join(", ")
        )
    })?;
    let folder = |text: &String| {
        let (bucket, folder) = text
            .split_once('=')
            .ok_or_else(|| format!("{text} is not bucket=folder"))?;
        Ok((bucket.to_owned(), PathBuf::from(folder)))
    };
    Ok(Config {
        port: options.port,
        host: options.host,
        profile,
        seed: options.seed,
        buckets: options.bucket,
        folders: options.folder.iter().map(folder).collect::<Result<_, String>>()?,
        access: Access {
            keys: options.key,
            ..Access::default()
        },
        threads: options.threads,
        ..Config::default()
    })
}

fn main() -> ExitCode {
    let started = config(Options::parse())
        .and_then(|config| SimStore::start(config).map_err(|error| format!("can't listen: {error}")));
    match started {
        Ok(store) => {
            println!("{}", store.url());
            store.serve_forever();
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
