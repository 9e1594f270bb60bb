//! The wrapper that every table of the catalog is handed out in: it keeps users' files read-only, adds what ANALYZE found,
//! and keeps keys away from the optimizer.

use std::borrow::Cow;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{ScanArgs, ScanResult, Session, TableProvider};
use datafusion::common::Statistics;
use datafusion::error::Result;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{Expr, LogicalPlan, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use trireme_planner::ddl::TableName;

use crate::catalog::Catalog;
use crate::describe::TableKind;
use crate::error::CatalogError;

/// See the module.
#[derive(Debug)]
pub(crate) struct CatalogTable {
    catalog: Weak<Catalog>,
    name: TableName,
    kind: TableKind,
    inner: Arc<dyn TableProvider>,
    /// The managed table's folder, for writes; `None` for what is read-only.
    folder: Option<String>,
    /// It was asked whether these files should be analysed, or they never are.
    looked: AtomicBool,
}

impl CatalogTable {
    /// A table over users' files.
    pub(crate) fn files(catalog: &Catalog, name: &TableName, kind: TableKind, inner: Arc<dyn TableProvider>) -> Self {
        Self {
            catalog: Weak::clone(&catalog.this),
            name: name.clone(),
            kind,
            inner,
            folder: None,
            looked: AtomicBool::new(false),
        }
    }

    /// A managed table; without a folder it is an old version of one.
    pub(crate) fn managed(
        catalog: &Catalog,
        name: &TableName,
        inner: Arc<dyn TableProvider>,
        folder: Option<String>,
    ) -> Self {
        let kind = TableKind::Managed;
        Self {
            catalog: Weak::clone(&catalog.this),
            name: name.clone(),
            kind,
            inner,
            looked: AtomicBool::new(folder.is_none()),
            folder,
        }
    }

    fn read_only(&self) -> CatalogError {
        let reason = match self.kind {
            TableKind::Discovered => "it is a file or folder of the data folder",
            TableKind::External => "it is an external table",
            _ => "an old version of a table can only be read",
        };
        CatalogError::ReadOnly {
            name: format!("table {}", self.name),
            reason,
        }
    }
}

#[async_trait]
impl TableProvider for CatalogTable {
    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }

    fn table_type(&self) -> TableType {
        self.inner.table_type()
    }

    fn get_table_definition(&self) -> Option<&str> {
        self.inner.get_table_definition()
    }

    fn get_logical_plan(&self) -> Option<Cow<'_, LogicalPlan>> {
        self.inner.get_logical_plan()
    }

    fn get_column_default(&self, column: &str) -> Option<&Expr> {
        self.inner.get_column_default(column)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let projection = projection.map(Vec::as_slice);
        let args = ScanArgs::default()
            .with_projection(projection)
            .with_filters(Some(filters))
            .with_limit(limit);
        Ok(self.scan_with_args(state, args).await?.into_inner())
    }

    async fn scan_with_args<'a>(&self, state: &dyn Session, args: ScanArgs<'a>) -> Result<ScanResult> {
        if let Some(catalog) = self.catalog.upgrade() {
            catalog.sketch_used(&self.name, &self.looked);
        }
        self.inner.scan_with_args(state, args).await
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let mut taken = self.inner.supports_filters_pushdown(filters)?;
        for (filter, taken) in filters.iter().zip(&mut taken) {
            // Delta takes a filter without columns for one of its partitions, and nobody would apply it.
            if filter.column_refs().is_empty() {
                *taken = TableProviderFilterPushDown::Unsupported;
            }
        }
        Ok(taken)
    }

    fn statistics(&self) -> Option<Statistics> {
        let catalog = self.catalog.upgrade()?;
        let known = catalog.plan_statistics(&self.name, &self.schema());
        known.or_else(|| self.inner.statistics())
    }

    async fn insert_into(
        &self,
        state: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        op: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(folder) = &self.folder else {
            return Err(self.read_only().into());
        };
        let Some(catalog) = self.catalog.upgrade() else {
            return Err(CatalogError::invalid("the server is shutting down").into());
        };
        catalog.insert(&self.name, folder, state, input, op).await
    }
}
