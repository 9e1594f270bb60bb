//! DataFusion's way to Parquet files: each as it was listed, and remote ones fetched ahead.
//!
//! DataFusion reads a row group, decodes it, then asks for the next. Here a reader that was asked for two row groups in a row
//! has the same columns of those that follow fetched meanwhile, within a window; groups that are passed over are cancelled.
//! The fused variant doesn't come here: it plans all its ranges by itself.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::datasource::physical_plan::parquet::{ParquetFileMetrics, ParquetFileReaderFactory};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::{ObjectMeta, ObjectStore};
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use tokio::runtime::Handle;
use trireme_lake::{Account, ObjectRef, Planned, Prefetch, ReadClass, TieredStore, Window};

use super::pinned::PinnedStore;
use crate::operators::reads::tell_totals;

/// Bytes that one reader has fetched ahead at most; a row group is, however large.
const WINDOW_BYTES: usize = 64 << 20;

/// Makes readers; one per scan.
pub struct ReaderFactory {
    store: Arc<dyn ObjectStore>,
    lake: Option<Arc<TieredStore>>,
    footers: Arc<FileMetadataCache>,
    memory: Arc<dyn MemoryPool>,
}

impl ReaderFactory {
    /// Of a store, and of its tiers when it is remote.
    pub fn new(store: Arc<dyn ObjectStore>, lake: Option<Arc<TieredStore>>, runtime: &RuntimeEnv) -> Self {
        Self {
            store,
            lake,
            footers: runtime.cache_manager.get_file_metadata_cache(),
            memory: Arc::clone(&runtime.memory_pool),
        }
    }
}

impl fmt::Debug for ReaderFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReaderFactory({})", self.store)
    }
}

/// Forgets what is kept of a file's footer under the same name, size and second, but of another entity tag.
pub fn forget_replaced(footers: &Arc<FileMetadataCache>, meta: &ObjectMeta) {
    let other = footers
        .get(&meta.location)
        .is_some_and(|kept| kept.meta.e_tag != meta.e_tag || kept.meta.version != meta.version);
    if other {
        footers.remove(&meta.location);
    }
}

impl ParquetFileReaderFactory for ReaderFactory {
    fn create_reader(
        &self,
        partition_index: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let store = Arc::clone(&self.store);
        let account = Arc::<Account>::default();
        let pinned = PinnedStore::new(store, self.lake.clone(), std::iter::once(&file.object_meta));
        Ok(Box::new(Reader {
            metrics: ParquetFileMetrics::new(partition_index, file.object_meta.location.as_ref(), metrics),
            scan_metrics: metrics.clone(),
            store: pinned.with_account(Arc::clone(&account)),
            footers: Arc::clone(&self.footers),
            metadata_size_hint,
            metadata: None,
            ahead: self.lake.clone().map(|lake| Ahead {
                lake,
                object: Arc::new(ObjectRef::new(&file.object_meta)),
                account: Arc::clone(&account),
                memory: Arc::clone(&self.memory),
                last: None,
                running: None,
            }),
            account,
            file,
        }))
    }
}

struct Reader {
    metrics: ParquetFileMetrics,
    scan_metrics: ExecutionPlanMetricsSet,
    account: Arc<Account>,
    store: PinnedStore,
    file: PartitionedFile,
    footers: Arc<FileMetadataCache>,
    metadata_size_hint: Option<usize>,
    metadata: Option<Arc<ParquetMetaData>>,
    ahead: Option<Ahead>,
}

impl Reader {
    async fn ranges(&mut self, ranges: Vec<Range<u64>>) -> parquet::errors::Result<Vec<Bytes>> {
        let total: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        self.metrics.bytes_scanned.add(usize::try_from(total).unwrap_or(0));
        if self.ahead.is_some() {
            self.account.used_bytes.fetch_add(total, Ordering::Relaxed);
        }
        let failed = |error: object_store::Error| ParquetError::External(Box::new(error));
        if let (Some(ahead), Some(metadata)) = (&mut self.ahead, &self.metadata)
            && let Some(bytes) = ahead.take(&ranges, metadata, &self.file).await
        {
            return bytes.map_err(failed);
        }
        let bytes = self.store.get_ranges(&self.file.object_meta.location, &ranges);
        bytes.await.map_err(failed)
    }

