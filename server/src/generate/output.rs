//! One file of a table: row groups come in any order and are written in theirs, under a temporary name until the file
//! is whole.

use super::tables::Batches;
use super::{Compression, Dataset, FilePlan, Format, GenerateError, GenerateOptions};
use arrow::csv::WriterBuilder;
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{
    ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, ArrowWriterOptions, compute_leaves,
};
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Level 1 is nearly as small as the default on this data, and twice as fast to make.
const ZSTD_LEVEL: i32 = 1;

/// A row group, ready to be appended.
pub(super) enum Encoded {
    Parquet(Vec<ArrowColumnChunk>),
    Csv(Vec<u8>),
}

/// Encodes one row group, apart from the file it will be in.
pub(super) enum Encoder {
    Parquet {
        schema: SchemaRef,
        columns: Vec<ArrowColumnWriter>,
    },
    Csv {
        header: bool,
    },
}

impl Encoder {
    /// The encoded rows, and how many they are.
    pub(super) fn encode(self, batches: Batches, path: &Path) -> Result<(Encoded, u64), GenerateError> {
        let fault = |error: &dyn std::fmt::Display| GenerateError::encode(path, error);
        let mut rows = 0;
        match self {
            Self::Parquet { schema, mut columns } => {
                for batch in batches {
                    let batch = batch.map_err(|error| fault(&error))?;
                    rows += batch.num_rows() as u64;
                    let mut writers = columns.iter_mut();
                    for (field, array) in schema.fields().iter().zip(batch.columns()) {
                        for leaf in compute_leaves(field, array).map_err(|error| fault(&error))? {
                            let writer = writers
                                .next()
                                .ok_or_else(|| fault(&"more columns than the schema has"))?;
                            writer.write(&leaf).map_err(|error| fault(&error))?;
                        }
                    }
                }
                let chunks: Result<Vec<_>, _> = columns.into_iter().map(ArrowColumnWriter::close).collect();
                Ok((Encoded::Parquet(chunks.map_err(|error| fault(&error))?), rows))
            }
            Self::Csv { header } => {
                let mut writer = WriterBuilder::new().with_header(header).build(Vec::new());
                for batch in batches {
                    let batch = batch.map_err(|error| fault(&error))?;
                    rows += batch.num_rows() as u64;
                    writer.write(&batch).map_err(|error| fault(&error))?;
                }
                Ok((Encoded::Csv(writer.into_inner()), rows))
            }
        }
    }
}

type Sink = BufWriter<File>;

enum Writer {
    Parquet {
        // Boxed, or every CSV writer would be as large as this one.
        file: Box<SerializedFileWriter<Sink>>,
        factory: ArrowRowGroupWriterFactory,
        schema: SchemaRef,
    },
    Csv(Sink),
}

/// A file while it is made.
///
/// Invariant: groups `0..next` are in the file; `waiting` holds later ones only, no more than there are workers.
pub(super) struct Output {
    // Settings.
    path: PathBuf,
    dataset: Dataset,
    groups: usize,
    format: Format,
    compression: Compression,
    schema: SchemaRef,
    // State.
    next: usize,
    waiting: BTreeMap<usize, (Encoded, u64)>,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    // Resources: the temporary file is removed when it is dropped.
    open: Option<(NamedTempFile, Writer)>,
}

impl Output {
    pub(super) fn new(plan: &FilePlan, dataset: Dataset, options: &GenerateOptions) -> Self {
        Self {
            path: plan.path.clone(),
            dataset,
            groups: plan.groups,
            format: options.format,
            compression: options.compression,
            schema: plan.table.schema(),
            next: 0,
            waiting: BTreeMap::new(),
            rows: 0,
            bytes: 0,
            open: None,
        }
    }

    /// What encodes group `group`; the file is created by the first call.
    pub(super) fn encoder(&mut self, group: usize) -> Result<Encoder, GenerateError> {
        if self.open.is_none() {
            self.open = Some(self.create()?);
        }
        match &self.open {
            Some((_, Writer::Parquet { factory, schema, .. })) => Ok(Encoder::Parquet {
                schema: SchemaRef::clone(schema),
                columns: factory
                    .create_column_writers(group)
                    .map_err(|error| GenerateError::encode(&self.path, error))?,
            }),
            Some((_, Writer::Csv(_))) => Ok(Encoder::Csv { header: group == 0 }),
            None => Err(GenerateError::Stopped),
        }
    }

