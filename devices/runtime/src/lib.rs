//! The executor that all accelerators share: memory, columns, kernels and runs, over a small driver.
//!
//! ```text
//!  Variant::prepare ─▶ lower (codegen) ─▶ kernel cache ─▶ arena: reserve ─▶ columns: upload ─▶ launch … ─▶ download
//!                                                        Driver: OpenCL │ CUDA │ simulated
//! ```
#![deny(missing_docs)]

pub mod driver;
pub mod slabs;

pub use driver::{Driver, DriverInfo, Event, ModuleId, Queue, Writer};
