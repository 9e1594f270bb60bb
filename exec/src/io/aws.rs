//! Amazon's credentials beyond what the store's own client reads: profiles of the shared files, and roles.
//!
//! ```text
//!  a secret's KEY_ID + SECRET ─────────────────────────────┐
//!  AWS_ACCESS_KEY_ID …                                      │
//!  PROFILE, AWS_PROFILE, [default] ─▶ ~/.aws/{config,credentials} ─▶ keys, process, web identity, another profile's role
//!  web identity, container, instance: the client's own      │
//!                                                           ▼
//!                              ROLE_ARN ─▶ STS AssumeRole ─▶ keys for an hour, renewed before they end
//! ```
//!
//! The files, and the variables that name them, are the operator's. `aws-config` would do the same with 36 more crates, an
//! HTTP client that knows neither our time limits nor our list of hosts, and a second copy of what the store's client has.

mod profiles;
mod renewed;
mod sts;

use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, AwsCredentialProvider};
use object_store::client::HttpConnector;
use object_store::{Result, StaticCredentialProvider};

use super::environment::Environment;
use super::stores::{Building, Connector};
use crate::error::QueryError;
use profiles::{Profile, Profiles, Source};
use sts::{AssumeRole, Role};

/// The builder with who asks, where keys alone don't say it.
///
/// # Errors
/// Profiles that don't exist or say nothing usable.
pub(crate) fn with_credentials(building: &Building<'_>, mut builder: AmazonS3Builder) -> Result<AmazonS3Builder> {
    let config = building.config;
    if config.inherits() && !config.has_identity() {
        builder = from_profile(building, builder).map_err(said)?;
    }
    let Some(arn) = config.get("role_arn") else {
        return Ok(builder);
    };
    let role = Role {
        arn: arn.to_owned(),
        session_name: config.get("role_session_name").map(str::to_owned),
        external_id: config.get("external_id").map(str::to_owned),
        duration_seconds: None,
        endpoint: config.get("sts_endpoint").map(str::to_owned),
    };
    let base = credentials_of(builder.clone())?;
    let assumed = assume(building, &builder, role, base)?;
    Ok(builder.with_credentials(assumed))
}

/// The builder with a profile's credentials, region and endpoint, if a profile says who asks.
fn from_profile(building: &Building<'_>, mut builder: AmazonS3Builder) -> Result<AmazonS3Builder, QueryError> {
    let (config, environment) = (building.config, building.environment);
    let named = config.get("profile");
    let keys = has(&builder, AmazonS3ConfigKey::AccessKeyId) || has(&builder, AmazonS3ConfigKey::SecretAccessKey);
    if named.is_none() && keys {
        return Ok(builder);
    }
    let wanted = named.or_else(|| environment.get("AWS_PROFILE"));
    let profiles = Profiles::load(environment)?;
    let profile = match wanted {
        Some(name) => Some(profiles.profile(name)?),
        // Nobody asked for it: where it says nothing usable, the client's own ways follow.
        None => profiles.profile("default").ok(),
    };
    let Some(profile) = profile else { return Ok(builder) };
    if !has(&builder, AmazonS3ConfigKey::Region)
        && let Some(region) = &profile.region
    {
        builder = builder.with_region(region);
    }
    let endpoint = has(&builder, AmazonS3ConfigKey::Endpoint) || has(&builder, AmazonS3ConfigKey::S3Endpoint);
    if let (false, Some(url)) = (endpoint, &profile.endpoint_url) {
        builder = builder.with_endpoint(url).with_allow_http(url.starts_with("http://"));
    }
    let Profile { name, source, .. } = profile;
    let credentials = provider(building, &builder, &name, source).map_err(|error| {
        QueryError::of_store(&error).unwrap_or_else(|| QueryError::invalid(format!("profile {name} can't be used")))
    })?;
    Ok(match credentials {
        Some(credentials) => builder.with_credentials(credentials),
        None => builder,
    })
}