    /// Takes an encoded group; true when the file is whole.
    pub(super) fn append(&mut self, group: usize, encoded: Encoded, rows: u64) -> Result<bool, GenerateError> {
        self.waiting.insert(group, (encoded, rows));
        while let Some((encoded, rows)) = self.waiting.remove(&self.next) {
            self.write(encoded)?;
            self.rows += rows;
            self.next += 1;
        }
        if self.next < self.groups {
            return Ok(false);
        }
        self.finish()?;
        Ok(true)
    }

    fn create(&self) -> Result<(NamedTempFile, Writer), GenerateError> {
        let io = |error: std::io::Error| GenerateError::io(&self.path, &error);
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        builder.prefix(".trireme-generate-").suffix(".tmp");
        // Temporary files are private by default, but the finished file is for everybody whom the umask allows.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let temporary = builder.tempfile_in(folder).map_err(io)?;
        let sink = BufWriter::with_capacity(1 << 20, temporary.as_file().try_clone().map_err(io)?);
        let writer = match self.format {
            Format::Csv => Writer::Csv(sink),
            Format::Parquet => self
                .parquet(sink)
                .map_err(|error| GenerateError::encode(&self.path, error))?,
        };
        Ok((temporary, writer))
    }

    fn parquet(&self, sink: Sink) -> parquet::errors::Result<Writer> {
        let codec = match self.compression {
            Compression::Snappy => Codec::SNAPPY,
            Compression::Zstd => Codec::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?),
            Compression::None => Codec::UNCOMPRESSED,
        };
        let properties = WriterProperties::builder()
            .set_compression(codec)
            .set_created_by(format!("trireme generate {}", self.dataset.name()))
            .build();
        // Without the embedded Arrow schema, readers choose their own type for text instead of the generator's views.
        let options = ArrowWriterOptions::new()
            .with_properties(properties)
            .with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(sink, SchemaRef::clone(&self.schema), options)?;
        let (file, factory) = writer.into_serialized_writer()?;
        Ok(Writer::Parquet {
            file: Box::new(file),
            factory,
            schema: SchemaRef::clone(&self.schema),
        })
    }

    fn write(&mut self, encoded: Encoded) -> Result<(), GenerateError> {
        match (&mut self.open, encoded) {
            (Some((_, Writer::Parquet { file, .. })), Encoded::Parquet(chunks)) => {
                append_chunks(file, chunks).map_err(|error| GenerateError::encode(&self.path, error))
            }
            (Some((_, Writer::Csv(sink))), Encoded::Csv(bytes)) => sink
                .write_all(&bytes)
                .map_err(|error| GenerateError::io(&self.path, &error)),
            _ => Err(GenerateError::Stopped),
        }
    }

    fn finish(&mut self) -> Result<(), GenerateError> {
        let Some((temporary, writer)) = self.open.take() else {
            return Err(GenerateError::Stopped);
        };
        let io = |error: std::io::Error| GenerateError::io(&self.path, &error);
        let mut sink = match writer {
            Writer::Csv(sink) => sink,
            Writer::Parquet { file, .. } => file
                .into_inner()
                .map_err(|error| GenerateError::encode(&self.path, error))?,
        };
        sink.flush().map_err(io)?;
        temporary.as_file().sync_all().map_err(io)?;
        self.bytes = temporary.as_file().metadata().map_err(io)?.len();
        temporary.persist(&self.path).map_err(|error| io(error.error))?;
        Ok(())
    }
}

fn append_chunks(file: &mut SerializedFileWriter<Sink>, chunks: Vec<ArrowColumnChunk>) -> parquet::errors::Result<()> {
    let mut group = file.next_row_group()?;
    for chunk in chunks {
        chunk.append_to_row_group(&mut group)?;
    }
    group.close()?;
    Ok(())
}
