//! The column cache and the Parquet decoder: files become device-ready columns once, and stay while they are worth it.
//!
//! ```text
//!  TableFiles ── open ──▶ footers (cached, together) ─▶ segments that may hold wanted rows ─▶ dictionaries ──▶ ScanInput
//!                                                          └─▶ Prefetch of what they need          load(segment, column) │
//!  pages ─▶ levels, values ─▶ carriers ─▶ zone map ──▶ [ column cache: (file version, column, segment) ] ◀───────────────┘
//! ```
//!
//! Pages are decoded straight into narrow carriers, column by column; what the decoder does not know goes through Parquet's
//! Arrow reader. What no reader wants by partition values, statistics, Bloom filters or page indexes is not read. Local files
//! are read when a column is loaded; those of remote stores are fetched ahead, in the order of their use, through the lake.
//! The cache never changes a result and can be switched off. Which files make up a table, and what runs on the columns, is
//! not decided here; nothing here depends on the query engine.
#![allow(
    clippy::cast_possible_truncation,
    reason = "carriers are narrowed on purpose; bounds are checked where the data decides"
)]

mod budget;
mod cache;
mod decode;
mod dictionary;
mod encoded;
mod fetches;
mod files;
mod footer;
mod keep;
mod known;
mod metrics;
mod open;
mod pages;
mod prune;
mod rates;
mod saved;
mod scan;
mod segments;
mod source;
mod state;
#[cfg(test)]
mod tests;

pub use cache::{ColumnCache, Limits};
pub use files::{ColumnRequest, ColumnSource, OpenOptions, TableFile, TableFiles};
pub use metrics::{ColumnRow, Metrics};
pub use saved::{SavedGraph, SavedScan};
