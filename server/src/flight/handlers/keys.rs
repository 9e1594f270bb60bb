//! Key metadata: primary, imported, exported and cross-reference keys, from the informational keys of the catalog.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray, UInt8Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::sql::{
    CommandGetCrossReference, CommandGetExportedKeys, CommandGetImportedKeys, CommandGetPrimaryKeys, UpdateDeleteRules,
};
use trireme_exec::QueryError;
use trireme_planner::ddl::{Key, TableName};
use trireme_planner::names::CATALOG;

use crate::flight::front::Front;

/// Schema of GetPrimaryKeys (FlightSql.proto).
pub fn primary_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_name", DataType::Utf8, true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
}

/// Schema of GetExportedKeys, GetImportedKeys and GetCrossReference (FlightSql.proto).
pub fn foreign_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("pk_catalog_name", DataType::Utf8, true),
        Field::new("pk_db_schema_name", DataType::Utf8, true),
        Field::new("pk_table_name", DataType::Utf8, false),
        Field::new("pk_column_name", DataType::Utf8, false),
        Field::new("fk_catalog_name", DataType::Utf8, true),
        Field::new("fk_db_schema_name", DataType::Utf8, true),
        Field::new("fk_table_name", DataType::Utf8, false),
        Field::new("fk_column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("fk_key_name", DataType::Utf8, true),
        Field::new("pk_key_name", DataType::Utf8, true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
}

/// Which table a request names; missing parts match any.
struct Wanted<'a> {
    catalog: Option<&'a str>,
    schema: Option<&'a str>,
    table: &'a str,
}

impl Wanted<'_> {
    fn is(&self, name: &TableName) -> bool {
        self.catalog.is_none_or(|catalog| catalog == CATALOG)
            && self.schema.is_none_or(|schema| schema == name.schema)
            && self.table == name.table
    }
}

/// GetPrimaryKeys.
///
/// # Errors
/// When the catalog can't be read.
pub async fn primary(front: &Front, command: &CommandGetPrimaryKeys) -> Result<RecordBatch, QueryError> {
    let wanted = Wanted {
        catalog: command.catalog.as_deref(),
        schema: command.db_schema.as_deref(),
        table: &command.table,
    };
    let mut rows = Vec::new();
    for (table, key) in front.engine.keys().await? {
        if let Key::Primary { name, columns } = key
            && wanted.is(&table)
        {
            let named = columns.into_iter().enumerate();
            rows.extend(named.map(|(index, column)| (table.clone(), column, sequence(index), name.clone())));
        }
    }
    let columns: Vec<ArrayRef> = vec![
        texts(rows.iter().map(|_| Some(CATALOG))),
        texts(rows.iter().map(|row| Some(row.0.schema.as_str()))),
        texts(rows.iter().map(|row| Some(row.0.table.as_str()))),
        texts(rows.iter().map(|row| Some(row.1.as_str()))),
        texts(rows.iter().map(|row| row.3.as_deref())),
        Arc::new(rows.iter().map(|row| row.2).collect::<Int32Array>()),
    ];
    batch(primary_schema(), columns)
}

fn sequence(index: usize) -> Option<i32> {
    i32::try_from(index + 1).ok()
}

fn texts<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

fn batch(schema: SchemaRef, columns: Vec<ArrayRef>) -> Result<RecordBatch, QueryError> {
    RecordBatch::try_new(schema, columns)
        .map_err(|error| QueryError::internal(format!("the answer can't be built: {error}")))
}

/// One column of a foreign key.
struct Reference {
    primary: TableName,
    primary_column: String,
    primary_key: Option<String>,
    foreign: TableName,
    foreign_column: String,
    foreign_key: Option<String>,
    sequence: Option<i32>,
}

/// GetExportedKeys.
///
/// # Errors
/// When the catalog can't be read.
pub async fn exported(front: &Front, command: &CommandGetExportedKeys) -> Result<RecordBatch, QueryError> {
    let wanted = Wanted {
        catalog: command.catalog.as_deref(),
        schema: command.db_schema.as_deref(),
        table: &command.table,
    };
    foreign(front, |reference| wanted.is(&reference.primary)).await
}

/// GetImportedKeys.
///
/// # Errors
/// When the catalog can't be read.
pub async fn imported(front: &Front, command: &CommandGetImportedKeys) -> Result<RecordBatch, QueryError> {
    let wanted = Wanted {
        catalog: command.catalog.as_deref(),
        schema: command.db_schema.as_deref(),
        table: &command.table,
    };
    foreign(front, |reference| wanted.is(&reference.foreign)).await
}

