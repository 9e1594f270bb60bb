//! The HTTP client of user-named web hosts: no link-local address, whether it comes from a name or from a redirect.
//!
//! Names are checked when they are looked up for the connection itself, so an answer that changes between a check and its
//! use gains nothing.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use object_store::client::{HttpClient, HttpConnector};
use object_store::{ClientConfigKey, ClientOptions};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;

use super::locations::{LocationError, Locations, is_refused_address};

const REDIRECTS_MAX: usize = 5;

/// How long stores may take.
#[derive(Debug, Clone, Copy)]
pub struct StoreLimits {
    /// A request, with its answer.
    pub request_timeout: Duration,
    /// A connection.
    pub connect_timeout: Duration,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
        }
    }
}

/// Connects only where the allow-list permits.
#[derive(Debug)]
pub(crate) struct GuardedConnector {
    locations: Arc<Locations>,
    limits: StoreLimits,
    /// Sent with each request; a redirect to another host loses it.
    headers: HeaderMap,
}

impl GuardedConnector {
    pub(crate) fn new(locations: Arc<Locations>, limits: StoreLimits) -> Self {
        Self {
            locations,
            limits,
            headers: HeaderMap::new(),
        }
    }

    /// Sends this token with each request.
    pub(crate) fn with_bearer(mut self, token: Option<&str>) -> object_store::Result<Self> {
        if let Some(token) = token {
            // The token is in neither the error nor what the header prints.
            let mut value =
                HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| failed("no header's value"))?;
            value.set_sensitive(true);
            self.headers.insert(AUTHORIZATION, value);
        }
        Ok(self)
    }
}

fn failed(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> object_store::Error {
    object_store::Error::Generic {
        store: "HTTP",
        source: source.into(),
    }
}

impl HttpConnector for GuardedConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let allow_http = options
            .get_config_value(&ClientConfigKey::AllowHttp)
            .is_some_and(|value| value == "true");
        let locations = Arc::clone(&self.locations);
        let redirects = Policy::custom(move |attempt| {
            if attempt.previous().len() > REDIRECTS_MAX {
                return attempt.error("too many redirects");
            }
            match locations.check_url(attempt.url()) {
                Ok(()) => attempt.follow(),
                Err(refusal) => attempt.error(refusal),
            }
        });
        let client = reqwest::ClientBuilder::new()
            .user_agent(concat!("trireme/", env!("CARGO_PKG_VERSION")))
            .default_headers(self.headers.clone())
            .connect_timeout(self.limits.connect_timeout)
            // Between two reads: a whole file may take longer.
            .read_timeout(self.limits.request_timeout)
            .redirect(redirects)
            .dns_resolver(Arc::new(GuardedResolver))
            .https_only(!allow_http)
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            // A proxy would look names up itself, past the check.
            .no_proxy()
            .build()
            .map_err(failed)?;
        Ok(HttpClient::new(client))
    }
}

#[derive(Debug)]
struct GuardedResolver;

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let lookup = tokio::task::spawn_blocking(move || checked_lookup(&host)).await?;
            let addresses: Addrs = Box::new(lookup?.into_iter());
            Ok(addresses)
        })
    }
}

/// One refused address refuses the name: a mixed answer is an attempt, not an accident.
fn checked_lookup(host: &str) -> Result<Vec<SocketAddr>, Box<dyn std::error::Error + Send + Sync>> {
    let addresses: Vec<SocketAddr> = (host, 0).to_socket_addrs()?.collect();
    if addresses.iter().any(|address| is_refused_address(address.ip())) {
        return Err(Box::new(LocationError::RefusedHost { host: host.to_owned() }));
    }
    Ok(addresses)
}
