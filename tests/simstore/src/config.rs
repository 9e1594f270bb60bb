//! What a simulated store is told: where it listens, who may come in, and how fast and how sick it is.
//!
//! A [`Profile`] can be changed while the store runs; a [`Config`] can't. Rates are in bytes per second, 0 meaning no limit;
//! chances are in percent of requests.

use serde::{Deserialize, Serialize};

/// How a store is started.
#[derive(Debug, Clone)]
pub struct Config {
    /// Port on the loopback address; 0 takes any that is free.
    pub port: u16,
    /// Address to listen on; the loopback address unless said otherwise.
    pub host: String,
    /// Speed and faults.
    pub profile: Profile,
    /// Seed of latencies and faults.
    pub seed: u64,
    /// Buckets (containers) that are there from the start.
    pub buckets: Vec<String>,
    /// Folders served read-only: bucket and path.
    pub folders: Vec<(String, std::path::PathBuf)>,
    /// Azure accounts: a path that begins with one of them is Azure's dialect.
    pub azure_accounts: Vec<String>,
    /// Who may come in.
    pub access: Access,
    /// Smallest part of a multipart upload but the last, as S3 and GCS demand.
    pub part_bytes_min: u64,
    /// Threads that serve.
    pub threads: usize,
    /// How many of the last requests are remembered one by one.
    pub log_requests: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            port: 0,
            host: "127.0.0.1".to_owned(),
            profile: Profile::none(),
            seed: 1,
            buckets: vec!["lake".to_owned()],
            folders: Vec::new(),
            azure_accounts: vec!["devstoreaccount1".to_owned()],
            access: Access::default(),
            part_bytes_min: 5 << 20,
            threads: 2,
            log_requests: 16_384,
        }
    }
}

impl Config {
    /// The default with a profile.
    pub fn with_profile(profile: Profile) -> Self {
        Self {
            profile,
            ..Self::default()
        }
    }
}

/// Who may come in. Signatures are not checked: whoever names the right key is believed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Access {
    /// Access key ids (S3), bearer tokens (GCS, Azure) or accounts (Azure's shared keys). Empty: all come in.
    pub keys: Vec<String>,
    /// The session token that S3 requests must carry.
    pub session_token: Option<String>,
    /// S3 requests must say that the requester pays.
    pub request_payer: bool,
}

/// Speed and faults of a store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Profile {
    /// For people.
    pub name: String,
    /// Median time to the first byte.
    pub first_byte_ms: f64,
    /// Sigma of the logarithm of the time to the first byte; 0 makes it constant.
    pub first_byte_sigma: f64,
    /// What one connection carries.
    pub connection_bytes_per_second: u64,
    /// What all connections carry together.
    pub total_bytes_per_second: u64,
    /// Requests per second that a prefix (bucket and first folder) answers; above: 503 `SlowDown`.
    pub prefix_requests_per_second: u32,
    /// What goes wrong.
    pub faults: Faults,
}

/// What goes wrong, in percent of requests, and how badly.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Faults {
    /// 500 `InternalError`.
    pub error_500_percent: f64,
    /// 503 `SlowDown`.
    pub error_503_percent: f64,
    /// First byte later by `slow_factor`.
    pub slow_percent: f64,
    /// See `slow_percent`; 0 stands for 10.
    pub slow_factor: f64,
    /// The body stops midway for `stall_ms`.
    pub stall_percent: f64,
    /// See `stall_percent`; 0 stands for 30 seconds.
    pub stall_ms: u64,
    /// The connection is reset, half of the times before the response, half within its body. A write whose response was
    /// lost has happened, half of the times.
    pub reset_percent: f64,
    /// The connection closes within the body.
    pub truncate_percent: f64,
    /// `CompleteMultipartUpload` and `CopyObject` answer 200 with an error in the body; nothing has happened.
    pub error_in_200_percent: f64,
}

const MB: u64 = 1_000_000;
/// 10 Gbit/s.
const TEN_GBIT: u64 = 1_250 * MB;

impl Default for Profile {
    fn default() -> Self {
        Self::none()
    }
}

impl Profile {
    /// No limits, no faults.
    pub fn none() -> Self {
        Self {
            name: "none".to_owned(),
            first_byte_ms: 0.0,
            first_byte_sigma: 0.0,
            connection_bytes_per_second: 0,
            total_bytes_per_second: 0,
            prefix_requests_per_second: 0,
            faults: Faults::default(),
        }
    }

    /// A store of the same region: 30 ms, 50 MB/s per connection, 10 Gbit/s.
    pub fn near() -> Self {
        Self {
            name: "near".to_owned(),
            first_byte_ms: 30.0,
            first_byte_sigma: 0.4,
            connection_bytes_per_second: 50 * MB,
            total_bytes_per_second: TEN_GBIT,
            ..Self::none()
        }
    }

    /// A store of another region: 120 ms, 20 MB/s per connection, 10 Gbit/s.
    pub fn far() -> Self {
        Self {
            name: "far".to_owned(),
            first_byte_ms: 120.0,
            connection_bytes_per_second: 20 * MB,
            ..Self::near()
        }
    }

    /// A single-zone store: 4 ms, 150 MB/s per connection, 10 Gbit/s.
    pub fn express() -> Self {
        Self {
            name: "express".to_owned(),
            first_byte_ms: 4.0,
            first_byte_sigma: 0.2,
            connection_bytes_per_second: 150 * MB,
            ..Self::near()
        }
    }

    /// [`Profile::near`] with 5 % of first bytes 10 times as late.
    pub fn slow5() -> Self {
        Self {
            name: "slow5".to_owned(),
            faults: Faults {
                slow_percent: 5.0,
                slow_factor: 10.0,
                ..Faults::default()
            },
            ..Self::near()
        }
    }

    /// [`Profile::near`] with 3 % 503, 1 % stalls and 0.5 % resets.
    pub fn sick() -> Self {
        Self {
            name: "sick".to_owned(),
            faults: Faults {
                error_503_percent: 3.0,
                stall_percent: 1.0,
                reset_percent: 0.5,
                ..Faults::default()
            },
            ..Self::near()
        }
    }

    /// Of these names.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "none" => Self::none(),
            "near" => Self::near(),
            "far" => Self::far(),
            "express" => Self::express(),
            "slow5" => Self::slow5(),
            "sick" => Self::sick(),
            _ => return None,
        })
    }

    /// The names, for help texts.
    pub const NAMES: [&'static str; 6] = ["none", "near", "far", "express", "slow5", "sick"];
}
