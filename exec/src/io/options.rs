//! What a statement says about a store: options of its own, or the name of a secret.
//!
//! Only keys that name an identity, a region or an endpoint are accepted. Keys that would make the server read a file or
//! ask another host for credentials stay the operator's, who sets them in the server's environment.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::locations::LocationError;
use crate::error::QueryError;

/// The option that names a secret.
const SECRET: &str = "secret";
/// What it is called in COPY, where a key without a namespace is the format's.
const COPY_SECRET: &str = "format.secret";

const AWS: &[&str] = &[
    "access_key_id",
    "secret_access_key",
    "session_token",
    "region",
    "endpoint",
    "allow_http",
    "virtual_hosted_style_request",
    "skip_signature",
    "unsigned_payload",
    "request_payer",
    "server_side_encryption",
    "sse_kms_key_id",
    "sse_bucket_key_enabled",
    "sse_customer_key_base64",
    "checksum_algorithm",
];
const GCP: &[&str] = &["service_account_key", "base_url", "allow_http", "skip_signature"];
const AZURE: &[&str] = &[
    "storage_account_name",
    "storage_account_key",
    "storage_sas_key",
    "storage_client_id",
    "storage_client_secret",
    "storage_tenant_id",
    "endpoint",
    "allow_http",
    "skip_signature",
    "use_emulator",
];

/// Options of one vendor; values are never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StoreOptions {
    values: BTreeMap<String, String>,
    secret: Option<String>,
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl StoreOptions {
    /// Takes the `aws.*`, `gcp.*` or `azure.*` keys of `OPTIONS (…)` that fit the URL's scheme; other namespaces are left to
    /// whoever reads them.
    ///
    /// # Errors
    /// Keys that are not known; a secret together with other keys: they would send its credentials elsewhere.
    pub fn from_options(scheme: &str, options: &BTreeMap<String, String>) -> Result<Self, LocationError> {
        let secret = options.get(SECRET).or_else(|| options.get(COPY_SECRET)).cloned();
        if secret.is_some()
            && let Some(other) = options.keys().find(|key| Self::is_vendor_key(key))
        {
            return Err(LocationError::Invalid {
                location: format!("option {other}"),
                reason: "a secret says all about its store, so no other option of the store may stand beside it"
                    .to_owned(),
            });
        }
        let (namespace, known) = match scheme {
            "s3" | "s3a" => ("aws.", AWS),
            "gs" | "gcs" => ("gcp.", GCP),
            "az" | "azure" | "adl" | "abfs" | "abfss" => ("azure.", AZURE),
            _ => {
                return Ok(Self {
                    values: BTreeMap::new(),
                    secret,
                });
            }
        };
        let mut values = BTreeMap::new();
        for (key, value) in options {
            let Some(short) = key.strip_prefix(namespace) else {
                continue;
            };
            if !known.contains(&short) {
                return Err(LocationError::Invalid {
                    location: format!("option {key}"),
                    reason: format!("known options are {namespace}{}", known.join(&format!(", {namespace}"))),
                });
            }
            values.insert(short.to_owned(), value.clone());
        }
        Ok(Self { values, secret })
    }

    /// True for a key that belongs to a store, not to a file format.
    pub fn is_store_key(key: &str) -> bool {
        [SECRET, COPY_SECRET].contains(&key) || Self::is_vendor_key(key)
    }

    fn is_vendor_key(key: &str) -> bool {
        let namespaces = ["aws.", "gcp.", "azure."];
        namespaces.iter().any(|namespace| key.starts_with(namespace))
    }

    /// True when they say nothing.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty() && self.secret.is_none()
    }

    /// The secret that they name.
    pub(crate) fn secret(&self) -> Option<&str> {
        self.secret.as_deref()
    }

    /// Tells two sets of options for one bucket apart without showing them.
    pub(crate) fn fingerprint(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.values.hash(&mut hasher);
        format!("o{:016x}", hasher.finish())
    }

    /// How a store is built with them.
    pub(crate) fn config(&self) -> StoreConfig {
        StoreConfig {
            values: self.values.clone(),
            inherits: true,
            secret: None,
        }
    }
}

/// Everything that is said about a store beside its URL; values are never shown.
#[derive(Clone, Default)]
pub(crate) struct StoreConfig {
    values: BTreeMap<String, String>,
    inherits: bool,
    secret: Option<String>,
}

impl fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

