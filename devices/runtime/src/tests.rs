//! Runs over the interpreter, whatever the schedule.

mod arena;
mod columns;
pub(crate) mod driver;
mod encoded;
mod graphs;
mod kernels;
mod kit;
mod runs;
