//! Azure Blob Storage and Data Lake, whose account a location or an option names.

use std::sync::Arc;

use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::{ObjectStore, Result};

use super::{Building, tags};
use crate::error::QueryError;
use crate::io::locations::AzurePlace;

pub(crate) fn build(building: &Building<'_>) -> Result<Arc<dyn ObjectStore>> {
    let config = building.config;
    let place = AzurePlace::of_host(building.bucket());
    let mut builder = MicrosoftAzureBuilder::new()
        .with_retry(building.retries())
        .with_client_options(building.client_options())
        .with_container_name(place.container);
    if config.inherits() {
        for (name, value) in building.environment.with_prefix("AZURE_") {
            let Ok(key) = name.parse::<AzureConfigKey>() else {
                continue;
            };
            // A key of one account must not go to another.
            let other_account = place.account.is_some() && is_of_account(key) && !same_account(building, &place);
            let other_identity = config.has_identity() && is_identity(key);
            if !other_account && !other_identity {
                builder = builder.with_config(key, value);
            }
        }
        if let Some(endpoint) = building.environment.get("IDENTITY_ENDPOINT") {
            builder = builder.with_msi_endpoint(endpoint);
        }
    }
    for (key, value) in config.iter() {
        builder = builder.with_config(
            format!("azure_{key}")
                .parse::<AzureConfigKey>()
                .or_else(|_| key.parse())?,
            value,
        );
    }
    if let (Some(account), Some(cloud)) = (place.account, place.cloud) {
        let named = config.get("storage_account_name");
        if named.is_some_and(|named| !named.eq_ignore_ascii_case(account)) {
            return Err(conflict(account));
        }
        builder = builder.with_account(account);
        if !config.has_endpoint() {
            builder = builder.with_endpoint(format!("https://{account}.blob.{cloud}"));
        }
    }
    let store = builder.with_http_connector(building.connector()).build()?;
    Ok(tags::quoted(Arc::new(store)))
}

fn conflict(account: &str) -> object_store::Error {
    let error = QueryError::invalid(format!(
        "the location is in the account {account}, and the credentials are another account's"
    ));
    object_store::Error::Generic {
        store: "Azure",
        source: Box::new(error),
    }
}

fn same_account(building: &Building<'_>, place: &AzurePlace<'_>) -> bool {
    let own = building.environment.get("AZURE_STORAGE_ACCOUNT_NAME");
    own.is_none_or(|own| place.account.is_some_and(|account| own.eq_ignore_ascii_case(account)))
}

fn is_of_account(key: AzureConfigKey) -> bool {
    matches!(
        key,
        AzureConfigKey::AccountName | AzureConfigKey::AccessKey | AzureConfigKey::SasKey | AzureConfigKey::Endpoint
    )
}

fn is_identity(key: AzureConfigKey) -> bool {
    use AzureConfigKey as Key;
    matches!(
        key,
        Key::AccessKey
            | Key::SasKey
            | Key::ClientId
            | Key::ClientSecret
            | Key::Token
            | Key::FederatedTokenFile
            | Key::UseAzureCli
            | Key::SkipSignature
    )
}
