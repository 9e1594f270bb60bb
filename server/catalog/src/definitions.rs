//! What DDL defined, as it is stored in `catalog.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use serde::{Deserialize, Serialize};
use trireme_planner::ddl::{ExternalTable, FileFormat, FunctionDefinition, Key, PinnedStatement, TableName};

use crate::error::CatalogError;

/// Everything that DDL defined. Maps are by schema, then by table.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Definitions {
    /// Schemas made by `CREATE SCHEMA`.
    #[serde(default)]
    pub(crate) schemas: BTreeSet<String>,
    /// Tables and views.
    #[serde(default)]
    pub(crate) tables: BTreeMap<String, BTreeMap<String, Definition>>,
    /// Informational keys, also of discovered tables.
    #[serde(default)]
    pub(crate) keys: BTreeMap<String, BTreeMap<String, Vec<Key>>>,
    /// Functions, by schema, then by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) functions: BTreeMap<String, BTreeMap<String, FunctionDefinition>>,
    /// Statements that run where a user says, by schema, then by shape.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) pins: BTreeMap<String, BTreeMap<String, PinnedStatement>>,
}

/// One table or view.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Definition {
    /// A Delta table in `tables/<folder>`.
    Managed {
        /// Name of the folder.
        folder: String,
    },
    /// Files somewhere in the allow-list.
    External(External),
    /// A stored SELECT.
    View(View),
}

/// An external table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct External {
    pub(crate) format: FileFormat,
    pub(crate) location: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) columns: Option<StoredSchema>,
    #[serde(default)]
    pub(crate) partition_columns: Vec<String>,
    /// May hold credentials: the file is readable by the server's user only.
    #[serde(default)]
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) sql: String,
}

/// A view.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct View {
    pub(crate) sql: String,
    /// The schema that unqualified names in `sql` are looked up in.
    pub(crate) search_schema: String,
}

/// A schema as an Arrow IPC stream without batches, in hexadecimal: the one encoding that keeps every type.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StoredSchema(String);

impl StoredSchema {
    pub(crate) fn encode(schema: &SchemaRef) -> Result<Self, CatalogError> {
        let failed =
            |error: arrow::error::ArrowError| CatalogError::invalid(format!("the columns can't be stored: {error}"));
        let mut bytes = Vec::new();
        StreamWriter::try_new(&mut bytes, schema)
            .and_then(|mut writer| writer.finish())
            .map_err(failed)?;
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    pub(crate) fn decode(&self) -> Result<SchemaRef, CatalogError> {
        let broken = || CatalogError::Corrupt {
            file: "catalog.json".to_owned(),
            reason: "a table's columns are damaged".to_owned(),
        };
        let digits = self.0.as_bytes();
        let bytes = digits
            .chunks(2)
            .map(|pair| {
                std::str::from_utf8(pair)
                    .ok()
                    .and_then(|text| u8::from_str_radix(text, 16).ok())
            })
            .collect::<Option<Vec<u8>>>()
            .ok_or_else(broken)?;
        let reader = StreamReader::try_new(Cursor::new(bytes), None).map_err(|_| broken())?;
        Ok(reader.schema())
    }
}

impl External {
    pub(crate) fn new(table: &ExternalTable) -> Result<Self, CatalogError> {
        Ok(Self {
            format: table.format,
            location: table.location.clone(),
            columns: table.columns.as_ref().map(StoredSchema::encode).transpose()?,
            partition_columns: table.partition_columns.clone(),
            options: table.options.clone(),
            sql: table.sql.clone(),
        })
    }
}

impl Definitions {
    pub(crate) fn table(&self, name: &TableName) -> Option<&Definition> {
        self.tables.get(&name.schema)?.get(&name.table)
    }

    pub(crate) fn set_table(&mut self, name: &TableName, definition: Definition) {
        self.tables
            .entry(name.schema.clone())
            .or_default()
            .insert(name.table.clone(), definition);
    }

    /// Removes a table with its keys.
    pub(crate) fn remove_table(&mut self, name: &TableName) -> Option<Definition> {
        self.set_keys(name, Vec::new());
        let tables = self.tables.get_mut(&name.schema)?;
        let removed = tables.remove(&name.table);
        if tables.is_empty() {
            self.tables.remove(&name.schema);
        }
        removed
    }

    pub(crate) fn keys(&self, name: &TableName) -> &[Key] {
        self.keys
            .get(&name.schema)
            .and_then(|tables| tables.get(&name.table))
            .map_or(&[], Vec::as_slice)
    }

    pub(crate) fn set_keys(&mut self, name: &TableName, keys: Vec<Key>) {
        if !keys.is_empty() {
            self.keys
                .entry(name.schema.clone())
                .or_default()
                .insert(name.table.clone(), keys);
        } else if let Some(tables) = self.keys.get_mut(&name.schema) {
            tables.remove(&name.table);
            if tables.is_empty() {
                self.keys.remove(&name.schema);
            }
        }
    }

    pub(crate) fn function(&self, name: &TableName) -> Option<&FunctionDefinition> {
        self.functions.get(&name.schema)?.get(&name.table)
    }

    /// Folders of managed tables.
    pub(crate) fn managed_folders(&self) -> BTreeSet<String> {
        let managed = |definition: &Definition| match definition {
            Definition::Managed { folder } => Some(folder.clone()),
            _ => None,
        };
        self.tables
            .values()
            .flat_map(BTreeMap::values)
            .filter_map(managed)
            .collect()
    }
}

/// Shared by readers; replaced, never changed.
pub(crate) type Snapshot = Arc<Definitions>;
