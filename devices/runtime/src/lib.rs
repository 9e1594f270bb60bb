//! The executor that all accelerators share: memory, columns, kernels and runs, over a small driver.
//!
//! ```text
//!  Variant::prepare ─▶ lower (codegen) ─▶ kernel cache ─▶ arena: reserve ─▶ columns: upload ─▶ launch … ─▶ download
//!                                                        Driver: OpenCL │ CUDA │ simulated
//! ```
#![deny(missing_docs)]

mod accelerator;
mod arena;
mod background;
mod columns;
mod decoding;
pub mod driver;
mod executor;
mod fills;
mod held;
mod host;
mod image;
mod job;
mod kernel;
mod kernels;
mod memory;
mod packed;
mod programs;
mod resident;
mod run;
mod shapes;
pub mod slabs;
mod staged;
mod task;
mod texts;
mod tier;
mod uploaded;
mod variant;
mod warming;

pub use accelerator::{Accelerator, Encoded, Limits, Partition};
pub use background::yields_to_others;
pub use driver::{Driver, DriverInfo, Event, ModuleId, Queue, Writer};
pub use tier::Kernels;

#[cfg(test)]
mod tests;
