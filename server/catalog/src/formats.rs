//! Which file names are data, and DataFusion's reader for each format.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use datafusion::datasource::file_format::arrow::ArrowFormatFactory;
use datafusion::datasource::file_format::avro::AvroFormatFactory;
use datafusion::datasource::file_format::csv::CsvFormatFactory;
use datafusion::datasource::file_format::json::JsonFormatFactory;
use datafusion::datasource::file_format::parquet::ParquetFormatFactory;
use datafusion::datasource::file_format::{FileFormat as Reader, FileFormatFactory};
use datafusion::execution::SessionState;
use trireme_exec::io::StoreOptions;
use trireme_planner::ddl::FileFormat;

use crate::error::CatalogError;

/// How a data file's content is read, told from its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileKind {
    pub(crate) format: FileFormat,
    /// As the readers name it: `gzip`, `zstd`, `bzip2`, `xz`.
    pub(crate) compression: Option<&'static str>,
    /// Tab-separated.
    pub(crate) tabs: bool,
    /// The end of the file's name, with its dots and as written.
    pub(crate) suffix: String,
}

/// Splits a file name into its stem and its kind; `None` for names that are not data.
pub(crate) fn data_file(name: &str) -> Option<(&str, FileKind)> {
    let (rest, compression) = match name.rsplit_once('.') {
        Some((rest, extension)) => match extension.to_ascii_lowercase().as_str() {
            "gz" => (rest, Some("gzip")),
            "zst" => (rest, Some("zstd")),
            "bz2" => (rest, Some("bzip2")),
            "xz" => (rest, Some("xz")),
            _ => (name, None),
        },
        None => return None,
    };
    let (stem, extension) = rest.rsplit_once('.')?;
    let (format, tabs) = match extension.to_ascii_lowercase().as_str() {
        "parquet" | "parq" => (FileFormat::Parquet, false),
        "csv" => (FileFormat::Csv, false),
        "tsv" => (FileFormat::Csv, true),
        "json" | "jsonl" | "ndjson" => (FileFormat::Json, false),
        "avro" => (FileFormat::Avro, false),
        "arrow" | "arrows" | "ipc" => (FileFormat::Arrow, false),
        _ => return None,
    };
    let compressible = matches!(format, FileFormat::Csv | FileFormat::Json);
    if stem.is_empty() || (compression.is_some() && !compressible) {
        return None;
    }
    Some((
        stem,
        FileKind {
            format,
            compression,
            tabs,
            suffix: name[stem.len()..].to_owned(),
        },
    ))
}

impl FileKind {
    /// What an external table says about its files; their names needn't end in anything.
    pub(crate) fn declared(format: FileFormat, sample: Option<&Self>, suffix: String) -> Self {
        let sample = sample.filter(|kind| kind.format == format);
        Self {
            format,
            compression: sample.and_then(|kind| kind.compression),
            tabs: sample.is_some_and(|kind| kind.tabs),
            suffix,
        }
    }

    /// DataFusion's reader with the table's `format.*` options.
    pub(crate) fn reader(
        &self,
        state: &SessionState,
        options: &BTreeMap<String, String>,
    ) -> Result<Arc<dyn Reader>, CatalogError> {
        let mut all = HashMap::new();
        if let Some(compression) = self.compression {
            all.insert("format.compression".to_owned(), compression.to_owned());
        }
        if self.tabs {
            all.insert("format.delimiter".to_owned(), "\t".to_owned());
        }
        for (key, value) in options.iter().filter(|(key, _)| !StoreOptions::is_store_key(key)) {
            let key = if key.contains('.') {
                key.clone()
            } else {
                format!("format.{key}")
            };
            all.insert(key, value.clone());
        }
        let factory: Arc<dyn FileFormatFactory> = match self.format {
            FileFormat::Parquet => Arc::new(ParquetFormatFactory::new()),
            FileFormat::Csv => Arc::new(CsvFormatFactory::new()),
            FileFormat::Json => Arc::new(JsonFormatFactory::new()),
            FileFormat::Avro => Arc::new(AvroFormatFactory::new()),
            FileFormat::Arrow => Arc::new(ArrowFormatFactory::new()),
            FileFormat::Delta => return Err(CatalogError::invalid("a Delta table is a folder, not a file")),
        };
        Ok(factory.create(state, &all)?)
    }
}

/// The name that statements and listings use.
pub(crate) fn format_name(format: FileFormat) -> &'static str {
    match format {
        FileFormat::Parquet => "parquet",
        FileFormat::Csv => "csv",
        FileFormat::Json => "json",
        FileFormat::Avro => "avro",
        FileFormat::Arrow => "arrow",
        FileFormat::Delta => "delta",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_data_files() {
        let (stem, kind) = data_file("orders.2024.csv.gz").unwrap();
        assert_eq!(
            (stem, kind.format, kind.compression, kind.suffix.as_str()),
            ("orders.2024", FileFormat::Csv, Some("gzip"), ".csv.gz")
        );
        assert_eq!(data_file("Orders.PARQUET").unwrap().1.suffix, ".PARQUET");
        assert!(data_file("x.tsv").unwrap().1.tabs);
        for name in [
            "README.md",
            "x.parquet.gz",
            ".parquet",
            "archive.gz",
            "noextension",
            "x.parquet.crc",
        ] {
            assert!(data_file(name).is_none(), "{name}");
        }
    }
}
