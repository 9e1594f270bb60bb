//! What a scan reads: files, partition values and columns, as the catalog found them.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::buffer::BooleanBuffer;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use trireme_device_api::{DevicePool, RowTest, Type, Value};
use trireme_lake::{Account, ObjectRef, TieredStore};

/// A table's files and the columns wanted of them.
#[derive(Clone)]
pub struct TableFiles {
    /// Name for `system.columns`; tables of one name share dictionaries, so it is qualified and unique within the process.
    pub name: String,
    /// URL of the store; with a location it names a file.
    pub store_url: String,
    /// Where files are read from, unless they are local or `lake` has them.
    pub store: Arc<dyn ObjectStore>,
    /// The same store behind the lake's tiers: files that are not local are fetched ahead through it.
    pub lake: Option<Arc<TieredStore>>,
    /// On which reads are booked.
    pub account: Arc<Account>,
    /// Files, each once. Their order is the order of rows.
    pub files: Vec<TableFile>,
    /// Columns, in the order of [`trireme_device_api::ScanInput::columns`].
    pub columns: Vec<ColumnRequest>,
    /// What rows must pass to be of use to any reader; the others may be left out of the scan.
    pub test: RowTest,
    /// So many rows are enough, whichever they are; none: all are wanted.
    pub limit: Option<usize>,
    /// The reader stops once enough rows pass its filters: segments that it may never come to should cost nothing before.
    pub stops: bool,
    /// Readers that will go over the rows, each by itself. What one of several dismisses is fetched all the same.
    pub readers: usize,
}

/// How the scans of a graph are opened, all together.
#[derive(Clone)]
pub struct OpenOptions {
    /// The query's memory: for what the cache has no room for, and for bytes that were fetched ahead.
    pub pool: Arc<dyn DevicePool>,
    /// Threads that may decode strings meanwhile; at least one does.
    pub workers: usize,
    /// Bytes that may be fetched ahead of need; 0 means none are.
    pub window_bytes: usize,
    /// Columns that no filter tests may be put off until a row is known to pass; not for readers that load all at once.
    pub put_off: bool,
    /// Positions of scans in the order in which they are read; scans that are missing come last.
    pub order: Vec<usize>,
    /// Called when [`trireme_device_api::ScanInput::ready`] may have changed. Any thread; must not block.
    pub woken: Arc<dyn Fn() + Send + Sync>,
}

impl OpenOptions {
    /// Nothing is fetched ahead, and nobody is woken.
    pub fn new(pool: Arc<dyn DevicePool>, workers: usize) -> Self {
        Self {
            pool,
            workers,
            window_bytes: 0,
            put_off: true,
            order: Vec::new(),
            woken: Arc::new(|| {}),
        }
    }
}

/// One Parquet file of a table.
#[derive(Debug, Clone)]
pub struct TableFile {
    /// Within the store.
    pub location: Path,
    /// Size.
    pub size_bytes: u64,
    /// What changes when the content does: the entity tag, or time and size.
    pub version: String,
    /// Entity tag: a remote file that has another one was replaced.
    pub e_tag: Option<String>,
    /// Microseconds since 1970: a local file that has another time was replaced. None: not checked.
    pub modified_us: Option<i64>,
    /// The same file in the local file system, where that is its store; read directly.
    pub local: Option<PathBuf>,
    /// Values of partition columns.
    pub partition: Vec<Value>,
    /// By row of the file: whether it is still there, as a table's deletion vector says; none: all rows are.
    pub kept: Option<BooleanBuffer>,
}

impl TableFile {
    /// A file without partition values, by what the store lists of it.
    pub fn new(meta: &ObjectMeta) -> Self {
        Self {
            location: meta.location.clone(),
            size_bytes: meta.size,
            version: ObjectRef::new(meta).version,
            e_tag: meta.e_tag.clone(),
            // Without a tag it was not the file system that was asked, but a table's log, which has times of its own.
            modified_us: meta.e_tag.as_ref().map(|_| meta.last_modified.timestamp_micros()),
            local: None,
            partition: Vec::new(),
            kept: None,
        }
    }
}

/// A column of a scan.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnRequest {
    /// Where its values are.
    pub source: ColumnSource,
    /// Its type in the table; files of other types are cast.
    pub data_type: Type,
}

/// Where a column's values are.
#[derive(Debug, Clone, PartialEq)]
pub enum ColumnSource {
    /// The top-level column of this name in each file; NULL in files without it.
    File(String),
    /// [`TableFile::partition`] at this position.
    Partition(usize),
    /// [`TableFile::kept`].
    Kept,
}

/// A version of a file: what cached columns and footers are kept by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct FileId {
    pub(crate) store_url: Arc<str>,
    pub(crate) location: Path,
    pub(crate) size_bytes: u64,
    pub(crate) version: String,
}
