//! Errors of stores for several readers: one request may serve many, and [`object_store::Error`] can't be cloned.

use std::fmt;
use std::sync::Arc;

use object_store::Error;

/// An error of ours, in a store's type.
pub(crate) fn generic(store: &'static str, message: impl Into<String>) -> Error {
    Error::Generic {
        store,
        source: message.into().into(),
    }
}

/// The same error once more: same kind, same path, same text. The last holder gets the original.
pub(crate) fn share(error: Arc<Error>) -> Error {
    let error = match Arc::try_unwrap(error) {
        Ok(original) => return original,
        Err(shared) => shared,
    };
    let source = || Box::new(Shared(Arc::clone(&error)));
    match &*error {
        Error::NotFound { path, .. } => Error::NotFound {
            path: path.clone(),
            source: source(),
        },
        Error::AlreadyExists { path, .. } => Error::AlreadyExists {
            path: path.clone(),
            source: source(),
        },
        Error::Precondition { path, .. } => Error::Precondition {
            path: path.clone(),
            source: source(),
        },
        Error::NotModified { path, .. } => Error::NotModified {
            path: path.clone(),
            source: source(),
        },
        Error::PermissionDenied { path, .. } => Error::PermissionDenied {
            path: path.clone(),
            source: source(),
        },
        Error::Unauthenticated { path, .. } => Error::Unauthenticated {
            path: path.clone(),
            source: source(),
        },
        Error::NotSupported { .. } => Error::NotSupported { source: source() },
        Error::Generic { store, .. } => Error::Generic {
            store,
            source: source(),
        },
        _ => Error::Generic {
            store: "lake",
            source: Box::new(Whole(error)),
        },
    }
}

/// What lies below a shared error.
#[derive(Debug)]
struct Shared(Arc<Error>);

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::error::Error::source(&*self.0) {
            Some(source) => write!(f, "{source}"),
            None => write!(f, "{}", self.0),
        }
    }
}

impl std::error::Error for Shared {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // With the one that it shows: whoever looks for a type among the causes finds it.
        std::error::Error::source(&*self.0)
    }
}

/// A shared error of a kind that has nothing below it.
#[derive(Debug)]
struct Whole(Arc<Error>);

impl fmt::Display for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl std::error::Error for Whole {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_and_text_stay() {
        let error = Arc::new(Error::Precondition {
            path: "a/b".to_owned(),
            source: "replaced".into(),
        });
        let copy = share(Arc::clone(&error));
        assert!(matches!(&copy, Error::Precondition { path, .. } if path == "a/b"));
        assert_eq!(copy.to_string(), error.to_string());
        let original = error.to_string();
        assert_eq!(share(error).to_string(), original);
        let generic = Arc::new(generic("S3", "broken"));
        let copy = share(Arc::clone(&generic));
        assert_eq!(copy.to_string(), generic.to_string());
    }
}
