//! Why the catalog refused or failed, and what to do about it.

use std::path::PathBuf;

use datafusion::error::DataFusionError;
use deltalake::DeltaTableError;
use deltalake::kernel::transaction::TransactionError;
use trireme_exec::io::LocationError;
use trireme_exec::{ErrorClass, QueryError};

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// No such table, view, function or schema.
    #[error("{what} {name} does not exist")]
    NotFound {
        /// `table`, `view`, `function`, `secret` or `schema`.
        what: &'static str,
        /// As asked for.
        name: String,
        /// The nearest names, best first.
        candidates: Vec<String>,
    },
    /// The name is taken.
    #[error("{what} {name} already exists")]
    AlreadyExists {
        /// What has the name: `table`, `view`, `function` or `schema`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A user's own files.
    #[error("{name} can't be changed: {reason}")]
    ReadOnly {
        /// The table or schema.
        name: String,
        /// What it is.
        reason: &'static str,
    },
    /// Another writer was first; retryable.
    #[error("table {name} was changed by another writer; run the statement again")]
    Conflict {
        /// The table.
        name: String,
    },
    /// Refused by the allow-list.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// A file that can't be what its name says.
    #[error("file {file} can't be read: {reason}")]
    Corrupt {
        /// The file.
        file: String,
        /// What the reader said.
        reason: String,
    },
    /// The data folder was written by a newer server.
    #[error("the data folder has format version {found}, and this server knows versions up to {supported}")]
    FormatVersion {
        /// In the folder.
        found: u64,
        /// Known here.
        supported: u64,
    },
    /// Another server runs on the folder.
    #[error("the data folder {} is in use by another server", folder.display())]
    Locked {
        /// The data folder.
        folder: PathBuf,
    },
    /// A statement that makes no sense here.
    #[error("{message}")]
    Invalid {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The server's own files.
    #[error("{} can't be used: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// From planning or running a query.
    #[error(transparent)]
    DataFusion(DataFusionError),
    /// From a Delta table.
    #[error("the Delta table {name} can't be used")]
    Delta {
        /// The table.
        name: String,
        /// What the reader or writer said.
        source: Box<DeltaTableError>,
    },
}

impl CatalogError {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid {
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn invalid_hint(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Invalid {
            message: message.into(),
            hint: Some(hint.into()),
        }
    }

    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    /// Tells conflicts and bad statements of a Delta operation from failures of the table.
    pub(crate) fn delta(name: &str, error: DeltaTableError) -> Self {
        match Self::known_delta(name, &error) {
            Some(known) => known,
            None => Self::Delta {
                name: name.to_owned(),
                source: Box::new(error),
            },
        }
    }

    /// A table that needs what its reader doesn't know says what that is.
    pub(crate) fn unreadable_delta(name: &str, error: DataFusionError) -> Self {
        let DataFusionError::External(source) = &error else {
            return error.into();
        };
        match source.downcast_ref::<DeltaTableError>() {
            Some(DeltaTableError::Transaction {
                source: TransactionError::UnsupportedTableFeatures(features),
            }) => {
                let features: Vec<String> = features.iter().map(ToString::to_string).collect();
                let message = format!(
                    "table {name} uses Delta features that can't be read: {}",
                    features.join(", ")
                );
                QueryError::new(ErrorClass::Unsupported, message)
                    .with_hint("see docs/formats.md")
                    .into()
            }
            _ => error.into(),
        }
    }

    /// What a Delta error says to the user; `None` when it is a failure of the table or its store.
    pub(crate) fn known_delta(name: &str, error: &DeltaTableError) -> Option<Self> {
        if is_conflict(error) {
            return Some(Self::Conflict { name: name.to_owned() });
        }
        match error {
            DeltaTableError::Generic(text) if text.contains("Unable to convert expression to string") => Some(
                QueryError::new(
                    ErrorClass::Unsupported,
                    "the log can't hold an expression of this DELETE or UPDATE (an interval, TRY_CAST, …)",
                )
                .with_hint("compute it in a subquery: WHERE key IN (SELECT key FROM … WHERE …)")
                .into(),
            ),
            DeltaTableError::GenericError { source } => Some(statement_error(&source.to_string())),
            DeltaTableError::Generic(text) | DeltaTableError::InvalidData { message: text } => {
                Some(statement_error(text))
            }
            DeltaTableError::Arrow { source } => Some(statement_error(&source.to_string())),
            DeltaTableError::SchemaMismatch { msg } => Some(statement_error(msg)),
            _ => None,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { what, candidates, .. } => match candidates.as_slice() {
                [] if *what == "function" => Some("there is no function with a similar name; see system.functions".to_owned()),
                [] if *what == "secret" => Some("there is no secret with a similar name; see system.secrets".to_owned()),
                [] => Some(format!("there is no {what} with a similar name; see system.tables")),
                [only] => Some(format!("did you mean {only}?")),
                [first, rest @ ..] => Some(format!("did you mean {first}? other candidates: {}", rest.join(", "))),
            },
            Self::AlreadyExists { what, .. } => Some(format!("choose another name, or drop the {what} first")),
            Self::ReadOnly { .. } => {
                Some("the server never changes users' files; copy the rows into a table of its own with CREATE TABLE … AS SELECT".to_owned())
            }
            Self::Conflict { .. } => Some("nothing was changed by this statement; it is safe to run it again".to_owned()),
            Self::Location(error) => error.hint(),
            Self::Corrupt { .. } => Some("the file is damaged or not of the format that its name says; write it again or move it away".to_owned()),
            Self::FormatVersion { .. } => Some("start a newer server, or use another data folder".to_owned()),
            Self::Locked { .. } => Some("stop the other server, or start this one with another --data folder".to_owned()),
            Self::Invalid { hint, .. } => hint.clone(),
            Self::Io { .. } => Some("check that the folder exists, is writable and has free space".to_owned()),
            Self::DataFusion(_) | Self::Delta { .. } => None,
        }
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::NotFound { .. } => ErrorClass::NotFound,
            Self::AlreadyExists { .. } => ErrorClass::AlreadyExists,
            Self::ReadOnly { .. } => ErrorClass::Precondition,
            Self::Conflict { .. } => ErrorClass::Conflict,
            Self::Corrupt { .. } | Self::Delta { .. } => ErrorClass::Corrupt,
            Self::FormatVersion { .. } | Self::Locked { .. } => ErrorClass::Precondition,
            Self::Invalid { .. } | Self::Location(_) | Self::DataFusion(_) => ErrorClass::Invalid,
            Self::Io { .. } => ErrorClass::Internal,
        }
    }
}

/// The writer hands errors of the rows on as text, with the names of its layers in front.
fn statement_error(text: &str) -> CatalogError {
    const LAYERS: &[&str] = &[
        "Generic DeltaTable error: ",
        "External error: ",
        "Execution error: ",
        "Arrow error: ",
        "Parquet error: ",
        "Schema error: ",
        "Error during planning: ",
        "Invalid argument error: ",
        "Compute error: ",
        "Cast error: ",
    ];
    let mut rest = text.trim();
    while let Some(inner) = LAYERS.iter().find_map(|layer| rest.strip_prefix(layer)) {
        rest = inner;
    }
    let (message, detail) = rest.split_once('\n').unwrap_or((rest, ""));
    let mut message = message.trim_end_matches('.').to_owned();
    if let Some(first) = message.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    let error = QueryError::invalid(message);
    match detail.trim() {
        "" => error.into(),
        detail => error.with_detail(detail).into(),
    }
}

/// Finds a lost race anywhere below a Delta error.
fn is_conflict(error: &DeltaTableError) -> bool {
    match error {
        DeltaTableError::Transaction { source } => matches!(
            source,
            TransactionError::CommitConflict(_)
                | TransactionError::MaxCommitAttempts(_)
                | TransactionError::VersionAlreadyExists(_)
        ),
        DeltaTableError::VersionAlreadyExists(_) => true,
        _ => false,
    }
}

impl From<DataFusionError> for CatalogError {
    fn from(error: DataFusionError) -> Self {
        Self::DataFusion(error)
    }
}

impl From<CatalogError> for QueryError {
    fn from(error: CatalogError) -> Self {
        let class = error.class();
        let hint = error.hint();
        let converted = match error {
            CatalogError::DataFusion(inner) => return Self::from(inner),
            CatalogError::Location(refusal) => return Self::from(refusal),
            CatalogError::Delta { name, source } => {
                // What the store says for itself says more than the reader above it.
                if let Some(ours) = Self::below(source.as_ref()) {
                    return ours;
                }
                Self::new(class, format!("the Delta table {name} can't be used")).with_detail(source.to_string())
            }
            other => Self::new(class, other.to_string()),
        };
        match hint {
            Some(hint) => converted.with_hint(hint),
            None => converted,
        }
    }
}

impl From<CatalogError> for DataFusionError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::DataFusion(inner) => inner,
            other => Self::External(Box::new(QueryError::from(other))),
        }
    }
}

impl From<QueryError> for CatalogError {
    fn from(error: QueryError) -> Self {
        Self::DataFusion(DataFusionError::External(Box::new(error)))
    }
}
