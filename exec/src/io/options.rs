//! The store options of a statement: which keys exist, and for which vendor.
//!
//! Only keys that name an identity, a region or an endpoint are accepted. Keys that would make the server read a file or
//! ask another host for credentials stay the operator's, who sets them in the server's environment.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::locations::LocationError;

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
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl StoreOptions {
    /// Takes the `aws.*`, `gcp.*` or `azure.*` keys of `OPTIONS (…)` that fit the URL's scheme; other namespaces are left to
    /// whoever reads them.
    pub fn from_options(scheme: &str, options: &BTreeMap<String, String>) -> Result<Self, LocationError> {
        let (namespace, known) = match scheme {
            "s3" | "s3a" => ("aws.", AWS),
            "gs" | "gcs" => ("gcp.", GCP),
            "az" | "azure" | "adl" | "abfs" | "abfss" => ("azure.", AZURE),
            _ => return Ok(Self::default()),
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
        Ok(Self { values })
    }

    /// True for a key that belongs to a store, not to a file format.
    pub fn is_store_key(key: &str) -> bool {
        ["aws.", "gcp.", "azure."]
            .iter()
            .any(|namespace| key.starts_with(namespace))
    }

    /// True when the environment alone decides.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The endpoint that the options ask for.
    pub(crate) fn endpoint(&self) -> Option<&str> {
        self.values
            .get("endpoint")
            .or_else(|| self.values.get("base_url"))
            .map(String::as_str)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Tells two sets of options for one bucket apart without showing them.
    pub(crate) fn fingerprint(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.values.hash(&mut hasher);
        format!("o{:016x}", hasher.finish())
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
        assert!(
            StoreOptions::from_options("file", &options(&[("aws.region", "x")]))
                .unwrap()
                .is_empty()
        );
    }
}
