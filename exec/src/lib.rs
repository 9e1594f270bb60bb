//! Runs a plan; never chooses one.
//!
//! Owns: the runtime environment (memory pools, spill folder, object stores behind the allow-list), the driver that turns a
//! physical plan into a cancellable stream, the node that runs fragments with its worker threads, and the error type that
//! every room above speaks.

pub mod io;

pub mod driver;
pub mod error;
pub mod fused;
mod graph;
pub mod memory;
pub mod operators;
pub mod pool;
pub mod runtime;

pub use error::{ErrorClass, Position, QueryError};
