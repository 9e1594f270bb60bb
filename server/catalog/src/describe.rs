//! What there is, for `system.tables`, GetTables and `\d`: never fails, because a damaged table is an entry with an error.

use arrow::datatypes::SchemaRef;
use trireme_exec::QueryError;
use trireme_planner::ddl::{FileFormat, Key, TableName};
use trireme_planner::redact::redacted;

use crate::catalog::{Catalog, INFORMATION_SCHEMA, SYSTEM_SCHEMA};
use crate::discover::FoundKind;
use crate::error::CatalogError;
use crate::formats::{data_file, format_name};
use crate::information_schema;
use crate::names::like;
use crate::resolve::{Source, canonical};
use crate::statistics::fresh_rows;
use crate::writes::row_count;

/// What kind of table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// Made by CREATE TABLE; the server's own files.
    Managed,
    /// Made by CREATE EXTERNAL TABLE.
    External,
    /// A file or folder of the data folder.
    Discovered,
    /// Made by CREATE VIEW.
    View,
    /// The server's own: `system` and `information_schema`.
    System,
}

impl TableKind {
    /// As clients see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Managed => "managed",
            Self::External => "external",
            Self::Discovered => "discovered",
            Self::View => "view",
            Self::System => "system",
        }
    }
}

/// Which tables, and how much about them.
#[derive(Debug, Clone, Default)]
pub struct DescribeFilter {
    /// LIKE pattern of schemas; `None` means all.
    pub schema_pattern: Option<String>,
    /// LIKE pattern of tables; `None` means all.
    pub table_pattern: Option<String>,
    /// Open each table for its columns (and its error, if it has one).
    pub with_columns: bool,
    /// Look at each table's files for rows, bytes and format.
    pub with_sizes: bool,
}

/// One table or view.
#[derive(Debug, Clone)]
pub struct TableEntry {
    /// Name.
    pub name: TableName,
    /// Kind.
    pub kind: TableKind,
    /// Columns, if asked for and readable.
    pub schema: Option<SchemaRef>,
    /// Why it can't be read, if asked for.
    pub error: Option<String>,
    /// `parquet`, `csv`, `json`, `avro`, `arrow`, `delta`.
    pub format: Option<&'static str>,
    /// Path relative to the data folder, or as declared; `None` for managed tables and views.
    pub location: Option<String>,
    /// Rows, where they are known without reading.
    pub rows: Option<u64>,
    /// Bytes of all files, if asked for.
    pub bytes: Option<u64>,
    /// Primary key.
    pub primary_key: Option<Key>,
    /// Foreign keys.
    pub foreign_keys: Vec<Key>,
    /// The SELECT of a view, or the statement of an external table.
    pub definition: Option<String>,
    /// Comment; there is no statement to set one yet.
    pub comment: Option<String>,
}

impl Catalog {
    /// All tables and views that fit the filter, sorted by schema and name.
    pub async fn describe(&self, filter: &DescribeFilter) -> Vec<TableEntry> {
        let fits = |pattern: &Option<String>, name: &str| pattern.as_ref().is_none_or(|pattern| like(name, pattern));
        let mut entries = Vec::new();
        for schema in self
            .schemas()
            .into_iter()
            .filter(|schema| fits(&filter.schema_pattern, schema))
        {
            let server_owned = match schema.as_str() {
                INFORMATION_SCHEMA => self.this.upgrade().map(information_schema::provider),
                SYSTEM_SCHEMA => self.system.read().clone(),
                _ => None,
            };
            let names = server_owned
                .as_ref()
                .map_or_else(|| self.table_names(&schema), |provider| provider.table_names());
            for table in names.into_iter().filter(|table| fits(&filter.table_pattern, table)) {
                let name = TableName {
                    schema: schema.clone(),
                    table,
                };
                let mut entry = match &server_owned {
                    Some(provider) => {
                        let mut entry = TableEntry::new(name, TableKind::System);
                        if filter.with_columns {
                            entry.schema = provider
                                .table(&entry.name.table)
                                .await
                                .ok()
                                .flatten()
                                .map(|table| table.schema());
                        }
                        entry
                    }
                    None => self.entry(name, filter).await,
                };
                entry.name.schema.clone_from(&schema);
                entries.push(entry);
            }
        }
        entries
    }

