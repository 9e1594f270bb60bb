//! Runs kernels in the host, under every schedule that a device might choose, and checks all that [`crate::ir`] promises.
//!
//! ```text
//!  Module ─validate─▶ types hold ─compile─▶ Code: a flat list of operations per kernel
//!                                            │  a program counter and registers per work-item
//!  Machine: arena, allocations, written? ◀───┴── scheduler: who runs next, and how far (seeded)
//!                                                races: who may have seen what (vector clocks)
//! ```
//!
//! A work-item may be interrupted before each access to memory that another could see. What goes wrong is a [`Violation`] that
//! names kernel, statement and work-item; a run without one is a proof for that schedule only. Atomic loads may give values that
//! others have replaced already, where nothing forbids it; atomic writes are not delayed. Speed is that of an interpreter: this
//! is for tests.

mod bits;
pub(crate) mod compile;
mod expression;
mod machine;
mod memory;
mod races;
mod run;
mod schedule;
mod step;
mod text;
mod uniform;
mod validate;
mod violation;

#[cfg(test)]
mod tests;

pub use compile::Code;
pub use machine::{Machine, Stats};
pub use schedule::{GroupOrder, Order, Random, Schedule};
pub use validate::validate;
pub use violation::{Violation, ViolationKind};
