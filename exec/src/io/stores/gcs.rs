//! Google Cloud Storage, by its own protocol, or by S3's where the credentials are an HMAC key.

use std::sync::Arc;

use object_store::aws::AmazonS3Builder;
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{ObjectStore, Result, StaticCredentialProvider};

use super::Building;

/// Where Google speaks S3's protocol.
const HMAC_ENDPOINT: &str = "https://storage.googleapis.com";

pub(crate) fn build(building: &Building<'_>) -> Result<Arc<dyn ObjectStore>> {
    let config = building.config;
    if let (Some(key_id), Some(secret)) = (config.get("access_key_id"), config.get("secret_access_key")) {
        let store = AmazonS3Builder::new()
            .with_retry(building.retries())
            .with_client_options(building.client_options().with_allow_http(config.is_true("allow_http")))
            .with_bucket_name(building.bucket())
            .with_endpoint(config.get("base_url").unwrap_or(HMAC_ENDPOINT))
            .with_region("auto")
            .with_access_key_id(key_id)
            .with_secret_access_key(secret)
            .with_http_connector(building.connector());
        return Ok(Arc::new(store.build()?));
    }
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_retry(building.retries())
        .with_client_options(building.client_options())
        .with_bucket_name(building.bucket());
    if config.inherits() {
        if let Some(path) = building.environment.get("SERVICE_ACCOUNT")
            && !config.has_identity()
        {
            builder = builder.with_service_account_path(path);
        }
        for (name, value) in building.environment.with_prefix("GOOGLE_") {
            let Ok(key) = name.parse::<GoogleConfigKey>() else {
                continue;
            };
            if !(config.has_identity() && is_identity(key)) {
                builder = builder.with_config(key, value);
            }
        }
    }
    for (key, value) in config.iter().filter(|(key, _)| *key != "bearer_token") {
        builder = builder.with_config(
            format!("google_{key}")
                .parse::<GoogleConfigKey>()
                .or_else(|_| key.parse())?,
            value,
        );
    }
    // Without any, the builder would look for the operator's default credentials.
    let bearer = match config.get("bearer_token") {
        Some(token) => Some(token),
        None => config.is_true("skip_signature").then_some(""),
    };
    if let Some(bearer) = bearer {
        let credential = GcpCredential {
            bearer: bearer.to_owned(),
        };
        builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(credential)));
    }
    Ok(Arc::new(builder.with_http_connector(building.connector()).build()?))
}

fn is_identity(key: GoogleConfigKey) -> bool {
    matches!(
        key,
        GoogleConfigKey::ServiceAccount
            | GoogleConfigKey::ServiceAccountKey
            | GoogleConfigKey::ApplicationCredentials
            | GoogleConfigKey::SkipSignature
    )
}
