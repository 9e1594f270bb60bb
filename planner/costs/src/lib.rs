//! What running a graph of fragments costs on each device, and where its fragments go.
//!
//! ```text
//!  profile ◀─ calibrate (measured here) │ catalogue (described devices)        rates of a device
//!  facts   ◀─ Graph + what is known of tables                                  what fragments need
//!     │
//!     ▼
//!  predict ── residual (learned factor) ──▶ search (dynamic programming) ──▶ Decision ──▶ explain (text, JSON, Mermaid)
//!                                               ▲                              │
//!                                            objective                      monitor: what ran differently → search again
//! ```
//!
//! A plain library over the contract of devices: it runs nothing, and knows neither plans nor files. [`place`] is the way in.

pub mod calibrate;
pub mod catalogue;
pub mod explain;
mod facts;
pub mod fleet;
pub mod monitor;
mod objective;
mod pins;
mod place;
mod predict;
mod profile;
pub mod recorded;
pub mod residual;
pub mod rows;
mod search;
pub mod simulate;
pub mod split;

pub use facts::{ColumnFacts, Facts, FragmentFacts, Known, Random, Rows, RowsFrom, ScanFacts, SinkKind, Updates, Work};
pub use objective::{Goal, Objective, Totals};
pub use pins::{PinnedGraph, Pins};
pub use place::{Candidate, Decision, Environment, PlaceError, Why, place};
pub use predict::{Prediction, Surroundings, Transfer, predict, transfer};
pub use profile::{Curve, Link, Operations, PROFILE_VERSION, Power, Profile, ProfileError, Provenance};
pub use residual::Library;
pub use split::{CoExecution, Split};
