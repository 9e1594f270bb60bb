//! Devices that are simulated in the host: kernels are interpreted under any schedule, and calls fail as a script says.
//!
//! ```text
//!  script "memory=64MiB,lost@launch:3,seed=5" ─▶ SimDriver { faults: counts of calls │ queues │ interpreter's Machine }
//! ```
//!
//! What a real device does rarely, this one does at will: memory that ends at the n-th allocation, a driver that is lost in the
//! middle of a run, queues that lag behind each other. It also checks kernels and the executor above it: what breaks a rule of
//! the kernel language, or touches memory that is not allocated, turns the device off with the reason. It is for tests, and
//! for trying out how a server behaves without its accelerators; it is never fast.
#![deny(missing_docs)]

mod backend;
mod driver;
mod faults;
mod queues;
mod script;

pub use backend::{SimBackend, device};
pub use driver::SimDriver;
pub use faults::Phase;
pub use script::{FaultKind, Injection, Script, ScriptError};
