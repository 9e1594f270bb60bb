//! Kernel modules as text, in two dialects that differ in words only.
//!
//! ```text
//!  prelude     types, address spaces, LOAD, BARRIER, ATOMIC_ADD …: a few lines per dialect, and 128-bit arithmetic, of
//!              which only what the module uses is printed
//!  functions   static, with the arena as an argument before their own
//!  kernels     KERNEL(group) name(arena, block) { words of the block; variables; statements }
//! ```
//!
//! Below the prelude both dialects read the same, but for where words of the block are loaded: in OpenCL at the start of a
//! kernel, in CUDA where they are used, since dozens of them would fill the registers. Integers wrap: signed sums and products are computed unsigned and cast
//! back, since overflow of signed integers means nothing in C. Floats are IEEE and never contracted, which the text asks for
//! where the dialect can and [`CUDA_OPTIONS`] and [`OPENCL_OPTIONS`] ask for elsewhere: compile with them.

mod body;
mod expr;
mod prelude;
#[cfg(test)]
mod tests;
mod wide;

use crate::ir::Module;

/// What the text must be compiled with by NVRTC, besides the architecture.
pub const CUDA_OPTIONS: &[&str] = &["--fmad=false", "--std=c++17", "--minimal", "--disable-warnings"];

/// What the text must be compiled with as OpenCL C 3.0. Devices of version 2 take `-cl-std=CL2.0` instead of its first word.
pub const OPENCL_OPTIONS: &str = "-cl-std=CL3.0";

/// A dialect of C.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// CUDA C++, for NVRTC, without headers.
    Cuda,
    /// OpenCL C 2.0 and later, with 64-bit atomics and doubles.
    OpenCl,
}

/// The text of a module: prelude, functions, kernels. Equal modules have equal texts.
///
/// Kernels keep their names, which must be words that mean nothing in C.
pub fn print(module: &Module, dialect: Dialect) -> String {
    let mut pieces = prelude::Pieces::default();
    let mut text = String::new();
    for function in &module.functions {
        text.push('\n');
        text.push_str(&body::function(module, function, &mut pieces));
    }
    for kernel in &module.kernels {
        text.push('\n');
        text.push_str(&body::kernel(module, kernel, &mut pieces, dialect));
    }
    pieces.text(dialect) + &text
}
