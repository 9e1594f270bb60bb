//! Scans whose files are read as they were listed, whatever their format.
//!
//! Parquet has a factory of readers for that ([`super::parquet_reader`]); the readers of other formats are handed a
//! [`PinnedStore`] in the place of the store.

use std::fmt::{self, Formatter};
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::memory::DataSourceExec;
use datafusion::datasource::physical_plan::{
    FileOpener, FileScanConfig, FileScanConfigBuilder, FileSource, ParquetSource,
};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{LexOrdering, PhysicalExpr};
use datafusion::physical_plan::filter_pushdown::FilterPushdownPropagation;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::{DisplayFormatType, ExecutionPlan};
use object_store::ObjectStore;
use trireme_lake::TieredStore;

use super::parquet_reader::ReaderFactory;
use super::pinned::PinnedStore;

/// The same scan over files as they are described in it; other plans as they are. `lake` has its store's tiers, if it is
/// remote.
///
/// # Errors
/// When the scan's store isn't known.
pub fn pinned(
    plan: Arc<dyn ExecutionPlan>,
    runtime: &RuntimeEnv,
    lake: Option<Arc<TieredStore>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let scan = plan
        .downcast_ref::<DataSourceExec>()
        .and_then(|source| source.data_source().downcast_ref::<FileScanConfig>());
    let Some(scan) = scan else {
        return Ok(plan);
    };
    let source: Arc<dyn FileSource> = match scan.file_source().downcast_ref::<ParquetSource>() {
        // Encrypted footers are DataFusion's to read.
        Some(parquet) if parquet.table_parquet_options().crypto != Default::default() => return Ok(plan),
        Some(parquet) => {
            let store = runtime.object_store(&scan.object_store_url)?;
            let factory = ReaderFactory::new(store, lake, runtime);
            Arc::new(parquet.clone().with_parquet_file_reader_factory(Arc::new(factory)))
        }
        None => Arc::new(PinnedSource {
            inner: Arc::clone(scan.file_source()),
            lake,
        }),
    };
    let scan = FileScanConfigBuilder::from(scan.clone()).with_source(source).build();
    Ok(DataSourceExec::from_data_source(scan))
}

/// A source whose store is pinned.
struct PinnedSource {
    inner: Arc<dyn FileSource>,
    lake: Option<Arc<TieredStore>>,
}

impl PinnedSource {
    fn around(&self, inner: Arc<dyn FileSource>) -> Arc<dyn FileSource> {
        Arc::new(Self {
            inner,
            lake: self.lake.clone(),
        })
    }
}

impl FileSource for PinnedSource {
    fn create_file_opener(
        &self,
        object_store: Arc<dyn ObjectStore>,
        base_config: &FileScanConfig,
        partition: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        let files = base_config.file_groups.iter().flat_map(|group| group.files());
        let metas = files.map(|file| &file.object_meta);
        let store = PinnedStore::new(object_store, self.lake.clone(), metas);
        self.inner.create_file_opener(Arc::new(store), base_config, partition)
    }

    fn table_schema(&self) -> &TableSchema {
        self.inner.table_schema()
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        self.around(self.inner.with_batch_size(batch_size))
    }

    fn filter(&self) -> Option<Arc<dyn PhysicalExpr>> {
        self.inner.filter()
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        self.inner.projection()
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        self.inner.metrics()
    }

    fn file_type(&self) -> &str {
        self.inner.file_type()
    }

    fn fmt_extra(&self, format: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        self.inner.fmt_extra(format, f)
    }

    fn supports_repartitioning(&self) -> bool {
        self.inner.supports_repartitioning()
    }

    fn repartitioned(
        &self,
        target_partitions: usize,
        repartition_file_min_size: usize,
        output_ordering: Option<LexOrdering>,
        config: &FileScanConfig,
    ) -> Result<Option<FileScanConfig>> {
        self.inner
            .repartitioned(target_partitions, repartition_file_min_size, output_ordering, config)
    }

    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn FileSource>>> {
        let mut pushed = self.inner.try_pushdown_filters(filters, config)?;
        pushed.updated_node = pushed.updated_node.map(|inner| self.around(inner));
        Ok(pushed)
    }

    fn try_pushdown_projection(&self, projection: &ProjectionExprs) -> Result<Option<Arc<dyn FileSource>>> {
        let pushed = self.inner.try_pushdown_projection(projection)?;
        Ok(pushed.map(|inner| self.around(inner)))
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.inner.apply_expressions(f)
    }
}
