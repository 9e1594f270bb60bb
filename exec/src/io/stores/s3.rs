//! Amazon S3 and what speaks its protocol.

use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{ObjectStore, Result};
use url::Url;

use super::Building;
use crate::io::aws;

/// Options that are read here, not by the vendor's builder.
const OWN: [&str; 6] = [
    "endpoint",
    "profile",
    "role_arn",
    "external_id",
    "role_session_name",
    "sts_endpoint",
];

pub(crate) fn build(building: &Building<'_>) -> Result<Arc<dyn ObjectStore>> {
    let config = building.config;
    let mut builder = AmazonS3Builder::new()
        .with_retry(building.retries())
        .with_client_options(building.client_options())
        .with_bucket_name(building.bucket());
    if config.inherits() {
        for (name, value) in building.environment.with_prefix("AWS_") {
            let Ok(key) = name.parse::<AmazonS3ConfigKey>() else {
                continue;
            };
            if !(config.has_identity() && is_identity(key)) {
                builder = builder.with_config(key, value);
            }
        }
    }
    for (key, value) in config.iter().filter(|(key, _)| !OWN.contains(key)) {
        builder = builder.with_config(key.parse::<AmazonS3ConfigKey>()?, value);
    }
    if let Some(endpoint) = config.get("endpoint") {
        let endpoint = match config.is_true("virtual_hosted_style_request") {
            true => hosted(endpoint, building.bucket()),
            false => endpoint.to_owned(),
        };
        builder = builder.with_endpoint(endpoint);
    }
    builder = aws::with_credentials(building, builder)?;
    Ok(Arc::new(builder.with_http_connector(building.connector()).build()?))
}

/// What of the environment says who asks.
fn is_identity(key: AmazonS3ConfigKey) -> bool {
    use AmazonS3ConfigKey as Key;
    matches!(
        key,
        Key::AccessKeyId
            | Key::SecretAccessKey
            | Key::Token
            | Key::WebIdentityTokenFile
            | Key::RoleArn
            | Key::RoleSessionName
            | Key::ContainerCredentialsRelativeUri
            | Key::ContainerCredentialsFullUri
            | Key::ContainerAuthorizationTokenFile
            | Key::SkipSignature
    )
}

/// The endpoint with the bucket as the first part of its host.
fn hosted(endpoint: &str, bucket: &str) -> String {
    let Ok(mut url) = Url::parse(endpoint) else {
        return endpoint.to_owned();
    };
    let host = url.host_str().unwrap_or_default().to_owned();
    if !host.starts_with(&format!("{bucket}.")) && url.set_host(Some(&format!("{bucket}.{host}"))).is_err() {
        return endpoint.to_owned();
    }
    url.as_str().trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bucket_comes_first_once() {
        assert_eq!(hosted("https://s3.example.org", "b"), "https://b.s3.example.org");
        assert_eq!(hosted("http://b.minio:9000", "b"), "http://b.minio:9000");
    }
}