    async fn entry(&self, name: TableName, filter: &DescribeFilter) -> TableEntry {
        let source = match self.source(&name) {
            Ok(Some(source)) => source,
            Ok(None) => return TableEntry::new(name, TableKind::Discovered),
            Err(error) => {
                let mut entry = TableEntry::new(name, TableKind::Discovered);
                entry.error = Some(shown(error));
                return entry;
            }
        };
        let mut entry = TableEntry::new(canonical(&name, &source), source.kind());
        self.describe_source(&mut entry, &source);
        if filter.with_columns {
            match self.table(&name, None).await {
                Ok(table) => entry.schema = table.map(|table| table.schema()),
                Err(error) => entry.error = Some(shown(error)),
            }
        }
        if filter.with_sizes && !matches!(source, Source::View(_)) {
            self.describe_sizes(&mut entry, &source).await;
        }
        entry
    }

    fn describe_source(&self, entry: &mut TableEntry, source: &Source) {
        for key in self.snapshot().keys(&entry.name) {
            match key {
                Key::Primary { .. } => entry.primary_key = Some(key.clone()),
                Key::Foreign { .. } => entry.foreign_keys.push(key.clone()),
            }
        }
        match source {
            Source::Managed(_) => entry.format = Some(format_name(FileFormat::Delta)),
            Source::External(external) => {
                entry.format = Some(format_name(external.format));
                entry.location = Some(external.location.clone());
                entry.definition = Some(redacted(&external.sql).into_owned());
            }
            Source::View(view) => entry.definition = Some(view.sql.clone()),
            Source::Discovered(found) => {
                let relative = found.path.strip_prefix(self.data_dir()).unwrap_or(&found.path);
                entry.location = Some(relative.display().to_string());
                entry.format = match found.kind {
                    FoundKind::Delta => Some(format_name(FileFormat::Delta)),
                    FoundKind::Folder => None,
                    FoundKind::File => data_file(&relative.to_string_lossy()).map(|(_, kind)| format_name(kind.format)),
                };
            }
        }
    }

    async fn describe_sizes(&self, entry: &mut TableEntry, source: &Source) {
        let listing = match self.listing(&entry.name, source).await {
            Ok(listing) => listing,
            Err(error) => {
                entry.error = Some(shown(error));
                return;
            }
        };
        entry.rows = fresh_rows(self, &entry.name, &listing.signature);
        if entry.format.is_none() {
            match listing.kind() {
                Ok(kind) => entry.format = Some(format_name(kind.format)),
                Err(error) => entry.error = Some(shown(error)),
            }
        }
        match source {
            Source::Managed(folder) => match self.managed_delta(&entry.name, folder).await {
                Ok(table) => {
                    entry.rows = row_count(&table);
                    let sizes = table
                        .snapshot()
                        .map(|state| state.log_data().iter().map(|file| file.size().unsigned_abs()).sum());
                    entry.bytes = sizes.ok();
                }
                Err(error) => entry.error = Some(shown(error)),
            },
            _ if entry.format == Some(format_name(FileFormat::Delta)) => {}
            _ => entry.bytes = Some(listing.signature.bytes),
        }
    }
}

impl TableEntry {
    fn new(name: TableName, kind: TableKind) -> Self {
        Self {
            name,
            kind,
            schema: None,
            error: None,
            format: None,
            location: None,
            rows: None,
            bytes: None,
            primary_key: None,
            foreign_keys: Vec::new(),
            definition: None,
            comment: None,
        }
    }
}

fn shown(error: CatalogError) -> String {
    QueryError::from(error).message
}
