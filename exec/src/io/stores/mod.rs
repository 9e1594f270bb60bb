//! One builder per kind of store; [`guarded`] is what all of them are wrapped in.

mod azure;
mod gcs;
mod guarded;
mod http;
pub(crate) mod local;
mod s3;
mod tags;
mod web;

use std::sync::Arc;

use object_store::ObjectStore;
use url::Url;

use super::locations::Locations;
use super::options::StoreOptions;
use crate::error::QueryError;

/// Builds the store of a URL's scheme and host.
pub(crate) fn build(
    locations: &Arc<Locations>,
    url: &Url,
    options: &StoreOptions,
) -> Result<Arc<dyn ObjectStore>, QueryError> {
    if let Some(endpoint) = options.endpoint() {
        let endpoint = Url::parse(endpoint).map_err(|_| QueryError::invalid("the endpoint option is not a URL"))?;
        locations.check_authority(&endpoint)?;
    }
    let inner = match url.scheme() {
        "s3" | "s3a" => s3::build(locations, url, options),
        "gs" | "gcs" => gcs::build(locations, url, options),
        "az" | "azure" | "adl" | "abfs" | "abfss" => azure::build(locations, url, options),
        "http" | "https" => http::build(locations, url),
        scheme => return Err(QueryError::invalid(format!("no store for the scheme {scheme}"))),
    };
    let inner = inner.map_err(|error| store_error(url, &error))?;
    Ok(guarded::remote(locations, url, inner))
}

/// The vendor's text may quote a key file or a URL with a secret, so only the kind of failure is passed on.
fn store_error(url: &Url, error: &object_store::Error) -> QueryError {
    let what = match error {
        object_store::Error::UnknownConfigurationKey { key, .. } => format!("option {key} is unknown"),
        _ => "its configuration or credentials are incomplete or wrong".to_owned(),
    };
    QueryError::invalid(format!(
        "the store of {}://{} can't be opened: {what}",
        url.scheme(),
        url.host_str().unwrap_or_default()
    ))
    .with_hint("check the table's OPTIONS and the server's environment")
}
