//! What a scan reads: files, partition values and columns, as the catalog found them.

use std::path::PathBuf;
use std::sync::Arc;

use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use trireme_device_api::{Type, Value};

/// A table's files and the columns wanted of them.
#[derive(Clone)]
pub struct TableFiles {
    /// Name for `system.columns`; tables of one name share dictionaries, so it is qualified and unique within the process.
    pub name: String,
    /// URL of the store; with a location it names a file.
    pub store_url: String,
    /// Where files are read from, unless they are local.
    pub store: Arc<dyn ObjectStore>,
    /// Files, each once. Their order is the order of rows.
    pub files: Vec<TableFile>,
    /// Columns, in the order of [`trireme_device_api::ScanInput::columns`].
    pub columns: Vec<ColumnRequest>,
    /// Threads that opening may use to decode strings; at least one is.
    pub workers: usize,
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
    /// The same file in the local file system, where that is its store; read directly.
    pub local: Option<PathBuf>,
    /// Values of partition columns.
    pub partition: Vec<Value>,
}

impl TableFile {
    /// A file without partition values, by what the store lists of it.
    pub fn new(meta: &ObjectMeta) -> Self {
        let version = meta
            .e_tag
            .clone()
            .or_else(|| meta.version.clone())
            .unwrap_or_else(|| format!("{}-{}", meta.last_modified.timestamp_micros(), meta.size));
        Self {
            location: meta.location.clone(),
            size_bytes: meta.size,
            version,
            local: None,
            partition: Vec::new(),
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
}

/// A version of a file: what cached columns and footers are kept by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct FileId {
    pub(crate) store_url: Arc<str>,
    pub(crate) location: Path,
    pub(crate) size_bytes: u64,
    pub(crate) version: String,
}
