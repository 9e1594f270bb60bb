//! One builder per kind of store; [`guarded`] is what all of them are wrapped in.

mod azure;
mod gcs;
mod guarded;
mod http;
pub(crate) mod local;
mod refusal;
mod s3;
mod tags;
mod web;

use std::sync::Arc;

use object_store::client::{HttpClient, HttpConnector, ReqwestConnector};
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use url::Url;

use super::environment::Environment;
use super::locations::{Locations, redacted};
use super::network::{GuardedConnector, StoreLimits};
use super::options::StoreConfig;
use crate::error::QueryError;

/// What a store is built from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Building<'a> {
    pub(crate) locations: &'a Arc<Locations>,
    pub(crate) environment: &'a Environment,
    pub(crate) limits: StoreLimits,
    pub(crate) url: &'a Url,
    pub(crate) config: &'a StoreConfig,
    /// For the lake's reads, which are tried again there: on another connection, from where a body broke.
    pub(crate) reads_only: bool,
}

impl Building<'_> {
    /// Builds the store of the URL's scheme and host.
    ///
    /// # Errors
    /// Endpoints that aren't allowed; options that are wrong, or say too little.
    pub(crate) fn build(&self) -> Result<Arc<dyn ObjectStore>, QueryError> {
        let config = self.config;
        config.check()?;
        for endpoint in config.endpoints() {
            let endpoint = Url::parse(endpoint).map_err(|_| QueryError::invalid("the endpoint option is not a URL"))?;
            self.locations.check_authority(&endpoint)?;
        }
        let inner = match self.url.scheme() {
            "s3" | "s3a" => s3::build(self),
            "gs" | "gcs" => gcs::build(self),
            "az" | "azure" | "adl" | "abfs" | "abfss" => azure::build(self),
            "http" | "https" => http::build(self),
            scheme => return Err(QueryError::invalid(format!("no store for the scheme {scheme}"))),
        };
        let inner = inner.map_err(|error| self.refused(&error))?;
        Ok(guarded::remote(self, inner))
    }

    /// What the URL calls its bucket, container or host.
    pub(crate) fn bucket(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// Time limits of requests.
    pub(crate) fn client_options(&self) -> ClientOptions {
        ClientOptions::new()
            .with_timeout(self.limits.request_timeout)
            .with_connect_timeout(self.limits.connect_timeout)
    }

    /// How often a client tries by itself.
    pub(crate) fn retries(&self) -> RetryConfig {
        match self.reads_only {
            true => RetryConfig {
                max_retries: 0,
                ..RetryConfig::default()
            },
            false => RetryConfig::default(),
        }
    }

    /// Who connects: the guarded client where a statement chose the host, else the usual one, which knows proxies.
    pub(crate) fn connector(&self) -> Connector {
        if self.config.has_endpoint() {
            return self.guarded();
        }
        Connector::usual()
    }

    /// The guarded client.
    pub(crate) fn guarded(&self) -> Connector {
        Connector::Guarded(GuardedConnector::new(Arc::clone(self.locations), self.limits))
    }

    /// The vendor's text may quote a key file or a URL with a secret, so only the kind of failure is passed on.
    fn refused(&self, error: &object_store::Error) -> QueryError {
        if let Some(ours) = QueryError::of_store(error) {
            return ours;
        }
        let what = match error {
            object_store::Error::UnknownConfigurationKey { key, .. } => format!("option {key} is unknown"),
            _ => "its configuration or credentials are incomplete or wrong".to_owned(),
        };
        let mut base = self.url.clone();
        base.set_path("");
        let error = QueryError::invalid(format!(
            "the store of {} can't be opened: {what}",
            redacted(base.as_str())
        ));
        match self.config.secret() {
            Some(secret) => error.with_hint(format!("check secret {secret}; CREATE OR REPLACE SECRET mends it")),
            None => error.with_hint("check the table's OPTIONS and the server's environment, or use CREATE SECRET"),
        }
    }
}

/// See [`Building::connector`].
#[derive(Debug)]
pub(crate) enum Connector {
    Usual(ReqwestConnector),
    Guarded(GuardedConnector),
}

impl Connector {
    pub(crate) fn usual() -> Self {
        Self::Usual(ReqwestConnector::default())
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        match self {
            Self::Usual(usual) => usual.connect(options),
            Self::Guarded(guarded) => guarded.connect(options),
        }
    }
}
