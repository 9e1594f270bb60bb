//! Azure Blob Storage's language: containers of block blobs.

use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;

use crate::counters::Kind;
use crate::query::Target;
use crate::reply::{self, Reply};
use crate::server::State;

/// What a request is.
pub(crate) fn kind(_parts: &Parts, _target: &Target) -> Kind {
    Kind::Other
}

/// An error that was drawn or scripted.
pub(crate) fn fault(status: StatusCode) -> Reply {
    reply::status(status)
}

/// Not yet.
pub(crate) fn answer(_state: &State, _parts: &Parts, _target: &Target, _body: Bytes) -> Reply {
    reply::status(StatusCode::NOT_IMPLEMENTED)
}
