//! Programs as data: one kernel per device runs any program's kernels before they are compiled.
//!
//! ```text
//!  Program ─▶ instructions and constants (code) ─▶ a Program of one kernel (program), the same for all: runner
//!
//!  work-item:  pc │ registers, in device memory: register r of work-item i is word r × work-items + i, so that neighbours read
//!              neighbours │ uniforms: the program's block of words, and its constants behind them
//! ```
//!
//! It is slower than a compiled kernel by a factor, and exact: each instruction is an operator of the kernel language, and the
//! runner is itself a kernel of that language, printed and checked as all others. Local arrays lie in device memory too, a
//! piece per group. Barriers are uniform in every program, so work-items of a group run until each of them is at the same one.

mod code;
mod opcode;
mod program;
mod runner;

pub use code::Bytecode;
pub use program::{HEADER_WORDS, Room, instructions, interpreted};
pub use runner::runner;
