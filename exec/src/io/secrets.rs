//! Named secrets: credentials of a store that are given once (`CREATE SECRET`) and only named from then on.
//!
//! ```text
//!  CREATE SECRET lake (TYPE s3, KEY_ID …, SECRET …, SCOPE 's3://bucket/raw')
//!     │ SecretDefinition: checked, its values in the stores' own words
//!     ▼
//!  Secrets: the live ones ── named by OPTIONS (secret 'lake'), or the one with the longest SCOPE over a location ──▶ store
//! ```
//!
//! Nothing here ever shows a value: not `Debug`, not an error. Where definitions are kept is the catalog's; how a store is
//! built from one is `stores`'.

mod keys;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use url::Url;

use super::locations::RemotePrefix;
use super::options::StoreConfig;
use crate::error::{ErrorClass, QueryError};

/// Names are shown in lists and errors.
const NAME_CHARS_MAX: usize = 128;

/// Live secrets of one server.
pub const SECRETS_MAX: usize = 1_000;

/// Which stores a secret is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretKind {
    /// Amazon S3 and what speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage and Data Lake.
    Azure,
    /// Web servers.
    Http,
}

impl SecretKind {
    /// As in `TYPE …`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gcs",
            Self::Azure => "azure",
            Self::Http => "http",
        }
    }

    /// The kind of the stores under a URL's scheme.
    pub(crate) fn of_scheme(scheme: &str) -> Option<Self> {
        match scheme {
            "s3" | "s3a" => Some(Self::S3),
            "gs" | "gcs" => Some(Self::Gcs),
            "az" | "azure" | "adl" | "abfs" | "abfss" => Some(Self::Azure),
            "http" | "https" => Some(Self::Http),
            _ => None,
        }
    }

    fn parse(text: &str) -> Result<Self, QueryError> {
        match text.to_ascii_lowercase().as_str() {
            "s3" => Ok(Self::S3),
            "gcs" => Ok(Self::Gcs),
            "azure" => Ok(Self::Azure),
            "http" => Ok(Self::Http),
            _ => Err(QueryError::invalid("the TYPE of the secret is not known")
                .with_hint("types are s3 (and what speaks its protocol), gcs, azure, http")),
        }
    }
}

/// Where a secret's credentials come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretProvider {
    /// From its own options.
    Config,
    /// From the server's environment, as a store without a secret has them.
    CredentialChain,
}

impl SecretProvider {
    /// As in `PROVIDER …`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::CredentialChain => "credential_chain",
        }
    }
}

/// A checked secret. Its values are private to this module and the file that the catalog keeps.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretDefinition {
    name: String,
    kind: SecretKind,
    provider: SecretProvider,
    scopes: Vec<String>,
    created_ms: u64,
    /// Options of the store, in its own words.
    options: BTreeMap<String, String>,
}

impl fmt::Debug for SecretDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretDefinition")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("provider", &self.provider)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

impl SecretDefinition {
    /// Checks what `CREATE SECRET name (TYPE kind, key value, …)` says; a key may come several times where it takes a list.
    ///
    /// # Errors
    /// Unknown types and keys, missing or contradicting ones, values of a wrong form. No error holds a value.
    pub fn new(name: &str, kind: &str, given: &[(String, String)], created_ms: u64) -> Result<Self, QueryError> {
        let fits = !name.is_empty() && name.chars().count() <= NAME_CHARS_MAX && !name.chars().any(char::is_control);
        if !fits {
            return Err(QueryError::invalid(format!(
                "a secret needs a name of at most {NAME_CHARS_MAX} characters"
            )));
        }
        let kind = SecretKind::parse(kind)?;
        let checked = keys::checked(kind, given)?;
        let definition = Self {
            name: name.to_owned(),
            kind,
            provider: checked.provider,
            scopes: checked.scopes,
            created_ms,
            options: checked.options,
        };
        definition.prefixes()?;
        Ok(definition)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which stores it is for.
    pub fn kind(&self) -> SecretKind {
        self.kind
    }

    /// Where its credentials come from.
    pub fn provider(&self) -> SecretProvider {
        self.provider
    }

    /// The locations it is for; empty means all of its kind.
    pub fn scopes(&self) -> &[String] {
        &self.scopes
    }

    /// When it was created, in milliseconds since 1970.
    pub fn created_ms(&self) -> u64 {
        self.created_ms
    }

    /// What of it makes the server use its own identity in a way that a statement chose (another profile, a role that the
    /// server's identity takes on): only administrators may ask for that.
    pub fn uses_server_identity(&self) -> Option<&'static str> {
        if self.provider == SecretProvider::Config {
            return None;
        }
        [
            ("profile", "PROFILE"),
            ("role_arn", "ROLE_ARN"),
            ("storage_client_id", "CLIENT_ID"),
        ]
        .into_iter()
        .find_map(|(option, key)| self.options.contains_key(option).then_some(key))
    }

    /// How a store is built with it.
    pub(crate) fn config(&self) -> StoreConfig {
        StoreConfig::of_secret(
            &self.name,
            self.options.clone(),
            self.provider == SecretProvider::CredentialChain,
        )
    }

    /// A location that it could be used for.
    pub(crate) fn example(&self) -> Option<Url> {
        let own = self.prefixes().ok()?.iter().find_map(RemotePrefix::url);
        let any = match self.kind {
            SecretKind::S3 => "s3://bucket",
            SecretKind::Gcs => "gs://bucket",
            SecretKind::Azure if self.options.contains_key("storage_account_name") => "az://container",
            SecretKind::Azure => "az://container.account.blob.core.windows.net",
            SecretKind::Http => "https://example.org",
        };
        own.or_else(|| Url::parse(any).ok())
    }

