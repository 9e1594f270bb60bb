//! Where data may be, and how it is reached.
//!
//! [`Locations`] is the allow-list that every path and URL of a statement passes; [`StoreRegistry`] hands DataFusion the
//! object stores and asks the list again. Only this module names an object-store vendor.

mod aws;
mod damage;
mod environment;
pub mod locations;
mod network;
mod options;
pub mod parquet_reader;
mod pinned;
mod pinned_source;
pub mod registry;
pub mod secrets;
mod stores;

pub use damage::damaged_file;
pub use environment::Environment;
pub use locations::{Access, LocationError, Locations, ResolvedLocation};
pub use network::StoreLimits;
pub use options::StoreOptions;
pub use pinned::{PinnedStore, is_from_log, version_from_log};
pub use pinned_source::pinned;
pub use registry::StoreRegistry;
pub use secrets::{SecretDefinition, SecretKind, SecretProvider};
pub use trireme_lake::{Lake, LakeOptions, TieredStore, in_one_look};
