//! Errors → gRPC status.
//!
//! Codes are chosen by what clients make of them: ADBC retries and pools only on `Unavailable`, and shows `InvalidArgument`
//! and `NotFound` as programming errors.

use tonic::{Code, Status};
use trireme_exec::{ErrorClass, QueryError};

/// gRPC carries the message in a header; longer ones would break the connection.
const MESSAGE_BYTES_MAX: usize = 4096;

/// The gRPC code of a class.
pub fn code(class: ErrorClass) -> Code {
    match class {
        ErrorClass::Invalid => Code::InvalidArgument,
        ErrorClass::NotFound => Code::NotFound,
        ErrorClass::AlreadyExists => Code::AlreadyExists,
        ErrorClass::PermissionDenied => Code::PermissionDenied,
        ErrorClass::Unsupported => Code::Unimplemented,
        ErrorClass::ResourceExhausted => Code::ResourceExhausted,
        ErrorClass::Conflict => Code::Aborted,
        ErrorClass::Precondition => Code::FailedPrecondition,
        ErrorClass::Cancelled => Code::Cancelled,
        ErrorClass::TimedOut => Code::DeadlineExceeded,
        ErrorClass::Corrupt => Code::DataLoss,
        ErrorClass::Unavailable => Code::Unavailable,
        ErrorClass::Internal => Code::Internal,
    }
}

/// The status of an error, with detail and hint as further lines.
pub fn status(error: &QueryError) -> Status {
    let mut message = error.to_string();
    if message.len() > MESSAGE_BYTES_MAX {
        let cut = message.floor_char_boundary(MESSAGE_BYTES_MAX - 4);
        message.truncate(cut);
        message.push_str(" …");
    }
    if error.class == ErrorClass::Internal {
        tracing::error!(error = %message, "internal error");
    }
    Status::new(code(error.class), message)
}
