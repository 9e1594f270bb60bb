//! The error of a query, as every room speaks it: a class that decides what the client is told to do, a primary message
//! without internals, and a detail and a hint when there is one.

use std::fmt;

use arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::parquet::errors::ParquetError;

/// What kind of failure it was; each maps to one gRPC status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ErrorClass {
    /// The statement or an argument is wrong; running it again cannot help.
    Invalid,
    /// A named thing does not exist.
    NotFound,
    /// A named thing exists already.
    AlreadyExists,
    /// The user, or the allow-list, forbids it.
    PermissionDenied,
    /// Valid SQL that is not supported.
    Unsupported,
    /// Memory, disk or a limit is used up; fails this query alone.
    ResourceExhausted,
    /// Another writer was first: run the statement again.
    Conflict,
    /// The state does not allow it (for example a ticket that was redeemed already).
    Precondition,
    /// Cancelled by the client.
    Cancelled,
    /// The statement ran longer than its time-out.
    TimedOut,
    /// A file is damaged or not what its name says.
    Corrupt,
    /// Busy or draining: try again later.
    Unavailable,
    /// A defect of ours.
    Internal,
}

/// What to do about a data file that can't be decoded.
pub(crate) const DAMAGED_HINT: &str = "the file is damaged or is not Parquet; write it again or move it away";

/// A place in the statement's text, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Position {
    /// Line.
    pub line: u64,
    /// Column, in characters.
    pub column: u64,
}

/// A failed statement.
#[derive(Debug, Clone, thiserror::Error, serde::Serialize, serde::Deserialize)]
pub struct QueryError {
    /// What kind of failure.
    pub class: ErrorClass,
    /// Primary message: one lower-case sentence without internals.
    pub message: String,
    /// More about the cause.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// Where in the statement.
    pub position: Option<Position>,
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(Position { line, column }) = self.position {
            write!(f, " at line {line}, column {column}")?;
        }
        if let Some(detail) = &self.detail {
            write!(f, "\ndetail: {detail}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl QueryError {
    /// An error of this class.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
        }
    }

    /// Short for a wrong statement or argument.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Invalid, message)
    }

    /// Short for a defect of ours.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Internal, message)
    }

    /// What the error of a store says of itself, if it says it in our words.
    pub(crate) fn of_store(error: &object_store::Error) -> Option<Self> {
        Self::below(error)
    }

    /// What an error means that reached us in no wrapper of DataFusion's.
    pub(crate) fn of_cause(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Self {
        external(error)
    }

    /// The first error of ours among the causes of another.
    pub fn below(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(cause) = next {
            if let Some(ours) = cause.downcast_ref::<Self>() {
                return Some(ours.clone());
            }
            next = cause.source();
        }
        None
    }

    /// Adds what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds more about the cause.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds the place in the statement.
    #[must_use]
    pub fn at(mut self, position: Option<Position>) -> Self {
        self.position = position.or(self.position);
        self
    }
}

impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> Self {
        let position = error.diagnostic().and_then(|diagnostic| {
            let span = diagnostic.span?;
            (span.start.line > 0).then_some(Position {
                line: span.start.line,
                column: span.start.column,
            })
        });
        let help = error
            .diagnostic()
            .and_then(|diagnostic| Some(diagnostic.helps.first()?.message.clone()));
        let mut converted = classify(&error);
        converted.hint = converted.hint.or(help);
        converted.at(position)
    }
}

/// Finds the error below wrappers that says most, keeping what a wrapper names (a file, for example) as detail.
fn classify(error: &DataFusionError) -> QueryError {
    match error {
        DataFusionError::External(source) => match source.downcast_ref::<QueryError>() {
            Some(ours) => ours.clone(),
            None => external(source.as_ref()),
        },
        DataFusionError::Context(context, inner) => classify(inner).with_context_detail(context),
        DataFusionError::Diagnostic(_, inner) => classify(inner),
        DataFusionError::Shared(inner) => classify(inner),
        DataFusionError::Collection(errors) => errors
            .first()
            .map_or_else(|| QueryError::internal("several errors without one"), classify),
        DataFusionError::SQL(parser, _) => parse_error(&parser.to_string()),
        DataFusionError::NotImplemented(text) => QueryError::new(ErrorClass::Unsupported, sentence(text)),
        DataFusionError::Plan(text) => plan_error(text),
        DataFusionError::Configuration(text) => QueryError::invalid(sentence(text)),
        DataFusionError::SchemaError(schema, _) => schema_error(schema),
        DataFusionError::Execution(text) => QueryError::invalid(sentence(text)),
        DataFusionError::ResourcesExhausted(text) => exhausted(text),
        DataFusionError::ArrowError(arrow, _) => arrow_error(arrow),
        DataFusionError::ParquetError(parquet) => parquet_error(parquet),
        DataFusionError::ObjectStore(store) => store_error(store),
        DataFusionError::IoError(io) => io_error(io),
        DataFusionError::ExecutionJoin(join) => {
            QueryError::internal(format!("a task of the query ended abnormally: {join}"))
        }
        other => QueryError::internal(sentence(&other.strip_backtrace())),
    }
}

