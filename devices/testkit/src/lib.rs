//! Conformance: every variant of every device against a naive interpreter.
//!
//! ```text
//!  generate ─▶ Graph + Data (rows of values) ─┬─▶ interpreter ──────────────────────┬─▶ conformance: equal, or shrink and report
//!                                             └─▶ inputs ─▶ driver ─▶ Variant ──────┘
//! ```
//!
//! Nothing here is used by the product.
#![deny(missing_docs)]

pub mod arrays;
pub mod conformance;
pub mod driver;
pub mod generate;
pub mod inputs;
pub mod interpreter;
pub mod values;

#[cfg(test)]
mod tests;