    async fn footer(&mut self, options: Option<&ArrowReaderOptions>) -> parquet::errors::Result<Arc<ParquetMetaData>> {
        let meta = &self.file.object_meta;
        forget_replaced(&self.footers, meta);
        let metadata = DFParquetMetadata::new(&self.store, meta)
            .with_file_metadata_cache(Some(Arc::clone(&self.footers)))
            .with_metadata_size_hint(self.metadata_size_hint)
            .with_page_index_policy(options.map(ArrowReaderOptions::column_index_policy))
            .fetch_metadata()
            .await
            .map_err(|error| named(error, meta))?;
        self.metadata = Some(Arc::clone(&metadata));
        Ok(metadata)
    }
}

/// A store's error as it is; one of the file's content with the file's name.
fn named(error: DataFusionError, meta: &ObjectMeta) -> ParquetError {
    match error.find_root() {
        DataFusionError::ObjectStore(_) => ParquetError::External(Box::new(error)),
        _ => ParquetError::General(format!("Failed to fetch metadata for file {}: {error}", meta.location)),
    }
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move {
            let bytes = self.ranges(vec![range]).await?;
            let missing = || ParquetError::EOF("a range was not read".to_owned());
            bytes.into_iter().next().ok_or_else(missing)
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        self.ranges(ranges).boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        self.footer(options).boxed()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let scanned = self.metrics.bytes_scanned.value();
        self.metrics.scan_efficiency_ratio.add_part(scanned);
        let size = usize::try_from(self.file.object_meta.size).unwrap_or(usize::MAX);
        self.metrics.scan_efficiency_ratio.set_total(size);
        // Before the counts, so that what it gives up is among them.
        self.ahead = None;
        tell_totals(&self.scan_metrics, "", &self.account.totals());
    }
}

/// What one reader fetches ahead.
struct Ahead {
    lake: Arc<TieredStore>,
    object: Arc<ObjectRef>,
    account: Arc<Account>,
    memory: Arc<dyn MemoryPool>,
    /// The row group that was last asked for.
    last: Option<usize>,
    running: Option<Running>,
}

/// Ranges on their way, in the order of row groups.
struct Running {
    prefetch: Arc<Prefetch>,
    /// Row group, range, number in `prefetch`.
    ranges: VecDeque<(usize, Range<u64>, usize)>,
}

impl Ahead {
    /// The bytes, when they were fetched ahead; else none, and what follows may be on its way from now on.
    async fn take(
        &mut self,
        ranges: &[Range<u64>],
        metadata: &ParquetMetaData,
        file: &PartitionedFile,
    ) -> Option<object_store::Result<Vec<Bytes>>> {
        let group = group_of(metadata, ranges)?;
        let in_a_row = self.last.is_some_and(|last| last + 1 == group);
        self.last = Some(group);
        if let Some(running) = &mut self.running {
            if let Some(numbers) = running.numbers(group, ranges) {
                let bytes = numbers.into_iter().map(|number| running.prefetch.take(number));
                return Some(futures::future::try_join_all(bytes).await);
            }
            return None;
        }
        if in_a_row && let Ok(runtime) = Handle::try_current() {
            self.start(group, ranges, metadata, file, &runtime);
        }
        None
    }