impl QueryError {
    fn with_context_detail(mut self, context: &str) -> Self {
        if self.class == ErrorClass::Internal || context.contains('/') {
            self.detail = self.detail.or_else(|| Some(context.to_owned()));
        }
        self
    }
}

fn external(source: &(dyn std::error::Error + Send + Sync + 'static)) -> QueryError {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(source);
    while let Some(cause) = next {
        if let Some(ours) = cause.downcast_ref::<QueryError>() {
            return ours.clone();
        }
        if let Some(inner) = cause.downcast_ref::<DataFusionError>() {
            return classify(inner);
        }
        if let Some(arrow) = cause.downcast_ref::<ArrowError>() {
            return arrow_error(arrow);
        }
        if let Some(parquet) = cause.downcast_ref::<ParquetError>() {
            return parquet_error(parquet);
        }
        if let Some(store) = cause.downcast_ref::<object_store::Error>() {
            return store_error(store);
        }
        next = cause.source();
    }
    QueryError::internal(sentence(&source.to_string()))
}

fn parse_error(text: &str) -> QueryError {
    let body = text.trim_start_matches("sql parser error: ");
    let (message, position) = split_position(body);
    QueryError::invalid(format!("syntax error: {}", sentence(message))).at(position)
}

/// sqlparser ends its messages with `at Line: 1, Column: 8`.
fn split_position(text: &str) -> (&str, Option<Position>) {
    let Some((message, place)) = text.rsplit_once(" at Line: ") else {
        return (text, None);
    };
    let mut numbers = place.split(", Column: ").map(|part| part.trim().parse::<u64>());
    match (numbers.next(), numbers.next()) {
        (Some(Ok(line)), Some(Ok(column))) => (message, Some(Position { line, column })),
        _ => (text, None),
    }
}

fn plan_error(text: &str) -> QueryError {
    let lower = text.to_lowercase();
    if lower.starts_with("table '") && lower.contains("not found") {
        let name = text.split('\'').nth(1).unwrap_or_default();
        return QueryError::new(ErrorClass::NotFound, format!("table {name} does not exist"));
    }
    match text.split_once("\nDid you mean") {
        Some((first, rest)) => {
            QueryError::invalid(sentence(first)).with_hint(format!("did you mean{}", rest.trim_end()))
        }
        None => QueryError::invalid(sentence(text)),
    }
}

fn schema_error(error: &SchemaError) -> QueryError {
    let SchemaError::FieldNotFound { field, valid_fields } = error else {
        return QueryError::invalid(sentence(&error.to_string()));
    };
    let wanted = field.name();
    let nearest = valid_fields
        .iter()
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&candidate.name().to_lowercase(), &wanted.to_lowercase()),
                candidate,
            )
        })
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= 2.max(wanted.len() / 3));
    let message = format!("column {} does not exist", field.flat_name());
    let base = QueryError::invalid(message);
    match nearest {
        Some((_, candidate)) => base.with_hint(format!("did you mean {}?", candidate.quoted_flat_name())),
        None if valid_fields.is_empty() => base,
        None => {
            let mut names: Vec<_> = valid_fields.iter().map(|column| column.quoted_flat_name()).collect();
            let more = names.len().saturating_sub(20);
            names.truncate(20);
            let tail = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            base.with_hint(format!("columns here: {}{tail}", names.join(", ")))
        }
    }
}

fn exhausted(text: &str) -> QueryError {
    QueryError::new(
        ErrorClass::ResourceExhausted,
        "the query needs more memory than it may use",
    )
    .with_detail(sentence(text))
    .with_hint(
        "raise exec.query_memory_bytes or exec.memory_bytes, or lower trireme.target_partitions for this session",
    )
}

fn arrow_error(error: &ArrowError) -> QueryError {
    match error {
        ArrowError::ExternalError(source) => external(source.as_ref()),
        ArrowError::DivideByZero => QueryError::invalid("division by zero"),
        ArrowError::ArithmeticOverflow(text) => QueryError::invalid(format!("arithmetic overflow: {}", sentence(text))),
        ArrowError::CastError(text) | ArrowError::ComputeError(text) | ArrowError::InvalidArgumentError(text) => {
            QueryError::invalid(sentence(text))
        }
        ArrowError::ParseError(text) => QueryError::invalid(sentence(text)),
        ArrowError::CsvError(text) => QueryError::new(
            ErrorClass::Corrupt,
            format!("a CSV file can't be read: {}", sentence(text)),
        ),
        ArrowError::JsonError(text) => QueryError::new(
            ErrorClass::Corrupt,
            format!("a JSON file can't be read: {}", sentence(text)),
        ),
        ArrowError::ParquetError(text) | ArrowError::AvroError(text) => QueryError::new(
            ErrorClass::Corrupt,
            format!("a data file can't be read: {}", sentence(text)),
        ),
        ArrowError::IoError(_, io) => io_error(io),
        ArrowError::NotYetImplemented(text) => QueryError::new(ErrorClass::Unsupported, sentence(text)),
        other => QueryError::internal(sentence(&other.to_string())),
    }
}

