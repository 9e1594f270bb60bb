//! The plan nodes around a Delta insert: they keep the errors that the writer would flatten to text.
//!
//! ```text
//!  query ──▶ WatchExec ──▶ the writer's sink ──▶ InsertExec ──▶ count
//!                │ keeps the query's first error      ▲ says it again, or a lost race as a conflict
//!                └────────────────────────────────────┘
//! ```

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use deltalake::DeltaTableError;
use futures::StreamExt;
use parking_lot::Mutex;
use trireme_exec::QueryError;
use trireme_planner::ddl::TableName;

use crate::error::CatalogError;
use crate::texts::check_not_empty;

/// The first error of the rows that are being written.
#[derive(Debug, Clone, Default)]
pub(crate) struct FirstError(Arc<Mutex<Option<DataFusionError>>>);

/// One is equal to itself alone.
impl PartialEq for FirstError {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for FirstError {}

impl Hash for FirstError {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl FirstError {
    /// Keeps an error and gives the writer a stand-in.
    pub(crate) fn keep(&self, error: DataFusionError) -> DataFusionError {
        self.0.lock().get_or_insert(error);
        DataFusionError::Execution("the query failed".to_owned())
    }

    pub(crate) fn take(&self) -> Option<DataFusionError> {
        self.0.lock().take()
    }
}

/// Passes rows on, refuses nulls where the table has NOT NULL and empty texts where it is partitioned, and keeps the first error.
#[derive(Debug)]
pub(crate) struct WatchExec {
    input: Arc<dyn ExecutionPlan>,
    /// The table's columns, in the order of the input's.
    columns: SchemaRef,
    partition_columns: Vec<String>,
    first: FirstError,
}

impl WatchExec {
    pub(crate) fn new(
        input: Arc<dyn ExecutionPlan>,
        columns: SchemaRef,
        partition_columns: Vec<String>,
        first: FirstError,
    ) -> Self {
        Self {
            input,
            columns,
            partition_columns,
            first,
        }
    }
}

fn check_nulls(columns: &Schema, batch: &RecordBatch) -> Result<()> {
    let null = |(field, column): &(&Arc<Field>, &ArrayRef)| !field.is_nullable() && column.null_count() > 0;
    match columns.fields().iter().zip(batch.columns()).find(null) {
        None => Ok(()),
        Some((field, _)) => {
            let error = QueryError::invalid(format!("column {} can't be NULL", field.name()))
                .with_hint("it was declared NOT NULL; give it a value");
            Err(DataFusionError::External(Box::new(error)))
        }
    }
}

/// Refuses empty texts in the columns that the table is partitioned by.
pub(crate) fn check_partitions(partition_columns: &[String], columns: &Schema, batch: &RecordBatch) -> Result<()> {
    let named = columns.fields().iter().zip(batch.columns());
    let of_partitions = named.filter(|(field, _)| partition_columns.contains(field.name()));
    for (field, column) in of_partitions {
        check_not_empty(field.name(), column)?;
    }
    Ok(())
}

impl DisplayAs for WatchExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WatchExec")
    }
}

impl ExecutionPlan for WatchExec {
    fn name(&self) -> &str {
        "WatchExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.into_iter().next().unwrap_or_else(|| Arc::clone(&self.input));
        Ok(Arc::new(Self::new(
            input,
            Arc::clone(&self.columns),
            self.partition_columns.clone(),
            self.first.clone(),
        )))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let stream = self.input.execute(partition, context)?;
        let schema = stream.schema();
        let (columns, first) = (Arc::clone(&self.columns), self.first.clone());
        let partition_columns = self.partition_columns.clone();
        let stream = stream.map(move |batch| {
            let checked = batch.and_then(|batch| {
                check_nulls(&columns, &batch)?;
                check_partitions(&partition_columns, &columns, &batch)?;
                Ok(batch)
            });
            checked.map_err(|error| first.keep(error))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }
}

/// The writer's sink, with its errors said as the catalog says them.
#[derive(Debug)]
pub(crate) struct InsertExec {
    inner: Arc<dyn ExecutionPlan>,
    table: String,
    first: FirstError,
}

impl InsertExec {
    pub(crate) fn new(inner: Arc<dyn ExecutionPlan>, table: &TableName, first: FirstError) -> Self {
        Self {
            inner,
            table: table.to_string(),
            first,
        }
    }
}

impl DisplayAs for InsertExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InsertExec: table={}", self.table)
    }
}

impl ExecutionPlan for InsertExec {
    fn name(&self) -> &str {
        "InsertExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.inner.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.inner]
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let inner = children.into_iter().next().unwrap_or_else(|| Arc::clone(&self.inner));
        Ok(Arc::new(Self {
            inner,
            table: self.table.clone(),
            first: self.first.clone(),
        }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let stream = self.inner.execute(partition, context)?;
        let schema = stream.schema();
        let (table, first) = (self.table.clone(), self.first.clone());
        let said = move |error| first.take().unwrap_or_else(|| explained(&table, error));
        let stream = stream.map(move |batch| batch.map_err(&said));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }
}

/// Finds the Delta writer's own error below the wrappers.
fn explained(table: &str, error: DataFusionError) -> DataFusionError {
    let known = {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        std::iter::from_fn(|| {
            let this = cause?;
            cause = this.source();
            Some(this)
        })
        .find_map(|cause| CatalogError::known_delta(table, cause.downcast_ref::<DeltaTableError>()?))
    };
    known.map_or(error, DataFusionError::from)
}
