//! The processor: fused pipelines, tile by tile, over narrow columns.
//!
//! Every step of a fragment is a loop over one tile of up to 2,048 rows; nothing leaves the tile before the sink. Loops are
//! compiled for AVX-512, AVX2 and the baseline and chosen at run time.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "lanes are chosen so that values fit; the choice is checked where it is made"
)]

mod aggregate;
mod bits;
mod builder;
mod bytes;
mod compact;
mod emit;
mod expr;
mod fold;
mod isa;
mod join;
mod like;
mod load;
mod memory;
mod number;
mod pipeline;
mod sort;
mod tile;
mod variant;
mod vector;

pub use memory::keep_freed_memory;
pub use variant::FusedVariant;
