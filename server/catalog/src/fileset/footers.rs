//! What Parquet footers say of files, fetched in parallel, each once.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::catalog::Session;
use datafusion::common::stats::Precision;
use datafusion::common::{Statistics, TableReference};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::cache::cache_manager::CachedFileMetadata;
use datafusion::execution::cache::{SchemaFingerprint, TableScopedPath};
use datafusion::execution::object_store::ObjectStoreUrl;
use futures::{FutureExt, StreamExt};
use object_store::{ObjectMeta, ObjectStore};
use parquet::file::metadata::ParquetMetaData;
use trireme_exec::io::parquet_reader::forget_replaced;
use trireme_exec::io::{PinnedStore, TieredStore};

use super::with_partitions;
use crate::error::CatalogError;

/// Footers on their way at a time.
const FOOTERS_AT_ONCE: usize = 64;

/// A chunk whose statistics don't count its NULLs may have some; DataFusion takes it for one without.
fn forget_uncounted(statistics: &mut Statistics, footer: &ParquetMetaData, schema: &Schema) {
    let chunks = footer.row_groups().iter().flat_map(|group| group.columns());
    let uncounted = chunks.filter(|chunk| chunk.statistics().is_some_and(|known| known.null_count_opt().is_none()));
    for chunk in uncounted {
        let root = chunk.column_path().parts().first();
        if let Some((index, _)) = root.and_then(|name| schema.column_with_name(name))
            && let Some(column) = statistics.column_statistics.get_mut(index)
        {
            column.null_count = Precision::Absent;
        }
    }
}

struct Reading<'a> {
    state: &'a dyn Session,
    url: &'a ObjectStoreUrl,
    store: Arc<dyn ObjectStore>,
    lake: Option<Arc<TieredStore>>,
    table: &'a TableSchema,
    fingerprint: Arc<SchemaFingerprint>,
}

/// The files with their statistics; no more of them than are sure to have `rows_wanted` rows, and true when some were left
/// out.
pub(super) async fn described(
    state: &dyn Session,
    url: &ObjectStoreUrl,
    lake: Option<Arc<TieredStore>>,
    table: &TableSchema,
    files: Vec<PartitionedFile>,
    rows_wanted: Option<usize>,
) -> Result<(Vec<PartitionedFile>, bool)> {
    let reading = Reading {
        state,
        url,
        store: state.runtime_env().object_store(url)?,
        lake,
        table,
        fingerprint: Arc::new(SchemaFingerprint::from_schema(table.file_schema())),
    };
    let count = files.len();
    let mut described = Vec::with_capacity(count);
    let mut rows = Precision::Exact(0);
    let reading = &reading;
    let mut all = futures::stream::iter(files)
        .map(|file| async move { reading.described(file).await })
        .buffered(FOOTERS_AT_ONCE);
    while let Some(file) = all.next().await {
        let file = file?;
        let known = file
            .statistics
            .as_ref()
            .map_or(Precision::Absent, |known| known.num_rows);
        rows = rows.add(&known);
        described.push(file);
        if let (Precision::Exact(rows), Some(wanted)) = (&rows, rows_wanted)
            && *rows >= wanted
        {
            break;
        }
    }
    let cut = described.len() < count;
    Ok((described, cut))
}

fn damaged(meta: &ObjectMeta, reason: &str) -> DataFusionError {
    let error = CatalogError::Corrupt {
        file: meta.location.to_string(),
        reason: reason.to_owned(),
    };
    error.into()
}

impl Reading<'_> {
    async fn described(&self, file: PartitionedFile) -> Result<PartitionedFile> {
        let known = self.statistics(&file.object_meta).await?;
        let statistics = Some(with_partitions(known.statistics.as_ref().clone(), &file));
        Ok(PartitionedFile {
            statistics,
            ordering: known.ordering,
            ..file
        })
    }

    async fn statistics(&self, meta: &ObjectMeta) -> Result<CachedFileMetadata> {
        let caches = &self.state.runtime_env().cache_manager;
        let kept = caches.get_file_statistic_cache();
        let key = TableScopedPath {
            // Objects of two stores may have one path.
            table: Some(TableReference::bare(self.url.as_str())),
            path: meta.location.clone(),
        };
        if let Some(known) = kept.as_ref().and_then(|kept| kept.get(&key))
            && known.is_valid_for(meta, &self.fingerprint)
            && known.meta.e_tag == meta.e_tag
        {
            return Ok(known);
        }
        let footers = caches.get_file_metadata_cache();
        forget_replaced(&footers, meta);
        let store = PinnedStore::new(Arc::clone(&self.store), self.lake.clone(), std::iter::once(meta));
        let hint = self.state.config_options().execution.parquet.metadata_size_hint;
        let fetch = DFParquetMetadata::new(&store, meta)
            .with_metadata_size_hint(hint)
            .with_file_metadata_cache(Some(footers));
        // A reader may panic over a damaged file; the file has to be named all the same.
        let footer = match AssertUnwindSafe(fetch.fetch_metadata()).catch_unwind().await {
            Ok(Ok(footer)) => footer,
            Ok(Err(error)) if matches!(error.find_root(), DataFusionError::ParquetError(_)) => {
                return Err(damaged(meta, &error.strip_backtrace()));
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(damaged(meta, "the reader can't make sense of its footer")),
        };
        let schema = self.table.file_schema();
        let mut statistics = DFParquetMetadata::statistics_from_parquet_metadata(&footer, schema)?;
        forget_uncounted(&mut statistics, &footer, schema);
        let known = CachedFileMetadata::new(meta.clone(), Arc::clone(&self.fingerprint), Arc::new(statistics), None);
        if let Some(kept) = &kept {
            kept.put(&key, known.clone());
        }
        Ok(known)
    }
}
