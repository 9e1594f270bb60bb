//! Trireme's typed settings: what can be set, where it is read from, and what is refused.
//!
//! Every setting is one row of a table ([`server`], [`exec`], [`io`]): key, Rust type, default, unit, allowed range
//! and help stand together, and the struct field, the reference `SETTINGS.md`, the example file and
//! `system.settings` all come from that row. Later sources win:
//!
//! ```text
//! defaults ─▶ file (TOML) ─▶ environment TRIREME_<SECTION>_<KEY> ─▶ flags ─▶ validate
//! ```
//!
//! A key that no row declares is refused with the nearest known name, because a misspelt limit that is silently
//! ignored is found out in production. The names that users `SET` in SQL are a second table of the same kind:
//! [`session`]. This crate depends on no other crate of ours and starts nothing.

mod error;
mod load;
mod nearest;
mod reference;
mod resolved;
#[macro_use]
mod table;
mod validate;
mod value;

pub mod costs;
pub mod devices;
pub mod exec;
pub mod io;
pub mod lake;
pub mod secrets;
pub mod server;
pub mod session;
pub mod statistics;

pub use costs::Costs;
pub use devices::{Devices, Encoded, Kernels, OpenCl, Partition};
pub use error::{ConfigError, SettingError};
pub use exec::Exec;
pub use io::Io;
pub use lake::Lake;
pub use load::Source;
pub use reference::SettingRow;
pub use resolved::{Resolved, cores, physical_memory_bytes};
pub use secrets::Secrets;
pub use server::{Catalog, Limits, LogFormat, LogLevel, Server};
pub use session::{CanonicalValue, SessionSettings};
pub use statistics::Statistics;

use std::collections::BTreeMap;
use table::{Row, Section};

/// All settings of one server, and where each came from.
///
/// Invariant: a `Config` returned by [`Config::load`] has passed [`Config::validate`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// Section `server`.
    pub server: Server,
    /// Section `limits`.
    pub limits: Limits,
    /// Section `catalog`.
    pub catalog: Catalog,
    /// Section `exec`.
    pub exec: Exec,
    /// Section `io`.
    pub io: Io,
    /// Section `lake`.
    pub lake: Lake,
    /// Section `costs`.
    pub costs: Costs,
    /// Section `statistics`.
    pub statistics: Statistics,
    /// Section `secrets`.
    pub secrets: Secrets,
    /// Section `devices`.
    pub devices: Devices,
    /// Dotted key to the source that set it last; a key that is absent has its default.
    sources: BTreeMap<String, Source>,
}

/// One setting of a [`Config`]: its declaration, reached from the whole.
struct ConfigRow {
    section: &'static str,
    row: Row<Config>,
}

impl ConfigRow {
    fn key(&self) -> String {
        format!("{}.{}", self.section, self.row.key)
    }

    /// Sections have one word without an underscore, so that this name can be split in one way only.
    fn variable(&self) -> String {
        format!("{}{}_{}", load::PREFIX, self.section, self.row.key).to_uppercase()
    }
}

/// Section name and what it is about, in the order of the reference.
const SECTIONS: [(&str, &str); 10] = [
    (Server::NAME, Server::ABOUT),
    (Limits::NAME, Limits::ABOUT),
    (Catalog::NAME, Catalog::ABOUT),
    (Exec::NAME, Exec::ABOUT),
    (Io::NAME, Io::ABOUT),
    (Lake::NAME, Lake::ABOUT),
    (Secrets::NAME, Secrets::ABOUT),
    (Devices::NAME, Devices::ABOUT),
    (Costs::NAME, Costs::ABOUT),
    (Statistics::NAME, Statistics::ABOUT),
];

impl Config {
    /// Every setting, in the order of the reference.
    fn rows() -> Vec<ConfigRow> {
        fn add<S: Section + 'static>(
            rows: &mut Vec<ConfigRow>,
            get: fn(&Config) -> &S,
            get_mut: fn(&mut Config) -> &mut S,
        ) {
            rows.extend(S::rows().into_iter().map(|row| ConfigRow {
                section: S::NAME,
                row: row.within(get, get_mut),
            }));
        }
        let mut rows = Vec::new();
        add(&mut rows, |c| &c.server, |c| &mut c.server);
        add(&mut rows, |c| &c.limits, |c| &mut c.limits);
        add(&mut rows, |c| &c.catalog, |c| &mut c.catalog);
        add(&mut rows, |c| &c.exec, |c| &mut c.exec);
        add(&mut rows, |c| &c.io, |c| &mut c.io);
        add(&mut rows, |c| &c.lake, |c| &mut c.lake);
        add(&mut rows, |c| &c.secrets, |c| &mut c.secrets);
        add(&mut rows, |c| &c.devices, |c| &mut c.devices);
        add(&mut rows, |c| &c.costs, |c| &mut c.costs);
        add(&mut rows, |c| &c.statistics, |c| &mut c.statistics);
        rows
    }
}
