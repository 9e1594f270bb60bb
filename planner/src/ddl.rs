//! Definitions a statement asks the catalog to change, as plain data.
//!
//! The planner owns the SQL of DDL (which clauses exist, what they mean); the catalog owns what is stored. This file is
//! the contract between them: no parser types and no files in it.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::LogicalPlan;
use trireme_exec::io::SecretDefinition;

/// A table's full name inside the one catalog: both parts are already case-folded as SQL says.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct TableName {
    /// Schema, for example `public`.
    pub schema: String,
    /// Table or view.
    pub table: String,
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

/// An informational key: it is shown to clients and feeds the planner's key metadata; rows are not checked against it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Key {
    /// Primary key.
    Primary {
        /// Constraint name, if the user gave one.
        name: Option<String>,
        /// Columns in key order.
        columns: Vec<String>,
    },
    /// Foreign key.
    Foreign {
        /// Constraint name, if the user gave one.
        name: Option<String>,
        /// Columns in key order.
        columns: Vec<String>,
        /// The table referred to.
        references: TableName,
        /// The columns referred to, in key order; empty means its primary key.
        referenced_columns: Vec<String>,
    },
}

/// File format of an external table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileFormat {
    /// Apache Parquet.
    Parquet,
    /// Comma-separated text (optionally compressed).
    Csv,
    /// Newline-delimited JSON (optionally compressed).
    Json,
    /// Apache Avro.
    Avro,
    /// Arrow IPC files.
    Arrow,
    /// A Delta table's folder.
    Delta,
}

/// `CREATE EXTERNAL TABLE`.
#[derive(Debug, Clone)]
pub struct ExternalTable {
    /// Name of the new table.
    pub name: TableName,
    /// Declared columns; `None` when they are to be inferred from the files.
    pub columns: Option<SchemaRef>,
    /// Format of the files.
    pub format: FileFormat,
    /// Where the files are: path (relative to the data folder, or absolute), URL, or glob.
    pub location: String,
    /// Hive partition columns (`PARTITIONED BY`); empty means: infer `key=value` folders.
    pub partition_columns: Vec<String>,
    /// `OPTIONS (…)`, keys lower-cased (for example `format.has_header`, `aws.region`).
    pub options: BTreeMap<String, String>,
    /// Informational keys.
    pub keys: Vec<Key>,
    /// The statement as the user wrote it.
    pub sql: String,
}

/// What a managed table is made from.
#[derive(Debug, Clone)]
pub enum ManagedSource {
    /// `CREATE TABLE t (columns)`.
    Columns(SchemaRef),
    /// `CREATE TABLE t AS query`.
    Query(Box<LogicalPlan>),
}

/// An argument of a function.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FunctionParameter {
    /// Its name; the body may also call it `$1`, `$2`, ….
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its type, as SQL.
    pub data_type: String,
}

/// A function whose body is an expression.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FunctionDefinition {
    /// Arguments in order.
    pub parameters: Vec<FunctionParameter>,
    /// Type of the result, as SQL.
    pub returns: String,
    /// The expression, as SQL.
    pub body: String,
    /// `STRICT`: NULL where an argument is NULL.
    #[serde(default)]
    pub strict: bool,
    /// The schema that unqualified functions in the body are looked up in.
    pub search_schema: String,
}

impl FunctionDefinition {
    /// The arguments as written: `a INT, b VARCHAR`.
    pub fn arguments(&self) -> String {
        let argument = |parameter: &FunctionParameter| match &parameter.name {
            Some(name) => format!("{name} {}", parameter.data_type),
            None => parameter.data_type.clone(),
        };
        self.parameters.iter().map(argument).collect::<Vec<_>>().join(", ")
    }
}

/// Every defined function, by schema and name.
#[derive(Debug, Clone, Default)]
pub struct Functions {
    /// Another number for every other state.
    pub version: u64,
    /// By schema, then by name.
    pub definitions: BTreeMap<String, BTreeMap<String, FunctionDefinition>>,
}

