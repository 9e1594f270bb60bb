//! A Delta table's version as DataFusion sees it: a set of files where that is all it takes, else the table's own reader.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{ScanArgs, ScanResult, Session, TableProvider};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use deltalake::delta_datafusion::DeltaScanNext;

use crate::fileset::FileSet;

/// See the module.
#[derive(Debug)]
pub(super) struct DeltaTable {
    pub(super) reader: DeltaScanNext,
    /// None when its files need the reader, whatever the columns.
    pub(super) files: Option<FileSet>,
}

impl DeltaTable {
    /// The set, when it can read these columns: files may have other fields in nested ones.
    fn files(&self, projection: Option<&[usize]>) -> Option<&FileSet> {
        let schema = self.reader.schema();
        let nested = |column: &usize| schema.field(*column).data_type().is_nested();
        let plain = match projection {
            Some(columns) => !columns.iter().any(nested),
            None => !(0..schema.fields().len()).any(|column| nested(&column)),
        };
        self.files.as_ref().filter(|_| plain)
    }

    /// Rows without columns (`SELECT 7 FROM t LIMIT 2`), by way of the first column: the reader's own scan of no column
    /// forgets the limit.
    async fn scan_rows<'a>(&self, state: &dyn Session, args: ScanArgs<'a>) -> Result<ScanResult> {
        let first = [0];
        let scan = args.clone().with_projection(Some(&first));
        let plan = self.reader.scan_with_args(state, scan).await?.into_inner();
        let none: Vec<ProjectionExpr> = Vec::new();
        let plan: Arc<dyn ExecutionPlan> = Arc::new(ProjectionExec::try_new(none, plan)?);
        Ok(ScanResult::new(plan))
    }
}

#[async_trait]
impl TableProvider for DeltaTable {
    fn schema(&self) -> SchemaRef {
        self.reader.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let args = ScanArgs::default()
            .with_projection(projection.map(Vec::as_slice))
            .with_filters(Some(filters))
            .with_limit(limit);
        Ok(self.scan_with_args(state, args).await?.into_inner())
    }

    async fn scan_with_args<'a>(&self, state: &dyn Session, args: ScanArgs<'a>) -> Result<ScanResult> {
        if let Some(files) = self.files(args.projection()) {
            return files.scan_with_args(state, args).await;
        }
        if args.projection().is_some_and(<[usize]>::is_empty) && !self.schema().fields().is_empty() {
            return self.scan_rows(state, args).await;
        }
        self.reader.scan_with_args(state, args).await
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // What isn't known before the columns are.
        let own = self.reader.supports_filters_pushdown(filters)?;
        let Some(files) = &self.files else { return Ok(own) };
        let set = files.supports_filters_pushdown(filters)?;
        if self.files(None).is_some() {
            return Ok(set);
        }
        let both = own.into_iter().zip(set).map(|pair| match pair {
            (TableProviderFilterPushDown::Exact, TableProviderFilterPushDown::Exact) => {
                TableProviderFilterPushDown::Exact
            }
            _ => TableProviderFilterPushDown::Inexact,
        });
        Ok(both.collect())
    }
}
