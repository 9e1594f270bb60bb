//! Changes of managed tables' rows: INSERT, DELETE, UPDATE, CREATE TABLE AS.
//!
//! Each is one Delta commit. A commit that lost a race is [`CatalogError::Conflict`]; its files are left unreferenced and
//! the table as the winner made it.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::{SendableRecordBatchStream, SessionState, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use deltalake::delta_datafusion::planner::DeltaPlanner;
use deltalake::operations::write::WriteBuilder;
use deltalake::protocol::SaveMode;
use deltalake::{DeltaTable, DeltaTableError};
use futures::StreamExt;
use trireme_planner::ddl::TableName;

use crate::catalog::Catalog;
use crate::error::CatalogError;
use crate::resolve::Source;

impl Catalog {
    /// Deletes the rows that the predicate is true for; all rows without one. Returns how many.
    ///
    /// # Errors
    /// [`CatalogError::ReadOnly`] for anything but a managed table, [`CatalogError::Conflict`] when another writer was first.
    pub async fn delete(
        &self,
        session: Arc<SessionState>,
        name: &TableName,
        predicate: Option<Expr>,
    ) -> Result<u64, CatalogError> {
        let table = self.writable(name, "DELETE").await?;
        let before = row_count(&table);
        let mut delete = table.delete().with_session_state(Arc::new(writer_session(&session)));
        if let Some(predicate) = predicate {
            delete = delete.with_predicate(plain(predicate, "DELETE")?);
        }
        let (table, metrics) = delete
            .await
            .map_err(|error| CatalogError::delta(&name.to_string(), error))?;
        let counted = metrics.num_deleted_rows.and_then(|rows| u64::try_from(rows).ok());
        Ok(counted
            .or_else(|| Some(before? - row_count(&table)?))
            .unwrap_or_default())
    }

    /// Sets columns in the rows that the predicate is true for. Returns how many.
    ///
    /// # Errors
    /// As for [`Self::delete`].
    pub async fn update(
        &self,
        session: Arc<SessionState>,
        name: &TableName,
        assignments: Vec<(String, Expr)>,
        predicate: Option<Expr>,
    ) -> Result<u64, CatalogError> {
        let table = self.writable(name, "UPDATE").await?;
        let mut update = table.update().with_session_state(Arc::new(writer_session(&session)));
        for (column, value) in assignments {
            update = update.with_update(Column::from_name(column), plain(value, "UPDATE")?);
        }
        if let Some(predicate) = predicate {
            update = update.with_predicate(plain(predicate, "UPDATE")?);
        }
        let (_, metrics) = update
            .await
            .map_err(|error| CatalogError::delta(&name.to_string(), error))?;
        Ok(metrics.num_updated_rows as u64)
    }

    /// Writes a plan's rows as the first version of a managed table; returns how many.
    pub(crate) async fn write_new(
        &self,
        session: &SessionState,
        name: &TableName,
        folder: &str,
        rows: LogicalPlan,
        partition_columns: Vec<String>,
    ) -> Result<u64, CatalogError> {
        let table = self.new_delta(name, folder)?;
        let mut write = WriteBuilder::new(table.log_store(), None)
            .with_input_plan(rows)
            .with_session_state(Arc::new(writer_session(session)))
            .with_save_mode(SaveMode::ErrorIfExists);
        if !partition_columns.is_empty() {
            write = write.with_partition_columns(partition_columns);
        }
        let table = write
            .await
            .map_err(|error| CatalogError::delta(&name.to_string(), error))?;
        Ok(row_count(&table).unwrap_or_default())
    }

    /// The plan of an INSERT.
    pub(crate) async fn insert(
        &self,
        name: &TableName,
        folder: &str,
        state: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        op: InsertOp,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let table = self.managed_delta(name, folder).await?;
        let provider = table.table_provider().build().await?;
        let inner = provider.insert_into(state, input, op).await?;
        Ok(Arc::new(InsertExec {
            inner,
            name: name.to_string(),
        }))
    }

    async fn writable(&self, name: &TableName, verb: &str) -> Result<DeltaTable, CatalogError> {
        let reason = match self.source(name)? {
            Some(Source::Managed(folder)) => return self.managed_delta(name, &folder).await,
            Some(Source::External(_)) => "it is an external table",
            Some(Source::Discovered(_)) => "it is a file or folder of the data folder",
            Some(Source::View(_)) => {
                return Err(CatalogError::invalid_hint(
                    format!("{verb} can't change view {name}"),
                    "change the tables that it selects from",
                ));
            }
            None => return Err(self.not_found("table", name)),
        };
        Err(CatalogError::ReadOnly {
            name: format!("table {name}"),
            reason,
        })
    }
}

/// The session with a planner that knows the Delta writer's own nodes.
fn writer_session(session: &SessionState) -> SessionState {
    SessionStateBuilder::new_from_existing(session.clone())
        .with_query_planner(DeltaPlanner::new())
        .build()
}

/// The writer sees the one table only, so its columns lose their qualifiers; other tables can't be looked into.
fn plain(expr: Expr, verb: &str) -> Result<Expr, CatalogError> {
    let mut subquery = false;
    expr.apply(|node| {
        subquery |= matches!(
            node,
            Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_)
        );
        Ok(TreeNodeRecursion::Continue)
    })?;
    if subquery {
        return Err(CatalogError::DataFusion(DataFusionError::NotImplemented(format!(
            "{verb} with a subquery is not supported"
        ))));
    }
    let unqualified = expr.transform(|node| {
        Ok(match node {
            Expr::Column(column) if column.relation.is_some() => {
                Transformed::yes(Expr::Column(Column::from_name(column.name)))
            }
            other => Transformed::no(other),
        })
    })?;
    Ok(unqualified.data)
}

/// Rows by the log, where every file says its count.
pub(crate) fn row_count(table: &DeltaTable) -> Option<u64> {
    let snapshot = table.snapshot().ok()?;
    snapshot
        .log_data()
        .iter()
        .map(|file| file.num_records().and_then(|rows| u64::try_from(rows).ok()))
        .sum()
}

/// The inner insert, with lost races told as such.
#[derive(Debug)]
struct InsertExec {
    inner: Arc<dyn ExecutionPlan>,
    name: String,
}

impl DisplayAs for InsertExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InsertExec: table={}", self.name)
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
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DataFusionResult<TreeNodeRecursion>,
    ) -> DataFusionResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let inner = children.into_iter().next().unwrap_or_else(|| Arc::clone(&self.inner));
        Ok(Arc::new(Self {
            inner,
            name: self.name.clone(),
        }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let stream = self.inner.execute(partition, context)?;
        let schema: SchemaRef = stream.schema();
        let name = self.name.clone();
        let stream = stream.map(move |batch| batch.map_err(|error| explained(&name, error)));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }
}

/// Finds the Delta writer's own error below the wrappers and says it as the catalog does.
fn explained(name: &str, error: DataFusionError) -> DataFusionError {
    match error {
        DataFusionError::External(source) => match source.downcast::<DeltaTableError>() {
            Ok(delta) => CatalogError::delta(name, *delta).into(),
            Err(source) => DataFusionError::External(source),
        },
        DataFusionError::Context(context, inner) => {
            DataFusionError::Context(context, Box::new(explained(name, *inner)))
        }
        other => other,
    }
}
