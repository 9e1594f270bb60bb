//! Files for tests, and scans of them.

use std::path::Path as FilePath;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use object_store::local::LocalFileSystem;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use trireme_device_api::{DeviceError, RowTest, ScanInput, Type, Unlimited};

use crate::{ColumnCache, ColumnRequest, ColumnSource, Limits, OpenOptions, TableFile, TableFiles};

pub(crate) fn write(path: &FilePath, batches: &[RecordBatch], properties: WriterProperties) {
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batches[0].schema(), Some(properties)).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.close().unwrap();
}

pub(crate) fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
}

/// All columns of the files of a folder, in order of names.
pub(crate) fn table(folder: &FilePath, names: &[&str], columns: &[(&str, Type)], local: bool) -> TableFiles {
    let of = |name: &&str| {
        let path = folder.join(name);
        let size_bytes = std::fs::metadata(&path).unwrap().len();
        TableFile {
            location: (*name).into(),
            size_bytes,
            version: size_bytes.to_string(),
            e_tag: None,
            modified_us: None,
            local: local.then_some(path),
            partition: Vec::new(),
            kept: None,
        }
    };
    TableFiles {
        name: "table".to_owned(),
        store_url: "file:///".to_owned(),
        store: Arc::new(LocalFileSystem::new_with_prefix(folder).unwrap()),
        lake: None,
        account: Arc::default(),
        files: names.iter().map(of).collect(),
        columns: columns
            .iter()
            .map(|(name, data_type)| ColumnRequest {
                source: ColumnSource::File((*name).to_owned()),
                data_type: data_type.clone(),
            })
            .collect(),
        test: RowTest::True,
        limit: None,
        stops: false,
        readers: 1,
    }
}

pub(crate) fn cache(budget_bytes: usize) -> ColumnCache {
    ColumnCache::new(Limits {
        budget_bytes,
        ..Limits::default()
    })
}

pub(crate) fn open(cache: &ColumnCache, table: TableFiles) -> Result<Arc<dyn ScanInput>, DeviceError> {
    futures::executor::block_on(cache.open(table, OpenOptions::new(Arc::new(Unlimited), 2)))
}