    fn start(
        &mut self,
        group: usize,
        ranges: &[Range<u64>],
        metadata: &ParquetMetaData,
        file: &PartitionedFile,
        runtime: &Handle,
    ) {
        let Some(columns) = whole_columns(metadata, group, ranges) else {
            return;
        };
        let (mut planned, mut waiting) = (Vec::new(), VecDeque::new());
        for next in group + 1..metadata.num_row_groups() {
            if !within(metadata, next, file) {
                break;
            }
            for column in &columns {
                let (start, length) = metadata.row_group(next).column(*column).byte_range();
                let range = start..start + length;
                waiting.push_back((next, range.clone(), planned.len()));
                planned.push(Planned {
                    store: Arc::clone(&self.lake),
                    object: Arc::clone(&self.object),
                    range,
                    class: if next == group + 1 {
                        ReadClass::Near
                    } else {
                        ReadClass::Far
                    },
                    account: Arc::clone(&self.account),
                });
            }
        }
        if planned.is_empty() {
            return;
        }
        let memory = Arc::new(Memory::new(&self.memory));
        let prefetch = Prefetch::start(planned, WINDOW_BYTES, memory, runtime, Arc::new(|| {}));
        self.running = Some(Running {
            prefetch,
            ranges: waiting,
        });
    }
}

impl Running {
    /// The numbers of these ranges of a group, if all are planned. What is planned of groups before is cancelled.
    fn numbers(&mut self, group: usize, ranges: &[Range<u64>]) -> Option<Vec<usize>> {
        while self.ranges.front().is_some_and(|(of, ..)| *of < group) {
            if let Some((.., number)) = self.ranges.pop_front() {
                self.prefetch.cancel(number);
            }
        }
        let find = |wanted: &Range<u64>| {
            let mut planned = self.ranges.iter();
            planned
                .find(|(_, range, _)| range == wanted)
                .map(|(.., number)| *number)
        };
        ranges.iter().map(find).collect()
    }
}

/// The row group that all ranges are in.
fn group_of(metadata: &ParquetMetaData, ranges: &[Range<u64>]) -> Option<usize> {
    let first = ranges.iter().map(|range| range.start).min()?;
    let last = ranges.iter().map(|range| range.end).max()?;
    metadata.row_groups().iter().position(|group| {
        let chunks = || group.columns().iter().map(|column| column.byte_range());
        let start = chunks().map(|(start, _)| start).min();
        let end = chunks().map(|(start, length)| start + length).max();
        start.is_some_and(|start| start <= first) && end.is_some_and(|end| last <= end)
    })
}

/// The columns that the ranges are the whole chunks of, in their order; none when some range is only a part.
fn whole_columns(metadata: &ParquetMetaData, group: usize, ranges: &[Range<u64>]) -> Option<Vec<usize>> {
    let columns = metadata.row_group(group).columns();
    let find = |range: &Range<u64>| {
        columns.iter().position(|column| {
            let (start, length) = column.byte_range();
            start == range.start && start + length == range.end
        })
    };
    ranges.iter().map(find).collect()
}

/// A row group is read by whom its first page belongs to.
fn within(metadata: &ParquetMetaData, group: usize, file: &PartitionedFile) -> bool {
    let Some(range) = &file.range else { return true };
    let columns = metadata.row_group(group).columns();
    let Some(first) = columns.first() else { return false };
    let start = first
        .dictionary_page_offset()
        .unwrap_or_else(|| first.data_page_offset());
    (range.start..range.end).contains(&start)
}

/// The window's memory, of the process's pool.
struct Memory {
    reservation: Mutex<MemoryReservation>,
}

impl Memory {
    fn new(pool: &Arc<dyn MemoryPool>) -> Self {
        Self {
            reservation: Mutex::new(MemoryConsumer::new("prefetch").register(pool)),
        }
    }
}

impl Window for Memory {
    fn take(&self, bytes: usize) -> bool {
        self.reservation.lock().try_grow(bytes).is_ok()
    }

    fn give(&self, bytes: usize) {
        let reservation = self.reservation.lock();
        reservation.shrink(bytes.min(reservation.size()));
    }
}

#[cfg(test)]
mod tests;
