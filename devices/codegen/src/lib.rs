//! Fragments as kernels: one kernel language for all accelerators.
//!
//! ```text
//!  Fragment ─lower─▶ Program { Module (ir), regions, words, launches } ─print─▶ CUDA C │ OpenCL C
//!                                                                      └─interpreter: every schedule, every bound checked
//! ```
//!
//! What runs a program is `devices/runtime`, over the driver of a device. Nothing here touches a device.
#![deny(missing_docs)]

pub mod build;
pub mod bytecode;
pub mod decode;
pub mod interpreter;
pub mod ir;
mod lower;
pub mod print;
mod program;
pub mod shape;
mod uses;

pub use lower::{Bound, BuildShape, Hints, Host, Input, Lowered, Target, Unsupported, lower, supports};
pub use program::{
    Fault, Fill, Groups, Launch, Lifetime, Program, ProgramOutput, Region, STATUS_FAULTS, STATUS_LARGE, STATUS_NEEDED,
    STATUS_WORDS, When, Word,
};
pub use uses::used_columns;
