//! Footers: read once per version of a file, and what a column's name means in each file.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use parquet::arrow::parquet_to_arrow_schema;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use trireme_device_api::{DeviceError, Type};

use crate::decode::Physical;
use crate::files::FileId;
use crate::source::Source;

/// Read at the end of a file, in the hope that the footer is in it.
const TAIL_BYTES: u64 = 64 << 10;

/// A file's footer and schema.
pub(crate) struct FileMeta {
    pub(crate) id: Arc<FileId>,
    pub(crate) metadata: Arc<ParquetMetaData>,
    schema: SchemaRef,
    leaves: HashMap<String, usize>,
}

/// How a file has a column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum FileColumn {
    /// It hasn't: NULL throughout.
    Missing,
    /// Pages become carriers directly.
    Pages {
        /// Position among the file's leaf columns.
        leaf: usize,
        /// What pages hold.
        physical: Physical,
    },
    /// Through Arrow's reader, and a cast where the types differ.
    Arrow {
        /// Position among the file's leaf columns.
        leaf: usize,
    },
}

impl FileColumn {
    pub(crate) fn leaf(&self) -> Option<usize> {
        match self {
            FileColumn::Missing => None,
            FileColumn::Pages { leaf, .. } | FileColumn::Arrow { leaf } => Some(*leaf),
        }
    }
}

impl FileMeta {
    /// Reads the footer, blocking.
    ///
    /// # Errors
    /// [`DeviceError::Input`], also when a library panics over what stands there.
    pub(crate) fn read(id: Arc<FileId>, source: &Source) -> Result<Self, DeviceError> {
        let read = catch_unwind(AssertUnwindSafe(|| Self::read_unguarded(id, source)));
        read.unwrap_or_else(|_| Err(source.corrupt("the footer is malformed")))
    }

    fn read_unguarded(id: Arc<FileId>, source: &Source) -> Result<Self, DeviceError> {
        let mut reader = ParquetMetaDataReader::new();
        let mut tail_bytes = TAIL_BYTES.min(source.size_bytes);
        loop {
            let tail = source.read(source.size_bytes - tail_bytes..source.size_bytes)?;
            match reader.try_parse_sized(&tail, source.size_bytes) {
                Ok(()) => break,
                Err(ParquetError::NeedMoreData(due)) if due as u64 > tail_bytes && due as u64 <= source.size_bytes => {
                    tail_bytes = due as u64;
                }
                Err(error) => return Err(source.corrupt(error)),
            }
        }
        let metadata = reader.finish().map_err(|error| source.corrupt(error))?;
        Self::new(id, metadata).map_err(|error| source.corrupt(error))
    }

    fn new(id: Arc<FileId>, metadata: ParquetMetaData) -> parquet::errors::Result<Self> {
        let file = metadata.file_metadata();
        let schema = parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata())?;
        let flat = file.schema_descr().columns().iter().enumerate();
        let leaves = flat
            .filter(|(_, leaf)| leaf.path().parts().len() == 1 && leaf.max_rep_level() == 0)
            .map(|(position, leaf)| (leaf.name().to_owned(), position))
            .collect();
        Ok(Self {
            id,
            metadata: Arc::new(metadata),
            schema: Arc::new(schema),
            leaves,
        })
    }

    /// Memory held, about.
    pub(crate) fn size_bytes(&self) -> usize {
        self.metadata.memory_size() + self.schema.fields().len() * 256
    }

    /// How this file has the column `name`, wanted as `data_type`.
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`] when it is nested.
    pub(crate) fn column(&self, name: &str, data_type: &Type) -> Result<FileColumn, DeviceError> {
        let Ok(field) = self.schema.field_with_name(name) else {
            return Ok(FileColumn::Missing);
        };
        let Some(leaf) = self.leaves.get(name).copied() else {
            return Err(DeviceError::Unsupported(format!("column {name} is nested")));
        };
        let found = match field.data_type() {
            DataType::Dictionary(_, values) => values.as_ref(),
            other => other,
        };
        let descriptor = self.metadata.file_metadata().schema_descr().column(leaf);
        Ok(match Physical::of(&descriptor, found, data_type) {
            Some(physical) => FileColumn::Pages { leaf, physical },
            None => FileColumn::Arrow { leaf },
        })
    }
}
