//! A table of files that are all known: those of a folder as they were listed, or those that a table's log names.
//!
//! ```text
//!  files ─ partition filters, exactly ─▶ ─ bounds of the log ─▶ ─ footers, in parallel, if the log has none ─▶ the scan
//! ```
//!
//! Files are pruned before any is opened. The set is one state of the table: all scans of a statement read the same files,
//! and a file that was replaced meanwhile is an error.

mod bounds;
mod footers;
mod prune;

use std::sync::Arc;

use arrow::datatypes::{Field, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{ScanArgs, ScanResult, Session, TableProvider};
use datafusion::common::stats::{NdvFallback, Precision};
use datafusion::common::{ColumnStatistics, Statistics};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use trireme_exec::io::{StoreRegistry, pinned};
use url::Url;

pub(crate) use bounds::{Bounds, FileBounds};

use crate::delta::Deletions;

/// See the module.
pub(crate) struct FileSet {
    /// Where the files are.
    pub(crate) store: Url,
    /// Its tiers are known here.
    pub(crate) stores: Arc<StoreRegistry>,
    /// Every file, with its partition values, and with statistics where the log has them.
    pub(crate) files: Vec<PartitionedFile>,
    /// What the files hold, under their names for it, then the partition columns.
    pub(crate) table: TableSchema,
    /// The columns as statements see them.
    pub(crate) schema: SchemaRef,
    /// Where each of them is in `table`.
    pub(crate) positions: Vec<usize>,
    /// How a file is read.
    pub(crate) reader: Arc<dyn FileFormat>,
    /// What is known of the files before they are opened.
    pub(crate) known: Known,
    /// The statement that declared the table.
    pub(crate) definition: Option<String>,
}

/// Where knowledge of files comes from.
pub(crate) enum Known {
    /// The table's log; files have their statistics already.
    Log {
        /// For pruning.
        bounds: Bounds,
        /// Rows that are no longer there.
        deletions: Option<Box<Deletions>>,
    },
    /// Parquet footers.
    Footers,
    /// Nowhere.
    Nothing,
}

impl std::fmt::Debug for FileSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileSet").field("files", &self.files.len()).finish()
    }
}

/// The columns of a table whose partition columns come last.
pub(crate) fn columns_in_order(table: &TableSchema) -> (SchemaRef, Vec<usize>) {
    let schema = Arc::clone(table.table_schema());
    let positions = (0..schema.fields().len()).collect();
    (schema, positions)
}

impl FileSet {
    fn by_partition(&self, filter: &Expr) -> bool {
        prune::by_partition(&self.files, self.table.table_partition_cols(), filter)
    }

    /// The files that may have rows for the filters.
    fn pruned(&self, state: &dyn Session, filters: &[Expr]) -> Result<Vec<PartitionedFile>> {
        let (exact, rest): (Vec<&Expr>, Vec<&Expr>) = filters.iter().partition(|filter| self.by_partition(filter));
        let mut kept = vec![true; self.files.len()];
        prune::partitions(&self.files, self.table.table_partition_cols(), &exact, &mut kept)?;
        if let Known::Log { bounds, .. } = &self.known {
            prune::bounds(bounds, &self.schema, state, &rest, &mut kept)?;
        }
        let files = self.files.iter().zip(kept);
        Ok(files.filter(|(_, kept)| *kept).map(|(file, _)| file.clone()).collect())
    }

    /// So many files that their rows suffice, with what is known of them; true when some were left out.
    async fn described(
        &self,
        state: &dyn Session,
        files: Vec<PartitionedFile>,
        rows_wanted: Option<usize>,
    ) -> Result<(Vec<PartitionedFile>, bool)> {
        let collect = state.config().collect_statistics();
        match &self.known {
            Known::Footers if collect => {
                let lake = self.stores.lake().store(&StoreRegistry::key(&self.store));
                footers::described(state, &self.object_store(), lake, &self.table, files, rows_wanted).await
            }
            Known::Log { deletions, .. } => {
                let (mut files, cut) = enough(files, rows_wanted);
                if let Some(deletions) = deletions {
                    deletions.attach(state, &mut files).await?;
                }
                Ok((files, cut))
            }
            _ => {
                let unknown = Arc::new(Statistics::new_unknown(self.table.table_schema()));
                let with = |file: PartitionedFile| PartitionedFile {
                    statistics: Some(Arc::clone(&unknown)),
                    ..file
                };
                Ok((files.into_iter().map(with).collect(), false))
            }
        }
    }

    fn object_store(&self) -> ObjectStoreUrl {
        let text = &self.store[url::Position::BeforeScheme..url::Position::BeforePath];
        ObjectStoreUrl::parse(text).unwrap_or_else(|_| ObjectStoreUrl::local_filesystem())
    }

