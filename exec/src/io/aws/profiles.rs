//! The shared files of AWS's tools: `~/.aws/config` and `~/.aws/credentials`, and what a profile in them says.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::sts::Role;
use crate::error::QueryError;
use crate::io::environment::Environment;

/// Profiles that take their credentials from one another.
const CHAIN_MAX: usize = 5;
/// Larger files are none of these.
const FILE_BYTES_MAX: u64 = 1 << 20;

type Settings = BTreeMap<String, String>;

/// All profiles; values are never shown.
#[derive(Default)]
pub(super) struct Profiles {
    by_name: BTreeMap<String, Settings>,
}

/// What a profile says.
pub(super) struct Profile {
    pub(super) name: String,
    pub(super) region: Option<String>,
    pub(super) endpoint_url: Option<String>,
    pub(super) source: Source,
}

/// Where its credentials come from.
pub(super) enum Source {
    /// From the file itself.
    Keys {
        key_id: String,
        secret: String,
        token: Option<String>,
    },
    /// From what a command prints.
    Process(String),
    /// From a token in a file.
    WebIdentity { token_file: String, role: Role },
    /// From the environment's variables.
    Environment,
    /// From the machine.
    Instance,
    /// From a role that another source takes on.
    Role { role: Role, base: Box<Source> },
    /// It says nothing of credentials.
    Client,
}

impl Profiles {
    /// Reads both files; missing ones are empty.
    pub(super) fn load(environment: &Environment) -> Result<Self, QueryError> {
        let mut all = Self::default();
        let files = [
            ("AWS_CONFIG_FILE", ".aws/config", true),
            ("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials", false),
        ];
        for (variable, usual, prefixed) in files {
            let path = environment
                .get(variable)
                .map(PathBuf::from)
                .or_else(|| environment.at_home(usual));
            let Some(path) = path else { continue };
            let Ok(found) = std::fs::metadata(&path) else { continue };
            let text = (found.len() <= FILE_BYTES_MAX).then(|| std::fs::read_to_string(&path).ok());
            let Some(text) = text.flatten() else {
                return Err(QueryError::invalid("the server's AWS profiles can't be read")
                    .with_hint(format!("the operator checks {variable} and ~/{usual}")));
            };
            all.add(&text, prefixed);
        }
        Ok(all)
    }

    /// Adds what a file says; in `config` names stand behind the word `profile`.
    pub(super) fn add(&mut self, text: &str, prefixed: bool) {
        let mut current: Option<String> = None;
        for line in text.lines() {
            let trimmed = line.trim();
            if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
                continue;
            }
            if let Some(section) = trimmed.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
                current = section_name(section, prefixed);
                if let Some(name) = &current {
                    self.by_name.entry(name.clone()).or_default();
                }
                continue;
            }
            // Indented lines belong to a setting of settings, such as `s3 =`.
            let (Some(name), Some((key, value)), false) =
                (&current, trimmed.split_once('='), line.starts_with(char::is_whitespace))
            else {
                continue;
            };
            let value = value.split(" #").next().unwrap_or_default().trim();
            let settings = self.by_name.entry(name.clone()).or_default();
            settings.insert(key.trim().to_ascii_lowercase(), value.to_owned());
        }
    }

    /// What the profile of this name says.
    ///
    /// # Errors
    /// When there is none, or it says what can't be followed.
    pub(super) fn profile(&self, name: &str) -> Result<Profile, QueryError> {
        let settings = self.settings(name)?;
        let source = self.source(name, &mut Vec::new())?;
        Ok(Profile {
            name: name.to_owned(),
            region: value(settings, "region"),
            endpoint_url: value(settings, "endpoint_url"),
            source,
        })
    }

    fn settings(&self, name: &str) -> Result<&Settings, QueryError> {
        self.by_name
            .get(name)
            .ok_or_else(|| QueryError::invalid(format!("the server has no AWS profile {name}")))
    }

    fn source(&self, name: &str, seen: &mut Vec<String>) -> Result<Source, QueryError> {
        if seen.len() >= CHAIN_MAX || seen.iter().any(|known| known == name) {
            return Err(QueryError::invalid(format!(
                "AWS profile {name} takes its credentials from itself"
            )));
        }
        seen.push(name.to_owned());
        let settings = self.settings(name)?;
        let get = |key| value(settings, key);
        let Some(arn) = get("role_arn") else {
            return own(name, settings);
        };
        let role = Role {
            arn,
            session_name: get("role_session_name"),
            external_id: get("external_id"),
            duration_seconds: get("duration_seconds").and_then(|seconds| seconds.parse().ok()),
            endpoint: None,
        };
        if let Some(token_file) = get("web_identity_token_file") {
            return Ok(Source::WebIdentity { token_file, role });
        }
        if get("mfa_serial").is_some() {
            return Err(unusable(name, "asks for a second factor"));
        }
        let base = match (get("source_profile"), get("credential_source").as_deref()) {
            // A profile may take on a role with its own keys.
            (Some(base), _) if base == name => own(name, settings)?,
            (Some(base), _) => self.source(&base, seen)?,
            (None, Some("Environment")) => Source::Environment,
            (None, Some("Ec2InstanceMetadata")) => Source::Instance,
            (None, Some("EcsContainer")) => Source::Environment,
            _ => return Err(unusable(name, "names a role and not whose credentials take it on")),
        };
        if matches!(base, Source::Client) {
            return Err(unusable(name, "takes on a role with a profile that has no credentials"));
        }
        Ok(Source::Role {
            role,
            base: Box::new(base),
        })
    }
}

/// What the profile itself has.
fn own(name: &str, settings: &Settings) -> Result<Source, QueryError> {
    let get = |key| value(settings, key);
    match (get("aws_access_key_id"), get("aws_secret_access_key")) {
        (Some(key_id), Some(secret)) => {
            return Ok(Source::Keys {
                key_id,
                secret,
                token: get("aws_session_token"),
            });
        }
        (None, None) => {}
        _ => return Err(unusable(name, "has half a key")),
    }
    if let Some(command) = get("credential_process") {
        return Ok(Source::Process(command));
    }
    if settings.keys().any(|key| key.starts_with("sso_")) {
        return Err(unusable(name, "uses single sign-on, which needs a person")
            .with_hint("set credential_process = aws configure export-credentials --profile … in a profile"));
    }
    Ok(Source::Client)
}

fn unusable(name: &str, why: &str) -> QueryError {
    QueryError::invalid(format!("AWS profile {name} {why}"))
}

fn value(settings: &Settings, key: &str) -> Option<String> {
    settings.get(key).filter(|value| !value.is_empty()).cloned()
}

fn section_name(section: &str, prefixed: bool) -> Option<String> {
    let section = section.trim();
    if !prefixed || section == "default" {
        return Some(section.to_owned());
    }
    let name = section.strip_prefix("profile")?;
    let name = name.strip_prefix(char::is_whitespace)?.trim().trim_matches('"');
    Some(name.to_owned())
}
