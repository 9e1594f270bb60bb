//! Footers: read once per version of a file, and what a column's name means in each file.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use bytes::Bytes;
use parking_lot::Mutex;
use parquet::arrow::parquet_to_arrow_schema;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use trireme_device_api::{DeviceError, Type};

use crate::decode::Physical;
use crate::files::FileId;
use crate::source::Source;

/// Read at the end of a file, in the hope that the footer is in it.
const TAIL_BYTES: u64 = 64 << 10;
/// And at most.
const TAIL_BYTES_MAX: u64 = 4 << 20;

/// How long the footers of tables are: what the next file of a table is asked for at once.
#[derive(Default)]
pub(crate) struct Tails {
    by_table: Mutex<HashMap<Arc<str>, u64>>,
}

impl Tails {
    pub(crate) fn get(&self, table: &Arc<str>) -> u64 {
        let known = self.by_table.lock().get(table).copied();
        known.unwrap_or(0).clamp(TAIL_BYTES, TAIL_BYTES_MAX)
    }

    /// A footer of the table has this length.
    pub(crate) fn saw(&self, table: &Arc<str>, footer_bytes: u64) {
        if footer_bytes > TAIL_BYTES {
            let mut by_table = self.by_table.lock();
            let known = by_table.entry(Arc::clone(table)).or_default();
            *known = footer_bytes.max(*known);
        }
    }
}

/// A file's footer and schema.
pub(crate) struct FileMeta {
    pub(crate) id: Arc<FileId>,
    pub(crate) metadata: Arc<ParquetMetaData>,
    schema: SchemaRef,
    leaves: HashMap<String, usize>,
}

/// What the end of a file gives.
enum Parsed {
    Whole(Box<FileMeta>),
    /// So many bytes of the end are needed.
    Needs(u64),
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

/// Rows that a byte of a file may stand for: a million repeats of one value take some thirty.
const ROWS_PER_BYTE_MAX: u64 = 1 << 20;

/// Segments are planned by what the footer says of rows.
fn check_rows(metadata: &ParquetMetaData, size_bytes: u64) -> Result<(), String> {
    let mut rows = 0_u64;
    for group in metadata.row_groups() {
        let count = group.num_rows();
        let count = u64::try_from(count).map_err(|_| format!("a row group of {count} rows"))?;
        rows = rows.saturating_add(count);
    }
    match rows > size_bytes.saturating_mul(ROWS_PER_BYTE_MAX) {
        true => Err(format!("{rows} rows in {size_bytes} bytes")),
        false => Ok(()),
    }
}

impl FileMeta {
    /// Reads the footer, blocking.
    ///
    /// # Errors
    /// [`DeviceError::Input`], also when a library panics over what stands there.
    pub(crate) fn read(id: Arc<FileId>, source: &Source) -> Result<Self, DeviceError> {
        let mut tail_bytes = TAIL_BYTES.min(source.size_bytes);
        loop {
            let tail = source.read(source.size_bytes - tail_bytes..source.size_bytes)?;
            match Self::parse(&id, source, &tail)? {
                Parsed::Whole(meta) => return Ok(*meta),
                Parsed::Needs(due) => tail_bytes = due,
            }
        }
    }

    /// Reads the footer of a file that is not local, at first so many bytes of its end; gives its length too.
    ///
    /// # Errors
    /// As [`FileMeta::read`].
    pub(crate) async fn read_remote(
        id: Arc<FileId>,
        source: &Source,
        tail_bytes: u64,
    ) -> Result<(Self, u64), DeviceError> {
        let mut tail_bytes = tail_bytes.min(source.size_bytes);
        let mut tail = Bytes::new();
        loop {
            // What is there already is not read again.
            let end = source.size_bytes - tail.len() as u64;
            let more = source.read_remote(source.size_bytes - tail_bytes..end).await?;
            tail = if tail.is_empty() {
                more
            } else {
                [more, tail].concat().into()
            };
            match Self::parse(&id, source, &tail)? {
                Parsed::Whole(meta) => {
                    let length = tail.len().checked_sub(8).and_then(|at| tail.get(at..)?.first_chunk());
                    let footer_bytes = length.map_or(0, |length| u64::from(u32::from_le_bytes(*length)) + 8);
                    return Ok((*meta, footer_bytes));
                }
                Parsed::Needs(due) => tail_bytes = due,
            }
        }
    }

    fn parse(id: &Arc<FileId>, source: &Source, tail: &Bytes) -> Result<Parsed, DeviceError> {
        let parsed = catch_unwind(AssertUnwindSafe(|| Self::parse_unguarded(id, source, tail)));
        parsed.unwrap_or_else(|_| Err(source.corrupt("the footer is malformed")))
    }

    fn parse_unguarded(id: &Arc<FileId>, source: &Source, tail: &Bytes) -> Result<Parsed, DeviceError> {
        let mut reader = ParquetMetaDataReader::new();
        match reader.try_parse_sized(tail, source.size_bytes) {
            Ok(()) => {}
            Err(ParquetError::NeedMoreData(due))
                if due as u64 > tail.len() as u64 && due as u64 <= source.size_bytes =>
            {
                return Ok(Parsed::Needs(due as u64));
            }
            Err(error) => return Err(source.corrupt(error)),
        }
        let metadata = reader.finish().map_err(|error| source.corrupt(error))?;
        check_rows(&metadata, source.size_bytes).map_err(|text| source.corrupt(text))?;
        let meta = Self::new(Arc::clone(id), metadata).map_err(|error| source.corrupt(error))?;
        Ok(Parsed::Whole(Box::new(meta)))
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
