//! What an error of a store means for the request: try again, try again later, or give it to the caller.
//!
//! object_store keeps its HTTP errors private, so a status is known by the text of the error that carries it; transport
//! errors are public types.

use std::error::Error as StdError;
use std::time::Duration;

use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The store asks for fewer requests: 503, 429.
    Throttled,
    /// Another attempt may succeed.
    Transient,
    /// No connection: the store is away for a moment, or its name is wrong.
    Unreachable,
    /// Another attempt would fail too.
    Fatal,
}

/// What goes wrong between the store and us, beyond what the store says itself.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Broken {
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("no bytes for {0:?} in the middle of an answer")]
    Stalled(Duration),
    #[error("the answer comes much slower than others")]
    Slow,
    #[error("the answer ended {0} bytes early")]
    Short(u64),
    #[error("the answer is for bytes {0}, asked were {1}")]
    OtherRange(String, String),
    #[error("the reader of these bytes ended without a result")]
    Ended,
    #[error("reads of remote stores need a tokio runtime")]
    NoRuntime,
    #[error("a range that ends before it starts, or beyond the object: {0}..{1} of {2} bytes")]
    Range(u64, u64, u64),
}

/// Why [`Error::Precondition`] is given.
#[derive(Debug, thiserror::Error)]
#[error(
    "the object was replaced while it was read: version {expected} was expected{}; run the query again to read the new one",
    found.as_ref().map(|found| format!(", {found} is there")).unwrap_or_default()
)]
pub(crate) struct Replaced {
    pub(crate) expected: String,
    pub(crate) found: Option<String>,
}

impl Broken {
    pub(crate) fn into_error(self) -> Error {
        Error::Generic {
            store: "lake",
            source: Box::new(self),
        }
    }
}

/// See [`Kind`].
pub(crate) fn classify(error: &Error) -> Kind {
    let Error::Generic { source, .. } = error else {
        return Kind::Fatal;
    };
    let mut next: Option<&(dyn StdError + 'static)> = Some(source.as_ref());
    while let Some(error) = next {
        if let Some(kind) = classify_one(error) {
            return kind;
        }
        next = error.source();
    }
    // A wrapper that takes secrets out of errors leaves their text.
    by_text(&source.to_string())
}

/// What object_store's private errors say, wherever it stands.
fn by_text(text: &str) -> Kind {
    let after = |mark: &str| text.find(mark).map(|at| &text[at + mark.len()..]);
    if let Some(rest) = after("Server returned non-2xx status code: ") {
        let status: u16 = rest.get(..3).and_then(|digits| digits.parse().ok()).unwrap_or(0);
        return match status {
            429 | 503 => Kind::Throttled,
            408 | 500..=599 => Kind::Transient,
            // A store that gave up waiting for the request, whatever it calls that.
            400 if rest.contains("RequestTimeout") => Kind::Transient,
            _ => Kind::Fatal,
        };
    }
    match after("Server returned error response: ") {
        Some(rest) if rest.contains("SlowDown") => Kind::Throttled,
        Some(_) => Kind::Transient,
        None if text.contains("HTTP error: ") => Kind::Transient,
        None => Kind::Fatal,
    }
}

fn classify_one(error: &(dyn StdError + 'static)) -> Option<Kind> {
    if let Some(broken) = error.downcast_ref::<Broken>() {
        return Some(match broken {
            Broken::Timeout(_) | Broken::Stalled(_) | Broken::Slow | Broken::Short(_) => Kind::Transient,
            Broken::OtherRange(..) | Broken::Ended | Broken::NoRuntime | Broken::Range(..) => Kind::Fatal,
        });
    }
    if let Some(http) = error.downcast_ref::<HttpError>() {
        return Some(match http.kind() {
            // Refused redirects and names are among the unknown.
            HttpErrorKind::Connect | HttpErrorKind::Unknown => Kind::Unreachable,
            _ => Kind::Transient,
        });
    }
    if let Some(io) = error.downcast_ref::<std::io::Error>() {
        use std::io::ErrorKind as Io;
        return match io.kind() {
            Io::ConnectionReset
            | Io::ConnectionAborted
            | Io::ConnectionRefused
            | Io::BrokenPipe
            | Io::NotConnected
            | Io::TimedOut
            | Io::Interrupted
            | Io::UnexpectedEof => Some(Kind::Transient),
            _ => None,
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Text(&'static str);

    impl fmt::Display for Text {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl StdError for Text {}

    fn status(text: &'static str) -> Error {
        Error::Generic {
            store: "S3",
            source: Box::new(Text(text)),
        }
    }

    #[test]
    fn statuses_are_told_apart() {
        let text = "Server returned non-2xx status code: 503 Service Unavailable: <Code>SlowDown</Code>";
        assert_eq!(classify(&status(text)), Kind::Throttled);
        let text = "Server returned non-2xx status code: 500 Internal Server Error: ";
        assert_eq!(classify(&status(text)), Kind::Transient);
        let text = "Error performing GET http://h/***REMOVED*** in 1ms - HTTP error: error sending request";
        assert_eq!(classify(&status(text)), Kind::Transient);
        let text = "Server returned non-2xx status code: 416 Range Not Satisfiable: status code: 503";
        assert_eq!(classify(&status(text)), Kind::Fatal);
        assert_eq!(classify(&status("signature does not match")), Kind::Fatal);
    }
}
