//! Reading a lake: objects of remote stores, fetched in parallel, ahead of need, and kept near.
//!
//! ```text
//!  scans ── ranges in order of use ─▶ Prefetch ─┐ a window of bytes
//!  readers ── get_opts, get_ranges ─────────────┤
//!                                               ▼
//!  TieredStore:  memory ─▶ disk ─▶ merge, split, single flight ─▶ Controller ─▶ hedged, retried requests ─▶ the store
//! ```
//!
//! [`Lake`] is one per process: its tiers, and a controller and counters per store. Nothing here depends on the query engine,
//! and nothing changes a result: with all of it off, the same bytes are read one after the other.

#![cfg_attr(
    test,
    allow(
        clippy::cast_possible_truncation,
        clippy::clone_on_ref_ptr,
        reason = "tests count in small numbers"
    )
)]

mod buffers;
mod coalesce;
mod controller;
mod errors;
mod flight;
mod hedge;
mod lake;
mod look;
mod metrics;
mod options;
mod prefetch;
mod read;
mod request;
mod store;
#[cfg(test)]
mod testing;
mod tiers;

pub use lake::Lake;
pub use look::in_one_look;
pub use metrics::{CacheRow, LakeMetrics, StoreMetrics};
pub use options::LakeOptions;
pub use prefetch::{Planned, Prefetch, PrefetchState, Window};
pub use read::{Account, AccountTotals, ObjectRef, Read, ReadClass};
pub use store::{Clients, TieredStore};
