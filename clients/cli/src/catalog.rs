//! What the server says about its catalogs, schemas, tables and keys, as plain rows.
//!
//! Only standard Flight SQL commands are used, so that every server can answer. Columns are found by their name in the
//! specification and read as text whatever string type they come in.

use arrow::array::{Array, AsArray, RecordBatch, UnionArray};
use arrow::datatypes::{DataType, Schema};
use arrow_flight::IpcMessage;
use arrow_flight::sql::{
    CommandGetCatalogs, CommandGetDbSchemas, CommandGetImportedKeys, CommandGetPrimaryKeys, CommandGetSqlInfo,
    CommandGetTables, SqlInfo,
};

use crate::connection::Connection;
use crate::error::Failure;
use crate::format::Columns;

/// One table or view.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Table {
    pub(crate) catalog: Option<String>,
    pub(crate) schema: Option<String>,
    pub(crate) name: String,
    pub(crate) kind: String,
    /// Present if asked for.
    pub(crate) columns: Option<Schema>,
}

impl Table {
    pub(crate) fn is_view(&self) -> bool {
        self.kind.to_ascii_uppercase().contains("VIEW")
    }

    pub(crate) fn is_system(&self) -> bool {
        is_system_schema(self.schema.as_deref().unwrap_or_default())
    }

    pub(crate) fn qualified_name(&self) -> String {
        match self.schema.as_deref() {
            Some(schema) if !schema.is_empty() => format!("{schema}.{}", self.name),
            _ => self.name.clone(),
        }
    }
}

/// A foreign key with its columns in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ForeignKey {
    pub(crate) name: Option<String>,
    pub(crate) columns: Vec<String>,
    pub(crate) table: String,
    pub(crate) table_columns: Vec<String>,
}

pub(crate) fn is_system_schema(schema: &str) -> bool {
    matches!(schema, "information_schema" | "system" | "pg_catalog")
}

/// All tables and views, without their columns.
pub(crate) async fn tables(connection: &Connection) -> Result<Vec<Table>, Failure> {
    matching(connection, CommandGetTables::default()).await
}

/// The same table with its columns.
pub(crate) async fn with_columns(connection: &Connection, table: &Table) -> Result<Table, Failure> {
    let is_it =
        |found: &Table| found.schema == table.schema && found.name == table.name && found.catalog == table.catalog;
    let all = CommandGetTables {
        include_schema: true,
        ..CommandGetTables::default()
    };
    let narrowed = CommandGetTables {
        catalog: table.catalog.clone(),
        db_schema_filter_pattern: table.schema.clone(),
        table_name_filter_pattern: Some(table.name.clone()),
        ..all.clone()
    };
    // The filters are patterns: they find more where the name holds `_`, and could miss it where it holds an escape.
    for command in [narrowed, all] {
        let found = matching(connection, command).await?;
        if let Some(found) = found.into_iter().find(is_it) {
            return Ok(found);
        }
    }
    Err(Failure::new(format!("\"{}\" is gone", table.qualified_name())))
}

async fn matching(connection: &Connection, command: CommandGetTables) -> Result<Vec<Table>, Failure> {
    let mut tables = Vec::new();
    for batch in connection.fetch(&command).await? {
        let rows = Rows::new(&batch)?;
        let schemas = batch.column_by_name("table_schema");
        for row in 0..batch.num_rows() {
            let bytes = schemas.and_then(|column| match column.data_type() {
                DataType::Binary => Some(column.as_binary::<i32>().value(row)),
                DataType::LargeBinary => Some(column.as_binary::<i64>().value(row)),
                _ => None,
            });
            let columns = bytes
                .map(|bytes| Schema::try_from(IpcMessage(bytes.to_vec().into())))
                .transpose()?;
            tables.push(Table {
                catalog: rows.text("catalog_name", row),
                schema: rows.text("db_schema_name", row),
                name: rows.text("table_name", row).unwrap_or_default(),
                kind: rows.text("table_type", row).unwrap_or_default(),
                columns,
            });
        }
    }
    Ok(tables)
}

pub(crate) async fn catalogs(connection: &Connection) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    for batch in connection.fetch(&CommandGetCatalogs {}).await? {
        let rows = Rows::new(&batch)?;
        names.extend((0..batch.num_rows()).filter_map(|row| rows.text("catalog_name", row)));
    }
    Ok(names)
}