/// Options whose values let nobody in.
const PLAIN: &[&str] = &[
    "access_key_id",
    "allow_http",
    "base_url",
    "checksum_algorithm",
    "endpoint",
    "external_id",
    "profile",
    "region",
    "request_payer",
    "role_arn",
    "role_session_name",
    "server_side_encryption",
    "skip_signature",
    "sse_bucket_key_enabled",
    "sse_kms_key_id",
    "storage_account_name",
    "storage_client_id",
    "storage_tenant_id",
    "sts_endpoint",
    "unsigned_payload",
    "use_emulator",
    "virtual_hosted_style_request",
];

impl StoreConfig {
    /// From the server's environment alone.
    pub(crate) fn of_environment() -> Self {
        Self {
            values: BTreeMap::new(),
            inherits: true,
            secret: None,
        }
    }

    /// From a secret; `inherits` when it says that the environment proves who asks.
    pub(crate) fn of_secret(name: &str, values: BTreeMap<String, String>, inherits: bool) -> Self {
        Self {
            values,
            inherits,
            secret: Some(name.to_owned()),
        }
    }

    /// Whether the server's environment counts as well.
    pub(crate) fn inherits(&self) -> bool {
        self.inherits
    }

    /// The secret that it is from.
    pub(crate) fn secret(&self) -> Option<&str> {
        self.secret.as_deref()
    }

    /// One value.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// True for a flag that is set.
    pub(crate) fn is_true(&self, key: &str) -> bool {
        self.get(key) == Some("true")
    }

    /// True when it says who asks, so that what the environment says about that doesn't count.
    pub(crate) fn has_identity(&self) -> bool {
        const IDENTITY: [&str; 8] = [
            "access_key_id",
            "bearer_token",
            "secret_access_key",
            "service_account_key",
            "skip_signature",
            "storage_account_key",
            "storage_client_secret",
            "storage_sas_key",
        ];
        IDENTITY.iter().any(|key| self.values.contains_key(*key))
    }

    /// The endpoints that it asks for.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &str> {
        ["endpoint", "base_url", "sts_endpoint"]
            .into_iter()
            .filter_map(|key| self.get(key))
    }

    /// True when it says where requests go.
    pub(crate) fn has_endpoint(&self) -> bool {
        self.get("endpoint").or_else(|| self.get("base_url")).is_some()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The values that nobody may see.
    pub(crate) fn sensitive(&self) -> Vec<String> {
        let hidden = |(key, value): (&String, &String)| (!PLAIN.contains(&key.as_str())).then(|| value.clone());
        self.values.iter().filter_map(hidden).collect()
    }

    /// Refuses values that would become a part of a host's name and lead elsewhere.
    pub(crate) fn check(&self) -> Result<(), QueryError> {
        let parts = [
            ("region", "-"),
            ("storage_account_name", "-"),
            ("storage_tenant_id", "-."),
        ];
        for (key, others) in parts {
            let fits = |value: &str| {
                let part = |byte: u8| byte.is_ascii_alphanumeric() || others.as_bytes().contains(&byte);
                !value.is_empty() && value.len() <= 64 && value.bytes().all(part)
            };
            if self.get(key).is_some_and(|value| !fits(value)) {
                return Err(QueryError::invalid(format!(
                    "the store's option {key} is not of its form"
                )));
            }
        }
        let key = self
            .get("service_account_key")
            .map(serde_json::from_str::<serde_json::Value>);
        if let Some(Ok(key)) = key
            && (key.get("gcs_base_url").is_some() || key.get("disable_oauth").is_some())
        {
            return Err(QueryError::invalid("the service account's key says where requests go")
                .with_hint("leave gcs_base_url and disable_oauth out of it, and give the ENDPOINT"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn keys_are_checked_and_values_hidden() {
        let taken = StoreOptions::from_options(
            "s3",
            &options(&[("aws.secret_access_key", "hunter2"), ("format.has_header", "true")]),
        )
        .unwrap();
        assert!(!taken.is_empty());
        assert!(!format!("{taken:?}").contains("hunter2"));
        let error = StoreOptions::from_options("s3", &options(&[("aws.metadata_endpoint", "hunter2")])).unwrap_err();
        assert!(!error.to_string().contains("hunter2"));
        let mixed = options(&[("secret", "lake"), ("aws.endpoint", "hunter2")]);
        assert!(StoreOptions::from_options("s3", &mixed).is_err());
        let copied = options(&[("format.secret", "lake"), ("format.compression", "zstd")]);
        assert_eq!(
            StoreOptions::from_options("s3", &copied).unwrap().secret(),
            Some("lake")
        );
        assert!(
            StoreOptions::from_options("file", &options(&[("aws.region", "x")]))
                .unwrap()
                .is_empty()
        );
    }
}
