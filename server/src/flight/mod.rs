//! The Flight SQL front: decodes, finds the session, calls the engine through its seam, encodes.
//!
//! `FlightService` is implemented here directly: the blanket implementation that arrow-flight offers over its
//! `FlightSqlService` hard-codes several methods as unimplemented and drops some results.

pub mod command;
pub mod direct;
pub mod front;
pub mod handlers;
pub mod identity;
pub mod messages;
pub mod service;
pub mod status;
pub mod stream;
pub mod ticket;
pub mod wire;
