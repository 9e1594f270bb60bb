//! What can be wrong with settings. Each text is one line that names the setting, the place and the way out,
//! because it is the only line a user sees before the process ends.

use crate::Source;
use std::path::PathBuf;

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A key that no setting has.
    #[error("unknown setting `{name}` ({source_of}); {}", suggestion(nearest.as_deref(), "`trireme settings` lists all settings"))]
    UnknownKey {
        /// The key or variable as the user wrote it.
        name: String,
        /// Where it stands.
        source_of: Source,
        /// The closest known name, written the way the user would have to write it there.
        nearest: Option<String>,
    },
    /// A value of the wrong type or out of range.
    #[error("`{key}` cannot be {value} ({source_of}); allowed: {expected}")]
    BadValue {
        /// Dotted key.
        key: String,
        /// The refused value as the user wrote it.
        value: String,
        /// Where it stands.
        source_of: Source,
        /// Type, unit and range that are accepted.
        expected: String,
    },
    /// A file that cannot be read.
    #[error("cannot read the configuration file {}: {reason}; check --config and TRIREME_CONFIG", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        reason: String,
    },
    /// A file that is not TOML.
    #[error("{}:{line}: not valid TOML: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The parser's reason.
        reason: String,
    },
    /// Values that are fine alone but not together.
    #[error("{0}")]
    Conflict(String),
}

/// Why a `SET` is refused. The primary text is the `Display`, the advice is [`SettingError::hint`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingError {
    /// A name that no session setting has.
    #[error("unknown setting \"{name}\"")]
    Unknown {
        /// The name as the user wrote it.
        name: String,
        /// The closest known name.
        nearest: Option<String>,
    },
    /// A setting of the server or of the engine that a session may not change.
    #[error("setting \"{name}\" cannot be changed in a session")]
    Refused {
        /// The name.
        name: String,
        /// What to do instead.
        advice: &'static str,
    },
    /// A value of the wrong type or out of range.
    #[error("setting \"{name}\" cannot be {value}")]
    BadValue {
        /// Canonical name.
        name: String,
        /// The refused value as the user wrote it.
        value: String,
        /// Type, unit and range that are accepted.
        expected: String,
    },
}

impl SettingError {
    /// What the user can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Unknown { nearest, .. } => suggestion(nearest.as_deref(), "SHOW ALL lists the settings"),
            Self::Refused { advice, .. } => (*advice).to_string(),
            Self::BadValue { expected, .. } => format!("allowed: {expected}"),
        }
    }
}

fn suggestion(nearest: Option<&str>, otherwise: &str) -> String {
    match nearest {
        Some(name) => format!("did you mean `{name}`?"),
        None => otherwise.to_string(),
    }
}
