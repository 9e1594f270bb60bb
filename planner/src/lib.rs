//! Decides what a statement means and how it will run; never touches data.
//!
//! SQL text → [`parse`] → [`bind`] (placeholders, table versions) → [`statement`] (what kind of statement, planned by
//! DataFusion) → the result schema that clients are promised ([`output`]).

pub mod bind;
mod chains;
mod copies;
pub mod ddl;
pub mod ddl_sql;
mod dependencies;
pub mod dialect;
mod estimates;
pub mod explain_placement;
mod filter_columns;
mod foreseen;
pub mod fragments;
pub mod functions;
pub mod fuse;
pub mod guards;
pub mod hints;
pub mod joins;
mod lists;
mod multisets;
pub mod names;
pub mod options;
mod order_names;
pub mod outer_joins;
pub mod output;
pub mod parameters;
pub mod parse;
pub mod physical;
pub mod pins;
mod placing;
pub mod plan_cache;
pub mod procedures;
pub mod redact;
mod repeated;
mod secrets;
pub mod semantics;
pub mod session;
mod spelling;
pub mod statement;
mod text;
mod using;

pub use statement::{Planned, SessionChange, plan, plan_view};
