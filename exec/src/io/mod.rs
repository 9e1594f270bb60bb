//! Where data may be, and how it is reached.
//!
//! [`Locations`] is the allow-list that every path and URL of a statement passes; [`StoreRegistry`] hands DataFusion the
//! object stores and asks the list again. Only this module names an object-store vendor.

mod damage;
pub mod locations;
mod network;
mod options;
pub mod registry;
mod stores;

pub use damage::damaged_file;
pub use locations::{Access, LocationError, Locations, ResolvedLocation};
pub use options::StoreOptions;
pub use registry::StoreRegistry;
pub use trireme_lake::{Lake, LakeOptions, in_one_look};
