//! Files on web servers: read one by one, never listed.

use std::sync::Arc;

use object_store::http::HttpBuilder;
use object_store::{ClientOptions, ObjectStore, Result};
use url::Url;

use super::web;
use crate::io::locations::Locations;
use crate::io::network::GuardedConnector;

pub(crate) fn build(locations: &Arc<Locations>, url: &Url) -> Result<Arc<dyn ObjectStore>> {
    let store = HttpBuilder::new()
        .with_url(&url[..url::Position::BeforePath])
        .with_client_options(ClientOptions::new().with_allow_http(url.scheme() == "http"))
        .with_http_connector(GuardedConnector::new(Arc::clone(locations)))
        .build()?;
    Ok(web::single_files(Arc::new(store)))
}
