//! Azure Blob Storage and Data Lake.

use std::sync::Arc;

use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::{ObjectStore, Result};
use url::Url;

use super::tags;
use crate::io::locations::Locations;
use crate::io::network::GuardedConnector;
use crate::io::options::StoreOptions;

pub(crate) fn build(locations: &Arc<Locations>, url: &Url, options: &StoreOptions) -> Result<Arc<dyn ObjectStore>> {
    let mut builder = MicrosoftAzureBuilder::from_env().with_container_name(url.host_str().unwrap_or_default());
    for (key, value) in options.iter() {
        builder = builder.with_config(
            format!("azure_{key}")
                .parse::<AzureConfigKey>()
                .or_else(|_| key.parse())?,
            value,
        );
    }
    if options.endpoint().is_some() {
        builder = builder.with_http_connector(GuardedConnector::new(Arc::clone(locations)));
    }
    Ok(tags::quoted(Arc::new(builder.build()?)))
}
