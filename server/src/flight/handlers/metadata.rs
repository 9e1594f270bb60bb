//! Catalogs, schemas, tables: the reference schemas of Flight SQL, and the column metadata that BI tools need.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::sql::{CommandGetCatalogs, CommandGetTableTypes, CommandGetTables};
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo};
use trireme_exec::{ErrorClass, QueryError};
use trireme_planner::names::CATALOG;

use super::statement::schema_bytes;
use super::{keys, sql_info, xdbc};
use crate::engine::{TableFilter, TableInfo};
use crate::flight::command::Metadata;
use crate::flight::front::Front;
use crate::flight::ticket;

/// Types of tables, in the order clients show them.
const TABLE_TYPES: [&str; 3] = ["SYSTEM TABLE", "TABLE", "VIEW"];

/// GetFlightInfo of a metadata command: no work is done until its ticket is redeemed.
///
/// # Errors
/// When the schema can't be encoded.
pub fn flight_info(command: &Metadata, descriptor: FlightDescriptor) -> Result<FlightInfo, QueryError> {
    Ok(FlightInfo {
        schema: schema_bytes(&schema(command))?,
        flight_descriptor: Some(descriptor),
        endpoint: vec![FlightEndpoint::new().with_ticket(ticket::for_metadata(command))],
        total_records: -1,
        total_bytes: -1,
        ordered: true,
        app_metadata: bytes::Bytes::new(),
    })
}

/// The reference schema of a metadata command's answer.
pub fn schema(command: &Metadata) -> SchemaRef {
    match command {
        Metadata::Catalogs => CommandGetCatalogs {}.into_builder().schema(),
        Metadata::DbSchemas(command) => command.clone().into_builder().schema(),
        Metadata::Tables(command) => command.clone().into_builder().schema(),
        Metadata::TableTypes => CommandGetTableTypes {}.into_builder().schema(),
        Metadata::PrimaryKeys(_) => keys::primary_schema(),
        Metadata::ExportedKeys(_) | Metadata::ImportedKeys(_) | Metadata::CrossReference(_) => keys::foreign_schema(),
        Metadata::XdbcTypeInfo(_) => xdbc::schema(),
        Metadata::SqlInfo(_) => sql_info::schema(),
    }
}

/// Answers a metadata command.
///
/// # Errors
/// When too many are asked at once, or the catalog can't be read.
pub async fn answer(front: &Front, command: Metadata) -> Result<RecordBatch, QueryError> {
    let _slot = front
        .metadata_slots
        .acquire()
        .await
        .map_err(|_| QueryError::new(ErrorClass::Unavailable, "the server shuts down"))?;
    match command {
        Metadata::Catalogs => {
            let mut builder = CommandGetCatalogs {}.into_builder();
            builder.append(CATALOG);
            built(builder.build())
        }
        Metadata::DbSchemas(command) => {
            let mut builder = command.into_builder();
            for schema in front.engine.schemas().await? {
                builder.append(CATALOG, schema);
            }
            built(builder.build())
        }
        Metadata::Tables(command) => tables(front, command).await,
        Metadata::TableTypes => {
            let mut builder = CommandGetTableTypes {}.into_builder();
            for table_type in TABLE_TYPES {
                builder.append(table_type);
            }
            built(builder.build())
        }
        Metadata::PrimaryKeys(command) => keys::primary(front, &command).await,
        Metadata::ExportedKeys(command) => keys::exported(front, &command).await,
        Metadata::ImportedKeys(command) => keys::imported(front, &command).await,
        Metadata::CrossReference(command) => keys::cross(front, &command).await,
        Metadata::XdbcTypeInfo(command) => xdbc::answer(command),
        Metadata::SqlInfo(command) => sql_info::answer(front, command),
    }
}

/// An answer, or the fault of building it.
pub(super) fn built(batch: arrow_flight::error::Result<RecordBatch>) -> Result<RecordBatch, QueryError> {
    batch.map_err(|error| QueryError::internal(format!("the answer can't be built: {error}")))
}

async fn tables(front: &Front, command: CommandGetTables) -> Result<RecordBatch, QueryError> {
    let filter = TableFilter {
        schema_pattern: command.db_schema_filter_pattern.clone(),
        table_pattern: command.table_name_filter_pattern.clone(),
        with_columns: command.include_schema,
    };
    let mut builder = command.into_builder();
    for table in front.engine.tables(filter).await? {
        let columns = described_columns(&table);
        built(
            builder
                .append(
                    CATALOG,
                    &table.name.schema,
                    &table.name.table,
                    table.table_type,
                    &columns,
                )
                .map(|()| RecordBatch::new_empty(Arc::new(Schema::empty()))),
        )?;
    }
    built(builder.build())
}

/// The table's columns with the metadata that ODBC, JDBC and Power BI read.
fn described_columns(table: &TableInfo) -> Schema {
    let Some(schema) = &table.schema else {
        return Schema::empty();
    };
    let fields = schema
        .fields()
        .iter()
        .map(|field| described(field, table))
        .collect::<Vec<_>>();
    Schema::new(fields)
}

fn described(field: &Field, table: &TableInfo) -> Field {
    let mut about = HashMap::from([
        ("ARROW:FLIGHT:SQL:CATALOG_NAME", CATALOG.to_owned()),
        ("ARROW:FLIGHT:SQL:SCHEMA_NAME", table.name.schema.clone()),
        ("ARROW:FLIGHT:SQL:TABLE_NAME", table.name.table.clone()),
        (
            "ARROW:FLIGHT:SQL:TYPE_NAME",
            xdbc::type_name(field.data_type()).to_owned(),
        ),
        ("ARROW:FLIGHT:SQL:IS_AUTO_INCREMENT", "0".to_owned()),
        ("ARROW:FLIGHT:SQL:IS_CASE_SENSITIVE", flag(is_text(field.data_type()))),
        ("ARROW:FLIGHT:SQL:IS_READ_ONLY", flag(table.table_type != "TABLE")),
        ("ARROW:FLIGHT:SQL:IS_SEARCHABLE", "1".to_owned()),
        ("ARROW:FLIGHT:SQL:REMARKS", String::new()),
    ]);
    let (precision, scale) = xdbc::precision_and_scale(field.data_type());
    if let Some(precision) = precision {
        about.insert("ARROW:FLIGHT:SQL:PRECISION", precision.to_string());
    }
    if let Some(scale) = scale {
        about.insert("ARROW:FLIGHT:SQL:SCALE", scale.to_string());
    }
    let metadata = about.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    field.clone().with_metadata(metadata)
}

fn flag(value: bool) -> String {
    (if value { "1" } else { "0" }).to_owned()
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}
