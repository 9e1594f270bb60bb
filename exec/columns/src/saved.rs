//! A graph of fragments as a file, with what it runs on: for benchmarks and checks that need neither planner nor service.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::local::LocalFileSystem;
use serde::{Deserialize, Serialize};
use trireme_device_api::{DeviceError, DevicePool, Graph, RowTest, ScanInput, Type, Value};

use crate::{ColumnCache, ColumnRequest, ColumnSource, OpenOptions, TableFile, TableFiles};

/// A graph over local files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SavedGraph {
    /// The fragments.
    pub graph: Graph,
    /// Its scans.
    pub scans: Vec<SavedScan>,
    /// Its parameters' values.
    pub parameters: Vec<Value>,
}

/// A scan of local files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SavedScan {
    /// Name, for people.
    pub name: String,
    /// Whole files.
    pub files: Vec<PathBuf>,
    /// Names and types of the columns.
    pub columns: Vec<(String, Type)>,
}

impl SavedScan {
    /// Binds it through a cache.
    ///
    /// # Errors
    /// When a file can't be read, or its columns aren't as saved.
    pub async fn open(
        &self,
        cache: &ColumnCache,
        pool: Arc<dyn DevicePool>,
        workers: usize,
    ) -> Result<Arc<dyn ScanInput>, DeviceError> {
        let columns = self.columns.iter().map(|(name, data_type)| ColumnRequest {
            source: ColumnSource::File(name.clone()),
            data_type: data_type.clone(),
        });
        let table = TableFiles {
            name: self.name.clone(),
            store_url: "file:///".to_owned(),
            store: Arc::new(LocalFileSystem::new()),
            lake: None,
            account: Arc::default(),
            files: self
                .files
                .iter()
                .map(|path| table_file(path))
                .collect::<Result<_, _>>()?,
            columns: columns.collect(),
            test: RowTest::True,
            limit: None,
            stops: false,
            readers: 1,
        };
        cache.open(table, OpenOptions::new(pool, workers)).await
    }
}

fn table_file(path: &Path) -> Result<TableFile, DeviceError> {
    let unreadable = |reason: String| DeviceError::Input(format!("{}: {reason}", path.display()));
    Ok(TableFile {
        location: object_store::path::Path::from_filesystem_path(path)
            .map_err(|error| unreadable(error.to_string()))?,
        size_bytes: std::fs::metadata(path)
            .map_err(|error| unreadable(error.to_string()))?
            .len(),
        version: "1".to_owned(),
        e_tag: None,
        modified_us: None,
        local: Some(path.to_owned()),
        partition: Vec::new(),
        kept: None,
    })
}
