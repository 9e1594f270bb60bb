//! Credentials that end, asked for again before they do; and the simplest source of some: a command's output.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use object_store::aws::AwsCredential;
use object_store::{CredentialProvider, Result};
use serde::Deserialize;
use tokio::process::Command;
use tokio::sync::Mutex;

use super::said;
use crate::error::{ErrorClass, QueryError};

/// Credentials are renewed when they have so much left, or a quarter of their time where that is less.
const MARGIN: Duration = Duration::from_secs(300);
/// A command that takes longer is ended.
const PROCESS_TIMEOUT: Duration = Duration::from_secs(60);
/// How long what a command printed is used.
const PROCESS_TTL: Duration = Duration::from_secs(600);

/// Gives credentials and how long they hold.
#[async_trait]
pub(super) trait Fetch: fmt::Debug + Send + Sync + 'static {
    async fn fetch(&self) -> Result<(AwsCredential, Duration), QueryError>;
}

/// See the module.
#[derive(Debug)]
pub(super) struct Renewed<F> {
    from: F,
    held: Mutex<Option<Held>>,
}

#[derive(Debug, Clone)]
struct Held {
    credential: Arc<AwsCredential>,
    renew: Instant,
    ends: Instant,
}

impl<F: Fetch> Renewed<F> {
    pub(super) fn new(from: F) -> Self {
        Self {
            from,
            held: Mutex::new(None),
        }
    }
}

#[async_trait]
impl<F: Fetch> CredentialProvider for Renewed<F> {
    type Credential = AwsCredential;

    /// One request at a time asks; the others wait for its answer.
    async fn get_credential(&self) -> Result<Arc<AwsCredential>> {
        let mut held = self.held.lock().await;
        let now = Instant::now();
        if let Some(held) = held.as_ref().filter(|held| now < held.renew) {
            return Ok(Arc::clone(&held.credential));
        }
        match self.from.fetch().await {
            Ok((credential, ttl)) => {
                let credential = Arc::new(credential);
                *held = Some(Held {
                    credential: Arc::clone(&credential),
                    renew: now + (ttl - MARGIN.min(ttl / 4)),
                    ends: now + ttl,
                });
                Ok(credential)
            }
            // What is held may still be good enough.
            Err(error) => match held.as_ref().filter(|held| Instant::now() < held.ends) {
                Some(held) => Ok(Arc::clone(&held.credential)),
                None => Err(said(error)),
            },
        }
    }
}

/// `credential_process` of a profile.
pub(super) struct Process {
    profile: String,
    command: String,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the process of profile {}", self.profile)
    }
}

impl Process {
    pub(super) fn new(profile: &str, command: String) -> Self {
        Self {
            profile: profile.to_owned(),
            command,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
}

#[async_trait]
impl Fetch for Process {
    async fn fetch(&self) -> Result<(AwsCredential, Duration), QueryError> {
        let failed = || {
            QueryError::new(
                ErrorClass::PermissionDenied,
                format!(
                    "the credential_process of AWS profile {} gave no credentials",
                    self.profile
                ),
            )
        };
        let run = Command::new("sh")
            .arg("-c")
            .arg(&self.command)
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(PROCESS_TIMEOUT, run).await;
        let output = output.ok().and_then(std::io::Result::ok).ok_or_else(failed)?;
        if !output.status.success() {
            return Err(failed());
        }
        // What the parser says may quote what was printed.
        let printed: Printed = serde_json::from_slice(&output.stdout).map_err(|_| failed())?;
        let credential = AwsCredential {
            key_id: printed.access_key_id,
            secret_key: printed.secret_access_key,
            token: printed.session_token,
        };
        Ok((credential, PROCESS_TTL))
    }
}