/// What to do when the name is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfExists {
    /// Fail with "already exists".
    Fail,
    /// `IF NOT EXISTS`: keep the old one and succeed.
    Keep,
    /// `OR REPLACE`.
    Replace,
}

/// A statement that runs where a user says.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PinnedStatement {
    /// Its text, as it was pinned.
    pub sql: String,
    /// Devices of its fragments: [`trireme_costs::Pins`] as JSON.
    pub pins: String,
}

/// One catalog change.
#[derive(Debug, Clone)]
pub enum Ddl {
    /// `CREATE EXTERNAL TABLE`.
    CreateExternalTable { table: ExternalTable, if_exists: IfExists },
    /// `CREATE TABLE [AS]`: a managed Delta table.
    CreateTable {
        name: TableName,
        source: ManagedSource,
        keys: Vec<Key>,
        partition_columns: Vec<String>,
        if_exists: IfExists,
    },
    /// `CREATE VIEW`: `query_sql` is the text of the SELECT alone, `plan` what it was planned to.
    CreateView {
        name: TableName,
        query_sql: String,
        plan: Box<LogicalPlan>,
        if_exists: IfExists,
    },
    /// `CREATE SCHEMA`.
    CreateSchema { name: String, if_exists: IfExists },
    /// `DROP TABLE`.
    DropTable { name: TableName, missing_ok: bool },
    /// `DROP VIEW`.
    DropView { name: TableName, missing_ok: bool },
    /// `CREATE FUNCTION`; the definition was checked by planning it.
    CreateFunction {
        name: TableName,
        definition: FunctionDefinition,
        if_exists: IfExists,
    },
    /// `DROP FUNCTION`.
    DropFunction { name: TableName, missing_ok: bool },
    /// `CREATE SECRET`; checked.
    CreateSecret {
        definition: Box<SecretDefinition>,
        if_exists: IfExists,
    },
    /// `DROP SECRET`.
    DropSecret { name: String, missing_ok: bool },
    /// `DROP SCHEMA`.
    DropSchema {
        name: String,
        missing_ok: bool,
        cascade: bool,
    },
    /// `ALTER TABLE … ADD PRIMARY KEY | FOREIGN KEY`: also for discovered tables.
    AddKey { name: TableName, key: Key },
    /// `ANALYZE [TABLE] t`.
    Analyze { name: TableName },
    /// `PIN PLACEMENT`: `shape` is what tells the statement from others in its schema.
    PinPlacement {
        schema: String,
        shape: String,
        pinned: PinnedStatement,
    },
    /// `UNPIN PLACEMENT`.
    UnpinPlacement { schema: String, shape: String },
}

/// Separates a table's name from the version asked for in a bound reference (`VERSION AS OF`); no SQL identifier that a
/// user can write reaches the catalog with it.
pub const VERSION_MARK: char = '\u{1}';

/// Which state of a versioned (Delta) table a reference means.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TableVersionRef {
    /// `VERSION AS OF n`.
    Version(u64),
    /// `TIMESTAMP AS OF '…'`: RFC 3339 text.
    Timestamp(String),
}

/// Encodes a versioned reference as the table name that DataFusion's planner carries to the catalog.
pub fn versioned_name(table: &str, version: &TableVersionRef) -> String {
    match version {
        TableVersionRef::Version(number) => format!("{table}{VERSION_MARK}v{number}"),
        TableVersionRef::Timestamp(text) => format!("{table}{VERSION_MARK}t{text}"),
    }
}

/// Splits what [`versioned_name`] made; a plain name comes back with `None`.
pub fn split_versioned_name(name: &str) -> (&str, Option<TableVersionRef>) {
    let Some((table, mark)) = name.split_once(VERSION_MARK) else {
        return (name, None);
    };
    let version = match mark.split_at_checked(1) {
        Some(("v", number)) => number.parse().ok().map(TableVersionRef::Version),
        Some(("t", text)) => Some(TableVersionRef::Timestamp(text.to_owned())),
        _ => None,
    };
    (table, version)
}
