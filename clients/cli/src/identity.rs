//! What every call carries so that the server knows whose it is: the `authorization` header and cookies.
//!
//! Both can change with any answer: a server may renew a token or set a cookie at any time, so every answer's headers come
//! through here.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};

use crate::uri::Secret;

const AUTHORIZATION: &str = "authorization";
/// More cookies than a server could mean; a broken one must not grow our headers without end.
const COOKIES_MAX: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Identity {
    authorization: Option<Secret>,
    cookies: BTreeMap<String, String>,
}

impl Identity {
    pub(crate) fn with_token(token: &Secret) -> Self {
        Self {
            authorization: Some(Secret::new(format!("Bearer {}", token.reveal()))),
            ..Self::default()
        }
    }

    pub(crate) fn with_password(user: &str, password: &Secret) -> Self {
        let pair = BASE64_STANDARD.encode(format!("{user}:{}", password.reveal()));
        Self {
            authorization: Some(Secret::new(format!("Basic {pair}"))),
            ..Self::default()
        }
    }

    /// Adds our headers to a call.
    pub(crate) fn sign(&self, headers: &mut MetadataMap) {
        let secret = self.authorization.as_ref().map(Secret::reveal);
        if let Some(mut value) = secret.and_then(|text| text.parse::<AsciiMetadataValue>().ok()) {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        if self.cookies.is_empty() {
            return;
        }
        let pairs: Vec<String> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if let Ok(value) = pairs.join("; ").parse::<AsciiMetadataValue>() {
            headers.insert("cookie", value);
        }
    }

    /// Learns from an answer's headers.
    pub(crate) fn learn(&mut self, headers: &MetadataMap) {
        if let Some(value) = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok())
            && value.starts_with("Bearer ")
        {
            self.authorization = Some(Secret::new(value));
        }
        for header in headers.get_all("set-cookie") {
            if let Ok(text) = header.to_str() {
                self.learn_cookie(text);
            }
        }
    }

    fn learn_cookie(&mut self, text: &str) {
        let mut parts = text.split(';').map(str::trim);
        let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else {
            return;
        };
        let is_removed = parts.any(|attribute| {
            attribute.split_once('=').is_some_and(|(key, age)| {
                key.eq_ignore_ascii_case("max-age") && age.parse::<i64>().is_ok_and(|s| s <= 0)
            })
        });
        if is_removed {
            self.cookies.remove(name);
        } else if self.cookies.len() < COOKIES_MAX || self.cookies.contains_key(name) {
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(identity: &Identity) -> MetadataMap {
        let mut headers = MetadataMap::new();
        identity.sign(&mut headers);
        headers
    }

    #[test]
    fn cookies_come_back_and_go() {
        let mut identity = Identity::default();
        let mut answer = MetadataMap::new();
        answer.append("set-cookie", "session=abc; Path=/; HttpOnly".parse().unwrap());
        answer.append("set-cookie", "b=2".parse().unwrap());
        identity.learn(&answer);
        assert_eq!(signed(&identity).get("cookie").unwrap(), "b=2; session=abc");
        answer.clear();
        answer.append("set-cookie", "session=; Max-Age=0".parse().unwrap());
        identity.learn(&answer);
        assert_eq!(signed(&identity).get("cookie").unwrap(), "b=2");
    }

    #[test]
    fn a_token_replaces_the_password() {
        let mut identity = Identity::with_password("ann", &Secret::new("pw"));
        assert_eq!(signed(&identity).get(AUTHORIZATION).unwrap(), "Basic YW5uOnB3");
        let mut answer = MetadataMap::new();
        answer.insert(AUTHORIZATION, "Bearer t1".parse().unwrap());
        identity.learn(&answer);
        assert_eq!(signed(&identity).get(AUTHORIZATION).unwrap(), "Bearer t1");
        assert!(!format!("{identity:?}").contains("t1"));
    }
}
