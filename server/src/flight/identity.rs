//! Who calls, and in which session: from the authorization header, the cookie, and the connection.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::server::TlsConnectInfo;
use tonic::{Extensions, Response, Status};
use trireme_exec::QueryError;

use crate::auth::{Authenticator, Credentials};
use crate::connection::ConnectionInfo;
use crate::session::{Session, SessionKey, Sessions};
use crate::telemetry::Metrics;

const COOKIE: &str = "trireme_session";

/// A checked caller.
#[derive(Debug, Clone)]
pub struct Caller {
    /// User; empty without authentication.
    pub user: String,
    /// Session keys, best first.
    pub keys: Vec<SessionKey>,
    /// The client sends cookies back, or has a token: it needs no new cookie.
    has_own_key: bool,
}

/// Checks the caller's credentials.
///
/// # Errors
/// `Unauthenticated` when credentials are needed and missing or wrong.
pub async fn identify(
    authenticator: Option<&Arc<Authenticator>>,
    metrics: &Metrics,
    metadata: &MetadataMap,
    extensions: &Extensions,
) -> Result<Caller, Status> {
    let header = metadata.get("authorization").and_then(|value| value.to_str().ok());
    let user = match authenticator {
        Some(authenticator) => {
            let identity = authenticator.authorize(header).await.map_err(|error| {
                metrics.auth_failures_total.with_label_values(&[error.reason()]).inc();
                Status::unauthenticated(format!("{error}\nhint: {}", error.hint()))
            })?;
            identity.user.to_string()
        }
        None => String::new(),
    };
    let mut keys = Vec::new();
    if let Some(Ok(Credentials::Bearer(token))) = header.map(Credentials::parse) {
        keys.push(token_key(&token));
    }
    let cookie = cookie(metadata);
    let has_own_key = !keys.is_empty() || cookie.is_some();
    keys.extend(cookie.map(SessionKey::Cookie));
    keys.extend(connection(extensions).map(|info| SessionKey::Connection(info.id)));
    Ok(Caller {
        user,
        keys,
        has_own_key,
    })
}

/// The key of a token's session: its digest, so that the registry holds no secrets.
pub fn token_key(token: &str) -> SessionKey {
    SessionKey::Token(Sha256::digest(token.as_bytes()).into())
}

fn cookie(metadata: &MetadataMap) -> Option<String> {
    let headers = metadata
        .get_all("cookie")
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    headers
        .flat_map(|header| header.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value.to_owned())
}

fn connection(extensions: &Extensions) -> Option<ConnectionInfo> {
    let plain = extensions.get::<ConnectionInfo>();
    let tls = extensions
        .get::<TlsConnectInfo<ConnectionInfo>>()
        .map(|info| info.get_ref());
    plain.or(tls).cloned()
}

impl Caller {
    /// The caller's session, made when it has none.
    ///
    /// # Errors
    /// When there are too many sessions.
    pub fn session(&self, sessions: &Sessions) -> Result<Arc<Session>, QueryError> {
        sessions.open(&self.keys, &self.user)
    }

    /// The caller's session, if it has one.
    pub fn existing(&self, sessions: &Sessions) -> Option<Arc<Session>> {
        self.keys
            .iter()
            .find_map(|key| sessions.find(key))
            .filter(|session| session.user() == self.user)
    }

    /// A response that gives the session's cookie to a client that has nothing else to be known by.
    pub fn respond<T>(&self, message: T, session: Option<&Session>) -> Response<T> {
        let mut response = Response::new(message);
        if let Some(session) = session
            && !self.has_own_key
            && session.offer_cookie()
            && let Ok(value) = MetadataValue::try_from(format!("{COOKIE}={}; HttpOnly; SameSite=Strict", session.id()))
        {
            response.metadata_mut().insert("set-cookie", value);
        }
        response
    }
}
