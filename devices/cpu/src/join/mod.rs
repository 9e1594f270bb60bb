//! Hash joins: build sides, the ladder of tables that holds them, and probes.
//!
//! ```text
//!  BuildPlan ─▶ BuildLocal (a worker each) ─push─▶ … ─▶ Building ─run_task─▶ … ─▶ BuildTable
//!  Prober (one per probe step) ─start(tile)─▶ Scratch ─next─▶ pairs (row of the tile, build row), at most so many a call
//!                                                    └exists, decide─▶ a byte per row (semi, anti, mark)
//! ```
//!
//! What stands in a tile, which columns of the build side a step reads and the residual condition are the pipeline's affair:
//! this module sees evaluated vectors and gives row positions.

pub(crate) mod build;
mod dictionary;
mod emit;
mod encode;
mod finish;
pub(crate) mod hash;
mod insert;
mod keys;
mod matched;
mod order;
pub(crate) mod probe;
mod screen;
mod table;

pub(crate) use build::{BuildLocal, BuildPlan, BuildUse};
pub(crate) use finish::{BuildTable, Building, KeyBounds};
pub(crate) use table::zeroed::Zeroed;

#[cfg(test)]
mod bench;
#[cfg(test)]
mod tests;
