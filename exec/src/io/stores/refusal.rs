//! A store's refusals, in our words: which secret was refused and why, and never what it holds.
//!
//! What a store answers may quote what it was sent: S3 repeats an expired session token, and the id of a key that it doesn't
//! know. So of a refusal only the code is kept, and from any other error the credentials' values are taken out.

use object_store::Error;

use crate::error::{ErrorClass, QueryError};
use crate::io::options::StoreConfig;

/// Codes are single words; anything longer is not one.
const CODE_CHARS_MAX: usize = 64;

/// Shorter values are no credentials, and would be found in every text.
const VALUE_CHARS_MIN: usize = 4;

/// Makes a store's errors fit to be shown.
#[derive(Clone)]
pub(crate) struct Refusals {
    secret: Option<String>,
    sensitive: Vec<String>,
    /// `scheme://bucket`.
    place: String,
}

impl std::fmt::Debug for Refusals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Refusals")
            .field("secret", &self.secret)
            .finish_non_exhaustive()
    }
}

impl Refusals {
    /// Those of the store of this place.
    pub(crate) fn new(place: String, config: &StoreConfig) -> Self {
        let long = |value: &String| value.chars().count() >= VALUE_CHARS_MIN;
        Self {
            secret: config.secret().map(str::to_owned),
            sensitive: config.sensitive().into_iter().filter(long).collect(),
            place,
        }
    }

    /// The error as it may be shown.
    pub(crate) fn told(&self, error: Error) -> Error {
        if matches!(error, Error::NotModified { .. } | Error::NotImplemented { .. })
            || QueryError::of_store(&error).is_some()
        {
            return error;
        }
        let text = chain(&error);
        if let Error::PermissionDenied { path, .. } | Error::Unauthenticated { path, .. } = &error {
            return self.refusal(path.clone(), &text);
        }
        if is_refusal(&text) {
            return self.refusal(String::new(), &text);
        }
        if !self.sensitive.iter().any(|value| text.contains(value.as_str())) {
            return error;
        }
        let source = Box::new(QueryError::new(ErrorClass::Unavailable, self.without_values(text)));
        match error {
            Error::NotFound { path, .. } => Error::NotFound { path, source },
            Error::AlreadyExists { path, .. } => Error::AlreadyExists { path, source },
            Error::Precondition { path, .. } => Error::Precondition { path, source },
            _ => Error::Generic {
                store: "remote",
                source,
            },
        }
    }

    fn refusal(&self, path: String, text: &str) -> Error {
        let code = code(text);
        let shown = match path.as_str() {
            "" => self.place.clone(),
            path => format!("{}/{path}", self.place),
        };
        let message = match &self.secret {
            Some(secret) => format!("secret {secret} gives no access to {shown}"),
            None => format!("the store refuses access to {shown}"),
        };
        let mut error = QueryError::new(ErrorClass::PermissionDenied, message).with_hint(self.hint(code));
        if let Some(code) = code {
            error = error.with_detail(format!("the store answered {code}"));
        }
        Error::PermissionDenied {
            path,
            source: Box::new(error),
        }
    }

    fn hint(&self, code: Option<&str>) -> String {
        let Some(secret) = &self.secret else {
            return "use CREATE SECRET for the location, or set credentials in the server's environment".to_owned();
        };
        let why = match code {
            Some(
                "SignatureDoesNotMatch" | "InvalidAccessKeyId" | "AuthenticationFailed" | "InvalidAuthenticationInfo",
            ) => "its credentials are wrong",
            Some("ExpiredToken" | "InvalidToken" | "TokenRefreshRequired") => "its session token has expired",
            Some("RequestTimeTooSkewed") => "the server's clock is wrong",
            _ => "its identity may not do this there, or its credentials are wrong",
        };
        format!("{why}; CREATE OR REPLACE SECRET {secret} gives it others")
    }

    fn without_values(&self, text: String) -> String {
        self.sensitive
            .iter()
            .fold(text, |text, value| text.replace(value.as_str(), "…"))
    }
}

/// The texts of the error and of all that caused it.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text.push('\n');
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// Listings report a refusal as an error of no kind. S3 answers expired tokens as bad requests.
fn is_refusal(text: &str) -> bool {
    ["401", "403"]
        .iter()
        .any(|status| text.contains(&format!("status code: {status}")))
        || matches!(
            code(text),
            Some("ExpiredToken" | "InvalidToken" | "TokenRefreshRequired")
        )
}

/// What stands in `<Code>…</Code>`.
fn code(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    let word =
        !code.is_empty() && code.len() <= CODE_CHARS_MAX && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    word.then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn refusals(secret: Option<&str>) -> Refusals {
        let values = BTreeMap::from([
            ("secret_access_key".to_owned(), "hunter2".to_owned()),
            ("session_token".to_owned(), "tok123".to_owned()),
            ("region".to_owned(), "eu-west-1".to_owned()),
        ]);
        let config = match secret {
            Some(name) => StoreConfig::of_secret(name, values, false),
            None => StoreConfig::of_environment(),
        };
        Refusals::new("s3://b".to_owned(), &config)
    }

    fn generic(text: &str) -> Error {
        Error::Generic {
            store: "S3",
            source: text.to_owned().into(),
        }
    }

    #[test]
    fn a_refusal_names_the_secret_and_the_code_only() {
        let answer = "non-2xx status code: 403 Forbidden: <Error><Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>AK</AWSAccessKeyId>";
        let told = refusals(Some("lake")).told(generic(answer));
        let ours = QueryError::of_store(&told).unwrap();
        assert_eq!(ours.class, ErrorClass::PermissionDenied);
        assert_eq!(ours.message, "secret lake gives no access to s3://b");
        assert_eq!(ours.detail.as_deref(), Some("the store answered SignatureDoesNotMatch"));
        assert!(!chain(&told).contains("AK"), "{told}");
        let told = refusals(None).told(generic(answer));
        let ours = QueryError::of_store(&told).unwrap();
        assert!(ours.hint.unwrap().contains("CREATE SECRET"));
    }

    #[test]
    fn values_are_taken_out_of_every_error() {
        let expired = "status code: 400 Bad Request: <Code>ExpiredToken</Code><Token-0>tok123</Token-0>";
        let told = chain(&refusals(Some("lake")).told(generic(expired)));
        assert!(told.contains("ExpiredToken") && !told.contains("tok123"), "{told}");
        let told = chain(&refusals(Some("lake")).told(generic("status code: 500: hunter2 eu-west-1")));
        assert!(
            told.contains("500") && told.contains("eu-west-1") && !told.contains("hunter2"),
            "{told}"
        );
        let missing = Error::NotFound {
            path: "p".to_owned(),
            source: "hunter2".into(),
        };
        let told = refusals(Some("lake")).told(missing);
        assert!(matches!(&told, Error::NotFound { .. }) && !chain(&told).contains("hunter2"));
    }
}
