//! Tests from outside: each starts the built server as a process and speaks to it over the wire.
//!
//! Nothing here links a crate of ours, so what passes here passes for any client. `TRIREME_BIN` names the server binary;
//! without it the one next to this test's target folder is used.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(clippy::cast_possible_truncation, reason = "numbers in tests are small")]

mod client;
mod messages;
mod server;

mod ahead;
mod auth;
mod calibrate;
mod coexec;
mod devices;
mod flight;
mod fused;
mod holds;
mod metadata;
mod placement;
mod prepared;
mod recovery;
mod results;
mod serve;
mod sessions;
mod slt;
mod steer;
mod tidy;
