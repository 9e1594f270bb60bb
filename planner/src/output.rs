//! The result schema clients are promised, and batches made to keep the promise.
//!
//! Clients compare the stream's schema with FlightInfo's (names, types, nullability), and many of them can't read views,
//! dictionaries, run-end encoding, small decimals or half floats. So every result is described and sent in plain types,
//! taken from the logical plan; physical plans may differ in nullability and string encoding.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use trireme_exec::QueryError;

use crate::repeated;

/// The plain schema of a result; with `views`, string and binary views stay as they are.
pub fn advertised_schema(schema: &Schema, views: bool) -> SchemaRef {
    let fields = schema
        .fields()
        .iter()
        .map(|field| match repeated::shown(field.name()) {
            name if name.len() < field.name().len() => {
                let name = name.to_owned();
                Arc::new(plain_field(field, views).as_ref().clone().with_name(name))
            }
            _ => plain_field(field, views),
        })
        .collect::<Vec<_>>();
    Arc::new(Schema::new(fields))
}

/// The schema in which a managed table stores columns declared or computed as `schema`.
pub fn stored_schema(schema: &Schema) -> SchemaRef {
    advertised_schema(schema, false)
}

/// `schema` where a column may also hold NULLs when it may in `other`: several bound rows of one statement share a promise.
pub fn with_nulls_of(schema: &SchemaRef, other: &SchemaRef) -> SchemaRef {
    let merged = schema.fields().iter().zip(other.fields()).map(|(field, other)| {
        let nullable = field.is_nullable() || other.is_nullable();
        Arc::new(field.as_ref().clone().with_nullable(nullable))
    });
    Arc::new(Schema::new(merged.collect::<Vec<FieldRef>>()))
}

fn plain_field(field: &FieldRef, views: bool) -> FieldRef {
    let plain = plain_type(field.data_type(), views);
    Arc::new(field.as_ref().clone().with_data_type(plain))
}

fn plain_type(data_type: &DataType, views: bool) -> DataType {
    match data_type {
        DataType::Utf8View if !views => DataType::Utf8,
        DataType::BinaryView if !views => DataType::Binary,
        DataType::Dictionary(_, value) => plain_type(value, views),
        DataType::RunEndEncoded(_, values) => plain_type(values.data_type(), views),
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Float16 => DataType::Float32,
        DataType::List(field) | DataType::ListView(field) => DataType::List(plain_field(field, views)),
        DataType::LargeList(field) | DataType::LargeListView(field) => DataType::LargeList(plain_field(field, views)),
        DataType::FixedSizeList(field, size) => DataType::FixedSizeList(plain_field(field, views), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|field| plain_field(field, views)).collect()),
        DataType::Map(field, sorted) => DataType::Map(plain_field(field, views), *sorted),
        other => other.clone(),
    }
}

/// Makes a batch of exactly `schema`.
///
/// # Errors
/// When a column can't become the promised type, or holds NULLs where the promise has none.
pub fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, QueryError> {
    if batch.schema_ref() == schema {
        return Ok(batch.clone());
    }
    if batch.num_columns() != schema.fields().len() {
        return Err(QueryError::internal(format!(
            "the result has {} columns where {} were promised",
            batch.num_columns(),
            schema.fields().len()
        )));
    }
    let columns = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| conform_column(column, field))
        .collect::<Result<Vec<_>, ArrowError>>();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    columns
        .and_then(|columns| RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options))
        .map_err(|error| QueryError::internal(format!("the result differs from its promised schema: {error}")))
}

fn conform_column(column: &ArrayRef, field: &FieldRef) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == field.data_type() {
        return Ok(Arc::clone(column));
    }
    cast(column, field.data_type())
}

#[cfg(test)]
mod tests {
    use arrow::array::{DictionaryArray, StringViewArray};
    use arrow::datatypes::{Field, Int32Type};

    use super::*;

    #[test]
    fn views_and_dictionaries_become_plain() {
        let views: ArrayRef = Arc::new(StringViewArray::from(vec![Some("a"), None]));
        let dictionary: ArrayRef = Arc::new(vec!["x", "y"].into_iter().collect::<DictionaryArray<Int32Type>>());
        let batch = RecordBatch::try_from_iter([("v", views), ("d", dictionary)]).unwrap();
        let schema = advertised_schema(batch.schema_ref(), false);
        let plain = conform(&batch, &schema).unwrap();
        assert!(
            plain
                .columns()
                .iter()
                .all(|column| column.data_type() == &DataType::Utf8)
        );
    }

    #[test]
    fn nested_views_become_plain() {
        let field = Arc::new(Field::new("item", DataType::Utf8View, true));
        let schema = Schema::new(vec![Field::new("l", DataType::List(field), true)]);
        let plain = advertised_schema(&schema, false);
        assert_eq!(plain.field(0).data_type(), &DataType::new_list(DataType::Utf8, true));
    }
}
