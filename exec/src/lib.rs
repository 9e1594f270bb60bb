//! Runs a plan; never chooses one.
//!
//! Owns: the runtime environment (memory pools, spill folder, object stores behind the allow-list), the driver that turns a
//! physical plan into a cancellable stream, the node that runs fragments with its worker threads, and the error type that
//! every room above speaks.

pub mod io;

mod choose;
pub mod costs;
pub mod devices;
pub mod driver;
pub mod error;
pub mod fused;
mod graph;
pub mod history;
mod load;
pub mod memory;
pub mod operators;
mod placement;
pub mod pool;
pub mod runtime;
mod spill_folder;
mod split;
pub mod statistics;
pub mod steer;
mod verify;

pub use choose::PlacingCounts;
pub use error::{ErrorClass, Position, QueryError};
pub use placement::Decided;
