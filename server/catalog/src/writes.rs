//! Changes of managed tables' rows: INSERT, DELETE, UPDATE, CREATE TABLE AS.
//!
//! Each is one Delta commit. A commit that lost a race is [`CatalogError::Conflict`]; its files are left unreferenced and
//! the table as the winner made it.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DFSchemaRef, ScalarValue};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_plan::ExecutionPlan;
use deltalake::DeltaTable;
use deltalake::delta_datafusion::planner::DeltaPlanner;
use deltalake::operations::write::WriteBuilder;
use deltalake::protocol::SaveMode;
use trireme_exec::{ErrorClass, QueryError};
use trireme_planner::ddl::TableName;

use crate::catalog::Catalog;
use crate::error::CatalogError;
use crate::ingest::Rows;
use crate::insert::{FirstError, InsertExec, WatchExec};
use crate::resolve::Source;
use crate::subqueries::evaluated;
use crate::texts::not_empty;

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
        let table_partitions = partition_columns(&table);
        let schema = columns(name, &table)?;
        let mut delete = table.delete().with_session_state(Arc::new(writer_session(&session)));
        if let Some(predicate) = predicate {
            match simplified(&session, &schema, plain(&session, predicate, "DELETE").await?)? {
                Expr::Literal(ScalarValue::Boolean(Some(true)), _) => {}
                // False or unknown.
                Expr::Literal(_, _) => return Ok(0),
                predicate => delete = delete.with_predicate(exact(&table_partitions, predicate)?),
            }
        }
        let (table, metrics) = delete
            .await
            .map_err(|error| CatalogError::delta(&name.to_string(), error))?;
        let counted = metrics.num_deleted_rows.and_then(|rows| u64::try_from(rows).ok());
        Ok(counted
            .or_else(|| before?.checked_sub(row_count(&table)?))
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
        let (table_partitions, first) = (partition_columns(&table), FirstError::default());
        let columns = columns(name, &table)?;
        let mut update = table.update().with_session_state(Arc::new(writer_session(&session)));
        for (column, value) in assignments {
            let mut value = coerced(&session, &columns, plain(&session, value, "UPDATE").await?)?;
            if table_partitions.contains(&column) {
                value = not_empty(&column, value, &first);
            }
            update = update.with_update(Column::from_name(column), value);
        }
        if let Some(predicate) = predicate {
            update = update.with_predicate(coerced(
                &session,
                &columns,
                plain(&session, predicate, "UPDATE").await?,
            )?);
        }
        let (_, metrics) = update.await.map_err(|error| match first.take() {
            Some(cause) => CatalogError::DataFusion(cause),
            None => CatalogError::delta(&name.to_string(), error),
        })?;
        Ok(metrics.num_updated_rows as u64)
    }

    /// Writes a plan's rows as the first version of a managed table; returns how many.
    pub(crate) async fn write_new(
        &self,
        session: &SessionState,
        name: &TableName,
        folder: &str,
        rows: Rows,
        partition_columns: Vec<String>,
    ) -> Result<u64, CatalogError> {
        let table = self.new_delta(name, folder)?;
        let mut write = WriteBuilder::new(table.log_store(), None)
            .with_input_plan(rows.plan)
            .with_session_state(Arc::new(writer_session(session)))
            .with_save_mode(SaveMode::ErrorIfExists);
        if !partition_columns.is_empty() {
            write = write.with_partition_columns(partition_columns);
        }
        let table = write.await.map_err(|error| match rows.first_error.take() {
            Some(cause) => CatalogError::DataFusion(cause),
            None => CatalogError::delta(&name.to_string(), error),
        })?;
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
        let first = FirstError::default();
        let watched = Arc::new(WatchExec::new(
            input,
            provider.schema(),
            partition_columns(&table),
            first.clone(),
        ));
        let inner = provider.insert_into(state, watched, op).await?;
        Ok(Arc::new(InsertExec::new(inner, name, first)))
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

/// The session with a planner that knows the Delta writer's own nodes. Views of strings are off: the writer compares
/// partition values, which are plain strings, with literals of the columns' type.
fn writer_session(session: &SessionState) -> SessionState {
    let mut state = SessionStateBuilder::new_from_existing(session.clone())
        .with_query_planner(DeltaPlanner::new())
        .build();
    state
        .config_mut()
        .options_mut()
        .execution
        .parquet
        .schema_force_view_types = false;
    state
}

/// The table's columns in plain types.
fn columns(name: &TableName, table: &DeltaTable) -> Result<DFSchemaRef, CatalogError> {
    let state = table
        .snapshot()
        .map_err(|error| CatalogError::delta(&name.to_string(), error))?;
    Ok(Arc::new(DFSchema::try_from(state.snapshot().arrow_schema())?))
}

/// With operands of one type, which the writer takes for given: `nullif` of two types compared nothing.
fn coerced(session: &SessionState, columns: &DFSchemaRef, expr: Expr) -> Result<Expr, CatalogError> {
    Ok(simplifier(session, columns).coerce(expr, columns)?)
}

fn simplifier(session: &SessionState, columns: &DFSchemaRef) -> ExprSimplifier {
    let context = SimplifyContext::builder()
        .with_schema(Arc::clone(columns))
        .with_query_execution_start_time(session.execution_props().query_execution_start_time)
        .with_config_options(Arc::clone(session.config().options()))
        .build();
    ExprSimplifier::new(context)
}

/// Folds constants, so that a predicate that can't be true (`x = NULL`) is seen as one: the writer would delete every row.
fn simplified(session: &SessionState, columns: &DFSchemaRef, predicate: Expr) -> Result<Expr, CatalogError> {
    let simplifier = simplifier(session, columns);
    let coerced = simplifier.coerce(predicate, columns)?;
    // It merges lists by what their elements are written as, and takes NULLs for nothing.
    if coerced.exists(|node| Ok(matches!(node, Expr::InList(_))))? {
        return Ok(coerced.is_true());
    }
    Ok(simplifier.simplify(coerced)?)
}

/// A predicate over partition columns alone decides about whole files, and the writer takes "unknown" for "delete" there, as it
/// does with a predicate that has a NULL of its own. `IS TRUE` leaves no unknown; other predicates are evaluated row by row and
/// need none.
fn exact(partition_columns: &[String], predicate: Expr) -> DataFusionResult<Expr> {
    let whole_files = predicate
        .column_refs()
        .iter()
        .all(|column| partition_columns.contains(&column.name));
    let has_null = predicate.exists(|node| Ok(matches!(node, Expr::Literal(value, _) if value.is_null())))?;
    Ok(if whole_files || has_null {
        predicate.is_true()
    } else {
        predicate
    })
}

fn partition_columns(table: &DeltaTable) -> Vec<String> {
    let state = table.snapshot().ok();
    state
        .map(|state| state.metadata().partition_columns().to_vec())
        .unwrap_or_default()
}

/// The writer sees the one table only: its columns lose their qualifiers, and subqueries become their results.
async fn plain(session: &SessionState, expr: Expr, verb: &str) -> Result<Expr, CatalogError> {
    let evaluated = evaluated(session, expr, verb).await?;
    if looks_twice(&evaluated)? {
        let error = QueryError::new(
            ErrorClass::Unsupported,
            format!("{verb} with several lists that one column is looked up in is not supported"),
        );
        return Err(error
            .with_hint("write one list, or WHERE key IN (SELECT key FROM … WHERE …)")
            .into());
    }
    let unqualified = evaluated.transform(|node| {
        Ok(match node {
            Expr::Column(column) if column.relation.is_some() => {
                Transformed::yes(Expr::Column(Column::from_name(column.name)))
            }
            Expr::Literal(ScalarValue::Utf8View(text), metadata) => {
                Transformed::yes(Expr::Literal(ScalarValue::Utf8(text), metadata))
            }
            other => Transformed::no(other),
        })
    })?;
    Ok(unqualified.data)
}

/// The writer's simplifier makes one list of two that the same columns are looked up in, and forgets their NULLs: wrong rows would be
/// changed.
fn looks_twice(expr: &Expr) -> DataFusionResult<bool> {
    let mut known: HashSet<Column> = HashSet::new();
    let mut twice = false;
    expr.apply(|node| {
        if let Expr::InList(list) = node {
            let columns = list.expr.column_refs().into_iter().cloned();
            twice |= columns.map(|column| known.insert(column)).any(|new| !new);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(twice)
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
