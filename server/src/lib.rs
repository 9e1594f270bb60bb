//! The composition root of Trireme: the command line, the front (Flight SQL, HTTP, sessions, admission) and what they
//! need. Binary `trireme`; a library so that tests and benchmarks reach the rooms in process.

pub mod args;
pub mod commands;
pub mod generate;

pub mod bootstrap;
pub mod devices;
pub mod shutdown;

pub mod connection;
pub mod tls;

pub mod flight;
pub mod http;

pub mod session;

pub mod auth;

pub mod query;

pub mod admission;

pub mod ahead;

pub mod engine;

pub mod telemetry;