/// Catalog and schema, in pairs.
pub(crate) async fn schemas(connection: &Connection) -> Result<Vec<(String, String)>, Failure> {
    let mut names = Vec::new();
    for batch in connection.fetch(&CommandGetDbSchemas::default()).await? {
        let rows = Rows::new(&batch)?;
        for row in 0..batch.num_rows() {
            let catalog = rows.text("catalog_name", row).unwrap_or_default();
            let schema = rows.text("db_schema_name", row).unwrap_or_default();
            names.push((catalog, schema));
        }
    }
    Ok(names)
}

/// The columns of the primary key, in its order; empty without one.
pub(crate) async fn primary_key(connection: &Connection, table: &Table) -> Result<Vec<String>, Failure> {
    let command = CommandGetPrimaryKeys {
        catalog: table.catalog.clone(),
        db_schema: table.schema.clone(),
        table: table.name.clone(),
    };
    let mut columns = Vec::new();
    for batch in connection.fetch(&command).await? {
        let rows = Rows::new(&batch)?;
        for row in 0..batch.num_rows() {
            let column = rows.text("column_name", row).unwrap_or_default();
            columns.push((rows.number("key_sequence", row), column));
        }
    }
    columns.sort();
    Ok(columns.into_iter().map(|(_, column)| column).collect())
}

pub(crate) async fn foreign_keys(connection: &Connection, table: &Table) -> Result<Vec<ForeignKey>, Failure> {
    let command = CommandGetImportedKeys {
        catalog: table.catalog.clone(),
        db_schema: table.schema.clone(),
        table: table.name.clone(),
    };
    let mut keys: Vec<ForeignKey> = Vec::new();
    for batch in connection.fetch(&command).await? {
        let rows = Rows::new(&batch)?;
        for row in 0..batch.num_rows() {
            let name = rows.text("fk_key_name", row);
            let schema = rows.text("pk_db_schema_name", row).filter(|schema| !schema.is_empty());
            let target = rows.text("pk_table_name", row).unwrap_or_default();
            let target = schema.map_or(target.clone(), |schema| format!("{schema}.{target}"));
            let column = rows.text("fk_column_name", row).unwrap_or_default();
            let target_column = rows.text("pk_column_name", row).unwrap_or_default();
            // Rows come in key order; a sequence that starts again is a new key even where keys have no name.
            let goes_on = rows.number("key_sequence", row) > 1;
            match keys.last_mut() {
                Some(key) if goes_on && key.name == name && key.table == target => {
                    key.columns.push(column);
                    key.table_columns.push(target_column);
                }
                _ => keys.push(ForeignKey {
                    name,
                    columns: vec![column],
                    table: target,
                    table_columns: vec![target_column],
                }),
            }
        }
    }
    Ok(keys)
}

/// The server's own name and version, as far as it gives them.
pub(crate) async fn server(connection: &Connection) -> Result<(Option<String>, Option<String>), Failure> {
    let command = CommandGetSqlInfo {
        info: vec![
            SqlInfo::FlightSqlServerName as u32,
            SqlInfo::FlightSqlServerVersion as u32,
        ],
    };
    let (mut name, mut version) = (None, None);
    for batch in connection.fetch(&command).await? {
        let rows = Rows::new(&batch)?;
        let Some(values) = batch
            .column_by_name("value")
            .and_then(|column| column.as_any().downcast_ref::<UnionArray>())
        else {
            continue;
        };
        for row in 0..batch.num_rows() {
            let value = values.value(row);
            let text = value.as_string_opt::<i32>().map(|text| text.value(0).to_owned());
            match u32::try_from(rows.number("info_name", row)) {
                Ok(code) if code == SqlInfo::FlightSqlServerName as u32 => name = text,
                Ok(code) if code == SqlInfo::FlightSqlServerVersion as u32 => version = text,
                _ => {}
            }
        }
    }
    Ok((name, version))
}

/// Cells by column name. A column that a server leaves out reads as NULL.
struct Rows<'a> {
    batch: &'a RecordBatch,
    cells: Columns<'a>,
}

impl<'a> Rows<'a> {
    fn new(batch: &'a RecordBatch) -> Result<Self, Failure> {
        Ok(Self {
            batch,
            cells: Columns::new(batch)?,
        })
    }

    fn text(&self, name: &str, row: usize) -> Option<String> {
        let column = self.batch.schema_ref().index_of(name).ok()?;
        let mut text = String::new();
        self.cells.read(column, row, &mut text).then_some(text)
    }

    fn number(&self, name: &str, row: usize) -> i64 {
        self.text(name, row).and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}
