//! What tables exist: definitions made by DDL, and every file and folder of the data folder.
//!
//! ```text
//!  <data>/orders.parquet, events/, sales/items/      discovered: the files are the truth, nothing is written about them
//!  <data>/.trireme/
//!     format.json      version of this layout            lock        held while a server runs
//!     catalog.json     all definitions, replaced whole   tables/<id>/ managed tables (Delta)
//!     statistics/      what ANALYZE found                 secrets.json what CREATE SECRET was given
//! ```
//!
//! The catalog never writes outside `.trireme/` and never deletes a user's file. A DDL statement takes effect when
//! `catalog.json` is renamed into place; what a crash leaves beside it is removed at the next start.

mod ahead;
mod catalog;
mod ddl;
mod definitions;
mod delta;
mod describe;
mod discover;
mod error;
mod files;
mod fileset;
mod folder;
mod formats;
mod functions;
mod information_schema;
mod ingest;
mod insert;
mod leases;
mod listing;
mod names;
mod partitions;
mod pins;
mod provider;
mod resolve;
mod samples;
mod secrets;
mod sketching;
mod statistics;
mod subqueries;
mod synced;
mod table;
mod texts;
mod views;
mod writes;

pub use ahead::{Checks, ahead_of_checks, in_statement};
pub use catalog::{Applied, CATALOG_NAME, Catalog, CatalogOptions, DEFAULT_SCHEMA};
pub use describe::{DescribeFilter, TableEntry, TableKind};
pub use error::CatalogError;
pub use folder::FORMAT_VERSION;
pub use leases::Reading;
pub use secrets::SecretKey;
pub use sketching::SketchCounts;
pub use statistics::{ColumnStatisticsEntry, SketchOptions, TableStatistics};
pub use views::ViewPlanner;

#[cfg(test)]
mod tests;
