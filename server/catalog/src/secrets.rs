//! `CREATE SECRET` and `DROP SECRET`: the live secrets, and the file that keeps them.
//!
//! ```text
//!  .trireme/secrets.json   mode 0600, apart from catalog.json: { "secrets": […] }
//!                          or, with secrets.key_file:          { "sealed": { nonce, data } }    AES-256-GCM
//! ```
//!
//! A statement takes effect when the file is renamed into place, as one of the catalog does. Nothing but this file and the
//! stores ever sees a value.

mod sealed;

use std::path::Path;

use serde::{Deserialize, Serialize};
use trireme_exec::io::SecretDefinition;
use trireme_exec::io::secrets::SECRETS_MAX;
use trireme_planner::ddl::IfExists;

pub use sealed::SecretKey;

use crate::catalog::{Applied, Catalog};
use crate::ddl::DONE;
use crate::error::CatalogError;
use crate::folder::{read_json, write_json};
use crate::names::nearest;
use sealed::Sealed;

/// What the file holds.
#[derive(Default, Serialize, Deserialize)]
struct Stored {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<SecretDefinition>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealed: Option<Sealed>,
}

/// The secrets as they are now, by name.
#[derive(Debug, Default)]
pub(crate) struct SecretsFile {
    secrets: Vec<SecretDefinition>,
    key: Option<SecretKey>,
}

impl SecretsFile {
    /// Reads the file; one that isn't sealed and should be is sealed.
    pub(crate) fn open(path: &Path, key: Option<SecretKey>) -> Result<Self, CatalogError> {
        // What the reader of the file says may quote it.
        let stored: Option<Stored> = read_json(path).map_err(|error| match error {
            CatalogError::Corrupt { .. } => damaged(path, "it is damaged"),
            other => other,
        })?;
        let stored = stored.unwrap_or_default();
        let plain = stored.sealed.is_none();
        let secrets = match (stored.sealed, &key) {
            (None, _) => stored.secrets,
            (Some(sealed), Some(key)) => {
                let bytes = sealed
                    .opened(key)
                    .ok_or_else(|| damaged(path, "secrets.key_file does not open it"))?;
                serde_json::from_slice(&bytes).map_err(|_| damaged(path, "what is sealed in it is damaged"))?
            }
            (Some(_), None) => {
                return Err(damaged(
                    path,
                    "it is sealed, and the setting secrets.key_file is not set",
                ));
            }
        };
        let file = Self { secrets, key };
        if plain && file.key.is_some() && !file.secrets.is_empty() {
            file.write(path)?;
        }
        Ok(file)
    }

    pub(crate) fn secrets(&self) -> &[SecretDefinition] {
        &self.secrets
    }

    fn write(&self, path: &Path) -> Result<(), CatalogError> {
        let stored = match &self.key {
            None => Stored {
                secrets: self.secrets.clone(),
                sealed: None,
            },
            Some(key) => {
                let bytes = serde_json::to_vec(&self.secrets).map_err(|_| unsealable())?;
                Stored {
                    secrets: Vec::new(),
                    sealed: Some(Sealed::new(key, bytes).ok_or_else(unsealable)?),
                }
            }
        };
        write_json(path, &stored)
    }
}

fn damaged(path: &Path, reason: &str) -> CatalogError {
    CatalogError::Corrupt {
        file: path.display().to_string(),
        reason: reason.to_owned(),
    }
}

fn unsealable() -> CatalogError {
    CatalogError::invalid("the secrets can't be sealed")
}

impl Catalog {
    /// The secrets, by name; their values stay where they are.
    pub fn secrets(&self) -> Vec<SecretDefinition> {
        self.secrets.read().secrets.clone()
    }

    pub(crate) async fn create_secret(
        &self,
        definition: SecretDefinition,
        if_exists: IfExists,
    ) -> Result<Applied, CatalogError> {
        self.stores.check_secret(&definition)?;
        let _changing = self.changing.lock().await;
        let mut secrets = self.secrets();
        let known = secrets.iter().position(|known| known.name() == definition.name());
        match (known, if_exists) {
            (Some(_), IfExists::Fail) => {
                return Err(CatalogError::AlreadyExists {
                    what: "secret",
                    name: definition.name().to_owned(),
                });
            }
            (Some(_), IfExists::Keep) => return Ok(DONE),
            (Some(known), IfExists::Replace) => {
                secrets.remove(known);
            }
            (None, _) if secrets.len() >= SECRETS_MAX => {
                return Err(CatalogError::invalid(format!(
                    "there are {SECRETS_MAX} secrets already, as many as are allowed"
                )));
            }
            (None, _) => {}
        }
        secrets.push(definition);
        secrets.sort_by(|one, other| one.name().cmp(other.name()));
        self.commit_secrets(secrets)
    }

    pub(crate) async fn drop_secret(&self, name: &str, missing_ok: bool) -> Result<Applied, CatalogError> {
        let _changing = self.changing.lock().await;
        let mut secrets = self.secrets();
        let Some(known) = secrets.iter().position(|known| known.name() == name) else {
            if missing_ok {
                return Ok(DONE);
            }
            return Err(CatalogError::NotFound {
                what: "secret",
                name: name.to_owned(),
                candidates: nearest(name, secrets.iter().map(|known| known.name().to_owned())),
            });
        };
        secrets.remove(known);
        self.commit_secrets(secrets)
    }

    /// The caller holds `changing`.
    fn commit_secrets(&self, secrets: Vec<SecretDefinition>) -> Result<Applied, CatalogError> {
        let mut file = self.secrets.write();
        let changed = SecretsFile {
            secrets,
            key: file.key.clone(),
        };
        changed.write(&self.folder.secrets_file())?;
        self.stores.set_secrets(&changed.secrets);
        *file = changed;
        drop(file);
        // Tables hold the stores that they were opened with.
        self.refresh();
        self.deltas.lock().clear();
        Ok(DONE)
    }
}

#[cfg(test)]
mod tests;
