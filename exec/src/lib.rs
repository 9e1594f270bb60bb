//! Runs a plan; never chooses one.
//!
//! Owns: the runtime environment (memory pools, spill folder, object stores behind the allow-list), the driver that turns a
//! physical plan into a cancellable stream, and the error type that every room above speaks.

pub mod io;

pub mod driver;
pub mod error;
pub mod memory;
pub mod runtime;

pub use error::{ErrorClass, Position, QueryError};
