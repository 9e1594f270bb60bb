//! A query's result as a table to write from: every column nullable, and of a type that Delta has.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use futures::StreamExt;

use crate::error::CatalogError;
use crate::insert::{FirstError, check_partitions};

/// Precision of the widest decimal that Delta has.
const DECIMAL_PRECISION_MAX: u8 = 38;

/// Rows to write.
pub(crate) struct Rows {
    /// Yields them.
    pub(crate) plan: LogicalPlan,
    /// Why they stopped coming, if they did.
    pub(crate) first_error: FirstError,
}

/// No rows of these columns.
pub(crate) fn empty(columns: &SchemaRef) -> Result<Rows, CatalogError> {
    let schema = delta_schema(columns, false)?;
    let table = MemTable::try_new(schema, vec![vec![]])?;
    rows(Arc::new(table), FirstError::default())
}

/// The query's rows, converted.
pub(crate) async fn converted(
    session: &dyn Session,
    query: &LogicalPlan,
    partition_columns: &[String],
) -> Result<Rows, CatalogError> {
    let schema = delta_schema(query.schema().inner(), true)?;
    let plan = session.create_physical_plan(query).await?;
    let first_error = FirstError::default();
    let partitions = (0..plan.output_partitioning().partition_count())
        .map(|partition| {
            let part = Part {
                plan: Arc::clone(&plan),
                partition,
                schema: Arc::clone(&schema),
                partition_columns: partition_columns.to_vec(),
                first_error: first_error.clone(),
            };
            Arc::new(part) as Arc<dyn PartitionStream>
        })
        .collect();
    let table = StreamingTable::try_new(schema, partitions)?;
    rows(Arc::new(table), first_error)
}

fn rows(table: Arc<dyn TableProvider>, first_error: FirstError) -> Result<Rows, CatalogError> {
    let plan = LogicalPlanBuilder::scan("source", provider_as_source(table), None)?.build()?;
    Ok(Rows { plan, first_error })
}

#[derive(Debug)]
struct Part {
    plan: Arc<dyn ExecutionPlan>,
    partition: usize,
    schema: SchemaRef,
    partition_columns: Vec<String>,
    first_error: FirstError,
}

impl PartitionStream for Part {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let schema = Arc::clone(&self.schema);
        let target = Arc::clone(&self.schema);
        let first_error = self.first_error.clone();
        let partition_columns = self.partition_columns.clone();
        match self.plan.execute(self.partition, context) {
            Ok(stream) => {
                let stream = stream.map(move |batch| {
                    let converted = batch.and_then(|batch| {
                        let batch = convert(&batch, &target)?;
                        check_partitions(&partition_columns, &target, &batch)?;
                        Ok(batch)
                    });
                    converted.map_err(|error| first_error.keep(error))
                });
                Box::pin(RecordBatchStreamAdapter::new(schema, stream))
            }
            Err(error) => {
                let failed = Err(first_error.keep(error));
                Box::pin(RecordBatchStreamAdapter::new(
                    schema,
                    futures::stream::once(async { failed }),
                ))
            }
        }
    }
}

fn convert(batch: &RecordBatch, target: &SchemaRef) -> datafusion::error::Result<RecordBatch> {
    let columns = batch
        .columns()
        .iter()
        .zip(target.fields())
        .map(|(column, field)| cast(column, field.data_type()));
    Ok(RecordBatch::try_new(
        Arc::clone(target),
        columns.collect::<Result<_, _>>()?,
    )?)
}

/// The schema in types that Delta has; a query's columns become nullable, as later rows may have what these had not.
pub(crate) fn delta_schema(schema: &SchemaRef, nullable: bool) -> Result<SchemaRef, CatalogError> {
    let mut fields: Vec<Field> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        if fields
            .iter()
            .any(|known| known.name().eq_ignore_ascii_case(field.name()))
        {
            return Err(CatalogError::invalid_hint(
                format!("column {} appears twice", field.name()),
                "give each column a name of its own with AS",
            ));
        }
        let data_type = delta_type(field.data_type()).ok_or_else(|| {
            CatalogError::invalid_hint(
                format!(
                    "column {} has the type {}, which a table can't store",
                    field.name(),
                    field.data_type()
                ),
                "cast it to another type",
            )
        })?;
        fields.push(Field::new(field.name(), data_type, nullable || field.is_nullable()));
    }
    if fields.is_empty() {
        return Err(CatalogError::invalid("a table needs at least one column"));
    }
    Ok(Arc::new(Schema::new(fields)))
}

fn delta_type(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Date32 => data_type.clone(),
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Float16 => DataType::Float32,
        DataType::Date64 => DataType::Date32,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => DataType::Utf8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            DataType::Binary
        }
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
            if *scale >= 0 =>
        {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Decimal256(precision, scale) if *precision <= DECIMAL_PRECISION_MAX && *scale >= 0 => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Timestamp(_, None) => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(_, Some(_)) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Dictionary(_, values) => delta_type(values)?,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item) => DataType::List(delta_field(item)?),
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(delta_field).collect::<Option<Vec<_>>>()?.into())
        }
        DataType::Map(entries, sorted) => DataType::Map(delta_field(entries)?, *sorted),
        _ => return None,
    })
}

fn delta_field(field: &FieldRef) -> Option<FieldRef> {
    Some(Arc::new(Field::new(
        field.name(),
        delta_type(field.data_type())?,
        field.is_nullable(),
    )))
}