    /// The columns under the names that statements use, where files have others.
    fn renamed(&self, plan: Arc<dyn ExecutionPlan>, columns: &[usize]) -> Result<Arc<dyn ExecutionPlan>> {
        let stored = plan.schema();
        let fields = || columns.iter().map(|column| self.schema.field(*column));
        let same = |(own, stored): (&Field, &Arc<Field>)| own.name() == stored.name();
        if fields().zip(stored.fields()).all(same) {
            return Ok(plan);
        }
        let exprs = fields().enumerate().map(|(index, field)| ProjectionExpr {
            expr: Arc::new(Column::new(stored.field(index).name(), index)) as Arc<dyn PhysicalExpr>,
            alias: field.name().clone(),
        });
        let exprs: Vec<ProjectionExpr> = exprs.collect();
        Ok(Arc::new(ProjectionExec::try_new(exprs, plan)?))
    }
}

#[async_trait]
impl TableProvider for FileSet {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn get_table_definition(&self) -> Option<&str> {
        self.definition.as_deref()
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
        let columns: Vec<usize> = match args.projection() {
            Some(columns) => columns.to_vec(),
            None => (0..self.schema.fields().len()).collect(),
        };
        let filters = args.filters().unwrap_or_default();
        let exact = filters.iter().all(|filter| self.by_partition(filter));
        let files = self.pruned(state, filters)?;
        let wanted = args.limit().filter(|_| exact);
        let (files, cut) = self.described(state, files, wanted).await?;
        if files.is_empty() {
            let schema = Arc::new(self.schema.project(&columns)?);
            return Ok(ScanResult::new(Arc::new(EmptyExec::new(schema))));
        }
        let groups = FileGroup::new(files).split_files(state.config().target_partitions());
        let (groups, statistics) = summed(groups, self.table.table_schema())?;
        let statistics = if cut { statistics.to_inexact() } else { statistics };
        let stored = columns.iter().map(|column| self.positions[*column]).collect();
        let config = FileScanConfigBuilder::new(self.object_store(), self.reader.file_source(self.table.clone()))
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(Some(stored))?
            .with_limit(args.limit())
            .build();
        let plan = self.reader.create_physical_plan(state, config).await?;
        let lake = self.stores.lake().store(&StoreRegistry::key(&self.store));
        let plan = pinned(plan, state.runtime_env(), lake)?;
        Ok(ScanResult::new(self.renamed(plan, &columns)?))
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let of = |filter: &&Expr| match self.by_partition(filter) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(of).collect())
    }
}

/// What is known of each group, and of all.
fn summed(groups: Vec<FileGroup>, schema: &SchemaRef) -> Result<(Vec<FileGroup>, Statistics)> {
    let of = |group: FileGroup| {
        let files = group.iter().filter_map(|file| file.statistics.as_deref());
        let known = Statistics::try_merge_iter_with_ndv_fallback(files, schema, NdvFallback::Max)?;
        Ok(group.with_statistics(Arc::new(known)))
    };
    let groups = groups.into_iter().map(of).collect::<Result<Vec<_>>>()?;
    let all = groups.iter().filter_map(|group| group.file_statistics(None));
    let known = Statistics::try_merge_iter_with_ndv_fallback(all, schema, NdvFallback::Max)?;
    Ok((groups, known))
}

/// The first files that have so many rows for certain, or all; true when some were left out.
fn enough(mut files: Vec<PartitionedFile>, rows_wanted: Option<usize>) -> (Vec<PartitionedFile>, bool) {
    let Some(wanted) = rows_wanted else {
        return (files, false);
    };
    let mut rows = 0;
    for (index, file) in files.iter().enumerate() {
        let Some(Precision::Exact(count)) = file.statistics.as_ref().map(|statistics| statistics.num_rows) else {
            return (files, false);
        };
        rows += count;
        if rows >= wanted {
            let cut = index + 1 < files.len();
            files.truncate(index + 1);
            return (files, cut);
        }
    }
    (files, false)
}

/// A file's statistics with those of its partition columns. Of a file without rows no value is said to be there.
pub(crate) fn with_partitions(mut statistics: Statistics, file: &PartitionedFile) -> Arc<Statistics> {
    let is_empty = statistics.num_rows == Precision::Exact(0);
    for value in &file.partition_values {
        let mut column = ColumnStatistics::new_unknown();
        if value.is_null() {
            column.null_count = statistics.num_rows;
        } else if is_empty {
            column.null_count = Precision::Exact(0);
        } else {
            column.null_count = Precision::Exact(0);
            column.min_value = Precision::Exact(value.clone());
            column.max_value = Precision::Exact(value.clone());
            column.distinct_count = Precision::Exact(1);
        }
        statistics.column_statistics.push(column);
    }
    Arc::new(statistics)
}
