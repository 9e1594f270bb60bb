//! Files on web servers: read one by one, never listed.

use std::sync::Arc;

use object_store::http::HttpBuilder;
use object_store::{ObjectStore, Result};

use super::{Building, web};
use crate::io::network::GuardedConnector;

pub(crate) fn build(building: &Building<'_>) -> Result<Arc<dyn ObjectStore>> {
    let url = building.url;
    let connector = GuardedConnector::new(Arc::clone(building.locations), building.limits)
        .with_bearer(building.config.get("bearer_token"))?;
    let mut place = url.clone();
    // The user part names the secret; it is none of the server's business.
    let _ = place.set_username("");
    let store = HttpBuilder::new()
        .with_url(&place[..url::Position::BeforePath])
        .with_retry(building.retries())
        .with_client_options(building.client_options().with_allow_http(url.scheme() == "http"))
        .with_http_connector(connector)
        .build()?;
    Ok(web::single_files(Arc::new(store)))
}