    fn prefixes(&self) -> Result<Vec<RemotePrefix>, QueryError> {
        let prefix = |scope: &String| {
            let wrong = || {
                QueryError::invalid(format!("a SCOPE of secret {} is not a location of its type", self.name))
                    .with_hint("write the start of the locations, for example SCOPE 's3://bucket/folder'")
            };
            if let Some(scheme) = scope.strip_suffix("://") {
                let known = SecretKind::of_scheme(scheme) == Some(self.kind);
                return RemotePrefix::of_scheme(scheme).filter(|_| known).ok_or_else(wrong);
            }
            let prefix = RemotePrefix::parse(scope).map_err(|_| wrong())?;
            let known = SecretKind::of_scheme(prefix.scheme()) == Some(self.kind);
            known.then_some(prefix).ok_or_else(wrong)
        };
        self.scopes.iter().map(prefix).collect()
    }
}

/// A secret that stores are built with.
#[derive(Debug)]
pub(crate) struct LiveSecret {
    pub(crate) definition: SecretDefinition,
    /// Another number for every other definition.
    pub(crate) generation: u64,
    prefixes: Vec<RemotePrefix>,
}

impl LiveSecret {
    /// How much of the location its best scope names; `None` when it is not for it.
    fn fit(&self, wanted: &RemotePrefix, kind: SecretKind) -> Option<usize> {
        if self.definition.kind != kind {
            return None;
        }
        if self.prefixes.is_empty() {
            return Some(0);
        }
        let fitting = self.prefixes.iter().filter(|prefix| prefix.covers(wanted));
        fitting.map(RemotePrefix::length).max()
    }
}

/// The live secrets, by name.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    live: RwLock<Live>,
}

#[derive(Debug, Default)]
struct Live {
    by_name: BTreeMap<String, Arc<LiveSecret>>,
    generations: u64,
}

impl Secrets {
    /// Makes these the live ones; gives the generations that are no longer.
    pub(crate) fn replace(&self, definitions: &[SecretDefinition]) -> Vec<u64> {
        let mut live = self.live.write();
        let mut by_name = BTreeMap::new();
        for definition in definitions {
            let known = live.by_name.get(&definition.name);
            if let Some(known) = known.filter(|known| known.definition == *definition) {
                by_name.insert(definition.name.clone(), Arc::clone(known));
                continue;
            }
            // Definitions were checked when they were made; one that isn't right any more is for no location.
            let Ok(prefixes) = definition.prefixes() else { continue };
            live.generations += 1;
            let secret = LiveSecret {
                definition: definition.clone(),
                generation: live.generations,
                prefixes,
            };
            by_name.insert(definition.name.clone(), Arc::new(secret));
        }
        let old = std::mem::replace(&mut live.by_name, by_name);
        let gone = old.values().filter(|old| {
            let now = live.by_name.get(&old.definition.name);
            now.is_none_or(|now| now.generation != old.generation)
        });
        gone.map(|secret| secret.generation).collect()
    }

    /// The secret that a statement named, for this location.
    ///
    /// # Errors
    /// When there is none of this name, or it is for other locations.
    pub(crate) fn named(&self, name: &str, url: &Url) -> Result<Arc<LiveSecret>, QueryError> {
        let live = self.live.read();
        let denied = |message: String| QueryError::new(ErrorClass::PermissionDenied, message);
        let known = live.by_name.get(name);
        let Some(secret) = known.or_else(|| live.by_name.get(&name.to_lowercase())) else {
            return Err(denied(format!("secret {name} does not exist"))
                .with_hint("it was dropped, or never created; see system.secrets, and CREATE SECRET"));
        };
        let (Some(kind), Ok(wanted)) = (SecretKind::of_scheme(url.scheme()), RemotePrefix::of_url(url)) else {
            return Err(QueryError::invalid(format!(
                "secret {name} is for object stores, and the location is none"
            )));
        };
        match secret.fit(&wanted, kind) {
            Some(_) => Ok(Arc::clone(secret)),
            None if secret.definition.kind != kind => Err(denied(format!(
                "secret {name} is of type {}, which {}:// locations don't use",
                secret.definition.kind.as_str(),
                url.scheme()
            ))),
            None => Err(denied(format!(
                "secret {name} is for {} only",
                secret.definition.scopes.join(" and ")
            ))
            .with_hint("use a secret whose SCOPE covers the location")),
        }
    }

    /// The secret whose SCOPE names most of this location, if any is for it.
    ///
    /// # Errors
    /// When several fit equally well.
    pub(crate) fn best(&self, url: &Url) -> Result<Option<Arc<LiveSecret>>, QueryError> {
        let (Some(kind), Ok(wanted)) = (SecretKind::of_scheme(url.scheme()), RemotePrefix::of_url(url)) else {
            return Ok(None);
        };
        let live = self.live.read();
        let mut best: Option<(usize, &Arc<LiveSecret>)> = None;
        let mut rival = None;
        for secret in live.by_name.values() {
            let Some(fit) = secret.fit(&wanted, kind) else { continue };
            match best {
                Some((length, _)) if fit < length => {}
                Some((length, first)) if fit == length => rival = Some((first, secret)),
                _ => (best, rival) = (Some((fit, secret)), None),
            }
        }
        if let Some((one, other)) = rival {
            return Err(QueryError::invalid(format!(
                "secrets {} and {} are for this location alike",
                one.definition.name, other.definition.name
            ))
            .with_hint("name one in OPTIONS (secret '…'), or give them different SCOPEs"));
        }
        Ok(best.map(|(_, secret)| Arc::clone(secret)))
    }
}

#[cfg(test)]
mod tests;