/// GetCrossReference.
///
/// # Errors
/// When the catalog can't be read.
pub async fn cross(front: &Front, command: &CommandGetCrossReference) -> Result<RecordBatch, QueryError> {
    let primary = Wanted {
        catalog: command.pk_catalog.as_deref(),
        schema: command.pk_db_schema.as_deref(),
        table: &command.pk_table,
    };
    let own = Wanted {
        catalog: command.fk_catalog.as_deref(),
        schema: command.fk_db_schema.as_deref(),
        table: &command.fk_table,
    };
    foreign(front, |reference| {
        primary.is(&reference.primary) && own.is(&reference.foreign)
    })
    .await
}

async fn foreign(front: &Front, keep: impl Fn(&Reference) -> bool) -> Result<RecordBatch, QueryError> {
    let keys = front.engine.keys().await?;
    let mut rows: Vec<_> = references(&keys).into_iter().filter(keep).collect();
    // The columns of a key stand together and in their order already.
    rows.sort_by(|a, b| (&a.primary, &a.foreign, &a.foreign_key).cmp(&(&b.primary, &b.foreign, &b.foreign_key)));
    let rule = UpdateDeleteRules::NoAction as i32;
    let rules = || -> ArrayRef { Arc::new(rows.iter().map(|_| u8::try_from(rule).ok()).collect::<UInt8Array>()) };
    let columns: Vec<ArrayRef> = vec![
        texts(rows.iter().map(|_| Some(CATALOG))),
        texts(rows.iter().map(|row| Some(row.primary.schema.as_str()))),
        texts(rows.iter().map(|row| Some(row.primary.table.as_str()))),
        texts(rows.iter().map(|row| Some(row.primary_column.as_str()))),
        texts(rows.iter().map(|_| Some(CATALOG))),
        texts(rows.iter().map(|row| Some(row.foreign.schema.as_str()))),
        texts(rows.iter().map(|row| Some(row.foreign.table.as_str()))),
        texts(rows.iter().map(|row| Some(row.foreign_column.as_str()))),
        Arc::new(rows.iter().map(|row| row.sequence).collect::<Int32Array>()),
        texts(rows.iter().map(|row| row.foreign_key.as_deref())),
        texts(rows.iter().map(|row| row.primary_key.as_deref())),
        rules(),
        rules(),
    ];
    batch(foreign_schema(), columns)
}

/// All foreign keys, a row per column; a key that names no columns refers to the primary key.
fn references(keys: &[(TableName, Key)]) -> Vec<Reference> {
    let primary_of = |table: &TableName| {
        keys.iter().find_map(|(name, key)| match key {
            Key::Primary {
                name: key_name,
                columns,
            } if name == table => Some((key_name.clone(), columns)),
            _ => None,
        })
    };
    let mut rows = Vec::new();
    for (table, key) in keys {
        let Key::Foreign {
            name,
            columns,
            references,
            referenced_columns,
        } = key
        else {
            continue;
        };
        let primary = primary_of(references);
        let targets = if referenced_columns.is_empty() {
            primary.as_ref().map(|(_, columns)| *columns)
        } else {
            Some(referenced_columns)
        };
        for (index, (column, target)) in columns.iter().zip(targets.into_iter().flatten()).enumerate() {
            rows.push(Reference {
                primary: references.clone(),
                primary_column: target.clone(),
                primary_key: primary.as_ref().and_then(|(name, _)| name.clone()),
                foreign: table.clone(),
                foreign_column: column.clone(),
                foreign_key: name.clone(),
                sequence: sequence(index),
            });
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_key_without_columns_refers_to_the_primary_key() {
        let name = |table: &str| TableName {
            schema: "public".into(),
            table: table.into(),
        };
        let keys = vec![
            (
                name("orders"),
                Key::Primary {
                    name: None,
                    columns: vec!["o_orderkey".into()],
                },
            ),
            (
                name("lineitem"),
                Key::Foreign {
                    name: None,
                    columns: vec!["l_orderkey".into()],
                    references: name("orders"),
                    referenced_columns: vec![],
                },
            ),
        ];
        let rows = references(&keys);
        assert_eq!(rows.len(), 1);
        assert_eq!(
            (rows[0].primary_column.as_str(), rows[0].sequence),
            ("o_orderkey", Some(1))
        );
    }
}
