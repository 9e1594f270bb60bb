//! One file per command (or family of commands that share their data).

pub mod actions;
pub mod keys;
pub mod metadata;
pub mod prepared;
pub mod put;
pub mod sql_info;
pub mod statement;
pub mod xdbc;