fn parquet_error(error: &ParquetError) -> QueryError {
    match error {
        ParquetError::External(source) => external(source.as_ref()),
        other => QueryError::new(ErrorClass::Corrupt, "a Parquet file can't be read")
            .with_detail(sentence(&other.to_string()))
            .with_hint(DAMAGED_HINT),
    }
}

fn store_error(error: &object_store::Error) -> QueryError {
    if let (Some(ours), object_store::Error::PermissionDenied { .. } | object_store::Error::Generic { .. }) =
        (QueryError::of_store(error), error)
    {
        return ours;
    }
    match error {
        object_store::Error::NotFound { path, .. } => {
            QueryError::new(ErrorClass::NotFound, format!("file {path} does not exist (any more)"))
                .with_hint("run the statement again if the files were just replaced")
        }
        object_store::Error::PermissionDenied { path, .. } | object_store::Error::Unauthenticated { path, .. } => {
            QueryError::new(
                ErrorClass::PermissionDenied,
                format!("the store refuses access to {path}"),
            )
        }
        object_store::Error::Precondition { path, .. } => {
            QueryError::new(ErrorClass::Conflict, format!("{path} was replaced while it was read"))
                .with_hint("run the statement again")
        }
        object_store::Error::Generic { store, source } => external_store(store, source.as_ref()),
        other => QueryError::new(ErrorClass::Unavailable, "the object store can't be reached")
            .with_detail(sentence(&other.to_string())),
    }
}

fn external_store(store: &str, source: &(dyn std::error::Error + Send + Sync + 'static)) -> QueryError {
    if let Some(ours) = source.downcast_ref::<QueryError>() {
        return ours.clone();
    }
    QueryError::new(ErrorClass::Unavailable, format!("the {store} store failed"))
        .with_detail(sentence(&source.to_string()))
}

fn io_error(error: &std::io::Error) -> QueryError {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            QueryError::new(ErrorClass::ResourceExhausted, "the disk is full")
        }
        std::io::ErrorKind::PermissionDenied => QueryError::new(ErrorClass::PermissionDenied, error.to_string()),
        std::io::ErrorKind::NotFound => QueryError::new(ErrorClass::NotFound, sentence(&error.to_string())),
        _ => QueryError::internal(sentence(&error.to_string())),
    }
}

/// One line, without backtrace and without DataFusion's prefixes, first letter lower-cased when it starts a plain word.
fn sentence(text: &str) -> String {
    let text = text.split("\n\nbacktrace:").next().unwrap_or(text);
    let text = [
        "Error during planning: ",
        "Execution error: ",
        "Arrow error: ",
        "External error: ",
        "Parquet error: ",
        "Invalid or Unsupported Configuration: ",
        "This feature is not implemented: ",
    ]
    .iter()
    .fold(text, |rest, prefix| rest.trim_start_matches(prefix));
    let text = text.trim().trim_end_matches('.');
    let mut letters = text.chars();
    match (letters.next(), letters.clone().next()) {
        (Some(first), Some(second)) if first.is_uppercase() && second.is_lowercase() => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parser_position_is_lifted_out() {
        let error = parse_error("sql parser error: Expected: an expression, found: EOF at Line: 1, Column: 8");
        assert_eq!(error.position, Some(Position { line: 1, column: 8 }));
        assert_eq!(
            error.to_string(),
            "syntax error: expected: an expression, found: EOF at line 1, column 8"
        );
    }

    #[test]
    fn our_error_survives_wrapping() {
        let ours = QueryError::new(ErrorClass::Conflict, "changed by another writer");
        let wrapped = DataFusionError::Context("x".into(), Box::new(DataFusionError::External(Box::new(ours))));
        assert_eq!(QueryError::from(wrapped).class, ErrorClass::Conflict);
    }

    #[test]
    fn a_failed_read_keeps_its_kind() {
        let read = |error: object_store::Error| {
            let error = crate::fused::query_error(&trireme_device_api::DeviceError::read(error));
            QueryError::from(error)
        };
        let (path, source) = (|| "a/b.parquet".to_owned(), || "x".into());
        let missing = object_store::Error::NotFound {
            path: path(),
            source: source(),
        };
        assert_eq!(read(missing).class, ErrorClass::NotFound);
        let denied = object_store::Error::PermissionDenied {
            path: path(),
            source: source(),
        };
        assert_eq!(read(denied).class, ErrorClass::PermissionDenied);
        let away = object_store::Error::Generic {
            store: "S3",
            source: source(),
        };
        assert_eq!(read(away).class, ErrorClass::Unavailable);
        let replaced = read(object_store::Error::Precondition {
            path: path(),
            source: source(),
        });
        assert!(replaced.class == ErrorClass::Conflict && replaced.hint.is_some());
    }

    #[test]
    fn missing_table_is_not_found() {
        let error = QueryError::from(DataFusionError::Plan("table 'trireme.public.x' not found".into()));
        assert_eq!(error.class, ErrorClass::NotFound);
    }
}