fn has(builder: &AmazonS3Builder, key: AmazonS3ConfigKey) -> bool {
    builder.get_config_value(&key).is_some_and(|value| !value.is_empty())
}

/// Who asks, as a profile says; `None` leaves it to the client's own ways.
fn provider(
    building: &Building<'_>,
    builder: &AmazonS3Builder,
    profile: &str,
    source: Source,
) -> Result<Option<AwsCredentialProvider>> {
    let environment = building.environment;
    Ok(Some(match source {
        Source::Keys { key_id, secret, token } => Arc::new(StaticCredentialProvider::new(AwsCredential {
            key_id,
            secret_key: secret,
            token,
        })),
        Source::Process(command) => Arc::new(renewed::Renewed::new(renewed::Process::new(profile, command))),
        Source::WebIdentity { token_file, role } => {
            let mut own = plain(building, builder)
                .with_config(AmazonS3ConfigKey::WebIdentityTokenFile, token_file)
                .with_config(AmazonS3ConfigKey::RoleArn, role.arn);
            if let Some(name) = role.session_name {
                own = own.with_config(AmazonS3ConfigKey::RoleSessionName, name);
            }
            credentials_of(own)?
        }
        Source::Environment => credentials_of(of_environment(building, builder, environment))?,
        Source::Instance => credentials_of(plain(building, builder))?,
        Source::Role { role, base } => {
            let Some(base) = provider(building, builder, profile, *base)? else {
                return Ok(None);
            };
            assume(building, builder, role, base)?
        }
        Source::Client => return Ok(None),
    }))
}

/// The role's credentials, asked for with those of `base`.
fn assume(
    building: &Building<'_>,
    builder: &AmazonS3Builder,
    role: Role,
    base: AwsCredentialProvider,
) -> Result<AwsCredentialProvider> {
    let region = builder.get_config_value(&AmazonS3ConfigKey::Region);
    let region = region.unwrap_or_else(|| "us-east-1".to_owned());
    let from_environment = || building.environment.get("AWS_ENDPOINT_URL_STS").map(str::to_owned);
    let endpoint = match &role.endpoint {
        Some(endpoint) => endpoint.clone(),
        None if building.config.inherits() => {
            from_environment().unwrap_or_else(|| format!("https://sts.{region}.amazonaws.com"))
        }
        None => format!("https://sts.{region}.amazonaws.com"),
    };
    let options = building
        .client_options()
        .with_allow_http(endpoint.starts_with("http://"));
    let connector = match role.endpoint {
        Some(_) => building.guarded(),
        None => Connector::usual(),
    };
    let client = connector.connect(&options)?;
    let role = AssumeRole::new(client, endpoint, region, role, base);
    Ok(Arc::new(renewed::Renewed::new(role)))
}

/// A builder that knows the bucket and the region only.
fn plain(building: &Building<'_>, builder: &AmazonS3Builder) -> AmazonS3Builder {
    let region = builder.get_config_value(&AmazonS3ConfigKey::Region).unwrap_or_default();
    let plain = AmazonS3Builder::new()
        .with_client_options(building.client_options())
        .with_bucket_name(building.bucket());
    match region.as_str() {
        "" => plain,
        region => plain.with_region(region),
    }
}

fn of_environment(building: &Building<'_>, builder: &AmazonS3Builder, environment: &Environment) -> AmazonS3Builder {
    let mut own = plain(building, builder);
    for (name, value) in environment.with_prefix("AWS_") {
        if let Ok(key) = name.parse::<AmazonS3ConfigKey>() {
            own = own.with_config(key, value);
        }
    }
    own
}

/// The credentials that a store of this builder would use.
fn credentials_of(builder: AmazonS3Builder) -> Result<AwsCredentialProvider> {
    Ok(Arc::clone(builder.build()?.credentials()))
}

/// An error of ours, as stores pass errors on.
fn said(error: QueryError) -> object_store::Error {
    object_store::Error::Generic {
        store: "S3",
        source: Box::new(error),
    }
}

#[cfg(test)]
mod tests;
